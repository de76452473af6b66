"""Whole datasets of rendered clips, in the layouts that the datamodules AVE, Clips and TAU read."""

from __future__ import annotations

import contextlib
import csv
import multiprocessing
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from avzoo.data.rendering.events import CLASSES, render, script
from avzoo.data.rendering.scenes import SCENES, Take, record
from avzoo.errors import AvzooError, did_you_mean
from avzoo.files import whole

VERSION = 2  # raise it whenever a seed leads to another clip
_CITIES = ("barcelona", "helsinki", "lisbon", "london", "lyon", "milan", "paris", "prague", "stockholm", "vienna")
_SEGMENTS_PER_LOCATION = 2


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
    workers: int = 0,
    **look: int,
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
        workers: Processes; 0 renders in this one.
        look: `size`, `fps` and `sample_rate` of `render`.

    Returns:
        `folder`.

    Raises:
        AvzooError: As `script` and `render`, or if a count is negative.
    """
    scripts = {
        split: [script(number, seconds=seconds, classes=classes) for number in numbers]
        for split, numbers in _splits({"train": train, "val": val, "test": test}, seed).items()
    }
    every = [(split, s) for split, items in scripts.items() for s in items]
    _make([partial(render, s, folder / "AVE" / f"{s.id}.mp4", **look) for _, s in every], workers)
    lines = {split: [(s.category, s.id, "good", s.start, s.end) for s in items] for split, items in scripts.items()}
    for split, rows in lines.items():
        _write(folder / f"{split}Set.txt", rows, "&")
    _write(folder / "Annotations.txt", [row for rows in lines.values() for row in rows], "&")
    header = ("video_id", "split", "category", "event_start", "event_end", "audio_per_second", "visual_per_second")
    table = [(s.id, split, s.category, s.start, s.end, "|".join(s.heard), "|".join(s.seen)) for split, s in every]
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
    workers: int = 0,
    **look: int,
) -> Path:
    """Write a dataset of labelled clips: `{train,val,test}/<class>/<id>.mp4`.

    The arguments are those of `write_ave`; the event takes at least six tenths of a clip, whose label it is.

    Raises:
        AvzooError: As `write_ave`, or if other clips are there, which would be mixed with these.
    """
    shortest = max(1, round(0.6 * seconds))
    jobs = []
    for split, numbers in _splits({"train": train, "val": val, "test": test}, seed).items():
        for number in numbers:
            item = script(number, seconds=seconds, classes=classes, shortest=shortest)
            path = folder / split / item.category / f"{item.id}.mp4"
            jobs.append(partial(render, item, path, **look))
    wanted = {job.args[1] for job in jobs}
    if other := next((path for path in folder.rglob("*.mp4") if path not in wanted), None):
        raise AvzooError(f"{folder} holds other clips, such as {other.name}: give a new folder, or empty it")
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
