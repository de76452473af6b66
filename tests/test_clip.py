"""Which pictures a window has: those of plain decoding, bit for bit, of every container and codec."""

from __future__ import annotations

import random
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from media import CONTAINERS, Picture, Sound, write_media

from avzoo.clip import probe, read_clip

SHARED = Path(__file__).parents[2] / "shared"
NASA = SHARED / "data" / "clips" / "nasa_13013.mp4"


def whole_file(path: Path) -> list[tuple[float, np.ndarray]]:
    """Every picture of a file with its time, by nothing but a plain decoding loop."""
    with av.open(path) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        tick = float(video.time_base)
        seen, heard = (video.start_time or 0) * tick, float((audio.start_time or 0) * audio.time_base)
        zero = seen if seen - heard < 0.1 else heard
        return [
            (f.pts * tick - zero, np.rot90(f.to_ndarray(format="rgb24"), f.rotation // 90).transpose(2, 0, 1))
            for f in container.decode(video)
        ]


def on_screen(pictures: list[tuple[float, np.ndarray]], time: float, slack: float) -> np.ndarray:
    return max((p for p in pictures if p[0] <= time + slack), default=pictures[0], key=lambda p: p[0])[1]


@pytest.mark.parametrize("name", CONTAINERS)
def test_pictures_equal_sequential_decoding_bit_for_bit(containers: Path, name: str) -> None:
    pictures, rng = whole_file(containers / name), random.Random(name)
    sent = reference = decoded = 0
    slack = 5.01e-4 if name.endswith(("mkv", "webm")) else 1e-5  # Matroska rounds to 1 ms
    for round_ in range(5):
        start = 0.0 if round_ == 0 else rng.uniform(0, 2)
        seconds = rng.uniform(0.3, 3 - start)
        times = [rng.uniform(0, seconds) for _ in range(rng.randint(1, 4))]
        asked = {"times": times, "seconds": seconds, "start": start}
        clip = read_clip(containers / name, **asked)
        slow = read_clip(containers / name, **asked, sequential=True)
        for time, frame in zip(times, clip.frames, strict=True):
            np.testing.assert_array_equal(
                frame.numpy(), on_screen(pictures, start + time, slack), err_msg=f"{start + time}"
            )
        assert torch.equal(clip.frames, slow.frames)
        assert torch.equal(clip.waveform, slow.waveform)
        assert clip.stats.fallback == ""
        assert slow.stats.fallback == "asked for"
        assert clip.stats.converted == len({on_screen(pictures, start + t, slack).tobytes() for t in times})
        assert clip.stats.errors == 0
        sent, reference, decoded = (
            sent + clip.stats.sent,
            reference + slow.stats.sent,
            decoded + clip.stats.decoded,
        )
    assert sent < (0.9 if "one_gop" not in name else 1.01) * reference
    if name in ("h264.mp4", "h264_one_gop.mp4", "mpeg2_open.mpg"):  # B-frames that nobody wants are dropped
        assert decoded < 0.9 * sent


def test_h264_in_avi_has_no_display_order_and_is_read_sequentially(tmp_path: Path) -> None:
    path = write_media(tmp_path / "h264.avi", Picture(seconds=2), Sound("libmp3lame"))
    with av.open(path) as container:  # the file's timestamps are in decoding order, the decoder's output is not
        pictures = [f.to_ndarray(format="rgb24").transpose(2, 0, 1) for f in container.decode(video=0)]
    clip = read_clip(path, times=[0.5, 1.02, 1.5], seconds=2)
    assert "decoding order" in clip.stats.fallback
    found = [next(i for i, p in enumerate(pictures) if np.array_equal(p, f.numpy())) for f in clip.frames]
    assert found == [11, 24, 36]  # libav shows AVI with B-frames one picture late


def test_doubled_timestamps_fall_back_to_sequential_decoding(tmp_path: Path) -> None:
    path = write_media(tmp_path / "double.mkv", Picture(times=(0.0, 0.1, 0.2, 0.2004, 0.3, 0.4), b_frames=0))
    clip = read_clip(path, times=[0.05, 0.25, 0.45], seconds=0.5, audio=False)
    assert "same timestamp" in clip.stats.fallback
    assert clip.frames.shape == (3, 3, 48, 64)


def test_times_may_come_in_any_order_and_twice(containers: Path) -> None:
    clip = read_clip(containers / "h264.mp4", times=[1.5, 0.2, 1.5, 0.9], seconds=2)
    assert torch.equal(clip.frames[0], clip.frames[2])
    assert torch.equal(clip.frames[[1, 3]], read_clip(containers / "h264.mp4", times=[0.2, 0.9], seconds=2).frames)
    assert clip.frame_times.tolist() == [1.5, 0.2, 1.5, 0.9]
    assert clip.frame_times.dtype == torch.float64
    assert clip.stats.converted == 3


def test_a_window_of_a_long_file_reads_that_part_only(tmp_path: Path) -> None:
    for name, picture, sound in (
        ("long.mp4", Picture(fps=10, size=(32, 32), seconds=90, gop=20), Sound(rate=8000, seconds=90)),
        ("long.mkv", Picture(fps=10, size=(32, 32), seconds=90, gop=20), Sound(rate=8000, seconds=90)),
        ("long.avi", Picture("mpeg4", fps=10, size=(32, 32), seconds=90), Sound("libmp3lame", 16000, seconds=90)),
        ("long.mpg", Picture("mpeg2video", size=(32, 32), seconds=90), Sound("mp2", 44100, format="s16", seconds=90)),
    ):
        path = write_media(tmp_path / name, picture, sound)
        with av.open(path) as container:
            total = sum(1 for p in container.demux() if p.size)
        clip = read_clip(path, times=[0.5, 4.5, 9.5], seconds=10, start=45)
        assert clip.stats.packets < 0.4 * total, name
        assert clip.waveform.abs().max() > 0.1
        pictures_only = read_clip(path, times=[0.5], seconds=10, start=45, audio=False)
        assert pictures_only.stats.packets < 0.2 * total, name
        assert torch.equal(pictures_only.frames[0], clip.frames[0])


def test_sound_that_ended_long_before_the_window_is_not_searched_for(tmp_path: Path) -> None:
    picture = Picture(fps=10, size=(32, 32), seconds=60, gop=20)
    path = write_media(tmp_path / "ended.mkv", picture, Sound(rate=8000, seconds=10))
    clip = read_clip(path, times=[0.5], seconds=5, start=45)
    assert clip.waveform.abs().max() == 0
    assert clip.stats.packets < 300  # of more than 600
    assert clip.damage == ""


@pytest.mark.parametrize("name", ["live.mkv", "fragmented.mp4"])
def test_a_container_without_an_index(tmp_path: Path, name: str) -> None:
    options = {"live": "1"} if name.endswith("mkv") else {"movflags": "frag_keyframe+empty_moov"}
    path = write_media(tmp_path / name, Picture(seconds=3), Sound("flac", format="s16", seconds=3), options=options)
    whole = read_clip(path, times=[1.5, 1.9], seconds=3)
    part = read_clip(path, times=[0.0, 0.4], seconds=1, start=1.5)
    assert torch.equal(whole.frames, part.frames)
    assert torch.equal(whole.waveform[:, 24000:40000], part.waveform)


def test_a_name_may_hold_a_colon_and_a_percent(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", Picture(seconds=0.4)).rename(tmp_path / "take 3: 100%02d #1.mp4")
    assert read_clip(path, times=[0.1], seconds=0.4, audio=False).id == "take 3: 100%02d #1"


@pytest.mark.parametrize(
    ("rotation", "corner"), [(0, (0, 0)), (90, (-1, 0)), (180, (-1, -1)), (270, (0, -1)), (-90, (0, -1))]
)
def test_rotation_metadata_is_applied(tmp_path: Path, rotation: int, corner: tuple[int, int]) -> None:
    def top_left_white(_: int, size: tuple[int, int]) -> np.ndarray:
        image = np.zeros((*size, 3), dtype=np.uint8)
        image[:16, :16] = 255
        return image

    picture = Picture(seconds=0.4, rotation=rotation, render=top_left_white)
    path = write_media(tmp_path / "turned.mp4", picture)
    frame = read_clip(path, times=[0.1], seconds=0.4, audio=False).frames[0]
    assert frame.shape == ((3, 64, 48) if rotation % 180 else (3, 48, 64))
    info = probe(path)
    assert (info.height, info.width) == frame.shape[1:]
    assert info.rotation == rotation % 360
    assert frame[0, corner[0], corner[1]] > 200
    assert frame.float().mean() < 60


@pytest.mark.skipif(not NASA.exists(), reason="the real clip is not at hand")
def test_a_real_file_of_many_streams() -> None:
    for start in (0.0, 3.3, 8.1):
        asked = {"times": [0.5, 1.5, 2.5, 3.5], "seconds": 4.0, "start": start}
        clip, slow = read_clip(NASA, **asked), read_clip(NASA, **asked, sequential=True)
        assert torch.equal(clip.frames, slow.frames)
        assert clip.stats.fallback == ""
        assert clip.waveform.abs().max() > 0.01
    assert clip.stats.sent < slow.stats.sent
