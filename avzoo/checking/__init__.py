"""`avzoo check`: finds problems in your clips and labels before training.

Of each file the header and the last second are read, which tells whether it was cut short; more only where that second
is silent or black, and all of it only where another has the same size, to see whether they are the same.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from avzoo.checking.files import PHOTOS, empty_tracks, of_content, of_files, of_folder
from avzoo.checking.labels import of_columns, of_labels, of_splits, of_times
from avzoo.checking.report import Problem, Report
from avzoo.clip import MediaInfo, probe
from avzoo.data.base import SPLITS, Task
from avzoo.data.clip_splits import assign_splits, faults, tell_background
from avzoo.data.clip_table import ClipRow, read_clips
from avzoo.errors import AvzooError, DataNotFoundError

__all__ = ["Problem", "Report", "check"]


def check(path: str | Path, *, val_fraction: float = 0.2) -> Report:
    """Look through a folder or table of clips.

    Args:
        path: As `Clips` takes it.
        val_fraction: As `Clips` takes it.

    Raises:
        AvzooError: If `val_fraction` is no share.
    """
    root = Path(path)
    try:
        rows = read_clips(root)
    except AvzooError as error:
        advice = "mend this first, the rest is looked at then"
        if root.is_dir() and any(file.suffix.lower() in PHOTOS for file in root.rglob("*")):
            advice = "there are photos: a model hears and sees videos, so record some"
        kind = "unreadable folder" if root.is_dir() else "unreadable table"
        kind = "no clips" if isinstance(error, DataNotFoundError) else kind
        return Report(root, problems=[Problem("error", kind, str(error), advice)])
    rows = assign_splits(rows, val_fraction)
    learnt_as: Task = "events" if tell_background(rows) else "scenes"
    paths = list(dict.fromkeys(row.path for row in rows))
    infos: dict[Path, MediaInfo] = {}
    broken: dict[Path, str] = {}
    empty: dict[Path, list[str]] = {}
    for file in tqdm(paths, desc="looking into files", unit="file", disable=None):
        try:
            empty[file] = empty_tracks(file, info := probe(file))
            infos[file] = info
        except (AvzooError, OSError) as error:
            broken[file] = str(error)
    lengths = [info.duration for info in infos.values()]
    problems = [
        *of_files(paths, infos, broken, empty),
        *of_content([path for path in paths if path not in broken], rows),
        *(
            Problem("error", kind, message, advice, tuple(row.where for row in own))
            for kind, message, advice, own in faults(rows, learnt_as)
        ),
        *of_columns(root),
        *of_splits(rows),
        *of_labels(rows),
        *of_times(rows, infos),
        *of_folder(root),
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
        counts[label] = {name: split[name] for name in SPLITS} | {"seconds": round(seconds, 1)}
    return counts


def _spread(lengths: Sequence[float]) -> dict[str, float]:
    facts = {
        "total": sum(lengths),
        "shortest": min(lengths),
        "median": statistics.median(lengths),
        "longest": max(lengths),
    }
    return {name: round(value, 2) for name, value in facts.items()}
