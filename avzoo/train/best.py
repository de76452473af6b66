"""Which checkpoints of a run are kept for being good: `best.ckpt`, and with `--keep_best 3` the three best by name.

```
checkpoints/best.ckpt              by `monitor`; always there, always the best
            epoch-7-0.7167.ckpt    with `--keep_best`: epoch (the first is 1) and value, the best one among them
            last.ckpt              where the run goes on, see `avzoo.train.resume`
```
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from avzoo.errors import AvzooError, did_you_mean
from avzoo.models.base import AVModule
from avzoo.train.runs import Run


def mode(monitor: str) -> Literal["min", "max"]:
    """Whether a metric is better when it is low.

    >>> mode("val_loss"), mode("val_segment_accuracy")
    ('min', 'max')
    """
    return "min" if monitor.endswith("loss") else "max"


class CheckMonitor(Callback):
    """Refuses a `monitor` that no validation measures at the first one, the sanity check, not after a whole epoch.

    It has to come before the callbacks that look. What training measures is not known by then; nor is what someone
    else's model may log.
    """

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare every callback's `monitor` with what was logged."""
        found = trainer.callback_metrics
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            name = getattr(callback, "monitor", None)
            if not isinstance(name, str) or name in (*found, "epoch", "step"):
                continue
            if name.startswith("val") or (isinstance(pl_module, AVModule) and not name.startswith("train")):
                known = [other for other in found if other.startswith("val")]
                raise AvzooError(f"no validation measures {name!r}{did_you_mean(name, known)} ({', '.join(known)})")


class _Kept(ModelCheckpoint):
    """Reads the paths in its state as names in this run's folder, so that a moved run goes on with its best."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning stores absolute paths, and forgets the best where they have changed."""

        def here(path: str) -> str:
            return str(Path(str(self.dirpath), Path(path).name)) if path else path

        if Path(here(state_dict["best_model_path"])).is_file():  # not where this goes on from another run's checkpoint
            paths = {key: here(path) for key, path in state_dict.items() if key.endswith("_path")}
            best = {here(path): value for path, value in state_dict["best_k_models"].items()}
            state_dict = {**state_dict, **paths, "best_k_models": best, "dirpath": self.dirpath}
        super().load_state_dict(state_dict)


class Best(_Kept):
    """Keeps `best.ckpt`.

    Args:
        run: Whose.
        monitor: What it is chosen by, on validation.
    """

    def __init__(self, run: Run, monitor: str) -> None:
        super().__init__(
            run.checkpoints, monitor=monitor, mode=mode(monitor), filename="best", enable_version_counter=False
        )


class KeptBest(_Kept):
    """Keeps the best few, each under a name of its own; a class of its own, since Lightning tells states apart by it.

    Args:
        run: Whose.
        monitor: What they are chosen by, on validation.
        count: How many.
    """

    def __init__(self, run: Run, monitor: str, count: int) -> None:
        super().__init__(
            run.checkpoints,
            monitor=monitor,
            mode=mode(monitor),
            save_top_k=count,
            filename=f"epoch-{{epoch}}-{{{monitor}:.4f}}",
            auto_insert_metric_name=False,
            enable_version_counter=False,  # an epoch that is done again writes the same file again
        )

    def format_checkpoint_name(self, metrics: dict[str, Any], *args: Any, **options: Any) -> str:
        """Count epochs as the terminal does, from 1."""
        return super().format_checkpoint_name({**metrics, "epoch": metrics["epoch"] + 1}, *args, **options)
