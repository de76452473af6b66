"""Sharded: a dataset that `avzoo shard` packed, from a folder or a URL, trained as the one it was packed from.

Order, partners, views and labels are those of the original. Features are read from the shards batch by batch, so that
memory stays flat; from clips and frames they are extracted into the feature cache first, under the record's sha256.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from avzoo.data.base import Item, Split, Task
from avzoo.data.column import Column
from avzoo.data.events import EventSet
from avzoo.data.scenes import SceneSet
from avzoo.data.shard_features import Reader, ShardCache, ShardSource, row_of
from avzoo.data.windows import Window, WindowDataModule
from avzoo.errors import AvzooError, DataNotFoundError
from avzoo.preprocess import Batch, Preprocess
from avzoo.shards import Shards

AT_ONCE = 1 << 16  # rows whose labels are made in one go


@dataclass(frozen=True)
class ShardWindow(Window):
    """A row of the index as an item; `path` is its shard."""

    row: int = 0

    @property
    def source(self) -> ShardSource:
        """The record that its features belong to."""
        return ShardSource(self.id, self.path, None, self.offset, self.row)


class Rows(Sequence[Item]):
    """The items of a split, each made when it is asked for: the index stays on disk."""

    def __init__(self, shards: Shards, rows: range) -> None:
        self.shards, self.rows = shards, rows
        self.classes: list[str] = shards.facts["classes"]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> ShardWindow: ...
    @overload
    def __getitem__(self, place: slice) -> Rows: ...
    def __getitem__(self, place: int | slice) -> ShardWindow | Rows:
        if isinstance(place, slice):
            return Rows(self.shards, self.rows[place])
        row, index = self.rows[place], self.shards.index
        events = tuple((self.classes[label], start, end) for label, start, end in index.events(row))
        longest = max(events, key=lambda event: event[2] - event[1])
        path = Path(self.shards.root, self.shards.names[index.shard(row)])
        return ShardWindow(index.key(row), index.id(row), path, *longest, None, index.start(row), events, row)


class Ids(Sequence[str]):
    """The ids of some rows, read when asked for."""

    def __init__(self, shards: Shards, rows: Sequence[int]) -> None:
        self.shards, self.rows = shards, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: Any) -> Any:
        return self.shards.index.id(self.rows[place])


class Sharded(WindowDataModule):
    """A dataset in shards, of scenes or of events as they were packed.

    Args:
        root: Its folder, or a URL: `s3://bucket/folder`, `gs://...`, `https://...`, whatever fsspec knows. Of packed
            features, `views` are at most as many as were packed.
        cache_size: GB that shards from a URL may take in `cache`, see `avzoo.shards.Shards`.
        loaders: Processes that read batches ahead, for shards that are far away; the batches are the same.
        options: As of `WindowDataModule` and `AVDataModule`.

    Raises:
        DataNotFoundError: If there are no finished shards.
        AvzooError: If they were made with other numbers, or an option is of the other task.
    """

    def __init__(
        self,
        root: str,
        *,
        cache_size: float = 100.0,
        loaders: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.root, self.loaders = root, loaders
        cache = options.get("cache")
        self._stored: dict[str, Any] = {
            "cache": cache and cache / "shards",
            "cache_size": round(cache_size * 1e9),
        }
        self._extracted: dict[str, Any] = {
            "folder": cache,
            "on_missing_audio": self.cache.on_missing_audio,
            "on_damage": self.cache.on_damage,
        }

    @functools.cached_property
    def shards(self) -> Shards:
        """What was packed, compared with what is wanted when it is first looked at."""
        shards = Shards(self.root, **self._stored)
        shards.check(self.preprocess)
        if shards.content == "features" and self.cached_views("train") > shards.facts["views"]:
            raise AvzooError(
                f"views={self.views}: {self.root} holds {shards.facts['views']}: set views to that, or pack more"
            )
        self.cache = ShardCache(shards, self.preprocess, **self._extracted)  # all that reads it has asked for rows
        return shards

    @property
    def task(self) -> Task:
        """What was packed."""
        task: Task = self.shards.facts["task"]
        return task

    @property
    def classes(self) -> list[str]:
        """The label order of what was packed."""
        return list(self.shards.facts["classes"])

    @property
    def available(self) -> tuple[Split, ...]:
        """The splits that were packed."""
        return tuple(self.shards.splits)

    def items(self, split: Split) -> Rows:
        """The rows of a split."""
        if split not in self.shards.splits:
            raise DataNotFoundError(f"{self.root} has no {split} shards, only {', '.join(self.shards.splits)}")
        self.check_options()
        return Rows(self.shards, self.shards.splits[split])

    def extract(self, splits: Sequence[Split]) -> None:
        """Extract what is missing; nothing to do where features were packed."""
        if self.shards.content != "features":
            super().extract(splits)

    def load(self, split: Split) -> Dataset[Batch]:
        """A split, whose features stay where they are until a batch wants them."""
        return self.dataset(split, self.items(split)) if self.shards.content == "features" else super().load(split)

    def dataset(self, split: Split, items: Sequence[Item]) -> Dataset[Batch]:
        """Some rows; what they are is as `SceneDataModule` and `EventDataModule` have it."""
        rows = items.rows if isinstance(items, Rows) else [row_of(item.source) for item in items]
        reader = Reader(ShardCache(self.shards, self.preprocess, **self._extracted), rows)
        ahead = reader.ahead if self.shards.content == "features" else None
        audio = Column(functools.partial(reader.read, "audio"), len(rows), memory=0, ahead=ahead)
        views = self.cached_views(split)
        visual = Column(functools.partial(reader.read, "visual"), len(rows), views, memory=0, ahead=ahead)
        ids, numbers = Ids(self.shards, rows), np.fromiter(rows, np.int64, len(rows))
        if self.task == "events":
            label = segment_labels(self.shards, numbers, self.preprocess)
            return EventSet(audio, visual, torch.arange(len(rows)), label, ids, len(self.classes) - 1)
        return SceneSet(
            audio,
            visual,
            scene_labels(self.shards, numbers),
            ids,
            examples=self.options["scenes"]["examples"] if split == "train" else "clip",
            live=split == "train" and self.preprocess.visual_kind == "image",
        )


def scene_labels(shards: Shards, rows: NDArray[np.int64]) -> Tensor:
    """The class of some rows of scenes, int64 `[rows]`."""
    columns = shards.index.columns
    return torch.from_numpy(columns["label"][columns["event_end"][rows] - 1].astype(np.int64))


def segment_labels(shards: Shards, rows: NDArray[np.int64], preprocess: Preprocess) -> Tensor:
    """The class of every segment of some rows, int64 `[rows, segments]`, as `window_labels` has it, of many at once."""
    label = torch.empty(len(rows), preprocess.segments, dtype=torch.int64)
    for start in range(0, len(rows), AT_ONCE):
        label[start : start + AT_ONCE] = _segment_labels(shards, rows[start : start + AT_ONCE], preprocess)
    return label


def _segment_labels(shards: Shards, rows: NDArray[np.int64], preprocess: Preprocess) -> Tensor:
    columns = shards.index.columns
    end = columns["event_end"]
    first, last = np.where(rows > 0, end[rows - 1], 0), end[rows]
    middle = (torch.arange(preprocess.segments) + 0.5) * preprocess.segment_seconds
    label = torch.full((len(rows), preprocess.segments), len(shards.facts["classes"]) - 1)
    for number in range(int((last - first).max())):  # the later of two events covers the earlier one
        there = torch.from_numpy(np.flatnonzero(first + number < last))
        event = (first + number)[there]
        start, stop = (torch.from_numpy(columns[n][event]).float()[:, None] for n in ("event_start", "event_stop"))
        own = torch.from_numpy(columns["label"][event].astype(np.int64))[:, None]
        label[there] = torch.where((middle >= start) & (middle < stop), own, label[there])
    return label
