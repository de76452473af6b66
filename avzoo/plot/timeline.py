"""The timeline of a prediction as a picture: frames, waveform and probabilities over time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from avzoo.clip import probe, read_clip
from avzoo.errors import AvzooError
from avzoo.plot.style import DARK, INK, class_colour, new_figure, plain_axes, shortened, text_width
from avzoo.plot.text import headline, shown_classes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from avzoo.prediction import Prediction

Pixels = NDArray[np.uint8]
Envelope = NDArray[np.float32]
MOST_FRAMES = 10
WINDOW = 30.0  # s read at a time
BINS = 900  # of a waveform
WIDTH = 11.0  # inches, and so is what follows
LEFT = 0.66  # margin
RIGHT = (1.54, 2.6)  # margin: at least, and at most, whatever the names that stand there
PAD = 0.16  # beside a name
NAMES: dict[str, Any] = {"size": 10, "weight": "bold"}
TITLE: dict[str, Any] = {"size": 13, "weight": "bold"}
ANSWER: dict[str, Any] = {"size": 10.5}


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
    figure = new_figure(WIDTH, 1.7 + high_frames + 2.6, layout=None)
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
    figure.text((LEFT + room) / WIDTH, 0.955, said, **ANSWER, ha="right", color=INK, **plain)
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
    axis.fill_between(time, low / top, high / top, color=DARK, lw=0.3)
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
    axis.set_xlabel("seconds")
    axis.set_ylabel("probability")
    plain_axes(axis)
    axis.tick_params(pad=2)
