"""Where a run is written down while it trains: metrics.csv always, TensorBoard or Weights & Biases beside it.

```
runs/<recipe>/version_0/metrics.csv            one row an epoch
                        hparams.yaml           the recipe as resolved, commits, versions, and in the end the best value
                        events.out.tfevents.*  --track tensorboard
                        wandb/, wandb-id       --track wandb; the same run after every resumption
```
"""

from __future__ import annotations

import csv
import importlib.util
import os
import subprocess
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import yaml
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, Logger

from avzoo import provenance
from avzoo.errors import AvzooError
from avzoo.train.best import Best
from avzoo.train.runs import Run

if TYPE_CHECKING:
    import wandb

Track = Literal["csv", "tensorboard", "wandb"]


def facts(run: Run, recipe: str) -> dict[str, Any]:
    """What made a run: the recipe as resolved, its name, the seed, commits and versions.

    Args:
        run: It is called after its folder.
        recipe: As resolved, YAML.
    """
    config = yaml.safe_load(recipe)
    made = provenance.training()
    return {
        "recipe": run.folder.parent.name,
        "run": run.folder.name,
        "seed": config.get("seed_everything"),
        "commit": working_tree(),
        "avzoo_commit": made["commit"],
        "versions": made["versions"],
        "config": config,
    }


def working_tree() -> str:
    """The commit that is checked out where the command runs, `-dirty` if files differ; empty outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def open_loggers(track: Track, run: Run, *, first: bool) -> list[Logger]:
    """The loggers of a run; a run that goes on keeps what it has logged.

    Args:
        track: What is written beside metrics.csv.
        run: Its folder exists.
        first: Whether this is the process that writes.

    Raises:
        AvzooError: If the tracker is not installed, or nobody is logged in to it.
    """
    table = CSVLogger(run.folder.parent.parent, name=run.folder.parent.name, version=run.folder.name)
    if first:
        _keep_metrics(run, table)
    if track == "csv" or not first:
        return [table]
    if importlib.util.find_spec(track) is None:
        raise AvzooError(f"--track {track} needs another package: pip install 'avzoo[track]'")
    return [table, _tensorboard(run) if track == "tensorboard" else _wandb(run)]


def _keep_metrics(run: Run, table: CSVLogger) -> None:
    """Log again what a run has logged up to where it goes on: Lightning's logger begins with an empty file."""
    file, kept = run.folder / "metrics.csv", run.folder / "metrics.csv.kept"  # the latter until the former is whole
    if file.exists() and not kept.exists():
        file.replace(kept)
    if run.checkpoint is not None and kept.exists():
        with kept.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
        steps = _steps(run.checkpoint)
        for row in rows:
            step = int(row.pop("step"))
            if step < steps:
                table.experiment.log_metrics({key: value for key, value in row.items() if value}, step)
        table.save()
    kept.unlink(missing_ok=True)


def _steps(checkpoint: Path) -> int:
    """How many steps loggers have been told of."""
    content = torch.load(checkpoint, weights_only=True, mmap=True)
    steps: int = content["avzoo_resume"]["batches_that_stepped"]
    return steps


def _tensorboard(run: Run) -> Logger:
    """A new file beside the former ones; what those hold beyond the checkpoint is not shown."""
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(
        run.folder.parent.parent,
        name=run.folder.parent.name,
        version=run.folder.name,
        default_hp_metric=False,
        purge_step=_steps(run.checkpoint) if run.checkpoint else None,
    )


def _wandb(run: Run) -> Logger:
    """Begin, or go on with, the run whose id is kept in the folder."""
    import wandb
    from lightning.pytorch.loggers import WandbLogger
    from pydantic import ValidationError  # of wandb's settings

    file = run.folder / "wandb-id"
    name = file.read_text(encoding="utf-8") if file.exists() else uuid.uuid4().hex[:8]
    try:
        silent = wandb.Settings(silent=True)
        wandb.setup(silent)  # so that it raises where it would ask for a key
        experiment = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "avzoo"),
            name=f"{run.folder.parent.name}/{run.folder.name}",
            id=name,
            dir=run.folder,
            resume="allow",
            reinit="finish_previous",
            settings=silent,
        )
    except (wandb.errors.Error, ValidationError) as error:
        if isinstance(error, wandb.errors.UsageError):
            problem = "nobody is logged in: run `wandb login` or set WANDB_API_KEY"
        elif isinstance(error, ValidationError):
            problem = "; ".join(f"{' '.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        else:
            problem = " ".join(str(error).split())
        raise AvzooError(f"--track wandb: {problem}. WANDB_MODE=offline tracks without a login or a network") from error
    file.write_text(name, encoding="utf-8")
    experiment.define_metric("trainer/global_step")
    experiment.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return WandbLogger(experiment=experiment, save_dir=run.folder)


class Record(Callback):
    """Tells all loggers what made the run, and in the end what came out.

    Args:
        facts: See `facts`.
    """

    def __init__(self, facts: dict[str, Any]) -> None:
        self.facts = facts
        self.seconds = 0.0  # of training, those before a resumption included
        self._since: float | None = None

    def state_dict(self) -> dict[str, Any]:
        """The time so far."""
        self._count()
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.seconds = state_dict["seconds"]

    def _count(self) -> None:
        if self._since is not None:
            now = time.monotonic()
            self.seconds, self._since = self.seconds + now - self._since, now

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002 - Lightning's
        """Log what made the run."""
        self._since = time.monotonic()
        for logger in trainer.loggers:
            logger.log_hyperparams(self.facts)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Log the best value; trackers show the last value of a metric as its summary, of the table it is no row."""
        self._count()
        best = next((callback for callback in trainer.callbacks if isinstance(callback, Best)), None)  # type: ignore[attr-defined]
        if best is None or best.best_model_score is None:
            return
        found = {f"best_{best.monitor}": float(best.best_model_score)}
        for logger in trainer.loggers:
            if isinstance(logger, CSVLogger):
                logger.log_hyperparams(found)
            else:
                logger.log_metrics(found, trainer.global_step - 1)


def finish(loggers: list[Logger]) -> None:
    """Bring what was tracked to its end, and say where it can be seen."""
    for logger in loggers:
        kind = type(logger).__name__
        if kind == "TensorBoardLogger":
            print(f"tracked: tensorboard --logdir {Path(logger.save_dir or '')}")
        elif kind == "WandbLogger":
            experiment: wandb.Run = logger.experiment  # type: ignore[attr-defined]
            here = os.path.relpath(experiment.settings.sync_dir)
            print(f"tracked: {experiment.url or f'wandb sync {here}'}")
            experiment.finish()
