"""How the ten scenes of TAU Urban Audio-Visual Scenes look, drawn.

A paint is a function `(canvas, rng, tint)` that fills the canvas; `tint` is the colour of the location, `rng`
decides who and what is there at the moment.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from avzoo.data.rendering.canvas import Canvas, Colour, Rng, box, hue, mirrored, mix, moved, oval, spline, tube

Paint = Callable[[Canvas, Rng, Colour], None]

_GLASS: Colour = (175, 212, 236)
_STEEL: Colour = (150, 155, 162)
_ASPHALT: Colour = (78, 80, 86)


def _person(c: Canvas, rng: Rng, x: float, feet: float, height: float) -> None:
    coat = hue(rng, rng.random(), 0.0, 0.5, 0.5)
    w, skin = height * 0.16, mix((235, 190, 160), (90, 55, 40), rng.random())
    c.shape(
        [
            (x - w * 0.7, feet),
            (x - w * 0.6, feet - height * 0.5),
            (x + w * 0.6, feet - height * 0.5),
            (x + w * 0.7, feet),
            (x, feet - height * 0.4),
        ],
        (45, 45, 60),
    )
    coat_outline = mirrored([(0.08, -0.42), (0.16, -0.3), (0.128, 0.05), (0.08, 0.07)])
    c.shape(moved(coat_outline, x, feet - 0.42 * height, height), coat)
    c.shape(oval(x, feet - height * 0.92, height * 0.07, height * 0.085), skin)


def _crowd(c: Canvas, rng: Rng, count: int, feet: tuple[float, float] = (0.35, 0.9)) -> None:
    for y in np.sort(rng.uniform(*feet, count)):
        _person(c, rng, rng.uniform(-0.9, 0.9), y, 0.25 + 0.45 * (y - 0.2))


def _houses(c: Canvas, rng: Rng, wall: Colour, foot: float) -> None:
    x = -1.0
    while x < 1:
        width, roof, shade = (
            rng.uniform(0.3, 0.5),
            rng.uniform(-0.75, -0.35),
            mix(wall, hue(rng, 0.08, 0.05, 0.3, 0.7), 0.5),
        )
        c.shape(box(x, roof, x + width, foot), shade)
        c.shape(
            [(x - 0.02, roof), (x + width / 2, roof - 0.14), (x + width + 0.02, roof)], mix(shade, (120, 50, 35), 0.6)
        )
        for row in np.arange(roof + 0.08, foot - 0.15, 0.19):
            for column in np.arange(x + 0.06, x + width - 0.08, 0.13):
                c.shape(box(column, row, column + 0.07, row + 0.11), mix(_GLASS, (40, 60, 90), rng.random()))
        x += width


def _car(c: Canvas, rng: Rng, x: float, y: float, scale: float) -> None:
    paint = hue(rng, rng.random(), 0.0, rng.uniform(0.1, 0.9), 0.75)
    points = [
        (-0.5, 0.1),
        (-0.48, -0.05),
        (-0.3, -0.08),
        (-0.17, -0.25),
        (0.2, -0.25),
        (0.36, -0.07),
        (0.5, -0.02),
        (0.5, 0.1),
    ]
    c.shape(moved(points, x, y, scale), paint)
    c.shape(moved([(-0.24, -0.08), (-0.14, -0.2), (0.18, -0.2), (0.28, -0.08)], x, y, scale), (60, 85, 105))
    for wheel in (-0.28, 0.28):
        c.shape(oval(x + wheel * scale, y + 0.1 * scale, 0.1 * scale, 0.1 * scale), (25, 25, 28))
        c.shape(oval(x + wheel * scale, y + 0.1 * scale, 0.05 * scale, 0.05 * scale), _STEEL)


def _carriage(c: Canvas, rng: Rng, seat: Colour, outside: Colour) -> None:
    """The inside of a vehicle: windows on both sides of a gangway, seats, poles."""
    c.shape(box(-1, -1, 1, 1), (205, 206, 204))
    c.shape([(-1, 1), (-0.25, 0.15), (0.25, 0.15), (1, 1)], (105, 104, 108))
    c.shape([(-1, -1), (-0.25, -0.35), (0.25, -0.35), (1, -1)], (228, 229, 228))
    c.shape(box(-0.25, -0.35, 0.25, 0.15), mix(outside, (60, 60, 70), 0.4))
    for side in (-1, 1):
        for near, far in ((1.0, 0.66), (0.6, 0.42), (0.38, 0.29)):
            c.shape(
                [
                    (side * near, -0.66 * near),
                    (side * far, -0.66 * far),
                    (side * far, 0.05 * far),
                    (side * near, 0.05 * near),
                ],
                outside,
            )
        for x, y in ((0.33, 0.28), (0.5, 0.5), (0.8, 0.85)):
            c.shape(
                box(min(side * x, side * 1.6 * x), y - 0.62 * x, max(side * x, side * 1.6 * x), y),
                mix(seat, (0, 0, 0), 0.15 + 0.3 * rng.random()),
            )
        c.line([(side * 0.3, -0.45), (side * 0.3, 0.3)], 0.025, (240, 205, 60))
        c.line([(side * 0.5, -0.75), (side * 0.5, 0.7)], 0.035, (240, 205, 60))


def airport(c: Canvas, rng: Rng, tint: Colour) -> None:
    """A hall with an aeroplane behind the glass."""
    c.shape(box(-1, -1, 1, 1), mix(tint, (235, 238, 240), 0.75))
    c.shape(box(-1, -0.75, 1, 0.25), _GLASS)
    c.shape(box(-1, 0.05, 1, 0.25), (150, 158, 150))
    c.shape(
        spline([(-0.75, -0.02), (-0.6, -0.14), (0.5, -0.14), (0.72, -0.06), (0.6, 0.04), (-0.6, 0.06)], closed=True),
        (250, 250, 250),
    )
    c.shape([(-0.72, -0.1), (-0.86, -0.42), (-0.7, -0.42), (-0.5, -0.12)], tint)
    c.shape([(-0.1, -0.02), (-0.35, 0.17), (-0.22, 0.17), (0.15, -0.02)], mix(tint, _STEEL, 0.6))
    for x in np.linspace(-1, 1, 6):
        c.line([(x, -0.75), (x, 0.25)], 0.03, _STEEL)
    c.shape(box(-1, 0.3, 1, 1), mix((198, 196, 190), tint, 0.15))
    c.shape(box(-0.35, -0.97, 0.35, -0.8), (25, 35, 70))
    c.shape(box(-0.3, -0.92, 0.2, -0.89), (255, 210, 60))
    _crowd(c, rng, int(rng.integers(3, 7)))


def bus(c: Canvas, rng: Rng, tint: Colour) -> None:
    """Seats and poles, the driver's window ahead, a lit route sign."""
    _carriage(c, rng, mix(tint, (40, 60, 160), 0.5), mix(_GLASS, (120, 160, 110), 0.3 * rng.random()))
    c.shape(box(-0.2, -0.28, 0.2, 0.0), _GLASS)
    c.shape(box(-0.16, -0.42, 0.16, -0.32), (20, 20, 20))
    c.shape(box(-0.12, -0.39, 0.1, -0.35), (255, 150, 30))
    c.shape(oval(-0.1, 0.06, 0.07, 0.05), (25, 25, 28))


def metro(c: Canvas, rng: Rng, tint: Colour) -> None:
    """A carriage with strip lights in a dark tunnel."""
    _carriage(c, rng, mix(tint, (180, 40, 50), 0.4), (22, 22, 30))
    c.shape(box(-0.12, -0.28, 0.12, 0.15), (90, 95, 105))
    c.shape(box(-0.07, -0.22, 0.07, -0.02), (22, 22, 30))
    for x in (-0.5, 0.5):
        c.line([(x, -0.98), (x * 0.3, -0.4)], 0.05, (255, 255, 240))


def metro_station(c: Canvas, rng: Rng, tint: Colour) -> None:
    """A train at a tiled platform with a yellow line."""
    c.shape(box(-1, -1, 1, 1), mix(tint, (230, 228, 220), 0.6))
    for y in np.arange(-0.9, 0.3, 0.12):
        c.line([(-1, y), (1, y)], 0.008, mix(tint, (140, 140, 140), 0.5))
    c.shape(oval(-0.55, 0.1, 0.42, 0.62), (18, 18, 22))
    c.shape(moved(mirrored([(0.3, -0.42), (0.33, 0.2), (0.3, 0.55)]), -0.55, 0), mix(tint, (190, 30, 40), 0.5))
    c.shape(box(-0.77, -0.25, -0.33, 0.1), (50, 70, 85))
    for x in (-0.72, -0.38):
        c.shape(oval(x, 0.32, 0.05, 0.05), (255, 250, 200))
    c.shape([(-1, 1), (-1, 0.6), (-0.05, 0.45), (0.15, 1)], (45, 44, 46))
    c.shape([(0.15, 1), (-0.05, 0.45), (1, 0.4), (1, 1)], (170, 168, 164))
    c.line([(0.15, 1), (-0.04, 0.46)], 0.05, (245, 205, 50))
    c.shape(box(0.2, -0.55, 0.85, -0.35), (30, 60, 150))
    c.line([(0.28, -0.45), (0.75, -0.45)], 0.03, (250, 250, 250))
    for _ in range(int(rng.integers(1, 4))):
        _person(c, rng, rng.uniform(0.25, 0.9), rng.uniform(0.6, 0.9), 0.5)


def park(c: Canvas, rng: Rng, tint: Colour) -> None:
    """Trees on a lawn, a winding path."""
    c.shape(box(-1, -1, 1, 0.2), (168, 208, 238))
    c.shape(box(-1, 0.1, 1, 1), (104, 160, 72))
    c.shape(
        tube([(-0.3, 1.1), (0.1, 0.6), (-0.1, 0.3), (0.05, 0.1)], [0.6, 0.3, 0.16, 0.05]),
        mix((214, 196, 156), tint, 0.15),
    )
    for y in np.sort(rng.uniform(0.12, 0.6, 6)):
        x, s = rng.choice([-1, 1]) * rng.uniform(0.35, 0.95), 0.4 + y
        leaf = hue(rng, 0.29, 0.07, 0.6, 0.5)
        c.shape(box(x - 0.05 * s, y - 0.4 * s, x + 0.05 * s, y), (98, 68, 44))
        for dx, dy, r in ((-0.2, -0.5, 0.25), (0.2, -0.5, 0.25), (0, -0.72, 0.3), (0, -0.5, 0.25)):
            c.shape(oval(x + dx * s, y + dy * s, r * s, r * s), mix(leaf, (225, 245, 160), 0.25 * rng.random()))
    if rng.random() < 0.5:
        _person(c, rng, rng.uniform(-0.2, 0.2), 0.75, 0.45)


def public_square(c: Canvas, rng: Rng, tint: Colour) -> None:
    """House fronts around a fountain."""
    c.shape(box(-1, -1, 1, 1), (178, 208, 235))
    _houses(c, rng, tint, 0.1)
    c.shape(box(-1, 0.1, 1, 1), mix((190, 180, 165), tint, 0.15))
    for y in 0.1 + 0.9 * np.linspace(0, 1, 6) ** 2:
        c.line([(-1, y), (1, y)], 0.01, (160, 150, 138))
    c.shape(oval(0, 0.38, 0.5, 0.13), (150, 146, 140))
    c.shape(oval(0, 0.35, 0.42, 0.09), (110, 175, 215))
    c.shape(box(-0.05, -0.05, 0.05, 0.36), (160, 156, 150))
    for x in (-0.25, -0.12, 0.12, 0.25):
        c.line(spline([(0, -0.05), (x * 0.5, -0.2), (x, 0.32)], closed=False), 0.025, (225, 242, 252))
    _crowd(c, rng, int(rng.integers(2, 6)), (0.5, 0.9))


def shopping_mall(c: Canvas, rng: Rng, tint: Colour) -> None:
    """Coloured shop fronts under a glass roof."""
    c.shape(box(-1, -1, 1, 1), mix(tint, (250, 244, 232), 0.7))
    c.shape([(-1, 1), (-0.2, 0.1), (0.2, 0.1), (1, 1)], (226, 218, 204))
    c.shape([(-0.5, -1), (-0.15, -0.3), (0.15, -0.3), (0.5, -1)], (222, 238, 248))
    for side in (-1, 1):
        for near, far in ((1.0, 0.62), (0.58, 0.38), (0.36, 0.24)):
            shop = hue(rng, rng.random(), 0.0, 0.6, 0.8)
            for top, bottom, colour in (
                (-0.45, 0.75, mix(shop, (255, 250, 225), 0.6)),
                (-0.45, -0.25, shop),
                (-0.95, -0.55, mix(shop, _GLASS, 0.6)),
            ):
                c.shape(
                    [
                        (side * near, top * near),
                        (side * far, top * far),
                        (side * far, bottom * far),
                        (side * near, bottom * near),
                    ],
                    colour,
                )
    for x in (-0.35, 0.35):
        c.shape(oval(x, -0.6, 0.05, 0.05), (255, 246, 190))
    _crowd(c, rng, int(rng.integers(3, 7)))


def street_pedestrian(c: Canvas, rng: Rng, tint: Colour) -> None:
    """A lane of shops full of people."""
    c.shape(box(-1, -1, 1, 1), (190, 212, 230))
    c.shape([(-1, 1), (-0.12, 0.1), (0.12, 0.1), (1, 1)], mix((182, 172, 162), tint, 0.15))
    for side in (-1, 1):
        for near, far in ((1.0, 0.55), (0.55, 0.3), (0.3, 0.12)):
            wall = mix(tint, hue(rng, 0.08, 0.06, 0.35, 0.75), 0.6)
            c.shape(
                [(side * near, -1.1 * near), (side * far, -1.1 * far), (side * far, far), (side * near, near)], wall
            )
            c.shape(
                [
                    (side * near, 0.2 * near),
                    (side * far, 0.2 * far),
                    (side * far, 0.38 * far),
                    (side * near, 0.38 * near),
                ],
                hue(rng, rng.random(), 0.0, 0.6, 0.8),
            )
            for low, high in ((-0.85, -0.55), (-0.35, -0.05)):
                a, b = near * 0.85 + far * 0.15, near * 0.3 + far * 0.7
                c.shape(
                    [(side * a, low * a), (side * b, low * b), (side * b, high * b), (side * a, high * a)],
                    mix(_GLASS, (40, 60, 80), rng.random()),
                )
    _crowd(c, rng, int(rng.integers(6, 10)))


def street_traffic(c: Canvas, rng: Rng, tint: Colour) -> None:
    """Cars on two lanes before a row of houses."""
    c.shape(box(-1, -1, 1, 1), (176, 200, 222))
    _houses(c, rng, tint, 0.0)
    c.shape(box(-1, 0.0, 1, 0.14), (168, 166, 162))
    c.shape(box(-1, 0.12, 1, 1), _ASPHALT)
    for x in np.linspace(-0.95, 0.85, 6):
        c.shape(box(x, 0.5, x + 0.16, 0.53), (236, 234, 220))
    for x, y, scale in ((-0.55, 0.28, 0.6), (0.45, 0.3, 0.6), (-0.2, 0.75, 0.95), (0.85, 0.78, 0.95)):
        if rng.random() < 0.8:
            _car(c, rng, x + rng.uniform(-0.1, 0.1), y, scale)


def tram(c: Canvas, rng: Rng, tint: Colour) -> None:
    """A carriage with hanging straps, the rails ahead."""
    _carriage(c, rng, mix(tint, (50, 130, 70), 0.5), mix(_GLASS, (190, 170, 150), 0.4))
    c.shape(box(-0.2, -0.3, 0.2, 0.1), _GLASS)
    c.shape([(-0.2, 0.1), (-0.03, -0.08), (0.03, -0.08), (0.2, 0.1)], (150, 140, 130))
    for side in (-1, 1):
        c.line([(side * 0.12, 0.1), (side * 0.015, -0.08)], 0.02, (70, 70, 75))
        for near in (0.45, 0.65, 0.9):
            c.line([(side * near * 0.72, -0.8 * near), (side * near * 0.72, -0.55 * near)], 0.02, (240, 205, 60))
            c.shape(oval(side * near * 0.72, -0.5 * near, 0.05 * near, 0.07 * near), (60, 60, 60))
    c.line([(0, -0.3), (0, -0.13)], 0.01, (40, 40, 40))
