"""Clips: one's own videos, a folder per class or a table, as scenes (a label a file) or as events (labels in time).

What the rows are is in `clip_table.py`, how they are split in `clip_splits.py`. A file is read in windows of
`preprocess.seconds`, as `predict` reads it: one after the other, the last moved back so that it is full. A file shorter
than a window has its last picture held and silence after it; in events that tail is background.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from avzoo.clip import probe
from avzoo.data.base import BACKGROUND, Item, Split
from avzoo.data.clip_splits import assign_splits, faults, tell_background
from avzoo.data.clip_table import ClipRow, read_clips
from avzoo.data.windows import Window, WindowDataModule
from avzoo.errors import (
    AnnotationError,
    ClassMismatchError,
    DataNotFoundError,
    MediaError,
    check_choice,
    did_you_mean,
)

Task = Literal["auto", "scenes", "events"]


class Clips(WindowDataModule):
    """One's own clips.

    Args:
        root: A folder of folders, or a table; see `avzoo.data.clip_table` for what they look like.
        task: "scenes", a file has one label; "events", labels in time, to which the background is added as the last
            class: what no row covers, and what is labelled `background`. A row without start and end is then an event
            from a file's beginning to its end. "auto" takes events where a row has start and end.
        val_fraction: Share of the training clips (of groups, where there are any) that is held back for validation,
            where nothing is declared to be validation, whatever the seed; see `assign_splits`. There is no test split
            but a declared one.
        classes: Label order; default alphabetical. For events the background is appended if it is not there.
        options: As of `WindowDataModule` and `AVDataModule`.

    Raises:
        AvzooError: If an option is not one of those above, or is of the other task.
        DataNotFoundError: If there is no such folder or table, no video in it, or a file of the table is not there.
        AnnotationError: If the table cannot be read or gives nothing to learn; `avzoo check` says more.
    """

    remedies = {"scenes": "read it as events (`--data.task events`), or "}  # noqa: RUF012 - the base class says it

    def __init__(
        self,
        root: Path,
        *,
        task: Task = "auto",
        val_fraction: float = 0.2,
        classes: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_choice("task", task, ("auto", "scenes", "events"))
        self.root, self.val_fraction = Path(root), val_fraction
        self._given_task, self._given_classes = task, classes

    @functools.cached_property
    def rows(self) -> list[ClipRow]:
        """All rows, each with its split."""
        rows = read_clips(self.root)
        gone = list(dict.fromkeys(row.path for row in rows if not row.path.is_file()))
        if gone:
            message = f"{self.root}: {len(gone)} of its files are not there, such as {gone[0]}"
            if self.on_missing == "error" or not (rows := [row for row in rows if row.path not in set(gone)]):
                raise DataNotFoundError(
                    f"{message}: paths are read from the table's folder on; `data.on_missing: skip` goes on without"
                )
            print(f"{message}; going on without them (on_missing: skip).")
        rows = assign_splits(rows, self.val_fraction)
        for fault in faults(rows, self._read_as(rows)):
            where = ", ".join(row.where for row in fault.rows) or self.root
            raise AnnotationError(f"{where}: {fault.message}: {fault.advice}")
        return rows

    @functools.cached_property
    def task(self) -> Literal["scenes", "events"]:
        """What the rows are read as."""
        return self._read_as(self.rows)

    def _read_as(self, rows: Sequence[ClipRow]) -> Literal["scenes", "events"]:
        timed = next((row for row in rows if row.start is not None), None)
        if self._given_task == "scenes" and timed is not None:
            raise AnnotationError(
                f"{timed.where}: a scene is a whole file, this row is from {timed.start:g} to {timed.end:g} s: take"
                " task events and a model of events, such as avsdn-avemix, or leave start and end out"
            )
        if self._given_task == "auto":
            return "scenes" if timed is None else "events"
        return self._given_task

    @functools.cached_property
    def classes(self) -> list[str]:
        """The label order; for events the last one is the background."""
        found = sorted({row.label for row in self.rows})
        events = [name for name in found if name != BACKGROUND] if self.task == "events" else found
        if self._given_classes is not None:
            given = [name for name in self._given_classes if self.task == "scenes" or name != BACKGROUND]
            for row in self.rows:
                if row.label in events and row.label not in given:
                    raise ClassMismatchError(
                        f"{row.where}: {row.label!r} is none of the classes given,"
                        f" {given}{did_you_mean(row.label, given)}"
                    )
            events = given
        return [*events, BACKGROUND] if self.task == "events" else events

    @property
    def has_background(self) -> bool:
        """Whether the rows say what is background."""
        return tell_background(self.rows)

    def report(self, broken: Mapping[str, str], clips: int) -> None:
        """See `AVDataModule`."""
        try:
            super().report(broken, clips)
        except MediaError as error:
            raise MediaError(f"{error}\n`avzoo check '{self.root}'` looks for such beforehand.") from error

    @functools.cached_property
    def _windows(self) -> dict[Split, list[Window]]:
        self.check_options()
        by_file: dict[Path, list[ClipRow]] = defaultdict(list)
        for row in self.rows:
            by_file[row.path].append(row)
        windows: dict[Split, list[Window]] = {"train": [], "val": [], "test": []}
        for path, rows in tqdm(by_file.items(), desc="reading lengths", unit="file", disable=None):
            try:
                duration = probe(path).duration
            except MediaError:
                duration = 0.0  # one window, whose extraction says what is wrong, beside all else that is
            windows[rows[0].split or "train"] += self._of_file(path, rows, duration)
        return windows

    def _of_file(self, path: Path, rows: Sequence[ClipRow], duration: float) -> list[Window]:
        """The windows that cover a file of `duration` s."""
        places = list(self.preprocess.windows(duration))
        covered = sum(new.stop - new.start for _, new in places) * self.preprocess.segment_seconds
        spans = sorted((row.start or 0.0, covered if row.end is None else row.end, row.label) for row in rows)
        windows = []
        for start, _ in places:
            suffix = f"+{start:g}" if start else ""
            id_, key = path.name + suffix, rows[0].name + suffix
            if self.task == "scenes":
                windows.append(Window(key, id_, path, rows[0].label, 0.0, self.preprocess.seconds, None, start))
                continue
            end = start + self.preprocess.seconds
            events = tuple(
                (label, max(0.0, a - start), min(b, end) - start)
                for a, b, label in spans
                if a < end and b > start and label != BACKGROUND
            )
            main = max(events, key=lambda event: event[2] - event[1], default=(BACKGROUND, 0.0, 0.0))
            windows.append(Window(key, id_, path, *main, None, start, events))
        return windows

    def items(self, split: Split) -> list[Item]:
        """The windows of a split, file by file."""
        if not self._windows[split]:
            raise DataNotFoundError(
                f"{self.root} has no {split} clips: put some in a folder {split}/<class>, or give the table a column"
                " split"
            )
        return list(self._windows[split])

    @property
    def available(self) -> tuple[Split, ...]:
        """A test split need not be there."""
        return ("train", "val", "test") if self._windows["test"] else ("train", "val")
