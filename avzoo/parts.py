"""One of n parts of a long list of files, for a job array: which files are its own, and where its answers go.

A file belongs to the same part whatever else is in the list, so that files may be added between two jobs. The answers
of a part are lines of JSON in a file of its own,

```
<answers>/part-00003-of-00016.jsonl.partial    while it is at work; a killed one goes on behind the last whole line
<answers>/part-00003-of-00016.jsonl            when every file of the part has its line
```
"""

from __future__ import annotations

import collections
import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock, Timeout

from avzoo.errors import AvzooError, DataNotFoundError
from avzoo.files import whole

NAME = r"part-\d{5,}-of-(\d{5,})\.jsonl(\.partial)?"
ARRAY = tuple(f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "MIN", "MAX", "STEP", "COUNT"))


@dataclass(frozen=True)
class Part:
    """Part `index` of `count`, counted from 1."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Part:
        """Read "3/16", or "slurm" for the part that a task of a Slurm job array has.

        Raises:
            AvzooError: If it is neither, or this is no job array, or one of a larger one's tasks that are run again.

        >>> Part.parse("3/16")
        Part(index=3, count=16)
        """
        if text == "slurm":
            return cls._of_array()
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise AvzooError(f"part {text!r}: expected i/n with i from 1 to n, such as 3/16, or slurm in a job array")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def _of_array(cls) -> Part:
        if any(name not in os.environ for name in ARRAY):
            raise AvzooError("part slurm: this is no task of a Slurm job array (sbatch --array=1-16 ...); give i/n")
        task, first, last, step, count = (int(os.environ[name]) for name in ARRAY)
        if first > 1 or (last - first) // step + 1 != count:  # such as --array=7 or 3,5: those of a larger one again
            raise AvzooError(
                f"part slurm: the array has {count} tasks from {first} to {last}, so the whole cannot be told from it:"
                " give --part $SLURM_ARRAY_TASK_ID/n, of the n that --array=1-n had"
            )
        return cls((task - first) // step + 1, count)

    def has(self, name: str) -> bool:
        """Whether a file is this part's.

        >>> [sum(Part(i, 2).has(f"{n}.mp4") for n in range(100)) for i in (1, 2)]
        [54, 46]
        """
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % self.count == self.index - 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


class Answers:
    """The answers of a part on disk, one line a video; whoever opens them goes on where the last one stopped.

    Args:
        folder: Of all parts.
        part: Which one.
        model: Who answers; answers of another model are refused.

    Raises:
        AvzooError: If another process is at work on this part, or the folder is of another division or model.
    """

    def __init__(self, folder: Path, part: Part, model: str) -> None:
        self.path = folder / f"part-{part.index:05d}-of-{part.count:05d}.jsonl"
        self._partial = self.path.with_name(f"{self.path.name}.partial")
        self._file: TextIO | None = None
        folder.mkdir(parents=True, exist_ok=True)
        if others := _counts(folder) - {part.count}:
            count = min(others)
            raise AvzooError(
                f"{folder} holds parts of {count}, not of {part.count}: give part i/{count}, or another folder"
            )
        self._lock = FileLock(folder / f".{self.path.name}.lock", fallback_to_soft=False)
        try:
            self._lock.acquire(blocking=False)
        except Timeout as error:
            raise AvzooError(f"another process is at work on part {part} in {folder}") from error
        answers = read(self._partial if self._partial.exists() else self.path)
        models = {answer["model"] for answer in answers if "error" not in answer} - {model}
        if models:
            raise AvzooError(f"{self.path} holds answers of {min(models)}, not of {model}: take another folder")
        self._kept = [answer for answer in answers if "error" not in answer]  # what failed is tried again
        self.done = {str(answer["video"]) for answer in self._kept}

    def write(self, answer: dict[str, Any]) -> None:
        """Add a video's answer."""
        self._open().write(as_json(answer) + "\n")
        self._open().flush()

    def finish(self) -> None:
        """Every video of the part has its answer."""
        self._open().close()
        self._partial.replace(self.path)
        self._lock.release()

    def _open(self) -> TextIO:
        if self._file is None:
            with whole(self._partial) as unfinished:
                unfinished.write_text("".join(as_json(a) + "\n" for a in self._kept), encoding="utf-8")
            self._file = self._partial.open("a", encoding="utf-8")
        return self._file


def as_json(answer: dict[str, Any]) -> str:
    r"""A line of JSON with letters as they are, but for names on disk that are not UTF-8.

    >>> as_json({"video": "über.mp4"}), as_json({"video": "\udcfcber.mp4"})
    ('{"video": "über.mp4"}', '{"video": "\\udcfcber.mp4"}')
    """
    line = json.dumps(answer, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:
        return json.dumps(answer)
    return line


def read(file: Path) -> list[dict[str, Any]]:
    """The answers in a file; half a line at the end of a `.partial`, whose process was killed, is left out.

    Raises:
        AvzooError: If it holds anything else.
    """
    try:
        *lines, rest = (file.read_text(encoding="utf-8") if file.exists() else "").split("\n")
        answers = [json.loads(line) for line in lines]
        if rest and file.suffix != ".partial":
            raise ValueError("it is cut short")
        for number, answer in enumerate(answers, 1):
            known = isinstance(answer, dict) and isinstance(answer.get("video"), str)
            if not known or not answer.keys() & {"model", "error"}:
                raise ValueError(f"line {number} is no answer")
    except ValueError as error:
        raise AvzooError(f"{file} is damaged ({error}): delete it and run its part again") from error
    return answers


def _counts(folder: Path) -> set[int]:
    """The n in the names `part-i-of-n` of a folder's files."""
    found = {path: re.fullmatch(NAME, path.name) for path in folder.glob("part-*-of-*.jsonl*")}
    for path, match in found.items():
        if not match:
            raise AvzooError(f"{path} is no part that `avzoo predict --part` wrote: move it elsewhere")
    return {int(match[1]) for match in found.values() if match}


def merge(folder: Path, videos: Iterable[Path] = ()) -> list[dict[str, Any]]:
    """The answers of all parts, by video.

    Args:
        folder: Where the parts are.
        videos: What must have been answered.

    Raises:
        DataNotFoundError: If there are none, or a part or a video is missing.
        AvzooError: If the parts are not of one whole: of several counts, models, or with a video twice.
    """
    counts = sorted(_counts(folder))
    if not counts:
        raise DataNotFoundError(f"{folder} holds no answers: expected files such as part-00001-of-00016.jsonl")
    if len(counts) > 1:
        raise AvzooError(f"{folder} holds parts of {counts[0]} and of {counts[1]}: keep one division, delete the other")
    files = {index: folder / f"part-{index:05d}-of-{counts[0]:05d}.jsonl" for index in range(1, counts[0] + 1)}
    missing = [f"{i}/{counts[0]}" for i, file in files.items() if not file.exists()]
    if missing:
        raise DataNotFoundError(f"{folder}: not finished yet: {_some(missing)}; run these parts (again)")
    answers = sorted((answer for file in files.values() for answer in read(file)), key=lambda answer: answer["video"])
    found = collections.Counter(Path(answer["video"]).absolute() for answer in answers)  # however they were spelt
    if twice := sorted(str(video) for video, count in found.items() if count > 1):
        raise AvzooError(f"{folder}: answered twice: {_some(twice)}")
    models = sorted({answer["model"] for answer in answers if "error" not in answer})
    if len(models) > 1:
        raise AvzooError(f"{folder} holds answers of {' and of '.join(models)}: run all parts with one of them")
    if left := [str(video) for video in videos if Path(video).absolute() not in found]:
        raise DataNotFoundError(f"{folder}: {len(left)} videos have no answer: {_some(left)}; run all parts again")
    return answers


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
