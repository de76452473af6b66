"""Media in, answers with times out.

A file is read in windows of `preprocess.seconds`; the last one is moved back so that it is full, and only its new
segments are kept. A segment is answered when its middle lies within the file. Arrays (`Clip.of`) are read as files are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import Tensor

from avzoo.clip import SOUND_SUFFIXES, VIDEO_SUFFIXES, Clip, probe
from avzoo.errors import AvzooError, DataNotFoundError, check_choice
from avzoo.hub import load
from avzoo.models.base import AVModule
from avzoo.prediction import Events, Labels, Prediction, Segment, merge
from avzoo.preprocess import read_window

__all__ = [
    "Modality",
    "best",
    "check_choices",
    "check_sounds",
    "failed",
    "find_videos",
    "predict",
    "predict_file",
    "reads",
    "sound_of",
]
Modality = Literal["both", "audio", "visual"]
EMPTY = {
    "silent": "silent: nothing is heard in it",
    "black": "black: nothing is seen in the pictures that the model looks at",
}


@overload
def predict(  # type: ignore[overload-overlap]  # a str is a file before it is an iterable of str
    video: str | Path | Clip,
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
    video: Iterable[str | Path | Clip],
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
    video: str | Path | Clip | Iterable[str | Path | Clip],
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
        video: A file gives a `Prediction`, and so do arrays (`Clip.of`). A list of them, or a folder (whatever a type
            checker says of a path), gives an iterator of one a file; one that fails has `error` set instead of
            stopping the others.
        model: A name, a bundle's `Path`, or a loaded model.
        top_k: Labels kept per segment.
        audio: The sound of a silent video, where it is a file of its own; a folder holds that of many, by their names.
        modality: "audio" reads the sound alone (a sound file will do), "visual" the pictures alone; a model that was
            not trained for it is not at its best then.
        device: Where a model that is given by name runs.
        on_missing_audio: "error", or "silence" to go on with silence.
        on_damage: "error", or "pad" to go on with what a damaged file still holds.

    Raises:
        AvzooError: If an argument is none of these, or a single file is given as the `audio` of several videos.
        DataNotFoundError: If there is no such file, or no video in the folder.
        MediaError: If a single file cannot be read.
    """
    check_choices(top_k, modality, on_missing_audio, on_damage)
    loaded = model if isinstance(model, AVModule) else load(model, device=device)
    read = reads(loaded, modality)
    ask = partial(loaded.logits, audio=read["audio"], visual=read["visual"])
    options: dict[str, Any] = {"top_k": top_k, "audio": audio, "modality": modality}
    options |= {"on_missing_audio": on_missing_audio, "on_damage": on_damage}
    if isinstance(video, Clip):
        return predict_file(video, loaded, ask, **options)
    if isinstance(video, str | Path) and not Path(video).is_dir():
        return predict_file(Path(video), loaded, ask, **options)
    given = list(video) if isinstance(video, Iterable) and not isinstance(video, str | Path) else [video]
    for one in given:
        if not isinstance(one, str | os.PathLike | Clip):
            raise AvzooError(
                f"video: expected a file, a folder, a Clip, or a list of them, got {type(one).__name__}; arrays are"
                " given as avzoo.Clip.of(frames, waveform, rate, fps=...)"
            )
    files = [file for one in given for file in ([one] if isinstance(one, Clip) else find_videos([one], modality))]
    check_sounds(audio, len(files))
    return (_predict_or_say(file, loaded, ask, options) for file in files)


def check_choices(top_k: int, modality: str, on_missing_audio: str = "error", on_damage: str = "error") -> None:
    """Refuse what neither a file nor a stream can be asked for.

    Raises:
        AvzooError: If `top_k` is below 1, or one of the others is none of its words.
    """
    if top_k < 1:
        raise AvzooError(f"top_k is {top_k}, expected 1 or more")
    check_choice("modality", modality, ("both", "audio", "visual"))
    check_choice("on_missing_audio", on_missing_audio, ("error", "silence"))
    check_choice("on_damage", on_damage, ("error", "pad"))


def check_sounds(audio: str | Path | None, videos: int) -> None:
    """Refuse the sound of one video for many.

    Raises:
        AvzooError: If a single file is given as the `audio` of several videos.
    """
    if audio is not None and not Path(audio).is_dir() and videos > 1:
        raise AvzooError(f"{audio} is the sound of one video, {videos} were given: give the folder of their sounds")


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


def _predict_or_say(
    source: Path | Clip, model: AVModule, ask: Callable[[Clip], Tensor], options: dict[str, Any]
) -> Prediction:
    try:
        return predict_file(source, model, ask, **options)
    except (AvzooError, OSError) as error:
        return failed(source, model, error)


def failed(source: Path | Clip, model: AVModule, error: Exception) -> Prediction:
    """A `Prediction` that holds only the error."""
    video = Path(source.id) if isinstance(source, Clip) else source
    nothing = torch.zeros(0, len(model.classes))
    return Prediction(video, model.name, model.task, 0.0, model.classes, [], Events(), None, nothing, error=str(error))


def predict_file(
    source: Path | Clip,
    model: AVModule,
    ask: Callable[[Clip], Tensor],
    *,
    top_k: int = 5,
    audio: str | Path | None = None,
    modality: Modality = "both",
    on_missing_audio: Literal["error", "silence"] = "error",
    on_damage: Literal["error", "pad"] = "error",
) -> Prediction:
    """Read one file or clip in the model's windows, ask for each, and join the answers.

    The other arguments, and errors, are those of `predict`.

    Args:
        source: What to read.
        model: Whose windows and classes.
        ask: From a window's clip to logits `[segments, classes]`.
        top_k: Labels kept per segment.
        audio: The file of the sound, or a folder that holds it.
        modality: What is read; what the model does not read need not be there.
        on_missing_audio: "error" or "silence".
        on_damage: "error" or "pad".
    """
    video = Path(source.id) if isinstance(source, Clip) else source
    sound, duration = sound_of(video, audio), probe(source).duration
    scores: list[Tensor] = []
    damage: list[str] = []
    empty = set(EMPTY)
    for start, new in model.preprocess.windows(duration):
        clip = read_window(
            source,
            model.preprocess,
            start=start,
            audio_path=sound,
            on_missing_audio=on_missing_audio,
            on_damage=on_damage,
            **reads(model, modality),
        )
        damage += [clip.damage] if clip.damage else []
        empty &= clip.empty
        scores += list(ask(clip).softmax(-1)[new])
    probabilities, step = torch.stack(scores), model.preprocess.segment_seconds
    times = [(index * step, min((index + 1) * step, max(duration, step))) for index in range(len(scores))]
    segments = [Segment(*time, best(row, model.classes, top_k)) for time, row in zip(times, probabilities, strict=True)]
    events, whole = Events(), None
    if model.task == "segment":
        merged = merge(segments, background=model.classes[-1])
        events = Events(merged, times=times, probabilities=probabilities, classes=model.classes)
    else:
        whole = best(probabilities.mean(0), model.classes, top_k)
    return Prediction(
        video,
        model.name,
        model.task,
        duration,
        model.classes,
        segments,
        events,
        whole,
        probabilities,
        "; ".join(damage),
        remark="; ".join(EMPTY[kind] for kind in EMPTY if kind in empty),
        sound=sound,
        arrays=source if isinstance(source, Clip) else None,
    )


def reads(model: AVModule, modality: Modality) -> dict[str, bool]:
    """Whether sound and pictures are read: what was asked for, without what the model does not look at."""
    return {name: modality in ("both", name) and name in model.modalities for name in ("audio", "visual")}


def sound_of(video: Path, audio: str | Path | None) -> Path | None:
    """The file of a video's sound: the one given, or in a folder of sounds the one of its name.

    Raises:
        DataNotFoundError: If there is none in the folder.
    """
    if audio is None or not Path(audio).is_dir():
        return None if audio is None else Path(audio)
    suffixes = sorted(SOUND_SUFFIXES)
    for suffix in (*suffixes, *map(str.upper, suffixes)):  # a folder of thousands is not listed for each video
        if (file := Path(audio, f"{video.stem}{suffix}")).exists():
            return file
    raise DataNotFoundError(f"{audio} holds no sound called {video.stem} ({', '.join(suffixes)})")


def best(row: Tensor, classes: list[str], top_k: int) -> Labels:
    """The `top_k` classes of probabilities `[classes]`, best first."""
    values, indices = row.topk(min(top_k, len(classes)))
    return [(classes[index], value) for value, index in zip(values.tolist(), indices.tolist(), strict=True)]
