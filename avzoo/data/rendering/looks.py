"""The things that the synthetic clips show: a look is a function `(rng, size) -> Canvas` that draws one of them.

Colours and proportions come from `rng`; `size` is the edge of the finished sprite in pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from avzoo.data.rendering.canvas import Canvas, Colour, Outline, Rng, box, hue, mirrored, mix, moved, oval, spline, tube

Look = Callable[[Rng, int], Canvas]


def drone(rng: Rng, size: int) -> Canvas:
    """A quadcopter seen slightly from below: four arms with blurred rotors, a camera, skids."""
    c = Canvas(size, rng.uniform(-10, 10))
    shell = [hue(rng, 0.6, 0.1, 0.15, 0.25), hue(rng, 0.6, 0.1, 0.05, 0.9), hue(rng, 0.02, 0.05, 0.8, 0.7)][
        rng.integers(3)
    ]
    dark = mix(shell, (15, 15, 20), 0.6)
    spread, lift = rng.uniform(0.6, 0.72), rng.uniform(0.14, 0.24)
    motors = [(-spread * 0.72, -lift), (spread * 0.72, -lift), (-spread, lift * 0.6), (spread, lift * 0.6)]
    for x, y in motors:
        c.shape(tube([(0, 0), (x / 2, y / 2 - 0.02), (x, y)], [0.13, 0.08, 0.07]), mix(shell, dark, 0.4))
    for side in (-1, 1):
        c.line([(0.1 * side, 0.1), (0.26 * side, 0.38)], 0.035, dark)
        c.line([(0.16 * side, 0.39), (0.4 * side, 0.37)], 0.04, dark)
    c.shape(mirrored([(0.12, -0.16), (0.3, -0.06), (0.28, 0.09), (0.1, 0.17)]), shell)
    c.shape(mirrored([(0.08, -0.11), (0.17, -0.05), (0.08, 0.01)]), mix(shell, (255, 255, 255), 0.25))
    c.shape(oval(0, 0.2, 0.1, 0.1), dark)
    c.shape(oval(0, 0.21, 0.055, 0.055), (70, 110, 150))
    c.shape(oval(-0.02, 0.19, 0.018, 0.018), (235, 245, 255))
    for i, (x, y) in enumerate(motors):
        c.shape(box(x - 0.05, y - 0.1, x + 0.05, y + 0.05), dark)
        c.shape(oval(x, y + 0.07, 0.025, 0.025), [(255, 60, 50), (70, 255, 90)][i % 2])
        c.glaze(oval(x, y - 0.11, 0.29, 0.06), (60, 60, 65), 0.4)
        c.line([(x - 0.28, y - 0.1), (x + 0.28, y - 0.12)], 0.018, (45, 45, 50))
    return c


def helicopter(rng: Rng, size: int) -> Canvas:
    """A fuselage with a glazed nose, tail boom and fin, skids and two blurred rotors."""
    c = Canvas(size, rng.uniform(-12, 8))
    paint = hue(rng, rng.choice([0.0, 0.08, 0.3, 0.6]), 0.04, rng.uniform(0.3, 0.9), 0.7)
    stripe = mix(paint, (255, 255, 255), 0.75)
    dark = (35, 36, 42)
    c.shape([(0.1, -0.17), (0.9, -0.16), (0.92, -0.08), (0.12, 0.08)], paint)
    c.shape([(0.78, -0.14), (0.88, -0.42), (0.98, -0.42), (0.94, -0.08)], paint)
    c.shape([(0.7, -0.11), (0.86, -0.11), (0.84, -0.06), (0.7, -0.06)], dark)
    c.glaze(oval(0.9, -0.24, 0.035, 0.18), (60, 60, 65), 0.55)
    c.shape([(-0.18, -0.2), (0.16, -0.2), (0.1, -0.36), (-0.1, -0.36)], mix(paint, dark, 0.4))
    body = [
        (-0.72, 0.05),
        (-0.6, -0.12),
        (-0.32, -0.24),
        (0.05, -0.25),
        (0.3, -0.12),
        (0.22, 0.1),
        (0, 0.2),
        (-0.45, 0.2),
    ]
    c.shape(spline(body, closed=True), paint)
    c.shape([(-0.5, 0.1), (0.3, 0.02), (0.26, 0.08), (-0.5, 0.16)], stripe)
    glass = [(-0.66, 0.02), (-0.56, -0.11), (-0.36, -0.2), (-0.28, -0.19), (-0.3, 0.04), (-0.5, 0.06)]
    c.shape(spline(glass, closed=True), (70, 115, 150))
    c.shape([(-0.56, -0.05), (-0.38, -0.17), (-0.36, -0.13), (-0.53, -0.01)], (190, 220, 240))
    c.shape(box(-0.2, -0.16, 0.0, 0.03), (70, 115, 150))
    for x in (-0.38, 0.08):
        c.line([(x, 0.16), (x - 0.05, 0.35)], 0.035, dark)
    c.line(spline([(-0.68, 0.29), (-0.6, 0.35), (0.0, 0.36), (0.32, 0.35)], closed=False), 0.04, dark)
    c.line([(0, -0.34), (0, -0.45)], 0.06, dark)
    c.glaze(oval(0, -0.46, 0.95, 0.055), (60, 60, 65), 0.4)
    c.line([(-0.93, -0.45), (0.93, -0.47)], 0.022, (45, 45, 50))
    return c


def _neck(c: Canvas, top: float, bottom: float, width: float, strings: int, bridge: float, wood: Colour) -> None:
    """Neck, head with pegs, frets and strings down to the bridge: what lutes have in common."""
    half = width / 2
    head = top - 0.2
    c.shape(
        [(-half, top), (half, top), (half * 1.6, head + 0.03), (half, head), (-half, head), (-half * 1.6, head + 0.03)],
        wood,
    )
    for y in np.linspace(head + 0.06, top - 0.03, strings // 2):
        for side in (-1, 1):
            c.line([(side * half, y), (side * (half + 0.07), y)], 0.018, (190, 190, 185))
            c.shape(oval(side * (half + 0.08), y, 0.022, 0.026), (235, 230, 215))
    c.shape(box(-half, top, half, bottom), (48, 30, 22))
    for y in top + (bottom - top) * (1 - 0.94 ** np.arange(1, 15)) / (1 - 0.94**15):
        c.line([(-half, y), (half, y)], 0.01, (200, 195, 180))
    for x in np.linspace(-half * 0.75, half * 0.75, strings):
        c.line([(x, head + 0.1), (x, bridge)], 0.009, (240, 236, 222))


def _burst(c: Canvas, outline: Outline, centre: float, edge: Colour, middle: Colour) -> None:
    """A sunburst: the outline filled from a dark edge to a light middle at height `centre`."""
    for share in np.linspace(0, 1, 9):
        c.shape(moved(outline - [0, centre], 0, centre, 1 - 0.55 * share), mix(edge, middle, share))


def mandolin(rng: Rng, size: int) -> Canvas:
    """A teardrop body with an oval hole, a short neck and eight strings."""
    c = Canvas(size, rng.uniform(20, 50))
    wood = hue(rng, 0.06, 0.02, 0.8, 0.5)
    width = rng.uniform(0.42, 0.5)
    body = [(0.07, -0.16), (0.17, -0.03), (width * 0.85, 0.2), (width, 0.45), (width * 0.78, 0.74), (width * 0.3, 0.88)]
    _burst(c, mirrored(body), 0.48, mix(wood, (20, 8, 4), 0.45), hue(rng, 0.09, 0.02, 0.65, 0.9))
    c.shape(oval(0, 0.28, 0.15, 0.1), mix(wood, (255, 240, 210), 0.6))
    c.shape(oval(0, 0.28, 0.125, 0.08), (25, 14, 10))
    c.shape(spline([(0.13, 0.3), (0.26, 0.4), (0.24, 0.58), (0.14, 0.52)], closed=True), (40, 20, 15))
    c.shape(box(-0.17, 0.57, 0.17, 0.61), (35, 20, 15))
    c.shape(box(-0.07, 0.82, 0.07, 0.88), (200, 198, 190))
    _neck(c, -0.62, 0.18, 0.13, 8, 0.83, wood)
    return c


def guitar(rng: Rng, size: int) -> Canvas:
    """A figure-eight body, acoustic with a round hole or electric with pickups, and a long neck."""
    c = Canvas(size, rng.uniform(-60, -20))
    electric = rng.random() < 0.5
    if electric:
        edge = hue(rng, rng.random(), 0.0, 0.85, 0.6)
        middle = mix(edge, (255, 235, 190), rng.uniform(0, 0.7))
        body = [(0.1, 0.12), (0.2, -0.06), (0.33, -0.02), (0.25, 0.3), (0.38, 0.62), (0.28, 0.86), (0.08, 0.92)]
        left = [(-0.1, 0.92), (-0.3, 0.84), (-0.36, 0.6), (-0.25, 0.32), (-0.36, 0.0), (-0.25, -0.14), (-0.12, 0.1)]
        outline = spline([*body, *left], closed=True)
    else:
        edge = hue(rng, 0.07, 0.02, 0.75, 0.6)
        middle = mix(edge, (255, 220, 150), 0.65)
        outline = mirrored(
            [(0.1, -0.05), (0.29, 0.03), (0.29, 0.22), (0.23, 0.34), (0.37, 0.55), (0.36, 0.78), (0.14, 0.92)]
        )
    _burst(c, outline, 0.5, edge, middle)
    if electric:
        c.shape(
            spline([(0.05, 0.14), (0.2, 0.25), (0.2, 0.6), (0.3, 0.7), (0.1, 0.8), (0.07, 0.5)], closed=True),
            (240, 238, 228),
        )
        for y in (0.28, 0.42, 0.56):
            c.shape(box(-0.12, y - 0.035, 0.12, y + 0.035), (28, 28, 30))
        for x, y in ((0.2, 0.66), (0.14, 0.74)):
            c.shape(oval(x, y, 0.035, 0.035), (60, 55, 50))
    else:
        c.shape(oval(0, 0.3, 0.145, 0.145), mix(edge, (30, 12, 6), 0.5))
        c.shape(oval(0, 0.3, 0.115, 0.115), (24, 14, 10))
    c.shape(box(-0.14, 0.66, 0.14, 0.71), (40, 24, 18))
    _neck(c, -0.78, 0.16, 0.11, 6, 0.69, mix(edge, (60, 35, 20), 0.5))
    return c


def saxophone(rng: Rng, size: int) -> Canvas:
    """A conical brass tube bent at both ends into a flared bell, with keys and a black mouthpiece."""
    c = Canvas(size, rng.uniform(-15, 25))
    brass = hue(rng, 0.12, 0.015, rng.uniform(0.55, 0.8), 0.85)
    dark, shine = mix(brass, (70, 35, 5), 0.55), mix(brass, (255, 250, 220), 0.6)
    bell = [(-0.12, 0.5), (-0.02, 0.76), (0.2, 0.8), (0.36, 0.55), (0.4, 0.2), (0.5, -0.12)]
    neck = [(-0.75, -0.62), (-0.55, -0.82), (-0.3, -0.85), (-0.2, -0.7), (-0.18, -0.3), (-0.14, 0.2), (-0.12, 0.52)]
    c.shape(tube(bell, [0.22, 0.25, 0.28, 0.3, 0.36, 0.62]), brass)
    c.shape(tube(neck, [0.05, 0.08, 0.1, 0.12, 0.16, 0.2, 0.22]), brass)
    c.line(spline([(-0.2, -0.6), (-0.23, -0.2), (-0.19, 0.3), (-0.16, 0.6), (0, 0.84)], closed=False), 0.03, shine)
    c.line(spline([(0.22, 0.72), (0.32, 0.5), (0.32, 0.2), (0.34, 0.0)], closed=False), 0.035, shine)
    c.shape(tube([(-0.83, -0.5), (-0.73, -0.64)], [0.06, 0.09]), (22, 22, 24))
    mouth = oval(0, 0, 0.31, 0.09) @ np.array([[0.96, 0.3], [-0.3, 0.96]])
    c.shape(moved(mouth, 0.51, -0.13), shine)
    c.shape(moved(mouth, 0.51, -0.13, 0.85), dark)
    c.line(spline([(-0.06, -0.55), (-0.03, 0.0), (0.02, 0.5)], closed=False), 0.025, dark)
    for t in np.linspace(0, 1, 7):
        x, y = -0.17 + 0.05 * t, -0.5 + 0.95 * t
        c.shape(oval(x, y, 0.075, 0.06), dark)
        c.shape(oval(x - 0.01, y - 0.01, 0.055, 0.042), shine)
    for x, y, r in ((0.18, 0.55, 0.09), (0.36, 0.36, 0.1)):
        c.shape(oval(x, y, r, r * 0.9), dark)
        c.shape(oval(x - 0.01, y - 0.01, r * 0.75, r * 0.68), shine)
    return c


def grand_piano(rng: Rng, size: int) -> Canvas:
    """A grand from the front: open lid, curved case, a keyboard of black and white keys, three legs."""
    c = Canvas(size)
    case = [(26, 26, 30), (95, 45, 25), (236, 234, 230)][rng.choice(3, p=[0.7, 0.2, 0.1])]
    rim, gold = mix(case, (128, 128, 135), 0.35), (205, 165, 75)
    for x, y in ((-0.62, 0.82), (0.6, 0.82), (0.2, 0.62)):
        c.shape([(x - 0.05, 0.2), (x + 0.05, 0.2), (x + 0.03, y), (x - 0.03, y)], mix(case, rim, 0.5))
        c.shape(oval(x, y, 0.04, 0.035), gold)
    lid = [(-0.76, -0.2), (-0.6, -0.76), (-0.2, -0.88), (0.25, -0.74), (0.55, -0.52), (0.84, -0.42), (0.8, -0.14)]
    c.shape(spline(lid, closed=False), rim)
    c.shape(spline([(x * 0.93, y * 0.93 - 0.01) for x, y in lid], closed=False), case)
    c.shape([(-0.76, -0.14), (0.8, -0.14), (0.8, -0.02), (-0.76, -0.02)], (150, 95, 40))
    for x in np.linspace(-0.7, 0.74, 25):
        c.line([(x * 0.9, -0.14), (x, -0.02)], 0.008, (225, 190, 110))
    c.line([(0.6, -0.08), (0.42, -0.56)], 0.025, gold)
    c.shape([(-0.4, -0.02), (-0.34, -0.27), (0.34, -0.27), (0.4, -0.02)], mix(case, rim, 0.7))
    c.shape([(-0.26, -0.06), (-0.23, -0.24), (-0.01, -0.24), (-0.01, -0.06)], (250, 248, 238))
    c.shape([(0.26, -0.06), (0.23, -0.24), (0.01, -0.24), (0.01, -0.06)], (250, 248, 238))
    c.shape(
        spline([(-0.84, -0.05), (0.86, -0.05), (0.86, 0.3), (0.8, 0.36), (-0.8, 0.36), (-0.84, 0.3)], closed=False),
        case,
    )
    left, right, count = -0.74, 0.74, 22
    c.shape(box(left, 0.03, right, 0.28), (250, 249, 244))
    for i in range(count):
        x = left + (right - left) * i / count
        c.line([(x, 0.03), (x, 0.28)], 0.008, (120, 120, 120))
        if i % 7 not in (0, 3):
            c.shape(box(x - 0.021, 0.03, x + 0.021, 0.18), (16, 16, 18))
    c.shape(box(left, 0.0, right, 0.03), (140, 25, 30))
    c.line([(-0.06, 0.36), (-0.06, 0.78)], 0.03, gold)
    c.line([(0.0, 0.36), (0.0, 0.78)], 0.03, gold)
    return c


def church_bell(rng: Rng, size: int) -> Canvas:
    """A bronze bell with a flared lip, raised bands and a clapper, under a wooden yoke."""
    c = Canvas(size, rng.uniform(-14, 14))
    bronze = hue(rng, 0.1, 0.03, rng.uniform(0.45, 0.7), 0.65)
    dark, shine = mix(bronze, (40, 22, 8), 0.55), mix(bronze, (255, 245, 210), 0.5)
    timber = hue(rng, 0.07, 0.01, 0.6, 0.4)
    c.shape(tube([(0, 0.6), (0, 0.85)], [0.05, 0.07]), dark)
    c.shape(oval(0, 0.82, 0.1, 0.09), dark)
    for x in (-0.09, 0.09):
        c.line(spline([(x, -0.5), (x * 1.7, -0.62), (x * 0.6, -0.72)], closed=False), 0.055, dark)
    c.shape(box(-0.72, -0.88, 0.72, -0.66), timber)
    c.shape(box(-0.72, -0.88, 0.72, -0.82), mix(timber, (255, 230, 190), 0.3))
    for x in (-0.25, 0.25):
        c.shape(box(x - 0.04, -0.9, x + 0.04, -0.62), (60, 60, 64))
    side = spline(
        [(0.05, -0.56), (0.24, -0.5), (0.33, -0.3), (0.38, 0.1), (0.47, 0.42), (0.66, 0.66), (0.64, 0.72)], closed=False
    )
    c.shape(np.concatenate([side, side[::-1] * [-1, 1]]), bronze)
    c.shape(oval(0, 0.7, 0.65, 0.1), dark)
    c.shape(oval(0, 0.715, 0.56, 0.07), mix(dark, (0, 0, 0), 0.5))
    c.shape(oval(0, 0.79, 0.085, 0.08), mix(dark, bronze, 0.4))
    for y, width in ((-0.3, 0.33), (-0.24, 0.335), (0.3, 0.42), (0.37, 0.445)):
        arc = np.linspace(-1, 1, 24)
        c.line(np.stack([width * arc, y + 0.06 * np.sqrt(1 - arc**2)], axis=1), 0.02, dark)
    c.shape(tube([(-0.17, -0.42), (-0.22, -0.1), (-0.27, 0.3), (-0.4, 0.58)], [0.04, 0.09, 0.1, 0.05]), shine)
    return c


def siren(rng: Rng, size: int) -> Canvas:
    """An emergency van from the side, its blue lights on."""
    c = Canvas(size)
    coat = [(245, 245, 242), (210, 35, 30), (250, 205, 45)][rng.integers(3)]
    band = [(215, 40, 35), (250, 250, 250), (30, 70, 160)][(245, 210, 250).index(coat[0])]
    for reach, opacity in ((0.3, 0.12), (0.22, 0.18), (0.14, 0.3)):
        c.glaze(oval(-0.18, -0.48, reach * 1.5, reach), (70, 130, 255), opacity)
    c.shape(box(-0.34, -0.52, -0.02, -0.42), (40, 110, 255))
    c.shape(box(-0.24, -0.5, -0.12, -0.45), (225, 240, 255))
    hood = [(-0.88, 0.3), (-0.86, 0.06), (-0.64, -0.04), (-0.44, -0.4), (-0.3, -0.43), (0.8, -0.43), (0.87, -0.3)]
    c.shape([*spline(hood, closed=False).tolist(), (0.88, 0.3)], coat)
    c.shape([(-0.88, 0.1), (0.88, 0.1), (0.88, 0.2), (-0.88, 0.2)], band)
    c.shape([(-0.6, -0.05), (-0.43, -0.34), (-0.26, -0.34), (-0.26, -0.05)], (60, 90, 115))
    c.shape([(-0.52, -0.1), (-0.42, -0.29), (-0.37, -0.29), (-0.45, -0.1)], (170, 205, 225))
    c.shape(box(0.08, -0.33, 0.72, -0.14), (60, 90, 115))
    for x in (-0.22, 0.02):
        c.line([(x, -0.4), (x, 0.28)], 0.012, mix(coat, (0, 0, 0), 0.4))
    cross = (200, 30, 30) if coat[1] > 100 else (250, 250, 250)
    c.shape(box(0.34, -0.1, 0.42, 0.3), cross)
    c.shape(box(0.23, 0.06, 0.53, 0.14), cross)
    c.shape(box(-0.9, 0.28, 0.9, 0.36), (50, 52, 56))
    c.shape(oval(-0.84, 0.12, 0.05, 0.07), (255, 245, 190))
    for x in (-0.52, 0.52):
        c.shape(oval(x, 0.36, 0.19, 0.19), (28, 28, 30))
        c.shape(oval(x, 0.36, 0.1, 0.1), (185, 188, 192))
        c.shape(oval(x, 0.36, 0.04, 0.04), (90, 92, 96))
    return c
