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
from avzoo.commands import COMMANDS, TRAINING
from avzoo.errors import AvzooError, did_you_mean
from avzoo.files import FULL


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; an `AvzooError` becomes one line and exit status 1."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _run(arguments)
        sys.stdout.flush()
    except AvzooError as error:
        print(f"avzoo: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("avzoo: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `avzoo list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if not error.filename and error.errno not in FULL:
            raise  # a mistake in a program, not of a folder or a disk
        print(f"avzoo: {f'{error.filename}: ' if error.filename else ''}{error.strerror or error}", file=sys.stderr)
        sys.exit(1)


def _run(arguments: list[str]) -> None:
    arguments = arguments or ["--help"]
    command = arguments[0]
    if command in TRAINING:
        importlib.import_module("avzoo.training").main(arguments)
        return
    if not command.startswith("-") and command not in COMMANDS:
        known = [*COMMANDS, *TRAINING]
        raise AvzooError(f"there is no command {command!r}{did_you_mean(command, known)} (`avzoo --help` lists all)")
    parser = argparse.ArgumentParser(
        prog="avzoo",
        description="A model zoo for audio-visual scenes and events.",
        epilog="avzoo COMMAND --help explains one. To begin: avzoo demo, avzoo predict VIDEO.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"avzoo {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, help_ in {**COMMANDS, **TRAINING}.items():
        description = help_[0].upper() + help_[1:] + "."
        lines = argparse.RawDescriptionHelpFormatter  # examples keep theirs
        commands.add_parser(name, help=help_, description=description, formatter_class=lines, allow_abbrev=False)
    if command.startswith("-"):
        parser.parse_args(arguments)
    own, module = commands.choices[command], importlib.import_module(f"avzoo.commands.{command}")
    module.add_arguments(own)
    module.run(own.parse_intermixed_args(arguments[1:]))  # files may follow options
