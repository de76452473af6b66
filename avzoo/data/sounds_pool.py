"""One-second spectrograms for training the sound encoder: random crops, shifted, mixed, filtered, made noisy.

```
named/metadata.csv, AVE/<video_id>.mp4             AVE's layout; `audio_per_second` names the sound of every second
unnamed/metadata.csv, audio/<id>.ogg               TAU's layout; without names: backgrounds, and more to be distilled
```

Only the rows whose `split` is train (or val) are read. Their mel magnitudes are computed once (at three speeds) and
held in memory; a training crop is cut, mixed and filtered there, on magnitudes, which costs a hundredth of doing it on
waveforms. An epoch is a number of steps; all randomness comes from seed and epoch. Validation is the named seconds as
they are. It is for one process: a batch is drawn as a whole.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path

import lightning as L
import torch
from torch import Tensor
from torch.nn.functional import conv1d, interpolate, pad
from torch.utils.data import DataLoader, Dataset

from avzoo.audio import mono, resample
from avzoo.audio_encoder import FRONT_END, spectrogram
from avzoo.clip import read_clip
from avzoo.data.loading import EpochSampler, Share, shares
from avzoo.errors import AvzooError, DataNotFoundError
from avzoo.preprocess import SoundBatch

RATE: int = FRONT_END["sample_rate"]
SECONDS = 10  # length of a clip
SPEEDS = (0.84, 1.0, 1.19)  # three semitones down, none, three up
FRAMES: int = FRONT_END["frames"]
OFFSET: float = FRONT_END["log_offset"]


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
        self._crops: _Crops | None = None
        self._seconds: _Seconds | None = None

    @property
    def classes(self) -> list[str]:
        """The sounds' names, sorted."""
        return sorted({name for row in self.rows for name in row["audio_per_second"].split("|")})

    def setup(self, stage: str) -> None:  # noqa: ARG002 - training needs both splits, and there is no other stage
        """Read the sound of training and validation.

        Raises:
            AvzooError: If several processes are to train.
        """
        if self.trainer is not None and self.trainer.world_size > 1:
            raise AvzooError(f"SoundPool is for one process, not {self.trainer.world_size}: set trainer.devices to 1")
        if self._crops is None:
            scenes = _read_table(self.unnamed, ("filename_audio", "split"))
            files = [self.unnamed / row["filename_audio"] for row in scenes if row["split"] == "train"]
            extra = torch.stack([_read_sound(file) for file in files])
            sounds, labels = self._read_named("train")
            labels = torch.cat([labels, torch.full((len(extra), SECONDS), -1)])
            background = self.classes.index(self.background)
            self._crops = _Crops(torch.cat([sounds, extra]), labels, background, self.batch_size, self.unnamed_share)
            self._seconds = _Seconds(*self._read_named("val"), self.batch_size)

    def _read_named(self, split: str) -> tuple[Tensor, Tensor]:
        """Waveforms `[clips, samples]` and the names' numbers `[clips, seconds]`."""
        rows = [row for row in self.rows if row["split"] == split]
        classes = self.classes
        labels = [[classes.index(name) for name in row["audio_per_second"].split("|")] for row in rows]
        sounds = [_read_sound(self.named / "AVE" / f"{row['video_id']}.mp4") for row in rows]
        return torch.stack(sounds), torch.tensor(labels)

    def train_dataloader(self) -> DataLoader[SoundBatch]:
        """Random crops, augmented."""
        seeds = shares(_Seeds(self.steps, self.seed), self.trainer, training=True)
        return DataLoader(_loaded(self._crops), batch_size=None, sampler=seeds)

    def val_dataloader(self) -> DataLoader[SoundBatch]:
        """The named seconds of validation as they are."""
        return DataLoader(_loaded(self._seconds), batch_size=None)


def _loaded(batches: Dataset[SoundBatch] | None) -> Dataset[SoundBatch]:
    if batches is None:
        raise DataNotFoundError("SoundPool holds no sounds yet: call setup('fit') before asking for batches")
    return batches


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
    """Named seconds as they are; the index is the batch."""

    def __init__(self, waveform: Tensor, label: Tensor, batch_size: int) -> None:
        self.mel, self.label = spectrogram(waveform.reshape(-1, RATE)), label.flatten()
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.label) // self.batch_size)

    def __getitem__(self, batch: int) -> SoundBatch:
        rows = slice(batch * self.batch_size, (batch + 1) * self.batch_size)
        return SoundBatch(self.mel[rows], self.label[rows])


class _Seeds(EpochSampler):
    """The seeds of an epoch's batches, other ones each epoch."""

    def __init__(self, steps: int, seed: int) -> None:
        super().__init__(seed)
        self.steps = steps

    def __len__(self) -> int:
        return self.steps

    def draw(self, epoch: int) -> Iterator[int]:
        """The seeds of an epoch."""
        yield from self.seeds(epoch, self.steps)


class _Crops(Dataset[SoundBatch]):
    """Batches of random crops, augmented; the index holds the seed.

    Args:
        waveform: `[clips, samples]`.
        label: `[clips, seconds]`, -1 without a name.
        background: The label of a second that can lie behind another sound, as those without a name can.
        batch_size: Crops a batch.
        unnamed_share: Share of crops from clips without names.
    """

    def __init__(self, waveform: Tensor, label: Tensor, background: int, batch_size: int, unnamed_share: float) -> None:
        self.label, self.batch_size = label, batch_size
        # Mel magnitudes [clips, mels, frames] at each speed; half precision halves 700 MB.
        self.mels = [
            torch.cat(
                [
                    (spectrogram(_at_speed(part, speed), None)[:, 0].exp() - OFFSET).half()
                    for part in torch.split(waveform, 8)
                ]
            )
            for speed in SPEEDS
        ]
        unnamed = label[:, 0] < 0
        shares = torch.tensor([1 - unnamed_share, unnamed_share]) / torch.bincount(unnamed.long(), minlength=2)
        self.weights = shares[unnamed.long()]
        self.calm = ((label < 0) | (label == background)).nonzero()  # [n, 2]: clip and second

    def __getitem__(self, ours: Share) -> SoundBatch:
        g = torch.Generator().manual_seed(ours.rows)
        n = self.batch_size
        clip = torch.multinomial(self.weights, n, replacement=True, generator=g)
        speed = torch.randint(len(SPEEDS), (n,), generator=g)
        lengths = torch.tensor([mel.shape[-1] for mel in self.mels])[speed]
        start = (torch.rand(n, generator=g) * (lengths - FRAMES)).long()
        sound = self._cut(clip, start, speed)
        # A crop touches two seconds, or three where it plays fast; they must agree for it to have a name.
        hop, window = FRONT_END["hop"], FRONT_END["window"]
        factor = torch.tensor(SPEEDS)[speed] / RATE
        first, last = ((start * hop) * factor).long(), (((start + FRAMES - 1) * hop + window) * factor).long()
        touched = [self.label[clip, second.clamp(max=SECONDS - 1)] for second in (first, (first + last) // 2, last)]
        label = torch.where((touched[0] == touched[1]) & (touched[0] == touched[2]), touched[0], -1)

        # A background behind it, 0 to 25 dB lower; or another crop about as loud, and then no name fits both.
        calm = self.calm[torch.randint(len(self.calm), (n,), generator=g)]
        behind = self._cut(calm[:, 0], calm[:, 1] * (RATE // hop), torch.full((n,), SPEEDS.index(1.0)))
        kind = torch.rand(n, generator=g)
        shuffled = torch.randperm(n, generator=g)
        duet = kind < 0.15
        behind = torch.where(_wide(duet), sound[shuffled], behind)
        below = torch.where(duet, _uniform(n, -6, 6, g), _uniform(n, 0, 25, g))
        gain = _level(sound) / _level(behind) * _wide(_decibels(-below) * (kind < 0.6))
        label = torch.where(duet & (label[shuffled] != label), -1, label)
        sound = _add(sound, gain * behind)

        smeared = _room(sound, _uniform(n, 0.5, 0.95, g))
        sound = torch.where(_wide(torch.rand(n, generator=g) < 0.3), smeared, sound)
        sound = sound * _curve(n, 10, g)
        noise = torch.rand(sound.shape, generator=g).clamp(min=1e-6).log().mul(-1).sqrt() * _curve(n, 10, g)
        share = _decibels(_uniform(n, -50, -10, g)) * (torch.rand(n, generator=g) < 0.4)
        sound = _add(sound, noise * _level(sound) * _wide(share))
        sound = sound * _wide(_decibels(_uniform(n, -12, 8, g)))
        return SoundBatch(torch.log(sound + OFFSET)[:, None], label)

    def _cut(self, clip: Tensor, start: Tensor, speed: Tensor) -> Tensor:
        """Magnitudes `[n, mels, FRAMES]` from frame `start` of each clip at a speed."""
        rows = zip(clip.tolist(), start.tolist(), speed.tolist(), strict=True)
        return torch.stack([self.mels[v][c, :, s : s + FRAMES] for c, s, v in rows]).float()


def _at_speed(waveform: Tensor, speed: float) -> Tensor:
    """Pitch and tempo together: `[clips, samples]` to `[clips, samples / speed]`."""
    if speed == 1.0:
        return waveform
    return interpolate(waveform[:, None], round(waveform.shape[-1] / speed), mode="linear")[:, 0]


def _uniform(n: int, low: float, high: float, g: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=g)


def _decibels(db: Tensor) -> Tensor:
    return torch.exp(db * (math.log(10) / 20))


def _wide(per_crop: Tensor) -> Tensor:
    """`[n]` as `[n, 1, 1]`."""
    return per_crop[:, None, None]


def _level(sound: Tensor) -> Tensor:
    """Root mean square of `[n, mels, frames]` as `[n, 1, 1]`, never zero."""
    return sound.square().mean((1, 2), keepdim=True).sqrt().clamp(min=1e-4)


def _add(sound: Tensor, other: Tensor) -> Tensor:
    """Magnitudes of two unrelated sounds together: their powers add."""
    return (sound.square() + other.square()).sqrt()


def _curve(n: int, db: float, g: torch.Generator) -> Tensor:
    """A smooth random equaliser within +-`db`, `[n, mels, 1]`."""
    knots = (torch.rand(n, 1, 7, generator=g) * 2 - 1) * db
    return _decibels(interpolate(knots, FRONT_END["mels"], mode="linear", align_corners=True))[:, 0, :, None]


def _room(sound: Tensor, keep: Tensor) -> Tensor:
    """A diffuse tail on `[n, mels, frames]`: every 10 ms the share `keep` `[n]` of a frame's power lingers."""
    taps = 40
    tail = keep[:, None] ** torch.arange(taps).flip(0)  # the present is the last tap
    power = conv1d(
        pad(sound.square().transpose(0, 1), (taps - 1, 0)),
        (tail / tail.sum(1, keepdim=True))[:, None],
        groups=len(sound),
    )
    return power.transpose(0, 1).sqrt()
