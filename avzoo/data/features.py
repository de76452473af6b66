"""The feature cache: what `avzoo extract` writes and training reads.

```
<cache>/features/<fingerprint of a modality>/<folder of the media, hashed>/<id>@<view>.safetensors
```

Sound and pictures are kept apart, each under the fingerprint of its own numbers of the signal path and its backbone's
weights; each file also records its media file's size and time of change. So a stale feature is never read: it is
extracted anew, and another sound front-end leaves the pictures alone. A file appears whole or not at all, which makes
extraction resumable after a kill, and many processes may share a cache.

View 0 is the clip as it is; further views hold augmented pictures (see `avzoo.augment`).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from avzoo.augment import AUGMENT_VERSION, view_seeds
from avzoo.clip import Clip
from avzoo.errors import AvzooError
from avzoo.files import FULL, cache_folder, leftovers, whole
from avzoo.preprocess import Preprocess, Preprocessor, read_window

Modality = Literal["audio", "visual"]
View = tuple[Modality, int]  # a modality and a view of it


@dataclass(frozen=True)
class Source:
    """A clip to extract: its id, its video, the file of its sound where that is another, and where it begins, s."""

    id: str
    path: Path
    audio: Path | None = None
    start: float = 0.0

    @property
    def place(self) -> str:
        """What tells it from others of the same id."""
        return str(self.path)


class FeatureCache:
    """Frozen features on disk, one file a clip and view.

    Args:
        preprocess: The numbers the features are made with.
        folder: The cache; default `cache_folder()`.
        on_missing_audio: How clips without sound are read, see `read_clip`.
        on_damage: How clips that are cut short are read.
    """

    def __init__(
        self,
        preprocess: Preprocess,
        *,
        folder: Path | None = None,
        on_missing_audio: Literal["error", "silence"] = "error",
        on_damage: Literal["error", "pad"] = "error",
    ) -> None:
        self.preprocess = preprocess
        base = (folder or cache_folder()) / "features"
        self.folders: dict[Modality, Path] = {
            "audio": base / preprocess.fingerprint("audio"),
            "visual": base / preprocess.fingerprint("visual"),
        }
        self.on_missing_audio: Literal["error", "silence"] = on_missing_audio
        self.on_damage: Literal["error", "pad"] = on_damage

    def path(self, source: Source, modality: Modality, view: int = 0) -> Path:
        """Where the features of a clip's view are, or would be."""
        videos = hashlib.sha256(str(source.path.resolve().parent).encode()).hexdigest()[:12]
        suffix = f"@{view}" if view == 0 else f"@{view}-{AUGMENT_VERSION}"
        return self.folders[modality] / videos / f"{source.id}{suffix}.safetensors"

    def missing(self, source: Source, views: int) -> list[View]:
        """What of a clip is not there, whole and made from the media as they are now."""
        parts: list[View] = [("audio", 0), *(("visual", view) for view in range(views))]
        return [part for part in parts if not self._has(source, *part)]

    def _has(self, source: Source, modality: Modality, view: int) -> bool:
        try:
            with safe_open(self.path(source, modality, view), "pt") as file:
                return bool((file.metadata() or {}).get("stamp") == self._stamp(source, modality))
        except (OSError, SafetensorError):
            return False

    def read(self, source: Source, modality: Modality, view: int = 0, segments: slice = slice(None)) -> Tensor:
        """The cached features of some segments, `[segments, ...]`; nothing else of the file is read."""
        with safe_open(self.path(source, modality, view), "pt") as file:
            features: Tensor = file.get_slice("features")[segments]
        return features

    def clip(self, source: Source, modalities: Collection[Modality]) -> Clip:
        """Decode what some modalities' features are made of.

        Raises:
            AvzooError: If the clip is missing or cannot be read.
        """
        return read_window(
            source.path,
            self.preprocess,
            start=source.start,
            audio_path=source.audio,
            on_missing_audio=self.on_missing_audio,
            on_damage=self.on_damage,
            audio="audio" in modalities,
            visual="visual" in modalities,
        )

    def make(self, source: Source, parts: Collection[View], preprocessor: Preprocessor) -> None:
        """Decode a clip once and write some of its features.

        Raises:
            AvzooError: If the clip is missing or cannot be read.
        """
        clip = self.clip(source, {modality for modality, _ in parts})
        for modality, view in parts:
            if modality == "audio":
                features = preprocessor.audio(clip)
            else:
                seeds = view_seeds(source.id, view, len(clip.frames)) if view else None
                features = preprocessor.visual(clip, seeds)
            with whole(self.path(source, modality, view)) as unfinished:
                stamp = {"stamp": self._stamp(source, modality)}
                unfinished.write_bytes(save({"features": features.cpu().contiguous()}, stamp))

    def _stamp(self, source: Source, modality: Modality) -> str:
        files = [source.path, *([source.audio] if source.audio else [])] if modality == "audio" else [source.path]
        facts = [f"{status.st_size} {status.st_mtime_ns}" for status in (file.stat() for file in files)]
        rules = [self.on_missing_audio, self.on_damage] if modality == "audio" else [self.on_damage]
        return " ".join([*facts, *rules])


def extract(
    cache: FeatureCache, views: Mapping[Source, int], *, workers: int | None = None, device: str = "cpu"
) -> dict[str, str]:
    """Extract what is not cached yet, with a progress bar; one broken clip never stops the rest.

    Args:
        cache: Where the features go.
        views: How many views of each clip's pictures are wanted.
        workers: Processes; 0 uses this one, None one per CPU core (one on a GPU).
        device: Where the backbones run.

    Returns:
        The ids that failed, each with its reason.

    Raises:
        AvzooError: If a backbone has no weights here.
    """
    todo = {source: missing for source, count in views.items() if (missing := cache.missing(source, count))}
    if not todo:
        return {}
    for folder in (found for base in cache.folders.values() for found in base.glob("*")):
        for leftover in leftovers(folder):
            leftover.unlink(missing_ok=True)
    if workers is None:
        workers = 1 if device != "cpu" else os.cpu_count() or 1
    broken: dict[str, str] = {}
    with tqdm(total=len(todo), desc="extracting features", unit="clip", disable=None) as bar:
        results = _in_this_process(cache, todo, device) if workers == 0 else _in_workers(cache, todo, device, workers)
        for source, reason in results:
            bar.update()
            if reason:
                broken[source.place if source.id in broken else source.id] = reason
    return broken


Result = tuple[Source, str | None]  # a clip, and why it failed


def _in_this_process(cache: FeatureCache, todo: Mapping[Source, list[View]], device: str) -> Iterator[Result]:
    preprocessor = Preprocessor(cache.preprocess, device)
    for source, parts in todo.items():
        yield source, _extract_one(cache, source, parts, preprocessor)


def _in_workers(cache: FeatureCache, todo: Mapping[Source, list[View]], device: str, workers: int) -> Iterator[Result]:
    """Many processes; when one dies all its pool's jobs are lost, so the rest goes on in pools of one clip each."""
    lost = []
    with _pool(cache, device, workers) as pool:
        jobs = {pool.submit(_extract_in_worker, cache, source, parts): source for source, parts in todo.items()}
        try:
            for job in as_completed(jobs):
                try:
                    yield jobs[job], job.result()
                except BrokenProcessPool:
                    lost.append(jobs[job])
        finally:  # whatever ends this early, no other clip is begun
            pool.shutdown(cancel_futures=True)
    for source in lost:
        with _pool(cache, device, 1) as pool:
            try:
                yield source, pool.submit(_extract_in_worker, cache, source, todo[source]).result()
            except BrokenProcessPool:
                yield (
                    source,
                    f"{source.place}: the process that read it died (out of memory, a crash in the decoder, or a script"
                    ' without `if __name__ == "__main__":`; workers=0 starts no process)',
                )


def _pool(cache: FeatureCache, device: str, workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _start_worker, (cache.preprocess, device))
    with _ctrl_c_ignored():  # as they inherit it: a terminal's Ctrl+C is for the process that asked for the work
        for _ in range(workers):
            pool.submit(os.getpid)  # starts one
    return pool


@contextlib.contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _extract_one(cache: FeatureCache, source: Source, parts: list[View], preprocessor: Preprocessor) -> str | None:
    preprocessor.build({modality for modality, _ in parts})  # a backbone without weights is no fault of the clip's
    try:
        cache.make(source, parts, preprocessor)
    except (AvzooError, OSError, RuntimeError, MemoryError) as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise  # it is the cache that cannot be written, not the clip that cannot be read
        return str(error) or type(error).__name__
    return None


@functools.cache
def _worker_preprocessor(preprocess: Preprocess, device: str) -> Preprocessor:
    return Preprocessor(preprocess, device)


_worker_device = "cpu"


def _start_worker(preprocess: Preprocess, device: str) -> None:
    global _worker_device
    torch.set_num_threads(1)  # one core a process: together they use them all
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    _worker_device = device
    _worker_preprocessor(preprocess, device)


def _end_with(parent: int) -> None:
    """End this process soon after its parent, which may have been killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _extract_in_worker(cache: FeatureCache, source: Source, parts: list[View]) -> str | None:
    return _extract_one(cache, source, parts, _worker_preprocessor(cache.preprocess, _worker_device))
