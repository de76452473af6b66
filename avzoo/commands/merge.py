"""`avzoo merge ANSWERS`: the parts of a `predict --part` as one file, if they are complete."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.usage = "avzoo merge ANSWERS [VIDEO ...] --out OUT.jsonl"
    parser.epilog = (
        "Example, after `avzoo predict clips --part i/n --out answers` for every i:\n"
        "  avzoo merge answers clips --out answers.jsonl\n\n"
        "Exit status: 0 if every video is answered; 1 if any failed (OUT.jsonl is\n"
        'written all the same, "error" in its lines says why; their parts, run again,\n'
        "try again), or if a part or a VIDEO is missing (nothing is written)."
    )
    parser.add_argument(
        "answers", metavar="ANSWERS", type=Path, help="the folder that `avzoo predict --part i/n --out` wrote to"
    )
    parser.add_argument(
        "video", metavar="VIDEO", nargs="*", type=Path, help="files and folders that must all have been answered"
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="OUT.jsonl",
        help="the file to write: one JSON object a video, sorted by name",
    )


def run(options: argparse.Namespace) -> None:
    """Check and write; exit with 1 if any video failed, as `predict` does."""
    from avzoo import parts
    from avzoo.files import whole
    from avzoo.inference import find_videos

    answers = parts.merge(options.answers, find_videos(options.video) if options.video else ())
    with whole(options.out) as unfinished:
        unfinished.write_text("".join(parts.as_json(answer) + "\n" for answer in answers), encoding="utf-8")
    failed = [answer for answer in answers if "error" in answer]
    print(f"{options.out}: {len(answers)} videos")
    if failed:
        print(f'avzoo: {len(failed)} of {len(answers)} failed, see "error" in {options.out}', file=sys.stderr)
        sys.exit(1)
