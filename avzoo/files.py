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
    unfinished = path.with_name(f".{path.name}.{HOST}-{os.getpid()}.tmp")
    try:
        unfinished.touch()
        mode = unfinished.stat().st_mode
        yield unfinished
        unfinished.chmod(mode)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
