"""What is asked of a media file, `Window`, and what comes back, `Clip`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from avzoo.clip import arrays
from avzoo.errors import MediaError

SILENCE_RATE = 16_000  # Hz, of the silence that stands in for a missing audio stream
SILENT = 1e-3  # of full scale (-60 dB), what a sound stays below that nobody hears
BLACK = 16  # of 255, likewise for pictures
TOLERANCE = 0.5  # s that a file may fall short of its declared length without counting as damaged


@dataclass(frozen=True)
class DecodeStats:
    """What a `read_clip` cost and what went wrong on the way; `fallback` is empty where the GOP plan worked."""

    packets: int = 0  # demuxed, of both streams
    sent: int = 0  # video packets given to the decoder
    decoded: int = 0  # pictures that came out of it
    converted: int = 0  # pictures converted to RGB
    errors: int = 0  # packets that could not be read or decoded
    fallback: str = ""  # why the window was decoded sequentially


@dataclass(frozen=True)
class Clip:
    """One window of a media file, decoded; or pictures and sound of one's own (`Clip.of`), read as a file is.

    Attributes:
        frames: uint8 `[time, 3, height, width]`, RGB, upright (rotation metadata applied); channels last in memory.
        frame_times: float64 `[time]`, s: the instants asked for, counted from `start`.
        waveform: float32 `[channels, samples]` in [-1, 1], `round(seconds * sample_rate)` samples long.
        sample_rate: Hz, as in the file; 0 where no sound was asked for.
        id: stem of the file's name.
        start: s, where in the file the window begins.
        padded: s of the window that the file does not have (shorter than the window, or damaged).
        damage: a sentence that says what is missing, where `on_damage="pad"` let it pass; else empty.
        stats: work counters.
        seconds: how long it lasts.
    """

    frames: Tensor
    frame_times: Tensor
    waveform: Tensor
    sample_rate: int
    id: str
    start: float = 0.0
    padded: float = 0.0
    damage: str = ""
    stats: DecodeStats = field(default_factory=DecodeStats)
    seconds: float = 0.0

    @property
    def empty(self) -> set[str]:
        """Its tracks without content: "silent" for the sound, "black" for the pictures."""
        silent = self.waveform.numel() and self.waveform.abs().max() < SILENT
        black = self.frames.numel() and self.frames.max() < BLACK
        return {name for name, found in (("silent", silent), ("black", black)) if found}

    @classmethod
    def of(
        cls,
        frames: ArrayLike | Tensor | None = None,
        waveform: ArrayLike | Tensor | None = None,
        rate: int = 0,
        *,
        fps: float | None = None,
        frame_times: ArrayLike | Tensor | None = None,
        id: str = "clip",
    ) -> Clip:
        """Take arrays for what `avzoo.predict` and `avzoo.stream` take files for.

        Args:
            frames: uint8 RGB, `[time, height, width, 3]` or `[time, 3, height, width]`; None where there are none.
            waveform: float in [-1, 1], `[samples]` or `[channels, samples]`; None where there is none.
            rate: Of the waveform, Hz.
            fps: Of the frames, the first of which is at 0 s.
            frame_times: When each frame comes on screen, s, rising; in place of `fps`. The last one stays for as long
                as the others did on average.
            id: What answers call it.

        Raises:
            MediaError: If nothing is given, or something of another shape, type or range.

        >>> import numpy as np
        >>> Clip.of(np.zeros((50, 48, 64, 3), np.uint8), np.zeros(32_000), 16_000, fps=25).frames.shape
        torch.Size([50, 3, 48, 64])
        """
        if frames is None and waveform is None:
            raise MediaError("Clip.of was given neither frames nor a waveform; expected one of them at least")
        pictures, times, shown = torch.zeros(0, 3, 0, 0, dtype=torch.uint8), torch.zeros(0, dtype=torch.float64), 0.0
        if frames is not None:
            pictures = arrays.frames(frames)
            times, shown = arrays.times(len(pictures), fps, frame_times)
        sound, heard = torch.zeros(0, 0), 0.0
        if waveform is not None:
            sound = arrays.samples(waveform, rate)
            heard = sound.shape[1] / rate
        return cls(pictures, times, sound, rate if heard else 0, id, seconds=max(shown, heard))


@dataclass(frozen=True)
class Window:
    """What is wanted of one file: the arguments of `read_clip`."""

    start: float
    seconds: float
    times: tuple[float, ...]
    audio: bool
    on_missing_audio: Literal["error", "silence"]
    sequential: bool

    def clip(self, id: str) -> Clip:
        """The window with nothing in it yet: no pictures, and silence where sound is wanted."""
        return Clip(
            frames=torch.zeros(0, 3, 0, 0, dtype=torch.uint8),
            frame_times=torch.tensor(self.times, dtype=torch.float64),
            waveform=torch.zeros(1, round(self.seconds * SILENCE_RATE)) if self.audio else torch.zeros(0, 0),
            sample_rate=SILENCE_RATE if self.audio else 0,
            id=id,
            start=self.start,
            seconds=self.seconds,
        )

    def check(self, path: Path, *, video: bool, audio: bool, duration: float) -> None:
        """Raise `MediaError` where a file with these streams and this length cannot give what is wanted."""
        if self.times and not video:
            raise MediaError(f"{path}: has no video stream that can be decoded, and pictures were asked for")
        if self.audio and not audio and self.on_missing_audio == "error":
            raise MediaError(
                f'{path}: has no audio stream that can be decoded; on_missing_audio="silence" reads it as silent, '
                'audio_path= takes the sound from another file, modality="visual" does without'
            )
        if 0 < duration <= self.start:
            raise MediaError(f"{path}: the window begins at {self.start:g} s, but the file is {duration:.2f} s long")


def shortfall(path: Path, lost: dict[str, float]) -> str:
    """A sentence on the seconds lost of each stream; empty where they are within the tolerance."""
    parts = [f"{seconds:.1f} s of the {what}" for what, seconds in lost.items() if seconds > TOLERANCE]
    return f"{path}: {' and '.join(parts)} are missing (the file is damaged or cut short)" if parts else ""
