"""Media files in, tensors out: the only file of the package that imports a decoder.

`read_clip` returns the pictures at the wanted instants and the sound of one window of a file. PyAV reads containers,
soundfile reads WAV, FLAC and OGG. How a window is read:

1. seek to the keyframe before the window and demux up to its end, without decoding (a long file is never read whole);
2. compute from the packets' timestamps which picture is on screen at each wanted instant;
3. feed the decoder the groups of pictures that hold one, each up to its last wanted picture in decode order, and let it
   drop the unwanted pictures that no other picture refers to;
4. convert the wanted pictures to RGB, and nothing else.

The result equals sequential decoding bit for bit. Where a timestamp is missing or double, or a wanted picture did not
come, the window is decoded sequentially instead (`DecodeStats.fallback` says why).

**Time zero** of a file is the start of the first thing shown or heard; sound that leads the first picture by less than
0.1 s (encoder priming) does not count. **The picture at t** is the one on screen: the last that starts at or before t.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any, Literal, TypeVar

import av
import numpy as np
import soundfile
import torch
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.codec.context import ThreadType
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from avzoo import arrays
from avzoo.errors import DataNotFoundError, MediaError, did_you_mean

SOUND_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga"})  # read by soundfile
PHOTO_CODECS = frozenset({"mjpeg", "png", "webp", "gif", "bmp", "tiff", "heic"})
VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".webm", ".mov", ".avi", ".mpg", ".mpeg", ".m4v"})  # looked for in folders
SILENCE_RATE = 16_000  # Hz, of the silence that stands in for a missing audio stream
PRIMING = 0.1  # s of sound before the first picture that do not move time zero
WARM_UP = 0.25  # s of sound decoded before the window, so that the codec's memory is filled when the window begins
TOLERANCE = 0.5  # s that a file may fall short of its declared length without counting as damaged
INTERLEAVE = 10.0  # s that one stream may lag behind the other in a file before it counts as ended
LOOK_BACK = (0.0, 4.0, 16.0, inf)  # s before the window to seek to, tried in turn until the window is covered
JITTER = 0.005  # s between a sound frame's timestamp and its place that do not count as a hole
SLACK = 5e-4  # s by which rounded timestamps may put a picture too late
READ_ERRORS = 20  # failed reads after which the rest of a file is given up

# Codecs that can drop a picture that no other refers to, set before each packet. Others (AV1) ignore it or drop more.
DROPPING = frozenset({"h264", "hevc", "vp9", "mpeg4", "mpeg2video", "mpeg1video"})
# s of packets with guessed timestamps that a program stream gives after a seek
SETTLING = {"mpeg": 2.0}

Rgb = NDArray[np.uint8]
Samples = NDArray[np.float32]
Stream = VideoStream | AudioStream
StreamT = TypeVar("StreamT", VideoStream, AudioStream)


@dataclass(frozen=True)
class DecodeStats:
    """What a `read_clip` cost and what went wrong on the way; `fallback` is empty where the GOP plan worked."""

    packets: int = 0  # demuxed, of both streams
    sent: int = 0  # video packets given to the decoder
    decoded: int = 0  # pictures that came out of it
    converted: int = 0  # pictures converted to RGB
    errors: int = 0  # packets that could not be read or decoded
    fallback: str = ""  # why the window was decoded sequentially


@dataclass(frozen=True)
class Clip:
    """One window of a media file, decoded; or pictures and sound of one's own (`Clip.of`), read as a file is.

    Attributes:
        frames: uint8 `[time, 3, height, width]`, RGB, upright (rotation metadata applied); channels last in memory.
        frame_times: float64 `[time]`, s: the instants asked for, counted from `start`.
        waveform: float32 `[channels, samples]` in [-1, 1], `round(seconds * sample_rate)` samples long.
        sample_rate: Hz, as in the file; 0 where no sound was asked for.
        id: stem of the file's name.
        start: s, where in the file the window begins.
        padded: s of the window that the file does not have (shorter than the window, or damaged).
        damage: a sentence that says what is missing, where `on_damage="pad"` let it pass; else empty.
        stats: work counters.
        seconds: how long it lasts.
    """

    frames: Tensor
    frame_times: Tensor
    waveform: Tensor
    sample_rate: int
    id: str
    start: float = 0.0
    padded: float = 0.0
    damage: str = ""
    stats: DecodeStats = field(default_factory=DecodeStats)
    seconds: float = 0.0

    @classmethod
    def of(
        cls,
        frames: ArrayLike | Tensor | None = None,
        waveform: ArrayLike | Tensor | None = None,
        rate: int = 0,
        *,
        fps: float | None = None,
        frame_times: ArrayLike | Tensor | None = None,
        id: str = "clip",
    ) -> Clip:
        """Take arrays for what `avzoo.predict` and `avzoo.stream` take files for.

        Args:
            frames: uint8 RGB, `[time, height, width, 3]` or `[time, 3, height, width]`; None where there are none.
            waveform: float in [-1, 1], `[samples]` or `[channels, samples]`; None where there is none.
            rate: Of the waveform, Hz.
            fps: Of the frames, the first of which is at 0 s.
            frame_times: When each frame comes on screen, s, rising; in place of `fps`. The last one stays for as long
                as the others did on average.
            id: What answers call it.

        Raises:
            MediaError: If nothing is given, or something of another shape, type or range.

        >>> Clip.of(np.zeros((50, 48, 64, 3), np.uint8), np.zeros(32_000), 16_000, fps=25).frames.shape
        torch.Size([50, 3, 48, 64])
        """
        if frames is None and waveform is None:
            raise MediaError("Clip.of was given neither frames nor a waveform; expected one of them at least")
        pictures, times, shown = torch.zeros(0, 3, 0, 0, dtype=torch.uint8), torch.zeros(0, dtype=torch.float64), 0.0
        if frames is not None:
            pictures = arrays.frames(frames)
            times, shown = arrays.times(len(pictures), fps, frame_times)
        sound, heard = torch.zeros(0, 0), 0.0
        if waveform is not None:
            sound = arrays.samples(waveform, rate)
            heard = sound.shape[1] / rate
        return cls(pictures, times, sound, rate if heard else 0, id, seconds=max(shown, heard))


@dataclass(frozen=True)
class MediaInfo:
    """What a file says about itself; a missing stream leaves zeros and empty names."""

    duration: float  # s, from time zero
    width: int = 0  # upright, as shown
    height: int = 0
    fps: float = 0.0  # mean, Hz
    rotation: int = 0  # degrees counter-clockwise that make the stored pictures upright
    video_codec: str = ""
    audio_codec: str = ""
    sample_rate: int = 0  # Hz
    channels: int = 0

    @property
    def has_video(self) -> bool:
        """Whether there are pictures."""
        return bool(self.video_codec)

    @property
    def has_audio(self) -> bool:
        """Whether there is sound."""
        return bool(self.audio_codec)

    @property
    def is_photo(self) -> bool:
        """Whether it is one picture, whatever its name ends in."""
        return self.video_codec in PHOTO_CODECS and not self.has_audio and self.duration == 0


def probe(path: str | Path | Clip) -> MediaInfo:
    """Length and streams of a media file; decodes one picture, for its rotation.

    Raises:
        DataNotFoundError: There is no such file.
        MediaError: The file is not readable as media.
    """
    if isinstance(path, Clip):
        return MediaInfo(
            path.seconds,
            width=path.frames.shape[3],
            height=path.frames.shape[2],
            fps=len(path.frames) / path.seconds if path.seconds else 0.0,
            video_codec="rawvideo" if len(path.frames) else "",
            audio_codec="pcm" if path.sample_rate else "",
            sample_rate=path.sample_rate,
            channels=path.waveform.shape[0],
        )
    path = _existing(path)
    if path.suffix.lower() in SOUND_SUFFIXES:
        with _sound_file(path) as file:
            return MediaInfo(
                file.frames / file.samplerate,
                audio_codec=file.subtype.lower(),
                sample_rate=file.samplerate,
                channels=file.channels,
            )
    with _open(path) as file:
        sound, picture = file.audio, file.video
        facts: dict[str, Any] = {}
        if sound:
            facts |= {"audio_codec": sound.codec_context.name, "sample_rate": sound.codec_context.sample_rate}
            facts |= {"channels": sound.codec_context.layout.nb_channels}
        if picture:
            frame = next((f for p in file.packets() if p.stream is picture for f in file.pictures(p)), None)
            turn = frame.rotation % 360 if frame else 0
            height, width = picture.height, picture.width
            facts |= {"width": height, "height": width} if turn in (90, 270) else {"width": width, "height": height}
            facts |= {"fps": float(picture.average_rate or 0), "rotation": turn}
            facts |= {"video_codec": picture.codec_context.name}
        seconds = file.duration
        if not seconds and not file.is_photo:  # a browser's recording declares no length: it is where the packets end
            ends = ((p.pts + (p.duration or 0)) * _tick(p.stream) for p in file.packets() if p.pts is not None)
            seconds = max(ends, default=file.zero) - file.zero
        return MediaInfo(duration=seconds, **facts)


def read_clip(
    path: str | Path | Clip,
    *,
    times: Sequence[float],
    seconds: float,
    start: float = 0.0,
    audio: bool = True,
    audio_path: str | Path | None = None,
    on_missing_audio: Literal["error", "silence"] = "error",
    on_damage: Literal["error", "pad"] = "error",
    sequential: bool = False,
    threads: int = 1,
) -> Clip:
    """Read the pictures at `times` and the sound of `seconds` s from `start` on.

    A file shorter than the window has its last picture held and silence appended (`Clip.padded` says how much). Sound
    that starts late or ends early by the file's own word is silent there.

    Args:
        path: Video or sound file, or a clip to cut the window from.
        times: Instants in s after `start`, in [0, `seconds`], in any order; empty skips the pictures.
        seconds: Length of the window in s.
        start: Where in the file the window begins, in s after time zero.
        audio: Whether to read the sound.
        audio_path: A file that holds the sound of a silent video. Both begin together; where their declared lengths
            differ by more than 0.5 s that counts as damage.
        on_missing_audio: "silence" replaces a missing audio stream by silence at 16 kHz.
        on_damage: "pad" takes a damaged or truncated file, pads it and says so in `Clip.damage`.
        sequential: Decode every picture of the window: the slow reference that the plan is equal to.
        threads: Decoder threads; 1 is best for many clips at once, 2 for the latency of one.

    Raises:
        DataNotFoundError: There is no such file.
        MediaError: The file is unreadable or damaged, lacks a stream, or ends before `start`.
    """
    if not (seconds > 0 and start >= 0 and all(0 <= t <= seconds for t in times)):
        raise MediaError(
            f"{_named(path)}: asked for pictures at {list(times)} s in {seconds} s from {start} s on; expected"
            " start >= 0, seconds > 0 and every time within [0, seconds]"
        )
    if isinstance(path, Clip):
        if audio_path is not None:
            raise MediaError(f"{path.id}: a Clip brings its own sound, and {audio_path} was given too")
        return _cut(path, _Window(start, seconds, tuple(times), audio, on_missing_audio, sequential, threads))
    path = _existing(path)
    sound_path = _existing(audio_path) if audio_path is not None else path
    beside = audio and sound_path != path
    lengths = (_length(path, "video"), _length(sound_path, "audio")) if beside else (0.0, 0.0)
    apart = _apart(path, sound_path, *lengths)
    if apart and on_damage == "error":
        raise MediaError(f'{apart}; on_damage="pad" takes the files as they are')
    want = _Window(start, seconds, tuple(times), audio and not beside, on_missing_audio, sequential, threads)
    clip = _read(path, want)
    if beside:
        heard = replace(want, times=(), audio=True)
        ended = 0 < lengths[1] <= start  # the window begins after the sound's end, so it is silent
        sound = replace(heard.clip(sound_path), padded=seconds) if ended else _read(sound_path, heard)
        damage = "; ".join(filter(None, (apart, clip.damage, sound.damage)))
        padded = (max if damage else min)(clip.padded, sound.padded) if times else sound.padded
        clip = replace(clip, waveform=sound.waveform, sample_rate=sound.sample_rate, padded=padded, damage=damage)
    if clip.damage and on_damage == "error":
        raise MediaError(f'{clip.damage}; on_damage="pad" takes the file as it is')
    return clip


@dataclass(frozen=True)
class _Window:
    """What is wanted of one file: the arguments of `read_clip`."""

    start: float
    seconds: float
    times: tuple[float, ...]
    audio: bool
    on_missing_audio: Literal["error", "silence"]
    sequential: bool
    threads: int

    def clip(self, path: Path) -> Clip:
        """The window with nothing in it yet: no pictures, and silence where sound is wanted."""
        return Clip(
            frames=torch.zeros(0, 3, 0, 0, dtype=torch.uint8),
            frame_times=torch.tensor(self.times, dtype=torch.float64),
            waveform=torch.zeros(1, round(self.seconds * SILENCE_RATE)) if self.audio else torch.zeros(0, 0),
            sample_rate=SILENCE_RATE if self.audio else 0,
            id=path.stem,
            start=self.start,
            seconds=self.seconds,
        )

    def check(self, path: Path, *, video: bool, audio: bool, duration: float) -> None:
        """Raise `MediaError` where a file with these streams and this length cannot give what is wanted."""
        if self.times and not video:
            raise MediaError(f"{path}: has no video stream that can be decoded, and pictures were asked for")
        if self.audio and not audio and self.on_missing_audio == "error":
            raise MediaError(
                f'{path}: has no audio stream that can be decoded; on_missing_audio="silence" reads it as silent, '
                "audio_path= takes the sound from another file"
            )
        if 0 < duration <= self.start:
            raise MediaError(f"{path}: the window begins at {self.start:g} s, but the file is {duration:.2f} s long")


def _named(path: str | Path | Clip) -> str:
    return path.id if isinstance(path, Clip) else str(path)


def _cut(whole: Clip, want: _Window) -> Clip:
    """A window of pictures and sound that are already here, by the rules for files."""
    if want.times and not len(whole.frames):
        raise MediaError(f'{whole.id}: has no frames, and pictures were asked for; modality="audio" does without')
    if want.audio and not whole.sample_rate and want.on_missing_audio == "error":
        raise MediaError(
            f'{whole.id}: has no waveform, and sound was asked for; modality="visual" does without,'
            ' on_missing_audio="silence" takes silence'
        )
    if 0 < whole.seconds <= want.start:
        raise MediaError(
            f"{whole.id}: the window begins at {want.start:g} s, but the clip is {whole.seconds:.2f} s long"
        )
    padded = min(max(want.start + want.seconds - whole.seconds, 0.0), want.seconds)
    clip = replace(want.clip(Path(whole.id)), id=whole.id, padded=padded)
    if want.times:
        due = want.start + clip.frame_times + SLACK
        shown = torch.searchsorted(whole.frame_times, due, right=True) - 1
        clip = replace(clip, frames=whole.frames[shown.clamp(min=0)])
    if want.audio and whole.sample_rate:
        begin, length = round(want.start * whole.sample_rate), round(want.seconds * whole.sample_rate)
        sound = whole.waveform[:, begin : begin + length]
        sound = torch.nn.functional.pad(sound, (0, length - sound.shape[1]))
        clip = replace(clip, waveform=sound, sample_rate=whole.sample_rate)
    return clip


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        folder = path.parent
        near = did_you_mean(path.name, [p.name for p in folder.iterdir()]) if folder.is_dir() else ""
        what = "a folder, not a file" if path.is_dir() else "no such file" if folder.is_dir() else "no such folder"
        raise DataNotFoundError(f"{path}: {what}; expected a video or sound file{near}")
    if not path.stat().st_size:
        raise MediaError(f"{path}: the file is empty (0 bytes); fetch or record it again")
    return path


def _length(path: Path, stream: Literal["video", "audio"]) -> float:
    """How long a file says that its pictures or its sound last, s, by its header alone; 0 where it does not say."""
    if path.suffix.lower() in SOUND_SUFFIXES:
        with _sound_file(path) as sound:
            return float(sound.frames * _riff_excess(path) / sound.samplerate)
    with _open(path) as file:
        own = file.video if stream == "video" else file.audio
        end = file.declared_end(own) if own else None
        return (file.container_end or file.zero if end is None else end) - file.zero


def _apart(path: Path, sound: Path, video_length: float, sound_length: float) -> str:
    """A sentence on a video and a sound file of different lengths; empty where they may belong together."""
    if min(video_length, sound_length) <= 0 or abs(video_length - sound_length) <= TOLERANCE:
        return ""
    return (
        f"{path} lasts {video_length:.2f} s and its sound, {sound}, {sound_length:.2f} s: one of them is cut short, or"
        " they do not belong together"
    )


def _read(path: Path, want: _Window) -> Clip:
    return _read_sound_file(path, want) if path.suffix.lower() in SOUND_SUFFIXES else _read_container(path, want)


# Sound files -------------------------------------------------------------------------------------------------------


@contextmanager
def _sound_file(path: Path) -> Iterator[soundfile.SoundFile]:
    try:
        with soundfile.SoundFile(path) as file:
            yield file
    except soundfile.LibsndfileError as error:
        raise MediaError(
            f"{path}: cannot be read as sound ({error.error_string}); it is damaged or not a sound file"
        ) from error


def _read_sound_file(path: Path, want: _Window) -> Clip:
    """A window of a WAV, FLAC or OGG file."""
    with _sound_file(path) as file:
        rate, begin, length = (
            file.samplerate,
            round(want.start * file.samplerate),
            round(want.seconds * file.samplerate),
        )
        if not file.frames:
            raise MediaError(f"{path}: cannot be read as sound: it holds no samples; it is damaged or was cut short")
        want.check(path, video=False, audio=True, duration=file.frames / rate)
        file.seek(begin)
        sound = torch.from_numpy(file.read(length if want.audio else 0, dtype="float32", always_2d=True).T.copy())
        declared = round(file.frames * _riff_excess(path))
    if not want.audio:
        return want.clip(path)
    missing = length - sound.shape[1]
    lost = min(missing, declared - begin - sound.shape[1]) / rate
    return replace(
        want.clip(path),
        waveform=torch.nn.functional.pad(sound, (0, missing)),
        sample_rate=rate,
        padded=missing / rate,
        damage=_damage(path, {"sound": lost}),
    )


def _damage(path: Path, lost: dict[str, float]) -> str:
    """A sentence on the seconds lost of each stream; empty where they are within the tolerance."""
    parts = [f"{seconds:.1f} s of the {what}" for what, seconds in lost.items() if seconds > TOLERANCE]
    return f"{path}: {' and '.join(parts)} are missing (the file is damaged or cut short)" if parts else ""


def _riff_excess(path: Path) -> float:
    """How many times longer a RIFF file (WAV, AVI) says it is than it is; 1 for a whole file and for other formats.

    Neither libsndfile nor libav tells: both shorten what the header declares to what is there.
    """
    with path.open("rb") as file:
        head = file.read(8)
    size = int.from_bytes(head[4:], "little") + 8
    written = head[:4] == b"RIFF" and 8 < size < 0xFFFFFFFF  # a recorder that was not closed leaves 0 or the maximum
    return max(1.0, size / path.stat().st_size) if written else 1.0


# Containers --------------------------------------------------------------------------------------------------------


class MediaFile:
    """An open container: its default streams, its time zero and the lengths that it declares."""

    def __init__(self, path: Path, handle: InputContainer) -> None:
        self.path, self.handle, self.format = path, handle, handle.format.name
        self.video: VideoStream | None = _default(handle.streams.video)
        self.audio: AudioStream | None = _default(handle.streams.audio)
        self.streams: list[Stream] = [s for s in (self.video, self.audio) if s]
        if not self.streams:
            raise MediaError(f"{path}: has neither a video nor an audio stream that can be decoded")
        self.starts = {s.index: (s.start_time or 0) * _tick(s) for s in self.streams}
        self.zero = min(self.starts.values())
        if self.video and self.starts[self.video.index] - self.zero < PRIMING:
            self.zero = self.starts[self.video.index]
        self.count: Counter[str] = Counter()
        self.fallback = ""
        self.size: tuple[int, int] | None = None

    @cached_property
    def excess(self) -> float:
        """See `_riff_excess`."""
        return _riff_excess(self.path)

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
            return self.starts[stream.index] + stream.duration * _tick(stream) * self.excess
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
        """The pictures that `packet` sets free; None drains the decoder."""
        self.count["sent"] += packet is not None
        frames = self._decode(self.video, packet)
        self.count["decoded"] += len(frames)
        return frames

    def sounds(self, packet: Packet[Any] | None) -> list[AudioFrame]:
        """The pieces of sound that `packet` sets free; None drains the decoder."""
        return self._decode(self.audio, packet)

    def _decode(self, stream: Stream | None, packet: Packet[Any] | None) -> list[Any]:
        try:
            return list(stream.codec_context.decode(packet)) if stream else []
        except av.EOFError:  # nothing left to drain
            return []
        except av.FFmpegError:  # a damaged packet: what is missing in the end is judged by length
            self.count["errors"] += 1
            return []


def _default(streams: Sequence[StreamT]) -> StreamT | None:
    """The stream flagged as default; of several, the one of most pixels or the highest rate. A cover is no video."""
    usable = [s for s in streams if s.codec_context and not s.disposition & Disposition.attached_pic]
    return max(usable, key=lambda s: (bool(s.disposition & Disposition.default), _fineness(s)), default=None)


def _fineness(stream: Stream) -> int:
    return stream.width * stream.height if isinstance(stream, VideoStream) else stream.sample_rate


def _tick(stream: Stream) -> float:
    """The unit of the stream's timestamps in s."""
    return float(stream.time_base or 1)


def _stamp(packet: Packet[Any]) -> int:
    """When a packet is shown, in ticks; one without a timestamp stands a second late, so that reading begins early."""
    return packet.pts if packet.pts is not None else (packet.dts or 0) + round(1 / packet.time_base)


@contextmanager
def _open(path: Path) -> Iterator[MediaFile]:
    try:
        # "file:" for names with a colon; the whitelist for playlists, which would otherwise reach out to the network
        handle = av.open(f"file:{path}", container_options={"protocol_whitelist": "file"})
    except (av.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MediaError(
            f"{path}: cannot be opened as media ({reason}); it is no video or sound file, or was cut before its index"
        ) from error
    with handle:
        try:
            yield MediaFile(path, handle)
        except av.FFmpegError as error:
            raise MediaError(f"{path}: cannot be decoded ({error.strerror or error}); it is damaged") from error


def _read_container(path: Path, want: _Window) -> Clip:
    """A window of a container, read from as far before it as it takes to decode its beginning."""
    count: Counter[str] = Counter()
    for back in LOOK_BACK:
        with _open(path) as file:
            file.count = count
            if file.is_photo:
                raise MediaError(f"{path}: is a photo, not a video: remove it, or record a video instead")
            want.check(path, video=bool(file.video), audio=bool(file.audio), duration=file.duration)
            try:
                packets = _demux(file, want, back)
            except av.FFmpegError:  # a container that cannot seek this far, or at all
                continue
            if packets.whole or _covers(file, want, packets):
                return _decode(file, want, packets)
    raise MediaError(f"{path}: cannot be read")  # not reached: looking back without end reads the whole


@dataclass
class _Packets:
    """The packets of a window as demuxed."""

    video: list[Packet[Any]] = field(default_factory=list)
    audio: list[Packet[Any]] = field(default_factory=list)
    reach: dict[int, float] = field(default_factory=dict)  # stream index -> end of its last packet, s
    whole: bool = False  # read from the beginning of the file
    ended: bool = True  # read to the end of the file


def _demux(file: MediaFile, want: _Window, back: float) -> _Packets:
    """The packets of the window, from the keyframe that is `back` s or more before it."""
    begin = file.zero + want.start
    until: dict[int, float] = {}
    if file.video and want.times:
        until[file.video.index] = begin + max(want.times) + _slack(file.video)
    if file.audio and want.audio:
        until[file.audio.index] = begin + want.seconds + JITTER + 2 * _tick(file.audio)
    first = (begin - WARM_UP if file.audio and want.audio else begin + min(want.times, default=0.0)) - back
    got = _Packets(whole=first <= file.zero)
    if not until:
        return got
    settled = -inf
    if not got.whole:
        settling = SETTLING.get(file.format, 0.0)
        settled = first - settling / 2 if settling else -inf
        lead = file.streams[0]
        file.handle.seek(int((first - settling) / _tick(lead)), stream=lead)
    passed: set[int] = set()
    for packet in file.packets():
        index, tick = packet.stream.index, _tick(packet.stream)
        if packet.pts is not None:
            got.reach[index] = max(got.reach.get(index, -inf), (packet.pts + (packet.duration or 0)) * tick)
        now = -inf if packet.dts is None else packet.dts * tick  # no later packet is shown before it
        if now > until.get(index, inf):
            passed.add(index)
        elif index in until and (now >= settled or packet.dts is None):
            (got.video if packet.stream is file.video else got.audio).append(packet)
        if all(i in passed or now > end + INTERLEAVE for i, end in until.items()):
            got.ended = False
            break
    return got


def _covers(file: MediaFile, want: _Window, packets: _Packets) -> bool:
    """Whether these packets reach far enough back for the first wanted picture and for the codec's warm-up."""
    begin = file.zero + want.start
    if file.video and want.times:
        shown = _displayed(packets.video)
        if not shown or shown[0] > _ticks(file.video, begin, want.times)[0]:
            return False
    if file.audio and want.audio:
        tick, ends = _tick(file.audio), file.declared_end(file.audio)
        needed = max(begin - WARM_UP / 2, file.starts[file.audio.index])
        first = _stamp(packets.audio[0]) * tick if packets.audio else inf
        return first <= needed + 2 * tick or (ends is not None and ends <= needed)
    return True


def _decode(file: MediaFile, want: _Window, packets: _Packets) -> Clip:
    """Pictures and sound of the demuxed window, and the verdict on what is missing."""
    clip, end = want.clip(file.path), file.zero + want.start + want.seconds
    ends: list[float] = []
    lost: dict[str, float] = {}
    if file.video and want.times:
        ends.append(_end(file, file.video, packets))
        frames, lost["picture"] = _pictures(file, file.video, want, packets, ends[-1])
        clip = replace(clip, frames=frames)
    if file.audio and want.audio:
        ends.append(_end(file, file.audio, packets))
        waveform, rate, lost["sound"] = _sound(file, file.audio, want, packets, ends[-1])
        clip = replace(clip, waveform=waveform, sample_rate=rate)
    padded = max([0.0, end - max(ends, default=inf), *(s for s in lost.values() if s > TOLERANCE)])
    return replace(
        clip,
        padded=min(padded, want.seconds),
        damage=_damage(file.path, lost),
        stats=DecodeStats(**file.count, fallback=file.fallback),
    )


def _end(file: MediaFile, stream: Stream, packets: _Packets) -> float:
    """Where `stream` should end, s: by its own word, else by the container's, else where its packets end."""
    if (end := file.declared_end(stream)) is not None:
        return end
    container = file.container_end
    if not packets.ended:
        return inf if container is None else container
    # The container's word holds for its longest stream only: another may rightly end before.
    longest = max(packets.reach.values(), default=-inf)
    short = container is not None and longest < container - TOLERANCE
    return container if short and container is not None else packets.reach.get(stream.index, -inf)


# Pictures ----------------------------------------------------------------------------------------------------------


def _slack(stream: Stream) -> float:
    """Seconds by which a container's rounding may move a picture: half a tick, at most half a millisecond."""
    return min(_tick(stream) / 2, SLACK) + 1e-6


def _ticks(stream: Stream, begin: float, times: Sequence[float]) -> list[float]:
    """The distinct wanted instants in the stream's ticks, in order."""
    return [(begin + t + _slack(stream)) / _tick(stream) for t in sorted(set(times))]


def _displayed(packets: list[Packet[Any]]) -> list[int]:
    """The timestamps of the pictures that can be decoded from these packets, in order of display.

    Pictures shown before the first keyframe need packets from before it.
    """
    key = next((i for i, p in enumerate(packets) if p.is_keyframe), len(packets))
    return sorted(_stamp(p) for p in packets[key:] if not p.is_discard and _stamp(p) >= _stamp(packets[key]))


def _pictures(file: MediaFile, stream: VideoStream, want: _Window, got: _Packets, end: float) -> tuple[Tensor, float]:
    """The pictures on screen at the wanted instants, and the seconds by which they fall short of them."""
    stream.codec_context.thread_count, stream.codec_context.thread_type = want.threads, ThreadType.FRAME
    begin, tick, packets = file.zero + want.start, _tick(stream), got.video
    ticks, shown = _ticks(stream, begin, want.times), _displayed(packets)
    due = [shown[max(bisect_right(shown, t) - 1, 0)] for t in ticks] if shown else []
    file.fallback = "asked for" if want.sequential else _unplannable(file, stream, packets)
    images: list[Rgb] = []
    came = due
    if not file.fallback:
        planned = _planned(file, stream, packets, set(due))
        if planned.keys() == set(due):
            images = [planned[stamp] for stamp in due]
        else:
            file.fallback = "a wanted picture did not come"
            stream.codec_context.flush_buffers()
    if file.fallback:
        came, images = _in_order(file, stream, packets, ticks)
    if not images:
        raise MediaError(f"{file.path}: no picture of the window can be decoded; the file is damaged")
    place = {t: i for i, t in enumerate(sorted(set(want.times)))}
    stack = np.stack([images[place[t]] for t in want.times])
    late = max((d - c for d, c in zip(due, came, strict=False)), default=0) * tick
    short = min(end, begin + max(want.times)) - got.reach.get(stream.index, begin) if got.ended else 0.0
    return torch.from_numpy(stack).permute(0, 3, 1, 2), max(late, short)


def _unplannable(file: MediaFile, stream: VideoStream, packets: list[Packet[Any]]) -> str:
    """Why the packets' timestamps do not say which picture is shown when; empty where they do."""
    stamps = [p.pts for p in packets]
    if None in stamps:
        return "a packet has no timestamp"
    if len(set(stamps)) < len(stamps):
        return "two packets have the same timestamp"
    if _unordered(file, stream, packets):
        return "the timestamps are in decoding order"
    return ""


def _unordered(file: MediaFile, stream: VideoStream, packets: list[Packet[Any]]) -> bool:
    """AVI has no presentation times, and libav can put no H.264 with B-frames in order by its packets alone."""
    stamps = [_stamp(p) for p in packets]
    return file.format == "avi" and bool(stream.codec_context.has_b_frames) and stamps == sorted(stamps)


def _planned(file: MediaFile, stream: VideoStream, packets: list[Packet[Any]], wanted: set[int]) -> dict[int, Rgb]:
    """Decode no more than the wanted pictures need; returns them by timestamp."""
    images: dict[int, Rgb] = {}
    context = stream.codec_context
    spare: Literal["NONREF", "DEFAULT"] = "NONREF" if context.name in DROPPING else "DEFAULT"
    for run in _runs(packets, wanted):
        for packet in [*run, None]:
            context.skip_frame = "DEFAULT" if packet is None or packet.pts in wanted else spare
            for frame in file.pictures(packet):
                if frame.pts in wanted and frame.pts is not None and frame.pts not in images:
                    images[frame.pts] = rgb(file, frame)
        context.flush_buffers()
    return images


def _runs(packets: list[Packet[Any]], wanted: set[int]) -> list[list[Packet[Any]]]:
    """The packets to decode, in runs that each begin at a keyframe; between runs the decoder is flushed.

    Of a group of pictures, those up to its last wanted one in decode order. A wanted picture that is shown before its
    own keyframe (open group) refers to the group before, too: all of that is decoded, and no flush comes between.
    """
    keys = [i for i, p in enumerate(packets) if p.is_keyframe]
    groups = [packets[a:b] for a, b in pairwise([*keys, len(packets)])]
    need, joined = [0] * len(groups), [False] * len(groups)
    for i, group in enumerate(groups):
        hits = [n for n, p in enumerate(group) if p.pts in wanted]
        if hits:
            need[i] = max(need[i], hits[-1] + 1)
            if i and any(_stamp(group[n]) < _stamp(group[0]) for n in hits):
                need[i - 1], joined[i] = len(groups[i - 1]), True
    runs: list[list[Packet[Any]]] = []
    for group, count, join in zip(groups, need, joined, strict=True):
        if join:
            runs[-1].extend(group[:count])
        elif count:
            runs.append(group[:count])
    return runs


def _in_order(
    file: MediaFile, stream: VideoStream, packets: list[Packet[Any]], ticks: list[float]
) -> tuple[list[int], list[Rgb]]:
    """Decode every picture from the first keyframe on; returns the timestamp and the image on screen at each tick."""
    came: list[int] = []
    images: list[Rgb] = []
    held: tuple[int, VideoFrame] | None = None
    for begins, frame in _played(file, stream, packets):
        answered = (len(ticks) if frame is None else bisect_left(ticks, begins)) - len(images)
        if held and answered > 0:
            came += [held[0]] * answered
            images += [rgb(file, held[1])] * answered
        if frame is None or len(images) == len(ticks):
            break
        held = begins, frame
    return came, images


def _played(
    file: MediaFile, stream: VideoStream, packets: list[Packet[Any]]
) -> Iterator[tuple[int, VideoFrame | None]]:
    """Every picture from the first keyframe on with the tick at which it begins, then None."""
    stream.codec_context.skip_frame = "DEFAULT"
    key = next((i for i, p in enumerate(packets) if p.is_keyframe), 0)
    clock = iter(_displayed(packets)) if _unordered(file, stream, packets) else iter(())
    step = round(1 / (_tick(stream) * float(stream.average_rate or 25)))
    first = now = _stamp(packets[key]) if packets else 0
    for packet in [*packets[key:], None]:
        for frame in file.pictures(packet):
            stamp = next(clock, frame.pts)
            now = now + step if stamp is None else stamp
            if now >= first:  # one shown before the first keyframe needs pictures that are not here
                yield now, frame
    yield now, None


def rgb(file: MediaFile, frame: VideoFrame) -> Rgb:
    """[height, width, 3], upright."""
    file.count["converted"] += 1
    file.size = file.size or (frame.width, frame.height)  # a stream may change its size: the first picture's holds
    width, height = file.size
    image = np.asarray(frame.to_ndarray(format="rgb24", width=width, height=height), dtype=np.uint8)
    return np.rot90(image, round(frame.rotation / 90))


# Sound -------------------------------------------------------------------------------------------------------------


def _sound(
    file: MediaFile, stream: AudioStream, want: _Window, packets: _Packets, end: float
) -> tuple[Tensor, int, float]:
    """The waveform of the window, its rate in Hz, and the seconds of it that did not come."""
    begin = file.zero + want.start
    tick = _tick(stream)
    needed = [p for p in packets.audio if (_stamp(p) + (p.duration or 0)) * tick >= begin - WARM_UP]
    pieces = [frame for packet in [*needed, None] for frame in file.sounds(packet)]
    # A decoder may know better than the header (AAC with band replication doubles the rate).
    rate = pieces[0].sample_rate if pieces else stream.codec_context.sample_rate
    channels = (pieces[0] if pieces else stream.codec_context).layout.nb_channels
    wave: Samples = np.zeros((channels, round(want.seconds * rate)), dtype=np.float32)
    snap = _frame_grid(file.path, packets, tick, rate)
    if not packets.whole and pieces and (pieces[0].pts or 0) * tick + pieces[0].samples / rate <= begin:
        del pieces[0]  # libav trims the first frame after a seek as if it were the first of the file
    origin = round(want.start * rate)  # the window's first sample, counted from time zero
    cursor: int | None = None  # where the next decoded sample goes
    heard = 0
    for piece in pieces:
        if piece.sample_rate != rate or piece.layout.nb_channels != channels:
            file.count["errors"] += 1
            continue
        exact = (snap(piece.pts * tick) - file.zero) * rate - origin if piece.pts is not None else cursor or 0
        # A container's rounded timestamps jitter; only a jump beyond that is a hole.
        if cursor is None or abs(exact - cursor) > max(2 * tick, JITTER) * rate:
            cursor = round(exact)
        first, last = max(cursor, 0), min(cursor + piece.samples, wave.shape[1])
        if first < last:
            wave[:, first:last] = floats(piece)[:, first - cursor : last - cursor]
            heard += last - first
        cursor += piece.samples
    due = min(end, begin + want.seconds) - max(begin, file.starts[stream.index])
    return torch.from_numpy(wave), rate, due - heard / rate


def floats(frame: AudioFrame) -> Samples:
    """[channels, samples] in [-1, 1], scaled by the type of the numbers."""
    samples: NDArray[Any] = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(frame.samples, -1).T
    if samples.dtype.kind == "f":
        return samples.astype(np.float32)
    if samples.dtype == np.uint8:
        return ((samples - 128.0) / 128).astype(np.float32)
    return (samples / 2.0 ** (8 * samples.dtype.itemsize - 1)).astype(np.float32)


def _frame_grid(path: Path, packets: _Packets, tick: float, rate: int) -> Callable[[float], float]:
    """Undo the rounding of a container's audio timestamps (Matroska: to 1 ms) after a seek.

    Codecs with frames of one length put every frame on a grid that begins at the first frame of the file; a time within
    a tick of the grid is moved onto it, so that a window has the very samples of the whole file's decoding.
    """
    if packets.whole or (1 / (tick * rate)).is_integer():
        return lambda time: time
    with _open(path) as head:
        frames = (f for p in head.packets() if p.stream is head.audio for f in head.sounds(p))
        first, second = next(frames, None), next(frames, None)
    if first is None or second is None or first.pts is None:
        return lambda time: time
    origin, step = first.pts * tick + first.samples / rate, second.samples / rate

    def snap(time: float) -> float:
        near = origin + round((time - origin) / step) * step
        return near if abs(near - time) <= 1.01 * tick else time

    return snap
