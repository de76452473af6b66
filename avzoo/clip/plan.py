"""What has to be read and decoded for a window: of the packets and their timestamps, before anything is decoded.

`demux` gets the packets and `covers` says whether they reach far enough back; `displayed` tells which picture is shown
when, and `runs` which packets the decoder needs for those that are wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import Any

from av.packet import Packet
from av.video.stream import VideoStream

from avzoo.clip.container import MediaFile, Stream, stamp_of, tick_of
from avzoo.clip.window import TOLERANCE, Window

WARM_UP = 0.25  # s of sound decoded before the window, so that the codec's memory is filled when the window begins
INTERLEAVE = 10.0  # s that one stream may lag behind the other in a file before it counts as ended
JITTER = 0.005  # s between a sound frame's timestamp and its place that do not count as a hole
SLACK = 5e-4  # s by which rounded timestamps may put a picture too late
SETTLING = {"mpeg": 2.0}  # s of packets with guessed timestamps that a program stream gives after a seek


@dataclass
class Packets:
    """The packets of a window as demuxed."""

    video: list[Packet[Any]] = field(default_factory=list)
    audio: list[Packet[Any]] = field(default_factory=list)
    reach: dict[int, float] = field(default_factory=dict)  # stream index -> end of its last packet, s
    whole: bool = False  # read from the beginning of the file
    ended: bool = True  # read to the end of the file


def demux(file: MediaFile, want: Window, back: float) -> Packets:
    """The packets of the window, from the keyframe that is `back` s or more before it."""
    begin, until = file.zero + want.start, _until(file, want)
    first = (begin - WARM_UP if file.audio and want.audio else begin + min(want.times, default=0.0)) - back
    got = Packets(whole=first <= file.zero)
    if not until:
        return got
    settled = -inf
    if not got.whole:
        settling = SETTLING.get(file.format, 0.0)
        settled = first - settling / 2 if settling else -inf
        lead = file.streams[0]
        file.handle.seek(int((first - settling) / tick_of(lead)), stream=lead)
    passed: set[int] = set()
    for packet in file.packets():
        index, tick = packet.stream.index, tick_of(packet.stream)
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


def _until(file: MediaFile, want: Window) -> dict[int, float]:
    """How far each stream that is wanted has to be read, s, by its index."""
    begin, until = file.zero + want.start, {}
    if file.video and want.times:
        until[file.video.index] = begin + max(want.times) + _slack(file.video)
    if file.audio and want.audio:
        until[file.audio.index] = begin + want.seconds + JITTER + 2 * tick_of(file.audio)
    return until


def covers(file: MediaFile, want: Window, packets: Packets) -> bool:
    """Whether these packets reach far enough back for the first wanted picture and for the codec's warm-up."""
    begin = file.zero + want.start
    if file.video and want.times:
        shown = displayed(packets.video)
        if not shown or shown[0] > ticks(file.video, begin, want.times)[0]:
            return False
    if file.audio and want.audio:
        tick, ends = tick_of(file.audio), file.declared_end(file.audio)
        needed = max(begin - WARM_UP / 2, file.starts[file.audio.index])
        first = stamp_of(packets.audio[0]) * tick if packets.audio else inf
        return first <= needed + 2 * tick or (ends is not None and ends <= needed)
    return True


def end_of(file: MediaFile, stream: Stream, packets: Packets) -> float:
    """Where `stream` should end, s: by its own word, else by the container's, else where its packets end."""
    if (end := file.declared_end(stream)) is not None:
        return end
    container = file.container_end
    if not packets.ended:
        return inf if container is None else container
    # The container's word holds for its longest stream only: another may rightly end before.
    longest = max(packets.reach.values(), default=-inf)
    if container is not None and longest < container - TOLERANCE:
        return container
    return packets.reach.get(stream.index, -inf)


def _slack(stream: Stream) -> float:
    """Seconds by which a container's rounding may move a picture: half a tick, at most half a millisecond."""
    return min(tick_of(stream) / 2, SLACK) + 1e-6


def ticks(stream: Stream, begin: float, times: Sequence[float]) -> list[float]:
    """The distinct wanted instants in the stream's ticks, in order."""
    return [(begin + t + _slack(stream)) / tick_of(stream) for t in sorted(set(times))]


def displayed(packets: list[Packet[Any]]) -> list[int]:
    """The timestamps of the pictures that can be decoded from these packets, in order of display.

    Pictures shown before the first keyframe need packets from before it.
    """
    key = next((i for i, p in enumerate(packets) if p.is_keyframe), len(packets))
    return sorted(stamp_of(p) for p in packets[key:] if not p.is_discard and stamp_of(p) >= stamp_of(packets[key]))


def unplannable(file: MediaFile, stream: VideoStream, packets: list[Packet[Any]]) -> str:
    """Why the packets' timestamps do not say which picture is shown when; empty where they do."""
    stamps = [p.pts for p in packets]
    if None in stamps:
        return "a packet has no timestamp"
    if len(set(stamps)) < len(stamps):
        return "two packets have the same timestamp"
    if unordered(file, stream, packets):
        return "the timestamps are in decoding order"
    return ""


def unordered(file: MediaFile, stream: VideoStream, packets: list[Packet[Any]]) -> bool:
    """AVI has no presentation times, and libav can put no H.264 with B-frames in order by its packets alone."""
    stamps = [stamp_of(p) for p in packets]
    return file.format == "avi" and bool(stream.codec_context.has_b_frames) and stamps == sorted(stamps)


def runs(packets: list[Packet[Any]], wanted: set[int]) -> list[list[Packet[Any]]]:
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
            if i and any(stamp_of(group[n]) < stamp_of(group[0]) for n in hits):
                need[i - 1], joined[i] = len(groups[i - 1]), True
    runs: list[list[Packet[Any]]] = []
    for group, count, join in zip(groups, need, joined, strict=True):
        if join:
            runs[-1].extend(group[:count])
        elif count:
            runs.append(group[:count])
    return runs
