"""A confusion matrix as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from avzoo.plot.style import check_picture, new_figure, save


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
    n = len(classes)
    figure = new_figure(2.6 + 0.62 * n, 1.9 + 0.52 * n)
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
