"""An open container: its streams, their clocks and lengths, and what its decoders give.

**Time zero** of a file is the start of the first thing shown or heard; sound that leads the first picture by less than
`PRIMING` does not count.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from avzoo.clip.files import riff_excess
from avzoo.errors import MediaError

PHOTO_CODECS = frozenset({"mjpeg", "png", "webp", "gif", "bmp", "tiff", "heic"})
PRIMING = 0.1  # s of sound before the first picture that do not move time zero
LISTS = frozenset({"hls", "dash", "concat", "imf"})  # what libav reads as media is in files that these name
READ_ERRORS = 20  # failed reads after which the rest of a file is given up

Rgb = NDArray[np.uint8]
Stream = VideoStream | AudioStream
StreamT = TypeVar("StreamT", VideoStream, AudioStream)


class MediaFile:
    """An open container: its default streams, its time zero and the lengths that it declares."""

    def __init__(self, path: Path, handle: InputContainer) -> None:
        self.path, self.handle, self.format = path, handle, handle.format.name
        self.video: VideoStream | None = _default(handle.streams.video)
        self.audio: AudioStream | None = _default(handle.streams.audio)
        self.streams: list[Stream] = [s for s in (self.video, self.audio) if s]
        if not self.streams:
            raise MediaError(f"{path}: has neither a video nor an audio stream that can be decoded")
        self.starts = {s.index: (s.start_time or 0) * tick_of(s) for s in self.streams}
        self.zero = min(self.starts.values())
        if self.video and self.starts[self.video.index] - self.zero < PRIMING:
            self.zero = self.starts[self.video.index]
        self.count: Counter[str] = Counter()
        self.fallback = ""
        self.size: tuple[int, int] | None = None

    @cached_property
    def excess(self) -> float:
        """See `riff_excess`."""
        return riff_excess(self.path)

    @property
    def duration(self) -> float:
        """Length in s from time zero, as declared; 0 where nothing is declared."""
        ends = [end for s in self.streams if (end := self.declared_end(s)) is not None]
        return max(ends or [self.container_end or self.zero]) - self.zero

    @property
    def is_photo(self) -> bool:
        """Whether it is one picture, which has neither time nor sound."""
        codec = self.video.codec_context.name if self.video and not self.audio else ""
        return codec in PHOTO_CODECS and self.duration == 0

    @property
    def container_end(self) -> float | None:
        """Where the container says that it ends, s."""
        if self.handle.duration is None:
            return None
        return ((self.handle.start_time or 0) + self.handle.duration) / av.time_base

    def declared_end(self, stream: Stream) -> float | None:
        """Where the container says that `stream` ends, s; None where it says nothing of this stream."""
        if stream.duration is not None:
            return self.starts[stream.index] + stream.duration * tick_of(stream) * self.excess
        tag = re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", ""))  # Matroska: the last instant
        return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3]) if tag else None

    def packets(self) -> Iterator[Packet[Any]]:
        """The packets from here on; what cannot be read is counted and passed over."""
        while self.count["errors"] <= READ_ERRORS:
            try:
                for packet in self.handle.demux(self.streams):
                    if packet.size:  # the empty ones only ask decoders to drain
                        self.count["packets"] += 1
                        yield packet
            except av.FFmpegError:
                self.count["errors"] += 1
            else:
                return

    def pictures(self, packet: Packet[Any] | None) -> list[VideoFrame]:
        """Frames decoded from `packet`; None flushes the decoder."""
        self.count["sent"] += packet is not None
        frames = self._decode(self.video, packet)
        self.count["decoded"] += len(frames)
        return frames

    def sounds(self, packet: Packet[Any] | None) -> list[AudioFrame]:
        """Sound decoded from `packet`, in pieces; None flushes the decoder."""
        return self._decode(self.audio, packet)

    def _decode(self, stream: Stream | None, packet: Packet[Any] | None) -> list[Any]:
        try:
            return list(stream.codec_context.decode(packet)) if stream else []
        except av.EOFError:  # nothing left to drain
            return []
        except av.FFmpegError:  # a damaged packet: what is missing in the end is judged by length
            self.count["errors"] += 1
            return []

    def rgb(self, frame: VideoFrame) -> Rgb:
        """A picture as `[height, width, 3]`, upright."""
        self.count["converted"] += 1
        self.size = self.size or (frame.width, frame.height)  # a stream may change its size: the first picture's holds
        width, height = self.size
        image = np.asarray(frame.to_ndarray(format="rgb24", width=width, height=height), dtype=np.uint8)
        return np.rot90(image, round(frame.rotation / 90))


def _default(streams: Sequence[StreamT]) -> StreamT | None:
    """The stream flagged as default; of several, the one of most pixels or the highest rate. A cover is no video."""
    usable = [s for s in streams if s.codec_context and not s.disposition & Disposition.attached_pic]
    return max(usable, key=lambda s: (bool(s.disposition & Disposition.default), _fineness(s)), default=None)


def _fineness(stream: Stream) -> int:
    return stream.width * stream.height if isinstance(stream, VideoStream) else stream.sample_rate


def tick_of(stream: Stream) -> float:
    """The unit of the stream's timestamps in s."""
    return float(stream.time_base or 1)


def stamp_of(packet: Packet[Any]) -> int:
    """When a packet is shown, in ticks; one without a timestamp stands a second late, so that reading begins early."""
    return packet.pts if packet.pts is not None else (packet.dts or 0) + round(1 / packet.time_base)


@contextmanager
def open_container(path: Path) -> Iterator[MediaFile]:
    """Open a media file.

    Raises:
        MediaError: It cannot be opened, or what is done with it fails in the decoder.
    """
    try:
        # "file:" for names with a colon; the whitelist for playlists, which would otherwise reach out to the network
        handle = av.open(f"file:{path}", container_options={"protocol_whitelist": "file"})
    except (av.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MediaError(
            f"{path}: cannot be opened as media ({reason}); it is no video or sound file, or was cut before its index"
        ) from error
    with handle:
        if handle.format.name in LISTS:
            raise MediaError(f"{path}: is a list of other files, not media: give one of those")
        try:
            yield MediaFile(path, handle)
        except av.FFmpegError as error:
            raise MediaError(f"{path}: cannot be decoded ({error.strerror or error}); it is damaged") from error
