"""What a training shows: one row an epoch on stdout and, in a terminal, one bar for the whole of it beneath.

```
avsdn-ave/version_0: AVSDN, 1.7 M weights, 32 epochs of 23 batches, cpu, 32-true
epoch  train_loss  val_loss  val_segment_accuracy  clips/s
 1/32      0.3887    0.3915                0.4250      812  best
```
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ProgressBar
from torch import Tensor
from tqdm import tqdm

from avzoo.train.best import Best, mode

LOOK = "{desc}  {percentage:3.0f} % {bar} {elapsed} + {remaining} left{postfix}"
GLANCE = 0.5  # s between two looks at the loss, for which a GPU has to be waited for


class Progress(ProgressBar):
    """Rows and a bar; Lightning tells it when it is not the first process.

    Args:
        monitor: The metric that "best" goes by, shown beside the losses and the accuracy.
        repeats: Lightning's epochs in one that is shown.

    Attributes:
        run: What trains, for the headline; empty if it leaves nothing.
    """

    def __init__(self, monitor: str, repeats: int = 1) -> None:
        super().__init__()
        self.monitor, self.repeats, self.run = monitor, repeats, ""
        self._enabled = True
        self._bar: tqdm[Any] | None = None
        self._columns: list[str] = []
        self._best: float | None = None
        self._validated = False
        self._rows = 0
        self._begun = self._stepped = self._glanced = 0.0

    def enable(self) -> None:
        """Be seen."""
        self._enabled = True

    def disable(self) -> None:
        """Be silent."""
        self._enabled = False

    def print(self, *words: Any, **options: Any) -> None:
        """Print above the bar."""
        if self._enabled:
            tqdm.write(" ".join(map(str, words)), file=options.get("file", sys.stdout))
            sys.stdout.flush()

    def _open(self, doing: str, total: float, done: int = 0) -> None:
        hidden = not (self._enabled and sys.stderr.isatty())
        self._bar = tqdm(
            desc=doing,
            total=int(total) if total < float("inf") else None,
            initial=done,
            disable=hidden,
            bar_format=LOOK,
            smoothing=0,  # validation and all are in the mean, and so in the time that is left
            dynamic_ncols=True,
            leave=False,
        )

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    # -- training ----------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what begins."""
        weights = sum(parameter.numel() for parameter in pl_module.parameters())
        learned = sum(parameter.numel() for parameter in pl_module.parameters() if parameter.requires_grad)
        last = max(trainer.max_epochs or 0, 0) // self.repeats
        epochs = {0: "epochs", 1: "1 epoch"}.get(last, f"{last} epochs")
        often = f" (all of the data {self.repeats} times)" if self.repeats > 1 else ""
        batches = trainer.num_training_batches * self.repeats
        self.print(
            (f"{self.run}: " if self.run else "")
            + f"{type(pl_module).__name__}, {_millions(weights)} weights"
            + (f" ({_millions(learned)} of them trained)" if learned < weights else "")
            + f", {epochs} of {batches} batch{'es' * (batches != 1)}{often}"
            + f", {_devices(trainer)}, {trainer.precision}"
        )
        best = next((callback for callback in trainer.callbacks if isinstance(callback, Best)), None)  # type: ignore[attr-defined]
        score = best.best_model_score if best else None
        self._best = None if score is None else float(score)
        self._open("", trainer.estimated_stepping_batches, trainer.global_step)
        self._begin(trainer)  # also where a run goes on within an epoch

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Begin to count."""
        if trainer.current_epoch % self.repeats == 0:
            self._begin(trainer)

    def _begin(self, trainer: Trainer) -> None:
        self._begun = self._stepped = time.monotonic()
        self._rows, self._validated = 0, False
        self._describe(f"epoch {self._epoch(trainer)}")

    def _epoch(self, trainer: Trainer) -> str:
        """From 1: `3/24`."""
        last = max(trainer.max_epochs or 0, 0) // self.repeats
        return f"{trainer.current_epoch // self.repeats + 1}" + (f"/{last}" if last else "")

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,
        batch: Any,
        batch_idx: int,  # noqa: ARG002 - Lightning's
    ) -> None:
        """Count; look at the loss now and then."""
        self._stepped = now = time.monotonic()
        self._rows += _rows(batch) * trainer.world_size
        bar = self._bar
        if bar is None or bar.disable:
            return
        if now - self._glanced > GLANCE:
            self._glanced = now
            seen = {"loss": f"{float(outputs['loss']):.4f}"} if isinstance(outputs, Mapping) else {}
            if self.monitor in trainer.callback_metrics:
                seen[self.monitor] = f"{float(trainer.callback_metrics[self.monitor]):.4f}"
            said = ", ".join(f"{name} {figure}" for name, figure in seen.items())
            bar.set_postfix_str(f"{_rate(self._speed())} {_unit(trainer)}/s, {said}", refresh=False)
        bar.update(trainer.global_step - bar.n)

    def _speed(self) -> float:
        return self._rows / max(self._stepped - self._begun, 1e-6)

    def _describe(self, doing: str) -> None:
        if self._bar is not None:
            self._bar.set_description_str(doing)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """A row."""
        if (trainer.current_epoch + 1) % self.repeats:
            return
        seen = trainer.callback_metrics
        wanted = dict.fromkeys(("train_loss", "val_loss", "val_segment_accuracy", self.monitor))
        columns = [name for name in wanted if name in seen]
        if columns != self._columns:  # validation may come some epochs later
            self._columns = columns
            self.print("epoch  " + "  ".join(f"{name:>10}" for name in [*self._columns, f"{_unit(trainer)}/s"]))
        cells = [f"{self._epoch(trainer):>5}"]
        for name in self._columns:
            known = self._validated or not name.startswith("val_")
            cells.append(f"{f'{float(seen[name]):.4f}' if known else '':>{max(10, len(name))}}")
        cells.append(f"{_rate(self._speed()):>10}")
        if self._validated and self.monitor in seen and self._improves(float(seen[self.monitor])):
            self._best = float(seen[self.monitor])
            cells.append("best")
        self.print("  ".join(cells))

    def _improves(self, value: float) -> bool:
        """As the best checkpoint is chosen, which may be written later."""
        lower = mode(self.monitor) == "min"
        return self._best is None or (value < self._best if lower else value > self._best)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Say why it ends early, if it does."""
        self._close()
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            reason = callback.stopping_reason_message if isinstance(callback, EarlyStopping) else None
            if reason:
                self.print(f"stopped early: {reason.removesuffix('Signaling Trainer to stop.').strip()}")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:  # noqa: ARG002
        """Leave no half bar behind."""
        self._close()

    # -- evaluation --------------------------------------------------------------------------------------------------

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Within a training its bar says so."""
        self._validated = True
        if trainer.state.fn == "validate":
            self._open("validation", sum(trainer.num_val_batches))
        elif not trainer.sanity_checking:
            self._describe(f"epoch {self._epoch(trainer)}, validation")

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Count."""
        if trainer.state.fn == "validate" and self._bar is not None:
            self._bar.update()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Back to training, or the end."""
        if trainer.state.fn == "validate":
            self._close()
        elif not trainer.sanity_checking:
            self._describe(f"epoch {self._epoch(trainer)}")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """A bar."""
        self._open("test", sum(trainer.num_test_batches))

    def on_test_batch_end(self, *_: Any) -> None:
        """Count."""
        if self._bar is not None:
            self._bar.update()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """The end."""
        self._close()


def _rows(batch: Any) -> int:
    """How many rows a batch has: as many as its first tensor."""
    while not isinstance(batch, Tensor):
        batch = next(iter(batch.values() if isinstance(batch, Mapping) else batch))
    return len(batch)


def _unit(trainer: Trainer) -> str:
    """What a row of training is."""
    rows = getattr(trainer.datamodule, "sets", {}).get("train")  # type: ignore[attr-defined]
    return {"second": "seconds", "pair": "pairs"}.get(getattr(rows, "examples", ""), "clips")


def _rate(speed: float) -> str:
    """At least two digits.

    >>> _rate(812.3), _rate(0.4321)
    ('812', '0.43')
    """
    return f"{speed:.0f}" if speed >= 10 else f"{speed:.2g}"


def _millions(count: int) -> str:
    """A number of weights in words.

    >>> _millions(1_710_000), _millions(24_300)
    ('1.7 M', '24 k')
    """
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count / 1e3:.0f} k"


def _devices(trainer: Trainer) -> str:
    """`cpu`, `4 x cuda`."""
    kind = trainer.strategy.root_device.type
    return kind if trainer.world_size == 1 else f"{trainer.world_size} x {kind}"
