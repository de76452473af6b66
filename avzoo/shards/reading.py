"""`Shards`: any record of a packed dataset, by row or by key."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avzoo.errors import AvzooError, DataNotFoundError, MediaError
from avzoo.files import FULL, sha256
from avzoo.shards.index import Index
from avzoo.shards.records import Record, members
from avzoo.shards.storage import Storage

if TYPE_CHECKING:
    from avzoo.preprocess import Preprocess

FORMAT = 1
AHEAD = 64 << 20  # bytes of records that `fetch` brought and that stay in memory, but at least those of one batch
OPEN = 64  # files


class Shards:
    """A packed dataset.

    From a URL, shards are fetched whole where all of them fit into the cache (or the server knows no byte ranges), and
    records by byte ranges otherwise: in a random order, a cache that holds a part of the shards would hardly ever help.

    Args:
        root: Its folder, or a URL: `s3://bucket/folder`, `gs://...`, `https://...`, whatever fsspec knows.
        cache: Where what comes from a URL is kept; default `$AVZOO_CACHE/shards`.
        cache_size: Bytes that may be kept there, other datasets' included.

    Raises:
        DataNotFoundError: If there are no shards, or they are not finished.
        MediaError: If they cannot be read.
        AvzooError: If another avzoo packed them.
    """

    def __init__(self, root: str | Path, *, cache: Path | None = None, cache_size: int = 100_000_000_000) -> None:
        self.storage = Storage(str(root), cache, cache_size)
        self.root = self.storage.root
        try:
            self.facts: dict[str, Any] = json.loads(self.storage.content("shards.json"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise MediaError(f"{self.root}/shards.json is no JSON ({error}): copy it again") from error
        known = self.facts.get("format") if isinstance(self.facts, dict) else self.facts
        if known != FORMAT:
            raise AvzooError(
                f"{self.root}: format {known!r} of shards, expected {FORMAT}: use the avzoo that packed them, or pack"
                " again"
            )
        if "index" not in self.facts:
            raise DataNotFoundError(f"{self.root} is not finished: run the same `avzoo shard` again, it goes on")
        self.content: str = self.facts["content"]
        self.names = list(self.facts["shards"])
        if self.storage.remote:
            self.storage.folder = self.storage.cache / self.facts["index"]["sha256"][:16]
        size, digest = self.facts["index"]["size"], self.facts["index"]["sha256"]
        self._again = "delete" if self.storage.remote else "copy again"
        self.index = Index(self.storage.path("index.safetensors", size, digest))
        if sha256(self.index.path) != digest:  # it says what the labels are
            what = f"{self.root}/index.safetensors is damaged (sha256)"
            raise MediaError(f"{what}: {self._again} {self.index.path}, or pack the data again")
        ends = np.cumsum([0, *self.facts["splits"].values()]).tolist()
        self.splits = {split: range(*ends[n : n + 2]) for n, split in enumerate(self.facts["splits"])}
        self._verified = bytearray(len(self.index))
        self._open: OrderedDict[str, int] = OrderedDict()
        weakref.finalize(self, _close, self._open)
        self._ahead: OrderedDict[int, Record] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        return open_shards, (self.root, self.storage.cache, self.storage.limit)

    def check(self, preprocess: Preprocess) -> None:
        """Refuse a signal path that what is packed does not fit.

        Raises:
            AvzooError: With the numbers that differ.
        """
        made = self.facts["preprocess"]
        wanted = requirements(self.content, preprocess)
        differ = [name for name in wanted if wanted[name] != made.get(name)]
        numbers = [name for name in differ if not name.endswith("fingerprint")] or differ
        if numbers:
            raise AvzooError(
                f"{self.root}: these {self.content} were made with"
                f" {', '.join(f'{name}={made.get(name)!r}' for name in numbers)}, the recipe wants"
                f" {', '.join(f'{name}={wanted[name]!r}' for name in numbers)}: change its preprocess, or pack again"
            )

    def read(self, row: int | str) -> Record:
        """The members of a record by their extension, whose sha256 was compared with the index.

        Args:
            row: Its number, or its key.

        Raises:
            DataNotFoundError: If there is no such record, or its shard is gone.
            MediaError: If it is not what was packed, or cannot be read.
        """
        row = self.index.find(row) if isinstance(row, str) else row
        if not 0 <= row < len(self.index):
            raise DataNotFoundError(f"{self.root} has no row {row} among its {len(self.index)}")
        return self._ahead[row] if row in self._ahead else next(self._records([row]))

    def fetch(self, rows: Iterable[int]) -> None:
        """Bring the records of a batch into memory, over a network all at once; older ones make room."""
        asked = list(dict.fromkeys(rows))
        wanted = [row for row in asked if row not in self._ahead]
        for row, record in zip(wanted, self._records(wanted), strict=True):
            self._ahead[row] = record
        for row in asked:
            self._ahead.move_to_end(row)
        kept = sum(self.index.size(row) for row in self._ahead)
        while kept > AHEAD and len(self._ahead) > len(asked):
            kept -= self.index.size(self._ahead.popitem(last=False)[0])

    def _records(self, rows: list[int]) -> Iterator[Record]:
        if not self._by_ranges:
            yield from (members(self._from_file(row), functools.partial(self.where, row)) for row in rows)
            return
        spans = [(self.names[self.index.shard(row)], *self.index.span(row)) for row in rows]
        for row, found in zip(rows, self.storage.ranges(spans) if spans else [], strict=True):
            record = bytearray(found)
            self._verify(row, record, "copy its shard there again")
            yield members(record, functools.partial(self.where, row))

    @functools.cached_property
    def _by_ranges(self) -> bool:
        if not self.storage.remote:
            return False
        everything = sum(self.facts["shards"].values()) + self.facts["index"]["size"]
        return everything > self.storage.limit and self.storage.has_ranges

    def where(self, row: int) -> str:
        """Which record a row's is, for errors."""
        return f"{self.root}/{self.names[self.index.shard(row)]}, record {self.index.key(row)!r}"

    def _from_file(self, row: int) -> bytearray:
        start, end = self.index.span(row)
        record, done, got = bytearray(end - start), 0, 1
        name, rest = self.names[self.index.shard(row)], memoryview(record)
        try:
            while done < len(record) and got:  # at most 2 GiB come at once
                got = os.preadv(self._file(name), [rest[done:]], start + done)
                done += got
        except OSError as error:
            if error.errno in FULL:
                raise  # it is the cache that cannot be written
            raise MediaError(f"{self.where(row)} cannot be read: {error}") from error
        if done < len(record) or not self._verified[row]:
            self._verify(row, record, f"{self._again} {self.storage.folder / name}")
            self._verified[row] = 1
        return record

    def _file(self, name: str) -> int:
        """A shard, open; read by position, not mapped: a map counts as memory of the process."""
        while name not in self._open:
            path = self.storage.path(name, self.facts["shards"][name])
            if len(self._open) >= OPEN:
                os.close(self._open.popitem(last=False)[1])
            with contextlib.suppress(FileNotFoundError):  # another process has just made room
                self._open[name] = os.open(path, os.O_RDONLY)
        self._open.move_to_end(name)
        return self._open[name]

    def _verify(self, row: int, record: bytearray, advice: str) -> None:
        if hashlib.sha256(record).hexdigest() != self.index.sha256(row):
            raise MediaError(f"{self.where(row)} is damaged (sha256): {advice}, or pack the data again")


def requirements(content: str, preprocess: Preprocess) -> dict[str, Any]:
    """The numbers of the signal path that packed clips, frames or features depend on, and no other."""
    every = preprocess.to_dict()
    if content == "features":
        return every | {f"{kind} fingerprint": preprocess.fingerprint(kind) for kind in ("audio", "visual")}
    names = ("seconds", "segments", *(("fps", "size", "interpolation") if content == "frames" else ()))
    return {name: every[name] for name in names}


def _close(files: Mapping[str, int]) -> None:
    for file in files.values():
        os.close(file)


@functools.cache
def open_shards(root: str, cache: Path | None = None, cache_size: int = 100_000_000_000) -> Shards:
    """`Shards`, opened once in a process."""
    return Shards(root, cache=cache, cache_size=cache_size)
