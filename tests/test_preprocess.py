"""The signal path: its numbers, its fingerprint, and what reaches which segment."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from media import Picture, Sound, write_media
from torch import Tensor, nn

from avzoo import preprocess as module
from avzoo.audio import log_mel, mel_bank
from avzoo.clip import Clip
from avzoo.errors import AvzooError, MediaError, UnknownModelError
from avzoo.preprocess import Preprocess, Preprocessor, read_window

NAMES = {"audio_backbone": "vggish", "visual_backbone": "tf_efficientnet_lite0"}
SILENT = math.log(0.01)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """The tensors here are so small that threads cost more than they give."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def numbers(**changes: Any) -> Preprocess:
    return Preprocess(**{**NAMES, "size": 32, **changes})


# -- the numbers -----------------------------------------------------------------------------------------------------


def test_numbers_that_are_left_out_are_the_backbones() -> None:
    p = Preprocess(**NAMES)
    assert (p.seconds, p.segments, p.fps, p.segment_seconds) == (10.0, 10, 1.0, 1.0)
    assert (p.sample_rate, p.mels, p.frames, p.f_min, p.f_max, p.log_offset) == (16_000, 64, 96, 125.0, 7500.0, 0.01)
    assert (p.size, p.interpolation, p.mean, p.std) == (224, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    default = Preprocess()
    assert (default.audio_backbone, default.visual_backbone) == ("vggish", "resnet152.tv_in1k")
    assert default.interpolation == "bilinear"
    assert default.mean == (0.485, 0.456, 0.406)
    assert Preprocess(**NAMES, size=64, f_min=0.0).size == 64
    assert Preprocess(**NAMES, size=64, f_min=0.0).f_min == 0.0


def test_json_round_trip() -> None:
    p = numbers(seconds=4, segments=2, fps=1.5, mean=[0.1, 0.2, 0.3])
    text = json.dumps(p.to_dict())
    again = Preprocess.of(json.loads(text))
    assert again == p
    assert fingerprints(again) == fingerprints(p)
    assert json.loads(text) == p.to_dict()  # lists, not tuples
    assert set(p.to_dict()) == {f.name for f in dataclasses.fields(Preprocess)}
    assert Preprocess.of(p) is p
    assert Preprocess.of(None) == Preprocess()
    with pytest.raises(dataclasses.FrozenInstanceError):
        p.size = 1  # type: ignore[misc]


def test_an_unknown_number_is_named() -> None:
    with pytest.raises(AvzooError, match=r"'segmnts'.*did you mean 'segments'"):
        Preprocess.of({**NAMES, "segmnts": 10})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seconds": 0}, "seconds=0"),
        ({"seconds": -1.0}, "seconds=-1"),
        ({"seconds": float("nan")}, "seconds=nan"),
        ({"segments": 0}, "segments=0"),
        ({"fps": 0}, "fps=0"),
        ({"fps": 1000}, "fps=1000"),
        ({"fps": 1.5}, "1.5 frames a segment: expected a whole number"),
        ({"fps": 0.5}, "0.5 frames a segment: expected a whole number"),
        ({"segments": 20, "fps": 2}, "segments of 0.5 s are too short for 'vggish', which hears 0.975 s"),
        ({"audio_backbone": "resnet18"}, "which reads pictures"),
        ({"visual_backbone": "vggish"}, "which reads sound"),
    ],
    ids=str,
)
def test_numbers_out_of_range(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(AvzooError, match=words):
        numbers(**changes)


def test_an_unknown_backbone_gets_the_nearest() -> None:
    with pytest.raises(UnknownModelError, match="did you mean 'vggish'"):
        numbers(audio_backbone="vgg-ish")


@pytest.mark.parametrize(
    ("changes", "times"),
    [
        ({}, [k + 0.5 for k in range(10)]),
        ({"fps": 2}, [k / 2 for k in range(20)]),
        ({"fps": 3}, [k + j / 3 for k in range(10) for j in range(3)]),
        ({"segments": 5, "fps": 0.5}, [1.0, 3.0, 5.0, 7.0, 9.0]),
        ({"segments": 5, "fps": 1}, [float(k) for k in range(10)]),
        ({"seconds": 2, "segments": 1, "fps": 0.5}, [1.0]),
    ],
    ids=str,
)
def test_frame_times(changes: dict[str, Any], times: list[float]) -> None:
    p = numbers(**changes)
    assert p.frame_times() == pytest.approx(times)
    per_segment = len(times) // p.segments
    for index, time in enumerate(p.frame_times()):  # a frame belongs to the segment it is averaged into
        assert int((time + 1e-9) / p.segment_seconds) == index // per_segment


# -- the fingerprint -------------------------------------------------------------------------------------------------

BASE = Preprocess(**NAMES)
LONG_TERM = Preprocess(audio_kind="scalogram", visual_backbone="tf_efficientnet_lite0", visual_kind="frame")
CHANGES: dict[str, dict[str, tuple[Preprocess, Any]]] = {  # whose number it is, and another value of it
    "both": {"seconds": (BASE, 20.0), "segments": (BASE, 5)},
    "audio": {
        "audio_kind": (LONG_TERM, "fbank"),
        "audio_backbone": (BASE, "other-sound"),
        "sample_rate": (BASE, 22_050),
        "n_fft": (BASE, 1024),
        "window": (BASE, 320),
        "hop": (BASE, 80),
        "mels": (BASE, 32),
        "bands": (LONG_TERM, 100),
        "bank": (LONG_TERM, "geometric"),
        "f_min": (BASE, 50.0),
        "f_max": (BASE, 7000.0),
        "log_offset": (BASE, 0.001),
        "frames": (BASE, 90),
        "clip_stft": (LONG_TERM, True),
    },
    "visual": {
        "fps": (BASE, 2.0),
        "visual_kind": (BASE, "image"),
        "visual_backbone": (BASE, "resnet18"),
        "size": (BASE, 192),
        "interpolation": (BASE, "bilinear"),
        "mean": (BASE, (0.1, 0.2, 0.3)),
        "std": (BASE, (0.1, 0.2, 0.3)),
        "pool": (BASE, "max"),
    },
}


def fingerprints(p: Preprocess) -> tuple[str, str]:
    return p.fingerprint("audio"), p.fingerprint("visual")


def test_the_fingerprints_change_with_every_number_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    find = module.backbones.find

    def with_another(name: str) -> module.backbones.Backbone:
        return dataclasses.replace(find("vggish"), name=name) if name == "other-sound" else find(name)

    monkeypatch.setattr(module.backbones, "find", with_another)
    fields = {f.name for f in dataclasses.fields(Preprocess)}
    assert sorted(key for changes in CHANGES.values() for key in changes) == sorted(fields)
    seen = {*fingerprints(BASE), *fingerprints(LONG_TERM)}
    assert len(seen) == 4
    for whose, changes in CHANGES.items():
        for key, (base, value) in changes.items():
            changed, before = fingerprints(dataclasses.replace(base, **{key: value})), fingerprints(base)
            assert (changed[0] != before[0]) == (whose != "visual"), key
            assert (changed[1] != before[1]) == (whose != "audio"), key
            new = set(changed) - set(before)
            assert not new & seen, key
            assert all(len(print_) == 16 and int(print_, 16) >= 0 for print_ in new)
            seen |= new


def test_the_numbers_of_a_modality_are_those_in_its_fingerprint() -> None:
    for whose, other in (("audio", "visual"), ("visual", "audio")):
        numbers_ = BASE.numbers(whose)  # type: ignore[arg-type]
        assert set(numbers_) == {*CHANGES["both"], *CHANGES[whose]}
        assert not set(numbers_) & set(CHANGES[other])
        assert numbers_ == {key: BASE.to_dict()[key] for key in numbers_}


@pytest.mark.parametrize("name", NAMES.values())
def test_the_fingerprint_changes_with_the_weights_and_with_the_code(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    p = Preprocess(**NAMES)
    before = fingerprints(p)
    heard = name == NAMES["audio_backbone"]
    find = module.backbones.find

    def retrained(asked: str) -> module.backbones.Backbone:
        return dataclasses.replace(find(asked), weights="sha256:00") if asked == name else find(asked)

    with monkeypatch.context() as patch:
        patch.setattr(module.backbones, "find", retrained)
        after = fingerprints(p)
        assert (after[0] != before[0], after[1] != before[1]) == (heard, not heard)
    assert fingerprints(p) == before
    monkeypatch.setattr(module, "SIGNAL_PATH_VERSION", module.SIGNAL_PATH_VERSION + 1)
    assert not set(fingerprints(p)) & set(before)


def test_equal_numbers_have_one_fingerprint() -> None:
    """However they were written: YAML's 10 is the signature's 10.0."""
    p = numbers(seconds=10, fps=1, f_min=125, mean=[0, 0, 0])
    assert p == numbers(seconds=10.0, fps=1.0, f_min=125.0, mean=(0.0, 0.0, 0.0))
    assert fingerprints(p) == fingerprints(numbers(mean=(0.0, 0.0, 0.0)))
    assert fingerprints(numbers(sample_rate=16_000)) == fingerprints(numbers())


def test_the_fingerprint_is_the_same_in_another_process() -> None:
    code = f"from avzoo.preprocess import Preprocess as P; print(*map(P(**{NAMES!r}).fingerprint, ('audio', 'visual')))"
    here = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(__file__).parents[1])}
    there = subprocess.run([sys.executable, "-c", code], env=here, capture_output=True, text=True, check=True)
    assert tuple(there.stdout.split()) == fingerprints(Preprocess(**NAMES))


# -- the path --------------------------------------------------------------------------------------------------------


class Ear(nn.Module):
    """Loudest and mean log-mel of a segment."""

    def forward(self, spectrogram: Tensor) -> Tensor:
        return torch.stack([spectrogram.amax((1, 2, 3)), spectrogram.mean((1, 2, 3))], -1)


class Eye(nn.Module):
    """Mean colour of an image."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))


@pytest.fixture(autouse=True)
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands in for the two backbones; the names that were built."""
    names: list[str] = []

    def build(name: str, pool: str = "") -> nn.Module:  # noqa: ARG001
        names.append(name)
        return Ear().eval() if name == "vggish" else Eye().eval()

    monkeypatch.setattr(module.backbones, "build", build)
    return names


def clip(p: Preprocess, *, rate: int = 16_000, channels: int = 1, size: tuple[int, int] = (32, 32)) -> Clip:
    """Silence and black."""
    times = torch.tensor(p.frame_times(), dtype=torch.float64)
    frames = torch.zeros(len(times), 3, *size, dtype=torch.uint8)
    return Clip(frames, times, torch.zeros(channels, round(p.seconds * rate)), rate, "a clip")


def test_shapes_and_determinism(built: list[str]) -> None:
    p = numbers()
    generator = torch.Generator().manual_seed(0)
    blank = clip(p, rate=44_100, channels=2, size=(37, 53))
    given = dataclasses.replace(
        blank,
        waveform=torch.randn(blank.waveform.shape, generator=generator),
        frames=torch.randint(256, blank.frames.shape, dtype=torch.uint8, generator=generator),
    )
    copies = given.waveform.clone(), given.frames.clone()
    path = Preprocessor(p)
    assert built == []
    sample = path(given)
    assert sample.audio.shape == (10, 2)
    assert sample.visual.shape == (10, 3)
    assert sample.audio.dtype == sample.visual.dtype == torch.float32
    assert path.log_mel(given.waveform, given.sample_rate).shape == (10, 1, 64, 96)
    assert path.images(given).shape == (10, 3, 32, 32)
    for again in (path(given), Preprocessor(p)(given)):
        assert torch.equal(again.audio, sample.audio)
        assert torch.equal(again.visual, sample.visual)
    assert built == ["vggish", "tf_efficientnet_lite0"] * 2  # once a preprocessor, not once a clip
    assert torch.equal(given.waveform, copies[0])
    assert torch.equal(given.frames, copies[1])
    assert not sample.audio.requires_grad
    weight = torch.ones(2, requires_grad=True)
    (sample.audio * weight).sum().backward()  # an inference tensor could not be saved for backward
    assert weight.grad is not None


@pytest.mark.parametrize("changes", [{}, {"seconds": 6, "segments": 3}, {"segments": 6, "fps": 0.6}], ids=str)
def test_a_sound_reaches_its_own_segment_only(changes: dict[str, Any]) -> None:
    """From the first to the last sample that the backbone hears of it; 10 s / 6 is no whole number of samples."""
    p = numbers(**changes)
    length = int(p.seconds * 16_000) // p.segments
    heard = 95 * 160 + 400
    silent = clip(p)
    for k in (0, 1, p.segments - 1):
        for begin in (k * length, k * length + heard - 300):
            waveform = silent.waveform.clone()
            waveform[:, begin : begin + 300] = 0.5
            loudest = Preprocessor(p)(dataclasses.replace(silent, waveform=waveform)).audio[:, 0]
            others = torch.arange(p.segments) != k
            assert loudest[k] > SILENT + 1
            torch.testing.assert_close(loudest[others], torch.full((p.segments - 1,), SILENT))


def test_resampling_keeps_the_seconds_apart() -> None:
    p = numbers()
    for rate in (8_000, 22_050, 44_100, 48_000):
        given = clip(p, rate=rate, channels=2)
        given.waveform[0, int(3.3 * rate) : int(3.6 * rate)] = torch.randn(int(3.6 * rate) - int(3.3 * rate))
        loudest = Preprocessor(p)(given).audio[:, 0]
        assert loudest.argmax() == 3
        assert (loudest[[*range(3), *range(4, 10)]] < SILENT + 0.01).all()


def test_the_spectrogram_is_the_backbones_own() -> None:
    p = numbers()
    given = clip(p, channels=2)
    given.waveform.normal_(generator=torch.Generator().manual_seed(0))
    bank = mel_bank(sample_rate=16_000, n_fft=512, n_mels=64, f_min=125.0, f_max=7500.0, linear_in="mel")
    second = given.waveform.mean(0)[7 * 16_000 : 8 * 16_000]
    expected = log_mel(second, bank, n_fft=512, win_length=400, hop_length=160, offset=0.01)[:, :96]
    torch.testing.assert_close(Preprocessor(p).log_mel(given.waveform, given.sample_rate)[7, 0], expected)


def test_one_frame_a_segment() -> None:
    p = numbers()
    given = clip(p)
    given.frames[:] = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1) * 20
    expected = (torch.arange(10) * 20 / 255 - 0.5) / 0.5
    torch.testing.assert_close(Preprocessor(p)(given).visual, expected[:, None].expand(10, 3))


def test_several_frames_a_segment_are_averaged() -> None:
    p = numbers(seconds=3, segments=3, fps=2)
    given = clip(p)
    values = torch.tensor([0, 255, 51, 51, 0, 102], dtype=torch.uint8)
    given.frames[:] = values.view(6, 1, 1, 1)
    expected = torch.tensor([0.0, -0.6, -0.6])  # of 0.5, 0.2 and 0.2
    torch.testing.assert_close(Preprocessor(p)(given).visual, expected[:, None].expand(3, 3))


def test_colours_are_normalised_in_rgb_order() -> None:
    p = numbers(mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0))
    given = clip(p)
    given.frames[:, 0], given.frames[:, 1], given.frames[:, 2] = 255, 51, 0
    expected = torch.tensor([(1 - 0.1) / 0.5, (0.2 - 0.2) / 1.0, -0.3 / 2.0])
    torch.testing.assert_close(Preprocessor(p)(given).visual[4], expected)


@pytest.mark.parametrize("size", [(37, 53), (53, 37), (1, 1), (720, 64), (32, 31)], ids=str)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_pictures_of_any_size_are_resized_whole(size: tuple[int, int], interpolation: str) -> None:
    """Neither cropped nor turned: left is dark, right is bright, and both edges are still there."""
    p = numbers(interpolation=interpolation)
    given = clip(p, size=size)
    ramp = torch.linspace(0, 255, size[1]).to(torch.uint8)
    given.frames[:] = ramp
    images = Preprocessor(p).images(given)
    assert images.shape == (10, 3, 32, 32)
    assert images.dtype == torch.uint8
    if size[1] > 1:
        assert images[..., 0].max() < 19
        assert images[..., -1].min() > 236
        torch.testing.assert_close(images[..., 0, :], images[..., -1, :], atol=2, rtol=0)


def test_the_interpolation_matters_and_brightness_is_never_guessed() -> None:
    given = clip(numbers(), size=(48, 48))
    given.frames[..., ::5] = 12  # almost black stays almost black
    soft, sharp = (Preprocessor(numbers(interpolation=way)).images(given) for way in ("bilinear", "bicubic"))
    assert not torch.equal(soft, sharp)
    assert sharp.max() < 19


@pytest.mark.parametrize("off", [-1, 1])
def test_a_clip_of_another_length_is_refused(off: int) -> None:
    p = numbers()
    given = clip(p, rate=8_000)
    short = dataclasses.replace(given, waveform=torch.zeros(1, 80_000 + off))
    with pytest.raises(AvzooError, match=rf"a clip: {80_000 + off} samples at 8000 Hz, expected 80000 \(10 s\)"):
        Preprocessor(p)(short)
    few = dataclasses.replace(given, frames=torch.zeros(10 + off, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(AvzooError, match=rf"a clip: {10 + off} frames, expected 10 \(1 a second\)"):
        Preprocessor(p)(few)


def test_a_window_of_a_file_reaches_the_right_segments(tmp_path: Path) -> None:
    """From an encoded file: the frame of second k is the picture at k + 0.5 s, and a click stays in its second."""

    def brightness(index: int, size: tuple[int, int]) -> Any:
        return np.full((*size, 3), 40 * (index // 10) + 20, dtype=np.uint8)

    video = Picture(codec="mpeg4", fps=10, seconds=5, render=brightness, b_frames=0)
    path = write_media(tmp_path / "clip.mkv", video, Sound(codec="pcm_s16le", format="s16", seconds=5, clicks=(3.4,)))
    p = numbers(seconds=3, segments=3)
    window = read_window(path, p, start=1.0)
    assert window.frame_times.tolist() == [0.5, 1.5, 2.5]
    assert window.start == 1.0
    sample = Preprocessor(p)(window)
    assert sample.audio[:, 0].argmax() == 2
    assert (sample.audio[:2, 0] < SILENT + 0.5).all()
    shown = (sample.visual.mean(1) * 0.5 + 0.5) * 255
    torch.testing.assert_close(shown, torch.tensor([60.0, 100.0, 140.0]), atol=6, rtol=0)


# -- sound that the model itself reads -------------------------------------------------------------------------------

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


def test_either_modality_alone(silent_video: Path, tmp_path: Path, built: list[str]) -> None:
    soundfile.write(tmp_path / "s.wav", stereo(), 16_000)
    p = heard_by("log_mel")
    seen = Preprocessor(p)(read_window(silent_video, p, audio=False), audio=False)
    assert seen.audio is None
    assert seen.visual.shape == (2, 3)
    assert built == ["tf_efficientnet_lite0"]  # what is not asked for is not built
    heard = Preprocessor(p)(read_window(tmp_path / "s.wav", p, visual=False), visual=False)
    assert heard.visual is None
    assert heard.audio.shape == (2, 2)
    assert built == ["tf_efficientnet_lite0", "vggish"]


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
    features = module.normalise(images, p).mean((2, 3)).unflatten(0, (2, 2))
    torch.testing.assert_close(seen, features if kind == "frame" else features.mean(1))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"audio_kind": "mfcc"}, "audio_kind is 'mfcc', expected one of"),
        ({"audio_kind": "gammatone", "audio_backbone": "vggish"}, "would never run: leave it out"),
        ({"visual_kind": "clip"}, "visual_kind is 'clip'"),
        ({"pool": "mean"}, "pool is 'mean'"),
        ({"audio_kind": "scalogram", "bank": "haar"}, "bank is 'haar'"),
        ({"audio_kind": "gammatone", "hop": 900}, "the columns of a clip are cut into its segments"),
        ({"clip_stft": True}, "given 'log_mel'"),
        ({"audio_kind": "fbank", "clip_stft": True, "segments": 5}, "segments of 2 s"),
        ({"audio_kind": "scalogram", "bands": -1}, "bands=-1"),
    ],
    ids=str,
)
def test_numbers_of_front_ends_out_of_range(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(AvzooError, match=words):
        Preprocess(**changes)


# -- a sound that does not belong to its video -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long")
    return write_media(folder / "v.mp4", Picture(codec="mpeg4", fps=2, size=(32, 32), seconds=30, b_frames=0))


@pytest.mark.parametrize("start", [0.0, 20.0, 27.0])
@pytest.mark.parametrize("seconds", [15.0, 29.4, 30.6, 45.0])
@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_lengths_that_differ_are_damage(
    start: float, seconds: float, suffix: str, long_video: Path, tmp_path: Path
) -> None:
    """Wherever the window lies, be it within both files."""
    path = tmp_path / f"s.{suffix}"
    soundfile.write(path, 0 * stereo(seconds, 8000) + 0.25, 8000)
    p = heard_by("gammatone")
    words = rf"v\.mp4 lasts 30\.00 s and its sound, .*s\.{suffix}, {seconds:.2f} s: .*on_damage=\"pad\""
    with pytest.raises(MediaError, match=words):
        read_window(long_video, p, start=start, audio_path=path)
    clip_ = read_window(long_video, p, start=start, audio_path=path, on_damage="pad")
    assert "do not belong together" in clip_.damage
    assert len(clip_.frames) == 2
    left = min(max(seconds - start, 0), 2)
    assert clip_.padded == pytest.approx(2 - left, abs=0.01)
    assert clip_.waveform.shape[-1] == 2 * clip_.sample_rate
    there = round(left * clip_.sample_rate)
    assert (clip_.waveform[:, there:] == 0).all()
    assert (clip_.waveform[:, :there] > 0.2).all()


@pytest.mark.parametrize("seconds", [29.6, 30.0, 30.4])
def test_lengths_that_nearly_agree_are_not(seconds: float, long_video: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "s.wav", stereo(seconds, 8000), 8000)
    p = heard_by("gammatone")
    for start in (0.0, 28.0):
        assert read_window(long_video, p, start=start, audio_path=tmp_path / "s.wav").damage == ""
    only = read_window(long_video, p, start=28.0, audio_path=tmp_path / "s.wav", visual=False)
    assert only.damage == ""
    assert only.padded == pytest.approx(max(0, 30 - seconds), abs=0.01)


def test_the_lengths_are_read_from_headers_alone(
    long_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "s.wav", stereo(45, 8000), 8000)
    monkeypatch.setattr("avzoo.clip._read", lambda *_: pytest.fail("the files were read"))
    with pytest.raises(MediaError, match="lasts 30"):
        read_window(long_video, heard_by("gammatone"), audio_path=tmp_path / "s.wav")


def test_a_sound_in_a_container_beside_the_video(long_video: Path, tmp_path: Path) -> None:
    p = heard_by("gammatone")
    for seconds, damaged in ((30.0, False), (20.0, True)):
        path = write_media(tmp_path / f"{seconds:g}.mka", Sound(codec="aac", seconds=seconds))
        clip_ = read_window(long_video, p, audio_path=path, on_damage="pad")
        assert bool(clip_.damage) == damaged
