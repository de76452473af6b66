from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from gammatone.gtgram import gtgram
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from avzoo.audio.gammatone import binaural_gammatone, erb_centres, gammatone, scale_crop
from avzoo.errors import AvzooError

RATE = 44_100
PAPER: dict[str, Any] = {
    "sample_rate": RATE,
    "window": 1764,
    "hop": 882,
    "bands": 64,
    "f_min": 0.0,
    "f_max": 22_050.0,
}
SMALL = PAPER | {"bands": 6}


def seconds(duration: float) -> Tensor:
    return torch.arange(int(duration * RATE), dtype=torch.float64) / RATE


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tone(hz: float, duration: float = 2.0) -> Tensor:
    return 0.5 * torch.sin(2 * math.pi * hz * seconds(duration))


def chirp() -> Tensor:
    time = seconds(3.0)  # one second per decade: 20 Hz to 20 kHz
    return 0.5 * torch.sin(2 * math.pi * 20 / math.log(10) * (10**time - 1))


def speech() -> Tensor:
    """Buzzing syllables at 120 Hz, hisses between them, a little rumble and a constant below."""
    time = seconds(2.0)
    buzz = sum(torch.sin(2 * math.pi * 120 * k * time) / k for k in range(1, 30))
    syllables = torch.sin(2 * math.pi * 4 * time).clamp(min=0)
    return 0.1 * syllables * buzz + 0.02 * (1 - syllables) * noise(len(time)) + 0.05 * tone(31) + 0.01


def clicks() -> Tensor:
    train = torch.zeros(2 * RATE, dtype=torch.float64)
    train[[5, 1763, 30_000, 61_234, 2 * RATE - 1]] = torch.tensor([1.0, -0.7, 0.3, 1.0, 0.9], dtype=torch.float64)
    return train


SIGNALS: dict[str, Tensor] = {
    "noise": 0.1 * noise(2 * RATE),
    "tone of 17 Hz": tone(17),
    "tone of 440 Hz": tone(440),
    "tone of 10 kHz": tone(10_000),
    "tone of 20 kHz": tone(20_000),
    "chirp": chirp(),
    "speech": speech(),
    "clicks": clicks(),
    "constant": torch.full((2 * RATE,), 0.25, dtype=torch.float64),
}


def reference(waveform: Tensor, numbers: dict[str, Any] = PAPER) -> Tensor:
    """The PyPI package `gammatone`; its rows go from low to high."""
    rate = numbers["sample_rate"]
    durations = numbers["window"] / rate, numbers["hop"] / rate
    rows = gtgram(waveform.numpy(), rate, *durations, numbers["bands"], numbers["f_min"], numbers["f_max"])
    return torch.from_numpy(np.flipud(rows).copy())


def furthest(ours: Tensor, theirs: Tensor) -> float:
    """The largest distance in any channel, as a share of the channel's largest value."""
    assert ours.shape == theirs.shape
    return float(((ours - theirs).abs().amax(-1) / theirs.amax(-1)).max())


@pytest.mark.parametrize("name", SIGNALS)
def test_every_channel_equals_the_reference(name: str) -> None:
    signal = SIGNALS[name]
    theirs = reference(signal)
    assert theirs[-1].max() > 0  # the 0 Hz channel is compared, not skipped
    assert furthest(gammatone(signal, **PAPER), theirs) < 1e-6
    assert furthest(gammatone(signal.float(), **PAPER).double(), reference(signal.float().double())) < 1e-5


@pytest.mark.parametrize(
    ("samples", "numbers"),
    [
        (8000, {"sample_rate": 8000, "window": 320, "hop": 160, "bands": 20, "f_min": 50.0, "f_max": 4000.0}),
        (7001, {"sample_rate": 16_000, "window": 401, "hop": 100, "bands": 5, "f_min": 0.0, "f_max": 6000.0}),
        (500, {"sample_rate": 16_000, "window": 25, "hop": 70, "bands": 3, "f_min": 1e-3, "f_max": 8000.0}),
        (40, {"sample_rate": 48_000, "window": 40, "hop": 7, "bands": 1, "f_min": 0.0, "f_max": 24_000.0}),
    ],
)
def test_other_rates_and_windows_equal_the_reference(samples: int, numbers: dict[str, Any]) -> None:
    signal = noise(samples)
    ours = gammatone(signal, **numbers)
    assert ours.shape == (numbers["bands"], 1 + (samples - numbers["window"]) // numbers["hop"])
    assert furthest(ours, reference(signal, numbers)) < 1e-6


def test_centres_are_the_papers_from_high_to_low() -> None:
    centres = erb_centres(64, 0.0, 22_050.0)
    assert centres.dtype == torch.float64
    assert centres.shape == (64,)
    assert bool((centres.diff() < 0).all())
    assert [round(hz, 1) for hz in centres[:3].tolist()] == [20_511.9, 19_080.0, 17_746.9]
    assert [round(hz, 3) for hz in centres[-3:].tolist()] == [35.198, 16.970, 0.0]
    assert float(centres[-1]) == 0


@pytest.mark.parametrize("row", [0, 20, 40, 60])
def test_a_tone_at_a_centre_is_loudest_in_its_row_and_passes_whole(row: int) -> None:
    level = gammatone(tone(float(erb_centres(64, 0.0, 22_050.0)[row]), 1.0), **PAPER)[:, 30:].mean(-1)
    assert int(level.argmax()) == row
    assert float(level[row]) == pytest.approx(0.5 / math.sqrt(2), rel=0.03)  # 40 ms cut the lower tones unevenly


def test_shapes_and_types() -> None:
    ten_seconds = 0.1 * noise(10 * RATE).float()
    native = gammatone(ten_seconds, **SMALL)
    assert native.shape == (6, 499)
    assert native.dtype == torch.float32
    assert gammatone(ten_seconds.double(), **SMALL).dtype == torch.float64
    # 881 samples more make no column and change nothing.
    torch.testing.assert_close(gammatone(torch.cat([ten_seconds, torch.ones(881)]), **SMALL), native)
    whole = binaural_gammatone(ten_seconds[None], **SMALL, columns=500)
    assert whole.shape == (3, 6, 500)
    assert whole.dtype == torch.float32
    assert torch.equal(whole[..., 499], whole[..., 498])
    assert torch.equal(binaural_gammatone(ten_seconds[None], **SMALL, columns=50), whole[..., :50])
    # With 882 samples more there is a 500th column, and nothing is doubled.
    longer = binaural_gammatone(torch.cat([ten_seconds, 0.1 * noise(882).float()])[None], **SMALL, columns=500)
    assert not torch.equal(longer[..., 499], longer[..., 498])


def test_a_batch_equals_its_members() -> None:
    batch = noise(2, 3, RATE // 2)
    together = gammatone(batch, **SMALL)
    assert together.shape == (2, 3, 6, 24)
    for i in range(2):
        for j in range(3):
            assert furthest(together[i, j], gammatone(batch[i, j], **SMALL)) < 1e-10


def test_left_right_and_difference_in_decibels() -> None:
    ears = 0.1 * noise(2, RATE)
    ears[0] += tone(300, 1.0)
    ours = binaural_gammatone(ears, **PAPER, columns=50)
    scaled = ears / (ears.max() - ears.min())
    for signal, channel in zip((scaled[0], scaled[1], scaled[0] - scaled[1]), ours[..., :49], strict=True):
        torch.testing.assert_close(channel, 20 * reference(signal).log10(), atol=1e-6, rtol=0)


def test_loudness_does_not_matter_and_both_channels_share_one_scale() -> None:
    ears = 0.1 * noise(2, RATE)
    ours = binaural_gammatone(ears, **SMALL, columns=49)
    torch.testing.assert_close(binaural_gammatone(1000 * ears, **SMALL, columns=49), ours)
    ears[1] /= 2
    quieter = binaural_gammatone(ears, **SMALL, columns=49)
    torch.testing.assert_close(
        (quieter[0] - quieter[1]) - (ours[0] - ours[1]), torch.full_like(ours[0], 20 * math.log10(2))
    )


def test_the_scale_is_the_whole_clips_even_where_no_column_reaches() -> None:
    ears = 0.1 * noise(1, RATE)
    peak = torch.cat([ears, torch.zeros(1, 100, dtype=torch.float64)], 1)
    peak[0, -1] = ears.min() + 2 * (ears.max() - ears.min())
    lower = binaural_gammatone(peak, **SMALL, columns=49)[0] - binaural_gammatone(ears, **SMALL, columns=49)[0]
    torch.testing.assert_close(lower, torch.full_like(lower, -20 * math.log10(2)))


@pytest.mark.parametrize("channels", [1, 2])
def test_equal_ears_and_mono_put_the_difference_at_the_floor(channels: int) -> None:
    ears = speech().expand(channels, -1)
    left, right, difference = binaural_gammatone(ears, **PAPER, columns=100)
    assert torch.equal(difference, torch.full_like(difference, -200.0))
    torch.testing.assert_close(left, right)
    torch.testing.assert_close(left, binaural_gammatone(ears[:1], **PAPER, columns=100)[0])
    assert float(left.min()) > -200


@pytest.mark.parametrize("channels", [1, 2])
def test_silence_is_the_floor_everywhere(channels: int) -> None:
    out = binaural_gammatone(torch.zeros(channels, RATE), **SMALL, columns=50, floor=1e-8)
    assert torch.equal(out, torch.full((3, 6, 50), -160.0))


def test_one_silent_ear_and_a_constant_clip_are_finite() -> None:
    ears = torch.stack([tone(440, 1.0), torch.zeros(RATE, dtype=torch.float64)])
    left, right, difference = binaural_gammatone(ears, **SMALL, columns=50)
    assert torch.equal(right, torch.full_like(right, -200.0))
    torch.testing.assert_close(left, difference)
    constant = binaural_gammatone(torch.full((2, RATE), 0.5), **SMALL, columns=50)
    assert bool(constant.isfinite().all())
    assert float(constant[0, -1].max()) == pytest.approx(20 * math.log10(0.5), abs=0.01)  # the 0 Hz channel lets it by


def test_only_the_ears_are_filtered() -> None:
    def work(channels: int, function: Any, **more: int) -> int:
        with FlopCounterMode(display=False) as counter:
            function(noise(channels, RATE), **SMALL, **more)
        return int(counter.get_total_flops())

    gammatone(noise(1, RATE), **SMALL)  # the filters are made once
    assert work(2, binaural_gammatone, columns=50) == work(2, gammatone) < work(3, gammatone)
    assert work(1, binaural_gammatone, columns=50) == work(1, gammatone)


def test_the_input_stays_as_it_was() -> None:
    ears = noise(2, RATE)
    copy = ears.clone()
    gammatone(ears, **SMALL)
    binaural_gammatone(ears, **SMALL, columns=50)
    assert torch.equal(ears, copy)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same() -> None:
    ears = 0.1 * noise(2, 2 * RATE)
    ours = binaural_gammatone(ears.cuda(), **PAPER, columns=100)
    assert ours.device.type == "cuda"
    torch.testing.assert_close(ours.cpu(), binaural_gammatone(ears, **PAPER, columns=100), atol=1e-4, rtol=0)


def test_a_crop_reaches_from_minus_one_to_one_exactly_by_one_scale_for_all_channels() -> None:
    crops = 40 * noise(500, 3, 4, 5).float() - 70
    scaled = scale_crop(crops)
    assert torch.equal(scaled.amin((1, 2, 3)), torch.full((500,), -1.0))
    assert torch.equal(scaled.amax((1, 2, 3)), torch.full((500,), 1.0))
    assert torch.equal(scale_crop(crops[7]), scaled[7])
    crop = torch.tensor([[[-200.0, -150.0]], [[-100.0, 0.0]]])
    assert torch.equal(scale_crop(crop), torch.tensor([[[-1.0, -0.5]], [[0.0, 1.0]]]))


def test_a_constant_crop_becomes_minus_one() -> None:
    assert torch.equal(scale_crop(torch.full((2, 3, 4, 5), -200.0)), torch.full((2, 3, 4, 5), -1.0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hop": 0}, "hop=0"),
        ({"window": -1}, "window=-1"),
        ({"bands": 0}, "bands=0"),
        ({"f_min": 500.0, "f_max": 500.0}, "f_min=500, f_max=500"),
        ({"f_min": -1.0}, "f_min=-1"),
        ({"f_max": 22_051.0}, "22050 Hz.*f_max=22051"),
        ({"sample_rate": 16_000}, "8000 Hz.*f_max=22050"),
        ({"window": RATE + 1}, "takes 44101 samples"),
    ],
)
def test_bad_numbers_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(AvzooError, match=message):
        gammatone(noise(2, RATE), **PAPER | change)
    with pytest.raises(AvzooError, match=message):
        binaural_gammatone(noise(2, RATE), **PAPER | change, columns=1)


@pytest.mark.parametrize(
    ("shape", "more", "message"),
    [
        ((3, RATE), {"columns": 50}, r"\[3, 44100\].*mix"),
        ((0, RATE), {"columns": 50}, r"\[0, 44100\]"),
        ((RATE,), {"columns": 50}, r"\[44100\]"),
        ((2, RATE), {"columns": 51}, "51 columns are wanted and 44100 samples make 49 "),
        ((2, RATE), {"columns": 0}, "columns=0"),
        ((2, RATE), {"columns": 50, "floor": 0.0}, "floor=0"),
        ((2, 1000), {"columns": 1}, "takes 1764 samples"),
    ],
)
def test_bad_clips_are_named(shape: tuple[int, ...], more: dict[str, Any], message: str) -> None:
    with pytest.raises(AvzooError, match=message):
        binaural_gammatone(torch.zeros(shape), **PAPER, **more)


@pytest.mark.parametrize("shape", [(64, 50), (3, 0, 50)])
def test_a_crop_without_its_dimensions_or_values_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(AvzooError, match="got"):
        scale_crop(torch.zeros(shape))


def test_a_waveform_without_dimensions_is_an_error() -> None:
    with pytest.raises(AvzooError, match="1764 samples"):
        gammatone(torch.tensor(0.0), **PAPER)
