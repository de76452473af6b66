"""Records as tar members, and arrays in them: as much of both formats as `avzoo shard` writes, and no more is read."""

from __future__ import annotations

import functools
import hashlib
import io
import re
import tarfile
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from avzoo.errors import MediaError

BLOCK = 512  # bytes, of which the parts of a tar are multiples
END = bytes(2 * BLOCK)  # of a tar

EXTENSION = re.compile(r"\w+(\.\w+)*")

Record = dict[str, memoryview]  # its members by their extension


def member_name(key: str) -> str:
    """A key as the name of tar members before the extension: no dot, no slash, at most 80 ASCII characters.

    >>> member_name("bell/a.mp4+10"), member_name("../x")
    ('bell%2Fa%2Emp4+10', '%2E%2E%2Fx')
    """
    name = quote(key, safe=" #+,=@&()'!~").replace(".", "%2E")
    return name if len(name) <= 80 else f"{name[:60]}~{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def view_member(view: int) -> str:
    """The extension of a view's pictures in a record of features."""
    return f"visual.{view}.npy" if view else "visual.npy"


def member_header(name: str, size: int) -> bytes:
    """The tar header of a member of `size` bytes, the same at any time and on any machine."""
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT)


def padding(size: int) -> bytes:
    """What follows a member of `size` bytes."""
    return bytes(-size % BLOCK)


def members(record: bytearray, where: Callable[[], str]) -> Record:
    """The members of a record, in its own memory.

    Args:
        record: Its bytes.
        where: Says which it is.

    Raises:
        MediaError: If one is no plain file with a plain name.
    """
    found, position, everything = {}, 0, memoryview(record)
    while position < len(record):
        head = record[position : position + BLOCK]
        name = head[:100].partition(b"\0")[0].decode("utf-8", "replace")
        stem, _, extension = name.partition(".")
        plain = head[156:157] == b"0" and stem and not set(stem) & set("/\\")
        if not plain or not EXTENSION.fullmatch(extension):
            raise MediaError(f"{where()}: has a member {name!r}, such as `avzoo shard` never writes: refused")
        huge = head[124] & 0x80  # from 8 GiB on, in another notation
        size = tarfile.TarInfo.frombuf(bytes(head), "utf-8", "strict").size if huge else int(head[124:135], 8)
        position += BLOCK
        found[extension] = everything[position : position + size]
        position += size + len(padding(size))
    return found


def write_array(values: NDArray[Any]) -> bytes:
    """An array as the content of a `.npy` file."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(values), version=(1, 0), allow_pickle=False)
    return file.getvalue()


def read_array(member: memoryview) -> NDArray[Any]:
    """The array of a `.npy` file, in the record's own memory."""
    length = 10 + int.from_bytes(member[8:10], "little")
    shape, dtype = _array_header(bytes(member[:length]))
    return np.frombuffer(member[length:], dtype).reshape(shape)


@functools.lru_cache
def _array_header(head: bytes) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Parsed once: all arrays of a modality begin alike."""
    file = io.BytesIO(head)
    np.lib.format.read_magic(file)
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if fortran or dtype.hasobject:
        raise MediaError(f"an array of {dtype}{' by columns' * fortran}, such as `avzoo shard` never writes: refused")
    return shape, dtype
