"""A prediction and what it rests on; as an object, in words, as a table."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from avzoo import plot
from avzoo.errors import AvzooError, did_you_mean
from avzoo.explaining import card, figure
from avzoo.prediction import Prediction

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# How the model is asked: "alone" is its own way of doing without a modality, the last two keep both and empty one.
VIEWS = {
    "both": "sound and picture: the prediction itself",
    "sound_alone": "without the picture: forward(audio, None)",
    "picture_alone": "without the sound: forward(None, visual)",
    "sound_muted": "silence for the sound, through the whole signal path, and the picture as it is",
    "picture_frozen": "the window's first picture throughout, and the sound as it is",
}


@dataclass(frozen=True, repr=False)
class Explanation(Prediction):
    """A prediction and what it rests on.

    Where the model only hears, or went by the sound alone, there is no view without sound and there are no maps; where
    it only sees likewise. An image network that pools no map of features (a transformer) gives no maps either.

    Attributes:
        views: Probabilities `[segments, classes]`, by the names of `VIEWS`.
        explained: The class of each segment's maps: its best one, or the one that was asked for.
        maps: Float32 `[segments, pictures, height, width]`, 0 to 1: where a picture speaks for that class, the place
            that does so most being 1; zero throughout where none does. A map lies over the whole picture. It says
            where, not how much: that is what `views` say.
        picture_times: Float64 `[segments, pictures]`, when in the file the pictures are, s.
    """

    views: dict[str, Tensor] = field(default_factory=dict)
    explained: list[str] = field(default_factory=list)
    maps: Tensor | None = None
    picture_times: Tensor | None = None

    def evidence(self, label: str, start: float = 0.0, end: float = math.inf) -> dict[str, float]:
        """The probability of a class in each view, its mean over the segments that begin between two times, s.

        Raises:
            AvzooError: If there is no such class, or no such segment.
        """
        column = column_of(label, self.classes, self.model)
        rows = [index for index, segment in enumerate(self.segments) if start <= segment.start < end]
        if not rows:
            raise AvzooError(f"no segment of {self.video} begins between {start:g} and {end:g} s")
        return {name: float(view[rows, column].mean()) for name, view in self.views.items()}

    def rows(self) -> list[dict[str, Any]]:
        """One a segment: its times, s, the class that is explained, and its probability in each view."""
        return [
            {"start": s.start, "end": s.end, "label": label, **_rounded(self.evidence(label, s.start, s.end))}
            for s, label in zip(self.segments, self.explained, strict=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        """As a prediction's, with `evidence` for each segment, event and label of the clip.

        That is its probability in each of the `VIEWS` that there are; a segment's is that of its `label`.
        """
        answer = super().to_dict()
        for segment, row in zip(answer["segments"], self.rows(), strict=True):
            segment["evidence"] = {key: value for key, value in row.items() if key not in ("start", "end")}
        for event, found in zip(answer["events"], self.events, strict=True):
            event["evidence"] = _rounded(self.evidence(found.label, found.start, found.end))
        for entry in answer["clip"] or ():
            entry["evidence"] = _rounded(self.evidence(entry["label"]))
        return answer

    def spans(self) -> list[tuple[str, float, float]]:
        """What was said of what time: class, start and end, s; the events, or one of the whole clip."""
        whole = (0.0, self.segments[-1].end)
        if self.clip is not None:
            return [(self.clip[0][0], *whole)]
        return [(e.label, e.start, e.end) for e in self.events] or [(self.classes[-1], *whole)]

    def why(self) -> list[str]:
        """What each view says of the events, or of the clip, in words, a line each."""
        when = " {:.1f}-{:.1f} s" if self.events else ""
        return [
            f"  why {label}{when.format(*time)}: {_said(self.evidence(label, *time))}" for label, *time in self.spans()
        ]

    def plot(self, out: str | Path | None = None) -> Figure:
        """Draw the timeline with the light of the maps on its pictures, and below it what each view says.

        Args:
            out: Where to write it too: a `.png`, `.svg` or `.pdf`.

        Raises:
            AvzooError: If `out` is of another kind.
        """
        drawn = figure.explanation_figure(self)
        if out is not None:
            plot.save(drawn, Path(out))
        return drawn

    def _repr_html_(self) -> str:
        return card.card(self)


def column_of(label: str, classes: list[str], model: str) -> int:
    """The place of a class in the label order.

    Raises:
        AvzooError: If the model has no such class.
    """
    if label not in classes:
        raise AvzooError(
            f"{model} knows no class {label!r}{did_you_mean(label, classes)}; it knows {', '.join(classes)}"
        )
    return classes.index(label)


def _rounded(shares: dict[str, float]) -> dict[str, float]:
    return {name: round(share, 4) for name, share in shares.items()}


def _said(shares: dict[str, float]) -> str:
    return ", ".join(f"{figure.words(name)} {share:.2f}" for name, share in shares.items() if name != "both")
