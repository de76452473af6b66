"""What may be wrong with files: not there, not videos, empty of sound or pictures, the same twice, not read at all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from avzoo.checking.report import Problem, counted, listed
from avzoo.clip import VIDEO_SUFFIXES, MediaInfo, read_clip
from avzoo.data.clip_table import SPLIT_NAMES, ClipRow, find_files
from avzoo.errors import as_flags
from avzoo.files import sha256

SHORTEST = 1.0  # s, a segment of all shipped models
PLACES = 20  # in a file that are looked at before it is called silent or black
PHOTOS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".heic", ".tif", ".tiff"})


def of_files(
    paths: Sequence[Path], infos: dict[Path, MediaInfo], broken: dict[Path, str], empty: dict[Path, list[str]]
) -> Iterator[Problem]:
    """Files that are not there, cannot be read, are no videos, or have nothing in them.

    Args:
        paths: All.
        infos: Of those that can be read.
        broken: Why the others cannot.
        empty: Of those that can be read, what `empty_tracks` found.
    """
    gone = [str(path) for path in broken if not path.is_file()]
    if gone:
        advice = "paths are read from the table's folder on: mend them, or take the rows out"
        message = counted(len(gone), "file", "are not there", len(paths))
        yield Problem("error", "missing file", message, advice, tuple(gone))
    for path, reason in broken.items():
        if path.is_file():
            reason = as_flags(reason.removeprefix(f"{path}: "))  # it is named beneath
            yield Problem("error", "unreadable", reason, "copy or record it again, or take it out", (str(path),))
    found: dict[str, list[str]] = defaultdict(list)
    for path, info in infos.items():
        for kind in empty[path]:
            found[kind].append(str(path))
        kind = "photo" if info.is_photo else "no picture" if not info.has_video else ""
        if not kind:
            kind = "no sound" if not info.has_audio else "very short" if info.duration < SHORTEST else ""
        if kind:
            found[kind].append(str(path))
    kinds: dict[str, tuple[Literal["error", "warning"], str, str]] = {
        "photo": ("error", "hold a photo", "take them out: without time and sound there is nothing to learn"),
        "no picture": ("error", "have no pictures", "take them out, or record them as videos"),
        "no sound": ("error", "have no sound", "record it, or train with --on-missing-audio silence"),
        "very short": (
            "warning",
            f"are shorter than {SHORTEST:g} s, the time of one answer",
            "the last picture is held and silence follows; longer clips teach more",
        ),
        "silent": (
            "warning",
            f"have a sound track on which nothing is heard ({PLACES} places were listened to)",
            "was the microphone muted? If silence is not what their class sounds like, record them again",
        ),
        "black": (
            "warning",
            f"are black ({PLACES} places were looked at)",
            "was the lens covered? If darkness is not what their class looks like, record them again",
        ),
    }
    for kind, (severity, message, advice) in kinds.items():
        if files := found[kind]:
            yield Problem(severity, kind, counted(len(files), "file", message, len(paths)), advice, tuple(files))


def empty_tracks(path: Path, info: MediaInfo) -> list[str]:
    """What a file has without anything in it: "silent", "black".

    Raises:
        MediaError: If it cannot be decoded, or is not as long as its header says.
    """
    found = ["silent"] * info.has_audio + ["black"] * (info.has_video and not info.is_photo)
    last = max(0.0, info.duration - SHORTEST)
    # The end says whether all of it is there, and most of the time it or the middle is neither silent nor black.
    for place in (1.0, 0.5, *(index / (PLACES - 1) for index in range(PLACES))):
        if not found:
            break
        clip = read_clip(
            path,
            times=(SHORTEST,) if "black" in found else (),
            seconds=SHORTEST,
            start=place * last,
            audio="silent" in found,
        )
        found = [kind for kind in found if kind in clip.empty]
    return found


def of_content(paths: Sequence[Path], rows: Sequence[ClipRow]) -> Iterator[Problem]:
    """Files that are the same, byte by byte: in two splits, under two labels, or merely twice."""
    sizes: dict[int, list[Path]] = defaultdict(list)
    for path in paths:
        sizes[path.stat().st_size].append(path)
    same: dict[str, list[Path]] = defaultdict(list)
    candidates = [path for group in sizes.values() if len(group) > 1 for path in group]
    for path in tqdm(candidates, desc="comparing files of one size", unit="file", disable=None):
        same[sha256(path)].append(path)
    for group in same.values():
        if len(group) < 2:
            continue
        own = [row for row in rows if row.path in group]
        splits, labels = {row.split for row in own}, sorted({row.label for row in own})
        names = tuple(map(str, group))
        if len(splits) > 1:
            advice = "keep one: a model is not tested by what it has seen"
            yield Problem("error", "leak", f"{len(group)} equal files are in {listed(splits)}", advice, names)
        if len(labels) > 1 and all(row.start is None for row in own):
            message = f"{len(group)} equal files are labelled {', '.join(labels)}"
            yield Problem("error", "two labels", message, "keep the one that is right", names)
        if len(splits) == 1 and len(labels) == 1:
            message = f"{len(group)} files are equal"
            yield Problem("warning", "duplicate", message, "keep one: copies count double and teach nothing", names)


def of_folder(root: Path) -> Iterator[Problem]:
    """What lies in a folder and is not read."""
    if not root.is_dir():
        return
    photos = find_files(root, PHOTOS)
    if photos:
        message = counted(len(photos), "photo", "are not read")
        yield Problem("warning", "photos", message, "a model hears and sees videos", tuple(map(str, photos)))
    others = find_files(root, {path.suffix.lower() for path in root.rglob("*")} - VIDEO_SUFFIXES - PHOTOS)
    if others:
        message, advice = counted(len(others), "file", "are no video: not read"), "no harm, if it was not meant to be"
        yield Problem("warning", "other files", message, advice, tuple(map(str, others)))
    loose = [path for path in find_files(root) if path.parent == root]
    if loose:
        message = counted(len(loose), "video", "lie in no folder of a class: not read")
        yield Problem("warning", "no class", message, "put them in one, or take them out", tuple(map(str, loose)))
    empty = [
        path
        for path in sorted(root.rglob("*"))
        if path.is_dir()
        and not path.name.startswith(".")
        and path.name.lower() not in SPLIT_NAMES
        and not find_files(path)
    ]
    if empty:
        message = counted(len(empty), "folder", f"hold no video ({', '.join(sorted(VIDEO_SUFFIXES))})")
        yield Problem("warning", "empty folder", message, "fill them or remove them", tuple(map(str, empty)))
