"""Scenes: what a row of a batch is, which rows an epoch has, and that sound and pictures stay in step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from media import Picture, write_media
from torch import Tensor

from avzoo import backbones
from avzoo.augment import view_seeds
from avzoo.data import column as module
from avzoo.data.base import Item, Split
from avzoo.data.column import Column
from avzoo.data.scenes import Examples, SceneBatches, SceneDataModule, SceneSet
from avzoo.data.tau import TAU
from avzoo.errors import AvzooError
from avzoo.preprocess import Preprocess, normalise

SEGMENTS, COLUMNS, PICTURES, BANDS = 10, 50, 5, 64
GAMMATONE: dict[str, Any] = {
    "audio_kind": "gammatone", "sample_rate": 8000, "window": 320, "hop": 160, "f_max": 4000.0, "fps": 5,
    "visual_kind": "frame", "visual_backbone": "tf_efficientnet_lite0", "size": 16,
}  # fmt: skip
SCALOGRAM: dict[str, Any] = {
    "audio_kind": "scalogram", "visual_kind": "frame", "visual_backbone": "tf_efficientnet_lite0", "size": 16,
    "sample_rate": 8000, "n_fft": 2048, "window": 2048, "hop": 1000, "bands": 24, "bank": "geometric", "frames": 6,
}  # fmt: skip


def column(values: Tensor) -> Column:
    """Of `[clips, views, segments, ...]`."""
    return Column(lambda clip, view, part: values[clip, view][part], *values.shape[:2])


def gammatones(clips: int = 3) -> Tensor:
    """`[clips, 1, segments, 3, bands, columns]`: the channels say column of the clip, band, clip."""
    x = torch.empty(clips, 1, SEGMENTS, 3, BANDS, COLUMNS)
    x[:, :, :, 0] = torch.arange(SEGMENTS * COLUMNS).view(SEGMENTS, 1, COLUMNS)
    x[:, :, :, 1] = torch.arange(BANDS)[:, None]
    x[:, :, :, 2] = torch.arange(clips).view(-1, 1, 1, 1, 1)
    return x


def pictures(clips: int = 3, views: int = 1, per_segment: int = PICTURES) -> Tensor:
    """`[clips, views, segments, pictures, 3]`: picture of the clip, view, clip."""
    x = torch.empty(clips, views, SEGMENTS, per_segment, 3)
    x[..., 0] = torch.arange(SEGMENTS * per_segment).view(SEGMENTS, per_segment)
    x[..., 1] = torch.arange(views).view(-1, 1, 1)
    x[..., 2] = torch.arange(clips).view(-1, 1, 1, 1)
    return x


def scene_set(examples: Examples, sound: Tensor, seen: Tensor, *, live: bool = False) -> SceneSet:
    label = torch.arange(len(sound)) + 7
    ids = [f"clip {index}" for index in range(len(sound))]
    return SceneSet(column(sound), column(seen), label, ids, examples=examples, live=live)


def windows(clips: int = 3, frames: int = 4, bands: int = 6) -> Tensor:
    """`[clips, 1, segments, frames, 2, bands]`: average and difference say window of the clip, clip."""
    x = torch.empty(clips, 1, SEGMENTS, frames, 2, bands)
    x[..., 0, :] = torch.arange(SEGMENTS * frames).view(SEGMENTS, frames, 1)
    x[..., 1, :] = torch.arange(clips).view(-1, 1, 1, 1, 1)
    return x


# -- what a row is ---------------------------------------------------------------------------------------------------


def test_a_clip_is_whole() -> None:
    sound, seen = gammatones(), pictures(views=2)
    batch = scene_set("clip", sound, seen)[torch.tensor([[2, 1, 0], [0, 0, 0]])]
    assert torch.equal(batch.audio, sound[[2, 0], 0])
    assert torch.equal(batch.visual, seen[[2, 0], [1, 0]])
    assert batch.label.tolist() == [9, 7]
    assert batch.id == ["clip 2", "clip 0"]
    assert batch.seeds is None


@pytest.mark.parametrize("place", [0, 3, 10, 49, 50, 51, 275, 440, 449, 450])
def test_a_second_is_the_clip_cut_by_hand(place: int) -> None:
    sound, seen = gammatones(), pictures(views=2)
    batch = scene_set("second", sound, seen)[torch.tensor([[1, 1, place], [2, 0, 0]])]
    assert batch.audio.shape == (2, 1, 3, BANDS, COLUMNS)
    assert batch.visual.shape == (2, 1, PICTURES, 3)
    whole = sound[1, 0].movedim(0, -2).flatten(-2)  # [3, bands, 500]
    assert torch.equal(batch.audio[0, 0], whole[..., place : place + COLUMNS])
    first = place // 10  # picture f is on screen from column 10 f on
    assert torch.equal(batch.visual[0, 0], seen[1, 1].flatten(0, 1)[first : first + PICTURES])
    assert batch.audio[1, 0, 0, 0, 0] == 0
    assert batch.label.tolist() == [8, 9]


def test_where_a_second_may_begin() -> None:
    data = scene_set("second", gammatones(1), pictures(1))
    assert data.places("picture").tolist() == list(range(0, 450, 10))
    assert data.places("column").tolist() == list(range(450))
    assert data.places("legacy").tolist() == list(range(14))
    places = data.places("picture")
    rows = torch.stack([torch.zeros_like(places), torch.zeros_like(places), places], 1)
    batch = data[rows]
    assert batch.visual[:, 0, 0, 0].tolist() == list(range(45))  # every picture but those of the last second
    assert torch.equal(batch.audio[:, 0, 0, 0, 0], 10 * batch.visual[:, 0, 0, 0])


@pytest.mark.parametrize("per_segment", [1, 2, 3, 4, 7])
def test_a_second_begins_with_its_picture_at_any_rate(per_segment: int) -> None:
    data = scene_set("second", gammatones(1), pictures(1, per_segment=per_segment))
    places = data.places("picture")
    rows = torch.stack([torch.zeros_like(places), torch.zeros_like(places), places], 1)
    assert data[rows].visual[:, 0, 0, 0].tolist() == list(range(9 * per_segment))
    late = places / COLUMNS - torch.arange(9 * per_segment) / per_segment
    assert (late >= -1e-6).all()
    assert (late < 1 / COLUMNS).all()  # the sound begins with the first column that begins under the picture


def test_a_pair_is_one_window_and_the_first_picture_of_its_second() -> None:
    sound, seen = windows(), pictures(views=2, per_segment=2)
    data = scene_set("pair", sound, seen)
    batch = data[torch.tensor([[1, 1, 0], [2, 0, 17], [0, 0, 39]])]
    assert batch.audio.shape == (3, 1, 1, 2, 6)
    assert batch.visual.shape == (3, 1, 1, 3)
    assert batch.audio[:, 0, 0, 0, 0].tolist() == [0, 17, 39]
    assert batch.audio[:, 0, 0, 1, 0].tolist() == [1, 2, 0]
    assert batch.visual[:, 0, 0].tolist() == [[0, 1, 1], [8, 0, 2], [18, 0, 0]]
    assert batch.label.tolist() == [8, 9, 7]
    assert data.places("picture").tolist() == list(range(40))


def test_a_window_that_a_second_lacks_is_no_place() -> None:
    sound = windows()
    sound[:, :, 2, 3] = sound[:, :, 9, 3] = torch.nan
    places = scene_set("pair", sound, pictures(per_segment=1)).places("picture")
    assert places.tolist() == [place for place in range(40) if place not in (11, 39)]


# -- pictures that are augmented on the device -----------------------------------------------------------------------


def test_seeds_are_those_of_the_pictures_shown() -> None:
    sound, seen = gammatones(), pictures()
    seeds = view_seeds("clip 1", 3, SEGMENTS * PICTURES)
    whole = scene_set("clip", sound, seen, live=True)[torch.tensor([[1, 3, 0], [0, 0, 0]])]
    assert torch.equal(whole.seeds[0], seeds.view(SEGMENTS, PICTURES))
    assert (whole.seeds[1] == 0).all()
    second = scene_set("second", sound, seen, live=True)[torch.tensor([[1, 3, 440], [1, 3, 37]])]
    assert torch.equal(second.seeds[:, 0], torch.stack([seeds[44:49], seeds[3:8]]))
    assert second.visual[:, 0, :, 0].tolist() == [[44, 45, 46, 47, 48], [3, 4, 5, 6, 7]]
    pair = scene_set("pair", windows(), pictures(per_segment=2), live=True)[torch.tensor([[1, 3, 17]])]
    assert pair.seeds.flatten().tolist() == [int(view_seeds("clip 1", 3, 20)[8])]
    still = scene_set("second", sound, seen, live=True)[torch.tensor([[1, 0, 440]])]
    assert still.seeds is None


# -- which rows an epoch has -----------------------------------------------------------------------------------------


def drawn(batches: SceneBatches) -> Tensor:
    return torch.cat(list(batches))


def test_evaluation_takes_whole_clips_in_order() -> None:
    batches = SceneBatches(7, 3)
    for _ in range(2):
        epoch = list(batches)
        assert [len(rows) for rows in epoch] == [3, 3, 1]
        assert len(batches) == 3
        assert torch.cat(epoch).tolist() == [[item, 0, 0] for item in range(7)]


def test_pairs_come_exactly_once_an_epoch() -> None:
    places = torch.tensor([0, 1, 4, 5])
    batches = SceneBatches(6, 4, places, every=True)
    for _ in range(2):
        rows = drawn(batches)
        assert len(rows) == 24
        seen = {(item, place) for item, _, place in rows.tolist()}
        assert seen == {(item, place) for item in range(6) for place in places.tolist()}
        assert rows[:, 0].tolist() != sorted(rows[:, 0].tolist())


def test_one_place_an_item_an_epoch_and_all_places_in_the_long_run() -> None:
    batches = SceneBatches(20, 5, torch.tensor([3, 30, 300]))
    epochs = [drawn(batches) for _ in range(10)]
    for rows in epochs:
        assert sorted(rows[:, 0].tolist()) == list(range(20))
    places = Counter(torch.cat(epochs)[:, 2].tolist())
    assert set(places) == {3, 30, 300}
    assert min(places.values()) > 40
    assert len({int(place) for rows in epochs for item, _, place in rows.tolist() if item == 4}) > 1


def test_a_last_batch_that_is_not_full_is_left_out() -> None:
    batches = SceneBatches(10, 4, torch.zeros(1, dtype=torch.int64))
    assert len(batches) == 2
    assert [len(rows) for rows in batches] == [4, 4]
    assert len({tuple(sorted(drawn(batches)[:, 0].tolist())) for _ in range(8)}) > 1  # not always the same ones
    assert [len(rows) for rows in SceneBatches(16, 4, torch.zeros(1, dtype=torch.int64))] == [4] * 4
    only = SceneBatches(3, 4, torch.zeros(1, dtype=torch.int64))
    assert len(only) == 1
    assert [len(rows) for rows in only] == [3]


def test_two_streams_are_two_orders_side_by_side() -> None:
    batches = SceneBatches(12, 4, torch.arange(450), streams=2)
    epoch = list(batches)
    assert len(batches) == 3
    assert [len(rows) for rows in epoch] == [8] * 3
    halves = [torch.cat([rows[:4] for rows in epoch]), torch.cat([rows[4:] for rows in epoch])]
    for half in halves:
        assert sorted(half[:, 0].tolist()) == list(range(12))
    assert not torch.equal(halves[0], halves[1])
    by_item = [dict(zip(half[:, 0].tolist(), half[:, 2].tolist(), strict=True)) for half in halves]
    assert by_item[0] != by_item[1]  # each has places of its own


@pytest.mark.parametrize("every", [False, True])
def test_an_epoch_is_a_function_of_seed_and_number(every: bool) -> None:
    def epochs(seed: int, before: int = 0) -> list[list[list[int]]]:
        torch.rand(before)  # whatever else happened
        batches = SceneBatches(20, 4, torch.arange(5), every=every, views=3, streams=2, seed=seed)
        return [drawn(batches).tolist() for _ in range(3)]

    state = torch.get_rng_state()
    one = epochs(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert epochs(1, before=9) == one
    assert epochs(2) != one
    assert len({str(epoch) for epoch in one}) == 3
    later = SceneBatches(20, 4, torch.arange(5), every=every, views=3, streams=2, seed=1)
    later.set_epoch(2)
    assert drawn(later).tolist() == one[2]


def test_views_are_drawn_or_new_every_epoch() -> None:
    views = Counter(drawn(SceneBatches(300, 10, torch.zeros(1, dtype=torch.int64), views=3))[:, 1].tolist())
    assert set(views) == {0, 1, 2}
    assert min(views.values()) > 60
    new = SceneBatches(8, 4, torch.zeros(1, dtype=torch.int64), views=0)
    assert [drawn(new)[:, 1].unique().tolist() for _ in range(3)] == [[1], [2], [3]]
    new.set_epoch(41)
    assert drawn(new)[:, 1].unique().tolist() == [42]


# -- columns in memory and on disk -----------------------------------------------------------------------------------


@pytest.mark.parametrize("examples", ["clip", "second", "pair"])
def test_a_column_on_disk_gives_what_one_in_memory_gives(examples: Examples, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = windows() if examples == "pair" else gammatones()
    seen = pictures(views=2)
    rows = torch.tensor([[2, 1, 38], [0, 0, 0], [1, 1, 21]])
    held = scene_set(examples, sound, seen)
    assert held.audio.memory is not None
    monkeypatch.setattr(module, "IN_MEMORY", 0)
    read = scene_set(examples, sound, seen)
    assert read.audio.memory is None
    assert read.visual.memory is None
    assert torch.equal(read.places("picture"), held.places("picture"))
    for one, two in zip(read[rows], held[rows], strict=True):
        assert torch.equal(one, two) if isinstance(one, Tensor) else one == two


def test_a_column_on_disk_reads_what_is_asked_for_and_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IN_MEMORY", 0)
    reads: list[tuple[int, int, slice]] = []
    sound = gammatones()

    def read(clip: int, view: int, part: slice) -> Tensor:
        reads.append((clip, view, part))
        return sound[clip, view][part].clone()

    on_disk = Column(read, 3)
    assert len(reads) == 1  # for the shape
    assert on_disk.shape == (SEGMENTS, 3, BANDS, COLUMNS)
    rows = torch.tensor([2, 0, 2]), torch.zeros(3, dtype=torch.int64), torch.tensor([8, 0, 8])
    for _ in range(2):
        del reads[:]
        taken = on_disk.take(*rows, 2)
        assert reads == [(2, 0, slice(8, 10)), (0, 0, slice(0, 2)), (2, 0, slice(8, 10))]
        assert torch.equal(taken, torch.stack([sound[2, 0, 8:], sound[0, 0, :2], sound[2, 0, 8:]]))
    held = [value for value in vars(on_disk).values() if isinstance(value, Tensor)]
    assert held == []


def test_a_column_in_memory_reads_every_part_once() -> None:
    reads: Counter[tuple[int, int]] = Counter()
    seen = pictures(views=2)

    def read(clip: int, view: int, part: slice) -> Tensor:
        reads[clip, view] += 1
        return seen[clip, view][part]

    held = Column(read, 3, 2)
    before = reads.copy()
    assert set(before) == {(clip, view) for clip in range(3) for view in range(2)}
    held.take(torch.tensor([1, 2]), torch.tensor([0, 1]), torch.tensor([0, 0]), SEGMENTS)
    assert reads == before


# -- the datamodule --------------------------------------------------------------------------------------------------


class Table(SceneDataModule):
    """Rows given as they are, all for training."""

    def __init__(self, rows: list[Item], preprocess: dict[str, Any], **options: Any) -> None:
        super().__init__(preprocess, workers=0, **options)
        self.rows = rows

    @property
    def classes(self) -> list[str]:
        return ["a", "b"]

    def items(self, split: Split) -> list[Item]:  # noqa: ARG002
        return self.rows


MakeTAU = Callable[..., TAU]


@pytest.fixture(scope="module")
def cheap_features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the cheap backbones gave, for all tests of this file."""
    return tmp_path_factory.mktemp("cheap-features")


@pytest.fixture
def tau(rendered_tau: Path, cheap_features: Path, cheap_backbones: None) -> MakeTAU:  # noqa: ARG001
    """A rendered dataset, extracted and set up for training."""

    def make(numbers: dict[str, Any], **options: Any) -> TAU:
        options = {"val": "metadata", "batch_size": 3, **options}
        data = TAU(rendered_tau, preprocess=numbers, cache=cheap_features, workers=0, **options)
        data.extract(["train", "val"])
        data.setup("fit")
        return data

    return make


def test_batches_of_every_kind_of_example(tau: MakeTAU) -> None:
    data = tau(GAMMATONE, examples="second", crop="column", streams=2, batch_size=2, views=2)
    batches = list(data.train_dataloader())
    assert [batch.audio.shape for batch in batches] == [(4, 1, 3, 64, 50)] * 2
    assert [batch.visual.shape for batch in batches] == [(4, 1, 5, 1280)] * 2
    (val, more) = data.val_dataloader()
    assert val.audio.shape == (2, 10, 3, 64, 50)
    assert val.visual.shape == more.visual.shape == (2, 10, 5, 1280)
    assert val.label.shape == (2,)
    assert [data.classes[label] for label in val.label] == [id_.partition("-")[0] for id_ in val.id]
    data = tau(SCALOGRAM, examples="pair", batch_size=100)
    batches = list(data.train_dataloader())
    assert [batch.audio.shape for batch in batches] == [(100, 1, 1, 2, 24)] * 2  # of 4 clips * 10 s * 6 windows
    assert batches[0].visual.shape == (100, 1, 1, 1280)
    data = tau(SCALOGRAM)
    (batch,) = data.train_dataloader()
    assert batch.audio.shape == (3, 10, 6, 2, 24)
    assert batch.visual.shape == (3, 10, 1, 1280)


def test_windows_over_the_whole_clip_are_drawn_where_they_are(tau: MakeTAU) -> None:
    data = tau({**SCALOGRAM, "clip_stft": True}, examples="pair", batch_size=16)
    audio = data.sets["train"].audio.memory  # type: ignore[attr-defined]
    there = audio[:, 0].isfinite().flatten(3).all(-1)  # [clips, segments, windows]
    assert not there.all()
    assert (there == there[0]).all()
    batches = list(data.train_dataloader())
    assert len(batches) == int(there.sum()) // 16
    assert all(batch.audio.isfinite().all() for batch in batches)


@pytest.mark.parametrize(
    ("numbers", "options"),
    [
        (GAMMATONE, {"examples": "clip"}),
        (GAMMATONE, {"examples": "second"}),
        (SCALOGRAM, {"examples": "pair"}),
    ],
    ids=["clip", "second", "pair"],
)
def test_a_view_from_the_cache_is_the_view_computed_live(
    numbers: dict[str, Any], options: dict[str, Any], tau: MakeTAU
) -> None:
    cached = tau(numbers, views=3, **options)
    live = tau({**numbers, "visual_kind": "image"}, views=3, **options)
    place = 37 if options["examples"] != "clip" else 0
    rows = torch.tensor([[2, 1, place], [0, 2, 0], [1, 0, place], [2, 2, place]])
    stored, batch = cached.sets["train"][rows], live.sets["train"][rows]
    assert batch.visual.dtype == torch.uint8
    assert batch.seeds is not None
    shown = live.on_after_batch_transfer(batch, 0)
    assert shown.seeds is None
    assert shown.visual.dtype == torch.uint8
    assert not torch.equal(shown.visual[0], batch.visual[0])
    assert torch.equal(shown.visual[2], batch.visual[2])  # view 0
    p = live.preprocess
    network = backbones.build(p.visual_backbone, p.pool)
    features = network(normalise(shown.visual.flatten(0, 2), p)).unflatten(0, shown.visual.shape[:3])
    torch.testing.assert_close(features, stored.visual)
    assert torch.equal(shown.audio, stored.audio)
    assert torch.equal(shown.label, stored.label)
    assert shown.id == stored.id


def test_validation_is_never_augmented(tau: MakeTAU) -> None:
    data = tau({**GAMMATONE, "visual_kind": "image"}, views=0, examples="second")
    assert all(batch.seeds is None for batch in data.val_dataloader())
    (batch,) = data.train_dataloader()
    assert batch.seeds.shape == (3, 1, 5)
    assert (batch.seeds != 0).all()
    first = batch.seeds
    (batch,) = data.train_dataloader()
    assert torch.equal(batch.seeds, first)  # another loader begins at the first epoch again
    loader = data.train_dataloader()
    epochs = [{tuple(row) for batch in loader for row in batch.seeds.flatten(1).tolist()} for _ in range(2)]
    assert not epochs[0] & epochs[1]


@pytest.mark.parametrize("clip_stft", [False, True])
def test_audio_statistics(clip_stft: bool, tau: MakeTAU, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tau({**SCALOGRAM, "clip_stft": clip_stft})
    audio = torch.stack([data.cache.read(item.source, "audio") for item in data.items("train")])
    rows = audio.flatten(0, 2)
    rows = rows[rows.isfinite().flatten(1).all(1)].double()
    mean, std = data.audio_statistics()
    assert mean.shape == std.shape == (2, 24)
    torch.testing.assert_close(mean, rows.mean(0).float())
    torch.testing.assert_close(std, rows.std(0, correction=0).float())
    monkeypatch.setattr(module, "IN_MEMORY", 0)
    again = tau({**SCALOGRAM, "clip_stft": clip_stft}).audio_statistics()
    assert torch.equal(again[0], mean)
    assert torch.equal(again[1], std)


@pytest.mark.usefixtures("cheap_backbones")
def test_a_flash_and_a_bang_meet_in_the_same_second(tmp_path: Path) -> None:
    """From the files to the batch: the picture turns white when the noise begins, at 3.4 s, in every cut."""

    def flash(index: int, size: tuple[int, int]) -> Any:
        return np.full((*size, 3), 255 if index >= 34 else 0, dtype=np.uint8)

    video = Picture(codec="mpeg4", fps=10, seconds=10, size=(16, 16), render=flash, b_frames=0)
    write_media(tmp_path / "x.mkv", video)
    sound = np.zeros((80_000, 2), np.float32)
    sound[27_200:] = np.random.default_rng(0).uniform(-0.5, 0.5, (52_800, 2))
    soundfile.write(tmp_path / "x.wav", sound, 8000)
    item = Item("x", "x", tmp_path / "x.mkv", "b", audio=tmp_path / "x.wav")
    data = Table([item], {**GAMMATONE, "visual_kind": "image"}, examples="second", cache=tmp_path / "cache")
    data.extract(["train"])
    data.setup("fit")
    for place in (130, 140, 150, 160, 170):  # in columns: the event is at 170
        batch = data.sets["train"][torch.tensor([[0, 0, place]])]
        white = batch.visual[0, 0].float().mean((1, 2, 3)) > 128
        loud = batch.audio[0, 0, 0].mean(0) > batch.audio[0, 0, 0].mean(0).max() - 10  # dB
        first_picture, first_column = int(white.float().argmax()), int(loud.float().argmax())
        assert first_picture == (170 - place) // 10
        assert abs(first_column - (170 - place)) <= 1
        assert batch.label.tolist() == [1]


@pytest.mark.parametrize(
    ("numbers", "options", "words"),
    [
        (GAMMATONE, {"examples": "pair"}, "a pair from a scalogram"),
        (SCALOGRAM, {"examples": "second"}, "a second is cut from a gammatone"),
        ({**GAMMATONE, "visual_kind": "segment"}, {"examples": "second"}, "visual_kind='segment'"),
        (GAMMATONE, {"streams": 0}, "streams=0"),
        (GAMMATONE, {"views": 0}, "views=0.*for visual_kind: image"),
        ({**GAMMATONE, "visual_kind": "image"}, {"views": -1}, "views=-1"),
        (GAMMATONE, {"batch_size": 0}, "batch_size=0"),
        (GAMMATONE, {"examples": "minute"}, "examples='minute'"),
        (GAMMATONE, {"crop": "middle"}, "crop='middle'"),
    ],
    ids=str,
)
def test_options_that_do_not_go_together(numbers: dict[str, Any], options: dict[str, Any], words: str) -> None:
    with pytest.raises(AvzooError, match=words):
        Table([], numbers, **options)


def test_the_numbers_used_here_are_legal() -> None:
    assert Preprocess.of(GAMMATONE).frames == COLUMNS
    assert Preprocess.of(SCALOGRAM).pictures == 1
