"""Mono, resampling and the log-mel spectrogram; differentiable, batched over leading dimensions, on any device."""

from __future__ import annotations

from typing import Literal

import torch
import torchaudio.functional
from torch import Tensor

from avzoo.audio.banks import made_once
from avzoo.audio.framing import magnitudes
from avzoo.errors import AvzooError


def mono(waveform: Tensor) -> Tensor:
    """The mean over channels.

    Args:
        waveform: `[channels, samples]`.

    Returns:
        `[samples]`.

    Raises:
        AvzooError: if the waveform is not two-dimensional or has no channel.

    >>> mono(torch.tensor([[1.0, 3.0], [3.0, 5.0]]))
    tensor([2., 4.])
    """
    if waveform.ndim != 2 or waveform.shape[0] == 0:
        raise AvzooError(
            f"mono takes a waveform [channels, samples] with at least one channel, got {list(waveform.shape)}"
        )
    return waveform.mean(0)


def resample(waveform: Tensor, orig_hz: int, new_hz: int) -> Tensor:
    """The waveform at another sample rate, by windowed-sinc interpolation.

    Source: `torchaudio.functional.resample` with its defaults (Hann window, 6 zero crossings, roll-off 0.99).

    Args:
        waveform: `[..., samples]` at `orig_hz`.
        orig_hz: rate of the input in Hz.
        new_hz: rate wanted in Hz.

    Returns:
        `[..., ceil(samples * new_hz / orig_hz)]`; the input itself where the rates are equal.

    Raises:
        AvzooError: if a rate is not positive or the waveform has no samples.

    >>> resample(torch.zeros(2, 44_100), 44_100, 16_000).shape
    torch.Size([2, 16000])
    """
    if orig_hz <= 0 or new_hz <= 0:
        raise AvzooError(f"sample rates are positive numbers of Hz, got {orig_hz} -> {new_hz}")
    if waveform.ndim == 0 or waveform.shape[-1] == 0:
        raise AvzooError(f"resample takes a waveform [..., samples] with samples, got {list(waveform.shape)}")
    if orig_hz == new_hz:
        return waveform
    resampled: Tensor = torchaudio.functional.resample(waveform, orig_hz, new_hz)
    return resampled


@made_once
def mel_bank(
    *,
    sample_rate: int,
    n_fft: int,
    n_mels: int,
    f_min: float,
    f_max: float,
    linear_in: Literal["hz", "mel"] = "hz",
) -> Tensor:
    """Triangular mel filters as a matrix; the result is cached and shared, so do not write into it.

    HTK's mel scale, every triangle of height 1. Source: `torchaudio.functional.melscale_fbanks`, equal to
    `librosa.filters.mel`, whose triangles are straight over Hz. AudioSet's models (VGGish, YAMNet) draw theirs straight
    over mel and leave the DC bin out: `linear_in="mel"` (`spectrogram_to_mel_matrix` in their `mel_features.py`).

    Args:
        sample_rate: Hz.
        n_fft: length of the Fourier transform in samples.
        n_mels: number of filters.
        f_min: lower edge of the first filter in Hz.
        f_max: upper edge of the last filter in Hz.
        linear_in: the axis on which a triangle's sides are straight.

    Returns:
        `[n_fft // 2 + 1, n_mels]`, float32.

    Raises:
        AvzooError: if the range is not within 0 and half the sample rate.

    >>> mel_bank(sample_rate=16_000, n_fft=512, n_mels=64, f_min=125.0, f_max=7500.0).shape
    torch.Size([257, 64])
    """
    if not 0 <= f_min < f_max <= sample_rate / 2:
        raise AvzooError(
            f"mel filters need 0 <= f_min < f_max <= {sample_rate / 2:g} Hz (half the sample rate), "
            f"got f_min={f_min:g}, f_max={f_max:g}"
        )
    if linear_in == "hz":
        bank: Tensor = torchaudio.functional.melscale_fbanks(n_fft // 2 + 1, f_min, f_max, n_mels, sample_rate)
        return bank
    # float64: the AudioSet code builds its matrix in it.
    bins = _hz_to_htk(torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64))[:, None]
    low, high = _hz_to_htk(torch.tensor([f_min, f_max], dtype=torch.float64)).tolist()
    edges = torch.linspace(low, high, n_mels + 2, dtype=torch.float64)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    triangles = torch.minimum(rising, falling).clamp(min=0)
    triangles[0] = 0
    return triangles.float()


def log_mel(waveform: Tensor, bank: Tensor, *, n_fft: int, win_length: int, hop_length: int, offset: float) -> Tensor:
    """`log(mel filters x |STFT| + offset)`, natural logarithm; the frames are AudioSet's, see `framing.magnitudes`.

    Args:
        waveform: `[..., samples]`.
        bank: mel filters `[n_fft // 2 + 1, mels]`, see `mel_bank`.
        n_fft: length of the Fourier transform in samples.
        win_length: length of the window in samples, at most `n_fft`.
        hop_length: step between frames in samples.
        offset: added before the logarithm, positive.

    Returns:
        `[..., mels, 1 + (samples - win_length) // hop_length]`.

    Raises:
        AvzooError: if the bank does not fit `n_fft`, the numbers make no frame, or `offset` is not positive.

    >>> bank = mel_bank(sample_rate=16_000, n_fft=512, n_mels=64, f_min=125.0, f_max=7500.0, linear_in="mel")
    >>> log_mel(torch.zeros(2, 16_000), bank, n_fft=512, win_length=400, hop_length=160, offset=0.01).shape
    torch.Size([2, 64, 98])
    """
    if bank.ndim != 2 or bank.shape[0] != n_fft // 2 + 1:
        raise AvzooError(f"n_fft={n_fft} needs a bank [{n_fft // 2 + 1}, mels], got {list(bank.shape)}")
    if offset <= 0:
        raise AvzooError(f"offset keeps the logarithm finite: expected a positive number, got {offset}")
    spectrum = magnitudes(waveform, n_fft=n_fft, window=win_length, hop=hop_length)
    mel = torch.log(bank.to(spectrum).T @ spectrum + offset)
    return mel.reshape(*waveform.shape[:-1], *mel.shape[-2:])


def _hz_to_htk(hz: Tensor) -> Tensor:
    return 1127.0 * torch.log1p(hz / 700.0)
