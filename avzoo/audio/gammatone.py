"""The gammatone spectrogram: how loud each band of the inner ear is, window by window; in float64, without gradients.

Source: Slaney, "An Efficient Implementation of the Patterson-Holdsworth Auditory Filter Bank" (Apple TR 35, 1993), as
the PyPI package `gammatone` has it: a band is four second-order sections in series, run over the samples one by one.
Here they run block by block, which gives the same numbers by matrix products. A band's whole memory is eight numbers,
two for each section, so for a block of samples

```
outputs = [samples | memory at the block's start] @ response         all blocks at once
memory at the block's end = samples @ intake + memory @ decay        from block to block: see `_memories`
```
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from avzoo.audio.banks import made_once
from avzoo.errors import AvzooError

# Glasberg and Moore's ear: the equivalent rectangular bandwidth at f Hz is f / EAR_Q + MIN_BANDWIDTH, in Hz.
EAR_Q = 9.26449
MIN_BANDWIDTH = 24.7

# None of these three changes what comes out; they are the fastest on CPU for ten seconds of stereo at 44.1 kHz.
BLOCK = 48  # samples; a longer block costs more per sample, a shorter one has more memories to find
GROUP = 16  # blocks whose memories are found one after the other
BANDS_AT_ONCE = 8  # bands whose memories are found together
MEMORY = 8


def erb_centres(bands: int, f_min: float, f_max: float) -> Tensor:
    """Centre frequencies at equal steps on the ear's own scale (ERB rate), from high to low.

    `f_max` itself is not among them, `f_min` is the last.

    Args:
        bands: how many.
        f_min: lowest centre in Hz, may be 0.
        f_max: upper end of the range in Hz.

    Returns:
        `[bands]` in Hz, float64.

    Raises:
        AvzooError: if there is no band, or the range is empty or below 0.

    >>> [round(hz, 1) for hz in erb_centres(64, 0.0, 22_050.0)[[0, 1, 62, 63]].tolist()]
    [20511.9, 19080.0, 17.0, 0.0]
    """
    if bands < 1 or not 0 <= f_min < f_max:
        raise AvzooError(
            "centre frequencies need bands >= 1 and 0 <= f_min < f_max, "
            f"got bands={bands}, f_min={f_min:g}, f_max={f_max:g}"
        )
    corner = EAR_Q * MIN_BANDWIDTH
    rates = torch.linspace(math.log1p(f_max / corner), math.log1p(f_min / corner), bands + 1, dtype=torch.float64)
    return corner * torch.expm1(rates[1:])


def gammatone(
    waveform: Tensor, *, sample_rate: int, window: int, hop: int, bands: int, f_min: float, f_max: float
) -> Tensor:
    """Root mean square of each gammatone band over a rectangular window, before any dB.

    Equal to `gammatone.gtgram.gtgram` of the PyPI package `gammatone`, upside down: here row 0 is the highest band.
    Trailing samples that do not fill a window are dropped.

    Args:
        waveform: `[..., samples]`.
        sample_rate: Hz.
        window: length of the window in samples.
        hop: step between windows in samples.
        bands: number of filters.
        f_min: centre of the lowest filter in Hz, may be 0.
        f_max: upper end of the range in Hz, see `erb_centres`.

    Returns:
        `[..., bands, columns]`, `columns` being `1 + (samples - window) // hop`; float64 if the waveform is, else
        float32.

    Raises:
        AvzooError: if the waveform is shorter than the window, or a number is out of range.

    >>> numbers = {"sample_rate": 16_000, "window": 640, "hop": 320, "bands": 4, "f_min": 0.0, "f_max": 8000.0}
    >>> gammatone(torch.zeros(2, 16_000), **numbers).shape
    torch.Size([2, 4, 49])
    """
    samples = _covered(waveform, window, hop)
    bank = _bank(sample_rate, bands, f_min, f_max)
    with torch.no_grad():
        signals = waveform[..., :samples].reshape(-1, samples).double()
        levels = torch.stack([_levels(band, window, hop) for band in _filtered(signals, bank)], 1)
    return levels.reshape(*waveform.shape[:-1], *levels.shape[1:]).to(_dtype(waveform))


def binaural_gammatone(
    waveform: Tensor,
    *,
    sample_rate: int,
    window: int,
    hop: int,
    bands: int,
    f_min: float,
    f_max: float,
    columns: int,
    floor: float = 1e-10,
) -> Tensor:
    """Gammatone spectrograms in dB of the left ear, the right ear and left minus right, in this order.

    The clip is first divided by the distance from its smallest to its largest sample, over both channels; a constant
    one, silence among them, is left as it is. A mean is not removed. A mono clip is taken as both ears: the difference
    is then at the floor. The filters are linear, so the difference costs no third filtering.

    Args:
        waveform: `[channels, samples]`, one channel or two (left, right).
        sample_rate: Hz.
        window: length of the window in samples.
        hop: step between windows in samples.
        bands: number of filters.
        f_min: centre of the lowest filter in Hz, may be 0.
        f_max: upper end of the range in Hz, see `erb_centres`.
        columns: how many columns are wanted. A missing last one is the one before it twice (ten seconds in windows of
            40 ms every 20 ms are 499, and 500 is 50 per second); surplus ones are cut.
        floor: the least value before the dB.

    Returns:
        `[3, bands, columns]`, `20 * log10(max(value, floor))` with `value` as in `gammatone`; float64 if the waveform
        is, else float32.

    Raises:
        AvzooError: if the waveform is neither mono nor stereo, is shorter than the window or more than one column
            short, or if a number is out of range.

    >>> numbers = {"sample_rate": 16_000, "window": 640, "hop": 320, "bands": 4, "f_min": 0.0, "f_max": 8000.0}
    >>> silence = binaural_gammatone(torch.zeros(2, 16_000), **numbers, columns=50)
    >>> silence.shape, silence.unique()
    (torch.Size([3, 4, 50]), tensor([-200.]))
    """
    if waveform.ndim != 2 or waveform.shape[0] not in (1, 2):
        raise AvzooError(
            "binaural_gammatone takes a waveform [channels, samples] with one channel or two (left, right), "
            f"got {list(waveform.shape)}; mix more channels down first"
        )
    if columns < 1 or floor <= 0:
        raise AvzooError(f"need columns >= 1 and floor > 0, got columns={columns}, floor={floor}")
    samples = _covered(waveform, window, hop)
    there = 1 + (samples - window) // hop
    if columns > there + 1:
        raise AvzooError(
            f"{columns} columns are wanted and {waveform.shape[-1]} samples make {there} "
            f"(window={window}, hop={hop}); only one may be missing: pad the waveform first"
        )
    bank = _bank(sample_rate, bands, f_min, f_max)
    with torch.no_grad():
        scaled = waveform.double()
        span = scaled.max() - scaled.min()
        scaled = scaled[:, :samples] / torch.where(span > 0, span, 1.0)
        ears = ((band[0], band[-1]) for band in _filtered(scaled, bank))
        levels = [
            torch.stack([_levels(signal, window, hop) for signal in (left, right, left - right)])
            for left, right in ears
        ]
        decibels = 20 * torch.stack(levels, 1).clamp(min=floor).log10()
    return torch.cat([decibels, decibels[..., -1:]], -1)[..., :columns].to(_dtype(waveform))


def scale_crop(crop: Tensor) -> Tensor:
    """A crop stretched to reach from exactly -1 to exactly 1, by one minimum and one maximum over all its channels.

    Args:
        crop: `[..., channels, bands, columns]`, floating point.

    Returns:
        The same shape; a crop that is constant becomes -1.

    Raises:
        AvzooError: if there are fewer than three dimensions or no values.

    >>> scale_crop(torch.tensor([[[-200.0, -50.0, 0.0]]]))
    tensor([[[-1.0000,  0.5000,  1.0000]]])
    """
    if crop.ndim < 3 or crop.numel() == 0:
        raise AvzooError(f"scale_crop takes [..., channels, bands, columns] with values in it, got {list(crop.shape)}")
    raised = crop - crop.amin((-3, -2, -1), keepdim=True)
    top = raised.amax((-3, -2, -1), keepdim=True)
    return 2 * (raised / torch.where(top > 0, top, 1.0) - 0.5)


def _covered(waveform: Tensor, window: int, hop: int) -> int:
    """How many samples the columns reach over."""
    if window < 1 or hop < 1:
        raise AvzooError(f"window and hop are positive numbers of samples, got window={window}, hop={hop}")
    samples = waveform.shape[-1] if waveform.ndim else 0
    if samples < window:
        raise AvzooError(f"one column takes {window} samples, got a waveform {list(waveform.shape)}; pad it first")
    return samples - (samples - window) % hop


def _dtype(waveform: Tensor) -> torch.dtype:
    return torch.float64 if waveform.dtype == torch.float64 else torch.float32


def _levels(filtered: Tensor, window: int, hop: int) -> Tensor:
    """Root mean square over windows: `[..., samples]` -> `[..., columns]`."""
    piece = math.gcd(window, hop)  # no sample is squared twice: a window is put together from its pieces
    norms: Tensor = torch.linalg.vector_norm(filtered.reshape(*filtered.shape[:-1], -1, piece), dim=-1)
    return (norms.square().unfold(-1, window // piece, hop // piece).sum(-1) / window).sqrt()


class _Bank(NamedTuple):
    """The filters as matrices for one block, see the top of this file; high -> low, shared, so do not write into it."""

    response: Tensor  # [bands, BLOCK + MEMORY, BLOCK]
    intake: Tensor  # [bands, BLOCK, MEMORY]
    decay: Tensor  # [bands, MEMORY, MEMORY]


def _filtered(signals: Tensor, bank: _Bank) -> Iterator[Tensor]:
    """The signals `[n, samples]` behind each filter: `bands` tensors of that shape, each written over the last."""
    n, samples = signals.shape
    bank = _Bank(*(matrix.to(signals.device) for matrix in bank))
    blocks = pad(signals, (0, -samples % BLOCK)).view(-1, BLOCK)
    known = torch.cat([blocks, blocks.new_empty(len(blocks), MEMORY)], 1)
    heard = torch.empty_like(blocks)
    for first in range(0, len(bank.decay), BANDS_AT_ONCE):
        response, intake, decay = (matrix[first : first + BANDS_AT_ONCE] for matrix in bank)
        arriving = blocks @ intake.transpose(0, 1).flatten(1)  # [n * blocks, bands * MEMORY]
        arriving = arriving.view(n, -1, len(decay), MEMORY).permute(2, 0, 1, 3)
        memories = _memories(arriving, decay).flatten(1, 2)
        for memory, matrix in zip(memories, response, strict=True):
            known[:, BLOCK:] = memory
            yield torch.mm(known, matrix, out=heard).view(n, -1)[:, :samples]


def _memories(arriving: Tensor, decay: Tensor) -> Tensor:
    """The memory at the start of each block: 0, then `memory = memory @ decay + arriving`, block after block.

    Blocks are gathered in groups. What a whole group leaves behind gives the memory at the start of each group, by
    this very function; then all groups are walked through side by side.

    Args:
        arriving: what each block puts in, `[bands, n, blocks, MEMORY]`.
        decay: what a block leaves of the memory before it, `[bands, MEMORY, MEMORY]`.

    Returns:
        `[bands, n, blocks, MEMORY]`.
    """
    bands, n, blocks, _ = arriving.shape
    length = min(blocks, GROUP)
    grouped = pad(arriving, (0, 0, 0, -blocks % length)).reshape(bands, -1, length, MEMORY)
    memory = torch.zeros_like(grouped[:, :, 0])
    if blocks > length:
        powers = [torch.eye(MEMORY).to(decay).expand_as(decay)]
        for _ in range(length):
            powers.append(powers[-1] @ decay)
        left = grouped.flatten(2) @ torch.cat(powers[-2::-1], 1)
        memory = _memories(left.view(bands, n, -1, MEMORY), powers[-1]).flatten(1, 2)
    memories = torch.empty_like(grouped)
    for i in range(length):
        memories[:, :, i] = memory
        memory = torch.baddbmm(grouped[:, :, i], memory, decay)
    return memories.view(bands, n, -1, MEMORY)[:, :, :blocks]


@made_once
def _bank(sample_rate: int, bands: int, f_min: float, f_max: float) -> _Bank:
    """The responses of the four sections over one block: to a click, and to each of the eight memories alone."""
    if f_max > sample_rate / 2:
        raise AvzooError(
            f"gammatone filters need f_max <= {sample_rate / 2:g} Hz (half the sample rate), got f_max={f_max:g}"
        )
    centres = erb_centres(bands, f_min, f_max)
    angle = 2 * math.pi * centres / sample_rate
    radius = torch.exp(-2 * math.pi * 1.019 * (centres / EAR_Q + MIN_BANDWIDTH) / sample_rate)
    slopes = [sign * math.sqrt(3 + kind * 2**1.5) for kind in (1, -1) for sign in (1, -1)]
    zeros = [radius * (angle.cos() + slope * angle.sin()) for slope in slopes]  # one per section; the poles are shared
    pole = torch.polar(radius, angle)
    centre = torch.polar(torch.ones_like(angle), -angle)  # one sample of delay at the centre frequency
    poles_there = (1 - pole * centre) * (1 - pole.conj() * centre)
    gains = [(poles_there / (1 - zero * centre)).abs()[:, None] for zero in zeros]  # makes each section 1 at the centre

    memory = torch.zeros(bands, 1 + MEMORY, MEMORY, dtype=torch.float64)  # row 0: the click; row 1 + i: unit memory i
    memory[:, 1:] = torch.eye(MEMORY)
    sound = torch.zeros(bands, 1 + MEMORY, dtype=torch.float64)
    sound[:, 0] = 1
    outputs, memories = [], []
    for _ in range(BLOCK):
        parts = []
        for section, (gain, zero) in enumerate(zip(gains, zeros, strict=True)):  # transposed direct form II
            incoming = gain * sound
            sound = incoming + memory[..., 2 * section]
            parts.append(2 * pole.real[:, None] * sound - zero[:, None] * incoming + memory[..., 2 * section + 1])
            parts.append(-(radius**2)[:, None] * sound)
        memory = torch.stack(parts, -1)
        outputs.append(sound)
        memories.append(memory)
        sound = torch.zeros_like(sound)
    heard = torch.stack(outputs, -1)  # [bands, 1 + MEMORY, BLOCK]
    delayed = [pad(heard[:, :1, : BLOCK - i], (i, 0)) for i in range(BLOCK)]
    return _Bank(
        response=torch.cat([*delayed, heard[:, 1:]], 1),
        intake=torch.stack([left[:, 0] for left in reversed(memories)], 1),
        decay=memories[-1][:, 1:].contiguous(),
    )
