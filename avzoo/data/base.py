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
from typing import Any, Literal, NamedTuple

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from avzoo.data.features import FeatureCache, Source, extract
from avzoo.errors import AvzooError, MediaError
from avzoo.preprocess import Batch, Preprocess

Split = Literal["train", "val", "test"]
BACKGROUND = "background"


class Row(NamedTuple):
    """One row of a batch: an item, and how it is varied in training.

    Attributes:
        item: Which item.
        view: Which of its views.
        picture: Another item of the same class: where both have their event, its pictures are shown; -1 for none.
        sound: Likewise, whose sound is heard.
        backwards: Whether time runs backwards.
    """

    item: int
    view: int = 0
    picture: int = -1
    sound: int = -1
    backwards: bool = False


Draw = Sequence[Row]


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
        background: The label that is no event.
    """

    def __init__(
        self, audio: Tensor, visual: Tensor, clip: Tensor, label: Tensor, ids: list[str], background: int
    ) -> None:
        self.audio, self.visual, self.clip, self.label, self.ids = audio, visual, clip, label, ids
        self.background = background

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def category(self) -> Tensor:
        """The class of each item's event, int64 `[items]`; the background where there is none."""
        events = torch.where(self.label == self.background, -1, self.label).amax(1)
        return torch.where(events < 0, self.background, events)

    def __getitem__(self, draw: Draw) -> Batch:
        items, views, pictures, sounds, backwards = (torch.tensor(column) for column in zip(*draw, strict=True))
        label = self.label[items]
        audio = self._exchange(self.audio, items, views, sounds)
        visual = self._exchange(self.visual, items, views, pictures)
        audio, visual, label = (torch.where(_like(backwards, x), x.flip(1), x) for x in (audio, visual, label))
        return Batch(audio, visual, label, [self.ids[item] for item in items])

    def _exchange(self, features: Tensor, items: Tensor, views: Tensor, others: Tensor) -> Tensor:
        """Features `[rows, segments, ...]`, in the seconds that share an event with another item those of the other."""
        own = features[self.clip[items], views]
        if (others < 0).all():
            return own
        label = self.label[items]
        shared = (self.label[others] == label) & (label != self.background) & (others >= 0)[:, None]
        return torch.where(_like(shared, own), features[self.clip[others], views], own)


def _like(mask: Tensor, x: Tensor) -> Tensor:
    """A mask of the first dimensions of `x`, ready to broadcast over the others."""
    return mask.reshape(*mask.shape, *[1] * (x.ndim - mask.ndim))


class EpochBatches(Sampler[Draw]):
    """Batches of rows: shuffled and varied in training, in order and as they are otherwise.

    Epoch `e` is the same whatever happened before it: all that is random comes from `(seed, e)`.

    Args:
        items: How many there are.
        batch_size: Rows a batch.
        shuffle: Whether this is training; what follows is read only then.
        views: One of these many views of each item is drawn.
        category: The class of each item, int64 `[items]`, by which partners are found.
        swap: Share of the rows that get another item's pictures; half as many get another's sound.
        reverse: Share of the rows that run backwards.
        seed: Of all randomness.
    """

    def __init__(
        self,
        items: int,
        batch_size: int,
        *,
        shuffle: bool = False,
        views: int = 1,
        category: Tensor | None = None,
        swap: float = 0.0,
        reverse: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.items, self.batch_size, self.shuffle, self.views, self.seed = items, batch_size, shuffle, views, seed
        self.category, self.swap, self.reverse = category, swap, reverse
        self.epoch = 0

    def __len__(self) -> int:
        return -(-self.items // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that is drawn next; Lightning calls it, also when it resumes."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Draw]:
        rows = self._varied() if self.shuffle else [Row(item) for item in range(self.items)]
        self.epoch += 1
        for start in range(0, self.items, self.batch_size):
            yield rows[start : start + self.batch_size]

    def _varied(self) -> list[Row]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.items, generator=generator)
        views = torch.randint(self.views, (self.items,), generator=generator)
        pictures = self._partners(order, self.swap, generator)
        sounds = self._partners(order, self.swap / 2, generator)
        backwards = torch.rand(self.items, generator=generator) < self.reverse
        columns = (column.tolist() for column in (order, views, pictures, sounds, backwards))
        return [Row(*row) for row in zip(*columns, strict=True)]

    def _partners(self, order: Tensor, share: float, generator: torch.Generator) -> Tensor:
        """For each item in `order` another of its class, drawn at random, or -1 in all but a `share` of the rows."""
        if self.category is None or share == 0:
            return torch.full_like(order, -1)
        partners = torch.empty_like(order)
        for name in torch.unique(self.category):
            members = (self.category == name).nonzero().squeeze(1)
            mine = self.category[order] == name
            partners[mine] = members[torch.randint(len(members), (int(mine.sum()),), generator=generator)]
        return torch.where(torch.rand(self.items, generator=generator) < share, partners, -1)


class AVDataModule(L.LightningDataModule, ABC):
    """A dataset of labelled clips whose frozen features are extracted once, cached and held in memory.

    Args:
        preprocess: The numbers of the signal path; on the command line the top-level `preprocess` sets them.
        batch_size: Clips a step.
        views: Views of a training clip: 1 is the clip itself, more add seeded augmentations of sound and picture
            (see `avzoo.augment`), one of which is drawn per epoch.
        swap: Share of the training clips that, in the seconds of their event, show the pictures of another clip's event
            of the same class; half as many sound like another one. Labels stay true, and new pairs arise every epoch.
        reverse: Share of the training clips that run backwards, second by second.
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
        swap: float = 0.0,
        reverse: float = 0.0,
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
        self.swap, self.reverse = swap, reverse
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
        sources = list(dict.fromkeys(Source(item.id, item.path) for item in items))
        stored = [[self.cache.read(source, view) for view in range(views)] for source in sources]
        position = {source: index for index, source in enumerate(sources)}
        return FeatureSet(
            torch.stack([torch.stack([sample.audio for sample in views_of]) for views_of in stored]),
            torch.stack([torch.stack([sample.visual for sample in views_of]) for views_of in stored]),
            torch.tensor([position[Source(item.id, item.path)] for item in items]),
            torch.stack([segment_labels(item, self.classes, self.preprocess) for item in items]),
            [item.id for item in items],
            len(self.classes) - 1,
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
        batches = EpochBatches(
            len(features),
            self.batch_size,
            shuffle=split == "train",
            views=features.audio.shape[1],
            category=features.category,
            swap=self.swap,
            reverse=self.reverse,
            seed=self.seed,
        )
        return DataLoader(features, sampler=batches, batch_size=None)
