"""How a network is fine-tuned: its head at one learning rate, the rest at another or not at all, classes balanced.

```yaml
model: {name: AVSDN, lr: 0.003}
data: {name: Clips, root: my_clips}
init_from: [avsdn-avemix]
trainer:
  callbacks:
    - {name: FineTune, lr_rest: 0.0003, freeze: encoders, balance: sampler}
    - {name: EarlyStopping, monitor: val_loss, patience: 10}
```
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from avzoo.data.base import AVDataModule, commonest_event
from avzoo.errors import AvzooError
from avzoo.init_from import class_dependent
from avzoo.models.base import AVModule

Freeze = Literal["none", "backbone", "encoders"]
Balance = Literal["none", "weights", "sampler"]


@dataclass(frozen=True)
class Plan:
    """What fine-tuning has to know of a model.

    Attributes:
        backbone: Beginnings of the names of what a pretrained image encoder of the model's own has.
        encoders: Likewise, of all that reads one modality; their classifiers, if any, always train.
        rest: The learning rate of all but the head where none is given, as a share of the head's.
        options: Arguments of the model that fine-tuning sets: what is frozen is its own choice.
        data: Arguments of `Clips`, as the model's recipes have them.
    """

    backbone: tuple[str, ...] = ()
    encoders: tuple[str, ...] = ()
    rest: float = 0.1
    options: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)


PLANS: dict[str, Plan] = {
    "AVSDN": Plan(
        encoders=("attention.", "audio_encoder.", "visual_encoder."),
        rest=1.0,  # of both shares the better one on validation; what is pretrained at length is in the backbones
        data={"swap": 1.0, "reverse": 0.5, "batch_size": 4},
    ),
    "SegmentMLP": Plan(rest=1.0, data={"swap": 1.0, "reverse": 0.5, "batch_size": 4}),
    "SECRNNFusion": Plan(
        backbone=("visual.encoder.",),
        encoders=("audio.", "visual."),
        options={"freeze": "none", "train_blocks": 0, "mixup": 0.0},
        data={"examples": "second", "batch_size": 8},
    ),
    "JointScalogramNet": Plan(
        backbone=("image_encoder.",),
        encoders=("audio_encoder.", "image_encoder."),
        options={"ae_frozen": False, "audio_temperature": 1.0, "visual_temperature": 1.0},
        data={"examples": "pair", "batch_size": 64},
    ),
}


class FineTune(Callback):
    """Trains a model's head at the model's own `lr` and the rest at another, both falling to zero along a cosine.

    The optimizer is AdamW, whatever the model's own is. The head is what other classes need anew.

    Args:
        lr_rest: Learning rate of all but the head; default the model's `lr` for AVSDN and SegmentMLP, a tenth of it for
            SECRNNFusion and JointScalogramNet.
        freeze: What keeps its weights and batch statistics. "backbone", the model's own image encoder (SECRNNFusion's;
            JointScalogramNet's never trains, and of AVSDN and SegmentMLP the backbones are preprocessing); "encoders",
            also all that reads sound or pictures alone (AVSDN's attention and two encoders; SECRNNFusion's audio and
            visual network but for their classifiers; JointScalogramNet's AE); "none", nothing.
        balance: What is done about classes of different size (a window of events has the class of its
            `commonest_event`). "weights", each row's loss is weighed by how rare its class is; "sampler", each class is
            drawn equally often; "none", nothing.

    Raises:
        AvzooError: If an option is not one of those above.
    """

    def __init__(self, *, lr_rest: float | None = None, freeze: Freeze = "backbone", balance: Balance = "none") -> None:
        if freeze not in ("none", "backbone", "encoders") or balance not in ("none", "weights", "sampler"):
            raise AvzooError(
                f"freeze={freeze!r}, balance={balance!r}: expected 'none', 'backbone' or 'encoders' and 'none',"
                " 'weights' or 'sampler'"
            )
        if lr_rest is not None and not lr_rest >= 0:
            raise AvzooError(f"lr_rest={lr_rest:g}: expected a rate that is not below 0")
        self.lr_rest, self.freeze, self.balance = lr_rest, freeze, balance
        self._resting: list[torch.nn.Module] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Freeze, and put this optimizer in the place of the model's.

        Raises:
            AvzooError: If the model is none that is fine-tuned, or has nothing of what is to be frozen.
        """
        if stage != "fit":
            return
        if not isinstance(pl_module, AVModule):
            raise AvzooError(f"FineTune is for {', '.join(PLANS)}, not for a {type(pl_module).__name__}")
        plan = plan_of(pl_module)
        self._resting = _freeze(pl_module, plan, self.freeze)
        lr_rest = plan.rest * float(pl_module.hparams["lr"]) if self.lr_rest is None else self.lr_rest
        pl_module.configure_optimizers = partial(  # type: ignore[method-assign, assignment]
            optimizer, pl_module, lr_rest, trainer.max_epochs or 1
        )
        if isinstance(data := trainer.datamodule, AVDataModule):  # type: ignore[attr-defined]
            data.balanced = self.balance == "sampler"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Batch statistics and dropout of what is frozen rest from now on; classes are weighed."""
        for module in self._resting:
            module.eval()
        if self.balance == "weights" and isinstance(pl_module, AVModule):
            label = trainer.datamodule.sets["train"].label  # type: ignore[attr-defined]
            weights = class_weights(commonest_event(label, len(pl_module.classes)), len(pl_module.classes))
            pl_module.loss = weighted(pl_module, weights.to(pl_module.device))  # type: ignore[method-assign, assignment]

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        """Leave the model as it was."""
        for name in ("configure_optimizers", "loss"):
            vars(pl_module).pop(name, None)


def plan_of(model: AVModule) -> Plan:
    """What fine-tuning has to know of a model.

    Raises:
        AvzooError: If nobody wrote it down.
    """
    if (plan := PLANS.get(type(model).__name__)) is None:
        raise AvzooError(f"a {type(model).__name__} cannot be fine-tuned; these can: {', '.join(PLANS)}")
    return plan


def head_of(model: AVModule) -> set[str]:
    """The names of the tensors that other classes need anew: what `init_from` leaves fresh then."""
    heads = class_dependent(model)
    parts = [part for part in model.wholes if any(key.startswith(part) for key in heads)]
    return heads | {key for key in model.state_dict() if key.startswith(tuple(parts))}


def _freeze(model: AVModule, plan: Plan, freeze: Freeze) -> list[torch.nn.Module]:
    """Freeze parameters but for the head's, and return the modules whose statistics are to stay as they are."""
    parts = {"none": (), "backbone": plan.backbone, "encoders": plan.encoders}[freeze]
    if freeze == "encoders" and not parts:
        raise AvzooError(
            f"a {type(model).__name__} has no encoders to freeze: its backbones are preprocessing as it is"
        )
    head = head_of(model)
    for name, parameter in model.named_parameters():
        if name.startswith(parts or ("\0",)) and name not in head:
            parameter.requires_grad_(False)
    names = tuple(part.rstrip(".") for part in parts)
    return [module for name, module in model.named_modules() if name in names]


def optimizer(model: AVModule, lr_rest: float, epochs: int) -> dict[str, Any]:
    """AdamW with the model's `lr` for its head and another rate for the rest, as `configure_optimizers` returns it."""
    lr, head = float(model.hparams["lr"]), head_of(model)
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    rest = [parameter for name, parameter in trained if name not in head]
    groups = [{"params": [parameter for name, parameter in trained if name in head], "lr": lr}]
    groups += [{"params": rest, "lr": lr_rest}] if rest else []
    adam = torch.optim.AdamW(groups)
    return {"optimizer": adam, "lr_scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(adam, epochs)}


# -- classes of different size ---------------------------------------------------------------------------------------


def class_weights(label: Tensor, classes: int) -> Tensor:
    """What rows weigh so that each class weighs the same, 1 on average; 0 for a class without a row.

    >>> class_weights(torch.tensor([0, 0, 0, 1]), 3)
    tensor([0.6667, 2.0000, 0.0000])
    """
    count = torch.bincount(label, minlength=classes)
    return torch.where(count > 0, len(label) / (count > 0).sum() / count, 0.0)


def weighted(model: AVModule, weights: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The model's loss, in training with a weight for each row by its class.

    It stays a mean over rows, so that the processes that share a batch have its gradient together.

    Args:
        model: Whose loss is a mean over rows.
        weights: Float32 `[classes]`. The class of a row of segments is that of `commonest_event`.
    """
    plain = model.loss

    def loss(logits: Tensor, label: Tensor) -> Tensor:
        if not model.training:
            return plain(logits, label)
        row = commonest_event(label, len(model.classes))
        total = logits.new_zeros(())
        for kind in torch.unique(row):
            mine = row == kind
            total = total + weights[kind] * mine.sum() * plain(logits[mine], label[mine])
        return total / len(row)

    return loss
