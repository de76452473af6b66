"""The sound of a window of a container: its samples, each at its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from numpy.typing import NDArray
from torch import Tensor

from avzoo.clip.container import MediaFile, open_container, stamp_of, tick_of
from avzoo.clip.plan import JITTER, WARM_UP, Packets
from avzoo.clip.window import Window

Samples = NDArray[np.float32]


def read_sound(
    file: MediaFile, stream: AudioStream, want: Window, packets: Packets, end: float
) -> tuple[Tensor, int, float]:
    """The waveform of the window, its rate in Hz, and the seconds of it that did not come."""
    begin = file.zero + want.start
    tick = tick_of(stream)
    needed = [p for p in packets.audio if (stamp_of(p) + (p.duration or 0)) * tick >= begin - WARM_UP]
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


def _frame_grid(path: Path, packets: Packets, tick: float, rate: int) -> Callable[[float], float]:
    """Undo the rounding of a container's audio timestamps (Matroska: to 1 ms) after a seek.

    Codecs with frames of one length put every frame on a grid that begins at the first frame of the file; a time within
    a tick of the grid is moved onto it, so that a window has the very samples of the whole file's decoding.
    """
    if packets.whole or (1 / (tick * rate)).is_integer():
        return lambda time: time
    with open_container(path) as head:
        frames = (f for p in head.packets() if p.stream is head.audio for f in head.sounds(p))
        first, second = next(frames, None), next(frames, None)
    if first is None or second is None or first.pts is None:
        return lambda time: time
    origin, step = first.pts * tick + first.samples / rate, second.samples / rate

    def snap(time: float) -> float:
        near = origin + round((time - origin) / step) * step
        return near if abs(near - time) <= 1.01 * tick else time

    return snap
