"""Read a window of a file, of a video and the sound beside it, or of a clip: `read_clip`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Literal

import av
import torch
from torch.nn.functional import pad

from avzoo.clip import plan
from avzoo.clip.container import MediaFile, open_container
from avzoo.clip.files import existing, is_sound_file, riff_excess
from avzoo.clip.pictures import read_pictures
from avzoo.clip.sound import read_sound
from avzoo.clip.sound_files import open_sound, read_sound_file
from avzoo.clip.window import TOLERANCE, Clip, DecodeStats, Window, shortfall
from avzoo.errors import MediaError

LOOK_BACK = (0.0, 4.0, 16.0, inf)  # s before the window to seek to, tried in turn until the window is covered


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

    Raises:
        DataNotFoundError: There is no such file.
        MediaError: The file is unreadable or damaged, lacks a stream, or ends before `start`.
    """
    if not (seconds > 0 and start >= 0 and all(0 <= t <= seconds for t in times)):
        name = path.id if isinstance(path, Clip) else path
        raise MediaError(
            f"{name}: asked for pictures at {list(times)} s in {seconds} s from {start} s on; expected start >= 0,"
            " seconds > 0 and every time within [0, seconds]"
        )
    want = Window(start, seconds, tuple(times), audio, on_missing_audio, sequential)
    if isinstance(path, Clip):
        if audio_path is not None:
            raise MediaError(f"{path.id}: a Clip brings its own sound, and {audio_path} was given too")
        return _cut(path, want)
    path = existing(path)
    sound = path if audio_path is None else existing(audio_path)
    clip = _read_beside(path, sound, want, on_damage) if audio and sound != path else _read(path, want)
    if clip.damage and on_damage == "error":
        raise MediaError(f'{clip.damage}; on_damage="pad" takes the file as it is')
    return clip


def _cut(whole: Clip, want: Window) -> Clip:
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
    clip = replace(want.clip(whole.id), padded=padded)
    if want.times:
        due = want.start + clip.frame_times + plan.SLACK
        shown = torch.searchsorted(whole.frame_times, due, right=True) - 1
        clip = replace(clip, frames=whole.frames[shown.clamp(min=0)])
    if want.audio and whole.sample_rate:
        begin, length = round(want.start * whole.sample_rate), round(want.seconds * whole.sample_rate)
        sound = whole.waveform[:, begin : begin + length]
        sound = pad(sound, (0, length - sound.shape[1]))
        clip = replace(clip, waveform=sound, sample_rate=whole.sample_rate)
    return clip


def _read_beside(video: Path, sound: Path, want: Window, on_damage: Literal["error", "pad"]) -> Clip:
    """The pictures of one file and the sound of another."""
    seen, heard = _length(video, "video"), _length(sound, "audio")
    apart = ""
    if min(seen, heard) > 0 and abs(seen - heard) > TOLERANCE:
        apart = (
            f"{video} lasts {seen:.2f} s and its sound, {sound}, {heard:.2f} s: one of them is cut short, or they do"
            " not belong together"
        )
    if apart and on_damage == "error":
        raise MediaError(f'{apart}; on_damage="pad" takes the files as they are')
    clip, unseen = _read(video, replace(want, audio=False)), replace(want, times=())
    ended = 0 < heard <= want.start  # the window begins after the sound's end, so it is silent
    other = replace(unseen.clip(sound.stem), padded=want.seconds) if ended else _read(sound, unseen)
    damage = "; ".join(filter(None, (apart, clip.damage, other.damage)))
    padded = (max if damage else min)(clip.padded, other.padded) if want.times else other.padded
    return replace(clip, waveform=other.waveform, sample_rate=other.sample_rate, padded=padded, damage=damage)


def _length(path: Path, stream: Literal["video", "audio"]) -> float:
    """How long a file says that its pictures or its sound last, s, by its header alone; 0 where it does not say."""
    if is_sound_file(path):
        with open_sound(path) as sound:
            return float(sound.frames * riff_excess(path) / sound.samplerate)
    with open_container(path) as file:
        own = file.video if stream == "video" else file.audio
        end = file.declared_end(own) if own else None
        return (file.container_end or file.zero if end is None else end) - file.zero


def _read(path: Path, want: Window) -> Clip:
    return read_sound_file(path, want) if is_sound_file(path) else _read_container(path, want)


def _read_container(path: Path, want: Window) -> Clip:
    """A window of a container, read from as far before it as it takes to decode its beginning."""
    count: Counter[str] = Counter()
    for back in LOOK_BACK:
        with open_container(path) as file:
            file.count = count
            if file.is_photo:
                raise MediaError(f"{path}: is a photo, not a video: remove it, or record a video instead")
            want.check(path, video=bool(file.video), audio=bool(file.audio), duration=file.duration)
            try:
                packets = plan.demux(file, want, back)
            except av.FFmpegError:  # a container that cannot seek this far, or at all
                continue
            if packets.whole or plan.covers(file, want, packets):
                return _decode(file, want, packets)
    raise MediaError(f"{path}: cannot be read")  # not reached: looking back without end reads the whole


def _decode(file: MediaFile, want: Window, packets: plan.Packets) -> Clip:
    """Pictures and sound of the demuxed window, and the verdict on what is missing."""
    clip, end = want.clip(file.path.stem), file.zero + want.start + want.seconds
    ends: list[float] = []
    lost: dict[str, float] = {}
    if file.video and want.times:
        ends.append(plan.end_of(file, file.video, packets))
        frames, lost["picture"] = read_pictures(file, file.video, want, packets, ends[-1])
        clip = replace(clip, frames=frames)
    if file.audio and want.audio:
        ends.append(plan.end_of(file, file.audio, packets))
        waveform, rate, lost["sound"] = read_sound(file, file.audio, want, packets, ends[-1])
        clip = replace(clip, waveform=waveform, sample_rate=rate)
    padded = max([0.0, end - max(ends, default=inf), *(s for s in lost.values() if s > TOLERANCE)])
    return replace(
        clip,
        padded=min(padded, want.seconds),
        damage=shortfall(file.path, lost),
        stats=DecodeStats(**file.count, fallback=file.fallback),
    )
