"""Maps of embeddings as a picture: a point a row, coloured by class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avzoo.plot.style import COLOURS, GREY, GRID, INK, check_picture, new_figure, save

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
    from matplotlib.lines import Line2D

    counts = Counter(labels)
    frequent = {label for label, _ in counts.most_common(len(COLOURS) * len(MARKERS))}
    order = [label for label in [*classes, *sorted(counts.keys() - set(classes))] if label in frequent]
    looks = {label: (COLOURS[i % len(COLOURS)], MARKERS[i // len(COLOURS)]) for i, label in enumerate(order)}
    if rest := len(counts) - len(order):
        looks |= {label: (GREY, ".") for label in counts.keys() - frequent}
    size = float(np.clip(16_000 / len(labels), 5, 42))
    height = max(4.5, 0.8 + 0.23 * len(order))  # inches; the legend's lines
    figure = new_figure(0.3 + 3.7 * len(maps) + 2.2, height)
    figure.suptitle(title, fontsize=11, x=0.0035, ha="left", color=INK)
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
            side.set_color(GRID)
    names = {label: looks[label] for label in order} | ({f"{rest} more": (GREY, ".")} if rest else {})
    handles = [
        Line2D([], [], ls="", marker=shape, color=colour, markersize=8, label=name)
        for name, (colour, shape) in names.items()
    ]
    figure.legend(
        handles=handles, title=legend, loc="outside right center", frameon=False, fontsize=10.5, alignment="left"
    )
    return save(figure, out)
