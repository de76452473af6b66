"""Files: written whole or not at all, what killed processes left of them, their hash, and where the cache is."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

HOST = socket.gethostname().replace(".", "-")  # machines that share a folder count their processes alike
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # what a disk says that is written to, never a file that is read


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """An empty file beside `path`, that becomes `path` if the block succeeds and vanishes if not.

    Who may read it is the umask's to say, also where safetensors writes, whose files are otherwise for their owner.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with whole(folder / "a" / "b.txt") as unfinished:
    ...     _ = unfinished.write_text("all of it")
    >>> [file.name for file in (folder / "a").iterdir()]
    ['b.txt']
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = temporary(path)
    try:
        unfinished.touch()
        mode = unfinished.stat().st_mode
        yield unfinished
        unfinished.chmod(mode)
        unfinished.replace(path)
    except OSError as error:
        if error.errno and (error.filename is None or str(error.filename) == str(unfinished)):  # a full disk names none
            error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):  # after success it has been renamed
            unfinished.unlink()


def temporary(path: Path, kind: str = "tmp") -> Path:
    """The hidden name beside `path` under which this process alone writes, on whatever machines share the folder."""
    return path.with_name(f".{path.name}.{HOST}-{os.getpid()}.{kind}")


def leftovers(folder: Path, *, alone: bool = False) -> list[Path]:
    """What killed processes left of `whole` in a folder.

    Args:
        folder: Where they wrote.
        alone: Whether nobody else writes there now, so that the files of running processes and of other machines,
            whose processes cannot be asked for, are leftovers too.
    """
    return [file for file in folder.glob(".*.*-*.tmp") if alone or ((pid := writer(file)) and not is_running(pid))]


def writer(unfinished: Path) -> int | None:
    """The number of the process of this machine that writes under a `temporary` name; None if it is of another."""
    host, _, pid = unfinished.name.split(".")[-2].rpartition("-")
    return int(pid) if host == HOST and pid.isdecimal() else None


def is_running(pid: int) -> bool:
    """Whether a process of this machine is there, be it another user's."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def sha256(path: Path) -> str:
    """The sha256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Where avzoo keeps what it can make again: `$AVZOO_CACHE`, else `~/.cache/avzoo`."""
    return Path(os.environ.get("AVZOO_CACHE") or Path.home() / ".cache" / "avzoo")
