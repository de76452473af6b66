"""Media files in, answers with times out.

A file is read in windows of `preprocess.seconds`; the last one is moved back so that it is full, and only its new
segments are kept. A segment is answered when its middle lies within the file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import Tensor

from avzoo.clip import SOUND_SUFFIXES, probe
from avzoo.errors import AvzooError, DataNotFoundError
from avzoo.hub import load
from avzoo.models.base import AVModule
from avzoo.preprocess import read_window

VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".webm", ".mov", ".avi", ".mpg", ".mpeg", ".m4v"})
Modality = Literal["both", "audio", "visual"]
Labels = list[tuple[str, float]]  # (class, probability), best first


@dataclass(frozen=True)
class Segment:
    """One segment's answer; times in s."""

    start: float
    end: float
    labels: Labels


@dataclass(frozen=True)
class Event:
    """Neighbouring segments with the same best class, background left out; times in s, probability their mean."""

    start: float
    end: float
    label: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What a model says of one video.

    Attributes:
        video: The file.
        model: The model's name.
        task: "segment" (events in time) or "clip" (one scene).
        duration: Of the file, s.
        classes: The model's label order.
        segments: One answer per segment.
        events: Merged segments; empty for a clip task.
        clip: The whole clip's answer for a clip task, the mean of its segments' probabilities; else None.
        probabilities: Float32 `[segments, classes]`, all of them.
        damage: What a damaged file had lost, where `on_damage="pad"` went on with the rest.
        error: Why there is no answer; only where many files are read and one fails.
    """

    video: Path
    model: str
    task: Literal["clip", "segment"]
    duration: float
    classes: list[str]
    segments: list[Segment]
    events: list[Event]
    clip: Labels | None
    probabilities: Tensor
    damage: str = ""
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The object that `avzoo predict --json` prints."""
        if self.error:
            return {"video": str(self.video), "error": self.error}
        segments = [{"start": s.start, "end": s.end, "labels": _labels(s.labels)} for s in self.segments]
        events = [
            {"start": e.start, "end": e.end, "label": e.label, "probability": round(e.probability, 4)}
            for e in self.events
        ]
        answer: dict[str, Any] = {
            "video": str(self.video),
            "model": self.model,
            "task": self.task,
            "duration": round(self.duration, 3),
            "segments": segments,
            "events": events,
            "clip": None if self.clip is None else _labels(self.clip),
        }
        return {**answer, "damage": self.damage} if self.damage else answer


def _labels(labels: Labels) -> list[dict[str, Any]]:
    return [{"label": label, "probability": round(probability, 4)} for label, probability in labels]


@overload
def predict(  # type: ignore[overload-overlap]  # a str is a file before it is an iterable of str
    video: str | Path,
    model: str | Path | AVModule = ...,
    *,
    top_k: int = ...,
    audio: str | Path | None = ...,
    modality: Modality = ...,
    device: str = ...,
    on_missing_audio: Literal["error", "silence"] = ...,
    on_damage: Literal["error", "pad"] = ...,
) -> Prediction: ...
@overload
def predict(
    video: Iterable[str | Path],
    model: str | Path | AVModule = ...,
    *,
    top_k: int = ...,
    audio: str | Path | None = ...,
    modality: Modality = ...,
    device: str = ...,
    on_missing_audio: Literal["error", "silence"] = ...,
    on_damage: Literal["error", "pad"] = ...,
) -> Iterator[Prediction]: ...
def predict(
    video: str | Path | Iterable[str | Path],
    model: str | Path | AVModule = "avsdn-avemix",
    *,
    top_k: int = 5,
    audio: str | Path | None = None,
    modality: Modality = "both",
    device: str = "cpu",
    on_missing_audio: Literal["error", "silence"] = "error",
    on_damage: Literal["error", "pad"] = "error",
) -> Prediction | Iterator[Prediction]:
    """Ask a model what happens in a video, and when.

    Args:
        video: A file gives a `Prediction`. A list of files, or a folder (whatever a type checker says of a path),
            gives an iterator of one a file; one that fails has `error` set instead of stopping the others.
        model: A name, a bundle's `Path`, or a loaded model.
        top_k: Labels kept per segment.
        audio: The sound of a silent video, where it is a file of its own; a folder holds that of many, by their names.
        modality: "audio" reads the sound alone (a sound file will do), "visual" the pictures alone; a model that was
            not trained for it is not at its best then.
        device: Where a model that is given by name runs.
        on_missing_audio: "error", or "silence" to go on with silence.
        on_damage: "error", or "pad" to go on with what a damaged file still holds.

    Raises:
        AvzooError: If `top_k` is below 1, or a single file is given as the `audio` of several videos.
        DataNotFoundError: If there is no such file, or no video in the folder.
        MediaError: If a single file cannot be read.
    """
    if top_k < 1:
        raise AvzooError(f"top_k is {top_k}, expected 1 or more")
    for name, value, allowed in (
        ("on_missing_audio", on_missing_audio, ("error", "silence")),
        ("on_damage", on_damage, ("error", "pad")),
        ("modality", modality, ("both", "audio", "visual")),
    ):
        if value not in allowed:
            raise AvzooError(f"{name} is {value!r}, expected one of {allowed}")
    loaded = model if isinstance(model, AVModule) else load(model, device=device)
    media: dict[str, Any] = {"on_missing_audio": on_missing_audio, "on_damage": on_damage, "audio_path": audio}
    # what the model does not read need not be there
    media |= {name: modality in ("both", name) and name in loaded.modalities for name in ("audio", "visual")}
    if isinstance(video, str | Path) and not Path(video).is_dir():
        return _predict(Path(video), loaded, top_k, media)
    files = find_videos([video] if isinstance(video, str | Path) else video, modality)
    if audio is not None and not Path(audio).is_dir() and len(files) > 1:
        raise AvzooError(f"{audio} is the sound of one video, {len(files)} were given: give the folder of their sounds")
    return (_predict_or_say(file, loaded, top_k, media) for file in files)


def find_videos(given: Iterable[str | Path], modality: Modality = "both") -> list[Path]:
    """Files as they are, folders as the videos below them (or for "audio" all that has sound).

    Raises:
        DataNotFoundError: If a folder holds no video.
    """
    suffixes = VIDEO_SUFFIXES | SOUND_SUFFIXES if modality == "audio" else VIDEO_SUFFIXES
    files: list[Path] = []
    for path in map(Path, given):
        if not path.is_dir():
            files.append(path)
            continue
        inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in suffixes)
        if not inside:
            raise DataNotFoundError(f"{path} holds no video: expected files ending in {', '.join(sorted(suffixes))}")
        files += inside
    return files


def _predict_or_say(file: Path, model: AVModule, top_k: int, media: dict[str, Any]) -> Prediction:
    try:
        return _predict(file, model, top_k, media)
    except (AvzooError, OSError) as error:
        nothing = torch.zeros(0, len(model.classes))
        return Prediction(file, model.name, model.task, 0.0, model.classes, [], [], None, nothing, error=str(error))


def _predict(video: Path, model: AVModule, top_k: int, media: dict[str, Any]) -> Prediction:
    step, per_window = model.preprocess.segment_seconds, model.preprocess.segments
    duration = probe(video).duration
    media = {**media, "audio_path": sound_of(video, media["audio_path"])}
    count = max(1, math.floor(duration / step + 0.5))  # segments whose middle lies within the file
    scores: list[Tensor] = []
    damage: list[str] = []
    while len(scores) < count:
        first = max(0, min(len(scores), count - per_window))
        clip = read_window(video, model.preprocess, start=first * step, **media)
        damage += [clip.damage] if clip.damage else []
        logits = model.logits(clip, audio=media["audio"], visual=media["visual"])
        scores += list(logits.softmax(-1)[len(scores) - first : count - first])
    probabilities = torch.stack(scores)
    best = [_top(row, model.classes, top_k) for row in probabilities]
    times = [(index * step, min((index + 1) * step, max(duration, step))) for index in range(count)]
    segments = [Segment(start, end, labels) for (start, end), labels in zip(times, best, strict=True)]
    whole = probabilities.mean(0) if model.task == "clip" else None
    return Prediction(
        video,
        model.name,
        model.task,
        duration,
        model.classes,
        segments,
        merge(segments, background=model.classes[-1]) if model.task == "segment" else [],
        None if whole is None else _top(whole, model.classes, top_k),
        probabilities,
        "; ".join(damage),
    )


def sound_of(video: Path, audio: str | Path | None) -> Path | None:
    """The file of a video's sound: the one given, or in a folder of sounds the one of its name."""
    if audio is None or not Path(audio).is_dir():
        return None if audio is None else Path(audio)
    found = [
        file for file in Path(audio).iterdir() if file.stem == video.stem and file.suffix.lower() in SOUND_SUFFIXES
    ]
    if not found:
        raise DataNotFoundError(f"{audio} holds no sound called {video.stem} ({', '.join(sorted(SOUND_SUFFIXES))})")
    return found[0]


def _top(row: Tensor, classes: list[str], top_k: int) -> Labels:
    values, indices = row.topk(min(top_k, len(classes)))
    return [(classes[index], value) for value, index in zip(values.tolist(), indices.tolist(), strict=True)]


def merge(segments: Iterable[Segment], background: str) -> list[Event]:
    """Join neighbouring segments with the same best class; background makes no event.

    >>> merge([Segment(0, 1, [("cat", 0.5)]), Segment(1, 2, [("cat", 1.0)]), Segment(2, 3, [("none", 0.9)])], "none")
    [Event(start=0, end=2, label='cat', probability=0.75)]
    """
    runs: list[list[Segment]] = []
    for segment in segments:
        if runs and runs[-1][-1].labels[0][0] == segment.labels[0][0]:
            runs[-1].append(segment)
        else:
            runs.append([segment])
    return [
        Event(run[0].start, run[-1].end, label, sum(s.labels[0][1] for s in run) / len(run))
        for run in runs
        if (label := run[0].labels[0][0]) != background
    ]
