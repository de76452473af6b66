"""Each model learns on rendered clips within a minute, with the real backbones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning import Trainer, seed_everything

from avzoo.data.synthetic import Synthetic
from avzoo.models import AVSDN

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
        said = model(features.audio[features.clip], features.visual[features.clip, 0]).argmax(-1)
    accuracy = float((said == features.label).float().mean())
    majority = float(torch.bincount(features.label.flatten()).max() / features.label.numel())
    assert accuracy > majority + (0.15 if weak else 0.25), f"{accuracy:.3f}, always the commonest class: {majority:.3f}"
