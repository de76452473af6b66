"""Several processes do what one does: the same gradients, every item counted once."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import small
import struck
import torch
from torch import Tensor

from avzoo import cli, registry, training
from avzoo.data.events import EventBatches
from avzoo.data.loading import Shares
from avzoo.data.scenes import SceneBatches


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_shares_of_a_batch_are_the_batch(world: int) -> None:
    whole = list(EventBatches(11, 4, shuffle=True, views=2, seed=1))
    parts = [
        list(Shares(EventBatches(11, 4, shuffle=True, views=2, seed=1), rank=r, world=world)) for r in range(world)
    ]
    for batch, shares in zip(whole, zip(*parts, strict=True), strict=True):
        assert [row for share in shares if share.weight for row in share.rows] == batch
        assert all(len(share.rows) >= 1 for share in shares)
        for share in shares:
            count = len(share.rows) if share.weight else 0
            assert share.weight == pytest.approx(count * world / len(batch))


def test_a_share_of_streams_is_one_of_each() -> None:
    def batches() -> SceneBatches:
        return SceneBatches(12, 6, torch.arange(3), streams=2, seed=1)

    parts = [list(Shares(batches(), rank=rank, world=2)) for rank in range(2)]
    for batch, first, second in zip(batches(), *parts, strict=True):
        one, two = batch.chunk(2)
        assert torch.equal(first.rows, torch.cat([one[:3], two[:3]]))
        assert torch.equal(second.rows, torch.cat([one[3:], two[3:]]))


def test_an_epoch_goes_on_where_it_was_left() -> None:
    whole = [share.rows for share in Shares(EventBatches(11, 4, shuffle=True, seed=1))]
    rest = [share.rows for share in Shares(EventBatches(11, 4, shuffle=True, seed=1), position=lambda: 2)]
    assert rest == whole[2:]


def logged(run: Path, key: str) -> list[float]:
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row[key]) for row in csv.DictReader(file) if row.get(key)]


@pytest.mark.usefixtures("cheap_backbones")
def test_two_processes_compute_what_one_does(rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 6 clips in batches of 5 and 1: shares of 2 and 3 rows, then of 0 and 1; 3 clips of validation: 1 and 2
    monkeypatch.chdir(tmp_path)
    data = ["--config", str(registry.asset("recipes/avsdn-avemix.yaml")), "--data.root", str(rendered)]
    data += ["--data.cache", str(tmp_path / "cache"), "--data.workers", "0", "--data.batch_size", "5"]
    data += ["--model.hidden_dim", "8", "--model.feature_dropout", "0", "--trainer.accelerator", "cpu"]
    data += ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    fit = ["fit", *data, "--trainer.max_epochs", "2"]
    cli.main(fit)
    assert struck.drive(tmp_path / "two", "never", [*fit, *two], processes=2) == [[0, 0]]
    runs = [folder / "runs" / "avsdn-avemix" / "version_0" for folder in (tmp_path, tmp_path / "two")]
    first, second = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in runs)
    means = [[state["exp_avg"] for state in c["optimizer_states"][0]["state"].values()] for c in (first, second)]
    assert max(float(mean.abs().max()) for mean in means[0]) > 1e-3  # running means of the gradients
    for expected, mean in zip(*means, strict=True):
        torch.testing.assert_close(mean, expected, atol=1e-7, rtol=0)
    for key in ("val_loss", "val_segment_accuracy"):
        assert logged(runs[1], key) == pytest.approx(logged(runs[0], key), abs=1e-6)


class Answer(NamedTuple):
    """What a small training came to: the gradients of its steps, all tensors after it, its validation loss."""

    gradients: list[dict[str, Tensor]]
    state: dict[str, Tensor]
    val_loss: float


def train_all(processes: int) -> dict[str, Answer]:
    """Every recipe's model, on a batch of 5 and one of 2 rows; in one of many processes."""
    # In double precision: in single one, the rounding of batch norms over two rows would hide a mistake.
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    warnings.simplefilter("ignore")
    answers = {}
    for recipe in small.RECIPES:
        model = small.model(recipe, sure=True, lr=0.0)  # so that all steps have the same weights
        seen = small.fit(model, [[*range(5)], [5, 6]], processes=processes)
        answers[recipe] = Answer(seen.gradients, model.state_dict(), float(model.trainer.callback_metrics["val_loss"]))
    return answers


def test_gradients_of_any_number_of_processes_are_those_of_one(tmp_path: Path) -> None:
    alone, *groups = (struck.together(train_all, n, processes=n, folder=tmp_path) for n in (1, 2, 3))
    assert [outcome.code for group in groups for outcome in group] == [0] * 5  # plain ddp takes no unused parameter
    for recipe, one in alone[0].result.items():
        assert len(one.gradients) == 2
        assert max(float(g.abs().max()) for g in one.gradients[0].values()) > 1e-3, recipe
        for of_all in (outcome.result[recipe] for group in groups for outcome in group):
            for step, theirs in zip(one.gradients, of_all.gradients, strict=True):
                assert step.keys() == theirs.keys()
                for name, gradient in step.items():
                    torch.testing.assert_close(theirs[name], gradient, atol=1e-6, rtol=1e-9, msg=f"{recipe}: {name}")
            for name, value in one.state.items():  # running statistics of batch norms among them
                torch.testing.assert_close(of_all.state[name], value, atol=1e-9, rtol=0, msg=f"{recipe}: {name}")
            assert of_all.val_loss == pytest.approx(one.val_loss, abs=1e-9)


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("avsdn-ave", {"decoder_init": "visual"}),
        ("avsdn-ave", {"decoder_init": "audio"}),
        ("avsdn-ave", {"decoder_init": "label_guided", "bidirectional": True}),
        ("avsdn-ave", {"share_u": False, "concat_global": True, "relu_states": True}),
        ("avsdn-ave", {"modality": "audio"}),
        ("avsdn-ave", {"modality": "visual", "weak": True, "weak_target": "mil"}),
        ("joint-scalogram-tau", {"system": "audio"}),
        ("joint-scalogram-tau", {"system": "visual"}),
        ("joint-scalogram-tau", {"residual": "post", "concat": "all"}),
        ("secrnn-tau-visual-ft", {"freeze": "backbone"}),
        ("secrnn-tau-visual-ft", {"train_blocks": 1}),
        ("secrnn-tau-fusion", {"freeze": "backbone"}),
    ],
)
@pytest.mark.usefixtures("_seeded_backbones")
@pytest.mark.filterwarnings("ignore:.*(does not have many workers|in eval mode at the start|logging interval)")
def test_what_trains_is_what_the_loss_depends_on(recipe: str, options: dict[str, Any]) -> None:
    # what plain ddp wants: it refuses a parameter that requires a gradient and gets none
    model = small.model(recipe, **options)
    seen = small.fit(model, [[0, 1, 2]])
    assert seen.gradients[0].keys() == {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.fixture
def _seeded_backbones(monkeypatch: pytest.MonkeyPatch) -> None:
    struck.seed_backbones(monkeypatch.setattr)


def count(arguments: list[str]) -> tuple[float, dict[str, float]]:
    """How many segments `avzoo test` counted, and what it found."""
    cli = training.main(arguments)
    counts = cli.model.confusion.compute()
    return float(counts.sum()), {key: float(value) for key, value in cli.trainer.callback_metrics.items()}


@pytest.mark.usefixtures("cheap_backbones")
@pytest.mark.parametrize(("recipe", "items"), [("avsdn-avemix", 3), ("joint-scalogram-scenemix", 2)])
def test_every_item_is_counted_once(
    recipe: str, items: int, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    # batches of 2 and 1 rows on 1, 2 and 3 processes: uneven shares, and processes without any
    root = request.getfixturevalue("rendered" if "avsdn" in recipe else "rendered_tau")
    data = ["--config", str(registry.asset(f"recipes/{recipe}.yaml")), "--data.root", str(root)]
    data += ["--data.cache", str(tmp_path / "cache"), "--data.workers", "0", "--data.batch_size", "2"]
    data += ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    cli.main(["extract", *data])
    monkeypatch.chdir(tmp_path)
    cli.main(["fit", *data, "--limit", "1"])
    data += ["--ckpt_path", str(tmp_path / "runs" / f"{recipe}-smoke" / "version_0" / "checkpoints" / "best.ckpt")]
    expected: dict[str, float] = {}
    for processes in (1, 2, 3):
        many = ["--trainer.devices", str(processes), "--trainer.strategy", "ddp"] if processes > 1 else []
        outcomes = struck.together(count, ["test", *data, *many], processes=processes, folder=tmp_path / "many")
        for outcome in outcomes:
            counted, found = outcome.result
            assert counted == 10 * items
            expected = expected or found
            assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)
        print(f"{recipe}, {processes} processes: {counted / 10:g} items, {found}")
