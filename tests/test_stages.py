"""SECRNNFusion's five stages and JointScalogramNet's systems, from the command line, on a rendered TAU folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from avzoo import backbones, bundle, cli, registry
from avzoo.data import rendering

TINY = ["--preprocess.visual_backbone", "test_efficientnet.r160_in1k", "--preprocess.size", "32"]
SMALL = ["--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false", "--data.workers", "0"]
SMALL += ["--data.batch_size", "4"]
STAGES = ("secrnn-tau-audio", "secrnn-tau-visual", "secrnn-tau-visual-ft", "secrnn-tau-fusion", "secrnn-tau")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve training and four test clips of two scenes."""
    folder = tmp_path_factory.mktemp("tau")
    return rendering.write_tau(folder, train=12, test=4, scenes=["bus", "park"], size=32, sample_rate=16_000)


@pytest.fixture
def pretrained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Backbones whose weights come from a seed; a working directory and a cache of their own."""

    def build(name: str, pool: str = "") -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(5)
            return backbones.architecture(name, pool).eval().requires_grad_(False)

    monkeypatch.setattr(backbones, "build", build)
    monkeypatch.setenv("AVZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def fit(recipe: str, scenes: Path, *options: str) -> Path:
    """Train by a recipe; the bundle that it leaves."""
    width = backbones.feature_dim("test_efficientnet.r160_in1k")
    kind = ["--model.image_features", str(width)] if "visual_kind: frame" in read(recipe) else []
    file = registry.asset(f"recipes/{recipe}.yaml")
    cli.main(["fit", "--config", str(file), "--data.root", str(scenes), *TINY, *kind, *SMALL, *options])
    return sorted(Path("runs", recipe).glob("version_*/bundle"))[-1]


def read(recipe: str) -> str:
    return registry.asset(f"recipes/{recipe}.yaml").read_text(encoding="utf-8")


@pytest.mark.usefixtures("pretrained")
def test_the_five_stages_start_from_their_parents(scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = {recipe: fit(recipe, scenes) for recipe in STAGES[:3]}
    capsys.readouterr()
    made["secrnn-tau-fusion"] = fit("secrnn-tau-fusion", scenes)
    said = capsys.readouterr().out
    assert "from secrnn-tau-audio, secrnn-tau-visual-ft;" in said
    assert "fresh: fusion.early, fusion.gru, fusion.late" in said
    audio, tuned, fused = (bundle.read(made[name]).state_dict() for name in (STAGES[0], STAGES[2], STAGES[3]))
    for key, value in fused.items():  # frozen: as the parents left them
        if key.startswith("audio."):
            assert torch.equal(value, audio[key]), key
        elif key.startswith("visual."):
            assert torch.equal(value, tuned[key]), key
    whole = bundle.read(fit("secrnn-tau", scenes))
    assert whole.state_dict().keys() == fused.keys()
    assert any(not torch.equal(value, fused[key]) for key, value in whole.state_dict().items())


@pytest.mark.usefixtures("pretrained")
@pytest.mark.parametrize(("recipe", "parent"), [(STAGES[2], STAGES[1]), (STAGES[3], STAGES[0]), (STAGES[4], STAGES[3])])
def test_a_stage_without_its_parent_says_what_makes_it(
    recipe: str, parent: str, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        fit(recipe, scenes)
    assert f"avzoo fit --config recipes/{parent}.yaml" in capsys.readouterr().err


@pytest.mark.usefixtures("pretrained")
def test_joint_systems_and_rows(scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = "joint-scalogram-scenemix"
    here = ["--data.val", "locations", "--data.views", "2", "--model.modality_dropout", "0"]
    heard = fit(recipe, scenes, *here, "--model.system", "audio")
    capsys.readouterr()
    pipeline = fit(recipe, scenes, *here, "--model.ae_frozen", "true", "--init_from", json.dumps([str(heard)]))
    assert "fresh: classifier.hidden, classifier.scores" in capsys.readouterr().out  # the SC is no system's but its own
    before, after = bundle.read(heard).state_dict(), bundle.read(pipeline).state_dict()
    same = [key for key in before if key.startswith("audio_")]
    assert all(torch.equal(before[key], after[key]) for key in same)
    assert {"audio_mean", "audio_std"} < set(same)
    fbank = bundle.read(fit(recipe, scenes, *here, "--preprocess.audio_kind", "fbank"))
    assert fbank.preprocess.bands == 256
    live = ["--preprocess.visual_kind", "image", "--data.views", "0"]  # pictures augmented anew every epoch
    owner = fit(recipe, scenes, "--data.val", "locations", *live)
    assert not [key for key in bundle.read(owner).state_dict() if key.startswith("image_encoder.")]


@pytest.mark.usefixtures("pretrained")
def test_a_parent_with_another_signal_path_is_refused(scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = "joint-scalogram-scenemix"
    here = ["--data.val", "locations", "--data.views", "1", "--model.modality_dropout", "0"]
    heard = fit(recipe, scenes, *here, "--model.system", "audio", "--preprocess.audio_kind", "fbank")
    with pytest.raises(SystemExit):
        fit(recipe, scenes, *here, "--init_from", json.dumps([str(heard)]))
    assert "audio_kind='fbank', this recipe has 'scalogram'" in capsys.readouterr().err
