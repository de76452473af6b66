"""`avzoo publish NAME --ckpt best.ckpt`: make a bundle of a trained checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("name", help="an entry of checkpoints.yaml")
    parser.add_argument("--ckpt", type=Path, required=True, help="runs/<recipe>/version_<n>/checkpoints/best.ckpt")
    parser.add_argument("--out", type=Path, help="the bundle's folder (default bundles/NAME)")


def run(options: argparse.Namespace) -> None:
    """Write it, and print the lines that belong into checkpoints.yaml."""
    from avzoo import bundle, publishing

    folder = publishing.publish(options.name, ckpt=options.ckpt, out=options.out)
    print(f"{folder}: written, read back, golden outputs equal\n\n{options.name}:\n  files:")
    for name, facts in bundle.manifest(folder).items():
        print(f"    {name}: {{size: {facts['size']}, sha256: {facts['sha256']}}}")
