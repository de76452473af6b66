"""What every dataset shares: items, the extraction of their features, and loaders.

A dataset writes `items(split)` and `classes`. What a label means is in `events.py` (one for every segment) and
`scenes.py` (one for a clip), how batches reach a process in `loading.py`.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from avzoo.augment import augment
from avzoo.data.column import Column
from avzoo.data.features import FeatureCache, Modality, Source, extract
from avzoo.data.loading import Loader, ShareSet, shares
from avzoo.errors import AvzooError, MediaError
from avzoo.parts import Part
from avzoo.preprocess import Batch, Preprocess

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
SPLITS_OF_STAGE: dict[str | None, tuple[Split, ...]] = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
}
Task = Literal["scenes", "events"]
BACKGROUND = "background"


@dataclass(frozen=True)
class Item:
    """One labelled row of a dataset.

    Attributes:
        key: Unique: the id, or `id#row` where an id stands on several rows.
        id: The clip; features belong to it.
        path: Its video.
        label: The category.
        start: Where the event begins, s; 0 for a scene.
        end: Where it ends, s, exclusive; `start == end` is background throughout.
        audio: The file of its sound, where that is not the video.
    """

    key: str
    id: str
    path: Path
    label: str
    start: float = 0.0
    end: float = 0.0
    audio: Path | None = None

    @property
    def source(self) -> Source:
        """The clip that its features belong to."""
        return Source(self.id, self.path, self.audio)


def evenly(category: Tensor, generator: torch.Generator) -> Tensor:
    """As many items as there are in random order, every category equally often (as far as that divides).

    The items of a category take turns: none comes again before all have come.

    Args:
        category: Of each item, int64 `[items]`.
        generator: Of all randomness.

    >>> order = evenly(torch.tensor([0, 0, 0, 0, 0, 0, 1, 1]), torch.Generator().manual_seed(0))
    >>> [int((order == item).sum()) for item in range(8)]
    [1, 0, 1, 1, 0, 1, 2, 2]
    """
    members = [(category == name).nonzero()[:, 0] for name in torch.unique(category)]
    share = -(-len(category) // len(members))
    turns = [
        [own[torch.randperm(len(own), generator=generator)] for _ in range(-(-share // len(own)))] for own in members
    ]
    drawn = torch.cat([torch.cat(own)[:share] for own in turns])
    return drawn[torch.randperm(len(drawn), generator=generator)[: len(category)]]


def commonest_event(label: Tensor, classes: int) -> Tensor:
    """The class of each row, int64 `[rows]`: that of its events that has most segments, the background without any.

    Args:
        label: Int64 `[rows, segments]`, or `[rows]`, which it is then.
        classes: How many there are, the background, which is the last, among them.

    >>> commonest_event(torch.tensor([[0, 2, 1, 1], [2, 2, 2, 0], [2, 2, 2, 2]]), 3).tolist()
    [1, 0, 2]
    """
    if label.ndim == 1:
        return label
    counts = torch.zeros(len(label), classes, dtype=torch.int16, device=label.device)  # of millions of rows, maybe
    counts.scatter_add_(1, label, torch.ones_like(counts[:1, :1]).expand(label.shape))
    counts[:, -1] = 0  # so that it is the largest only where all are 0
    return torch.where(counts.any(1), counts.argmax(1), classes - 1)


class AVDataModule(L.LightningDataModule, ABC):
    """A dataset of labelled clips whose frozen features are extracted once and cached.

    Args:
        preprocess: The numbers of the signal path; on the command line the top-level `preprocess` sets them.
        batch_size: Clips a step, of all processes together.
        views: Views of a training clip's pictures, one of which is drawn per epoch: 1 is the clip itself, more add
            seeded augmentations (see `avzoo.augment`), cached as all features are. A model that reads images itself
            gets them augmented on its device instead; for it, 0 is a new view every epoch.
        cache: Where features are kept; default `$AVZOO_CACHE`, else `~/.cache/avzoo`.
        workers: Processes that extract features; 0 extracts in this process, None takes one per CPU core.
        device: Where the backbones run while extracting.
        on_missing_audio: What to do with a clip without sound: "error" or "silence".
        on_damage: What to do with a clip that is cut short: "error" or "pad".
        on_missing: What to do with clips that are not on disk or cannot be read: "error" lists them and stops,
            "skip" lists them and goes on with the rest.
        seed: Of the order of training.
    """

    def __init__(
        self,
        preprocess: Preprocess | Mapping[str, Any] | None = None,
        *,
        batch_size: int = 64,
        views: int = 1,
        cache: Path | None = None,
        workers: int | None = None,
        device: str = "cpu",
        on_missing_audio: Literal["error", "silence"] = "error",
        on_damage: Literal["error", "pad"] = "error",
        on_missing: Literal["error", "skip"] = "error",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.preprocess = Preprocess.of(preprocess)
        live = self.preprocess.visual_kind == "image"
        if views < (0 if live else 1) or batch_size < 1:
            raise AvzooError(
                f"views={views}, batch_size={batch_size}: both must be at least 1"
                + ("" if live else " (views: 0, a new view every epoch, is for visual_kind: image)")
            )
        self.batch_size, self.views, self.seed = batch_size, views, seed
        self.workers, self.device, self.on_missing = workers, device, on_missing
        self.cache = FeatureCache(self.preprocess, folder=cache, on_missing_audio=on_missing_audio, on_damage=on_damage)
        self.sets: dict[Split, Dataset[Batch]] = {}
        self.part = Part()  # of the clips that `extract` takes
        self.loaders = 0  # processes that read batches ahead
        self.balanced = False  # whether training draws every class equally often, which `FineTune` asks for

    @property
    @abstractmethod
    def task(self) -> Task:
        """Whether a label is of a clip or of a segment."""

    @property
    @abstractmethod
    def classes(self) -> list[str]:
        """The label order; for events the last one is the background."""

    @abstractmethod
    def items(self, split: Split) -> Sequence[Item]:
        """The labelled rows of a split."""

    @property
    def available(self) -> tuple[Split, ...]:
        """The splits that there are."""
        return SPLITS

    @abstractmethod
    def dataset(self, split: Split, items: Sequence[Item]) -> Dataset[Batch]:
        """Some items, all of whose features are cached, as a dataset that is indexed by a whole batch."""

    @abstractmethod
    def batches(self, split: Split) -> Sampler[Any]:
        """Which rows of `sets[split]` make a batch; its `set_epoch` chooses the epoch."""

    def cached_views(self, split: Split) -> int:
        """How many views of a split's pictures are kept in the cache."""
        return self.views if split == "train" and self.preprocess.visual_kind != "image" else 1

    def column(self, split: Split, modality: Modality, sources: Sequence[Source]) -> Column:
        """A modality of a split's clips; in memory where that is less than `IN_MEMORY`."""
        views = self.cached_views(split) if modality == "visual" else 1
        return Column(functools.partial(_read, self.cache, sources, modality), len(sources), views)

    def load(self, split: Split) -> Dataset[Batch]:
        """A split, extracted already, as a dataset."""
        listed = self.items(split)
        views = self.cached_views(split)
        items = [item for item in listed if not self.cache.missing(item.source, views)]
        if len(items) < len(listed) or not items:
            message = f"{split}: {len(listed) - len(items)} of {len(listed)} rows have no features"
            if self.on_missing == "error" or not items:
                raise MediaError(f"{message}; `avzoo extract` makes them and lists what is wrong with each clip")
            print(f"{message}; going on without them (on_missing: skip).")
        return self.dataset(split, items)

    # -- what Lightning calls ----------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Extract the features that the coming stage needs and that are not cached yet."""
        stage = self.trainer.state.fn if self.trainer is not None else None
        self.extract(SPLITS_OF_STAGE.get(stage, SPLITS))

    def extract(self, splits: Sequence[Split]) -> None:
        """Extract whatever is missing; one broken clip never stops the rest.

        Raises:
            MediaError: At the end, with every clip that failed and why, unless `on_missing` is "skip".
        """
        views = self.sources(splits)
        self.report(extract(self.cache, views, workers=self.workers, device=self.device), len(views))

    def sources(self, splits: Sequence[Split]) -> dict[Source, int]:
        """The clips of some splits, with how many views of each are cached."""
        views: dict[Source, int] = {}
        for split in (split for split in splits if split in self.available):
            for item in self.items(split):  # an id may stand in several splits (AVE): training's views win
                source = item.source
                if not self.part.has(source.id):
                    continue
                views[source] = max(views.get(source, 1), self.cached_views(split))
        return views

    def report(self, broken: Mapping[str, str], clips: int) -> None:
        """Name the clips that could not be read, each with its reason.

        Raises:
            MediaError: Of all of them, unless `on_missing` is "skip".
        """
        if not broken:
            return
        listing = "".join(f"\n  {_named(id_, reason)}" for id_, reason in sorted(broken.items()))
        message = f"{len(broken)} of {clips} clips could not be read:{listing}"
        if self.on_missing == "error":
            raise MediaError(f"{message}\nThe others are done. `data.on_missing: skip` goes on without these.")
        print(f"{message}\nGoing on without them (on_missing: skip).")

    def setup(self, stage: str) -> None:
        """Bring the splits of a stage into memory."""
        for split in SPLITS_OF_STAGE.get(stage, ()):
            if split not in self.sets:
                self.sets[split] = self.load(split)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled, a random view of each clip."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Batch]:
        """In order, unaugmented."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """In order, unaugmented."""
        return self._loader("test")

    def _loader(self, split: Split) -> DataLoader[Batch]:
        ours = shares(self.batches(split), self.trainer, training=split == "train")
        ahead: dict[str, Any] = {"num_workers": self.loaders, "persistent_workers": self.loaders > 0}
        return Loader(ShareSet(self.sets[split]), sampler=ours, batch_size=None, **ahead)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:  # noqa: ARG002 - Lightning's
        """Augment pictures on the device they are on."""
        if batch.seeds is None:
            return batch
        images = augment(batch.visual.flatten(0, 2), batch.seeds.flatten())
        return batch._replace(visual=images.view(batch.visual.shape), seeds=None)


def _read(
    cache: FeatureCache, sources: Sequence[Source], modality: Modality, clip: int, view: int, segments: slice
) -> Tensor:
    """What `Column` asks for; a process that reads batches ahead gets a copy."""
    return cache.read(sources[clip], modality, view, segments)


def _named(name: str, message: str) -> str:
    """A message that says once what it is about.

    >>> _named("a.mp4", "is empty"), _named("a.mp4", "clips/a.mp4: is empty")
    ('a.mp4: is empty', 'clips/a.mp4: is empty')
    """
    return message if f"{name}: " in message else f"{name}: {message}"
