"""The feature cache: what `avzoo extract` writes and training reads.

`<cache>/features/<fingerprint>/<folder of the videos, hashed>/<id>@<view>.safetensors`. The fingerprint covers every
number of the signal path and the backbones' weights; each file also records its video's size and time of change. So
a stale feature is never read: it is extracted anew. A file appears whole or not at all, which makes extraction
resumable after a kill, and many processes may share a cache.
"""

from __future__ import annotations

import functools
import hashlib
import multiprocessing
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from avzoo.augment import AUGMENT_VERSION, augment
from avzoo.errors import AvzooError
from avzoo.preprocess import Preprocess, Preprocessor, Sample, read_window


@dataclass(frozen=True)
class Source:
    """A clip to extract: its id and its video."""

    id: str
    path: Path


def cache_folder() -> Path:
    """Where avzoo keeps what it can make again: `$AVZOO_CACHE`, else `~/.cache/avzoo`."""
    return Path(os.environ.get("AVZOO_CACHE") or Path.home() / ".cache" / "avzoo")


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
        self.folder = (folder or cache_folder()) / "features" / preprocess.fingerprint()
        self.on_missing_audio: Literal["error", "silence"] = on_missing_audio
        self.on_damage: Literal["error", "pad"] = on_damage

    def path(self, source: Source, view: int = 0) -> Path:
        """Where the features of a clip's view are, or would be."""
        videos = hashlib.sha256(str(source.path.resolve().parent).encode()).hexdigest()[:12]
        suffix = f"@{view}" if view == 0 else f"@{view}-{AUGMENT_VERSION}"
        return self.folder / videos / f"{source.id}{suffix}.safetensors"

    def has(self, source: Source, view: int = 0) -> bool:
        """Whether a view is there, whole and made from the video as it is now."""
        try:
            with safe_open(self.path(source, view), "pt") as file:
                return bool((file.metadata() or {}).get("stamp") == self._stamp(source))
        except (OSError, SafetensorError):
            return False

    def read(self, source: Source, view: int = 0) -> Sample:
        """The cached features, `[segments, features]` each."""
        with safe_open(self.path(source, view), "pt") as file:
            return Sample(file.get_tensor("audio"), file.get_tensor("visual"))

    def make(self, source: Source, views: Iterable[int], preprocessor: Preprocessor) -> None:
        """Decode a clip once and write the features of some views.

        Raises:
            AvzooError: If the clip is missing or cannot be read.
        """
        clip = read_window(
            source.path, self.preprocess, on_missing_audio=self.on_missing_audio, on_damage=self.on_damage
        )
        for view in views:
            sample = preprocessor(clip if view == 0 else augment(clip, f"{source.id}/{view}"))
            target = self.path(source, view)
            target.parent.mkdir(parents=True, exist_ok=True)
            unfinished = target.with_suffix(f".{os.getpid()}.tmp")
            tensors = {"audio": sample.audio.cpu().contiguous(), "visual": sample.visual.cpu().contiguous()}
            save_file(tensors, unfinished, {"stamp": self._stamp(source)})
            unfinished.replace(target)

    def _stamp(self, source: Source) -> str:
        status = source.path.stat()
        return f"{status.st_size} {status.st_mtime_ns} {self.on_missing_audio} {self.on_damage}"


def extract(
    cache: FeatureCache, views: Mapping[Source, int], *, workers: int | None = None, device: str = "cpu"
) -> dict[str, str]:
    """Extract what is not cached yet, with a progress bar; one broken clip never stops the rest.

    Args:
        cache: Where the features go.
        views: How many views of each clip are wanted.
        workers: Processes; 0 uses this one, None one per CPU core (one on a GPU).
        device: Where the backbones run.

    Returns:
        The ids that failed, each with its reason.
    """
    todo = {
        source: missing
        for source, count in views.items()
        if (missing := [view for view in range(count) if not cache.has(source, view)])
    }
    if not todo:
        return {}
    for leftover in cache.folder.glob("*/*.tmp"):  # of a killed run; a live one writes under its own number
        number = leftover.suffixes[-2][1:]
        if number.isdigit() and not _alive(int(number)):
            leftover.unlink(missing_ok=True)
    if workers is None:
        workers = 1 if device != "cpu" else os.cpu_count() or 1
    broken: dict[str, str] = {}
    with tqdm(total=len(todo), desc="extracting features", unit="clip", disable=None) as bar:
        results = _in_this_process(cache, todo, device) if workers == 0 else _in_workers(cache, todo, device, workers)
        for source, reason in results:
            bar.update()
            if reason:
                broken[str(source.path) if source.id in broken else source.id] = reason
    return broken


Result = tuple[Source, str | None]  # a clip, and why it failed


def _in_this_process(cache: FeatureCache, todo: Mapping[Source, list[int]], device: str) -> Iterator[Result]:
    preprocessor = Preprocessor(cache.preprocess, device)
    for source, views in todo.items():
        yield source, _extract_one(cache, source, views, preprocessor)


def _in_workers(cache: FeatureCache, todo: Mapping[Source, list[int]], device: str, workers: int) -> Iterator[Result]:
    """Many processes; when one dies all its pool's jobs are lost, so the rest goes on in pools of one clip each."""
    lost = []
    with _pool(cache, device, workers) as pool:
        jobs = {pool.submit(_extract_in_worker, cache, source, views): source for source, views in todo.items()}
        try:
            for job in as_completed(jobs):
                try:
                    yield jobs[job], job.result()
                except BrokenProcessPool:
                    lost.append(jobs[job])
        except (KeyboardInterrupt, GeneratorExit):
            pool.shutdown(cancel_futures=True)
            raise
    for source in lost:
        with _pool(cache, device, 1) as pool:
            try:
                yield source, pool.submit(_extract_in_worker, cache, source, todo[source]).result()
            except BrokenProcessPool:
                yield source, f"{source.path}: the process that read it died (out of memory, or a crash in the decoder)"


def _pool(cache: FeatureCache, device: str, workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, _start_worker, (cache.preprocess, device))


def _extract_one(cache: FeatureCache, source: Source, views: list[int], preprocessor: Preprocessor) -> str | None:
    try:
        cache.make(source, views, preprocessor)
    except (AvzooError, OSError, RuntimeError, MemoryError) as error:
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


def _extract_in_worker(cache: FeatureCache, source: Source, views: list[int]) -> str | None:
    return _extract_one(cache, source, views, _worker_preprocessor(cache.preprocess, _worker_device))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
