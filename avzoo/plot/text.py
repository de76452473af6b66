"""A prediction in words: the timeline in a terminal, and the answer in a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from avzoo.prediction import Event, Prediction

BLOCKS = " ▁▂▃▄▅▆▇█"
WIDEST = 60  # columns of a timeline
ROWS = 8  # classes shown, here and in pictures


def timeline_text(prediction: Prediction) -> str:
    """A prediction as lines for the terminal: one row a class that matters, one column a segment, then the answer."""
    head = f"{prediction.video}  {prediction.duration:.1f} s  {prediction.model}"
    rows = shown_classes(prediction)
    width = max(len(prediction.classes[index]) for index in rows)
    columns = pool(prediction.probabilities, WIDEST)
    repeat = max(1, WIDEST // 2 // len(columns))
    lines = [head]
    for index in rows:
        cells = "".join(BLOCKS[round(float(p) * (len(BLOCKS) - 1))] * repeat for p in columns[:, index])
        lines.append(f"  {prediction.classes[index]:<{width}} │{cells}│")
    end = f"{prediction.segments[-1].end:.0f} s"
    lines.append(f"  {'':<{width}}  0{end:>{repeat * len(columns) - 1}}")
    if prediction.damage:
        lines.append(f"  damaged: {prediction.damage}")
    if prediction.remark:
        lines.append(f"  {prediction.remark}")
    if prediction.clip is not None:
        lines += [f"  the clip: {', '.join(f'{label} {share:.2f}' for label, share in prediction.clip)}"]
        return "\n".join(lines)
    lines += [f"  {event_text(event)}" for event in prediction.events] or ["  no event: background throughout"]
    return "\n".join(lines)


def headline(prediction: Prediction) -> str:
    """The answer in a line."""
    if prediction.clip is not None:
        label, share = prediction.clip[0]
        return f"{label}, {share:.2f}"
    said = "; ".join(map(event_text, prediction.events[:3])) or "no event: background throughout"
    return said + (f"; and {len(prediction.events) - 3} more" if len(prediction.events) > 3 else "")


def event_text(event: Event) -> str:
    """An event in words.

    >>> from avzoo.prediction import Event
    >>> event_text(Event(2, 7, "drone", 0.971))
    'drone 2.0-7.0 s, 0.97'
    """
    return f"{event.label} {event.start:.1f}-{event.end:.1f} s, {event.probability:.2f}"


def shown_classes(prediction: Prediction) -> list[int]:
    """The classes worth a row: those that lead somewhere, of events the strongest, of scenes a close second too."""
    p = prediction.probabilities
    leading = set(p.argmax(-1).tolist())
    if prediction.clip is None:  # the last class is the background
        leading.add(int(p.max(0).values[:-1].argmax()))
    else:
        leading |= {index for index in range(p.shape[1]) if float(p[:, index].max()) >= 0.2}
    by_strength = sorted(leading, key=lambda index: -float(p[:, index].max()))[:ROWS]
    return sorted(by_strength)


def pool(probabilities: Tensor, most: int) -> Tensor:
    """`[segments, classes]` in at most `most` rows: the mean of neighbours where there are more."""
    if len(probabilities) <= most:
        return probabilities
    return torch.stack([part.mean(0) for part in probabilities.tensor_split(most)])
