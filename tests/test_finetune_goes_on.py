"""A fine-tuning that is killed, stopped or interrupted goes on when it is started again, to the same bits."""

from __future__ import annotations

import hashlib
import re
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import struck
import torch
from lightning.pytorch.strategies import Strategy
from media import Picture, Sound, texture, write_media

from avzoo import bundle, cli
from avzoo.commands.finetune import _new_folder
from avzoo.finetuning import finetune
from avzoo.models import AVSDN

LIGHT: dict[str, Any] = {"audio_backbone": "avzoo-audio", "visual_backbone": "tf_efficientnet_lite0", "size": 32}
OPTIONS: dict[str, Any] = {"epochs": 3, "workers": 0, "lr": 0.01}  # an epoch is two steps five times


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, four clips of 2 s each."""
    root = tmp_path_factory.mktemp("goes-on") / "clips"
    for n in range(8):
        path = root / ("bell", "siren")[n % 2] / f"{n}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        shade = 4 if n % 2 else 1
        picture = Picture(seconds=2, fps=5, render=lambda i, size, n=n, s=shade: texture(50 * n + i, size) // s)  # type: ignore[misc]
        write_media(path, picture, Sound(seconds=2))
    return root


def parent() -> AVSDN:
    torch.manual_seed(1)
    return AVSDN(
        ["drone", "guitar", "background"], visual_dim=1280, hidden_dim=4, feature_dropout=0.2, preprocess=LIGHT
    ).eval()


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def interrupted(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def interrupt(monkeypatch: pytest.MonkeyPatch, step: int, model: Any, data: Path, **options: Any) -> None:
    """Fine-tune, with a Ctrl+C in a step."""
    train = Strategy.training_step

    def training_step(self: Strategy, *args: Any, **given: Any) -> Any:
        if self.lightning_module.trainer.fit_loop.total_batch_idx == step:
            raise KeyboardInterrupt
        return train(self, *args, **given)

    with monkeypatch.context() as patch:
        patch.setattr(Strategy, "training_step", training_step)
        with pytest.raises(KeyboardInterrupt):
            finetune(model, data, **options)


def test_kills_leave_no_trace(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # while extracting, before and after the first checkpoint, and when only the figures are missing
    bundle.write(tmp_path / "old", parent(), recipe="", half=False)
    command = ["finetune", str(tmp_path / "old"), "--data", str(clips), "--workers", "0", "--epochs", "3"]
    assert struck.drive(tmp_path / "a", "never", command) == [[0]]
    undisturbed = capsys.readouterr().out
    moments = "extracting:2:USR1,step:3:KILL,step:14:KILL,step:16:INT,validation:0:KILL,never"
    assert struck.drive(tmp_path / "b", moments, command) == [[75], [-9], [-9], [130], [-9], [0]]
    said = capsys.readouterr().out
    assert said.count("stopped by a signal; the same command goes on") == 1
    assert said.count("stopped by a signal after 17 steps; the same command goes on") == 1
    assert said.count("init_from:") == 2
    assert re.findall(r"going on after epoch (\d+) of 3 \(in finetuned/.training/version_0; ", said) == list("013")
    assert said.splitlines()[-5:] == undisturbed.splitlines()[-5:]
    for name in "ab":
        assert [path.name for path in (tmp_path / name / "finetuned").iterdir()] == ["old-clips"]
    assert weights(tmp_path / "b/finetuned/old-clips") == weights(tmp_path / "a/finetuned/old-clips")


@pytest.mark.usefixtures("cheap_backbones")
def test_what_had_ended_early_trains_no_further(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    still = {"out": tmp_path / "mine", **OPTIONS, "lr": 1e-30, "patience": 1, "epochs": 9}  # no weight moves

    with monkeypatch.context() as patch:
        patch.setattr(bundle, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            finetune(parent(), clips, **still)
    assert "  2/9  " in capsys.readouterr().out
    finetune(parent(), clips, **still)
    said = capsys.readouterr().out
    assert "going on after epoch 2 of 9 " in said
    assert "epoch 1 of 2 is the best: " in said
    assert "/9  " not in said


@pytest.mark.usefixtures("cheap_backbones")
def test_what_is_not_the_same_does_not_go_on(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = shutil.copytree(clips, tmp_path / "clips")
    other = parent()
    with torch.no_grad():
        other.classifier.bias.add_(1)
    interrupt(monkeypatch, 25, parent(), own, out=tmp_path / "mine", **OPTIONS)
    for model, changed in ((parent(), {"lr": 0.02}), (other, {}), (parent(), {"batch_size": 3})):
        finetune(model, own, out=tmp_path / "mine", **{**OPTIONS, "epochs": 1, **changed})
    finetune(parent(), own, out=tmp_path / "mine", **{**OPTIONS, "balance": "sampler"})
    shutil.copyfile(own / "bell" / "0.mp4", own / "bell" / "more.mp4")
    finetune(parent(), own, out=tmp_path / "mine", **OPTIONS)
    assert "going on" not in capsys.readouterr().out
    (own / "bell" / "more.mp4").unlink()
    finetune(parent(), own, out=tmp_path / "again", **OPTIONS)  # nor does the place make a difference
    assert "going on after epoch 1 of 3" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} >= {"mine", "again"}
    assert not (tmp_path / ".training").exists()


@pytest.mark.usefixtures("cheap_backbones")
def test_a_notebook_has_its_signals_back_and_a_thread_never_lost_them(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    interrupt(monkeypatch, 12, parent(), clips, out=tmp_path / "mine", **OPTIONS)
    assert [signal.getsignal(number) for number in numbers] == before
    capsys.readouterr()
    thread = threading.Thread(target=finetune, args=(parent(), clips), kwargs={"out": tmp_path / "mine", **OPTIONS})
    thread.start()
    thread.join()
    assert "going on after epoch 0 of 3" in capsys.readouterr().out
    assert (tmp_path / "mine").is_dir()
    finetune(parent(), clips, out=tmp_path / "other", **OPTIONS)
    assert [signal.getsignal(number) for number in numbers] == before
    assert weights(tmp_path / "mine") == weights(tmp_path / "other")
    interrupt(monkeypatch, 12, parent(), clips, **OPTIONS)  # nothing to go on with
    assert "; the same command goes on" not in capsys.readouterr().out


@pytest.mark.usefixtures("cheap_backbones")
def test_ctrl_c_is_one_line(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("avzoo.finetuning.finetune", interrupted)
    with pytest.raises(SystemExit) as end:
        cli.main(["finetune", "avsdn-avemix", "--data", str(clips)])
    assert end.value.code == 130
    assert capsys.readouterr().err == "avzoo: interrupted; the same command goes on\n"
    assert not [*tmp_path.iterdir()]


def test_two_commands_never_make_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with _new_folder("a", tmp_path / "b") as first, _new_folder("a", tmp_path / "b") as second:
        assert (str(first), str(second)) == ("finetuned/a-b", "finetuned/a-b-2")
        first.mkdir()
    assert [path.name for path in Path("finetuned").iterdir()] == ["a-b"]
    with _new_folder("a", tmp_path / "b") as third:
        assert str(third) == "finetuned/a-b-2"
