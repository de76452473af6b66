"""SECRNNFusion: squeeze-excitation convolutions over sound, a recurrence over pictures, fused early and late.

Javier Naranjo-Alcazar and others: "Squeeze-Excitation Convolutional Recurrent Neural Networks for Audio-Visual Scene
Classification", 2021, https://arxiv.org/abs/2107.13180. Scenes, second by second.

```
audio, dB [3, 64, 50] -> scaled -> residual SE blocks -> map [128, 64, 12] -> mean -> Linear ---> p audio --+
                                                           |                                                |
                                       mean over bands, pool over time [5, 128]                             |
                                                           |                                                |
                                                     concat [5, 640] -> BiGRU -> mean -> Linear -> p early -+-> Linear
                                                           |                                                |   -> p
visual [5, 3, 224, 224] -> VGG16 -> max over places -> [5, 512] -> BiGRU -> Linear -> p, mean --> p visual -+
```

The authors' code decides; where it and the paper's figure differ, an argument or a number of `Preprocess` names the
choice. Initialisation, batch norm and schedule are Keras's, which the authors used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avzoo import backbones
from avzoo.audio.gammatone import scale_crop
from avzoo.errors import AvzooError
from avzoo.models.base import AVModule
from avzoo.models.image_encoder import ImageEncoder
from avzoo.preprocess import Batch, Preprocess

STAGES = ("audio", "visual", "fusion")
FREEZES = ("none", "backbone", "subnets")
WIDTHS = (32, 64, 128)  # filters of the three blocks of sound


def keras_init(module: nn.Module) -> None:
    """Initialise one module as Keras does by default; to be handed to `apply`."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.GRU):
        for name, parameter in module.named_parameters():
            if name.startswith("weight_ih"):
                nn.init.xavier_uniform_(parameter)
            elif name.startswith("weight_hh"):
                nn.init.orthogonal_(parameter)
            else:
                nn.init.zeros_(parameter)
    elif isinstance(module, SqueezeExcitation):  # comes after its layers: "he_normal", a normal cut at two deviations
        for parameter in module.parameters():
            deviation = math.sqrt(2 / parameter[0].numel()) / 0.8796  # the cut makes it narrower by that factor
            nn.init.trunc_normal_(parameter, std=deviation, a=-2 * deviation, b=2 * deviation)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm with Keras's defaults."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class SqueezeExcitation(nn.Module):
    """A gate for each channel and a gate for each place, both between 0 and 1, and their sum scales the map."""

    def __init__(self, channels: int, ratio: int = 2) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // ratio, bias=False)
        self.excite = nn.Linear(channels // ratio, channels, bias=False)
        self.place = nn.Conv2d(channels, 1, 1, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Scale `[batch, channels, bands, columns]`."""
        by_channel = self.excite(self.squeeze(maps.mean((2, 3))).relu()).sigmoid()
        by_place = self.place(maps).sigmoid()
        scaled: Tensor = maps * (by_channel[..., None, None] + by_place)
        return scaled


class Block(nn.Module):
    """Two convolutions with a shortcut that is added twice: before the gates and, as the authors do, after them."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(inputs, channels, 3, padding=1),
            batch_norm(channels),
            nn.ELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            batch_norm(channels),
        )
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, channels, 1), batch_norm(channels))
        self.gates = SqueezeExcitation(channels)

    def forward(self, maps: Tensor) -> Tensor:
        """`[batch, inputs, bands, columns]` to `[batch, channels, bands, columns]`."""
        shortcut = self.shortcut(maps)
        gated: Tensor = self.gates(F.elu(self.main(maps) + shortcut)) + shortcut
        return gated


class AudioNetwork(nn.Module):
    """The sound: residual blocks, of which the first two halve the time axis, and a classifier."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(map(Block, (3, *WIDTHS), WIDTHS))
        self.pool = nn.MaxPool2d((1, 2))
        self.classifier = nn.Linear(WIDTHS[-1], classes)
        self.apply(keras_init)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Read crops between -1 and 1.

        Args:
            crops: `[batch, 3, bands, columns]`.

        Returns:
            The last block's map `[batch, 128, bands, columns // 4]` and log posteriors `[batch, classes]`.
        """
        first, second, third = self.blocks
        maps = third(self.pool(second(self.pool(first(crops)))))
        return maps, self.classifier(maps.mean((2, 3))).float().log_softmax(-1)


class VisualNetwork(nn.Module):
    """The pictures: an encoder unless their features come ready, a bidirectional GRU, a classifier for each frame."""

    def __init__(self, classes: int, features: int, encoder: ImageEncoder | None) -> None:
        super().__init__()
        self.gru = nn.GRU(features, 32, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(0.5)
        self.classifier = nn.Linear(64, classes)
        self.apply(keras_init)
        self.encoder = encoder

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Read a second's frames.

        Args:
            frames: `[batch, frames, features]`, or uint8 `[batch, frames, 3, size, size]` for the encoder.

        Returns:
            The frames' features `[batch, frames, features]` and log posteriors `[batch, classes]`: the logarithm of
            the mean over the frames of the frames' posteriors.
        """
        features = frames if self.encoder is None else self.encoder(frames)
        by_frame = self.classifier(self.dropout(self.gru(features)[0])).float().log_softmax(-1)
        return features, by_frame.logsumexp(1) - math.log(by_frame.shape[1])


class FusionNetwork(nn.Module):
    """Early: a GRU over sound and pictures side by side. Late: a linear layer over the three parts' posteriors."""

    def __init__(self, classes: int, features: int) -> None:
        super().__init__()
        self.gru = nn.GRU(WIDTHS[-1] + features, 64, batch_first=True, bidirectional=True)
        self.early = nn.Linear(128, classes)
        self.late = nn.Linear(3 * classes, classes)
        self.apply(keras_init)

    @staticmethod
    def steps(columns: int) -> int:
        """How many steps of time `forward` makes of a crop's columns: 5 of 50."""
        return (columns // 4 - 3) // 2 + 1

    def forward(self, maps: Tensor, features: Tensor, by_audio: Tensor, by_visual: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse the two networks' inner outputs and answers.

        Args:
            maps: `[batch, 128, bands, columns // 4]`.
            features: `[batch, frames, features]`.
            by_audio: Log posteriors `[batch, classes]`.
            by_visual: Log posteriors `[batch, classes]`.

        Returns:
            Log posteriors of the early and of the late fusion, `[batch, classes]` each.
        """
        sound = F.avg_pool1d(maps.mean(2), 3, 2).transpose(1, 2)
        outputs, _ = self.gru(torch.cat([sound, features], -1))
        early = self.early(outputs.mean(1)).float().log_softmax(-1)
        posteriors = torch.cat([early, by_audio, by_visual], -1).exp().to(features.dtype)
        return early, self.late(posteriors).float().log_softmax(-1)


class SECRNNFusion(AVModule):
    """Scenes by ear and eye, `SECRNNFusion(classes=<10 names>)` being the paper's network, 15,414,804 parameters.

    The paper trains in five steps, each from the one before (`stage`, `freeze`, `lr`, batch):

    ```
    1   audio   none      1e-3  32   mixup 0.4
    2a  visual  backbone  1e-4  16   plateau_patience 20
    2b  visual  none      1e-6  16   plateau_patience 20
    3a  fusion  subnets   1e-4  16
    3b  fusion  none      1e-6  16
    ```

    Choices that `preprocess` holds: `pool` "max" (the code) or "avg" (the paper's figure); `mean` and `std` of the
    weights (chosen: what they were trained with), or (0, 0, 0) and (1/255, 1/255, 1/255), the authors' pictures from
    0 to 255; `visual_kind` "image" for pictures, which the model's own encoder reads, or "frame" for features that a
    frozen `visual_backbone` gave before.

    Args:
        classes: Label order.
        stage: Which networks there are, and whose answer `forward` gives: "audio" and "visual" have the one, "fusion"
            has both and what fuses them. A tensor has the same name in each stage that has it.
        freeze: "backbone", the model's own image encoder does not train; "subnets", nor does anything of the audio
            and the visual network. What is frozen keeps its batch statistics, but the dropout in the visual network
            is as active in training as ever, which is what Keras does with a frozen layer.
        train_blocks: If positive, only the last so many groups of the image encoder's layers train; 0 for all.
        image_features: Features of a frame with `visual_kind` "frame"; an encoder of the model's own has its own.
        mixup: Parameter of the Beta distribution by which two streams of examples are mixed, in stage "audio" only;
            the data then gives batches of two halves. 0 for none.
        early_weight: Weight of a loss of the early fusion's own answer, beside that of the whole (the authors: none,
            and the late layer reads that answer as it likes; with it, it can be read by itself).
        lr: Learning rate of Adam at the start.
        plateau_patience: Epochs without a lower `val_loss` after which the rate is halved, as Keras counts them.
        kernel_decay: L2 penalty of the image encoder's kernels: this times the sum of their squares.
        classifier_decay: Likewise, of the visual classifier's weights.
        preprocess: The numbers of the signal path; default: gammatone, five pictures a second, VGG16, max pooling.

    Raises:
        AvzooError: If options contradict each other, or the signal path gives none of what this network reads.

    >>> with torch.device("meta"):
    ...     model = SECRNNFusion([f"scene {i}" for i in range(10)])
    >>> sum(p.numel() for p in model.parameters())
    15414804
    """

    task: ClassVar[Literal["clip", "segment"]] = "clip"

    def __init__(
        self,
        classes: Sequence[str],
        *,
        stage: Literal["audio", "visual", "fusion"] = "fusion",
        freeze: Literal["none", "backbone", "subnets"] = "none",
        train_blocks: int = 0,
        image_features: int = 512,
        mixup: float = 0.0,
        early_weight: float = 0.0,
        lr: float = 1e-3,
        plateau_patience: int = 15,
        kernel_decay: float = 2e-4,
        classifier_decay: float = 1e-3,
        preprocess: Preprocess | Mapping[str, Any] | None = None,
    ) -> None:
        if preprocess is None:
            preprocess = Preprocess(
                audio_kind="gammatone", fps=5, visual_kind="image", visual_backbone="vgg16.tv_in1k", pool="max"
            )
        super().__init__(classes, preprocess)
        p = self.preprocess
        owner = p.visual_kind == "image" and stage != "audio"
        steps = FusionNetwork.steps(p.frames)
        for wrong, message in (
            (stage not in STAGES, f"stage is {stage!r}, expected one of {STAGES}"),
            (freeze not in FREEZES, f"freeze is {freeze!r}, expected one of {FREEZES}"),
            (p.audio_kind != "gammatone", f"audio_kind is {p.audio_kind!r}: set preprocess.audio_kind to 'gammatone'"),
            (p.visual_kind == "segment", "visual_kind is 'segment': set preprocess.visual_kind to 'frame' or 'image'"),
            (
                stage == "fusion" and steps != p.pictures,
                f"{p.frames} columns of sound make {steps} steps in time, but a segment has {p.pictures} frames, and"
                f" early fusion pairs them: set preprocess.fps to {max(steps, 1) / p.segment_seconds:g}",
            ),
            (freeze == "subnets" and stage != "fusion", f"freeze='subnets' leaves stage {stage!r} nothing to train"),
            (freeze == "backbone" and stage == "audio", "freeze='backbone', but stage 'audio' has no image encoder"),
            (train_blocks < 0, f"train_blocks is {train_blocks}, expected 0 or more"),
            (train_blocks > 0 and not owner, f"train_blocks={train_blocks}, but the model owns no image encoder"),
            (train_blocks > 0 and freeze != "none", f"train_blocks={train_blocks} and freeze={freeze!r}: choose one"),
            (mixup < 0, f"mixup is {mixup}, expected 0 or more"),
            (early_weight < 0, f"early_weight is {early_weight}, expected 0 or more"),
            (early_weight > 0 and stage != "fusion", f"early_weight={early_weight}, but stage {stage!r} fuses nothing"),
            (mixup > 0 and stage != "audio", f"mixup={mixup} in stage {stage!r}: only stage 'audio' mixes"),
            (plateau_patience < 1, f"plateau_patience is {plateau_patience}, expected 1 epoch or more"),
        ):
            if wrong:
                raise AvzooError(message)
        classes, preprocess = self.classes, p.to_dict()  # plain JSON types, as checkpoints keep them
        self.save_hyperparameters()
        self.stage, self.frozen, self.mixup, self.lr, self.plateau_patience = stage, freeze, mixup, lr, plateau_patience
        self.kernel_decay, self.classifier_decay, self.early_weight = kernel_decay, classifier_decay, early_weight
        encoder = ImageEncoder(p, frozen=freeze != "none") if owner else None
        if encoder is not None:
            image_features = backbones.feature_dim(p.visual_backbone, p.pool)
            if train_blocks:
                encoder.train_last(train_blocks)
        count = len(classes)
        picture = [image_features] if encoder is None else [3, p.size, p.size]
        self.forms = {"audio": [3, p.bands, p.frames], "visual": [p.pictures, *picture]}
        self.audio = None if stage == "visual" else AudioNetwork(count)
        self.visual = None if stage == "audio" else VisualNetwork(count, image_features, encoder)
        self.fusion = FusionNetwork(count, image_features) if stage == "fusion" else None
        if freeze == "subnets":
            for network in (self.audio, self.visual):
                if network is not None:
                    network.requires_grad_(False)
        self.train()  # Lightning does not call it before it trains

    @property
    def modalities(self) -> tuple[str, ...]:
        """What its networks read."""
        return ("audio", "visual") if self.stage == "fusion" else (self.stage,)

    def train(self, mode: bool = True) -> SECRNNFusion:
        """Training mode, which frozen batch statistics ignore and frozen dropout does not, see `freeze`."""
        super().train(mode)
        if self.frozen == "subnets" and self.audio is not None:
            self.audio.eval()
        return self

    def forward(self, audio: Tensor | None, visual: Tensor | None) -> Tensor:
        """Score every segment: by all that the stage has networks for, or by sound or pictures alone.

        Args:
            audio: Levels, dB, float32 `[batch, segments, 3, bands, columns]`; None if there is no sound.
            visual: `[batch, segments, frames, features]`, or uint8 `[batch, segments, frames, 3, size, size]` for a
                model with its own image encoder; None if there are no pictures.

        Returns:
            Log posteriors `[batch, segments, classes]`; their softmax gives the posteriors back.

        Raises:
            AvzooError: If nothing is given that the stage reads, or it has another shape than `preprocess` says.
        """
        *_, answer = self.branches(audio, visual).values()
        return answer

    def branches(self, audio: Tensor | None, visual: Tensor | None) -> dict[str, Tensor]:
        """The answer of every part that can give one: of "audio", "visual", "early" and "late", in this order.

        Arguments and errors as in `forward`, which gives the last of these log posteriors.
        """
        pairs = ((self.audio, audio), (self.visual, visual))
        given = [x for network, x in pairs if network is not None and x is not None]
        if not given:
            raise AvzooError(f"stage {self.stage!r} was given nothing that it reads: give it audio, visual or both")
        if given[0].shape[:2] != given[-1].shape[:2]:
            raise AvzooError(f"audio {list(given[0].shape)} and visual {list(given[1].shape)}: not the same segments")
        answers: dict[str, Tensor] = {}
        if self.audio is not None and audio is not None:
            maps, answers["audio"] = self.audio(scale_crop(self._examples("audio", audio)))
        if self.visual is not None and visual is not None:
            features, answers["visual"] = self.visual(self._examples("visual", visual))
        if self.fusion is not None and len(given) == 2:
            answers["early"], answers["late"] = self.fusion(maps, features, answers["audio"], answers["visual"])
        batch, segments = given[0].shape[:2]
        return {name: answer.view(batch, segments, -1) for name, answer in answers.items()}

    def _examples(self, name: str, given: Tensor) -> Tensor:
        """`[batch, segments, ...]` as `[batch * segments, ...]`."""
        form = self.forms[name]
        if [*given.shape[2:]] != form:
            raise AvzooError(f"{name} is {list(given.shape)}, expected [batch, segments, {str(form)[1:]}")
        return given.flatten(0, 1)

    def mix(self, audio: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Mix the second half of a batch into the first, each pair by a share of its own from the Beta distribution.

        Args:
            audio: Levels, dB, `[2 * batch, segments, 3, bands, columns]`.
            label: Int64 `[2 * batch]`.

        Returns:
            Crops between -1 and 1, `[batch, segments, 3, bands, columns]`, and distributions `[batch, classes]`.

        Raises:
            AvzooError: If there are no two halves.
        """
        if len(label) % 2:
            raise AvzooError(f"mixup takes batches of two equal halves, got {len(label)} rows: set data.streams to 2")
        share = torch.distributions.Beta(self.mixup, self.mixup).sample((len(label) // 2,)).to(audio)

        def mixed(both: Tensor) -> Tensor:
            first, second = both.chunk(2)
            return second.lerp(first, share.view(-1, *[1] * (both.ndim - 1)))

        return mixed(scale_crop(audio)), mixed(F.one_hot(label, len(self.classes)).to(audio))

    def loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """Cross-entropy of log posteriors `[batch, segments, classes]`, in float32 whatever the precision.

        Args:
            logits: What `forward` gave.
            label: Int64 `[batch]`, or distributions `[batch, classes]`; each of a clip's segments has its label.
        """
        target = label.repeat_interleave(logits.shape[1], 0)
        return F.cross_entropy(logits.flatten(0, 1).float(), target)

    def setup(self, stage: str) -> None:
        """Refuse what the base refuses, and data whose batches mixup cannot mix; fill the backbone before training."""
        super().setup(stage)
        data = getattr(self._trainer, "datamodule", None)
        if stage == "fit" and self.mixup and data is not None and getattr(data, "streams", 1) != 2:
            raise AvzooError(f"mixup={self.mixup} mixes two streams of examples: set data.streams to 2, or mixup to 0")

    def training_loss(self, batch: Batch) -> Tensor:
        """The loss; with mixup, of the mixed examples; with `early_weight`, the early fusion's too."""
        if self.early_weight:
            answers = self.branches(batch.audio, batch.visual)
            late, early = (self.loss(answers[name], batch.label) for name in ("late", "early"))
            return late + self.early_weight * early
        if self.audio is None or not self.mixup:
            return super().training_loss(batch)
        crops, target = self.mix(batch.audio, batch.label)
        _, answer = self.audio(crops.flatten(0, 1))
        return self.loss(answer.unflatten(0, crops.shape[:2]), target)

    def fill_backbone(self) -> None:
        """Load the pretrained weights of the model's own image encoder, unless it holds trained ones already."""
        if self.visual is not None and self.visual.encoder is not None:
            self.visual.encoder.fill()

    def configure_optimizers(self) -> Any:
        """Adam, the penalties as its weight decay, and a rate that is halved when `val_loss` no longer falls."""
        penalty: dict[Tensor, float] = {}
        if self.visual is not None:
            penalty[self.visual.classifier.weight] = self.classifier_decay
            kernels = [] if self.visual.encoder is None else self.visual.encoder.modules()
            penalty |= {layer.weight: self.kernel_decay for layer in kernels if isinstance(layer, nn.Conv2d)}
        groups: dict[float, list[nn.Parameter]] = {}
        for parameter in self.parameters():
            if parameter.requires_grad:
                decay = 2 * penalty.get(parameter, 0.0)  # the gradient of k w^2 is 2 k w
                groups.setdefault(decay, []).append(parameter)
        optimizer = torch.optim.Adam([{"params": g, "weight_decay": decay} for decay, g in groups.items()], lr=self.lr)
        every = 1 if self._trainer is None else self.trainer.check_val_every_n_epoch or 1  # epochs to a validation
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer,
            factor=0.5,
            # Keras acts in the last epoch of its patience, torch in the next
            patience=math.ceil(self.plateau_patience / every) - 1,
            threshold=1e-4,
            threshold_mode="abs",
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss", "frequency": every},
        }
