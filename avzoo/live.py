"""Decoding of live input: growing files, devices, network streams.

`follow` decodes an input from its beginning on, in order and once, and hands out pictures and sound as they come.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import av
import numpy as np
import torch
from av.container import InputContainer
from av.packet import Packet
from torch import Tensor

from avzoo.clip.container import READ_ERRORS, MediaFile
from avzoo.clip.sound import floats
from avzoo.errors import DataNotFoundError, MediaError

POLL = 0.05  # s between two looks at a source that has nothing new


class Piece(NamedTuple):
    """What has come: a picture, some sound, or neither, which says that all before `time` is here.

    Attributes:
        time: When it begins, s since the start.
        picture: Gives uint8 `[height, width, 3]`; converted only where it is called.
        sound: Float32 `[channels, samples]`.
        rate: Of the sound, Hz.
    """

    time: float
    picture: Callable[[], Tensor] | None = None
    sound: Tensor | None = None
    rate: int = 0


def follow(
    source: str | Path,
    *,
    audio: bool = True,
    visual: bool = True,
    format: str | None = None,
    options: Mapping[str, str] | None = None,
    timeout: float = 5.0,
) -> Iterator[Piece]:
    """Pictures and sound of a source as they come, each stream in order.

    Args:
        source: A file, an address, or the name of a device.
        audio: Whether the sound is wanted.
        visual: Whether the pictures are wanted.
        format: What kind of device, or of stream, where libav cannot see that by itself.
        options: Of libav for this source.
        timeout: s without anything new after which it counts as ended.

    Raises:
        DataNotFoundError: If there is no such file.
        MediaError: If it cannot be opened, or has not the streams that are wanted.
    """
    with ExitStack() as until, _interruptible():
        file = MediaFile(Path(source), _open(str(source), format, dict(options or {}), timeout, until))
        for wanted, there, what, other in (
            (visual, file.video, "video", "audio"),
            (audio, file.audio, "audio", "visual"),
        ):
            if wanted and not there:
                raise MediaError(f'{source}: has no {what} stream that can be decoded; modality="{other}" does without')
        yield from _pieces(file, audio, visual)


def _pieces(file: MediaFile, audio: bool, visual: bool) -> Iterator[Piece]:
    seen = heard = 0.0  # where the next picture and the next sound belong if they do not say so
    for packet in chain(_packets(file), [None]):
        if visual and file.video and (packet is None or packet.stream is file.video):
            for frame in file.pictures(packet):
                if frame.pts is not None:
                    seen = frame.pts * float(file.video.time_base or 0) - file.zero
                yield Piece(seen, partial(_picture, file, frame))
                seen += 1 / float(file.video.average_rate or 25)
        if audio and file.audio and (packet is None or packet.stream is file.audio):
            for sound in file.sounds(packet):
                if sound.pts is not None:
                    heard = sound.pts * float(file.audio.time_base or 0) - file.zero
                yield Piece(heard, sound=torch.from_numpy(floats(sound)), rate=sound.sample_rate)
                heard += sound.samples / sound.sample_rate
    yield Piece(max(seen, heard))


def _picture(file: MediaFile, frame: av.VideoFrame) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(file.rgb(frame)))


def _packets(file: MediaFile) -> Iterator[Packet[Any]]:
    """Packets until the source ends, or cannot be read any more."""
    errors = 0
    while errors <= READ_ERRORS:
        try:
            for packet in file.handle.demux(file.streams):
                if packet.size:  # the empty ones only ask decoders to drain
                    errors = 0
                    yield packet
        except av.BlockingIOError:  # a device that has nothing yet
            time.sleep(POLL)
        except av.ExitError:  # nothing came for too long
            return
        except av.FFmpegError:
            errors += 1
        else:
            return


def _open(source: str, kind: str | None, options: dict[str, str], timeout: float, until: ExitStack) -> InputContainer:
    """Open a source, to be closed with `until`."""
    file: str | Growing = source
    if kind == "alsa":  # PyAV's wheel looks for its settings where it was built
        os.environ.setdefault("ALSA_CONFIG_DIR", "/usr/share/alsa")
    if kind is None and "://" not in source:
        if not Path(source).exists():
            raise DataNotFoundError(f'{source}: no such file; a device needs its kind, as format="alsa"')
        if not Path(source).is_file():
            raise MediaError(f'{source}: is no file; a device needs its kind, as format="v4l2" for a camera on Linux')
        whole = _needs_its_end(Path(source))
        file = f"file:{source}" if whole else until.enter_context(closing(Growing(Path(source), timeout)))
    try:
        # a file tells by itself when nothing comes any more
        return until.enter_context(
            av.open(file, "r", format=kind, options=options, timeout=(timeout or None) if file is source else None)
        )
    except (av.FFmpegError, ValueError) as error:
        hint = "a file that is being written has to be a fragmented MP4, Matroska (.mkv) or MPEG-TS (.ts)"
        if file is source:
            hint = f"is the address right, or the device there, and its kind (format={kind!r})?"
        raise MediaError(
            f"{source}: cannot be opened as media ({getattr(error, 'strerror', None) or error}); {hint}"
        ) from error


class _Interrupted(Exception):
    """A KeyboardInterrupt on its way through libav, which only lets an `Exception` pass."""


@contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except _Interrupted:
        raise KeyboardInterrupt from None


class Growing:
    """A file being written, for libav: reading waits for more, until the file has not grown for `timeout` s.

    It cannot be searched on purpose: libav would look at its end first, which is not there.
    """

    def __init__(self, path: Path, timeout: float) -> None:
        self.file: BinaryIO = path.open("rb")
        self.timeout = timeout
        self.ended = False

    def read(self, size: int) -> bytes:
        """What has come, `size` bytes at most; nothing at the end."""
        began = time.monotonic()
        try:
            while not (data := self.file.read(size)) and not self.ended:
                self.ended = time.monotonic() - began >= self.timeout  # for good: libav asks again
                time.sleep(0 if self.ended else POLL)
        except KeyboardInterrupt as stop:
            self.ended = True
            raise _Interrupted from stop
        return data

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def _needs_its_end(path: Path) -> bool:
    """Whether a file is an MP4 with its index behind the media: it is read when it is finished."""
    with path.open("rb") as file:
        while (head := file.read(8))[4:] in (b"ftyp", b"free", b"skip", b"wide", b"uuid"):
            file.seek(max(int.from_bytes(head[:4]) - 8, 0), 1)
    return head[4:] == b"mdat"
