"""Where the synthetic clips take place, and the slow camera that films them.

A place is a function `(rng, side) -> RGB image [side, side]`; `film` pans and zooms over it and lets a thing
drift before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from avzoo.data.rendering.canvas import Colour, Rng, hue, mix, spline
from avzoo.data.rendering.looks import Look

Values = npt.NDArray[np.float32]  # [height, width, 3] or [height, width]
Picture = npt.NDArray[np.uint8]  # [height, width, 3]

MARGIN = 1.35  # how much larger than the frame a place is, so that the camera has room to move


def _rgb(colour: Colour) -> Values:
    return np.array(colour, dtype=np.float32)


def gradient(side: int, top: Colour, bottom: Colour) -> Values:
    """A vertical blend [side, side, 3]."""
    share = np.linspace(0, 1, side, dtype=np.float32)[:, None, None]
    return np.broadcast_to(_rgb(top) * (1 - share) + _rgb(bottom) * share, (side, side, 3)).copy()


def fractal(rng: Rng, side: int, first: int = 3, octaves: int = 4) -> Values:
    """Cloudy values between 0 and 1 [side, side]: random grids, each twice as fine and half as strong."""
    total = np.zeros((side, side), dtype=np.float32)
    for octave in range(octaves):
        cells = first * 2**octave
        grid = Image.fromarray(rng.random((cells, cells), dtype=np.float32))
        total += np.asarray(grid.resize((side, side), Image.Resampling.BICUBIC)) / 2**octave
    cloudy: Values = (total - total.min()) / np.ptp(total)
    return cloudy


def picture(values: Values) -> Image.Image:
    """Floating point 0 to 255 as an RGB image."""
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def ridge(rng: Rng, side: int, height: float, roughness: float) -> list[tuple[float, float]]:
    """A hilly skyline as a polygon in pixels; `height` is the share of the picture below it."""
    knots = (1 - height + roughness * rng.uniform(-1, 1, 8)) * side
    line = spline(np.stack([np.linspace(-0.1, 1.1, 8) * side, knots], axis=1), closed=False)
    return [(-side, 2 * side), *map(tuple, line.tolist()), (2 * side, 2 * side)]


_SKIES: tuple[tuple[Colour, Colour], ...] = (
    ((62, 120, 195), (190, 218, 240)),
    ((95, 150, 205), (225, 230, 228)),
    ((70, 75, 120), (250, 175, 120)),
    ((150, 162, 178), (208, 212, 214)),
    ((28, 40, 80), (120, 120, 160)),
)


def sky(rng: Rng, side: int) -> Image.Image:
    """Open air: a sky with clouds, most often over hills."""
    top, bottom = _SKIES[rng.integers(len(_SKIES))]
    clouds = np.clip((fractal(rng, side) - rng.uniform(0.4, 0.65)) * 3, 0, 1)[:, :, None] * rng.uniform(0.4, 0.9)
    image = picture(gradient(side, top, bottom) * (1 - clouds) + _rgb(mix(bottom, (255, 255, 255), 0.6)) * clouds)
    if rng.random() < 0.7:
        draw, land = ImageDraw.Draw(image), hue(rng, 0.28, 0.08, 0.4, 0.42)
        draw.polygon(ridge(rng, side, 0.26, 0.06), fill=mix(land, bottom, 0.6))
        draw.polygon(ridge(rng, side, 0.19, 0.04), fill=mix(land, bottom, 0.25))
        draw.polygon(ridge(rng, side, 0.12, 0.03), fill=land)
    return image


def street(rng: Rng, side: int) -> Image.Image:
    """A road before a row of houses with windows, some of them lit."""
    top, bottom = _SKIES[rng.integers(len(_SKIES))]
    image = picture(gradient(side, top, bottom))
    draw, x, night = ImageDraw.Draw(image), 0.0, top[2] < 130
    while x < side:
        width, roof = side * rng.uniform(0.12, 0.24), side * rng.uniform(0.2, 0.5)
        wall = mix(hue(rng, 0.06, 0.06, 0.3, 0.6), (20, 24, 50) if night else bottom, 0.45)
        draw.rectangle((x, roof, x + width, side), fill=wall)
        step = side / 26
        for row in np.arange(roof + step, side * 0.58, 1.7 * step):
            for column in np.arange(x + 0.5 * step, x + width - step, 1.5 * step):
                lit = rng.random() < (0.5 if night else 0.12)
                draw.rectangle(
                    (column, row, column + 0.8 * step, row + step),
                    fill=(255, 225, 150) if lit else mix(wall, (30, 40, 60), 0.5),
                )
        x += width
    draw.rectangle((0, side * 0.6, side, side), fill=mix((150, 148, 145), top, 0.3))
    draw.rectangle((0, side * 0.64, side, side), fill=(72, 74, 80))
    for x in np.arange(0, side, side / 7):
        draw.rectangle((x, side * 0.84, x + side / 14, side * 0.855), fill=(225, 222, 205))
    return image


def room(rng: Rng, side: int) -> Image.Image:
    """Indoors: a curtain and boards under a spotlight, a plain wall, or blurred lights in the dark."""
    kind = rng.integers(3)
    tone = hue(rng, rng.random(), 0.0, rng.uniform(0.2, 0.7), rng.uniform(0.35, 0.75))
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j].astype(np.float32)
    pool = np.exp(-((x - rng.uniform(-0.3, 0.3)) ** 2 + (y + 0.1) ** 2) / 0.7)[:, :, None]
    if kind == 2:
        image = picture(gradient(side, mix(tone, (0, 0, 0), 0.8), mix(tone, (0, 0, 0), 0.6)))
        canvas = ImageDraw.Draw(image, "RGBA")
        for _ in range(18):
            cx, cy, r = rng.random() * side, rng.random() * side, rng.uniform(0.03, 0.1) * side
            canvas.ellipse(
                (cx - r, cy - r, cx + r, cy + r),
                fill=(*hue(rng, rng.choice([0.08, 0.12, 0.55, 0.9]), 0.04, 0.6, 0.9), 90),
            )
        return image.filter(ImageFilter.GaussianBlur(side / 90))
    wall = _rgb(tone) * (0.45 + 0.75 * pool)
    if kind == 0:
        wall = wall * (0.8 + 0.25 * np.sin(x * rng.uniform(25, 40) + 2 * np.sin(3 * x)))[:, :, None]
    boards = _rgb(hue(rng, 0.07, 0.02, 0.5, 0.5)) * (0.5 + 0.6 * pool)
    boards = boards * (1 - 0.25 * (np.abs((x / (0.4 + np.abs(y)) * 7) % 1) < 0.06))[:, :, None]
    return picture(np.where((y > rng.uniform(0.45, 0.65))[:, :, None], boards, wall))


Place = Callable[[Rng, int], Image.Image]
PLACES: tuple[Place, ...] = (sky, street, room)


def camera(image: Image.Image, rng: Rng, size: int, frames: int) -> Iterator[Image.Image]:
    """A slow pan and zoom over an image about 1.35 times the frame: RGB frames [size, size]."""
    zoom = image.width / (MARGIN * size) * rng.uniform(0.95, 1.3, 2)
    room_left = image.width / 2 - zoom.max() * size / 2
    way = image.width / 2 + room_left * rng.uniform(-1, 1, (2, 2))
    for share in np.linspace(0, 1, frames):
        scale = zoom[0] + (zoom[1] - zoom[0]) * share
        x, y = way[0] + (way[1] - way[0]) * share - scale * size / 2
        yield image.transform(
            (size, size), Image.Transform.AFFINE, (scale, 0, x, 0, scale, y), Image.Resampling.BILINEAR
        )


def film(look: Look | None, place: Place, rng: Rng, *, size: int, frames: int, fps: float) -> Iterator[Picture]:
    """One shot: the thing (or nothing) drifting before a place, as uint8 frames [size, size, 3]."""
    backdrop = place(rng, round(2 * MARGIN * size)).reduce(2)
    shots = camera(backdrop, rng, size, frames)
    if look is None:
        yield from (np.asarray(frame) for frame in shots)
        return
    sprite = look(rng, round(1.25 * size)).sprite(shadow=place is room)
    if rng.random() < 0.5:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    start, drift = rng.uniform(-0.08, 0.08, 2), rng.uniform(-0.12, 0.12, 2)
    scale, growth = rng.uniform(0.68, 0.98), rng.uniform(-0.1, 0.12)
    sway, speed, phase = rng.uniform(0, 0.07), rng.uniform(0.15, 0.5), rng.uniform(0, 2 * np.pi)
    for index, frame in enumerate(shots):
        share, swing = index / frames - 0.5, np.sin(2 * np.pi * speed * index / fps + phase)
        x, y = (0.5 + start + drift * share + [0, 0.02 * swing]) * size
        zoom = sprite.width / (size * scale * (1 + growth * share))  # sprite pixels a frame pixel
        c, s = zoom * np.cos(sway * swing), zoom * np.sin(sway * swing)
        half = sprite.width / 2
        place_at = (c, s, half - c * x - s * y, -s, c, half + s * x - c * y)
        layer = sprite.transform((size, size), Image.Transform.AFFINE, place_at, Image.Resampling.BILINEAR)
        frame.paste(layer, (0, 0), layer)
        yield np.asarray(frame)
