"""A prediction in a notebook: card, table, picture, events at a threshold."""

from __future__ import annotations

import base64
import io
import pickle
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from media import Picture, Sound, write_media
from PIL import Image

from avzoo import notebook
from avzoo.clip import Clip
from avzoo.errors import AvzooError
from avzoo.plot import timeline_figure
from avzoo.prediction import Event, Events, Prediction, Segment

CLASSES = ["drone", "helicopter", "background"]
SHARES = torch.tensor([[0.1, 0.1, 0.8], [0.5, 0.4, 0.1], [0.7, 0.2, 0.1], [0.2, 0.4, 0.4]])


def prediction(video: Path, classes: list[str] | None = None, **other: object) -> Prediction:
    names = classes or CLASSES
    times = [(float(second), second + 1.0) for second in range(len(SHARES))]
    segments = [
        Segment(*time, sorted(zip(names, row.tolist(), strict=True), key=lambda pair: -pair[1]))
        for time, row in zip(times, SHARES, strict=True)
    ]
    events = Events([Event(1.0, 3.0, names[0], 0.6)], times=times, probabilities=SHARES, classes=names)
    known = Prediction(video, "avsdn-test", "segment", 4.0, names, segments, events, None, SHARES)
    return replace(known, **other)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("media") / "a b & c.mkv"
    picture = Picture(codec="mpeg4", fps=4, size=(72, 128), seconds=4, b_frames=0)
    return write_media(path, picture, Sound(codec="aac", rate=44_100, layout="stereo", seconds=4))


class Elements(HTMLParser):
    """What a browser would see: tags with their attributes, and the text between them, style aside."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        assert not self.open, f"{self.open} never end"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += f"{data} "

    def named(self, tag: str) -> Iterator[dict[str, str | None]]:
        return (attributes for name, attributes in self.tags if name == tag)


def test_the_card_has_frames_sound_answers_and_events(video: Path) -> None:
    card = Elements(prediction(video)._repr_html_())
    for said in ("a b & c.mkv", "avsdn-test · 4.0 s", "drone 1.0-3.0 s, 0.60", "1.0 s 3.0 s 0.60", "0 s 4 s"):
        assert said in card.text
    images = [Image.open(io.BytesIO(base64.b64decode(str(i["src"]).partition(",")[2]))) for i in card.named("img")]
    assert len(images) == 10
    assert {image.size for image in images} == {(128, 72)}  # small ones are not enlarged
    (player,) = card.named("audio")
    wave, rate = soundfile.read(io.BytesIO(base64.b64decode(str(player["src"]).partition(",")[2])))
    assert rate == 16_000
    assert len(wave) / rate == pytest.approx(4, abs=0.1)
    assert np.abs(wave).mean() > 0.05
    curves = [str(path["d"]) for path in card.named("path") if "V" in str(path["d"])]
    assert "M0 1V0.900H1V0.500H2V0.300H3V0.800H4V1Z" in curves  # of the drone
    assert len(prediction(video)._repr_html_()) < 150_000


def test_long_or_silent_sound_has_no_player(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "LONGEST_SOUND", 3.0)
    card = Elements(prediction(video)._repr_html_())
    assert not list(card.named("audio"))
    assert len(list(card.named("img"))) == 10
    mute = Clip.of(np.zeros((8, 16, 16, 3), np.uint8), fps=2)
    assert "audio" not in dict(Elements(prediction(Path("mute"), arrays=mute)._repr_html_()).tags)


def test_sound_alone_has_no_frames(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.sin(np.arange(64_000) / 5), 16_000)
    card = Elements(prediction(tmp_path / "a.wav")._repr_html_())
    assert not list(card.named("img"))
    assert list(card.named("audio"))


def test_sound_of_its_own_file_is_the_one_that_plays(video: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(64_000, 1e-4), 16_000)
    (player,) = Elements(prediction(video, sound=tmp_path / "a.wav")._repr_html_()).named("audio")
    wave, _ = soundfile.read(io.BytesIO(base64.b64decode(str(player["src"]).partition(",")[2])))
    assert np.abs(wave).max() < 0.01


def test_whatever_a_name_holds_is_text(tmp_path: Path) -> None:
    evil = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
    classes = [evil, "$\\frac{", "background"]
    answer = prediction(tmp_path / f"{evil.replace('/', '')}.mp4", classes, model=evil, damage=evil)
    card = Elements(answer._repr_html_())
    assert {tag for tag, _ in card.tags}.isdisjoint({"script", "img"})
    assert card.text.count(evil) >= 4  # model, headline, row, event, damage
    handlers = [name for _, attributes in card.tags for name in attributes if name.startswith("on")]
    assert not handlers
    failed = Elements(replace(answer, error=evil)._repr_html_())
    assert evil in failed.text
    assert {tag for tag, _ in failed.tags} == {"div", "style", "span"}


def test_what_is_wrong_is_a_sentence(tmp_path: Path) -> None:
    gone = Elements(prediction(tmp_path / "gone.mp4")._repr_html_())
    assert "without frames and sound: " in gone.text
    assert "gone.mp4: no such file" in gone.text
    assert "drone 1.0-3.0 s, 0.60" in gone.text
    failed = prediction(tmp_path / "a.mp4", error="a.mp4: the file is empty (0 bytes); fetch or record it again")
    assert "no answer" in (text := Elements(failed._repr_html_()).text)
    assert "the file is empty" in text
    assert repr(failed) == f"<Prediction a.mp4, avsdn-test: no answer: {failed.error}>"


def test_a_scene_has_its_classes_and_no_events(video: Path) -> None:
    clip = [("drone", 0.38), ("background", 0.35)]
    card = Elements(prediction(video, task="clip", clip=clip, events=Events())._repr_html_())
    assert "drone, 0.38" in card.text
    assert re.search(r"scene probability drone 0\.38 background 0\.35", card.text)
    assert "event" not in card.text


def test_many_events_are_cut_short(video: Path) -> None:
    many = Events([Event(i / 10, i / 10 + 0.1, "drone", 0.5) for i in range(20)])
    card = Elements(prediction(video, events=many)._repr_html_())
    assert len(list(card.named("tr"))) == 13
    assert "and 8 more" in card.text


def test_a_long_video_has_a_small_card(tmp_path: Path) -> None:
    hours = torch.rand(7200, 3)
    segments = [Segment(float(i), i + 1.0, [("drone", 1.0)]) for i in range(7200)]
    card = prediction(tmp_path / "gone.mp4", probabilities=hours, segments=segments)._repr_html_()
    assert len(card) < 40_000


def test_the_table_has_a_row_a_segment_and_a_column_a_class(video: Path) -> None:
    table = prediction(video).to_dataframe()
    assert list(table) == ["video", "start", "end", "label", "probability", *CLASSES]
    assert table["label"].tolist() == ["background", "drone", "drone", "helicopter"]
    assert table["probability"].tolist() == pytest.approx([0.8, 0.5, 0.7, 0.4])
    assert table[CLASSES].to_numpy() == pytest.approx(SHARES.numpy())
    assert pd.concat([table, table])["start"].tolist() == [0.0, 1.0, 2.0, 3.0] * 2
    assert list(pd.DataFrame(prediction(video).events)) == ["start", "end", "label", "probability"]
    named = prediction(video, ["start", "label", "background"]).to_dataframe()
    assert list(named)[5:] == ["start (class)", "label (class)", "background"]
    with pytest.raises(AvzooError, match="has no answer: broken"):
        prediction(video, error="broken").to_dataframe()


def test_without_pandas_the_extra_is_named(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(AvzooError, match=r"pip install 'avzoo\[notebook\]'"):
        prediction(video).to_dataframe()


def test_the_picture_is_shown_and_written(video: Path, tmp_path: Path) -> None:
    figure = prediction(video, ["$x", "$\\frac{", "background"]).plot(tmp_path / "a" / "out.png")
    assert (tmp_path / "a" / "out.png").stat().st_size > 10_000
    shown = Image.open(io.BytesIO(figure._repr_png_()))  # type: ignore[attr-defined]
    assert shown.width == 880
    with pytest.raises(AvzooError, match="a picture's name ends in"):
        prediction(video).plot(tmp_path / "out.doc")
    with pytest.raises(AvzooError, match="has no answer to draw: broken"):
        prediction(video, error="broken").plot()


def test_names_of_any_length_stay_within_the_picture(video: Path, tmp_path: Path) -> None:
    for name in ("Hubschrauber über München", "Hubschrauber über München" * 9):
        classes = [name, f"kein {name}", "background"]
        answer = prediction(video.rename(video.with_stem("Ein langer Name " * 8)), classes, model="avsdn-" * 9)
        video = answer.video
        figure = timeline_figure(answer, truth=(name, 1.0, 3.0))
        figure.savefig(tmp_path / "a.png")
        curves = figure.axes[2]
        title, said = sorted((text.get_window_extent() for text in figure.texts), key=lambda box: box.x0)
        assert 0 < title.x0 < title.x1 < said.x0 < said.x1 < figure.bbox.x1
        assert len(curves.texts) == 4
        assert max(text.get_window_extent().x1 for text in curves.texts) < figure.bbox.x1
        assert curves.get_window_extent().width > 0.6 * figure.bbox.width
        whole = [text.get_text() for text in curves.texts if "…" not in text.get_text()]
        assert (name in whole) == (len(name) < 30)


@pytest.mark.parametrize(
    ("threshold", "found"),
    [
        (0.35, [("drone", 1, 3), ("helicopter", 1, 2), ("helicopter", 3, 4)]),
        (0.2, [("drone", 1, 4), ("helicopter", 1, 4)]),
        (0.7, [("drone", 2, 3)]),
        (0.05, [("drone", 0, 4), ("helicopter", 0, 4)]),
        (0.9, []),
    ],
)
def test_events_at_a_threshold(threshold: float, found: list[tuple[str, int, int]], tmp_path: Path) -> None:
    events = prediction(tmp_path).events
    assert [(e.label, e.start, e.end) for e in events(threshold)] == found
    assert events == [Event(1.0, 3.0, "drone", 0.6)]  # as it was
    assert events(0.05)(threshold) == events(threshold)
    assert pickle.loads(pickle.dumps(events))(threshold) == events(threshold)


@pytest.mark.parametrize("threshold", [0, -0.1, 1.1, float("nan")])
def test_a_threshold_is_a_probability(threshold: float, tmp_path: Path) -> None:
    with pytest.raises(AvzooError, match="the threshold is"):
        prediction(tmp_path).events(threshold)
    assert Events()(0.5) == []
