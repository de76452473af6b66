"""Where shards lie: a folder, or a URL of any kind that fsspec knows, with a bounded cache on this machine.

The cache is shared by all processes and datasets of a machine: a file is fetched once, appears whole or not at all, and
what was not used for longest makes room. It is safe to delete at any time.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from avzoo.errors import AvzooError, DataNotFoundError, MediaError
from avzoo.files import FULL, cache_folder, sha256, temporary, whole

TRIES, PAUSE = 5, 0.5  # of a transfer; s before the second try, each pause twice the one before
CONNECT, SILENCE = 30, 60  # s after which a try has failed: without a connection, without a byte
PIECE = 16 << 20  # bytes of what is left of a file that are asked for at once
STALE = 3600  # s without a byte after which what another process began in the cache is thrown away

T = TypeVar("T")


class Storage:
    """The files of one packed dataset.

    Args:
        root: Folder or URL.
        cache: Where what comes from a URL is kept; default `shards` in avzoo's cache.
        limit: Bytes that may be in `cache`.
    """

    def __init__(self, root: str, cache: Path | None, limit: int) -> None:
        self.root, self.limit = root.rstrip("/"), limit
        self.remote = not isinstance(self._system, LocalFileSystem)
        self.cache = cache or (cache_folder() / "shards" if self.remote else Path())
        self.folder = self.cache if self.remote else Path(url_to_fs(self.root)[1])  # `Shards` says where in the cache

    @property
    def _system(self) -> AbstractFileSystem:
        return _system(self.root, os.getpid())

    def content(self, name: str) -> bytes:
        """A small file, always as it is now."""
        return self._patiently(name, lambda: bytes(self._system.cat_file(f"{self.root}/{name}")))

    def path(self, name: str, size: int, digest: str = "") -> Path:
        """A file of `size` bytes, and of that sha256 if it is given, on this machine, fetched if need be."""
        path = self.folder / name
        if not self.remote:
            if not path.exists():
                raise DataNotFoundError(f"{path} is not there (any more): copy it again, or pack the data again")
            return path

        with locked(self.folder / f".{name}.lock"):
            if not path.exists():
                with self._room(path, size), whole(path) as unfinished:
                    self._patiently(name, lambda: self._fetch(name, unfinished, size, digest))
            os.utime(path)  # used now
        return path

    def _fetch(self, name: str, unfinished: Path, size: int, digest: str) -> None:
        """Fetch a file, or what an earlier try did not bring of it."""
        came = unfinished.stat().st_size
        if came and self.has_ranges:
            with unfinished.open("ab") as file:
                for start in range(came, size, PIECE):
                    file.write(self._exactly(name, start, min(start + PIECE, size)))
        else:
            self._system.get_file(f"{self.root}/{name}", str(unfinished))
        came = unfinished.stat().st_size
        if came < size:
            raise OSError(f"{came:,} bytes came instead of {size:,}")
        if came > size or (digest and sha256(unfinished) != digest):
            os.truncate(unfinished, 0)
            raise OSError("its size or sha256 is not what shards.json says")

    @functools.cached_property
    def has_ranges(self) -> bool:
        """Whether parts of a file can be had."""
        return len(self._patiently("shards.json", lambda: self._bytes("shards.json", 0, 1))) == 1

    def ranges(self, spans: Sequence[tuple[str, int, int]]) -> list[bytes]:
        """Parts of files, all at once: name, first byte and the one behind the last."""
        names, starts, ends = map(list, zip(*spans, strict=True))
        found = self._system.cat_ranges([f"{self.root}/{name}" for name in names], starts, ends, on_error="return")
        for place, (name, start, end) in enumerate(spans):
            if not isinstance(found[place], bytes) or len(found[place]) != end - start:
                found[place] = self._patiently(name, functools.partial(self._exactly, name, start, end))
        return list(found)

    def _bytes(self, name: str, start: int, end: int) -> bytes:
        return bytes(self._system.cat_file(f"{self.root}/{name}", start=start, end=end))

    def _exactly(self, name: str, start: int, end: int) -> bytes:
        found = self._bytes(name, start, end)
        if len(found) != end - start:
            raise OSError(f"{len(found):,} bytes came instead of {end - start:,}")
        return found

    def _patiently(self, name: str, action: Callable[[], T]) -> T:
        """Retry what fails for a moment only, such as a transfer."""
        attempt = 1
        while True:
            try:
                return action()
            except FileNotFoundError as error:
                raise DataNotFoundError(f"{self.root}/{name} is not there: are all of the shards?") from error
            except _passing() as error:
                if isinstance(error, OSError) and error.errno in FULL:
                    raise  # it is the cache that cannot be written
                refused = isinstance(error, PermissionError) or getattr(error, "status", 0) in (400, 401, 403, 410)
                if attempt == TRIES or refused:
                    reason = str(error) or type(error).__name__
                    raise MediaError(f"{self.root}/{name} cannot be read, after {attempt} tries: {reason}") from error
            time.sleep(PAUSE * 2 ** (attempt - 1))
            attempt += 1

    @contextlib.contextmanager
    def _room(self, path: Path, size: int) -> Iterator[None]:
        """Make room for a file in the cache, and claim it until the file is there."""
        claim = temporary(path, "claim")
        with locked(self.cache / ".lock"):
            files = [(file, file.stat()) for file in self.cache.glob("*/*") if file.suffix != ".lock"]
            files.sort(key=lambda found: found[1].st_mtime)
            # what grows under a hidden name has its claim beside it
            free = self.limit - size - sum(status.st_size for file, status in files if file.suffix != ".tmp")
            for file, status in files:
                abandoned = file.suffix in (".tmp", ".claim") and time.time() - status.st_mtime > STALE
                if abandoned or (free < 0 and file.suffix == ".tar"):
                    file.unlink(missing_ok=True)
                    free += status.st_size if file.suffix != ".tmp" else 0
            if free < 0:
                raise AvzooError(
                    f"{self.root}/{path.name} has {size:,} bytes, {-free:,} more than are left of the {self.limit:,}"
                    f" that {self.cache} may hold: raise cache_size"
                )
            claim.touch()
            os.truncate(claim, size)
        try:
            yield
        finally:
            claim.unlink(missing_ok=True)


def _passing() -> tuple[type[Exception], ...]:
    """The errors after which a retry may succeed."""
    from aiohttp import ClientError

    return (OSError, ClientError)


@functools.cache
def _system(root: str, process: int) -> AbstractFileSystem:  # noqa: ARG001 - one that was forked needs its own
    options: dict[str, Any] = {}
    if root.startswith(("http://", "https://")):
        from aiohttp import ClientTimeout

        # slow is no fault: by default a whole transfer, however large, may take 300 s
        options["client_kwargs"] = {"timeout": ClientTimeout(total=None, sock_connect=CONNECT, sock_read=SILENCE)}
    try:
        return url_to_fs(root, **options)[0]
    except (ImportError, ValueError) as error:  # which package a URL such as s3:// needs, or that none knows it
        raise AvzooError(f"{root}: {error} (`pip install s3fs` for s3://, gcsfs for gs://)") from error


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock among all processes of this machine."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, fallback_to_soft=False).acquire()
    except OSError as error:
        raise AvzooError(f"{path.parent} cannot be written to ({error.strerror}): choose another folder") from error
    with lock:
        yield
