"""The sounds of the synthetic clips: eight imitations of real sources, and a soft background.

A sound is a function `(rng, samples, rate) -> waveform float32 [samples]` of about unit RMS; everything
that varies (pitch, tempo, timbre) comes from `rng`. Four tools make all of them: coloured `noise`, a
steady `tone` with any harmonics, ringing `modes` (strings, bells) and `overlay` for things that are hit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

Rng = np.random.Generator
Samples = npt.NDArray[np.float32]
Curve = npt.NDArray[np.floating]
Sound = Callable[[Rng, int, int], Samples]

_TABLE = 8192  # samples in one period of a wavetable: rounding noise below -70 dB
_BLOCK = 256  # samples that `modes` advances by one multiplication
_SCALE = np.array([0, 2, 4, 7, 9, 12])  # semitones of the pentatonic scale: any order of notes is a tune


def unit(wave: Curve) -> Samples:
    """The same waveform at an RMS of 1 (silence stays silence)."""
    rms = float(np.sqrt(np.mean(np.square(wave)))) if wave.size else 0.0
    level: Samples = (wave / rms if rms > 0 else wave).astype(np.float32)
    return level


def noise(
    rng: Rng, samples: int, rate: int, *, low: float = 20.0, high: float = 20_000.0, tilt: float = 0.0
) -> Samples:
    """Gaussian noise between `low` and `high` Hz whose power falls as 1 / f**tilt (0 white, 1 pink, 2 brown)."""
    frequency = np.maximum(np.fft.rfftfreq(samples, 1 / rate), 1.0)
    band = 1 / (1 + (low / frequency) ** 4) / (1 + (frequency / high) ** 4)
    spectrum = rng.standard_normal(2 * frequency.size).view(complex)
    return unit(np.fft.irfft(spectrum * band * frequency ** (-tilt / 2), samples))


def wander(rng: Rng, samples: int, rate: int, per_second: float) -> Curve:
    """A curve [samples] that drifts between -1 and 1, with `per_second` turning points a second."""
    knots = rng.uniform(-1, 1, int(samples / rate * per_second) + 2)
    return np.interp(np.arange(samples) * per_second / rate, np.arange(knots.size), knots)


def tone(rng: Rng, pitch: Curve, rate: int, amplitudes: Curve) -> Samples:
    """A periodic wave that follows `pitch` (Hz, [samples]); `amplitudes[k]` belongs to harmonic k + 1."""
    kept = min(len(amplitudes), int(0.48 * rate / pitch.max()))  # the rest would fold back below Nyquist
    spectrum = np.zeros(_TABLE // 2 + 1, dtype=complex)
    spectrum[1 : kept + 1] = amplitudes[:kept] * np.exp(2j * np.pi * rng.random(kept))
    period = unit(np.fft.irfft(spectrum, _TABLE))
    followed: Samples = period[(np.cumsum(pitch / rate) % 1 * _TABLE).astype(np.intp) % _TABLE]
    return followed


def modes(frequencies: Curve, seconds: Curve, amplitudes: Curve, samples: int, rate: int) -> Samples:
    """A struck body [samples]: partials in Hz that each die away by 1 / e in their own `seconds`.

    Equals `sum(a * exp(-t / s) * sin(2 pi f t))`; one product over blocks instead of a sine a sample
    (einsum, because BLAS would start threads and let the last bit depend on their number).
    """
    low = frequencies < 0.48 * rate
    pole = (2j * np.pi * frequencies[low] - 1 / seconds[low]) / rate
    blocks = np.exp(np.outer(np.arange(-(-samples // _BLOCK)) * _BLOCK, pole)) * amplitudes[low]
    within = np.exp(np.outer(pole, np.arange(_BLOCK)))
    wave: Samples = np.einsum("bp,pw->bw", blocks, within).imag.reshape(-1)[:samples].astype(np.float32)
    return wave


def string(rng: Rng, pitch: float, samples: int, rate: int, *, ring: float, dark: float, stiff: float = 0.0) -> Samples:
    """A plucked or hammered string: the modes of a stiff string excited at a random point.

    Args:
        rng: Where on the string it is struck.
        pitch: Hz.
        samples: Length.
        rate: Hz.
        ring: Seconds in which the fundamental falls to 1 / e; partial k takes `ring / (1 + 0.15 k**1.5)`.
        dark: Partial k starts at k**-dark.
        stiff: Inharmonicity B: partial k lies at k f sqrt(1 + B k**2) (0.0004 for a piano).
    """
    k = np.arange(1, 25)
    where = rng.uniform(0.12, 0.28)
    amplitudes = np.abs(np.sin(np.pi * k * where)) * k**-dark
    return modes(pitch * k * np.sqrt(1 + stiff * k**2), ring / (1 + 0.15 * k**1.5), amplitudes, samples, rate)


def overlay(samples: int, hits: Iterable[tuple[float, Samples]], rate: int) -> Samples:
    """Waveforms laid over one another, each from its own time in seconds."""
    out = np.zeros(samples, dtype=np.float32)
    for time, wave in hits:
        first = int(time * rate)
        out[first : first + wave.size] += wave[: max(0, samples - first)]
    return out


def knock(rng: Rng, rate: int, seconds: float, low: float, high: float) -> Samples:
    """The noise of a pick, a hammer or a heel: it dies away by 1 / e in `seconds`, and is 8 times that long."""
    length = int(8 * seconds * rate)
    return unit(noise(rng, length, rate, low=low, high=high) * np.exp(-np.arange(length) / (seconds * rate)))


def echo(rng: Rng, wave: Samples, rate: int) -> Samples:
    """The waveform in a room: itself and an echo that dies away in about a tenth of a second [samples]."""
    length, decay = int(0.5 * rate), rng.uniform(0.05, 0.14)
    tail = rng.standard_normal(length) * np.exp(-np.arange(length) / (decay * rate))
    size = wave.size + length
    wet = np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(tail, size), size)[: wave.size]
    return unit(unit(wave) + rng.uniform(0.2, 0.6) * unit(wet))


def beats(rng: Rng, samples: int, rate: int, every: float, jitter: float = 0.1) -> Curve:
    """Times in seconds about `every` seconds apart, from near 0 up to the end; never none."""
    count = int(samples / rate / every) + 1
    times = (np.arange(count) + rng.uniform(0, jitter, count)) * every
    times[0] = min(times[0], 0.5 * samples / rate)
    return times[times < samples / rate]


def tune(rng: Rng, low: float, high: float, count: int) -> Curve:
    """`count` pitches in Hz of one pentatonic scale whose root lies between `low` and `high` Hz."""
    return rng.uniform(low, high) * 2 ** (rng.choice(_SCALE, count) / 12)


def drone(rng: Rng, samples: int, rate: int) -> Samples:
    """Four two-bladed rotors near one pitch: a buzz that beats, over hissing air."""
    pitch = rng.uniform(150, 250)
    k = np.arange(1, 29)
    amplitudes = k**-0.6 * np.where(k % 2, 0.6, 1.0)
    drift = 1 + 0.02 * wander(rng, samples, rate, 1.0)
    rotors = [
        tone(rng, pitch * detune * drift * (1 + 0.015 * wander(rng, samples, rate, 25.0)), rate, amplitudes)
        for detune in rng.uniform(0.97, 1.03, 4)
    ]
    air = noise(rng, samples, rate, low=60, high=6000, tilt=1) * (1 + 0.5 * wander(rng, samples, rate, 3.0))
    return unit(unit(np.sum(rotors, axis=0)) + rng.uniform(0.3, 0.9) * air)


def helicopter(rng: Rng, samples: int, rate: int) -> Samples:
    """Blade slap, 10 to 20 a second, on broadband noise, with a low drone and a turbine's whine."""
    blade = rng.uniform(10, 20) * (1 + 0.01 * wander(rng, samples, rate, 1.0))
    phase = 2 * np.pi * np.cumsum(blade) / rate
    slap = np.exp(rng.uniform(2, 4) * (np.cos(phase) - 1))
    chop = noise(rng, samples, rate, low=80, high=4000, tilt=1) * (rng.uniform(0.2, 0.5) + slap)
    thump = tone(rng, blade, rate, np.exp(-(((np.arange(1, 13) - 4) / 4) ** 2)))
    whine = tone(rng, rng.uniform(1800, 3200) * (1 + 0.005 * wander(rng, samples, rate, 2.0)), rate, np.ones(2))
    tail = tone(rng, 5.2 * blade, rate, 1 / np.arange(1, 9))
    return unit(2 * unit(chop) + 0.7 * thump + 0.7 * tail + 0.05 * whine)


def mandolin(rng: Rng, samples: int, rate: int) -> Samples:
    """Tremolo on a double course of bright short strings, about ten strokes a second."""
    strokes = beats(rng, samples, rate, 1 / rng.uniform(8.5, 12))
    held = int(rng.integers(4, 10))  # strokes a note
    pick = 0.3 * knock(rng, rate, 0.006, 250, 4000)

    def course(pitch: float) -> Samples:
        pair = [string(rng, p, rate // 2, rate, ring=0.3, dark=0.9) for p in (pitch, 1.004 * pitch)]
        return overlay(rate // 2, ((0, wave) for wave in (*pair, pick)), rate)

    courses = [course(pitch) for pitch in tune(rng, 260, 560, len(strokes) // held + 1)]
    hits = ((t, rng.uniform(0.4, 1.0) * courses[i // held]) for i, t in enumerate(strokes))
    return unit(overlay(samples, hits, rate))


def saxophone(rng: Rng, samples: int, rate: int) -> Samples:
    """A reed: long notes rich in harmonics up to a formant, vibrato that grows, a little breath."""
    every = rng.uniform(0.5, 1.6)
    starts = beats(rng, samples, rate, every, jitter=0.3)
    notes = tune(rng, 110, 340, len(starts))
    time = np.arange(samples) / rate
    note = np.maximum(np.searchsorted(starts, time, side="right") - 1, 0)
    since = np.maximum(time - starts[note], 0)
    vibrato = 1 + 0.008 * np.minimum(since, 1) * np.sin(2 * np.pi * rng.uniform(4.5, 6) * time)
    scoop = 1 - 0.03 * np.exp(-since / 0.05)
    k = np.arange(1, 25)
    formant = 1 + 2.5 * np.exp(-(((k * notes.mean() - rng.uniform(600, 1100)) / 450) ** 2))
    body = tone(rng, notes[note] * vibrato * scoop, rate, formant / k**1.15)
    left = np.append(starts[1:], samples / rate)[note] - time
    swell = np.clip(since / 0.06, 0.03, 1) * np.clip(left / 0.15, 0.03, 1) * (0.6 + 0.4 * np.exp(-2 * since))
    return unit((body + 0.12 * noise(rng, samples, rate, low=200, high=4000, tilt=1)) * swell)


def guitar(rng: Rng, samples: int, rate: int) -> Samples:
    """Single low notes, picked one after the other and left ringing in a wooden body."""
    starts = beats(rng, samples, rate, rng.uniform(0.16, 0.5))
    notes = tune(rng, 85, 240, len(starts))
    ring, dark = rng.uniform(0.3, 0.8), rng.uniform(1.0, 1.5)
    body = 0.35 * knock(rng, rate, 0.015, 80, 500)
    hits = [(t, string(rng, p, 2 * rate, rate, ring=ring, dark=dark)) for t, p in zip(starts, notes, strict=True)]
    return unit(overlay(samples, [*hits, *((t, body) for t in starts)], rate))


def grand_piano(rng: Rng, samples: int, rate: int) -> Samples:
    """Hammered chords: inharmonic strings in detuned pairs, a felt knock, a long decay."""
    starts = beats(rng, samples, rate, rng.uniform(0.3, 0.9))
    root, dark, length = rng.uniform(65, 320), rng.uniform(1.1, 1.6), int(2.5 * rate)
    felt = 0.5 * knock(rng, rate, 0.012, 60, 700)

    def chord() -> Samples:
        degrees = rng.choice([-12, 0, 3, 4, 7, 9, 12, 16], size=int(rng.integers(1, 5)), replace=False)
        pitches = [root * 2 ** (d / 12) * detune for d in degrees for detune in (1.0, 1.0012)]
        strings = [string(rng, p, length, rate, ring=1.2, dark=dark, stiff=4e-4) for p in pitches]
        return rng.uniform(0.5, 1.0) * overlay(length, ((0, wave) for wave in (*strings, felt)), rate)

    return unit(overlay(samples, ((t, chord()) for t in starts), rate))


def church_bell(rng: Rng, samples: int, rate: int) -> Samples:
    """Strokes of a bell: hum, prime, minor third, fifth, nominal and the partials above."""
    prime = rng.uniform(220, 520)
    ratios = np.array([0.5, 1.0, 1.19, 1.5, 2.0, 2.51, 2.66, 3.01, 4.17, 5.43]) * rng.uniform(0.995, 1.005, 10)
    loud = np.array([0.7, 0.9, 1.0, 0.4, 1.0, 0.5, 0.5, 0.6, 0.4, 0.25])
    stroke = modes(prime * ratios, 2.2 / ratios**0.8, loud, 4 * rate, rate)
    strokes = beats(rng, samples, rate, rng.uniform(0.9, 2.0), jitter=0.15)
    return unit(overlay(samples, ((t, rng.uniform(0.7, 1.0) * stroke) for t in strokes), rate))


def siren(rng: Rng, samples: int, rate: int) -> Samples:
    """An emergency horn: a slow wail, a fast yelp or a two-tone call."""
    time = np.arange(samples) / rate + rng.uniform(0, 5)
    low, high = rng.uniform(450, 700), rng.uniform(1000, 1500)
    period = rng.choice([4.0, 0.35, 1.2]) * rng.uniform(0.85, 1.15)
    sweep = 0.5 - 0.5 * np.cos(2 * np.pi * time / period)
    if 0.9 < period < 1.5:  # the two-tone call switches, the others sweep
        sweep, high = (sweep > 0.5).astype(float), low * 4 / 3
    k = np.arange(1, 10)
    return tone(rng, low * (high / low) ** sweep, rate, np.where(k % 2, 1.0, 0.35) / k)


def background(rng: Rng, samples: int, rate: int) -> Samples:
    """Nothing in particular: soft coloured noise that comes and goes a little."""
    hush = noise(rng, samples, rate, low=40, high=rng.uniform(1500, 6000), tilt=rng.uniform(0.8, 2.0))
    return unit(hush * (1 + 0.4 * wander(rng, samples, rate, 0.8)))


def fade(wave: Samples, length: int) -> Samples:
    """The waveform with `length` samples of raised cosine at each end, so that a cut does not click."""
    length = min(length, wave.size // 2)
    ramp = (0.5 - 0.5 * np.cos(np.pi * (np.arange(length) + 0.5) / max(length, 1))).astype(np.float32)
    out = wave.copy()
    out[:length] *= ramp
    out[out.size - length :] *= ramp[::-1]
    return out


def soundtrack(parts: Sequence[tuple[Sound | None, int]], rng: Rng, rate: int, floor: Sound = background) -> Samples:
    """Parts `(sound or None, seconds)` one after the other over a noise floor; peaks stay below 1 [samples]."""
    samples = sum(seconds for _, seconds in parts) * rate
    out = 10 ** (rng.uniform(-48, -34) / 20) * floor(rng, samples, rate)
    first = 0
    for sound, seconds in parts:
        if sound is not None:
            gain = 10 ** (rng.uniform(-24, -14) / 20)
            part = echo(rng, sound(rng, seconds * rate, rate), rate)
            out[first : first + seconds * rate] += gain * fade(part, rate // 50)
        first += seconds * rate
    wave: Samples = np.tanh(out).astype(np.float32)
    return wave
