"""The pictures of a window: decoded as planned, or one after another where the timestamps allow no plan."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from torch import Tensor

from avzoo.clip import plan
from avzoo.clip.container import MediaFile, Rgb, stamp_of, tick_of
from avzoo.clip.window import Window
from avzoo.errors import MediaError

# Codecs that can drop a picture that no other refers to, set before each packet. Others (AV1) ignore it or drop more.
DROPPING = frozenset({"h264", "hevc", "vp9", "mpeg4", "mpeg2video", "mpeg1video"})


def read_pictures(
    file: MediaFile, stream: VideoStream, want: Window, got: plan.Packets, end: float
) -> tuple[Tensor, float]:
    """The pictures on screen at the wanted instants, and the seconds by which they fall short of them."""
    stream.codec_context.thread_count = 1  # many clips at once are faster than many threads a clip
    begin, tick, packets = file.zero + want.start, tick_of(stream), got.video
    ticks, shown = plan.ticks(stream, begin, want.times), plan.displayed(packets)
    due = [shown[max(bisect_right(shown, t) - 1, 0)] for t in ticks] if shown else []
    file.fallback = "asked for" if want.sequential else plan.unplannable(file, stream, packets)
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


def _planned(file: MediaFile, stream: VideoStream, packets: list[Packet[Any]], wanted: set[int]) -> dict[int, Rgb]:
    """Decode no more than the wanted pictures need; returns them by timestamp."""
    images: dict[int, Rgb] = {}
    context = stream.codec_context
    spare: Literal["NONREF", "DEFAULT"] = "NONREF" if context.name in DROPPING else "DEFAULT"
    for run in plan.runs(packets, wanted):
        for packet in [*run, None]:
            context.skip_frame = "DEFAULT" if packet is None or packet.pts in wanted else spare
            for frame in file.pictures(packet):
                if frame.pts in wanted and frame.pts is not None and frame.pts not in images:
                    images[frame.pts] = file.rgb(frame)
        context.flush_buffers()
    return images


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
            images += [file.rgb(held[1])] * answered
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
    clock = iter(plan.displayed(packets)) if plan.unordered(file, stream, packets) else iter(())
    step = round(1 / (tick_of(stream) * float(stream.average_rate or 25)))
    first = now = stamp_of(packets[key]) if packets else 0
    for packet in [*packets[key:], None]:
        for frame in file.pictures(packet):
            stamp = next(clock, frame.pts)
            now = now + step if stamp is None else stamp
            if now >= first:  # one shown before the first keyframe needs pictures that are not here
                yield now, frame
    yield now, None
