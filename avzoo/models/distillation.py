"""Training of the zoo's sound encoder: YAMNet teaches, sound names help, and only the encoder is kept.

Knowledge distillation after Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network" (2015,
https://arxiv.org/abs/1503.02531), with the teacher's embedding as a second target. The teacher is YAMNet (Plakal and
Ellis, https://github.com/tensorflow/models/tree/master/research/audioset/yamnet): MobileNet v1 on AudioSet, 521
classes. Chosen here: the three losses and their weights, on validation.

```
log-mel of a crop -> YAMNet -> embedding [1024], scores [521]      (frozen, sees the crop)
                 `-> strips masked -> AudioEncoder -> [128] -> three linear heads: embedding, scores, name
```
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cosine_similarity, cross_entropy, pad

from avzoo.audio_encoder import AudioEncoder
from avzoo.errors import DataNotFoundError
from avzoo.models.checkpoint import write_weights
from avzoo.preprocess import SoundBatch


class YAMNet(nn.Module):
    """The teacher, frozen, from a file of its dequantised TFLite weights with batch norm folded in.

    Args:
        path: `.npz` with `layer01.conv.weight ... layer27.conv.weight` (`layerNN.depthwise.weight` where it is one),
            `layerNN.bias`, `fc.weight`, `fc.bias`.

    Raises:
        DataNotFoundError: If there is no such file or an array is missing.
    """

    STRIDED = (1, 4, 8, 12, 24)

    def __init__(self, path: Path) -> None:
        super().__init__()
        if not path.is_file():
            raise DataNotFoundError(f"{path}: no such file; give the .npz of YAMNet's weights as `teacher`")
        with np.load(path) as arrays:
            state = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
        self.layers = nn.ModuleList()
        for number in range(1, 28):
            name = f"layer{number:02d}"
            grouped = f"{name}.depthwise.weight" in state
            try:
                weight = state[f"{name}.{'depthwise' if grouped else 'conv'}.weight"]
                bias = state[f"{name}.bias"]
            except KeyError as error:
                raise DataNotFoundError(f"{path}: has no array {error}; expected YAMNet's 27 layers") from error
            out, inputs, size, _ = weight.shape
            groups = out if grouped else 1
            layer = nn.Conv2d(inputs * groups, out, size, 2 if number in self.STRIDED else 1, groups=groups)
            layer.load_state_dict({"weight": weight, "bias": bias})
            self.layers.append(layer)
        self.fc = nn.Linear(1024, 521)
        self.fc.load_state_dict({"weight": state["fc.weight"], "bias": state["fc.bias"]})
        self.requires_grad_(False)

    def forward(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mel `[batch, 1, 64, 96]` to embeddings `[batch, 1024]` and scores before the sigmoid `[batch, 521]`."""
        x = log_mel.transpose(2, 3)  # time before frequency, as it was trained
        for number, layer in enumerate(self.layers, start=1):
            if layer.kernel_size == (3, 3):  # TensorFlow's SAME: on an even size a stride of 2 pads only after
                x = pad(x, (0, 1, 0, 1) if number in self.STRIDED else (1, 1, 1, 1))
            x = layer(x).relu()
        embedding = x.mean((2, 3))
        return embedding, self.fc(embedding)


class AudioDistillation(L.LightningModule):
    """Trains an `AudioEncoder` to know what YAMNet knows and what the sounds of a dataset are called.

    Args:
        classes: Names of the sounds, in the order of the data's labels.
        teacher: YAMNet's weights, see `YAMNet`; only read for training.
        lr: Peak learning rate of AdamW, one cycle (up over a tenth of the steps, then cosine down).
        weight_decay: Of AdamW, on matrices and kernels only.
        name_weight: Weight of the cross-entropy of the sound's name, next to 1 for each part of the distillation.
        mask: Up to this share of the bands and of the frames is blanked for the student (SpecAugment).

    Raises:
        DataNotFoundError: If the teacher is not there.
    """

    def __init__(
        self,
        classes: Sequence[str],
        teacher: Path,
        *,
        lr: float = 2e-3,
        weight_decay: float = 0.02,
        name_weight: float = 0.5,
        mask: float = 0.2,
    ) -> None:
        super().__init__()
        self.lr, self.weight_decay, self.name_weight, self.mask = lr, weight_decay, name_weight, mask
        self.encoder = AudioEncoder()
        dim = self.encoder.dim
        self.to_embedding = nn.Linear(dim, 1024)
        self.to_scores = nn.Linear(dim, 521)
        nn.init.constant_(self.to_scores.bias, -5.0)  # of 521 scores a handful are not zero
        self.to_name = nn.Linear(dim, len(classes))
        self._teacher = [YAMNet(Path(teacher)).eval()]  # in a list: neither trained nor stored in checkpoints

    def losses(self, batch: SoundBatch) -> dict[str, Tensor]:
        """The parts of the loss: distance to the teacher's embedding and scores, and the name's cross-entropy."""
        mel = batch.mel.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            embedding, scores = self._teacher[0](mel)
        features = self.encoder(_mask(mel, self.mask) if self.training else mel)
        # Cosine of centred embeddings: YAMNet's are sparse and non-negative, so uncentred ones all look alike.
        centre = embedding.float().mean(0)
        near = cosine_similarity(self.to_embedding(features).float(), embedding.float() - centre)
        soft = binary_cross_entropy_with_logits(
            self.to_scores(features).float(), scores.float().sigmoid(), reduction="none"
        ).sum(1)
        name = cross_entropy(self.to_name(features).float(), batch.label, ignore_index=-1, label_smoothing=0.1)
        return {"embedding": 1 - near.mean(), "scores": soft.mean() / 5, "name": name}

    def training_step(self, batch: SoundBatch, _: int) -> Tensor:
        """The weighted sum of the three losses."""
        parts = self.losses(batch)
        self.log_dict(
            {f"train_{key}": value for key, value in parts.items()},
            on_epoch=True,
            on_step=False,
            batch_size=len(batch.label),
        )
        return parts["embedding"] + parts["scores"] + self.name_weight * parts["name"]

    def validation_step(self, batch: SoundBatch, _: int) -> None:
        """The same parts, and the share of names that are right."""
        parts = self.losses(batch)
        right = (self.to_name(self.encoder(batch.mel)).argmax(1) == batch.label).float().mean()
        logged = {f"val_{key}": value for key, value in parts.items()} | {"val_name_accuracy": right}
        self.log_dict(logged, prog_bar=True, batch_size=len(batch.label))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW and one cycle over all steps."""
        parameters = list(self.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.lr)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=steps, pct_start=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_fit_start(self) -> None:
        """Bring the teacher to the student's device; channels last is the faster layout on CPUs and GPUs."""
        self._teacher[0] = self._teacher[0].to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.encoder = self.encoder.to(memory_format=torch.channels_last)


def export_encoder(checkpoint: Path, out: Path) -> None:
    """Write the encoder of a training checkpoint as half-precision safetensors, without the heads that trained it.

    Args:
        checkpoint: A `.ckpt` of `AudioDistillation`; loaded with `weights_only`.
        out: The safetensors file to write.

    Raises:
        DataNotFoundError: If there is no such checkpoint.
        AvzooError: If it is not one of `AudioDistillation`.
    """
    write_weights(checkpoint, out, of="AudioDistillation", prefix="encoder.", build=lambda _: AudioEncoder(), half=True)


def _mask(mel: Tensor, share: float) -> Tensor:
    """Blank one strip of bands and one of frames per example of `[batch, 1, bands, frames]` with the example's mean."""
    fill = mel.mean((2, 3), keepdim=True)
    for axis in (2, 3):
        length = mel.shape[axis]
        shape = [len(mel), 1, 1, 1]
        width = torch.rand(shape, device=mel.device) * share * length
        start = torch.rand(shape, device=mel.device) * (length - width)
        place = torch.arange(length, device=mel.device).view([length if a == axis else 1 for a in range(4)])
        mel = torch.where((place >= start) & (place < start + width), fill, mel)
    return mel
