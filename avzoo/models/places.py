"""Fine-tuning of an image backbone on Places365: the step before JointScalogramNet, whose image encoder is frozen.

That encoder was trained on ImageNet, then on Places365, and lost its classifier (arXiv 2204.11420). How it was trained
the paper does not say. Chosen: SGD with the batch, momentum and weight decay of the dataset's own training code
(https://github.com/CSAILVision/places365), a tenth of its learning rate, since that one begins with random weights, and
one cosine.

```
uint8 [batch, 3, size, size] -> normalise -> timm network -> [batch, features] -> Linear -> [batch, 365]
                                             `export_backbone` keeps this, as a backbone that recipes name
```
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from avzoo import backbones
from avzoo.errors import AvzooError
from avzoo.files import sha256
from avzoo.models.checkpoint import write_weights
from avzoo.models.image_encoder import ImageEncoder
from avzoo.preprocess import PictureBatch, Preprocess


class PlacesClassifier(L.LightningModule):
    """A timm network and one linear layer, which name the scene of a picture.

    The network has random weights until training fills it with its pretrained ones.

    Args:
        classes: Label order.
        preprocess: Names the network (`visual_kind: image`, `visual_backbone`) and its input's size and normalisation.
        lr: Learning rate of SGD at the first step; it falls to zero along a cosine.
        momentum: Of SGD.
        weight_decay: Of SGD.

    Raises:
        AvzooError: If the classes are fewer than two, or `visual_kind` is not "image".
    """

    def __init__(
        self,
        classes: Sequence[str],
        preprocess: Preprocess | Mapping[str, Any],
        *,
        lr: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
    ) -> None:
        super().__init__()
        p = Preprocess.of(preprocess)
        classes, preprocess = list(classes), p.to_dict()  # plain JSON types, as checkpoints keep them
        if len(classes) < 2:
            raise AvzooError(f"classes must be two or more names, got {classes}")
        self.save_hyperparameters()
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay
        self.encoder = ImageEncoder(p, batch_statistics=True)
        self.scores = nn.Linear(backbones.feature_dim(p.visual_backbone, p.pool), len(classes))
        self.loss = MeanMetric()
        self.accuracy = MulticlassAccuracy(len(classes), average="micro")
        self.top5_accuracy = MulticlassAccuracy(len(classes), top_k=min(5, len(classes)), average="micro")

    def setup(self, stage: str) -> None:
        """Before training, load the network's pretrained weights, in the faster layout of convolutions."""
        if stage == "fit":
            self.encoder.fill()
            self.encoder = self.encoder.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Uint8 `[batch, 3, size, size]` to scores before the softmax `[batch, classes]`."""
        scores: Tensor = self.scores(self.encoder(images))
        return scores

    def training_step(self, batch: PictureBatch, _: int) -> Tensor:
        """Cross-entropy."""
        loss = cross_entropy(self(batch.images).float(), batch.label)
        self.log(
            "train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch.label), sync_dist=True
        )
        return loss

    def validation_step(self, batch: PictureBatch, _: int) -> None:
        """Cross-entropy, and the shares of pictures whose scene comes first and among the first five."""
        images, label, weight = batch
        scores = self(images).float()
        if weight:  # a process without pictures of its own takes part all the same
            self.loss.update(cross_entropy(scores, label), len(label))
            self.accuracy.update(scores, label)
            self.top5_accuracy.update(scores, label)
        self.log("val_loss", self.loss)
        self.log("val_accuracy", self.accuracy, prog_bar=True)
        self.log("val_top5_accuracy", self.top5_accuracy)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """SGD, and one cosine over all steps."""
        optimizer = torch.optim.SGD(
            self.parameters(), lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay
        )
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def export_backbone(checkpoint: Path, out: Path) -> str:
    """Write the network of a training checkpoint as safetensors, and its entry for a registry's `backbones`.

    Once the file lies in `$AVZOO_CACHE/backbones` (default `~/.cache/avzoo/backbones`) and the entry below `backbones:`
    in the file that `$AVZOO_REGISTRY` names, recipes can say `visual_backbone: <the file's stem>`.

    Args:
        checkpoint: A `.ckpt` of `PlacesClassifier`; loaded with `weights_only`.
        out: `NAME.safetensors`, where NAME becomes the backbone's.

    Returns:
        The entry, YAML with `backbones:` on its first line.

    Raises:
        DataNotFoundError: If there is no such checkpoint.
        AvzooError: If it is not one of `PlacesClassifier`, or a registry could not have such a name.
    """
    if out.suffix != ".safetensors" or not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", out.stem):
        raise AvzooError(f"{out}: expected NAME.safetensors, NAME of small letters, digits, '-', '_' and '.'")
    options = write_weights(checkpoint, out, of="PlacesClassifier", prefix="encoder.network.", build=_network)
    preprocess = Preprocess.of(options["preprocess"])
    entry = {
        "kind": "image",
        "about": f"{preprocess.visual_backbone}, fine-tuned on Places365",
        "architecture": backbones.find(preprocess.visual_backbone).architecture,
        "source": f"file:{out.name}",
        "sha256": sha256(out),
        "licence": None,
        "features": backbones.feature_dim(preprocess.visual_backbone, preprocess.pool),
        "parameters": sum(parameter.numel() for parameter in _network(options).parameters()),
        "size": preprocess.size,
        "input": {key: preprocess.to_dict()[key] for key in ("size", "interpolation", "mean", "std")},
    }
    return yaml.safe_dump({"backbones": {out.stem: entry}}, sort_keys=False, default_flow_style=None)


def _network(options: Mapping[str, Any]) -> nn.Module:
    p = Preprocess.of(options["preprocess"])
    return backbones.build_empty(p.visual_backbone, p.pool)
