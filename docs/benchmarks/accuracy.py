"""Segment accuracy of recipes on a dataset, over several seeds and with one modality alone.

    python docs/benchmarks/accuracy.py DATASET [--seeds 5] [--test] [--out accuracy.json]

`DATASET` is avemix, or another dataset of its classes in AVE's layout. Every figure is a run of `avzoo fit`, whose best
epoch by validation is measured. Without `--test` the test split is not touched: choose first, then measure once.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import torch

from avzoo import registry, training
from avzoo.bundle import read_training_checkpoint

RUNS = {
    "MLP, sound and picture": ["mlp-avemix"],
    "AVSDN, sound alone": ["avsdn-avemix", "--model.modality", "audio"],
    "AVSDN, picture alone": ["avsdn-avemix", "--model.modality", "visual"],
    "AVSDN, sound and picture": ["avsdn-avemix"],
}


def main() -> None:
    """Train, measure, print one row a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--test", action="store_true", help="measure the test split, too")
    parser.add_argument("--only", help="runs whose name contains this")
    parser.add_argument("--out", type=Path, default=Path("accuracy.json"))
    options = parser.parse_args()
    splits = ("val", "test") if options.test else ("val",)
    table = {}
    for name, (recipe, *overrides) in RUNS.items():
        if options.only and options.only not in name:
            continue
        rows = [
            _run(recipe, [*overrides, "--data.root", str(options.dataset)], seed, splits)
            for seed in range(options.seeds)
        ]
        table[name] = rows
        options.out.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
        for split in splits:
            figures = [100 * float(row[split]) for row in rows]
            spread = statistics.stdev(figures) if len(figures) > 1 else 0.0
            print(
                f"{name:<26} {split:<5} {statistics.mean(figures):6.2f} ± {spread:.2f} %  (seeds {len(figures)})",
                flush=True,
            )


def _run(recipe: str, overrides: list[str], seed: int, splits: tuple[str, ...]) -> dict[str, float | str]:
    """One fit; accuracy of its best checkpoint by split, and where that checkpoint is."""
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    config = ["fit", "--config", str(registry.asset(f"recipes/{recipe}.yaml"))]
    cli = training.main([*config, *overrides, *quiet, "--seed_everything", str(seed), "--data.seed", str(seed)])
    best = cli.trainer.checkpoint_callback.best_model_path
    model = read_training_checkpoint(Path(best))
    data = cli.datamodule
    row: dict[str, float | str] = {"checkpoint": best}
    for split in splits:
        loader = data.load(split)
        with torch.no_grad():
            scores = model(loader.audio[loader.clip, 0], loader.visual[loader.clip, 0])
        row[split] = float((scores.argmax(-1) == loader.label).float().mean())
    return row


if __name__ == "__main__":
    main()
