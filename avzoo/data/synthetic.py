"""Synthetic: AVE's layout filled with clips that avzoo renders itself, so that nothing has to be downloaded.

What is drawn and sounded is in `avzoo.data.rendering`; here the clips become a dataset. The classes are
`rendering.CLASSES`, the first six of which carry avemix's names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avzoo.data import rendering
from avzoo.data.ave import AVE
from avzoo.files import cache_folder
from avzoo.preprocess import Preprocess


class Synthetic(AVE):
    """Rendered events: `train`, `val` and `test` clips of 10 s, made when they are first needed.

    Args:
        root: Where the clips go; default a folder of the cache that belongs to the
            arguments below. A folder that holds clips already is used as it is.
        train: Clips of the training split.
        val: Clips of the validation split.
        test: Clips of the test split.
        classes: Which of `rendering.CLASSES`; the background is appended. Default: the six that avemix has too.
        clip_seed: Another seed renders other clips.
        size: Edge of the picture, pixels.
        workers: Processes that render and extract; 0 uses this one, None two for rendering and one per CPU core after.

    The other options are those of `AVE`, as far as clips without any damage need them.
    """

    def __init__(
        self,
        root: Path | None = None,
        *,
        train: int = 240,
        val: int = 48,
        test: int = 48,
        classes: Sequence[str] | None = None,
        clip_seed: int = 0,
        size: int = 128,
        preprocess: Preprocess | Mapping[str, Any] | None = None,
        batch_size: int = 32,
        views: int = 1,
        swap: float = 0.0,
        reverse: float = 0.0,
        cache: Path | None = None,
        workers: int | None = None,
        seed: int = 0,
    ) -> None:
        self.names = list(classes or rendering.CLASSES[:6])
        facts = json.dumps([rendering.VERSION, train, val, test, self.names, clip_seed, size])
        name = hashlib.sha256(facts.encode()).hexdigest()[:12]
        super().__init__(
            root or cache_folder() / "synthetic" / name,
            classes=self.names,
            preprocess=preprocess,
            batch_size=batch_size,
            views=views,
            swap=swap,
            reverse=reverse,
            cache=cache,
            workers=workers,
            seed=seed,
        )
        self.counts = {"train": train, "val": val, "test": test}
        self.clip_seed, self.size = clip_seed, size

    def provide(self) -> None:
        """Render what is not there yet; `metadata.csv` is written last and stands for the whole."""
        if not (self.root / "metadata.csv").exists():
            rendering.write_ave(
                self.root,
                **self.counts,
                seed=self.clip_seed,
                classes=self.names,
                size=self.size,
                workers=self.workers if self.workers is not None else 2,
            )
