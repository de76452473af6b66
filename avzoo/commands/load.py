"""`avzoo load NAME`: fetch and verify a model, print where it lies."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("name", help="a name of `avzoo list`, hf:owner/repo@commit, or a folder")
    parser.add_argument("--revision", metavar="COMMIT", help="of its Hugging Face repository, not the listed one")


def run(options: argparse.Namespace) -> None:
    """Locate, verify, print."""
    from avzoo import hub, registry

    located = hub.locate(registry.parse_ref(options.name, paths=True), options.revision)
    model = located.read()
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{options.name}: {type(model).__name__}, {parameters:,} parameters, {len(model.classes)} classes")
    print(f"verified against {located.authority}")
    print(located.folder)
