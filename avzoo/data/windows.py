"""Windows of files, as scenes or as events: what the datamodules share whose rows say which of the two they are."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from avzoo.data.base import AVDataModule, Item, Split, Task
from avzoo.data.events import EventDataModule, EventSet
from avzoo.data.features import Source
from avzoo.data.scenes import Crop, Examples, SceneDataModule
from avzoo.errors import AvzooError
from avzoo.preprocess import Batch, Preprocess


@dataclass(frozen=True)
class Window(Item):
    """A window of a file, with all that happens in it.

    Attributes:
        offset: Where in the file it begins, s.
        events: (label, start, end) of each event that touches it, s from the window's beginning, in order of start.
    """

    offset: float = 0.0
    events: tuple[tuple[str, float, float], ...] = ()

    @property
    def source(self) -> Source:
        """The window that its features belong to."""
        return Source(self.id, self.path, self.audio, self.offset)


class WindowDataModule(AVDataModule):
    """A dataset of windows, whose rows say whether they are scenes or events.

    The options of the other task have to be left at their default.

    Args:
        examples: Of scenes: what training takes, see `SceneDataModule`.
        crop: Of scenes: where a second may begin, see `SceneDataModule`.
        streams: Of scenes: 2 for mixup, see `SceneDataModule`.
        swap: Of events: share of training clips with another clip's pictures or sound, see `EventDataModule`.
        reverse: Of events: share of training clips that run backwards.
        batch_size: Windows, seconds or pairs a step, of all processes together.
        options: As of `AVDataModule`, as all that is not listed here.
    """

    root: Any
    remedies: ClassVar[dict[Task, str]] = {}  # what to do, if anything, about being read as this

    def __init__(
        self,
        preprocess: Preprocess | Mapping[str, Any] | None = None,
        *,
        examples: Examples = "clip",
        crop: Crop = "picture",
        streams: int = 1,
        swap: float = 0.0,
        reverse: float = 0.0,
        batch_size: int = 32,
        views: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(preprocess, batch_size=batch_size, views=views, **options)
        self.options: dict[Task, dict[str, Any]] = {
            "scenes": {"examples": examples, "crop": crop, "streams": streams},
            "events": {"swap": swap, "reverse": reverse},
        }

    @property
    def streams(self) -> int:
        """Of scenes, see `SceneDataModule`."""
        streams: int = self.options["scenes"]["streams"]
        return streams

    def check_options(self) -> None:
        """Refuse options of the other task, which would do nothing."""
        known = inspect.signature(WindowDataModule).parameters
        for name, value in self.options["scenes" if self.task == "events" else "events"].items():
            if value != known[name].default:
                raise AvzooError(
                    f"{name}={value!r} is not for {self.task}, as which {self.root} is read:"
                    f" {self.remedies.get(self.task, '')}leave it out"
                )

    @functools.cached_property
    def _machinery(self) -> _Scenes | _Events:
        """The scene or event datamodule that builds this one's datasets and batches."""
        self.check_options()
        common: dict[str, Any] = {"batch_size": self.batch_size, "views": self.views, "seed": self.seed}
        machinery = (_Scenes if self.task == "scenes" else _Events)(
            self.preprocess, **common, **self.options[self.task]
        )
        machinery.owner, machinery.cache, machinery.sets = self, self.cache, self.sets
        return machinery

    def dataset(self, split: Split, items: Sequence[Item]) -> Dataset[Batch]:
        """See `SceneDataModule` and `EventDataModule`."""
        return self._machinery.dataset(split, items)

    def batches(self, split: Split) -> Sampler[Any]:
        """See `SceneDataModule` and `EventDataModule`."""
        self._machinery.balanced = self.balanced
        return self._machinery.batches(split)

    def audio_statistics(self) -> tuple[Tensor, Tensor]:
        """See `SceneDataModule`; of events there are none.

        Raises:
            AvzooError: If these are events.
        """
        return self._scenes().audio_statistics()

    def whole(self, split: Split) -> Batch:
        """See `SceneDataModule`; of events there is none.

        Raises:
            AvzooError: If these are events.
        """
        return self._scenes().whole(split)

    def _scenes(self) -> _Scenes:
        if isinstance(self._machinery, _Events):
            raise AvzooError(f"{self.root} is read as events, which no model of scenes learns from: set task to scenes")
        return self._machinery


class _Owned(AVDataModule):
    """Takes another module's rows."""

    owner: WindowDataModule

    @property
    def classes(self) -> list[str]:
        return self.owner.classes

    def items(self, split: Split) -> Sequence[Item]:
        return self.owner.items(split)


class _Scenes(_Owned, SceneDataModule):
    """Batches of scenes."""


class _Events(_Owned, EventDataModule):
    """Batches of events; a window may hold several."""

    def dataset(self, split: Split, items: Sequence[Item]) -> EventSet:
        events = super().dataset(split, items)
        windows = [item for item in items if isinstance(item, Window)]
        events.label = torch.stack([window_labels(window, self.classes, self.preprocess) for window in windows])
        return events


def window_labels(window: Window, classes: Sequence[str], preprocess: Preprocess) -> Tensor:
    """The class of every segment, int64 `[segments]`: the last to begin of the events that cover its middle.

    >>> from pathlib import Path
    >>> p = Preprocess(audio_backbone="vggish", visual_backbone="tf_efficientnet_lite0")
    >>> w = Window("a", "a", Path("a.mp4"), "bell", events=(("bell", 1.0, 6.0), ("siren", 4.0, 8.0)))
    >>> window_labels(w, ["bell", "siren", "background"], p).tolist()
    [2, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    """
    middle = (torch.arange(preprocess.segments) + 0.5) * preprocess.segment_seconds
    label = torch.full((preprocess.segments,), len(classes) - 1)
    for name, start, end in window.events:
        label[(middle >= start) & (middle < end)] = classes.index(name)
    return label
