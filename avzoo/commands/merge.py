"""`avzoo merge ANSWERS`: the parts of a `predict --part` as one file, if they are complete."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.usage = "avzoo merge ANSWERS [VIDEO ...] --out OUT.jsonl"
    parser.add_argument(
        "answers", metavar="ANSWERS", type=Path, help="the folder that `avzoo predict --part i/n --out` wrote to"
    )
    parser.add_argument(
        "video", metavar="VIDEO", nargs="*", type=Path, help="files and folders that must all have been answered"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="OUT.jsonl", help="one JSON object a video, sorted")


def run(options: argparse.Namespace) -> None:
    """Check and write."""
    from avzoo import parts
    from avzoo.errors import named
    from avzoo.files import whole
    from avzoo.inference import find_videos

    answers = parts.merge(options.answers, find_videos(options.video) if options.video else ())
    with whole(options.out) as unfinished:
        unfinished.write_text("".join(parts.as_json(answer) + "\n" for answer in answers), encoding="utf-8")
    failed = [answer for answer in answers if "error" in answer]
    print(f"{options.out}: {len(answers)} videos, {len(failed)} of them failed")
    for answer in failed[:5]:
        print(f"  {named(answer['video'], answer['error'])}")
