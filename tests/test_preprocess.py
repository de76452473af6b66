"""The numbers of the signal path and their fingerprint."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from avzoo import backbones
from avzoo.errors import AvzooError, UnknownModelError
from avzoo.preprocess import Preprocess
from avzoo.preprocess import numbers as numbers_module

NAMES = {"audio_backbone": "vggish", "visual_backbone": "tf_efficientnet_lite0"}


def numbers(**changes: Any) -> Preprocess:
    return Preprocess(**{**NAMES, "size": 32, **changes})


# -- the numbers -----------------------------------------------------------------------------------------------------


def test_numbers_that_are_left_out_are_the_backbones() -> None:
    p = Preprocess(**NAMES)
    assert (p.seconds, p.segments, p.fps, p.segment_seconds) == (10.0, 10, 1.0, 1.0)
    assert (p.sample_rate, p.mels, p.frames, p.f_min, p.f_max, p.log_offset) == (16_000, 64, 96, 125.0, 7500.0, 0.01)
    assert (p.size, p.interpolation, p.mean, p.std) == (224, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    default = Preprocess()
    assert (default.audio_backbone, default.visual_backbone) == ("vggish", "resnet152.tv_in1k")
    assert default.interpolation == "bilinear"
    assert default.mean == (0.485, 0.456, 0.406)
    assert Preprocess(**NAMES, size=64, f_min=0.0).size == 64
    assert Preprocess(**NAMES, size=64, f_min=0.0).f_min == 0.0


def test_json_round_trip() -> None:
    p = numbers(seconds=4, segments=2, fps=1.5, mean=[0.1, 0.2, 0.3])
    text = json.dumps(p.to_dict())
    again = Preprocess.of(json.loads(text))
    assert again == p
    assert fingerprints(again) == fingerprints(p)
    assert json.loads(text) == p.to_dict()  # lists, not tuples
    assert set(p.to_dict()) == {f.name for f in dataclasses.fields(Preprocess)}
    assert Preprocess.of(p) is p
    assert Preprocess.of(None) == Preprocess()
    with pytest.raises(dataclasses.FrozenInstanceError):
        p.size = 1  # type: ignore[misc]


def test_an_unknown_number_is_named() -> None:
    with pytest.raises(AvzooError, match=r"'segmnts'.*did you mean 'segments'"):
        Preprocess.of({**NAMES, "segmnts": 10})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seconds": 0}, "seconds=0"),
        ({"seconds": -1.0}, "seconds=-1"),
        ({"seconds": float("nan")}, "seconds=nan"),
        ({"segments": 0}, "segments=0"),
        ({"fps": 0}, "fps=0"),
        ({"fps": 1000}, "fps=1000"),
        ({"fps": 1.5}, "1.5 frames a segment: expected a whole number"),
        ({"fps": 0.5}, "0.5 frames a segment: expected a whole number"),
        ({"segments": 20, "fps": 2}, "segments of 0.5 s are too short for 'vggish', which hears 0.975 s"),
        ({"audio_backbone": "resnet18"}, "which reads pictures"),
        ({"visual_backbone": "vggish"}, "which reads sound"),
    ],
    ids=str,
)
def test_numbers_out_of_range(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(AvzooError, match=words):
        numbers(**changes)


def test_an_unknown_backbone_gets_the_nearest() -> None:
    with pytest.raises(UnknownModelError, match="did you mean 'vggish'"):
        numbers(audio_backbone="vgg-ish")


@pytest.mark.parametrize(
    ("changes", "times"),
    [
        ({}, [k + 0.5 for k in range(10)]),
        ({"fps": 2}, [k / 2 for k in range(20)]),
        ({"fps": 3}, [k + j / 3 for k in range(10) for j in range(3)]),
        ({"segments": 5, "fps": 0.5}, [1.0, 3.0, 5.0, 7.0, 9.0]),
        ({"segments": 5, "fps": 1}, [float(k) for k in range(10)]),
        ({"seconds": 2, "segments": 1, "fps": 0.5}, [1.0]),
    ],
    ids=str,
)
def test_frame_times(changes: dict[str, Any], times: list[float]) -> None:
    p = numbers(**changes)
    assert p.frame_times() == pytest.approx(times)
    per_segment = len(times) // p.segments
    for index, time in enumerate(p.frame_times()):  # a frame belongs to the segment it is averaged into
        assert int((time + 1e-9) / p.segment_seconds) == index // per_segment


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"audio_kind": "mfcc"}, "audio_kind is 'mfcc', expected one of"),
        ({"audio_kind": "gammatone", "audio_backbone": "vggish"}, "would never run: leave it out"),
        ({"visual_kind": "clip"}, "visual_kind is 'clip'"),
        ({"pool": "mean"}, "pool is 'mean'"),
        ({"audio_kind": "scalogram", "bank": "haar"}, "bank is 'haar'"),
        ({"audio_kind": "gammatone", "hop": 900}, "the columns of a clip are cut into its segments"),
        ({"clip_stft": True}, "given 'log_mel'"),
        ({"audio_kind": "fbank", "clip_stft": True, "segments": 5}, "segments of 2 s"),
        ({"audio_kind": "scalogram", "bands": -1}, "bands=-1"),
    ],
    ids=str,
)
def test_numbers_of_front_ends_out_of_range(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(AvzooError, match=words):
        Preprocess(**changes)


# -- the fingerprint -------------------------------------------------------------------------------------------------

BASE = Preprocess(**NAMES)
LONG_TERM = Preprocess(audio_kind="scalogram", visual_backbone="tf_efficientnet_lite0", visual_kind="frame")
CHANGES: dict[str, dict[str, tuple[Preprocess, Any]]] = {  # whose number it is, and another value of it
    "both": {"seconds": (BASE, 20.0), "segments": (BASE, 5)},
    "audio": {
        "audio_kind": (LONG_TERM, "fbank"),
        "audio_backbone": (BASE, "other-sound"),
        "sample_rate": (BASE, 22_050),
        "n_fft": (BASE, 1024),
        "window": (BASE, 320),
        "hop": (BASE, 80),
        "mels": (BASE, 32),
        "bands": (LONG_TERM, 100),
        "bank": (LONG_TERM, "geometric"),
        "f_min": (BASE, 50.0),
        "f_max": (BASE, 7000.0),
        "log_offset": (BASE, 0.001),
        "frames": (BASE, 90),
        "clip_stft": (LONG_TERM, True),
    },
    "visual": {
        "fps": (BASE, 2.0),
        "visual_kind": (BASE, "image"),
        "visual_backbone": (BASE, "resnet18"),
        "size": (BASE, 192),
        "interpolation": (BASE, "bilinear"),
        "mean": (BASE, (0.1, 0.2, 0.3)),
        "std": (BASE, (0.1, 0.2, 0.3)),
        "pool": (BASE, "max"),
    },
}


def fingerprints(p: Preprocess) -> tuple[str, str]:
    return p.fingerprint("audio"), p.fingerprint("visual")


def test_the_fingerprints_change_with_every_number_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    find = backbones.find

    def with_another(name: str) -> backbones.Backbone:
        return dataclasses.replace(find("vggish"), name=name) if name == "other-sound" else find(name)

    monkeypatch.setattr(backbones, "find", with_another)
    fields = {f.name for f in dataclasses.fields(Preprocess)}
    assert sorted(key for changes in CHANGES.values() for key in changes) == sorted(fields)
    seen = {*fingerprints(BASE), *fingerprints(LONG_TERM)}
    assert len(seen) == 4
    for whose, changes in CHANGES.items():
        for key, (base, value) in changes.items():
            changed, before = fingerprints(dataclasses.replace(base, **{key: value})), fingerprints(base)
            assert (changed[0] != before[0]) == (whose != "visual"), key
            assert (changed[1] != before[1]) == (whose != "audio"), key
            new = set(changed) - set(before)
            assert not new & seen, key
            assert all(len(print_) == 16 and int(print_, 16) >= 0 for print_ in new)
            seen |= new


def test_the_numbers_of_a_modality_are_those_in_its_fingerprint() -> None:
    for whose, other in (("audio", "visual"), ("visual", "audio")):
        numbers_ = BASE.numbers(whose)  # type: ignore[arg-type]
        assert set(numbers_) == {*CHANGES["both"], *CHANGES[whose]}
        assert not set(numbers_) & set(CHANGES[other])
        assert numbers_ == {key: BASE.to_dict()[key] for key in numbers_}


@pytest.mark.parametrize("name", NAMES.values())
def test_the_fingerprint_changes_with_the_weights_and_with_the_code(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    p = Preprocess(**NAMES)
    before = fingerprints(p)
    heard = name == NAMES["audio_backbone"]
    find = backbones.find

    def retrained(asked: str) -> backbones.Backbone:
        return dataclasses.replace(find(asked), weights="sha256:00") if asked == name else find(asked)

    with monkeypatch.context() as patch:
        patch.setattr(backbones, "find", retrained)
        after = fingerprints(p)
        assert (after[0] != before[0], after[1] != before[1]) == (heard, not heard)
    assert fingerprints(p) == before
    monkeypatch.setattr(numbers_module, "SIGNAL_PATH_VERSION", numbers_module.SIGNAL_PATH_VERSION + 1)
    assert not set(fingerprints(p)) & set(before)


def test_equal_numbers_have_one_fingerprint() -> None:
    """However they were written: YAML's 10 is the signature's 10.0."""
    p = numbers(seconds=10, fps=1, f_min=125, mean=[0, 0, 0])
    assert p == numbers(seconds=10.0, fps=1.0, f_min=125.0, mean=(0.0, 0.0, 0.0))
    assert fingerprints(p) == fingerprints(numbers(mean=(0.0, 0.0, 0.0)))
    assert fingerprints(numbers(sample_rate=16_000)) == fingerprints(numbers())


def test_the_fingerprint_is_the_same_in_another_process() -> None:
    code = f"from avzoo.preprocess import Preprocess as P; print(*map(P(**{NAMES!r}).fingerprint, ('audio', 'visual')))"
    here = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(__file__).parents[1])}
    there = subprocess.run([sys.executable, "-c", code], env=here, capture_output=True, text=True, check=True)
    assert tuple(there.stdout.split()) == fingerprints(Preprocess(**NAMES))
