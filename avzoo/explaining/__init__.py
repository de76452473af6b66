"""Explanations of predictions: answers without sound or without pictures, and class-activation maps of the pictures.

```
explain            every window of a video, read once and asked in five ways
├── explanation    what comes of it: a `Prediction` with evidence
├── cam            class-activation maps of the pictures
├── figure         the timeline with both
└── card           the same as HTML
```
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor

from avzoo.clip import Clip
from avzoo.explaining.cam import Watch
from avzoo.explaining.explanation import VIEWS, Explanation, column_of
from avzoo.hub import load
from avzoo.inference import Modality, check_choices, predict_file, reads
from avzoo.models.base import AVModule

__all__ = ["VIEWS", "Explanation", "explain"]


def explain(
    video: str | Path | Clip,
    model: str | Path | AVModule = "avsdn-avemix",
    *,
    label: str | None = None,
    top_k: int = 5,
    audio: str | Path | None = None,
    modality: Modality = "both",
    device: str = "cpu",
    on_missing_audio: Literal["error", "silence"] = "error",
    on_damage: Literal["error", "pad"] = "error",
    on_window: Callable[[float], None] | None = None,
) -> Explanation:
    """Ask a model what happens in a video, and why it says so.

    Args:
        video: The file, or arrays (`Clip.of`).
        model: A name, a bundle's `Path`, or a loaded model.
        label: The class whose maps are wanted; default: of every segment the best one.
        top_k: Labels kept per segment.
        audio: The sound, where it is a file of its own.
        modality: "audio" goes by the sound alone, "visual" by the pictures alone: so can be explained what has no more.
        device: Where a model that is given by name runs.
        on_missing_audio: "error", or "silence" to go on with silence.
        on_damage: "error", or "pad" to go on with what a damaged file still holds.
        on_window: Called after each window with the time that is reached, s.

    Raises:
        AvzooError: If an argument is none of these, or the model has no such class.
        DataNotFoundError: If there is no such file.
        MediaError: If it cannot be read.
    """
    check_choices(top_k, modality, on_missing_audio, on_damage)
    loaded = model if isinstance(model, AVModule) else load(model, device=device)
    column = None if label is None else column_of(label, loaded.classes, loaded.name)
    windows: list[_Window] = []

    def ask(clip: Clip) -> Tensor:
        windows.append(_look(loaded, clip, column, **reads(loaded, modality)))
        if on_window is not None:
            on_window(clip.start + loaded.preprocess.seconds)
        return windows[-1].scores["both"]

    answer = predict_file(
        video if isinstance(video, Clip) else Path(video),
        loaded,
        ask,
        top_k=top_k,
        audio=audio,
        modality=modality,
        on_missing_audio=on_missing_audio,
        on_damage=on_damage,
    )
    asked = zip(windows, loaded.preprocess.windows(answer.duration), strict=True)
    rows = [(window, row) for window, (_, new) in asked for row in range(loaded.preprocess.segments)[new]]
    sees = windows[0].maps is not None
    return Explanation(
        **{f.name: getattr(answer, f.name) for f in fields(answer)},
        views={name: torch.stack([w.scores[name][row].softmax(-1) for w, row in rows]) for name in windows[0].scores},
        explained=[loaded.classes[w.explained[row]] for w, row in rows],
        maps=torch.stack([cast("Tensor", w.maps)[row] for w, row in rows]) if sees else None,
        picture_times=torch.stack([w.times[row] for w, row in rows]) if sees else None,
    )


@dataclass(frozen=True)
class _Window:
    """One window, asked in every way; tensors `[segments, ...]`, on the CPU."""

    scores: dict[str, Tensor]
    explained: list[int]
    maps: Tensor | None
    times: Tensor


def _look(model: AVModule, clip: Clip, column: int | None, *, audio: bool, visual: bool) -> _Window:
    """Ask in eval mode, whatever mode the model is in."""
    with model.evaluating(), torch.backends.cudnn.flags(enabled=False):  # its LSTMs have no backward pass in eval mode
        return _ask(model, clip, column, hears=audio, sees=visual)


def _ask(model: AVModule, clip: Clip, column: int | None, *, hears: bool, sees: bool) -> _Window:
    p, read = model.preprocess, model.preprocessor

    def answer(audio: Tensor | None, visual: Tensor | None) -> Tensor:
        scores: Tensor = model(*(None if part is None else part[None] for part in (audio, visual)))
        return scores[0]

    watch = Watch(model) if sees else None
    with torch.enable_grad(), watch or nullcontext():
        audio, visual = read(clip, audio=hears, visual=sees)
        if watch is not None and visual is not None:
            watch.saw(visual)
        scores = {"both": answer(audio, visual)}
    explained = scores["both"].argmax(-1).tolist() if column is None else [column] * p.segments
    maps = None
    with torch.no_grad(), watch.remembering() if watch else nullcontext():
        if hears and sees:
            scores["sound_alone"] = answer(audio, None)
            scores["picture_alone"] = answer(None, visual)
        if hears:
            silence, _ = read(replace(clip, waveform=torch.zeros_like(clip.waveform)), visual=False)
            scores["sound_muted"] = answer(silence, visual)
    if watch is not None and visual is not None:
        with torch.no_grad(), watch.remembering(frozen=True):
            scores["picture_frozen"] = answer(audio, watch.frozen(visual))
        with torch.enable_grad():
            maps = watch.maps(scores["both"], explained)
    times = clip.start + torch.tensor(p.frame_times(), dtype=torch.float64).view(p.segments, -1)
    return _Window({name: s.detach().float().cpu() for name, s in scores.items()}, explained, maps, times)
