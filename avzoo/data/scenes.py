"""Scenes: one label for a clip, of which training takes whole clips, random seconds, or single pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from avzoo.augment import view_seeds
from avzoo.data.base import AVDataModule, Item, Split, evenly
from avzoo.data.column import Column
from avzoo.data.loading import EpochSampler
from avzoo.errors import AvzooError
from avzoo.preprocess import Batch, Preprocess

Examples = Literal["clip", "second", "pair"]
Crop = Literal["picture", "column", "legacy"]


class SceneSet(Dataset[Batch]):
    """A split, indexed by a whole batch: rows `(item, view, place)`, int64 `[rows, 3]`.

    Args:
        audio: The sound, see `Preprocess.audio_kind`.
        visual: The pictures, see `Preprocess.visual_kind`.
        label: Int64 `[items]`.
        ids: The clips' ids.
        examples: What a row is: the whole clip (`place` is not read), the second that begins at column `place` of the
            gammatone, or the pair `place` of one window of sound and one picture.
        live: Whether pictures are augmented on the device, by seeds that go with the batch.
    """

    def __init__(
        self, audio: Column, visual: Column, label: Tensor, ids: Sequence[str], *, examples: Examples, live: bool
    ) -> None:
        self.audio, self.visual, self.label, self.ids = audio, visual, label, ids
        self.examples, self.live = examples, live

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: Tensor) -> Batch:
        items, views, places = rows.unbind(1)
        segments, pictures = self.visual.shape[:2]
        if self.examples == "clip":
            start, count, picture = torch.zeros_like(items), segments, torch.zeros_like(items)
            audio, visual = self._take(items, views, start, count)
        elif self.examples == "second":
            columns = self.audio.shape[-1]
            picture = places * pictures // columns
            start = (places // columns).clamp(max=segments - 2)  # a second lies in two neighbours
            audio, visual = self._take(items, views, start, 2)
            sound = audio.movedim(1, -2).flatten(-2)  # [rows, 3, bands, 2 * columns]
            audio = _windows(sound, places - start * columns, columns, dim=-1)[:, None]
            visual = _windows(visual.flatten(1, 2), picture - start * pictures, pictures, dim=1)[:, None]
        else:
            frames = self.audio.shape[1]
            picture = places // frames * pictures
            audio, visual = self._take(items, views, places // frames, 1)
            audio = _windows(audio, places % frames, 1, dim=2)
            visual = visual[:, :, :1]
        ids = [self.ids[item] for item in items.tolist()]
        seeds = self._seeds(ids, views, picture, visual.shape[1:3]) if self.live else None
        return Batch(audio, visual, self.label[items], ids, seeds)

    def _take(self, items: Tensor, views: Tensor, start: Tensor, count: int) -> tuple[Tensor, Tensor]:
        cached = torch.zeros_like(views) if self.live else views
        audio = self.audio.take(items, torch.zeros_like(views), start, count)
        return audio, self.visual.take(items, cached, start, count)

    def _seeds(self, ids: list[str], views: Tensor, picture: Tensor, shape: torch.Size) -> Tensor | None:
        """Of each row's pictures from `picture` on, `[rows, segments, pictures]`; None where all are as they are."""
        if not views.any():
            return None
        total, count = self.visual.shape[:2].numel(), shape.numel()
        of_clips = [view_seeds(id_, view, total) for id_, view in zip(ids, views.tolist(), strict=True)]
        shown = [seeds[first : first + count] for seeds, first in zip(of_clips, picture, strict=True)]
        return torch.stack(shown).reshape(len(ids), *shape)

    def places(self, crop: Crop) -> Tensor:
        """Every place that a training row may have."""
        segments, pictures = self.visual.shape[:2]
        if self.examples == "clip":
            return torch.zeros(1, dtype=torch.int64)
        if self.examples == "pair":
            first = torch.zeros(1, dtype=torch.int64)
            whole = self.audio.take(first, first, first, segments)[0]
            return whole.flatten(0, 1).flatten(1).isfinite().all(1).nonzero()[:, 0]  # a second may lack a window
        bands, columns = self.audio.shape[-2:]
        if crop == "picture":
            # rounded up, because the picture of a place is found by rounding down
            return -(torch.arange((segments - 1) * pictures) * columns // -pictures)
        return torch.arange((segments - 1) * columns if crop == "column" else bands - columns)


def _windows(x: Tensor, start: Tensor, length: int, dim: int) -> Tensor:
    """From each row of `x` `length` entries along `dim`, from `start` on."""
    return torch.stack(
        [row.narrow(dim - 1 if dim > 0 else dim, int(s), length) for row, s in zip(x, start, strict=True)]
    )


class SceneBatches(EpochSampler):
    """Batches of rows: shuffled and varied in training, whole clips in order otherwise.

    Args:
        items: How many there are.
        batch_size: Rows a batch; in training a last batch that is not full is left out, unless it is the only one.
        places: The places that a training row may have; None for evaluation.
        every: Whether each item gives a row for every place, or one at random.
        views: Of each item one is drawn; 0 gives a new one every epoch.
        streams: How many independent orders a batch joins: 2 is what mixup wants, `2 * batch_size` rows.
        category: The class of each item, int64 `[items]`, of which each is then drawn equally often, see `evenly`.
        seed: Of all randomness.
    """

    def __init__(
        self,
        items: int,
        batch_size: int,
        places: Tensor | None = None,
        *,
        every: bool = False,
        views: int = 1,
        streams: int = 1,
        category: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(seed)
        self.items, self.batch_size, self.places, self.every = items, batch_size, places, every
        self.views, self.streams, self.category = views, streams, category

    def __len__(self) -> int:
        if self.places is None:
            return -(-self.items // self.batch_size)
        return max(1, self.items * (len(self.places) if self.every else 1) // self.batch_size)

    def draw(self, epoch: int) -> Iterator[Tensor]:
        """The batches of an epoch."""
        if self.places is None:
            rows = torch.stack([torch.arange(self.items), *torch.zeros(2, self.items, dtype=torch.int64)], 1)
            yield from torch.split(rows, self.batch_size)
            return
        generator = self.generator(epoch)
        orders = [self._shuffled(self.places, epoch, generator) for _ in range(self.streams)]
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            yield torch.cat([rows[start : start + self.batch_size] for rows in orders])

    def _shuffled(self, places: Tensor, epoch: int, generator: torch.Generator) -> Tensor:
        items = torch.arange(self.items) if self.category is None else evenly(self.category, generator)
        if self.every:
            items = items.repeat_interleave(len(places))
            place = places.repeat(self.items)
        else:
            place = places[torch.randint(len(places), (self.items,), generator=generator)]
        view = torch.full_like(items, epoch + 1)
        if self.views:
            view = torch.randint(self.views, (len(items),), generator=generator)
        rows = torch.stack([items, view, place], 1)
        return rows[torch.randperm(len(rows), generator=generator)]


class SceneDataModule(AVDataModule):
    """Clips of scenes.

    Args:
        examples: What training takes: "clip", the whole of it; "second", of each clip a random one per epoch, sound and
            pictures in step (gammatone); "pair", every window of sound with the picture of its second (scalogram).
            Validation and test always take whole clips.
        crop: Where a "second" may begin: "picture", with any picture but those of the last second, "column", anywhere
            in the sound (for the sound alone), or "legacy", in its first 0.28 s, as the code of SECRNNFusion has it.
        streams: Independently shuffled streams of training rows that a batch joins; 2 is what mixup wants.
        batch_size: Clips, seconds or pairs a step, of all processes together.
        options: As of `AVDataModule`, as all that is not listed here.

    Raises:
        AvzooError: If an option does not go with the signal path.
    """

    task = "scenes"

    def __init__(
        self,
        preprocess: Preprocess | Mapping[str, Any] | None = None,
        *,
        examples: Examples = "clip",
        crop: Crop = "picture",
        streams: int = 1,
        batch_size: int = 32,
        views: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(preprocess, batch_size=batch_size, views=views, **options)
        heard = self.preprocess.audio_kind
        fitting = {"second": ("gammatone",), "pair": ("scalogram", "fbank")}.get(examples, (heard,))
        if heard not in fitting or self.preprocess.visual_kind == "segment":
            raise AvzooError(
                f"examples={examples!r} with audio_kind={heard!r}, visual_kind={self.preprocess.visual_kind!r}: a"
                " second is cut from a gammatone, a pair from a scalogram or fbank, both from the visual_kind frame or"
                " image"
            )
        if examples not in ("clip", "second", "pair") or crop not in ("picture", "column", "legacy"):
            raise AvzooError(f"examples={examples!r}, crop={crop!r}: not among those that SceneDataModule lists")
        if streams < 1:
            raise AvzooError(f"streams={streams}: expected 1, or 2 for mixup")
        self.examples, self.crop, self.streams = examples, crop, streams

    def dataset(self, split: Split, items: Sequence[Item]) -> SceneSet:
        """Some items as a dataset, see `column`."""
        sources = [item.source for item in items]
        return SceneSet(
            self.column(split, "audio", sources),
            self.column(split, "visual", sources),
            torch.tensor([self.classes.index(item.label) for item in items]),
            [item.id for item in items],
            examples=self.examples if split == "train" else "clip",
            live=split == "train" and self.preprocess.visual_kind == "image",
        )

    def batches(self, split: Split) -> SceneBatches:
        """Which rows make a batch."""
        scenes: SceneSet = self.sets[split]  # type: ignore[assignment]
        if split != "train":
            return SceneBatches(len(scenes), self.batch_size)
        return SceneBatches(
            len(scenes),
            self.batch_size,
            scenes.places(self.crop),
            every=self.examples == "pair",
            views=self.views,
            streams=self.streams,
            category=scenes.label if self.balanced else None,
            seed=self.seed,
        )

    def whole(self, split: Split) -> Batch:
        """A split as one batch of whole clips."""
        items = torch.arange(len(self.sets[split]))  # type: ignore[arg-type]
        rows = torch.stack([items, *torch.zeros(2, len(items), dtype=torch.int64)], 1)
        batch: Batch = self.sets[split][rows]
        return batch

    def audio_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the training split's sound, over all but its last two dimensions.

        Returns:
            Float32 `[channels, bands]` each; windows that a second lacks are left out.
        """
        audio = self.sets["train"].audio  # type: ignore[attr-defined]
        total = torch.zeros(3, *audio.shape[-2:], dtype=torch.float64)  # count, sum, sum of squares
        nothing = torch.zeros(1, dtype=torch.int64)
        for clip in range(len(self.sets["train"])):  # type: ignore[arg-type]
            x = audio.take(torch.tensor([clip]), nothing, nothing, audio.shape[0]).double().flatten(0, -3)
            there = x.isfinite()
            x = x.where(there, 0)
            total += torch.stack([there.sum(0).double(), x.sum(0), x.square().sum(0)])
        count, first, second = total
        mean = first / count
        std = (second / count - mean.square()).clamp(min=0).sqrt()
        return mean.float(), std.clamp(min=1e-5).float()
