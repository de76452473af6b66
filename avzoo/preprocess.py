"""From a clip to what a model eats: `Preprocess`, the numbers; `Preprocessor`, the one path that applies them.

`avzoo extract`, `avzoo fit` and `avzoo predict` all go through `Preprocessor`, and the numbers travel inside every
checkpoint. Whatever is deterministic and frozen happens here, so that it can be cached under
`Preprocess.fingerprint(modality)`; whatever trains is in a model.

```
Clip.waveform [channels, samples]
  log_mel    mono, resampled, cut into segments -> log-mel -> audio backbone   -> [segments, features]
  gammatone  resampled -> gammatone of L, R, L - R, dB                         -> [segments, 3, bands, columns]
  scalogram  average and difference, resampled, cut into segments
  | fbank      -> long-term STFT -> wavelet | mel bank, log                    -> [segments, frames, 2, bands]
Clip.frames [time, 3, height, width] -> resize
  segment    normalise -> image backbone -> mean over a segment's frames       -> [segments, features]
  frame      normalise -> image backbone                                       -> [segments, frames, features]
  image      uint8: the model holds the backbone                               -> [segments, frames, 3, size, size]
```
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from avzoo import audio, backbones
from avzoo.augment import augment
from avzoo.clip import Clip, read_clip
from avzoo.errors import AvzooError, did_you_mean

# Raise it whenever the same numbers lead to other features: every cached feature is then extracted anew.
SIGNAL_PATH_VERSION = 1


class Sample(NamedTuple):
    """What a model eats of one clip: sound and picture by segment, as the picture above has them.

    Attributes:
        audio: Float32 `[segments, ...]`; None where the sound was not read.
        visual: Float32 or uint8 `[segments, ...]`; None where the pictures were not read.
    """

    audio: Tensor | None
    visual: Tensor | None


class Batch(NamedTuple):
    """What a datamodule hands to a model: the only thing the two know of each other.

    Attributes:
        audio: Float32 `[batch, segments, ...]`.
        visual: Float32 or uint8 `[batch, segments, ...]`.
        label: Int64 `[batch]` (clip task) or `[batch, segments]` (segment task), an index into the classes.
        id: The clips' ids.
        seeds: Int64 `[batch, segments, frames]`, the seeds of the pictures' augmentation, 0 for none; the datamodule
            applies them on the device and hands None to the model.
        weight: What its loss counts among those of all processes: 1 where each has the same share of a batch, 0 for a
            row that stands in where a process has none.
    """

    audio: Tensor
    visual: Tensor
    label: Tensor
    id: list[str]
    seeds: Tensor | None = None
    weight: float = 1.0


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
    # JointScalogramNet, arXiv 2204.11420: 512 ms / 171 ms at 16 kHz; 3 windows fit into a second
    "scalogram": {
        "sample_rate": 16_000,
        "n_fft": 8192,
        "window": 8192,
        "hop": 2736,
        "bands": 290,
        "bank": "scatnet",
        "f_min": 0.0,
        "f_max": 8000.0,
        "log_offset": 1e-8,
        "frames": 3,
    },
    "fbank": {
        "sample_rate": 16_000,
        "n_fft": 8192,
        "window": 8192,
        "hop": 2736,
        "bands": 256,
        "f_min": 0.0,
        "f_max": 8000.0,
        "log_offset": 1e-8,
        "frames": 3,
    },
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
        for name, allowed in (
            ("audio_kind", ("log_mel", *FRONT_ENDS)),
            ("visual_kind", ("segment", "frame", "image")),
            ("bank", ("", "scatnet", "geometric", "kymatio")),
            ("pool", ("", "avg", "max")),
        ):
            if getattr(self, name) not in allowed:
                raise AvzooError(f"preprocess: {name} is {getattr(self, name)!r}, expected one of {allowed}")
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
        object.__setattr__(self, "mean", tuple(self.mean))  # YAML and JSON bring lists
        object.__setattr__(self, "std", tuple(self.std))
        heard = FRONT_ENDS.get(self.audio_kind) or backbones.find(self.audio_backbone).input
        unset = {f.name: f.default for f in dataclasses.fields(self)}
        for own in (heard, backbones.find(self.visual_backbone).input):
            for key, value in own.items():
                if getattr(self, key) == unset[key]:
                    object.__setattr__(self, key, value)
        for f in dataclasses.fields(self):
            if f.type == "float":  # 10 and 10.0 are one number, so they must have one fingerprint
                object.__setattr__(self, f.name, float(getattr(self, f.name)))
        object.__setattr__(self, "mean", tuple(map(float, self.mean)))
        object.__setattr__(self, "std", tuple(map(float, self.std)))

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
        if self.interpolation not in ("bilinear", "bicubic"):
            wrong.append(f"interpolation={self.interpolation!r}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            wrong.append(f"mean={self.mean}, std={self.std}")
        if wrong:
            raise AvzooError(
                f"preprocess: {'; '.join(wrong)}: expected a size from 1 to 2**20, bilinear or bicubic, three means and"
                " three positive deviations"
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


def _is_count(value: object) -> bool:
    return type(value) is int and 1 <= value <= 1 << 20


class Preprocessor:
    """Turns clips into samples, by the numbers of a `Preprocess`.

    The backbones are built on the first call and stay in memory, frozen. This is no `nn.Module` on purpose: a model
    that owns one neither trains nor stores the backbones.

    Args:
        preprocess: The numbers.
        device: Where the backbones run.
    """

    def __init__(self, preprocess: Preprocess, device: str | torch.device = "cpu") -> None:
        self.preprocess = preprocess
        self.device = torch.device(device)

    def __call__(self, clip: Clip, *, audio: bool = True, visual: bool = True, seeds: Tensor | None = None) -> Sample:
        """Turn one clip of `preprocess.seconds` into a sample on `device`.

        Args:
            clip: What `read_window` gave.
            audio: Whether the sound is wanted.
            visual: Whether the pictures are wanted.
            seeds: Int64 `[frames]`, of the pictures' augmentation, see `avzoo.augment`; None for none.

        Raises:
            AvzooError: If the clip's length or number of frames is not that of the window.
        """
        return Sample(self.audio(clip) if audio else None, self.visual(clip, seeds) if visual else None)

    @torch.no_grad()
    def audio(self, clip: Clip) -> Tensor:
        """The sound of every segment, `[segments, ...]`, by `audio_kind`."""
        p = self.preprocess
        expected = round(p.seconds * clip.sample_rate)
        if clip.waveform.shape[-1] != expected:
            raise AvzooError(
                f"{clip.id}: {clip.waveform.shape[-1]} samples at {clip.sample_rate} Hz, expected {expected}"
                f" ({p.seconds:g} s); read it with read_clip(..., seconds={p.seconds:g})"
            )
        waveform = clip.waveform.to(self.device)
        if p.audio_kind == "log_mel":
            embedded: Tensor = self._audio_backbone(self.log_mel(waveform, clip.sample_rate))
            return embedded
        if p.audio_kind == "gammatone":
            return self.gammatone(waveform, clip.sample_rate)
        return self.long_term(waveform, clip.sample_rate)

    def log_mel(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Log-mel spectrograms by segment, `[segments, 1, mels, frames]`, of `[channels, samples]`."""
        p = self.preprocess
        segments = self._segments(audio.resample(audio.mono(waveform), sample_rate, p.sample_rate))
        bank = audio.mel_bank(
            sample_rate=p.sample_rate, n_fft=p.n_fft, n_mels=p.mels, f_min=p.f_min, f_max=p.f_max, linear_in="mel"
        ).to(self.device)
        spectrogram = audio.log_mel(
            segments, bank, n_fft=p.n_fft, win_length=p.window, hop_length=p.hop, offset=p.log_offset
        )
        return spectrogram[:, None, :, : p.frames]

    def gammatone(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Gammatone levels of left, right and left - right by segment, dB, `[segments, 3, bands, columns]`."""
        p = self.preprocess
        levels = audio.binaural_gammatone(
            audio.resample(waveform, sample_rate, p.sample_rate),
            sample_rate=p.sample_rate,
            window=p.window,
            hop=p.hop,
            bands=p.bands,
            f_min=p.f_min,
            f_max=p.f_max,
            floor=p.log_offset,
            columns=p.segments * p.frames,
        )
        return levels.reshape(3, p.bands, p.segments, p.frames).permute(2, 0, 1, 3)

    def long_term(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Long-term spectra of average and difference by segment, `[segments, frames, 2, bands]`."""
        p = self.preprocess
        if p.audio_kind == "fbank":
            bank = audio.fbank_bank(p.bands, n_fft=p.n_fft, sample_rate=p.sample_rate, f_min=p.f_min, f_max=p.f_max)
        else:
            bank = audio.scalogram_bank(bank=p.bank or "scatnet", filters=p.bands, n_fft=p.n_fft)
        pair = audio.average_difference(audio.resample(waveform, sample_rate, p.sample_rate))
        cut = pair if p.clip_stft else self._segments(pair)
        spectra = audio.long_term_spectrum(
            cut, bank.to(self.device), n_fft=p.n_fft, window=p.window, hop=p.hop, offset=p.log_offset
        )
        if not p.clip_stft:  # [2, segments, bands, frames]
            return spectra.permute(1, 3, 0, 2)[:, : p.frames]
        seconds = audio.frame_seconds(spectra.shape[-1], window=p.window, hop=p.hop, sample_rate=p.sample_rate)
        return _by_segment(spectra.permute(2, 0, 1), seconds, p.segments)

    def _segments(self, waveform: Tensor) -> Tensor:
        """`[..., samples]` as `[..., segments, samples]`; what is left over is dropped."""
        length = waveform.shape[-1] // self.preprocess.segments
        whole = waveform[..., : self.preprocess.segments * length]
        return whole.reshape(*waveform.shape[:-1], self.preprocess.segments, length)

    @torch.no_grad()
    def visual(self, clip: Clip, seeds: Tensor | None = None) -> Tensor:
        """The pictures of every segment, `[segments, ...]`, by `visual_kind`."""
        p = self.preprocess
        images = self.images(clip)
        if seeds is not None:
            images = augment(images, seeds)
        if p.visual_kind == "image":
            return images.reshape(p.segments, -1, *images.shape[1:])
        features: Tensor = self.visual_backbone(normalise(images, p)).reshape(p.segments, p.pictures, -1)
        return features if p.visual_kind == "frame" else features.mean(1)

    def images(self, clip: Clip) -> Tensor:
        """The pictures, resized, uint8 `[frames, 3, size, size]`."""
        from torchvision.transforms.v2 import functional as F

        p = self.preprocess
        expected = len(p.frame_times())
        if len(clip.frames) != expected:
            raise AvzooError(f"{clip.id}: {len(clip.frames)} frames, expected {expected} ({p.fps:g} a second)")
        frames = clip.frames.to(self.device)
        if frames.shape[-2:] != (p.size, p.size):
            frames = F.resize(frames, [p.size, p.size], F.InterpolationMode(p.interpolation), antialias=True)
        return frames

    @functools.cached_property
    def _audio_backbone(self) -> torch.nn.Module:
        return backbones.build(self.preprocess.audio_backbone).to(self.device)

    @functools.cached_property
    def visual_backbone(self) -> torch.nn.Module:
        """The frozen image network, for the kinds that read features."""
        return backbones.build(self.preprocess.visual_backbone, self.preprocess.pool).to(self.device)


def normalise(images: Tensor, preprocess: Preprocess) -> Tensor:
    """Pictures `[..., 3, size, size]`, uint8, as their backbone wants them: float32, by `mean` and `std`."""
    mean = torch.tensor(preprocess.mean, device=images.device).view(3, 1, 1)
    std = torch.tensor(preprocess.std, device=images.device).view(3, 1, 1)
    return (images.float() / 255 - mean) / std


def _by_segment(frames: Tensor, segment: Tensor, segments: int) -> Tensor:
    """Frames `[frames, ...]` sorted into `[segments, most, ...]`; places that stay empty are NaN."""
    counts = torch.bincount(segment, minlength=segments)
    sorted_ = frames.new_full((segments, int(counts.max()), *frames.shape[1:]), torch.nan)
    for index in range(segments):
        sorted_[index, : counts[index]] = frames[segment == index]
    return sorted_


def read_window(
    path: str | Path | Clip,
    preprocess: Preprocess,
    *,
    start: float = 0.0,
    audio_path: str | Path | None = None,
    on_missing_audio: Literal["error", "silence"] = "error",
    on_damage: Literal["error", "pad"] = "error",
    audio: bool = True,
    visual: bool = True,
) -> Clip:
    """Read the window of a file that begins at `start` s, as `Preprocessor` wants it.

    Args:
        path: The video, or where no pictures are wanted any file with sound; or a clip, which is cut as a file is.
        preprocess: Says which instants are looked at, and how long a window is.
        start: Where the window begins, s.
        audio_path: The sound of a silent video.
        on_missing_audio: See `avzoo.clip.read_clip`.
        on_damage: See `avzoo.clip.read_clip`.
        audio: Whether the sound is wanted.
        visual: Whether the pictures are wanted.

    Raises:
        DataNotFoundError: If the file is not there.
        MediaError: If it cannot be read, see `avzoo.clip.read_clip`.
    """
    return read_clip(
        path,
        times=preprocess.frame_times() if visual else (),
        seconds=preprocess.seconds,
        start=start,
        audio=audio,
        audio_path=audio_path,
        on_missing_audio=on_missing_audio,
        on_damage=on_damage,
    )
