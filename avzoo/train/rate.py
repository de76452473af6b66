"""`avzoo lr`: a learning rate to begin with, from a short training in which it rises step by step (Smith, 2017)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from tqdm import tqdm

from avzoo import plot
from avzoo.errors import AvzooError

STEPS, LOWEST, HIGHEST = 100, 1e-7, 1.0
AROUND = 5  # steps before and after, over which a loss is averaged
DIVERGED = 4.0  # times the lowest loss

# What the trainer is told: so many steps, whatever the recipe says, and nothing that stays.
OPTIONS: dict[str, Any] = {
    "max_epochs": -1,
    "max_steps": STEPS,
    "num_sanity_val_steps": 0,
    "check_val_every_n_epoch": STEPS + 1,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "logger": False,
}


class Rise(Callback):
    """Raises the learning rate exponentially, in place of the recipe's schedule, and notes the loss at each.

    Attributes:
        rates: Of the steps so far.
        losses: Of the steps so far.
    """

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.losses: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002 - Lightning's
        """Switch the schedule off."""
        trainer.strategy.lr_scheduler_configs = []
        self._bar = tqdm(total=STEPS, desc="learning rates", leave=False, disable=None)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Set the next rate."""
        rate = LOWEST * (HIGHEST / LOWEST) ** (trainer.global_step / (STEPS - 1))
        self.rates.append(rate)
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Note the loss."""
        self.losses.append(float(outputs["loss"]))
        self._bar.update(trainer.global_step - self._bar.n)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """The bar goes."""
        self._bar.close()


def smooth(losses: Sequence[float]) -> list[float]:
    """Means over neighbouring steps, up to where the loss has diverged.

    >>> smooth([2.0, 2.0, 1.0, 1.0, float("nan"), 3.0])
    [1.5, 1.5, 1.5, 1.5]
    """
    finite = next((index for index, loss in enumerate(losses) if not math.isfinite(loss)), len(losses))
    known = np.asarray(losses[:finite])
    means = [float(known[max(0, index - AROUND) : index + AROUND + 1].mean()) for index in range(finite)]
    lowest = math.inf
    for index, loss in enumerate(means):
        lowest = min(lowest, loss)
        if loss > DIVERGED * lowest:
            return means[:index]
    return means


def suggest(rates: Sequence[float], losses: Sequence[float]) -> float:
    """The rate at which the loss falls fastest, over the logarithm of the rate.

    Args:
        rates: Rising.
        losses: At each of the first rates, smoothed.

    Raises:
        AvzooError: If it does not fall.

    >>> suggest([0.001, 0.01, 0.1, 1.0, 10.0], [1.0, 0.9, 0.5, 0.1, 0.1])
    0.1
    """
    slopes = np.gradient(np.asarray(losses)) if len(losses) > 1 else np.zeros(1)
    steepest = int(slopes.argmin())
    if not slopes[steepest] < 0:
        raise AvzooError("the loss falls at no learning rate: does this recipe train at all?")
    return rates[steepest]


def draw(rates: Sequence[float], losses: Sequence[float], out: Path, *, suggested: float, title: str) -> Path:
    """Draw the loss of a training whose learning rate rises step by step.

    Args:
        rates: Learning rates.
        losses: The loss at each, smoothed.
        out: A `.png`.
        suggested: The learning rate to mark.
        title: Above.

    Returns:
        The file written.
    """
    figure = plot.new_figure(7, 4)
    axis = figure.add_subplot()
    axis.semilogx(rates[: len(losses)], losses, color=plot.COLOURS[0], lw=2.2)
    loss = float(np.interp(math.log(suggested), np.log(rates[: len(losses)]), losses))
    axis.axvline(suggested, color=plot.DARK, lw=1, ls=":")
    axis.plot([suggested], [loss], "o", color=plot.COLOURS[4], markersize=9, markeredgecolor="white")
    axis.annotate(
        f"{suggested:.2g}",
        (suggested, loss),
        (9, 6),
        textcoords="offset points",
        color=plot.COLOURS[4],
        weight="bold",
        fontsize=11,
    )
    axis.set_title(title, fontsize=11, loc="left", color=plot.INK)
    axis.set_xlabel("learning rate")
    axis.set_ylabel("training loss, smoothed")
    plot.plain_axes(axis)
    return plot.save(figure, out)
