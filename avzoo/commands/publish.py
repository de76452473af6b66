"""`avzoo publish NAME --ckpt best.ckpt --repo owner/name`: make a bundle, check it, and bring it to the Hub."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = (
        "Example, first to look at it, then with --push --write to publish it:\n"
        "  avzoo publish my-ave --ckpt runs/.../best.ckpt --repo me/avsdn-ave\n\n"
        "A bundle is a folder with weights, config, recipe and card, and with a clip and\n"
        "the answers to it (golden outputs). --push needs a token of the Hugging Face\n"
        "Hub: `hf auth login`, or HF_TOKEN in the environment."
    )
    parser.add_argument("name", help="an entry of checkpoints.yaml, or of your own file, $AVZOO_REGISTRY")
    parser.add_argument(
        "--ckpt",
        type=Path,
        required=True,
        help="what was trained: runs/<recipe>/version_<n>/checkpoints/best.ckpt, or a bundle's folder",
    )
    parser.add_argument("--repo", metavar="OWNER/NAME", help="on the Hub; left out, the bundle is for the package")
    parser.add_argument("--private", action="store_true", help="create the repository as a private one")
    parser.add_argument("--push", action="store_true", help="upload; left out, show what would be")
    parser.add_argument("--write", action="store_true", help="write the printed lines into the registry file")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the bundle's folder (default bundles/NAME)")


def run(options: argparse.Namespace) -> None:
    """Do it; print folder and card of a dry run, then the lines for checkpoints.yaml, last the commit."""
    from avzoo import publishing

    done = publishing.publish(
        options.name,
        ckpt=options.ckpt,
        repo=options.repo,
        private=options.private,
        push=options.push,
        write=options.write,
        out=options.out,
    )
    if not done.commit:
        print((done.folder / "README.md").read_text(encoding="utf-8"))
    print(f"{done.folder}: read back, golden outputs equal")
    for file in sorted(done.folder.iterdir()):
        print(f"  {file.name:<20} {file.stat().st_size:>12,} bytes")
    print(f"\n# checkpoints.yaml{', written' if options.write else ''}\n{options.name}:\n{done.lines}")
    print(done.commit or "nothing was uploaded: --repo OWNER/NAME --push does it")
