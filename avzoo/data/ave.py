"""AVE: 4143 clips of 10 s, each with one audio-visual event, labelled by the second (Tian et al., ECCV 2018).

```
root/Annotations.txt                  Category&VideoID&Quality&StartTime&EndTime; the header line may be missing
root/{train,val,test}Set.txt          splits="lists": the dataset's own split, lines of the same form
root/{train,val,test}_order.h5        splits="orders": the split of the authors' code, rows of Annotations.txt from 0
root/AVE/<VideoID>.mp4                the videos, or instead of them:
features/{audio,visual}_feature.h5    the authors' VGGish and VGG-19 features, in the order of Annotations.txt
features/{audio,visual}_feature_noisy.h5, labels_noisy.h5
```

A line is an item, features belong to its id: 45 ids stand on several lines. Labels are rebuilt from the lines. Any
dataset of this layout is read alike, whatever its classes.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple

import h5py
import torch
from torch import Tensor
from torch.utils.data import Dataset

from avzoo.data.base import BACKGROUND, Item, Split
from avzoo.data.events import EventDataModule, EventSet, segment_labels
from avzoo.errors import AnnotationError, AvzooError, ClassMismatchError, DataNotFoundError, did_you_mean
from avzoo.preprocess import Batch

# The official order: that of first appearance in AVE's Annotations.txt. Never join or split names by commas.
AVE_CLASSES = (
    "Church bell", "Male speech, man speaking", "Bark", "Fixed-wing aircraft, airplane", "Race car, auto racing",
    "Female speech, woman speaking", "Helicopter", "Violin, fiddle", "Flute", "Ukulele", "Frying (food)", "Truck",
    "Shofar", "Motorcycle", "Acoustic guitar", "Train horn", "Clock", "Banjo", "Goat", "Baby cry, infant cry",
    "Bus", "Chainsaw", "Cat", "Horse", "Toilet flush", "Rodents, rats, mice", "Accordion", "Mandolin",
)  # fmt: skip
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class AVE(EventDataModule):
    """AVE, or any dataset in its layout; `classes` end with the background.

    A line that a split list has and `Annotations.txt` has not is used as it stands (its class must be known); lines of
    `Annotations.txt` in no split are not used. `extract` prints how many there are of both.

    Args:
        root: Folder of `Annotations.txt`, the splits and the folder `AVE` of videos.
        splits: Which of the two official splits: "lists" reads `trainSet.txt`, `valSet.txt` and `testSet.txt`, "orders"
            the `*_order.h5` of the authors' code (3339, 402 and 402 lines), in `root` or in `features`.
        classes: Label order; the background is appended if it is not there. Default: the official order if the names
            are AVE's, else the order of first appearance in `Annotations.txt`.
        extra: Another folder in the same layout; the videos of its training list join the training split.
        features: Folder of the authors' feature files, read instead of the videos. The picture is `[lines, 10, 7, 7,
            512]`, channels last, or vectors `[lines, 10, features]`; it cannot be augmented, so `views` is 1.
        maps: What becomes of 7x7 maps: "mean" pools them to one vector a segment, "keep" hands out
            `[segments, 49, 512]` for a model with attention (4 GB of memory for all of AVE).
        noisy: Append the authors' 178 videos without any event to the training split, as their weakly supervised
            training does; with `features` only.
        options: As of `EventDataModule` and `AVDataModule`.

    Raises:
        AvzooError: If `splits` or `maps` is none of those above, or an option does not go with `features`.
    """

    def __init__(
        self,
        root: Path,
        *,
        splits: Literal["lists", "orders"] = "lists",
        classes: Sequence[str] | None = None,
        extra: Path | None = None,
        features: Path | None = None,
        maps: Literal["mean", "keep"] = "mean",
        noisy: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if splits not in ("lists", "orders") or maps not in ("mean", "keep"):
            raise AvzooError(f'splits={splits!r}, maps={maps!r}: expected "lists" or "orders", and "mean" or "keep"')
        if features is None and (noisy or maps == "keep"):
            raise AvzooError("noisy and maps are about the authors' feature files: give their folder as `features`")
        if features is not None and (self.views > 1 or extra is not None):
            raise AvzooError("views and extra need videos; the authors' features are as they are")
        self.root, self.splits, self.maps, self.noisy = Path(root), splits, maps, noisy
        self.features = None if features is None else Path(features)
        self.extra = None if extra is None else Path(extra)
        self._given_classes = classes

    @property
    def classes(self) -> list[str]:
        """The label order, the background last.

        Raises:
            ClassMismatchError: If the `classes` that were given do not cover the names in `Annotations.txt`.
        """
        return list(self._classes)

    def items(self, split: Split) -> list[Item]:
        """The lines of a split, in the split's own order (the noisy videos have no lines)."""
        own = [self._table.items[row] for row in self._table.rows[split]]
        if self.extra is None or split != "train":
            return own
        more = read_annotations(self.extra / "trainSet.txt", seconds=self.preprocess.seconds, classes=self.classes)
        return own + [replace(item, key=f"{self.extra.name}/{item.key}") for item in more]

    def load(self, split: Split) -> Dataset[Batch]:
        """The features and labels of a split in memory, from the cache or from the authors' files."""
        if self.features is None:
            return super().load(split)
        if self._table.unannotated:
            raise AnnotationError(
                f"{self._table.unannotated[0]}: this line is not in Annotations.txt, whose order the feature files"
                f" have ({len(self._table.unannotated)} such lines in the lists)"
            )
        table, keep_maps = self._table, self.maps == "keep"
        read = functools.partial(_read_features, segments=self.preprocess.segments)
        rows, clips, items = table.rows[split], len(table.items), self.items(split)
        audio = read(self.features / "audio_feature.h5", rows, clips=clips)
        visual = read(self.features / "visual_feature.h5", rows, clips=clips, keep_maps=keep_maps)
        label = torch.stack([segment_labels(item, self.classes, self.preprocess) for item in items])
        ids = [item.id for item in items]
        if self.noisy and split == "train":
            clips = _count_noisy(self.features / "labels_noisy.h5")
            heard = read(self.features / "audio_feature_noisy.h5", range(clips), clips=clips)
            seen = read(self.features / "visual_feature_noisy.h5", range(clips), clips=clips, keep_maps=keep_maps)
            audio, visual = torch.cat([audio, heard]), torch.cat([visual, seen])
            label = torch.cat([label, label.new_full((clips, label.shape[1]), len(self.classes) - 1)])
            ids += [f"noisy#{row}" for row in range(clips)]
        return EventSet(audio, visual[:, None], torch.arange(len(ids)), label, ids, len(self.classes) - 1)

    def extract(self, splits: Sequence[Split]) -> None:
        """Say which lines have no counterpart, then extract what is missing; nothing to do with `features`."""
        table = self._table
        if table.unannotated:
            print(
                f"{self.root}: {len(table.unannotated)} lines of the lists are not in Annotations.txt"
                f" (the first: {table.unannotated[0]}); they are used as they stand."
            )
        unused = len(set(range(len(table.items))).difference(*table.rows.values()))
        if unused:
            print(f"{self.root}: {unused} lines of Annotations.txt are in no split and are not used.")
        if self.features is None:
            super().extract(splits)

    @functools.cached_property
    def _annotations(self) -> list[_Line]:
        return _read_lines(self.root / "Annotations.txt", self.preprocess.seconds)

    @functools.cached_property
    def _classes(self) -> list[str]:
        names = [name for name in dict.fromkeys(line.item.label for line in self._annotations) if name != BACKGROUND]
        if self._given_classes is None:
            return [*(AVE_CLASSES if set(names) == set(AVE_CLASSES) else names), BACKGROUND]
        given = [name for name in self._given_classes if name != BACKGROUND]
        if list(self._given_classes) not in (given, [*given, BACKGROUND]) or len(set(given)) < len(given):
            raise ClassMismatchError(
                f"classes={list(self._given_classes)}: expected every class once and {BACKGROUND!r} last or not at all"
            )
        for where, item in self._annotations:
            if item.label not in (*given, BACKGROUND):
                raise ClassMismatchError(
                    f"{where}: {item.label!r} is none of the classes given, {given}{did_you_mean(item.label, given)};"
                    f" the names in the data are {names}"
                )
        return [*given, BACKGROUND]

    @functools.cached_property
    def _table(self) -> _Table:
        items = [line.item for line in self._annotations]
        rows: dict[Split, list[int]] = {}
        unannotated: list[str] = []
        if self.splits == "orders":
            for split in SPLITS:
                path = self.root / f"{split}_order.h5"
                if self.features is not None and not path.exists():
                    path = self.features / path.name
                rows[split] = _read_order(path, len(items))
            return _Table(_with_unique_keys(items), rows, unannotated)
        known = {item: row for row, item in enumerate(items)}
        for split in SPLITS:
            rows[split] = []
            for where, item in _read_lines(self.root / f"{split}Set.txt", self.preprocess.seconds, self._classes):
                row = known.setdefault(item, len(items))
                if row == len(items):
                    items.append(item)
                    unannotated.append(where)
                rows[split].append(row)
        return _Table(_with_unique_keys(items), rows, unannotated)


class _Line(NamedTuple):
    where: str  # file:line
    item: Item


class _Table(NamedTuple):
    items: list[Item]  # the lines of Annotations.txt, then those that only the lists have
    rows: dict[Split, list[int]]
    unannotated: list[str]  # file:line of those that only the lists have


def read_annotations(path: Path, *, seconds: float = 10.0, classes: Sequence[str] | None = None) -> list[Item]:
    r"""Read lines `Category&VideoID&Quality&StartTime&EndTime`, with or without that header: one item a line.

    The videos are expected at `AVE/<VideoID>.mp4` beside the file.

    Args:
        path: `Annotations.txt` or a split list such as `trainSet.txt`.
        seconds: Length of the clips, s.
        classes: If given, a category that is not among them is an error.

    Raises:
        DataNotFoundError: If there is no such file.
        AnnotationError: If a line cannot be read, ends before it starts, leaves the clip, names an unknown class or
            stands there twice; with file and line.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "Annotations.txt"
    >>> _ = path.write_text("Violin, fiddle&a-b&good&2&10\nFlute&c&good&0&0\nFlute&a-b&good&0&4\n")
    >>> [(item.key, item.label, item.start, item.end) for item in read_annotations(path)]
    [('a-b#0', 'Violin, fiddle', 2.0, 10.0), ('c', 'Flute', 0.0, 0.0), ('a-b#2', 'Flute', 0.0, 4.0)]
    """
    return _with_unique_keys([line.item for line in _read_lines(Path(path), seconds, classes)])


def _read_lines(path: Path, seconds: float, classes: Sequence[str] | None = None) -> list[_Line]:
    try:
        text = path.read_text("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise DataNotFoundError(
            f"{path}: there is no such file; a dataset in AVE's layout has Annotations.txt, trainSet.txt, valSet.txt,"
            " testSet.txt (or *_order.h5 with splits='orders') and the videos in AVE/"
        ) from error
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{path}: not a text file in UTF-8 ({error})") from error
    lines: list[_Line] = []
    first: dict[Item, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        fields = [field.strip() for field in line.split("&")]
        is_header = number == 1 and len(fields) == 5 and all(_number(field) is None for field in fields[3:])
        if is_header or not line.strip():
            continue
        where = f"{path}:{number}"
        item = _parse(fields, where, path.parent, seconds, classes)
        if item in first:
            raise AnnotationError(f"{where}: the same line as {first[item]}; delete one of the two: {line.strip()!r}")
        first[item] = where
        lines.append(_Line(where, item))
    if not lines:
        raise AnnotationError(f"{path}: no lines; expected Category&VideoID&Quality&StartTime&EndTime on each")
    return lines


def _parse(fields: list[str], where: str, folder: Path, seconds: float, classes: Sequence[str] | None) -> Item:
    form = "expected Category&VideoID&Quality&StartTime&EndTime, times in seconds"
    if len(fields) != 5:
        raise AnnotationError(f"{where}: {len(fields)} fields between '&', {form}: {'&'.join(fields)!r}")
    label, id_, _, *times = fields
    start, end = (_number(field) for field in times)
    if start is None or end is None:
        raise AnnotationError(f"{where}: from {times[0]!r} to {times[1]!r} are not two numbers, {form}")
    if not label or not id_ or "/" in id_ or "\\" in id_:
        raise AnnotationError(f"{where}: category {label!r} of video {id_!r}, {form}; an id names a file in AVE/")
    if end < start:
        raise AnnotationError(f"{where}: the event ends at {end:g} s, before it starts at {start:g} s")
    if start < 0 or end > seconds:
        raise AnnotationError(f"{where}: the event from {start:g} to {end:g} s is outside the clip, 0 to {seconds:g} s")
    if classes is not None and label not in classes:
        raise AnnotationError(
            f"{where}: unknown class {label!r}{did_you_mean(label, classes)}; the classes are {list(classes)}"
        )
    return Item(id_, id_, folder / "AVE" / f"{id_}.mp4", label, start, end)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _with_unique_keys(items: list[Item]) -> list[Item]:
    lines = Counter(item.id for item in items)
    return [replace(item, key=f"{item.id}#{row}") if lines[item.id] > 1 else item for row, item in enumerate(items)]


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


def _read_order(path: Path, lines: int) -> list[int]:
    with _dataset(path) as data:
        order = [int(row) for row in data[:].ravel()]
    for row in order:
        if not 0 <= row < lines:
            raise AnnotationError(
                f"{path}: line {row} (from 0) of Annotations.txt, which has {lines}; are they a pair?"
            )
    return order


def _count_noisy(path: Path) -> int:
    """How many videos the noisy set has; its labels are one-hot, `[videos, 29]`, the background last."""
    with _dataset(path) as data:
        labels = torch.from_numpy(data[:])
    if not bool((labels.argmax(-1) == labels.shape[-1] - 1).all()):
        raise AnnotationError(f"{path}: some of these videos have an event, expected the background (last) throughout")
    return len(labels)


def _read_features(path: Path, rows: Sequence[int], *, clips: int, segments: int, keep_maps: bool = False) -> Tensor:
    """Some rows of a feature file, float32 `[rows, segments, features]`; at most 128 of its rows are read at once.

    Maps `[clips, segments, height, width, features]` are pooled, or kept as `[rows, segments, regions, features]`.
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
