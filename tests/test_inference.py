"""Files to windows to labels with times, and the pictures of them."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import torch
from media import Picture, Sound, write_media
from PIL import Image
from torch import Tensor

import avzoo
from avzoo import cli, hub, plot
from avzoo.clip import Clip, read_clip
from avzoo.errors import AvzooError, DataNotFoundError, MediaError
from avzoo.models import AVSDN
from avzoo.plot import timeline
from avzoo.prediction import Prediction
from avzoo.preprocess import Preprocessor, Sample, read_window

CLASSES = ["drone", "helicopter", "mandolin", "background"]
LIGHT = {"audio_backbone": "vggish", "visual_backbone": "tf_efficientnet_lite0", "size": 16}


class Brightness(AVSDN):
    """Answers "drone" in every second whose frame is brighter than the clip's first."""

    windows: list[float]

    def logits(self, clip: Clip, *, audio: bool = True, visual: bool = True) -> Tensor:  # noqa: ARG002
        self.windows.append(clip.start)
        bright = clip.frames.float().mean((1, 2, 3)) > 100
        return torch.stack([10.0 * bright, torch.zeros(10), torch.zeros(10), 10.0 * ~bright], -1)


@pytest.fixture
def model() -> Brightness:
    model = Brightness(CLASSES, preprocess={"audio_backbone": "vggish", "visual_backbone": "tf_efficientnet_lite0"})
    model.windows = []
    return model.eval()


def light(path: Path, seconds: float, lit: set[int]) -> Path:
    """A video that is white in the seconds of `lit` and black elsewhere, with silence."""
    with av.open(str(path), "w") as file:
        video = file.add_stream("libx264", rate=8, options={"g": "8"})
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        sound = file.add_stream("aac", rate=16000, layout="mono")
        for index in range(round(seconds * 8)):
            shade = 255 if index // 8 in lit else 0
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), shade, np.uint8))
            frame.pts, frame.time_base = index, Fraction(1, 8)
            file.mux(video.encode(frame))
        silence = np.zeros((1, round(seconds * 16000)), np.float32)
        for start in range(0, silence.shape[1], 1024):
            block = av.AudioFrame.from_ndarray(np.ascontiguousarray(silence[:, start : start + 1024]), "fltp", "mono")
            block.sample_rate, block.pts, block.time_base = 16000, start, Fraction(1, 16000)
            file.mux(sound.encode(block))
        file.mux(video.encode())
        file.mux(sound.encode())
    return path


def said(prediction: Prediction) -> list[str]:
    return [segment.labels[0][0] for segment in prediction.segments]


def test_one_window(model: Brightness, tmp_path: Path) -> None:
    answer = avzoo.predict(light(tmp_path / "a.mp4", 10, {2, 3, 4}), model)
    assert [(e.start, e.end, e.label) for e in answer.events] == [(2.0, 5.0, "drone")]
    assert [s.start for s in answer.segments] == [float(second) for second in range(10)]
    assert answer.clip is None
    assert answer.probabilities.sum(-1) == pytest.approx(1.0)


def test_a_long_video_is_read_in_windows_and_an_event_crosses_them(model: Brightness, tmp_path: Path) -> None:
    answer = avzoo.predict(light(tmp_path / "a.mp4", 23.6, {8, 9, 10, 11, 23}), model)
    assert model.windows == [0.0, 10.0, 14.0]  # the last is moved back so that it is full
    assert [(e.start, e.end) for e in answer.events] == [(8.0, 12.0), (23.0, pytest.approx(23.6, abs=0.2))]
    assert len(answer.segments) == 24


def test_a_video_shorter_than_the_window(model: Brightness, tmp_path: Path) -> None:
    answer = avzoo.predict(light(tmp_path / "a.mp4", 3.4, {1}), model)
    assert said(answer) == ["background", "drone", "background"]


def test_top_k_is_best_first(model: Brightness, tmp_path: Path) -> None:
    labels = avzoo.predict(light(tmp_path / "a.mp4", 10, {0}), model, top_k=2).segments[0].labels
    assert labels[0][0] == "drone"
    assert len(labels) == 2
    assert labels[0][1] > labels[1][1]


def test_a_folder_yields_one_answer_a_file_and_a_bad_one_stops_nothing(model: Brightness, tmp_path: Path) -> None:
    light(tmp_path / "a.mp4", 10, {1})
    (tmp_path / "b.mp4").write_bytes(b"")
    light(tmp_path / "c.mp4", 10, {2})
    answers = list(avzoo.predict(tmp_path, model))
    assert [answer.video.name for answer in answers] == ["a.mp4", "b.mp4", "c.mp4"]
    assert [bool(answer.error) for answer in answers] == [False, True, False]
    assert set(answers[1].to_dict()) == {"video", "error"}


def test_errors_of_a_single_file(model: Brightness, tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match="holds no video"):
        avzoo.predict(tmp_path, model)
    (tmp_path / "b.mp4").write_bytes(b"")
    with pytest.raises(MediaError, match=r"b\.mp4"):
        avzoo.predict(tmp_path / "b.mp4", model)
    with pytest.raises(DataNotFoundError, match=r"b\.mp4"):
        avzoo.predict(tmp_path / "c.mp4", model)


def test_command_line_prints_json_a_line_and_fails_at_the_end(
    model: Brightness, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "load_ref", lambda *_, **__: model)
    light(tmp_path / "a.mp4", 10, {1})
    (tmp_path / "b.mp4").write_bytes(b"")
    with pytest.raises(SystemExit) as stop:
        cli.main(["predict", str(tmp_path), "--json"])
    assert stop.value.code == 1
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["events"] == [{"start": 1.0, "end": 2.0, "label": "drone", "probability": pytest.approx(1, abs=1e-3)}]
    assert list(first) == ["video", "model", "task", "duration", "segments", "events", "clip", "remark"]
    assert first["remark"] == "silent: nothing is heard in it"
    assert second["video"].endswith("b.mp4")
    assert second["error"]


def test_command_line_draws_and_prints_a_timeline(
    model: Brightness, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "load_ref", lambda *_, **__: model)
    video = light(tmp_path / "a.mp4", 10, {1})
    cli.main(["predict", str(video), "--plot", str(tmp_path / "out.png")])
    out = capsys.readouterr().out
    assert "drone 1.0-2.0 s, 1.00" in out
    assert "│   ███                        │" in out  # ten seconds, three columns each
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.width > 1000
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 50


def test_timeline_of_a_long_video_fits_a_terminal(model: Brightness, tmp_path: Path) -> None:
    answer = avzoo.predict(light(tmp_path / "a.mp4", 130, set(range(60, 70))), model)
    text = plot.timeline_text(answer)
    assert max(map(len, text.splitlines()[1:])) <= 80
    assert "drone 60.0-70.0 s" in text


def test_background_throughout_says_so(model: Brightness, tmp_path: Path) -> None:
    assert "no event" in plot.timeline_text(avzoo.predict(light(tmp_path / "a.mp4", 10, set()), model))


def test_sound_of_its_own_file(model: Brightness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[float] = []
    look = Brightness.logits
    monkeypatch.setattr(
        Brightness, "logits", lambda self, clip, **_: heard.append(float(clip.waveform.mean())) or look(self, clip)
    )
    video = light(tmp_path / "a.mp4", 10, {1})
    soundfile.write(tmp_path / "a.wav", np.full(160_000, 0.25, np.float32), 16_000)
    assert said(avzoo.predict(video, model, audio=tmp_path / "a.wav"))[1] == "drone"
    assert heard == [pytest.approx(0.25, abs=1e-3)]
    with pytest.raises(AvzooError, match="is the sound of one video, 2 were given"):
        avzoo.predict([video, video], model, audio=tmp_path / "a.wav")


def test_a_model_in_training_answers_in_eval_mode(tmp_path: Path) -> None:
    class Network(AVSDN):
        def forward(self, audio: Tensor, visual: Tensor, lengths: Tensor | None = None) -> Tensor:
            assert not self.training
            return super().forward(audio, visual, lengths)

    network = Network(CLASSES, preprocess={"audio_backbone": "vggish", "visual_backbone": "tf_efficientnet_lite0"})
    network._preprocessor = lambda *_, **__: Sample(torch.zeros(10, 128), torch.zeros(10, 2048))  # type: ignore[assignment]
    network._preprocessor.device = network.device  # type: ignore[union-attr]
    network.train()
    network.decoder.eval()  # as fine-tuning holds what is frozen
    avzoo.predict(light(tmp_path / "a.mp4", 10, set()), network)
    assert network.training
    assert not network.decoder.training


def test_damage_that_was_padded_is_said(model: Brightness, tmp_path: Path) -> None:
    whole = light(tmp_path / "a.mkv", 10, {1})
    cut = tmp_path / "b.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(MediaError, match="missing"):
        avzoo.predict(cut, model)
    answer = avzoo.predict(cut, model, on_damage="pad")
    assert "missing" in answer.damage
    assert answer.to_dict()["damage"] == answer.damage
    assert "damaged: " in plot.timeline_text(answer)
    assert "damage" not in avzoo.predict(whole, model).to_dict()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--top-k", "0"], "top_k is 0"),
        (["--device", "nonsense"], "device 'nonsense' cannot be used"),
        (["--plot", "x.xyz"], "ends in .png"),
        (["b.mp4", "--plot", "x.png"], "name a folder"),
    ],
)
def test_wrong_options_are_said_before_the_work(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"never read")
    with pytest.raises(SystemExit):
        cli.main(["predict", "a.mp4", *arguments])
    assert said in capsys.readouterr().err


def test_pictures_of_one_name_do_not_overwrite_each_other(
    model: Brightness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "load_ref", lambda *_, **__: model)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        light(tmp_path / folder / "x.mp4", 3, {1})
    cli.main(["predict", str(tmp_path / "a"), str(tmp_path / "b"), "--plot", str(tmp_path / "out")])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["x-2.png", "x.png"]


def test_a_plot_of_a_long_video_reads_it_in_windows(
    model: Brightness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = avzoo.predict(light(tmp_path / "a.mp4", 75, {40}), model)
    windows: list[float] = []
    read = timeline.read_clip
    monkeypatch.setattr(timeline, "read_clip", lambda *a, **k: windows.append(k["seconds"]) or read(*a, **k))
    answer.plot()
    assert windows == [30.0, 30.0, 15.0]


# -- one modality, and sound in files of its own ---------------------------------------------------------------------


class Loudness(AVSDN):
    """Answers "drone" in every second that is louder than -20 dB; without sound "mandolin" throughout."""

    asked: list[tuple[float, bool, bool, int]]

    def logits(self, clip: Clip, *, audio: bool = True, visual: bool = True) -> Tensor:
        self.asked.append((clip.start, audio, visual, len(clip.frames)))
        if not audio:
            return torch.tensor([0.0, 0.0, 10.0, 0.0]).expand(10, 4)
        loud = clip.waveform.mean(0).unflatten(0, (10, -1)).abs().mean(1) > 0.1
        return torch.stack([10.0 * loud, torch.zeros(10), torch.zeros(10), 10.0 * ~loud], -1)


@pytest.fixture
def ear() -> Loudness:
    model = Loudness(CLASSES, preprocess={"audio_backbone": "vggish", "visual_backbone": "tf_efficientnet_lite0"})
    model.asked = []
    return model.eval()


def bang(path: Path, seconds: float, loud: set[int]) -> Path:
    """A sound file that is loud in the seconds of `loud` and silent elsewhere."""
    level = np.repeat([0.25 * (second in loud) for second in range(int(seconds) + 1)], 16_000)
    soundfile.write(path, level[: round(seconds * 16_000)], 16_000)
    return path


def silent(path: Path, seconds: float = 10) -> Path:
    """A video without an audio stream."""
    return write_media(path, Picture(codec="mpeg4", fps=2, size=(32, 32), seconds=seconds, b_frames=0))


def test_a_sound_file_is_enough_for_the_sound(ear: Loudness, tmp_path: Path) -> None:
    answer = avzoo.predict(bang(tmp_path / "a.wav", 23.6, {8, 9, 10, 23}), ear, modality="audio")
    assert ear.asked == [(0.0, True, False, 0), (10.0, True, False, 0), (14.0, True, False, 0)]
    assert [(e.start, e.end, e.label) for e in answer.events] == [
        (8.0, 11.0, "drone"),
        (23.0, pytest.approx(23.6), "drone"),
    ]
    assert answer.duration == pytest.approx(23.6)
    with pytest.raises(MediaError, match="no video stream"):
        avzoo.predict(tmp_path / "a.wav", ear)
    with pytest.raises(MediaError, match="no video stream"):
        avzoo.predict(tmp_path / "a.wav", ear, modality="visual")


def test_a_silent_video_is_enough_for_the_pictures(ear: Loudness, tmp_path: Path) -> None:
    video = silent(tmp_path / "a.mkv")
    with pytest.raises(MediaError, match="no audio stream"):
        avzoo.predict(video, ear)
    with pytest.raises(MediaError, match="no audio stream"):
        avzoo.predict(video, ear, modality="audio")
    assert set(said(avzoo.predict(video, ear, modality="visual"))) == {"mandolin"}
    assert ear.asked == [(0.0, False, True, 10)]


@pytest.mark.parametrize("reads", ["audio", "visual"])
def test_what_a_model_does_not_read_need_not_be_there(reads: str, tmp_path: Path) -> None:
    class OneEyed(Loudness):
        @property
        def modalities(self) -> tuple[str, ...]:
            return (reads,)

    model = OneEyed(CLASSES, preprocess={"audio_backbone": "vggish", "visual_backbone": "tf_efficientnet_lite0"})
    model.asked = []
    file = bang(tmp_path / "a.wav", 10, {3}) if reads == "audio" else silent(tmp_path / "a.mkv")
    avzoo.predict(file, model.eval())
    assert model.asked == [(0.0, reads == "audio", reads == "visual", 0 if reads == "audio" else 10)]


@pytest.mark.parametrize("as_folder", [False, True])
def test_a_folder_of_sounds_for_many_videos(as_folder: bool, ear: Loudness, tmp_path: Path) -> None:
    for folder in ("video", "audio"):
        (tmp_path / folder).mkdir()
    videos = [silent(tmp_path / "video" / f"{name}.mkv") for name in "abc"]
    bang(tmp_path / "audio" / "a.wav", 10, {1})
    bang(tmp_path / "audio" / "b.flac", 10, {2})
    (tmp_path / "audio" / "c.txt").touch()
    given = videos[0].parent if as_folder else videos
    answers = list(avzoo.predict(given, ear, audio=tmp_path / "audio"))
    assert [[e.start for e in answer.events] for answer in answers] == [[1.0], [2.0], []]
    assert [bool(answer.error) for answer in answers] == [False, False, True]
    assert "holds no sound called c" in answers[2].error
    single = avzoo.predict(videos[1], ear, audio=tmp_path / "audio")
    assert [e.start for e in single.events] == [2.0]
    with pytest.raises(DataNotFoundError, match="holds no sound called c"):
        avzoo.predict(videos[2], ear, audio=tmp_path / "audio")


def test_a_sound_of_another_length_is_an_error_or_damage(ear: Loudness, tmp_path: Path) -> None:
    video, sound = silent(tmp_path / "a.mkv", 23), bang(tmp_path / "a.wav", 11, {3, 10})
    with pytest.raises(MediaError, match=r"a\.mkv lasts 23\.\d* s and its sound, .*a\.wav, 11\.00 s"):
        avzoo.predict(video, ear, audio=sound)
    answer = avzoo.predict(video, ear, audio=sound, on_damage="pad")
    assert [(e.start, e.end) for e in answer.events] == [(3.0, 4.0), (10.0, 11.0)]
    assert "do not belong together" in answer.damage


def test_a_folder_is_searched_for_what_the_modality_needs(ear: Loudness, tmp_path: Path) -> None:
    bang(tmp_path / "a.wav", 10, {1})
    with pytest.raises(DataNotFoundError, match="holds no video"):
        avzoo.predict(tmp_path, ear)
    light(tmp_path / "b.mp4", 10, set())
    assert [answer.video.name for answer in avzoo.predict(tmp_path, ear, modality="audio")] == ["a.wav", "b.mp4"]
    assert [answer.video.name for answer in avzoo.predict(tmp_path, ear, modality="visual")] == ["b.mp4"]


def test_an_unknown_modality(ear: Loudness, tmp_path: Path) -> None:
    with pytest.raises(AvzooError, match="modality is 'sound', expected one of"):
        avzoo.predict(tmp_path / "a.wav", ear, modality="sound")  # type: ignore[call-overload]


@pytest.mark.usefixtures("cheap_backbones")
def test_a_model_gets_zeros_for_what_is_missing(tmp_path: Path) -> None:
    model = AVSDN(CLASSES, visual_dim=1280, hidden_dim=8, preprocess=LIGHT)
    sound, video = bang(tmp_path / "a.wav", 10, {1}), silent(tmp_path / "a.mkv")
    sample = Preprocessor(model.preprocess)
    heard = sample.audio(read_window(sound, model.preprocess, visual=False))[None]
    seen = sample.visual(read_window(video, model.preprocess, audio=False))[None]
    model.eval()
    with torch.no_grad():
        expected = {
            "audio": model(heard, torch.zeros(1, 10, 1280)),
            "visual": model(torch.zeros(1, 10, 128), seen),
            "both": model(heard, seen),
        }
    answers = {
        "audio": avzoo.predict(sound, model, modality="audio"),
        "visual": avzoo.predict(video, model, modality="visual"),
        "both": avzoo.predict(video, model, audio=sound),
    }
    for modality, answer in answers.items():
        torch.testing.assert_close(answer.probabilities, expected[modality][0].softmax(-1))
    assert not torch.equal(answers["audio"].probabilities, answers["both"].probabilities)


def test_a_scene_is_the_mean_of_its_segments(tmp_path: Path) -> None:
    class Scene(Loudness):
        task = "clip"

    model = Scene(CLASSES, preprocess={"audio_backbone": "vggish", "visual_backbone": "tf_efficientnet_lite0"})
    model.asked = []
    answer = avzoo.predict(bang(tmp_path / "a.wav", 10, {1, 2}), model.eval(), modality="audio")
    assert answer.events == []
    assert answer.clip is not None
    assert dict(answer.clip)["background"] == pytest.approx(0.8, abs=0.01)
    assert dict(answer.clip)["drone"] == pytest.approx(0.2, abs=0.01)
    assert [segment.labels[0][0] for segment in answer.segments[:3]] == ["background", "drone", "drone"]


# -- arrays ----------------------------------------------------------------------------------------------------------


def decoded(path: Path) -> tuple[np.ndarray, np.ndarray, int]:
    """All frames `[time, height, width, 3]`, all samples `[channels, samples]` and the rate, by PyAV alone."""
    with av.open(str(path)) as file:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
    with av.open(str(path)) as file:
        pieces = list(file.decode(audio=0))
    return frames, np.concatenate([piece.to_ndarray() for piece in pieces], 1), pieces[0].sample_rate


@pytest.mark.usefixtures("cheap_backbones")
@pytest.mark.parametrize("seconds", [4.4, 13.0])
def test_arrays_give_the_answer_of_their_file(seconds: float, tmp_path: Path) -> None:
    model = AVSDN(CLASSES, visual_dim=1280, hidden_dim=8, preprocess=LIGHT).eval()
    picture = Picture(codec="mpeg4", fps=8, size=(48, 64), seconds=seconds, b_frames=0)
    sound = Sound(codec="pcm_s16le", format="s16", rate=44_100, layout="stereo", seconds=seconds)
    video = write_media(tmp_path / "a.mkv", picture, sound)
    frames, samples, rate = decoded(video)
    wave = samples.reshape(-1, 2).T / 32768  # PyAV gives packed samples side by side
    theirs = avzoo.predict(video, model)
    for ours in (
        avzoo.Clip.of(frames, wave, rate, fps=8, id="a"),
        avzoo.Clip.of(torch.from_numpy(frames).permute(0, 3, 1, 2), torch.from_numpy(wave), rate, fps=8),
        avzoo.Clip.of(frames, wave, rate, frame_times=[index / 8 for index in range(len(frames))]),
    ):
        answer = avzoo.predict(ours, model)
        torch.testing.assert_close(answer.probabilities, theirs.probabilities, atol=1e-6, rtol=0)
        assert [(s.start, s.end) for s in answer.segments] == [
            (s.start, pytest.approx(s.end, abs=0.01)) for s in theirs.segments
        ]
        assert answer.arrays is ours
    assert avzoo.predict(avzoo.Clip.of(frames, wave, rate, fps=8, id="a"), model).to_dict()["video"] == "a"


@pytest.mark.usefixtures("cheap_backbones")
def test_arrays_of_one_modality(ear: Loudness) -> None:
    frames, wave = np.zeros((20, 8, 8, 3), np.uint8), np.repeat([0.0, 0.5, 0.0], 16_000)
    heard = avzoo.predict(Clip.of(None, wave, 16_000), ear, modality="audio")
    assert said(heard) == ["background", "drone", "background"]
    seen = avzoo.predict(Clip.of(frames, fps=4), ear, modality="visual")
    assert set(said(seen)) == {"mandolin"}
    assert seen.duration == 5
    quiet = avzoo.predict(Clip.of(frames, fps=4), ear, on_missing_audio="silence")
    assert set(said(quiet)) == {"background"}
    with pytest.raises(MediaError, match='has no frames, and pictures were asked for; modality="audio" does without'):
        avzoo.predict(Clip.of(None, wave, 16_000), ear)
    with pytest.raises(MediaError, match='has no waveform, and sound was asked for; modality="visual" does without'):
        avzoo.predict(Clip.of(frames, fps=4), ear)
    with pytest.raises(MediaError, match=r"a Clip brings its own sound, and x\.wav was given too"):
        avzoo.predict(Clip.of(frames, wave, 16_000, fps=4), ear, audio="x.wav")


def test_files_and_arrays_in_one_list(model: Brightness, tmp_path: Path) -> None:
    bright = Clip.of(np.full((12, 8, 8, 3), 255, np.uint8), np.zeros(48_000), 16_000, fps=4, id="bright")
    mute = Clip.of(np.zeros((12, 8, 8, 3), np.uint8), fps=4, id="mute")
    answers = list(avzoo.predict([bright, light(tmp_path / "a.mp4", 3, {1}), mute], model))
    assert [answer.video for answer in answers] == [Path("bright"), tmp_path / "a.mp4", Path("mute")]
    assert said(answers[0]) == ["drone"] * 3
    assert "mute: has no waveform" in answers[2].error


@pytest.mark.parametrize("given", [(np.zeros((2, 8, 8, 3), np.uint8), np.zeros(2), 1), torch.zeros(2), 5, None])
def test_arrays_that_are_no_clip_are_told_what_makes_one(model: Brightness, given: Any) -> None:
    with pytest.raises(AvzooError, match=r"expected a file, a folder, a Clip, or a list of them, .* avzoo\.Clip\.of"):
        avzoo.predict(given, model)


def test_a_clip_is_cut_as_a_file_is(tmp_path: Path) -> None:
    times = tuple(np.cumsum([0.0, *np.random.default_rng(0).uniform(0.02, 0.4, 20)]).round(3))
    picture = Picture(codec="mpeg4", times=times, seconds=times[-1], b_frames=0)
    video = write_media(tmp_path / "a.mkv", picture, Sound(codec="pcm_s16le", format="s16", seconds=4))
    frames, samples, rate = decoded(video)
    whole = Clip.of(frames, samples[0] / 32768, rate, frame_times=times)
    for start in (0.0, 1.3, 4.1):
        options = {"times": [0.0, 0.4, 1.0], "seconds": 1.0, "start": start}
        ours, theirs = read_clip(whole, **options), read_clip(video, **options)  # type: ignore[arg-type]
        assert torch.equal(ours.frames, theirs.frames)
        assert torch.equal(ours.waveform, theirs.waveform)
        assert (ours.start, ours.seconds) == (theirs.start, theirs.seconds)
    assert ours.padded == pytest.approx(5.1 - whole.seconds) == pytest.approx(5.1 - times[-1] - times[-1] / 20)
    assert torch.equal(read_clip(ours, times=[0.4], seconds=0.5).frames, ours.frames[1:2])  # a window is a clip too
    with pytest.raises(MediaError, match="the window begins at 9 s, but the clip is"):
        read_clip(whole, times=[], seconds=1, start=9)


def test_a_single_picture_is_a_segment(ear: Loudness) -> None:
    photo = Clip.of(np.zeros((1, 8, 8, 3), np.uint8), frame_times=[0])
    answer = avzoo.predict(photo, ear, modality="visual")
    assert [(s.start, s.end) for s in answer.segments] == [(0, 1)]


def test_arrays_are_shared_where_torch_can() -> None:
    frames, wave = np.zeros((2, 4, 6, 3), np.uint8), np.zeros(100, np.float32)
    clip = Clip.of(frames, wave, 100, fps=1)
    frames[0, 0, 0, 0], wave[0] = 7, 0.5
    assert int(clip.frames[0, 0, 0, 0]) == 7
    assert float(clip.waveform[0, 0]) == 0.5
    backwards = Clip.of(frames[..., ::-1], fps=1)  # as OpenCV's colours are turned round
    assert int(backwards.frames[0, 2, 0, 0]) == 7
    fixed = np.broadcast_to(np.uint8(3), (2, 4, 6, 3))
    assert int(Clip.of(fixed, fps=1).frames.sum()) == 3 * fixed.size


FRAMES, WAVE = np.zeros((4, 8, 6, 3), np.uint8), np.zeros(100)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "neither frames nor a waveform"),
        ({"frames": FRAMES.astype(np.float32), "fps": 1}, r"the frames are float32 \[4, 8, 6, 3\]; expected uint8"),
        ({"frames": FRAMES[0], "fps": 1}, r"the frames are uint8 \[8, 6, 3\]"),
        ({"frames": FRAMES[..., :1], "fps": 1}, r"the frames are uint8 \[4, 8, 6, 1\]"),
        ({"frames": FRAMES[:0], "fps": 1}, "one frame at least"),
        ({"frames": FRAMES}, "need either fps= .* or frame_times="),
        ({"frames": FRAMES, "fps": 1, "frame_times": [0, 1, 2, 3]}, "and not both"),
        ({"frames": FRAMES, "fps": 0}, "fps is 0; expected a positive number"),
        ({"frames": FRAMES, "frame_times": [0, 1, 2]}, r"frame_times has the shape \[3\] for 4 frames"),
        ({"frames": FRAMES, "frame_times": [0, 2, 1, 3]}, "each later than the one before"),
        ({"frames": FRAMES, "frame_times": [-1, 0, 1, 3]}, "from 0 s on"),
        ({"waveform": WAVE.astype(np.int16), "rate": 100}, r"the waveform is int16 \[100\]; expected float"),
        ({"waveform": WAVE.reshape(50, 2), "rate": 100}, r"\[50, 2\]; expected .* \[channels, samples\]"),
        ({"waveform": WAVE}, "rate is 0; expected a whole positive number of Hz"),
        ({"waveform": WAVE, "rate": 0.5}, "rate is 0.5"),
        ({"waveform": WAVE + np.nan, "rate": 100}, "reaches nan"),
        ({"waveform": WAVE + 20_000, "rate": 100}, r"reaches 20000; expected samples in \[-1, 1\]"),
    ],
)
def test_arrays_that_cannot_be_meant_are_said(given: dict[str, object], said: str) -> None:
    with pytest.raises(MediaError, match=said):
        Clip.of(**given)  # type: ignore[arg-type]
