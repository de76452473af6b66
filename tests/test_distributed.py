"""Several processes do what one does: the same gradients, every item counted once."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import struck
import torch

from avzoo import cli, registry, training
from avzoo.data.base import Shares
from avzoo.data.events import EventBatches
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


@pytest.mark.usefixtures("cheap_backbones")
def test_a_process_without_items_counts_nothing(
    rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # batches of 1: the second of two processes has all of them
    monkeypatch.chdir(tmp_path)
    data = ["--config", str(registry.asset("recipes/avsdn-avemix.yaml")), "--data.root", str(rendered)]
    data += ["--data.cache", str(tmp_path / "cache"), "--data.workers", "0", "--data.batch_size", "1"]
    data += ["--model.hidden_dim", "8", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    alone = training.main(["test", *data])
    expected = alone.trainer.callback_metrics
    capfd.readouterr()
    assert struck.drive(tmp_path, "never", ["test", *data, *two], processes=2) == [[0, 0]]
    out = capfd.readouterr().out
    for name in ("test_loss", "test_segment_accuracy"):
        assert str(float(expected[name]))[:7] in out
