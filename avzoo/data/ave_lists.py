"""The annotation lines of AVE, `Category&VideoID&Quality&StartTime&EndTime`, and what may be wrong with them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from avzoo.data.base import Item
from avzoo.data.label_files import label_text
from avzoo.errors import AnnotationError, did_you_mean

_HINT = (
    "a dataset in AVE's layout has Annotations.txt, trainSet.txt, valSet.txt, testSet.txt (or *_order.h5 with"
    " splits='orders') and the videos in AVE/"
)


class Line(NamedTuple):
    """An item, and where it stands, `file:line`."""

    where: str
    item: Item


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
    return with_unique_keys([line.item for line in read_lines(Path(path), seconds, classes)])


def read_lines(path: Path, seconds: float, classes: Sequence[str] | None = None) -> list[Line]:
    """Read the lines as they stand; arguments and errors are those of `read_annotations`."""
    with label_text(path, _HINT) as file:
        text = file.read()
    lines: list[Line] = []
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
        lines.append(Line(where, item))
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


def with_unique_keys(items: list[Item]) -> list[Item]:
    """The items of a file, each with its row in the key of an id that stands on several."""
    lines = Counter(item.id for item in items)
    return [replace(item, key=f"{item.id}#{row}") if lines[item.id] > 1 else item for row, item in enumerate(items)]
