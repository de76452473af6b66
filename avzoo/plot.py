"""Every picture avzoo draws, and the timeline it prints."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avzoo.clip import probe, read_clip
from avzoo.errors import AvzooError
from avzoo.files import whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from avzoo.prediction import Event, Prediction

Pixels = NDArray[np.uint8]
Envelope = NDArray[np.float32]
BLOCKS = " ▁▂▃▄▅▆▇█"
# Okabe and Ito's colours, which most colour-blind readers can tell apart; the background's grey comes last.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8C6D31", "#7A5195")
GREY = "#B8BCC2"
WIDEST = 60  # columns of a timeline
MOST_FRAMES = 10
WINDOW = 30.0  # s read at a time
BINS = 900  # of a waveform
FORMATS = (".png", ".svg", ".pdf")
ROWS = 8  # classes in one picture
WIDTH = 11.0  # of a timeline, inches, and so is what follows
LEFT = 0.66  # margin
RIGHT = (1.54, 2.6)  # margin: at least, and at most, whatever the names that stand there
PAD = 0.16  # beside a name
NAMES: dict[str, Any] = {"size": 10, "weight": "bold"}
TITLE: dict[str, Any] = {"size": 13, "weight": "bold"}
ANSWER: dict[str, Any] = {"size": 10.5}


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


def timeline(
    prediction: Prediction,
    out: str | Path,
    *,
    truth: tuple[str, float, float] | None = None,
) -> Path:
    """Write `timeline_figure`.

    Args:
        prediction: Of one video, which is read again for its frames and sound.
        out: A `.png`, `.svg` or `.pdf`.
        truth: The event as it really was: label, start and end, s.

    Returns:
        The file written.

    Raises:
        AvzooError: If `out` is of another kind, or the prediction has no answer.
    """
    check_picture(Path(out))
    return save(timeline_figure(prediction, truth=truth), Path(out))


def timeline_figure(prediction: Prediction, *, truth: tuple[str, float, float] | None = None) -> Figure:
    """Draw frames, waveform and probabilities over time in one picture.

    Args:
        prediction: Of one video, which is read again for its frames and sound.
        truth: The event as it really was: label, start and end, s.

    Raises:
        AvzooError: If the prediction has no answer, or the video is no longer there.
    """
    if prediction.error:
        raise AvzooError(f"{prediction.video} has no answer to draw: {prediction.error}")
    duration = prediction.segments[-1].end
    count = min(MOST_FRAMES, max(1, round(duration)))
    frames, low, high = glimpse(prediction, count)
    height, width = frames[0].shape[:2] if frames else (1, 100)
    high_frames = WIDTH / count * min(1.2, height / width)
    figure = _shown_inline(figsize=(WIDTH, 1.7 + high_frames + 2.6), facecolor="white")
    longest = max(text_width(prediction.classes[index], **NAMES) for index in shown_classes(prediction))
    right = WIDTH - min(max(longest + PAD, RIGHT[0]), RIGHT[1])
    grid = figure.add_gridspec(
        3,
        1,
        height_ratios=[high_frames, 0.9, 2.4],
        hspace=0.08,
        left=LEFT / WIDTH,
        right=right / WIDTH,
        top=0.91,
        bottom=0.1,
    )
    plain: dict[str, Any] = {"va": "center", "parse_math": False}  # dollars in names are dollars
    room = WIDTH - LEFT - RIGHT[0]
    said = shortened(f"{prediction.model}:  {headline(prediction)}", room * 2 / 3, **ANSWER)
    figure.text((LEFT + room) / WIDTH, 0.955, said, **ANSWER, ha="right", color="#333333", **plain)
    title = shortened(prediction.video.name, room - text_width(said, **ANSWER) - 2 * PAD, **TITLE)
    figure.text(LEFT / WIDTH, 0.955, title, **TITLE, **plain)
    pictures = figure.add_subplot(grid[0])
    for index, frame in enumerate(frames):
        left = index * duration / count
        pictures.imshow(
            frame,
            extent=(left, left + 0.985 * duration / count, 0, 1),
            aspect="auto",
            interpolation="bilinear",
        )
    _bare(pictures, duration)
    pictures.set_ylim(0, 1)
    sound = figure.add_subplot(grid[1])
    _draw_waveform(sound, low, high, duration)
    curves = figure.add_subplot(grid[2])
    _draw_probabilities(curves, prediction, duration)
    if truth is not None and truth[2] > truth[1]:
        curves.plot([truth[1], truth[2]], [1.06, 1.06], color="black", lw=5, solid_capstyle="butt", clip_on=False)
        curves.annotate(
            shortened(f"truth: {truth[0]}", WIDTH - right - PAD, size=9.5),
            (duration, 1.06),
            (6, 0),
            textcoords="offset points",
            fontsize=9.5,
            annotation_clip=False,
            **plain,
        )
    for event in prediction.events:
        for axis in (sound, curves):
            axis.axvspan(event.start, event.end, color=class_colour(prediction, event.label), alpha=0.13, lw=0)
    return figure


def _shown_inline(**options: Any) -> Figure:
    """A figure that a notebook shows; without a method of its own it does so only once pyplot was set up."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    class Picture(Figure):
        def _repr_png_(self) -> bytes:
            file = io.BytesIO()
            self.savefig(file, format="png", dpi=80)
            return file.getvalue()

    figure = Picture(**options)
    FigureCanvasAgg(figure)
    return figure


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Inches that a text takes in points of that size."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=size, weight=weight), False)
    return float(width) / 72


def shortened(text: str, inches: float, size: float, weight: str = "normal") -> str:
    """A text, or as much of it as has room, and an ellipsis.

    >>> shortened("helicopter", 1, size=10), shortened("helicopter", 0.5, size=10)
    ('helicopter', 'helic…')
    """
    if text_width(text, size, weight) <= inches:
        return text
    while text and text_width(f"{text}…", size, weight) > inches:
        text = text[:-1].rstrip()
    return f"{text}…"


def class_colour(prediction: Prediction, label: str) -> str:
    """By the place in the label order, grey for the background."""
    index = prediction.classes.index(label)
    background = prediction.clip is None and index == len(prediction.classes) - 1
    return GREY if background else COLOURS[index % len(COLOURS)]


def _bare(axis: Any, duration: float) -> None:
    axis.set_xlim(0, duration)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)


def glimpse(prediction: Prediction, count: int) -> tuple[list[Pixels], Envelope, Envelope]:
    """Pictures `[height, width, 3]` spread over a video, and the lowest and highest sample of each bin of its sound.

    Args:
        prediction: Says what to read; it is read window by window.
        count: Of the pictures; there are none where the source has none.
    """
    source, duration = prediction.source, prediction.segments[-1].end
    times = [(index + 0.5) * duration / count for index in range(count)] if probe(source).has_video else []
    frames: list[Pixels] = []
    lows: list[Envelope] = []
    highs: list[Envelope] = []
    for index in range(math.ceil(duration / WINDOW)):
        start = index * WINDOW
        seconds = min(WINDOW, duration - start)
        clip = read_clip(
            source,
            times=[time - start for time in times if start <= time < start + seconds],
            seconds=seconds,
            start=start,
            audio_path=prediction.sound,
            on_missing_audio="silence",
            on_damage="pad",
        )
        frames += list(clip.frames.permute(0, 2, 3, 1).numpy())
        parts = np.array_split(clip.waveform.mean(0).numpy(), max(1, round(BINS * seconds / duration)))
        lows.append(np.array([part.min(initial=0) for part in parts]))
        highs.append(np.array([part.max(initial=0) for part in parts]))
    return frames, np.concatenate(lows), np.concatenate(highs)


def _draw_waveform(axis: Any, low: Envelope, high: Envelope, duration: float) -> None:
    """The envelope, filled."""
    time = (np.arange(len(low)) + 0.5) * duration / len(low)
    top = max(float(np.abs([low, high]).max()), 1e-3)
    axis.fill_between(time, low / top, high / top, color="#50575E", lw=0.3)
    _bare(axis, duration)
    axis.set_ylim(-1.1, 1.1)


def _draw_probabilities(axis: Any, prediction: Prediction, duration: float) -> None:
    """A step curve a class, named at its right end where the names do not touch."""
    from matplotlib.ticker import MaxNLocator

    edges = np.array([segment.start for segment in prediction.segments] + [duration])
    names: list[tuple[float, str, str]] = []
    for index in shown_classes(prediction):
        label = prediction.classes[index]
        curve = prediction.probabilities[:, index].numpy()
        colour = class_colour(prediction, label)
        axis.step(edges, np.append(curve, curve[-1]), where="post", color=colour, lw=2.2)
        names.append((float(curve[-1]), label, colour))
    height = -1.0
    for value, label, colour in sorted(names):
        height = max(value, height + 0.11)
        axis.annotate(
            shortened(label, RIGHT[1] - PAD, **NAMES),
            (duration, height),
            (6, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            annotation_clip=False,
            parse_math=False,
            **NAMES,
        )
    axis.set_xlim(0, duration)
    axis.set_ylim(-0.03, 1.12)
    axis.set_yticks([0, 0.5, 1])
    axis.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True))
    axis.grid(axis="y", color="#E4E6E9", lw=0.8)
    axis.set_axisbelow(True)
    axis.set_xlabel("seconds")
    axis.set_ylabel("probability")
    axis.tick_params(length=0, colors="#555555", pad=2, axis="both", labelsize=9)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def confusion(counts: Tensor, classes: Sequence[str], out: Path) -> Path:
    """Draw a confusion matrix: rows are the truth, shares of a row are shaded, counts are written.

    Args:
        counts: Int64 `[classes, classes]`.
        classes: Label order.
        out: A `.png`, `.svg` or `.pdf`.

    Returns:
        The file written.

    Raises:
        AvzooError: If `out` is of another kind.
    """
    check_picture(out)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n = len(classes)
    figure = Figure(figsize=(2.6 + 0.62 * n, 1.9 + 0.52 * n), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    draw_confusion(figure.add_subplot(), counts, classes)
    return save(figure, out)


def draw_confusion(axis: Any, counts: Tensor, classes: Sequence[str], size: float = 9) -> None:
    """Draw a confusion matrix into axes.

    Args:
        axis: Matplotlib's axes.
        counts: Int64 `[classes, classes]`.
        classes: Label order.
        size: Of the counts, points.
    """
    n = len(classes)
    table = counts.cpu()
    share = table / table.sum(1, keepdim=True).clamp(min=1)
    axis.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row in range(n):
        for column in range(n):
            if table[row, column]:
                colour = "white" if share[row, column] > 0.55 else "#333333"
                number = int(table[row, column])
                axis.text(column, row, str(number), ha="center", va="center", fontsize=size, color=colour)
    axis.set_xticks(range(n), classes, rotation=40, ha="right", fontsize=size + 1)
    names = [f"{name}  {100 * share[i, i]:.0f} %" for i, name in enumerate(classes)]
    axis.set_yticks(range(n), names, fontsize=size + 1)
    axis.set_xlabel("answer")
    axis.set_ylabel("truth, and the share that is right")
    axis.tick_params(length=0)
    for side in axis.spines.values():
        side.set_visible(False)


MARKERS = ("o", "^", "s")  # a class beyond the last colour has the first again, in another shape


def embedding_map(
    maps: Mapping[str, NDArray[np.float32]],
    labels: Sequence[str],
    out: Path,
    *,
    classes: Sequence[str],
    title: str,
    legend: str,
) -> Path:
    """Draw maps of the same rows side by side, a point a row, coloured by class.

    Args:
        maps: Of each embedding by its name, `[rows, 2]`.
        labels: Of the rows.
        out: A `.png`, `.svg` or `.pdf`.
        classes: Label order, which decides the colours; labels beyond it follow by name.
        title: Above all.
        legend: Above the classes: who says so.

    Returns:
        The file written.

    Raises:
        AvzooError: If `out` is of another kind.
    """
    check_picture(out)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    counts = Counter(labels)
    frequent = {label for label, _ in counts.most_common(len(COLOURS) * len(MARKERS))}
    order = [label for label in [*classes, *sorted(counts.keys() - set(classes))] if label in frequent]
    looks = {label: (COLOURS[i % len(COLOURS)], MARKERS[i // len(COLOURS)]) for i, label in enumerate(order)}
    if rest := len(counts) - len(order):
        looks |= {label: (GREY, ".") for label in counts.keys() - frequent}
    size = float(np.clip(16_000 / len(labels), 5, 42))
    height = max(4.5, 0.8 + 0.23 * len(order))  # inches; the legend's lines
    figure = Figure(figsize=(0.3 + 3.7 * len(maps) + 2.2, height), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11, x=0.0035, ha="left", color="#333333")
    shuffled = np.random.default_rng(0).permutation(len(labels))  # or the last class would lie upon all others
    for axis, (name, places) in zip(np.atleast_1d(figure.subplots(1, len(maps))), maps.items(), strict=True):
        for shape in sorted({shape for _, shape in looks.values()}):
            rows = [row for row in shuffled if looks[labels[row]][1] == shape]
            colours = [looks[labels[row]][0] for row in rows]
            axis.scatter(*places[rows].T, s=size, c=colours, marker=shape, linewidths=0.4, edgecolors="white")
        axis.set_title(name, fontsize=13, weight="bold", loc="left")
        axis.set_xticks([])  # a map has no units
        axis.set_yticks([])
        axis.margins(0.06)
        for side in axis.spines.values():
            side.set_color("#E4E6E9")
    names = {label: looks[label] for label in order} | ({f"{rest} more": (GREY, ".")} if rest else {})
    handles = [
        Line2D([], [], ls="", marker=shape, color=colour, markersize=8, label=name)
        for name, (colour, shape) in names.items()
    ]
    figure.legend(
        handles=handles, title=legend, loc="outside right center", frameon=False, fontsize=10.5, alignment="left"
    )
    return save(figure, out)


def save(figure: Figure, out: Path) -> Path:
    """Write a figure whole or not at all.

    Raises:
        AvzooError: If `out` is no `.png`, `.svg` or `.pdf`.
    """
    check_picture(out)
    with whole(out) as unfinished:
        figure.savefig(unfinished, dpi=110, format=out.suffix[1:])
    return out


def check_picture(out: Path) -> None:
    """Whether a picture can be written there, before hours are spent.

    Raises:
        AvzooError: If its name does not end as a picture's.
    """
    if out.suffix.lower() not in FORMATS:
        raise AvzooError(f"{out}: a picture's name ends in {', '.join(FORMATS)}")
