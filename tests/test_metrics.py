"""Metrics: against scikit-learn, shares of any size, labels of clips and of segments, scores that are no numbers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from avzoo.errors import AvzooError
from avzoo.metrics import ClipAccuracy, Confusion, MacroAccuracy, MacroLogLoss, SegmentAccuracy, segment_accuracy

CLASSES = 5
OFTEN = (0.5, 0.3, 0.15, 0.05, 0.0)  # unbalanced, and the last class never occurs
INF, NAN = math.inf, math.nan


def scenes(clips: int, segments: int = 10, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits `[clips, segments, classes]` that lean towards the labels `[clips]`."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.multinomial(torch.tensor(OFTEN), clips, replacement=True, generator=generator)
    lean = 1.5 * F.one_hot(label, CLASSES)[:, None] * torch.linspace(1, 0.2, CLASSES)
    return 2 * torch.randn(clips, segments, CLASSES, generator=generator) + lean, label


def every_metric() -> dict[str, Metric]:
    return {
        "segment_accuracy": SegmentAccuracy(),
        "clip_accuracy": ClipAccuracy(),
        "macro_accuracy": MacroAccuracy(CLASSES),
        "macro_log_loss": MacroLogLoss(CLASSES),
        "confusion": Confusion(CLASSES),
    }


def measured(metric: Metric, *batches: tuple[Tensor, Tensor]) -> Tensor:
    for logits, label in batches:
        metric.update(logits, label)
    value: Tensor = metric.compute()
    return value


# -- against scikit-learn --------------------------------------------------------------------------------------------


def test_the_figures_are_those_of_scikit_learn() -> None:
    from sklearn import metrics as reference

    logits, label = scenes(200)
    posterior = logits.double().softmax(-1)
    truth, answer = label.repeat_interleave(10).numpy(), logits.argmax(-1).flatten().numpy()
    seconds, names = posterior.flatten(0, 1).numpy(), range(CLASSES)
    found = {name: measured(metric, (logits, label)) for name, metric in every_metric().items()}

    assert found["segment_accuracy"].item() == pytest.approx(reference.accuracy_score(truth, answer))
    whole = posterior.mean(1).argmax(-1).numpy()
    assert found["clip_accuracy"].item() == pytest.approx(reference.accuracy_score(label.numpy(), whole))
    assert found["confusion"].dtype == torch.int64
    np.testing.assert_array_equal(found["confusion"], reference.confusion_matrix(truth, answer, labels=names))
    occurring = np.unique(truth)
    assert len(occurring) == CLASSES - 1
    macro = reference.recall_score(truth, answer, labels=occurring, average="macro")
    assert found["macro_accuracy"].item() == pytest.approx(macro)
    losses = [reference.log_loss(truth[truth == c], seconds[truth == c], labels=names) for c in occurring]
    assert found["macro_log_loss"].item() == pytest.approx(np.mean(losses), rel=1e-6)
    # unbalanced classes: neither is the plain mean over segments
    assert abs(found["macro_accuracy"] - found["segment_accuracy"]) > 0.02
    assert abs(found["macro_log_loss"] - reference.log_loss(truth, seconds, labels=names)) > 0.05


@pytest.mark.parametrize("p", [0.0, 1e-300, 1e-30, 1e-15, 0.3, 1.0])
def test_probabilities_are_clipped_as_scikit_learn_clips_those_in_float64(p: float) -> None:
    from sklearn.metrics import log_loss

    posterior = torch.tensor([[[p, 1 - p]]], dtype=torch.float64)
    expected = log_loss([0], posterior[0].numpy(), labels=[0, 1])
    for logits in (posterior.log(), posterior.log().float()):
        value = measured(MacroLogLoss(2), (logits, torch.tensor([0]))).item()
        assert value == pytest.approx(expected, rel=1e-6, abs=1e-7)
        assert value < 36.05


def test_log_posteriors_are_scores_like_any() -> None:
    logits, label = scenes(20)
    for name, metric in every_metric().items():
        from_logits = measured(metric, (logits, label))
        metric.reset()
        from_posteriors = measured(metric, (logits.log_softmax(-1), label))
        torch.testing.assert_close(from_posteriors, from_logits, msg=name)


# -- what a clip is --------------------------------------------------------------------------------------------------


def test_a_clip_is_answered_by_its_mean_posterior() -> None:
    """Neither the mean of the logits nor a vote of the segments would answer so."""
    posterior = torch.tensor([[[0.999, 0.001], [0.4, 0.6], [0.4, 0.6]], [[1e-9, 1.0], [0.8, 0.2], [0.8, 0.2]]])
    logits, label = posterior.log(), torch.tensor([0, 0])
    assert (logits.argmax(-1).mode().values == torch.tensor([1, 0])).all()  # the vote
    assert (logits.mean(1).argmax(-1) == torch.tensor([0, 1])).all()  # the mean of the logits
    assert measured(ClipAccuracy(), (logits, label)).item() == 1.0
    assert measured(SegmentAccuracy(), (logits, label)).item() == 0.5


def test_a_scenes_label_is_that_of_each_segment() -> None:
    logits, label = scenes(10, segments=10)  # as many clips as segments: a label must not go to the wrong axis
    by_segment = label[:, None].expand(-1, 10)
    for metric in (SegmentAccuracy(), MacroAccuracy(CLASSES), MacroLogLoss(CLASSES), Confusion(CLASSES)):
        by_clip = measured(metric, (logits, label))
        metric.reset()
        assert torch.equal(by_clip, measured(metric, (logits, by_segment)))
    assert torch.equal(segment_accuracy(logits, label), segment_accuracy(logits, by_segment))


def test_labels_by_the_segment_need_not_agree() -> None:
    scores = F.one_hot(torch.tensor([[0, 1, 2, 2]]), 3)
    label = torch.tensor([[0, 1, 2, 1]])
    assert measured(SegmentAccuracy(), (scores, label)).item() == 0.75
    assert segment_accuracy(scores, label).item() == 0.75
    assert measured(MacroAccuracy(3), (scores, label)).item() == pytest.approx((1 + 0.5 + 1) / 3)
    assert measured(Confusion(3), (scores, label)).tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 1]]


def test_shapes_that_do_not_go_together_are_refused() -> None:
    logits = torch.zeros(2, 3, CLASSES)
    for metric in every_metric().values():
        with pytest.raises(AvzooError, match=r"labels \[3\] for|labels \[3\]: expected"):
            metric.update(logits, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(AvzooError, match="segment accuracy takes a label for each segment"):
        ClipAccuracy().update(logits, torch.zeros(2, 3, dtype=torch.int64))
    for metric in (MacroAccuracy(4), MacroLogLoss(4), Confusion(4)):
        with pytest.raises(AvzooError, match=r"\[2, 3, 5\] end with the classes: expected 4"):
            metric.update(logits, torch.zeros(2, dtype=torch.int64))


# -- batches and processes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shares", [(3, 2), (1, 1, 3), (5, 0)])
def test_any_shares_give_the_same_to_the_last_bit(shares: tuple[int, ...]) -> None:
    logits, label = scenes(5, seed=3)
    batches = list(zip(logits.split(list(shares)), label.split(list(shares)), strict=True))
    for name, metric in every_metric().items():
        whole = measured(metric, (logits, label))
        batched, *others = (every_metric()[name] for _ in range(1 + len(shares)))
        assert torch.equal(measured(batched, *batches), whole), name
        for other, batch in zip(others, batches, strict=True):
            other.update(*batch)
        for other in others[1:]:
            others[0].merge_state(other)
        assert torch.equal(others[0].compute(), whole), name


def _one_of_two(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=2)
    logits, label = scenes(5, seed=3)
    found = {}
    for shares in ([3, 2], [0, 5]):
        mine, of_mine = logits.split(shares)[rank], label.split(shares)[rank]
        for name, metric in every_metric().items():
            if len(mine):
                metric.update(mine, of_mine)
            found[f"{name} {shares}"] = metric.compute()
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_with_uneven_shares_report_the_whole(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_one_of_two, (tmp_path,), nprocs=2)
    whole = {name: measured(metric, scenes(5, seed=3)) for name, metric in every_metric().items()}
    for rank in range(2):
        for name, value in torch.load(tmp_path / f"{rank}.pt").items():
            assert torch.equal(value, whole[name.split()[0]]), (rank, name)


def test_reduced_precision_leaves_the_sums_alone() -> None:
    logits, label = scenes(40)
    for name, metric in every_metric().items():
        whole = measured(metric, (logits, label))
        metric.reset()
        torch.nn.ModuleList([metric]).to(torch.bfloat16)
        assert torch.equal(measured(metric, (logits[:25], label[:25]), (logits[25:], label[25:])), whole), name
    low = measured(MacroLogLoss(CLASSES), (logits.bfloat16(), label))
    assert low.item() == pytest.approx(measured(MacroLogLoss(CLASSES), (logits, label)).item(), rel=0.01)


# -- the edges -------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")
def test_nothing_measured_is_not_a_figure() -> None:
    for name, metric in every_metric().items():
        value = metric.compute()
        assert bool((value == 0).all() if name == "confusion" else value.isnan()), name
        metric.update(torch.zeros(0, 10, CLASSES), torch.zeros(0, dtype=torch.int64))
        torch.testing.assert_close(metric.compute(), value, equal_nan=True)


@pytest.mark.parametrize("scores", [(NAN, NAN, NAN), (0.0, NAN, 1.0), (-INF, -INF, -INF), (INF, 0.0, 0.0)])
def test_scores_without_a_finite_highest_are_never_right(scores: tuple[float, ...]) -> None:
    """A network that answers NaN must not look as if it knew the class that argmax happens to name."""
    good = torch.tensor([5.0, 0.0, 0.0])
    logits, label = torch.stack([torch.tensor(scores), good])[None], torch.tensor([0])
    assert measured(SegmentAccuracy(), (logits, label)).item() == 0.5
    assert segment_accuracy(logits, label).item() == 0.5
    assert measured(MacroAccuracy(3), (logits, label)).item() == 0.5
    assert measured(ClipAccuracy(), (logits, label)).item() == 0.0
    assert measured(Confusion(3), (logits, label)).tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert measured(MacroLogLoss(3), (logits, label)).isnan()


def test_a_probability_of_zero_is_a_score() -> None:
    logits, label = torch.tensor([[[0.0, -INF]], [[-INF, 0.0]]]), torch.tensor([0, 0])
    assert measured(SegmentAccuracy(), (logits, label)).item() == 0.5
    assert measured(ClipAccuracy(), (logits, label)).item() == 0.5
    assert measured(Confusion(2), (logits, label)).tolist() == [[1, 1], [0, 0]]
    assert measured(MacroLogLoss(2), (logits, label)).item() == pytest.approx(36.04365 / 2)
