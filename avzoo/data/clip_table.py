"""One's own clips as rows: a folder per class, or a table.

```
folder/<class>/**/*.mp4                       validation is drawn; files in subfolders of one name stay together
folder/{train,val,test}/<class>/**/*.mp4      validation is drawn from `train` where there is no `val`
table.csv, table.parquet                      path, label[, start, end, split, group]; paths from the table's folder on
```

A CSV may be what Excel saves: commas, semicolons or tabs, a byte order mark, Windows line ends, `2,5` for 2.5 s.
"""

from __future__ import annotations

import csv
import difflib
import io
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from avzoo.clip import VIDEO_SUFFIXES
from avzoo.data.base import Split
from avzoo.errors import AnnotationError, AvzooError, DataNotFoundError, did_you_mean

SPLIT_NAMES: dict[str, Split] = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test", "evaluation": "test",
}  # fmt: skip
REQUIRED, OPTIONAL = ("path", "label"), ("start", "end", "split", "group")
ELSEWHERE = {"begin": "start", "onset": "start", "stop": "end", "offset": "end"}  # what others call these columns


@dataclass(frozen=True)
class ClipRow:
    """One label of one file.

    Attributes:
        path: The video.
        name: Its path within the dataset, by which validation is drawn.
        label: What it is called.
        start: Where the event begins, s; None for all of the file.
        end: Where the event ends, s; None for all of the file.
        split: As declared; None where it is not.
        group: What stays on one side of a split, such as a place or a day; empty for the file alone.
        where: Folder, or file and line, for messages.
    """

    path: Path
    name: str
    label: str
    start: float | None = None
    end: float | None = None
    split: Split | None = None
    group: str = ""
    where: str = ""

    @property
    def unit(self) -> str:
        """What is drawn as a whole."""
        return self.group or self.name


def read_clips(root: Path) -> list[ClipRow]:
    """The rows of a folder or a table.

    Raises:
        DataNotFoundError: If there is no such folder or table, or no video in it.
        AnnotationError: If the table cannot be read, or two rows of a file contradict each other.
    """
    if root.is_dir():
        return _read_folder(root)
    if not root.is_file():
        near = did_you_mean(root.name, [p.name for p in root.parent.iterdir()]) if root.parent.is_dir() else ""
        raise DataNotFoundError(f"{root}: no such folder or table{near}")
    if root.suffix.lower() in VIDEO_SUFFIXES:
        raise DataNotFoundError(f"{root}: one video is nothing to learn from: give a folder per class, or a table")
    header, lines = _read_table(root)
    columns = _columns(root, header)
    rows = [_row(root, columns, fields, where) for where, fields in lines]
    if not rows:
        raise DataNotFoundError(f"{root} has a header and no rows: expected one row a clip, or one an event")
    _check_rows(rows)
    return rows


# -- a folder --------------------------------------------------------------------------------------------------------


def _read_folder(root: Path) -> list[ClipRow]:
    folders = _folders(root)
    videos = {folder: find_files(folder) for folder in folders}
    declared = {folder: SPLIT_NAMES[folder.name.lower()] for folder in folders if folder.name.lower() in SPLIT_NAMES}
    # A class may be called "train" too: its videos lie in it, not in folders of classes.
    for folder in [folder for folder in declared if any(video.parent == folder for video in videos[folder])]:
        del declared[folder]
    found: list[tuple[Path, Split | None]] = [(folder, None) for folder in folders]
    filled = [folder for folder in folders if videos[folder]]
    of_splits = [folder.name for folder in filled if folder in declared]
    if of_splits and "train" not in declared.values():
        raise AnnotationError(
            f"{root} has {' and '.join(of_splits)} and no train, from which to learn: expected train/<class>/*.mp4; if"
            " these are classes, put their videos right into them"
        )
    if filled and not declared and all(_like_a_split(folder, videos[folder]) for folder in filled):
        raise AnnotationError(
            f"{root} has {' and '.join(folder.name for folder in filled)}, which look like splits and would be read as"
            " classes: call them train, val and test; if these are classes, put their videos right into them"
        )
    if "train" in declared.values():
        foreign = [folder.name for folder in filled if folder not in declared]
        if foreign:
            raise AnnotationError(
                f"{root} has {', '.join(sorted(folder.name for folder in declared))} and beside them {foreign[0]}:"
                " expected folders train, val and test alone, or a folder per class"
            )
        found = [(own, split) for folder, split in declared.items() for own in _folders(folder)]
    rows = []
    for folder, split in found:
        for path in find_files(folder):
            group = "" if path.parent == folder else _name(path.parent, folder)
            rows.append(ClipRow(path, _name(path, root), _plain(folder.name), None, None, split, group, str(path)))
    if not rows:
        raise DataNotFoundError(_nothing(root))
    return sorted(rows, key=lambda row: row.name)


def _like_a_split(folder: Path, videos: Sequence[Path]) -> bool:
    """Whether it is called like `train_set`, `Validation data` or `testset`, and holds folders, not videos."""
    word = re.split(r"[\W_]", folder.name.lower())[0].removesuffix("set")
    return word in SPLIT_NAMES and all(video.parent != folder for video in videos)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def find_files(folder: Path, suffixes: Iterable[str] = VIDEO_SUFFIXES) -> list[Path]:
    """The videos in a folder and below it; what is hidden (`._clip.mp4` of macOS) is none."""
    files = (path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    return sorted(path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _nothing(root: Path) -> str:
    """Why a folder has no rows."""
    loose = find_files(root)
    if loose:
        return (
            f"{root}: its videos ({loose[0].name}, ...) lie in no folder of a class: put each in one named by its class"
        )
    others = sorted({path.suffix.lower() for path in root.rglob("*") if path.is_file()} - {""})
    has = f"holds no video, only files ending in {', '.join(others)}" if others else "is empty"
    others_read = ", ".join(sorted(VIDEO_SUFFIXES - {".mp4"}))
    return f"{root} {has}: expected {root.resolve().name}/<class>/*.mp4 (or {others_read})"


def _name(path: Path, root: Path) -> str:
    return _plain(path.relative_to(root).as_posix())


def _plain(text: str) -> str:
    """One spelling of a name: macOS stores letters and their accents apart."""
    return unicodedata.normalize("NFC", text).strip()


# -- a table ---------------------------------------------------------------------------------------------------------


Lines = list[tuple[str, list[Any]]]  # file:line, and the fields


def _read_table(path: Path) -> tuple[list[str], Lines]:
    return _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)


def unread_columns(root: Path) -> dict[str, str]:
    """The columns of a table that are not read, each with the one that it may be meant as, or nothing."""
    names = [str(name).strip().lower() for name in _read_table(root)[0]]
    unread = [name for name in names if name and name not in (*REQUIRED, *OPTIONAL)]
    return {name: meant if (meant := ELSEWHERE.get(name, "")) not in names else "" for name in unread}


def _read_csv(path: Path) -> tuple[list[str], Lines]:
    text = _decode(path)
    skipped = 0
    delimiter = ""
    if text.lower().startswith("sep=") and len(text) > 4:  # Excel's own hint
        delimiter, text, skipped = text[4], text.partition("\n")[2], 1
    first = text.partition("\n")[0]
    delimiter = delimiter or max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    lines: Lines = []
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                lines.append((f"{path}:{reader.line_num + skipped}", fields))
    except csv.Error as error:
        raise AnnotationError(f"{path}:{reader.line_num + skipped}: not a line of a CSV table ({error})") from error
    if not lines:
        raise DataNotFoundError(f"{path} is empty: expected a header `path,label` and a row a clip")
    return lines[0][1], lines[1:]


def _decode(path: Path) -> str:
    raw = path.read_bytes()
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise AnnotationError(
            f"{path}: not a text in UTF-8 ({error}); in Excel: save as 'CSV UTF-8 (comma delimited)'"
        ) from error


def _read_parquet(path: Path) -> tuple[list[str], Lines]:
    try:
        from pyarrow import ArrowException, parquet
    except ModuleNotFoundError as error:
        raise AvzooError(
            f"{path}: reading Parquet needs pyarrow: pip install pyarrow, or save the table as CSV"
        ) from error
    try:
        table = parquet.read_table(path)
    except (ArrowException, OSError) as error:
        raise AnnotationError(f"{path}: not a Parquet table ({error})") from error
    columns = [column.to_pylist() for column in table.columns]
    return table.column_names, [(f"{path}, row {n}", list(row)) for n, row in enumerate(zip(*columns, strict=True), 1)]


def _columns(path: Path, header: Sequence[str]) -> dict[str, int]:
    """Where each column stands."""
    names = [str(name).strip().lower() for name in header]
    columns = {name: names.index(name) for name in (*REQUIRED, *OPTIONAL) if name in names}
    others = [name for name in names if name and name not in columns]
    for name in REQUIRED:
        if name not in columns:
            raise AnnotationError(
                f"{path}: no column {name!r} among {names}{did_you_mean(name, others)}; expected the header"
                " path,label[,start,end,split,group]"
            )
    for name in others:  # a misspelt `start` would make scenes of events without a word
        if near := difflib.get_close_matches(name, [name for name in OPTIONAL if name not in columns], n=1, cutoff=0.8):
            raise AnnotationError(f"{path}: the column {name!r} is not read: call it {near[0]!r}, or something else")
    if ("start" in columns) != ("end" in columns):
        raise AnnotationError(f"{path}: start and end go together; one of the two columns is missing")
    return columns


def _row(path: Path, columns: Mapping[str, int], fields: Sequence[Any], where: str) -> ClipRow:
    width = max(columns.values()) + 1
    texts = ["" if field is None or field != field else str(field).strip() for field in fields]  # NaN is not itself
    texts += [""] * (width - len(texts))  # what Excel leaves out at the end of a line
    given = {name: texts[index] for name, index in columns.items()}
    if not given["path"] or not given["label"]:
        raise AnnotationError(
            f"{where}: path and label are {given['path']!r} and {given['label']!r}: both must be there"
        )
    start, end = (_seconds(given.get(name, ""), name, where) for name in ("start", "end"))
    if (start is None) != (end is None):
        raise AnnotationError(f"{where}: start and end are {start} and {end}: give both, or neither for the whole file")
    if start is not None and end is not None and not start < end:
        raise AnnotationError(f"{where}: the event ends at {end:g} s, not after it starts, {start:g} s")
    declared = given.get("split", "").lower()
    if declared and declared not in SPLIT_NAMES:
        near = did_you_mean(declared, SPLIT_NAMES)
        raise AnnotationError(f"{where}: split is {declared!r}, expected train, val, test or nothing{near}")
    file = _resolve(path.parent, given["path"])
    name = _plain(PureWindowsPath(given["path"]).as_posix())
    return ClipRow(
        file, name, _plain(given["label"]), start, end, SPLIT_NAMES.get(declared), _plain(given.get("group", "")), where
    )


def _seconds(text: str, name: str, where: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise AnnotationError(f"{where}: {name} is {text!r}, expected seconds from the file's beginning, such as 2.5")
    return value


def _resolve(folder: Path, text: str) -> Path:
    """The file that a table means: as written, else with `/` for a backslash, or its accents stored otherwise."""
    spellings = [text, PureWindowsPath(text).as_posix()]
    spellings += [unicodedata.normalize(form, spellings[1]) for form in ("NFC", "NFD")]
    return next((path for spelling in spellings if (path := folder / spelling).exists()), folder / spellings[1])


def _check_rows(rows: Iterable[ClipRow]) -> None:
    """Refuse a file whose rows put it on two sides."""
    first: dict[Path, ClipRow] = {}
    for row in rows:
        other = first.setdefault(row.path, row)
        if (row.split, row.group) != (other.split, other.group):
            raise AnnotationError(
                f"{row.where}: {row.name} has split {row.split or 'none'} and group {row.group or 'none'}, but"
                f" {other.split or 'none'} and {other.group or 'none'} at {other.where}: a file is on one side whole"
            )
