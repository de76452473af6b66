"""`avzoo demo`: render a clip, localize its event, print truth beside prediction, save the picture."""

from __future__ import annotations

import argparse
from pathlib import Path

DEMO_SEED = 20_000_003  # in no shipped training set: those use seeds below 10 million


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("avzoo-demo.png"),
        metavar="OUT.png",
        help="the picture; the clip lies beside it, as .mp4 (default avzoo-demo.png)",
    )
    parser.add_argument("--model", default="avsdn-synthetic", help="a name of `avzoo list` (default avsdn-synthetic)")
    parser.add_argument("--seed", type=int, default=DEMO_SEED, help="another seed, another clip (default %(default)s)")


def run(options: argparse.Namespace) -> None:
    """Do it all."""
    from avzoo import hub, inference, plot, registry
    from avzoo.data import rendering
    from avzoo.errors import AvzooError

    plot.check_picture(options.out)
    model = hub.load_ref(registry.parse_ref(options.model, paths=True))
    known = [name for name in rendering.CLASSES if name in model.classes]
    if len(known) < 3:  # an event, and two others to be mistaken for it
        raise AvzooError(
            f"{options.model} knows {known or 'none'} of the classes that are rendered, {rendering.CLASSES}"
        )
    script = rendering.script(options.seed, classes=known)
    video = rendering.render(script, options.out.with_suffix(".mp4"), size=256)
    answer = inference.predict(video, model)
    print(plot.timeline_text(answer))
    said = [segment.labels[0][0] for segment in answer.segments]
    truth = [
        script.category if script.start <= second < script.end else model.classes[-1] for second in range(len(said))
    ]
    print(f"\n  {'second':<8}{'heard':<14}{'seen':<14}{'truth':<14}{'predicted':<14}")
    for second, row in enumerate(zip(script.heard, script.seen, truth, said, strict=True)):
        mark = "" if row[2] == row[3] else "  wrong"
        print(f"  {second:<8}" + "".join(f"{name:<14}" for name in row).rstrip() + mark)
    right = sum(ours == theirs for ours, theirs in zip(said, truth, strict=True))
    print(f"\n  {right} of {len(truth)} seconds are right")
    plot.save(plot.timeline_figure(answer, truth=(script.category, script.start, script.end)), options.out)
    print(f"  video    {video}\n  picture  {options.out}")
    print(f"ask it again:  avzoo predict '{video}' --model {options.model}")
