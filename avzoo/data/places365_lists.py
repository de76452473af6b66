"""The files of Places365 and their labels, as its lists or its folders name them.

A list is read line by line and kept as one block of bytes, which worker processes share: about 80 MB for 1.8 million
lines.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from avzoo.data.label_files import label_text
from avzoo.errors import AnnotationError

SUFFIXES = (".jpg", ".jpeg", ".png")


class Listing:
    """Millions of (path, label) pairs, held as three flat buffers.

    >>> listing = Listing([("a/airfield/1.jpg", 0), ("b/bar/2.jpg", 7)])
    >>> len(listing), listing[1]
    (2, ('b/bar/2.jpg', 7))
    """

    def __init__(self, rows: Iterable[tuple[str, int]]) -> None:
        paths, ends, labels = bytearray(), array("q", [0]), array("h")
        for path, label in rows:
            paths += path.encode()
            ends.append(len(paths))
            labels.append(label)
        self.paths = np.frombuffer(paths, np.uint8)  # arrays: forked workers share them, no reference count is written
        self.ends, self.labels = np.frombuffer(ends, np.int64), np.frombuffer(labels, np.int16)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[str, int]:
        start, end = self.ends[index], self.ends[index + 1]
        return self.paths[start:end].tobytes().decode(), int(self.labels[index])


def read_categories(path: Path) -> list[str]:
    """The classes of `categories_places365.txt` by number: "airfield", "apartment_building/outdoor", ...

    Raises:
        DataNotFoundError: If there is no such file.
        AnnotationError: If a line cannot be read, or the numbers are not 0, 1, 2, ...; with file and line.
    """
    names: list[str] = []
    for where, name, number in _lines(path):
        short = name[3:] if name[:1] == "/" and name[2:3] == "/" else ""  # /a/airfield: its initial is but a folder
        if not short or number != len(names) or short in names:
            raise AnnotationError(f"{where}: expected a new category like /a/airfield and the number {len(names)}")
        names.append(short)
    return names


def read_list(path: Path, classes: list[str], *, by_folder: bool) -> Iterator[tuple[str, int]]:
    """The files of `places365_train_*.txt` or `places365_val.txt`, and their labels.

    Args:
        path: The list.
        classes: Label order.
        by_folder: Whether each file lies in its category's folder, and is checked to do so.

    Raises:
        DataNotFoundError: If there is no such file.
        AnnotationError: If a line cannot be read, or has a label that is not its folder's; with file and line.
    """
    folders = [f"{name[0]}/{name}" for name in classes]
    for where, name, label in _lines(path):
        file = name.lstrip("/")
        if not 0 <= label < len(classes):
            raise AnnotationError(f"{where}: label {label}, expected 0 to {len(classes) - 1}")
        if ".." in file.split("/"):
            raise AnnotationError(f"{where}: {name} leads out of the dataset")
        if by_folder and file.rpartition("/")[0] != folders[label]:
            raise AnnotationError(f"{where}: {name} has the label {label}, whose folder is {folders[label]}")
        yield file, label


def _lines(path: Path) -> Iterator[tuple[str, str, int]]:
    """`file:line`, name and number of each line that is not blank."""
    with label_text(path, "it is in filelist_places365-standard.tar") as file:
        for number, line in enumerate(file, start=1):
            name, _, label = line.strip().rpartition(" ")
            if name and label.isdecimal():
                yield f"{path}:{number}", name.rstrip(), int(label)
            elif label:
                raise AnnotationError(f"{path}:{number}: {line.strip()[:80]!r}, expected a path and a number")


def read_folders(folder: Path, classes: list[str]) -> Iterator[tuple[str, int]]:
    """The pictures of the easy format, class by class.

    Raises:
        AnnotationError: If a folder is none of the classes.
    """
    labels = {name.replace("/", "-"): label for label, name in enumerate(classes)}
    for name in class_folders(folder):
        if name not in labels:
            raise AnnotationError(
                f"{folder / name}: is none of the {len(classes)} classes ({', '.join(classes[:3])}, ...)"
            )
        with os.scandir(folder / name) as entries:
            for file in sorted(entry.name for entry in entries if entry.name.lower().endswith(SUFFIXES)):
                yield f"{name}/{file}", labels[name]


def class_folders(folder: Path) -> list[str]:
    """The names of the folders in a folder, sorted."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
