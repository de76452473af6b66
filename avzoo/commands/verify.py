"""`avzoo verify NAME`: every file's size and sha256, and the golden outputs recomputed on this machine."""

from __future__ import annotations

import argparse

MEDIA_TOLERANCE = 0.05  # decoders and resamplers of other versions differ in a sample's last bits; features do not


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = (
        "Golden outputs are the answers to a clip in the bundle, as its maker's machine\n"
        "gave them. Exit status: 0 if all is as it was published, 1 if not."
    )
    parser.add_argument("name", help="a name of `avzoo list`, hf:owner/repo@commit, or a folder")
    parser.add_argument("--revision", metavar="COMMIT", help="of its Hugging Face repository, not the listed one")


def run(options: argparse.Namespace) -> None:
    """Compare; an answer that differs is an error."""
    from avzoo import bundle, hub, registry
    from avzoo.errors import BundleError

    located = hub.locate(registry.parse_ref(options.name, paths=True), options.revision)
    model = located.read()
    print(f"{options.name}: files as {located.authority} has them")
    for what, file, tolerance in (
        ("golden features -> logits", "golden.safetensors", bundle.GOLDEN_TOLERANCE),
        ("golden.mp4 -> logits", "golden.mp4", MEDIA_TOLERANCE),
    ):
        if not (located.folder / file).exists():
            print(f"{what}: not compared, the bundle has no {file}")
            continue
        media = file == "golden.mp4"
        difference = bundle.golden_difference(located.folder, model, media=media)
        if not difference <= tolerance:
            raise BundleError(
                f"{located.folder}: {what} differ by {difference:.2g}, more than {tolerance:g}: this machine's versions"
                " do not give the published answers"
            )
        print(f"{what}: differ by {difference:.2g} (at most {tolerance:g})")
