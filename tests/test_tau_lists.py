"""TAU's text files: lists as they come, their errors, splits that share no place, submissions."""

from __future__ import annotations

import csv
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from avzoo.data.rendering import write_tau
from avzoo.data.rendering.scenes import SCENES
from avzoo.data.tau_lists import TAU_CLASSES, Line, describe_missing, missing_files, read_list, write_submission
from avzoo.data.tau_splits import check_disjoint, validation_split
from avzoo.errors import AnnotationError, AvzooError, ClassMismatchError, DataNotFoundError

SHARED = Path(__file__).parents[2] / "shared" / "data"
# the order of the SECRNNFusion authors' own code
AUTHORS = (
    "airport", "shopping_mall", "metro_station", "street_pedestrian", "public_square", "street_traffic", "tram", "bus",
    "metro", "park",
)  # fmt: skip
HEADER = "filename_audio,filename_video,scene_label"


def entry(id_: str, *more: str) -> str:
    return ",".join([f"audio/{id_}.wav", f"video/{id_}.mp4", *more])


def write(path: Path, *lines: str, delimiter: str = "\t") -> Path:
    path.write_text("".join(f"{line.replace(',', delimiter)}\n" for line in lines))
    return path


def line(id_: str, label: str | None = None, location: str = "", where: str = "list:2") -> Line:
    return Line(id_, Path("audio", f"{id_}.wav"), Path("video", f"{id_}.mp4"), label, location, "", where)


def city(places: dict[str, list[int]]) -> list[Line]:
    """For each scene, locations of so many clips each."""
    return [
        line(f"{scene}-paris-{place}-{take}", scene, str(place))
        for scene, sizes in places.items()
        for place, size in enumerate(sizes)
        for take in range(size)
    ]


# -- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", ["\t", ","])
def test_a_list_is_read_by_its_header(tmp_path: Path, delimiter: str) -> None:
    rows = ("scene_label,filename_video,other,filename_audio", "bus,video/bus-lyon-7-1.mp4,x,audio/bus-lyon-7-1.ogg")
    path = write(tmp_path / "list.csv", *rows, delimiter=delimiter)
    (found,) = read_list(path, tmp_path / "data", classes=TAU_CLASSES)
    assert found == Line(
        id="bus-lyon-7-1",
        audio=tmp_path / "data" / "audio" / "bus-lyon-7-1.ogg",
        video=tmp_path / "data" / "video" / "bus-lyon-7-1.mp4",
        label="bus",
        location="7",
        city="lyon",
        where=f"{path}:2",
    )
    assert found.place == ("bus", "7")


def test_windows_line_ends_byte_order_mark_blank_lines_and_quotes(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    rows = (
        HEADER,
        "",
        entry("bus-lyon-7-1", '"bus"'),
        " ",
        r"audio\tram-oslo-8-2.wav,video\tram-oslo-8-2.mp4,tram ",
        "",
    )
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows).encode())
    found = read_list(path, tmp_path)
    assert [(item.id, item.label, item.where) for item in found] == [
        ("bus-lyon-7-1", "bus", f"{path}:3"),
        ("tram-oslo-8-2", "tram", f"{path}:5"),
    ]
    assert found[1].audio == tmp_path / "audio" / "tram-oslo-8-2.wav"


def test_a_label_that_is_missing_is_read_from_the_name(tmp_path: Path) -> None:
    path = write(tmp_path / "fold1_test.csv", HEADER.removesuffix(",scene_label"), entry("metro_station-rome-3-1"))
    assert [item.label for item in read_list(path, tmp_path, classes=TAU_CLASSES)] == ["metro_station"]
    assert [item.label for item in read_list(path, tmp_path, classes=["bus", "tram"])] == [None]
    assert [item.label for item in read_list(path, tmp_path)] == [None]  # no label says what a label is
    partly = write(tmp_path / "partly.csv", HEADER, entry("bus-rome-3-1", "bus"), entry("bus-rome-3-2", ""))
    assert [item.label for item in read_list(partly, tmp_path)] == ["bus", "bus"]


def test_an_evaluation_list_without_any_label_or_place(tmp_path: Path) -> None:
    path = write(tmp_path / "evaluate.csv", HEADER.removesuffix(",scene_label"), entry("17"), entry("bus-1"))
    found = read_list(path, tmp_path, classes=TAU_CLASSES)
    assert [(item.label, item.location, item.city, item.place) for item in found] == [(None, "", "", None)] * 2


def test_columns_win_over_the_name(tmp_path: Path) -> None:
    header = HEADER + ",location_id,identifier"
    rows = (entry("bus-rome-3-1", "tram", "9", "x"), entry("bus-rome-3-2", "bus", "", "x"), entry("17", "bus", "", "x"))
    found = read_list(write(tmp_path / "list.csv", header, *rows), tmp_path, classes=TAU_CLASSES)
    assert [item.place for item in found] == [("tram", "9"), ("bus", "3"), ("bus", "x")]
    assert [item.city for item in found] == ["rome", "rome", ""]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((), r":1: no columns 'filename_audio' in the header \[\]"),
        ((HEADER,), "no clips; expected a line for each"),
        (("filename_audio,scene_label", "a.wav,bus"), ":1: no columns 'filename_video'"),
        ((entry("bus-a-1-1", "bus"),), ":1: no columns 'filename_audio' in the header .*bus-a-1-1.wav.*expected"),
        ((HEADER + ",filename_video", entry("bus-a-1-1", "bus", "x")), ":1: 2 columns 'filename_video'"),
        ((HEADER, entry("bus-a-1-1", "bsu")), r":2: unknown class 'bsu'; did you mean 'bus'\?; the classes are"),
        ((HEADER, entry("bus-a-1-1")), ":2: 2 fields, expected 3: filename_audio, filename_video, scene_label"),
        ((HEADER, entry("bus-a-1-1", "bus", "x")), ":2: 4 fields, expected 3"),
        (
            (HEADER, entry("bus-a-1-1", "bus"), entry("bus-a-1-2", "bus"), entry("bus-a-1-1", "bus")),
            r":4: clip bus-a-1-1 is at .*:2 too; delete one",
        ),
        (
            (HEADER, "audio/bus-a-1-1.wav,video/bus-a-1-2.mp4,bus"),
            ":2: audio/bus-a-1-1.wav and video/bus-a-1-2.mp4 are not of one clip",
        ),
        ((HEADER, "../a.wav,video/a.mp4,bus"), r":2: filename_audio is '../a.wav', expected a file below"),
        ((HEADER, "audio/a.wav,/a.mp4,bus"), ":2: filename_video is '/a.mp4'"),
        ((HEADER, r"audio\..\..\a.wav,video/a.mp4,bus"), ":2: filename_audio is "),
        ((HEADER, r"C:\a.wav,video/a.mp4,bus"), ":2: filename_audio is "),
        ((HEADER, ",video/a.mp4,bus"), ":2: filename_audio is ''"),
        ((HEADER, '"audio/a.wav,video/a.mp4,bus', entry("b", "bus")), "quotation mark left open"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused(tmp_path: Path, rows: tuple[str, ...], message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        read_list(write(tmp_path / "list.csv", *rows), tmp_path, classes=TAU_CLASSES)


def test_a_list_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"none.csv: there is no such file; a dataset in TAU's layout"):
        read_list(tmp_path / "none.csv", tmp_path)
    (tmp_path / "list.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(AnnotationError, match="not a text file in UTF-8"):
        read_list(tmp_path / "list.csv", tmp_path)


def test_the_lists_of_a_rendered_dataset(tmp_path: Path) -> None:
    assert tuple(SCENES) == TAU_CLASSES == tuple(sorted(TAU_CLASSES))
    scenes = ("bus", "tram")
    write_tau(tmp_path, train=12, test=2, seconds=1, size=16, scenes=scenes)
    setup = tmp_path / "evaluation_setup"
    train, test, evaluate = (
        read_list(setup / f"fold1_{name}.csv", tmp_path, classes=scenes) for name in ("train", "test", "evaluate")
    )
    assert [item.label for item in test] == [item.label for item in evaluate] == ["bus", "tram"]
    assert missing_files([*train, *test]) == []
    check_disjoint(train, test, ("training", "test"))
    every = read_list(tmp_path / "meta.csv", tmp_path)
    assert {item.id: item.place for item in every} == {item.id: item.place for item in [*train, *test]}
    fit, val = validation_split(train, seed=0)
    check_disjoint(fit, val, ("training", "validation"))
    assert {item.label for item in val} == {item.label for item in fit} == set(scenes)


@pytest.mark.skipif(not (SHARED / "tau").is_dir(), reason="the baseline's lists are not here")
def test_the_baselines_own_split_and_ours() -> None:
    root = SHARED / "tau"
    train, val = (read_list(root / f"{name}.csv", root, classes=TAU_CLASSES) for name in ("train", "val"))
    assert (len(train), len(val)) == (7907, 739)
    check_disjoint(train, val, ("training", "validation"))
    clips = Counter(item.label for item in train + val)
    assert clips == dict(zip(TAU_CLASSES, (697, 806, 705, 893, 1006, 982, 841, 968, 985, 763), strict=True))
    for seed in range(3):
        ours = validation_split(train + val, seed=seed)
        check_disjoint(*ours, ("training", "validation"))
        held_out = Counter(item.label for item in ours[1])
        assert all(0.08 < held_out[name] / clips[name] < 0.13 for name in TAU_CLASSES)


# -- splitting -------------------------------------------------------------------------------------------------------

PLACES = {"bus": [10, 10, 10, 10, 10], "tram": [30, 5, 7], "park": [4, 4], "metro": [9]}


def test_validation_has_its_own_places_in_every_scene() -> None:
    lines = city(PLACES)
    train, val = validation_split(lines, share=0.2, seed=1)
    check_disjoint(train, val, ("training", "validation"))
    assert train == [item for item in lines if item not in val]  # the order given, nothing lost
    clips = Counter(item.label for item in val)
    assert clips["bus"] == 10
    assert clips["tram"] in (5, 7, 12)  # a place of 30 of 42 clips is further from a fifth than nothing
    assert clips["park"] == 4
    assert clips["metro"] == 0  # its single place is needed for training
    assert {item.label for item in train} == set(PLACES)


@pytest.mark.parametrize("how", ["locations", "random"])
def test_the_split_depends_on_seed_and_names_only(how: Any) -> None:
    lines = city(PLACES)
    shuffled = random.Random(0).sample(lines, len(lines))
    splits = [{item.id for item in validation_split(lines, how=how, seed=seed)[1]} for seed in range(8)]
    assert {item.id for item in validation_split(shuffled, how=how, seed=3)[1]} == splits[3]
    assert len({frozenset(split) for split in splits}) > 3


def test_a_new_clip_or_scene_leaves_the_others_where_they_are() -> None:
    lines = city(PLACES)
    more = [*lines, line("bus-paris-0-99", "bus", "0"), *city({"airport": [3, 3, 3]})]
    for seed in range(5):
        before, after = (
            {item.id for item in validation_split(given, share=0.2, seed=seed)[1]} for given in (lines, more)
        )
        assert {name for name in before ^ after if name.partition("-")[0] not in ("airport", "bus")} == set()
        assert {name for name in after if name.startswith("bus")} - before <= {"bus-paris-0-99"}


def test_a_number_in_another_scene_is_another_place() -> None:
    lines = city({"bus": [1, 1], "tram": [1, 1]})
    splits = [{item.place for item in validation_split(lines, seed=seed)[1]} for seed in range(20)]
    assert {frozenset(split) for split in splits} == {
        frozenset({("bus", bus), ("tram", tram)}) for bus in "01" for tram in "01"
    }


@pytest.mark.parametrize("share", [0.001, 0.1, 0.34, 0.5])
def test_no_scene_is_given_away_whole(share: float) -> None:
    generator = random.Random(4)
    places = {f"scene{i}": [generator.randint(1, 40) for _ in range(generator.randint(2, 6))] for i in range(40)}
    train, val = validation_split(city(places), share=share, seed=0)
    assert {item.label for item in train} == {item.label for item in val} == set(places)


def test_a_random_split_is_by_the_clip() -> None:
    lines = city({"bus": [50, 50], "tram": [30]})
    train, val = validation_split(lines, how="random", share=0.2, seed=0)
    assert Counter(item.label for item in val) == {"bus": 20, "tram": 6}
    assert len(train) == 104
    with pytest.raises(AvzooError, match="location 0 of the scene 'bus'"):
        check_disjoint(train, val, ("training", "validation"))


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        (city(PLACES), {"share": 0.6}, "share is 0.6, expected above 0"),
        (city(PLACES), {"share": 0.0}, "share is 0.0, expected above 0"),
        (city(PLACES), {"how": "clips"}, "how is 'clips', expected one of"),
        ([line("17", "bus", where="a.csv:3")], {}, "a.csv:3: 17 tells no location; expected scene-city-location-seg"),
        (city({"bus": [9]}), {}, 'of these 9 clips, no scene has two locations; how="random" splits by the clip'),
        (city({"bus": [1]}), {"how": "random"}, "no scene has two clips$"),
    ],
)
def test_a_split_that_cannot_be_made_is_refused(lines: list[Line], options: Any, message: str) -> None:
    with pytest.raises(AvzooError, match=message):
        validation_split(lines, **{"seed": 0, **options})


def test_a_leak_is_named() -> None:
    train = [line("bus-a-1-1", "bus", "1", "train.csv:2"), line("bus-a-7-2", "bus", "7", "train.csv:3")]
    test = [line("tram-a-1-1", "tram", "1"), line("bus-a-7-3", None, "7", "test.csv:5"), line("bus-a-7-4", "bus", "7")]
    with pytest.raises(AvzooError) as caught:
        check_disjoint(train, test, ("the training list", "the test list"))
    assert str(caught.value) == (
        "location 7 of the scene 'bus' is in the training list (train.csv:3: bus-a-7-2.wav) and in the test list"
        " (test.csv:5: bus-a-7-3.wav), as are 2 clips of the test list in all; expected lists that share no location"
    )
    check_disjoint(train, test[:1], ("the training list", "the test list"))
    with pytest.raises(AvzooError, match="clip 17 is in one"):
        check_disjoint([line("17")], [line("18"), line("17")], ("one", "other"))


# -- a partial download ----------------------------------------------------------------------------------------------


def test_what_is_missing_is_counted(tmp_path: Path) -> None:
    ids = [f"bus-a-{place}-0" for place in range(7)]
    lines = read_list(write(tmp_path / "list.csv", HEADER, *(entry(id_, "bus") for id_ in ids)), tmp_path)
    (tmp_path / "audio").mkdir()
    (tmp_path / "video").mkdir()
    for item in lines[:3]:
        item.audio.touch()
    for item in lines[2:4]:
        item.video.touch()
    missing = missing_files(lines)
    assert [item.id for item in missing] == [*ids[:2], *ids[3:]]
    assert describe_missing(missing, len(lines)).startswith(
        "6 of 7 clips are not whole: 1 lack the sound, 2 the video, 3 both (bus-a-0-0, bus-a-1-0, bus-a-3-0, ...)"
    )
    assert "(bus-a-3-0);" in describe_missing(missing[2:3], len(lines))


# -- a submission ----------------------------------------------------------------------------------------------------


def answer(name: str, p: float = 0.91) -> dict[str, float]:
    """In another order than the file's."""
    return {other: p if other == name else (1 - p) / 9 for other in AUTHORS}


def test_a_submission_has_the_columns_of_the_challenge(tmp_path: Path) -> None:
    path = tmp_path / "out" / "answers.csv"
    rows = [("audio/1.wav", "video/1.mp4", answer("tram")), ("audio/2.wav", "video/2.mp4", answer("bus", 1.0))]
    assert write_submission(path, rows) == path
    text = path.read_text()
    assert text.splitlines()[0] == "filename_audio\tfilename_video\tscene_label\t" + "\t".join(TAU_CLASSES)
    assert text.splitlines()[2] == "audio/2.wav\tvideo/2.mp4\tbus\t0\t1" + "\t0" * 8
    first = next(iter(csv.DictReader(text.splitlines(), delimiter="\t")))
    assert first["scene_label"] == "tram"
    assert {name: float(first[name]) for name in TAU_CLASSES} == pytest.approx(answer("tram"))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({**answer("bus"), "bus": 0.9}, AvzooError, r"audio/2.wav: .*sum 0.99.*expected 0 to 1 each"),
        ({**answer("bus"), "bus": float("nan")}, AvzooError, "sum nan"),
        ({**answer("bus"), "bus": 1.91, "tram": -0.99}, AvzooError, "expected 0 to 1 each"),
        ({**answer("bus"), "sea": 0.0}, ClassMismatchError, r"\['sea'\] missing or too many"),
        ({"bus": 1.0}, ClassMismatchError, "'airport', 'metro'"),
    ],
)
def test_an_answer_that_is_none_is_refused_and_the_old_file_stays(
    tmp_path: Path, given: dict[str, float], error: type[AvzooError], message: str
) -> None:
    path = tmp_path / "answers.csv"
    path.write_text("old")
    with pytest.raises(error, match=message):
        write_submission(path, [("audio/1.wav", "video/1.mp4", answer("tram")), ("audio/2.wav", "video/2.mp4", given)])
    assert [file.name for file in tmp_path.iterdir()] == ["answers.csv"]
    assert path.read_text() == "old"


def test_rounded_probabilities_are_let_through(tmp_path: Path) -> None:
    write_submission(tmp_path / "a.csv", [("a", "v", {**answer("bus"), "bus": 0.9105})])
