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

import pytest
import torch
from media import Picture, Sound, write_media
from torch import Tensor, nn

from avzoo import preprocess as module
from avzoo.audio import log_mel, mel_bank
from avzoo.clip import Clip
from avzoo.errors import AvzooError, UnknownModelError
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
    assert again.fingerprint() == p.fingerprint()
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
        ({"audio_backbone": "resnet18"}, "must read sound"),
        ({"visual_backbone": "vggish"}, "second pictures"),
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

CHANGES: dict[str, Any] = {
    "seconds": 20.0,
    "segments": 5,
    "fps": 2.0,
    "audio_backbone": "other-sound",
    "visual_backbone": "resnet18",
    "sample_rate": 22_050,
    "n_fft": 1024,
    "window": 320,
    "hop": 80,
    "mels": 32,
    "f_min": 50.0,
    "f_max": 7000.0,
    "log_offset": 0.001,
    "frames": 90,
    "size": 192,
    "interpolation": "bilinear",
    "mean": (0.1, 0.2, 0.3),
    "std": (0.1, 0.2, 0.3),
}


def test_the_fingerprint_changes_with_every_number(monkeypatch: pytest.MonkeyPatch) -> None:
    find = module.backbones.find

    def with_another(name: str) -> module.backbones.Backbone:
        return dataclasses.replace(find("vggish"), name=name) if name == "other-sound" else find(name)

    monkeypatch.setattr(module.backbones, "find", with_another)
    base = Preprocess(**NAMES)
    assert set(CHANGES) == {f.name for f in dataclasses.fields(Preprocess)}
    prints = {dataclasses.replace(base, **{key: value}).fingerprint() for key, value in CHANGES.items()}
    assert len(prints | {base.fingerprint()}) == len(CHANGES) + 1
    assert all(len(print_) == 16 and int(print_, 16) >= 0 for print_ in prints)


@pytest.mark.parametrize("name", NAMES.values())
def test_the_fingerprint_changes_with_the_weights_and_with_the_code(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    p = Preprocess(**NAMES)
    before = p.fingerprint()
    find = module.backbones.find

    def retrained(asked: str) -> module.backbones.Backbone:
        return dataclasses.replace(find(asked), weights="sha256:00") if asked == name else find(asked)

    with monkeypatch.context() as patch:
        patch.setattr(module.backbones, "find", retrained)
        assert p.fingerprint() != before
    assert p.fingerprint() == before
    monkeypatch.setattr(module, "SIGNAL_PATH_VERSION", module.SIGNAL_PATH_VERSION + 1)
    assert p.fingerprint() != before


def test_equal_numbers_have_one_fingerprint() -> None:
    """However they were written: YAML's 10 is the signature's 10.0."""
    p = numbers(seconds=10, fps=1, f_min=125, mean=[0, 0, 0])
    assert p == numbers(seconds=10.0, fps=1.0, f_min=125.0, mean=(0.0, 0.0, 0.0))
    assert p.fingerprint() == numbers(mean=(0.0, 0.0, 0.0)).fingerprint()
    assert numbers(sample_rate=16_000).fingerprint() == numbers().fingerprint()


def test_the_fingerprint_is_the_same_in_another_process() -> None:
    code = f"from avzoo.preprocess import Preprocess; print(Preprocess(**{NAMES!r}).fingerprint())"
    here = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(__file__).parents[1])}
    there = subprocess.run([sys.executable, "-c", code], env=here, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == Preprocess(**NAMES).fingerprint()


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

    def build(name: str) -> nn.Module:
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
    assert path.log_mel(given).shape == (10, 1, 64, 96)
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
    torch.testing.assert_close(Preprocessor(p).log_mel(given)[7, 0], expected)


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
    if size[1] > 1:
        assert images[..., 0].max() < -0.85
        assert images[..., -1].min() > 0.85
        torch.testing.assert_close(images[..., 0, :], images[..., -1, :], atol=0.02, rtol=0)


def test_the_interpolation_matters_and_brightness_is_never_guessed() -> None:
    given = clip(numbers(), size=(48, 48))
    given.frames[..., ::5] = 12  # almost black stays almost black
    soft, sharp = (Preprocessor(numbers(interpolation=way)).images(given) for way in ("bilinear", "bicubic"))
    assert not torch.equal(soft, sharp)
    assert sharp.max() < -0.85


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
        import numpy as np

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
