"""What `avzoo check` says: problems, and a report of all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


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


def counted(count: int, noun: str, words: str, total: int | None = None) -> str:
    """A count as the subject of a sentence, whose verb, first of `words`, agrees with it.

    >>> counted(1, "photo", "are not read"), counted(2, "file", "have no sound", total=9)
    ('1 photo is not read', '2 of 9 files have no sound')
    """
    verb, _, rest = words.partition(" ")
    if count == 1:
        verb = {"are": "is", "have": "has"}.get(verb, f"{verb}s")
    of = "" if total is None else f" of {total}"
    return f"{count}{of} {noun}{'s' if (total or count) != 1 else ''} {verb} {rest}"


def listed(names: Iterable[object]) -> str:
    """Names in order, each once.

    >>> listed(["val", "train", "val"])
    'train and val'
    """
    return " and ".join(sorted({str(name) for name in names}))
