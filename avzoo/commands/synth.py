"""`avzoo synth DIR`: render a small dataset of videos with sound."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = (
        "Example:\n"
        "  avzoo synth my_clips --layout clips --classes 3 --train 12 --val 6 --test 6\n"
        "  avzoo check my_clips"
    )
    parser.add_argument("dir", type=Path, help="where it goes; made if missing")
    parser.add_argument(
        "--layout",
        choices=["ave", "tau", "clips"],
        default="ave",
        help="ave: events, as the AVE dataset has them; tau: scenes, as the TAU dataset has them, sound apart; clips: a"
        " folder per class (default ave)",
    )
    parser.add_argument("--train", type=int, default=48, metavar="N", help="clips to train on (default 48)")
    parser.add_argument(
        "--val", type=int, default=12, metavar="N", help="clips to choose by (default 12; the tau layout has none)"
    )
    parser.add_argument("--test", type=int, default=12, metavar="N", help="clips to measure on (default 12)")
    parser.add_argument(
        "--classes",
        type=int,
        metavar="N",
        help="the first N classes of events, at least 3, of which avsdn-avemix knows six (default all)",
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed, other clips (default 0)")
    parser.add_argument(
        "--size", type=int, default=128, metavar="PX", help="edge of the picture in pixels (default 128)"
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default one per core)"
    )


def run(options: argparse.Namespace) -> None:
    """Render, and say what to do with it."""
    from avzoo.data import rendering
    from avzoo.errors import AvzooError

    if options.classes is not None and options.classes < 3:
        raise AvzooError(f"--classes {options.classes}: at least 3, an event and two to be mistaken for it")
    counts = {"train": options.train, "test": options.test, "seed": options.seed}
    looks = {"size": options.size, "workers": options.workers}
    if options.layout == "tau":
        rendering.write_tau(options.dir, **counts, **looks)
    else:
        write = rendering.write_ave if options.layout == "ave" else rendering.write_clips
        write(options.dir, val=options.val, classes=rendering.CLASSES[: options.classes], **counts, **looks)
    splits = ("train", "test") if options.layout == "tau" else ("train", "val", "test")
    clips = ", ".join(f"{getattr(options, split)} {split}" for split in splits)
    print(f"{options.dir}: {options.layout} layout, clips: {clips}; seed {options.seed}")
    if options.layout == "ave":
        print(f"train on it:  avzoo fit --config recipes/avsdn-avemix.yaml --data.root '{options.dir}'")
    elif options.layout == "clips":
        print(f"look through them:  avzoo check '{options.dir}'")
        print(f"train on them:  avzoo finetune joint-scalogram-scenemix --data '{options.dir}'")
