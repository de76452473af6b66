"""Labels, batches, and the feature cache: nothing stale, nothing half, nothing twice, nothing that stops the rest."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from lightning.fabric.utilities.data import _set_sampler_epoch
from media import Picture, Sound, write_media
from torch import Tensor, nn
from torch.utils.data import Dataset

from avzoo import backbones
from avzoo.augment import view_seeds
from avzoo.data import column
from avzoo.data import features as module
from avzoo.data.base import Item, Split
from avzoo.data.events import EventBatches, EventDataModule, EventSet, Row, segment_labels
from avzoo.data.features import FeatureCache, Modality, Source, View, extract
from avzoo.data.loading import Loader
from avzoo.errors import AvzooError, DataNotFoundError, MediaError
from avzoo.files import HOST, cache_folder
from avzoo.preprocess import Batch, Preprocess, Preprocessor, read_window

CLASSES = ["Violin, fiddle", "drone", "background"]


def numbers(**changes: Any) -> Preprocess:
    names = {"audio_backbone": "vggish", "visual_backbone": "tf_efficientnet_lite0"}
    return Preprocess(**{**names, "seconds": 2.0, "segments": 2, "size": 16, **changes})


class Ear(nn.Module):
    def forward(self, spectrogram: Tensor) -> Tensor:
        return spectrogram.mean((1, 3))[:, :3]


class Eye(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))


def cheap(name: str, *_: str) -> nn.Module:
    return Ear() if name == "vggish" else Eye()


class FakeCache(FeatureCache):
    """The cache, with cheap backbones also in worker processes, where no patch of a test reaches."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        backbones.build = cheap
        self.__dict__ = state

    def make(self, source: Source, parts: Collection[View], preprocessor: Preprocessor) -> None:
        if source.id == "dies":
            os._exit(1)
        super().make(source, parts, preprocessor)

    def has(self, source: Source, views: int = 1) -> bool:
        return not self.missing(source, views)


@pytest.fixture(autouse=True)
def _cheap_backbones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "build", cheap)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Two seconds, encoded once."""
    folder = tmp_path_factory.mktemp("video")
    picture = Picture(codec="mpeg4", fps=5, size=(32, 32), b_frames=0)
    return write_media(folder / "x.mkv", picture, Sound(codec="pcm_s16le", format="s16")).read_bytes()


@pytest.fixture
def sources(tmp_path: Path, video: bytes) -> list[Source]:
    folder = tmp_path / "videos"
    folder.mkdir()
    listed = [Source(name, folder / f"{name}.mkv") for name in ("a", "b.2", "-c")]
    for source in listed:
        source.path.write_bytes(video)
    return listed


@pytest.fixture
def cache(tmp_path: Path) -> FakeCache:
    return FakeCache(numbers(), folder=tmp_path / "cache")


def files(cache: FeatureCache) -> list[str]:
    """Names by modality: `audio/a@0.safetensors`."""
    return sorted(
        f"{modality}/{path.name}"
        for modality, folder in cache.folders.items()
        for path in folder.rglob("*")
        if path.is_file()
    )


# -- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, 10, [1] * 10),
        (0, 8, [1] * 8 + [2] * 2),
        (2, 4, [2, 2, 1, 1, 2, 2, 2, 2, 2, 2]),
        (9, 10, [2] * 9 + [1]),
        (0, 0, [2] * 10),
        (5, 5, [2] * 10),
        (1.5, 2.5, [2, 1, 2, 2, 2, 2, 2, 2, 2, 2]),  # the end is exclusive, also at a segment's middle
        (1.51, 2.51, [2, 2, 1, 2, 2, 2, 2, 2, 2, 2]),
    ],
)
def test_segment_labels(start: float, end: float, expected: list[int]) -> None:
    label = segment_labels(
        Item("k", "a", Path("a.mp4"), "drone", start, end), CLASSES, numbers(seconds=10, segments=10)
    )
    assert label.tolist() == expected
    assert label.dtype == torch.int64


def test_segment_labels_of_other_segments() -> None:
    item = Item("k", "a", Path("a.mp4"), CLASSES[0], 2, 6)
    assert segment_labels(item, CLASSES, numbers(seconds=10, segments=5)).tolist() == [2, 0, 0, 2, 2]
    assert segment_labels(item, CLASSES, numbers(seconds=10, segments=1)).tolist() == [0]


# -- batches ---------------------------------------------------------------------------------------------------------


def event_set(clips: int = 3, views: int = 2, rows: Sequence[int] = (0, 1, 2, 0)) -> EventSet:
    """Every feature says which clip and segment it is, those of pictures also which view."""
    heard = torch.arange(clips)[:, None, None] * 100 + torch.arange(2)[:, None]
    seen = heard[:, None] + torch.arange(views)[:, None, None] * 10
    label = torch.arange(len(rows))[:, None].expand(-1, 2)
    ids = [f"clip {row}" for row in rows]
    audio, visual = heard.expand(-1, -1, 5).float(), -seen.expand(-1, -1, -1, 4).float()
    return EventSet(audio, visual, torch.tensor(rows), label, ids, 9)


def test_a_batch_is_one_index_into_the_features() -> None:
    data = event_set()
    assert len(data) == 4
    batch = data[[Row(3, 1), Row(1)]]
    assert isinstance(batch, Batch)
    assert batch.audio.shape == (2, 2, 5)
    assert batch.visual.shape == (2, 2, 4)
    assert batch.audio[:, :, 0].tolist() == [[0, 1], [100, 101]]  # row 3 shows clip 0
    assert batch.visual[:, :, 0].tolist() == [[-10, -11], [-100, -101]]
    assert batch.label.tolist() == [[3, 3], [1, 1]]
    assert batch.id == ["clip 0", "clip 1"]
    assert batch.seeds is None


@pytest.mark.parametrize(("items", "size"), [(10, 3), (12, 4), (1, 64), (5, 1)])
def test_every_item_comes_exactly_once_an_epoch(items: int, size: int) -> None:
    batches = EventBatches(items, size, views=3, shuffle=True, seed=1)
    for _ in range(3):
        epoch = list(batches)
        assert len(epoch) == len(batches) == -(-items // size)
        assert sorted(row.item for batch in epoch for row in batch) == list(range(items))
        assert [len(batch) for batch in epoch[:-1]] == [size] * (len(epoch) - 1)


def test_an_epoch_is_a_function_of_seed_and_number() -> None:
    def epochs(seed: int, before: int = 0) -> list[Any]:
        for _ in range(before):
            torch.rand(7)  # whatever else happened
        batches = EventBatches(50, 8, views=4, shuffle=True, seed=seed)
        return [list(batches) for _ in range(3)]

    state = torch.get_rng_state()
    one = epochs(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert epochs(1, before=5) == one
    assert epochs(2) != one
    assert len({str(epoch) for epoch in one}) == 3
    later = EventBatches(50, 8, views=4, shuffle=True, seed=1)
    loader = torch.utils.data.DataLoader(event_set(), sampler=later, batch_size=None)
    _set_sampler_epoch(loader, 2)  # what Lightning's fit loop does, also when it resumes at the third epoch
    assert list(later) == one[2]


def test_all_views_are_drawn_in_training_and_only_the_clip_itself_otherwise() -> None:
    training = EventBatches(300, 64, views=3, shuffle=True)
    drawn = Counter(row.view for batch in training for row in batch)
    assert set(drawn) == {0, 1, 2}
    assert min(drawn.values()) > 60
    still = EventBatches(10, 4, views=3)
    for _ in range(2):
        assert [row for batch in still for row in batch] == [Row(item) for item in range(10)]
    assert {row.view for batch in EventBatches(10, 4, shuffle=True) for row in batch} == {0}


def events(*labels: list[int]) -> EventSet:
    """Clips whose features say clip and segment: sound 10 * clip + segment, picture the negative; 9 is background."""
    clips, segments = len(labels), len(labels[0])
    audio = (10.0 * torch.arange(clips)[:, None] + torch.arange(segments))[..., None]
    return EventSet(
        audio, -audio[:, None], torch.arange(clips), torch.tensor(labels), [str(c) for c in range(clips)], 9
    )


def test_an_exchange_keeps_every_label_true() -> None:
    data = events([1, 1, 9, 9], [9, 1, 1, 9], [9, 9, 9, 9])
    batch = data[[Row(0, picture=1), Row(0, sound=1), Row(0), Row(2, picture=2)]]
    assert batch.label.tolist() == [[1, 1, 9, 9], [1, 1, 9, 9], [1, 1, 9, 9], [9, 9, 9, 9]]
    assert batch.visual[..., 0].tolist()[0] == [0, -11, -2, -3]  # the one second in which both have the event
    assert batch.audio[..., 0].tolist()[0] == [0, 1, 2, 3]
    assert batch.audio[..., 0].tolist()[1] == [0, 11, 2, 3]
    assert batch.visual[..., 0].tolist()[1:] == [[0, -1, -2, -3], [0, -1, -2, -3], [-20, -21, -22, -23]]


def test_backwards_turns_sound_picture_and_label() -> None:
    batch = events([1, 9, 9], [9, 2, 9])[[Row(0, backwards=True), Row(1)]]
    assert batch.label.tolist() == [[9, 9, 1], [9, 2, 9]]
    assert batch.audio[..., 0].tolist() == [[2, 1, 0], [10, 11, 12]]
    assert batch.visual[..., 0].tolist() == [[-2, -1, 0], [-10, -11, -12]]


def test_partners_are_of_the_same_class_and_as_many_as_asked_for() -> None:
    data = events(*[[c, c, 9] for c in (1, 2, 3)] * 100)
    assert data.category.tolist() == [1, 2, 3] * 100
    assert events([4, 2, 2, 9], [9, 9, 9, 4], [9, 9, 9, 9]).category.tolist() == [2, 4, 9]  # its commonest event
    batches = EventBatches(300, 64, shuffle=True, category=data.category, swap=0.8, reverse=0.25)
    rows = [row for batch in batches for row in batch]
    for partner in ("picture", "sound"):
        pairs = [(row.item, getattr(row, partner)) for row in rows if getattr(row, partner) >= 0]
        assert all(item % 3 == other % 3 for item, other in pairs)
        assert len({other for _, other in pairs}) > 60
        assert len(pairs) == pytest.approx(240 if partner == "picture" else 120, abs=30)
    assert sum(row.backwards for row in rows) == pytest.approx(75, abs=25)
    assert rows != [row for batch in batches for row in batch]  # another epoch, other partners


class Pids(Dataset[int]):
    def __getitem__(self, row: int) -> int:
        return os.getpid()


def test_loaders_outlive_a_signal_to_the_whole_group() -> None:
    loader = Loader(Pids(), sampler=range(200), batch_size=None, num_workers=2)
    batches = iter(loader)
    first = next(batches)
    subprocess.run(["sh", "-c", f"kill -TERM {first}"], check=True)  # as Slurm does: it is not the parent
    rest = [*batches]
    assert len(rest) == 199
    assert rest[-2:].count(first) == 1
    batches = iter(loader)
    assert len({next(batches), next(batches)}) == 2  # of both: a process that only begins obeys nobody yet
    children = multiprocessing.active_children()
    assert len(children) == 2
    for child in children:
        child.terminate()  # as the parent, whom they obey
        child.join(20)
    assert [child.exitcode for child in children] == [0, 0]


# -- the cache -------------------------------------------------------------------------------------------------------


def test_processes_ignore_ctrl_c_from_their_first_instruction(cache: FakeCache) -> None:
    before = signal.getsignal(signal.SIGINT)
    with module._pool(cache, "cpu", 1) as pool:
        assert signal.getsignal(signal.SIGINT) is before
        assert pool.submit(signal.getsignal, signal.SIGINT).result() is signal.SIG_IGN


def test_extract_writes_what_the_preprocessor_gives(cache: FakeCache, sources: list[Source]) -> None:
    source = sources[0]
    assert cache.missing(source, 2) == [("audio", 0), ("visual", 0), ("visual", 1)]
    assert extract(cache, {source: 2}, workers=0) == {}
    assert cache.missing(source, 2) == []
    assert cache.missing(source, 3) == [("visual", 2)]
    clip = read_window(source.path, cache.preprocess)
    expected = Preprocessor(cache.preprocess)(clip)
    assert torch.equal(cache.read(source, "audio"), expected.audio)
    assert torch.equal(cache.read(source, "visual"), expected.visual)
    assert torch.equal(cache.read(source, "visual", 0, slice(1, 2)), expected.visual[1:])
    augmented = cache.read(source, "visual", 1)
    assert augmented.shape == expected.visual.shape
    assert not torch.equal(augmented, expected.visual)
    live = Preprocessor(cache.preprocess).visual(clip, view_seeds(source.id, 1, len(clip.frames)))
    assert torch.equal(live, augmented)


def test_the_umask_says_who_may_read_features(cache: FakeCache, sources: list[Source]) -> None:
    before = os.umask(0o027)
    try:
        extract(cache, {sources[0]: 1}, workers=0)
    finally:
        os.umask(before)
    assert cache.path(sources[0], "audio").stat().st_mode & 0o777 == 0o640


def count_makes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[View]]]:
    made: list[tuple[str, list[View]]] = []
    make = FakeCache.make

    def counting(self: FakeCache, source: Source, parts: Collection[View], preprocessor: Preprocessor) -> None:
        made.append((source.id, list(parts)))
        make(self, source, parts, preprocessor)

    monkeypatch.setattr(FakeCache, "make", counting)
    return made


BOTH: list[View] = [("audio", 0), ("visual", 0)]


def test_extraction_makes_only_what_is_missing(
    cache: FakeCache, sources: list[Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = count_makes(monkeypatch)
    extract(cache, dict.fromkeys(sources[:2], 1), workers=0)
    assert made == [("a", BOTH), ("b.2", BOTH)]
    extract(cache, dict.fromkeys(sources[:2], 1), workers=0)
    assert len(made) == 2
    extract(cache, {sources[0]: 3, sources[2]: 1}, workers=0)
    assert made[2:] == [("a", [("visual", 1), ("visual", 2)]), ("-c", BOTH)]


def test_another_sound_front_end_leaves_the_pictures_alone(
    cache: FakeCache, sources: list[Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(cache, {sources[0]: 2}, workers=0)
    pictures = {part: cache.path(sources[0], *part).stat().st_mtime_ns for part in (("visual", 0), ("visual", 1))}
    made, decoded = count_makes(monkeypatch), []
    read = module.read_window
    monkeypatch.setattr(
        module, "read_window", lambda *a, **k: decoded.append((k["audio"], k["visual"])) or read(*a, **k)
    )
    other = FakeCache(numbers(f_min=50.0), folder=tmp_path / "cache")
    extract(other, {sources[0]: 2}, workers=0)
    assert made == [("a", [("audio", 0)])]
    assert decoded == [(True, False)]  # no picture is decoded for it
    assert {part: other.path(sources[0], *part).stat().st_mtime_ns for part in pictures} == pictures
    assert not torch.equal(other.read(sources[0], "audio"), cache.read(sources[0], "audio"))
    extract(FakeCache(numbers(size=17), folder=tmp_path / "cache"), {sources[0]: 1}, workers=0)
    assert made[1:] == [("a", [("visual", 0)])]
    assert decoded[1:] == [(False, True)]


def test_extraction_goes_on_after_an_interruption(
    cache: FakeCache, sources: list[Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    make = FakeCache.make

    def interrupted(self: FakeCache, source: Source, parts: Collection[View], preprocessor: Preprocessor) -> None:
        if source.id == "b.2":
            raise KeyboardInterrupt
        make(self, source, parts, preprocessor)

    with monkeypatch.context() as patch:
        patch.setattr(FakeCache, "make", interrupted)
        with pytest.raises(KeyboardInterrupt):
            extract(cache, dict.fromkeys(sources, 1), workers=0)
    assert [cache.has(source) for source in sources] == [True, False, False]
    made = count_makes(monkeypatch)
    extract(cache, dict.fromkeys(sources, 1), workers=0)
    assert made == [("b.2", BOTH), ("-c", BOTH)]


def test_a_changed_video_is_extracted_anew(cache: FakeCache, sources: list[Source], tmp_path: Path) -> None:
    source = sources[0]
    extract(cache, {source: 1}, workers=0)
    before = cache.read(source, "audio"), cache.read(source, "visual")
    stat = source.path.stat()
    os.utime(source.path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert not cache.has(source)
    other = Picture(codec="mpeg4", fps=5, size=(32, 32), b_frames=0, render=lambda _, size: _grey(size))
    write_media(source.path, other, Sound(codec="pcm_s16le", format="s16", clicks=(0.5,)))
    assert extract(cache, {source: 1}, workers=0) == {}
    assert cache.has(source)
    assert not torch.equal(cache.read(source, "audio"), before[0])
    assert not torch.equal(cache.read(source, "visual"), before[1])
    source.path.unlink()
    assert not cache.has(source)
    assert list(tmp_path.rglob("*.safetensors"))


def _grey(size: tuple[int, int]) -> Any:
    return np.full((*size, 3), 90, dtype=np.uint8)


@pytest.mark.parametrize(
    ("option", "again"),
    [({"on_damage": "pad"}, BOTH), ({"on_missing_audio": "silence"}, [("audio", 0)])],
    ids=str,
)
def test_another_way_of_reading_is_another_feature(
    option: dict[str, Any], again: list[View], cache: FakeCache, sources: list[Source], tmp_path: Path
) -> None:
    extract(cache, {sources[0]: 1}, workers=0)
    lenient = FakeCache(cache.preprocess, folder=tmp_path / "cache", **option)
    assert lenient.folders == cache.folders
    assert lenient.missing(sources[0], 1) == again


def test_sound_of_its_own_file_is_part_of_the_stamp(cache: FakeCache, sources: list[Source], tmp_path: Path) -> None:
    sound = tmp_path / "a.wav"
    soundfile.write(sound, np.full(32_000, 0.25, np.float32), 16_000)
    source = Source("a", sources[0].path, sound)
    extract(cache, {sources[0]: 1}, workers=0)
    own = cache.read(sources[0], "audio")
    assert cache.missing(source, 1) == [("audio", 0)]
    extract(cache, {source: 1}, workers=0)
    assert not torch.equal(cache.read(source, "audio"), own)
    os.utime(sound, ns=(1, 1))
    assert cache.missing(source, 1) == [("audio", 0)]
    sound.unlink()
    assert cache.missing(source, 1) == [("audio", 0)]


def test_other_numbers_clips_and_views_have_other_places(sources: list[Source], tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    cache, other = FakeCache(numbers(), folder=folder), FakeCache(numbers(size=17), folder=folder)
    moved = Source("a", tmp_path / "elsewhere" / "a.mkv")
    places = {
        cache.path(sources[0], "audio"),
        cache.path(sources[0], "visual"),
        cache.path(sources[0], "visual", 1),
        cache.path(sources[1], "visual"),
        cache.path(moved, "visual"),
        other.path(sources[0], "visual"),
    }
    assert len(places) == 6
    for modality in ("audio", "visual"):
        assert numbers().fingerprint(modality) in cache.path(sources[0], modality).parts
    extract(cache, {sources[0]: 1}, workers=0)
    assert other.missing(sources[0], 1) == [("visual", 0)]


def test_views_of_another_augmentation_are_made_anew(
    cache: FakeCache, sources: list[Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(cache, {sources[0]: 2}, workers=0)
    monkeypatch.setattr(module, "AUGMENT_VERSION", module.AUGMENT_VERSION + 1)
    assert cache.missing(sources[0], 2) == [("visual", 1)]


@pytest.mark.parametrize("modality", ["audio", "visual"])
@pytest.mark.parametrize("content", [b"", b"no tensors", None])
def test_a_damaged_cache_file_counts_as_absent(
    content: bytes | None, modality: Modality, cache: FakeCache, sources: list[Source]
) -> None:
    extract(cache, {sources[0]: 1}, workers=0)
    file = cache.path(sources[0], modality)
    file.write_bytes(file.read_bytes()[:-7] if content is None else content)
    assert cache.missing(sources[0], 1) == [(modality, 0)]
    assert extract(cache, {sources[0]: 1}, workers=0) == {}
    assert cache.has(sources[0])


def test_a_kill_while_writing_leaves_nothing_that_can_be_read(
    cache: FakeCache, sources: list[Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    write = Path.write_bytes

    def half(path: Path, content: bytes) -> None:
        write(path, content[: len(content) // 2])
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", half)
        with pytest.raises(Killed):
            extract(cache, {sources[1]: 1}, workers=0)
    assert not cache.has(sources[1])
    assert not cache.path(sources[1], "audio").exists()
    assert files(cache) == []
    assert extract(cache, {sources[1]: 1}, workers=0) == {}
    assert cache.has(sources[1])
    assert files(cache) == ["audio/b.2@0.safetensors", "visual/b.2@0.safetensors"]


def test_leftovers_of_the_dead_are_removed_and_those_of_the_living_are_not(
    cache: FakeCache, sources: list[Source]
) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    alive = os.getppid()
    for modality in ("audio", "visual"):
        folder = cache.path(sources[0], modality).parent
        folder.mkdir(parents=True)
        for writer in (f"{HOST}-{gone.pid}", f"{HOST}-{alive}", f"elsewhere-{gone.pid}"):
            (folder / f".b.2@0.safetensors.{writer}.tmp").write_bytes(b"half")
    extract(cache, {sources[0]: 1}, workers=0)
    left = (f"{HOST}-{alive}", f"elsewhere-{gone.pid}")
    kept = [*sorted(f".b.2@0.safetensors.{writer}.tmp" for writer in left), "a@0.safetensors"]
    assert files(cache) == [f"{modality}/{name}" for modality in ("audio", "visual") for name in kept]


def test_one_broken_clip_stops_nothing_and_processes_give_the_same_as_none(
    cache: FakeCache, sources: list[Source], tmp_path: Path
) -> None:
    parallel = FakeCache(cache.preprocess, folder=tmp_path / "parallel")
    folder = sources[0].path.parent
    torn = Source("torn", folder / "torn.mkv")
    torn.path.write_bytes(b"not a video at all")
    wanted = dict.fromkeys([Source("gone", folder / "gone.mkv"), torn, *sources], 2)
    broken = extract(cache, wanted, workers=0)
    assert set(broken) == {"gone", "torn"}
    assert all(f"{id_}.mkv" in reason for id_, reason in broken.items())
    assert extract(parallel, wanted, workers=2) == broken
    assert files(parallel) == files(cache)
    assert len(files(cache)) == 9
    for source in sources:
        for part in (("audio", 0), ("visual", 0), ("visual", 1)):
            torch.testing.assert_close(cache.read(source, *part), parallel.read(source, *part))
    assert not multiprocessing.active_children()


def test_a_backbone_without_weights_is_said_once_and_of_no_clip(
    cache: FakeCache, sources: list[Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str, *_: str) -> nn.Module:
        asked.append(name)
        raise DataNotFoundError("no weights here")

    asked: list[str] = []
    monkeypatch.setattr(backbones, "build", absent)
    with pytest.raises(DataNotFoundError, match="no weights here"):
        extract(cache, dict.fromkeys(sources, 1), workers=0)
    assert len(asked) == 1


def test_a_worker_that_dies_loses_its_own_clip_alone(cache: FakeCache, sources: list[Source]) -> None:
    fatal = Source("dies", sources[0].path)
    broken = extract(cache, {fatal: 1, sources[1]: 1, sources[2]: 1}, workers=1)
    assert list(broken) == ["dies"]
    assert "the process that read it died" in broken["dies"]
    assert cache.has(sources[1])
    assert cache.has(sources[2])


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AVZOO_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    assert all(tmp_path in folder.parents for folder in FeatureCache(numbers()).folders.values())
    monkeypatch.delenv("AVZOO_CACHE")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    assert cache_folder() == tmp_path / "home" / ".cache" / "avzoo"


# -- the datamodule --------------------------------------------------------------------------------------------------


class Table(EventDataModule):
    """Rows given as they are."""

    def __init__(self, rows: dict[str, list[Item]], **options: Any) -> None:
        super().__init__(numbers(), workers=0, **options)
        self.rows = rows

    @property
    def classes(self) -> list[str]:
        return CLASSES

    def items(self, split: Split) -> list[Item]:
        return self.rows.get(split, [])


def rows(sources: list[Source]) -> dict[str, list[Item]]:
    a, b, c = sources
    return {
        "train": [
            Item("a#0", a.id, a.path, "drone", 0, 1),
            Item("b", b.id, b.path, CLASSES[0], 0, 2),
            Item("a#2", a.id, a.path, CLASSES[0], 1, 2),  # the same clip on a second row
        ],
        "val": [Item("c", c.id, c.path, "drone", 1, 2), Item("a", a.id, a.path, "drone", 0, 1)],  # a in both
    }


def test_a_split_becomes_batches(sources: list[Source], tmp_path: Path) -> None:
    data = Table(rows(sources), cache=tmp_path / "cache", batch_size=2, views=2)
    data.extract(["train", "val"])
    data.setup("fit")
    assert data.sets["train"].audio.memory.shape == (2, 1, 2, 3)  # two clips on three rows
    assert data.sets["train"].visual.memory.shape == (2, 2, 2, 3)  # two views of each
    assert data.sets["val"].visual.memory.shape == (2, 1, 2, 3)
    batches = list(data.train_dataloader())
    assert [len(batch.id) for batch in batches] == [2, 1]
    assert sorted(id_ for batch in batches for id_ in batch.id) == ["a", "a", "b.2"]
    labels = {tuple(label) for batch in batches for label in batch.label.tolist()}
    assert labels == {(1, 2), (0, 0), (2, 0)}
    (val,) = data.val_dataloader()
    assert val.id == ["-c", "a"]
    torch.testing.assert_close(val.audio[1], data.cache.read(sources[0], "audio"))
    assert data.cache.missing(sources[0], 2) == []  # an id in two splits keeps the views of training
    assert data.cache.missing(sources[2], 2) == [("visual", 1)]


def test_what_does_not_fit_in_memory_is_read_batch_by_batch(
    sources: list[Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs: list[list[Batch]] = []
    for size in (column.IN_MEMORY, 0):
        monkeypatch.setattr(column, "IN_MEMORY", size)
        data = Table(rows(sources), cache=tmp_path / "cache", views=2, swap=1.0, reverse=0.5)
        data.extract(["train", "val"])
        data.setup("fit")
        assert (data.sets["train"].visual.memory is None) == (size == 0)
        epochs.append([*data.train_dataloader(), *data.val_dataloader()])
    for held, read in zip(*epochs, strict=True):
        assert held.id == read.id
        assert all(torch.equal(*pair) for pair in zip(held[:3], read[:3], strict=True))


def test_training_order_follows_the_seed(sources: list[Source], tmp_path: Path) -> None:
    def orders(seed: int) -> list[list[list[int]]]:
        data = Table(rows(sources), cache=tmp_path / "cache", batch_size=1, seed=seed)
        data.extract(["train", "val"])
        data.setup("fit")
        loader = data.train_dataloader()
        return [[batch.label.tolist() for batch in loader] for _ in range(6)]

    assert orders(0) == orders(0)
    assert orders(0) != orders(1)
    assert len({str(epoch) for epoch in orders(0)}) > 1


def test_clips_that_cannot_be_read_are_listed_never_skipped_in_silence(
    sources: list[Source], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources[1].path.unlink()
    strict = Table(rows(sources), cache=tmp_path / "cache")
    with pytest.raises(MediaError, match=r"(?s)1 of 3 clips.*b\.2: .*b\.2\.mkv.*The others are done.*on_missing: skip"):
        strict.extract(["train", "val"])
    assert not strict.cache.missing(sources[0], 1)
    with pytest.raises(MediaError, match="1 of 3 rows have no features"):
        strict.setup("fit")
    lenient = Table(rows(sources), cache=tmp_path / "cache", on_missing="skip")
    lenient.extract(["train", "val"])
    lenient.setup("fit")
    printed = capsys.readouterr().out
    assert "b.2" in printed
    assert "1 of 3" in printed
    assert len(lenient.sets["train"]) == 2


def test_a_split_without_a_clip_is_an_error(sources: list[Source], tmp_path: Path) -> None:
    with pytest.raises(AvzooError, match="test"):
        Table(rows(sources), cache=tmp_path / "cache", on_missing="skip").setup("test")
