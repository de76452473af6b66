"""Metrics that say their unit in their name.

All take scores `[batch, segments, classes]`, logits or log posteriors alike: their softmax is the posterior. The label
is `[batch, segments]`, or `[batch]` where a clip is one scene and each of its segments has the clip's label.

```
SegmentAccuracy   every segment counts once
ClipAccuracy      every clip counts once: the answer of the mean of its segments' posteriors
MacroAccuracy     every class counts once: the mean of the classes' segment accuracies
MacroLogLoss      every class counts once: the mean of the classes' -ln p(truth)
Confusion         which class was taken for which
```

States are whole numbers that are summed, so it makes no difference, to the last bit, how clips are shared out over
batches and processes. Scores without a finite highest one (NaN; minus infinity throughout) are no answer: never right,
in no cell of `Confusion`, and they make `MacroLogLoss` NaN. Before the first segment a mean is NaN.
"""

from __future__ import annotations

import math
import sys
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassConfusionMatrix

from avzoo.errors import AvzooError


def of_task(task: Literal["clip", "segment"], classes: int) -> dict[str, Metric]:
    """What validation and test report of a task, by name.

    >>> list(of_task("clip", 10))
    ['segment_accuracy', 'clip_accuracy', 'macro_accuracy', 'macro_log_loss']
    """
    if task == "segment":
        return {"segment_accuracy": SegmentAccuracy()}
    return {
        "segment_accuracy": SegmentAccuracy(),
        "clip_accuracy": ClipAccuracy(),
        "macro_accuracy": MacroAccuracy(classes),
        "macro_log_loss": MacroLogLoss(classes),
    }


def segment_accuracy(logits: Tensor, label: Tensor) -> Tensor:
    """Share of segments whose highest score is the right class, background included.

    Every segment counts once (micro average), as AVE's papers report it.

    Args:
        logits: `[..., segments, classes]`.
        label: Int64 `[..., segments]`, or `[...]` if all segments of a clip have its label.

    Raises:
        AvzooError: If the shapes do not go together.

    >>> segment_accuracy(torch.tensor([[[2.0, 1.0], [0.0, 1.0]]]), torch.tensor([[0, 0]]))
    tensor(0.5000)
    """
    return (_answers(logits) == _truth(logits, label)).float().mean()


class SegmentAccuracy(Metric):
    """`segment_accuracy` over many batches and processes.

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
        """Count one batch: logits `[batch, segments, classes]`, label `[batch, segments]` or `[batch]`."""
        truth = _truth(logits, label)
        self.right += (_answers(logits) == truth).sum()
        self.total += truth.numel()

    def compute(self) -> Tensor:
        """The accuracy so far, 0 to 1."""
        return self.right / self.total


class ClipAccuracy(SegmentAccuracy):
    """Share of clips whose segments' posteriors are highest, on average, for the right class.

    >>> metric = ClipAccuracy()  # one sure segment outweighs two that lean the other way
    >>> metric.update(torch.tensor([[[9.0, 0.0], [0.0, 0.1], [0.0, 0.1]]]), torch.tensor([0]))
    >>> metric.compute()
    tensor(1.)
    """

    def update(self, logits: Tensor, label: Tensor) -> None:
        """Count one batch: logits `[batch, segments, classes]`, label `[batch]`.

        Raises:
            AvzooError: If the label is not one a clip.
        """
        if label.shape != logits.shape[:-2]:
            raise AvzooError(
                f"clip accuracy of logits {list(logits.shape)} and labels {list(label.shape)}: expected"
                " [batch, segments, classes] and [batch]; segment accuracy takes a label for each segment"
            )
        super().update(logits.float().softmax(-1).mean(-2), label)


class MacroAccuracy(Metric):
    """Mean, over the classes that occur, of the share of the class's segments that were answered rightly.

    Args:
        classes: How many there are.

    >>> metric = MacroAccuracy(3)  # class 0: 2 of 2, class 1: 0 of 1, class 2 does not occur
    >>> metric.update(torch.tensor([[[2.0, 1.0, 0.0]] * 3]), torch.tensor([[0, 0, 1]]))
    >>> metric.compute()
    tensor(0.5000)
    """

    full_state_update = False
    higher_is_better = True
    right: Tensor
    total: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.add_state("right", torch.zeros(classes, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, label: Tensor) -> None:
        """Count one batch: logits `[batch, segments, classes]`, label `[batch, segments]` or `[batch]`."""
        truth = _truth(logits, label, self.classes)
        member = F.one_hot(truth, self.classes).flatten(0, -2)
        self.right += member[(_answers(logits) == truth).flatten()].sum(0)
        self.total += member.sum(0)

    def compute(self) -> Tensor:
        """The accuracy so far, 0 to 1."""
        return (self.right / self.total)[self.total > 0].mean()


class MacroLogLoss(Metric):
    """Mean, over the classes that occur, of the class's mean of -ln p(truth): the measure of the DCASE challenge.

    Probabilities are clipped as scikit-learn (1.9) clips those in float64, so a segment costs 36.04 at most; class by
    class this is `sklearn.metrics.log_loss`.

    Args:
        classes: How many there are.

    >>> metric = MacroLogLoss(2)  # p(truth) is 1/2 for the three segments of class 0 and 3/4 for the one of class 1
    >>> metric.update(torch.tensor([[[0.5, 0.5]] * 3 + [[0.25, 0.75]]]).log(), torch.tensor([[0, 0, 0, 1]]))
    >>> metric.compute()  # (ln 2 + ln 4/3) / 2
    tensor(0.4904)
    """

    full_state_update = False
    higher_is_better = False
    loss: Tensor
    total: Tensor
    unanswered: Tensor

    # The loss is summed in whole units of this many nats: unlike float64 that is exact in any order, every
    # accelerator has it, and a module cast to bfloat16 leaves it alone. Room for 6e7 segments of the highest loss.
    _UNIT = 2.0**-32
    _HIGHEST = -math.log(sys.float_info.epsilon)

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.add_state("loss", torch.zeros(classes, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(classes, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("unanswered", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, label: Tensor) -> None:
        """Count one batch: logits `[batch, segments, classes]`, label `[batch, segments]` or `[batch]`."""
        truth = _truth(logits, label, self.classes)
        precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
        loss = -precise.log_softmax(-1).gather(-1, truth[..., None])
        units = (loss.nan_to_num().clamp(max=self._HIGHEST) / self._UNIT).round().long()
        member = F.one_hot(truth, self.classes)
        self.loss += (member * units).flatten(0, -2).sum(0)
        self.total += member.flatten(0, -2).sum(0)
        self.unanswered += loss.isnan().sum()

    def compute(self) -> Tensor:
        """The loss so far, in nats, 0 to 36.04."""
        mean = (self.loss * self._UNIT / self.total)[self.total > 0].mean()
        return mean.where(self.unanswered == 0, torch.nan)


class Confusion(MulticlassConfusionMatrix):
    """How many segments of each class (row) were taken for each class (column), int64 `[classes, classes]`.

    Args:
        classes: How many there are.

    >>> metric = Confusion(2)
    >>> metric.update(torch.tensor([[[2.0, 1.0]] * 3]), torch.tensor([[0, 0, 1]]))
    >>> metric.compute()
    tensor([[2, 0],
            [1, 0]])
    """

    def __init__(self, classes: int) -> None:
        super().__init__(num_classes=classes)

    def update(self, logits: Tensor, label: Tensor) -> None:
        """Count one batch: logits `[batch, segments, classes]`, label `[batch, segments]` or `[batch]`."""
        truth, answers = _truth(logits, label, self.num_classes), _answers(logits)
        answered = answers >= 0
        super().update(answers[answered], truth[answered])


def _truth(logits: Tensor, label: Tensor, classes: int | None = None) -> Tensor:
    """The label of every segment, `[batch, segments]`: a clip's own label is that of all its segments."""
    if classes is not None and logits.shape[-1] != classes:
        raise AvzooError(f"logits {list(logits.shape)} end with the classes: expected {classes} there")
    if label.shape == logits.shape[:-1]:
        return label
    if label.shape == logits.shape[:-2]:
        return label[..., None].expand(logits.shape[:-1])
    raise AvzooError(
        f"labels {list(label.shape)} for logits {list(logits.shape)}: expected a label for each segment,"
        f" {list(logits.shape[:-1])}, or for each clip, {list(logits.shape[:-2])}"
    )


def _answers(scores: Tensor) -> Tensor:
    """The class with the highest score, `[...]` of `[..., classes]`; -1 where that score is not a finite number."""
    return scores.argmax(-1).where(scores.amax(-1).isfinite(), -1)
