"""Arrays of one's own, checked, in the shapes of a clip: `Clip.of` for frames, their times and a waveform.

Each function raises a `MediaError` that says what was given and what is expected.
"""

from __future__ import annotations

from math import inf

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from avzoo.errors import MediaError

LOUDEST = 8.0  # beyond full scale, but not yet another scale


def _tensor(given: ArrayLike | Tensor) -> Tensor:
    """As a tensor; an array is copied only where torch cannot share it (read backwards, not writable)."""
    return (
        given.detach().cpu()
        if isinstance(given, Tensor)
        else torch.from_numpy(np.require(given, requirements=["C", "W"]))
    )


def frames(given: ArrayLike | Tensor) -> Tensor:
    """Frames with either order of their axes as `[time, 3, height, width]`."""
    frames = _tensor(given)
    if frames.dtype != torch.uint8 or frames.ndim != 4 or not frames.numel() or 3 not in frames.shape[1::2]:
        raise MediaError(
            f"the frames are {str(frames.dtype).removeprefix('torch.')} {list(frames.shape)}; expected uint8 (0 to 255)"
            " [time, height, width, 3] or [time, 3, height, width], one frame at least"
        )
    return frames if frames.shape[1] == 3 else frames.permute(0, 3, 1, 2)


def times(count: int, fps: float | None, given: ArrayLike | Tensor | None) -> tuple[Tensor, float]:
    """When each of `count` frames comes on screen, and when the last goes, s."""
    if (fps is None) == (given is None):
        raise MediaError("frames need either fps= (frames per second) or frame_times= (s), and not both")
    if fps is not None:
        if not 0 < fps < inf:
            raise MediaError(f"fps is {fps}; expected a positive number of frames per second")
        return torch.arange(count, dtype=torch.float64) / fps, count / fps
    times = _tensor(given).double()  # type: ignore[arg-type]  # not None: see above
    if times.shape != (count,) or not bool(times.isfinite().all()) or times[0] < 0 or bool((times.diff() <= 0).any()):
        raise MediaError(
            f"frame_times has the shape {list(times.shape)} for {count} frames; expected one time a frame, s, from 0 s"
            " on and each later than the one before"
        )
    step = float(times[-1] - times[0]) / (count - 1) if count > 1 else 0.0
    return times, float(times[-1]) + step


def samples(given: ArrayLike | Tensor, rate: int) -> Tensor:
    """Samples as float32 `[channels, samples]`."""
    waveform = _tensor(given)
    sound = waveform[None] if waveform.ndim == 1 else waveform
    if not sound.is_floating_point() or sound.ndim != 2 or not 0 < sound.shape[0] < sound.shape[1]:
        raise MediaError(
            f"the waveform is {str(waveform.dtype).removeprefix('torch.')} {list(waveform.shape)}; expected float in"
            " [-1, 1], [samples] or [channels, samples] (int16 samples: divide by 32768)"
        )
    if not (rate > 0 and rate == int(rate)):
        raise MediaError(f"the waveform's rate is {rate!r}; expected a whole positive number of Hz")
    if not (peak := float(sound.abs().max())) <= LOUDEST:
        raise MediaError(f"the waveform reaches {peak:g}; expected samples in [-1, 1] (int16 samples: divide by 32768)")
    return sound.float()
