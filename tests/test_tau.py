"""TAU and whatever has its layout: splits that share no place, labels by name, partial downloads, sound of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch

from avzoo.data.base import Split
from avzoo.data.tau import TAU
from avzoo.data.tau_lists import TAU_CLASSES
from avzoo.errors import AnnotationError, AvzooError, DataNotFoundError, MediaError

SCENEMIX = Path(__file__).parents[2] / "shared" / "data" / "scenemix"
SPLITS: tuple[Split, ...] = ("train", "val", "test")
NUMBERS: dict[str, Any] = {
    "audio_kind": "gammatone", "sample_rate": 8000, "window": 320, "hop": 160, "f_max": 4000.0, "bands": 8,
    "visual_kind": "frame", "visual_backbone": "tf_efficientnet_lite0", "size": 16,
}  # fmt: skip
LONG_NAMES = "filename_audio\tfilename_video\tscene_label"
TRAIN = [f"{scene}-lyon-{place}-{take}" for scene in ("bus", "tram") for place in (1, 2, 3) for take in (0, 1)]
TEST = ["bus-lyon-8-0", "tram-lyon-9-0"]


def make(root: Path, **options: Any) -> TAU:
    return TAU(root, **{"preprocess": NUMBERS, "workers": 0, **options})


def write_list(path: Path, ids: Sequence[str], *, labels: bool = True, between: str = "\t") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [["filename_audio", "filename_video", "scene_label"]]
    rows += [[f"audio/{id_}.wav", f"video/{id_}.mp4", id_.partition("-")[0]] for id_ in ids]
    path.write_text("".join(between.join(row[: 3 if labels else 2]) + "\n" for row in rows))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Lists, and files with nothing in them."""
    write_list(tmp_path / "evaluation_setup" / "fold1_train.csv", TRAIN)
    write_list(tmp_path / "evaluation_setup" / "fold1_test.csv", TEST, labels=False)
    write_list(tmp_path / "evaluation_setup" / "fold1_evaluate.csv", TEST)
    for folder, suffix in (("audio", "wav"), ("video", "mp4")):
        (tmp_path / folder).mkdir()
        for id_ in (*TRAIN, *TEST):
            (tmp_path / folder / f"{id_}.{suffix}").touch()
    return tmp_path


def ids(data: TAU) -> dict[Split, list[str]]:
    return {split: [item.id for item in data.items(split)] for split in SPLITS}


def place(id_: str) -> tuple[str, ...]:
    scene, _, location, _ = id_.split("-")
    return scene, location


# -- splits ----------------------------------------------------------------------------------------------------------


def test_items_have_both_files_and_the_label(root: Path) -> None:
    item = make(root).items("test")[1]
    assert (item.key, item.id, item.label) == ("tram-lyon-9-0", "tram-lyon-9-0", "tram")
    assert (item.path, item.audio) == (root / "video" / "tram-lyon-9-0.mp4", root / "audio" / "tram-lyon-9-0.wav")
    assert (item.source.path, item.source.audio) == (item.path, item.audio)
    assert (item.start, item.end) == (0.0, 10.0)


def test_validation_by_location(root: Path) -> None:
    found = ids(make(root))
    assert sorted(found["train"] + found["val"]) == sorted(TRAIN)
    assert found["test"] == TEST
    assert len(found["val"]) == 4  # a place of each scene
    assert not {place(id_) for id_ in found["train"]} & {place(id_) for id_ in found["val"]}
    assert {place(id_)[0] for id_ in found["val"]} == {"bus", "tram"}
    assert found["train"] == [id_ for id_ in TRAIN if id_ in found["train"]]  # in the list's order


def test_validation_by_clip(root: Path) -> None:
    found = ids(make(root, val="random"))
    assert sorted(found["train"] + found["val"]) == sorted(TRAIN)
    assert Counter(place(id_)[0] for id_ in found["val"]) == {"bus": 1, "tram": 1}
    assert {place(id_) for id_ in found["val"]} <= {place(id_) for id_ in found["train"]}


def test_validation_on_the_test_list(root: Path) -> None:
    found = ids(make(root, val="test"))
    assert found == {"train": TRAIN, "val": TEST, "test": TEST}


def test_validation_by_metadata(root: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"metadata\.csv"):
        make(root, val="metadata").items("train")
    held = {id_ for id_ in TRAIN if place(id_)[1] == "2"}
    lines = [
        f"audio/{id_}.wav,video/{id_}.mp4,{'val' if id_ in held else 'test' if id_ in TEST else 'train'}"
        for id_ in (*reversed(TRAIN), *TEST)
    ]
    (root / "metadata.csv").write_text("\n".join(["filename_audio,filename_video,split", *lines]))
    found = ids(make(root, val="metadata"))
    assert found["val"] == [id_ for id_ in TRAIN if id_ in held]
    assert found["train"] == [id_ for id_ in TRAIN if id_ not in held]
    (root / "metadata.csv").write_text("\n".join(["filename_audio,filename_video,split", lines[1], lines[-1]]))
    with pytest.raises(AnnotationError, match='has the split "val"'):
        make(root, val="metadata").items("train")
    leaking = [line.replace(",val", ",train") if "-2-0" in line else line for line in lines]
    (root / "metadata.csv").write_text("\n".join(["filename_audio,filename_video,split", *leaking]))
    with pytest.raises(AvzooError, match=r"location 2 .* is in training .* and in validation"):
        make(root, val="metadata").items("train")


def test_an_unknown_kind_of_validation(root: Path) -> None:
    with pytest.raises(AvzooError, match="val='tenth': expected \"locations\""):
        make(root, val="tenth")


@pytest.mark.parametrize("val", ["locations", "random"])
def test_the_split_does_not_follow_the_seed_of_the_training(val: str, root: Path) -> None:
    assert ids(make(root, val=val)) == ids(make(root, val=val, seed=5))


@pytest.mark.parametrize("val", ["locations", "random", "test", "metadata"])
def test_a_fold_that_leaks_is_refused(val: str, root: Path) -> None:
    write_list(root / "evaluation_setup" / "fold1_evaluate.csv", [*TEST, "tram-lyon-3-7"])
    with pytest.raises(AvzooError, match=r"location 3 of the scene 'tram' is in training .*tram-lyon-3-0.* in test"):
        make(root, val=val).items("val")


def test_labels_of_the_test_list_may_come_from_the_names(root: Path) -> None:
    (root / "evaluation_setup" / "fold1_evaluate.csv").unlink()
    assert [item.label for item in make(root).items("test")] == ["bus", "tram"]
    write_list(root / "evaluation_setup" / "fold1_test.csv", ["000123"], labels=False)
    with pytest.raises(AnnotationError, match=r"fold1_test\.csv:2: 000123 has no label"):
        make(root).items("test")


def test_a_list_that_is_not_there(root: Path) -> None:
    (root / "evaluation_setup" / "fold1_train.csv").unlink()
    with pytest.raises(DataNotFoundError, match=r"fold1_train\.csv: there is no such file"):
        make(root).items("train")


def test_lists_with_commas(root: Path) -> None:
    expected = ids(make(root))
    for name, of in (("train", TRAIN), ("evaluate", TEST)):
        write_list(root / "evaluation_setup" / f"fold1_{name}.csv", of, between=",")
    assert ids(make(root)) == expected


# -- classes ---------------------------------------------------------------------------------------------------------


def test_the_label_order_is_alphabetical_and_official(root: Path) -> None:
    assert make(root).classes == sorted(TAU_CLASSES)  # also where a list has two of the scenes only
    assert make(root).classes[:3] == ["airport", "bus", "metro"]
    assert make(root, classes=["tram", "bus"]).classes == ["tram", "bus"]


def test_other_scenes_than_those_of_tau(root: Path) -> None:
    train = ["tram-lyon-1-0", "zoo-lyon-4-0", "zoo-lyon-5-0", "attic-lyon-1-0", "attic-lyon-2-0"]
    write_list(root / "evaluation_setup" / "fold1_train.csv", train)
    write_list(root / "evaluation_setup" / "fold1_evaluate.csv", ["tram-lyon-9-0"])
    data = make(root, on_missing="skip")
    assert data.classes == ["attic", "tram", "zoo"]


def test_a_label_that_is_no_class(root: Path) -> None:
    with pytest.raises(AnnotationError, match=r"fold1_train\.csv:8: unknown class 'tram'.*\['bus'\]"):
        make(root, classes=["bus"]).items("train")
    write_list(root / "evaluation_setup" / "fold1_evaluate.csv", ["trom-lyon-9-0"])
    with pytest.raises(AnnotationError, match=r"fold1_evaluate\.csv:2: unknown class 'trom'; did you mean 'tram'"):
        make(root).items("train")


# -- a partial download ----------------------------------------------------------------------------------------------


def test_clips_that_are_not_there_are_counted_by_what_they_lack(root: Path) -> None:
    (root / "audio" / f"{TEST[0]}.wav").unlink()
    (root / "video" / f"{TEST[1]}.mp4").unlink()
    expected = (
        r"test: 2 of 2 clips are not whole: 1 lack the sound, 1 the video, 0 both \(bus-lyon-8-0, tram-lyon-9-0\)"
    )
    with pytest.raises(DataNotFoundError, match=rf"{expected}.*`data.on_missing: skip`"):
        make(root).items("test")
    assert len(make(root).items("train")) == 8  # the other splits are whole


@pytest.mark.usefixtures("cheap_backbones")
def test_a_partial_download_is_used_as_far_as_it_goes(
    rendered_tau: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = tmp_path / "part"
    for file in rendered_tau.rglob("*.*"):
        (part / file.relative_to(rendered_tau)).parent.mkdir(parents=True, exist_ok=True)
        (part / file.relative_to(rendered_tau)).symlink_to(file)
    gone = make(rendered_tau, val="test").items("train")[3].id
    (part / "video" / f"{gone}.mp4").unlink()
    data = make(part, val="test", on_missing="skip", cache=tmp_path / "cache", batch_size=7)
    data.extract(["train", "val"])
    assert "train: 1 of 8 clips are not whole: 0 lack the sound, 1 the video" in capsys.readouterr().out
    data.setup("fit")
    (batch,) = data.train_dataloader()
    assert len(batch.id) == 7
    assert gone not in batch.id


# -- the sound file --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("cheap_backbones")
def test_the_sound_is_that_of_the_sound_file(rendered_tau: Path, tmp_path: Path) -> None:
    data = make(rendered_tau, val="test", cache=tmp_path / "cache")
    data.extract(["test"])
    data.setup("test")
    (batch,) = data.test_dataloader()
    assert batch.audio.shape == (2, 10, 3, 8, 50)
    assert batch.visual.shape == (2, 10, 1, 1280)
    assert batch.audio.isfinite().all()
    assert batch.audio[:, :, :2].amax((1, 2, 3, 4)).min() > batch.audio.min() + 30  # dB: there is sound on both sides
    assert not torch.equal(batch.audio[:, :, 0], batch.audio[:, :, 1])  # and it is stereo


@pytest.mark.usefixtures("cheap_backbones")
def test_a_sound_that_does_not_belong_to_its_video_is_damage(rendered_tau: Path, tmp_path: Path) -> None:
    part = tmp_path / "part"
    for file in rendered_tau.rglob("*.*"):
        (part / file.relative_to(rendered_tau)).parent.mkdir(parents=True, exist_ok=True)
        (part / file.relative_to(rendered_tau)).symlink_to(file)
    id_ = make(rendered_tau, val="test").items("test")[0].id
    wav = part / "audio" / f"{id_}.wav"
    samples, rate = soundfile.read(wav)
    wav.unlink()
    soundfile.write(wav, samples[: 9 * rate], rate)
    data = make(part, val="test", cache=tmp_path / "cache")
    with pytest.raises(
        MediaError, match=rf"1 of 2 clips(?s:.*){id_}\.mp4 lasts 10\.00 s and its sound, .*{id_}\.wav, 9\.00"
    ):
        data.extract(["test"])
    lenient = make(part, val="test", cache=tmp_path / "cache", on_damage="pad")
    lenient.extract(["test"])
    lenient.setup("test")
    (batch,) = lenient.test_dataloader()
    assert (batch.audio[0, 9, :, :, 40:] == batch.audio[0].min()).all()  # silent from its end on
    assert (batch.audio[0, 8, 0, :, 40:] > batch.audio[0].min() + 30).all()


# -- a real dataset --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not SCENEMIX.is_dir(), reason="scenemix is not on this machine")
def test_scenemix_reads_alike() -> None:
    data = make(SCENEMIX, val="metadata")
    found = {split: data.items(split) for split in SPLITS}
    assert [len(items) for items in found.values()] == [252, 48, 84]
    assert len(data.classes) == 6
    assert data.classes == sorted(data.classes)
    keys = [item.key for items in found.values() for item in items]
    assert len(keys) == len(set(keys))
    for items in found.values():
        assert {item.label for item in items} == set(data.classes)
