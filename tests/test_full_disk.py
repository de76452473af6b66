"""A full or read-only disk, and a name that something else has: one line that says where, and nothing is lost."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from avzoo import cli, files, registry
from avzoo.commands import list as listing
from avzoo.train.resume import WholeCheckpoints

AVEMIX = ["--config", str(registry.asset("recipes/avsdn-avemix.yaml"))]
SMALL = ["--trainer.max_epochs", "2", "--model.hidden_dim", "8", "--data.workers", "0", "--data.batch_size", "2"]
SMALL += ["--trainer.enable_progress_bar", "false"]
FULL = Path("/dev/full")  # whatever is written there finds no space

pytestmark = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")


def fill(monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """From now on there is no space for files with a suffix."""
    temporary = files.temporary

    def full(path: Path, kind: str = "tmp") -> Path:
        unfinished = temporary(path, kind)
        if path.suffix == suffix:
            unfinished.symlink_to(FULL)
        return unfinished

    monkeypatch.setattr(files, "temporary", full)


@pytest.fixture
def fit(rendered: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """`avzoo fit` of a tiny recipe in a folder of its own."""
    request.getfixturevalue("cheap_backbones")
    monkeypatch.chdir(tmp_path)
    return ["fit", *AVEMIX, "--data.root", str(rendered), *SMALL]


def test_the_checkpoints_before_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last = tmp_path / "last.ckpt"
    for step in (1, 2):
        WholeCheckpoints().save_checkpoint({"step": step}, last)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    fill(monkeypatch, ".ckpt")
    with pytest.raises(OSError, match="No space left") as full:
        WholeCheckpoints().save_checkpoint({"weights": torch.zeros(100_000)}, last)
    assert full.value.filename == str(last)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(("suffix", "at"), [(".ckpt", "/checkpoints/last.ckpt"), (".safetensors", "@0.safetensors")])
def test_a_training_says_which_file_there_is_no_space_for(
    suffix: str, at: str, fit: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(monkeypatch, suffix)
    with pytest.raises(SystemExit) as end:
        cli.main([*fit, "--data.on_missing", "skip"])  # it is no clip that is missing
    assert end.value.code == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("avzoo: ")
    assert said.endswith(f"{at}: No space left on device")


def test_where_a_run_cannot_be_is_one_line(fit: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("runs").mkdir()
    Path("runs", "avsdn-avemix").touch()
    with pytest.raises(SystemExit):
        cli.main(fit)
    assert capsys.readouterr().err == "avzoo: runs/avsdn-avemix/version_0: Not a directory\n"


def test_an_error_of_a_file_is_one_line_and_one_of_the_program_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(error: OSError) -> None:
        def run(_: object) -> None:
            raise error

        monkeypatch.setattr(listing, "run", run)

    fails(OSError(errno.EROFS, "Read-only file system", "m.jsonl"))
    with pytest.raises(SystemExit) as end:
        cli.main(["list"])
    assert end.value.code == 1
    assert capsys.readouterr().err == "avzoo: m.jsonl: Read-only file system\n"
    fails(OSError(errno.EBADF, "Bad file descriptor"))
    with pytest.raises(OSError, match="Bad file"):
        cli.main(["list"])


def test_what_cannot_be_written_is_called_by_the_name_it_was_to_have(tmp_path: Path) -> None:
    (tmp_path / f".a.txt.{files.HOST}-{os.getpid()}.tmp").mkdir()
    with pytest.raises(OSError, match="a directory") as refused, files.whole(tmp_path / "a.txt") as unfinished:
        unfinished.write_text("all of it")
    assert refused.value.filename == str(tmp_path / "a.txt")
