"""How batches are drawn and handed out: the order of an epoch, the share of each process, worker processes.

All randomness of an epoch comes from seed and epoch, so that any of them can be drawn again, from any batch on.
"""

from __future__ import annotations

import os
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from avzoo.preprocess import Batch


class EpochSampler(Sampler[Any], ABC):
    """What an epoch draws, by its seed and number alone; where nobody counts them, epochs follow one another.

    Args:
        seed: Of all randomness.
    """

    def __init__(self, seed: int) -> None:
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that is drawn next; Lightning calls it, also when it resumes."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        yield from self.draw(epoch)

    @abstractmethod
    def draw(self, epoch: int) -> Iterator[Any]:
        """What the epoch consists of."""

    def seeds(self, epoch: int, count: int) -> range:
        """So many seeds of an epoch's own."""
        first = self.seed * 1_000_003 + epoch * count
        return range(first, first + count)

    def generator(self, epoch: int) -> torch.Generator:
        """The random numbers of an epoch, from their beginning."""
        return torch.Generator().manual_seed(self.seeds(epoch, 1)[0])


class Share(NamedTuple):
    """What one process takes of a batch.

    Attributes:
        rows: Indices of this process's part of the batch; one stand-in row (weight 0) if it has none.
        weight: See `Batch`.
    """

    rows: Any
    weight: float


class Shares(Sampler[Share]):
    """The share that one of several processes takes of every batch; together they take each row once.

    Args:
        batches: The batches of all processes together.
        rank: Which process.
        world: How many there are.
        position: How many batches of the epoch are done when it begins, asked for then.

    >>> [share.rows for share in Shares([[0, 1, 2], [3]], rank=1, world=2)], Shares([[3]], rank=0, world=2).take([3])
    ([[1, 2], [3]], Share(rows=[3], weight=0.0))
    """

    def __init__(self, batches: Any, *, rank: int = 0, world: int = 1, position: Callable[[], int] = lambda: 0) -> None:
        self.batches, self.rank, self.world, self.position = batches, rank, world, position
        self.streams = getattr(batches, "streams", 1)

    def __len__(self) -> int:
        return len(self.batches)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that is drawn next."""
        self.batches.set_epoch(epoch)

    def __iter__(self) -> Iterator[Share]:
        for rows in islice(self.batches, self.position(), None):
            yield self.take(rows)

    def take(self, rows: Any) -> Share:
        """This process's share: a contiguous one of every stream that the batch joins."""
        if self.world == 1:
            return Share(rows, 1.0)
        whole = len(rows) // self.streams
        first, last = whole * self.rank // self.world, whole * (self.rank + 1) // self.world
        weight = (last - first) * self.world / whole
        if first == last:
            first, last = 0, 1
        parts = [rows[start + first : start + last] for start in range(0, len(rows), whole)]
        return Share(torch.cat(parts) if self.streams > 1 else parts[0], weight)


def shares(batches: Any, trainer: L.Trainer | None, *, training: bool) -> Shares:
    """What this process of a training takes of every batch, in training from where its epoch was left."""
    if trainer is None:
        return Shares(batches)
    done = trainer.fit_loop.epoch_loop.batch_progress.current
    position = (lambda: done.ready) if training else (lambda: 0)
    return Shares(batches, rank=trainer.global_rank, world=trainer.world_size, position=position)


class ShareSet(Dataset[Batch]):
    """A dataset that is indexed by a whole batch, indexed by shares."""

    def __init__(self, whole: Dataset[Batch]) -> None:
        self.whole = whole

    def __getitem__(self, share: Share) -> Batch:
        return self.whole[share.rows]._replace(weight=share.weight)


class Loader(DataLoader[Any]):
    """A DataLoader whose worker processes leave the parent's random state and epoch position unchanged.

    A cluster sends SIGTERM to them as well; they go on until this process, which saves first, ends them.

    Args:
        batches: What is indexed by a share.
        options: As of `DataLoader`.
    """

    def __init__(self, batches: Dataset[Any], **options: Any) -> None:
        super().__init__(batches, generator=torch.Generator(), worker_init_fn=_obey_parent, **options)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        torch.empty((), dtype=torch.int64).random_()  # as a loader does that has no generator and no processes
        return self._begin()

    def _begin(self) -> Iterator[Any]:
        """With the first batch, not before: only then a trainer that goes on knows its place."""
        yield from super().__iter__()


def _obey_parent(number: int) -> None:  # noqa: ARG001 - of the process, torch's
    """End this process on SIGTERM only if its parent sent it, which a Python handler cannot tell; never on Ctrl+C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # Linux
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_await_parent, daemon=True).start()


def _await_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
