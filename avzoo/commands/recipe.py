"""`avzoo recipe NAME`: print a recipe to start from. Needs no torch."""

from __future__ import annotations

import argparse

from avzoo import registry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = (
        "Example:\n  avzoo recipe avsdn-ave > mine.yaml\n  avzoo fit --config mine.yaml --data.root /data/AVE_Dataset"
    )
    parser.add_argument("name", help="a recipe: a model's name of `avzoo list`, or audio-encoder")


def run(options: argparse.Namespace) -> None:
    """Print it."""
    print(registry.find_recipe(options.name).read_text(encoding="utf-8"), end="")
