"""Metrics that say their unit in their name."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


def segment_accuracy(logits: Tensor, label: Tensor) -> Tensor:
    """Share of segments whose highest score is the right class, background included.

    Every segment counts once (micro average), as AVE's papers report it.

    Args:
        logits: `[..., segments, classes]`.
        label: Int64 `[..., segments]`.

    >>> segment_accuracy(torch.tensor([[[2.0, 1.0], [0.0, 1.0]]]), torch.tensor([[0, 0]]))
    tensor(0.5000)
    """
    return (logits.argmax(-1) == label).float().mean()


class SegmentAccuracy(Metric):
    """`segment_accuracy` over many batches and processes: counts are summed, so uneven shares are exact.

    >>> metric = SegmentAccuracy()
    >>> metric.update(torch.tensor([[[2.0, 1.0], [0.0, 1.0]]]), torch.tensor([[0, 0]]))
    >>> metric.compute()
    tensor(0.5000)
    """

    full_state_update = False
    higher_is_better = True
    right: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("right", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, label: Tensor) -> None:
        """Count one batch: logits `[batch, segments, classes]`, label `[batch, segments]`."""
        self.right += (logits.argmax(-1) == label).sum()
        self.total += label.numel()

    def compute(self) -> Tensor:
        """The accuracy so far, 0 to 1."""
        return self.right / self.total
