"""From a clip to the input of a model: `Preprocess`, the numbers; `Preprocessor`, the one path that applies them.

`avzoo extract`, `avzoo fit` and `avzoo predict` all go through `Preprocessor`, and the numbers travel inside every
checkpoint. Whatever is deterministic and frozen happens here, so that it can be cached under
`Preprocess.fingerprint(modality)`; whatever trains is in a model.

```
Clip.waveform [channels, samples]
  log_mel    mono, resampled, cut into segments -> log-mel -> audio backbone   -> [segments, features]
  gammatone  resampled -> gammatone of L, R, L - R, dB                         -> [segments, 3, bands, columns]
  scalogram  average and difference, resampled, cut into segments
  | fbank      -> long-term STFT -> wavelet | mel bank, log                    -> [segments, frames, 2, bands]
Clip.frames [time, 3, height, width] -> resize
  segment    normalise -> image backbone -> mean over a segment's frames       -> [segments, features]
  frame      normalise -> image backbone                                       -> [segments, frames, features]
  image      uint8: the model holds the backbone                               -> [segments, frames, 3, size, size]
```

The numbers are in `numbers.py`, the path in `preprocessor.py`, and what it makes in `batch.py`.
"""

from avzoo.preprocess.batch import Batch, PictureBatch, Sample, SoundBatch
from avzoo.preprocess.numbers import Preprocess
from avzoo.preprocess.preprocessor import Preprocessor, normalise, read_window

__all__ = ["Batch", "PictureBatch", "Preprocess", "Preprocessor", "Sample", "SoundBatch", "normalise", "read_window"]
