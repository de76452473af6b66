"""Which of one's own clips are held back for validation, and all that keeps them from being learnt from."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from avzoo.data.base import BACKGROUND, Task
from avzoo.data.clip_table import ClipRow
from avzoo.errors import AvzooError


def assign_splits(rows: Sequence[ClipRow], val_fraction: float) -> list[ClipRow]:
    """The rows, each with a split; validation is drawn from training where no row declares it.

    A unit (a group, or a file without one) is held back if the hash of its name, read as a number from 0 to 1, is below
    `val_fraction`, whatever else there is: it stays where it is when files are added. Two exceptions keep small classes
    whole: one all of whose units would be held back keeps the highest, and one with two or more of which none is held
    back gives the lowest without which every class still has training. More files undo the second exception, so that a
    unit goes from validation to training; only the first can bring one from training to validation, in a class that is
    almost nothing but held back.

    Raises:
        AvzooError: If `val_fraction` is no share.

    >>> from pathlib import Path
    >>> rows = [ClipRow(Path(n), n, "a") for n in ("1.mp4", "2.mp4", "3.mp4", "4.mp4")]
    >>> [row.split for row in assign_splits(rows, 0.25)]
    ['train', 'train', 'train', 'val']
    """
    if not 0 < val_fraction < 1:
        raise AvzooError(f"val_fraction is {val_fraction:g}, expected a share between 0 and 1, such as 0.2")
    if any(row.split == "val" for row in rows):
        return [row if row.split else replace(row, split="train") for row in rows]
    units: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.split != "test":
            units[row.label].add(row.unit)
    held = {unit for own in units.values() for unit in own if _place(unit) < val_fraction}
    for _, own in sorted(units.items()):
        if own <= held:
            held.discard(max(own, key=_place))
    for _, own in sorted(units.items()):
        spare = [unit for unit in own if all(other - held - {unit} for other in units.values())]
        if spare and not own & held:
            held.add(min(spare, key=_place))
    return [row if row.split == "test" else replace(row, split="val" if row.unit in held else "train") for row in rows]


def _place(unit: str) -> float:
    """Where a name falls between 0 and 1."""
    return int.from_bytes(hashlib.sha256(unit.encode()).digest()[:8]) / 2**64


# -- what cannot be learnt from --------------------------------------------------------------------------------------


class Fault(NamedTuple):
    """Why rows cannot be learnt from.

    Attributes:
        kind: A short name, the same for the same trouble.
        message: What was found.
        advice: What to do.
        rows: Where, if anywhere.
    """

    kind: str
    message: str
    advice: str
    rows: Sequence[ClipRow] = ()


def faults(rows: Sequence[ClipRow], task: Task) -> Iterator[Fault]:
    """All that keeps rows, which have their splits, from being learnt from."""
    by_label, by_file, by_group = (_grouped(rows, key) for key in ("label", "path", "group"))
    events = sorted(by_label.keys() - ({BACKGROUND} if task == "events" else set()))
    for group, own in by_group.items():
        sides = list({row.split: row for row in own}.values())
        if group and len(sides) > 1:
            message = f"group {group!r} is in {' and '.join(sorted(str(row.split) for row in sides))}"
            advice = "put it on one side, or rename one if they have nothing in common: what was learnt from is no test"
            yield Fault("leak", message, advice, sides)
    for own in by_file.values():
        whole = {row.label: row for row in own if row.start is None}
        if len(whole) > 1:
            message = f"{own[0].name} is labelled {' and '.join(sorted(whole))}"
            advice = "keep the one that is right, or give start and end"
            yield Fault("two labels", message, advice, list(whole.values()))
    if not events or (len(events) == 1 and not (task == "events" and tell_background(rows))):
        message = f"there is one class, {', '.join(by_label)}, and nothing to tell it from"
        yield Fault("one class", message, f"add a second class, or for events a folder or label {BACKGROUND!r}")
    for label in events:
        if len(by_file) > 1 and len({row.path for row in by_label[label]}) == 1:
            advice = "one to learn from and another to validate on are the least: add clips, or leave the class out"
            yield Fault("one clip", f"there is one clip of {label}", advice)
        if all(row.split != "train" for row in by_label[label]):
            yield Fault("no training", f"no clip of {label} is in training", "declare one as train")
    if {row.split for row in rows} & {"train", "val"} == {"train"}:
        message = "every class is one file or group (a subfolder is one): nothing can be held back to validate on"
        yield Fault("no validation", message, "add files, or declare the split of some as val")


def tell_background(rows: Iterable[ClipRow]) -> bool:
    """Whether rows say what is no event: by the label of the background, or by giving events in time."""
    return any(row.label == BACKGROUND or row.start is not None for row in rows)


def _grouped(rows: Iterable[ClipRow], key: str) -> dict[Any, list[ClipRow]]:
    groups: dict[Any, list[ClipRow]] = defaultdict(list)
    for row in rows:
        groups[getattr(row, key)].append(row)
    return groups
