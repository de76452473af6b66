"""What a sequence model has to beat: networks that look at one segment at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avzoo.models.base import AVModule, with_zeros
from avzoo.preprocess import Preprocess


class SegmentMLP(AVModule):
    """Concatenated features of a segment, one hidden layer, classes; no segment knows of another.

    Args:
        classes: Label order, the background last.
        audio_dim: Features of a segment of sound.
        visual_dim: Features of a segment of video.
        hidden_dim: Width of the hidden layer.
        dropout: Share of the hidden units zeroed while training.
        lr: Learning rate of Adam.
        preprocess: The numbers of the signal path.
    """

    task: ClassVar[Literal["clip", "segment"]] = "segment"

    def __init__(
        self,
        classes: Sequence[str],
        *,
        audio_dim: int = 128,
        visual_dim: int = 2048,
        hidden_dim: int = 256,
        dropout: float = 0.5,
        lr: float = 1e-3,
        preprocess: Preprocess | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(classes, preprocess)
        classes, preprocess = self.classes, self.preprocess.to_dict()  # plain JSON types, as checkpoints keep them
        self.save_hyperparameters()
        self.lr, self.input_forms = lr, ([audio_dim], [visual_dim])
        self.network = nn.Sequential(
            nn.Linear(audio_dim + visual_dim, hidden_dim),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_dim, len(classes)),
        )

    def forward(self, audio: Tensor | None, visual: Tensor | None) -> Tensor:
        """Score `[batch, time, audio_dim]` and `[batch, time, visual_dim]`: logits `[batch, time, classes]`."""
        logits: Tensor = self.network(torch.cat(with_zeros(audio, visual, *self.input_forms), dim=-1))
        return logits

    def loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """Cross-entropy of `[batch, time, classes]` against int64 `[batch, time]`."""
        return F.cross_entropy(logits.flatten(0, 1).float(), label.flatten())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=self.lr)
