"""Every recipe runs, as it stands, on small data: a new YAML is tested with no edit here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from avzoo import bundle, cli, registry
from avzoo.training import read_recipe

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
DATA = {path: yaml.safe_load(path.read_text())["data"]["name"] for path in RECIPES}
EVENTS = [path for path in RECIPES if DATA[path] in ("AVE", "Synthetic")]
SCENES = [path for path in RECIPES if DATA[path] == "TAU"]
AVEMIX = ["--config", str(registry.asset("recipes/avsdn-avemix.yaml"))]
SMALL = ["--trainer.max_epochs", "1", "--data.workers", "0", "--trainer.enable_progress_bar", "false"]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_one_short_file_without_class_paths(recipe: Path) -> None:
    lines = recipe.read_text().splitlines()
    assert len(lines) <= 30
    assert not any("class_path" in line for line in lines)
    assert {"seed_everything", "model", "data", "trainer"} <= yaml.safe_load(recipe.read_text()).keys()


@pytest.mark.parametrize("recipe", EVENTS, ids=lambda path: path.stem)
@pytest.mark.usefixtures("cheap_backbones")
def test_an_event_recipe_trains_and_tests(
    recipe: Path, rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    cli.main(["fit", "--config", str(recipe), "--data.root", str(rendered), *SMALL])
    run = tmp_path / "runs" / recipe.stem / "version_0"
    assert (run / "metrics.csv").read_text().startswith("epoch,")
    assert "best val_segment_accuracy" in capsys.readouterr().out
    model = bundle.read_training_checkpoint(run / "checkpoints" / "best.ckpt")
    asked = read_recipe(recipe.read_text())
    assert model.preprocess.visual_backbone == asked["preprocess"]["visual_backbone"]
    assert model.preprocess.audio_backbone == asked["preprocess"]["audio_backbone"]
    for key, value in asked["model"]["init_args"].items():
        assert model.hparams[key] == value
    best = str(run / "checkpoints" / "best.ckpt")
    cli.main(["test", "--config", str(run / "recipe.yaml"), "--ckpt_path", best, "--data.workers", "0"])
    assert "test_segment_accuracy" in capsys.readouterr().out
    with Image.open(run / "confusion.png") as picture:
        assert picture.width > 300
    bundled = bundle.read(run / "bundle").state_dict()
    assert all(torch.equal(bundled[key], value) for key, value in model.state_dict().items())


def families() -> list[list[Path]]:
    """Scene recipes, each after those that its `init_from` names; those that have nothing to do with others first."""
    parents = {path.stem: yaml.safe_load(path.read_text()).get("init_from", []) for path in SCENES}

    def line(name: str) -> list[str]:
        return [*dict.fromkeys(step for parent in parents[name] for step in line(parent)), name]

    named = {parent for of in parents.values() for parent in of}
    by_name = {path.stem: path for path in SCENES}
    return [[by_name[name] for name in line(last)] for last in sorted(set(parents) - named)]


@pytest.mark.parametrize("family", families(), ids=lambda family: family[-1].stem)
@pytest.mark.usefixtures("cheap_backbones")
def test_scene_recipes_train_after_their_parents_and_test(
    family: list[Path],
    rendered_tau: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for recipe in family:
        asked = yaml.safe_load(recipe.read_text())
        small = [*SMALL, "--trainer.check_val_every_n_epoch", "1"]
        small += ["--data.batch_size", "2"] if asked["data"].get("examples") == "second" else []
        cli.main(["fit", "--config", str(recipe), "--data.root", str(rendered_tau), *small])
        out = capsys.readouterr().out
        run = tmp_path / "runs" / recipe.stem / "version_0"
        assert f"best {asked['monitor']}" in out, recipe.stem
        assert ("init_from: " in out) == ("init_from" in asked)
        model = bundle.read(run / "bundle")
        for key, value in asked["model"].items():
            assert key == "name" or model.hparams[key] == value
    best = str(run / "checkpoints" / "best.ckpt")
    cli.main(["test", "--config", str(run / "recipe.yaml"), "--ckpt_path", best, "--data.workers", "0"])
    assert "test_clip_accuracy" in capsys.readouterr().out
    assert (run / "confusion.png").exists()


@pytest.mark.usefixtures("cheap_backbones")
def test_numbers_left_out_are_the_backbones_own(
    rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The default signal path is the paper's: none of its numbers may linger when a recipe names other backbones.
    monkeypatch.chdir(tmp_path)
    cli.main(["fit", *AVEMIX, "--data.root", str(rendered), *SMALL])
    model = bundle.read_training_checkpoint(tmp_path / "runs/avsdn-avemix/version_0/checkpoints/best.ckpt")
    assert model.preprocess.mean == (0.5, 0.5, 0.5)
    assert model.preprocess.interpolation == "bicubic"


@pytest.mark.usefixtures("cheap_backbones")
def test_training_is_deterministic(rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        cli.main(["fit", *AVEMIX, "--data.root", str(rendered), *SMALL])
    runs = tmp_path / "runs" / "avsdn-avemix"
    first, second = (
        bundle.read_training_checkpoint(runs / f"version_{n}" / "checkpoints" / "last.ckpt").state_dict()
        for n in (0, 1)
    )
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.usefixtures("cheap_backbones")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model.hiden_dim", "4"], "hiden_dim"),
        (["--data.clases", "[a]"], "clases"),
        (["--preprocess.fsp", "2"], "fsp"),
    ],
)
def test_a_misspelt_key_is_refused_by_name(
    arguments: list[str], said: str, rendered: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["fit", *AVEMIX, "--data.root", str(rendered), *arguments])
    assert stop.value.code != 0
    assert said in capsys.readouterr().err


@pytest.mark.usefixtures("cheap_backbones")
def test_extract_is_resumable_and_names_what_is_broken(
    rendered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    data = shutil.copytree(rendered, tmp_path / "data")
    broken = sorted((data / "AVE").glob("*.mp4"))[0]
    whole = broken.read_bytes()
    broken.write_bytes(b"")
    arguments = ["extract", *AVEMIX, "--data.root", str(data), "--data.cache", str(tmp_path / "cache")]
    arguments += ["--data.workers", "0"]
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 1
    assert broken.stem in capsys.readouterr().err
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.safetensors")}
    broken.write_bytes(whole)
    cli.main(arguments)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.safetensors")}
    assert files.items() <= after.items()  # what was done is not done again
    assert {path.name.partition("@")[0] for path in after} == {path.stem for path in (data / "AVE").glob("*.mp4")}


@pytest.mark.usefixtures("cheap_backbones")
def test_a_checkpoint_of_another_label_order_is_refused(
    rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    cli.main(["fit", *AVEMIX, "--data.root", str(rendered), *SMALL])
    best = "runs/avsdn-avemix/version_0/checkpoints/best.ckpt"
    turned = "--data.classes=[mandolin, drone, helicopter]"
    with pytest.raises(SystemExit):
        cli.main(["test", *AVEMIX, "--data.root", str(rendered), "--ckpt_path", best, turned, "--data.workers", "0"])
    assert "class 0 is 'drone' in the checkpoint and 'mandolin' in the model" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["test", *AVEMIX, "--data.root", str(rendered), "--ckpt_path", "no.ckpt", "--data.workers", "0"])
    assert "no.ckpt" in capsys.readouterr().err
