"""The index of shards: columns of a safetensors file that stay on disk until a row is asked for."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from avzoo.errors import DataNotFoundError, MediaError
from avzoo.files import whole

NUMBERS = {"shard": np.int32, "offset": np.int64, "size": np.int64, "start": np.float64}
EVENTS = {"label": np.int32, "event_start": np.float64, "event_stop": np.float64}


class Entry(NamedTuple):
    """A row of the index.

    Attributes:
        key: The item's.
        id: The clip's.
        shard: Its number among all shards.
        offset: Where its record begins, bytes.
        size: Of its record, bytes.
        sha256: Of its record, 32 bytes.
        start: Where in its file the item begins, s.
        events: (index of the class, start, end) of each, s from there on; of a scene one.
    """

    key: str
    id: str
    shard: int
    offset: int
    size: int
    sha256: bytes
    start: float
    events: tuple[tuple[int, float, float], ...]


def write_index(path: Path, entries: Iterable[Entry]) -> None:
    """Write the columns of all rows, and the order of their keys' hashes for `Index.find`."""
    kinds = {**NUMBERS, **EVENTS, "key_end": np.int64, "id_end": np.int64, "event_end": np.int64}
    numbers: dict[str, array[Any]] = {name: array("d" if kind is np.float64 else "q") for name, kind in kinds.items()}
    texts = {name: bytearray() for name in ("key", "id", "sha256", "hash")}
    for entry in entries:
        for name in NUMBERS:
            numbers[name].append(getattr(entry, name))
        for name in ("key", "id"):
            texts[name] += getattr(entry, name).encode()
            numbers[f"{name}_end"].append(len(texts[name]))
        texts["sha256"] += entry.sha256
        texts["hash"] += _hash(entry.key)
        for event in entry.events:
            for name, value in zip(EVENTS, event, strict=True):
                numbers[name].append(value)
        numbers["event_end"].append(len(numbers["label"]))
    hashes = np.frombuffer(texts.pop("hash"), np.uint64)
    order = np.argsort(hashes, kind="stable")
    columns = {name: np.frombuffer(column, column.typecode).astype(kinds[name]) for name, column in numbers.items()}
    columns |= {name: np.frombuffer(text, np.uint8) for name, text in texts.items()}
    with whole(path) as unfinished:
        save_file({**columns, "hash": hashes[order], "row": order.astype(np.int32)}, unfinished)


def _hash(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=8).digest()


class Index:
    """The rows of an index.

    Args:
        path: What `write_index` wrote.

    Raises:
        MediaError: If it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with safe_open(path, "pt") as file:  # by torch, whose tensors lie in the file's memory map
                columns = {name: file.get_tensor(name).numpy() for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise MediaError(f"{path} cannot be read ({error}): copy it again, or pack the data again") from error
        self.columns: dict[str, NDArray[Any]] = columns

    def __len__(self) -> int:
        return len(self.columns["size"])

    def _part(self, name: str, row: int) -> slice:
        """Where the texts or events of a row stand among those of all rows."""
        ends = self.columns[f"{name}_end"]
        return slice(int(ends[row - 1]) if row else 0, int(ends[row]))

    def key(self, row: int) -> str:
        """An item's key."""
        return self.columns["key"][self._part("key", row)].tobytes().decode()

    def id(self, row: int) -> str:
        """The id of an item's clip."""
        return self.columns["id"][self._part("id", row)].tobytes().decode()

    def events(self, row: int) -> list[tuple[int, float, float]]:
        """(index of the class, start, end) of each event of an item."""
        part = self._part("event", row)
        return list(zip(*(self.columns[name][part].tolist() for name in EVENTS), strict=True))

    def start(self, row: int) -> float:
        """Where in its file an item begins, s."""
        return float(self.columns["start"][row])

    def shard(self, row: int) -> int:
        """The number of the shard that an item's record is in."""
        return int(self.columns["shard"][row])

    def span(self, row: int) -> tuple[int, int]:
        """Where in its shard an item's record begins and ends, bytes."""
        offset = int(self.columns["offset"][row])
        return offset, offset + self.size(row)

    def size(self, row: int) -> int:
        """Of an item's record, bytes."""
        return int(self.columns["size"][row])

    def sha256(self, row: int) -> str:
        """Of an item's record."""
        return self.columns["sha256"][32 * row : 32 * row + 32].tobytes().hex()

    def find(self, key: str) -> int:
        """The row of a key; the first, if it stands in several splits.

        Raises:
            DataNotFoundError: If there is none.
        """
        wanted = np.frombuffer(_hash(key), np.uint64)[0]
        hashes = self.columns["hash"]
        for place in range(int(np.searchsorted(hashes, wanted)), len(hashes)):
            if hashes[place] != wanted:
                break
            row = int(self.columns["row"][place])
            if self.key(row) == key:
                return row
        raise DataNotFoundError(f"{self.path} has no key {key!r} among its {len(self)}")
