"""Answers while the input comes: the same as of the file, each second once, and memory that stays flat."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from media import Picture, Sound, write_media
from torch import Tensor

import avzoo
from avzoo import live, streaming
from avzoo.clip import Clip, read_clip
from avzoo.errors import AvzooError, DataNotFoundError, MediaError
from avzoo.models import AVSDN
from avzoo.models.base import AVModule
from avzoo.prediction import Segment
from avzoo.preprocess import Preprocessor

CLASSES = ["drone", "helicopter", "mandolin", "background"]
LIGHT = {"audio_backbone": "vggish", "visual_backbone": "tf_efficientnet_lite0", "size": 16}
RATE = 16_000

pytestmark = pytest.mark.usefixtures("cheap_backbones")


class Gist(AVModule):
    """Whatever kind it reads, its answer for a segment depends on all of the window."""

    task = "segment"

    def forward(self, audio: Tensor | None, visual: Tensor | None) -> Tensor:
        sums = [x.float().flatten(2).nan_to_num().mean(2) / 50 for x in (audio, visual) if x is not None]
        here = torch.stack(sums).mean(0)  # [batch, segments]
        there = here.cumsum(1) + here.flip(1).cumsum(1).flip(1) * 2
        return torch.stack([here, there / 20, there.sin(), here.cos()], -1)

    def loss(self, logits: Tensor, label: Tensor) -> Tensor:
        raise NotImplementedError

    def configure_optimizers(self) -> None:
        raise NotImplementedError


def network(**numbers: Any) -> AVSDN:
    torch.manual_seed(0)
    return AVSDN(CLASSES, visual_dim=1280, hidden_dim=8, preprocess=LIGHT | numbers).eval()


def scene(seconds: float, fps: float = 4.0, rate: int = RATE, channels: int = 1) -> Clip:
    """Pictures and sound of which no two seconds are alike."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (round(seconds * fps), 24, 32, 3), dtype=np.uint8)
    wave = rng.normal(0, 0.1, (channels, round(seconds * rate))).astype(np.float32)
    return Clip.of(frames, wave * np.linspace(0, 1, wave.shape[1]), rate, fps=fps)


def cut(clip: Clip, *ends: float, start: float = 0.0) -> Iterator[Clip]:
    """Pieces of a clip, one after another."""
    fps, begin = round(len(clip.frames) / clip.seconds), start
    for end in ends:
        frames = clip.frames[round(begin * fps) : round(end * fps)]
        wave = clip.waveform[:, round(begin * clip.sample_rate) : round(end * clip.sample_rate)]
        yield Clip.of(frames, wave, clip.sample_rate, fps=fps)
        begin = end


def same(ours: Segment, theirs: Segment, within: float = 1e-5) -> None:
    assert (ours.start, ours.end) == (pytest.approx(theirs.start), pytest.approx(theirs.end))
    assert dict(ours.labels) == pytest.approx(dict(theirs.labels), abs=within)


KINDS = {
    "log-mel, frozen": LIGHT,
    "gammatone, frames": LIGHT
    | {"audio_backbone": "", "audio_kind": "gammatone", "sample_rate": 16_000, "window": 640, "hop": 320}
    | {"f_max": 8000.0, "bands": 8, "visual_kind": "frame", "fps": 5.0},
    "scalogram over the clip, images": LIGHT
    | {"audio_backbone": "", "audio_kind": "scalogram", "clip_stft": True, "visual_kind": "image"},
    "fbank, segments of 2 s": LIGHT
    | {"audio_backbone": "", "audio_kind": "fbank", "segments": 5, "fps": 0.5, "visual_kind": "image"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_is_that_of_a_file_that_ends_there(kind: str) -> None:
    model = Gist(CLASSES, KINDS[kind]).eval()
    step = model.preprocess.segment_seconds
    whole = scene(13.0, fps=10, channels=2)
    answers = list(avzoo.stream(cut(whole, *np.arange(0.7, 13, 0.7), 13), model, top_k=4))
    assert len(answers) == int(13 / step + 0.5)
    for answer in (answers[0], answers[len(answers) // 2], answers[-2], answers[-1]):
        (until,) = cut(whole, answer.end)
        same(answer, avzoo.predict(until, model, top_k=4).segments[-1])
    assert len({round(dict(answer.labels)["drone"], 5) for answer in answers}) == len(answers)


def test_resampling_hears_across_seconds_by_less_than_a_thousandth() -> None:
    model, whole = network(), scene(12, rate=44_100)
    last = list(avzoo.stream(cut(whole, 5, 12), model, top_k=4))[-1]
    same(last, avzoo.predict(whole, model, top_k=4).segments[-1], 1e-3)


@pytest.mark.parametrize(("seconds", "count"), [(0.2, 1), (3.4, 3), (3.6, 4)])
def test_a_part_of_a_segment_at_the_end_counts_from_its_middle_on(seconds: float, count: int) -> None:
    model, whole = network(), scene(seconds, fps=10)
    answers, theirs = list(avzoo.stream(whole, model, top_k=4)), avzoo.predict(whole, model, top_k=4).segments
    assert [(a.start, a.end) for a in answers] == [pytest.approx((t.start, t.end)) for t in theirs]
    assert len(answers) == count
    if round(seconds) != 3:  # the third was said before the part of the fourth that predict knows
        same(answers[-1], theirs[-1])


def test_pictures_that_outlast_their_sound_give_way_to_the_next_clip() -> None:
    cutter = streaming._Cutter(network().preprocess, audio=True, visual=True)
    longer = Clip.of(np.full((4, 8, 8, 3), 1, np.uint8), np.zeros(RATE // 4), RATE, fps=4)  # 1 s to see, 0.25 s to hear
    after = Clip.of(np.full((4, 8, 8, 3), 2, np.uint8), np.zeros(RATE), RATE, fps=4)
    first, *_ = cutter.clips(streaming._of_clips([longer, after], {"audio": True, "visual": True}))
    assert first.frames.unique().tolist() == [2]  # at 0.5 s


@pytest.mark.parametrize("modality", ["audio", "visual"])
def test_one_modality(modality: Any) -> None:
    model, whole = network(), scene(3)
    alone = Clip.of(None, whole.waveform, RATE) if modality == "audio" else Clip.of(whole.frames, fps=4)
    answers = list(avzoo.stream([alone], model, top_k=4, modality=modality))
    same(answers[-1], avzoo.predict(alone, model, top_k=4, modality=modality).segments[-1])
    with pytest.raises(MediaError, match=f'modality="{modality}" does without'):
        list(avzoo.stream([alone], model))


def test_memory_is_flat_and_each_second_is_read_once_over_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    model, hour = network(), 3600
    read: list[int] = []
    visual = Preprocessor.visual
    monkeypatch.setattr(Preprocessor, "visual", lambda self, clip, *a: read.append(1) or visual(self, clip, *a))
    alive = weakref.WeakSet[Tensor]()
    most = 0

    def input_for_an_hour() -> Iterator[Clip]:
        nonlocal most
        for second in range(hour):
            frames = torch.full((2, 3, 4, 4), second % 256, dtype=torch.uint8)
            wave = torch.full((1, RATE), 0.01 * (second % 7))
            alive.update((frames, wave))
            most = max(most, len(alive))
            yield Clip.of(frames, wave, RATE, fps=2)

    last = None
    for count, last in enumerate(avzoo.stream(input_for_an_hour(), model), 1):  # noqa: B007
        pass
    assert last is not None
    assert (count, last.start, last.end) == (hour, hour - 1, hour)
    assert most <= 8  # tensors of the input that anything still held
    padding = model.preprocess.segments - 1  # while the first window fills
    assert len(read) == hour + padding


def test_the_cutter_forgets_what_is_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    forget = streaming._Cutter._forget

    def watched(self: streaming._Cutter) -> None:
        forget(self)
        held.append(len(self.pictures) + len(self.sounds))

    monkeypatch.setattr(streaming._Cutter, "_forget", watched)
    whole = scene(20, fps=25)
    list(avzoo.stream(cut(whole, *np.arange(0.1, 20.05, 0.1)), network()))
    assert max(held) <= 4


def recorded(path: Path, seconds: float = 6.0) -> Path:
    fragmented = {"movflags": "frag_keyframe+empty_moov"} if path.suffix == ".mp4" else {}
    picture = Picture(codec="mpeg4", fps=8, size=(48, 64), seconds=seconds, gop=8, b_frames=0)
    return write_media(path, picture, Sound(codec="aac", seconds=seconds), options=fragmented)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_a_file_that_grows_while_it_is_read(suffix: str, tmp_path: Path) -> None:
    model = network()
    data = recorded(tmp_path / f"whole{suffix}").read_bytes()
    growing, answered = tmp_path / f"growing{suffix}", threading.Event()
    growing.write_bytes(data[: 2 * len(data) // 3])

    def write_the_rest() -> None:
        assert answered.wait(20), "nothing was said of the first two thirds"
        with growing.open("ab") as file:
            file.write(data[2 * len(data) // 3 :])

    writer = threading.Thread(target=write_the_rest)
    writer.start()
    answers = []
    for segment in avzoo.stream(growing, model, top_k=4, timeout=0.5):
        answers.append(segment)
        answered.set()
    writer.join()
    theirs = avzoo.predict(growing, model, top_k=4)
    assert [a.start for a in answers] == [0, 1, 2, 3, 4, 5]
    same(answers[-1], theirs.segments[-1], 1e-3)  # the codec's last frame ends some hundredths later


def test_the_end_of_a_file_is_waited_for_once_and_can_be_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libav asks for more several times, and lets no KeyboardInterrupt pass."""
    waits: list[float] = []
    monkeypatch.setattr(live.time, "sleep", waits.append)
    video = recorded(tmp_path / "a.mkv", 2)
    assert len(list(avzoo.stream(video, network(), timeout=0))) == 2
    assert waits == [0]

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(live.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(avzoo.stream(video, network(), timeout=60))


def test_a_finished_file_of_any_kind(tmp_path: Path) -> None:
    picture = Picture(codec="mpeg4", fps=8, seconds=12, b_frames=0)
    video = write_media(tmp_path / "a b.mp4", picture, Sound(codec="aac", seconds=12))  # its index at its end
    model = network()
    answers = list(avzoo.stream(str(video), model, top_k=4, timeout=0))
    assert len(answers) == 12
    same(answers[-1], avzoo.predict(video, model, top_k=4).segments[-1], 1e-3)


def test_one_stream_far_ahead_of_the_other_is_not_waited_for(tmp_path: Path) -> None:
    still = Picture(codec="mpeg4", times=(0.0, 0.5), seconds=1, b_frames=0)
    video = write_media(tmp_path / "a.mkv", still, Sound(codec="aac", seconds=14))
    assert len(list(avzoo.stream(video, network(), timeout=0))) == 14


def test_devices_of_their_own_for_picture_and_sound() -> None:
    """libav's virtual devices stand in for a camera and a microphone: neither ever ends."""
    devices = {"format": "lavfi", "audio": "sine=frequency=440:sample_rate=16000", "audio_format": "lavfi"}
    answers = list(islice(avzoo.stream("testsrc2=size=64x48:rate=8", network(), **devices), 3))  # type: ignore[arg-type]
    assert [(a.start, a.end) for a in answers] == [(0, 1), (1, 2), (2, 3)]
    heard = list(islice(avzoo.stream("sine=frequency=440", network(), format="lavfi", modality="audio"), 2))
    assert len(heard) == 2


@pytest.mark.skipif(
    not Path("/usr/share/alsa/alsa.conf").exists(), reason="needs ALSA's settings (Debian: libasound2-data)"
)
def test_a_sound_device_opens() -> None:
    """ALSA's null device needs no card, but ALSA's settings, as every device."""
    options = {"sample_rate": "16000", "channels": "1"}
    first = next(live.follow("null", visual=False, format="alsa", options=options))
    assert (first.time, first.rate) == (0, 16_000)
    assert first.sound is not None


def test_a_hole_in_the_sound_is_silence() -> None:
    cutter = streaming._Cutter(network().preprocess, audio=True, visual=False)
    tone = torch.full((1, RATE // 2), 0.5)
    pieces = [streaming.Piece(0.0, sound=tone, rate=RATE), streaming.Piece(1.25, sound=tone, rate=RATE)]
    first, second = cutter.clips([*pieces, streaming.Piece(2.0)])
    assert [float(first.waveform[0, int(t * RATE)]) for t in (0.1, 0.6, 0.9)] == [0.5, 0.0, 0.0]
    assert [float(second.waveform[0, int(t * RATE)]) for t in (0.1, 0.3, 0.7, 0.8)] == [0.0, 0.5, 0.5, 0.0]


def test_the_window_is_cut_as_a_file_is() -> None:
    whole = scene(3, fps=25)
    cutter = streaming._Cutter(network(fps=2.0).preprocess, audio=True, visual=True)
    clips = list(cutter.clips(streaming._of_clips(cut(whole, 0.32, 1.92, 3), {"audio": True, "visual": True})))
    for clip in clips:
        theirs = read_clip(whole, times=[0.0, 0.5], seconds=1, start=clip.start)
        assert torch.equal(clip.frames, theirs.frames)
        assert torch.equal(clip.waveform, theirs.waveform)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "said"),
    [
        ("nothing.mp4", {}, DataNotFoundError, "nothing.mp4: no such file; a device needs its kind"),
        ("/dev/null", {}, MediaError, "is no file; a device needs its kind"),
        ("text.mp4", {}, MediaError, "text.mp4: cannot be opened as media .*has to be a fragmented MP4"),
        ("cut.mp4", {}, MediaError, "cut.mp4: cannot be opened as media .*has to be a fragmented MP4"),
        (
            "/dev/video99",
            {"format": "v4l2"},
            MediaError,
            r"No such file .* the device there, and its kind \(format='v4l2'",
        ),
        ("x", {"format": "nonsense"}, MediaError, "no container format 'nonsense'"),
        ("http://127.0.0.1:9/a.mkv", {}, MediaError, "Connection refused.*is the address right"),
        ("silent.mkv", {}, MediaError, 'has no audio stream .*modality="visual" does without'),
        ([np.zeros(3)], {}, AvzooError, "a stream of ndarray was given, expected avzoo.Clip"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_sentence(
    arguments: Any, options: Any, error: type[Exception], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.mp4").write_text("not a video at all, " * 50)
    picture = Picture(codec="mpeg4", fps=8, seconds=1, b_frames=0)
    write_media(Path("silent.mkv"), picture)
    Path("cut.mp4").write_bytes(write_media(Path("whole.mp4"), picture).read_bytes()[:2000])  # its index is to come
    with pytest.raises(error, match=said):
        list(avzoo.stream(arguments, network(), timeout=0, **options))


def test_wrong_arguments_are_said_before_anything_is_opened() -> None:
    model = network()
    for options, said in (
        ({"top_k": 0}, "top_k is 0"),
        ({"modality": "sound"}, "modality is 'sound'"),
        ({"timeout": -1}, "timeout is -1"),
    ):
        with pytest.raises(AvzooError, match=said):
            avzoo.stream("never opened.mp4", model, **options)  # type: ignore[arg-type]
    with pytest.raises(AvzooError, match="clips bring their own sound"):
        avzoo.stream([], model, audio="default")


def test_sound_that_changes_its_rate_is_said() -> None:
    changing = [Clip.of(None, np.zeros(RATE), RATE), Clip.of(None, np.zeros(8000), 8000)]
    with pytest.raises(MediaError, match=r"the sound changes at 1\.00 s from 16000 Hz to 8000 Hz"):
        list(avzoo.stream(changing, network(), modality="audio"))
