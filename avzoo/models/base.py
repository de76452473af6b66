"""What every model of the zoo shares: classes, signal path, task, and the order of a training step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import lightning as L
import torch
from torch import Tensor
from torchmetrics import Metric

from avzoo.clip import Clip
from avzoo.errors import AvzooError, ClassMismatchError
from avzoo.preprocess import Batch, Preprocess, Preprocessor


class AVModule(L.LightningModule, ABC):
    """A LightningModule over audio-visual clips.

    A subclass writes `forward`, `loss` and `configure_optimizers`, sets `task`, and calls `save_hyperparameters()`
    after `super().__init__`, with `classes` and `preprocess` as plain JSON types.

    Args:
        classes: Label order. For a segment task the last one is the background.
        preprocess: The numbers of the signal path that the features come from.
        metric: What validation and test report.
        metric_name: Its name; logged as `val_<name>` and `test_<name>`.

    Raises:
        AvzooError: If the classes are fewer than two or not distinct.
    """

    task: ClassVar[Literal["clip", "segment"]]

    def __init__(
        self,
        classes: Sequence[str],
        preprocess: Preprocess | Mapping[str, Any] | None,
        metric: type[Metric],
        metric_name: str,
    ) -> None:
        super().__init__()
        if len(classes) < 2 or len(set(classes)) != len(classes):
            raise AvzooError(f"classes must be two or more distinct names, got {list(classes)}")
        self.classes = list(classes)
        self.preprocess = Preprocess.of(preprocess)
        with torch.device("cpu"):  # a network may be built on the meta device, its metric counts for real
            self.metric = metric()
        self.metric_name = metric_name
        self.name = type(self).__name__  # a loaded model is called by the name it was loaded by
        self._preprocessor: Preprocessor | None = None

    @abstractmethod
    def forward(self, audio: Tensor, visual: Tensor) -> Tensor:
        """Scores before the softmax: `[batch, classes]` or `[batch, segments, classes]`."""

    @abstractmethod
    def loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """The paper's training loss, a scalar."""

    @torch.no_grad()
    def logits(self, clip: Clip) -> Tensor:
        """The one path from media to scores: `[segments, classes]` or `[classes]`, on the CPU; always in eval mode."""
        if self._preprocessor is None or self._preprocessor.device != self.device:
            self._preprocessor = Preprocessor(self.preprocess, self.device)
        sample = self._preprocessor(clip)
        training = self.training
        self.eval()
        try:
            scores: Tensor = self(sample.audio[None], sample.visual[None])
        finally:
            self.train(training)
        return scores[0].float().cpu()

    def check_classes(self, classes: Sequence[str], whose: str = "the data") -> None:
        """Compare a label order with this model's.

        Args:
            classes: The other order.
            whose: What the message calls its owner.

        Raises:
            ClassMismatchError: With the first difference.
        """
        for index, (theirs, ours) in enumerate(zip(classes, self.classes, strict=False)):
            if theirs != ours:
                raise ClassMismatchError(
                    f"class {index} is {theirs!r} in {whose} and {ours!r} in the model: the model's order is"
                    f" {self.classes}"
                )
        if len(classes) != len(self.classes):
            raise ClassMismatchError(f"{whose} has {len(classes)} classes, the model {len(self.classes)}")

    # -- the order of a step -----------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:  # noqa: ARG002 - Lightning's signature
        """Refuse data with another label order."""
        data = getattr(self._trainer, "datamodule", None)
        if data is not None:
            self.check_classes(data.classes)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """One loss."""
        loss = self.loss(self(batch.audio, batch.visual), batch.label)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch.label))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Loss and metric."""
        self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Loss and metric."""
        self._evaluate("test", batch)

    def _evaluate(self, stage: str, batch: Batch) -> None:
        logits = self(batch.audio, batch.visual)
        self.metric.update(logits, batch.label)
        self.log(f"{stage}_loss", self.loss(logits, batch.label), batch_size=len(batch.label), sync_dist=True)
        self.log(f"{stage}_{self.metric_name}", self.metric, prog_bar=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Name the class, so that a checkpoint alone is enough to build the model again."""
        checkpoint["avzoo_model"] = type(self).__name__

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint with another label order."""
        self.check_classes(checkpoint["hyper_parameters"]["classes"], "the checkpoint")
