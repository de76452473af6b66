"""`--limit N`: a training, from the first file to the report, in the time of N batches."""

from __future__ import annotations

from typing import Any

from avzoo.data.base import AVDataModule, Item, Split


def limited(limit: int | None) -> dict[str, Any]:
    """What the trainer is told: one epoch of so many batches a split.

    >>> limited(2)["max_epochs"], limited(None)
    (1, {})
    """
    if limit is None:
        return {}
    return {
        "max_epochs": 1,
        "check_val_every_n_epoch": 1,
        **dict.fromkeys(("limit_train_batches", "limit_val_batches", "limit_test_batches"), limit),
    }


def leave_few(data: AVDataModule, batches: int) -> None:
    """Leave clips for so many batches in every split, so that no features of others are extracted.

    They are spread evenly over the split, because lists are often sorted by class.
    """
    every = data.items

    def few(split: Split) -> list[Item]:
        items = every(split)
        count = min(len(items), batches * data.batch_size)
        return [items[index * len(items) // count] for index in range(count)]

    data.items = few  # type: ignore[method-assign]
