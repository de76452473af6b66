"""What a model says of one video: segments, events, the whole clip; as an object, a table, a picture, a card."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from avzoo import notebook, plot
from avzoo.clip import Clip
from avzoo.errors import AvzooError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame  # type: ignore[import-untyped]

Labels = list[tuple[str, float]]  # (class, probability), best first


@dataclass(frozen=True)
class Segment:
    """One segment's answer; times in s."""

    start: float
    end: float
    labels: Labels


@dataclass(frozen=True)
class Event:
    """Neighbouring segments of one class, background left out; times in s, probability their mean."""

    start: float
    end: float
    label: str
    probability: float


class Events(list[Event]):
    """The events of a prediction: a list, by the segments' best classes; called, those at a threshold.

    Args:
        events: What the list holds.
        times: Start and end of each segment, s.
        probabilities: Float32 `[segments, classes]`.
        classes: Label order, the background last.
    """

    def __init__(
        self,
        events: Iterable[Event] = (),
        *,
        times: Sequence[tuple[float, float]] = (),
        probabilities: Tensor | None = None,
        classes: Sequence[str] = (),
    ) -> None:
        super().__init__(events)
        self._times, self._classes = list(times), list(classes)
        self._probabilities = torch.zeros(0, len(classes)) if probabilities is None else probabilities

    def __call__(self, threshold: float) -> Events:
        """Look at each class by itself, whatever the best one is.

        Neighbouring segments in which a class has at least `threshold` are one event of it; its probability is their
        mean. So at 0.5 and below events may overlap, and above, a segment may belong to none. The background makes no
        event. In order of their starts, then of the classes. A scene has none.

        Args:
            threshold: Above 0, at most 1.

        Raises:
            AvzooError: If it is not.

        >>> p = torch.tensor([[0.5, 0.4, 0.1], [0.5, 0.5, 0.0], [0.0, 0.3, 0.7]])
        >>> times = [(0.0, 1.0), (1.0, 2.0), (2.0, 3.0)]
        >>> events = Events(times=times, probabilities=p, classes=["drone", "guitar", "background"])
        >>> [(event.start, event.end, event.label, round(event.probability, 2)) for event in events(0.4)]
        [(0.0, 2.0, 'drone', 0.5), (0.0, 2.0, 'guitar', 0.45)]
        >>> [(event.start, event.end, event.label) for event in events(0.45)]
        [(0.0, 2.0, 'drone'), (1.0, 2.0, 'guitar')]
        >>> events(0.6)
        []
        """
        if not 0 < threshold <= 1:
            raise AvzooError(f"the threshold is {threshold}, expected a probability above 0 and at most 1")
        found = []
        for label, shares in zip(self._classes[:-1], self._probabilities.T, strict=False):
            reaching = groupby(enumerate((shares >= threshold).tolist()), key=lambda pair: pair[1])
            for run in ([index for index, _ in pairs] for reached, pairs in reaching if reached):
                mean = float(shares[run].mean())
                found.append(Event(self._times[run[0]][0], self._times[run[-1]][1], label, mean))
        found.sort(key=lambda event: event.start)  # a stable sort: of one start, in the order of the classes
        return Events(found, times=self._times, probabilities=self._probabilities, classes=self._classes)


@dataclass(frozen=True)
class Prediction:
    """What a model says of one video.

    A notebook shows it as a card: frames and answers over time, a player of the sound.

    Attributes:
        video: The file; of a `Clip`, its id.
        model: The model's name.
        task: "segment" (events in time) or "clip" (one scene).
        duration: Of the file, s.
        classes: The model's label order.
        segments: One answer per segment.
        events: Merged segments; empty for a clip task. `events(0.3)` finds them by a threshold, see `Events`.
        clip: The whole clip's answer for a clip task, the mean of its segments' probabilities; else None.
        probabilities: Float32 `[segments, classes]`, all of them.
        damage: What a damaged file had lost, where `on_damage="pad"` went on with the rest.
        error: Why there is no answer; only where many files are read and one fails.
        remark: That the file is silent or black, where it is.
        sound: The file of the sound, where it is one of its own.
        arrays: What was given in place of a file.
    """

    video: Path
    model: str
    task: Literal["clip", "segment"]
    duration: float
    classes: list[str]
    segments: list[Segment]
    events: Events
    clip: Labels | None
    probabilities: Tensor
    damage: str = ""
    error: str = ""
    remark: str = ""
    sound: Path | None = None
    arrays: Clip | None = field(default=None, compare=False)

    @property
    def source(self) -> Path | Clip:
        """What to read again for pictures and sound."""
        return self.video if self.arrays is None else self.arrays

    def to_dict(self) -> dict[str, Any]:
        """The object that `avzoo predict --json` prints.

        Where there is no answer it has `video` and `error`, else:

        ```
        video, model, task, duration    as the attributes; times in s, probabilities to four places
        segments    [{"start", "end", "labels": [{"label", "probability"}]}], best first
        events      [{"start", "end", "label", "probability"}]
        clip        [{"label", "probability"}], best first; null for a segment task
        damage, remark    only where there is some
        ```
        """
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
        notes = {"damage": self.damage, "remark": self.remark}
        return answer | {name: text for name, text in notes.items() if text}

    def to_dataframe(self) -> DataFrame:
        """One row a segment, for pandas (`pip install 'avzoo[notebook]'`).

        Columns: `video`, `start` and `end` in s, the best class as `label` with its `probability`, then the
        probability of each class in label order, in a column of its name ("label (class)" for a class that is called
        as one of the five are). `pandas.concat` joins those of many videos; `pandas.DataFrame(result.events)` is a
        table of the events.

        Raises:
            AvzooError: If pandas is not installed, or there is no answer.
        """
        self._check()
        try:
            from pandas import DataFrame
        except ModuleNotFoundError as missing:
            raise AvzooError("a table needs pandas: pip install 'avzoo[notebook]'") from missing
        best = self.probabilities.max(-1)
        columns = {
            "video": [str(self.video)] * len(self.segments),
            "start": [segment.start for segment in self.segments],
            "end": [segment.end for segment in self.segments],
            "label": [self.classes[index] for index in best.indices.tolist()],
            "probability": best.values.numpy(),
        }
        names = [f"{name} (class)" if name in columns else name for name in self.classes]
        return DataFrame(columns | dict(zip(names, self.probabilities.numpy().T, strict=True)))

    def plot(self, out: str | Path | None = None) -> Figure:
        """Draw frames, sound and probabilities over time; the last line of a notebook's cell shows it.

        Args:
            out: Where to write it too: a `.png`, `.svg` or `.pdf`.

        Raises:
            AvzooError: If `out` is of another kind, or there is no answer.
        """
        figure = plot.timeline_figure(self)
        if out is not None:
            plot.save(figure, Path(out))
        return figure

    def _check(self) -> None:
        if self.error:
            raise AvzooError(f"{self.video} has no answer: {self.error}")

    def __repr__(self) -> str:
        said = f"no answer: {self.error}" if self.error else plot.headline(self)
        return f"<{type(self).__name__} {self.video.name}, {self.model}: {said}>"

    def _repr_html_(self) -> str:
        return notebook.card(self)


def _labels(labels: Labels) -> list[dict[str, Any]]:
    return [{"label": label, "probability": round(probability, 4)} for label, probability in labels]


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
