"""Real mp4 files with sound, made from a seed: a script of what is heard and seen, a film, three dataset layouts.

A clip holds one event: the seconds in which one class is both heard and seen. In its other seconds something
else is heard, or seen, or nothing is, so that neither modality alone tells where the event is:

    script(seed) -> Script -> render(script, path) -> mp4 (H.264 + AAC)

`write_ave`, `write_clips` and `write_tau` make whole datasets of them, in the layouts that the datamodules of
the same names read. The same seed gives the same bytes with the same versions of the libraries.
"""

from __future__ import annotations

import contextlib
import csv
import multiprocessing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from avzoo.data.rendering import looks, places, sounds
from avzoo.data.rendering.mp4 import encode
from avzoo.data.rendering.scenes import SCENES, Take, record
from avzoo.errors import AvzooError, did_you_mean
from avzoo.files import whole

VERSION = 1  # raise it whenever a seed leads to another clip
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
_CITIES = ("barcelona", "helsinki", "lisbon", "london", "lyon", "milan", "paris", "prague", "stockholm", "vienna")
_SEGMENTS_PER_LOCATION = 2


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


def _call(job: partial[Path]) -> Path:
    return job()


def _make(jobs: Sequence[partial[Path]], workers: int) -> None:
    """Run the jobs in `workers` processes, or here if 0, behind a bar that a terminal sees and a log does not."""
    with contextlib.ExitStack() as stack:
        if workers > 0:
            # spawn: the caller may hold threads (torch, a progress bar) that a fork would break.
            spawn = multiprocessing.get_context("spawn")
            results = stack.enter_context(ProcessPoolExecutor(workers, mp_context=spawn)).map(_call, jobs)
        else:
            results = map(_call, jobs)
        for _ in tqdm(results, total=len(jobs), desc="rendering", unit="clip", disable=None):
            pass


def _write(path: Path, rows: Iterable[Sequence[object]], delimiter: str) -> None:
    with whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows(rows)


def _splits(counts: Mapping[str, int], seed: int) -> dict[str, range]:
    """Seeds for the clips of each split: no two splits share one, nor do two seeds up to a million clips."""
    if seed < 0:
        raise AvzooError(f"seed must be 0 or more, given {seed}")
    first, out = seed * 1_000_000, {}
    for split, count in counts.items():
        if count < 0:
            raise AvzooError(f"{split} must be 0 clips or more, given {count}")
        out[split] = range(first, first + count)
        first += count
    return out


def write_ave(
    folder: Path,
    *,
    train: int,
    val: int,
    test: int,
    seed: int = 0,
    seconds: int = 10,
    classes: Sequence[str] = CLASSES,
    size: int = 128,
    fps: int = 8,
    sample_rate: int = 16_000,
    workers: int = 0,
) -> Path:
    """Write a dataset of events in the layout of AVE.

    `AVE/<id>.mp4`, `Annotations.txt` and `{train,val,test}Set.txt` (`Category&VideoID&good&Start&End`, no header),
    and `metadata.csv` with what is heard and seen in each second.

    Args:
        folder: Where; made if missing.
        train: Clips of the training split; `val` and `test` likewise. No clip is in two splits.
        val: See `train`.
        test: See `train`.
        seed: Another seed gives other clips under other ids.
        seconds: Length of a clip.
        classes: Names of `CLASSES`, taken in turn.
        size: Edge of the picture in pixels.
        fps: Frames per second.
        sample_rate: Hz.
        workers: Processes; 0 renders in this one.

    Returns:
        `folder`.

    Raises:
        AvzooError: As `script` and `render`, or if a count is negative.
    """
    scripts = {
        split: [script(number, seconds=seconds, classes=classes) for number in numbers]
        for split, numbers in _splits({"train": train, "val": val, "test": test}, seed).items()
    }
    jobs = [
        partial(render, item, folder / "AVE" / f"{item.id}.mp4", size=size, fps=fps, sample_rate=sample_rate)
        for items in scripts.values()
        for item in items
    ]
    _make(jobs, workers)
    lines = {split: [(s.category, s.id, "good", s.start, s.end) for s in items] for split, items in scripts.items()}
    for split, rows in lines.items():
        _write(folder / f"{split}Set.txt", rows, "&")
    _write(folder / "Annotations.txt", [row for rows in lines.values() for row in rows], "&")
    header = ("video_id", "split", "category", "event_start", "event_end", "audio_per_second", "visual_per_second")
    table = [
        (s.id, split, s.category, s.start, s.end, "|".join(s.heard), "|".join(s.seen))
        for split, items in scripts.items()
        for s in items
    ]
    _write(folder / "metadata.csv", [header, *table], ",")
    return folder


def write_clips(
    folder: Path,
    *,
    train: int,
    val: int,
    test: int,
    seed: int = 0,
    seconds: int = 10,
    classes: Sequence[str] = CLASSES,
    size: int = 128,
    fps: int = 8,
    sample_rate: int = 16_000,
    workers: int = 0,
) -> Path:
    """Write a dataset of labelled clips: `{train,val,test}/<class>/<id>.mp4`.

    The arguments are those of `write_ave`; the event takes at least six tenths of a clip, whose label it is.

    Raises:
        AvzooError: As `write_ave`.
    """
    shortest = max(1, round(0.6 * seconds))
    jobs = []
    for split, numbers in _splits({"train": train, "val": val, "test": test}, seed).items():
        for number in numbers:
            item = script(number, seconds=seconds, classes=classes, shortest=shortest)
            path = folder / split / item.category / f"{item.id}.mp4"
            jobs.append(partial(render, item, path, size=size, fps=fps, sample_rate=sample_rate))
    _make(jobs, workers)
    return folder


def write_tau(
    folder: Path,
    *,
    train: int,
    test: int,
    seed: int = 0,
    seconds: int = 10,
    scenes: Sequence[str] = tuple(SCENES),
    size: int = 128,
    fps: int = 5,
    sample_rate: int = 48_000,
    workers: int = 0,
) -> Path:
    """Write a dataset of scenes in the layout of TAU Urban Audio-Visual Scenes 2021.

    `audio/<id>.wav` (stereo, 16 bit), `video/<id>.mp4` (silent), `meta.csv` and
    `evaluation_setup/fold1_{train,test,evaluate}.csv` (tab-separated; the test list has no labels), and
    `metadata.csv` with the degradation of each clip. The id is `scene-city-location-segment`; no location is in
    both splits. In a fifth of the clips the sound tells nothing and in another fifth the picture, so that only
    both together can reach every clip.

    Args:
        folder: Where; made if missing.
        train: Clips of the training list, in which the scenes take turns.
        test: Clips of the test list.
        seed: Another seed gives other places.
        seconds: Length of a clip.
        scenes: Names of the ten scenes.
        size: Edge of the picture in pixels.
        fps: Frames per second.
        sample_rate: Hz.
        workers: Processes; 0 renders in this one.

    Returns:
        `folder`.

    Raises:
        AvzooError: If a scene is unknown, or a number out of range.
    """
    for name in scenes:
        if name not in SCENES:
            raise AvzooError(f"no scene {name!r} to render{did_you_mean(name, SCENES)} (scenes: {', '.join(SCENES)})")
    if not scenes or seconds < 1:
        raise AvzooError(f"scenes must not be empty and seconds 1 or more, given {len(scenes)} scenes and {seconds} s")
    takes: dict[str, list[Take]] = {}
    location = 1000 + 100_000 * seed
    for split, numbers in _splits({"train": train, "test": test}, seed).items():
        takes[split] = [_take(number, index, location, scenes) for index, number in enumerate(numbers)]
        location += len(numbers)
    every = [(split, take) for split, items in takes.items() for take in items]
    _make(
        [partial(record, t, folder, seconds=seconds, size=size, fps=fps, sample_rate=sample_rate) for _, t in every],
        workers,
    )

    def files(take: Take) -> tuple[str, str]:
        return f"audio/{take.id}.wav", f"video/{take.id}.mp4"

    names = ("filename_audio", "filename_video")
    setup = folder / "evaluation_setup"
    labelled = {split: [(*files(t), t.scene) for t in items] for split, items in takes.items()}
    _write(setup / "fold1_train.csv", [(*names, "scene_label"), *labelled["train"]], "\t")
    _write(setup / "fold1_test.csv", [names, *(files(t) for t in takes["test"])], "\t")
    _write(setup / "fold1_evaluate.csv", [(*names, "scene_label"), *labelled["test"]], "\t")
    header = (*names, "scene_label", "identifier")
    _write(folder / "meta.csv", [header, *((*files(t), t.scene, t.identifier) for _, t in every)], "\t")
    rows = [(*files(t), t.scene, t.identifier, split, t.degradation) for split, t in every]
    _write(folder / "metadata.csv", [(*header, "split", "degradation"), *rows], "\t")
    return folder


def _take(number: int, index: int, first_location: int, scenes: Sequence[str]) -> Take:
    """The take with this place in its list: scenes in turn, a few segments to a location, cities at random."""
    round_, scene = divmod(index, len(scenes))
    visit = round_ // _SEGMENTS_PER_LOCATION * len(scenes) + scene
    location = first_location + visit
    city = _CITIES[location * 7 % len(_CITIES)]
    degradation = np.random.default_rng([number, 3]).choice(["none", "sound", "picture"], p=[0.6, 0.2, 0.2])
    return Take(scenes[scene], city, location, 40_000 + index, str(degradation), number)
