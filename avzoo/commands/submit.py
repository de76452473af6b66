"""`avzoo submit RECIPE`: write a training as a job for Slurm, and submit it. To write one needs no Slurm."""

from __future__ import annotations

import argparse
import contextlib
import io
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from avzoo import registry
from avzoo.errors import AvzooError
from avzoo.files import whole
from avzoo.train.signals import AGAIN

JOB = """\
#!/bin/bash
{directives}
{setup}
# Where the processes meet: on the first node, unless something else was said.
export MASTER_ADDR="${{MASTER_ADDR:-$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)}}"

# Processes that were told to stop save together, but end one by one, so the first end must not be that of all;
# a process that is lost must, or the others would wait for it.
srun --kill-on-bad-exit=0 --wait=60{cores} avzoo{fit}
code=$?

# {again}: stopped by a signal, everything saved. The job runs again, under its number, and goes on.
[ "$code" -eq {again} ] && scontrol requeue "$SLURM_JOB_ID"
exit "$code"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.usage = "avzoo submit RECIPE [options] [-- options of avzoo fit]"
    parser.description = (
        f"{parser.description}\n\n"
        "One process trains on each GPU. When its time is nearly up the job saves and is requeued, until the training\n"
        "is done. It runs in this folder, with this environment, and logs to NAME-JOB.log."
    )
    parser.epilog = (
        "avzoo submit avsdn-ave --nodes 2 --gpus 4 --partition gpu --setup 'module load cuda; source venv/bin/activate'"
        "\n    --go -- --data.root /data/AVE_Dataset --trainer.precision bf16-mixed\n\n"
        "What else a cluster wants goes into the file as lines of #SBATCH, or into sbatch's SBATCH_* variables."
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe's file, or one of `avzoo recipe` by name")
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="default 1")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--gpus", type=int, default=1, metavar="N", help="on each node (default 1)")
    kind.add_argument("--cpus", type=int, metavar="N", help="train without GPUs, in N processes on each node")
    parser.add_argument("--cores", type=int, metavar="N", help="CPU cores of each process (default the cluster's)")
    parser.add_argument("--mem", metavar="64G", help="memory of each node (default the cluster's)")
    parser.add_argument("--time", default="12:00:00", help="limit of each run, as Slurm has it (default 12:00:00)")
    parser.add_argument(
        "--signal-before",
        type=int,
        default=120,
        metavar="S",
        help="seconds before the limit to stop at (default 120)",
    )
    parser.add_argument("--partition", help="where it runs (default the cluster's)")
    parser.add_argument("--account", help="who is charged (default the cluster's)")
    parser.add_argument("--setup", default="", metavar="COMMANDS", help="what the job does first")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the job's file (default NAME.sbatch, by the recipe)")
    parser.add_argument("--go", action="store_true", help="submit it")
    _keep_the_rest(parser)


def _keep_the_rest(parser: argparse.ArgumentParser) -> None:
    """Take what follows `--` as `fit`: argparse would take options there for its own."""
    parse = parser.parse_intermixed_args

    def both(args: Sequence[str]) -> argparse.Namespace:
        end = args.index("--") if "--" in args else len(args)
        return parse(args[:end], argparse.Namespace(fit=[*args[end + 1 :]]))

    parser.parse_intermixed_args = both  # type: ignore[method-assign, assignment]


def run(options: argparse.Namespace) -> None:
    """Write the file; submit it if that is wanted."""
    if options.go and shutil.which("sbatch") is None:
        raise AvzooError("there is no sbatch on this machine: without --go the file is written, for another one")
    config = _config(options.recipe)
    name = Path(config).stem
    out = options.out or Path(f"{name}.sbatch")
    text = job(options, config)
    if out.exists() and out.read_text(encoding="utf-8") != text:
        raise AvzooError(f"{out} is there and says something else: remove it, or name another file by --out")
    with whole(out) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    if not options.go:
        print(f"{out}\nsubmit it:  sbatch {shlex.quote(str(out))}")
        return
    done = subprocess.run(["sbatch", "--parsable", str(out)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise AvzooError(f"{out} is written, but sbatch refused it: {' '.join(done.stderr.split())}")
    number = done.stdout.partition(";")[0].strip()  # "number;cluster" where there are several
    print(f"{out}: job {number}")
    print(f"watch it:         tail -F {shlex.quote(f'{name}-{number}.log')}")
    print(f"save and requeue: scancel --signal=USR1 {number}")
    print(f"save and end:     scancel {number}")


def job(options: argparse.Namespace, config: str) -> str:
    """The file for `sbatch`.

    Raises:
        AvzooError: If a number, the time or the setup cannot be, or an option belongs on the other side of `--`.
    """
    for option in ("nodes", "gpus", "cpus", "cores", "signal_before"):
        if (value := getattr(options, option)) is not None and value < 1:
            raise AvzooError(f"--{option.replace('_', '-')} {value}: at least 1 is needed")
    if options.signal_before >= seconds(options.time):
        raise AvzooError(f"--signal-before {options.signal_before} leaves nothing of --time {options.time}")
    if options.setup and shutil.which("bash"):
        done = subprocess.run(["bash", "-n"], input=options.setup, capture_output=True, text=True, check=False)
        if done.returncode:
            raise AvzooError(f"--setup is no command that bash can read: {' '.join(done.stderr.split())}")
    for word in options.fit:
        if word.partition("=")[0] in ("--config", "--trainer.num_nodes", "--trainer.devices", "--trainer.accelerator"):
            raise AvzooError(f"{word} behind `--`: RECIPE, --nodes, --gpus and --cpus before it say that")
    processes = options.cpus or options.gpus
    fit = ["fit", "--config", config, "--trainer.accelerator", "cpu" if options.cpus else "gpu"]
    fit += ["--trainer.num_nodes", str(options.nodes), "--trainer.devices", str(processes)]
    fit += ["--trainer.strategy", "ddp"] if options.nodes * processes > 1 else []
    fit += options.fit
    _check(fit)
    asked = {
        "job-name": Path(config).stem,
        "chdir": str(Path.cwd()),
        "output": "%x-%j.log",
        "open-mode": "append",
        "nodes": options.nodes,
        "ntasks-per-node": processes,
        "cpus-per-task": options.cores,
        "gres": None if options.cpus else f"gpu:{options.gpus}",
        "mem": options.mem,
        "time": options.time,
        "signal": f"SIGUSR1@{options.signal_before}",
        "partition": options.partition,
        "account": options.account,
    }
    directives = [f"--{key}={shlex.quote(str(value))}" for key, value in asked.items() if value is not None]
    return JOB.format(
        directives="".join(f"#SBATCH {directive}\n" for directive in [*directives, "--requeue"]),
        setup=f"{options.setup}\n" if options.setup else "",
        cores=f" --cpus-per-task={options.cores}" if options.cores else "",  # which srun does not take from sbatch
        fit="".join(f" \\\n  {word}" if word.startswith("--") else f" {word}" for word in map(shlex.quote, fit)),
        again=AGAIN,
    )


def seconds(limit: str) -> int:
    """A time limit as Slurm writes it: M, M:S, H:M:S, D-H, D-H:M or D-H:M:S.

    >>> seconds("90"), seconds("12:00:00"), seconds("2-12")
    (5400, 43200, 216000)
    """
    days, dash, clock = limit.rpartition("-")
    parts = clock.split(":")
    if not all(part.isdecimal() for part in [*parts, *([days] if dash else [])]) or len(parts) > 3:
        raise AvzooError(f"--time {limit}: Slurm has minutes, HH:MM:SS or DAYS-HH:MM:SS")
    numbers = [int(part) for part in parts]
    if not dash and len(numbers) < 3:
        numbers = [0, *numbers]
    hours, minutes, rest = [*numbers, 0, 0][:3]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + rest


def _config(given: str) -> str:
    """A recipe as `avzoo fit --config` takes it."""
    if Path(given).is_file():
        return given
    return f"recipes/{registry.find_recipe(given).name}"


def _check(fit: list[str]) -> None:
    """Let `avzoo fit` read its command line now, rather than after hours in a queue."""
    from avzoo import training

    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            training.main([*fit, "--print_config"])
    except SystemExit as end:
        if end.code:
            raise AvzooError(f"avzoo fit would say: {said.getvalue().rpartition('error: ')[2].strip()}") from end
