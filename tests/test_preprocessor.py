"""The one path from a clip to what a model eats: what reaches which segment."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from media import Picture, Sound, write_media

from avzoo.audio import log_mel, mel_bank
from avzoo.clip import Clip
from avzoo.errors import AvzooError
from avzoo.preprocess import Preprocess, Preprocessor, read_window

NAMES = {"audio_backbone": "vggish", "visual_backbone": "tf_efficientnet_lite0"}
SILENT = math.log(0.01)

pytestmark = pytest.mark.usefixtures("ear_and_eye")


def numbers(**changes: Any) -> Preprocess:
    return Preprocess(**{**NAMES, "size": 32, **changes})


def clip(p: Preprocess, *, rate: int = 16_000, channels: int = 1, size: tuple[int, int] = (32, 32)) -> Clip:
    """Silence and black."""
    times = torch.tensor(p.frame_times(), dtype=torch.float64)
    frames = torch.zeros(len(times), 3, *size, dtype=torch.uint8)
    return Clip(frames, times, torch.zeros(channels, round(p.seconds * rate)), rate, "a clip")


def test_shapes_and_determinism(ear_and_eye: list[str]) -> None:
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
    assert ear_and_eye == []
    sample = path(given)
    assert sample.audio.shape == (10, 2)
    assert sample.visual.shape == (10, 3)
    assert sample.audio.dtype == sample.visual.dtype == torch.float32
    assert path.log_mel(given.waveform, given.sample_rate).shape == (10, 1, 64, 96)
    assert path.images(given).shape == (10, 3, 32, 32)
    for again in (path(given), Preprocessor(p)(given)):
        assert torch.equal(again.audio, sample.audio)
        assert torch.equal(again.visual, sample.visual)
    assert ear_and_eye == ["vggish", "tf_efficientnet_lite0"] * 2  # once a preprocessor, not once a clip
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
