"""`avzoo embed`: rows, labels and their source, both formats, the map."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CheapBackbone
from media import Picture, Sound, write_media

from avzoo import backbones, cli, embedding, hub, plot
from avzoo.embedding import Embedder, Source, find_sources, tsne
from avzoo.errors import AnnotationError, AvzooError, DataNotFoundError
from avzoo.inference import predict
from avzoo.models import AVSDN, JointScalogramNet

LIGHT = "test_efficientnet.r160_in1k"
CLASSES = ["bus", "park", "tram"]
PREPROCESS: dict[str, Any] = {
    "seconds": 3.0,
    "segments": 3,
    "audio_kind": "fbank",
    "bands": 32,
    "visual_kind": "frame",
    "visual_backbone": LIGHT,
    "size": 32,
}


@pytest.fixture(autouse=True)
def _weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "build", lambda *_: CheapBackbone(256))


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> JointScalogramNet:
    """Random weights; the command finds it whatever it asks for."""
    torch.manual_seed(0)
    made = JointScalogramNet(CLASSES, image_features=256, preprocess=PREPROCESS).eval()
    with torch.no_grad():
        made.classifier.scores.weight.mul_(50)  # segments differ
    made.name = "tiny"
    monkeypatch.setattr(hub, "load_ref", lambda *_, **__: made)
    return made


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two folders: 2 clips of 3 s and one of 4 s, which takes a second window."""
    root = tmp_path_factory.mktemp("clips")
    for name, seconds in (("bus/a.mp4", 3.0), ("bus/b.mp4", 4.0), ("park/c.mp4", 3.0)):
        (root / name).parent.mkdir(exist_ok=True)
        write_media(root / name, Picture(seconds=seconds, fps=5), Sound(seconds=seconds, rate=16_000))
    return root


@pytest.fixture(scope="module")
def tau(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TAU's layout: silent videos, their sound apart."""
    root = tmp_path_factory.mktemp("tau")
    for folder in ("audio", "video", "evaluation_setup"):
        (root / folder).mkdir()
    lines = ["filename_audio\tfilename_video\tscene_label"]
    for name in ("park-lyon-1-1", "tram-lyon-2-2"):
        write_media(root / f"video/{name}.mp4", Picture(seconds=3.0, fps=5))
        write_media(root / f"audio/{name}.wav", Sound(codec="pcm_s16le", format="s16", seconds=3.0, rate=16_000))
        lines.append(f"audio/{name}.wav\tvideo/{name}.mp4\t{name.partition('-')[0]}")
    (root / "evaluation_setup/fold1_evaluate.csv").write_text("\n".join(lines) + "\n")
    return root


def embed(*arguments: object) -> None:
    cli.main(["embed", *map(str, arguments), "--model", "tiny"])


# -- rows ------------------------------------------------------------------------------------------------------------


def test_a_row_is_what_the_model_says_of_its_segment(model: JointScalogramNet, clips: Path) -> None:
    file = clips / "bus" / "b.mp4"
    table = Embedder(model)(Source("b", file, label="bus", label_source="folder"))
    said = predict(file, model)
    assert table["start"].tolist() == [segment.start for segment in said.segments] == [0, 1, 2, 3]
    assert table["end"].tolist() == [segment.end for segment in said.segments]
    assert table["answer"].tolist() == [segment.labels[0][0] for segment in said.segments]
    np.testing.assert_allclose(table["probability"], [segment.labels[0][1] for segment in said.segments], rtol=1e-5)
    assert {kind: table[kind].shape for kind in embedding.KINDS} == {
        "audio": (4, 1024), "visual": (4, 256), "fused": (4, 1024),
    }  # fmt: skip
    assert table["label"].tolist() == ["bus"] * 4
    short = Embedder(model)(Source("b", clips / "bus" / "a.mp4"))  # the same media, a second shorter
    assert not np.array_equal(table["visual"][2], table["visual"][3])
    np.testing.assert_allclose(short["audio"][0], table["audio"][0], atol=0.05)
    assert short["label"].tolist() == short["answer"].tolist()
    assert set(short["label_source"]) == {"model"}


def test_embeddings_are_the_models_own(model: JointScalogramNet, clips: Path) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    passes: list[torch.nn.Module] = []
    for part in (model.audio_encoder, model.classifier.hidden, model.classifier.scores):
        part.register_forward_hook(lambda module, *_: passes.append(module))
    real = model.embeddings
    model.embeddings = lambda *sample: seen.append(real(*sample)) or dict(seen[-1])  # type: ignore[method-assign]
    table = Embedder(model)(Source("b", clips / "bus" / "b.mp4"))
    assert len(seen) == 2  # windows: seconds 0 to 3 and 1 to 4, of which the last is new
    assert len(passes) == 2 * 3  # each part once a window, for embeddings and answers together
    for kind in embedding.KINDS:
        assert np.array_equal(table[kind][3], seen[1][kind][0, 2].numpy())


def test_a_model_that_hears_alone_reads_no_pictures(tau: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hears = JointScalogramNet(CLASSES, system="audio", preprocess=PREPROCESS)
    monkeypatch.setattr(JointScalogramNet, "modalities", ("audio",))
    source = find_sources([tau])[0]
    source.video.rename(source.video.with_suffix(".gone"))
    try:
        table = Embedder(hears)(source)
    finally:
        source.video.with_suffix(".gone").rename(source.video)
    assert "visual" not in table
    assert table["path"][0].endswith(".wav")
    assert [found.id for found in find_sources([tau / "audio"], pictures=False)] == ["park-lyon-1-1", "tram-lyon-2-2"]


def test_a_model_without_embeddings_is_refused_by_what_it_is() -> None:
    with torch.device("meta"):
        other = AVSDN(["a", "b", "background"])
    with pytest.raises(AvzooError, match=r"AVSDN, which has no embeddings; these have: .*JointScalogramNet"):
        Embedder(other)


# -- labels ----------------------------------------------------------------------------------------------------------


def test_labels_come_from_folders_or_lists_or_nobody(clips: Path, tau: Path, tmp_path: Path) -> None:
    told = [(source.id, source.label, source.label_source) for source in find_sources([clips])]
    assert told == [("a", "bus", "folder"), ("b", "bus", "folder"), ("c", "park", "folder")]
    assert {source.label_source for source in find_sources([clips / "bus", clips / "park" / "c.mp4"])} == {"model"}
    shutil.copytree(clips, tmp_path / "train")
    (tmp_path / "test" / "bus").mkdir(parents=True)
    shutil.copy(clips / "bus" / "a.mp4", tmp_path / "test" / "bus" / "d.mp4")
    told = [(source.id, source.label) for source in find_sources([tmp_path])]
    assert told == [("d", "bus"), ("a", "bus"), ("b", "bus"), ("c", "park")]  # not "test" and "train"
    assert {source.label for source in find_sources([tmp_path / "test"])} == {""}
    first, second = find_sources([tau])
    assert (first.id, first.label, second.label, first.label_source) == ("park-lyon-1-1", "park", "tram", "list")
    assert first.audio == tau / "audio" / "park-lyon-1-1.wav"


def test_sounds_are_found_by_name(tau: Path, clips: Path, tmp_path: Path) -> None:
    found = find_sources([tau / "video"], audio=tau / "audio")
    assert [source.audio for source in found] == sorted((tau / "audio").iterdir())
    shutil.copy(tau / "audio" / "park-lyon-1-1.wav", tmp_path / "c.WAV")
    assert find_sources([clips / "park"], audio=tmp_path)[0].audio == tmp_path / "c.WAV"
    with pytest.raises(DataNotFoundError, match="no sound called a"):
        find_sources([clips], audio=tau / "audio")
    with pytest.raises(AvzooError, match="of one video, 2 were given"):
        find_sources([tau / "video"], audio=tau / "audio" / "park-lyon-1-1.wav")
    (tmp_path / "evaluation_setup").mkdir()
    with pytest.raises(DataNotFoundError, match=r"fold1_evaluate\.csv"):
        find_sources([tmp_path])
    (tmp_path / "evaluation_setup" / "fold1_evaluate.csv").write_text("nothing\n")
    with pytest.raises(AnnotationError, match=r"fold1_evaluate\.csv"):
        find_sources([tmp_path])


# -- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("model")
def test_npz_and_parquet_hold_the_same(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    embed(clips, "--out", tmp_path / "new" / "e.npz")
    said = capsys.readouterr().out
    assert "10 segments of 3 clips; audio 1024, visual 256, fused 1024; labels by the folders' names" in said
    embed(clips, "--out", tmp_path / "new" / "e.parquet")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["e.npz", "e.parquet"]  # nothing half done
    arrow = parquet.read_table(tmp_path / "new" / "e.parquet")
    assert arrow.schema.metadata[b"model"] == b"tiny"
    with np.load(tmp_path / "new" / "e.npz") as arrays:  # without pickle
        assert str(arrays["model"]) == "tiny"
        assert set(arrow.column_names) == set(arrays.files) - {"model"}
        assert arrays["id"].tolist() == ["a"] * 3 + ["b"] * 4 + ["c"] * 3
        for name in arrow.column_names:
            assert np.array_equal(np.array(arrow[name].to_pylist(), arrays[name].dtype), arrays[name]), name


@pytest.mark.usefixtures("model")
def test_one_broken_clip_stops_no_other(
    clips: Path, tau: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(SystemExit) as stop:
        embed(tmp_path / "broken.mp4", clips / "bus" / "a.mp4", tau / "video", "--out", tmp_path / "e.npz")
    assert stop.value.code == 1
    said = capsys.readouterr().err
    assert "broken.mp4" in said
    assert "--on-missing-audio silence" in said
    assert "3 of 4 failed" in said
    with np.load(tmp_path / "e.npz") as arrays:
        assert set(arrays["id"]) == {"a"}
    embed(tau / "video", "--out", tmp_path / "e.npz", "--on-missing-audio", "silence")


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to write"),
        (["--out", "e.csv"], "ends in .npz or .parquet"),
        (["--plot", "map.gif"], "ends in .png"),
    ],
)
def test_what_cannot_be_written_is_said_at_once(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        embed("nowhere.mp4", *arguments)
    assert said in capsys.readouterr().err


def test_without_the_extra_both_formats_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(AvzooError, match=r"avzoo\[embed\]"):
        embedding.check_out(tmp_path / "e.parquet")
    with pytest.raises(AvzooError, match=r"avzoo\[embed\]"):
        tsne(np.zeros((9, 2), np.float32))
    embedding.check_out(tmp_path / "e.npz")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom avzoo.cli import main\ntry: main(['embed', '--help'])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'sklearn', 'pyarrow', 'numpy'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "evaluation_setup/fold1_evaluate.csv" in done.stdout


# -- the map ---------------------------------------------------------------------------------------------------------


def groups(rows: int = 60) -> np.ndarray[Any, np.dtype[np.float32]]:
    rng = np.random.default_rng(0)
    return (np.repeat(np.eye(3, 20) * 20, rows // 3, 0) + rng.normal(size=(rows, 20))).astype(np.float32)


def test_a_map_keeps_groups_together_and_is_seeded() -> None:
    pytest.importorskip("sklearn")
    places = tsne(groups())
    assert places.shape == (60, 2)
    assert np.array_equal(places, tsne(groups()))
    distance = np.linalg.norm(places[:, None] - places[None], axis=2) + 1e6 * np.eye(60)
    assert (distance.argmin(1) // 20 == np.arange(60) // 20).all()


def test_a_map_of_little_or_nothing() -> None:
    pytest.importorskip("sklearn")
    assert tsne(groups()[:4]).shape == (4, 2)
    assert not tsne(np.ones((9, 5), np.float32)).any()  # as a missing modality's
    with pytest.raises(AvzooError, match="4 or more rows"):
        tsne(groups()[:3])
    with pytest.raises(AvzooError, match="finite"):
        tsne(np.full((9, 5), np.nan, np.float32))


@pytest.mark.usefixtures("model")
def test_the_command_draws_a_map(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    embed(clips, "--plot", tmp_path / "map.png")
    assert "map.png: 10 segments of 3 clips" in capsys.readouterr().out
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    embed(clips, "--plot", tmp_path / "map.svg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.png", "map.svg"]
    drawn = (tmp_path / "map.svg").read_text()
    for text in ("audio", "visual", "fused", "bus", "park", "label, by the folders&#x27; names"):
        assert text in drawn or f"<!-- {text.replace('&#x27;', chr(39))} -->" in drawn


def test_classes_beyond_the_legend_are_counted(tmp_path: Path) -> None:
    labels = [f"scene {n}" for n in range(30) for _ in range(30 - n)]
    places = np.random.default_rng(0).normal(size=(len(labels), 2)).astype(np.float32)
    options: dict[str, Any] = {"classes": ["scene 1", "scene 0"], "title": "t", "legend": "l"}
    out = plot.embedding_map({"audio": places}, labels, tmp_path / "m.svg", **options)
    drawn = out.read_text()
    assert "<!-- 6 more -->" in drawn
    assert "<!-- scene 23 -->" in drawn
    assert "<!-- scene 24 -->" not in drawn
    with pytest.raises(AvzooError, match=r"\.png"):
        plot.embedding_map({"audio": places}, labels, tmp_path / "m.gif", **options)
