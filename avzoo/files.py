"""Files that appear whole or not at all: written beside their place, then moved there."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

HOST = socket.gethostname().replace(".", "-")  # machines that share a folder count their processes alike


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, that becomes `path` if the block succeeds and vanishes if not.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with whole(folder / "a" / "b.txt") as unfinished:
    ...     _ = unfinished.write_text("all of it")
    >>> [file.name for file in (folder / "a").iterdir()]
    ['b.txt']
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{HOST}-{os.getpid()}.tmp")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
