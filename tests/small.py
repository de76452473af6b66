"""Small random examples of what every recipe's model reads, and its training on them without any files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from avzoo import models
from avzoo.data.loading import Shares, ShareSet
from avzoo.models import AVModule
from avzoo.preprocess import Batch
from avzoo.train.share import WholeBatch

CLASSES = ["one", "two", "background"]
RECIPES = {
    path.stem: recipe
    for path in sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
    if (recipe := yaml.safe_load(path.read_text()))["data"]["name"] in ("AVE", "Synthetic", "TAU")
}


def model(recipe: str, *, sure: bool = False, **options: Any) -> AVModule:
    """A recipe's model with small pictures and narrow features, from a seed; `sure`, without what is drawn by lot."""
    given = dict(RECIPES[recipe]["model"]) | options
    preprocess = dict(RECIPES[recipe]["preprocess"])
    kind = given.pop("name")
    if given.get("image_features"):
        given["image_features"] = 24
    if kind in ("AVSDN", "SegmentMLP"):
        given |= {"hidden_dim": 8, "audio_dim": 12, "visual_dim": 24}
    else:
        preprocess |= {"visual_backbone": "test_efficientnet.r160_in1k", "size": 32, "bands": 32}
    given |= {name: 0.0 for name in ("feature_dropout", "modality_dropout", "mixup") if sure and name in given}
    torch.manual_seed(3)
    made: AVModule = getattr(models, kind)(CLASSES, preprocess=preprocess, **given)
    for module in made.modules() if sure else ():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return made


def examples(of: AVModule, rows: int) -> Batch:
    """Random ones."""
    draw = torch.Generator().manual_seed(5)
    p = of.preprocess
    if of.task == "segment":
        audio, visual = torch.randn(rows, 4, 12, generator=draw), torch.randn(rows, 4, 24, generator=draw)
        return Batch(audio, visual, torch.randint(3, (rows, 4), generator=draw), [str(row) for row in range(rows)])
    form = (3, p.bands, p.frames) if p.audio_kind == "gammatone" else (1, 2, p.bands)
    audio = torch.randn(rows, 1, *form, generator=draw)
    visual = torch.randn(rows, 1, p.pictures, 24, generator=draw)
    if p.visual_kind == "image":
        visual = torch.randint(256, (rows, 1, p.pictures, 3, p.size, p.size), generator=draw, dtype=torch.uint8)
    return Batch(audio, visual, torch.randint(3, (rows,), generator=draw), [str(row) for row in range(rows)])


class Rows(Dataset[Batch]):
    """Some examples, indexed by a whole batch."""

    def __init__(self, whole: Batch) -> None:
        self.whole = whole

    def __getitem__(self, rows: list[int]) -> Batch:
        audio, visual, label, *_ = (x[rows] if isinstance(x, Tensor) else x for x in self.whole)
        return Batch(audio, visual, label, [self.whole.id[row] for row in rows])


class Losses(Callback):
    """What every step's loss and gradients were."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.gradients: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, *given: Any) -> None:
        self.losses.append(float(given[2]["loss"]))

    def on_before_optimizer_step(self, *given: Any) -> None:
        self.gradients.append({n: p.grad.clone() for n, p in given[1].named_parameters() if p.grad is not None})


def fit(of: AVModule, batches: list[list[int]], *, processes: int = 1, **options: Any) -> Losses:
    """Train for one epoch of these batches of the rows of `examples`, validating after it."""
    whole, seen = WholeBatch(), Losses()
    options = {"accelerator": "cpu", "devices": processes, "strategy": "ddp" if processes > 1 else "auto"} | options
    trainer = Trainer(
        max_epochs=1,
        callbacks=[whole, seen],
        plugins=[whole],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        **options,
    )
    rows = Rows(examples(of, 1 + max(max(batch) for batch in batches)))
    shares = Shares(batches, rank=trainer.global_rank, world=trainer.world_size)
    shares.set_epoch = lambda _: None  # type: ignore[method-assign] - a list of batches has no epochs
    loader = DataLoader(ShareSet(rows), sampler=shares, batch_size=None)
    trainer.fit(of, loader, loader)
    return seen
