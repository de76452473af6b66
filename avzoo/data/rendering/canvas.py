"""What the pictures of the synthetic clips are drawn with: colours, outlines and a canvas that lights its subject.

Coordinates run from -1 to 1, x to the right and y down. Outlines are arrays [points, 2].
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Rng = np.random.Generator
Outline = npt.NDArray[np.float64]
Points = npt.ArrayLike  # [points, 2]
Colour = tuple[int, int, int]

_OVERSAMPLING = 3


def hue(rng: Rng, around: float, spread: float, saturation: float, value: float) -> Colour:
    """A colour near a hue (0 red, 1/3 green, 2/3 blue), a little lighter or darker each time."""
    red, green, blue = colorsys.hsv_to_rgb(
        (around + rng.uniform(-spread, spread)) % 1, saturation, min(1.0, value * rng.uniform(0.85, 1.15))
    )
    return round(255 * red), round(255 * green), round(255 * blue)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """`share` of the second colour in the first."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def oval(x: float, y: float, width: float, height: float) -> Outline:
    """An ellipse by centre and half axes."""
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return np.stack([x + width * np.cos(angle), y + height * np.sin(angle)], axis=1)


def box(left: float, top: float, right: float, bottom: float) -> Outline:
    """A rectangle by its edges."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], dtype=float)


def moved(points: Points, x: float, y: float, scale: float = 1.0) -> Outline:
    """The points scaled about the origin, then moved."""
    return np.asarray(points, dtype=float) * scale + [x, y]


def spline(points: Points, *, closed: bool, steps: int = 10) -> Outline:
    """A smooth curve through the points (Catmull-Rom)."""
    p = np.asarray(points, dtype=float)
    p = np.concatenate([p[-1:], p, p[:2]]) if closed else np.concatenate([p[:1], p, p[-1:]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None, None]
    a, b, c, d = p[:-3], p[1:-2], p[2:-1], p[3:]
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * (b - c) + d - a) * t**3)
    outline: Outline = curve.transpose(1, 0, 2).reshape(-1, 2)
    return outline


def mirrored(half: Sequence[tuple[float, float]]) -> Outline:
    """A smooth closed outline from the points of its right half, top to bottom."""
    return spline([*half, *((-x, y) for x, y in reversed(half))], closed=True)


def tube(path: Points, widths: Sequence[float]) -> Outline:
    """The outline of a pipe along a smooth path, as wide as `widths` at its points."""
    centre = spline(path, closed=False)
    at = np.linspace(0, len(widths) - 1, len(centre))
    half = np.interp(at, np.arange(len(widths)), widths)[:, None] / 2
    along = np.gradient(centre, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.maximum(np.linalg.norm(along, axis=1), 1e-9)[:, None]
    return np.concatenate([centre + half * normal, (centre - half * normal)[::-1]])


class Canvas:
    """A transparent square to draw on, three times oversampled, turned by `turn` degrees."""

    def __init__(self, size: int, turn: float = 0.0) -> None:
        self.side = _OVERSAMPLING * size
        self.image = Image.new("RGBA", (self.side, self.side))
        self.draw = ImageDraw.Draw(self.image)
        angle = np.deg2rad(turn)
        self.rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])

    def _pixels(self, points: Points) -> list[tuple[float, float]]:
        return [(x, y) for x, y in ((np.asarray(points) @ self.rotation + 1) * (self.side / 2)).tolist()]

    def shape(self, points: Points, colour: Colour) -> None:
        """A filled polygon."""
        self.draw.polygon(self._pixels(points), fill=colour)

    def line(self, points: Points, width: float, colour: Colour) -> None:
        """A line `width` wide."""
        self.draw.line(self._pixels(points), fill=colour, width=max(1, round(width * self.side / 2)), joint="curve")

    def glaze(self, points: Points, colour: Colour, opacity: float) -> None:
        """A filled polygon that lets what is below shine through."""
        layer = Image.new("RGBA", self.image.size)
        ImageDraw.Draw(layer).polygon(self._pixels(points), fill=(*colour, round(255 * opacity)))
        self.image.alpha_composite(layer)

    def sprite(self, *, shadow: bool) -> Image.Image:
        """What was drawn, lit from the top left and if wanted with a soft shadow behind it."""
        small = self.image.reduce(_OVERSAMPLING)
        alpha = small.getchannel("A")
        soft = np.asarray(alpha.filter(ImageFilter.GaussianBlur(small.width / 40)), dtype=np.float32)
        down, right = np.gradient(soft)
        light = 1.0 + (down + right) * (small.width / 10_000) + np.linspace(0.12, -0.12, small.height)[:, None]
        rgb = np.clip(np.asarray(small.convert("RGB"), dtype=np.float32) * light[:, :, None], 0, 255)
        lit = Image.fromarray(rgb.astype(np.uint8)).convert("RGBA")
        lit.putalpha(alpha)
        if not shadow:
            return lit
        below = Image.new("RGBA", small.size)
        offset = round(small.width * 0.035)
        veil = alpha.filter(ImageFilter.GaussianBlur(small.width / 45)).point(lambda a: a * 0.5)
        below.paste((0, 0, 0, 255), (offset, offset), veil)
        below.alpha_composite(lit)
        return below
