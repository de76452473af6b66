"""`avzoo check`: every kind of trouble is found, told from its innocent neighbour, and answered with what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from media import Picture, Sound, texture, write_media
from PIL import Image

from avzoo import cli
from avzoo.checking import Problem, Report, check
from avzoo.checking.labels import alike
from avzoo.clip import Clip, read_clip
from avzoo.data.clips import Clips
from avzoo.errors import AnnotationError


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`0.mp4`, `1.mp4`, ... of 1 s, no two alike; `mute.mp4`, `flash.mp4` of 200 ms."""
    folder = tmp_path_factory.mktemp("media")
    for n in range(8):
        picture = Picture(seconds=1, fps=5, render=lambda i, size, n=n: texture(100 * n + i, size))  # type: ignore[misc]
        write_media(folder / f"{n}.mp4", picture, Sound(seconds=1))
    write_media(folder / "mute.mp4", Picture(seconds=1))
    write_media(folder / "flash.mp4", Picture(seconds=0.2), Sound(seconds=0.2))
    return folder


@pytest.fixture
def good(tmp_path: Path, media: Path) -> Path:
    """Two classes of four clips: nothing is wrong but that they are few."""
    root = tmp_path / "my clips ü"
    for n in range(8):
        target = root / ("bell", "siren")[n % 2] / f"take {n}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(media / f"{n}.mp4", target)
    return root


def only(report: Report, *, besides: tuple[str, ...] = ("few clips", "little validation")) -> Problem:
    """The one problem beside the harmless ones."""
    [problem] = [problem for problem in report.problems if problem.kind not in besides]
    assert problem.advice
    return problem


def test_a_healthy_folder(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = check(good)
    assert report.errors == 0
    few = {problem.kind: problem.message for problem in report.problems}
    assert few.keys() == {"few clips", "little validation"}
    assert few["little validation"] == "bell, siren have 1 clip each to validate on"
    assert report.task == "scenes"
    assert report.files == 8
    for counts in report.classes.values():
        assert counts["train"] + counts["val"] == 4
        assert counts["train"]
        assert counts["val"]
        assert counts["test"] == 0
        assert counts["seconds"] == pytest.approx(4, abs=0.4)
    assert report.seconds["median"] == pytest.approx(1, abs=0.1)
    cli.main(["check", str(good)])
    said = capsys.readouterr().out
    assert "8 files of scenes" in said
    assert "errors: 0, warnings: 3" in said


def test_json_and_the_exit_status(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["check", str(good), "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["path"] == str(good)
    assert answer["errors"] == 0
    assert set(answer["classes"]) == {"bell", "siren"}
    shutil.copyfile(good / "bell" / "take 0.mp4", good / "siren" / "take 0.mp4")
    for more in ([], ["--json"]):
        with pytest.raises(SystemExit) as stop:
            cli.main(["check", str(good), *more])
        assert stop.value.code == 1
        assert "two labels" in capsys.readouterr().out


def test_an_empty_folder_and_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is empty: expected" in only(check(tmp_path)).message
    assert "no such folder or table" in only(check(tmp_path / "none")).message
    assert only(check(tmp_path)).kind == only(check(tmp_path / "none")).kind == "no clips"
    Image.fromarray(texture(0, (48, 64))).save(tmp_path / "a.jpg")
    assert "there are photos" in only(check(tmp_path)).advice
    with pytest.raises(SystemExit):
        cli.main(["check", str(tmp_path)])
    assert "mend" not in (said := capsys.readouterr().out)
    assert "errors: 1" in said


def test_files_that_cannot_teach(good: Path, media: Path) -> None:
    shutil.copyfile(media / "mute.mp4", good / "bell" / "mute.mp4")
    problem = only(check(good))
    assert (problem.kind, problem.message) == ("no sound", "1 of 9 files has no sound")
    assert "--on-missing-audio silence" in problem.advice
    (good / "bell" / "mute.mp4").unlink()
    shutil.copyfile(media / "flash.mp4", good / "bell" / "flash.mp4")
    problem = only(check(good))
    assert (problem.kind, problem.severity) == ("very short", "warning")
    assert problem.files == (str(good / "bell" / "flash.mp4"),)
    (good / "bell" / "flash.mp4").unlink()
    (good / "bell" / "x.mp4").write_bytes(b"no video")
    problem = only(check(good))
    assert (problem.kind, problem.severity) == ("unreadable", "error")
    assert "x.mp4" not in problem.message  # but among the files
    (good / "bell" / "x.mp4").unlink()
    for kind in ("jpg", "png", "webp"):
        Image.fromarray(texture(0, (48, 64))).save(good / f"x.{kind}")
        (good / f"x.{kind}").rename(good / "bell" / "x.mp4")
        problem = only(check(good))
        assert (problem.kind, problem.severity) == ("photo", "error")
        assert problem.message == "1 of 9 files holds a photo"
    (good / "bell" / "x.mp4").unlink()
    (good / "bell" / "x.mp4").write_bytes(b"")
    assert only(check(good)).kind == "unreadable"


@pytest.mark.parametrize("ends_black", [False, True])
def test_a_file_that_was_cut_is_found_by_its_end(good: Path, ends_black: bool) -> None:
    """Its index, at the front, still says how long it was; what is left can all be decoded."""
    path = good / "bell" / "whole.mp4"
    dark = lambda i, size: texture(i, size) * (not ends_black or i < 60)  # noqa: E731
    tracks = Picture(seconds=4, render=dark), Sound(seconds=4, clicks=(0.5,))  # the rest is silence
    write_media(path, *tracks, options={"movflags": "faststart"})
    assert check(good).errors == 0
    (good / "bell" / "cut.mp4").write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    problem = only(check(good))
    assert (problem.kind, problem.severity, problem.files) == (
        "unreadable", "error", (str(good / "bell" / "cut.mp4"),)
    )  # fmt: skip
    assert "of the picture and" in problem.message
    assert "--on-damage pad takes the file as it is" in problem.message


def test_of_a_good_file_one_second_is_read(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Path] = []

    def spy(path: Path, **options: Any) -> Clip:
        reads.append(path)
        return read_clip(path, **options)

    monkeypatch.setattr("avzoo.checking.files.read_clip", spy)
    check(good)
    assert sorted(reads) == sorted(good.rglob("*.mp4"))


def test_columns_that_are_not_read_are_named(good: Path) -> None:
    files = [f"{p.parent.name}/{p.name},{p.parent.name},0,1" for p in sorted(good.rglob("take*"))]
    table = good / "clips.csv"
    for header, message, advice in (
        ("begin,stop", "columns not read: begin, stop", "call begin as start and stop as end, if that is what it is"),
        ("onset,Note", "columns not read: onset, note", "call onset as start, if that is what it is"),
        ("camera,note", "columns not read: camera, note", "no harm, if it was not meant to be"),
    ):
        table.write_text("\n".join([f"path,label,{header}", *files]))
        problem = only(check(table))
        assert (problem.severity, problem.message, problem.advice) == ("warning", message, advice)


@pytest.mark.parametrize(
    ("columns", "rows"),
    [
        ("split,group", ("bell train a", "bell val b", "siren train b", "siren val c")),  # a group on two sides
        ("split,group", ("bell test a", "bell - a", "bell - b", "siren - c", "siren - d")),  # ... of which one is drawn
        ("split", ("bell train", "bell train", "bell val")),  # one class
        ("split", ("bell train", "bell val", "siren train")),  # one clip
        ("split", ("bell train", "bell val", "siren val", "siren val")),  # none in training
        ("group", ("bell a", "bell a", "siren b", "siren b")),  # nothing to validate on
        ("split,twice", ("bell train", "bell val", "siren train", "siren val")),  # two labels
    ],
)
def test_what_check_calls_an_error_training_refuses_in_the_same_words(
    good: Path, columns: str, rows: tuple[str, ...]
) -> None:
    videos = sorted(path.relative_to(good).as_posix() for path in good.rglob("take*"))
    lines = [",".join([video, *row.replace("-", "").split(" ")]) for video, row in zip(videos, rows, strict=False)]
    if columns.endswith("twice"):
        columns, lines = "split", [*lines, lines[0].replace(",bell", ",siren")]
    (good / "clips.csv").write_text("\n".join([f"path,label,{columns}", *lines]))
    problem = next(problem for problem in check(good / "clips.csv").problems if problem.severity == "error")
    with pytest.raises(AnnotationError) as refused:
        Clips(good / "clips.csv").items("train")
    assert str(refused.value).endswith(f": {problem.message}: {problem.advice}")


def test_the_share_of_validation_is_as_in_training(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for share, held in ((0.2, 2), (0.9, 6)):
        cli.main(["check", str(good), "--json", "--val-fraction", str(share)])
        classes = json.loads(capsys.readouterr().out)["classes"]
        assert sum(counts["val"] for counts in classes.values()) == held
        assert sum(row.split == "val" for row in Clips(good, val_fraction=share).rows) == held
    with pytest.raises(SystemExit):
        cli.main(["check", str(good), "--val-fraction", "2"])
    assert "val_fraction is 2, expected a share" in capsys.readouterr().err


def test_copies_are_found_by_content(good: Path, media: Path) -> None:
    table = good / "clips.csv"
    (good / "copy.mp4").write_bytes((good / "bell" / "take 0.mp4").read_bytes())
    rows = [f"{p.parent.name}/{p.name},{p.parent.name},train" for p in sorted(good.rglob("take*"))]
    rows = [row if n % 2 else row.replace("train", "val") for n, row in enumerate(rows)]
    for end, kind, severity in (
        ("copy.mp4,bell,val", "duplicate", "warning"),
        ("copy.mp4,bell,train", "leak", "error"),
        ("copy.mp4,siren,val", "two labels", "error"),
    ):
        table.write_text("\n".join(["path,label,split", *rows, end]))
        problem = only(check(table))
        assert (problem.kind, problem.severity) == (kind, severity), end
        assert len(problem.files) == 2
    table.write_text("\n".join(["path,label,split", *rows]))
    assert check(table).errors == 0
    assert media.exists()


def test_groups_on_two_sides(good: Path) -> None:
    table = good / "clips.csv"
    splits = ["train", "train", "val", "val"]
    for groups, found in ((["a", "a", "b", "b"], False), (["a", "b", "b", "c"], True)):
        lines = ["path,label,split,group"]
        for label in ("bell", "siren"):
            files = sorted((good / label).iterdir())
            lines += [f"{label}/{f.name},{label},{s},{g}" for f, s, g in zip(files, splits, groups, strict=True)]
        table.write_text("\n".join(lines))
        report = check(table)
        assert bool(report.errors) == found
        if found:
            assert only(report).message == "group 'b' is in train and val"


def test_one_class_and_one_clip(good: Path) -> None:
    (good / "dog").mkdir()
    (good / "siren" / "take 1.mp4").rename(good / "dog" / "take 1.mp4")
    problem = only(check(good), besides=("few clips", "no validation", "little validation"))
    assert problem.kind == "one clip"
    assert "there is one clip of dog" in problem.message
    shutil.rmtree(good / "dog")
    shutil.rmtree(good / "siren")
    assert only(check(good)).kind == "one class"


@pytest.mark.parametrize(
    ("one", "other", "severity"),
    [
        ("guitar", "Guitar", "error"),
        ("street traffic", "street_traffic", "error"),
        ("guitar", "guitars", "warning"),
        ("guitar", "gutiar", "warning"),
        ("guitar", "sitar", None),
        ("class 1", "class 2", None),
        ("cat", "bat", None),
        ("Male speech", "Female speech", None),
    ],
)
def test_labels_that_may_be_one(one: str, other: str, severity: str | None) -> None:
    assert alike(one, other)[0] == severity


def test_a_label_that_was_written_otherwise_names_its_files(good: Path) -> None:
    (good / "Siren").mkdir()
    for n in (1, 3):
        (good / "siren" / f"take {n}.mp4").rename(good / "Siren" / f"take {n}.mp4")
    problem = only(check(good))
    assert (problem.kind, problem.severity) == ("label spelling", "error")
    assert "'Siren' (clips: 2) and 'siren' (2) differ in capitals" in problem.message
    assert len(problem.files) == 2


def test_times_and_overlaps(good: Path) -> None:
    def said(*more: str) -> Report:
        lines = ["path;label;start;end"]
        for label in ("bell", "siren"):
            lines += [f"{label}/{file.name};{label};0,0;0,5" for file in sorted((good / label).iterdir())]
        (good / "events.csv").write_bytes("\r\n".join([*lines, *more]).encode("utf-8-sig"))
        return check(good / "events.csv")

    report = said("bell/take 0.mp4;siren;0,5;1,0")
    assert [problem.kind for problem in report.problems] == ["little validation"]
    assert report.task == "events"
    assert report.classes["siren"]["train"] + report.classes["siren"]["val"] == 5
    problem = only(said("bell/take 0.mp4;siren;0,25;1,0"))
    assert problem.message == "bell/take 0.mp4: bell and siren overlap from 0.25 s on"
    problem = only(said("bell/take 0.mp4;bell;4;9"))
    assert "events.csv:10: the event ends at 9 s, the file at 1." in problem.message


def test_classes_of_uneven_size_and_missing_files(good: Path) -> None:
    bell = [f"bell/take {n}.mp4" for n in (0, 2)]
    lines = [f"{name},bell" for name in bell] + [f"gone/{n}.mp4,siren" for n in range(12)]
    (good / "clips.csv").write_text("\n".join(["path,label", *lines]))
    kinds = {problem.kind: problem for problem in check(good / "clips.csv").problems}
    assert kinds.keys() == {"missing file", "uneven classes", "few clips", "little validation"}
    assert kinds["missing file"].message == "12 of 14 files are not there"
    assert len(kinds["missing file"].files) == 12
    assert kinds["uneven classes"].message == "12 clips of siren, 2 of bell"


def test_what_lies_about_is_named(good: Path) -> None:
    Image.fromarray(texture(0, (48, 64))).save(good / "bell" / "a.png")
    assert only(check(good)).message == "1 photo is not read"
    (good / "bell" / "a.png").unlink()
    (good / "Notizen.txt").write_text("bells")
    (good / ".hidden.txt").write_text("bells")
    assert only(check(good)).files == (str(good / "Notizen.txt"),)
    (good / "Notizen.txt").unlink()
    (good / "empty").mkdir()
    assert only(check(good)).kind == "empty folder"
    (good / "empty").rmdir()
    (good / "siren" / "take 1.mp4").rename(good / "loose.mp4")
    assert only(check(good)).kind == "no class"


def test_one_subfolder_is_one_group(good: Path) -> None:
    for label in ("bell", "siren"):
        (good / label).rename(good / "x")
        (good / label).mkdir()
        (good / "x").rename(good / label / "monday")
    assert "(a subfolder is one)" in only(check(good)).message
    (good / "bell" / "tuesday").mkdir()
    (good / "bell" / "monday" / "take 0.mp4").rename(good / "bell" / "tuesday" / "take 0.mp4")
    problem = only(check(good))
    assert (problem.severity, problem.message) == ("warning", "no clip of siren is in validation")
