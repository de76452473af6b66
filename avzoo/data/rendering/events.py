"""One event as an mp4 with sound: a script of what is heard and seen, made from a seed, and its film.

An event is the seconds in which one class is both heard and seen. In the other seconds of a clip something else is
heard, or seen, or nothing is, so that neither modality alone tells where the event is:

    script(seed) -> Script -> render(script, path) -> mp4 (H.264 + AAC)

The same seed gives the same bytes with the same versions of the libraries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from avzoo.data.rendering import looks, places, sounds
from avzoo.data.rendering.mp4 import encode
from avzoo.errors import AvzooError, did_you_mean

BACKGROUND = "background"  # what is heard or seen when nothing is


class Source(NamedTuple):
    """How a class looks, where it is seen and how it sounds."""

    look: looks.Look
    place: places.Place
    sound: sounds.Sound


SOURCES: dict[str, Source] = {
    "drone": Source(looks.drone, places.sky, sounds.drone),
    "helicopter": Source(looks.helicopter, places.sky, sounds.helicopter),
    "mandolin": Source(looks.mandolin, places.room, sounds.mandolin),
    "saxophone": Source(looks.saxophone, places.room, sounds.saxophone),
    "guitar": Source(looks.guitar, places.room, sounds.guitar),
    "grand_piano": Source(looks.grand_piano, places.room, sounds.grand_piano),
    "church_bell": Source(looks.church_bell, places.sky, sounds.church_bell),
    "siren": Source(looks.siren, places.street, sounds.siren),
}
CLASSES: tuple[str, ...] = tuple(SOURCES)

# What is heard and seen outside the event: the class itself, one other, yet another, nothing.
_DISTRACTORS = (
    ("this", "other"),
    ("other", "this"),
    ("this", "none"),
    ("none", "this"),
    ("other", "another"),
    ("none", "none"),
)


@dataclass(frozen=True)
class Script:
    """What a clip shows and plays, second by second.

    Attributes:
        id: Name of the clip; made from the seed, so unique within a dataset.
        category: The event's class.
        start: First second of the event.
        end: Second after its last one.
        heard: What is heard in each second, a class or `background`.
        seen: What is seen in each second, a class or `background`.
        seed: Decides everything, also how the clip is drawn and played.
    """

    id: str
    category: str
    start: int
    end: int
    heard: tuple[str, ...]
    seen: tuple[str, ...]
    seed: int


def script(seed: int, *, seconds: int = 10, classes: Sequence[str] = CLASSES, shortest: int = 2) -> Script:
    """Write the script of one clip; consecutive seeds take the classes in turn.

    Args:
        seed: Not negative; the same seed gives the same script.
        seconds: Length of the clip.
        classes: At least three names of `CLASSES`.
        shortest: Least length of the event in seconds (at most `seconds`).

    Raises:
        AvzooError: If a class is unknown, there are fewer than three, or a number is out of range.

    >>> s = script(2)
    >>> s.category, s.heard[s.start : s.end] == s.seen[s.start : s.end] == ("mandolin",) * (s.end - s.start)
    ('mandolin', True)
    """
    for name in classes:
        if name not in SOURCES:
            raise AvzooError(
                f"no class {name!r} to render{did_you_mean(name, CLASSES)} (classes: {', '.join(CLASSES)})"
            )
    if len(set(classes)) < 3 or len(set(classes)) < len(classes):
        raise AvzooError(f"distractors need at least three different classes, given: {', '.join(classes) or 'none'}")
    if seed < 0 or seconds < 1 or shortest < 1:
        raise AvzooError(f"seed must be 0 or more, seconds and shortest 1 or more; given {seed}, {seconds}, {shortest}")
    rng = np.random.default_rng([seed, 0])
    category = classes[seed % len(classes)]
    length = int(rng.integers(min(shortest, seconds), seconds + 1))
    start = int(rng.integers(0, seconds - length + 1))
    pairs = [*_distract(rng, category, classes, start), *[(category, category)] * length]
    pairs += _distract(rng, category, classes, seconds - start - length)
    heard, seen = zip(*pairs, strict=True)
    return Script(f"syn_{seed:08d}", category, start, start + length, heard, seen, seed)


def _distract(
    rng: np.random.Generator, category: str, classes: Sequence[str], seconds: int
) -> Iterator[tuple[str, str]]:
    """What is heard and seen in the seconds before or after an event, in pieces of two to four seconds."""
    while seconds > 0:
        other, another = rng.permutation([name for name in classes if name != category])[:2].tolist()
        names = {"this": category, "other": other, "another": another, "none": BACKGROUND}
        heard, seen = _DISTRACTORS[rng.integers(len(_DISTRACTORS))]
        piece = min(seconds, int(rng.integers(2, 5)))
        yield from [(names[heard], names[seen])] * piece
        seconds -= piece


def _runs(names: Iterable[str]) -> list[tuple[str, int]]:
    """Each stretch of the same name with its length in seconds."""
    return [(name, len(list(stretch))) for name, stretch in groupby(names)]


def render(script: Script, path: Path, *, size: int = 128, fps: int = 8, sample_rate: int = 16_000) -> Path:
    """Draw, play and encode a script: H.264 (`size` x `size` pixels) and AAC (mono) in an mp4.

    The file is written beside `path` and renamed at the end, so that a file of that name is always whole.

    Args:
        script: What to render.
        path: Where; missing folders are made.
        size: Edge of the picture in pixels, even, at least 16.
        fps: Frames per second.
        sample_rate: Of the sound in Hz, one that AAC knows (8000 to 96000).

    Returns:
        `path`.

    Raises:
        AvzooError: If `size` is odd or below 16, or `fps` below 1.
    """
    picture, sound = np.random.default_rng([script.seed, 1]), np.random.default_rng([script.seed, 2])
    parts = [(None if name == BACKGROUND else SOURCES[name].sound, seconds) for name, seconds in _runs(script.heard)]
    waveform = sounds.soundtrack(parts, sound, sample_rate)
    return encode(path, _shots(script, picture, size, fps), size=size, fps=fps, sound=(waveform, sample_rate))


def _shots(script: Script, rng: np.random.Generator, size: int, fps: int) -> Iterator[places.Picture]:
    for name, seconds in _runs(script.seen):
        if name == BACKGROUND:
            look, place = None, places.PLACES[rng.integers(len(places.PLACES))]
        else:
            look, place, _ = SOURCES[name]
        yield from places.film(look, place, rng, size=size, frames=seconds * fps, fps=fps)
