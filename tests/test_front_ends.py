"""Every kind of sound and pictures that a model may read, by the one path from files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from media import Picture, write_media
from torch import Tensor

from avzoo.preprocess import Preprocess, Preprocessor, normalise, read_window

pytestmark = pytest.mark.usefixtures("ear_and_eye")

GAMMATONE: dict[str, Any] = {
    "audio_kind": "gammatone", "sample_rate": 8000, "window": 320, "hop": 160, "f_max": 4000.0, "bands": 8,
}  # fmt: skip
SCALOGRAM: dict[str, Any] = {
    "audio_kind": "scalogram", "sample_rate": 8000, "n_fft": 2048, "window": 2048, "hop": 1000, "bands": 24,
    "bank": "geometric", "frames": 6,
}  # fmt: skip
FBANK: dict[str, Any] = {**SCALOGRAM, "audio_kind": "fbank", "bank": "", "f_max": 4000.0}
KINDS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "log_mel": ({"audio_backbone": "vggish"}, (2,)),
    "gammatone": (GAMMATONE, (3, 8, 50)),
    "scalogram": (SCALOGRAM, (6, 2, 24)),
    "fbank": (FBANK, (6, 2, 24)),
}


def heard_by(kind: str, **changes: Any) -> Preprocess:
    """A window of two seconds."""
    window = {"visual_backbone": "tf_efficientnet_lite0", "size": 32, "seconds": 2, "segments": 2}
    return Preprocess(**{**window, **KINDS[kind][0], **changes})


def stereo(seconds: float = 2.0, rate: int = 16_000) -> Any:
    """`[samples, 2]` of noise, another on each side, that fits into 16 bits."""
    noise = np.random.default_rng(0).uniform(-0.4, 0.4, (round(seconds * rate), 2))
    return np.round(noise * 32768) / 32768


@pytest.fixture(scope="module")
def silent_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("silent")
    return write_media(folder / "v.mkv", Picture(codec="mpeg4", fps=5, size=(32, 32), seconds=2, b_frames=0))


def hear(kind: str, video: Path, sound: Path, **changes: Any) -> Tensor:
    p = heard_by(kind, **changes)
    sample = Preprocessor(p)(read_window(video, p, audio_path=sound))
    assert sample.audio is not None
    assert sample.audio.shape == (2, *KINDS[kind][1])
    assert sample.audio.dtype == torch.float32
    assert sample.audio.isfinite().all()
    return sample.audio


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "DOUBLE"])
def test_a_wav_of_any_make_is_heard_alike(kind: str, subtype: str, silent_video: Path, tmp_path: Path) -> None:
    for name, made in (("16 bit", "PCM_16"), ("other", subtype)):
        soundfile.write(tmp_path / f"{name}.wav", stereo(), 16_000, subtype=made)
    plain, other = (hear(kind, silent_video, tmp_path / f"{name}.wav") for name in ("16 bit", "other"))
    torch.testing.assert_close(other, plain, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["gammatone", "scalogram"])
def test_an_ogg_beside_the_video(kind: str, silent_video: Path, tmp_path: Path) -> None:
    t = np.arange(32_000)[:, None] / 16_000
    tone = 0.4 * np.sin(2 * np.pi * np.array([440.0, 880.0]) * t)
    soundfile.write(tmp_path / "s.wav", tone, 16_000)
    soundfile.write(tmp_path / "s.ogg", tone, 16_000)
    wav, ogg = (hear(kind, silent_video, tmp_path / f"s.{suffix}") for suffix in ("wav", "ogg"))
    loud = wav > wav.max() - (10 if kind == "gammatone" else 1)  # dB, or nepers: what the coder keeps
    assert loud.any()
    torch.testing.assert_close(ogg[loud], wav[loud], atol=1.0 if kind == "gammatone" else 0.2, rtol=0)


@pytest.mark.parametrize("kind", ["gammatone", "scalogram", "fbank"])
def test_mono_where_stereo_is_expected(kind: str, silent_video: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "mono.wav", stereo()[:, 0], 16_000)
    soundfile.write(tmp_path / "twice.wav", stereo()[:, [0, 0]], 16_000)
    soundfile.write(tmp_path / "both.wav", stereo(), 16_000)
    mono, twice, both = (hear(kind, silent_video, tmp_path / f"{name}.wav") for name in ("mono", "twice", "both"))
    p = heard_by(kind)
    assert torch.equal(mono, twice)
    if kind == "gammatone":
        floor = 20 * math.log10(p.log_offset)
        torch.testing.assert_close(mono[:, 2], torch.full_like(mono[:, 2], floor))
        assert torch.equal(mono[:, 0], mono[:, 1])
        assert both[:, 2].min() > floor + 30
    else:
        torch.testing.assert_close(mono[:, :, 1], torch.full_like(mono[:, :, 1], math.log(p.log_offset)))
        assert both[:, :, 1].min() > math.log(p.log_offset) + 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 2])
def test_silence_is_finite_in_every_kind(kind: str, channels: int, silent_video: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "s.wav", 0 * stereo()[:, :channels], 16_000)
    silence = hear(kind, silent_video, tmp_path / "s.wav")  # which asks for finite numbers
    assert silence.max() - silence.min() < 1e-4
    constant = 0 * stereo()[:, :channels] + 0.25
    soundfile.write(tmp_path / "c.wav", constant, 16_000)
    hear(kind, silent_video, tmp_path / "c.wav")
    p = heard_by(kind)
    replaced = Preprocessor(p)(read_window(silent_video, p, on_missing_audio="silence")).audio
    torch.testing.assert_close(replaced, silence)


@pytest.mark.parametrize("kind", ["scalogram", "fbank"])
def test_windows_over_the_whole_clip(kind: str, silent_video: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "s.wav", stereo(), 16_000)
    p = heard_by(kind, clip_stft=True)
    audio = Preprocessor(p)(read_window(silent_video, p, audio_path=tmp_path / "s.wav")).audio
    there = audio.isfinite().flatten(2)
    assert torch.equal(there.all(-1), there.any(-1))  # a window is there or not
    assert int(there.all(-1).sum()) == (16_000 - 2048) // 1000 + 1


def test_either_modality_alone(silent_video: Path, tmp_path: Path, ear_and_eye: list[str]) -> None:
    soundfile.write(tmp_path / "s.wav", stereo(), 16_000)
    p = heard_by("log_mel")
    seen = Preprocessor(p)(read_window(silent_video, p, audio=False), audio=False)
    assert seen.audio is None
    assert seen.visual.shape == (2, 3)
    assert ear_and_eye == ["tf_efficientnet_lite0"]  # what is not asked for is not built
    heard = Preprocessor(p)(read_window(tmp_path / "s.wav", p, visual=False), visual=False)
    assert heard.visual is None
    assert heard.audio.shape == (2, 2)
    assert ear_and_eye == ["tf_efficientnet_lite0", "vggish"]


@pytest.mark.parametrize(("kind", "shape"), [("segment", (2, 3)), ("frame", (2, 2, 3)), ("image", (2, 2, 3, 32, 32))])
def test_kinds_of_pictures(kind: str, shape: tuple[int, ...], silent_video: Path) -> None:
    p = heard_by("gammatone", visual_kind=kind, fps=2)
    clip_ = read_window(silent_video, p, audio=False)
    seen = Preprocessor(p).visual(clip_)
    assert seen.shape == shape
    images = Preprocessor(p).images(clip_)
    if kind == "image":
        assert seen.dtype == torch.uint8
        assert torch.equal(seen.flatten(0, 1), images)
        return
    features = normalise(images, p).mean((2, 3)).unflatten(0, (2, 2))
    torch.testing.assert_close(seen, features if kind == "frame" else features.mean(1))
