"""Windows beyond a file, files of several streams, and what broken files and wrong arguments get."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from media import Picture, Sound, noise, write_media

from avzoo.clip import probe, read_clip
from avzoo.errors import AvzooError, DataNotFoundError, MediaError


@pytest.mark.parametrize("name", ["h264.mp4", "mpeg4_7fps.mkv", "vp9_odd.webm", "mpeg4_open.avi"])
def test_a_clip_shorter_than_the_window_is_held_and_padded(containers: Path, name: str) -> None:
    clip = read_clip(containers / name, times=[0.5, 2.99, 4.0, 4.9], seconds=5)
    assert torch.equal(clip.frames[2], clip.frames[3])
    assert torch.equal(clip.frames[1], clip.frames[2]) or name.endswith(".avi")
    assert clip.padded == pytest.approx(2, abs=0.15)
    assert clip.damage == ""
    assert clip.waveform.shape[1] == 5 * clip.sample_rate
    assert clip.waveform[:, round(3.2 * clip.sample_rate) :].abs().max() == 0


def test_sound_only_and_pictures_only(containers: Path, tmp_path: Path) -> None:
    heard = read_clip(containers / "h264.mp4", times=(), seconds=2)
    assert (len(heard.frames), heard.stats.sent, heard.stats.decoded) == (0, 0, 0)
    seen = read_clip(containers / "h264.mp4", times=[1.0], seconds=2, audio=False)
    assert (seen.waveform.numel(), seen.sample_rate) == (0, 0)
    music = write_media(tmp_path / "music.m4a", Sound())
    assert read_clip(music, times=(), seconds=2).waveform.shape == (1, 32000)


def test_the_default_stream_is_taken(tmp_path: Path) -> None:
    path = write_media(
        tmp_path / "two.mkv",
        Picture(default=False),
        Picture(size=(32, 40)),
        Sound(default=False),
        Sound(layout="stereo"),
    )
    clip = read_clip(path, times=[0.5], seconds=1)
    assert clip.frames.shape == (1, 3, 32, 40)
    assert clip.waveform.shape == (2, 16000)


def test_of_several_default_streams_the_finest_is_taken(tmp_path: Path) -> None:
    tracks = Picture(size=(32, 40)), Picture(), Picture(size=(32, 40)), Sound(rate=8000), Sound()
    clip = read_clip(write_media(tmp_path / "many.mkv", *tracks), times=[0.5], seconds=1)
    assert clip.frames.shape == (1, 3, 48, 64)
    assert clip.sample_rate == 16000


def test_probe_says_what_is_there(containers: Path) -> None:
    info = probe(containers / "h264_ntsc.mkv")
    assert info.duration == pytest.approx(3, abs=0.05)
    assert info.fps == pytest.approx(24000 / 1001, abs=0.1)
    assert (info.width, info.height, info.rotation, info.video_codec) == (64, 48, 0, "h264")
    assert (info.sample_rate, info.channels, info.audio_codec) == (44100, 1, "flac")
    assert info.has_video
    assert info.has_audio


def test_the_same_call_gives_the_same_tensors(containers: Path) -> None:
    first, second = (read_clip(containers / "vp9_odd.webm", times=[0.4, 2.2], seconds=2.5, start=0.4) for _ in range(2))
    assert torch.equal(first.frames, second.frames)
    assert torch.equal(first.waveform, second.waveform)
    assert first.stats == second.stats


# -- bad input ------------------------------------------------------------------------------------------------------


def test_missing_path_names_the_nearest_file(tmp_path: Path) -> None:
    write_media(tmp_path / "drone_01.mp4", Picture(seconds=0.2))
    with pytest.raises(DataNotFoundError, match=r"dron_01.mp4: no such file.*did you mean 'drone_01.mp4'"):
        read_clip(tmp_path / "dron_01.mp4", times=[0], seconds=1)
    with pytest.raises(DataNotFoundError, match="no such folder"):
        probe(tmp_path / "nowhere" / "a.mp4")
    with pytest.raises(DataNotFoundError, match="a folder, not a file"):
        probe(tmp_path)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "wav", "ogg", "mpg", "avi"])
@pytest.mark.parametrize("content", ["zero", "random", "text"])
def test_what_is_no_media_file_is_said_so(tmp_path: Path, suffix: str, content: str) -> None:
    path = tmp_path / f"bad.{suffix}"
    data = {"zero": b"", "random": np.random.default_rng(3).bytes(30_000), "text": b"not a film, but a text\n" * 400}
    path.write_bytes(data[content])
    reason = r"empty \(0 bytes\)" if content == "zero" else r"bad\.\w+: (cannot be|has neither|has no|no picture)"
    with pytest.raises(MediaError, match=reason):
        read_clip(path, times=() if suffix in ("wav", "ogg") else [0.5], seconds=1)


def test_an_mp4_cut_before_its_index_is_said_so(tmp_path: Path) -> None:
    path = cut(write_media(tmp_path / "a.mp4", Picture(seconds=2), Sound()), 0.5)
    with pytest.raises(MediaError, match=r"a\.mp4: cannot be opened.*cut before its index"):
        read_clip(path, times=[0.5], seconds=1)
    with pytest.raises(MediaError, match="cut before its index"):
        probe(path)


def cut(path: Path, part: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: round(len(data) * part)])
    return path


def damaged(folder: Path, name: str) -> Path:
    if name == "cut.mp4":
        path = write_media(folder / name, Picture(seconds=4), Sound(seconds=4), options={"movflags": "faststart"})
    elif name == "cut.mkv":
        path = write_media(folder / name, Picture(seconds=4), Sound(seconds=4))
    elif name == "cut.avi":
        path = write_media(folder / name, Picture("mpeg4", seconds=4), Sound("pcm_s16le", format="s16", seconds=4))
    else:
        path = folder / name
        soundfile.write(path, noise(64000, 1, 16000).T, 16000)
    return cut(path, 0.5)


@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv", "cut.avi", "cut.wav"])
def test_a_truncated_file_is_an_error_or_padded_on_demand(tmp_path: Path, name: str) -> None:
    path, times = damaged(tmp_path, name), [] if name.endswith("wav") else [0.5, 3.5]
    with pytest.raises(MediaError, match=rf"{name}: .* s of the .* are missing .*on_damage=\"pad\""):
        read_clip(path, times=times, seconds=4)
    clip = read_clip(path, times=times, seconds=4, on_damage="pad")
    assert clip.waveform.shape == (1, 64000)
    assert 0.5 < clip.padded < 3
    assert "are missing" in clip.damage
    assert len(clip.frames) == len(times)
    before = read_clip(path, times=times[:1], seconds=0.9)  # the part that is there is whole
    assert (before.damage, before.padded) == ("", 0.0)


def test_corrupt_bytes_are_counted_and_never_hang(tmp_path: Path) -> None:
    whole = write_media(tmp_path / "a.mkv", Picture(seconds=3), Sound(seconds=3)).read_bytes()
    for seed in range(6):
        rng = np.random.default_rng(seed)
        data = np.frombuffer(whole, dtype=np.uint8).copy()
        first = int(rng.integers(len(data) // 10, len(data) // 2))
        data[first : first + len(data) // 4] = rng.integers(0, 256, len(data) // 4)
        path = tmp_path / f"corrupt_{seed}.mkv"
        path.write_bytes(data.tobytes())
        clip = read_clip(path, times=[0.5, 1.5, 2.5], seconds=3, on_damage="pad")
        assert clip.waveform.shape == (1, 48000)
        assert clip.frames.shape == (3, 3, 48, 64)
        assert clip.damage or clip.stats.errors


def test_missing_streams_are_named(tmp_path: Path) -> None:
    silent = write_media(tmp_path / "silent.mp4", Picture(seconds=1))
    with pytest.raises(MediaError, match=r'silent.mp4: has no audio stream .*on_missing_audio="silence"'):
        read_clip(silent, times=[0.5], seconds=1)
    clip = read_clip(silent, times=[0.5], seconds=1, on_missing_audio="silence")
    assert clip.waveform.shape == (1, clip.sample_rate)
    assert clip.waveform.abs().max() == 0
    assert read_clip(silent, times=[0.5], seconds=1, audio=False).frames.shape[0] == 1
    for name in ("dark.m4a", "dark.wav"):
        dark = tmp_path / name
        if name.endswith("wav"):
            soundfile.write(dark, np.zeros(8000), 8000)
        else:
            write_media(dark, Sound(seconds=1))
        with pytest.raises(MediaError, match=rf"{name}: has no video stream"):
            read_clip(dark, times=[0.5], seconds=1)


def test_a_codec_that_nobody_knows_is_said_so(tmp_path: Path) -> None:
    path = write_media(tmp_path / "new.mp4", Picture(seconds=1), Sound(seconds=1))
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(MediaError, match=r"new\.mp4: has no video stream that can be decoded"):
        read_clip(path, times=[0.5], seconds=1)
    assert read_clip(path, times=(), seconds=1).waveform.shape == (1, 16000)


def test_a_window_outside_the_file_is_an_error(containers: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), 8000)
    for path in (containers / "h264.mp4", containers / "h264_ntsc.mkv", tmp_path / "a.wav"):
        with pytest.raises(MediaError, match=r"begins at 30 s, but the file is .* s long"):
            read_clip(path, times=(), seconds=1, start=30)
    for asked in (
        {"times": [2.0], "seconds": 1},
        {"times": (), "seconds": 0},
        {"times": (), "seconds": 1, "start": -1},
    ):
        with pytest.raises(AvzooError, match="expected start >= 0"):
            read_clip(containers / "h264.mp4", **asked)
