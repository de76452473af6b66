"""The doctor of one's own clips: what a training would trip over, or quietly learn wrong, and what to do about it.

Each file's header is read and one picture decoded; whole files are read only where two have the same size, to see
whether they are the same.
"""

from __future__ import annotations

import hashlib
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from avzoo.clip import MediaInfo, probe
from avzoo.data.base import BACKGROUND
from avzoo.data.clip_table import SPLITS, SUFFIXES, ClipRow, assign_splits, find_files, read_clips, shared_groups
from avzoo.data.clips import is_photo
from avzoo.errors import AvzooError

FEW = 10  # clips of a class below which a model is not expected to be good
UNEVEN = 5  # times as many clips of one class as of another, from which on it is said
SHORTEST = 1.0  # s, a segment of all shipped models
LONGER = 0.5  # s that an event may end after its file
PHOTOS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".heic", ".tif", ".tiff"})


@dataclass(frozen=True)
class Problem:
    """One kind of trouble.

    Attributes:
        severity: "error", training would fail or its figures be wrong; "warning", it may be meant.
        kind: A short name, the same for the same trouble.
        message: What was found.
        advice: What to do.
        files: Where.
    """

    severity: Literal["error", "warning"]
    kind: str
    message: str
    advice: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        path: The folder or table.
        task: "events" where a row has start and end, else "scenes"; empty where nothing could be read.
        classes: Files of each class in each split, and their length: `{"drone": {"train": 8, "val": 2, "test": 0,
            "seconds": 93.1}}`. A file with events of two classes counts for both.
        files: How many files there are.
        seconds: Their "total", "shortest", "median" and "longest" length, s.
        problems: Errors first.
    """

    path: Path
    task: Literal["scenes", "events", ""] = ""
    classes: dict[str, dict[str, float]] = field(default_factory=dict)
    files: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def errors(self) -> int:
        """How many problems are errors."""
        return sum(problem.severity == "error" for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """The object that `avzoo check --json` prints."""
        problems = [{**vars(problem), "files": list(problem.files)} for problem in self.problems]
        return {**vars(self), "path": str(self.path), "errors": self.errors, "problems": problems}


def check(path: str | Path, *, val_fraction: float = 0.2) -> Report:
    """Look through a folder or table of clips.

    Args:
        path: As `Clips` takes it.
        val_fraction: As `Clips` takes it.
    """
    root = Path(path)
    try:
        rows = assign_splits(declared := read_clips(root), val_fraction)
    except AvzooError as error:
        advice = "mend this first, the rest is looked at then"
        if root.is_dir() and any(file.suffix.lower() in PHOTOS for file in root.rglob("*")):
            advice = "there are photos: a model hears and sees videos, so record some"
        return Report(root, problems=[Problem("error", "unreadable table", str(error), advice)])
    paths = list(dict.fromkeys(row.path for row in rows))
    infos: dict[Path, MediaInfo] = {}
    broken: dict[Path, str] = {}
    for file in tqdm(paths, desc="reading headers", unit="file", disable=None):
        try:
            infos[file] = probe(file)
        except (AvzooError, OSError) as error:
            broken[file] = str(error)
    lengths = [info.duration for info in infos.values()]
    problems = [
        *_of_files(paths, infos, broken),
        *_of_content([path for path in paths if path not in broken], rows),
        *_of_splits(declared, rows),
        *_of_labels(rows),
        *_of_times(rows, infos),
        *_of_folder(root),
    ]
    return Report(
        root,
        "events" if any(row.start is not None for row in rows) else "scenes",
        _counts(rows, infos),
        len(paths),
        _spread(lengths) if lengths else {},
        sorted(problems, key=lambda problem: problem.severity),
    )


def _counts(rows: Sequence[ClipRow], infos: dict[Path, MediaInfo]) -> dict[str, dict[str, float]]:
    files: dict[str, dict[Path, str]] = defaultdict(dict)
    for row in rows:
        files[row.label][row.path] = row.split or "train"
    counts: dict[str, dict[str, float]] = {}
    for label, own in sorted(files.items()):
        split = Counter(own.values())
        seconds = sum(infos[path].duration for path in own if path in infos)
        counts[label] = {name: split[name] for name in ("train", "val", "test")} | {"seconds": round(seconds, 1)}
    return counts


def _spread(lengths: Sequence[float]) -> dict[str, float]:
    facts = {
        "total": sum(lengths),
        "shortest": min(lengths),
        "median": statistics.median(lengths),
        "longest": max(lengths),
    }
    return {name: round(value, 2) for name, value in facts.items()}


# -- what may be wrong -----------------------------------------------------------------------------------------------


def _of_files(paths: Sequence[Path], infos: dict[Path, MediaInfo], broken: dict[Path, str]) -> Iterator[Problem]:
    gone = [str(path) for path in broken if not path.is_file()]
    if gone:
        advice = "paths are read from the table's folder on: mend them, or take the rows out"
        yield Problem("error", "missing file", f"{len(gone)} of {len(paths)} files are not there", advice, tuple(gone))
    for path, reason in broken.items():
        if path.is_file():
            yield Problem("error", "unreadable", reason, "copy or record it again, or take it out", (str(path),))
    found: dict[str, list[str]] = defaultdict(list)
    for path, info in infos.items():
        kind = "photo" if is_photo(info) else "no picture" if not info.has_video else ""
        if not kind:
            kind = "no sound" if not info.has_audio else "very short" if info.duration < SHORTEST else ""
        if kind:
            found[kind].append(str(path))
    kinds: dict[str, tuple[Literal["error", "warning"], str, str]] = {
        "photo": ("error", "are photos, not videos", "take them out: without time and sound there is nothing to learn"),
        "no picture": ("error", "have no pictures", "take them out, or record them as videos"),
        "no sound": ("error", "have no sound", "record it, or train with on_missing_audio=silence"),
        "very short": (
            "warning",
            f"are shorter than {SHORTEST:g} s, the time of one answer",
            "the last picture is held and silence follows; longer clips teach more",
        ),
    }
    for kind, (severity, message, advice) in kinds.items():
        if files := found[kind]:
            yield Problem(severity, kind, f"{len(files)} of {len(paths)} files {message}", advice, tuple(files))


def _of_content(paths: Sequence[Path], rows: Sequence[ClipRow]) -> Iterator[Problem]:
    """Files that are the same, byte by byte: in two splits, under two labels, or merely twice."""
    sizes: dict[int, list[Path]] = defaultdict(list)
    for path in paths:
        sizes[path.stat().st_size].append(path)
    same: dict[str, list[Path]] = defaultdict(list)
    candidates = [path for group in sizes.values() if len(group) > 1 for path in group]
    for path in tqdm(candidates, desc="comparing files of one size", unit="file", disable=None):
        with path.open("rb") as opened:
            same[hashlib.file_digest(opened, "sha256").hexdigest()].append(path)
    for group in same.values():
        if len(group) < 2:
            continue
        own = [row for row in rows if row.path in group]
        splits, labels = {row.split for row in own}, sorted({row.label for row in own})
        names = tuple(map(str, group))
        if len(splits) > 1:
            advice = "keep one, or give both one group: a model is not tested by what it has seen"
            yield Problem("error", "leak", f"{len(group)} equal files are in {_and(splits)}", advice, names)
        if len(labels) > 1 and all(row.start is None for row in own):
            message = f"{len(group)} equal files are labelled {', '.join(labels)}"
            yield Problem("error", "two labels", message, "keep the one that is right", names)
        if len(splits) == 1 and len(labels) == 1:
            message = f"{len(group)} files are equal"
            yield Problem("warning", "duplicate", message, "keep one: copies count double and teach nothing", names)


def _of_splits(declared: Sequence[ClipRow], rows: Sequence[ClipRow]) -> Iterator[Problem]:
    for group, own in shared_groups(declared).items():
        message = f"group {group} is in {_and(row.split for row in own)}"
        yield Problem("error", "leak", message, "put it on one side", tuple(row.where for row in own))
    splits: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        splits[row.label].add(row.split or "train")
    if all(present == {"train"} for present in splits.values()):
        message = "all is one file or group (a subfolder of a class is one), so that nothing can be held back"
        yield Problem("error", "no validation", message, "add clips, or declare some as val")
        return
    for label, present in sorted(splits.items()):
        if "train" not in present:
            yield Problem("error", "no training", f"no clip of {label} is in training", "move some there")
        elif "val" not in present:
            yield Problem("warning", "no validation", f"no clip of {label} is in validation", "add clips, or move some")


def _of_labels(rows: Sequence[ClipRow]) -> Iterator[Problem]:
    files: dict[str, set[Path]] = defaultdict(set)
    for row in rows:
        files[row.label].add(row.path)
    timed = any(row.start is not None for row in rows)
    events = files.keys() - {BACKGROUND}
    if len(files) < 2 and not (timed and events):
        advice = f"add a second class; for events a folder or label {BACKGROUND} will do"
        yield Problem("error", "one class", f"there is one class, {_and(files)}, and nothing to tell it from", advice)
    several = len({row.path for row in rows}) > 1
    for label in sorted(events):
        count = len(files[label])
        if count == 1 and several:
            advice = "one to learn from and one to validate on are the least: add clips, or leave the class out"
            yield Problem("error", "one clip", f"there is one clip of {label}", advice)
        elif count < FEW and not timed:
            yield Problem("warning", "few clips", f"there are {count} clips of {label}", f"{FEW} or more teach better")
    sizes = {label: len(files[label]) for label in events}
    if sizes and max(sizes.values()) >= UNEVEN * min(sizes.values()):
        most, least = max(sizes, key=lambda k: (sizes[k], k)), min(sizes, key=lambda k: (sizes[k], k))
        message = f"{sizes[most]} clips of {most}, {sizes[least]} of {least}"
        yield Problem("warning", "uneven classes", message, "add clips, or train with --balance weights")
    for one, other in combinations(sorted(files), 2):
        severity, how = _alike(one, other)
        if severity:
            rare = min(one, other, key=lambda label: len(files[label]))
            message = f"{one!r} ({len(files[one])} clips) and {other!r} ({len(files[other])}) {how}"
            names = tuple(sorted(map(str, files[rare])))
            yield Problem(severity, "label spelling", message, "if they are one class, give them one name", names)


def _alike(one: str, other: str) -> tuple[Literal["error", "warning"] | None, str]:
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


def _of_times(rows: Sequence[ClipRow], infos: dict[Path, MediaInfo]) -> Iterator[Problem]:
    by_file: dict[Path, list[ClipRow]] = defaultdict(list)
    for row in rows:
        by_file[row.path].append(row)
        info = infos.get(row.path)
        if info is not None and row.end is not None and row.end > info.duration + LONGER:
            message = f"{row.where}: the event ends at {row.end:g} s, the file at {info.duration:.2f} s"
            yield Problem("error", "times", message, "are these seconds of this file?", (str(row.path),))
    timed = any(row.start is not None for row in rows)
    for path, own in by_file.items():
        labels = sorted({row.label for row in own})
        if not timed and len(labels) > 1:
            message = f"{own[1].where}: {own[0].name} is labelled {', '.join(labels)}"
            yield Problem(
                "error", "two labels", message, "a scene has one: keep it, or give start and end", (str(path),)
            )
        events = sorted((row.start, row.end, row.label) for row in own if row.start is not None and row.end is not None)
        over = [(a, b) for a, b in combinations(events, 2) if b[0] < a[1] and a[2] != b[2]]
        if over:
            (_, _, one), (begin, _, other) = over[0]
            message = f"{own[0].name}: {one} and {other} overlap from {begin:g} s on"
            yield Problem(
                "warning", "overlap", message, "a segment has one label: there the later event's", (str(path),)
            )


def _of_folder(root: Path) -> Iterator[Problem]:
    """What lies in a folder and is not read."""
    if not root.is_dir():
        return
    photos = find_files(root, PHOTOS)
    if photos:
        message = f"{len(photos)} photos are not read"
        yield Problem("warning", "photos", message, "a model hears and sees videos", tuple(map(str, photos)))
    loose = [path for path in find_files(root) if path.parent == root]
    if loose:
        message = f"{len(loose)} videos lie in no folder of a class and are not read"
        yield Problem("warning", "no class", message, "put them in one, or take them out", tuple(map(str, loose)))
    empty = [
        path
        for path in sorted(root.rglob("*"))
        if path.is_dir() and not path.name.startswith(".") and path.name.lower() not in SPLITS and not find_files(path)
    ]
    if empty:
        message = f"{len(empty)} folders hold no video ({', '.join(sorted(SUFFIXES))})"
        yield Problem("warning", "empty folder", message, "fill them or remove them", tuple(map(str, empty)))


def _and(names: Any) -> str:
    return " and ".join(sorted({str(name) for name in names}))
