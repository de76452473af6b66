r"""JointScalogramNet: a scene from half-second spectra and single pictures, the sound encoder trained jointly.

Chengxin Chen, Meng Wang, Pengyuan Zhang: "Audio-visual scene classification using a transfer learning based joint
optimization strategy", 2022, https://arxiv.org/abs/2204.11420.

```
audio  [B, S, F, 2, 290] -> standardise -> AE, a res-DCNN ----------> 1024 --\
         F windows of 512 ms a second,                                        [2304] -> SC -> softmax -> mean over F
         average and difference of the channels                              /                    -> log [B, S, classes]
visual [B, S, 1, 3, 288, 288] -> VE, EfficientNetV2-S, frozen ------> 1280 -/

AE   4 x [Conv 3 (+ Conv 3) -> ReLU -> AvgPool 2], 2 -> 4 -> 8 -> 16 -> 32 channels, 290 -> 145 -> 72 -> 36 -> 18 values
     [input 580 | last block 576] -> Linear 2048 -> Linear 1024, each with batch norm and ReLU
SC   Linear 1024, batch norm, ReLU, dropout -> Linear
```

Training sees single (window, picture) pairs, so its loss is the cross-entropy of a pair; a segment's posterior is the
mean of its windows' posteriors. Where the paper is silent, an argument names the choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avzoo import backbones
from avzoo.errors import AvzooError, check_choice
from avzoo.models.base import AVModule
from avzoo.models.image_encoder import ImageEncoder
from avzoo.preprocess import Batch, Preprocess

# The signal path of the paper's best system.
PREPROCESS: Mapping[str, Any] = {
    "audio_kind": "scalogram",
    "visual_kind": "image",
    "visual_backbone": "tf_efficientnetv2_s.in1k",
    "size": 288,
}
# What decides the values of a spectrum; spectra that differ in one of these have no statistics in common.
SPECTRUM = ("audio_kind", "sample_rate", "n_fft", "window", "hop", "bands", "bank", "f_min", "f_max", "log_offset")
WIDTH = 1024  # of the AE's output and of the SC's hidden layer


class ResBlock(nn.Module):
    """Conv 3 -> batch norm -> ReLU -> AvgPool, with a second convolution of the input added."""

    def __init__(self, inputs: int, outputs: int, pool_kernel: int, residual: str) -> None:
        super().__init__()
        self.residual = residual
        self.conv = nn.Conv1d(inputs, outputs, 3)
        self.norm = nn.BatchNorm1d(outputs)
        self.pool = nn.AvgPool1d(pool_kernel, stride=2, padding=1)
        if residual == "pre":
            self.shortcut = nn.Conv1d(inputs, outputs, 3)
        elif residual == "post":  # the kernel that makes its output as long as the pool's
            self.shortcut = nn.Conv1d(inputs, outputs, pool_kernel, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """`[rows, inputs, length]` to `[rows, outputs, about length / 2]`."""
        y: Tensor = self.norm(self.conv(x))
        if self.residual == "pre":
            y = y + self.shortcut(x)
        y = self.pool(y.relu())
        return y + self.shortcut(x) if self.residual == "post" else y


class AudioEncoder(nn.Module):
    """The AE, a "res-DCNN": four blocks along frequency, then two dense layers over input and convolutions' output.

    Raises:
        AvzooError: If there are too few bands for four blocks.
    """

    channels = (2, 4, 8, 16, 32)

    def __init__(self, bands: int, *, pool_kernel: int, residual: str, concat: str, dropout: float) -> None:
        super().__init__()
        self.concat = concat
        lengths = [bands]
        for _ in self.channels[1:]:
            if lengths[-1] < 3:
                raise AvzooError(f"{bands} bands leave nothing after four blocks: set preprocess.bands to 32 or more")
            lengths.append((lengths[-1] - pool_kernel) // 2 + 1)  # the convolution takes 2, the pool's padding adds 2
        self.blocks = nn.ModuleList(
            ResBlock(self.channels[i], self.channels[i + 1], pool_kernel, residual) for i in range(4)
        )
        sizes = [channels * length for channels, length in zip(self.channels, lengths, strict=True)]
        self.dense = nn.Sequential(
            nn.Linear(sum(sizes) if concat == "all" else sizes[0] + sizes[-1], 2 * WIDTH),
            nn.BatchNorm1d(2 * WIDTH),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(2 * WIDTH, WIDTH),
            nn.BatchNorm1d(WIDTH),
            nn.ReLU(),
        )

    def forward(self, spectra: Tensor) -> Tensor:
        """Standardised `[rows, 2, bands]` to `[rows, 1024]`."""
        levels = [spectra]
        for block in self.blocks:
            levels.append(block(levels[-1]))
        kept = levels if self.concat == "all" else [levels[0], levels[-1]]
        embedding: Tensor = self.dense(torch.cat([level.flatten(1) for level in kept], dim=1))
        return embedding


class SceneClassifier(nn.Module):
    """The SC: one hidden layer over the joined embeddings."""

    def __init__(self, features: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(features, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU(), nn.Dropout(dropout))
        self.scores = nn.Linear(WIDTH, classes)

    def forward(self, joined: Tensor) -> Tensor:
        """`[rows, features]` to scores `[rows, classes]`."""
        scores: Tensor = self.scores(self.hidden(joined))
        return scores


class Pairs(NamedTuple):
    """A batch, frame by frame.

    Attributes:
        heard: The AE's output `[pairs, 1024]`; None where there is no sound.
        seen: The picture's features `[pairs, image_features]`; None where there is none.
        present: Which pairs there are, bool `[batch, segments, frames]`.
        rows: Where the pairs stand in the flattened `present`.
    """

    heard: Tensor | None
    seen: Tensor | None
    present: Tensor
    rows: Tensor | slice


class JointScalogramNet(AVModule):
    """Scenes from scalograms and pictures; `JointScalogramNet(classes=<10 names>)` is the paper's best system.

    That one trains 6,850,794 parameters (AE 4,478,176, SC 2,372,618) and has 27,028,282 with the frozen VE. The four
    systems of the paper and its ablation:

    ```
    audio-only         system="audio"
    video-only         system="visual"
    pipeline, row I    ae_frozen=True with the AE of an audio-only system, features of pictures as they are
    row II             features of pictures as they are
    row III            ae_frozen=True likewise, pictures augmented
    joint, row IV      the default, pictures augmented
    ```

    The VE is pretrained and never trains here, so no state dict holds it: `fill_backbone` loads it by name.

    Args:
        classes: Label order.
        system: What is built: "joint", "audio" (AE and SC) or "visual" (VE and SC).
        ae_frozen: The AE comes from elsewhere, trained (with its statistics): no gradient, always in eval mode.
        pool_kernel: Of the AE's pools (the paper gives padding 1 and stride 2 only; with 2 each block halves exactly).
        residual: Where the AE's second convolution is added: "pre", to the batch norm's output, before ReLU and pool
            (chosen: as in ResNet; the paper says "to match input and output of each block"), "post", to the pool's
            output, or "none", nowhere.
        concat: What the AE's dense layers read: the input and the "last" block's output, or the input and "all"
            blocks' (the paper: "input as well as Conv's output").
        dropout: After the first dense layer of AE and SC (the paper's).
        image_features: Size of a picture's features with `visual_kind` "frame"; with "image" it is the encoder's.
        modality_dropout: Share of the training pairs whose sound or picture, by a fair coin, is lost: its embedding
            becomes zero, as that of a missing modality is (the paper: none).
        audio_temperature: Divides the scores of a joint system that only hears, so that its probabilities are right
            as often as they say; `avzoo fit` finds it on validation at its end where there is modality dropout.
        visual_temperature: Likewise, of one that only sees.
        lr: Learning rate of SGD after each restart.
        lr_min: Learning rate before each restart.
        momentum: Of SGD (chosen: the paper does not say).
        weight_decay: Of SGD (chosen: none).
        restart_epochs: Epochs until the first restart (chosen: 10, for 10 + 20 + 40 + 80 are the paper's 150).
        restart_factor: How many times as long as the one before each cycle is (chosen, as above).
        preprocess: The numbers of the signal path; default: scalograms, and pictures of 288 x 288 for
            EfficientNetV2-S.

    Raises:
        AvzooError: If an option is not one of those above, or the signal path is of another kind.

    >>> model = JointScalogramNet([f"scene {i}" for i in range(10)])
    >>> sum(p.numel() for p in model.parameters() if p.requires_grad), sum(p.numel() for p in model.parameters())
    (6850794, 27028282)
    """

    task: ClassVar[Literal["clip", "segment"]] = "clip"
    wholes: ClassVar[tuple[str, ...]] = ("classifier.",)
    audio_mean: Tensor
    audio_std: Tensor

    def __init__(
        self,
        classes: Sequence[str],
        *,
        system: Literal["joint", "audio", "visual"] = "joint",
        ae_frozen: bool = False,
        pool_kernel: Literal[2, 3] = 2,
        residual: Literal["pre", "post", "none"] = "pre",
        concat: Literal["last", "all"] = "last",
        dropout: float = 0.5,
        image_features: int = 1280,
        modality_dropout: float = 0.0,
        audio_temperature: float = 1.0,
        visual_temperature: float = 1.0,
        lr: float = 1e-2,
        lr_min: float = 1e-5,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        restart_epochs: int = 10,
        restart_factor: int = 2,
        preprocess: Preprocess | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(classes, PREPROCESS if preprocess is None else preprocess)
        check_choice("system", system, ("joint", "audio", "visual"))
        check_choice("pool_kernel", pool_kernel, (2, 3))
        check_choice("residual", residual, ("pre", "post", "none"))
        check_choice("concat", concat, ("last", "all"))
        if not (0 <= dropout < 1 and 0 <= modality_dropout <= 1):
            raise AvzooError(f"dropout={dropout}, modality_dropout={modality_dropout}: both are shares, 0 to 1")
        if (modality_dropout and system != "joint") or (ae_frozen and system == "visual"):
            raise AvzooError(
                f"system={system!r}, modality_dropout={modality_dropout}, ae_frozen={ae_frozen}: only a joint system"
                " can lose a modality, and one that sees alone has no AE"
            )
        if not (audio_temperature > 0 and visual_temperature > 0):
            raise AvzooError(f"temperatures {audio_temperature}, {visual_temperature}: both must be above 0")
        self.audio_temperature, self.visual_temperature = audio_temperature, visual_temperature
        self.hears, self.sees = system != "visual", system != "audio"
        self._check_kinds()
        if self.sees and self.preprocess.visual_kind == "image":
            image_features = backbones.feature_dim(self.preprocess.visual_backbone, self.preprocess.pool)
        classes, preprocess = self.classes, self.preprocess.to_dict()  # plain JSON types, as checkpoints keep them
        self.save_hyperparameters()
        self.image_features, self.modality_dropout, self.ae_frozen = image_features, modality_dropout, ae_frozen
        self.lr, self.lr_min, self.momentum, self.weight_decay = lr, lr_min, momentum, weight_decay
        self.restart_epochs, self.restart_factor = restart_epochs, restart_factor
        if self.hears:
            bands = self.preprocess.bands
            self.register_buffer("audio_mean", torch.zeros(2, bands))
            self.register_buffer("audio_std", torch.ones(2, bands))
            self.audio_encoder = AudioEncoder(
                bands, pool_kernel=pool_kernel, residual=residual, concat=concat, dropout=dropout
            ).requires_grad_(not ae_frozen)
        self.image_encoder: ImageEncoder | None = None
        if self.sees and self.preprocess.visual_kind == "image":
            self.image_encoder = ImageEncoder(self.preprocess, frozen=True, stored=False)
        joined = WIDTH * self.hears + image_features * self.sees
        self.classifier = SceneClassifier(joined, len(classes), dropout)
        self.train()  # which puts what is frozen into eval mode: Lightning keeps the modes that it finds

    @property
    def modalities(self) -> tuple[str, ...]:
        """What its networks read."""
        return ("audio",) * self.hears + ("visual",) * self.sees

    def _check_kinds(self) -> None:
        p = self.preprocess
        if self.hears and p.audio_kind not in ("scalogram", "fbank"):
            raise AvzooError(f"preprocess.audio_kind is {p.audio_kind!r}: set it to 'scalogram' or 'fbank'")
        if self.sees and (p.visual_kind == "segment" or p.pictures != 1):
            raise AvzooError(
                f"preprocess: visual_kind={p.visual_kind!r} and {p.pictures} pictures a segment; set visual_kind to"
                " 'frame' (features) or 'image' (the model holds the encoder) and fps to 1 a segment"
            )

    # -- from sound and picture to posteriors ------------------------------------------------------------------------

    def forward(self, audio: Tensor | None, visual: Tensor | None) -> Tensor:
        """Log posteriors of every segment, whose picture is paired with each of its frames of sound.

        Args:
            audio: Float32 `[batch, segments, frames, 2, bands]`, log spectra as the signal path gives them; a frame
                that is NaN throughout is none. None for no sound, which a joint system can do without.
            visual: Features `[batch, segments, 1, image_features]`, or uint8 `[batch, segments, 1, 3, size, size]`
                where the model owns the encoder. None for no picture, likewise.

        Returns:
            `[batch, segments, classes]`; NaN for a segment without a frame.

        Raises:
            AvzooError: If the shapes are others, if nothing that the system reads is there, or if one pair alone is
                to be trained on.
        """
        pairs = self._pairs(audio, visual)
        return self._posteriors(pairs, self.classifier(self._joined(pairs)))

    def _posteriors(self, pairs: Pairs, scores: Tensor) -> Tensor:
        """What `forward` gives, of the pairs' scores `[pairs, classes]`."""
        if self.hears and self.sees and (pairs.heard is None) != (pairs.seen is None):
            scores = scores / (self.visual_temperature if pairs.heard is None else self.audio_temperature)
        posterior = scores.float().log_softmax(-1)
        frames = posterior.new_full((pairs.present.numel(), posterior.shape[-1]), -torch.inf)
        frames[pairs.rows] = posterior
        frames = frames.view(*pairs.present.shape, -1).masked_fill(~pairs.present[..., None], -torch.inf)
        return frames.logsumexp(2) - pairs.present.sum(2)[..., None].log()

    @torch.no_grad()
    def embeddings(self, audio: Tensor | None, visual: Tensor | None) -> dict[str, Tensor]:
        """What each part makes of a batch, always in eval mode; arguments and errors as `forward`.

        Returns:
            Means over a segment's frames: "audio", the AE's output `[batch, segments, 1024]`, and "visual", the
            picture's features `[batch, segments, image_features]`, each where it is there, and "fused", the SC's
            hidden layer `[batch, segments, 1024]`. And "logits", what `forward` gives, of the same pass.
        """
        with self.evaluating():
            pairs = self._pairs(audio, visual)
            fused = self.classifier.hidden(self._joined(pairs))
            logits = self._posteriors(pairs, self.classifier.scores(fused))
        present = pairs.present[..., None]
        means = {
            name: rows.float().view(*pairs.present.shape, -1).where(present, 0.0).sum(2) / present.sum(2)
            for name, rows in {"audio": pairs.heard, "visual": pairs.seen, "fused": fused}.items()
            if rows is not None
        }
        return {**means, "logits": logits}

    def _pairs(self, audio: Tensor | None, visual: Tensor | None) -> Pairs:
        """Encode what the system reads of the two."""
        audio, visual = audio if self.hears else None, visual if self.sees else None
        present = self._present(audio, visual)
        rows: Tensor | slice = slice(None)  # out of training, masking what is no frame is enough, and can be exported
        if self.training:  # batch statistics must not see it
            rows = present.flatten().nonzero()[:, 0]
            if len(rows) < 2 and getattr(self._trainer, "world_size", 1) == 1:  # several processes share statistics
                raise AvzooError(f"{len(rows)} pair in a training batch has no batch statistics: drop the last batch")
        heard = seen = None
        if audio is not None:
            spectra = (audio.float() - self.audio_mean) / self.audio_std
            heard = self.audio_encoder(spectra.where(present[..., None, None], 0.0).flatten(0, 2)[rows])
        if visual is not None:
            features = visual if self.image_encoder is None else self.image_encoder(visual)
            seen = features.expand(-1, -1, present.shape[2], -1).flatten(0, 2)[rows]
        return Pairs(heard, seen, present, rows)

    def _present(self, audio: Tensor | None, visual: Tensor | None) -> Tensor:
        """Which pairs a checked sound and picture have, bool `[batch, segments, frames]`."""
        owned, p = self.image_encoder is not None, self.preprocess
        spectrum, picture = [2, p.bands], [1, 3, p.size, p.size] if owned else [1, self.image_features]
        if (
            (audio is not None and (audio.ndim != 5 or [*audio.shape[3:]] != spectrum))
            or (visual is not None and ([*visual.shape[2:]] != picture or owned != (visual.dtype == torch.uint8)))
            or (audio is not None and visual is not None and audio.shape[:2] != visual.shape[:2])
        ):
            given = [None if x is None else (list(x.shape), x.dtype) for x in (audio, visual)]
            raise AvzooError(
                f"got audio {given[0]} and visual {given[1]}, expected float [batch, segments, frames,"
                f" {str(spectrum)[1:]} and {'uint8' if owned else 'float'} [batch, segments, {str(picture)[1:]}: set"
                f" preprocess (audio_kind, bands, size){'' if owned else ' and image_features'} to what the data has"
            )
        if audio is not None:
            return ~audio.isnan().flatten(3).all(3)
        if visual is not None:
            return torch.ones(visual.shape[:3], dtype=torch.bool, device=visual.device)
        reads = " or ".join(name for name, has in (("sound", self.hears), ("pictures", self.sees)) if has)
        raise AvzooError(f"there is nothing to go by: a system={self.hparams['system']!r} needs {reads}")

    def _joined(self, pairs: Pairs) -> Tensor:
        """The SC's input `[pairs, features]`; a missing modality is zero, in training at times a present one too."""
        heard, seen = pairs.heard, pairs.seen
        if self.training and self.modality_dropout and heard is not None and seen is not None:
            draw = torch.rand(len(heard), 1, device=heard.device)
            heard = heard.masked_fill(draw < self.modality_dropout / 2, 0.0)
            seen = seen.masked_fill(draw >= 1 - self.modality_dropout / 2, 0.0)
        if self.hears and heard is None and seen is not None:
            heard = seen.new_zeros(len(seen), WIDTH)
        if self.sees and seen is None and heard is not None:
            seen = heard.new_zeros(len(heard), self.image_features)
        return torch.cat([part for part in (heard, seen) if part is not None], dim=1)

    @torch.no_grad()
    def calibrate(self, batch: Batch) -> str:
        """Choose both temperatures by the least log-loss on a batch with one modality taken away.

        Only a joint system that was trained with modality dropout has something to choose.
        """
        if not (self.modality_dropout and self.hears and self.sees):
            return ""
        found = []
        with self.evaluating():
            for name, audio, visual in (("audio", batch.audio, None), ("visual", None, batch.visual)):
                key = f"{name}_temperature"
                losses = {}
                for temperature in torch.logspace(-0.5, 1, 76).tolist():  # 0.3 to 10 in steps of 5 %
                    setattr(self, key, temperature)
                    losses[temperature] = float(self.loss(self(audio, visual), batch.label))
                best = round(min(losses, key=losses.__getitem__), 3)
                setattr(self, key, best)
                self.hparams[key] = best
                found.append(f"{key} {best:g}")
        return "calibrated on validation: " + ", ".join(found)

    # -- training ----------------------------------------------------------------------------------------------------

    def loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """Cross-entropy of log posteriors `[batch, segments, classes]` with the clips' int64 labels `[batch]`."""
        every = label[:, None].expand(logits.shape[:2])
        return F.nll_loss(logits.float().flatten(0, 1), every.flatten())

    def training_loss(self, batch: Batch) -> Tensor:
        """The loss; a VE that somebody set to train is refused."""
        if self.image_encoder is not None and any(p.requires_grad for p in self.image_encoder.parameters()):
            raise AvzooError(
                "a parameter of the image encoder requires a gradient, but the encoder is frozen here: its fine-tuning"
                " on Places365 is a module of its own, whose weights preprocess.visual_backbone then names"
            )
        return super().training_loss(batch)

    def train(self, mode: bool = True) -> JointScalogramNet:
        """Training mode, which a frozen AE ignores (and the VE by itself)."""
        super().train(mode)
        if self.ae_frozen:
            self.audio_encoder.eval()
        return self

    def configure_optimizers(self) -> Any:
        """SGD along a cosine with warm restarts, stepped every epoch."""
        trained = [p for p in self.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(
            optimizer, T_0=self.restart_epochs, T_mult=self.restart_factor, eta_min=self.lr_min
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "epoch"}}

    def setup(self, stage: str) -> None:
        """Fill the VE; refuse data with other spectra; before training, learn the statistics that are not there yet.

        Raises:
            AvzooError: If the data's spectra are of another kind than the model's.
        """
        super().setup(stage)
        self.fill_backbone()  # for a test too: no checkpoint holds it
        data = getattr(self._trainer, "datamodule", None)
        if data is None or not self.hears:
            return
        numbers = ((key, getattr(data.preprocess, key), getattr(self.preprocess, key)) for key in SPECTRUM)
        if other := [f"{key} {theirs!r} for {ours!r}" for key, theirs, ours in numbers if theirs != ours]:
            raise AvzooError(
                f"statistics from another feature kind: the data has {', '.join(other)} in the model; set one"
                " preprocess for both"
            )
        if stage == "fit" and not self.ae_frozen and not self.has_statistics:
            mean, std = data.audio_statistics()
            if mean.shape != self.audio_mean.shape or std.shape != self.audio_std.shape:
                raise AvzooError(
                    f"audio statistics {list(mean.shape)} and {list(std.shape)} do not fit: expected"
                    f" {list(self.audio_mean.shape)} each, by channel and band"
                )
            self.audio_mean.copy_(mean)
            self.audio_std.copy_(std)

    @property
    def has_statistics(self) -> bool:
        """Whether `audio_mean` and `audio_std` were learnt or loaded, and are not what the constructor put there."""
        return bool((self.audio_mean != 0).any() or (self.audio_std != 1).any())

    def on_fit_start(self) -> None:
        """Refuse to freeze an AE that never was trained (once a checkpoint, if any, is loaded).

        Raises:
            AvzooError: If it has no statistics.
        """
        if self.ae_frozen and not self.has_statistics:
            raise AvzooError("ae_frozen is set, but this AE was never trained: set init_from to an audio-only system")

    # -- the encoder that no state dict holds ------------------------------------------------------------------------

    def fill_backbone(self) -> None:
        """Load the VE's pretrained weights."""
        if self.image_encoder is not None:
            self.image_encoder.fill()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A checkpoint brings all but the VE."""
        super().on_load_checkpoint(checkpoint)
        self.fill_backbone()
