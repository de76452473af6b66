"""One batch over many processes: the gradients of a step are those that one process has on the whole batch."""

from __future__ import annotations

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from avzoo.preprocess import Batch


class WholeBatch(Callback):
    """Weighs each process's loss by its rows: processes are averaged as equals, but their shares may not be equal."""

    def __init__(self) -> None:
        self._weight = 1.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:  # noqa: ARG002 - Lightning's
        """Note the weight of the coming batch."""
        self._weight = batch.weight if isinstance(batch, Batch) else 1.0

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:  # noqa: ARG002
        """Weigh the loss that is about to be differentiated."""
        if self._weight != 1.0:
            loss.mul_(self._weight)
