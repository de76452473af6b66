"""Segment accuracy of recipes on a dataset, over several seeds and with one modality alone.

    avzoo synth data/rendered --train 240 --val 0 --test 0 --size 224 --seed 1 --classes 6
    python docs/benchmarks/accuracy.py DATASET          # trains all, measures validation
    python docs/benchmarks/accuracy.py DATASET --test   # measures those checkpoints on test, once

`DATASET` is avemix, or another dataset of its classes in AVE's layout. Every row is `avzoo fit` with another seed.
Figures: validation at the best epoch (which validation chose) and at the last one (which nothing chose), and the test
split at the best epoch. Results are kept in `--out`.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from pathlib import Path
from typing import Any

import torch

from avzoo import registry, training
from avzoo.bundle import read_training_checkpoint
from avzoo.data.ave import AVE
from avzoo.metrics import segment_accuracy

RUNS = {
    "MLP, sound and picture": ("mlp-avemix", []),
    "AVSDN, sound alone": ("avsdn-avemix", ["--model.modality", "audio"]),
    "AVSDN, picture alone": ("avsdn-avemix", ["--model.modality", "visual"]),
    "AVSDN, sound and picture": ("avsdn-avemix", []),
    "AVSDN, rendered clips too": ("avsdn-avemix", ["--data.extra", "RENDERED"]),
}


def main() -> None:
    """Train or measure, and print one row a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument(
        "--rendered", type=Path, default=Path("data/rendered"), help="the rendered clips that join training"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", default="", help="runs whose name contains this")
    parser.add_argument("--test", action="store_true", help="measure the checkpoints of --out on test")
    parser.add_argument("--out", type=Path, default=Path("accuracy.json"))
    options = parser.parse_args()
    table: dict[str, list[dict[str, Any]]] = json.loads(options.out.read_text()) if options.out.exists() else {}
    for name, (recipe, overrides) in RUNS.items():
        if options.only not in name:
            continue
        if options.test:
            for row in table[name]:
                row["test"] = _measure(Path(row["checkpoint"]), options.dataset)
        else:
            arguments = [str(options.rendered) if word == "RENDERED" else word for word in overrides]
            arguments += ["--data.root", str(options.dataset)]
            table[name] = [_fit(recipe, arguments, seed) for seed in range(options.seeds)]
        options.out.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
        for figure in [key for key in table[name][0] if key != "checkpoint"]:
            values = [100 * row[figure] for row in table[name]]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            print(
                f"{name:<26} {figure:<9} {statistics.mean(values):6.2f} ± {spread:.2f} %, {len(values)} seeds",
                flush=True,
            )


def _fit(recipe: str, arguments: list[str], seed: int) -> dict[str, Any]:
    """One run of `avzoo fit`: its validation accuracies, and where its best checkpoint is."""
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    config = ["--config", str(registry.asset(f"recipes/{recipe}.yaml")), "--seed_everything", str(seed)]
    cli = training.main(["fit", *config, *arguments, *quiet])
    with Path(cli.trainer.log_dir, "metrics.csv").open(encoding="utf-8") as file:
        epochs = [float(row["val_segment_accuracy"]) for row in csv.DictReader(file) if row["val_segment_accuracy"]]
    best = cli.trainer.checkpoint_callback.best_model_path
    return {"checkpoint": best, "val": max(epochs), "val, last": epochs[-1]}


def _measure(checkpoint: Path, dataset: Path) -> float:
    """Segment accuracy of a checkpoint on the test split."""
    model = read_training_checkpoint(checkpoint)
    data = AVE(dataset, classes=model.classes, preprocess=model.preprocess)
    data.extract(("test",))
    features = data.load("test")
    with torch.no_grad():
        scores = model(features.audio[features.clip], features.visual[features.clip])
    return float(segment_accuracy(scores, features.label))


if __name__ == "__main__":
    main()
