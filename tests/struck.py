"""A script: trainings that are struck by a signal at a moment each, one after the other, in the same folder.

`struck.py PROCESSES MOMENT,MOMENT,... fit --config ...`; a moment is `step:7:KILL`, `validation:1:TERM`,
`saving:8:KILL` (half a checkpoint is written) or `never`. Only the last of the processes is struck. They are forks of
one that has imported everything, so that they start in no time.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def drive(folder: Path, moments: str, command: list[str], processes: int = 1) -> list[list[int]]:
    """Run this script in a folder; the exit statuses of every moment's processes."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, __file__, str(processes), moments, *command],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(folder), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stderr
    return [[int(code) for code in line.split()[1:]] for line in done.stdout.splitlines() if line.startswith("ended")]


def strike(moment: str) -> None:
    """Arrange for the signal."""
    import torch

    from avzoo.models import AVModule
    from avzoo.models.avsdn import AVSDN

    where, when, name = moment.split(":")

    def hit() -> None:
        os.kill(os.getpid(), getattr(signal, f"SIG{name}"))

    train, evaluate, save = AVSDN.training_step, AVModule.validation_step, torch.save

    def training_step(self: AVSDN, batch: Any, batch_idx: int) -> Any:
        if self.trainer.global_step == int(when):
            hit()
        return train(self, batch, batch_idx)

    def validation_step(self: AVModule, batch: Any, batch_idx: int) -> None:
        if self.trainer.current_epoch == int(when) and not self.trainer.sanity_checking:
            hit()
        evaluate(self, batch, batch_idx)

    def half(content: Any, file: Any) -> None:
        if content["global_step"] == int(when):
            file.write(b"half")
            file.flush()
            hit()
        save(content, file)

    if where == "step":
        AVSDN.training_step = training_step  # type: ignore[method-assign]
    elif where == "validation":
        AVModule.validation_step = validation_step  # type: ignore[method-assign]
    else:
        torch.save = half


def train(moment: str, arguments: list[str], rank: int, processes: int) -> int:
    """One process of a training; its exit status."""
    from avzoo import cli

    if processes > 1:
        os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    if moment != "never" and rank == processes - 1:
        strike(moment)
    try:
        cli.main(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except RuntimeError as error:  # what is left of a group of processes when one is gone
        print(error, file=sys.stderr)
        return 1
    return 0


def main() -> None:
    import torch

    from avzoo import training  # noqa: F401 - so that the forks need not import it

    torch.set_num_threads(1)
    processes, moments, arguments = int(sys.argv[1]), sys.argv[2].split(","), sys.argv[3:]
    for moment in moments:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        children = []
        for rank in range(processes):
            sys.stdout.flush()
            child = os.fork()
            if not child:
                code = train(moment, arguments, rank, processes)
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
            children.append(child)
        print("ended", *(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children), flush=True)


if __name__ == "__main__":
    main()
