"""Sound files that soundfile reads: WAV, FLAC and OGG."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import soundfile
import torch
from torch.nn.functional import pad

from avzoo.clip.files import riff_excess
from avzoo.clip.window import Clip, Window, shortfall
from avzoo.errors import MediaError


@contextmanager
def open_sound(path: Path) -> Iterator[soundfile.SoundFile]:
    """Open a sound file.

    Raises:
        MediaError: It cannot be read.
    """
    try:
        with soundfile.SoundFile(path) as file:
            yield file
    except soundfile.LibsndfileError as error:
        raise MediaError(
            f"{path}: cannot be read as sound ({error.error_string}); it is damaged or not a sound file"
        ) from error


def read_sound_file(path: Path, want: Window) -> Clip:
    """A window of a WAV, FLAC or OGG file."""
    with open_sound(path) as file:
        rate = file.samplerate
        begin, length = round(want.start * rate), round(want.seconds * rate)
        if not file.frames:
            raise MediaError(f"{path}: cannot be read as sound: it holds no samples; it is damaged or was cut short")
        want.check(path, video=False, audio=True, duration=file.frames / rate)
        file.seek(begin)
        sound = torch.from_numpy(file.read(length if want.audio else 0, dtype="float32", always_2d=True).T.copy())
        declared = round(file.frames * riff_excess(path))
    if not want.audio:
        return want.clip(path.stem)
    missing = length - sound.shape[1]
    lost = min(missing, declared - begin - sound.shape[1]) / rate
    return replace(
        want.clip(path.stem),
        waveform=pad(sound, (0, missing)),
        sample_rate=rate,
        padded=missing / rate,
        damage=shortfall(path, {"sound": lost}),
    )
