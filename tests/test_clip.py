"""Reading media: the pictures and the sound of a window, for every container and codec, and what broken files get."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from media import Picture, Sound, noise, write_media

from avzoo.clip import Clip, probe, read_clip
from avzoo.errors import AvzooError, DataNotFoundError, MediaError

SHARED = Path(__file__).parents[2] / "shared"
NASA = SHARED / "data" / "clips" / "nasa_13013.mp4"

X265 = {"x265-params": "log-level=none:pools=1:frame-threads=1:keyint=12:open-gop="}
OPEN_X264 = {"x264-params": "open-gop=1:keyint=12:min-keyint=4:scenecut=0"}
ALT_REF = {"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "5", "deadline": "good"}
VFR = tuple(float(t) for t in np.random.default_rng(1).uniform(0.01, 0.2, 30).round(3).cumsum() - 0.01)
MP2 = Sound("mp2", 44100, format="s16", seconds=3)
OPUS = Sound("libopus", 48000, format="flt", seconds=3)

MAKES: dict[str, tuple[Picture | Sound, ...]] = {
    "h264.mp4": (Picture(seconds=3), Sound(seconds=3)),
    "h264_ntsc.mkv": (Picture(seconds=3, fps=Fraction(24000, 1001)), Sound("flac", 44100, format="s16", seconds=3)),
    "h264_pcm.mov": (Picture(seconds=3, b_frames=3), Sound("pcm_s16le", format="s16", seconds=3)),
    "h264_open.mp4": (Picture(seconds=3, options=OPEN_X264), Sound(seconds=3)),
    "h264_open.mkv": (Picture(seconds=3, options=OPEN_X264), Sound(seconds=3)),
    "h264_one_gop.mp4": (Picture(seconds=3, gop=250), Sound(seconds=3)),
    "h264_no_b.mp4": (Picture(seconds=3, b_frames=0), Sound(seconds=3)),
    "h264_rotated.mp4": (Picture(seconds=3, rotation=90), Sound(seconds=2, start=0.6)),
    "h264_late.mkv": (Picture(seconds=2, start=0.6), Sound(seconds=3)),
    "hevc.mp4": (Picture("libx265", seconds=3, options={"x265-params": X265["x265-params"] + "0"}), Sound(seconds=3)),
    "hevc_open.mkv": (Picture("libx265", seconds=3, options={"x265-params": X265["x265-params"] + "1"}), OPUS),
    "vp9_odd.webm": (Picture("libvpx-vp9", size=(93, 127), seconds=3, b_frames=0, options=ALT_REF), OPUS),
    "mpeg4_open.avi": (Picture("mpeg4", seconds=3), Sound("libmp3lame", seconds=3)),
    "mpeg4_odd.mp4": (Picture("mpeg4", size=(93, 127), fps=12.5, seconds=3), Sound(seconds=3)),
    "mpeg4_7fps.mkv": (Picture("mpeg4", fps=7, seconds=3), Sound("libmp3lame", 44100, seconds=3)),
    "mpeg2_open.mpg": (Picture("mpeg2video", seconds=3), MP2),
    "mpeg1_open.mpg": (Picture("mpeg1video", seconds=3), MP2),
    "vfr.mp4": (Picture(times=VFR), Sound(seconds=3)),
    "vfr.mkv": (Picture(times=VFR), Sound("pcm_s16le", format="s16", seconds=3)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    for name, tracks in MAKES.items():
        write_media(folder / name, *tracks)
    return folder


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


@pytest.mark.parametrize("name", MAKES)
def test_pictures_equal_sequential_decoding_bit_for_bit(folder: Path, name: str) -> None:
    pictures, rng = whole_file(folder / name), random.Random(name)
    sent = reference = decoded = 0
    slack = 5.01e-4 if name.endswith(("mkv", "webm")) else 1e-5  # Matroska rounds to 1 ms
    for round_ in range(5):
        start = 0.0 if round_ == 0 else rng.uniform(0, 2)
        seconds = rng.uniform(0.3, 3 - start)
        times = [rng.uniform(0, seconds) for _ in range(rng.randint(1, 4))]
        asked = {"times": times, "seconds": seconds, "start": start}
        clip = read_clip(folder / name, **asked)
        slow = read_clip(folder / name, **asked, sequential=True)
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


def test_times_may_come_in_any_order_and_twice(folder: Path) -> None:
    clip = read_clip(folder / "h264.mp4", times=[1.5, 0.2, 1.5, 0.9], seconds=2)
    assert torch.equal(clip.frames[0], clip.frames[2])
    assert torch.equal(clip.frames[[1, 3]], read_clip(folder / "h264.mp4", times=[0.2, 0.9], seconds=2).frames)
    assert clip.frame_times.tolist() == [1.5, 0.2, 1.5, 0.9]
    assert clip.frame_times.dtype == torch.float64
    assert clip.stats.converted == 3


def test_threads_do_not_change_the_answer(folder: Path) -> None:
    clips = [read_clip(folder / "h264.mp4", times=[0.3, 1.1, 2.9], seconds=3, threads=n) for n in (1, 2, 2)]
    assert torch.equal(clips[0].frames, clips[1].frames)
    assert torch.equal(clips[0].frames, clips[2].frames)
    assert torch.equal(clips[0].waveform, clips[1].waveform)
    assert {clip.stats.fallback for clip in clips} == {""}


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


# Sound -------------------------------------------------------------------------------------------------------------


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
def test_the_sound_of_a_window_is_the_whole_files_sound_cut(folder: Path, name: str) -> None:
    whole = read_clip(folder / name, times=(), seconds=3)
    for start, seconds in ((0.7, 0.9), (1.0, 0.9), (1.93, 0.9), (0.178, 0.6), (0.234, 0.6), (1.131, 0.6), (1.774, 0.6)):
        part = read_clip(folder / name, times=[0.1], seconds=seconds, start=start)
        first = round(start * whole.sample_rate)
        torch.testing.assert_close(
            part.waveform, whole.waveform[:, first : first + part.waveform.shape[1]], atol=2e-3, rtol=0
        )


def test_waveform_has_exactly_the_length_asked_for(folder: Path) -> None:
    for seconds in (0.1, 1 / 3, 2.98765):
        clip = read_clip(folder / "vp9_odd.webm", times=(), seconds=seconds, start=0.01)
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


# Windows and streams -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["h264.mp4", "mpeg4_7fps.mkv", "vp9_odd.webm", "mpeg4_open.avi"])
def test_a_clip_shorter_than_the_window_is_held_and_padded(folder: Path, name: str) -> None:
    clip = read_clip(folder / name, times=[0.5, 2.99, 4.0, 4.9], seconds=5)
    assert torch.equal(clip.frames[2], clip.frames[3])
    assert torch.equal(clip.frames[1], clip.frames[2]) or name.endswith(".avi")
    assert clip.padded == pytest.approx(2, abs=0.15)
    assert clip.damage == ""
    assert clip.waveform.shape[1] == 5 * clip.sample_rate
    assert clip.waveform[:, round(3.2 * clip.sample_rate) :].abs().max() == 0


def test_sound_only_and_pictures_only(folder: Path, tmp_path: Path) -> None:
    heard = read_clip(folder / "h264.mp4", times=(), seconds=2)
    assert (len(heard.frames), heard.stats.sent, heard.stats.decoded) == (0, 0, 0)
    seen = read_clip(folder / "h264.mp4", times=[1.0], seconds=2, audio=False)
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


def test_probe_says_what_is_there(folder: Path) -> None:
    info = probe(folder / "h264_ntsc.mkv")
    assert info.duration == pytest.approx(3, abs=0.05)
    assert info.fps == pytest.approx(24000 / 1001, abs=0.1)
    assert (info.width, info.height, info.rotation, info.video_codec) == (64, 48, 0, "h264")
    assert (info.sample_rate, info.channels, info.audio_codec) == (44100, 1, "flac")
    assert info.has_video
    assert info.has_audio


def test_the_same_call_gives_the_same_tensors(folder: Path) -> None:
    first, second = (read_clip(folder / "vp9_odd.webm", times=[0.4, 2.2], seconds=2.5, start=0.4) for _ in range(2))
    assert torch.equal(first.frames, second.frames)
    assert torch.equal(first.waveform, second.waveform)
    assert first.stats == second.stats


@pytest.mark.skipif(not NASA.exists(), reason="the real clip is not at hand")
def test_a_real_file_of_many_streams() -> None:
    for start in (0.0, 3.3, 8.1):
        asked = {"times": [0.5, 1.5, 2.5, 3.5], "seconds": 4.0, "start": start}
        clip, slow = read_clip(NASA, **asked), read_clip(NASA, **asked, sequential=True)
        assert torch.equal(clip.frames, slow.frames)
        assert clip.stats.fallback == ""
        assert clip.waveform.abs().max() > 0.01
    assert clip.stats.sent < slow.stats.sent


# Bad input ---------------------------------------------------------------------------------------------------------


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


def test_a_window_outside_the_file_is_an_error(folder: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), 8000)
    for path in (folder / "h264.mp4", folder / "h264_ntsc.mkv", tmp_path / "a.wav"):
        with pytest.raises(MediaError, match=r"begins at 30 s, but the file is .* s long"):
            read_clip(path, times=(), seconds=1, start=30)
    for asked in (
        {"times": [2.0], "seconds": 1},
        {"times": (), "seconds": 0},
        {"times": (), "seconds": 1, "start": -1},
    ):
        with pytest.raises(AvzooError, match="expected start >= 0"):
            read_clip(folder / "h264.mp4", **asked)
