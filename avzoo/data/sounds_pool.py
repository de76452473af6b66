"""One-second sounds for training the sound encoder: random crops of clips, shifted, mixed, filtered, made noisy.

```
named/metadata.csv, AVE/<video_id>.mp4             AVE's layout; `audio_per_second` names the sound of every second
unnamed/metadata.csv, audio/<id>.ogg               TAU's layout; without names: backgrounds, and more to be distilled
```

Only the rows whose `split` is train (or val) are read. All of a split is held in memory (1000 clips of 10 s: 640 MB).
Training batches are drawn without end to the variety; an epoch is a number of steps, and the same for the same seed
and epoch. Validation is the named seconds as they are.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import lightning as L
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad
from torch.utils.data import DataLoader, Dataset, Sampler

from avzoo.audio import mono, resample
from avzoo.audio_encoder import SoundBatch
from avzoo.clip import read_clip
from avzoo.errors import DataNotFoundError

RATE = 16_000  # Hz; a crop is one second
SECONDS = 10  # length of a clip


class SoundPool(L.LightningDataModule):
    """Crops of named sounds (AVE's layout) and of unnamed ones (TAU's layout).

    Args:
        named: Dataset folder with `audio_per_second` in its `metadata.csv` (names joined by `|`, one a second).
        unnamed: Dataset folder of recordings without names; only its training split is used.
        batch_size: Crops a step.
        steps: Steps an epoch.
        background: The name that means "nothing in particular": such seconds serve as backgrounds too.
        unnamed_share: Share of crops that come from `unnamed`.
        seed: Of all randomness.

    Raises:
        DataNotFoundError: If a folder has no `metadata.csv` or it lacks a column.
    """

    def __init__(
        self,
        named: Path,
        unnamed: Path,
        *,
        batch_size: int = 128,
        steps: int = 200,
        background: str = "background",
        unnamed_share: float = 0.2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.named, self.unnamed = Path(named), Path(unnamed)
        self.batch_size, self.steps, self.seed = batch_size, steps, seed
        self.background, self.unnamed_share = background, unnamed_share
        self.rows = _read_table(self.named, ("video_id", "split", "audio_per_second"))
        self._pools: tuple[_Pool, _Pool] | None = None

    @property
    def classes(self) -> list[str]:
        """The sounds' names, sorted."""
        return sorted({name for row in self.rows for name in row["audio_per_second"].split("|")})

    def setup(self, stage: str) -> None:  # noqa: ARG002 - training needs both splits, and there is no other stage
        """Decode the sound of training and validation."""
        if self._pools is None:
            scenes = _read_table(self.unnamed, ("filename_audio", "split"))
            files = [self.unnamed / row["filename_audio"] for row in scenes if row["split"] == "train"]
            extra = torch.stack([_read_sound(file) for file in files])
            train, val = self._read_named("train"), self._read_named("val")
            nameless = torch.full((len(extra), SECONDS), -1)
            pool = _Pool(torch.cat([train.waveform, extra]), torch.cat([train.label, nameless]))
            self._pools = pool, val

    def _read_named(self, split: str) -> _Pool:
        rows = [row for row in self.rows if row["split"] == split]
        classes = self.classes
        labels = [[classes.index(name) for name in row["audio_per_second"].split("|")] for row in rows]
        sounds = [_read_sound(self.named / "AVE" / f"{row['video_id']}.mp4") for row in rows]
        return _Pool(torch.stack(sounds), torch.tensor(labels))

    def train_dataloader(self) -> DataLoader[SoundBatch]:
        """Random crops, augmented."""
        pool, _ = self._loaded()
        crops = _Crops(pool, self.classes.index(self.background), self.batch_size, self.unnamed_share)
        return DataLoader(crops, None, sampler=_Seeds(self.steps, self.seed))

    def val_dataloader(self) -> DataLoader[SoundBatch]:
        """The named seconds of validation as they are."""
        _, pool = self._loaded()
        return DataLoader(_Seconds(pool, self.batch_size), batch_size=None)

    def _loaded(self) -> tuple[_Pool, _Pool]:
        if self._pools is None:
            raise DataNotFoundError("SoundPool holds no sounds yet: call setup('fit') before asking for batches")
        return self._pools


class _Pool(NamedTuple):
    waveform: Tensor  # [clips, SECONDS * RATE]
    label: Tensor  # [clips, SECONDS], -1 without a name


def _read_table(folder: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    path = folder / "metadata.csv"
    if not path.is_file():
        raise DataNotFoundError(f"{path}: no such file; expected a dataset folder with a table of its clips")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    missing = [column for column in columns if not rows or column not in rows[0]]
    if missing:
        raise DataNotFoundError(f"{path}: has no column {missing[0]!r}, expected {list(columns)} and at least one row")
    return rows


def _read_sound(path: Path) -> Tensor:
    clip = read_clip(path, times=(), seconds=SECONDS)
    return resample(mono(clip.waveform), clip.sample_rate, RATE)[: SECONDS * RATE]


class _Seconds(Dataset[SoundBatch]):
    """A pool's seconds as they are; the index is the batch."""

    def __init__(self, pool: _Pool, batch_size: int) -> None:
        self.sounds = pool.waveform.view(-1, RATE)
        self.label, self.batch_size = pool.label.flatten(), batch_size

    def __len__(self) -> int:
        return -(-len(self.label) // self.batch_size)

    def __getitem__(self, batch: int) -> SoundBatch:
        rows = slice(batch * self.batch_size, (batch + 1) * self.batch_size)
        if batch >= len(self):
            raise IndexError(batch)
        return SoundBatch(self.sounds[rows], self.label[rows])


class _Seeds(Sampler[int]):
    """The seeds of an epoch's batches, other ones each epoch."""

    def __init__(self, steps: int, seed: int) -> None:
        self.steps, self.next = steps, seed * 1_000_003

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[int]:
        first, self.next = self.next, self.next + self.steps
        yield from range(first, first + self.steps)


class _Crops(Dataset[SoundBatch]):
    """Batches of random crops, augmented; the index is the seed."""

    def __init__(self, pool: _Pool, background: int, batch_size: int, unnamed_share: float) -> None:
        self.pool, self.batch_size = pool, batch_size
        unnamed = pool.label[:, 0] < 0
        shares = torch.tensor([1 - unnamed_share, unnamed_share]) / torch.bincount(unnamed.long(), minlength=2)
        self.weights = shares[unnamed.long()]
        calm = (pool.label < 0) | (pool.label == background)
        self.calm = calm.nonzero()  # [n, 2]: clip and second that can lie behind a named sound

    def __getitem__(self, seed: int) -> SoundBatch:
        g = torch.Generator().manual_seed(seed)
        n = self.batch_size
        clip = torch.multinomial(self.weights, n, replacement=True, generator=g)
        speed = torch.where(torch.rand(n, generator=g) < 0.3, 1.0, 2 ** _uniform(n, -0.3, 0.3, g))  # +-3.6 semitones
        length = (RATE * speed).long()
        start = (torch.rand(n, generator=g) * (SECONDS * RATE - length)).long()
        sound = self._read(clip, start, length)
        first, last = start // RATE, (start + length - 1) // RATE  # at 1.23 s, a crop touches two or three seconds
        touched = [self.pool.label[clip, second] for second in (first, (first + last) // 2, last)]
        label = torch.where((touched[0] == touched[1]) & (touched[0] == touched[2]), touched[0], -1)

        # A background behind it, 0 to 25 dB lower; or any other sound as loud as it, and then no name fits.
        behind = self.calm[torch.randint(len(self.calm), (n,), generator=g)]
        other = self._read(behind[:, 0], behind[:, 1] * RATE, torch.full((n,), RATE))
        kind = torch.rand(n, generator=g)
        shuffled = torch.randperm(n, generator=g)
        any_other = kind < 0.15
        other[any_other] = sound[shuffled][any_other]
        below = torch.where(any_other, _uniform(n, -6, 6, g), _uniform(n, 0, 25, g))
        gain = _level(sound) / _level(other) * _decibels(-below)
        sound.addcmul_(other, torch.where((kind < 0.6)[:, None], gain, 0.0))
        label = torch.where(any_other & (label[shuffled] != label), -1, label)

        filtered, noisy = torch.rand(n, generator=g) < 0.5, torch.rand(n, generator=g) < 0.3
        sound[filtered] = _filter(sound[filtered], g)
        noise = torch.randn(int(noisy.sum()), RATE, generator=g) * _level(sound[noisy])
        sound[noisy] += noise * _decibels(-_uniform(len(noise), 10, 50, g))
        return SoundBatch(sound * _decibels(_uniform(n, -12, 8, g)), label)

    def _read(self, clip: Tensor, start: Tensor, length: Tensor) -> Tensor:
        """`length` samples from each `start`, squeezed or stretched to one second: `[n, RATE]`."""
        rows = zip(clip.tolist(), start.tolist(), length.tolist(), strict=True)
        crops = (self.pool.waveform[c, s : s + size] for c, s, size in rows)
        return torch.stack(
            [x if len(x) == RATE else interpolate(x[None, None], RATE, mode="linear")[0, 0] for x in crops]
        )


def _uniform(n: int, low: float, high: float, g: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=g)


def _decibels(db: Tensor) -> Tensor:
    return torch.exp(db[:, None] * (math.log(10) / 20))


def _level(sound: Tensor) -> Tensor:
    """Root mean square of `[n, samples]` as `[n, 1]`, never zero."""
    norm: Tensor = torch.linalg.vector_norm(sound, dim=1, keepdim=True)
    return (norm / sound.shape[1] ** 0.5).clamp(min=1e-4)


def _filter(sound: Tensor, g: torch.Generator) -> Tensor:
    """A random smooth equaliser of +-10 dB, and for half a room: a decaying noise of 50 to 400 ms."""
    n, samples = sound.shape
    knots = (torch.rand(n, 1, 9, generator=g) * 2 - 1) * 10
    curve = 10 ** (interpolate(knots, 257, mode="linear", align_corners=True)[:, 0] / 20)
    # Knots are even in the square root of frequency: finer where hearing is.
    where = torch.linspace(0, 1, samples // 2 + 1).sqrt() * 256
    spectrum = torch.fft.rfft(sound).mul_(curve[:, where.long()])
    room = torch.rand(n, generator=g) < 0.5
    if room.any():
        count = int(room.sum())
        time = torch.arange(samples // 2) / RATE
        decay = torch.exp(-6.9 * time / _uniform(count, 0.05, 0.4, g)[:, None])
        tail = torch.randn(count, len(time), generator=g) * decay
        tail = tail / _level(tail) / len(time) ** 0.5 * _decibels(-_uniform(count, 0, 15, g))
        tail[:, 0] = 1.0  # the direct sound
        spectrum[room] *= torch.fft.rfft(pad(tail, (0, samples - len(time))))
    filtered: Tensor = torch.fft.irfft(spectrum, samples)
    return filtered
