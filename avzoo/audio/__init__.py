"""Sound front-ends as pure functions: waveform in, tensor out, every number an argument.

No function here knows a model: sample rates, window lengths and bands live in `Preprocess` and are handed in.

```
waveform [channels, samples] -> mono -> resample -> log_mel(mel_bank(...))  -> [mels, frames]         mel.py
waveform [channels, samples] -> gammatone of L, R, L - R                    -> [3, bands, columns]    gammatone.py
waveform [channels, samples] -> average, difference -> STFT -> scalogram    -> [2, filters, frames]   scalogram.py
```

`framing.py` has the Fourier transform that two of them share, `banks.py` makes the filters of all three once.
"""

from avzoo.audio.gammatone import binaural_gammatone, erb_centres, gammatone, scale_crop
from avzoo.audio.mel import log_mel, mel_bank, mono, resample
from avzoo.audio.scalogram import average_difference, fbank_bank, frame_seconds, long_term_spectrum, scalogram_bank

__all__ = [
    "average_difference",
    "binaural_gammatone",
    "erb_centres",
    "fbank_bank",
    "frame_seconds",
    "gammatone",
    "log_mel",
    "long_term_spectrum",
    "mel_bank",
    "mono",
    "resample",
    "scale_crop",
    "scalogram_bank",
]
