r"""AVSDN: the dual sequence-to-sequence network for audio-visual event localization.

Yan-Bo Lin, Yu-Jhe Li, Yu-Chiang Frank Wang: "Dual-modality seq2seq network for audio-visual event localization",
ICASSP 2019, https://arxiv.org/abs/1902.07473.

```
audio  [B, T, 128]  -> encoder LSTM -> (h_a, c_a) --\
                                                     DMRN fusion -> (h_f, c_f)
visual [B, T, 2048] -> encoder LSTM -> (h_v, c_v) --/                   |
[audio | visual] [B, T, 2176] ----------------------> decoder LSTM <----/  -> Linear -> logits [B, T, classes]
```

Where the paper is silent, an argument names the choice and its docstring says where the default comes from. The
trainable network alone lives here; its features are frozen and therefore preprocessing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avzoo.errors import AvzooError, check_choice
from avzoo.models.base import AVModule, with_zeros
from avzoo.preprocess import Batch, Preprocess

State = tuple[Tensor, Tensor]  # hidden and cell state of an LSTM, each [directions, batch, hidden]


def read(lstm: nn.LSTM, sequence: Tensor, lengths: Tensor | None, start: State | None = None) -> tuple[Tensor, State]:
    """Outputs and last state of an LSTM over `[batch, time, features]`; in neither direction does it read padding."""
    if lengths is None:
        whole: tuple[Tensor, State] = lstm(sequence, start)
        return whole
    packed = nn.utils.rnn.pack_padded_sequence(sequence, lengths.cpu(), batch_first=True, enforce_sorted=False)
    outputs, state = lstm(packed, start)
    padded, _ = nn.utils.rnn.pad_packed_sequence(outputs, batch_first=True, total_length=sequence.shape[1])
    return padded, state


class Encoder(nn.Module):
    """One LSTM over the segments of one modality; only its last state is kept (sec. 2.2)."""

    def __init__(self, features: int, hidden: int, bidirectional: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, hidden, batch_first=True, bidirectional=bidirectional)

    def forward(self, sequence: Tensor, lengths: Tensor | None) -> State:
        """Read `[batch, time, features]`; segments at and after `lengths` do not reach the state."""
        return read(self.lstm, sequence, lengths)[1]


class DMRNFusion(nn.Module):
    """Fuses a state of the sound with the same state of the picture (Eq. 2).

    `m = (U_a(a) + U_v(v)) / 2` and `f = (tanh(a + m) + tanh(v + m)) / 2`, with each `U` an MLP
    Linear-tanh-Linear as in the code of AVE's dual multimodal residual network.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.u_audio = nn.Sequential(nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, hidden))
        self.u_visual = nn.Sequential(nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, hidden))

    def forward(self, audio: Tensor, visual: Tensor) -> Tensor:
        """Fuse two `[..., hidden]` states into one."""
        shared = (self.u_audio(audio) + self.u_visual(visual)) / 2
        fused: Tensor = (torch.tanh(audio + shared) + torch.tanh(visual + shared)) / 2
        return fused


class AudioGuidedAttention(nn.Module):
    """AVE's attention: the sound says where in a map of `regions` image features to look.

    Y. Tian et al., "Audio-visual event localization in unconstrained videos", ECCV 2018, sec. 4.2.
    """

    def __init__(self, audio: int, visual: int, regions: int = 49) -> None:
        super().__init__()
        self.audio = nn.Sequential(nn.Linear(audio, visual), nn.ReLU())
        self.visual = nn.Sequential(nn.Linear(visual, visual), nn.ReLU())
        self.from_audio = nn.Linear(visual, regions, bias=False)
        self.from_visual = nn.Linear(visual, regions, bias=False)
        self.score = nn.Linear(regions, 1, bias=False)

    def forward(self, audio: Tensor, maps: Tensor) -> Tensor:
        """Pool maps `[batch, time, regions, features]` by sound `[batch, time, audio]` to `[batch, time, features]`."""
        heard = self.from_audio(self.audio(audio)).unsqueeze(-1)  # [batch, time, regions, 1]
        seen = self.from_visual(self.visual(maps))  # [batch, time, regions, regions]
        weights = self.score(torch.tanh(seen + heard)).softmax(-2)  # [batch, time, regions, 1]
        pooled: Tensor = (weights * maps).sum(-2)
        return pooled


class AVSDN(AVModule):
    """Audio-visual sequence-to-sequence dual network; `AVSDN(classes=<29 names>)` is the paper's, 2,497,693 parameters.

    Args:
        classes: Label order, the background last.
        audio_dim: Features of a segment of sound (sec. 3.1: VGGish, 128).
        visual_dim: Features of a segment of video (sec. 3.1: ResNet-152, 2048; 512 for AVE's VGG-19 features).
        hidden_dim: Width of all LSTMs (chosen: the paper does not say; the AVE code has 128).
        bidirectional: LSTMs read in both directions (the paper says "one LSTM"; a public re-implementation has two).
        share_u: The MLPs that fuse the hidden states fuse the cell states too (chosen: "can be fused like hidden
            states" allows both); false gives the cell states their own, +66,048 parameters at the default width.
        relu_states: A ReLU on the states before the fusion and on the decoder's output (off; a public
            re-implementation has it).
        concat_global: The fused hidden state is also concatenated to every decoder input (off: the text reads as if
            it entered through the initial state only), +65,536 parameters at the default width.
        attention: AVE's audio-guided attention; `visual` is then `[batch, time, 49, visual_dim]`.
        decoder_init: What the decoder starts from (Table 2): "fusion" (the paper's model), "visual" or "audio" (the
            other encoder is not built), or "label_guided" (both encoders' states averaged and taught by a video-level
            loss of their own; how they are joined is chosen, the paper does not say).
        loss: "bce", binary cross-entropy on the softmax (sec. 2.3), "mlsm_on_softmax", AVE's code, which feeds the
            softmax into a loss with a sigmoid of its own, or "ce", the plain cross-entropy (an ablation).
        modality: "both", or an ablation that hears ("audio") or sees ("visual") alone: the other's features are zero.
        weak: Train on video-level labels only (Eq. 3): the mean over time of the logits against the video's target.
        weak_target: "average", the mean over segments of the one-hot labels, the background's share included (the
            text's definition), or "mil", the category alone.
        feature_dropout: Share of the input features zeroed while training (the paper: none).
        label_smoothing: Share of each training target spread over all classes (the paper: none).
        lr: Learning rate of Adam, its highest with "one_cycle" (chosen: AVE's code).
        schedule: "step", a tenth of the rate every `lr_step` optimizer steps (chosen: AVE's code), or "one_cycle",
            up for a tenth of the training and down to nothing along a cosine.
        lr_step: See `schedule`.
        weight_decay: Decoupled, as in AdamW, which without it is Adam (the paper: none).
        preprocess: The numbers of the signal path; default: VGGish and ResNet-152 on one frame per second.

    Raises:
        AvzooError: If an option is not one of those above.

    >>> model = AVSDN([f"event {i}" for i in range(28)] + ["background"])
    >>> sum(p.numel() for p in model.parameters())
    2497693
    """

    task: ClassVar[Literal["clip", "segment"]] = "segment"

    def __init__(
        self,
        classes: Sequence[str],
        *,
        audio_dim: int = 128,
        visual_dim: int = 2048,
        hidden_dim: int = 128,
        bidirectional: bool = False,
        share_u: bool = True,
        relu_states: bool = False,
        concat_global: bool = False,
        attention: bool = False,
        decoder_init: Literal["fusion", "visual", "audio", "label_guided"] = "fusion",
        loss: Literal["bce", "mlsm_on_softmax", "ce"] = "bce",
        modality: Literal["both", "audio", "visual"] = "both",
        weak: bool = False,
        weak_target: Literal["average", "mil"] = "average",
        feature_dropout: float = 0.0,
        label_smoothing: float = 0.0,
        lr: float = 1e-3,
        schedule: Literal["step", "one_cycle"] = "step",
        lr_step: int = 15_000,
        weight_decay: float = 0.0,
        preprocess: Preprocess | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(classes, preprocess)
        check_choice("decoder_init", decoder_init, ("fusion", "visual", "audio", "label_guided"))
        check_choice("loss", loss, ("bce", "mlsm_on_softmax", "ce"))
        check_choice("modality", modality, ("both", "audio", "visual"))
        check_choice("schedule", schedule, ("step", "one_cycle"))
        check_choice("weak_target", weak_target, ("average", "mil"))
        classes, preprocess = self.classes, self.preprocess.to_dict()  # plain JSON types, as checkpoints keep them
        self.save_hyperparameters()
        self.input_dims, self.has_attention = (audio_dim, visual_dim), attention
        self.relu_states, self.concat_global, self.decoder_init = relu_states, concat_global, decoder_init
        self.loss_kind, self.weak, self.weak_target, self.modality = loss, weak, weak_target, modality
        self.feature_dropout, self.label_smoothing = feature_dropout, label_smoothing
        self.lr, self.schedule, self.lr_step, self.weight_decay = lr, schedule, lr_step, weight_decay
        directions = 2 if bidirectional else 1
        if attention:
            self.attention = AudioGuidedAttention(audio_dim, visual_dim)
        if decoder_init != "visual":
            self.audio_encoder = Encoder(audio_dim, hidden_dim, bidirectional)
        if decoder_init != "audio":
            self.visual_encoder = Encoder(visual_dim, hidden_dim, bidirectional)
        if decoder_init == "fusion":
            self.fuse_hidden = DMRNFusion(hidden_dim)
            self.fuse_cell = None if share_u else DMRNFusion(hidden_dim)
        if decoder_init == "label_guided":
            self.guide = nn.Linear(2 * directions * hidden_dim, len(classes))
        decoder_input = audio_dim + visual_dim + (directions * hidden_dim if concat_global else 0)
        self.decoder = nn.LSTM(decoder_input, hidden_dim, batch_first=True, bidirectional=bidirectional)
        self.classifier = nn.Linear(directions * hidden_dim, len(classes))

    def forward(self, audio: Tensor | None, visual: Tensor | None, lengths: Tensor | None = None) -> Tensor:
        """Score every segment.

        Args:
            audio: `[batch, time, audio_dim]`; any `time`. None is zero throughout.
            visual: `[batch, time, visual_dim]`, or `[batch, time, 49, visual_dim]` with attention. None is zero.
            lengths: Int64 `[batch]`, segments that are real in a padded batch; None when all are.

        Returns:
            Logits `[batch, time, classes]`.

        Raises:
            AvzooError: If the features have other sizes than the network was built for.
        """
        return self._decode(audio, visual, lengths)[0]

    def _decode(
        self, audio: Tensor | None, visual: Tensor | None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The logits, and the label-guided states' own video-level logits `[batch, classes]` if there are any."""
        regions = [self.attention.from_visual.out_features] if self.has_attention else []
        audio_form, visual_form = [self.input_dims[0]], [*regions, self.input_dims[1]]
        audio, visual = with_zeros(audio, visual, audio_form, visual_form)
        if (
            [*audio.shape[2:]] != audio_form
            or [*visual.shape[2:]] != visual_form
            or audio.shape[:2] != visual.shape[:2]
        ):
            raise AvzooError(
                f"got audio {list(audio.shape)} and visual {list(visual.shape)}, expected [batch, time,"
                f" {str(audio_form)[1:]} and [batch, time, {str(visual_form)[1:]}: set audio_dim and visual_dim to the"
                " features' sizes; attention takes maps, all else takes vectors"
            )
        if self.modality != "both":
            audio, visual = audio * (self.modality == "audio"), visual * (self.modality == "visual")
        audio = F.dropout(audio, self.feature_dropout, self.training)
        visual = F.dropout(visual, self.feature_dropout, self.training)
        if self.has_attention:
            visual = self.attention(audio, visual)
        state, guide = self.initial_state(audio, visual, lengths)
        inputs = torch.cat([audio, visual], dim=-1)
        if self.concat_global:
            hidden = state[0].transpose(0, 1).flatten(1)  # [batch, directions * hidden]
            inputs = torch.cat([inputs, hidden.unsqueeze(1).expand(-1, inputs.shape[1], -1)], dim=-1)
        decoded = read(self.decoder, inputs, lengths, (state[0].contiguous(), state[1].contiguous()))[0]
        if self.relu_states:
            decoded = decoded.relu()
        return self.classifier(decoded), guide

    def initial_state(
        self, audio: Tensor, visual: Tensor, lengths: Tensor | None = None
    ) -> tuple[State, Tensor | None]:
        """What the decoder starts from, `[directions, batch, hidden]` each, and the label-guided logits if any."""
        start = self.decoder_init
        states = []
        if start != "visual":
            states.append(self.audio_encoder(audio, lengths))
        if start != "audio":
            states.append(self.visual_encoder(visual, lengths))
        if self.relu_states:
            states = [(hidden.relu(), cell.relu()) for hidden, cell in states]
        if len(states) == 1:
            return states[0], None
        (h_audio, c_audio), (h_visual, c_visual) = states
        if start == "fusion":
            fuse_cell = self.fuse_cell or self.fuse_hidden  # shared: no second copy in a checkpoint
            return (self.fuse_hidden(h_audio, h_visual), fuse_cell(c_audio, c_visual)), None
        both = torch.cat([h_audio, h_visual], dim=-1).transpose(0, 1).flatten(1)
        return ((h_audio + h_visual) / 2, (c_audio + c_visual) / 2), self.guide(both)

    def loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """The loss of scores `[batch, time, classes]` against segment labels `[batch, time]` (sec. 2.3)."""
        one_hot = F.one_hot(label, len(self.classes)).float()
        if not self.weak:
            return self._distribution_loss(logits, one_hot)
        return self._distribution_loss(logits.float().mean(1), self.video_target(label))

    def video_target(self, label: Tensor) -> Tensor:
        """The video-level target `[batch, classes]` of segment labels `[batch, time]`; rows sum to 1.

        "mil" takes the video's category; a video of background alone is background.
        """
        shares = F.one_hot(label, len(self.classes)).float().mean(1)
        if self.weak_target == "average":
            return shares
        events = shares.clone()
        events[:, -1] = torch.where(shares[:, :-1].sum(-1) > 0, 0.0, 1.0)
        return F.one_hot(events.argmax(-1), len(self.classes)).float()

    def _distribution_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The chosen loss of logits against distributions, both `[..., classes]`; in float32 whatever the precision."""
        logits = logits.float()
        if self.training:
            target = target * (1 - self.label_smoothing) + self.label_smoothing / len(self.classes)
        with torch.autocast(logits.device.type, enabled=False):
            if self.loss_kind == "ce":
                return -(target * logits.log_softmax(-1)).sum(-1).mean()
            posterior = logits.softmax(-1)
            if self.loss_kind == "bce":
                return F.binary_cross_entropy(posterior, target)
            return F.multilabel_soft_margin_loss(posterior.flatten(0, -2), target.flatten(0, -2))

    def training_loss(self, batch: Batch) -> Tensor:
        """The loss; label-guided states add their own."""
        logits, guide = self._decode(batch.audio, batch.visual)
        loss = self.loss(logits, batch.label)
        if guide is not None:
            loss = loss + self._distribution_loss(guide, self.video_target(batch.label))
        return loss

    def configure_optimizers(self) -> Any:
        """Adam with the chosen schedule."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        scheduler: torch.optim.lr_scheduler.LRScheduler
        if self.schedule == "one_cycle":
            steps = int(self.trainer.estimated_stepping_batches)
            scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, steps, pct_start=0.1)
        else:
            scheduler = torch.optim.lr_scheduler.StepLR(optimizer, self.lr_step, gamma=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
