"""Run a function in a process that has imported nothing of `huggingface_hub` yet, so that `HF_*` take effect."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any


class Fresh:
    """A process that has imported avzoo once and forks for every call: importing torch takes seconds."""

    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), importlib.import_module, ("avzoo.hub",)
        )

    def __call__(self, function: Callable[..., Any], *args: Any, env: dict[str, str], processes: int = 1) -> list[Any]:
        """What the function returns in each of the processes, which run at once; an exception is raised here."""
        outcomes = self._pool.submit(_fork, function, args, env, processes).result(timeout=120)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return outcomes

    def close(self) -> None:
        self._pool.shutdown()


def _prepare() -> None:
    for module in ("avzoo.publishing", "avzoo.export", "httpx2"):
        importlib.import_module(module)
    assert "huggingface_hub" not in sys.modules


def _fork(function: Callable[..., Any], args: tuple[Any, ...], env: dict[str, str], processes: int) -> list[Any]:
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    children = [context.Process(target=_call, args=(queue, function, args, env)) for _ in range(processes)]
    for child in children:
        child.start()
    outcomes = [queue.get() for _ in children]
    for child in children:
        child.join()
    return outcomes


def _call(queue: Any, function: Callable[..., Any], args: tuple[Any, ...], env: dict[str, str]) -> None:
    for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING_FACE"))]:
        del os.environ[name]
    os.environ.update(env)
    try:
        queue.put(function(*args))
    except BaseException as error:
        queue.put(error)
