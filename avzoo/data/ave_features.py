"""The HDF5 files that come with the code of the AVE authors: features, orders of the splits, the noisy videos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import h5py
import torch
from torch import Tensor

from avzoo.errors import AnnotationError, AvzooError, DataNotFoundError


@contextmanager
def _dataset(path: Path) -> Iterator[h5py.Dataset]:
    """The one dataset of an HDF5 file; its name differs between the authors' files."""
    if not path.is_file():
        raise DataNotFoundError(f"{path}: there is no such file; it comes with the code of the AVE authors")
    try:
        file = h5py.File(path)
    except OSError as error:
        raise DataNotFoundError(f"{path}: not a whole HDF5 file, get it again ({error})") from error
    with file:
        found = [node for node in file.values() if isinstance(node, h5py.Dataset)]
        if len(found) != 1:
            raise AvzooError(f"{path}: holds {list(file)}, expected exactly one dataset")
        yield found[0]


def read_order(path: Path, lines: int) -> list[int]:
    """The rows of `Annotations.txt`, which has so many `lines`, that a split's `*_order.h5` names.

    Raises:
        DataNotFoundError: If there is no such file, or not all of it.
        AnnotationError: If it names rows that are not there.
    """
    with _dataset(path) as data:
        order = [int(row) for row in data[:].ravel()]
    for row in order:
        if not 0 <= row < lines:
            raise AnnotationError(
                f"{path}: line {row} (from 0) of Annotations.txt, which has {lines}; are they a pair?"
            )
    return order


def count_noisy(path: Path) -> int:
    """How many videos the noisy set has; its labels are one-hot, `[videos, 29]`, the background last.

    Raises:
        DataNotFoundError: If there is no such file, or not all of it.
        AnnotationError: If one of them has an event.
    """
    with _dataset(path) as data:
        labels = torch.from_numpy(data[:])
    if not bool((labels.argmax(-1) == labels.shape[-1] - 1).all()):
        raise AnnotationError(f"{path}: some of these videos have an event, expected the background (last) throughout")
    return len(labels)


def read_features(path: Path, rows: Sequence[int], *, clips: int, segments: int, keep_maps: bool = False) -> Tensor:
    """Some rows of a feature file, float32 `[rows, segments, features]`; at most 128 of its rows are read at once.

    Maps `[clips, segments, height, width, features]` are pooled, or kept as `[rows, segments, regions, features]`.

    Raises:
        DataNotFoundError: If there is no such file, or not all of it.
        AvzooError: If it has another shape.
    """
    with _dataset(path) as data:
        has_maps = data.ndim == 5 and data.shape[2] == data.shape[3]
        if data.shape[:2] != (clips, segments) or not (has_maps or (data.ndim == 3 and not keep_maps)):
            raise AvzooError(
                f"{path}: shape {data.shape}, expected [{clips}, {segments}, 7, 7, 512] (channels last)"
                + ("" if keep_maps else f" or [{clips}, {segments}, features]")
            )
        regions = [data.shape[2] * data.shape[3]] if keep_maps else []
        found = torch.empty(len(rows), segments, *regions, data.shape[-1])
        for positions in _runs(rows, data.chunks):
            wanted = torch.tensor([rows[position] for position in positions])
            first, last = int(wanted[0]), int(wanted[-1])
            part = torch.from_numpy(data.astype("float32")[first : last + 1])[wanted - first]
            if has_maps:
                part = part.flatten(2, 3) if keep_maps else part.mean((2, 3))
            found[positions] = part
        return found


def _runs(rows: Sequence[int], chunks: tuple[int, ...] | None) -> Iterator[list[int]]:
    """Positions in `rows`, each group of them one read: neighbours, or what lies in one chunk of the file."""
    ordered = enumerate(sorted(range(len(rows)), key=rows.__getitem__))

    def run(numbered: tuple[int, int]) -> tuple[int, int]:
        number, position = numbered
        if chunks is None:
            return number // 32, rows[position] - number  # constant while the rows follow one another
        return rows[position] // min(chunks[0], 128), 0

    for _, group in groupby(ordered, run):
        yield [position for _, position in group]
