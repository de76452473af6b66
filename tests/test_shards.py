"""Shards: the same bytes whenever they are packed, readable by other programs, and read back from anywhere."""

from __future__ import annotations

import errno
import gc
import hashlib
import io
import json
import multiprocessing
import os
import pickle
import resource
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from media import Picture, Sound, write_media
from safetensors.numpy import load_file, save_file
from shard_server import Server, serve

from avzoo.data import packing
from avzoo.data.ave import AVE
from avzoo.data.base import AVDataModule
from avzoo.data.clips import Clips
from avzoo.data.packing import pack
from avzoo.data.tau import TAU
from avzoo.errors import AvzooError, DataNotFoundError, MediaError
from avzoo.shards import Shards, storage
from avzoo.shards.index import Entry, Index, write_index
from avzoo.shards.records import member_header, members, read_array, write_array

LIGHT: dict[str, Any] = {"audio_backbone": "vggish", "visual_backbone": "tf_efficientnet_lite0", "size": 32}
GAMMATONE: dict[str, Any] = {
    "audio_kind": "gammatone", "sample_rate": 8000, "window": 320, "hop": 160, "f_max": 4000.0, "fps": 5,
    "visual_kind": "frame", "visual_backbone": "tf_efficientnet_lite0", "size": 16,
}  # fmt: skip


def events(root: Path, **options: Any) -> AVE:
    return AVE(root, preprocess=LIGHT, workers=0, **options)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def packed(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the rendered clips; six training clips of 0.1 MB, a shard each."""
    folder = tmp_path_factory.mktemp("packed")
    pack(events(rendered), folder, content="clips", megabytes=0)
    return folder


# -- packing ---------------------------------------------------------------------------------------------------------


def test_the_same_clips_are_the_same_bytes(rendered: Path, packed: Path, tmp_path: Path) -> None:
    assert pack(events(rendered), tmp_path / "again", content="clips", megabytes=0) == {}
    assert digests(tmp_path / "again") == digests(packed)
    assert [name for name in digests(packed) if name.startswith("train")] == [f"train-{n:06d}.tar" for n in range(6)]
    shards = Shards(packed)
    for split in ("train", "val", "test"):
        for row, item in zip(shards.splits[split], events(rendered).items(split), strict=True):
            record = shards.read(row)
            assert bytes(record["mp4"]) == item.path.read_bytes()
            said = json.loads(bytes(record["json"]))
            assert said["events"] == [{"label": item.label, "start": item.start, "end": item.end}]
            assert (said["key"], said["split"]) == (item.key, split)
            assert shards.index.find(item.key) == row
            assert bytes(shards.read(item.key)["mp4"]) == bytes(record["mp4"])
    for row, said in (("nothing", "key 'nothing'"), (-1, "row -1"), (12, "row 12")):
        with pytest.raises(DataNotFoundError, match=f"has no {said} among its 12"):
            shards.read(row)


def test_where_nothing_can_be_written_nothing_is_packed(rendered: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AvzooError, match=r"file cannot be written to \(File exists\): choose another folder"):
        pack(events(rendered), tmp_path / "file", content="clips")


@pytest.mark.usefixtures("cheap_backbones")
@pytest.mark.parametrize("content", ["frames", "features"])
def test_a_killed_pack_goes_on_behind_its_last_shard(
    content: Any, rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pack(events(rendered), tmp_path / "undisturbed", content=content, megabytes=0)
    write, written = packing._write_record, list[str]()

    def killed(file: Any, key: str, made: Any) -> Any:
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(key)
        return write(file, key, made)

    monkeypatch.setattr(packing, "_write_record", killed)
    with pytest.raises(KeyboardInterrupt):
        pack(events(rendered), tmp_path / "killed", content=content, megabytes=0)
    with pytest.raises(DataNotFoundError, match="is not finished: run the same `avzoo shard` again"):
        Shards(tmp_path / "killed")
    first = [key for key in written]
    written[:] = ["another", "count"]
    monkeypatch.setattr(packing, "_write_record", lambda *made: (written.append(made[1]), write(*made))[1])
    (tmp_path / "killed" / ".train-000004.tar.host-1.tmp").touch()  # what a SIGKILL leaves
    pack(events(rendered), tmp_path / "killed", content=content, megabytes=0)
    assert len(first) + len(written) - 2 == 12
    assert digests(tmp_path / "killed") == digests(tmp_path / "undisturbed")
    written.clear()
    pack(events(rendered), tmp_path / "killed", content=content, megabytes=0)
    assert written == []
    assert "is finished already" in capsys.readouterr().out
    with pytest.raises(AvzooError, match="holds shards that differ in megabytes: pack into another folder"):
        pack(events(rendered), tmp_path / "killed", content=content, megabytes=1)


@pytest.fixture
def own_clips(tmp_path: Path) -> Path:
    """Two scenes, three files each, one of them damaged, one long."""
    for label in ("bus", "tram"):
        (tmp_path / "clips" / label).mkdir(parents=True)
        for name, seconds in (("a", 1.0), ("b", 1.0), ("c", 12.0)):
            tracks = Picture(seconds=seconds, fps=5, size=(16, 16)), Sound(seconds=seconds, rate=8000)
            write_media(tmp_path / "clips" / label / f"{name}.mp4", *tracks)
    (tmp_path / "clips" / "bus" / "d.mp4").write_bytes(b"no video")
    return tmp_path / "clips"


@pytest.mark.usefixtures("cheap_backbones")
@pytest.mark.parametrize("content", ["clips", "frames", "features"])
def test_a_broken_clip_is_named_and_the_others_are_packed(
    content: Any, own_clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Clips(own_clips, preprocess=GAMMATONE, workers=0)
    for said in ("", "is finished already, without 1 clips: delete it to try them again\n"):
        broken = pack(data, tmp_path / "out", content=content)
        assert capsys.readouterr().out.endswith(said)
        assert list(broken) == ["bus/d.mp4"]
        assert "d.mp4" in broken["bus/d.mp4"]
    shards = Shards(tmp_path / "out")
    expected = [item.key for split in ("train", "val") for item in data.items(split) if item.key != "bus/d.mp4"]
    assert [shards.index.key(row) for row in range(len(shards.index))] == expected
    assert list(shards.splits) == ["train", "val"]


def test_a_disk_that_is_full_breaks_no_clip(rendered: Path, packed: Path, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (250_000, limits[1]))  # the third clip of a shard is too much
    try:
        with pytest.raises(AvzooError, match=r"out is not finished \(.*File too large.*\): make room"):
            pack(events(rendered), tmp_path / "out", content="clips", megabytes=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert pack(events(rendered), tmp_path / "out", content="clips", megabytes=1) == {}
    assert everything(Shards(tmp_path / "out")) == everything(Shards(packed))


def test_nor_does_a_full_disk_for_temporary_files(
    rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(packing, "probe", full)
    with pytest.raises(AvzooError, match=r"out is not finished \(.*No space left"):
        pack(events(rendered), tmp_path / "out", content="clips")


def test_a_clip_that_goes_while_it_is_packed(own_clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = own_clips / "tram" / "a.mp4"
    probe = packing.probe
    monkeypatch.setattr(packing, "probe", lambda path: (probe(path), path == gone and path.unlink())[0])
    broken = pack(Clips(own_clips, preprocess=GAMMATONE, workers=0), tmp_path / "out", content="clips")
    assert sorted(broken) == ["bus/d.mp4", "tram/a.mp4"]
    assert "No such file" in broken["tram/a.mp4"]
    assert len(Shards(tmp_path / "out").index) == 7


def test_the_windows_of_a_file_share_its_bytes(own_clips: Path, tmp_path: Path) -> None:
    pack(Clips(own_clips, preprocess=GAMMATONE, workers=0), tmp_path / "out", content="clips")
    shards = Shards(tmp_path / "out")
    first, second = (shards.index.find(key) for key in ("tram/c.mp4", "tram/c.mp4+2"))
    assert shards.index.span(first) == shards.index.span(second)
    assert (shards.index.start(first), shards.index.start(second)) == (0, 2)
    said = json.loads(bytes(shards.read(second)["json"]))
    assert [window["key"] for window in said["windows"]] == ["tram/c.mp4", "tram/c.mp4+2"]


def test_sound_in_a_file_of_its_own(rendered_tau: Path, tmp_path: Path) -> None:
    data = TAU(rendered_tau, val="metadata", preprocess=GAMMATONE)
    pack(data, tmp_path, content="clips")
    item = data.items("train")[0]
    assert item.audio is not None
    record = Shards(tmp_path).read(item.key)
    assert json.loads(bytes(record["json"]))["media"] == {"video": "mp4", "audio": item.audio.suffix[1:]}
    assert bytes(record[item.audio.suffix[1:]]) == item.audio.read_bytes()
    assert bytes(record["mp4"]) == item.path.read_bytes()


# -- other programs --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["clips", "features"])
def for_others(request: pytest.FixtureRequest, rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("for-others")
    data: AVDataModule = events(rendered)
    if request.param == "features":
        data.cache.missing = lambda source, views: []  # type: ignore[method-assign, assignment]  # noqa: ARG005
        data.cache.read = lambda source, *part: torch.arange(30.0).reshape(10, 3)  # type: ignore[assignment]  # noqa: ARG005
    pack(data, folder, content=request.param, megabytes=0)
    return data, sorted(str(path) for path in folder.glob("train-*.tar"))


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its files to the garbage collector
def test_webdataset_reads_them(for_others: tuple[AVDataModule, list[str]]) -> None:
    webdataset = pytest.importorskip("webdataset")
    data, files = for_others
    samples = list(webdataset.WebDataset(files, shardshuffle=False).decode())
    gc.collect()
    assert [sample["json"]["key"] for sample in samples] == [item.key for item in data.items("train")]
    if "audio.npy" in samples[0]:
        assert samples[0]["audio.npy"].shape == (10, 3)
    else:
        assert samples[0]["mp4"] is not None


def test_datasets_reads_them(
    for_others: tuple[AVDataModule, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    data, files = for_others
    datasets.disable_progress_bars()
    table = datasets.load_dataset("webdataset", data_files=files, split="train", cache_dir=str(tmp_path))
    rows = table.select_columns(["__key__", "json"])
    assert [row["json"]["label"] for row in rows] == [item.label for item in data.items("train")]
    if "audio.npy" in table.column_names:
        assert np.array(table[0]["audio.npy"]).shape == (10, 3)
    else:
        stored = table.cast_column("mp4", datasets.Video(decode=False))[0]["mp4"]["bytes"]
        assert stored == data.items("train")[0].path.read_bytes()


def test_tar_unpacks_them_flat(packed: Path, tmp_path: Path) -> None:
    with tarfile.open(packed / "train-000000.tar") as archive:
        archive.extractall(tmp_path, filter="data")
        assert {member.mtime for member in archive} == {0}
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".mp4"}


# -- damage and malice -----------------------------------------------------------------------------------------------


@pytest.fixture
def copied(packed: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copied"
    folder.mkdir()
    for path in packed.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_a_damaged_record_is_named_with_what_to_do(copied: Path) -> None:
    tar = copied / "val-000001.tar"
    content = bytearray(tar.read_bytes())
    content[len(content) // 2] ^= 1
    for damaged in (content, content[:5000]):
        tar.write_bytes(damaged)
        shards = Shards(copied)
        row = shards.splits["val"][1]
        with pytest.raises(MediaError) as caught:
            shards.read(row)
        for part in ("val-000001.tar", repr(shards.index.key(row)), "damaged", "copy again", "pack the data again"):
            assert part in str(caught.value)
        assert shards.read(row - 1)["mp4"]
    tar.unlink()
    with pytest.raises(DataNotFoundError, match=r"val-000001\.tar is not there .*: copy it again, or pack"):
        Shards(copied).read(row)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"format": 2}, "format 2 of shards, expected 1"),
        ({"index": None}, "is not finished"),
        ("{", "is no JSON"),
        ("[1]", r"format \[1\] of shards, expected 1"),
    ],
)
def test_descriptions_that_cannot_be_used(copied: Path, facts: dict[str, Any] | str, said: str) -> None:
    path = copied / "shards.json"
    if isinstance(facts, dict):
        changed = json.loads(path.read_text()) | facts
        facts = json.dumps({key: value for key, value in changed.items() if value is not None})
    path.write_text(facts)
    with pytest.raises(AvzooError, match=said):
        Shards(copied)


def test_an_index_that_is_cut_short(copied: Path) -> None:
    path = copied / "index.safetensors"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(MediaError, match=r"index\.safetensors cannot be read .*: copy it again"):
        Shards(copied)


def test_an_index_with_other_labels(copied: Path, remote: Open) -> None:
    cached = remote().index.path
    openings: list[tuple[Path, str, Callable[[], Shards]]] = [
        (copied / cached.name, "copy again", lambda: Shards(copied)),
        (cached, "delete", remote),
    ]
    for path, again, opened in openings:
        columns = load_file(path)
        save_file({**columns, "label": columns["label"][::-1].copy()}, path)
        with pytest.raises(MediaError, match=rf"index\.safetensors is damaged \(sha256\): {again} {path}, or pack"):
            opened()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../up.json", tarfile.REGTYPE), ("/etc/x.json", tarfile.REGTYPE), ("a/../../x.json", tarfile.REGTYPE),
        ("a\\b.json", tarfile.REGTYPE), ("noextension", tarfile.REGTYPE), (".hidden", tarfile.REGTYPE),
        ("a..", tarfile.REGTYPE), ("a./etc/passwd", tarfile.REGTYPE), ("a.json", tarfile.SYMTYPE),
        ("a.json", tarfile.LNKTYPE), ("a.json", tarfile.DIRTYPE),
    ],
)  # fmt: skip
def test_names_and_kinds_that_are_refused(name: str, kind: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    with pytest.raises(MediaError, match=r"here: has a member .* refused"):
        members(bytearray(member.tobuf(tarfile.GNU_FORMAT)), lambda: "here")


def test_members_of_every_size() -> None:
    record = bytearray()
    for size in (0, 1, 512, 513):
        record += member_header(f"a.part{size}", size) + bytes(size) + bytes(-size % 512)
    assert {name: len(member) for name, member in members(record, str).items()} == {
        "part0": 0, "part1": 1, "part512": 512, "part513": 513,
    }  # fmt: skip
    huge = bytearray(member_header("a.mp4", 9 << 30))
    assert [*members(huge, str)] == ["mp4"]


def test_arrays_are_read_as_numpy_writes_them_and_pickles_are_not() -> None:
    for values in (np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros((0, 3), np.uint8), np.arange(3).T):
        written = write_array(values)
        assert np.array_equal(np.load(io.BytesIO(written), allow_pickle=False), values)
        found = read_array(memoryview(bytearray(written)))
        assert found.dtype == values.dtype
        assert np.array_equal(found, values)
        assert found.flags.writeable
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        write_array(np.array([{}]))
    file = io.BytesIO()
    np.save(file, np.array([{}]), allow_pickle=True)
    with pytest.raises(MediaError, match="refused"):
        read_array(memoryview(bytearray(file.getvalue())))


def test_the_index_finds_every_key_and_leaves_the_columns_on_disk(tmp_path: Path) -> None:
    keys = [f"ключ {n}" if n % 3 else f"key-{n}" for n in range(1000)]
    write_index(
        tmp_path / "index",
        (
            Entry(
                key, key[::-1], n % 7, n * 512, n, hashlib.sha256(key.encode()).digest(), n / 2, ((n % 5, 0.0, n),) * 2
            )
            for n, key in enumerate(keys)
        ),
    )
    index = Index(tmp_path / "index")
    assert [index.find(key) for key in keys] == list(range(1000))
    assert [index.key(row) for row in range(1000)] == keys
    assert (index.id(7), index.shard(7), index.span(7), index.start(7)) == (keys[7][::-1], 0, (3584, 3591), 3.5)
    assert index.events(7) == [(2, 0.0, 7.0)] * 2
    assert index.sha256(7) == hashlib.sha256(keys[7].encode()).hexdigest()
    mapped = Path(f"/proc/{os.getpid()}/maps").read_text()
    assert str(tmp_path / "index") in mapped


# -- from a URL ------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(copied: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(storage, "PAUSE", 0.0)
    with serve(copied) as server:
        yield server


Open = Callable[..., Shards]


@pytest.fixture
def remote(server: Server, tmp_path: Path) -> Open:
    """The shards over HTTP, with a cache of so many bytes."""
    return lambda size=10**9: Shards(server.url, cache=tmp_path / "shard-cache", cache_size=size)


def everything(shards: Shards) -> list[bytes]:
    return [bytes(shards.read(row)["mp4"]) for row in range(len(shards.index))]


def test_shards_that_fit_into_the_cache_are_fetched_whole_and_once(packed: Path, server: Server, remote: Open) -> None:
    expected = everything(Shards(packed))
    for _ in range(2):
        assert everything(remote()) == expected
    assert len(server.fetched(".tar")) == len({name for name, _ in server.fetched(".tar")}) == 12
    assert len(server.fetched(".safetensors")) == 1


def test_otherwise_records_come_by_ranges(packed: Path, server: Server, remote: Open) -> None:
    index = (packed / "index.safetensors").stat().st_size
    shards = remote(index + 1)
    wanted = [3, 0, 7, 3]
    shards.fetch(wanted)
    sizes = sorted(end - start for start, end in map(shards.index.span, {3, 0, 7}))
    assert sorted(size for _, size in server.fetched(".tar")) == sizes
    local = Shards(packed)
    for row in wanted:
        assert bytes(shards.read(row)["mp4"]) == bytes(local.read(row)["mp4"])
    assert len(server.fetched(".tar")) == 3  # they were there already


def test_the_cache_keeps_its_bound(packed: Path, server: Server, remote: Open, tmp_path: Path) -> None:
    server.ranges = False
    tars = {path.name: path.stat().st_size for path in packed.glob("*.tar")}
    limit = (packed / "index.safetensors").stat().st_size + sum(sorted(tars.values())[-2:])
    shards, expected = remote(limit), everything(Shards(packed))
    for row, content in enumerate(expected):
        assert bytes(shards.read(row)["mp4"]) == content
        held = [path for path in (tmp_path / "shard-cache").rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in held) <= limit
        if row:  # what was used last is still there
            assert {shards.names[row - 1], shards.names[row]} <= {path.name for path in held}
    assert not [path for path in held if path.suffix in (".tmp", ".claim")]
    with pytest.raises(AvzooError, match=r"more than are left of the .* may hold: raise cache_size"):
        everything(remote(limit - sum(sorted(tars.values())[-2:]) + 1))


def test_what_fails_for_a_moment_is_tried_again(packed: Path, server: Server, remote: Open) -> None:
    index = (packed / "index.safetensors").stat().st_size
    expected = everything(Shards(packed))
    server.fail = 2
    whole, ranges = remote(), remote(index + 1)
    server.cut = 2
    assert bytes(whole.read(2)["mp4"]) == expected[2]
    assert bytes(ranges.read(3)["mp4"]) == expected[3]
    server.fail = 100
    for shards in (whole, ranges):
        with pytest.raises(MediaError, match=r"train-00000\d\.tar cannot be read, after 5 tries: .*503"):
            shards.read(4)


def test_what_is_gone_or_damaged_there(packed: Path, copied: Path, server: Server, remote: Open) -> None:
    index = (packed / "index.safetensors").stat().st_size
    whole, ranges = remote(), remote(index + 1)
    server.flip = True
    with pytest.raises(MediaError, match=r"train-000002\.tar, record '.*' is damaged \(sha256\): copy its shard"):
        ranges.read(2)
    server.flip = False
    (copied / "train-000001.tar").unlink()
    for shards in (whole, ranges):
        with pytest.raises(DataNotFoundError, match=r"train-000001\.tar is not there"):
            shards.read(1)
    path = whole.storage.path(whole.names[3], whole.facts["shards"][whole.names[3]])
    path.write_bytes(path.read_bytes().replace(b"mdat", b"tadm"))
    with pytest.raises(MediaError, match=r"train-000003\.tar, record '.*' is damaged \(sha256\): delete .*shard-cache"):
        whole.read(3)


def test_a_transfer_that_broke_off_goes_on(copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PAUSE", 0.0)
    monkeypatch.setattr(storage, "PIECE", 10_000)
    memory = MemoryFileSystem()
    memory.put(str(copied), "/far", recursive=True)
    asked: list[int] = []

    def broken_off(self: Any, source: str, target: str) -> None:
        content = self.cat_file(source)
        Path(target).write_bytes(content[: len(content) // 2])
        raise OSError("the line went dead")

    def part(self: Any, path: str, start: int | None = None, end: int | None = None) -> bytes:
        if len(asked) == 3 and start:
            asked.append(0)
            raise OSError("and again")
        content = bytes(self.store[self._strip_protocol(path)].getvalue()[start:end])
        asked.extend([len(content)] * bool(start))
        return content

    monkeypatch.setattr(MemoryFileSystem, "get_file", broken_off)
    monkeypatch.setattr(MemoryFileSystem, "cat_file", part)
    shards = Shards("memory://far", cache=tmp_path / "cache")
    assert bytes(shards.read(0)["mp4"]) == bytes(Shards(copied).read(0)["mp4"])
    sizes = [shards.facts["index"]["size"], *shards.facts["shards"].values()][:2]
    assert sum(asked) == sum(size - size // 2 for size in sizes)  # nothing twice
    assert max(asked) <= 10_000
    memory.rm("/far", recursive=True)


def test_a_transfer_over_http_may_take_any_time_as_long_as_bytes_come() -> None:
    limits = storage._system("http://127.0.0.1:9/x", os.getpid()).client_kwargs["timeout"]  # type: ignore[attr-defined]
    assert (limits.total, limits.sock_connect, limits.sock_read) == (None, 30, 60)


def test_processes_share_the_cache(packed: Path, server: Server, remote: Open) -> None:
    fork = multiprocessing.get_context("fork")
    shards = remote()

    def read_all(again: bytes, out: Any) -> None:
        out.put(hashlib.sha256(b"".join(everything(pickle.loads(again)))).hexdigest())

    queue = fork.SimpleQueue()
    processes = [fork.Process(target=read_all, args=(pickle.dumps(shards), queue)) for _ in range(3)]
    for process in processes:
        process.start()
    found = {queue.get() for _ in processes}
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert found == {hashlib.sha256(b"".join(everything(Shards(packed)))).hexdigest()}
    assert len(server.fetched(".tar")) == 12


@pytest.mark.parametrize("scheme", ["s3", "gs", "nothing"])
def test_a_url_that_nothing_here_reads_says_what_to_install(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(AvzooError, match=rf"{scheme}://bucket/folder: .*pip install s3fs"):
        Shards(f"{scheme}://bucket/folder")
