"""Events in time: a label for every segment, and training clips that are varied without becoming untrue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from avzoo.data.base import AVDataModule, Item, Split, commonest_event, evenly
from avzoo.data.column import Column
from avzoo.data.loading import EpochSampler
from avzoo.preprocess import Batch, Preprocess


class Row(NamedTuple):
    """One row of a batch: an item, and how it is varied in training.

    Attributes:
        item: Which item.
        view: Which of its views.
        picture: Another item of the same class: where both have their event, its pictures are shown; -1 for none.
        sound: Likewise, whose sound is heard.
        backwards: Whether time runs backwards.
    """

    item: int
    view: int = 0
    picture: int = -1
    sound: int = -1
    backwards: bool = False


Draw = Sequence[Row]


def segment_labels(item: Item, classes: Sequence[str], preprocess: Preprocess) -> Tensor:
    """The class of every segment, int64 `[segments]`: the item's where its event covers the segment's middle.

    >>> from pathlib import Path
    >>> p = Preprocess(audio_backbone="vggish", visual_backbone="tf_efficientnet_lite0")
    >>> segment_labels(Item("a", "a", Path("a.mp4"), "drone", 2, 4), ["drone", "background"], p).tolist()
    [1, 1, 0, 0, 1, 1, 1, 1, 1, 1]
    """
    middle = (torch.arange(preprocess.segments) + 0.5) * preprocess.segment_seconds
    inside = (middle >= item.start) & (middle < item.end)
    return torch.where(inside, classes.index(item.label), len(classes) - 1)


class EventSet(Dataset[Batch]):
    """A split, indexed by a whole batch at a time.

    Args:
        audio: `[clips, segments, ...]`.
        visual: `[clips, views, segments, ...]`.
        clip: Which clip each item shows, int64 `[items]` (an id may stand on several rows).
        label: Int64 `[items, segments]`.
        ids: The items' ids.
        background: The label that is no event.
    """

    def __init__(
        self,
        audio: Tensor | Column,
        visual: Tensor | Column,
        clip: Tensor,
        label: Tensor,
        ids: Sequence[str],
        background: int,
    ) -> None:
        self.audio, self.visual, self.clip, self.label, self.ids = audio, visual, clip, label, ids
        self.background = background

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def category(self) -> Tensor:
        """The class of each item, int64 `[items]`, see `commonest_event`."""
        return commonest_event(self.label, self.background + 1)

    def __getitem__(self, draw: Draw) -> Batch:
        items, views, pictures, sounds, backwards = (torch.tensor(column) for column in zip(*draw, strict=True))
        label, clips = self.label[items], self.clip[items]
        audio, visual = self.audio[clips], self.visual[clips, views]
        if (sounds >= 0).any():
            audio = self._exchange(items, sounds, audio, self.audio[self.clip[sounds]])
        if (pictures >= 0).any():
            visual = self._exchange(items, pictures, visual, self.visual[self.clip[pictures], views])
        if backwards.any():
            audio, visual, label = (torch.where(_like(backwards, x), x.flip(1), x) for x in (audio, visual, label))
        return Batch(audio, visual, label, [self.ids[item] for item in items])

    def _exchange(self, items: Tensor, others: Tensor, own: Tensor, theirs: Tensor) -> Tensor:
        """Features `[rows, segments, ...]`, in the seconds that share an event with another item those of the other."""
        label = self.label[items]
        shared = (self.label[others] == label) & (label != self.background) & (others >= 0)[:, None]
        return torch.where(_like(shared, own), theirs, own)


def _like(mask: Tensor, x: Tensor) -> Tensor:
    """A mask of the first dimensions of `x`, ready to broadcast over the others."""
    return mask.reshape(*mask.shape, *[1] * (x.ndim - mask.ndim))


class EventBatches(EpochSampler):
    """Batches of rows: shuffled and varied in training, in order and as they are otherwise.

    Args:
        items: How many there are.
        batch_size: Rows a batch.
        shuffle: Whether this is training; what follows is read only then.
        views: One of these many views of each item is drawn.
        category: The class of each item, int64 `[items]`, by which partners are found.
        balanced: Whether each class is drawn equally often, see `evenly`.
        swap: Share of the rows that get another item's pictures; half as many get another's sound.
        reverse: Share of the rows that run backwards.
        seed: Of all randomness.
    """

    def __init__(
        self,
        items: int,
        batch_size: int,
        *,
        shuffle: bool = False,
        views: int = 1,
        category: Tensor | None = None,
        balanced: bool = False,
        swap: float = 0.0,
        reverse: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(seed)
        self.items, self.batch_size, self.shuffle, self.views = items, batch_size, shuffle, views
        self.category, self.balanced, self.swap, self.reverse = category, balanced, swap, reverse

    def __len__(self) -> int:
        return -(-self.items // self.batch_size)

    def draw(self, epoch: int) -> Iterator[Draw]:
        """The batches of an epoch."""
        columns = self._varied(self.generator(epoch)) if self.shuffle else (torch.arange(self.items),)
        for start in range(0, self.items, self.batch_size):
            rows = zip(*(column[start : start + self.batch_size].tolist() for column in columns), strict=True)
            yield [Row(*row) for row in rows]

    def _varied(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        if self.balanced and self.category is not None:
            order = evenly(self.category, generator)
        else:
            order = torch.randperm(self.items, generator=generator)
        views = torch.randint(self.views, (self.items,), generator=generator)
        pictures = self._partners(order, self.swap, generator)
        sounds = self._partners(order, self.swap / 2, generator)
        backwards = torch.rand(self.items, generator=generator) < self.reverse
        return order, views, pictures, sounds, backwards

    def _partners(self, order: Tensor, share: float, generator: torch.Generator) -> Tensor:
        """For each item in `order` another of its class, drawn at random, or -1 in all but a `share` of the rows."""
        if self.category is None or share == 0:
            return torch.full_like(order, -1)
        partners = torch.empty_like(order)
        for name in torch.unique(self.category):
            members = (self.category == name).nonzero().squeeze(1)
            mine = self.category[order] == name
            partners[mine] = members[torch.randint(len(members), (int(mine.sum()),), generator=generator)]
        return torch.where(torch.rand(self.items, generator=generator) < share, partners, -1)


class EventDataModule(AVDataModule):
    """Clips with an event in them.

    Args:
        swap: Share of the training clips that, in the seconds of their event, show the pictures of another clip's event
            of the same class; half as many sound like another one. Labels stay true, and new pairs arise every epoch.
        reverse: Share of the training clips that run backwards, second by second.
        options: As of `AVDataModule`, as all that is not listed here.
    """

    task = "events"

    def __init__(
        self,
        preprocess: Preprocess | Mapping[str, Any] | None = None,
        *,
        batch_size: int = 64,
        views: int = 1,
        swap: float = 0.0,
        reverse: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(preprocess, batch_size=batch_size, views=views, **options)
        self.swap, self.reverse = swap, reverse

    def dataset(self, split: Split, items: Sequence[Item]) -> EventSet:
        """Some items as a dataset, see `column`."""
        sources = list(dict.fromkeys(item.source for item in items))
        position = {source: index for index, source in enumerate(sources)}
        return EventSet(
            self.column(split, "audio", sources),
            self.column(split, "visual", sources),
            torch.tensor([position[item.source] for item in items]),
            torch.stack([segment_labels(item, self.classes, self.preprocess) for item in items]),
            [item.id for item in items],
            len(self.classes) - 1,
        )

    def batches(self, split: Split) -> EventBatches:
        """Which rows make a batch."""
        events: EventSet = self.sets[split]  # type: ignore[assignment]
        return EventBatches(
            len(events),
            self.batch_size,
            shuffle=split == "train",
            views=self.cached_views(split),
            category=events.category,
            balanced=self.balanced,
            swap=self.swap,
            reverse=self.reverse,
            seed=self.seed,
        )
