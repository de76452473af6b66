"""A run that is killed, stopped or left alone ends with the same weights; every run has a folder of its own."""

from __future__ import annotations

import csv
import hashlib
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import struck
import torch
from PIL import Image

from avzoo import cli, registry
from avzoo.data.ave import AVE
from avzoo.preprocess import Preprocess
from avzoo.train import runs
from avzoo.train.resume import WholeCheckpoints
from avzoo.train.signals import StopFlag

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
    """Of all weights, averaged and not, and of what the next step would need: optimizers, schedules, patience."""
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    patience = {key: state for key, state in checkpoint["callbacks"].items() if key.startswith("EarlyStopping")}
    parts = [checkpoint[name] for name in ("state_dict", "optimizer_states", "lr_schedulers")]
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, dict):
            for key in sorted(value, key=str):
                digest.update(str(key).encode())
                add(value[key])
        elif isinstance(value, list | tuple):
            for part in value:
                add(part)
        elif isinstance(value, torch.Tensor):
            digest.update(value.numpy().tobytes())
        else:
            digest.update(repr(value).encode())

    add([*parts, checkpoint.get("current_model_state"), patience])
    return digest.hexdigest()


def losses(run: Path) -> list[str]:
    """Every validation that was logged."""
    with (run / "metrics.csv").open(newline="") as file:
        return [row["val_loss"] for row in csv.DictReader(file) if row.get("val_loss")]


def steps(folder: Path) -> int:
    """How many are in the last checkpoint of the one run in a folder, finished or not."""
    (last,) = (folder / "runs").glob("*/version_*/checkpoints/last.ckpt")
    return int(torch.load(last, weights_only=True)["global_step"])


def only_run(folder: Path) -> Path:
    """The one run in a folder, which left nothing half done."""
    (run,) = (folder / "runs").glob("*/version_*")
    assert (run / "finished").exists()
    assert not [*run.rglob("*.tmp")]
    return run


def test_kills_leave_no_trace(command: list[str], tmp_path: Path) -> None:
    cli.main(command)
    undisturbed = only_run(tmp_path)
    moments = "step:0:KILL,validation:0:TERM+TERM,saving:8:KILL,validation:1:KILL,step:15:INT,validation:2:USR1,never"
    ends = struck.drive(tmp_path / "b", moments, command)
    assert ends == [[-9], [75], [-9], [-9], [130], [75], [0]]
    struck_run = only_run(tmp_path / "b")
    assert fingerprint(struck_run) == fingerprint(undisturbed)
    # also of epochs that were gone on with in the middle: means are over all their steps
    assert (struck_run / "metrics.csv").read_text() == (undisturbed / "metrics.csv").read_text()
    assert (struck_run / "bundle").exists()


@pytest.mark.parametrize(("name", "status"), [("TERM", 75), ("USR1", 75), ("INT", 130)])
def test_it_stops_before_the_next_step(
    name: str, status: int, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert struck.drive(tmp_path / "b", f"step:8:{name}", command) == [[status]]  # steps count from 0
    said = capsys.readouterr().out
    assert said.strip().splitlines()[-1] == "stopped by a signal after 9 steps; the same command goes on"
    assert steps(tmp_path / "b") == 9


def test_a_second_ctrl_c_ends_at_once(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert struck.drive(tmp_path / "b", "step:9:INT+INT", command) == [[130]]
    assert capsys.readouterr().out.strip().splitlines()[-1] == "avzoo: interrupted"
    assert steps(tmp_path / "b") == 8  # of the last checkpoint, one every two


def test_a_signal_behind_the_last_step_is_heeded_too(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert struck.drive(tmp_path / "b", "validated:2:TERM,never", command) == [[75], [0]]
    first, _, second = capsys.readouterr().out.partition("stopped by a signal after 18 steps; the same command goes on")
    assert "report" not in first
    assert "report" in second
    assert only_run(tmp_path / "b")


@pytest.fixture
def handlers() -> Iterator[None]:
    """Those of all signals are as before in the end."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_ctrl_c_waits_only_where_somebody_looks_and_only_once() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    flag = StopFlag()
    flag.install()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    flag = StopFlag()
    flag.install()
    flag.deferred = True
    signal.raise_signal(signal.SIGINT)
    assert flag.stop().code == 130
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a background job
    flag.install()
    signal.raise_signal(signal.SIGINT)


def test_what_a_schedule_remembers_outlives_kills(
    rendered_tau: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    # gradients summed over three batches (of four an epoch), a plateau that halves the rate, patience that runs out
    request.getfixturevalue("cheap_backbones")
    monkeypatch.chdir(tmp_path)
    data = ["--config", str(registry.asset("recipes/secrnn-scenemix-visual.yaml")), "--data.root", str(rendered_tau)]
    data += ["--data.cache", str(tmp_path / "cache")]
    cli.main(["extract", *data, "--data.workers", "0"])
    stopping = '[{"class_path": "EarlyStopping", "init_args": {"monitor": "val_loss", "patience": 3}}]'
    fit = ["fit", *data, *SMALL[6:], "--data.batch_size", "1", "--save_every", "1", "--trainer.max_epochs", "12"]
    fit += ["--trainer.accumulate_grad_batches", "3", "--model.plateau_patience", "1", "--model.lr", "1"]
    fit += ["--trainer.callbacks", stopping]
    cli.main(fit)
    state = torch.load(only_run(tmp_path) / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["epoch"] < 11
    assert state["lr_schedulers"][0]["_last_lr"][0] < 1
    assert state["global_step"] == 2 * state["epoch"]  # three batches, then the one that is left
    ends = struck.drive(tmp_path / "b", "step:5:KILL,validation:2:KILL,step:13:TERM,never", fit)
    assert ends == [[-9], [-9], [75], [0]]
    assert fingerprint(only_run(tmp_path / "b")) == fingerprint(only_run(tmp_path))


def test_batches_that_are_read_ahead_are_the_same(command: list[str], tmp_path: Path) -> None:
    command = [*command, "--trainer.max_epochs", "2"]
    cli.main(command)
    assert struck.drive(tmp_path / "b", "step:9:KILL,never", command, loaders=2) == [[-9], [0]]
    assert fingerprint(only_run(tmp_path / "b")) == fingerprint(only_run(tmp_path))


def test_an_image_backbone_goes_on_exactly(tmp_path: Path) -> None:
    # pictures of their own size, cropped and flipped by lot; on one process and on two
    root = tmp_path / "places"
    lists = {"train_standard": [], "val": []}
    draw = random.Random(1)
    for split, folder, count in (("train_standard", "data_large", 9), ("val", "val_large", 3)):
        for number in range(count):
            name = f"{split}_{number}.jpg" if split == "val" else f"/{'ab'[number % 2]}/{'ab'[number % 2]}/{number}.jpg"
            file = root / folder / name.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.frombytes("RGB", (40, 36), draw.randbytes(40 * 36 * 3)).save(file)
            lists[split].append(f"{name} {number % 2}\n")
        (root / f"places365_{split}.txt").write_text("".join(lists[split]))
    (root / "categories_places365.txt").write_text("/a/a 0\n/b/b 1\n")
    fit = ["fit", "--config", str(registry.asset("recipes/places365-efficientnetv2.yaml")), "--data.root", str(root)]
    fit += ["--preprocess.visual_backbone", "test_efficientnet.r160_in1k", "--preprocess.size", "32", *SMALL[6:8]]
    fit += ["--trainer.max_epochs", "2", "--data.batch_size", "2", *SMALL[8:]]
    fit += ["--trainer.accelerator", "cpu", "--trainer.precision", "32-true", "--model.lr", "1e-6"]
    assert struck.drive(tmp_path / "a", "never", fit) == [[0]]
    assert struck.drive(tmp_path / "b", "step:6:KILL,never", fit) == [[-9], [0]]
    assert fingerprint(only_run(tmp_path / "a")) == fingerprint(only_run(tmp_path / "b"))
    two = [*fit, "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    assert struck.drive(tmp_path / "c", "never", two, processes=2) == [[0, 0]]  # three of validation: two and one
    one, both = (float(losses(only_run(tmp_path / name))[0]) for name in "ac")
    assert both == pytest.approx(one, rel=1e-3)  # later, batch norms over two pictures blow roundings up


def test_two_processes_stop_together_and_go_on_exactly(command: list[str], tmp_path: Path) -> None:
    # they start from another model, which may be gone by the time they go on
    cli.main(command)
    two = [*command, "--data.batch_size", "3", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    two += ["--trainer.accelerator", "cpu", "--init_from", '["./parent"]']
    for name in "ab":
        shutil.copytree(only_run(tmp_path) / "bundle", tmp_path / name / "parent")
    assert struck.drive(tmp_path / "a", "never", two, processes=2) == [[0, 0]]
    ends = struck.drive(tmp_path / "b", "step:1:USR1,step:2:INT*", two, processes=2)  # the former to one of them
    assert ends == [[75, 75], [130, 130]]
    shutil.rmtree(tmp_path / "b" / "parent")
    killed, done = struck.drive(tmp_path / "b", "step:3:KILL,never", two, processes=2)
    assert killed[1] == -9
    assert done == [0, 0]
    assert fingerprint(only_run(tmp_path / "a")) == fingerprint(only_run(tmp_path / "b"))


def test_one_process_goes_on_where_two_were_stopped(command: list[str], tmp_path: Path) -> None:
    # without dropout nothing is drawn by lot in a step: then all is as if one process had done it
    one = [*command, "--data.batch_size", "3", "--model.feature_dropout", "0", "--trainer.accelerator", "cpu"]
    cli.main(one)
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    assert struck.drive(tmp_path / "b", "step:3:TERM", [*one, *two], processes=2) == [[75, 75]]
    assert struck.drive(tmp_path / "b", "never", one) == [[0]]
    expected, found = (
        torch.load(only_run(folder) / "checkpoints" / "last.ckpt", weights_only=True)
        for folder in (tmp_path, tmp_path / "b")
    )
    assert found["global_step"] == expected["global_step"] == 6
    for name, value in expected["state_dict"].items():
        torch.testing.assert_close(found["state_dict"][name], value, atol=1e-5, rtol=0)


def test_a_signal_while_features_are_extracted_keeps_those_that_are_there(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*command, "--data.cache", str(tmp_path / "b" / "other"), "--trainer.max_epochs", "1"]
    assert struck.drive(tmp_path / "b", "extracting:2:USR1", command) == [[75]]
    assert "stopped by a signal; the same command goes on" in capsys.readouterr().out
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "b" / "other").rglob("*.safetensors")}
    assert len(made) == 4  # sound and pictures of two clips
    assert not [*(tmp_path / "b" / "runs").glob("*/*")]
    assert struck.drive(tmp_path / "b", "never", command) == [[0]]
    only_run(tmp_path / "b")
    assert all(path.stat().st_mtime_ns == when for path, when in made.items())


def test_other_processes_extract_the_same_features(rendered: Path, tmp_path: Path) -> None:
    preprocess = Preprocess(audio_backbone="avzoo-audio", visual_backbone="tf_efficientnet_lite0")
    contents = []
    for workers in (0, 2):
        data = AVE(rendered, preprocess=preprocess, cache=tmp_path / str(workers), workers=workers)
        data.extract(["test"])
        files = (tmp_path / str(workers)).rglob("*.safetensors")
        contents.append({path.relative_to(tmp_path / str(workers)): path.read_bytes() for path in files})
    assert len(contents[0]) == 6
    assert contents[0] == contents[1]


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*command, "--trainer.max_epochs", "1"]
    cli.main(command)
    assert struck.drive(tmp_path / "b", "step:4:KILL", command) == [[-9]]
    (folder,) = (tmp_path / "b" / "runs").glob("*/version_0/checkpoints")
    content = (folder / "last.ckpt").read_bytes()
    (folder / "last.ckpt").write_bytes(content[: len(content) // 2])
    assert struck.drive(tmp_path / "b", "saving:4:KILL,step:4:KILL,never", command) == [[-9], [-9], [0]]
    said = capsys.readouterr().out
    assert said.count("last.ckpt is damaged: passed over") == 1
    assert said.count("/previous.ckpt (`--resume false`") == 2  # what is damaged never takes its place
    assert fingerprint(only_run(tmp_path / "b")) == fingerprint(only_run(tmp_path))
    assert not (folder / "previous.ckpt").exists()


def test_there_is_a_checkpoint_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    for step in (1, 2):
        WholeCheckpoints().save_checkpoint({"step": step}, last)
    assert [torch.load(path)["step"] for path in (last, previous)] == [2, 1]
    replace, seen = Path.replace, []

    def watched(path: Path, target: Path) -> Path:
        found = replace(path, target)
        newest = runs.newest_checkpoint(tmp_path)
        assert newest is not None
        seen.append(torch.load(newest)["step"])
        return found

    monkeypatch.setattr(Path, "replace", watched)
    WholeCheckpoints().save_checkpoint({"step": 3}, last)
    assert seen == [2, 3]


def test_a_moved_run_is_gone_on_with_as_it_was(command: list[str], tmp_path: Path) -> None:
    # the first epoch is made out to be the best one: that would be forgotten, and best.ckpt written over
    command = [*command, "--keep_best", "2"]
    assert struck.drive(tmp_path / "b", "step:8:KILL", command) == [[-9]]
    (folder,) = (tmp_path / "b" / "runs").glob("*/version_0/checkpoints")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    last = torch.load(folder / "last.ckpt", weights_only=True)
    for key, state in last["callbacks"].items():
        if key.startswith(("Best", "KeptBest")):
            state["best_model_score"] = torch.tensor(2.0)
            state["best_k_models"] = {path: torch.tensor(2.0) for path in state["best_k_models"]}
    torch.save(last, folder / "last.ckpt")
    (tmp_path / "b").rename(tmp_path / "c")
    assert struck.drive(tmp_path / "c", "never", command) == [[0]]
    moved = only_run(tmp_path / "c") / "checkpoints"
    assert not (tmp_path / "b").exists()
    kept = [name for name in before if name.startswith(("best", "epoch-"))]
    assert len(kept) == 2
    for name in kept:
        assert (moved / name).read_bytes() == before[name]
    assert len([*moved.iterdir()]) == 4  # last.ckpt and the second best


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
    for nonsense in (b"\xff\xfe\x00\x01", b"trainer: {max_epochs"):
        (run.folder / "recipe.yaml").write_bytes(nonsense)
        assert runs.unfinished(tmp_path, recipe) is None


def test_a_finished_run_is_left_alone_and_an_empty_one_goes(tmp_path: Path) -> None:
    first, second = (runs.start(tmp_path, "{}") for _ in range(2))
    assert (first.folder.name, second.folder.name) == ("version_0", "version_1")
    second.release()
    assert not second.folder.exists()
    first.finish()
    assert runs.unfinished(tmp_path, "{}") is None
    assert runs.start(tmp_path, "{}").folder.name == "version_1"
