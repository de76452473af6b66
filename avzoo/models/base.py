"""What every model of the zoo shares: classes, signal path, task, and the order of a training step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, cast

import lightning as L
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from avzoo import provenance
from avzoo.clip import Clip
from avzoo.errors import AvzooError, ClassMismatchError
from avzoo.metrics import Confusion, of_task
from avzoo.preprocess import Batch, Preprocess, Preprocessor, Sample

# A model's `task`, and that of the data it is for: one label a clip, or one a segment.
DATA_TASK: Mapping[str, Literal["scenes", "events"]] = {"clip": "scenes", "segment": "events"}


class AVModule(L.LightningModule, ABC):
    """A LightningModule over audio-visual clips.

    A subclass writes `forward`, `loss` and `configure_optimizers` (and `training_loss`, where training minimises more
    than `loss` of `forward`), sets `task`, and calls `save_hyperparameters()` after `super().__init__`, with `classes`
    and `preprocess` as plain JSON types.

    Args:
        classes: Label order. For a segment task the last one is the background.
        preprocess: The numbers of the signal path that the features come from.

    Raises:
        AvzooError: If the classes are fewer than two or not distinct.
    """

    task: ClassVar[Literal["clip", "segment"]]
    wholes: ClassVar[tuple[str, ...]] = ()  # parts that `init_from` takes over whole or not at all

    def __init__(self, classes: Sequence[str], preprocess: Preprocess | Mapping[str, Any] | None) -> None:
        super().__init__()
        if len(classes) < 2 or len(set(classes)) != len(classes):
            raise AvzooError(f"classes must be two or more distinct names, got {list(classes)}")
        self.classes = list(classes)
        self.preprocess = Preprocess.of(preprocess)
        with torch.device("cpu"):  # a network may be built on the meta device, its counts are real
            self.metrics = nn.ModuleDict(of_task(self.task, len(classes)))  # logged as val_<name>, test_<name>
        self.confusion: Confusion | None = None  # of the last test
        self.name = type(self).__name__  # a loaded model is called by the name it was loaded by
        self._preprocessor: Preprocessor | None = None

    @property
    def modalities(self) -> tuple[str, ...]:
        """What its networks read: "audio", "visual" or both."""
        return ("audio", "visual")

    @property
    def preprocessor(self) -> Preprocessor:
        """Its signal path, whose backbones stay in memory, on the device that the model is on."""
        if self._preprocessor is None or self._preprocessor.device != self.device:
            self._preprocessor = Preprocessor(self.preprocess, self.device)
        return self._preprocessor

    @abstractmethod
    def forward(self, audio: Tensor | None, visual: Tensor | None) -> Tensor:
        """Scores before the softmax, `[batch, segments, classes]`; None stands for a modality that is missing."""

    @abstractmethod
    def loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """The paper's training loss, a scalar."""

    def fill_backbone(self) -> None:
        """Load the weights of a pretrained backbone that the model owns, unless it holds trained ones already."""

    def calibrate(self, batch: Batch) -> str:  # noqa: ARG002
        """Fit the temperatures on the validation split; returns a one-line summary, "" if there are none."""
        return ""

    def logits(self, clip: Clip, *, audio: bool = True, visual: bool = True) -> Tensor:
        """The one path from media to scores, `[segments, classes]`, see `answer`.

        Args:
            clip: What `read_window` gave.
            audio: Whether the model may hear.
            visual: Whether the model may see.
        """
        hears, sees = audio and "audio" in self.modalities, visual and "visual" in self.modalities
        return self.answer(self.preprocessor(clip, audio=hears, visual=sees))

    @torch.no_grad()
    def answer(self, sample: Sample) -> Tensor:
        """The scores of one sample, `[segments, classes]`, on the CPU; in eval mode, whatever mode the model is in."""
        with self.evaluating():
            scores: Tensor = self(*(None if x is None else x[None] for x in sample))
        return scores[0].float().cpu()

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Eval mode; afterwards every module has the mode that it had, also one that fine-tuning holds in eval mode."""
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training

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

    def check_data(self, data: Any) -> None:
        """Compare the task and the label order of a data module with this model's.

        Raises:
            AvzooError: If the model is of scenes and the data of events, or the other way round.
            ClassMismatchError: If their classes differ.
        """
        ours = DATA_TASK[self.task]
        theirs = getattr(data, "task", ours)
        if theirs != ours:
            raise AvzooError(
                f"{type(self).__name__} is a model of {ours}, {type(data).__name__} is data of {theirs}: choose a"
                f" model of {theirs} (model.name) or data of {ours} (data.name)"
            )
        self.check_classes(data.classes)

    # -- the order of a step -----------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Refuse data that do not suit; before training, fill a backbone that the model owns.

        Raises:
            AvzooError: As `check_data`.
        """
        data = getattr(self._trainer, "datamodule", None)
        if data is not None:
            self.check_data(data)
        if stage == "fit":
            self.fill_backbone()
            self.take_over()

    def take_over(self) -> None:
        """Called once before training; `avzoo fit` puts here what `init_from` asks for."""

    def training_loss(self, batch: Batch) -> Tensor:
        """The loss of a training batch, a scalar."""
        return self.loss(self(batch.audio, batch.visual), batch.label)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002 - Lightning's signature
        """One loss, logged as `train_loss`."""
        loss = self.training_loss(batch)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch.label))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Loss and metrics."""
        self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Loss, metrics and confusion."""
        logits = self._evaluate("test", batch)
        if self.confusion is not None:
            self.confusion.update(logits[_counted(batch)], batch.label[_counted(batch)])

    def on_test_epoch_start(self) -> None:
        """A confusion matrix of its own for every test."""
        self.confusion = Confusion(len(self.classes)).to(self.device)

    def _evaluate(self, stage: str, batch: Batch) -> Tensor:
        logits: Tensor = self(batch.audio, batch.visual)
        counted = _counted(batch)
        self.log(f"{stage}_loss", self.loss(logits, batch.label), batch_size=len(batch.label[counted]))
        metrics = cast("Mapping[str, Metric]", self.metrics)
        for name, metric in metrics.items():
            metric.update(logits[counted], batch.label[counted])
            self.log(f"{stage}_{name}", metric, prog_bar=True)
        return logits

    def log(self, name: str, value: Any, *, batch_size: int | None = None, **options: Any) -> None:  # type: ignore[override]
        """Lightning's; a mean is that over the items of all processes.

        Lightning averages the processes' numbers of items as integers, so that unequal shares would be rounded.
        """
        if batch_size is None:
            super().log(name, value, **options)
        else:
            super().log(name, value, batch_size=float(batch_size), sync_dist=True, **options)  # type: ignore[arg-type]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Name the class and the code, so that a checkpoint alone is enough to build the model again."""
        checkpoint["avzoo_model"] = type(self).__name__
        checkpoint["avzoo"] = provenance.training()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint with another label order."""
        self.check_classes(checkpoint["hyper_parameters"]["classes"], "the checkpoint")


def _counted(batch: Batch) -> slice:
    """The rows that count; a process without rows of its own takes part all the same, or others would wait for it."""
    return slice(None) if batch.weight else slice(0)


def with_zeros(
    audio: Tensor | None, visual: Tensor | None, audio_form: Sequence[int], visual_form: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Sound and pictures `[batch, segments, *form]`; zeros stand in for the one that is None.

    Raises:
        AvzooError: If both are None.
    """
    if audio is None and visual is None:
        raise AvzooError("neither sound nor pictures were given: a model needs one of them at least")
    if audio is None:
        audio = visual.new_zeros(*visual.shape[:2], *audio_form)  # type: ignore[union-attr]
    if visual is None:
        visual = audio.new_zeros(*audio.shape[:2], *visual_form)
    return audio, visual
