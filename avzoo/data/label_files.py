"""How label files are opened: UTF-8, with or without a byte order mark; what else is wrong is said with the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from avzoo.errors import AnnotationError, DataNotFoundError


@contextmanager
def label_text(path: Path, hint: str) -> Iterator[TextIO]:
    """A label file, open for reading.

    Args:
        path: The file.
        hint: What to say of one that is not there.

    Raises:
        DataNotFoundError: If there is no such file.
        AnnotationError: If it is not in UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield file
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise DataNotFoundError(f"{path}: there is no such file; {hint}") from error
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{path}: not a text file in UTF-8 ({error})") from error
