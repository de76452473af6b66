"""Write small media files of any make with PyAV: the test clips that no repository has to carry.

write_media(tmp_path / "clip.mp4", Picture(codec="libx264", fps=25), Sound(codec="aac", clicks=(0.5,)))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Samples = NDArray[np.float32]


def texture(index: int, size: tuple[int, int]) -> Pixels:
    """Frame `index` of a moving texture, [height, width, 3]: no two frames are alike."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    grain = np.random.default_rng(index).integers(0, 24, (height, width))
    red = 110 + 90 * np.sin((x + 3 * index) / 7) + grain
    green = 110 + 90 * np.cos((y - 2 * index) / 5) + grain
    blue = (x * 2 + y * 3 + 7 * index) % 200 + grain
    return np.stack([red, green, blue], axis=2).clip(0, 255).astype(np.uint8)


def noise(samples: int, channels: int, rate: int) -> Samples:
    """A loud, band-limited, never repeating sound, [channels, samples]."""
    t = np.arange(samples) / rate
    tones = [0.3 * np.sin(2 * np.pi * (220 * (c + 1) + 60 * t) * t) for c in range(channels)]
    hiss = np.random.default_rng(0).normal(0, 0.02, (channels, samples))
    return np.asarray(tones + hiss, dtype=np.float32)


@dataclass(frozen=True)
class Picture:
    """One video stream.

    `times` (s) makes a variable frame rate; `rotation` (degrees, counter-clockwise) is display metadata only.
    """

    codec: str = "libx264"
    fps: Fraction | float = Fraction(25)
    size: tuple[int, int] = (48, 64)  # height, width
    seconds: float = 2.0
    start: float = 0.0
    gop: int = 12
    b_frames: int = 2
    times: tuple[float, ...] | None = None
    rotation: int = 0
    default: bool = True
    pixels: str = "yuv420p"
    options: dict[str, str] = field(default_factory=dict)
    render: Callable[[int, tuple[int, int]], Pixels] = texture


@dataclass(frozen=True)
class Sound:
    """One audio stream of noise, or of silence with one-sample clicks at `clicks` (s after the stream's start)."""

    codec: str = "aac"
    rate: int = 16000
    layout: str = "mono"
    format: str = "fltp"
    seconds: float = 2.0
    start: float = 0.0
    default: bool = True
    clicks: tuple[float, ...] | None = None

    def samples(self) -> Samples:
        """The sound before it is encoded, [channels, samples]."""
        count, channels = round(self.seconds * self.rate), av.AudioLayout(self.layout).nb_channels
        if self.clicks is None:
            return noise(count, channels, self.rate)
        wave = np.zeros((channels, count), dtype=np.float32)
        wave[:, [round(click * self.rate) for click in self.clicks]] = 0.9
        return wave


def write_media(path: Path, *tracks: Picture | Sound, options: dict[str, str] | None = None) -> Path:
    """Encode `tracks` into `path` (the container is that of its suffix) and return `path`."""
    with av.open(path, "w", options=options or {}) as container:
        feeds = [_picture(container, t) if isinstance(t, Picture) else _sound(container, t) for t in tracks]
        heads = {i: next(feed, None) for i, feed in enumerate(feeds)}
        while any(heads.values()):  # the track that is behind writes next, so the file is interleaved
            i = min((i for i in heads if heads[i]), key=lambda i: heads[i][0])  # type: ignore[index]
            container.mux(heads[i][1])  # type: ignore[index]
            heads[i] = next(feeds[i], None)
    return path


def _picture(container: av.container.OutputContainer, track: Picture) -> Iterator[tuple[float, list[av.Packet]]]:
    rate = Fraction(track.fps).limit_denominator(1001)
    tick = 1 / rate if track.times is None else Fraction(1, 1000)
    stream = container.add_stream(track.codec, rate=rate, options=track.options)
    stream.height, stream.width = track.size
    stream.pix_fmt = track.pixels
    stream.codec_context.time_base = tick
    stream.codec_context.gop_size = track.gop
    if track.codec not in ("libvpx-vp9", "libvpx", "mpeg1video", "mjpeg") or track.b_frames:
        stream.codec_context.max_b_frames = track.b_frames
    if track.rotation:
        stream.set_display_rotation(track.rotation)
    stream.disposition = av.stream.Disposition.default if track.default else av.stream.Disposition(0)
    times = track.times or tuple(float(i / rate) for i in range(round(track.seconds * rate)))
    for i, time in enumerate(times):
        frame = av.VideoFrame.from_ndarray(track.render(i, track.size), format="rgb24")
        frame.time_base, frame.pts = tick, round(time / tick) + round(track.start / tick)
        yield time + track.start, stream.encode(frame)
    yield times[-1] + track.start, stream.encode(None)


def _sound(container: av.container.OutputContainer, track: Sound) -> Iterator[tuple[float, list[av.Packet]]]:
    stream = container.add_stream(track.codec, rate=track.rate, layout=track.layout)
    stream.format = track.format
    stream.disposition = av.stream.Disposition.default if track.default else av.stream.Disposition(0)
    wave, chunk = track.samples(), 1024
    resampler = av.AudioResampler(track.format, track.layout, track.rate)
    for begin in range(0, wave.shape[1], chunk):
        part = np.ascontiguousarray(wave[:, begin : begin + chunk])
        frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=track.layout)
        frame.sample_rate, frame.time_base = track.rate, Fraction(1, track.rate)
        frame.pts = begin + round(track.start * track.rate)
        yield begin / track.rate + track.start, [p for f in resampler.resample(frame) for p in stream.encode(f)]
    yield track.seconds + track.start, stream.encode(None)


_X265 = {"x265-params": "log-level=none:pools=1:frame-threads=1:keyint=12:open-gop="}
_OPEN_X264 = {"x264-params": "open-gop=1:keyint=12:min-keyint=4:scenecut=0"}
_ALT_REF = {"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "5", "deadline": "good"}
_VFR = tuple(float(t) for t in np.random.default_rng(1).uniform(0.01, 0.2, 30).round(3).cumsum() - 0.01)
_MP2 = Sound("mp2", 44100, format="s16", seconds=3)
_OPUS = Sound("libopus", 48000, format="flt", seconds=3)

# A file of every container and codec that is read, with pictures in every order.
CONTAINERS: dict[str, tuple[Picture | Sound, ...]] = {
    "h264.mp4": (Picture(seconds=3), Sound(seconds=3)),
    "h264_ntsc.mkv": (Picture(seconds=3, fps=Fraction(24000, 1001)), Sound("flac", 44100, format="s16", seconds=3)),
    "h264_pcm.mov": (Picture(seconds=3, b_frames=3), Sound("pcm_s16le", format="s16", seconds=3)),
    "h264_open.mp4": (Picture(seconds=3, options=_OPEN_X264), Sound(seconds=3)),
    "h264_open.mkv": (Picture(seconds=3, options=_OPEN_X264), Sound(seconds=3)),
    "h264_one_gop.mp4": (Picture(seconds=3, gop=250), Sound(seconds=3)),
    "h264_no_b.mp4": (Picture(seconds=3, b_frames=0), Sound(seconds=3)),
    "h264_rotated.mp4": (Picture(seconds=3, rotation=90), Sound(seconds=2, start=0.6)),
    "h264_late.mkv": (Picture(seconds=2, start=0.6), Sound(seconds=3)),
    "hevc.mp4": (Picture("libx265", seconds=3, options={"x265-params": _X265["x265-params"] + "0"}), Sound(seconds=3)),
    "hevc_open.mkv": (Picture("libx265", seconds=3, options={"x265-params": _X265["x265-params"] + "1"}), _OPUS),
    "vp9_odd.webm": (Picture("libvpx-vp9", size=(93, 127), seconds=3, b_frames=0, options=_ALT_REF), _OPUS),
    "mpeg4_open.avi": (Picture("mpeg4", seconds=3), Sound("libmp3lame", seconds=3)),
    "mpeg4_odd.mp4": (Picture("mpeg4", size=(93, 127), fps=12.5, seconds=3), Sound(seconds=3)),
    "mpeg4_7fps.mkv": (Picture("mpeg4", fps=7, seconds=3), Sound("libmp3lame", 44100, seconds=3)),
    "mpeg2_open.mpg": (Picture("mpeg2video", seconds=3), _MP2),
    "mpeg1_open.mpg": (Picture("mpeg1video", seconds=3), _MP2),
    "vfr.mp4": (Picture(times=_VFR), Sound(seconds=3)),
    "vfr.mkv": (Picture(times=_VFR), Sound("pcm_s16le", format="s16", seconds=3)),
}
