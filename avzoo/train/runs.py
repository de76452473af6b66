"""One folder per run, and which run the same command goes on with.

```
runs/<recipe>/version_0/recipe.yaml            as resolved: what "the same command" is recognised by
                        checkpoints/best.ckpt  by `monitor`
                        checkpoints/last.ckpt  where it goes on
                        checkpoints/previous.ckpt  and where, should that one be damaged; until it is finished
                        lock                   held by the process that trains; let go however that ends; in it the
                                               number of the Slurm job, which alone goes on while it is in the queue
                        finished               nothing is left to do
```
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from avzoo.errors import AvzooError
from avzoo.files import whole
from avzoo.train import slurm

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
# What may differ between two commands that mean the same run: it changes where and how fast, not what is learned.
FREE = frozenset(
    {
        *("resume", "save_every", "config", "track", "trainer.accelerator", "trainer.devices", "trainer.num_nodes"),
        *("trainer.strategy", "trainer.logger", "trainer.enable_progress_bar", "trainer.enable_model_summary"),
        *("trainer.profiler", "trainer.log_every_n_steps", "data.init_args.workers", "data.init_args.device"),
        *("data.init_args.loaders", "data.init_args.cache_size"),
    }
)


class Run:
    """A folder in which one process trains.

    Args:
        folder: It exists.
        checkpoint: Where training goes on; None from the start.
    """

    def __init__(self, folder: Path, checkpoint: Path | None = None) -> None:
        self.folder, self.checkpoint = folder, checkpoint
        self._lock: int | None = None

    @property
    def checkpoints(self) -> Path:
        """Where its checkpoints are."""
        return self.folder / "checkpoints"

    def acquire(self) -> bool:
        """Become the one process that trains here; false if another one does."""
        try:
            lock = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR, 0o644)
        except FileNotFoundError:  # it came to its end, and was removed, just now
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        except OSError as error:
            raise AvzooError(f"{self.folder}: {error}; runs have to lie where files can be locked (flock)") from error
        if os.fstat(lock).st_nlink == 0:  # it was removed between the two
            os.close(lock)
            return False
        os.ftruncate(lock, 0)
        os.write(lock, slurm.job().encode())
        self._lock = lock
        return True

    @property
    def job(self) -> str:
        """The number of the Slurm job that trained here last; empty if it was none."""
        return _read(self.folder / "lock")

    def release(self) -> None:
        """Let others train here; of a run that came to nothing no folder stays."""
        if self._lock is None:
            return
        if {path.name for path in self.folder.iterdir()} <= {"lock", "recipe.yaml", "hparams.yaml"}:
            shutil.rmtree(self.folder, ignore_errors=True)  # another process may be looking at it
        os.close(self._lock)
        self._lock = None

    def finish(self) -> None:
        """Note that nothing is left to do."""
        (self.folder / "finished").touch()
        (self.checkpoints / PREVIOUS).unlink(missing_ok=True)
        self.release()


def start(parent: Path, recipe: str) -> Run:
    """A new run in a folder that no other process has: `parent/version_<n>`."""
    number = 1 + max((_number(folder) for folder in parent.glob("version_*")), default=-1)
    while True:
        run = Run(parent / f"version_{number}")
        try:
            run.folder.mkdir(parents=True)  # only one process gets to make it
        except FileExistsError:
            number += 1
            continue
        if run.acquire():
            with whole(run.folder / "recipe.yaml") as unfinished:
                unfinished.write_text(recipe, encoding="utf-8")
            return run
        number += 1


def unfinished(parent: Path, recipe: str) -> Run | None:
    """The newest run of a recipe that ended before it was done; it is then ours.

    A Slurm job that was requeued finds its own run first, and nobody finds that of a job that is still in the queue.

    Args:
        parent: Where its runs are.
        recipe: As resolved, YAML.
    """
    wanted, job = same(recipe), slurm.job()
    for run in sorted(map(Run, parent.glob("version_*")), key=lambda run: (run.job == job, _number(run.folder)))[::-1]:
        try:
            if same(_read(run.folder / "recipe.yaml")) != wanted:
                continue
        except yaml.YAMLError:  # damaged: nobody can tell what it was
            continue
        if (run.folder / "finished").exists() or (run.job != job and slurm.is_queued(run.job)) or not run.acquire():
            continue
        if not (run.folder / "finished").exists():  # nor did it finish just now
            run.checkpoint = newest_checkpoint(run.checkpoints)
            return run
        run.release()
    return None


@contextlib.contextmanager
def until_made(out: Path | None, recipe: str) -> Iterator[Run]:
    """A run for one result, beside which it lies hidden: for the same command to go on with, gone once all is done.

    Args:
        out: Where the result goes in the end; None for a run that nobody goes on with.
        recipe: What the same command is recognised by, YAML.
    """
    if out is None:
        with tempfile.TemporaryDirectory() as scratch:
            yield Run(Path(scratch))
        return
    parent = out.parent / ".training"
    run = unfinished(parent, recipe) or start(parent, recipe)
    try:
        yield run
        shutil.rmtree(run.checkpoints)
    finally:
        run.release()
        with contextlib.suppress(OSError):  # others train there
            parent.rmdir()


def same(recipe: str) -> dict[str, Any]:
    """What a resolved recipe says about what is learned, flat: `trainer.max_epochs: 32`.

    >>> same("trainer: {max_epochs: 32, devices: 2}")
    {'trainer.max_epochs': 32}
    """
    flat: dict[str, Any] = {}

    def walk(value: Any, name: str) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                walk(inner, f"{name}.{key}" if name else str(key))
        elif not any(name == free or name.startswith(f"{free}.") for free in FREE):
            flat[name] = value

    walk(yaml.safe_load(recipe), "")
    return flat


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that can be gone on from exactly; damaged ones are passed over, with a word."""
    for path in filter(Path.exists, (folder / LAST, folder / PREVIOUS)):
        if is_whole(path):
            return path
        print(f"{path} is damaged: passed over")
    return None


def is_whole(checkpoint: Path) -> bool:
    """Whether every byte of a checkpoint, which is a ZIP archive, is the one that was written."""
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError):
        return False


def _read(file: Path) -> str:
    """A file's text, or none where it is not there, no longer or not yet."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return ""


def _number(folder: Path) -> int:
    digits = folder.name.removeprefix("version_")
    return int(digits) if digits.isdigit() else -1
