"""The Fourier transform that log-mel and long-term spectra share."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from avzoo.errors import AvzooError


def magnitudes(waveform: Tensor, *, n_fft: int, window: int, hop: int) -> Tensor:
    """`|STFT|`, by a periodic Hann window.

    Frame `i` is exactly the samples `[i * hop, i * hop + window)`: no sample is made up at the ends, and trailing
    samples that do not fill a window are dropped.

    Args:
        waveform: `[..., samples]`, float.
        n_fft: length of the Fourier transform in samples.
        window: length of the window in samples, at most `n_fft`; a shorter one is followed by zeros.
        hop: step between frames in samples.

    Returns:
        `[items, n_fft // 2 + 1, 1 + (samples - window) // hop]`, the leading dimensions of the waveform being one.

    Raises:
        AvzooError: if a number is out of range, or the waveform is shorter than one window.

    >>> magnitudes(torch.zeros(2, 16_000), n_fft=512, window=400, hop=160).shape
    torch.Size([2, 257, 98])
    """
    if not 0 < window <= n_fft or hop <= 0:
        raise AvzooError(f"need 0 < window <= n_fft={n_fft} and hop > 0, got window={window}, hop={hop}")
    samples = waveform.shape[-1] if waveform.ndim else 0
    if samples < window:
        raise AvzooError(
            f"one window takes {window} samples, got a waveform {list(waveform.shape)}; "
            f"take a longer clip or pad it with zeros first"
        )
    hann = torch.hann_window(window, dtype=waveform.dtype, device=waveform.device)
    flat = waveform.reshape(-1, samples)
    if window < n_fft:  # torch.stft would centre the window within n_fft and lose the last frame
        hann, flat = pad(hann, (0, n_fft - window)), pad(flat, (0, n_fft - window))
    return torch.stft(flat, n_fft, hop, window=hann, center=False, return_complex=True).abs()
