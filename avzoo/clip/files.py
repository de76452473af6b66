"""What is known of a media file before it is opened: its kind, whether it is there, whether it is whole."""

from __future__ import annotations

from pathlib import Path

from avzoo.errors import DataNotFoundError, MediaError, did_you_mean

SOUND_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga"})  # read by soundfile
VIDEO_SUFFIXES = frozenset({  # looked for in folders
    ".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv",
    ".ogv",
})  # fmt: skip


def is_sound_file(path: Path) -> bool:
    """Whether soundfile reads it: WAV, FLAC or OGG, by its name."""
    return path.suffix.lower() in SOUND_SUFFIXES


def existing(path: str | Path) -> Path:
    """The path of a file that is there and not empty.

    Raises:
        DataNotFoundError: There is no such file.
        MediaError: It holds nothing.
    """
    path = Path(path)
    if not path.is_file():
        folder = path.parent
        near = did_you_mean(path.name, [p.name for p in folder.iterdir() if p.is_file()]) if folder.is_dir() else ""
        what = "a folder, not a file" if path.is_dir() else "no such file" if folder.is_dir() else "no such folder"
        raise DataNotFoundError(f"{path}: {what}; expected a video or sound file{near}")
    if not path.stat().st_size:
        raise MediaError(f"{path}: the file is empty (0 bytes); fetch or record it again")
    return path


def riff_excess(path: Path) -> float:
    """How many times longer a RIFF file (WAV, AVI) says it is than it is; 1 for a whole file and for other formats.

    Neither libsndfile nor libav tells: both shorten what the header declares to what is there.
    """
    with path.open("rb") as file:
        head = file.read(8)
    size = int.from_bytes(head[4:], "little") + 8
    written = head[:4] == b"RIFF" and 8 < size < 0xFFFFFFFF  # a recorder that was not closed leaves 0 or the maximum
    return max(1.0, size / path.stat().st_size) if written else 1.0
