"""The text files of TAU Urban Audio-Visual Scenes 2021: its lists of clips, a challenge submission.

```
filename_audio                          filename_video                          scene_label
audio/airport-lisbon-1000-40000.wav     video/airport-lisbon-1000-40000.mp4     airport
```

Separated by tabs or commas, columns found by their names. A clip is called `scene-city-location-segment`, and what a
list leaves out is read from that name. A location is a number within a scene: the same number in another scene is
another place. What is held back for validation is in `tau_splits.py`.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from avzoo.data.label_files import label_text
from avzoo.errors import AnnotationError, AvzooError, ClassMismatchError, did_you_mean
from avzoo.files import whole

TAU_CLASSES = (
    "airport", "bus", "metro", "metro_station", "park", "public_square", "shopping_mall", "street_pedestrian",
    "street_traffic", "tram",
)  # fmt: skip
_FILES = ("filename_audio", "filename_video")
_HINT = "a dataset in TAU's layout has audio/, video/, meta.csv and evaluation_setup/fold1_{train,test,evaluate}.csv"


@dataclass(frozen=True)
class Line:
    """One clip of a list.

    Attributes:
        id: The stem of both files; no two lines of a list share it.
        audio: The sound, below the dataset's folder.
        video: The pictures.
        label: The scene, or None where neither the list nor the name of the file tells it.
        location: The place within the scene, or "" where nothing tells it.
        city: Or "".
        where: `list:line`, for messages.
    """

    id: str
    audio: Path
    video: Path
    label: str | None
    location: str
    city: str
    where: str

    @property
    def place(self) -> tuple[str, str] | None:
        """(scene, location), which no two splits may share, or None if the location is not known."""
        return (self.label or self.id.partition("-")[0], self.location) if self.location else None


# -- reading ---------------------------------------------------------------------------------------------------------


def read_list(path: Path, root: Path, *, classes: Sequence[str] | None = None) -> list[Line]:
    r"""Read a list such as `evaluation_setup/fold1_train.csv` or `meta.csv`.

    The columns `filename_audio` and `filename_video` must be there. Each of these may be there and then wins over the
    name of the file: `scene_label`, `location_id`. A location that neither tells is the column `identifier`, if any. A
    clip without a label has the first field of its name for one, if that is among `classes` (if they are not given:
    among the labels of the list); if not, its label is None.

    Args:
        path: The list.
        root: Folder of the dataset; the files named in the list lie below it. They need not exist.
        classes: If given, a label that is not among them is an error.

    Raises:
        DataNotFoundError: If there is no such list.
        AnnotationError: If a column is missing, a line cannot be read, names a file outside `root`, two files that are
            not of one clip, a clip that another line has, or an unknown class; with file and line.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "fold1_test.csv"
    >>> _ = path.write_text("filename_audio\tfilename_video\naudio/bus-lyon-7-1.wav\tvideo/bus-lyon-7-1.mp4\n")
    >>> [(line.id, line.label, line.city, line.place) for line in read_list(path, path.parent, classes=TAU_CLASSES)]
    [('bus-lyon-7-1', 'bus', 'lyon', ('bus', '7'))]
    """
    path, root = Path(path), Path(root)
    rows = _read_rows(path)
    known = classes or list(dict.fromkeys(row["scene_label"] for _, row in rows if row.get("scene_label")))
    lines: dict[str, Line] = {}
    for where, row in rows:
        line = _parse(row, where, root, known)
        if line.id in lines:
            raise AnnotationError(f"{where}: clip {line.id} is at {lines[line.id].where} too; delete one of the two")
        lines[line.id] = line
    return list(lines.values())


def read_splits(path: Path) -> dict[str, str]:
    """The split of every clip that a table such as `metadata.csv` names, in its columns `filename_video` and `split`.

    Raises:
        DataNotFoundError: If there is no such file.
        AnnotationError: If it cannot be read or has no such column.
    """
    rows = _read_rows(path)
    for where, row in rows:
        if "split" not in row:
            raise AnnotationError(f"{where}: no column `split`; the columns are {list(row)}")
    return {Path(row["filename_video"]).stem: row["split"] for _, row in rows}


def _read_rows(path: Path) -> list[tuple[str, dict[str, str]]]:
    """Every line below the header as `list:line` and its fields by column; blank lines are left out."""
    with label_text(path, _HINT) as file:
        text = file.read()
    delimiter = "\t" if "\t" in text.partition("\n")[0] else ","
    reader = csv.reader(text.split("\n"), delimiter=delimiter, strict=True)
    numbered: list[tuple[int, list[str]]] = []
    try:
        for fields in reader:
            numbered.append((reader.line_num, [field.strip() for field in fields]))
    except csv.Error as error:
        raise AnnotationError(f"{path}:{reader.line_num}: {error}; is a quotation mark left open?") from error
    header = numbered[0][1]
    for column in _FILES:
        if header.count(column) != 1:
            raise AnnotationError(
                f"{path}:1: {header.count(column) or 'no'} columns {column!r} in the header {header}; expected"
                f" {' and '.join(_FILES)}, and perhaps scene_label, location_id and identifier, between tabs or commas"
            )
    rows = []
    for number, fields in numbered[1:]:
        if not any(fields):
            continue
        if len(fields) != len(header):
            raise AnnotationError(f"{path}:{number}: {len(fields)} fields, expected {len(header)}: {', '.join(header)}")
        rows.append((f"{path}:{number}", dict(zip(header, fields, strict=True))))
    if not rows:
        raise AnnotationError(f"{path}: no clips; expected a line for each below the header")
    return rows


def _parse(row: Mapping[str, str], where: str, root: Path, known: Sequence[str]) -> Line:
    audio, video = (_inside(root, row[column], f"{where}: {column}") for column in _FILES)
    if audio.stem != video.stem:
        raise AnnotationError(f"{where}: {row[_FILES[0]]} and {row[_FILES[1]]} are not of one clip: their names differ")
    named = audio.stem.split("-")
    scene, city, location = named[:3] if len(named) >= 4 else ("", "", "")
    label = row.get("scene_label") or (scene if scene in known else None)
    if label is not None and label not in known:
        raise AnnotationError(
            f"{where}: unknown class {label!r}{did_you_mean(label, known)}; the classes are {list(known)}"
        )
    return Line(
        id=audio.stem,
        audio=audio,
        video=video,
        label=label,
        location=row.get("location_id") or location or row.get("identifier", ""),
        city=city,
        where=where,
    )


def _inside(root: Path, name: str, where: str) -> Path:
    parsed = PureWindowsPath(name)  # which knows both slashes, and drives
    if parsed.anchor or ".." in parsed.parts or not parsed.name:
        raise AnnotationError(f"{where} is {name!r}, expected a file below the dataset's folder, as audio/<clip>.wav")
    return root.joinpath(*parsed.parts)


# -- a partial download ----------------------------------------------------------------------------------------------


def missing_files(lines: Iterable[Line]) -> list[Line]:
    """The lines whose sound or video is not on disk."""
    return [line for line in lines if not (line.audio.is_file() and line.video.is_file())]


def describe_missing(missing: Sequence[Line], total: int) -> str:
    """One sentence about what `missing_files` found.

    Args:
        missing: What it returned.
        total: How many lines it was given.
    """
    gone = Counter((line.audio.is_file(), line.video.is_file()) for line in missing)
    names = ", ".join(line.id for line in missing[:3]) + (", ..." if len(missing) > 3 else "")
    return (
        f"{len(missing)} of {total} clips are not whole: {gone[False, True]} lack the sound, {gone[True, False]} the"
        f" video, {gone[False, False]} both ({names}); the rest of the download belongs into the same folders"
    )


# -- a submission ----------------------------------------------------------------------------------------------------


def write_submission(path: Path, rows: Iterable[tuple[str, str, Mapping[str, float]]]) -> Path:
    """Write the answers to the DCASE 2021 task 1B evaluation set, the label being the likeliest class.

    Tab-separated, `filename_audio filename_video scene_label` and the probability of each class in alphabetical order;
    nine digits, so that a float32 survives. A file of that name is replaced only when all rows are written.

    Args:
        path: The file.
        rows: Both file names as the evaluation list has them, and the probability of each of `TAU_CLASSES` by name.

    Returns:
        `path`.

    Raises:
        ClassMismatchError: If the classes of a row are not `TAU_CLASSES`.
        AvzooError: If its probabilities are not numbers from 0 to 1 with a sum of 1 (to 0.001).
    """
    with whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow([*_FILES, "scene_label", *TAU_CLASSES])
        for audio, video, given in rows:
            odd = set(given) ^ set(TAU_CLASSES)
            if odd:
                raise ClassMismatchError(f"{audio}: {sorted(odd)} missing or too many; expected {list(TAU_CLASSES)}")
            values = [given[name] for name in TAU_CLASSES]
            if not (all(0 <= value <= 1 for value in values) and math.isclose(sum(values), 1, abs_tol=1e-3)):
                raise AvzooError(f"{audio}: {values} (sum {sum(values)}), expected 0 to 1 each with a sum of 1")
            writer.writerow([audio, video, max(given, key=given.__getitem__), *(f"{value:.9g}" for value in values)])
    return path
