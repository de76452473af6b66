"""Clips per class against accuracy: fine-tuning from a checkpoint, and training the same network from scratch.

    python docs/benchmarks/finetune.py                                       # church_bell and siren, 2 to 20 clips each
    python docs/benchmarks/finetune.py --clips 2 --seeds 1 --test 2 --epochs 1 --size 64      # whether it works, at all

The clips are rendered: events of classes that the checkpoint has never seen (`HELD_OUT`), with another class as what
is heard or seen beside them. Each seed has other training clips, and all have one test set. Where a row has `n` clips
a class, `n` are for training and a quarter as many, at least one, for validation. Figures: segment accuracy on test.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import time
from pathlib import Path

import avzoo
from avzoo.data import rendering
from avzoo.data.ave import read_annotations
from avzoo.data.clips import Clips
from avzoo.finetuning import finetune
from avzoo.metrics import segment_accuracy

HELD_OUT = ("church_bell", "siren")
BESIDE = "drone"  # distracts; its own clips are not used


def main() -> None:
    """Render, train, and print one row a number of clips."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="avsdn-avemix")
    parser.add_argument("--clips", type=int, nargs="+", default=[2, 5, 10, 20], help="a class, in training")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--test", type=int, default=50, help="test clips a class")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--size", type=int, default=224, help="edge of the rendered picture, pixels")
    parser.add_argument("--freeze", choices=["none", "backbone", "encoders"], default="backbone")
    parser.add_argument("--data", type=Path, default=Path("data/finetune"), help="where the clips go")
    parser.add_argument("--out", type=Path, default=Path("finetune.json"))
    options = parser.parse_args()
    table: dict[str, dict[str, list[float]]] = {}
    for clips in options.clips:
        for seed in range(options.seeds):
            data = _render(options.data, clips, seed, options.test, options.size)
            for start in ("checkpoint", "scratch"):
                begun = time.monotonic()
                accuracy = _accuracy(options, data, seed, scratch=start == "scratch")
                table.setdefault(start, {}).setdefault(str(clips), []).append(accuracy)
                print(
                    f"{clips} clips, seed {seed}, {start}: {accuracy:.4f}, {time.monotonic() - begun:.0f} s", flush=True
                )
                options.out.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    for start, figures in table.items():
        for clips, values in figures.items():
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            mean = 100 * statistics.mean(values)
            print(f"{start:<11} {clips:>3} clips a class  {mean:6.2f} ± {100 * spread:.2f} %, {len(values)} seeds")


def _render(root: Path, clips: int, seed: int, test: int, size: int) -> Path:
    """A table of events of the held-out classes, its clips beside it."""
    held = max(1, clips // 4)
    names = (*HELD_OUT, BESIDE)
    own = root / f"{clips}-{seed}-{size}"
    shared = root / f"test-{test}-{size}"
    jobs = {own: ({"train": clips, "val": held, "test": 0}, 1000 + 100 * seed + clips)}
    jobs[shared] = ({"train": 0, "val": 0, "test": test}, 999)
    rows: list[tuple[object, ...]] = []
    for folder, (a_class, number) in jobs.items():
        counts = {split: len(names) * count for split, count in a_class.items()}
        if not (folder / "metadata.csv").exists():
            rendering.write_ave(folder, **counts, seed=number, classes=names, size=size, workers=2)
        for split in [split for split, count in counts.items() if count]:
            for item in read_annotations(folder / f"{split}Set.txt"):
                if item.label != BESIDE:
                    rows.append((item.path.resolve(), item.label, item.start, item.end, split))
    table = own / "events.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label", "start", "end", "split"), *rows])
    return table


def _accuracy(options: argparse.Namespace, data: Path, seed: int, *, scratch: bool) -> float:
    """Segment accuracy on test."""
    start = avzoo.load(options.model, pretrained=not scratch)
    rates = {"lr": 3e-3, "lr_rest": 3e-3} if scratch else {}  # all of it is new: the rate of the recipe
    model = finetune(
        start, data, freeze="none" if scratch else options.freeze, epochs=options.epochs, seed=seed, **rates
    )
    clips = Clips(data, task="events", preprocess=model.preprocess)
    features = clips.load("test")
    scores = model(features.audio[features.clip], features.visual[features.clip, 0]).detach()
    return float(segment_accuracy(scores, features.label))


if __name__ == "__main__":
    main()
