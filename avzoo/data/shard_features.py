"""The features of packed clips: read from their records, or extracted from what the records hold, and cached."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avzoo.augment import AUGMENT_VERSION
from avzoo.clip import Clip
from avzoo.data.features import FeatureCache, Modality, Source, View
from avzoo.errors import AvzooError, MediaError
from avzoo.preprocess import Preprocess
from avzoo.shards import Shards
from avzoo.shards.records import read_array, view_member


@dataclass(frozen=True)
class ShardSource(Source):
    """A clip in a shard: `row` is its number in the index."""

    row: int = 0

    @property
    def place(self) -> str:
        """What tells it from others of the same id."""
        return f"{self.path.name}, row {self.row}"


def row_of(source: Source) -> int:
    """The row of a clip in a shard.

    Raises:
        AvzooError: If it is in none.
    """
    if not isinstance(source, ShardSource):
        raise AvzooError(f"{source.path}: is in no shard")
    return source.row


class ShardCache(FeatureCache):
    """The features of packed clips: in the shards themselves, or else in the cache, by what the record holds."""

    def __init__(self, shards: Shards, preprocess: Preprocess, **options: Any) -> None:
        super().__init__(preprocess, **options)
        self.shards = shards

    def source(self, row: int) -> ShardSource:
        """The clip of a row."""
        index = self.shards.index
        path = Path(self.shards.root, self.shards.names[index.shard(row)])
        return ShardSource(index.id(row), path, None, index.start(row), row)

    def path(self, source: Source, modality: Modality, view: int = 0) -> Path:
        """Named by the record's sha256: wherever the shards lie, its features are found again."""
        sha256 = self.shards.index.sha256(row_of(source))
        suffix = f"+{source.start:g}@{view}" + (f"-{AUGMENT_VERSION}" if view else "")
        return self.folders[modality] / f"shards-{sha256[:2]}" / f"{sha256}{suffix}.safetensors"

    def _stamp(self, source: Source, modality: Modality) -> str:  # noqa: ARG002 - the record is in the name
        return " ".join([self.on_missing_audio, self.on_damage] if modality == "audio" else [self.on_damage])

    def missing(self, source: Source, views: int) -> list[View]:
        """Nothing where features were packed."""
        return [] if self.shards.content == "features" else super().missing(source, views)

    def read(self, source: Source, modality: Modality, view: int = 0, segments: slice = slice(None)) -> Tensor:
        """The features of some segments, `[segments, ...]`."""
        if self.shards.content != "features":
            return super().read(source, modality, view, segments)
        return self.packed(row_of(source), modality, view, segments)

    def packed(self, row: int, modality: Modality, view: int, segments: slice) -> Tensor:
        """Features that were packed."""
        record = self.shards.read(row)
        return torch.from_numpy(read_array(record["audio.npy" if modality == "audio" else view_member(view)])[segments])

    def clip(self, source: Source, modalities: Collection[Modality]) -> Clip:
        """The decoded frames, or the media file decoded now."""
        row = row_of(source)
        record = self.shards.read(row)
        said = json.loads(bytes(record["json"]))
        if self.shards.content == "frames":
            return Clip(
                frames=torch.from_numpy(read_array(record["frames.npy"])).permute(0, 3, 1, 2),
                frame_times=torch.tensor(self.preprocess.frame_times(), dtype=torch.float64),
                waveform=torch.from_numpy(read_array(record["audio.npy"])),
                sample_rate=said["sample_rate"],
                id=source.id,
                start=source.start,
            )
        with tempfile.TemporaryDirectory() as folder:
            files = {kind: Path(folder, f"{kind}.{said['media'][kind]}") for kind in said["media"]}
            for kind, file in files.items():
                file.write_bytes(record[said["media"][kind]])
            try:
                return super().clip(replace(source, path=files["video"], audio=files.get("audio")), modalities)
            except MediaError as error:
                raise MediaError(str(error).replace(f"{folder}/", f"{self.shards.where(row)}: ")) from error


class Reader:
    """What `Column` asks for; a process that reads batches ahead gets a copy."""

    def __init__(self, cache: ShardCache, rows: Sequence[int]) -> None:
        self.cache, self.rows = cache, rows

    def read(self, modality: Modality, clip: int, view: int, segments: slice) -> Tensor:
        """The features of some segments, `[segments, ...]`."""
        row = self.rows[clip]
        if self.cache.shards.content == "features":
            return self.cache.packed(row, modality, view, segments)
        return self.cache.read(self.cache.source(row), modality, view, segments)

    def ahead(self, clips: list[int]) -> None:
        """Bring the records of a batch."""
        self.cache.shards.fetch(self.rows[clip] for clip in clips)
