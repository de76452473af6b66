"""What a run writes down while it trains, what it shows and keeps: trackers, rows, best-k, smoke runs, rates."""

from __future__ import annotations

import csv
import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import struck
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from avzoo import cli, registry
from avzoo.errors import AvzooError
from avzoo.models.avsdn import AVSDN
from avzoo.train import rate, runs, tracking
from avzoo.train.best import Best, KeptBest

RECIPE = str(registry.asset("recipes/avsdn-avemix.yaml"))
RUNS = Path("runs", "avsdn-avemix")
STEPS = 3  # an epoch: 6 clips in batches of 2


@pytest.fixture
def fit(rendered: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """`avzoo fit` of a tiny recipe, three epochs of three steps, in a folder of its own."""
    request.getfixturevalue("cheap_backbones")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    options = ["--data.root", str(rendered), "--data.workers", "0", "--data.batch_size", "2"]
    return ["fit", "--config", RECIPE, *options, "--model.hidden_dim", "8", "--trainer.max_epochs", "3"]


@pytest.fixture
def own_wandb() -> Iterator[None]:
    """What a process has told wandb once, and its server, end with the test."""
    import wandb

    yield
    wandb.teardown()


def interrupt(monkeypatch: pytest.MonkeyPatch, command: list[str], step: int) -> None:
    """Run a command that dies at a step; what was patched is as before."""
    train = AVSDN.training_step

    def dies(self: AVSDN, batch: object, batch_idx: int) -> torch.Tensor:
        if self.trainer.global_step == step:
            raise RuntimeError("the power is gone")
        return train(self, batch, batch_idx)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(AVSDN, "training_step", dies)
        with pytest.raises(RuntimeError, match="power"):
            cli.main(command)


def rows(run: Path, key: str) -> list[float]:
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row[key]) for row in csv.DictReader(file) if row.get(key)]


@pytest.mark.usefixtures("own_wandb")
def test_wandb_goes_on_with_the_same_run_offline(
    fit: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupt(monkeypatch, [*fit, "--track", "wandb"], STEPS + 1)
    name = (RUNS / "version_0" / "wandb-id").read_text()
    cli.main([*fit, "--track", "wandb"])
    assert [path.name for path in RUNS.iterdir()] == ["version_0"]
    assert (RUNS / "version_0" / "wandb-id").read_text() == name
    folders = sorted((RUNS / "version_0" / "wandb").glob("offline-run-*"))
    assert folders
    assert all(folder.name.endswith(name) for folder in folders)
    assert all((folder / f"run-{name}.wandb").stat().st_size > 0 for folder in folders)
    said = capsys.readouterr()
    assert f"tracked: wandb sync {RUNS}/version_0/wandb/offline-run-" in said.out
    assert "wandb:" not in said.err
    assert len(rows(RUNS / "version_0", "val_loss")) == 3  # metrics.csv is there as well


@pytest.mark.usefixtures("own_wandb")
def test_wandb_is_told_everything(fit: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    kept = []
    with monkeypatch.context() as patch:
        patch.setattr(wandb.Run, "finish", lambda self: kept.append((dict(self.config), dict(self.summary))))
        cli.main([*fit, "--track", "wandb"])
    wandb.finish()
    config, summary = kept[-1]
    assert config["recipe"] == "avsdn-avemix"
    assert config["seed"] == 2
    assert config["config"]["model"]["init_args"]["hidden_dim"] == 8
    assert config["versions"]["torch"] == importlib.metadata.version("torch")
    best = max(rows(RUNS / "version_0", "val_segment_accuracy"))
    assert summary["best_val_segment_accuracy"] == pytest.approx(best)


def test_what_wandb_refuses_is_one_line_and_leaves_nothing(
    fit: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offlin")
    with pytest.raises(SystemExit):
        cli.main([*fit, "--track", "wandb"])
    said = capsys.readouterr().err
    assert said.startswith("avzoo: --track wandb: mode: Input should be 'online', 'offline'")
    assert said.count("\n") == 1
    assert not [*RUNS.iterdir()]


@pytest.mark.usefixtures("own_wandb")
def test_without_a_login_it_says_what_to_set_and_leaves_nothing(
    fit: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.raises(SystemExit):
        cli.main([*fit, "--track", "wandb"])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line]
    assert "`wandb login` or set WANDB_API_KEY" in line
    assert "WANDB_MODE=offline" in line
    assert not [*RUNS.glob("*")]


def test_tensorboard_goes_on_in_the_same_folder(fit: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(monkeypatch, [*fit, "--track", "tensorboard"], STEPS + 1)
    cli.main([*fit, "--track", "tensorboard"])
    run = RUNS / "version_0"
    assert len([*run.glob("events.out.tfevents.*")]) == 2
    seen = EventAccumulator(str(run)).Reload()
    assert [event.value for event in seen.Scalars("val_loss")] == pytest.approx(rows(run, "val_loss"))
    assert [event.step for event in seen.Scalars("val_loss")] == [STEPS - 1, 2 * STEPS - 1, 3 * STEPS - 1]
    (best,) = seen.Scalars("best_val_segment_accuracy")
    assert best.value == pytest.approx(max(rows(run, "val_segment_accuracy")))


def test_other_processes_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "_wandb", lambda _: pytest.fail("a second process opened a tracker"))
    run = runs.start(tmp_path / "runs" / "some", "{}")
    assert [type(logger).__name__ for logger in tracking.open_loggers("wandb", run, first=False)] == ["CSVLogger"]
    run.release()
    assert not run.folder.exists()  # as nothing was written


def test_two_processes_show_and_write_as_one(
    fit: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit += ["--data.cache", str(tmp_path / "cache")]  # other processes need no backbones
    cli.main(["extract", *fit[1:]])
    capsys.readouterr()
    two = [*fit, "--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu"]
    assert struck.drive(tmp_path / "two", "never", [*two, "--track", "tensorboard"], processes=2) == [[0, 0]]
    said = capsys.readouterr().out
    assert said.count("epoch  train_loss") == 1
    assert "3 epochs of 3 batches, 2 x cpu" in said
    assert [said.count(f"\n  {epoch}/3 ") for epoch in (1, 2, 3)] == [1, 1, 1]
    run = tmp_path / "two" / RUNS / "version_0"
    assert len([*run.glob("events.out.tfevents.*")]) == 1
    assert len(rows(run, "val_loss")) == 3


def test_what_the_first_process_refuses_ends_all(
    fit: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = [*fit, "--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu"]
    command = [*two, "--init_from", "[not-even-a-name]"]
    assert struck.drive(tmp_path / "two", "never", command, processes=2) == [[1, 1]]
    said = capsys.readouterr().out
    assert said.count("init_from: 'not-even-a-name' is no model") == 1
    assert said.count("avzoo: there is no run: the first process says why") == 1
    assert not [*(tmp_path / "two" / RUNS).glob("version_*")]


@pytest.mark.parametrize("track", ["tensorboard", "wandb"])
def test_a_missing_package_is_one_line(track: tracking.Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda _: None)
    run = runs.start(tmp_path / "runs" / "some", "{}")
    with pytest.raises(AvzooError, match=r"pip install 'avzoo\[track\]'"):
        tracking.open_loggers(track, run, first=True)
    run.release()


def test_a_tracker_and_a_logger_are_not_both_taken(fit: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([*fit, "--track", "tensorboard", "--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "x"])
    assert "give one of them" in capsys.readouterr().err


def test_what_made_a_run_is_beside_it(fit: list[str]) -> None:
    cli.main([*fit, "--trainer.logger", "false"])  # metrics.csv is not Lightning's choice
    run = RUNS / "version_0"
    said = yaml.safe_load((run / "hparams.yaml").read_text())
    assert (said["recipe"], said["run"], said["seed"]) == ("avsdn-avemix", "version_0", 2)
    assert said["config"] == yaml.safe_load((run / "recipe.yaml").read_text())
    assert {"avzoo", "python", "torch", "lightning"} <= said["versions"].keys()
    assert {"commit", "avzoo_commit"} <= said.keys()
    assert said["best_val_segment_accuracy"] == pytest.approx(max(rows(run, "val_segment_accuracy")))


def test_the_commit_says_when_files_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert tracking.working_tree() == ""
    (tmp_path / "mine.yaml").write_text("a: 1\n")
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "first"]):
        tracking.subprocess.run(["git", *words], check=True)
    clean = tracking.working_tree()
    assert len(clean) == 40
    (tmp_path / "mine.yaml").write_text("a: 2\n")
    assert tracking.working_tree() == f"{clean}-dirty"


def test_one_row_an_epoch_and_the_best_are_marked(fit: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(fit)
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0].startswith("avsdn-avemix/version_0: AVSDN, ")
    assert lines[0].endswith("3 epochs of 3 batches, cpu, 32-true")
    assert lines[1].split() == ["epoch", "train_loss", "val_loss", "val_segment_accuracy", "clips/s"]
    table = [line.split() for line in lines[2:5]]
    assert [row[0] for row in table] == ["1/3", "2/3", "3/3"]
    accuracies = rows(RUNS / "version_0", "val_segment_accuracy")
    assert [row[3] for row in table] == [f"{value:.4f}" for value in accuracies]
    marked = [row[-1] == "best" for row in table]
    assert marked == [all(value > earlier for earlier in accuracies[:i]) for i, value in enumerate(accuracies)]
    assert said.err == ""  # no bar where nobody looks


def test_the_bar_of_a_terminal_is_gone_in_the_end(
    fit: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    cli.main(fit)
    shown = capsys.readouterr().err
    assert "epoch 1/3" in shown
    assert "left" in shown
    assert "clips/s, loss" in shown
    assert shown.rstrip(" ").endswith("\r")


@pytest.mark.parametrize(
    "given",
    [
        ["--monitor", "val_los"],
        ["--monitor", "vall_loss", "--trainer.num_sanity_val_steps", "0"],
        [
            *("--trainer.num_sanity_val_steps", "0", "--trainer.val_check_interval", "2"),
            *("--trainer.callbacks", '[{"class_path": "EarlyStopping", "init_args": {"monitor": "val_los"}}]'),
        ],
    ],
)
def test_a_misspelt_monitor_is_said_at_the_first_validation(
    given: list[str], fit: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([*fit, *given])
    assert end.value.code == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("avzoo: no validation measures 'val")
    assert said.endswith("; did you mean 'val_loss'? (val_loss, val_segment_accuracy)")
    assert [*RUNS.iterdir()] == [] or "--trainer.num_sanity_val_steps" in given


def test_what_training_measures_can_be_monitored(fit: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    cli.main([*fit, "--monitor", "train_loss", "--trainer.max_epochs", "1"])
    assert "best train_loss" in capsys.readouterr().out


def test_early_stopping_says_why(fit: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = yaml.safe_load(Path(RECIPE).read_text())
    recipe["trainer"]["callbacks"].append(
        {"name": "EarlyStopping", "monitor": "val_loss", "min_delta": 9.0, "patience": 1}
    )
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    fit[fit.index(RECIPE)] = str(tmp_path / "mine.yaml")
    cli.main(fit)
    said = capsys.readouterr().out
    assert "stopped early: Monitored metric val_loss did not improve in the last 1 records. Best score: " in said
    assert len(rows(tmp_path / "runs" / "mine" / "version_0", "val_loss")) == 2


def test_the_best_few_are_kept_under_their_own_names(fit: list[str]) -> None:
    cli.main([*fit, "--keep_best", "2"])
    folder = RUNS / "version_0" / "checkpoints"
    accuracies = rows(RUNS / "version_0", "val_segment_accuracy")
    kept = sorted(path.stem for path in folder.glob("epoch-*"))
    assert len(kept) == 2
    assert {path.name for path in folder.iterdir()} == {"best.ckpt", "last.ckpt", *(f"{name}.ckpt" for name in kept)}
    named = {name: accuracies[int(name.split("-")[1]) - 1] for name in kept}
    assert all(name.endswith(f"-{value:.4f}") for name, value in named.items())
    assert sorted(named.values()) == sorted(accuracies)[-2:]
    best = torch.load(folder / "best.ckpt", weights_only=True)["epoch"] + 1
    assert f"epoch-{best}-{max(accuracies):.4f}" in kept


def test_an_epoch_that_is_done_again_leaves_one_of_the_best(fit: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(monkeypatch, [*fit, "--keep_best", "3"], STEPS + 1)  # the last checkpoint is ahead of the validation
    cli.main([*fit, "--keep_best", "3"])
    kept = [path.stem.split("-")[1] for path in (RUNS / "version_0" / "checkpoints").glob("epoch-*")]
    assert sorted(kept) == ["1", "2", "3"]


def test_both_kinds_of_best_have_states_of_their_own(tmp_path: Path) -> None:
    run = runs.Run(tmp_path)
    assert Best(run, "val_loss").state_key != KeptBest(run, "val_loss", 2).state_key
    assert Best(run, "val_loss").mode == "min"


def test_a_smoke_run_is_short_and_no_run_of_the_recipe(
    fit: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupt(monkeypatch, fit, STEPS + 1)
    capsys.readouterr()
    cli.main([*fit, "--limit", "1"])
    assert "1 epoch of 1 batch, " in capsys.readouterr().out
    smoke = Path("runs", "avsdn-avemix-smoke", "version_0")
    assert (smoke / "finished").exists()
    assert len(rows(smoke, "val_loss")) == 1
    assert not (RUNS / "version_0" / "finished").exists()  # it is still to be gone on with


def test_a_smoke_run_extracts_no_more_than_it_needs(fit: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from avzoo.data import base

    asked: list[int] = []
    extract = base.extract

    def counted(cache: object, views: dict[object, int], **options: object) -> dict[str, str]:
        asked.append(len(views))
        return extract(cache, views, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(base, "extract", counted)
    cli.main([*fit, "--limit", "1"])
    assert asked == [2 + 2]  # a batch of training and one of validation, of nine clips


@pytest.mark.usefixtures("cheap_backbones")
@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("avsdn-avemix", ["--trainer.precision", "bf16-mixed"]),
        ("secrnn-scenemix-audio", []),
        ("joint-scalogram-scenemix", ["--trainer.accumulate_grad_batches", "2"]),
    ],
)
def test_a_learning_rate_is_found_and_nothing_else_is_left(
    recipe: str,
    options: list[str],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = request.getfixturevalue("rendered" if recipe == "avsdn-avemix" else "rendered_tau")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rate, "STEPS", 24)
    monkeypatch.setitem(rate.OPTIONS, "max_steps", 24)
    data = ["--data.root", str(root), "--data.workers", "0", "--data.batch_size", "4", *options]
    cli.main(["lr", "--config", str(registry.asset(f"recipes/{recipe}.yaml")), *data])
    found = float(capsys.readouterr().out.partition("--model.lr ")[2])
    assert rate.LOWEST < found < rate.HIGHEST
    assert {path.name for path in tmp_path.iterdir()} == {"lr.png", "cache-of-cheap-features"}


def test_a_rate_is_where_the_loss_falls_fastest() -> None:
    rates = [10.0 ** (index / 10 - 7) for index in range(70)]
    losses = [2 - 1 / (1 + (1e-3 / rate) ** 2) for rate in rates]
    assert rate.suggest(rates, rate.smooth(losses)) == pytest.approx(1e-3, rel=0.2)
    assert len(rate.smooth([1.0] * 20 + [1000.0] * 20)) < 30  # what has diverged is cut off
    with pytest.raises(AvzooError, match="at no learning rate"):
        rate.suggest(rates, [1.0] * 70)
