"""`made_once`: a cache for filter banks."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar, cast

import torch

P = ParamSpec("P")
Bank = TypeVar("Bank")


def made_once(make: Callable[P, Bank]) -> Callable[P, Bank]:
    """Keep what `make` gives, shared by all callers, on the CPU and fit for training.

    The cache outlives the modes of its first caller: a bank that was first asked for while a network is built on the
    meta device, or in inference mode, serves training later.
    """

    @wraps(make)
    def bank(*args: P.args, **kwargs: P.kwargs) -> Bank:
        with torch.inference_mode(False), torch.device("cpu"):
            return make(*args, **kwargs)

    return cast("Callable[P, Bank]", lru_cache(maxsize=8)(bank))
