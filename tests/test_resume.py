"""A run that is killed, stopped or left alone ends with the same weights; every run has a folder of its own."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import pytest
import struck
import torch

from avzoo import cli, registry
from avzoo.train import runs

# 6 clips, 6 steps an epoch; dropout, exchanges, averaged weights and one_cycle are the recipe's
SMALL = ["--data.batch_size", "1", "--model.hidden_dim", "8", "--trainer.max_epochs", "3", "--save_every", "2"]
SMALL += ["--data.workers", "0", "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]


@pytest.fixture
def command(
    rendered: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """`avzoo fit` of a tiny recipe whose features lie in a cache already: other processes need no backbones."""
    request.getfixturevalue("cheap_backbones")
    monkeypatch.chdir(tmp_path)
    data = ["--config", str(registry.asset("recipes/avsdn-avemix.yaml")), "--data.root", str(rendered)]
    data += ["--data.cache", str(tmp_path / "cache")]
    cli.main(["extract", *data, "--data.workers", "0"])
    return ["fit", *data, *SMALL]


def fingerprint(run: Path) -> str:
    """Of the averaged weights and of those that were averaged."""
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    digest = hashlib.sha256()
    for part in ("state_dict", "current_model_state"):
        for key, value in sorted(checkpoint[part].items()):
            digest.update(key.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def losses(run: Path) -> list[str]:
    """Every validation that was logged."""
    with (run / "metrics.csv").open(newline="") as file:
        return [row["val_loss"] for row in csv.DictReader(file) if row.get("val_loss")]


def test_kills_leave_no_trace(command: list[str], tmp_path: Path) -> None:
    cli.main(command)
    undisturbed = tmp_path / "runs" / "avsdn-avemix" / "version_0"
    ends = struck.drive(tmp_path / "b", "saving:8:KILL,validation:1:KILL,step:15:TERM,never", command)
    assert ends == [[-9], [-9], [75], [0]]
    folders = [*(tmp_path / "b/runs/avsdn-avemix").iterdir()]
    assert [folder.name for folder in folders] == ["version_0"]
    assert fingerprint(folders[0]) == fingerprint(undisturbed)
    assert losses(folders[0]) == losses(undisturbed)
    assert (folders[0] / "bundle").exists()
    assert not [*folders[0].rglob("*.tmp")]


def test_two_processes_stop_together_and_go_on_exactly(command: list[str], tmp_path: Path) -> None:
    two = [*command, "--data.batch_size", "3", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    two += ["--trainer.accelerator", "cpu"]
    assert struck.drive(tmp_path / "a", "never", two, processes=2) == [[0, 0]]
    stopped, killed, done = struck.drive(tmp_path / "b", "step:1:USR1,step:3:KILL,never", two, processes=2)
    assert stopped == [75, 75]  # only one of them got the signal
    assert killed[1] == -9
    assert done == [0, 0]
    a, b = (tmp_path / name / "runs" / "avsdn-avemix" / "version_0" for name in "ab")
    assert fingerprint(a) == fingerprint(b)


def test_what_is_damaged_is_never_gone_on_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = "trainer: {max_epochs: 3, devices: 1}"
    run = runs.start(tmp_path, recipe)
    run.checkpoints.mkdir()
    last = run.checkpoints / "last.ckpt"
    torch.save({"weights": torch.zeros(1000)}, last)
    assert runs.unfinished(tmp_path, recipe) is None  # it is at work
    run.release()
    again = runs.unfinished(tmp_path, "trainer: {max_epochs: 3, devices: 2}")
    assert again is not None
    assert again.checkpoint == last
    again.release()
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    for damaged in (content, content[:1000], b""):
        last.write_bytes(damaged)
        other = runs.unfinished(tmp_path, recipe)
        assert other is not None
        assert other.checkpoint is None
        other.release()
    assert capsys.readouterr().out.count("is damaged") == 3
    assert runs.unfinished(tmp_path, "trainer: {max_epochs: 4}") is None


def test_a_finished_run_is_left_alone_and_an_empty_one_goes(tmp_path: Path) -> None:
    first, second = (runs.start(tmp_path, "{}") for _ in range(2))
    assert (first.folder.name, second.folder.name) == ("version_0", "version_1")
    second.release()
    assert not second.folder.exists()
    first.finish()
    assert runs.unfinished(tmp_path, "{}") is None
    assert runs.start(tmp_path, "{}").folder.name == "version_1"
