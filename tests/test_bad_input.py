"""What people bring that is no good: each is told in a sentence, or does no harm.

Tables and splits of all kinds are in `test_clips.py`, what else `avzoo check` finds in `test_check.py`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from media import Picture, Pixels, Sound, texture, write_media
from PIL import Image

import avzoo
from avzoo.checking import Report, check
from avzoo.clip import Clip, read_clip
from avzoo.data.clips import Clips
from avzoo.errors import AnnotationError, AvzooError, DataNotFoundError, MediaError
from avzoo.models import AVSDN, AVModule, JointScalogramNet, SECRNNFusion

LIGHT: dict[str, Any] = {"audio_backbone": "vggish", "visual_backbone": "tf_efficientnet_lite0", "size": 32}
FRAMES: dict[str, Any] = {"visual_kind": "frame", "visual_backbone": "tf_efficientnet_lite0", "size": 16}
GAMMATONE: dict[str, Any] = {
    "audio_kind": "gammatone", "sample_rate": 8000, "window": 320, "hop": 160, "f_max": 4000.0, "fps": 5, **FRAMES,
}  # fmt: skip
SCALOGRAM: dict[str, Any] = {
    "audio_kind": "scalogram", "sample_rate": 8000, "n_fft": 2048, "window": 2048, "hop": 1000, "bands": 40,
    "bank": "geometric", "frames": 3, **FRAMES,
}  # fmt: skip
HOURS = 7200  # s
QUICK: dict[str, Any] = {"epochs": 1, "workers": 0}

pytestmark = pytest.mark.usefixtures("cheap_backbones")


def flat(index: int, size: tuple[int, int]) -> Pixels:
    """A picture of one colour: quick to make, however large."""
    return np.full((*size, 3), 40 + 7 * index % 200, np.uint8)


def black(_: int, size: tuple[int, int]) -> Pixels:
    return np.zeros((*size, 3), np.uint8)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`0.mp4` to `3.mp4`, good ones of 1 s; and the others that the tests are about."""
    folder = tmp_path_factory.mktemp("media")
    for n in range(4):
        picture = Picture(seconds=1, fps=5, render=lambda i, size, n=n: texture(100 * n + i, size))  # type: ignore[misc]
        write_media(folder / f"{n}.mp4", picture, Sound(seconds=1))
    write_media(folder / "short.mp4", Picture(seconds=0.2), Sound(seconds=0.2))
    write_media(folder / "silent.mp4", Picture(seconds=3, fps=5), Sound(seconds=3, clicks=()))
    write_media(folder / "black.mp4", Picture(seconds=3, fps=5, render=black), Sound(seconds=3))
    write_media(folder / "both.mp4", Picture(seconds=3, fps=5, render=black), Sound(seconds=3, clicks=()))
    write_media(folder / "click.mp4", Picture(seconds=30, fps=1, render=black), Sound(seconds=30, clicks=(29.5,)))
    Image.fromarray(texture(0, (48, 64))).save(folder / "photo.jpg")
    Image.fromarray(texture(1, (48, 64))).save(folder / "photo.png")
    return folder


@pytest.fixture
def mine(tmp_path: Path, media: Path) -> Callable[..., Path]:
    """A folder of two classes of two good clips, and another clip of the first class."""

    def folder(extra: str = "", name: str = "") -> Path:
        for n in range(4):
            target = tmp_path / "mine" / ("bell", "siren")[n % 2] / f"{n}.mp4"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(media / f"{n}.mp4", target)
        if extra:
            shutil.copyfile(media / extra, tmp_path / "mine" / "bell" / (name or extra))
        return tmp_path / "mine"

    return folder


def avsdn() -> AVSDN:
    torch.manual_seed(0)
    return AVSDN(["drone", "guitar", "background"], visual_dim=1280, hidden_dim=4, preprocess=LIGHT).eval()


def kinds(report: Report) -> set[str]:
    """What a check finds besides that there is little."""
    return {problem.kind for problem in report.problems} - {"few clips", "no validation", "little validation"}


# -- folders and tables ----------------------------------------------------------------------------------------------


def test_an_empty_folder(tmp_path: Path) -> None:
    assert "is empty: expected" in check(tmp_path).problems[0].message
    with pytest.raises(DataNotFoundError, match="is empty: expected"):
        avzoo.finetune(avsdn(), tmp_path, **QUICK)
    with pytest.raises(DataNotFoundError, match="holds no video: expected files ending in"):
        avzoo.predict(tmp_path, avsdn())


def test_one_class_only(mine: Callable[..., Path]) -> None:
    shutil.rmtree(mine() / "siren")
    root = mine().parent / "mine"
    shutil.rmtree(root / "siren")
    assert "one class" in kinds(check(root))
    with pytest.raises(AnnotationError, match="there is one class, bell, and nothing to tell it from: add a second"):
        avzoo.finetune(avsdn(), root, **QUICK)


def test_a_class_with_one_clip(mine: Callable[..., Path]) -> None:
    root = mine()
    (root / "siren" / "3.mp4").unlink()
    assert "one clip" in kinds(check(root))
    with pytest.raises(AnnotationError, match="there is one clip of siren: one to learn from and another to validate"):
        avzoo.finetune(avsdn(), root, **QUICK)


def test_spaces_and_letters_of_all_kinds(mine: Callable[..., Path], tmp_path: Path) -> None:
    root = mine().rename(tmp_path / "Übung 1: 'laut' & #leise%20")
    (root / "bell").rename(root / "鐘 (bell) ☆")
    assert kinds(check(root)) == set()
    model = avzoo.finetune(avsdn(), root, out=tmp_path / "mein Modell ä", **QUICK)
    assert model.classes == ["siren", "鐘 (bell) ☆", "background"]
    again = avzoo.load(tmp_path / "mein Modell ä")
    assert len(avzoo.predict(root / "鐘 (bell) ☆" / "0.mp4", again).segments) == 1


def test_a_table_as_excel_saves_it(mine: Callable[..., Path]) -> None:
    """Semicolons, a byte order mark, Windows line ends, decimal commas, backslashes, columns of nothing."""
    root = mine()
    lines = ["Path;Label;Start;End;;"]
    lines += [f"{path.parent.name}\\{path.name};{path.parent.name};0,0;0,75;;" for path in sorted(root.glob("*/*"))]
    (root / "clips.csv").write_bytes("\r\n".join([*lines, ";;;;;", ""]).encode("utf-8-sig"))
    report = check(root / "clips.csv")
    assert (kinds(report), report.task, report.files) == (set(), "events", 4)
    assert avzoo.finetune(avsdn(), root / "clips.csv", **QUICK).classes == ["bell", "siren", "background"]


# -- videos ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_hours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of two hours, one picture a second, with sound."""
    path = tmp_path_factory.mktemp("long") / "lecture.mkv"
    rate = 4000  # Hz
    with av.open(path, "w") as file:
        video, audio = file.add_stream("mpeg4", rate=1), file.add_stream("flac", rate=rate, layout="mono")
        video.width = video.height = 16
        video.pix_fmt = "yuv420p"
        for second in range(HOURS):
            frame = av.VideoFrame.from_ndarray(flat(second, (16, 16)), format="rgb24")
            frame.time_base, frame.pts = Fraction(1), second
            file.mux(video.encode(frame))
            sound = av.AudioFrame.from_ndarray(np.full((1, rate), 99 * (second % 7), np.int16), "s16", "mono")
            sound.sample_rate, sound.time_base, sound.pts = rate, Fraction(1, rate), second * rate
            file.mux(audio.encode(sound))
        file.mux(video.encode(None))
        file.mux(audio.encode(None))
    return path


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> list[Clip]:
    """Every window that the signal path reads from now on, without its content."""
    found: list[Clip] = []

    def spy(*given: Any, **options: Any) -> Clip:
        clip = read_clip(*given, **options)
        found.append(Clip(clip.frames[:0], clip.frame_times, clip.waveform[:0], clip.sample_rate, clip.id, clip.start,
                          stats=clip.stats))  # fmt: skip
        return clip

    monkeypatch.setattr("avzoo.preprocess.preprocessor.read_clip", spy)
    return found


def test_two_hours_are_read_window_by_window(
    two_hours: Path, windows: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AVSDN, "logits", lambda *_, **__: torch.zeros(10, 3))  # the windows are what is looked at
    prediction = avzoo.predict(two_hours, avsdn())
    assert len(prediction.segments) == HOURS
    assert [clip.start for clip in windows] == list(range(0, HOURS, 10))
    assert max(clip.stats.packets for clip in windows) < 200  # of 60,000: none is read from the beginning
    assert max(clip.stats.decoded for clip in windows) < 40


def test_two_hours_to_train_on(mine: Callable[..., Path], two_hours: Path) -> None:
    root = mine()
    (root / "bell" / "lecture.mkv").symlink_to(two_hours)
    report = check(root)
    assert kinds(report) == set()
    assert report.seconds["longest"] == HOURS
    data = Clips(root, task="events", preprocess=LIGHT)
    assert len(data.items("train")) + len(data.items("val")) == HOURS // 10 + 4


def test_a_fifth_of_a_second(mine: Callable[..., Path], media: Path) -> None:
    report = check(mine("short.mp4"))
    assert kinds(report) == {"very short"}
    assert report.errors == 0
    assert avzoo.finetune(avsdn(), mine("short.mp4"), **QUICK).classes == ["bell", "siren", "background"]
    [segment] = avzoo.predict(media / "short.mp4", avsdn()).segments
    assert (segment.start, segment.end) == (0, 1)


@pytest.mark.parametrize("photo", ["photo.jpg", "photo.png"])
def test_a_photo_that_is_called_a_video(mine: Callable[..., Path], media: Path, photo: str) -> None:
    root = mine(photo, "holiday.mp4")
    assert kinds(check(root)) == {"photo"}
    with pytest.raises(MediaError, match=r"holiday\.mp4: is a photo, not a video: remove it, or record a video"):
        avzoo.finetune(avsdn(), root, **QUICK)
    for on_missing_audio in ("error", "silence"):
        with pytest.raises(AvzooError, match="is a photo"):
            avzoo.predict(media / photo, avsdn(), on_missing_audio=on_missing_audio)  # type: ignore[arg-type]


def test_a_photo_beside_the_videos(mine: Callable[..., Path]) -> None:
    assert kinds(check(mine("photo.jpg"))) == {"photos"}
    assert len(Clips(mine("photo.jpg"), preprocess=LIGHT, task="events").rows) == 4


def test_4k_at_60_pictures_a_second(mine: Callable[..., Path], media: Path, windows: list[Clip]) -> None:
    path = media / "4k.mp4"
    large = Picture(codec="mpeg4", fps=60, size=(2160, 3840), seconds=0.25, b_frames=0, render=flat)
    write_media(path, large, Sound(seconds=0.25))
    assert kinds(check(mine("4k.mp4"))) == {"very short"}
    prediction = avzoo.predict(path, avsdn())
    assert len(prediction.segments) == 1
    assert windows[0].stats.converted <= 4  # those that are on screen at one of the eight instants of a second


# -- nothing to hear, nothing to see ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "found"), [("silent.mp4", {"silent"}), ("black.mp4", {"black"}), ("both.mp4", {"silent", "black"})]
)
def test_silence_and_black_are_pointed_out(mine: Callable[..., Path], name: str, found: set[str]) -> None:
    root = mine(name)
    report = check(root)
    assert kinds(report) == found
    assert report.errors == 0
    for problem in report.problems:
        assert problem.kind not in found or problem.files == (str(root / "bell" / name),)


def test_one_click_late_in_a_file_is_no_silence(mine: Callable[..., Path]) -> None:
    assert kinds(check(mine("click.mp4"))) == {"black"}


@pytest.mark.parametrize("kind", ["AVSDN", "SECRNNFusion", "JointScalogramNet"])
def test_silence_and_black_do_no_harm(mine: Callable[..., Path], media: Path, kind: str) -> None:
    torch.manual_seed(0)
    parent: AVModule = avsdn()
    if kind == "SECRNNFusion":
        parent = SECRNNFusion(["a", "b"], preprocess=GAMMATONE, image_features=1280)
    elif kind == "JointScalogramNet":
        parent = JointScalogramNet(["a", "b"], preprocess=SCALOGRAM)
    model = avzoo.finetune(parent, mine("both.mp4"), **QUICK)
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())
    assert avzoo.predict(media / "both.mp4", model).probabilities.isfinite().all()
