"""What every dataset shares: items, batches, loaders, and how a split becomes tensors.

A dataset writes `items(split)` and `classes`; everything else is here. The frozen features of a split are held in
memory (AVE's are 361 MB), a batch is one index into them, and all randomness of an epoch (order and augmented
views) lives in `EpochBatches`, seeded by seed and epoch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from avzoo.data.features import FeatureCache, Source, extract
from avzoo.errors import AvzooError, ClassMismatchError, MediaError
from avzoo.preprocess import Batch, Preprocess

Split = Literal["train", "val", "test"]
BACKGROUND = "background"
Draw = Sequence[tuple[int, int]]  # (index of an item, which of its views) for every row of a batch


@dataclass(frozen=True)
class Item:
    """One labelled row of a dataset.

    Attributes:
        key: Unique: the id, or `id#row` where an id stands on several rows.
        id: The clip; features belong to it.
        path: Its video.
        label: The category.
        start: Where the event begins, s.
        end: Where it ends, s, exclusive; `start == end` is background throughout.
    """

    key: str
    id: str
    path: Path
    label: str
    start: float
    end: float


def segment_labels(item: Item, classes: Sequence[str], preprocess: Preprocess) -> Tensor:
    """The class of every segment, int64 `[segments]`: the item's where its event covers the segment's middle.

    >>> p = Preprocess(audio_backbone="vggish", visual_backbone="tf_efficientnet_lite0")
    >>> segment_labels(Item("a", "a", Path("a.mp4"), "drone", 2, 4), ["drone", "background"], p).tolist()
    [1, 1, 0, 0, 1, 1, 1, 1, 1, 1]
    """
    middle = (torch.arange(preprocess.segments) + 0.5) * preprocess.segment_seconds
    inside = (middle >= item.start) & (middle < item.end)
    return torch.where(inside, classes.index(item.label), len(classes) - 1)


class FeatureSet(Dataset[Batch]):
    """A split in memory; indexed by a whole batch at a time.

    Args:
        audio: `[clips, views, segments, ...]`.
        visual: `[clips, views, segments, ...]`.
        clip: Which clip each item shows, int64 `[items]` (an id may stand on several rows).
        label: Int64 `[items, segments]`.
        ids: The items' ids.
    """

    def __init__(self, audio: Tensor, visual: Tensor, clip: Tensor, label: Tensor, ids: list[str]) -> None:
        self.audio, self.visual, self.clip, self.label, self.ids = audio, visual, clip, label, ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, draw: Draw) -> Batch:
        rows = torch.tensor([row for row, _ in draw])
        views = torch.tensor([view for _, view in draw])
        clips = self.clip[rows]
        return Batch(
            self.audio[clips, views], self.visual[clips, views], self.label[rows], [self.ids[row] for row, _ in draw]
        )


class EpochBatches(Sampler[Draw]):
    """Batches of (item, view): shuffled and with a random view in training, in order with view 0 otherwise.

    Epoch `e` is the same whatever happened before it: both order and views come from `(seed, e)`.
    """

    def __init__(self, items: int, batch_size: int, *, views: int = 1, shuffle: bool = False, seed: int = 0) -> None:
        self.items, self.batch_size, self.views, self.shuffle, self.seed = items, batch_size, views, shuffle, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch; Lightning calls this, so that a resumed training goes on with the order it would have had."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.items // self.batch_size)

    def __iter__(self) -> Iterator[Draw]:
        order, views = torch.arange(self.items), torch.zeros(self.items, dtype=torch.int64)
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            order = torch.randperm(self.items, generator=generator)
            views = torch.randint(self.views, (self.items,), generator=generator)
        self.epoch += 1
        draws = list(zip(order.tolist(), views.tolist(), strict=True))
        for start in range(0, self.items, self.batch_size):
            yield draws[start : start + self.batch_size]


class AVDataModule(L.LightningDataModule, ABC):
    """A dataset of labelled clips whose frozen features are extracted once, cached and held in memory.

    Args:
        preprocess: The numbers of the signal path; on the command line the top-level `preprocess` sets them.
        batch_size: Clips a step.
        views: Views of a training clip: 1 is the clip itself, more add seeded augmentations of sound and picture
            (see `avzoo.augment`), one of which is drawn per epoch.
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
        if views < 1 or batch_size < 1:
            raise AvzooError(f"views={views}, batch_size={batch_size}: both must be at least 1")
        self.preprocess = Preprocess.of(preprocess)
        self.batch_size, self.views, self.seed = batch_size, views, seed
        self.workers, self.device, self.on_missing = workers, device, on_missing
        self.cache = FeatureCache(self.preprocess, folder=cache, on_missing_audio=on_missing_audio, on_damage=on_damage)
        self.sets: dict[Split, FeatureSet] = {}

    @property
    @abstractmethod
    def classes(self) -> list[str]:
        """The label order; for events the last one is the background."""

    @abstractmethod
    def items(self, split: Split) -> list[Item]:
        """The labelled rows of a split."""

    def load(self, split: Split) -> FeatureSet:
        """The features and labels of a split, extracted already, in memory."""
        views = self.views if split == "train" else 1
        listed = self.items(split)
        items = [item for item in listed if all(self.cache.has(Source(item.id, item.path), v) for v in range(views))]
        if len(items) < len(listed) or not items:
            message = f"{split}: {len(listed) - len(items)} of {len(listed)} rows have no features"
            if self.on_missing == "error" or not items:
                raise MediaError(f"{message}; `avzoo extract` makes them and lists what is wrong with each clip")
            print(f"{message}; going on without them (on_missing: skip).")
        ids = list(dict.fromkeys(item.id for item in items))
        paths = {item.id: item.path for item in items}
        stored = [[self.cache.read(Source(id_, paths[id_]), view) for view in range(views)] for id_ in ids]
        position = {id_: index for index, id_ in enumerate(ids)}
        return FeatureSet(
            torch.stack([torch.stack([sample.audio for sample in views_of]) for views_of in stored]),
            torch.stack([torch.stack([sample.visual for sample in views_of]) for views_of in stored]),
            torch.tensor([position[item.id] for item in items]),
            torch.stack([segment_labels(item, self.classes, self.preprocess) for item in items]),
            [item.id for item in items],
        )

    # -- what Lightning calls ----------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Extract the features that the coming stage needs and that are not cached yet."""
        stage = self.trainer.state.fn if self.trainer is not None else None
        splits: dict[str | None, tuple[Split, ...]] = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}
        self.extract(splits.get(stage, ("train", "val", "test")))

    def extract(self, splits: Sequence[Split]) -> None:
        """Extract whatever is missing; one broken clip never stops the rest.

        Raises:
            MediaError: At the end, with every clip that failed and why, unless `on_missing` is "skip".
        """
        views: dict[Source, int] = {}
        for split in splits:
            for item in self.items(split):  # an id may stand in several splits (AVE): training's views win
                source = Source(item.id, item.path)
                views[source] = max(views.get(source, 1), self.views if split == "train" else 1)
        broken = extract(self.cache, views, workers=self.workers, device=self.device)
        if not broken:
            return
        listing = "".join(f"\n  {id_}: {reason}" for id_, reason in sorted(broken.items()))
        message = f"{len(broken)} of {len(views)} clips could not be read:{listing}"
        if self.on_missing == "error":
            raise MediaError(f"{message}\nThe others are done. `data.on_missing: skip` goes on without these.")
        print(f"{message}\nGoing on without them (on_missing: skip).")

    def setup(self, stage: str) -> None:
        """Bring the splits of a stage into memory."""
        wanted: dict[str, tuple[Split, ...]] = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}
        for split in wanted.get(stage, ()):
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
        features = self.sets[split]
        views = features.audio.shape[1]
        batches = EpochBatches(len(features), self.batch_size, views=views, shuffle=split == "train", seed=self.seed)
        return DataLoader(features, sampler=batches, batch_size=None)


def check_label(label: str, classes: Sequence[str], where: str) -> None:
    """Refuse a label that is not among the classes.

    Raises:
        ClassMismatchError: Naming the place and the classes.
    """
    if label not in classes:
        raise ClassMismatchError(f"{where}: {label!r} is none of the classes {list(classes)}")
