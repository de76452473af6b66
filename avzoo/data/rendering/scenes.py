"""The ten scenes of TAU Urban Audio-Visual Scenes by name, and how one is recorded to a WAV and a silent mp4.

The names are the dataset's, in its official (alphabetical) order.
"""

from __future__ import annotations

import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from avzoo.data.rendering import scene_looks, scene_sounds
from avzoo.data.rendering.canvas import Canvas, Rng, hue
from avzoo.data.rendering.mp4 import encode
from avzoo.data.rendering.places import MARGIN, camera, picture
from avzoo.data.rendering.sounds import Sound, background
from avzoo.files import whole


class Scene(NamedTuple):
    """How a scene looks and sounds."""

    paint: scene_looks.Paint
    sound: Sound


SCENES: dict[str, Scene] = {
    "airport": Scene(scene_looks.airport, scene_sounds.airport),
    "bus": Scene(scene_looks.bus, scene_sounds.bus),
    "metro": Scene(scene_looks.metro, scene_sounds.metro),
    "metro_station": Scene(scene_looks.metro_station, scene_sounds.metro_station),
    "park": Scene(scene_looks.park, scene_sounds.park),
    "public_square": Scene(scene_looks.public_square, scene_sounds.public_square),
    "shopping_mall": Scene(scene_looks.shopping_mall, scene_sounds.shopping_mall),
    "street_pedestrian": Scene(scene_looks.street_pedestrian, scene_sounds.street_pedestrian),
    "street_traffic": Scene(scene_looks.street_traffic, scene_sounds.street_traffic),
    "tram": Scene(scene_looks.tram, scene_sounds.tram),
}


def backdrop(paint: scene_looks.Paint, side: int, place: Rng, moment: Rng) -> Image.Image:
    """A scene as an RGB picture [side, side]: `place` chooses the colours, `moment` who and what is there."""
    canvas = Canvas(side)
    paint(canvas, moment, hue(place, place.random(), 0.0, place.uniform(0.15, 0.5), place.uniform(0.55, 0.85)))
    flat = np.asarray(canvas.image.reduce(3).convert("RGB"), dtype=np.float32)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j].astype(np.float32)
    light = (1.08 - 0.18 * (x**2 + y**2) + 0.1 * (x * place.uniform(-1, 1) - y))[:, :, None]
    return picture(flat * light * (1 + place.uniform(-0.08, 0.08, 3)).astype(np.float32) * moment.uniform(0.85, 1.1))


@dataclass(frozen=True)
class Take:
    """One recording of a scene.

    Attributes:
        scene: A name of `SCENES`.
        city: Lower case.
        location: Number of the place; takes of one location share their colours and their light.
        segment: Number of the take.
        degradation: `none`, `sound` (nothing but hum and hiss was recorded) or `picture` (dark and out of focus).
        seed: Decides the rest.
    """

    scene: str
    city: str
    location: int
    segment: int
    degradation: str
    seed: int

    @property
    def identifier(self) -> str:
        """The location's name, `scene-city-location`."""
        return f"{self.scene}-{self.city}-{self.location}"

    @property
    def id(self) -> str:
        """The file stem, `scene-city-location-segment`."""
        return f"{self.identifier}-{self.segment}"


def film(take: Take, path: Path, *, seconds: int, size: int, fps: int, sample_rate: int) -> Path:
    """Write a take as one mp4 with its sound, stereo."""
    rng = np.random.default_rng([take.seed, 4])
    stereo = _stereo(take, rng, seconds * sample_rate, sample_rate).astype(np.float32)
    return encode(path, _frames(take, rng, size, seconds * fps), size=size, fps=fps, sound=(stereo, sample_rate))


def record(take: Take, folder: Path, *, seconds: int, size: int, fps: int, sample_rate: int) -> Path:
    """Write `audio/<id>.wav` (stereo, 16 bit) and the silent `video/<id>.mp4` of a take; returns the latter."""
    rng = np.random.default_rng([take.seed, 4])
    stereo = _stereo(take, rng, seconds * sample_rate, sample_rate).T
    with whole(folder / "audio" / f"{take.id}.wav") as temporary, wave.open(str(temporary), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes((32767 * stereo).astype("<i2").tobytes())
    frames = _frames(take, rng, size, seconds * fps)
    return encode(folder / "video" / f"{take.id}.mp4", frames, size=size, fps=fps, sound=None)


def _stereo(take: Take, rng: Rng, samples: int, sample_rate: int) -> npt.NDArray[np.float64]:
    """What is heard, `[2, samples]`."""
    sound = background if take.degradation == "sound" else SCENES[take.scene].sound
    centre = sound(rng, samples, sample_rate)
    sides = [0.3 * background(rng, samples, sample_rate) for _ in range(2)]
    level = 10 ** (rng.uniform(-30, -18) / 20)
    stereo: npt.NDArray[np.float64] = np.tanh(level * (centre + np.stack(sides)))
    return stereo


def _frames(take: Take, rng: Rng, size: int, frames: int) -> Iterator[npt.NDArray[np.uint8]]:
    """What is seen, `[size, size, 3]` each."""
    view = backdrop(SCENES[take.scene].paint, round(MARGIN * size), np.random.default_rng([take.location, 5]), rng)
    if take.degradation == "picture":
        view = view.filter(ImageFilter.GaussianBlur(size / 12)).point([round(0.25 * v) for v in range(256)] * 3)
    return (np.asarray(frame) for frame in camera(view, rng, size, frames))
