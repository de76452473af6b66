"""Long-term spectra: the magnitude of a half-second window, gathered by wavelet or mel filters.

"Audio-Visual Scene Classification Using A Transfer Learning Based Joint Optimization Strategy", Chen, Wang, Zhang,
2022, https://arxiv.org/abs/2204.11420. Its sound input in four calls:

```
average_difference(stereo at 16 kHz)                          [2, samples]
long_term_spectrum(.., scalogram_bank(), n_fft=8192, ...)     [2, 290, frames]   the "scalogram"
long_term_spectrum(.., fbank_bank(), n_fft=8192, ...)         [2, 256, frames]   the "FBank"
frame_seconds(frames, window=8192, hop=2736, ...)             [frames]           which second a frame belongs to
```

The paper gives the window (512 ms), the hop (171 ms), the rate and the numbers 290 and 256, and lays the filters
over the STFT as mel filters are. It does not define the wavelets. Chosen: ScatNet's bank for a window of 8192 samples,
the one setting of that bank that has 290 filters; two other conventions that reach 290 are options. Also chosen: Hann
window, natural logarithm, average (L + R) / 2 and difference L - R.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import pad

from avzoo.audio.banks import made_once
from avzoo.audio.framing import magnitudes
from avzoo.audio.mel import mel_bank
from avzoo.errors import AvzooError

WaveletBank: TypeAlias = Literal["scatnet", "geometric", "kymatio"]


def average_difference(waveform: Tensor) -> Tensor:
    """The average (L + R) / 2 and the difference L - R of a stereo waveform.

    Mono is its own average, and its difference is zero: what a stereo file with two equal channels gives.

    Args:
        waveform: `[..., channels, samples]` with one or two channels.

    Returns:
        `[..., 2, samples]`.

    Raises:
        AvzooError: if there is no channel axis, or neither one nor two channels.

    >>> average_difference(torch.tensor([[1.0, 3.0], [3.0, 5.0]]))
    tensor([[ 2.,  4.],
            [-2., -2.]])
    """
    channels = waveform.shape[-2] if waveform.ndim >= 2 else 0
    if channels not in (1, 2):
        raise AvzooError(
            f"average and difference take a waveform [..., channels, samples] with 1 or 2 channels, "
            f"got {list(waveform.shape)}; mix it down to two channels first"
        )
    left, right = waveform.select(-2, 0), waveform.select(-2, -1)
    return torch.stack([(left + right) / 2, left - right], -2)


def long_term_spectrum(waveform: Tensor, bank: Tensor, *, n_fft: int, window: int, hop: int, offset: float) -> Tensor:
    """`log(bank x |STFT| + offset)`: one Fourier transform for the whole batch, one matrix product.

    Natural logarithm; the frames are those of `avzoo.audio.framing.magnitudes`.

    Args:
        waveform: `[..., samples]`, float.
        bank: filters `[filters, n_fft // 2 + 1]`, see `scalogram_bank` and `fbank_bank`.
        n_fft: length of the Fourier transform in samples.
        window: length of the window in samples, at most `n_fft`; a shorter one is followed by zeros.
        hop: step between frames in samples.
        offset: added before the logarithm, positive.

    Returns:
        `[..., filters, 1 + (samples - window) // hop]`, of the waveform's dtype and device.

    Raises:
        AvzooError: if the bank does not fit `n_fft`, a number is out of range, or the waveform is shorter than one
            window.

    >>> clip = torch.zeros(2, 160_000)
    >>> long_term_spectrum(clip, scalogram_bank(), n_fft=8192, window=8192, hop=2736, offset=1e-8).shape
    torch.Size([2, 290, 56])
    """
    if bank.ndim != 2 or bank.shape[1] != n_fft // 2 + 1:
        raise AvzooError(f"n_fft={n_fft} needs a bank [filters, {n_fft // 2 + 1}], got {list(bank.shape)}")
    if offset <= 0:
        raise AvzooError(f"offset keeps the logarithm finite: expected a positive number, got {offset}")
    spectrum = magnitudes(waveform, n_fft=n_fft, window=window, hop=hop)
    # einsum: `bank @ spectrum` takes a product for every item, which on one-second segments doubles the whole call.
    gathered = torch.einsum("fk,bkt->bft", bank.to(spectrum), spectrum)
    return torch.log(gathered + offset).reshape(*waveform.shape[:-1], *gathered.shape[1:])


def frame_seconds(frames: int, *, window: int, hop: int, sample_rate: int) -> Tensor:
    """The second that holds the middle of each frame of `long_term_spectrum`.

    Args:
        frames: number of frames.
        window: length of the window in samples.
        hop: step between frames in samples.
        sample_rate: Hz.

    Returns:
        `[frames]`, int64, from 0.

    Raises:
        AvzooError: if a number is not positive (`frames` may be 0).

    >>> frame_seconds(8, window=8192, hop=2736, sample_rate=16_000)
    tensor([0, 0, 0, 0, 0, 1, 1, 1])
    """
    if frames < 0 or window <= 0 or hop <= 0 or sample_rate <= 0:
        raise AvzooError(
            f"need frames >= 0 and window, hop and sample_rate > 0, "
            f"got frames={frames}, window={window}, hop={hop}, sample_rate={sample_rate}"
        )
    return (2 * hop * torch.arange(frames) + window) // (2 * sample_rate)


@made_once
def fbank_bank(
    filters: int = 256, *, n_fft: int = 8192, sample_rate: int = 16_000, f_min: float = 0.0, f_max: float = 8000.0
) -> Tensor:
    """The mel filters of the long-term FBank: HTK scale, peak 1; the result is cached, so do not write into it.

    The paper gives the number 256; scale, range and norm are chosen. With the defaults the narrowest filter holds 7
    bins; torchaudio warns where a filter is too narrow to hold one.

    Args:
        filters: number of filters.
        n_fft: length of the Fourier transform in samples.
        sample_rate: Hz.
        f_min: lower edge of the first filter in Hz.
        f_max: upper edge of the last filter in Hz.

    Returns:
        `[filters, n_fft // 2 + 1]`, float32, rows from low to high.

    Raises:
        AvzooError: if the range is not within 0 and half the sample rate.

    >>> fbank_bank().shape
    torch.Size([256, 4097])
    """
    return mel_bank(sample_rate=sample_rate, n_fft=n_fft, n_mels=filters, f_min=f_min, f_max=f_max).T.contiguous()


@made_once
def scalogram_bank(*, bank: WaveletBank = "scatnet", filters: int = 290, n_fft: int = 8192) -> Tensor:
    """Morlet wavelets as a matrix over the bins of an STFT; the result is cached, so do not write into it.

    A bank depends on the length of the window in samples alone, not on the sample rate. The figures are for 290
    filters over 8192 samples at 16 kHz.

    * `"scatnet"`: ScatNet's `morlet_filter_bank_1d` (Andén and Mallat, 2014) for a support of `n_fft` samples, its
      band-pass filters without the low-pass. 232 at 41 per octave down to 159.73 Hz, from there 58 of one width
      (1.49 Hz, 0.76 bin) and spaced linearly down to 2.70 Hz, so that no filter is longer than the window. Scaled
      so that the squares of the constant-Q rows add up to 2 at most: nearly a tight frame. Departure from ScatNet:
      negative frequencies are left out.
    * `"geometric"`: `filters - 1` of constant Q spread evenly over nine octaves, 7740 to 15.1 Hz, and a low-pass for
      what is below, all of peak 1. 106 of the 289 are narrower than a bin (standard deviation 0.10 bin at least): 32
      lie between two bins and see less than half, and only 246 of the 290 rows have a peak of their own.
    * `"kymatio"`: kymatio's `scattering_filter_factory` with 2**J = T = `n_fft` and no padding, each filter of l1 norm
      1 over time, which lifts a row between two bins back to a peak of 0.79. Its constant-Q filters, at 290 the
      frequencies and widths of `"geometric"`, and its low-pass, which is bin 0 alone: no row covers bins 1 to 7 (2 to
      14 Hz). Departure from kymatio: its 31 linearly spaced filters are left out; with them no setting has 290.

    Args:
        bank: the convention, see above.
        filters: number of rows; `"scatnet"` and `"kymatio"` have only those numbers that 1 to 64 filters per octave
            give.
        n_fft: length of the Fourier transform in samples, even.

    Returns:
        `[filters, n_fft // 2 + 1]`, float32, not negative, rows from low to high.

    Raises:
        AvzooError: if the bank is unknown, does not come with that many filters, or `n_fft` is odd or under 64.

    >>> scalogram_bank().shape
    torch.Size([290, 4097])
    """
    centres, widths = centres_and_widths(bank, filters, n_fft)
    rows = _morlets(centres, widths, n_fft)
    if bank == "scatnet":
        # the constant-Q rows are those wider than the linear ones, and the lowest of them, which is as wide
        constant_q = int((widths == widths[0]).sum()) - 1
        rows *= (2 / rows[constant_q:].square().sum(0).max()).sqrt()
    if bank == "kymatio":
        rows /= torch.fft.ifft(rows).abs().sum(1, keepdim=True)
    return rows[:, : n_fft // 2 + 1].float().contiguous()


def centres_and_widths(bank: str, filters: int, n_fft: int) -> tuple[Tensor, Tensor]:
    """Centres and standard deviations of the Gaussians in bins, `[filters]` each, from low to high, float64.

    A low-pass has its centre at 0. Arguments and errors are those of `scalogram_bank`.
    """
    if n_fft < 64 or n_fft % 2:
        raise AvzooError(f"a wavelet bank needs an even n_fft of 64 samples or more, got {n_fft}")
    if bank == "scatnet":
        # n_fft // 4: beyond it not even one filter is of constant Q
        sizes = {q: sum(_scatnet_sizes(q, n_fft)) for q in range(1, min(64, n_fft // 4) + 1)}
        return _scatnet(_per_octave(bank, filters, n_fft, sizes), n_fft)
    if bank == "kymatio":
        # its narrowest filter and its low-pass have a standard deviation of 0.1 / 2**J cycles per sample, 0.1 bin here
        sizes = {q: 1 + math.ceil(q * math.log2(_highest(q) * _relative_width(q) * n_fft / 0.1)) for q in range(1, 65)}
        return _constant_q(filters - 1, _per_octave(bank, filters, n_fft, sizes), n_fft, low_pass=0.1)
    if bank == "geometric":
        if filters < 11:
            raise AvzooError(f"the geometric bank takes 11 filters or more (nine octaves, both ends), got {filters}")
        per_octave = (filters - 2) / 9
        lowest = _highest(per_octave) * n_fft / 2**9
        # the low-pass meets the lowest wavelet as wavelets meet one another, at 1 / sqrt(2)
        return _constant_q(filters - 1, per_octave, n_fft, low_pass=lowest / math.sqrt(math.log(2)))
    raise AvzooError(f"a wavelet bank is 'scatnet', 'geometric' or 'kymatio', got {bank!r}")


def _per_octave(bank: str, filters: int, n_fft: int, sizes: dict[int, int]) -> int:
    """The filters per octave that make a bank of `filters`; `sizes` has the number of filters that each makes."""
    for q, size in sizes.items():
        if size == filters:
            return q
    nearest = sorted(sorted(set(sizes.values()), key=lambda size: abs(size - filters))[:3])
    raise AvzooError(
        f"no {bank} bank over n_fft={n_fft} has {filters} filters; the nearest numbers are "
        f"{', '.join(map(str, nearest))}, and bank='geometric' takes any from 11"
    )


def _scatnet_sizes(q: int, n_fft: int) -> tuple[int, int]:
    """How many filters are of constant Q (ScatNet's J) and how many are spaced linearly (its P)."""
    ratio = 2 ** (-1 / q)
    return 1 + round(math.log2(n_fft / (4 * q)) * q), round((ratio - _low_pass_edge(q)) / (1 - ratio))


def _low_pass_edge(q: int) -> float:
    """ScatNet's `sigma0 / (4 * sigma_phi)` with its default widths: where the linear filters end."""
    return (1 - 2 ** (-1 / q)) / 2 * (2 if q == 1 else 1)  # 2 or 1: its phi_bw_multiplier


def _scatnet(q: int, n_fft: int) -> tuple[Tensor, Tensor]:
    constant_q, linear = _scatnet_sizes(q, n_fft)
    ratio = 2 ** (-1 / q)
    powers = ratio ** torch.arange(constant_q, dtype=torch.float64)
    centres = n_fft / 4 * (1 + ratio) * powers  # the highest lies midway between half the rate and the step below
    widths = n_fft * math.sqrt(3) * (1 - ratio) / (2 * math.pi) * powers
    span = n_fft / 2 * ratio ** (constant_q - 1) * (ratio - _low_pass_edge(q))
    below = centres[-1] - span * torch.arange(1, linear + 1, dtype=torch.float64) / max(linear, 1)
    return torch.cat([centres, below]).flip(0), torch.cat([widths, widths[-1].expand(linear)]).flip(0)


def _highest(q: float) -> float:
    """Centre of the highest filter of constant Q in cycles per sample: kymatio's `compute_xi_max`."""
    return max(1 / (1 + 2 ** (3 / q)), 0.35)


def _relative_width(q: float) -> float:
    """Standard deviation over centre, so that neighbours meet at 1 / sqrt(2): kymatio's `compute_sigma_psi`."""
    return math.tanh(math.log(2) / (2 * q)) / math.sqrt(math.log(2))


def _constant_q(count: int, q: float, n_fft: int, *, low_pass: float) -> tuple[Tensor, Tensor]:
    """`count` filters down from `_highest`, `q` per octave, and below them a low-pass of that width in bins."""
    centres = _highest(q) * n_fft * 2 ** (-torch.arange(count - 1, -1, -1, dtype=torch.float64) / q)
    return pad(centres, (1, 0)), pad(centres * _relative_width(q), (1, 0), value=low_pass)


def _morlets(centres: Tensor, widths: Tensor, n_fft: int) -> Tensor:
    """Fourier transforms of Morlet wavelets of peak 1, `[filters, n_fft]`: periodic Gaussians that are 0 at bin 0.

    A row with centre 0 keeps its bin 0: it is the low-pass.
    """
    bins = torch.arange(n_fft, dtype=torch.float64)
    centres, widths = centres[:, None], widths[:, None]

    def periodic(centre: Tensor) -> Tensor:
        return sum(
            (torch.exp(-(((bins - n_fft * period - centre) / widths) ** 2) / 2) for period in (-1, 0, 1, 2)),
            start=torch.zeros(()),
        )

    gabor, low = periodic(centres), periodic(torch.zeros(()))
    return torch.where(centres > 0, gabor - gabor[:, :1] / low[:, :1] * low, gabor)
