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
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch.utils.data import Dataset

from avzoo.data.ave_features import count_noisy, read_features, read_order
from avzoo.data.ave_lists import Line, read_annotations, read_lines, with_unique_keys
from avzoo.data.base import BACKGROUND, SPLITS, Item, Split
from avzoo.data.events import EventDataModule, EventSet, segment_labels
from avzoo.errors import AnnotationError, AvzooError, ClassMismatchError, did_you_mean
from avzoo.preprocess import Batch

# The official order: that of first appearance in AVE's Annotations.txt. Never join or split names by commas.
AVE_CLASSES = (
    "Church bell", "Male speech, man speaking", "Bark", "Fixed-wing aircraft, airplane", "Race car, auto racing",
    "Female speech, woman speaking", "Helicopter", "Violin, fiddle", "Flute", "Ukulele", "Frying (food)", "Truck",
    "Shofar", "Motorcycle", "Acoustic guitar", "Train horn", "Clock", "Banjo", "Goat", "Baby cry, infant cry",
    "Bus", "Chainsaw", "Cat", "Horse", "Toilet flush", "Rodents, rats, mice", "Accordion", "Mandolin",
)  # fmt: skip


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
        """A split as a dataset, from the cache or from the authors' files."""
        if self.features is None:
            return super().load(split)
        if self._table.unannotated:
            raise AnnotationError(
                f"{self._table.unannotated[0]}: this line is not in Annotations.txt, whose order the feature files"
                f" have ({len(self._table.unannotated)} such lines in the lists)"
            )
        table, keep_maps = self._table, self.maps == "keep"
        read = functools.partial(read_features, segments=self.preprocess.segments)
        rows, clips, items = table.rows[split], len(table.items), self.items(split)
        audio = read(self.features / "audio_feature.h5", rows, clips=clips)
        visual = read(self.features / "visual_feature.h5", rows, clips=clips, keep_maps=keep_maps)
        label = torch.stack([segment_labels(item, self.classes, self.preprocess) for item in items])
        ids = [item.id for item in items]
        if self.noisy and split == "train":
            clips = count_noisy(self.features / "labels_noisy.h5")
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

    def provide(self) -> None:
        """See to it that the files are there, before the first of them is read; those of AVE are."""

    @functools.cached_property
    def _annotations(self) -> list[Line]:
        self.provide()
        return read_lines(self.root / "Annotations.txt", self.preprocess.seconds)

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
                rows[split] = read_order(path, len(items))
            return _Table(with_unique_keys(items), rows, unannotated)
        known = {item: row for row, item in enumerate(items)}
        for split in SPLITS:
            rows[split] = []
            for where, item in read_lines(self.root / f"{split}Set.txt", self.preprocess.seconds, self._classes):
                row = known.setdefault(item, len(items))
                if row == len(items):
                    items.append(item)
                    unannotated.append(where)
                rows[split].append(row)
        return _Table(with_unique_keys(items), rows, unannotated)


class _Table(NamedTuple):
    items: list[Item]  # the lines of Annotations.txt, then those that only the lists have
    rows: dict[Split, list[int]]
    unannotated: list[str]  # file:line of those that only the lists have
