from __future__ import annotations

import csv
import hashlib
import wave
from collections import Counter
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from avzoo.data.rendering import sounds
from avzoo.data.rendering.datasets import write_ave, write_clips, write_tau
from avzoo.data.rendering.events import BACKGROUND, CLASSES, SOURCES, Script, render, script
from avzoo.data.rendering.mp4 import encode
from avzoo.data.rendering.scenes import SCENES
from avzoo.errors import AvzooError

FIFTY = [script(seed) for seed in range(50)]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def rows(path: Path, delimiter: str) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file, delimiter=delimiter))


def waveform(path: Path) -> tuple[np.ndarray, int]:
    with av.open(str(path)) as container:
        blocks = [frame.to_ndarray() for frame in container.decode(audio=0)]
        return np.concatenate(blocks, axis=1), container.streams.audio[0].rate


# Scripts


def test_first_classes_are_named_like_avemix() -> None:
    assert CLASSES[:6] == ("drone", "helicopter", "mandolin", "saxophone", "guitar", "grand_piano")
    assert len(CLASSES) >= 8
    assert BACKGROUND not in CLASSES


def test_script_depends_on_the_seed_alone() -> None:
    assert script(7) == script(7)
    assert len(set(FIFTY)) == len({s.id for s in FIFTY}) == 50
    assert len({(s.heard, s.seen) for s in FIFTY}) > 40  # events as long as the clip leave nothing to vary


@pytest.mark.parametrize("seconds", [1, 2, 5, 10, 13])
def test_event_is_where_both_agree_and_nowhere_else(seconds: int) -> None:
    for seed in range(40):
        s = script(seed, seconds=seconds)
        assert len(s.heard) == len(s.seen) == seconds
        assert 0 <= s.start < s.end <= seconds
        assert s.end - s.start >= min(2, seconds)
        for second, (heard, seen) in enumerate(zip(s.heard, s.seen, strict=True)):
            if s.start <= second < s.end:
                assert heard == seen == s.category
            else:
                assert heard != seen or heard == BACKGROUND
            assert {heard, seen} <= {*CLASSES, BACKGROUND}


def test_categories_are_balanced() -> None:
    counts = Counter(s.category for s in FIFTY)
    assert set(counts) == set(CLASSES)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_neither_modality_alone_tells_the_event() -> None:
    seconds = [(h, v) for s in FIFTY for h, v in zip(s.heard, s.seen, strict=True)]
    for name in CLASSES:
        assert any(h == name != v for h, v in seconds)
        assert any(v == name != h for h, v in seconds)

    def best_guess(modality: int) -> float:
        """Accuracy of the best rule "this is heard (or seen), so the label is that"."""
        labels = [h if h == v else BACKGROUND for h, v in seconds]
        pairs = Counter(zip((second[modality] for second in seconds), labels, strict=True))
        given = {name for name, _ in pairs}
        return sum(max(n for (g, _), n in pairs.items() if g == name) for name in given) / len(seconds)

    assert best_guess(0) < 0.9
    assert best_guess(1) < 0.9
    events = sum(s.end - s.start for s in FIFTY) / len(seconds)
    assert 0.4 < events < 0.8


def test_class_subset_stays_within_it() -> None:
    for seed in range(30):
        s = script(seed, classes=("drone", "guitar", "siren"))
        assert {*s.heard, *s.seen} <= {"drone", "guitar", "siren", BACKGROUND}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": 0, "classes": ("drone", "gitar", "siren")}, r"no class 'gitar'.*did you mean 'guitar'"),
        ({"seed": 0, "classes": ("drone", "siren")}, "at least three"),
        ({"seed": 0, "classes": ("drone", "siren", "siren")}, "different"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"seed": 0, "seconds": 0}, "seconds"),
    ],
)
def test_wrong_scripts_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(AvzooError, match=message):
        script(**arguments)  # type: ignore[arg-type]


# Files


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    first = render(script(3, seconds=3), tmp_path / "a.mp4", size=64)
    again = render(script(3, seconds=3), tmp_path / "b.mp4", size=64)
    other = render(script(11, seconds=3), tmp_path / "c.mp4", size=64)
    assert digest(first) == digest(again) != digest(other)


@pytest.mark.parametrize(("size", "fps", "rate"), [(128, 8, 16_000), (50, 5, 22_050), (224, 25, 48_000)])
def test_file_decodes_to_what_was_asked_for(tmp_path: Path, size: int, fps: int, rate: int) -> None:
    path = render(script(4, seconds=4), tmp_path / "deep" / "clip.mp4", size=size, fps=fps, sample_rate=rate)
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, video.pix_fmt, audio.codec_context.name) == ("h264", "yuv420p", "aac")
        assert video.average_rate == fps
        frames = list(container.decode(video=0))
    assert [frame.time for frame in frames] == pytest.approx([k / fps for k in range(4 * fps)])
    assert {(frame.width, frame.height) for frame in frames} == {(size, size)}
    samples, decoded_rate = waveform(path)
    assert decoded_rate == rate
    assert 4 * rate <= samples.shape[1] <= 4 * rate + 2048  # AAC comes in blocks of 1024
    assert samples.shape[0] == 1


def test_only_whole_files_get_the_name(tmp_path: Path) -> None:
    def broken() -> object:
        yield np.zeros((32, 32, 3), dtype=np.uint8)
        raise OSError("disk on fire")

    with pytest.raises(OSError, match="disk on fire"):
        encode(tmp_path / "clip.mp4", broken(), size=32, fps=4, sound=None)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("size", "fps"), [(65, 8), (8, 8), (64, 0)])
def test_impossible_pictures_are_refused(tmp_path: Path, size: int, fps: int) -> None:
    with pytest.raises(AvzooError, match="even"):
        render(script(0, seconds=1), tmp_path / "clip.mp4", size=size, fps=fps)


def test_what_is_scripted_is_seen_and_heard(tmp_path: Path) -> None:
    """The sound is loud in its seconds and not before; a change of what is seen is a cut in the picture."""
    heard, seen = (BACKGROUND,) * 2 + ("siren",) * 2, ("drone",) * 3 + ("grand_piano",)
    path = render(Script("x", "siren", 0, 0, heard, seen, 5), tmp_path / "x.mp4")
    samples, rate = waveform(path)
    loudness = [float(np.sqrt(np.mean(samples[0, k * rate : (k + 1) * rate] ** 2))) for k in range(4)]
    assert min(loudness[2:]) > 3 * max(loudness[:2])
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24").astype(float) for frame in container.decode(video=0)]
    change = [float(np.abs(b - a).mean()) for a, b in pairwise(frames)]
    assert int(np.argmax(change)) == 3 * 8 - 1
    assert change[3 * 8 - 1] > 3 * sorted(change)[-2]
    assert min(change) > 0  # everything moves


# Sounds and pictures


@pytest.mark.parametrize("name", CLASSES)
def test_sounds_vary_by_seed_and_fill_their_time(name: str) -> None:
    rate, sound = 16_000, SOURCES[name].sound
    for samples in (rate, 4 * rate, 1001):
        wave_ = sound(np.random.default_rng(1), samples, rate)
        assert wave_.shape == (samples,)
        assert wave_.dtype == np.float32
        assert np.isfinite(wave_).all()
    first, other = (sound(np.random.default_rng(seed), 4 * rate, rate) for seed in (1, 2))
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.5
    assert np.sqrt(np.mean(first**2)) == pytest.approx(1, abs=0.05)
    assert all(np.abs(first[k * rate : (k + 1) * rate]).max() > 0.1 for k in range(4))


def test_modes_equal_their_formula() -> None:
    time = np.arange(1000) / 8000
    expected = 0.5 * np.exp(-time / 0.1) * np.sin(2 * np.pi * 440 * time)
    got = sounds.modes(np.array([440.0, 5000.0]), np.array([0.1, 1.0]), np.array([0.5, 1.0]), 1000, 8000)
    np.testing.assert_allclose(got, expected, atol=1e-6)  # 5 kHz lies above Nyquist and is left out


def test_tone_has_the_pitch_asked_for() -> None:
    wave_ = sounds.tone(np.random.default_rng(0), np.full(16_000, 200.0), 16_000, np.ones(3))
    loud = np.flatnonzero(np.abs(np.fft.rfft(wave_)) > 1000)
    assert loud.tolist() == [200, 400, 600]


def test_looks_differ_between_classes_more_than_nothing() -> None:
    for name, source in SOURCES.items():
        sprite = np.asarray(source.look(np.random.default_rng(0), 96).sprite(shadow=False))
        covered = float((sprite[..., 3] > 128).mean())
        assert 0.04 < covered < 0.7, name
        assert sprite[..., :3][sprite[..., 3] > 128].std() > 15, name


# Layouts


def test_ave_layout(tmp_path: Path) -> None:
    folder = write_ave(tmp_path / "data", train=9, val=2, test=2, seed=1, seconds=2, size=32, fps=2)
    sets = {split: rows(folder / f"{split}Set.txt", "&") for split in ("train", "val", "test")}
    assert {split: len(lines) for split, lines in sets.items()} == {"train": 9, "val": 2, "test": 2}
    annotations = rows(folder / "Annotations.txt", "&")
    assert annotations == sets["train"] + sets["val"] + sets["test"]
    names = [line[1] for line in annotations]
    assert {p.name for p in (folder / "AVE").iterdir()} == {f"{name}.mp4" for name in names}
    assert len(set(names)) == 13
    header, *table = rows(folder / "metadata.csv", ",")
    assert header[:3] == ["video_id", "split", "category"]
    for line, (category, name, quality, start, end) in zip(table, annotations, strict=True):
        assert (line[0], line[2], line[3], line[4]) == (name, category, start, end)
        assert quality == "good"
        heard, seen = (text.split("|") for text in line[5:])
        assert heard[int(start) : int(end)] == seen[int(start) : int(end)] == [category] * (int(end) - int(start))
    assert {p.name for p in folder.iterdir()} == {
        "AVE",
        "Annotations.txt",
        "metadata.csv",
        *(f"{s}Set.txt" for s in sets),
    }


def test_another_process_changes_nothing(tmp_path: Path) -> None:
    one, two = (
        write_ave(tmp_path / str(workers), train=3, val=0, test=0, seconds=1, size=32, workers=workers)
        for workers in (0, 1)
    )
    files = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(two) for p in two.rglob("*") if p.is_file())
    assert all(digest(one / file) == digest(two / file) for file in files)


def test_another_seed_makes_other_clips(tmp_path: Path) -> None:
    folders = [
        write_ave(tmp_path / str(seed), train=2, val=0, test=0, seed=seed, seconds=1, size=16) for seed in (0, 1)
    ]
    names = [{path.name for path in (folder / "AVE").iterdir()} for folder in folders]
    assert len(names[0]) == len(names[1]) == 2
    assert names[0].isdisjoint(names[1])


def test_clips_layout(tmp_path: Path) -> None:
    folder = write_clips(tmp_path, train=8, val=8, test=1, seconds=1, size=32, fps=2)
    files = [p.relative_to(folder).parts for p in folder.rglob("*.mp4")]
    for split in ("train", "val"):
        assert sorted(part[1] for part in files if part[0] == split) == sorted(CLASSES)
    assert len({part[2] for part in files}) == 17


def test_tau_layout(tmp_path: Path) -> None:
    folder = write_tau(tmp_path, train=40, test=10, seconds=1, size=32, sample_rate=48_000)
    setup = folder / "evaluation_setup"
    head, *train = rows(setup / "fold1_train.csv", "\t")
    assert head == ["filename_audio", "filename_video", "scene_label"]
    assert rows(setup / "fold1_test.csv", "\t")[0] == ["filename_audio", "filename_video"]
    head, *evaluate = rows(setup / "fold1_evaluate.csv", "\t")
    assert [line[:2] for line in evaluate] == rows(setup / "fold1_test.csv", "\t")[1:]
    meta = rows(folder / "meta.csv", "\t")
    assert meta[0] == ["filename_audio", "filename_video", "scene_label", "identifier"]
    assert [line[:3] for line in meta[1:]] == train + evaluate
    assert Counter(line[2] for line in train) == dict.fromkeys(SCENES, 4)

    places: dict[str, set[str]] = {"train": set(), "test": set()}
    for split, lines in (("train", train), ("test", evaluate)):
        for audio, video, scene in lines:
            assert (folder / audio).is_file()
            assert (folder / video).is_file()
            assert Path(audio).stem == Path(video).stem
            named, city, location, segment = Path(audio).stem.split("-")
            assert named == scene
            assert city.isalpha()
            assert segment.isdigit()
            places[split].add(location)
    assert places["train"].isdisjoint(places["test"])
    assert len(places["train"]) == 20  # two takes at each
    assert len({line[3].split("-")[1] for line in meta[1:]}) >= 5  # several cities

    with wave.open(str(folder / train[0][0])) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (2, 48_000, 48_000)
        stereo = np.frombuffer(file.readframes(48_000), dtype="<i2").reshape(-1, 2)
    assert 0.5 < np.corrcoef(stereo.T)[0, 1] < 0.999
    with av.open(str(folder / train[0][1])) as container:
        assert not container.streams.audio
        assert sum(1 for _ in container.decode(video=0)) == 5


def test_tau_is_deterministic_and_refuses_unknown_scenes(tmp_path: Path) -> None:
    first, again = (write_tau(tmp_path / n, train=2, test=0, seconds=1, size=32) for n in "ab")
    for file in first.rglob("*.*"):
        assert digest(file) == digest(again / file.relative_to(first))
    other = write_tau(tmp_path / "c", train=2, test=0, seconds=1, size=32, seed=1)
    assert {p.name for p in first.glob("video/*")}.isdisjoint(p.name for p in other.glob("video/*"))
    with pytest.raises(AvzooError, match="did you mean 'airport'"):
        write_tau(tmp_path, train=1, test=0, scenes=("airprot",))


@pytest.mark.parametrize("name", list(SCENES))
def test_scene_sounds_are_finite_at_unit_loudness(name: str) -> None:
    wave_ = SCENES[name].sound(np.random.default_rng(0), 22_050, 22_050)
    assert wave_.shape == (22_050,)
    assert np.sqrt(np.mean(wave_**2)) == pytest.approx(1, abs=0.01)


def test_negative_counts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AvzooError, match="val must be 0 clips or more"):
        write_clips(tmp_path, train=1, val=-1, test=0)
