"""Pack what a datamodule lists into shards: the same bytes whenever and wherever it is done, and resumable.

A shard appears whole or not at all; `.packing/` holds what the index has to know of the finished ones until the last is
done. A killed pack goes on behind its last finished shard, and a finished one is left alone.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from avzoo.clip import probe
from avzoo.data.base import AVDataModule, Item, Split
from avzoo.data.features import extract
from avzoo.errors import AvzooError, MediaError
from avzoo.files import FULL, leftovers, sha256, whole
from avzoo.preprocess import Preprocessor
from avzoo.shards.index import Entry, write_index
from avzoo.shards.reading import FORMAT, requirements
from avzoo.shards.records import END, member_header, member_name, padding, view_member, write_array
from avzoo.shards.storage import locked

Content = Literal["clips", "frames", "features"]
Group = list[Item]  # the items that share a record
Members = dict[str, bytes | Path]  # by extension
CHUNK = 4 << 20  # bytes copied at once


def pack(data: AVDataModule, out: Path, *, content: Content, megabytes: int = 256) -> dict[str, str]:
    """Pack all splits of a dataset, with a progress bar; one broken clip never stops the rest.

    Args:
        data: The dataset.
        out: A folder; made if missing.
        content: What of each clip.
        megabytes: After so many a shard is ended.

    Returns:
        The keys that could not be packed, each with its reason.

    Raises:
        AvzooError: If other shards are in the folder, or it cannot be written to.
    """
    groups = {split: _groups(data.items(split), content) for split in data.available}
    listing = hashlib.sha256()
    for split, group in ((split, group) for split, own in groups.items() for group in own):
        listing.update(json.dumps([describe(item, split) for item in group]).encode())
    facts: dict[str, Any] = {
        "format": FORMAT,
        "content": content,
        "task": data.task,
        "classes": data.classes,
        "views": data.cached_views("train") if content == "features" else 1,
        "preprocess": requirements(content, data.preprocess),
        "megabytes": megabytes,
        "listing": listing.hexdigest(),
    }
    with locked(out / ".lock"):  # who comes second waits, and finds it finished
        try:
            broken = _pack(data, out, facts, groups)
        except OSError as error:
            raise AvzooError(
                f"{out} is not finished ({error}): make room or mend what else is wrong there; the same command goes on"
                " behind the last whole shard"
            ) from error
        (out / ".lock").unlink(missing_ok=True)
    return broken


def _pack(data: AVDataModule, out: Path, facts: dict[str, Any], groups: dict[Split, list[Group]]) -> dict[str, str]:
    path = out / "shards.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else facts
    differ = [name for name in facts if facts[name] != before.get(name)]
    if differ:
        raise AvzooError(
            f"{out} holds shards that differ in {', '.join(differ)}: pack into another folder, or delete this one"
        )
    if "index" in before:
        left_out = len(before["broken"])
        print(f"{out} is finished already{f', without {left_out} clips: delete it to try them again' * bool(left_out)}")
        return dict(before["broken"])
    for leftover in leftovers(out, alone=True):
        leftover.unlink()
    _write_json(path, facts)
    unfit = {}
    if facts["content"] == "features":
        unfit = extract(data.cache, data.sources(data.available), workers=data.workers, device=data.device)
    for split, own in groups.items():
        _pack_split(Contents(data, split, own, facts["content"], unfit), out, facts["megabytes"] * 1_000_000)
    return _finish(out, facts, groups)


def describe(item: Item, split: Split) -> dict[str, Any]:
    """What the JSON of a record says of an item, all of it in every record: some readers want them alike."""
    events = getattr(item, "events", ()) or ((item.label, item.start, item.end),)
    return {
        "key": item.key,
        "id": item.id,
        "split": split,
        "label": item.label,
        "start": float(item.start),
        "end": float(item.end),
        "offset": float(item.source.start),
        "events": [{"label": label, "start": float(start), "end": float(end)} for label, start, end in events],
    }


def _groups(items: Sequence[Item], content: Content) -> list[Group]:
    """The windows of one file lie in one record of clips; else each item has its own."""
    if content != "clips":
        return [[item] for item in items]
    return [list(group) for _, group in itertools.groupby(items, lambda item: (item.path, item.audio))]


class Contents(Dataset[Members | str]):
    """The members of every record but its JSON, or why there are none."""

    def __init__(
        self, data: AVDataModule, split: Split, groups: Sequence[Group], content: Content, broken: dict[str, str]
    ) -> None:
        self.data, self.split, self.groups, self.content, self.broken = data, split, groups, content, broken
        self.preprocessor = Preprocessor(data.preprocess)

    def __getitem__(self, number: int) -> Members | str:
        group = self.groups[number]
        said: dict[str, Any] = describe(group[0], self.split)
        try:
            if self.content == "clips":
                members, said["media"] = self._media(group[0])
                said["windows"] = [describe(item, self.split) for item in group]
            elif self.content == "frames":
                members, said["sample_rate"] = self._frames(group[0])
            else:
                members = self._features(group[0])
        except (AvzooError, OSError, RuntimeError, MemoryError) as error:
            if isinstance(error, OSError) and error.errno in FULL:
                raise
            return str(error) or type(error).__name__
        return {"json": json.dumps(said, ensure_ascii=False).encode(), **members}

    def _media(self, item: Item) -> tuple[Members, dict[str, str]]:
        probe(item.path)
        kinds = {"video": _extension(item.path)}
        members: Members = {kinds["video"]: item.path}
        if item.audio is not None:
            probe(item.audio)
            kinds["audio"] = _extension(item.audio)
            if kinds["audio"] == kinds["video"]:
                kinds["audio"] = f"audio.{kinds['audio']}"
            members[kinds["audio"]] = item.audio
        return members, kinds

    def _frames(self, item: Item) -> tuple[Members, int]:
        clip = self.data.cache.clip(item.source, {"audio", "visual"})
        frames = self.preprocessor.images(clip).permute(0, 2, 3, 1).numpy()
        return {"audio.npy": write_array(clip.waveform.numpy()), "frames.npy": write_array(frames)}, clip.sample_rate

    def _features(self, item: Item) -> Members:
        cache, source, views = self.data.cache, item.source, self.data.cached_views(self.split)
        if cache.missing(source, views):
            reason = self.broken.get(source.place) or self.broken.get(item.id)
            raise MediaError(reason or f"{item.path}: has no features")
        members: Members = {"audio.npy": write_array(cache.read(source, "audio").numpy())}
        for view in range(views):
            members[view_member(view)] = write_array(cache.read(source, "visual", view).numpy())
        return members


def _extension(path: Path) -> str:
    suffix = path.suffix[1:].lower()
    return suffix if suffix.isalnum() else "media"


def _pack_split(contents: Contents, out: Path, limit: int) -> None:
    split, groups = contents.split, contents.groups
    done = number = 0
    while (out / _name(split, number)).exists() and (known := _note(out, split, number)).exists():
        done += json.loads(known.read_text(encoding="utf-8"))["groups"]
        number += 1
    workers = contents.data.workers if contents.data.workers is not None else os.cpu_count() or 1
    loader = DataLoader(
        contents,
        batch_size=None,
        sampler=range(done, len(groups)),
        num_workers=workers if contents.content == "frames" else 0,  # what decodes
        collate_fn=_as_it_is,
    )
    bar = tqdm(zip(groups[done:], loader, strict=True), f"packing {split}", len(groups), initial=done, disable=None)
    stream = iter(bar)
    while done < len(groups):
        with whole(out / _name(split, number)) as unfinished:
            with unfinished.open("wb") as file:
                note = _fill(file, stream, limit)
                file.write(END)
            _write_json(_note(out, split, number), note)
        done, number = done + note["groups"], number + 1
    bar.close()


def _as_it_is(members: Any) -> Any:
    return members


def _fill(file: BinaryIO, stream: Iterator[tuple[Group, Members | str]], limit: int) -> dict[str, Any]:
    """Write records until the shard is full; what the index has to know of it."""
    note: dict[str, Any] = {"groups": 0, "records": {}, "broken": {}}
    for group, members in stream:
        key, start = group[0].key, file.tell()
        note["groups"] += 1
        if isinstance(members, dict):
            try:
                note["records"][key] = [start, *_write_record(file, key, members)]
            except MediaError as error:  # of the clip's file, not of the shard's
                file.seek(start)
                file.truncate()
                members = str(error)
        if isinstance(members, str):
            note["broken"] |= {item.key: members for item in group}
        if file.tell() >= limit:
            break
    return note


def _write_record(file: BinaryIO, key: str, members: Members) -> tuple[int, str]:
    """Append a record; its size and sha256."""
    digest, size = hashlib.sha256(), 0
    for extension, content in sorted(members.items()):
        for part in _member(f"{member_name(key)}.{extension}", content):
            file.write(part)
            digest.update(part)
            size += len(part)
    return size, digest.hexdigest()


def _member(name: str, content: bytes | Path) -> Iterator[bytes]:
    """The bytes of a member, part by part; what fails at its file is a `MediaError`."""
    try:
        with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
            left = size = file.seek(0, os.SEEK_END)
            file.seek(0)
            yield member_header(name, size)
            while part := file.read(CHUNK):
                yield part
                left -= len(part)
            yield padding(size)
    except OSError as error:
        raise MediaError(f"{content!s} cannot be read: {error}") from error
    if left:
        raise MediaError(f"{content!s}: changed while it was read")


def _finish(out: Path, facts: dict[str, Any], groups: dict[Split, list[Group]]) -> dict[str, str]:
    """Write the index, then say that all is done."""
    names: dict[str, int] = {}
    rows = dict.fromkeys(groups, 0)
    broken: dict[str, str] = {}

    def entries() -> Iterator[Entry]:
        for split, own in groups.items():
            rest = iter(own)
            for number in itertools.count():
                if not _note(out, split, number).exists():
                    break
                note = json.loads(_note(out, split, number).read_text(encoding="utf-8"))
                broken.update(note["broken"])
                for group in itertools.islice(rest, note["groups"]):
                    if (record := note["records"].get(group[0].key)) is None:
                        continue
                    offset, size, digest = record
                    for item in group:
                        said = describe(item, split)
                        events = tuple(
                            (facts["classes"].index(event["label"]), event["start"], event["end"])
                            for event in said["events"]
                        )
                        place = (len(names), offset, size, bytes.fromhex(digest), said["offset"])
                        rows[split] += 1
                        yield Entry(item.key, item.id, *place, events)
                names[_name(split, number)] = (out / _name(split, number)).stat().st_size

    index = out / "index.safetensors"
    write_index(index, entries())
    described = {"size": index.stat().st_size, "sha256": sha256(index)}
    done = {"splits": rows, "shards": names, "broken": broken, "index": described}
    _write_json(out / "shards.json", facts | done)
    shutil.rmtree(out / ".packing", ignore_errors=True)
    return broken


def _name(split: Split, number: int) -> str:
    return f"{split}-{number:06d}.tar"


def _note(out: Path, split: Split, number: int) -> Path:
    return out / ".packing" / f"{split}-{number:06d}.json"


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with whole(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
