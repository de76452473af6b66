"""Sound front-ends as pure functions: waveform in, tensor out, every number an argument.

No function here knows a model: sample rates, window lengths and bands live in `Preprocess` and are handed in.

```
waveform [channels, samples] -> mono -> resample -> log_mel(mel_bank(...))  -> [mels, frames]         mel.py
waveform [channels, samples] -> gammatone of L, R, L - R                    -> [3, bands, columns]    gammatone.py
waveform [channels, samples] -> average, difference -> STFT -> scalogram    -> [2, filters, frames]   scalogram.py
```
"""

from avzoo.audio.mel import log_mel, mel_bank, mono, resample

__all__ = ["log_mel", "mel_bank", "mono", "resample"]
