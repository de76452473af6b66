"""What an explanation says, on networks and scenes that are made so that the answer is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from media import Picture, Pixels, Sound, write_media
from timm.layers import SelectAdaptivePool2d
from torch import Tensor, nn

import avzoo
from avzoo import backbones, cli, explaining, hub, registry
from avzoo.app.answer import timeline
from avzoo.clip import read_clip
from avzoo.data import rendering
from avzoo.errors import AvzooError, MediaError
from avzoo.explaining import VIEWS, card, explain
from avzoo.explaining.figure import glow, glowing_frames
from avzoo.models import AVSDN, AVModule
from avzoo.models.image_encoder import ImageEncoder
from avzoo.prediction import Events

NUMBERS = {"audio_backbone": "vggish", "visual_backbone": "tf_efficientnet_lite0", "size": 56, "mean": (0,) * 3}
NUMBERS |= {"std": (1,) * 3, "seconds": 4.0, "segments": 4}
RED, GREEN = (0, 2), (5, 4)  # the cells of an 8 x 8 board that are lit


class Ear(nn.Module):
    """One feature: how loud it is; vggish's silence is log(0.01)."""

    dim = 1

    def forward(self, log_mel: Tensor) -> Tensor:
        return (log_mel.mean((1, 2, 3)) > -4).float()[:, None]


class Eye(nn.Module):
    """Two features: how red and how green the pictures are, pooled from a map of cells as timm's networks do."""

    num_features = 2

    def __init__(self, pool: str) -> None:
        super().__init__()
        self.global_pool = SelectAdaptivePool2d(pool_type=pool, flatten=True)

    def forward_head(self, maps: Tensor) -> Tensor:
        return self.global_pool(maps)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(nn.functional.adaptive_avg_pool2d(images[:, :2], 8))


class Patches(nn.Module):
    """The same features, of a network that has no map to pool, as a transformer."""

    num_features = 2

    def forward(self, images: Tensor) -> Tensor:
        return images[:, :2].mean((2, 3))


class Made(AVModule):
    """Scores "red" and "green" by weights that are given: of loudness, of redness, of greenness; "none" is 0."""

    task = "segment"

    def __init__(self, heard: list[float], seen: list[list[float]], owner: bool = False, **numbers: Any) -> None:
        super().__init__(["red", "green", "none"], {**NUMBERS, **numbers})
        self.encoder = ImageEncoder(self.preprocess, frozen=True) if owner else None
        self.heard, self.seen = torch.tensor([heard]), torch.tensor(seen)

    def forward(self, audio: Tensor | None, visual: Tensor | None) -> Tensor:
        scores: Tensor | float = 0.0
        if audio is not None:
            scores = scores + audio @ self.heard
        if visual is not None:
            features = visual if self.encoder is None else self.encoder(visual)
            scores = scores + (features.mean(2) if features.ndim == 4 else features) @ self.seen
        assert isinstance(scores, Tensor)
        return torch.cat([scores, torch.zeros_like(scores[..., :1])], -1)

    def loss(self, logits: Tensor, label: Tensor) -> Tensor:  # noqa: ARG002
        return logits.mean()

    def configure_optimizers(self) -> None:
        return


def ear(**numbers: Any) -> Made:
    return Made([9.0, 0.0], [[0.0, 0.0], [0.0, 0.0]], **numbers).eval()


def eye(**numbers: Any) -> Made:
    return Made([0.0, 0.0], [[300.0, 0.0], [0.0, 250.0]], **numbers).eval()


def board(index: int, size: tuple[int, int]) -> Pixels:
    """Black, with a red and a green cell; after two seconds (8 a second) no red one."""
    picture = np.zeros((*size, 3), np.uint8)
    cell = size[0] // 8
    for (row, column), channel in ((RED, 0), (GREEN, 1)):
        if channel or index < 16:
            picture[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell, channel] = 255
    return picture


def place(heat: Tensor) -> tuple[int, int]:
    assert float(heat.max()) == pytest.approx(1.0)
    return divmod(int(heat.argmax()), heat.shape[1])


@pytest.fixture
def clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four seconds of sound and the board; networks are those above."""
    for name in ("build", "architecture"):
        monkeypatch.setattr(backbones, name, lambda name, pool="": Ear() if name == "vggish" else Eye(pool or "avg"))
    picture = Picture(fps=8, size=(64, 64), seconds=4, render=board, pixels="yuv444p", options={"crf": "1"})
    return write_media(tmp_path / "a b.mp4", picture, Sound(seconds=4))


@pytest.mark.parametrize("pool", ["avg", "max"])
@pytest.mark.parametrize(
    "numbers",
    [
        {},
        {"fps": 2, "visual_kind": "frame"},
        {"fps": 2, "visual_kind": "segment"},
        {"fps": 2, "visual_kind": "image", "owner": True},
    ],
    ids=["one", "frame", "segment", "own"],
)
def test_a_map_points_to_where_its_class_is(clip: Path, pool: str, numbers: dict[str, Any]) -> None:
    model = eye(pool=pool, **numbers)
    best = explain(clip, model)
    assert best.explained == ["red", "red", "green", "green"]
    assert best.maps is not None
    assert best.maps.shape == (4, model.preprocess.pictures, 8, 8)
    assert {place(heat) for heat in best.maps[:2].flatten(0, 1)} == {RED}
    assert {place(heat) for heat in best.maps[2:].flatten(0, 1)} == {GREEN}
    asked = explain(clip, model, label="green").maps
    assert asked is not None
    assert {place(heat) for heat in asked.flatten(0, 1)} == {GREEN}


def test_an_encoder_of_ones_own_looks_once_and_says_what_features_say(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    forward = Eye.forward
    monkeypatch.setattr(Eye, "forward", lambda self, images: looks.append(len(images)) or forward(self, images))
    ready = explain(clip, eye(fps=2, visual_kind="frame"))
    owner = explain(clip, eye(fps=2, visual_kind="image", owner=True))
    assert looks == [8, 8]
    for view in VIEWS:
        assert torch.allclose(owner.views[view], ready.views[view], atol=1e-6), view
    assert not torch.allclose(owner.views["picture_frozen"], owner.views["both"])


def test_what_speaks_against_a_class_is_dark(clip: Path) -> None:
    model = Made([0.0, 0.0], [[-90.0, 0.0], [0.0, 80.0]]).eval()
    maps = explain(clip, model, label="red").maps
    assert maps is not None
    assert not maps.any()


def test_evidence_of_a_model_that_only_listens(clip: Path) -> None:
    answer = explain(clip, ear())
    evidence = answer.evidence("red")
    assert evidence.keys() == VIEWS.keys()
    assert evidence["both"] == evidence["sound_alone"] == evidence["picture_frozen"] > 0.99
    assert evidence["picture_alone"] == evidence["sound_muted"] == pytest.approx(1 / 3)
    assert answer.maps is not None
    assert not answer.maps.any()  # no place of a picture speaks for anything


def test_evidence_of_a_model_that_only_sees(clip: Path) -> None:
    answer = explain(clip, eye())
    early, late = answer.evidence("red", 0, 2), answer.evidence("green", 2, 4)
    assert early["both"] == early["picture_alone"] == early["sound_muted"] > 0.5
    assert early["sound_alone"] == pytest.approx(1 / 3)
    assert early["picture_frozen"] == pytest.approx(early["both"], abs=0.01)  # it was the first picture's all along
    assert late["both"] > 0.6
    assert late["picture_frozen"] < 0.5  # the red cell of the first picture has not gone


def test_a_model_without_a_modality_has_no_view_of_it(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Made, "modalities", ("audio",))
    answer = explain(clip, ear())
    assert list(answer.views) == ["both", "sound_muted"]
    assert answer.maps is None
    monkeypatch.setattr(Made, "modalities", ("visual",))
    assert list(explain(clip, eye()).views) == ["both", "picture_frozen"]


def test_one_modality_alone_is_explained_as_a_model_that_has_no_other(clip: Path, tmp_path: Path) -> None:
    answer = explain(clip, eye(), modality="visual")
    assert list(answer.views) == ["both", "picture_frozen"]
    assert answer.maps is not None
    answer = explain(clip, ear(), modality="audio")
    assert list(answer.views) == ["both", "sound_muted"]
    assert answer.maps is None
    mute = write_media(tmp_path / "mute.mp4", Picture(seconds=4))
    with pytest.raises(MediaError, match='modality="visual" does without'):
        explain(mute, eye())
    assert explain(mute, eye(), modality="visual").probabilities.shape == (4, 3)
    with pytest.raises(AvzooError, match="modality is 'eyes'"):
        explain(mute, eye(), modality="eyes")  # type: ignore[arg-type]
    with pytest.raises(AvzooError, match="on_damage is 'ignore'"):
        explain(mute, eye(), on_damage="ignore")  # type: ignore[arg-type]


@pytest.mark.usefixtures("clip")
def test_a_long_file_is_explained_in_windows(tmp_path: Path) -> None:
    picture = Picture(fps=8, size=(64, 64), seconds=6, render=board, pixels="yuv444p", options={"crf": "1"})
    long = write_media(tmp_path / "long.mp4", picture, Sound(seconds=6))
    reached: list[float] = []
    answer = explain(long, eye(), on_window=reached.append)
    assert reached == [4.0, 6.0]  # the last window is moved back so that it is full
    assert answer.explained == ["red"] * 2 + ["green"] * 4
    assert answer.picture_times is not None
    assert answer.picture_times.flatten().tolist() == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]
    assert torch.allclose(answer.views["both"], answer.probabilities)
    assert torch.allclose(answer.probabilities, avzoo.predict(long, eye()).probabilities)


def test_every_window_is_decoded_once(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    monkeypatch.setattr(
        "avzoo.preprocess.preprocessor.read_clip", lambda *a, **k: decoded.append(a) or read_clip(*a, **k)
    )
    explain(clip, eye())
    assert len(decoded) == 1


def test_a_model_in_training_is_asked_in_eval_mode_and_left_as_it_was(clip: Path) -> None:
    model = eye().train()
    model.held = torch.nn.Dropout().eval()  # as fine-tuning holds what is frozen
    modes: list[bool] = []
    model.register_forward_pre_hook(lambda part, _: modes.append(part.training))
    explain(clip, model)
    assert modes
    assert not any(modes)
    assert model.training
    assert not model.held.training
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    "numbers",
    [{"fps": 2, "visual_kind": "segment"}, {"fps": 2, "visual_kind": "image", "owner": True}],
    ids=["segment", "own"],
)
def test_a_network_without_maps_is_explained_without_light(
    clip: Path, numbers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    lit = explain(clip, eye(**numbers))
    for name in ("build", "architecture"):
        monkeypatch.setattr(backbones, name, lambda name, *_: Ear() if name == "vggish" else Patches())
    answer = explain(clip, eye(**numbers))
    assert answer.maps is None
    assert answer.picture_times is None
    for view in VIEWS:
        assert torch.allclose(answer.views[view], lit.views[view], atol=1e-3), view
    assert answer.plot() is not None
    assert "The light is" not in answer._repr_html_()
    assert "Without light" in timeline(answer)
    assert "Without light" not in timeline(lit)


def test_a_clip_that_ends_before_a_segments_middle_is_drawn_with_its_last_picture(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def red_then_green(index: int, size: tuple[int, int]) -> Pixels:
        return np.full((*size, 3), (220, 0, 0) if index == 0 else (0, 220, 0), np.uint8)

    picture = Picture(fps=10, size=(64, 64), seconds=0.2, render=red_then_green)
    short = write_media(clip.with_name("short.mp4"), picture, Sound(seconds=0.2))
    answer = explain(short, eye())
    assert answer.explained == ["green"]
    [(_, _, frame)] = glowing_frames(answer)
    assert frame[..., 1].mean() > frame[..., 0].mean()
    assert answer.plot() is not None
    monkeypatch.setattr(hub, "load_ref", lambda *_, **__: eye())
    cli.main(["predict", str(short), "--explain", "--plot", str(tmp_path / "p.png")])
    assert (tmp_path / "p.png").exists()


def test_what_cannot_be_explained_is_said(clip: Path) -> None:
    answer = explain(clip, eye())
    for ask in (lambda: explain(clip, eye(), label="gren"), lambda: answer.evidence("gren")):
        with pytest.raises(AvzooError, match="knows no class 'gren'; did you mean 'green'"):
            ask()
    with pytest.raises(AvzooError, match=r"no segment of .* begins between 2.1 and 2.9 s"):
        answer.evidence("green", 2.1, 2.9)


def test_a_recurrent_model_explains_each_segment_in_its_own_pictures(clip: Path) -> None:
    torch.manual_seed(2)
    model = AVSDN(["red", "green", "none"], audio_dim=1, visual_dim=2, hidden_dim=4, preprocess=NUMBERS).eval()
    maps = explain(clip, model, label="green").maps
    assert maps is not None
    assert {place(heat) for heat in maps[2:, 0]} == {GREEN}  # where the red cell was there is nothing


@pytest.mark.parametrize("name", ["avsdn-avemix", "secrnn-scenemix", "joint-scalogram-scenemix"])
def test_the_three_papers_models(name: str, tmp_path: Path) -> None:
    golden = hub.locate(registry.parse_ref(name)).folder / "golden.mp4"
    model = avzoo.load(name)
    answer = explain(golden, model)
    assert torch.allclose(answer.probabilities, avzoo.predict(golden, model).probabilities, atol=1e-5)
    assert answer.views.keys() == VIEWS.keys()
    for view in answer.views.values():
        assert view.sum(-1) == pytest.approx(1.0, abs=1e-4)
    assert answer.maps is not None
    assert answer.maps.shape == (len(answer.segments), model.preprocess.pictures, 7, 7)
    assert float(answer.maps.min()) == 0.0
    assert float(answer.maps.max()) == 1.0
    assert answer.plot(tmp_path / "why.png") is not None
    assert (tmp_path / "why.png").stat().st_size > 30_000


def test_a_real_network_finds_two_rendered_things_side_by_side(tmp_path: Path) -> None:
    """Two clips in one picture: the map of a class lies more on its own half than the other class's map does."""
    model = avzoo.load("avsdn-synthetic")
    halves = []
    for seed in (40_000_000, 40_000_005):  # a drone, a grand piano
        script = rendering.script(seed, classes=rendering.CLASSES[:6])
        clip = read_clip(rendering.render(script, tmp_path / "one.mp4"), times=[script.start + 0.5], seconds=10)
        halves.append(clip.frames[0].permute(1, 2, 0).numpy())
    for left, right in (("drone", "grand_piano"), ("grand_piano", "drone")):
        both = np.concatenate(halves if left == "drone" else halves[::-1], axis=1)
        picture = Picture(size=both.shape[:2], seconds=1, fps=4, render=lambda *_, both=both: both)
        file = write_media(tmp_path / f"{left}.mp4", picture, Sound(seconds=1))
        share = {}
        for label in (left, right):
            maps = explain(file, model, label=label).maps
            assert maps is not None
            share[label] = float(maps[..., :3].sum() / (maps[..., :3].sum() + maps[..., 4:].sum()))
        assert share[left] > share[right] + 0.2, share


def test_light_falls_where_the_map_is() -> None:
    heat = torch.zeros(7, 7)
    heat[1, 5] = 1
    lit = glow(np.full((70, 140, 3), 90, np.uint8), heat)
    assert lit.shape == (70, 140, 3)
    warm = lit[..., 0].astype(int) - lit[..., 2]
    assert divmod(int(warm.argmax()), 140) == (pytest.approx(15, abs=6), pytest.approx(110, abs=12))
    assert warm[40:, :70].max() < 10


def test_a_class_is_named_once_over_neighbouring_pictures_and_within_them(clip: Path) -> None:
    answer = explain(clip, eye())
    names = {"red": "Feuerwehr in der Innenstadt von $x", "green": "Hubschrauber über München" * 4, "none": "nichts"}
    told = replace(
        answer,
        classes=[*names.values()],
        explained=[names[label] for label in answer.explained],
        events=Events([replace(event, label=names[event.label]) for event in answer.events]),
    )
    figure = told.plot()
    pictures, *_, views = figure.axes
    first, second = (text.get_window_extent() for text in pictures.texts)
    assert [text.get_text()[:9] for text in pictures.texts] == ["Feuerwehr", "Hubschrau"]
    left, right = pictures.get_window_extent().x0, pictures.get_window_extent().x1
    assert left <= first.x0 < first.x1 < second.x0 < second.x1 <= right
    assert [text.get_text() for text in views.texts][-1] == "picture frozen"


def test_a_notebook_shows_the_light_and_what_each_modality_says(clip: Path) -> None:
    answer = explain(clip, eye())
    html = answer._repr_html_()
    assert html.count("<img") == 14  # ten as they are, four in the light
    for row in ("where", "red", "green", "sound alone", "picture alone"):
        assert f'<b title="{row}">{row}</b>' in html
    assert html.count("<title>green 0.33</title>") == 2  # the sound alone knows nothing
    assert "The light is" in html
    deaf = explain(clip, eye(), modality="visual")._repr_html_()
    assert "sound alone" not in deaf
    clip.unlink()
    gone = answer._repr_html_()
    assert "without frames and sound: " in gone
    assert "picture alone" in gone
    assert "The light is" not in gone
    long = replace(answer, explained=["red"] * 7200, views={"sound_alone": torch.rand(7200, 3)})
    assert len("".join(card.alone(long))) < 70_000


def test_the_command_adds_reasons(
    clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(hub, "load_ref", lambda *_, **__: eye())
    cli.main(["predict", str(clip), "--explain", "--plot", str(tmp_path / "p.png")])
    lines = capsys.readouterr().out.splitlines()
    assert any("why green 2.0-4.0 s: sound alone 0.33, picture alone 0.9" in line for line in lines), lines
    assert (tmp_path / "p.png").stat().st_size > 10_000
    cli.main(["predict", str(clip), "--explain", "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert [segment["evidence"]["label"] for segment in answer["segments"]] == ["red", "red", "green", "green"]
    assert answer["events"][1]["evidence"]["sound_alone"] == pytest.approx(1 / 3, abs=1e-3)
    assert answer["segments"][0]["labels"][0]["label"] == "red"
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"")
    with pytest.raises(SystemExit):
        cli.main(["predict", str(broken), str(clip), "--explain", "--json"])
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert "empty" in first["error"]
    assert second["segments"]
    cli.main(["predict", str(clip), "--explain", "--modality", "visual"])
    assert "why green 2.0-4.0 s: picture frozen 0." in capsys.readouterr().out


def test_explain_is_a_public_name() -> None:
    assert avzoo.explain is explaining.explain
