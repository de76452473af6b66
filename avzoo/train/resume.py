"""Exact resumption: a run that was killed at any moment ends with the weights of one that was not.

A checkpoint is taken right before a training step, when nothing is half done: counters, averages, schedules and the
random numbers of every process are those that the step begins with, and it is the first thing to happen afterwards.
One is taken before the last step ahead of each validation, which can then be left at any moment.
The order of the data needs no state: it comes from seed and epoch, see `avzoo.data.loading.Shares`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from avzoo.data.loading import Shares
from avzoo.files import leftovers, whole
from avzoo.train.runs import LAST, PREVIOUS, Run
from avzoo.train.signals import StopFlag, Stopped


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place, then moves it there: a file by its name is always whole.

    The `last.ckpt` before it becomes `previous.ckpt`.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write to a local path; anything else is Lightning's business."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        path = Path(path)
        with whole(path) as unfinished:
            with unfinished.open("wb") as file:
                try:
                    torch.save(checkpoint, file)
                except RuntimeError as error:
                    if isinstance(error.__context__, OSError):  # a full disk: torch hides it behind an error of its own
                        raise error.__context__ from None
                    raise
                file.flush()
                os.fsync(file.fileno())
            if path.name == LAST and path.exists():
                path.replace(path.with_name(PREVIOUS))


class Resumable(Checkpoint):
    """Keeps `last.ckpt` of a run, goes on from it exactly, and stops in good order when a signal asks for it.

    Args:
        run: The run's folder, and where it goes on.
        save_every: Steps between two checkpoints; the last step ahead of a validation begins with one anyway.
    """

    def __init__(self, run: Run, save_every: int) -> None:
        super().__init__()
        self.run, self.save_every = run, save_every
        self._flag = StopFlag()
        self._flag.install()
        self._resumed: dict[str, Any] | None = None
        self._before_step = False
        self._saved_at = -1  # the step before which the last one was

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002 - Lightning's
        """Clear away what a killed process left half written, and a damaged `last.ckpt`, which is not to be kept."""
        if stage == "fit" and trainer.is_global_zero:
            for left in leftovers(self.run.checkpoints, alone=True):
                left.unlink()
            if self.run.checkpoint != self.run.checkpoints / LAST:
                (self.run.checkpoints / LAST).unlink(missing_ok=True)

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Take the signals back from Lightning; from here on they wait for a step, as other processes do."""
        self._flag.install()
        self._flag.deferred = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Here as well, where there was no such check; give every process random numbers of its own."""
        self._flag.install()
        self._flag.deferred = True
        if trainer.global_rank:
            torch.manual_seed(torch.initial_seed() + trainer.global_rank)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Restore what only now can be restored; save; stop."""
        if self._resumed is not None:
            trainer.fit_loop.epoch_loop._batches_that_stepped = self._resumed["batches_that_stepped"]
            self._restore_random_numbers(trainer, self._resumed["processes"])
            trainer.fit_loop._restarting = False  # or a plateau at the end of this epoch would not lower the rate
            return
        stopping = trainer.strategy.reduce_boolean_decision(self._flag.raised > 0, all=False)
        first, done = batch_idx == 0, trainer.global_step
        validated = (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1) == 0
        last = validated and batch_idx + trainer.accumulate_grad_batches >= trainer.num_training_batches
        knows = _knows_its_place(trainer.train_dataloader)
        due = last or (done > 0 and (done % self.save_every == 0 if knows else first))
        whole = batch_idx % trainer.accumulate_grad_batches == 0  # or gradients are half summed
        if whole and (due or stopping) and (first or knows):
            self._before_step = True
            self._save(trainer)
            self._before_step = False
            self._saved_at = trainer.global_step
        if whole and stopping:
            raise self._flag.stop()

    def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Stop here too, before the first step or if the validation will follow when the last step is done again."""
        if not _knows_its_place(trainer.val_dataloaders):
            return
        stopping = trainer.strategy.reduce_boolean_decision(self._flag.raised > 0, all=False)
        if stopping and (trainer.sanity_checking or self._saved_at + 1 == trainer.global_step):
            raise self._flag.stop()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Count the steps before a resumption too in what is logged once an epoch."""
        if self._resumed is None:
            return
        states, self._resumed = self._resumed["processes"], None
        if len(states) == trainer.world_size:
            for name, (total, rows) in states[trainer.global_rank]["sums"].items():
                mean = trainer.fit_loop.epoch_loop._results[name]
                mean.value, mean.cumulated_batch_size = mean.value + total, mean.cumulated_batch_size + rows

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Keep the end."""
        self._save(trainer)
        if trainer.strategy.reduce_boolean_decision(
            self._flag.raised > 0, all=False
        ):  # it came after the last step began
            raise self._flag.stop()
        self._flag.deferred = False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:  # noqa: ARG002
        """Let the same command go on in this folder."""
        if isinstance(exception, Stopped) and trainer.is_global_zero:
            after = f" after {trainer.global_step} steps" if self._flag.deferred else ""
            exception.say(after)
        self._flag.deferred = False
        self.run.release()

    def _save(self, trainer: Trainer) -> None:
        for logger in trainer.loggers:
            logger.save()
        trainer.save_checkpoint(self.run.checkpoints / LAST, weights_only=False)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002
        """Add what every process has of its own; before a step, count it as not begun."""
        loops = checkpoint["loops"]["fit_loop"]
        checkpoint["avzoo_resume"] = {
            "processes": _gather(_random_numbers(trainer) | {"sums": _sums(trainer) if self._before_step else {}}),
            "batches_that_stepped": loops["epoch_loop.state_dict"]["_batches_that_stepped"],
            "ended_early": trainer.should_stop,
        }
        if self._before_step:
            progress = loops["epoch_loop.batch_progress"]
            progress["total"]["ready"] -= 1
            progress["current"]["ready"] -= 1
            progress["is_last_batch"] = False

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002
        """Remember what the first step needs, and whether there is to be none."""
        if trainer.state.fn == "fit":
            self._resumed = resumed = checkpoint.get("avzoo_resume")
            ended = bool(resumed and resumed.get("ended_early"))  # which Lightning forgets
            trainer.should_stop = ended and self.run.checkpoint is not None  # a run that starts from another's trains

    @staticmethod
    def _restore_random_numbers(trainer: Trainer, states: list[dict[str, Any]]) -> None:
        """Those of this process; with another number of processes new ones, the same whenever that is tried again."""
        if len(states) != trainer.world_size:
            torch.manual_seed(torch.initial_seed() + 1_000_003 * (1 + trainer.global_step) + trainer.global_rank)
            return
        state = states[trainer.global_rank]
        torch.set_rng_state(state["cpu"].cpu())
        if "cuda" in state and trainer.strategy.root_device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda"].cpu(), trainer.strategy.root_device)


def _knows_its_place(loader: Any) -> bool:
    """Whether the data can go on within an epoch, and are the same number of batches for every process."""
    return isinstance(getattr(loader, "sampler", None), Shares)


def _random_numbers(trainer: Trainer) -> dict[str, Tensor]:
    device = trainer.strategy.root_device
    cuda = {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
    return {"cpu": torch.get_rng_state(), **cuda}


def _sums(trainer: Trainer) -> dict[str, tuple[float, int]]:
    """Of each mean that is logged once an epoch, the total and the rows so far."""
    return {
        name: (float(mean.value), int(mean.cumulated_batch_size))
        for name, mean in trainer.fit_loop.epoch_loop._results.items()
        if mean.is_tensor and mean.meta.on_epoch and mean.meta.is_mean_reduction
    }


def _gather(state: dict[str, Any]) -> list[dict[str, Any]]:
    """What every process has, by rank."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [state]
    states: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(states, state)
    return states
