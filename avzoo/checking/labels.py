"""What may be wrong with labels, splits and times."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Literal

from avzoo.checking.report import Problem
from avzoo.clip import MediaInfo
from avzoo.data.base import BACKGROUND
from avzoo.data.clip_table import ClipRow, unread_columns

FEW = 10  # clips of a class below which a model is not expected to be good
UNEVEN = 5  # times as many clips of one class as of another, from which on it is said
LONGER = 0.5  # s that an event may end after its file


def of_columns(root: Path) -> Iterator[Problem]:
    """Columns of a table that are not read."""
    if root.is_dir() or not (unread := unread_columns(root)):
        return
    meant = [f"{name} as {like}" for name, like in unread.items() if like]
    advice = f"call {' and '.join(meant)}, if that is what it is" if meant else "no harm, if it was not meant to be"
    yield Problem("warning", "columns", f"columns not read: {', '.join(unread)}", advice)


def of_splits(rows: Sequence[ClipRow]) -> Iterator[Problem]:
    """Next to nothing to validate on; for nothing at all see `faults`."""
    splits: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        splits[row.label].add(row.split or "train")
    if not any("val" in present for present in splits.values()):
        return
    for label, present in sorted(splits.items()):
        if "val" not in present:
            yield Problem("warning", "no validation", f"no clip of {label} is in validation", "add clips, or move some")
    held: dict[str, set[Path]] = defaultdict(set)
    for row in rows:
        if row.split == "val" and row.label != BACKGROUND:
            held[row.label].add(row.path)
    if single := sorted(label for label, files in held.items() if len(files) == 1):
        message = f"{', '.join(single)} {'has 1 clip' if len(single) == 1 else 'have 1 clip each'} to validate on"
        yield Problem("warning", "little validation", message, "which says little of it: add clips, or move some")


def of_labels(rows: Sequence[ClipRow]) -> Iterator[Problem]:
    """Few clips, classes of different size, labels that may be one."""
    files: dict[str, set[Path]] = defaultdict(set)
    for row in rows:
        files[row.label].add(row.path)
    timed = any(row.start is not None for row in rows)
    events = files.keys() - {BACKGROUND}
    several = len({row.path for row in rows}) > 1
    for label in sorted(events):
        count = len(files[label])
        if count < FEW and not timed and (count > 1 or not several):
            message = f"there are {count} clips of {label}" if count > 1 else f"there is one clip of {label}"
            yield Problem("warning", "few clips", message, f"{FEW} or more teach better")
    sizes = {label: len(files[label]) for label in events}
    if sizes and max(sizes.values()) >= UNEVEN * min(sizes.values()):
        most, least = max(sizes, key=lambda k: (sizes[k], k)), min(sizes, key=lambda k: (sizes[k], k))
        message = f"{sizes[most]} clips of {most}, {sizes[least]} of {least}"
        yield Problem("warning", "uneven classes", message, "add clips, or train with --balance sampler")
    for one, other in combinations(sorted(files), 2):
        severity, how = alike(one, other)
        if severity:
            rare = min(one, other, key=lambda label: len(files[label]))
            message = f"{one!r} (clips: {len(files[one])}) and {other!r} ({len(files[other])}) {how}"
            names = tuple(sorted(map(str, files[rare])))
            yield Problem(severity, "label spelling", message, "if they are one class, give them one name", names)


def alike(one: str, other: str) -> tuple[Literal["error", "warning"] | None, str]:
    """Whether two labels are one that was written in two ways."""
    if re.sub(r"[\W_]", "", one).casefold() == re.sub(r"[\W_]", "", other).casefold():
        return "error", "differ in capitals, spaces or signs only"
    letters = [re.sub(r"\d", "", label) for label in (one, other)]  # `class 1` and `class 2` are meant
    if min(map(len, letters)) >= 5 and letters[0] != letters[1] and _one_edit(one.casefold(), other.casefold()):
        return "warning", "differ by one letter"
    return None, ""


def _one_edit(one: str, other: str) -> bool:
    """Whether a letter more, less, another or two exchanged make one string of the other.

    >>> _one_edit("guitar", "gutiar"), _one_edit("guitar", "guitars"), _one_edit("guitar", "sitar")
    (True, True, False)
    """
    start = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    a, b = one[start:], other[start:]
    swapped = a[:2] == b[:2][::-1] and a[2:] == b[2:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or swapped


def of_times(rows: Sequence[ClipRow], infos: dict[Path, MediaInfo]) -> Iterator[Problem]:
    """Events after the end, events of two classes at once."""
    by_file: dict[Path, list[ClipRow]] = defaultdict(list)
    for row in rows:
        by_file[row.path].append(row)
        info = infos.get(row.path)
        if info is not None and row.end is not None and row.end > info.duration + LONGER:
            message = f"{row.where}: the event ends at {row.end:g} s, the file at {info.duration:.2f} s"
            yield Problem("error", "times", message, "are these seconds of this file?", (str(row.path),))
    for path, own in by_file.items():
        events = sorted((row.start, row.end, row.label) for row in own if row.start is not None and row.end is not None)
        over = [(a, b) for a, b in combinations(events, 2) if b[0] < a[1] and a[2] != b[2]]
        if over:
            (_, _, one), (begin, _, other) = over[0]
            message = f"{own[0].name}: {one} and {other} overlap from {begin:g} s on"
            yield Problem(
                "warning", "overlap", message, "a segment has one label: there the later event's", (str(path),)
            )
