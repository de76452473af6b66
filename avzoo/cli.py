"""The `avzoo` command: every subcommand is one file of `avzoo.commands`, imported when it is asked for.

Training commands belong to LightningCLI (`avzoo.training`); nothing heavy is imported before the command is known.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from avzoo import __version__
from avzoo.errors import AvzooError, did_you_mean

TRAINING = {
    "fit": "train a model from a recipe (LightningCLI)",
    "validate": "measure a checkpoint on validation",
    "test": "measure a checkpoint on test",
    "extract": "bring a recipe's frozen features into the cache",
    "shard": "pack a recipe's clips, frames or features into tar shards",
    "lr": "find a learning rate for a recipe",
}
COMMANDS = {
    "demo": "render a clip, localize its event, save the picture",
    "predict": "say what happens in videos, and when",
    "merge": "the answers of all parts of a `predict --part` as one file",
    "list": "the models there are",
    "info": "what a model is, what was measured, who vouches for its weights",
    "load": "fetch and verify a model, print where it lies",
    "verify": "compare a model's files and golden outputs with what was published",
    "cache": "what of the Hub is on this machine, and how to be rid of it",
    "check": "look through one's own clips for what would spoil a training",
    "finetune": "train a model on one's own clips, from one that is trained",
    "app": "a page on this machine: drop a video, see what happens in it, and why",
    "embed": "write what a model makes of clips: embeddings as a table and as a map",
    "export": "write a model for other runtimes (ONNX)",
    "recipe": "print a recipe to start from",
    "submit": "write a training as a job for Slurm, and submit it",
    "synth": "render a small dataset of videos with sound",
    "publish": "make a bundle of a trained checkpoint, bring it to the Hub",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; an `AvzooError` becomes one line and exit status 1."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _run(arguments)
    except AvzooError as error:
        print(f"avzoo: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("avzoo: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `avzoo list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: list[str]) -> None:
    command = arguments[0] if arguments else ""
    if command in TRAINING:
        importlib.import_module("avzoo.training").main(arguments)
        return
    if command and not command.startswith("-") and command not in COMMANDS:
        known = [*COMMANDS, *TRAINING]
        raise AvzooError(f"there is no command {command!r}{did_you_mean(command, known)} (`avzoo --help` lists all)")
    parser = argparse.ArgumentParser(
        prog="avzoo",
        description="A model zoo for audio-visual scenes and events.",
        epilog="avzoo COMMAND --help explains.",
    )
    parser.add_argument("--version", action="version", version=f"avzoo {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, help_ in {**COMMANDS, **TRAINING}.items():
        commands.add_parser(name, help=help_, description=help_[0].upper() + help_[1:] + ".")
    if not command or command.startswith("-"):
        parser.parse_args(arguments)
    own, module = commands.choices[command], importlib.import_module(f"avzoo.commands.{command}")
    module.add_arguments(own)
    module.run(own.parse_intermixed_args(arguments[1:]))  # files may follow options
