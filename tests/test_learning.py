"""Each model learns on rendered clips within a minute, with the real backbones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning import Trainer, seed_everything

from avzoo.data import rendering
from avzoo.data.synthetic import Synthetic
from avzoo.data.tau import TAU
from avzoo.models import AVSDN, AVModule, JointScalogramNet, SECRNNFusion

LIGHT = {"audio_backbone": "avzoo-audio", "visual_backbone": "tf_efficientnet_lite0"}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Synthetic:
    root: Path = tmp_path_factory.mktemp("synthetic")
    names = ["drone", "saxophone", "grand_piano"]
    return Synthetic(root, train=24, val=9, test=3, classes=names, size=96, preprocess=LIGHT, batch_size=8, workers=0)


@pytest.mark.filterwarnings("ignore:.*(does not have many workers|smaller than the logging interval)")
@pytest.mark.parametrize("weak", [False, True])
def test_avsdn_learns_rendered_events(clips: Synthetic, weak: bool) -> None:
    seed_everything(0)
    model = AVSDN(
        clips.classes, visual_dim=1280, hidden_dim=64, feature_dropout=0.3, lr=3e-3, weak=weak, preprocess=LIGHT
    )
    trainer = Trainer(
        max_epochs=25, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        accelerator="cpu", num_sanity_val_steps=0, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(model, datamodule=clips)
    model.eval()
    features = clips.sets["val"]
    with torch.no_grad():
        said = model(features.audio[features.clip], features.visual[features.clip]).argmax(-1)
    accuracy = float((said == features.label).float().mean())
    majority = float(torch.bincount(features.label.flatten()).max() / features.label.numel())
    assert accuracy > majority + (0.15 if weak else 0.25), f"{accuracy:.3f}, always the commonest class: {majority:.3f}"


QUICK = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False, "logger": False}
PLACES = ["bus", "park", "street_traffic"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 training and 12 test clips of three scenes; a fifth has no sound to go by, another fifth no picture."""
    root = tmp_path_factory.mktemp("tau")
    return rendering.write_tau(root, train=36, test=12, scenes=PLACES, size=64, sample_rate=16_000)


def accuracy(model: AVModule, data: TAU) -> float:
    """By the clip, on the test list."""
    batch = data.whole("test")
    model.eval()
    with torch.no_grad():
        posterior = model(batch.audio, batch.visual).exp().mean(1)
    return float((posterior.argmax(-1) == batch.label).float().mean())


@pytest.mark.filterwarnings("ignore:.*(does not have many workers|smaller than the logging interval)")
def test_joint_scalogram_net_learns_rendered_scenes_and_both_beat_one(scenes: Path) -> None:
    path = {"audio_kind": "scalogram", "visual_kind": "frame", "visual_backbone": "tf_efficientnet_lite0"}
    reached = {}
    for system in ("audio", "visual", "joint"):
        seed_everything(0)
        data = TAU(
            scenes, val="test", preprocess=path, examples="pair", batch_size=120, workers=0, cache=scenes / "cache"
        )
        data.extract(["train", "test"])
        model = JointScalogramNet(data.classes, system=system, preprocess=path)
        trainer = Trainer(**QUICK, max_epochs=6, accelerator="cpu", num_sanity_val_steps=0, limit_val_batches=0)
        trainer.fit(model, datamodule=data)
        data.setup("test")
        reached[system] = accuracy(model, data)
    assert reached["joint"] >= max(reached.values())
    assert reached["joint"] > 0.8, reached


@pytest.mark.filterwarnings("ignore:.*(does not have many workers|smaller than the logging interval)")
def test_secrnn_fusion_learns_rendered_sounds(scenes: Path) -> None:
    path = {"audio_kind": "gammatone", "sample_rate": 16_000, "window": 640, "hop": 320, "f_max": 8000.0, "bands": 16}
    path |= {"visual_kind": "frame", "visual_backbone": "tf_efficientnet_lite0", "fps": 1}
    seed_everything(0)
    data = TAU(scenes, val="test", preprocess=path, examples="second", crop="column", streams=2, batch_size=6,
               workers=0, cache=scenes / "cache")  # fmt: skip
    data.extract(["train", "test"])
    model = SECRNNFusion(data.classes, stage="audio", mixup=0.4, lr=2e-3, preprocess=path)
    trainer = Trainer(**QUICK, max_epochs=60, accelerator="cpu", num_sanity_val_steps=0, check_val_every_n_epoch=60)
    trainer.fit(model, datamodule=data)
    data.setup("test")
    assert accuracy(model, data) > 0.6  # a fifth of the clips has nothing to go by
