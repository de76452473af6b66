"""A silent video and the sound beside it that may not belong to it: lengths that differ are damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from media import Picture, Sound, write_media
from numpy.typing import NDArray

from avzoo.errors import MediaError
from avzoo.preprocess import Preprocess, read_window

TWO_SECONDS = Preprocess(
    audio_kind="gammatone", sample_rate=8000, window=320, hop=160, f_max=4000.0, bands=8,
    visual_backbone="tf_efficientnet_lite0", size=32, seconds=2, segments=2,
)  # fmt: skip


def tone(seconds: float) -> NDArray[np.float64]:
    """Stereo at 8000 Hz that is nowhere silent."""
    return np.full((round(seconds * 8000), 2), 0.25)


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
    soundfile.write(path, tone(seconds), 8000)
    words = rf"v\.mp4 lasts 30\.00 s and its sound, .*s\.{suffix}, {seconds:.2f} s: .*on_damage=\"pad\""
    with pytest.raises(MediaError, match=words):
        read_window(long_video, TWO_SECONDS, start=start, audio_path=path)
    clip_ = read_window(long_video, TWO_SECONDS, start=start, audio_path=path, on_damage="pad")
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
    soundfile.write(tmp_path / "s.wav", tone(seconds), 8000)
    for start in (0.0, 28.0):
        assert read_window(long_video, TWO_SECONDS, start=start, audio_path=tmp_path / "s.wav").damage == ""
    only = read_window(long_video, TWO_SECONDS, start=28.0, audio_path=tmp_path / "s.wav", visual=False)
    assert only.damage == ""
    assert only.padded == pytest.approx(max(0, 30 - seconds), abs=0.01)


def test_the_lengths_are_read_from_headers_alone(
    long_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "s.wav", tone(45), 8000)
    monkeypatch.setattr("avzoo.clip.reading._read", lambda *_: pytest.fail("the files were read"))
    with pytest.raises(MediaError, match="lasts 30"):
        read_window(long_video, TWO_SECONDS, audio_path=tmp_path / "s.wav")


def test_a_sound_in_a_container_beside_the_video(long_video: Path, tmp_path: Path) -> None:
    for seconds, damaged in ((30.0, False), (20.0, True)):
        path = write_media(tmp_path / f"{seconds:g}.mka", Sound(codec="aac", seconds=seconds))
        clip_ = read_window(long_video, TWO_SECONDS, audio_path=path, on_damage="pad")
        assert bool(clip_.damage) == damaged
