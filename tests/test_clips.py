"""One's own clips: which rows a folder or a table gives, how they are split, which windows cover a file."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from media import Picture, Sound, texture, write_media
from PIL import Image

from avzoo import cli
from avzoo.data import rendering
from avzoo.data.clip_splits import assign_splits
from avzoo.data.clip_table import ClipRow, read_clips
from avzoo.data.clips import Clips, Window
from avzoo.data.events import Row
from avzoo.errors import AnnotationError, AvzooError, ClassMismatchError, DataNotFoundError, MediaError

LIGHT: dict[str, Any] = {"audio_backbone": "vggish", "visual_backbone": "tf_efficientnet_lite0", "size": 32}
GAMMATONE: dict[str, Any] = {
    "audio_kind": "gammatone", "sample_rate": 8000, "window": 320, "hop": 160, "f_max": 4000.0, "fps": 5,
    "visual_kind": "frame", "visual_backbone": "tf_efficientnet_lite0", "size": 16,
}  # fmt: skip
Copy = Callable[..., Path]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[[float], Path]:
    """A video of so many seconds."""
    folder = tmp_path_factory.mktemp("media")

    def of(seconds: float) -> Path:
        path = folder / f"{seconds:g}.mp4"
        if not path.exists():
            write_media(path, Picture(seconds=seconds, fps=10), Sound(seconds=seconds, rate=16000))
        return path

    return of


@pytest.fixture
def put(tmp_path: Path, clip: Callable[[float], Path]) -> Copy:
    """Put a video at a path below `tmp_path`."""

    def copy(*names: str, seconds: float = 1.0) -> Path:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(clip(seconds), tmp_path / name)
        return tmp_path

    return copy


def table(folder: Path, text: str, *, encoding: str = "utf-8", name: str = "clips.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def facts(rows: Sequence[ClipRow]) -> list[tuple[str, str, str | None, str]]:
    return [(row.name, row.label, row.split, row.group) for row in rows]


# -- folders ---------------------------------------------------------------------------------------------------------


def test_a_folder_per_class(put: Copy) -> None:
    root = put("siren/b.mp4", "siren/a.MOV", "bell/c.mp4", "bell/tower/d.mp4", "bell/._c.mp4", ".hidden/x/e.mp4")
    (root / "bell" / "notes.txt").write_text("x")
    assert facts(read_clips(root)) == [
        ("bell/c.mp4", "bell", None, ""),
        ("bell/tower/d.mp4", "bell", None, "tower"),
        ("siren/a.MOV", "siren", None, ""),
        ("siren/b.mp4", "siren", None, ""),
    ]


def test_folders_of_splits(put: Copy) -> None:
    root = put("train/bell/a.mp4", "Validation/bell/b.mp4", "test/siren/c.mp4")
    assert [row[:3] for row in facts(read_clips(root))] == [
        ("Validation/bell/b.mp4", "bell", "val"),
        ("test/siren/c.mp4", "siren", "test"),
        ("train/bell/a.mp4", "bell", "train"),
    ]
    put("siren/d.mp4")
    with pytest.raises(AnnotationError, match="beside them siren: expected folders train, val and test alone"):
        read_clips(root)


def test_a_class_may_be_called_train(put: Copy) -> None:
    root = put("train/a.mp4", "tram/b.mp4")
    assert {row.label for row in read_clips(root)} == {"train", "tram"}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("val/bell/a.mp4", "test/siren/b.mp4"), "has test and val and no train, from which to learn"),
        (("bell/a.mp4", "siren/b.mp4", "dev/bell/c.mp4"), "has dev and no train"),
        (("train_set/bell/a.mp4", "val_set/bell/b.mp4"), "has train_set and val_set, which look like splits"),
        (("trainset/bell/a.mp4", "Test data/bell/b.mp4"), "has Test data and trainset, which look like splits"),
    ],
)
def test_folders_of_splits_are_not_taken_for_classes(put: Copy, names: tuple[str, ...], said: str) -> None:
    with pytest.raises(AnnotationError, match=said):
        read_clips(put(*names))


def test_a_class_that_sounds_like_a_split_is_one(put: Copy) -> None:
    """Beside other classes, or with its videos right in it."""
    root = put("test tone/monday/a.mp4", "bell/monday/b.mp4")
    assert {row.label for row in read_clips(root)} == {"test tone", "bell"}
    shutil.rmtree(root / "bell")
    put("train_horn/b.mp4")
    assert {row.label for row in read_clips(root)} == {"test tone", "train_horn"}


@pytest.mark.parametrize("suffix", ["3gp", "MTS", "m2ts", "ts", "wmv", "flv", "mpg", "mpeg", "ogv"])
def test_what_cameras_write_is_looked_for(put: Copy, suffix: str) -> None:
    assert [row.label for row in read_clips(put(f"bell/a.{suffix}"))] == ["bell"]


def test_folders_without_a_row(put: Copy, tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"nowhere: no such folder or table"):
        read_clips(tmp_path / "nowhere")
    with pytest.raises(DataNotFoundError, match=r" is empty: expected .*/<class>/\*\.mp4"):
        read_clips(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.JPG").write_bytes(b"x")
    with pytest.raises(DataNotFoundError, match=r"only files ending in \.jpg"):
        read_clips(tmp_path)
    put("loose.mp4")
    with pytest.raises(DataNotFoundError, match=r"loose\.mp4: one video is nothing to learn from: give a folder per"):
        read_clips(tmp_path / "loose.mp4")
    with pytest.raises(DataNotFoundError, match=r"its videos \(loose\.mp4, \.\.\.\) lie in no folder of a class"):
        read_clips(tmp_path)


# -- tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("path,label,start,end\na b/ü.mp4,bell,0.5,2\n\na b/ü.mp4,siren,,\n", "utf-8"),
        ("path,label,start,end\r\na b/ü.mp4,bell,0.5,2\r\na b/ü.mp4,siren\r\n", "utf-8"),
        ('Path ;LABEL;start;End;note\r\n"a b/ü.mp4";"bell";0,5;2;"x; y"\r\na b\\ü.mp4;siren;;;\r\n', "utf-8-sig"),
        ("sep=;\r\npath;label;start;end\r\na b/ü.mp4;bell;0,5;2\r\na b/ü.mp4;siren;;\r\n", "utf-8-sig"),
        ("label\tpath\tstart\tend\r\nbell\ta b/u\u0308.mp4\t0.5\t2\r\nsiren\ta b/ü.mp4\t\t\r\n", "utf-16"),
    ],
    ids=["plain", "Windows line ends", "Excel", "Excel with a hint", "Excel's Unicode text, accents apart"],
)
def test_tables_of_all_kinds_say_the_same(put: Copy, text: str, encoding: str) -> None:
    root = put("a b/ü.mp4")
    rows = read_clips(table(root, text, encoding=encoding))
    assert [(row.label, row.start, row.end, row.name) for row in rows] == [
        ("bell", 0.5, 2.0, "a b/ü.mp4"),
        ("siren", None, None, "a b/ü.mp4"),
    ]
    assert all(row.path.is_file() for row in rows)
    assert rows[0].where.startswith(str(root / "clips.csv:"))


def test_a_parquet_table(put: Copy) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    root = put("a.mp4")
    columns = {"path": ["a.mp4", "a.mp4"], "label": ["bell", "siren"], "start": [0.5, None], "end": [2.0, float("nan")]}
    parquet.write_table(pyarrow.table(columns), root / "clips.parquet")
    rows = read_clips(root / "clips.parquet")
    assert [(row.label, row.start, row.end) for row in rows] == [("bell", 0.5, 2.0), ("siren", None, None)]
    (root / "broken.parquet").write_bytes(b"no")
    with pytest.raises(AnnotationError, match="not a Parquet table"):
        read_clips(root / "broken.parquet")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty: expected a header"),
        ("path,label\n", "has a header and no rows"),
        ("path,lable\na.mp4,bell\n", "no column 'label' among .*did you mean 'lable'"),
        ("path,label,strat,end\na.mp4,bell,1,2\n", "the column 'strat' is not read: call it 'start'"),
        ("path,label,start\na.mp4,bell,1\n", "start and end go together"),
        ("path,label\na.mp4,\n", r"clips.csv:2: path and label are 'a.mp4' and ''"),
        ("path,label,start,end\na.mp4,bell,1,\n", "give both, or neither"),
        ("path,label,start,end\na.mp4,bell,3,2\n", "ends at 2 s, not after it starts, 3 s"),
        ("path,label,start,end\na.mp4,bell,0:30,1\n", "start is '0:30', expected seconds"),
        ("path,label,start,end\na.mp4,bell,-1,1\n", "start is '-1', expected seconds"),
        ("path,label,split\na.mp4,bell,trian\n", "split is 'trian', expected train, val, test.*did you mean 'train'"),
        ('path,label\na.mp4,"bell\n', "not a line of a CSV table"),
        ("path,label,split\na.mp4,bell,val\na.mp4,siren,train\n", "clips.csv:3: .* a file is on one side whole"),
    ],
)  # fmt: skip
def test_what_a_table_may_not_be(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(AvzooError, match=said):
        read_clips(table(tmp_path, text))


def test_a_table_in_another_encoding_is_answered_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="in Excel: save as 'CSV UTF-8"):
        read_clips(table(tmp_path, "path,label\nü.mp4,bell\n", encoding="cp1252"))


# -- splits ----------------------------------------------------------------------------------------------------------


def named(count: int, label: str = "bell", group: Callable[[int], str] = lambda _: "") -> list[ClipRow]:
    return [ClipRow(Path(f"{label}/{n}.mp4"), f"{label}/{n}.mp4", label, group=group(n)) for n in range(count)]


def held(rows: Sequence[ClipRow], share: float = 0.2) -> set[str]:
    return {row.name for row in assign_splits(rows, share) if row.split == "val"}


def test_validation_is_about_the_share_that_was_asked_for() -> None:
    assert 160 <= len(held(named(1000), 0.2)) <= 240
    assert 460 <= len(held(named(1000), 0.5)) <= 540


def test_clips_stay_where_they_are_when_others_come() -> None:
    everything = named(100) + named(100, "siren")
    before = held(everything)
    assert held(everything[::2]) == before & {row.name for row in everything[::2]}
    assert held([*named(3, "aaa"), *reversed(everything)]) >= before


def test_what_was_trained_on_is_not_validated_on_later() -> None:
    for first in range(2, 30):
        train = {row.name for row in named(first)} - held(named(first))
        assert not train & held(named(first + 1)), first


def test_every_class_is_on_both_sides() -> None:
    for count in range(2, 30):
        for share in (0.01, 0.2, 0.9):
            split = {row.split for row in assign_splits(named(count, f"class {count}"), share)}
            assert split == {"train", "val"}


def test_a_group_stays_together() -> None:
    rows = named(200, group=lambda n: f"place {n // 10}")
    held_back = held(rows)
    assert 0 < len(held_back) < 200
    assert len(held_back) % 10 == 0
    assert {row.group for row in rows if row.name in held_back}.isdisjoint(
        row.group for row in rows if row.name not in held_back
    )


def test_a_group_of_several_classes_leaves_each_its_training() -> None:
    """Whatever the order of the hashes: of one class it is all, of the other it is one of two."""
    for n in range(20):
        rows = [*named(2, "bell", lambda k, n=n: f"day {n + k}"), *named(1, "siren", lambda _, n=n: f"day {n}")]  # type: ignore[misc]
        assert held(rows) == {"bell/1.mp4"}


def test_declared_splits_are_kept() -> None:
    declared = [ClipRow(Path(f"{n}"), f"{n}", "bell", split=s) for n, s in enumerate(("train", "val", "test", None))]
    assert [row.split for row in assign_splits(declared, 0.9)] == ["train", "val", "test", "train"]
    undeclared = [row for row in declared if row.split != "val"] + named(20)
    drawn = assign_splits(undeclared, 0.2)
    assert drawn[1].split == "test"
    assert {row.split for row in drawn} == {"train", "val", "test"}


# -- windows ---------------------------------------------------------------------------------------------------------


def events(root: Path, **options: Any) -> Clips:
    return Clips(root, preprocess=LIGHT, task="events", workers=0, **options)


def windows(data: Clips) -> dict[str, list[tuple[float, tuple[tuple[str, float, float], ...]]]]:
    found: dict[str, list[tuple[float, tuple[tuple[str, float, float], ...]]]] = {}
    for split in ("train", "val"):
        for item in data.items(split):  # type: ignore[arg-type]
            assert isinstance(item, Window)
            found.setdefault(item.path.name, []).append((item.offset, item.events))
    return found


def test_windows_cover_a_file_and_hold_its_events(put: Copy) -> None:
    root = put("long.mp4", seconds=23.4)
    put("short.mp4", "tiny.mp4")
    path = table(
        root,
        "path,label,start,end,split\nlong.mp4,bell,2,12,train\nlong.mp4,siren,9,10.5,train\n"
        "short.mp4,siren,0,1,val\ntiny.mp4,bell,0,0.9,val\n",
    )
    data = Clips(path, preprocess=LIGHT)
    assert data.task == "events"
    assert data.classes == ["bell", "siren", "background"]
    found = windows(data)
    assert found["long.mp4"] == [
        (0, (("bell", 2, 10), ("siren", 9, 10))),
        (10, (("bell", 0, 2), ("siren", 0, 0.5))),
        (13, ()),  # moved back: 23 segments have their middle in the file
    ]
    assert found["short.mp4"] == [(0, (("siren", 0, 1),))]
    assert [item.label for item in data.items("train")] == ["bell", "bell", "background"]
    assert [item.id for item in data.items("train")] == ["long.mp4", "long.mp4+10", "long.mp4+13"]


def test_a_file_of_a_folder_is_its_event_as_far_as_it_lasts(put: Copy) -> None:
    root = put("bell/a.mp4", "bell/b.mp4", seconds=3)
    put("siren/c.mp4", "siren/d.mp4", seconds=0.2)  # 200 ms: one answer, as `predict` gives one
    put("background/e.mp4", "background/f.mp4")
    found = windows(events(root))
    assert found["a.mp4"] == [(0, (("bell", 0, 3),))]
    assert found["c.mp4"] == [(0, (("siren", 0, 1),))]
    assert found["e.mp4"] == [(0, ())]


def test_scenes_have_the_label_in_every_window(put: Copy) -> None:
    root = put("bus/a.mp4", "bus/b.mp4", "tram/c.mp4", "tram/d.mp4", seconds=12)
    data = Clips(root, preprocess=GAMMATONE)
    assert data.task == "scenes"
    assert data.classes == ["bus", "tram"]
    items = data.items("train") + data.items("val")
    assert len(items) == 8
    assert all(item.label == item.path.parent.name for item in items)
    assert {item.source.start for item in items} == {0.0, 2.0}  # type: ignore[attr-defined]


@pytest.mark.usefixtures("cheap_backbones")
def test_features_are_of_the_windows_own_seconds(tmp_path: Path) -> None:
    """The second window of a long file has what a file that begins there has."""
    for name, first in (("long", 0), ("tail", 40)):
        seconds = 14.0 if name == "long" else 10.0
        render = lambda index, size, first=first: texture((index + first) // 10, size)  # noqa: E731
        click = tuple(n + 0.5 - first / 10 for n in range(4, 14, 3) if n + 0.5 >= first / 10)
        tracks = (
            Picture(codec="libx264", seconds=seconds, fps=10, render=render),
            Sound(codec="pcm_s16le", format="s16", seconds=seconds, clicks=click),
        )
        write_media(tmp_path / f"{name}.mkv", *tracks)
    path = table(tmp_path, "path,label,start,end,split\nlong.mkv,bell,5,8,train\ntail.mkv,bell,1,4,val\n")
    data = events(path)
    data.extract(("train", "val", "test"))
    train, val = data.load("train"), data.load("val")
    assert train.label.shape == (2, 10)  # type: ignore[attr-defined]
    assert train.label[1].tolist() == val.label[0].tolist() == [1, 0, 0, 0, 1, 1, 1, 1, 1, 1]  # type: ignore[attr-defined]
    long, tail = train[[Row(0), Row(1)]], val[[Row(0)]]
    torch.testing.assert_close(long.visual[1], tail.visual[0], rtol=0, atol=0.05)
    assert (long.visual[0] - tail.visual[0]).abs().max() > 0.2
    torch.testing.assert_close(long.audio[1], tail.audio[0], rtol=0, atol=0.05)


@pytest.mark.usefixtures("cheap_backbones")
def test_batches_of_both_tasks(put: Copy) -> None:
    root = put("bell/a.mp4", "bell/b.mp4", "siren/c.mp4", "siren/d.mp4")
    of_events = events(root, batch_size=2, swap=1.0, reverse=0.5)
    of_scenes = Clips(root, preprocess=GAMMATONE, workers=0, examples="second", batch_size=2)
    for data, form in ((of_events, (2, 10)), (of_scenes, (2,))):
        data.prepare_data()
        data.setup("fit")
        batch = next(iter(data.train_dataloader()))
        assert batch.label.shape == form
        assert len(batch.audio) == 2
        assert len(next(iter(data.val_dataloader())).label) == 2
    assert of_scenes.audio_statistics()[0].ndim == 2
    with pytest.raises(AvzooError, match="set task to scenes"):
        of_events.audio_statistics()


def test_rendered_clips_are_read(tmp_path: Path) -> None:
    root = rendering.write_clips(
        tmp_path, train=3, val=3, test=3, seconds=1, size=32, fps=2, classes=rendering.CLASSES[:3]
    )
    data = events(root)
    assert data.classes == [*sorted(rendering.CLASSES[:3]), "background"]
    assert [len(data.items(split)) for split in ("train", "val", "test")] == [3, 3, 3]


def test_clips_are_not_rendered_among_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"val": 0, "test": 0, "seconds": 1, "size": 32, "fps": 2}
    for _ in range(2):  # the same ones again
        rendering.write_clips(tmp_path, train=2, **options)
    with pytest.raises(AvzooError, match=r"holds other clips, such as syn_\d+.mp4: give a new folder, or empty it"):
        rendering.write_clips(tmp_path, train=2, seed=1, **options)
    assert len([*tmp_path.rglob("*.mp4")]) == 2
    with pytest.raises(SystemExit):
        cli.main(["synth", str(tmp_path), "--layout", "clips", "--classes", "2"])
    assert "--classes 2: at least 3" in capsys.readouterr().err


def test_the_command_that_renders_says_what_and_what_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = ["--train", "2", "--val", "1", "--test", "0", "--size", "32", "--workers", "0"]
    cli.main(["synth", str(tmp_path), "--layout", "clips", *counts])
    said = capsys.readouterr().out
    assert f"{tmp_path}: clips layout, clips: 2 train, 1 val, 0 test; seed 0\n" in said
    assert f"avzoo check '{tmp_path}'" in said
    assert f"avzoo finetune joint-scalogram-scenemix --data '{tmp_path}'" in said


# -- what gives nothing to learn -------------------------------------------------------------------------------------


def test_one_class_has_nothing_to_be_told_from(put: Copy) -> None:
    root = put("bell/a.mp4", "bell/b.mp4", "bell/c.mp4")
    for task in ("scenes", "events"):
        with pytest.raises(AnnotationError, match="there is one class, bell, and nothing to tell it from"):
            Clips(root, preprocess=GAMMATONE, task=task).classes  # type: ignore[arg-type]  # noqa: B018
    put("background/d.mp4", "background/e.mp4")
    assert events(root).classes == ["bell", "background"]
    assert Clips(root, preprocess=GAMMATONE).classes == ["background", "bell"]
    timed = table(root, "path,label,start,end\nbell/a.mp4,bell,0,0.5\nbell/b.mp4,bell,0,0.5\n")
    assert Clips(timed, preprocess=LIGHT).classes == ["bell", "background"]


def test_one_clip_of_a_class_is_too_few(put: Copy) -> None:
    root = put("bell/a.mp4", "bell/b.mp4", "siren/c.mp4")
    with pytest.raises(AnnotationError, match="one clip of siren: one to learn from and another to validate on"):
        events(root).items("train")


def test_classes_that_are_not_in_training(put: Copy) -> None:
    root = put(
        "train/bell/a.mp4", "train/siren/b.mp4", "val/bell/c.mp4", "val/siren/d.mp4", "val/dog/e.mp4", "val/dog/f.mp4"
    )
    with pytest.raises(AnnotationError, match="no clip of dog is in training"):
        events(root).items("train")
    one = table(root, "path,label,start,end\nval/dog/e.mp4,dog,0,0.5\nval/dog/e.mp4,bell,0.5,1\n")
    with pytest.raises(AnnotationError, match="every class is one file or group"):
        events(one).items("train")


def test_a_group_on_two_sides_is_refused(put: Copy) -> None:
    root = put("a.mp4", "b.mp4")
    path = table(root, "path,label,split,group\na.mp4,bell,train,roof\nb.mp4,siren,val,roof\n")
    with pytest.raises(AnnotationError, match=r"clips\.csv:2, .*:3: group 'roof' is in train and val: put it on one"):
        events(path).items("train")


def test_a_subfolder_is_one_group_in_all_classes(put: Copy) -> None:
    days = ("monday", "tuesday", "wednesday", "thursday")
    root = put(*(f"{label}/{day}/{n}.mp4" for label in ("bell", "siren") for day in days for n in (1, 2)))
    sides = {day: {row.split for row in events(root).rows if row.group == day} for day in days}
    assert all(len(side) == 1 for side in sides.values())
    assert {split for side in sides.values() for split in side} == {"train", "val"}
    (root / "train").mkdir()
    (root / "bell").rename(root / "train" / "bell")
    (root / "val").mkdir()
    (root / "siren").rename(root / "val" / "siren")
    with pytest.raises(AnnotationError, match="group 'monday' is in train and val"):
        events(root).items("train")


def test_a_split_that_is_not_there(put: Copy) -> None:
    data = events(put("bell/a.mp4", "bell/b.mp4", "siren/c.mp4", "siren/d.mp4"))
    with pytest.raises(DataNotFoundError, match="has no test clips: put some in a folder test/<class>"):
        data.items("test")


def test_options_of_the_other_task_and_classes_that_do_not_fit(put: Copy) -> None:
    root = put("bell/a.mp4", "bell/b.mp4", "siren/c.mp4", "siren/d.mp4")
    with pytest.raises(AvzooError, match="examples='second' is not for events"):
        events(root, examples="second").items("train")
    with pytest.raises(
        AvzooError, match=r"swap=0\.5 is not for scenes.*: read it as events \(`--data.task events`\), or"
    ):
        Clips(root, preprocess=GAMMATONE, swap=0.5).items("train")
    with pytest.raises(AvzooError, match="val_fraction is 0, expected a share between 0 and 1"):
        events(root, val_fraction=0).items("train")
    with pytest.raises(AvzooError, match="task is 'both', expected one of"):
        Clips(root, task="both")  # type: ignore[arg-type]
    with pytest.raises(ClassMismatchError, match=r"'siren' is none of the classes given.*did you mean 'sirene'"):
        events(root, classes=["bell", "sirene"]).classes  # noqa: B018
    assert events(root, classes=["siren", "bell"]).classes == ["siren", "bell", "background"]
    timed = table(root, "path,label,start,end\nbell/a.mp4,bell,0,0.5\n")
    with pytest.raises(AnnotationError, match=r"a scene is a whole file, this row is from 0 to 0\.5 s"):
        Clips(timed, preprocess=GAMMATONE, task="scenes").items("train")
    twice = table(root, "path,label\nbell/a.mp4,bell\nbell/a.mp4,siren\nbell/b.mp4,bell\nsiren/c.mp4,siren\n")
    with pytest.raises(AnnotationError, match=r"clips\.csv:2, .*:3: bell/a\.mp4 is labelled bell and siren: keep"):
        Clips(twice, preprocess=GAMMATONE).items("train")


def test_files_that_are_gone(put: Copy, capsys: pytest.CaptureFixture[str]) -> None:
    root = put("a.mp4", "b.mp4", "c.mp4", "d.mp4")
    text = "path,label\na.mp4,bell\nb.mp4,bell\nc.mp4,siren\nd.mp4,siren\ne.mp4,siren\n"
    with pytest.raises(DataNotFoundError, match=r"1 of its files are not there, such as .*e\.mp4"):
        events(table(root, text)).items("train")
    data = events(table(root, text), on_missing="skip")
    assert len(data.items("train")) + len(data.items("val")) == 4
    assert "going on without them" in capsys.readouterr().out


@pytest.mark.usefixtures("cheap_backbones")
def test_a_photo_and_a_broken_file_are_named_together(put: Copy) -> None:
    root = put("bell/a.mp4", "bell/b.mp4", "siren/c.mp4", "siren/d.mp4")
    Image.fromarray(texture(0, (48, 64))).save(root / "photo.jpg")
    (root / "photo.jpg").rename(root / "siren" / "e.mp4")
    (root / "bell" / "f.mp4").write_bytes(b"no video")
    with pytest.raises(MediaError, match="2 of 6 clips could not be read") as caught:
        events(root).prepare_data()
    assert f"\n  {root / 'siren' / 'e.mp4'}: is a photo, not a video" in str(caught.value)
    assert f"`avzoo check '{root}'` looks for such beforehand" in str(caught.value)
    assert "f.mp4" in str(caught.value)
    data = events(root, on_missing="skip")
    data.prepare_data()
    data.setup("fit")
    assert len(data.sets["train"]) + len(data.sets["val"]) == 4  # type: ignore[arg-type]
