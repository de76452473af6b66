"""From a clip to what a model eats: `Preprocess`, the numbers; `Preprocessor`, the one path that applies them.

`avzoo extract`, `avzoo fit` and `avzoo predict` all go through `Preprocessor`, and the numbers travel inside every
checkpoint. Whatever is deterministic and frozen happens here, so that it can be cached under
`Preprocess.fingerprint()`; whatever trains is in a model.

```
Clip.waveform  [channels, samples] -> mono -> resample -> segments -> log-mel -> audio backbone -> [segments, features]
Clip.frames    [time, 3, h, w]     -> resize -> normalise -> image backbone -> mean over time   -> [segments, features]
```
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from avzoo import audio, backbones
from avzoo.clip import Clip, read_clip
from avzoo.errors import AvzooError, did_you_mean

# Raise it whenever the same numbers lead to other features: every cached feature is then extracted anew.
SIGNAL_PATH_VERSION = 1


class Sample(NamedTuple):
    """What a model eats of one clip: sound and picture by segment.

    Attributes:
        audio: Float32 `[segments, features]`.
        visual: Float32 `[segments, features]`.
    """

    audio: Tensor
    visual: Tensor


class Batch(NamedTuple):
    """What a datamodule hands to a model: the only thing the two know of each other.

    Attributes:
        audio: Float32 `[batch, segments, ...]`.
        visual: Float32 `[batch, segments, ...]`.
        label: Int64 `[batch]` (clip task) or `[batch, segments]` (segment task), an index into the classes.
        id: The clips' ids.
    """

    audio: Tensor
    visual: Tensor
    label: Tensor
    id: list[str]


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """Every number of the signal path, plain JSON.

    The numbers below the two backbone names belong to the backbone's weights: left out, they become its own.

    Args:
        seconds: Length of a window, s.
        segments: Segments in a window: one prediction each.
        fps: Frames per second that are looked at. One frame of a second `k` is taken at `k + 0.5` s, several at
            `k + j / fps`; a segment's features are the mean of its frames'.
        audio_backbone: Name of the frozen sound encoder, see `avzoo.backbones`.
        visual_backbone: Name of the frozen image encoder.
        sample_rate: Hz; sound of any other rate is resampled.
        n_fft: Length of the Fourier transform, samples.
        window: Length of the Hann window, samples.
        hop: From one window to the next, samples.
        mels: Bands of the mel bank.
        f_min: Lower edge of the mel bank, Hz.
        f_max: Upper edge of the mel bank, Hz.
        log_offset: Added to the mel magnitudes before the logarithm.
        frames: Spectrogram frames of a segment that the backbone reads, from its start.
        size: Height and width that a picture is resized to, pixels; the aspect ratio is not kept, as in AVE's
            features, so that nothing at the edges is lost.
        interpolation: "bilinear" or "bicubic", antialiased.
        mean: Subtracted from each of R, G, B (0 to 1).
        std: Divides each of R, G, B.

    Raises:
        AvzooError: If a number is out of range.

    >>> Preprocess(audio_backbone="vggish", visual_backbone="tf_efficientnet_lite0").size
    224
    """

    seconds: float = 10.0
    segments: int = 10
    fps: float = 1.0
    audio_backbone: str = "vggish"
    visual_backbone: str = "resnet152.tv_in1k"
    sample_rate: int = 0
    n_fft: int = 0
    window: int = 0
    hop: int = 0
    mels: int = 0
    f_min: float = -1.0
    f_max: float = 0.0
    log_offset: float = 0.0
    frames: int = 0
    size: int = 0
    interpolation: Literal["", "bilinear", "bicubic"] = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Fill what was left out from the backbones, then check."""
        object.__setattr__(self, "mean", tuple(self.mean))  # YAML and JSON bring lists
        object.__setattr__(self, "std", tuple(self.std))
        unset = {f.name: f.default for f in dataclasses.fields(self)}
        for name in (self.audio_backbone, self.visual_backbone):
            for key, value in backbones.find(name).input.items():
                if getattr(self, key) == unset[key]:
                    object.__setattr__(self, key, value)
        for f in dataclasses.fields(self):
            if f.type == "float":  # 10 and 10.0 are one number, so they must have one fingerprint
                object.__setattr__(self, f.name, float(getattr(self, f.name)))
        object.__setattr__(self, "mean", tuple(map(float, self.mean)))
        object.__setattr__(self, "std", tuple(map(float, self.std)))
        if backbones.find(self.audio_backbone).kind != "audio" or backbones.find(self.visual_backbone).kind != "image":
            raise AvzooError(
                f"audio_backbone is {self.audio_backbone!r} and visual_backbone is {self.visual_backbone!r}:"
                " the first must read sound, the second pictures"
            )
        if not (0 < self.seconds < 3600 and 0 < self.segments < 10_000 and 0 < self.fps <= 240):
            raise AvzooError(
                f"seconds={self.seconds}, segments={self.segments}, fps={self.fps}: expected 0 < seconds < 3600,"
                " 0 < segments < 10000 and 0 < fps <= 240"
            )
        frames = self.fps * self.segment_seconds
        if frames < 1 or abs(frames - round(frames)) > 1e-6:
            raise AvzooError(
                f"{self.fps} frames a second and segments of {self.segment_seconds} s make {frames:g}"
                " frames a segment: expected a whole number"
            )
        whole = ("sample_rate", "n_fft", "window", "hop", "mels", "frames", "size")
        wrong = [f"{key}={getattr(self, key)!r}" for key in whole if not _is_count(getattr(self, key))]
        if self.interpolation not in ("bilinear", "bicubic"):
            wrong.append(f"interpolation={self.interpolation!r}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            wrong.append(f"mean={self.mean}, std={self.std}")
        if self.log_offset <= 0 or not 0 <= self.f_min < self.f_max:
            wrong.append(f"log_offset={self.log_offset}, f_min={self.f_min}, f_max={self.f_max}")
        if wrong:
            raise AvzooError(
                f"preprocess: {'; '.join(wrong)}: expected counts from 1 to 2**20, bilinear or bicubic, three means and"
                " three positive deviations, a positive log_offset and 0 <= f_min < f_max"
            )
        heard = (self.frames - 1) * self.hop + self.window
        if heard > self.segment_seconds * self.sample_rate:
            raise AvzooError(
                f"segments of {self.segment_seconds:g} s are too short for {self.audio_backbone!r}, which hears"
                f" {heard / self.sample_rate:g} s at once: set fewer segments or more seconds"
            )

    @property
    def segment_seconds(self) -> float:
        """Length of a segment, s."""
        return self.seconds / self.segments

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

    def fingerprint(self) -> str:
        """16 hex digits that change whenever the features would: the key of the feature cache."""
        pins = [backbones.find(name).weights for name in (self.audio_backbone, self.visual_backbone)]
        facts = json.dumps([SIGNAL_PATH_VERSION, self.to_dict(), pins], sort_keys=True)
        return hashlib.sha256(facts.encode()).hexdigest()[:16]


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
        self._built: tuple[torch.nn.Module, torch.nn.Module] | None = None

    def __call__(self, clip: Clip) -> Sample:
        """Turn one clip of `preprocess.seconds` into a sample on `device`.

        Raises:
            AvzooError: If the clip's length or number of frames is not that of the window.
        """
        audio_backbone, visual_backbone = self._backbones()
        with torch.inference_mode():
            heard = audio_backbone(self.log_mel(clip))
            seen = visual_backbone(self.images(clip))
            per_segment = seen.unflatten(0, (self.preprocess.segments, -1)).mean(1)
        return Sample(heard.clone(), per_segment.clone())

    def log_mel(self, clip: Clip) -> Tensor:
        """The sound's log-mel spectrograms by segment, `[segments, 1, mels, frames]`."""
        p = self.preprocess
        expected = round(p.seconds * clip.sample_rate)
        if clip.waveform.shape[-1] != expected:
            raise AvzooError(
                f"{clip.id}: {clip.waveform.shape[-1]} samples at {clip.sample_rate} Hz, expected {expected}"
                f" ({p.seconds:g} s); read it with read_clip(..., seconds={p.seconds:g})"
            )
        waveform = audio.resample(audio.mono(clip.waveform.to(self.device)), clip.sample_rate, p.sample_rate)
        segments = waveform[: len(waveform) // p.segments * p.segments].reshape(p.segments, -1)
        bank = audio.mel_bank(
            sample_rate=p.sample_rate, n_fft=p.n_fft, n_mels=p.mels, f_min=p.f_min, f_max=p.f_max, linear_in="mel"
        ).to(self.device)
        spectrogram = audio.log_mel(
            segments, bank, n_fft=p.n_fft, win_length=p.window, hop_length=p.hop, offset=p.log_offset
        )
        return spectrogram[:, None, :, : p.frames]

    def images(self, clip: Clip) -> Tensor:
        """The pictures, resized and normalised, `[frames, 3, size, size]`."""
        from torchvision.transforms.v2 import functional as F

        p = self.preprocess
        expected = len(p.frame_times())
        if len(clip.frames) != expected:
            raise AvzooError(f"{clip.id}: {len(clip.frames)} frames, expected {expected} ({p.fps:g} a second)")
        frames = clip.frames.to(self.device)
        if frames.shape[-2:] != (p.size, p.size):
            frames = F.resize(frames, [p.size, p.size], F.InterpolationMode(p.interpolation), antialias=True)
        mean = torch.tensor(p.mean, device=self.device).view(3, 1, 1)
        std = torch.tensor(p.std, device=self.device).view(3, 1, 1)
        return (frames.float() / 255 - mean) / std

    def _backbones(self) -> tuple[torch.nn.Module, torch.nn.Module]:
        if self._built is None:
            names = (self.preprocess.audio_backbone, self.preprocess.visual_backbone)
            self._built = (backbones.build(names[0]).to(self.device), backbones.build(names[1]).to(self.device))
        return self._built


def read_window(
    path: str | Path,
    preprocess: Preprocess,
    *,
    start: float = 0.0,
    audio_path: str | Path | None = None,
    on_missing_audio: Literal["error", "silence"] = "error",
    on_damage: Literal["error", "pad"] = "error",
) -> Clip:
    """Read the window of a file that begins at `start` s, as `Preprocessor` wants it.

    Raises:
        DataNotFoundError: If the file is not there.
        MediaError: If it cannot be read, see `avzoo.clip.read_clip`.
    """
    return read_clip(
        path,
        times=preprocess.frame_times(),
        seconds=preprocess.seconds,
        start=start,
        audio_path=audio_path,
        on_missing_audio=on_missing_audio,
        on_damage=on_damage,
    )
