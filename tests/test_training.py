"""The command line of training: folders, recipes beside checkpoints, what may not be set by hand, spelling."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import yaml

from avzoo import cli, registry
from avzoo.errors import DataNotFoundError
from avzoo.train import runs
from avzoo.train.recipe import complete, read_recipe

AVEMIX = ["--config", str(registry.asset("recipes/avsdn-avemix.yaml"))]
SMALL = ["--trainer.max_epochs", "1", "--data.workers", "0", "--model.hidden_dim", "8"]
SMALL += ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]


def test_runs_that_start_together_get_folders_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        started = [*pool.map(lambda _: runs.start(tmp_path, "{}"), range(16))]
    assert sorted(run.folder.name for run in started) == sorted(f"version_{n}" for n in range(16))


@pytest.mark.usefixtures("cheap_backbones")
@pytest.mark.parametrize("logger", ["false", "CSVLogger"])
def test_any_logger_leaves_recipe_and_checkpoints_together(
    logger: str, rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--trainer.logger", logger]
    options += ["--trainer.logger.save_dir", "elsewhere"] if logger != "false" else []
    for _ in range(2):  # a finished run is not gone on with
        cli.main(["fit", *AVEMIX, "--data.root", str(rendered), *SMALL, *options])
    for version in ("version_0", "version_1"):
        run = tmp_path / "runs" / "avsdn-avemix" / version
        assert {"recipe.yaml", "checkpoints", "bundle", "finished"} <= {path.name for path in run.iterdir()}
        assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert (tmp_path / "elsewhere").exists() == (logger != "false")
    assert not (tmp_path / "checkpoints").exists()
    capsys.readouterr()
    said = []
    for checkpoint in (run / "checkpoints" / "best.ckpt", run / "bundle"):
        cli.main(["test", "--ckpt_path", str(checkpoint)])  # alone is enough
        said.append(capsys.readouterr().out.partition("confusion matrix")[0])
    assert "test_segment_accuracy" in said[0]
    assert said[0] == said[1]


@pytest.mark.usefixtures("cheap_backbones")
def test_a_fast_dev_run_leaves_nothing(rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cli.main(["fit", *AVEMIX, "--data.root", str(rendered), *SMALL, "--trainer.fast_dev_run", "true"])
    assert {path.name for path in tmp_path.iterdir()} == {"cache-of-cheap-features"}


@pytest.mark.parametrize("word", ["--config", "-c"])
def test_a_recipe_of_the_package_is_found_by_either_option(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = ["fit", "--config", str(registry.asset("recipes/avsdn-ave.yaml"))]
    Path("avsdn-ave").mkdir()  # which is no recipe
    assert complete(["fit", word, "recipes/avsdn-ave.yaml"]) == complete(["fit", word, "avsdn-ave"]) == found


@pytest.mark.parametrize("given", [["--init_from", "avsdn-avemix"], ["--init_from=[avsdn-avemix]"]])
def test_one_name_to_start_from_is_a_list_of_one(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["fit", *AVEMIX, *given, "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out)["init_from"] == ["avsdn-avemix"]
    assert read_recipe("init_from: avsdn-avemix") == {"init_from": ["avsdn-avemix"]}


def test_a_checkpoint_without_a_recipe_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "some.ckpt").touch()
    with pytest.raises(DataNotFoundError, match="`--config`"):
        complete(["test", f"--ckpt_path={tmp_path / 'some.ckpt'}"])
    with pytest.raises(DataNotFoundError, match="no such checkpoint"):
        complete(["test", "--ckpt_path", str(tmp_path / "other.ckpt")])


def said_by(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a refusal is."""
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize("command", ["validate", "test"])
def test_random_weights_are_not_measured(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--ckpt_path FILE is missing" in said_by([command, *AVEMIX], capsys)


def test_a_checkpoint_is_of_the_recipes_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "some.ckpt"
    numbers = yaml.safe_load(registry.asset("recipes/avsdn-avemix.yaml").read_text())["preprocess"]
    for model, size, said in (
        ("SegmentMLP", 224, f"{path} is a SegmentMLP, the recipe's model is AVSDN"),
        ("AVSDN", 200, f"{path} was trained with preprocess.size=200, the recipe has 224"),
    ):
        torch.save({"avzoo_model": model, "hyper_parameters": {"preprocess": {**numbers, "size": size}}}, path)
        assert said in said_by(["test", *AVEMIX, "--ckpt_path", str(path)], capsys)
    path.write_bytes(path.read_bytes()[:200])
    assert f"{path} is no checkpoint" in said_by(["test", *AVEMIX, "--ckpt_path", str(path)], capsys)


@pytest.mark.usefixtures("cheap_backbones")
def test_data_of_another_task_are_refused_before_their_features_are_extracted(
    rendered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = ["--config", "joint-scalogram-scenemix", "--data", "AVE", "--data.root", str(rendered)]
    said = said_by(["fit", *recipe, "--data.workers", "0"], capsys)
    assert "JointScalogramNet is a model of scenes, AVE is data of events" in said
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "is data.root of "),
        (["--data.batch_size", "0"], "batch_size=0: both must be at least 1"),
        (
            ["--data.root", "{rendered}", "--trainer.callbacks", "FineTune", "--trainer.callbacks.lr_rest", "-1"],
            "lr_rest=-1: expected a rate",
        ),
        (
            ["--data.root", "{rendered}", "--trainer.accelerator", "gpuu"],
            "trainer: You selected an invalid accelerator",
        ),
        (["--data.root", "{rendered}", "--trainer.devices", "x"], "trainer: `devices`"),
    ],
)
def test_what_a_class_refuses_is_one_line(
    arguments: list[str],
    said: str,
    rendered: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in said_by(["fit", *AVEMIX, *(word.format(rendered=rendered) for word in arguments)], capsys)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model.classes", "[a,b]"], "comes from the data"),
        (["--model.init_args.classes=[a,b]"], "comes from the data"),
        (["--model.preprocess.fps", "2"], "top-level `preprocess`"),
        (["--data.preprocess", "{}"], "top-level `preprocess`"),
        (["--data.seed", "1"], "`seed_everything`"),
        (["--model", '{"class_path": "AVSDN", "init_args": {"classes": ["a"]}}'], "comes from the data"),
        (['--data={"class_path": "AVE", "seed": 9}'], "`seed_everything`"),
        (["--model.init_args", '{"classes": ["a"]}'], "comes from the data"),
        (["--model.classes+", "a"], "comes from the data"),
    ],
)
def test_what_is_linked_is_not_set_by_hand(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["fit", *AVEMIX, *arguments])
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "recipe",
    ["model: {name: AVSDN}\ndata: {name: AVE, root: x, seed: 3}", "data: {seed: 9}", "data: {init_args: {seed: 9}}"],
)
def test_nor_in_a_recipe(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text(recipe)
    with pytest.raises(SystemExit):
        cli.main(["fit", *AVEMIX, "--config", str(tmp_path / "mine.yaml")])
    assert "mine.yaml: data.seed cannot be set by hand: set the top-level `seed_everything`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("where", "wrong", "right"),
    [
        ("", "--model.hiden_dim", "hidden_dim"),
        ("", "--data.bach_size", "batch_size"),
        ("", "--preprocess.sample_rat3", "sample_rate"),
        ("", "--trainer.max_epocs", "max_epochs"),
        ("", "--moniter", "monitor"),
        ("model: {name: AVSDN, hiden_dim: 4}\ndata: {name: AVE, root: x}", "hiden_dim", "hidden_dim"),
        ("model: {name: AVSDN}\ndata: {name: AVE, root: x}\ntrainer: {max_epocs: 4}", "max_epocs", "max_epochs"),
    ],
)
def test_a_misspelt_key_is_named_with_the_nearest(
    where: str, wrong: str, right: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text(where)
    arguments = ["--config", str(tmp_path / "mine.yaml")] if where else [*AVEMIX, wrong, "4"]
    with pytest.raises(SystemExit):
        cli.main(["fit", *arguments])
    error = " ".join(capsys.readouterr().err.split())
    assert wrong.rpartition(".")[2].removeprefix("--") in error.partition("there is no option")[2]
    assert f"{right}'?" in error
