"""The datasets of the zoo, one file each; a name is imported when it is first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avzoo.data.ave import AVE
    from avzoo.data.base import AVDataModule, Item
    from avzoo.data.clips import Clips
    from avzoo.data.sharded import Sharded
    from avzoo.data.synthetic import Synthetic
    from avzoo.data.tau import TAU

__all__ = ["AVE", "TAU", "AVDataModule", "Clips", "Item", "Sharded", "Synthetic"]

_HOME = {
    "AVE": "ave",
    "AVDataModule": "base",
    "Clips": "clips",
    "Item": "base",
    "Sharded": "sharded",
    "Synthetic": "synthetic",
    "TAU": "tau",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'avzoo.data' has no attribute {name!r}")
    return getattr(importlib.import_module(f"avzoo.data.{_HOME[name]}"), name)
