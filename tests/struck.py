"""Processes that train together, and signals that strike them at a chosen moment.

All are forks of one process that has imported everything, so that they start in no time. A moment is `step:7:KILL`,
`validation:1:TERM`, `validated:2:TERM` (its last batch), `saving:8:KILL` (half a checkpoint is written),
`extracting:2:USR1` (two clips are done) or `never`: where, after how many batches, epochs, steps or clips, and what;
`TERM+TERM` comes twice. Only the last of the processes is struck, with `INT*` all, as by a terminal.
"""

from __future__ import annotations

import functools
import importlib
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

LIMIT = 200  # s; then a group of processes is taken to be stuck


class Outcome(NamedTuple):
    """How a process ended: its exit status, negative for a signal, and what its function gave back."""

    code: int
    result: Any


def together(function: Callable[..., Any], *args: Any, processes: int = 1, folder: Path) -> list[Outcome]:
    """Run a function in processes of one group, in a folder; it can be found by its name in a module of the tests."""
    folder.mkdir(exist_ok=True)
    outcomes, said = _pool().submit(_fork, function, args, processes, str(folder)).result(timeout=LIMIT + 20)
    print(said)
    return outcomes


def drive(folder: Path, moments: str, command: list[str], processes: int = 1, *, loaders: int = 0) -> list[list[int]]:
    """Give one command in a folder again and again, each time struck at another moment; all exit statuses.

    Args:
        folder: Where.
        moments: See above, with commas.
        command: The arguments of `avzoo`.
        processes: Of the group.
        loaders: Processes that read batches ahead for each.
    """
    every = (
        together(_train, moment, command, processes, loaders, processes=processes, folder=folder)
        for moment in moments.split(",")
    )
    return [[outcome.code for outcome in outcomes] for outcomes in every]


@functools.cache
def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _prepare)


def _prepare() -> None:
    import torch

    importlib.import_module("avzoo.training")  # so that the forks need not import it
    torch.set_num_threads(1)


def _fork(
    function: Callable[..., Any], args: tuple[Any, ...], processes: int, folder: str
) -> tuple[list[Outcome], str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    with tempfile.TemporaryDirectory() as place:
        children = [_child(function, args, rank, processes, folder, Path(place), port) for rank in range(processes)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        results = [Path(place, f"result{rank}") for rank in range(processes)]
        outcomes = [
            Outcome(code, pickle.loads(result.read_bytes()) if result.exists() else None)
            for code, result in zip(codes, results, strict=True)
        ]
        return outcomes, Path(place, "output").read_text(encoding="utf-8", errors="replace")


def _child(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    rank: int,
    processes: int,
    folder: str,
    place: Path,
    port: str,
) -> int:
    """Start one; its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        signal.alarm(LIMIT)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
        output = os.open(place / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        os.chdir(folder)
        os.environ.pop("AVZOO_RUN", None)  # of a training in the process of the tests
        os.environ |= {"HOME": folder, "AVZOO_CACHE": f"{folder}/cache", "OMP_NUM_THREADS": "1"}
        if processes > 1:
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": "0", "LOCAL_RANK": str(rank)}
        seed_backbones(setattr)
        (place / f"result{rank}").write_bytes(pickle.dumps(function(*args)))
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def seed_backbones(put: Callable[[Any, str, Any], None]) -> None:
    """The weights of pretrained backbones come from a seed: no test of training needs them."""
    import torch

    from avzoo import backbones

    def build(name: str, pool: str = "") -> torch.nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(5)
            return backbones.architecture(name, pool).eval().requires_grad_(False)

    put(backbones, "build", build)


def _train(moment: str, arguments: list[str], processes: int, loaders: int) -> None:
    from avzoo import cli
    from avzoo.data.base import AVDataModule

    setup = AVDataModule.setup

    def read_ahead(self: AVDataModule, stage: str) -> None:
        self.loaders = loaders
        setup(self, stage)

    AVDataModule.setup = read_ahead  # type: ignore[method-assign]

    if moment != "never" and (moment.endswith("*") or os.environ.get("LOCAL_RANK", "0") == str(processes - 1)):
        strike(moment.removesuffix("*"))
    cli.main(arguments)


def strike(moment: str) -> None:
    """Arrange for the signal."""
    import torch
    from lightning.pytorch.strategies import Strategy

    from avzoo.data.features import FeatureCache

    where, when, names = moment.split(":")

    def hit(condition: bool) -> None:
        for name in names.split("+") if condition else ():
            os.kill(os.getpid(), getattr(signal, f"SIG{name}"))

    train, evaluate, save, make = Strategy.training_step, Strategy.validation_step, torch.save, FeatureCache.make

    def training_step(self: Strategy, *args: Any, **options: Any) -> Any:
        hit(self.lightning_module.trainer.fit_loop.total_batch_idx == int(when))
        return train(self, *args, **options)

    def validation_step(self: Strategy, *args: Any, **options: Any) -> Any:
        trainer = self.lightning_module.trainer
        hit(trainer.current_epoch == int(when) and not trainer.sanity_checking)
        return evaluate(self, *args, **options)

    def half(content: Any, file: Any) -> None:
        if content["global_step"] == int(when):
            file.write(b"half")
            file.flush()
            hit(True)
        save(content, file)

    def last_step(self: Strategy, *args: Any, **options: Any) -> Any:
        trainer = self.lightning_module.trainer
        hit(trainer.current_epoch == int(when) and trainer.num_val_batches == [args[1] + 1])
        return evaluate(self, *args, **options)

    made = []

    def after_some(self: FeatureCache, *args: Any) -> None:
        hit(len(made) == int(when))
        make(self, *args)
        made.append(args)

    if where == "step":
        Strategy.training_step = training_step  # type: ignore[method-assign]
    elif where == "validation":
        Strategy.validation_step = validation_step  # type: ignore[method-assign]
    elif where == "validated":
        Strategy.validation_step = last_step  # type: ignore[method-assign]
    elif where == "extracting":
        FeatureCache.make = after_some  # type: ignore[method-assign]
    else:
        torch.save = half
