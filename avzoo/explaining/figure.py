"""The picture of an explanation: maps as light on the frames, views as rows below the timeline."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from avzoo.clip import read_clip
from avzoo.plot import MOST_FRAMES, Pixels, class_colour, shortened, timeline_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from avzoo.explaining.explanation import Explanation

ROW = 0.24  # inches that a view takes
SMALL = 8  # points, of a name over pictures
WRITTEN = 20  # cells of a row that have room for a number


def words(view: str) -> str:
    """The name of a view for people.

    >>> words("sound_alone")
    'sound alone'
    """
    return view.replace("_", " ")


def glow(frame: Pixels, heat: Tensor) -> Pixels:
    """A frame, darkened where a class-activation map is 0, in a warm light where it is 1.

    Args:
        frame: `[height, width, 3]`.
        heat: `[rows, columns]`, 0 to 1, over the whole frame.

    Returns:
        `[height, width, 3]`.
    """
    from matplotlib import colormaps

    smooth = torch.nn.functional.interpolate(heat[None, None], frame.shape[:2], mode="bicubic", align_corners=False)
    light = smooth[0, 0].clamp(0, 1).numpy()
    colour = 255 * colormaps["inferno"](0.35 + 0.6 * light)[..., :3]
    share = 0.6 * light[..., None] ** 0.8
    dark = 0.45 * frame + 0.35 * frame.mean(-1, keepdims=True)
    return np.asarray((1 - share) * dark + share * colour, dtype=np.uint8)


def glowing_frames(explanation: Explanation, most: int = MOST_FRAMES) -> list[tuple[float, str, Pixels]]:
    """Pictures with the light of their maps, from the middle of segments: the time, s, the class, the picture.

    Args:
        explanation: Of one video, which is read again for its pictures.
        most: Of more segments than that, some are left out.
    """
    if explanation.maps is None or explanation.picture_times is None:
        return []
    count, middle = min(most, len(explanation.segments)), explanation.maps.shape[1] // 2
    found = []
    for row in [int((index + 0.5) * len(explanation.segments) / count) for index in range(count)]:
        time = float(explanation.picture_times[row, middle])
        start = min(time, max(0.0, explanation.duration - 0.1))  # after the end the last picture is held
        seconds = time - start + 0.1
        clip = read_clip(
            explanation.source, times=[time - start], seconds=seconds, start=start, audio=False, on_damage="pad"
        )
        frame = clip.frames[0].permute(1, 2, 0).numpy()
        found.append((time, explanation.explained[row], glow(frame, explanation.maps[row, middle])))
    return found


def explanation_figure(explanation: Explanation) -> Figure:
    """The timeline with the light of the maps on its pictures, and below it a row a view.

    A class is named once over neighbouring pictures of it. A cell is the probability of its segment's explained class.
    """
    drawn = timeline_figure(explanation)
    pictures = drawn.axes[0]
    frames = glowing_frames(explanation, max(1, len(pictures.images)))
    inch = pictures.get_position().width * drawn.get_figwidth() / explanation.segments[-1].end  # of a second
    lit = list(zip(pictures.images, frames, strict=False))
    for image, (_, _, frame) in lit:
        image.set_data(frame)
    for label, run in groupby(lit, lambda pair: pair[1][1]):
        extents = [image.get_extent() for image, _ in run]
        left, right = extents[0][0], extents[-1][1]
        colour, said = class_colour(explanation, label), shortened(label, 0.92 * (right - left) * inch, SMALL)
        pictures.text((left + right) / 2, 1.04, said, ha="center", fontsize=SMALL, color=colour, parse_math=False)
    rows = explanation.rows()
    views = [name for name in explanation.views if name != "both"]
    before = drawn.get_figheight()
    after = before + ROW * len(views) + 0.2
    drawn.set_figheight(after)
    for part in drawn.axes:
        box = part.get_position()
        part.set_position((box.x0, 1 - (1 - box.y0) * before / after, box.width, box.height * before / after))
    for text in drawn.texts:
        text.set_y(1 - (1 - text.get_position()[1]) * before / after)
    axis = drawn.add_axes((box.x0, 0.12 / after, box.width, ROW * len(views) / after))
    _draw_views(axis, explanation, rows, views)
    return drawn


def _draw_views(axis: Any, explanation: Explanation, rows: list[dict[str, Any]], views: list[str]) -> None:
    for line, name in enumerate(views):
        for row in rows:
            colour, width = class_colour(explanation, row["label"]), row["end"] - row["start"]
            axis.barh(-line, width, 0.86, row["start"], color="#F1F2F4", align="center", lw=0)
            axis.barh(-line, width, 0.86, row["start"], color=colour, alpha=0.75 * row[name], align="center", lw=0)
            if len(rows) <= WRITTEN:
                middle = row["start"] + width / 2
                axis.text(middle, -line, f"{row[name]:.2f}", ha="center", va="center", fontsize=8, color="#222222")
        axis.annotate(words(name), (rows[-1]["end"], -line), (6, 0), textcoords="offset points", va="center")
    axis.set_xlim(0, rows[-1]["end"])
    axis.set_ylim(-len(views) + 0.5, 0.5)
    axis.axis("off")
