"""The picture that a finished run leaves: `report.png`, curves and confusion, drawn from what lies in its folder."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from avzoo import plot
from avzoo.data.base import AVDataModule
from avzoo.metrics import Confusion
from avzoo.models.base import AVModule
from avzoo.train.best import mode
from avzoo.train.tracking import Record

MOST_CLASSES = 60  # of a confusion matrix that can be read beside the curves; `avzoo test` draws any
Curve = Sequence[tuple[float, float]]  # epoch (the first is 1) and value


def read_curves(metrics: Path) -> dict[str, list[tuple[float, float]]]:
    """What was logged once an epoch, by name: epoch (the first is 1) and value; of several the last one counts.

    Args:
        metrics: metrics.csv, as Lightning writes it.
    """
    found: dict[str, dict[float, float]] = {}
    with metrics.open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            epoch = row.pop("epoch", "")
            row.pop("step", None)
            for name, value in row.items():
                if epoch and value and name.startswith(("train_", "val_")):
                    found.setdefault(name, {})[float(epoch) + 1] = float(value)
    return {name: sorted(points.items()) for name, points in sorted(found.items())}


def panels(curves: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Curves by panel: what training has too, or is a loss; and the rest, metrics.

    >>> panels({"train_loss": 1, "val_accuracy": 2, "val_loss": 3})
    {'loss': {'train_loss': 1, 'val_loss': 3}, 'metrics, validation': {'val_accuracy': 2}}
    """
    trained = {name.removeprefix("train_") for name in curves if name.startswith("train_")}
    losses = {name for name in curves if name.split("_", 1)[1] in trained or name.endswith("loss")}
    split = {
        "loss": {name: points for name, points in curves.items() if name in losses},
        "metrics, validation": {name: points for name, points in curves.items() if name not in losses},
    }
    return {name: lines for name, lines in split.items() if lines}


@torch.inference_mode()
def confusion(model: AVModule, data: AVDataModule, device: torch.device) -> Tensor:
    """What a model answers to the whole of validation, int64 `[classes, classes]`, in this process alone.

    Args:
        model: In eval mode.
        data: Its validation is in memory.
        device: Where it runs.
    """
    counts = Confusion(len(model.classes)).to(device)
    model.to(device)
    for rows in data.batches("val"):
        batch = move_data_to_device(data.sets["val"][rows], device)
        counts.update(model(batch.audio, batch.visual), batch.label)
    model.cpu()
    return counts.confmat  # compute() would wait for the other processes, which are not here


def write_report(
    folder: Path, record: Record, monitor: str, *, counts: Tensor | None, classes: Sequence[str]
) -> Path | None:
    """Draw `report.png` of a run; None if nothing was logged.

    Args:
        folder: The run's.
        record: What is known of it.
        monitor: What the best checkpoint was chosen by.
        counts: See `confusion`.
        classes: Label order.
    """
    file = folder / "metrics.csv"
    curves = read_curves(file) if file.exists() else {}
    if not curves:
        return None
    epochs = max(points[-1][0] for points in curves.values())
    said, best = [], None
    if points := curves.get(monitor):
        epoch, value = (min if mode(monitor) == "min" else max)(points, key=lambda point: point[1])
        best = (monitor, epoch)
        said.append(f"best {monitor} {value:.4f} in epoch {epoch:.0f} of {epochs:.0f}")
    said.append(in_words(record.seconds))
    if commit := record.facts["commit"] or record.facts["avzoo_commit"]:
        said.append(f"commit {commit[:10]}")
    title = f"{record.facts['recipe']}/{record.facts['run']}"
    line = ",  ".join(said)
    return draw(
        panels(curves), folder / "report.png", title=title, said=line, best=best, counts=counts, classes=classes
    )


def in_words(seconds: float) -> str:
    """A time.

    >>> in_words(59.2), in_words(754), in_words(40_000)
    ('59 s', '12 min 34 s', '11 h 6 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def draw(
    curves: Mapping[str, Mapping[str, Curve]],
    out: Path,
    *,
    title: str,
    said: str,
    best: tuple[str, float] | None = None,
    counts: Tensor | None = None,
    classes: Sequence[str] = (),
) -> Path:
    """Draw how a training went: a panel of curves over epochs each below the other, the confusion matrix beside them.

    Args:
        curves: Of each panel by its name, curves by their names; those that begin with `train_` are dashed.
        out: A `.png`.
        title: Above all.
        said: The line below it.
        best: The curve and the epoch of the best checkpoint.
        counts: Int64 `[classes, classes]`: what the best checkpoint answers.
        classes: Label order.

    Returns:
        The file written.
    """
    n = len(classes) if counts is not None and len(classes) <= MOST_CLASSES else 0
    cell = 0.5 if n <= 12 else 0.34  # inches
    wide, high = (2.9 + cell * n if n else 0.0), max(5.4, 2.6 + cell * n)
    figure = plot.new_figure(6.4 + wide, high)
    figure.get_layout_engine().set(rect=(0.008, 0.01, 0.984, 1 - 0.85 / high), w_pad=0.12, h_pad=0.08)  # type: ignore[union-attr, call-arg]
    figure.text(
        0.1 / (6.4 + wide) * 2, 1 - 0.3 / high, title, fontsize=14, weight="bold", va="center", parse_math=False
    )
    figure.text(
        0.1 / (6.4 + wide) * 2, 1 - 0.6 / high, said, fontsize=10, va="center", color=plot.INK, parse_math=False
    )
    grid = figure.add_gridspec(len(curves), 2 if n else 1, width_ratios=[6.4, wide] if n else None)
    for index, (name, lines) in enumerate(curves.items()):
        _draw_curves(figure.add_subplot(grid[index, 0]), name, lines, best)
    if n and counts is not None:
        axis = figure.add_subplot(grid[:, 1])
        plot.draw_confusion(axis, counts, classes, 9 if n <= 12 else 6.5)
        axis.set_title("validation, best checkpoint", fontsize=11, loc="left", color=plot.INK)
    return plot.save(figure, out)


def _draw_curves(axis: Any, name: str, lines: Mapping[str, Curve], best: tuple[str, float] | None) -> None:
    """One panel; the best epoch is marked in all, its value on the curve that it was chosen by."""
    from matplotlib.ticker import MaxNLocator

    kinds = list(dict.fromkeys(_kind(line) for line in lines))
    for line, points in lines.items():
        colour = plot.COLOURS[kinds.index(_kind(line)) % len(plot.COLOURS)]
        dashed = line.startswith("train_")
        epochs, values = zip(*points, strict=True)
        marker = "o" if len(points) < 3 else None
        axis.plot(
            epochs,
            values,
            color=colour,
            lw=1.4 if dashed else 2.2,
            ls="--" if dashed else "-",
            label=line,
            marker=marker,
            markersize=4,
        )
    if best is not None:
        monitor, epoch = best
        axis.axvline(epoch, color=plot.DARK, lw=1, ls=":")
        value = dict(lines.get(monitor, ())).get(epoch)
        if value is not None:
            colour = plot.COLOURS[kinds.index(_kind(monitor)) % len(plot.COLOURS)]
            axis.plot([epoch], [value], "o", color=colour, markersize=8, markeredgecolor="white", zorder=3)
    alone = len(lines) == 1
    axis.set_title(next(iter(lines)) if alone else name, fontsize=11, loc="left", color=plot.INK)
    if not alone:
        axis.legend(frameon=False, fontsize=9, loc="best")
    axis.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))
    axis.set_xlabel("epoch", fontsize=9)
    plot.plain_axes(axis)


def _kind(line: str) -> str:
    """What a curve is of: `loss` of `train_loss` and `val_loss`."""
    return line.removeprefix("train_").removeprefix("val_")
