from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from avzoo.audio import mel_bank, resample
from avzoo.audio.scalogram import (
    average_difference,
    centres_and_widths,
    fbank_bank,
    frame_seconds,
    long_term_spectrum,
    scalogram_bank,
)
from avzoo.errors import AvzooError

HZ = 16_000 / 8192  # one bin
FRAMING: dict[str, Any] = {"n_fft": 8192, "window": 8192, "hop": 2736, "offset": 1e-8}


def noise(*shape: int) -> Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def scalogram(waveform: Tensor) -> Tensor:
    return long_term_spectrum(waveform, scalogram_bank(), **FRAMING)


def scalogram_centres(bank: str = "scatnet", filters: int = 290) -> Tensor:
    """Hz."""
    return centres_and_widths(bank, filters, 8192)[0] * HZ


def test_scatnet_has_232_filters_of_constant_q_and_58_linear_ones_at_the_reference_frequencies() -> None:
    centres = scalogram_centres().flip(0)
    reference = [7932.944, 7799.957, 7669.199, 7540.633, 7414.222]
    assert centres[:5].tolist() == pytest.approx(reference, abs=1e-3)
    assert centres[230:234].tolist() == pytest.approx([162.4537, 159.7303, 157.0229, 154.3155], abs=1e-3)
    assert centres[-3:].tolist() == pytest.approx([8.1152, 5.4078, 2.7003], abs=1e-3)
    constant_q, linear = centres[:232], centres[231:]  # the last of constant Q is the first of the linear ladder
    torch.testing.assert_close(constant_q[1:] / constant_q[:-1], torch.full_like(constant_q[1:], 2 ** (-1 / 41)))
    torch.testing.assert_close(linear.diff(), torch.full_like(linear[1:], -2.7074), atol=1e-4, rtol=0)
    assert len(linear) - 1 == 58
    assert abs(centres[232] / centres[231] - 2 ** (-1 / 41)) > 1e-5  # the two ladders differ right at the elbow


def test_scatnet_equals_its_formulas_written_out() -> None:
    """`morlet_filter_bank_1d` of ScatNet for T = N = 8192 and Q = 41, in numpy, unsimplified."""
    length, q = 8192, 41
    sigma0 = 2 / math.sqrt(3)
    sigma_psi = sigma_phi = 0.5 * sigma0 / (1 - 2 ** (-1 / q))
    j_count = 1 + round(math.log2(length / (4 * q)) * q)
    p_count = round((2 ** (-1 / q) - 0.25 * sigma0 / sigma_phi) / (1 - 2 ** (-1 / q)))
    assert (j_count, p_count) == (232, 58)
    step = math.pi * 2 ** (-j_count / q) * (1 - 0.25 * sigma0 / sigma_phi * 2 ** (1 / q)) / p_count
    xi = [math.pi / 2 * (1 + 2 ** (-1 / q)) * 2 ** (-j / q) for j in range(j_count)]
    sigma = [sigma_psi * 2 ** (j / q) for j in range(j_count)]
    xi += [xi[-1] - p * step for p in range(1, p_count + 1)]
    sigma += [sigma[-1]] * p_count
    omega = 2 * math.pi * np.arange(length) / length
    rows = []
    for centre, width in zip(xi, sigma, strict=True):
        gabor, low = (
            sum(np.exp(-(width**2) * (omega - 2 * math.pi * k - at) ** 2 / 2) for k in (-1, 0, 1, 2))
            for at in (centre, 0.0)
        )
        rows.append(gabor - gabor[0] / low[0] * low)
    matrix = np.stack(rows)
    factor = math.sqrt(2 / (matrix[:j_count] ** 2).sum(0).max())
    assert factor == pytest.approx(1.364234, abs=1e-6)
    expected = torch.from_numpy((factor * matrix)[::-1, : length // 2 + 1].copy()).float()
    torch.testing.assert_close(scalogram_bank(), expected, atol=1e-6, rtol=0)


def test_scatnet_is_a_full_rank_non_negative_nearly_tight_frame() -> None:
    bank = scalogram_bank()
    assert bank.shape == (290, 4097)
    assert bank.dtype == torch.float32
    assert bank.min() == 0
    assert not bank[:, 0].any()
    peaks = bank.argmax(1)
    assert torch.equal(peaks, peaks.unique())  # distinct, and rising from row to row
    assert (peaks[0], peaks[-1]) == (1, 4062)
    assert torch.linalg.matrix_rank(bank) == 290
    energy = bank.double().square().sum(0)
    hertz = torch.arange(4097) * HZ
    assert energy.max() <= 2 + 1e-6
    assert energy[(hertz >= 2) & (hertz <= 7900)].min() == pytest.approx(1.62, abs=0.005)
    assert energy[-1] == pytest.approx(0.82, abs=0.005)
    unit = torch.nn.functional.normalize(bank, dim=1)
    assert (unit[1:] * unit[:-1]).sum(1).median() == pytest.approx(0.44, abs=0.01)


@pytest.mark.parametrize(("row", "hertz"), [(289, 73.939), (289 - 41, 73.939 / 2), (58, 1.4888), (30, 1.4888)])
def test_scatnet_filters_have_the_reference_widths(row: int, hertz: float) -> None:
    """The second difference of a Gaussian's logarithm is -1 / variance."""
    logarithm = scalogram_bank()[row].double().log()
    peak = int(logarithm.argmax())
    curvature = logarithm[peak - 1] - 2 * logarithm[peak] + logarithm[peak + 1]
    assert math.sqrt(-1 / curvature) * HZ == pytest.approx(hertz, rel=1e-3)


def test_a_tone_at_a_centre_peaks_in_its_own_row() -> None:
    time = torch.arange(16_000, dtype=torch.float64) / 16_000
    tones = torch.sin(2 * math.pi * scalogram_centres()[:, None] * time)
    loudest = scalogram(tones).argmax(1)
    assert loudest.shape == (290, 3)
    assert (loudest - torch.arange(290)[:, None]).abs().max() <= 1


def test_another_number_of_filters_is_the_bank_that_has_it_or_an_error_with_the_nearest() -> None:
    assert scalogram_bank(filters=42).shape == (42, 4097)
    assert scalogram_centres(filters=42)[-1] == pytest.approx(4000 * (1 + 2**-0.25))  # Q = 4
    energy_of_constant_q = scalogram_bank(filters=42)[-37:].square().sum(0)  # J = 37, P = 5
    assert energy_of_constant_q.max() == pytest.approx(2)
    assert scalogram_centres(filters=12).diff().min() > 0  # Q = 1 has no linear part
    with pytest.raises(AvzooError, match=r"no scatnet bank .* has 291 filters; .* 285, 290, 297"):
        scalogram_bank(filters=291)
    with pytest.raises(AvzooError, match=r"no kymatio bank .* 282, 290, 297"):
        scalogram_bank(bank="kymatio", filters=291)


def test_geometric_is_289_filters_over_nine_octaves_of_which_106_are_narrower_than_a_bin() -> None:
    bank, centres = scalogram_bank(bank="geometric"), scalogram_centres(bank="geometric")
    assert bank.shape == (290, 4097)
    assert bank.min() >= 0
    assert bank[0].argmax() == centres[0] == 0  # the low-pass
    torch.testing.assert_close(centres[2:] / centres[1:-1], torch.full_like(centres[2:], 2 ** (1 / 32)))
    assert centres[-1] / centres[1] == pytest.approx(512)
    # a Gaussian and the next one up meet at 1 / sqrt(2), and so do the low-pass and the lowest of them
    width = (centres[2:] - centres[1:-1]) / (1 + 2 ** (-1 / 32)) * 2 ** (-1 / 32) / math.sqrt(math.log(2)) / HZ
    assert (width < 1).sum() == 106
    assert width.min() == pytest.approx(0.10, abs=0.005)
    assert bank[0, 8] == pytest.approx(math.sqrt(0.5), abs=0.03)
    peaks = bank.amax(1)
    assert (peaks < 0.5).sum() == 32
    assert len(bank.argmax(1).unique()) == 246
    assert scalogram_bank(bank="geometric", filters=64).shape == (64, 4097)
    assert torch.isfinite(long_term_spectrum(torch.zeros(8192), bank, **FRAMING)).all()


KYMATIO = [  # kymatio 0.3.0, scattering_filter_factory's filters: row, bin of the peak, the three bins around it
    (8192, 290, 1, 8, [0.0, 1.0, 0.0]),
    (8192, 290, 5, 8, [0.0, 0.9999866, 0.0073107]),
    (8192, 290, 60, 28, [0.1144844, 0.9969411, 0.0041067]),
    (8192, 290, 100, 66, [0.4552938, 0.9964547, 0.5634084]),
    (8192, 290, 150, 195, [0.8986797, 0.9976668, 0.9483949]),
    (8192, 290, 289, 3963, [0.9998257, 0.9999997, 0.9997975]),
    (1024, 64, 1, 2, [0.0, 1.0, 0.0]),
    (1024, 64, 30, 26, [0.9174526, 0.9447392, 0.5521532]),
    (1024, 64, 63, 446, [0.9993594, 0.9999731, 0.9987274]),
]


@pytest.mark.parametrize(("n_fft", "filters", "row", "peak", "values"), KYMATIO)
def test_kymatio_has_the_values_of_kymatio(n_fft: int, filters: int, row: int, peak: int, values: list[float]) -> None:
    bank = scalogram_bank(bank="kymatio", n_fft=n_fft, filters=filters)
    assert bank[row].argmax() == peak
    assert bank[row, peak - 1 : peak + 2].tolist() == pytest.approx(values, abs=1e-6)


def test_kymatio_is_a_low_pass_of_one_bin_and_289_filters() -> None:
    bank, centres = scalogram_bank(bank="kymatio"), scalogram_centres(bank="kymatio")
    assert bank.shape == (290, 4097)
    assert bank.min() >= 0
    assert bank[0, 0] == pytest.approx(1)
    assert bank[0, 1:].max() < 1e-20
    assert bank[:, 1:8].amax() < 1e-2  # nothing covers these
    assert bank.amax(1).min() == pytest.approx(0.79, abs=0.005)
    kymatio = [15.11750242, 15.44853261, 131.88602626, 1150.58185173, 7740.16123663]
    assert centres[[1, 2, 101, 201, 289]].tolist() == pytest.approx(kymatio)


def test_fbank_has_no_empty_row() -> None:
    bank = fbank_bank()
    assert bank.shape == (256, 4097)
    assert bank.is_contiguous()
    assert (bank > 0).sum(1).min() == 7
    assert bank.max() <= 1  # not divided by the area
    assert bank.amax(1).min() > 0.7
    assert bank.argmax(1).diff().min() > 0


@pytest.mark.parametrize("bank", [scalogram_bank, fbank_bank])
def test_three_frames_from_a_second_and_56_from_ten(bank: Callable[[], Tensor]) -> None:
    filters = bank()
    assert long_term_spectrum(noise(2, 16_000), filters, **FRAMING).shape == (2, len(filters), 3)
    assert long_term_spectrum(noise(2, 160_000), filters, **FRAMING).shape == (2, len(filters), 56)


@pytest.mark.parametrize("window", [8192, 6000])
def test_the_spectrum_equals_numpy(window: int) -> None:
    wave = noise(16_000).double()
    hann = 0.5 - 0.5 * np.cos(2 * np.pi / window * np.arange(window))
    starts = range(0, 16_000 - window + 1, 2736)
    magnitude = np.abs([np.fft.rfft(wave.numpy()[start : start + window] * hann, 8192) for start in starts])
    expected = torch.from_numpy(np.log(scalogram_bank().double().numpy() @ magnitude.T + 1e-8))
    ours = long_term_spectrum(wave, scalogram_bank(), **(FRAMING | {"window": window}))
    torch.testing.assert_close(ours, expected, atol=1e-9, rtol=0)  # float64 in, float64 out


def test_a_batch_equals_its_items_whatever_the_leading_dimensions() -> None:
    wave = noise(3, 2, 16_000)
    together = scalogram(wave)
    assert together.shape == (3, 2, 290, 3)
    assert together.dtype == torch.float32
    for item in range(3):
        for channel in range(2):
            torch.testing.assert_close(together[item, channel], scalogram(wave[item, channel]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(16_000,), (2, 160_000), (4, 10, 2, 16_000)])
def test_one_fourier_transform_and_one_product_whatever_the_batch(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def counted(name: str, real: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *args, **kwargs: calls.append(name) or real(*args, **kwargs)

    for name in ("stft", "einsum"):
        monkeypatch.setattr(torch, name, counted(name, getattr(torch, name)))
    scalogram(noise(*shape))
    assert calls == ["stft", "einsum"]


def test_the_device_is_that_of_the_input() -> None:
    assert scalogram(average_difference(torch.zeros(2, 16_000, device="meta"))).device.type == "meta"


@pytest.mark.parametrize("bank", [scalogram_bank, fbank_bank])
@pytest.mark.parametrize("mode", [torch.inference_mode, lambda: torch.device("meta")], ids=["inference", "meta"])
def test_a_bank_first_built_for_inference_or_on_meta_serves_training_later(bank: Any, mode: Callable[..., Any]) -> None:
    for cached in (scalogram_bank, fbank_bank, mel_bank):
        cached.cache_clear()
    with mode():
        bank()
    wave = noise(16_000).requires_grad_()
    long_term_spectrum(wave, bank(), **FRAMING).sum().backward()
    assert wave.grad is not None
    assert torch.isfinite(wave.grad).all()


def test_average_and_difference() -> None:
    left, right = noise(2, 100)
    stereo = torch.stack([left, right]).expand(3, 2, 100)
    torch.testing.assert_close(average_difference(stereo)[1], torch.stack([(left + right) / 2, left - right]))


def test_equal_channels_and_mono_have_no_difference() -> None:
    wave = noise(1, 16_000)
    mono = average_difference(wave)
    assert torch.equal(mono, average_difference(wave.expand(2, -1)))
    assert torch.equal(mono[0], wave[0])
    assert not mono[1].any()
    features = scalogram(mono)
    torch.testing.assert_close(features[1], torch.full_like(features[1], math.log(1e-8)))
    assert features[0].min() > math.log(1e-8) + 1


def test_silence_is_finite_and_so_is_its_gradient() -> None:
    wave = torch.zeros(2, 16_000, requires_grad=True)
    features = scalogram(average_difference(wave))
    torch.testing.assert_close(features, torch.full_like(features, math.log(1e-8)))
    features.sum().backward()
    assert wave.grad is not None
    assert torch.isfinite(wave.grad).all()


def test_the_gradient_is_right_and_reaches_every_windowed_sample() -> None:
    wave = noise(2, 160).double().requires_grad_()
    bank = scalogram_bank(filters=16, n_fft=64, bank="geometric")

    def features(wave: Tensor) -> Tensor:
        return long_term_spectrum(average_difference(wave), bank, n_fft=64, window=64, hop=32, offset=1e-3)

    assert torch.autograd.gradcheck(features, (wave,))
    features(wave).sum().backward()
    assert wave.grad is not None
    assert (wave.grad[:, 1:] != 0).all()  # a periodic Hann window starts with zero


def test_56_frames_of_a_clip_lie_in_its_seconds() -> None:
    seconds = frame_seconds(56, window=8192, hop=2736, sample_rate=16_000)
    assert seconds.dtype == torch.int64
    assert seconds.bincount().tolist() == [5, 6, 6, 5, 6, 6, 6, 6, 6, 4]
    assert seconds.tolist() == [math.floor(0.256 + 0.171 * i) for i in range(56)]
    assert frame_seconds(3, window=8192, hop=2736, sample_rate=16_000).tolist() == [0, 0, 0]
    assert frame_seconds(0, window=8192, hop=2736, sample_rate=16_000).shape == (0,)


def test_the_way_from_48_khz_stereo() -> None:
    segments = resample(noise(2, 480_000), 48_000, 16_000).reshape(2, 10, 16_000).movedim(0, 1)
    assert scalogram(average_difference(segments)).shape == (10, 2, 290, 3)


def test_bad_shapes_and_numbers_say_what_was_expected() -> None:
    bank = scalogram_bank()
    with pytest.raises(AvzooError, match=r"one window takes 8192 samples, got a waveform \[2, 8191\]"):
        scalogram(torch.zeros(2, 8191))
    with pytest.raises(AvzooError, match=r"got a waveform \[\]"):
        scalogram(torch.tensor(0.0))
    with pytest.raises(AvzooError, match=r"\[filters, 4097\], got \[4097, 290\]"):
        long_term_spectrum(torch.zeros(16_000), bank.T, **FRAMING)
    with pytest.raises(AvzooError, match="offset keeps the logarithm finite"):
        long_term_spectrum(torch.zeros(16_000), bank, **(FRAMING | {"offset": 0.0}))
    for wrong in ({"hop": 0}, {"window": 8193}):
        with pytest.raises(AvzooError, match="need 0 < window <= n_fft=8192"):
            long_term_spectrum(torch.zeros(16_000), bank, **(FRAMING | wrong))
    for shape in ((6, 100), (0, 100), (100,)):
        with pytest.raises(AvzooError, match="1 or 2 channels"):
            average_difference(torch.zeros(shape))
    with pytest.raises(AvzooError, match="'scatnet', 'geometric' or 'kymatio', got 'mel'"):
        scalogram_bank(bank="mel")  # type: ignore[arg-type]
    with pytest.raises(AvzooError, match="even n_fft"):
        scalogram_bank(n_fft=8191)
    with pytest.raises(AvzooError, match="11 filters or more"):
        scalogram_bank(bank="geometric", filters=10)
    with pytest.raises(AvzooError, match="half the sample rate"):
        fbank_bank(sample_rate=8000)
    with pytest.raises(AvzooError, match="frames >= 0"):
        frame_seconds(3, window=8192, hop=0, sample_rate=16_000)
