"""Answers second by second while the input still comes: a file being written, a camera, arrays.

```
source -> pieces (live.py) -> clips of one segment -> features -> the last `preprocess.seconds` of them -> the model
```

A segment is answered as soon as it has come, by a model that sees it last: the window ends with it. So the answer is
that of `avzoo.predict` for a file that ends there, the first segments being padded alike (the last picture stays, then
silence). The features of a segment are computed once. What a model reads without a frozen encoder of its sound
(gammatone, scalogram, fbank), or of its pictures (`visual_kind` "image"), is kept and read anew with every window.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import replace
from functools import partial
from math import floor
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from avzoo.clip import Clip
from avzoo.clip.plan import INTERLEAVE, SLACK
from avzoo.errors import AvzooError, MediaError
from avzoo.hub import load
from avzoo.inference import Modality, best, check_choices, reads
from avzoo.live import Piece, follow
from avzoo.models.base import AVModule
from avzoo.prediction import Segment
from avzoo.preprocess import Preprocess, Sample

HOLE = 0.05  # s between a sound's time and its place; less is the unsteady clock of a device


def stream(
    source: str | Path | Clip | Iterable[Clip],
    model: str | Path | AVModule = "avsdn-avemix",
    *,
    top_k: int = 5,
    modality: Modality = "both",
    device: str = "cpu",
    audio: str | None = None,
    format: str | None = None,
    audio_format: str | None = None,
    options: Mapping[str, str] | None = None,
    timeout: float = 5.0,
) -> Iterator[Segment]:
    """Ask a model what happens, second by second, as the input comes; memory does not grow with its length.

    ```python
    for segment in avzoo.stream("/dev/video0", format="v4l2", audio="default", audio_format="alsa"):
        print(segment.start, segment.labels[0])
    ```

    Args:
        source: A file, also one that is being written (fragmented MP4, Matroska, MPEG-TS); an address
            ("rtsp://..."); a device, see `format`; or arrays, clips of any length one after another (`Clip.of`).
        model: A name, a bundle's `Path`, or a loaded model.
        top_k: Labels kept per segment.
        modality: "audio" reads the sound alone, "visual" the pictures alone.
        device: Where a model that is given by name runs.
        audio: The sound's own source, where `source` has the pictures alone, as a camera.
        format: The kind of device: "v4l2" (Linux: "/dev/video0"), "avfoundation" (macOS: "0:0" is the first camera
            and microphone), "dshow" (Windows: "video=...:audio=..."), "alsa" (Linux: "default", for sound alone).
        audio_format: Of `audio`.
        options: Of libav for `source`, as {"framerate": "30", "video_size": "640x480"}.
        timeout: s without anything new after which the source counts as ended; 0 takes a file as it is.

    Returns:
        One answer a segment, with its times since the start, s.

    Raises:
        AvzooError: If an argument is none of these. What a source lacks is raised when the first answer is asked for,
            as a `MediaError`.
    """
    check_choices(top_k, modality)
    if not timeout >= 0:
        raise AvzooError(f"timeout is {timeout}, expected seconds, 0 or more")
    loaded = model if isinstance(model, AVModule) else load(model, device=device)
    wanted = reads(loaded, modality)
    if not isinstance(source, str | Path):
        if audio is not None:
            raise AvzooError(f"clips bring their own sound, and audio={audio!r} was given too")
        clips = [source] if isinstance(source, Clip) else source
        return _answers(loaded, _of_clips(clips, wanted), wanted, top_k)
    live = partial(follow, timeout=timeout)
    if audio is None or not wanted["audio"]:
        pieces = live(source, **wanted, format=format, options=options)
    else:
        pieces = live(audio, audio=True, visual=False, format=audio_format)
        if wanted["visual"]:  # the source that is behind is read next
            seen = live(source, audio=False, visual=True, format=format, options=options)
            pieces = heapq.merge(seen, pieces, key=lambda piece: piece.time)
    return _answers(loaded, pieces, wanted, top_k)


def _of_clips(clips: Iterable[Clip], wanted: dict[str, bool]) -> Iterator[Piece]:
    """What clips hold, one after another: where one's sound ends the next one begins, or without sound its pictures."""
    begin = 0.0
    for clip in clips:
        if not isinstance(clip, Clip):
            raise AvzooError(f"a stream of {type(clip).__name__} was given, expected avzoo.Clip: see Clip.of")
        if wanted["visual"]:
            for time, frame in zip(clip.frame_times.tolist(), clip.frames, strict=True):
                yield Piece(begin + time, partial(frame.permute, 1, 2, 0))
        if wanted["audio"] and clip.sample_rate:
            yield Piece(begin, sound=clip.waveform, rate=clip.sample_rate)
        begin += clip.waveform.shape[1] / clip.sample_rate if clip.sample_rate else clip.seconds
        yield Piece(begin)


def _answers(model: AVModule, pieces: Iterator[Piece], wanted: dict[str, bool], top_k: int) -> Iterator[Segment]:
    cutter, window = _Cutter(model.preprocess, **wanted), _Window(model, **wanted)
    for clip in cutter.clips(pieces):
        row = window.answer(clip, cutter.held).softmax(-1)
        end = clip.start + clip.seconds - (clip.padded if clip.start else 0.0)
        yield Segment(clip.start, end, best(row, model.classes, top_k))


class _Cutter:
    """Cuts what comes into clips of one segment, and forgets what is behind them.

    Of the pictures only those are kept that are on screen when the model looks, and one at the end of each segment.
    """

    def __init__(self, preprocess: Preprocess, *, audio: bool, visual: bool) -> None:
        self.step, self.audio, self.visual = preprocess.segment_seconds, audio, visual
        self.times = _of_one_segment(preprocess).frame_times()
        self.instants = [*self.times, self.step - 2 * SLACK]
        self.pictures: deque[Piece] = deque()
        self.sounds: deque[tuple[int, Tensor]] = deque()  # the first sample's place, samples
        self.rate, self.cursor = 0, 0
        self.seen = self.heard = 0.0  # s, up to where all has come
        self.index = 0

    def clips(self, pieces: Iterable[Piece]) -> Iterator[Clip]:
        """Clips as soon as all of them has come; of the last, more than its middle."""
        for piece in pieces:
            self._take(piece)
            while self._has((self.index + 1) * self.step):
                yield self._next(self.step)
                self._forget()
        rest = max(self.seen, self.heard) - self.index * self.step
        if rest >= self.step / 2 - SLACK or (self.index == 0 and rest > 0):
            yield self._next(rest)

    def _take(self, piece: Piece) -> None:
        if piece.picture:
            while self.pictures and self._due(piece.time) <= self._due(self.pictures[-1].time):
                self.pictures.pop()  # gone before anyone looked
            self.pictures.append(piece)
            self.seen = piece.time
        elif piece.sound is not None:
            self._hear(piece.time, piece.sound, piece.rate)
        else:
            self.seen = self.heard = piece.time

    def _due(self, time: float) -> int:
        """How many of the instants come before the picture that comes on screen at `time`."""
        past = floor((time - SLACK) / self.step)
        return past * len(self.instants) + bisect_left(self.instants, time - SLACK - past * self.step)

    def _hear(self, time: float, sound: Tensor, rate: int) -> None:
        self.rate = self.rate or rate
        if rate != self.rate or (self.sounds and len(sound) != len(self.sounds[0][1])):
            raise MediaError(
                f"the sound changes at {time:.2f} s from {self.rate} Hz to {rate} Hz, or its channels to {len(sound)}:"
                " a stream keeps both"
            )
        if abs(time * rate - self.cursor) > HOLE * rate:
            self.cursor = round(time * rate)
        self.sounds.append((self.cursor, sound))
        self.cursor += sound.shape[1]
        self.heard = self.cursor / rate

    def _has(self, end: float) -> bool:
        """Whether all before `end` has come; a stream that is far behind the other is not waited for."""
        reached = [self.seen] * self.visual + [self.heard + 0.5 / max(self.rate, 1)] * self.audio
        return min(reached) >= end or max(reached) >= end + INTERLEAVE

    def _next(self, seconds: float) -> Clip:
        begin = self.index * self.step
        frames = torch.zeros(0, 3, 0, 0, dtype=torch.uint8)
        if self.visual:
            frames = self._looks([begin + time for time in self.times])
        return Clip(
            frames,
            torch.tensor(self.times if self.visual else [], dtype=torch.float64),
            self._sound(begin) if self.audio else torch.zeros(0, 0),
            self.rate,
            f"{begin:g} s",
            start=begin,
            padded=self.step - seconds,
            seconds=self.step,
        )

    def held(self) -> Tensor:
        """The picture on screen at the end of the segment, `[1, 3, height, width]`."""
        return self._looks([(self.index + 1) * self.step - 2 * SLACK])

    def _forget(self) -> None:
        self.index += 1
        begin = self.index * self.step
        while len(self.pictures) > 1 and self.pictures[1].time <= begin + SLACK:
            self.pictures.popleft()
        while len(self.sounds) > 1 and self.sounds[0][0] + self.sounds[0][1].shape[1] <= round(begin * self.rate):
            self.sounds.popleft()

    def _looks(self, instants: list[float]) -> Tensor:
        """The pictures on screen at these times, s since the start."""
        if not self.pictures:
            raise MediaError('no picture has come; modality="audio" does without')
        times = [piece.time for piece in self.pictures]
        shown = [max(bisect_right(times, instant + SLACK) - 1, 0) for instant in instants]
        images = {index: cast("Callable[[], Tensor]", self.pictures[index].picture)() for index in set(shown)}
        return torch.stack([images[index] for index in shown]).permute(0, 3, 1, 2)

    def _sound(self, begin: float) -> Tensor:
        if not self.rate:
            raise MediaError('no sound has come; modality="visual" does without')
        first, length = round(begin * self.rate), round(self.step * self.rate)
        wave = torch.zeros(len(self.sounds[-1][1]), length)
        for place, sound in self.sounds:
            a, b = max(place, first), min(place + sound.shape[1], first + length)
            if a < b:
                wave[:, a - first : b - first] = sound[:, a - place : b - place]
        return wave


class _Window:
    """The features of the last segments, and the model that reads them."""

    def __init__(self, model: AVModule, *, audio: bool, visual: bool) -> None:
        self.model, self.audio, self.visual = model, audio, visual
        self.frozen_ear = model.preprocess.audio_kind == "log_mel"
        self.single = copy(model.preprocessor)  # with its backbones, where they are built already
        self.single.preprocess = _of_one_segment(model.preprocess)
        self.past: deque[Sample] = deque(maxlen=model.preprocess.segments)

    def answer(self, clip: Clip, held: Callable[[], Tensor]) -> Tensor:
        """Logits `[classes]` of a segment that follows those before.

        Args:
            clip: The segment.
            held: Gives the picture at its end, `[1, 3, height, width]`.
        """
        self.past.append(self._features(clip))
        rows = list(self.past)
        if missing := self.model.preprocess.segments - len(rows):
            frames = held().expand(len(clip.frames), -1, -1, -1) if self.visual else clip.frames
            blank = replace(clip, frames=frames, waveform=torch.zeros_like(clip.waveform))
            rows += [self._features(blank)] * missing
        scores = self.model.answer(self._joined(clip, rows))
        return scores[len(self.past) - 1]  # the last that is not padding

    def _features(self, clip: Clip) -> Sample:
        """Of one segment; the waveform itself where no frozen encoder reads it."""
        sample = self.single(clip, audio=self.audio and self.frozen_ear, visual=self.visual)
        return sample if self.frozen_ear or not self.audio else sample._replace(audio=clip.waveform)

    def _joined(self, clip: Clip, rows: list[Sample]) -> Sample:
        """Of the whole window."""
        heard = [row.audio for row in rows if row.audio is not None]
        seen = [row.visual for row in rows if row.visual is not None]
        audio = None
        if heard and self.frozen_ear:
            audio = torch.cat(heard)
        elif heard:
            wave = torch.cat(heard, dim=1)
            length = round(self.model.preprocess.seconds * clip.sample_rate)
            wave = functional.pad(wave, (0, length - wave.shape[1]))  # segments are whole samples, and so is a window
            audio = self.model.preprocessor.audio(replace(clip, waveform=wave))
        return Sample(audio, torch.cat(seen) if seen else None)


def _of_one_segment(preprocess: Preprocess) -> Preprocess:
    return replace(preprocess, seconds=preprocess.segment_seconds, segments=1)
