"""`avzoo publish NAME --ckpt best.ckpt --repo owner/name`: make a bundle, check it, and bring it to the Hub."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("name", help="an entry of checkpoints.yaml, or of $AVZOO_REGISTRY")
    parser.add_argument(
        "--ckpt", type=Path, required=True, help="runs/<recipe>/version_<n>/checkpoints/best.ckpt, or a bundle's folder"
    )
    parser.add_argument("--repo", metavar="OWNER/NAME", help="on the Hub; left out, the bundle is for the package")
    parser.add_argument("--private", action="store_true", help="create the repository as a private one")
    parser.add_argument("--push", action="store_true", help="upload; otherwise show what would be")
    parser.add_argument("--write", action="store_true", help="write the printed lines into the registry file")
    parser.add_argument("--out", type=Path, help="the bundle's folder (default bundles/NAME)")


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
