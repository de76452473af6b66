"""The sound of a window: each sample at its place, scaled to one, from a video or from a file beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch
from media import Picture, Sound, write_media

from avzoo.clip import Clip, probe, read_clip


def peak(clip: Clip) -> float:
    return int(clip.waveform[0].abs().argmax()) / clip.sample_rate


@pytest.mark.parametrize("start", [0.0, 1.4])
@pytest.mark.parametrize(
    ("name", "sound", "tolerance"),
    [
        ("pcm.mov", Sound("pcm_s16le", 16000, format="s16"), 1 / 16000),
        ("pcm.mkv", Sound("pcm_f32le", 44100, format="flt"), 0.001),
        ("pcm.avi", Sound("pcm_u8", 8000, format="u8"), 1 / 8000),
        ("aac.mp4", Sound("aac", 44100), 0.002),
        ("aac.mkv", Sound("aac", 44100), 0.002),
        ("opus.webm", Sound("libopus", 48000, format="flt"), 0.002),
        ("mp3.mkv", Sound("libmp3lame", 44100), 0.002),
        ("ac3.mkv", Sound("ac3", 48000), 0.006),  # its 256 samples of priming are in no header
    ],
)
def test_a_click_is_heard_when_it_was_made(
    tmp_path: Path, name: str, sound: Sound, tolerance: float, start: float
) -> None:
    codec = "libvpx-vp9" if name.endswith("webm") else "mpeg4"
    sound = replace(sound, seconds=3, clicks=(2.1,))
    picture = Picture(codec, size=(32, 32), fps=10, seconds=3, b_frames=0, gop=5)
    path = write_media(tmp_path / name, picture, sound)
    clip = read_clip(path, times=[], seconds=2.5, start=start + 0.1)
    assert peak(clip) == pytest.approx(2.1 - start - 0.1, abs=tolerance)
    assert peak(read_clip(path, times=[0.5], seconds=2.5, start=start / 2)) == pytest.approx(
        2.1 - start / 2, abs=tolerance
    )


@pytest.mark.parametrize("name", ["h264.mp4", "h264_ntsc.mkv", "hevc_open.mkv", "mpeg4_7fps.mkv", "mpeg2_open.mpg"])
def test_the_sound_of_a_window_is_the_whole_files_sound_cut(containers: Path, name: str) -> None:
    whole = read_clip(containers / name, times=(), seconds=3)
    for start, seconds in ((0.7, 0.9), (1.0, 0.9), (1.93, 0.9), (0.178, 0.6), (0.234, 0.6), (1.131, 0.6), (1.774, 0.6)):
        part = read_clip(containers / name, times=[0.1], seconds=seconds, start=start)
        first = round(start * whole.sample_rate)
        torch.testing.assert_close(
            part.waveform, whole.waveform[:, first : first + part.waveform.shape[1]], atol=2e-3, rtol=0
        )


def test_waveform_has_exactly_the_length_asked_for(containers: Path) -> None:
    for seconds in (0.1, 1 / 3, 2.98765):
        clip = read_clip(containers / "vp9_odd.webm", times=(), seconds=seconds, start=0.01)
        assert clip.waveform.shape == (1, round(seconds * 48000))
        assert clip.waveform.dtype == torch.float32


def test_layouts_are_kept(tmp_path: Path) -> None:
    for layout, channels in (("mono", 1), ("stereo", 2), ("5.1", 6)):
        path = write_media(tmp_path / f"{layout}.mp4", Picture(seconds=0.5), Sound("aac", 48000, layout, seconds=0.5))
        clip = read_clip(path, times=(), seconds=0.5)
        assert clip.waveform.shape == (channels, 24000)
        assert 0.2 < clip.waveform.abs().max() < 1.1
        assert probe(path).channels == channels


@pytest.mark.parametrize(
    ("codec", "format_"),
    [
        ("pcm_u8", "u8"),
        ("pcm_s16le", "s16"),
        ("pcm_s24le", "s32"),
        ("pcm_s32le", "s32"),
        ("pcm_f32le", "flt"),
        ("pcm_f64le", "dbl"),
        ("flac", "s16"),
    ],
)
def test_every_number_format_is_scaled_to_one(tmp_path: Path, codec: str, format_: str) -> None:
    sound = Sound(codec, 8000, "stereo", format=format_, seconds=1)
    path = write_media(tmp_path / "sound.mkv", sound)
    clip = read_clip(path, times=(), seconds=1)
    torch.testing.assert_close(clip.waveform, torch.from_numpy(sound.samples()), atol=1 / 100, rtol=0)


def test_sound_that_starts_late_is_preceded_by_silence(tmp_path: Path) -> None:
    path = write_media(tmp_path / "late.mp4", Picture(seconds=3), Sound(seconds=2, start=1.0, clicks=(0.5,)))
    clip = read_clip(path, times=[0.0], seconds=3)
    assert clip.waveform[:, : round(0.9 * 16000)].abs().max() == 0
    assert peak(clip) == pytest.approx(1.5, abs=0.002)
    assert (clip.padded, clip.damage) == (0.0, "")
    assert peak(read_clip(path, times=(), seconds=1, start=0.8)) == pytest.approx(0.7, abs=0.002)


@pytest.mark.parametrize("name", ["early.mp4", "early.mkv"])
def test_sound_that_rightly_ends_early_is_followed_by_silence(tmp_path: Path, name: str) -> None:
    path = write_media(tmp_path / name, Picture(seconds=3), Sound(seconds=1))
    clip = read_clip(path, times=[2.5], seconds=3)
    assert clip.waveform[:, round(1.2 * 16000) :].abs().max() == 0
    assert (clip.padded, clip.damage) == (0.0, "")
    assert read_clip(path, times=[0.5], seconds=1, start=1.8).waveform.abs().max() == 0


def test_pictures_that_lead_the_sound_set_time_zero_and_priming_does_not(tmp_path: Path) -> None:
    led = write_media(tmp_path / "led.mkv", Picture(seconds=2, start=0.08, b_frames=0), Sound("flac", format="s16"))
    assert torch.equal(*read_clip(led, times=[0.0, 0.039], seconds=1).frames)
    assert not torch.equal(*read_clip(led, times=[0.0, 0.041], seconds=1).frames)
    late = write_media(tmp_path / "late.mkv", Picture(seconds=2, start=0.4, b_frames=0), Sound("flac", format="s16"))
    assert torch.equal(*read_clip(late, times=[0.0, 0.439], seconds=1).frames)
    assert not torch.equal(*read_clip(late, times=[0.0, 0.441], seconds=1).frames)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "m4a"])
def test_sound_beside_a_silent_video(tmp_path: Path, suffix: str) -> None:
    video = write_media(tmp_path / "scene.mp4", Picture(seconds=2))
    sound = Sound(rate=16000, layout="stereo")
    path = tmp_path / f"scene.{suffix}"
    if suffix == "m4a":
        write_media(path, sound)
    else:
        soundfile.write(path, sound.samples().T, 16000)
    clip = read_clip(video, times=[0.5, 1.5], seconds=1.5, start=0.25, audio_path=path)
    assert clip.frames.shape == (2, 3, 48, 64)
    expected = torch.from_numpy(sound.samples())[:, 4000:28000]
    assert torch.nn.functional.cosine_similarity(clip.waveform, expected).min() > 0.99
    alone = read_clip(path, times=(), seconds=1.5, start=0.25)
    assert torch.equal(alone.waveform, clip.waveform)
    assert probe(path).has_video is False
    assert probe(path).duration == pytest.approx(2, abs=0.1)
