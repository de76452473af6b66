"""How the ten scenes of TAU Urban Audio-Visual Scenes sound, imitated.

Each is a sound as in `avzoo.data.rendering.sounds`: `(rng, samples, rate) -> waveform` of unit RMS.
"""

from __future__ import annotations

import numpy as np

from avzoo.data.rendering.sounds import (
    Rng,
    Samples,
    beats,
    knock,
    modes,
    noise,
    overlay,
    string,
    tone,
    tune,
    unit,
    wander,
)


def _murmur(rng: Rng, samples: int, rate: int) -> Samples:
    """A crowd: voices as band-limited noise in syllables, each at its own place in the spectrum."""
    voices = [
        noise(rng, samples, rate, low=f, high=2.2 * f) * np.clip(wander(rng, samples, rate, rng.uniform(4, 8)), 0, 1)
        for f in rng.uniform(180, 1400, 5)
    ]
    return unit(np.sum(voices, axis=0))


def _steps(rng: Rng, samples: int, rate: int) -> Samples:
    """Footsteps on stone."""
    step = knock(rng, rate, 0.012, 400, 3500)
    times = beats(rng, samples, rate, rng.uniform(0.45, 0.6))
    return unit(overlay(samples, ((t, rng.uniform(0.4, 1) * step) for t in times), rate))


def _motor(rng: Rng, samples: int, rate: int, low: float, high: float) -> Samples:
    """An engine that speeds up and slows down between two pitches in Hz."""
    pitch = low + (high - low) * (0.5 + 0.5 * wander(rng, samples, rate, 0.4))
    return tone(rng, pitch, rate, np.arange(1, 25) ** -0.9)


def _rails(rng: Rng, samples: int, rate: int) -> Samples:
    """Wheels on rails: rumble with pairs of clacks over the joints."""
    rumble = noise(rng, samples, rate, low=25, high=400, tilt=1.5)
    clack = 2 * knock(rng, rate, 0.02, 150, 2500)
    joints = beats(rng, samples, rate, rng.uniform(0.7, 1.1), jitter=0.03)
    return unit(rumble + overlay(samples, ((t + d, clack) for t in joints for d in (0, 0.16)), rate))


def _chime(rng: Rng, samples: int, rate: int, every: float) -> Samples:
    """A soft gong of two or three notes now and then."""
    notes = np.sort(tune(rng, 420, 620, 3))[::-1]
    ring = [
        modes(p * np.array([1, 2, 3]), np.array([0.5, 0.3, 0.2]), np.array([1, 0.3, 0.1]), rate, rate) for p in notes
    ]
    hits = ((t + 0.4 * i, wave) for t in beats(rng, samples, rate, every, 0.4) for i, wave in enumerate(ring))
    return unit(overlay(samples, hits, rate))


def airport(rng: Rng, samples: int, rate: int) -> Samples:
    """A hum, voices, and the gong before an announcement."""
    hall = noise(rng, samples, rate, low=80, high=900, tilt=1)
    return unit(hall + 0.6 * _murmur(rng, samples, rate) + 0.5 * _chime(rng, samples, rate, 5))


def bus(rng: Rng, samples: int, rate: int) -> Samples:
    """A diesel that revs up and down, a shaking body."""
    body = noise(rng, samples, rate, low=30, high=250, tilt=1)
    return unit(1.2 * _motor(rng, samples, rate, 28, 55) + body + 0.2 * _murmur(rng, samples, rate))


def metro(rng: Rng, samples: int, rate: int) -> Samples:
    """Rails and the howl of the tunnel."""
    howl = noise(rng, samples, rate, low=350, high=900) * (1 + 0.6 * wander(rng, samples, rate, 1.0))
    return unit(_rails(rng, samples, rate) + 0.7 * howl)


def metro_station(rng: Rng, samples: int, rate: int) -> Samples:
    """A train that comes or goes, squealing brakes, steps."""
    arrival = np.clip(1.2 * np.sin(np.linspace(0, np.pi, samples) + rng.uniform(-0.8, 0.8)), 0.1, 1)
    squeal = tone(rng, rng.uniform(2200, 3400) * (1 + 0.01 * wander(rng, samples, rate, 5)), rate, np.ones(2))
    train = noise(rng, samples, rate, low=40, high=600, tilt=1) + 0.4 * squeal
    return unit(train * arrival + 0.4 * _steps(rng, samples, rate) + 0.3 * _murmur(rng, samples, rate))


def park(rng: Rng, samples: int, rate: int) -> Samples:
    """Wind in leaves, and birds: short whistles that slide."""
    leaves = noise(rng, samples, rate, low=600, high=5000, tilt=1) * (1 + 0.7 * wander(rng, samples, rate, 0.7))
    length = rate // 9
    slide = np.linspace(0, 1, length)
    whistles = [
        np.sin(np.pi * slide) * tone(rng, p * (1 + a * slide + 0.05 * np.sin(40 * slide)), rate, np.ones(1))
        for p, a in zip(rng.uniform(2500, 5200, 4), rng.uniform(-0.3, 0.3, 4), strict=True)
    ]
    song = ((t + 0.15 * i, whistles[rng.integers(4)]) for t in beats(rng, samples, rate, 0.9, 0.5) for i in range(3))
    return unit(0.6 * unit(leaves) + overlay(samples, song, rate))


def public_square(rng: Rng, samples: int, rate: int) -> Samples:
    """A fountain, voices, steps."""
    fountain = noise(rng, samples, rate, low=900, high=7000)
    return unit(0.7 * fountain + 0.6 * _murmur(rng, samples, rate) + 0.4 * _steps(rng, samples, rate))


def shopping_mall(rng: Rng, samples: int, rate: int) -> Samples:
    """Voices over quiet music."""
    times = beats(rng, samples, rate, 0.3, 0.02)
    notes = tune(rng, 260, 330, len(times))
    music = ((t, string(rng, p, rate, rate, ring=0.6, dark=1.6)) for t, p in zip(times, notes, strict=True))
    return unit(_murmur(rng, samples, rate) + 0.7 * unit(overlay(samples, music, rate)))


def street_pedestrian(rng: Rng, samples: int, rate: int) -> Samples:
    """Many steps, many voices."""
    steps = _steps(rng, samples, rate) + _steps(rng, samples, rate) + _steps(rng, samples, rate)
    return unit(_murmur(rng, samples, rate) + 0.9 * unit(steps))


def street_traffic(rng: Rng, samples: int, rate: int) -> Samples:
    """Cars that pass one after the other: tyre noise that swells and fades, engines under it."""
    time = np.arange(samples) / rate
    passes = beats(rng, samples, rate, rng.uniform(1.2, 2.5), 0.6)
    swell = np.sum([np.exp(-(((time - t) / rng.uniform(0.4, 0.8)) ** 2)) for t in passes], axis=0) + 0.2
    tyres = noise(rng, samples, rate, low=250, high=2500, tilt=1) + 0.5 * _motor(rng, samples, rate, 70, 110)
    return unit(tyres * swell + 0.3 * noise(rng, samples, rate, low=30, high=200, tilt=1))


def tram(rng: Rng, samples: int, rate: int) -> Samples:
    """An electric motor's rising whine, rails, and a bell."""
    whine = _motor(rng, samples, rate, 180, 520)
    bell = modes(np.array([1250, 2600, 3900]), np.array([0.35, 0.2, 0.1]), np.ones(3), rate, rate)
    bells = overlay(samples, ((t + d, bell) for t in beats(rng, samples, rate, 4, 0.8) for d in (0, 0.25)), rate)
    return unit(0.8 * whine + 0.7 * _rails(rng, samples, rate) + 0.4 * unit(bells))
