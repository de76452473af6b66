"""What a media file says about itself: `probe`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from avzoo.clip.container import PHOTO_CODECS, open_container, tick_of
from avzoo.clip.files import existing, is_sound_file
from avzoo.clip.sound_files import open_sound
from avzoo.clip.window import Clip


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
        return _of_clip(path)
    path = existing(path)
    return _of_sound_file(path) if is_sound_file(path) else _of_container(path)


def _of_clip(clip: Clip) -> MediaInfo:
    return MediaInfo(
        clip.seconds,
        width=clip.frames.shape[3],
        height=clip.frames.shape[2],
        fps=len(clip.frames) / clip.seconds if clip.seconds else 0.0,
        video_codec="rawvideo" if len(clip.frames) else "",
        audio_codec="pcm" if clip.sample_rate else "",
        sample_rate=clip.sample_rate,
        channels=clip.waveform.shape[0],
    )


def _of_sound_file(path: Path) -> MediaInfo:
    with open_sound(path) as file:
        return MediaInfo(
            file.frames / file.samplerate,
            audio_codec=file.subtype.lower(),
            sample_rate=file.samplerate,
            channels=file.channels,
        )


def _of_container(path: Path) -> MediaInfo:
    with open_container(path) as file:
        info = MediaInfo(file.duration)
        if file.audio:
            codec = file.audio.codec_context
            info = replace(
                info, audio_codec=codec.name, sample_rate=codec.sample_rate, channels=codec.layout.nb_channels
            )
        if picture := file.video:
            frame = next((f for p in file.packets() if p.stream is picture for f in file.pictures(p)), None)
            turn = frame.rotation % 360 if frame else 0
            sides = (picture.height, picture.width) if turn in (90, 270) else (picture.width, picture.height)
            info = replace(
                info,
                width=sides[0],
                height=sides[1],
                fps=float(picture.average_rate or 0),
                rotation=turn,
                video_codec=picture.codec_context.name,
            )
        if info.duration or info.is_photo:
            return info
        # a browser's recording declares no length: it is where the packets end
        ends = ((p.pts + (p.duration or 0)) * tick_of(p.stream) for p in file.packets() if p.pts is not None)
        return replace(info, duration=max(ends, default=file.zero) - file.zero)
