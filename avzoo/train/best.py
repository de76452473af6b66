"""Which checkpoints of a run are kept for being good: `best.ckpt`, and with `--keep_best 3` the three best by name.

```
checkpoints/best.ckpt              by `monitor`; always there, always the best
            epoch-7-0.7167.ckpt    with `--keep_best`: epoch (the first is 1) and value, the best one among them
            last.ckpt              where the run goes on, see `avzoo.train.resume`
```
"""

from __future__ import annotations

from typing import Any, Literal

from lightning.pytorch.callbacks import ModelCheckpoint

from avzoo.train.runs import Run


def mode(monitor: str) -> Literal["min", "max"]:
    """Whether a metric is better when it is low.

    >>> mode("val_loss"), mode("val_segment_accuracy")
    ('min', 'max')
    """
    return "min" if monitor.endswith("loss") else "max"


class Best(ModelCheckpoint):
    """Keeps `best.ckpt`.

    Args:
        run: Whose.
        monitor: What it is chosen by, on validation.
    """

    def __init__(self, run: Run, monitor: str) -> None:
        super().__init__(
            run.checkpoints, monitor=monitor, mode=mode(monitor), filename="best", enable_version_counter=False
        )


class KeptBest(ModelCheckpoint):
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
        )

    def format_checkpoint_name(self, metrics: dict[str, Any], *args: Any, **options: Any) -> str:
        """Count epochs as the terminal does, from 1."""
        return super().format_checkpoint_name({**metrics, "epoch": metrics["epoch"] + 1}, *args, **options)
