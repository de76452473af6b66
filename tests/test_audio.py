"""Log-mel, mono and resampling; and the banks of every front-end, whatever mode they were first made in."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from avzoo.audio import log_mel, mel_bank, mono, resample
from avzoo.audio.gammatone import _bank
from avzoo.errors import AvzooError

VGGISH: dict[str, Any] = {"sample_rate": 16_000, "n_fft": 512, "n_mels": 64, "f_min": 125.0, "f_max": 7500.0}


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("win_length", [400, 512])
def test_log_mel_equals_librosa(win_length: int) -> None:
    librosa = pytest.importorskip("librosa")
    wave = 0.1 * noise(2, 16_000)
    expected = librosa.feature.melspectrogram(
        y=wave.numpy(), sr=16_000, n_fft=512, win_length=win_length, hop_length=160, power=1.0, center=False,
        n_mels=64, fmin=50.0, fmax=8000.0, htk=True, norm=None,
    )  # fmt: skip
    bank = mel_bank(sample_rate=16_000, n_fft=512, n_mels=64, f_min=50.0, f_max=8000.0)
    begin = (512 - win_length) // 2  # librosa's window lies in the middle of n_fft
    ours = log_mel(wave[:, begin:], bank, n_fft=512, win_length=win_length, hop_length=160, offset=1e-3)[..., :97]
    assert ours.shape == (2, 64, 97)
    torch.testing.assert_close(ours, torch.from_numpy(np.log(expected + 1e-3)).float(), atol=1e-4, rtol=0)


def test_log_mel_is_the_audioset_front_end() -> None:
    """`mel_features.py` of the AudioSet code, written out in numpy: frames, periodic Hann, rfft, its own mel matrix."""
    wave = noise(16_000).double().numpy()
    window = 0.5 - 0.5 * np.cos(2 * np.pi / 400 * np.arange(400))
    frames = np.stack([wave[i * 160 : i * 160 + 400] for i in range(1 + (16_000 - 400) // 160)])
    magnitude = np.abs(np.fft.rfft(frames * window, 512))
    mel = 1127 * np.log(1 + np.linspace(0, 8000, 257) / 700)
    edges = np.linspace(1127 * np.log(1 + 125 / 700), 1127 * np.log(1 + 7500 / 700), 66)
    matrix = np.zeros((257, 64))
    for i in range(64):
        low, centre, high = edges[i : i + 3]
        matrix[:, i] = np.maximum(0, np.minimum((mel - low) / (centre - low), (high - mel) / (high - centre)))
    matrix[0] = 0
    bank = mel_bank(**VGGISH, linear_in="mel")
    torch.testing.assert_close(bank, torch.from_numpy(matrix).float(), atol=1e-6, rtol=0)
    ours = log_mel(torch.from_numpy(wave).float(), bank, n_fft=512, win_length=400, hop_length=160, offset=0.01)
    expected = torch.from_numpy(np.log(magnitude @ matrix + 0.01).T).float()
    assert ours.shape == (64, 98)
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("mode", [torch.inference_mode, lambda: torch.device("meta")], ids=["inference", "meta"])
def test_a_bank_first_made_in_another_mode_serves_training_later(mode: Callable[..., Any]) -> None:
    def make() -> list[torch.Tensor]:
        return [mel_bank(**VGGISH, linear_in="mel"), *_bank(8000, 4, 0.0, 4000.0)]

    for cached in (mel_bank, _bank):
        cached.cache_clear()
    with mode():
        make()
    assert not any(bank.is_inference() or bank.is_meta for bank in make())


def test_the_two_kinds_of_triangles_differ() -> None:
    assert (mel_bank(**VGGISH) - mel_bank(**VGGISH, linear_in="mel")).abs().max() > 1e-3


def test_log_mel_of_silence_is_the_log_of_the_offset_and_leading_dimensions_stay() -> None:
    out = log_mel(torch.zeros(2, 3, 800), mel_bank(**VGGISH), n_fft=512, win_length=400, hop_length=160, offset=0.01)
    assert out.shape == (2, 3, 64, 3)
    torch.testing.assert_close(out, torch.full_like(out, math.log(0.01)))


def test_a_tone_lights_its_own_filter() -> None:
    bank = mel_bank(**VGGISH)
    tone = torch.sin(2 * math.pi * 1000 * torch.arange(16_000) / 16_000)
    loudest = log_mel(tone, bank, n_fft=512, win_length=400, hop_length=160, offset=0.01).mean(-1).argmax()
    assert bank[:, loudest].argmax() * 16_000 / 512 == pytest.approx(1000, abs=32)


def test_resample_keeps_a_tone_and_returns_its_input_at_equal_rates() -> None:
    wave = torch.sin(2 * math.pi * 440 * torch.arange(44_100) / 44_100).expand(2, -1)
    expected = torch.sin(2 * math.pi * 440 * torch.arange(16_000) / 16_000)
    resampled = resample(wave, 44_100, 16_000)
    assert resampled.shape == (2, 16_000)
    torch.testing.assert_close(resampled[1, 100:-100], expected[100:-100], atol=1e-2, rtol=0)
    assert resample(wave, 44_100, 44_100) is wave


def test_mono_is_the_mean_of_the_channels() -> None:
    wave = noise(2, 100)
    torch.testing.assert_close(mono(wave), (wave[0] + wave[1]) / 2)


def test_bad_shapes_and_numbers_say_what_was_expected() -> None:
    bank = mel_bank(**VGGISH)
    numbers: dict[str, Any] = {"n_fft": 512, "win_length": 400, "hop_length": 160, "offset": 0.01}
    with pytest.raises(AvzooError, match=r"\[channels, samples\]"):
        mono(torch.zeros(100))
    with pytest.raises(AvzooError, match="with samples"):
        resample(torch.zeros(2, 0), 44_100, 16_000)
    with pytest.raises(AvzooError, match="positive"):
        resample(torch.zeros(2, 10), 0, 16_000)
    with pytest.raises(AvzooError, match="half the sample rate"):
        mel_bank(sample_rate=16_000, n_fft=512, n_mels=64, f_min=0.0, f_max=9000.0)
    with pytest.raises(AvzooError, match=r"\[513, mels\]"):
        log_mel(torch.zeros(16_000), bank, **(numbers | {"n_fft": 1024}))
    with pytest.raises(AvzooError, match="pad it with zeros first"):
        log_mel(torch.zeros(399), bank, **numbers)
    with pytest.raises(AvzooError, match="offset"):
        log_mel(torch.zeros(16_000), bank, **(numbers | {"offset": 0.0}))
