"""Every number of the signal path: `Preprocess`, and the fingerprint of what it makes."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from avzoo import backbones
from avzoo.errors import AvzooError, check_choice, did_you_mean

# Raise it whenever the same numbers lead to other features: every cached feature is then extracted anew.
SIGNAL_PATH_VERSION = 1

# JointScalogramNet, arXiv 2204.11420: 512 ms / 171 ms at 16 kHz; 3 windows fit into a second
_LONG_TERM: dict[str, Any] = {
    "sample_rate": 16_000,
    "n_fft": 8192,
    "window": 8192,
    "hop": 2736,
    "f_min": 0.0,
    "f_max": 8000.0,
    "log_offset": 1e-8,
    "frames": 3,
}
# The numbers of the sound front-ends that no pretrained weights decide.
FRONT_ENDS: dict[str, dict[str, Any]] = {
    # SECRNNFusion, arXiv 2107.13180: 40 ms / 20 ms, 64 ERB channels from 0 Hz to half the rate; 50 columns a second
    "gammatone": {
        "sample_rate": 44_100,
        "window": 1764,
        "hop": 882,
        "bands": 64,
        "f_min": 0.0,
        "f_max": 22_050.0,
        "log_offset": 1e-10,
        "frames": 50,
    },
    "scalogram": {**_LONG_TERM, "bands": 290, "bank": "scatnet"},
    "fbank": {**_LONG_TERM, "bands": 256},
}


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """Every number of the signal path, plain JSON.

    The numbers below the backbones' names belong to the front-end or to the backbone's weights: left out, they become
    its own. A number that the chosen kind does not use stays at its default.

    Args:
        seconds: Length of a window, s.
        segments: Segments in a window: one prediction each.
        fps: Frames per second that are looked at. One frame of a second `k` is taken at `k + 0.5` s, several at
            `k + j / fps`.
        audio_kind: "log_mel" (read by a frozen sound encoder), "gammatone", "scalogram" or "fbank".
        audio_backbone: The frozen sound encoder of "log_mel", see `avzoo.backbones`; empty for the other kinds.
        visual_kind: "segment" (the mean of the segment's frames' features), "frame" (each frame's features) or "image"
            (the resized pictures, for a model that holds the backbone itself).
        visual_backbone: The image encoder's name.
        sample_rate: Hz; sound of any other rate is resampled.
        n_fft: Length of the Fourier transform, samples.
        window: Length of an analysis window, samples.
        hop: From one window to the next, samples.
        mels: Bands of the mel bank of "log_mel".
        bands: Channels of the gammatone bank, wavelets of the scalogram, or mel bands of the "fbank".
        bank: Which wavelets the scalogram has: "scatnet", "geometric" or "kymatio", see `avzoo.audio.scalogram_bank`.
        f_min: Lower edge of the bank, Hz.
        f_max: Upper edge of the bank, Hz.
        log_offset: Added to the magnitudes before the logarithm; for "gammatone" the least magnitude, 1e-10 being
            -200 dB.
        frames: Windows of a segment that are kept, from its start.
        clip_stft: "scalogram" and "fbank" take their windows over the whole clip, not second by second; a window
            belongs to the second that holds its middle, and what a second has fewer of than others is NaN.
        size: Height and width that a picture is resized to, pixels; the aspect ratio is not kept, so that nothing at
            the edges is lost.
        interpolation: "bilinear" or "bicubic", antialiased.
        mean: Subtracted from each of R, G, B (0 to 1); `mean` 0 and `std` 1/255 leave the values at 0 to 255, as the
            code of SECRNNFusion has them.
        std: Divides each of R, G, B.
        pool: How the image encoder's last map becomes a vector: "avg", "max", or empty for its own way.

    Raises:
        AvzooError: If a number is out of range.

    >>> Preprocess(audio_backbone="vggish", visual_backbone="tf_efficientnet_lite0").size
    224
    >>> Preprocess(audio_kind="gammatone", fps=5, visual_kind="frame").bands
    64
    """

    seconds: float = 10.0
    segments: int = 10
    fps: float = 1.0
    audio_kind: Literal["log_mel", "gammatone", "scalogram", "fbank"] = "log_mel"
    audio_backbone: str = ""
    visual_kind: Literal["segment", "frame", "image"] = "segment"
    visual_backbone: str = "resnet152.tv_in1k"
    sample_rate: int = 0
    n_fft: int = 0
    window: int = 0
    hop: int = 0
    mels: int = 0
    bands: int = 0
    bank: Literal["", "scatnet", "geometric", "kymatio"] = ""
    f_min: float = -1.0
    f_max: float = 0.0
    log_offset: float = 0.0
    frames: int = 0
    clip_stft: bool = False
    size: int = 0
    interpolation: Literal["", "bilinear", "bicubic"] = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    pool: Literal["", "avg", "max"] = ""

    def __post_init__(self) -> None:
        """Fill what was left out from front-end and backbones, then check."""
        for name, allowed in _choices().items():
            check_choice(f"preprocess: {name}", getattr(self, name), allowed)
        if self.audio_kind == "log_mel" and not self.audio_backbone:
            object.__setattr__(self, "audio_backbone", "vggish")
        if self.audio_kind != "log_mel" and self.audio_backbone:
            raise AvzooError(
                f"preprocess: {self.audio_kind} is read by the model itself, so audio_backbone={self.audio_backbone!r}"
                " would never run: leave it out"
            )
        if self.audio_backbone and backbones.find(self.audio_backbone).kind != "audio":
            raise AvzooError(f"audio_backbone is {self.audio_backbone!r}, which reads pictures")
        if backbones.find(self.visual_backbone).kind != "image":
            raise AvzooError(f"visual_backbone is {self.visual_backbone!r}, which reads sound")
        self._fill()
        self._check_pictures()
        self._check_sound()

    def _fill(self) -> None:
        put = functools.partial(object.__setattr__, self)
        put("mean", tuple(self.mean))  # YAML and JSON bring lists
        put("std", tuple(self.std))
        heard = FRONT_ENDS.get(self.audio_kind) or backbones.find(self.audio_backbone).input
        unset = {f.name: f.default for f in dataclasses.fields(self)}
        for own in (heard, backbones.find(self.visual_backbone).input):
            for key, value in own.items():
                if getattr(self, key) == unset[key]:
                    put(key, value)
        for f in dataclasses.fields(self):
            if f.type == "float":  # 10 and 10.0 are one number, so they must have one fingerprint
                put(f.name, float(getattr(self, f.name)))
        put("mean", tuple(map(float, self.mean)))
        put("std", tuple(map(float, self.std)))

    def _check_pictures(self) -> None:
        if not (0 < self.seconds < 3600 and 0 < self.segments < 10_000 and 0 < self.fps <= 240):
            raise AvzooError(
                f"seconds={self.seconds}, segments={self.segments}, fps={self.fps}: expected 0 < seconds < 3600,"
                " 0 < segments < 10000 and 0 < fps <= 240"
            )
        pictures = self.fps * self.segment_seconds
        if pictures < 1 or abs(pictures - round(pictures)) > 1e-6:
            raise AvzooError(
                f"{self.fps} frames a second and segments of {self.segment_seconds} s make {pictures:g}"
                " frames a segment: expected a whole number"
            )
        wrong = [] if _is_count(self.size) else [f"size={self.size!r}"]
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            wrong.append(f"mean={self.mean}, std={self.std}")
        if wrong:
            raise AvzooError(
                f"preprocess: {'; '.join(wrong)}: expected a size from 1 to 2**20, three means and three positive"
                " deviations"
            )

    def _check_sound(self) -> None:
        counts = {"log_mel": ("n_fft", "mels"), "gammatone": ("bands",)}.get(self.audio_kind, ("n_fft", "bands"))
        counts = ("sample_rate", "window", "hop", "frames", *counts)
        wrong = [f"{key}={getattr(self, key)!r}" for key in counts if not _is_count(getattr(self, key))]
        if self.log_offset <= 0 or not 0 <= self.f_min < self.f_max:
            wrong.append(f"log_offset={self.log_offset}, f_min={self.f_min}, f_max={self.f_max}")
        if wrong:
            raise AvzooError(
                f"preprocess: {'; '.join(wrong)}: expected counts from 1 to 2**20, a positive log_offset and"
                " 0 <= f_min < f_max"
            )
        samples = self.segment_seconds * self.sample_rate
        if self.audio_kind == "gammatone" and abs(self.frames * self.hop - samples) > 1e-6:
            raise AvzooError(
                f"preprocess: {self.frames} columns of {self.hop} samples are not a segment of {samples:g}: the columns"
                " of a clip are cut into its segments, so they have to fit"
            )
        if self.clip_stft and (self.audio_kind not in ("scalogram", "fbank") or self.segment_seconds != 1):
            raise AvzooError(
                f"preprocess: clip_stft sorts the windows of a scalogram or an fbank into seconds; given"
                f" {self.audio_kind!r} and segments of {self.segment_seconds:g} s"
            )
        heard = (self.frames - 1) * self.hop + self.window
        if self.audio_kind != "gammatone" and not self.clip_stft and heard > samples:
            raise AvzooError(
                f"segments of {self.segment_seconds:g} s are too short for {self.audio_backbone or self.audio_kind!r},"
                f" which hears {heard / self.sample_rate:g} s at once: set fewer segments or more seconds"
            )

    @property
    def segment_seconds(self) -> float:
        """Length of a segment, s."""
        return self.seconds / self.segments

    @property
    def pictures(self) -> int:
        """Frames of a segment."""
        return round(self.fps * self.segment_seconds)

    def frame_times(self) -> list[float]:
        """The instants of a window at which a frame is looked at, s.

        >>> Preprocess(audio_backbone="vggish", visual_backbone="tf_efficientnet_lite0").frame_times()[:3]
        [0.5, 1.5, 2.5]
        """
        count = round(self.fps * self.seconds)
        offset = self.segment_seconds / 2 if count == self.segments else 0.0
        return [index / self.fps + offset for index in range(count)]

    def windows(self, duration: float) -> Iterator[tuple[float, slice]]:
        """Where the windows of a file begin, s, and which of a window's segments are new.

        Its segments are those whose middle lies within the file; the last window is moved back so that it is full.

        >>> list(Preprocess(seconds=10, segments=10).windows(12.6))
        [(0.0, slice(0, 10, None)), (3.0, slice(7, 10, None))]
        """
        count = max(1, math.floor(duration / self.segment_seconds + 0.5))
        for done in range(0, count, self.segments):
            first = max(0, min(done, count - self.segments))
            yield first * self.segment_seconds, slice(done - first, min(self.segments, count - first))

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        numbers = dataclasses.asdict(self)
        return {**numbers, "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def of(cls, numbers: Preprocess | Mapping[str, Any] | None) -> Preprocess:
        """Read what `to_dict` wrote; None gives the default, another `Preprocess` itself.

        Raises:
            AvzooError: If a key is unknown.
        """
        if numbers is None:
            return cls()
        if isinstance(numbers, Preprocess):
            return numbers
        given = dict(numbers)
        known = [f.name for f in dataclasses.fields(cls)]
        for key in given:
            if key not in known:
                raise AvzooError(f"preprocess has no number called {key!r}{did_you_mean(key, known)}; it has {known}")
        return cls(**given)

    def describe(self) -> str:
        """The signal path in words.

        >>> Preprocess(audio_backbone="vggish", visual_backbone="tf_efficientnet_lite0").describe()
        'windows of 10 s in 10 segments; vggish at 16000 Hz, tf_efficientnet_lite0 on 1 frame(s) a second at 224 x 224'
        """
        return (
            f"windows of {self.seconds:g} s in {self.segments} segments;"
            f" {self.audio_backbone or self.audio_kind} at {self.sample_rate} Hz,"
            f" {self.visual_backbone} on {self.fps:g} frame(s) a second at {self.size} x {self.size}"
        )

    def numbers(self, modality: Literal["audio", "visual"]) -> dict[str, Any]:
        """Those that a modality's features depend on."""
        every = self.to_dict()
        other = _VISUAL if modality == "audio" else every.keys() - _VISUAL - _BOTH
        return {key: value for key, value in every.items() if key not in other}

    def fingerprint(self, modality: Literal["audio", "visual"]) -> str:
        """16 hex digits that change whenever that modality's features would: the key of the feature cache."""
        backbone = self.audio_backbone if modality == "audio" else self.visual_backbone
        pin = backbones.find(backbone).weights if backbone else ""
        facts = json.dumps([SIGNAL_PATH_VERSION, modality, self.numbers(modality), pin], sort_keys=True)
        return hashlib.sha256(facts.encode()).hexdigest()[:16]


_BOTH = {"seconds", "segments"}
_VISUAL = {"fps", "visual_kind", "visual_backbone", "size", "interpolation", "mean", "std", "pool"}


@functools.cache
def _choices() -> dict[str, tuple[str, ...]]:
    """The values that each of the fields with a choice may have."""
    return {name: get_args(hint) for name, hint in get_type_hints(Preprocess).items() if get_origin(hint) is Literal}


def _is_count(value: object) -> bool:
    return type(value) is int and 1 <= value <= 1 << 20
