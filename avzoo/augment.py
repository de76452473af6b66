"""Augmented views of a clip, seeded: the same clip and key give the same view, so that its features can be cached.

Applied to the decoded clip, before the one signal path: what a view changes is what a camera and a microphone change.
"""

from __future__ import annotations

import dataclasses
import hashlib

import torch
from torch import Tensor

from avzoo.clip import Clip

AUGMENT_VERSION = 1  # raise it whenever a key leads to another view: cached views are then made anew


def augment(clip: Clip, key: str) -> Clip:
    """The view of a clip that a key names.

    Picture: one crop of at least 60 % of the area for the whole clip, a flip, brightness, contrast, saturation and
    hue. Sound: gain within 8 dB, a spectral tilt within 6 dB, noise 15 to 45 dB below the sound.

    Args:
        clip: What `read_clip` gave; times and lengths stay as they are.
        key: Any text; usually the clip's id and the number of the view.
    """
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1
    generator = torch.Generator().manual_seed(seed)
    return dataclasses.replace(clip, frames=_picture(clip.frames, generator), waveform=_sound(clip.waveform, generator))


def _between(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _picture(frames: Tensor, generator: torch.Generator) -> Tensor:
    """One crop, flip and colour change of `[time, 3, height, width]`, the same for all frames."""
    from torchvision.transforms.v2 import functional as F

    height, width = frames.shape[-2:]
    side = _between(0.6, 1.0, generator) ** 0.5
    stretch = _between(0.9, 1.1, generator)
    crop_h = max(1, min(height, round(height * side * stretch)))
    crop_w = max(1, min(width, round(width * side / stretch)))
    top = int(_between(0, height - crop_h + 1, generator))
    left = int(_between(0, width - crop_w + 1, generator))
    frames = frames[..., top : top + crop_h, left : left + crop_w]
    if _between(0, 1, generator) < 0.5:
        frames = frames.flip(-1)
    frames = F.adjust_brightness(frames, _between(0.7, 1.3, generator))
    frames = F.adjust_contrast(frames, _between(0.7, 1.3, generator))
    frames = F.adjust_saturation(frames, _between(0.6, 1.4, generator))
    frames = F.adjust_hue(frames, _between(-0.05, 0.05, generator))
    return frames  # noqa: RET504 - torchvision's functions are untyped


def _sound(waveform: Tensor, generator: torch.Generator) -> Tensor:
    """Gain, tilt and noise on `[channels, samples]`."""
    spectrum = torch.fft.rfft(waveform)
    tilt = _between(-6, 6, generator) * torch.linspace(-0.5, 0.5, spectrum.shape[-1])  # dB
    gain = _between(-8, 8, generator)  # dB
    waveform = torch.fft.irfft(spectrum * 10 ** ((tilt + gain) / 20), waveform.shape[-1])
    level = waveform.square().mean().sqrt().clamp(min=1e-4)
    noise = torch.randn(waveform.shape, generator=generator)
    return waveform + noise * level * 10 ** (-_between(15, 45, generator) / 20)
