"""Which clips of TAU are held back for validation, and whether two lists share a place."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

from avzoo.data.tau_lists import Line
from avzoo.errors import AvzooError, check_choice


def validation_split(
    lines: Sequence[Line], *, how: Literal["locations", "random"] = "locations", share: float = 0.1, seed: int
) -> tuple[list[Line], list[Line]]:
    """Set clips aside for validation, in each scene about the same share.

    Which ones depends on the seed and the names, not on the order of the lines. Each scene is split for itself: its
    places stand in an order of their own, by a hash, and one is taken if it brings the scene nearer to `share`; so a
    new clip seldom moves another. A scene with two places or more is in both parts, one with a single place is in
    training only.

    Args:
        lines: Training lines, labelled.
        how: "locations": no location is in both parts, as in the official split into training and test. "random": by
            the clip; the same place is then on both sides and the figure flatters.
        share: Of a scene's clips, above 0 to 0.5.
        seed: Another seed takes others.

    Returns:
        Training and validation lines, in the order given.

    Raises:
        AvzooError: If an option is out of range, a line tells no location, or no scene has two.
    """
    check_choice("how", how, ("locations", "random"))
    if not 0 < share <= 0.5:
        raise AvzooError(f"share is {share}, expected above 0, and 0.5 or less")
    units = [_unit(line, how) for line in lines]
    scenes: dict[str, Counter[str]] = defaultdict(Counter)
    for scene, name in units:
        scenes[scene][name] += 1
    held_out = {(scene, name) for scene, sizes in scenes.items() for name in _draw(scene, sizes, share, seed)}
    if not held_out:
        raise AvzooError(
            f"nothing to set aside for validation: of these {len(lines)} clips, no scene has two "
            + ('locations; how="random" splits by the clip' if how == "locations" else "clips")
        )
    train = [line for line, unit in zip(lines, units, strict=True) if unit not in held_out]
    return train, [line for line, unit in zip(lines, units, strict=True) if unit in held_out]


def _unit(line: Line, how: str) -> tuple[str, str]:
    """(scene, what goes to one side as a whole)."""
    if how == "random":
        return line.label or "", line.id
    if line.place is None:
        raise AvzooError(
            f"{line.where}: {line.id} tells no location; expected scene-city-location-segment or a column location_id"
            ' (how="random" needs none)'
        )
    return line.place


def _draw(scene: str, sizes: Counter[str], share: float, seed: int) -> list[str]:
    """The places that are set aside: with `share` 0.5 at most, never all."""
    if len(sizes) < 2:
        return []
    order = sorted(sizes, key=lambda name: hashlib.sha256(f"{seed}/{scene}/{name}".encode()).digest())
    taken: list[str] = []
    missing = share * sizes.total()
    for name in order:
        if sizes[name] < 2 * missing:  # nearer to the share with it than without
            taken.append(name)
            missing -= sizes[name]
    return taken or [min(order, key=sizes.__getitem__)]


def check_disjoint(train: Iterable[Line], other: Iterable[Line], names: tuple[str, str]) -> None:
    """Refuse two lists with a location in common, which would make a figure look better than it is.

    Clips that tell no location are compared by their names.

    Args:
        train: One list.
        other: The other.
        names: What the message calls them.

    Raises:
        AvzooError: With the location and a file of each list.
    """
    first: dict[object, Line] = {}
    for line in train:
        first.setdefault(line.place or line.id, line)
    leaks = [line for line in other if (line.place or line.id) in first]
    if not leaks:
        return
    there = leaks[0]
    key = there.place or there.id
    here = first[key]
    what = f"clip {key}" if isinstance(key, str) else f"location {key[1]} of the scene {key[0]!r}"
    raise AvzooError(
        f"{what} is in {names[0]} ({here.where}: {here.audio.name}) and in {names[1]} ({there.where}:"
        f" {there.audio.name}), as are {len(leaks)} clips of {names[1]} in all; expected lists that share no location"
    )
