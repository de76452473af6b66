"""One modality of all clips of a split, in memory or read when a batch asks for it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

IN_MEMORY = 4 << 30  # bytes; what is larger is read from the cache's files, row by row


class Column:
    """One modality of many clips, `[clips, views, segments, ...]`: in memory where it fits, else read when asked for.

    Args:
        read: `(clip, view, segments) -> [segments, ...]`, from the cache.
        clips: How many there are.
        views: Of each.
        memory: Bytes that fit; default `IN_MEMORY`.
        ahead: Is told the clips of a batch before they are read one by one.
    """

    def __init__(
        self,
        read: Callable[[int, int, slice], Tensor],
        clips: int,
        views: int = 1,
        *,
        memory: int | None = None,
        ahead: Callable[[list[int]], None] | None = None,
    ) -> None:
        self.read, self.ahead = read, ahead
        if ahead is not None:
            ahead([0])
        first = read(0, 0, slice(None))
        self.shape = first.shape
        self.memory: Tensor | None = None
        if first.nbytes * clips * views <= (IN_MEMORY if memory is None else memory):
            self.memory = first.new_empty(clips, views, *first.shape)
            for clip in range(clips):
                for view in range(views):
                    self.memory[clip, view] = read(clip, view, slice(None))

    def __getitem__(self, rows: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        """All segments of each row's clip, and view where there are several, `[rows, segments, ...]`."""
        clips, views = rows if isinstance(rows, tuple) else (rows, torch.zeros_like(rows))
        return self.take(clips, views, torch.zeros_like(clips), self.shape[0])

    def take(self, clips: Tensor, views: Tensor, start: Tensor, count: int) -> Tensor:
        """From each row's clip and view `count` segments from `start` on, `[rows, count, ...]`."""
        if self.memory is not None:
            segments = start[:, None] + torch.arange(count)
            return self.memory[clips[:, None], views[:, None], segments]
        if self.ahead is not None:
            self.ahead(clips.tolist())
        rows = zip(clips.tolist(), views.tolist(), start.tolist(), strict=True)
        return torch.stack([self.read(clip, view, slice(first, first + count)) for clip, view, first in rows])
