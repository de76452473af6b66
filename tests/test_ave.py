"""AVE: the label file and its errors, both splits, class orders, the authors' feature files, videos that are gone."""

from __future__ import annotations

import inspect
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from media import Picture, Sound, write_media
from numpy.typing import ArrayLike

from avzoo.clip import Clip
from avzoo.data import features as feature_cache
from avzoo.data.ave import AVE, AVE_CLASSES, read_annotations
from avzoo.data.base import Split
from avzoo.errors import AnnotationError, AvzooError, ClassMismatchError, DataNotFoundError, MediaError
from avzoo.preprocess import Preprocess

REAL = Path(__file__).parents[2] / "shared" / "data" / "ave"
HEADER = "Category&VideoID&Quality&StartTime&EndTime"
LINES = (
    "Violin, fiddle&aa&good&0&10",
    "Flute&b-b&good&2&5",
    "Violin, fiddle&cc&good&0&0",
    "Flute&aa&good&3&4",
    "Bus&d_d&good&7&10",
    "Bus&ee&good&0&8",
)
LISTS = {"trainSet.txt": (4, 0, 1), "valSet.txt": (3,), "testSet.txt": (2, 5)}
SPLITS: tuple[Split, ...] = ("train", "val", "test")


def write_lines(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A dataset of six lines and five ids: `aa` stands in training and in validation."""
    write_lines(tmp_path / "Annotations.txt", *LINES)
    for name, rows in LISTS.items():
        write_lines(tmp_path / name, *(LINES[row] for row in rows))
    return tmp_path


def write_h5(path: Path, name: str, values: ArrayLike, **options: object) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset(name, data=values, **options)
    return path


def keys(data: AVE) -> list[list[str]]:
    return [[item.key for item in data.items(split)] for split in SPLITS]


# -- the label file --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [(), (HEADER,), ("Category & VideoID & Quality & StartTime & EndTime",)])
def test_items_are_lines_with_or_without_header(tmp_path: Path, header: tuple[str, ...]) -> None:
    items = read_annotations(write_lines(tmp_path / "Annotations.txt", *header, *LINES))
    assert [item.id for item in items] == ["aa", "b-b", "cc", "aa", "d_d", "ee"]
    assert [item.key for item in items] == ["aa#0", "b-b", "cc", "aa#3", "d_d", "ee"]
    assert (items[0].label, items[1].start, items[1].end) == ("Violin, fiddle", 2.0, 5.0)
    assert items[1].path == tmp_path / "AVE" / "b-b.mp4"


def test_windows_line_ends_byte_order_mark_and_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "Annotations.txt"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*LINES[:2], "", *LINES[2:], ""]).encode())
    items = read_annotations(path)
    assert [item.label for item in items] == [line.split("&")[0] for line in LINES]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("Flute&x&good&1", "4 fields"),
        ("Flute, x, good, 1, 2", "1 fields"),
        ("Flute&x&good&1&2&3", "6 fields"),
        ("Flute&x&good&one&2", "'one'"),
        ("Flute&x&good&1&nan", "'nan'"),
        (HEADER, "not two numbers"),
        ("&x&good&1&2", "category ''"),
        ("Flute&&good&1&2", "video ''"),
        ("Flute&../x&good&1&2", "an id names a file"),
        ("Flute&x&good&5&4", "ends at 4 s, before it starts at 5 s"),
        ("Flute&x&good&-1&4", "outside the clip, 0 to 10 s"),
        ("Flute&x&good&5&11", "from 5 to 11 s is outside the clip"),
        ("Fluet&x&good&5&10", "unknown class 'Fluet'; did you mean 'Flute'"),
        ("Flute&b-b&good&2&5.0", "the same line as .*Annotations.txt:3"),
    ],
)
def test_bad_line_names_file_and_line(tmp_path: Path, bad: str, says: str) -> None:
    path = write_lines(tmp_path / "Annotations.txt", HEADER, *LINES, bad)
    with pytest.raises(AnnotationError, match=rf"Annotations\.txt:8: .*{says}"):
        read_annotations(path, classes=["Bus", "Flute", "Violin, fiddle"])


def test_only_a_first_line_without_any_number_is_a_header(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"Annotations\.txt:1: "):
        read_annotations(write_lines(tmp_path / "Annotations.txt", "Flute&x&good&one&2", *LINES))


def test_clip_length_is_that_of_the_window(root: Path) -> None:
    with pytest.raises(AnnotationError, match=r"Annotations\.txt:1: .*0 to 5 s"):
        AVE(root, preprocess=Preprocess(seconds=5, segments=5)).items("train")


def test_files_that_are_no_label_files(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"Annotations\.txt: there is no such file"):
        AVE(tmp_path).items("train")
    with pytest.raises(AnnotationError, match="no lines"):
        read_annotations(write_lines(tmp_path / "Annotations.txt", HEADER))
    (tmp_path / "Annotations.txt").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(AnnotationError, match="UTF-8"):
        read_annotations(tmp_path / "Annotations.txt")


# -- splits ----------------------------------------------------------------------------------------------------------


def test_lists_keep_their_own_order_and_the_keys_of_the_annotations(root: Path) -> None:
    assert keys(AVE(root)) == [["d_d", "aa#0", "b-b"], ["aa#3"], ["cc", "ee"]]


def test_lists_may_have_headers(root: Path) -> None:
    expected = keys(AVE(root))
    for path in root.glob("*.txt"):
        path.write_text(f"{HEADER}\n{path.read_text()}")
    assert keys(AVE(root)) == expected


def test_orders_are_rows_of_the_annotations(root: Path) -> None:
    for split, rows in zip(SPLITS, ([3, 0], [5], [2, 4, 1]), strict=True):
        write_h5(root / f"{split}_order.h5", "order", rows)
    assert keys(AVE(root, splits="orders")) == [["aa#3", "aa#0"], ["ee"], ["cc", "d_d", "b-b"]]
    write_h5(root / "val_order.h5", "order", [0, 6])
    with pytest.raises(AnnotationError, match=r"val_order\.h5: line 6 .*which has 6"):
        AVE(root, splits="orders").items("val")


def test_missing_split_is_named(root: Path) -> None:
    (root / "valSet.txt").unlink()
    with pytest.raises(DataNotFoundError, match=r"valSet\.txt"):
        AVE(root).items("train")
    with pytest.raises(DataNotFoundError, match=r"train_order\.h5"):
        AVE(root, splits="orders").items("train")


def test_lists_and_annotations_that_disagree_are_counted(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lines(root / "valSet.txt", LINES[3], "Bus&ff&good&1&2", "Bus&ee&good&1&2")
    write_lines(root / "testSet.txt", LINES[2])
    (root / "features").mkdir()
    assert keys(AVE(root)) == [["d_d", "aa#0", "b-b"], ["aa#3", "ff", "ee#7"], ["cc"]]
    data = AVE(root, features=root / "features")
    data.extract(["val"])
    said = capsys.readouterr().out
    assert "2 lines of the lists are not in Annotations.txt" in said
    assert "valSet.txt:2" in said
    assert "1 lines of Annotations.txt are in no split" in said
    with pytest.raises(AnnotationError, match=r"valSet\.txt:2: this line is not in Annotations\.txt"):
        data.load("val")


def test_a_list_cannot_bring_in_a_new_class(root: Path) -> None:
    write_lines(root / "testSet.txt", "Fluet&ff&good&1&2")
    with pytest.raises(AnnotationError, match=r"testSet\.txt:1: unknown class 'Fluet'; did you mean 'Flute'"):
        AVE(root).items("test")


# -- classes ---------------------------------------------------------------------------------------------------------


def test_classes_in_order_of_first_appearance_or_as_given(root: Path) -> None:
    assert AVE(root).classes == ["Violin, fiddle", "Flute", "Bus", "background"]
    order = ["Bus", "Flute", "Violin, fiddle", "Goat"]
    assert AVE(root, classes=order).classes == [*order, "background"]
    assert AVE(root, classes=[*order, "background"]).classes == [*order, "background"]


def test_aves_own_names_come_in_the_official_order(tmp_path: Path) -> None:
    lines = [f"{name}&{row}&good&0&10" for row, name in enumerate(reversed(AVE_CLASSES))]
    write_lines(tmp_path / "Annotations.txt", *lines)
    assert AVE(tmp_path).classes == [*AVE_CLASSES, "background"]
    write_lines(tmp_path / "Annotations.txt", *lines[1:])
    assert AVE(tmp_path).classes == [*reversed(AVE_CLASSES[:-1]), "background"]


def test_lines_of_background_are_legal(root: Path) -> None:
    write_lines(root / "Annotations.txt", "background&zz&good&0&10", *LINES)
    assert AVE(root).classes == ["Violin, fiddle", "Flute", "Bus", "background"]
    assert AVE(root, classes=["Bus", "Flute", "Violin, fiddle"]).classes[-1] == "background"


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        (["Violin, fiddle", "Flut", "Bus"], r"Annotations\.txt:2: 'Flute' is none .*did you mean 'Flut'"),
        (["background", "Violin, fiddle", "Flute", "Bus"], "'background' last"),
        (["Violin, fiddle", "Flute", "Bus", "Bus"], "every class once"),
        ([], r"Annotations\.txt:1"),
    ],
)
def test_classes_that_do_not_fit(root: Path, classes: list[str], says: str) -> None:
    with pytest.raises(ClassMismatchError, match=says):
        _ = AVE(root, classes=classes).classes


# -- the authors' features -------------------------------------------------------------------------------------------


def write_features(folder: Path, *, clips: int = len(LINES), suffix: str = "", **options: object) -> dict[str, Any]:
    """Feature files in the authors' layout with few channels; returns what they hold."""
    rng = np.random.default_rng(clips)
    held = {"audio": rng.random((clips, 10, 16)), "visual": rng.random((clips, 10, 7, 7, 4), dtype=np.float32)}
    for kind, values in held.items():
        write_h5(folder / f"{kind}_feature{suffix}.h5", "avadataset", values, **options)
    return held


@pytest.mark.parametrize("options", [{}, {"chunks": True}, {"chunks": True, "compression": "gzip"}])
def test_maps_are_pooled_and_follow_the_annotations(root: Path, options: dict[str, Any]) -> None:
    held = write_features(root, **options)
    data = AVE(root, features=root)
    for name, (split, rows) in zip(SPLITS, LISTS.items(), strict=True):
        loaded = data.load(name)
        assert loaded.audio.dtype == loaded.visual.dtype == torch.float32
        picked = list(rows)
        np.testing.assert_allclose(loaded.audio, held["audio"][picked], rtol=1e-6, err_msg=split)
        np.testing.assert_allclose(loaded.visual[:, 0], held["visual"][picked].mean((2, 3)), rtol=1e-5)
    assert data.load("test").label.tolist() == [[3] * 10, [2] * 8 + [3] * 2]
    assert data.load("train").ids == ["d_d", "aa", "b-b"]


def test_maps_are_kept_for_attention(root: Path) -> None:
    held = write_features(root)
    kept = AVE(root, features=root, maps="keep").load("train").visual
    assert kept.shape == (3, 1, 10, 49, 4)
    np.testing.assert_array_equal(kept[1, 0, 3, 7 * 2 + 5], held["visual"][0, 3, 2, 5])


def test_visual_vectors(root: Path) -> None:
    write_features(root)
    vectors = np.arange(len(LINES) * 10 * 5.0).reshape(len(LINES), 10, 5)
    write_h5(root / "visual_feature.h5", "mine", vectors)
    np.testing.assert_array_equal(AVE(root, features=root).load("test").visual[:, 0], vectors[[2, 5]])
    with pytest.raises(AvzooError, match=r"shape \(6, 10, 5\), expected \[6, 10, 7, 7, 512\]"):
        AVE(root, features=root, maps="keep").load("test")


def test_batches_of_feature_files(root: Path) -> None:
    write_features(root)
    data = AVE(root, features=root, batch_size=2)
    data.prepare_data()  # neither videos nor backbones are needed
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert [tuple(batch.audio.shape) for batch in batches] == [(2, 10, 16), (1, 10, 16)]
    assert sorted(id_ for batch in batches for id_ in batch.id) == ["aa", "b-b", "d_d"]
    assert batches[0].visual.shape == (2, 10, 4)


def test_noisy_videos_join_the_training_split_only(root: Path) -> None:
    write_features(root)
    noisy = write_features(root, clips=2, suffix="_noisy")
    labels = np.eye(29)[[28, 28]]
    write_h5(root / "labels_noisy.h5", "avadataset", labels)
    data = AVE(root, features=root, noisy=True)
    train = data.load("train")
    assert train.ids[3:] == ["noisy#0", "noisy#1"]
    assert train.label[3:].tolist() == [[3] * 10] * 2
    np.testing.assert_allclose(train.audio[3:], noisy["audio"], rtol=1e-6)
    np.testing.assert_allclose(train.visual[3:, 0], noisy["visual"].mean((2, 3)), rtol=1e-5)
    assert len(data.load("val")) == 1
    assert len(AVE(root, features=root).load("train")) == 3
    write_h5(root / "labels_noisy.h5", "avadataset", np.eye(29)[[28, 3]])
    with pytest.raises(AnnotationError, match="some of these videos have an event"):
        data.load("train")
    write_h5(root / "labels_noisy.h5", "avadataset", np.eye(29)[[28, 28, 28]])
    with pytest.raises(AvzooError, match=r"audio_feature_noisy\.h5: shape \(2, 10, 16\), expected \[3, 10"):
        data.load("train")


@pytest.mark.parametrize("shape", [(5, 10, 16), (6, 9, 16), (6, 16), (6, 10, 512, 7, 7)])
def test_feature_file_of_another_shape(root: Path, shape: tuple[int, ...]) -> None:
    write_features(root)
    write_h5(root / "visual_feature.h5", "avadataset", np.zeros(shape, np.float32))
    with pytest.raises(AvzooError, match=r"visual_feature\.h5: shape .*expected \[6, 10, 7, 7, 512\]"):
        AVE(root, features=root).load("train")


def test_feature_file_that_is_none(root: Path) -> None:
    data = AVE(root, features=root)
    with pytest.raises(DataNotFoundError, match=r"audio_feature\.h5: there is no such file"):
        data.load("train")
    (root / "audio_feature.h5").write_bytes(b"cut short")
    with pytest.raises(DataNotFoundError, match=r"audio_feature\.h5: not a whole HDF5 file"):
        data.load("train")
    with h5py.File(root / "audio_feature.h5", "w") as file:
        file["a"], file["b"] = [1], [2]
    with pytest.raises(AvzooError, match=r"holds \['a', 'b'\], expected exactly one dataset"):
        data.load("train")


def test_order_files_may_lie_with_the_features(root: Path) -> None:
    folder = root / "authors"
    folder.mkdir()
    held = write_features(folder)
    for split, rows in zip(SPLITS, ([3, 0], [5], [2, 4, 1]), strict=True):
        write_h5(folder / f"{split}_order.h5", "order", rows)
    loaded = AVE(root, splits="orders", features=folder).load("test")
    np.testing.assert_allclose(loaded.audio, held["audio"][[2, 4, 1]], rtol=1e-6)


def test_a_large_file_is_read_in_parts(tmp_path: Path) -> None:
    clips, lines = 160, [f"Flute&{row}&good&0&10" for row in range(160)]
    write_lines(tmp_path / "Annotations.txt", *lines)
    for name, rows in {"trainSet.txt": lines[::-1], "valSet.txt": lines[:1], "testSet.txt": lines[1::7]}.items():
        write_lines(tmp_path / name, *rows)
    write_h5(tmp_path / "audio_feature.h5", "avadataset", np.arange(clips * 10.0).reshape(clips, 10, 1))
    with h5py.File(tmp_path / "visual_feature.h5", "w") as file:
        file.create_dataset("avadataset", (clips, 10, 7, 7, 512), "float32", fillvalue=2)  # 161 MB that are not written
    data = AVE(tmp_path, features=tmp_path)
    tracemalloc.start()
    train, test = data.load("train"), data.load("test")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64e6, f"{peak / 1e6:.0f} MB at once"
    assert train.audio[:, 0, 0].tolist() == [10.0 * row for row in range(clips)][::-1]
    assert test.audio[:, 0, 0].tolist() == [10.0 * row for row in range(1, clips, 7)]
    assert train.visual.shape == (clips, 1, 10, 512)
    assert bool((train.visual == 2).all())


@pytest.mark.parametrize(
    "options",
    [{"noisy": True}, {"maps": "keep"}, {"features": Path(), "views": 2}, {"splits": "list"}, {"maps": "max"}],
)
def test_options_that_do_not_go_together(root: Path, options: dict[str, Any]) -> None:
    with pytest.raises(AvzooError):
        AVE(root, **options)


def test_the_command_line_reads_the_signature(root: Path) -> None:
    write_features(root)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(AVE, "data")
    given = ["--data.root", str(root), "--data.features", str(root), "--data.splits", "lists", "--data.maps", "keep"]
    data = AVE(**parser.parse_args(given).data.as_dict())
    assert data.load("val").visual.shape == (1, 1, 10, 49, 4)
    documented = inspect.getdoc(AVE) or ""
    assert [name for name in inspect.signature(AVE).parameters if f"\n    {name}: " not in documented] == []


# -- videos ----------------------------------------------------------------------------------------------------------


class CheapPreprocessor:
    """Stands in for the backbones: the loudness and the brightness of each segment."""

    def __init__(self, preprocess: Preprocess, device: str) -> None:
        self.segments, self.device = preprocess.segments, device

    def build(self, modalities: set[str]) -> None:
        pass

    def audio(self, clip: Clip) -> torch.Tensor:
        return clip.waveform.mean(0).unflatten(0, (self.segments, -1)).square().mean(1, keepdim=True)

    def visual(self, clip: Clip, seeds: torch.Tensor | None) -> torch.Tensor:  # noqa: ARG002
        return clip.frames.float().mean((1, 2, 3))[:, None]


@pytest.fixture
def videos(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The dataset with three of its five videos: `b-b` and `cc` are gone."""
    monkeypatch.setattr(feature_cache, "Preprocessor", CheapPreprocessor)
    (root / "AVE").mkdir()
    picture, sound = Picture(fps=2, seconds=10, gop=20), Sound(seconds=10)
    whole = write_media(root / "AVE" / "aa.mp4", picture, sound).read_bytes()
    for id_ in ("d_d", "ee"):
        (root / "AVE" / f"{id_}.mp4").write_bytes(whole)
    return root


def module(root: Path, **options: object) -> AVE:
    return AVE(root, cache=root / "cache", workers=0, **options)


def test_missing_videos_are_listed_and_the_rest_is_done(videos: Path) -> None:
    data = module(videos)
    with pytest.raises(MediaError, match="2 of 5 clips could not be read") as error:
        data.prepare_data()
    for id_ in ("b-b", "cc"):
        assert f"\n  {id_}: {videos / 'AVE' / id_}.mp4: " in str(error.value)
    assert len(data.load("val")) == 1  # aa was extracted before the error was raised
    with pytest.raises(MediaError, match="train: 1 of 3 rows have no features"):
        data.load("train")


def test_missing_videos_are_skipped_aloud(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = module(videos, on_missing="skip")
    data.prepare_data()
    said = capsys.readouterr().out
    assert "2 of 5 clips could not be read" in said
    assert "b-b: " in said
    assert "cc: " in said
    data.setup("fit")
    data.setup("test")
    said = capsys.readouterr().out
    assert "train: 1 of 3 rows have no features" in said
    assert "test: 1 of 2 rows have no features" in said
    assert "val" not in said
    train, test = data.sets["train"], data.sets["test"]
    assert train.ids == ["d_d", "aa"]
    assert test.ids == ["ee"]
    assert test.label.tolist() == [[2] * 8 + [3] * 2]
    assert train.audio.memory.shape == train.visual.memory.shape == (2, 1, 10, 1)


def test_a_split_without_any_video_is_an_error(videos: Path) -> None:
    (videos / "AVE" / "aa.mp4").unlink()
    data = module(videos, on_missing="skip")
    data.prepare_data()
    with pytest.raises(MediaError, match="val: 1 of 1 rows have no features"):
        data.setup("fit")


def test_lines_of_one_id_share_its_features(videos: Path) -> None:
    write_lines(videos / "trainSet.txt", LINES[0], LINES[4], LINES[3])
    data = module(videos, on_missing="skip")
    data.prepare_data()
    train = data.load("train")
    assert len(train.audio.memory) == 2
    assert train.clip.tolist() == [0, 1, 0]
    assert train.label.tolist() == [[0] * 10, [3] * 7 + [2] * 3, [3] * 3 + [1] + [3] * 6]


def test_an_id_of_two_splits_has_the_views_of_training(videos: Path) -> None:
    data = module(videos, on_missing="skip", views=2)
    data.prepare_data()
    assert data.load("train").visual.memory.shape[:2] == (2, 2)  # aa stands in validation too
    assert data.load("val").visual.memory.shape[:2] == (1, 1)


# -- the real files --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> AVE:
    if not (REAL / "Annotations.txt").exists():
        pytest.skip("the real AVE label files are not here")
    return AVE(REAL, splits="orders")


@pytest.fixture(scope="module")
def labels(real: AVE, tmp_path_factory: pytest.TempPathFactory) -> dict[Split, torch.Tensor]:
    """The rebuilt labels `[lines, 10]` of each split, through the same `load` that training uses."""
    folder = tmp_path_factory.mktemp("features")
    for kind in ("audio", "visual"):
        write_h5(folder / f"{kind}_feature.h5", "avadataset", np.zeros((4143, 10, 1), np.float32))
    data = AVE(real.root, splits="orders", features=folder)
    return {split: data.load(split).label for split in SPLITS}


def test_real_annotations(real: AVE) -> None:
    items = read_annotations(REAL / "Annotations.txt", classes=AVE_CLASSES)
    assert len(items) == len({item.key for item in items}) == 4143
    lines = Counter(item.id for item in items)
    assert len(lines) == 4097
    assert sum(count > 1 for count in lines.values()) == 45
    assert (items[26].id, items[26].start, items[26].end) == ("VWi2ENBuTbw", 0, 0)
    assert real.classes == [*AVE_CLASSES, "background"]
    assert list(dict.fromkeys(item.label for item in items)) == list(AVE_CLASSES)
    counts = Counter(item.label for item in items)
    assert counts["Church bell"] == counts["Race car, auto racing"] == max(counts.values()) == 188
    assert counts["Cat"] == min(counts.values()) == 60


def test_real_order_files(real: AVE) -> None:
    splits = {split: real.items(split) for split in SPLITS}
    assert [len(items) for items in splits.values()] == [3339, 402, 402]
    every = [item.key for items in splits.values() for item in items]
    assert len(every) == len(set(every)) == 4143  # disjoint, and together all lines
    ids = {split: {item.id for item in items} for split, items in splits.items()}
    assert len(ids["train"] & ids["val"]) == 10
    assert len(ids["train"] & ids["test"]) == 8
    assert len(ids["val"] & ids["test"]) == 0
    assert [item.key for item in splits["test"][:2]] == [
        read_annotations(REAL / "Annotations.txt")[row].key for row in (131, 171)
    ]


def test_real_labels(real: AVE, labels: dict[Split, torch.Tensor]) -> None:
    every = torch.cat([labels[split] for split in SPLITS])
    assert every.shape == (4143, 10)
    assert int((every == 28).sum()) == 7078
    assert int((every < 28).sum()) == 34352
    event_seconds = Counter((every < 28).sum(1).tolist())
    assert event_seconds[10] == 2750
    assert [event_seconds[length] for length in range(2, 10)] == [214, 220, 217, 196, 200, 139, 111, 95]
    silent = [item.id for split in SPLITS for item in real.items(split) if item.start == item.end]
    assert silent == ["VWi2ENBuTbw"]
    assert event_seconds[0] == 1
    for split, share in {"train": 0.1686, "val": 0.1821}.items():
        assert float((labels[split] == 28).double().mean()) == pytest.approx(share, abs=5e-5)  # type: ignore[index]


def test_real_baselines_of_the_test_split(real: AVE, labels: dict[Split, torch.Tensor]) -> None:
    test = labels["test"]
    assert test.numel() == 4020
    assert int((test == 28).sum()) == 715
    assert float((test == 28).double().mean()) == pytest.approx(0.17786, abs=5e-6)
    always = torch.tensor([real.classes.index(item.label) for item in real.items("test")])[:, None]
    assert float((test == always).double().mean()) == pytest.approx(0.82214, abs=5e-6)


def test_avemix_reads_alike() -> None:
    folder = REAL.parent / "avemix"
    if not folder.exists():
        pytest.skip("avemix is not here")
    data = AVE(folder)
    assert [len(data.items(split)) for split in SPLITS] == [720, 120, 120]
    assert data.classes == ["drone", "helicopter", "mandolin", "saxophone", "guitar", "grand_piano", "background"]
    assert all(item.path.exists() for split in SPLITS for item in data.items(split))


def test_extra_videos_join_the_training_alone(tmp_path: Path) -> None:
    for folder, ids in (("own", "abc"), ("more", "de")):
        (tmp_path / folder).mkdir()
        for file in ("Annotations.txt", "trainSet.txt", "valSet.txt", "testSet.txt"):
            lines = [f"{label}&{id_}&good&0&4\n" for id_, label in zip(ids, ("Cat", "Bus", "Cat"), strict=False)]
            (tmp_path / folder / file).write_text("".join(lines))
    numbers = {"audio_backbone": "vggish", "visual_backbone": "tf_efficientnet_lite0"}
    data = AVE(tmp_path / "own", extra=tmp_path / "more", preprocess=numbers)
    assert [item.id for item in data.items("train")] == ["a", "b", "c", "d", "e"]
    assert data.items("train")[-1].path == tmp_path / "more" / "AVE" / "e.mp4"
    assert [item.id for item in data.items("val")] == ["a", "b", "c"]
    (tmp_path / "more" / "trainSet.txt").write_text("Dog&d&good&0&4\n")
    with pytest.raises(AnnotationError, match=r"more.trainSet\.txt:1.*'Dog'"):
        data.items("train")
    with pytest.raises(AvzooError, match="extra need videos"):
        AVE(tmp_path / "own", extra=tmp_path / "more", features=tmp_path, preprocess=numbers)
