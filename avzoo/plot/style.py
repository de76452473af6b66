"""What all pictures share: colours, figures and axes, text that fits its room, and how they are written."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from avzoo.errors import AvzooError
from avzoo.files import whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from avzoo.prediction import Prediction

# Okabe and Ito's colours, which most colour-blind readers can tell apart; the background's grey comes last.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8C6D31", "#7A5195")
GREY = "#B8BCC2"
INK, DARK, GRID = "#333333", "#50575E", "#E4E6E9"  # of titles, of marks and waveforms, of lines behind curves
FORMATS = (".png", ".svg", ".pdf")


def class_colour(prediction: Prediction, label: str) -> str:
    """By the place in the label order, grey for the background."""
    index = prediction.classes.index(label)
    background = prediction.clip is None and index == len(prediction.classes) - 1
    return GREY if background else COLOURS[index % len(COLOURS)]


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """An empty picture of so many inches, which a notebook shows: Matplotlib's own only once pyplot was set up."""
    from matplotlib.figure import Figure

    class Picture(Figure):
        def _repr_png_(self) -> bytes:
            file = io.BytesIO()
            self.savefig(file, format="png", dpi=80)
            return file.getvalue()

    return Picture(figsize=(width, height), facecolor="white", layout=layout)


def plain_axes(axis: Axes) -> None:
    """No frame but the line below, no ticks but their names, and a grid of heights behind the curves."""
    axis.grid(axis="y", color=GRID, lw=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(length=0, which="both", colors="#555555", labelsize=9)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


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
