"""What every dataset shares: items, the extraction of their features, and loaders.

A dataset writes `items(split)` and `classes`. What a label means is in `events.py` (one for every segment) and
`scenes.py` (one for a clip); all randomness of an epoch lives in their batch samplers, seeded by seed and epoch.
"""

from __future__ import annotations

import os
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from avzoo.augment import augment
from avzoo.data.features import FeatureCache, Source, extract
from avzoo.errors import AvzooError, MediaError, named
from avzoo.parts import Part
from avzoo.preprocess import Batch, Preprocess

Split = Literal["train", "val", "test"]
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


class Share(NamedTuple):
    """What one process takes of a batch.

    Attributes:
        rows: What indexes the dataset; one row where the share is none.
        weight: See `Batch`.
    """

    rows: Any
    weight: float


class Shares(Sampler[Share]):
    """The share that one of several processes takes of every batch; together they take each row once.

    Args:
        batches: The batches of all processes together.
        rank: Which process.
        world: How many there are.
        position: How many batches of the epoch are done when it begins, asked for then.

    >>> [share.rows for share in Shares([[0, 1, 2], [3]], rank=1, world=2)], Shares([[3]], rank=0, world=2).take([3])
    ([[1, 2], [3]], Share(rows=[3], weight=0.0))
    """

    def __init__(self, batches: Any, *, rank: int = 0, world: int = 1, position: Callable[[], int] = lambda: 0) -> None:
        self.batches, self.rank, self.world, self.position = batches, rank, world, position
        self.streams = getattr(batches, "streams", 1)

    def __len__(self) -> int:
        return len(self.batches)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that is drawn next."""
        self.batches.set_epoch(epoch)

    def __iter__(self) -> Iterator[Share]:
        for rows in islice(self.batches, self.position(), None):
            yield self.take(rows)

    def take(self, rows: Any) -> Share:
        """This process's share: a contiguous one of every stream that the batch joins."""
        if self.world == 1:
            return Share(rows, 1.0)
        whole = len(rows) // self.streams
        first, last = whole * self.rank // self.world, whole * (self.rank + 1) // self.world
        weight = (last - first) * self.world / whole
        if first == last:
            first, last = 0, 1
        parts = [rows[start + first : start + last] for start in range(0, len(rows), whole)]
        return Share(torch.cat(parts) if self.streams > 1 else parts[0], weight)


def shares(batches: Any, trainer: L.Trainer | None, *, training: bool) -> Shares:
    """What this process of a training takes of every batch, in training from where its epoch was left."""
    if trainer is None:
        return Shares(batches)
    done = trainer.fit_loop.epoch_loop.batch_progress.current
    position = (lambda: done.ready) if training else (lambda: 0)
    return Shares(batches, rank=trainer.global_rank, world=trainer.world_size, position=position)


class ShareSet(Dataset[Batch]):
    """A dataset that is indexed by a whole batch, indexed by shares."""

    def __init__(self, whole: Dataset[Batch]) -> None:
        self.whole = whole

    def __getitem__(self, share: Share) -> Batch:
        return self.whole[share.rows]._replace(weight=share.weight)


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


class Loader(DataLoader[Any]):
    """A loader whose processes change nothing: neither where an epoch goes on nor the random numbers of this one.

    A cluster sends SIGTERM to them as well; they go on until this process, which saves first, ends them.

    Args:
        batches: What is indexed by a share.
        options: As of `DataLoader`.
    """

    def __init__(self, batches: Dataset[Any], **options: Any) -> None:
        super().__init__(batches, generator=torch.Generator(), worker_init_fn=_obey_parent, **options)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        torch.empty((), dtype=torch.int64).random_()  # as a loader does that has no generator and no processes
        return self._begin()

    def _begin(self) -> Iterator[Any]:
        """With the first batch, not before: only then a trainer that goes on knows its place."""
        yield from super().__iter__()


def _obey_parent(number: int) -> None:  # noqa: ARG001 - of the process, torch's
    """Let SIGTERM end this process only if the parent sends it; no handler of Python's can tell."""
    if hasattr(signal, "sigwaitinfo"):  # Linux
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_await_parent, daemon=True).start()


def _await_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


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
        return ("train", "val", "test")

    @abstractmethod
    def dataset(self, split: Split, items: Sequence[Item]) -> Dataset[Batch]:
        """Some items, all of whose features are cached, as a dataset that is indexed by a whole batch."""

    @abstractmethod
    def batches(self, split: Split) -> Sampler[Any]:
        """Which rows of `sets[split]` make a batch; its `set_epoch` chooses the epoch."""

    def cached_views(self, split: Split) -> int:
        """How many views of a split's pictures are kept in the cache."""
        return self.views if split == "train" and self.preprocess.visual_kind != "image" else 1

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
        splits: dict[str | None, tuple[Split, ...]] = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}
        self.extract(splits.get(stage, ("train", "val", "test")))

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
        listing = "".join(f"\n  {named(id_, reason)}" for id_, reason in sorted(broken.items()))
        message = f"{len(broken)} of {clips} clips could not be read:{listing}"
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
        ours = shares(self.batches(split), self.trainer, training=split == "train")
        ahead: dict[str, Any] = {"num_workers": self.loaders, "persistent_workers": self.loaders > 0}
        return Loader(ShareSet(self.sets[split]), sampler=ours, batch_size=None, **ahead)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:  # noqa: ARG002 - Lightning's
        """Augment pictures on the device they are on."""
        if batch.seeds is None:
            return batch
        images = augment(batch.visual.flatten(0, 2), batch.seeds.flatten())
        return batch._replace(visual=images.view(batch.visual.shape), seeds=None)
