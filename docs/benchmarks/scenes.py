"""The scene papers' systems on a dataset of scenes, over several seeds, clean and degraded clips apart.

    python docs/benchmarks/scenes.py secrnn DATASET          # trains all stages, measures validation
    python docs/benchmarks/scenes.py secrnn DATASET --test   # measures those checkpoints on test, once
    python docs/benchmarks/scenes.py joint DATASET
    python docs/benchmarks/scenes.py joint DATASET --robust  # validation with a modality missing or out of step
    python docs/benchmarks/scenes.py joint DATASET --robust --test --bundle joint-scalogram-scenemix  # one model alone

`DATASET` is scenemix, or another in TAU's layout with a `metadata.csv` that has `split` and `degradation`. Every row is
`avzoo fit` with another seed; the checkpoint is the one that validation chose. Results are kept in `--out`.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avzoo import hub, registry, training
from avzoo.bundle import read_training_checkpoint
from avzoo.data.tau import TAU
from avzoo.metrics import ClipAccuracy, MacroLogLoss, SegmentAccuracy
from avzoo.models import AVModule, SECRNNFusion

JOINT = "joint-scalogram-scenemix"
PLAIN = ["--model.modality_dropout", "0"]
FROZEN, ONE_VIEW = ["--model.ae_frozen", "true"], ["--data.views", "1"]
FBANK = ["--preprocess.audio_kind", "fbank"]
# Name, recipe, overrides, and the runs of the same seed that it starts from.
RUNS: dict[str, list[tuple[str, str, list[str], list[str]]]] = {
    "secrnn": [
        ("sound", "secrnn-scenemix-audio", [], []),
        ("picture", "secrnn-scenemix-visual", [], []),
        ("fusion", "secrnn-scenemix", [], ["sound", "picture"]),
    ],
    "joint": [
        ("IV, joint", JOINT, PLAIN, []),
        ("sound", JOINT, [*PLAIN, "--model.system", "audio", *ONE_VIEW], []),
        ("picture", JOINT, [*PLAIN, "--model.system", "visual"], []),
        ("I, pipeline", JOINT, [*PLAIN, *FROZEN, *ONE_VIEW], ["sound"]),
        ("II, embedding + trainable AE", JOINT, [*PLAIN, *ONE_VIEW], []),
        ("III, views + pretrained AE", JOINT, [*PLAIN, *FROZEN], ["sound"]),
        ("joint, modality dropout", JOINT, [], []),
        ("sound, FBank", JOINT, [*PLAIN, "--model.system", "audio", *ONE_VIEW, *FBANK], []),
        ("I, pipeline, FBank", JOINT, [*PLAIN, *FROZEN, *ONE_VIEW, *FBANK], ["sound, FBank"]),
        ("IV, joint, FBank", JOINT, [*PLAIN, *FBANK], []),
    ],
}


def main() -> None:
    """Train or measure, and print one row a run and group of clips."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paper", choices=list(RUNS))
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--only", nargs="+", help="these runs alone")
    parser.add_argument("--test", action="store_true", help="measure the checkpoints of --out on test")
    parser.add_argument("--robust", action="store_true", help="measure them on validation, sound or picture disturbed")
    parser.add_argument("--bundle", help="measure this model instead: a name or a folder, as on the command line")
    parser.add_argument("--out", type=Path, default=Path("scenes.json"))
    options = parser.parse_args()
    if options.bundle:
        _report(options.bundle, [hub.load_ref(registry.parse_ref(options.bundle, paths=True))], options)
        return
    table: dict[str, dict[str, str]] = json.loads(options.out.read_text()) if options.out.exists() else {}
    for name, recipe, overrides, parents in RUNS[options.paper]:
        if options.only and name not in options.only:
            continue
        for seed in options.seeds:
            if options.test or options.robust or str(seed) in table.get(name, {}):
                continue
            bundles = [str(Path(table[parent][str(seed)]).parent.parent / "bundle") for parent in parents]
            start = ["--init_from", json.dumps(bundles)] if bundles else []
            checkpoint = _fit(recipe, [*overrides, *start, "--data.root", str(options.dataset)], seed)
            table.setdefault(name, {})[str(seed)] = checkpoint
            options.out.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    for name, runs in table.items():
        if name in {run for run, *_ in RUNS[options.paper]} and (not options.only or name in options.only):
            _report(name, [read_training_checkpoint(Path(run)) for run in runs.values()], options)


def _fit(recipe: str, arguments: list[str], seed: int) -> str:
    """One run of `avzoo fit`: where its best checkpoint is."""
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    config = ["--config", str(registry.asset(f"recipes/{recipe}.yaml")), "--seed_everything", str(seed)]
    return str(training.main(["fit", *config, *arguments, *quiet]).trainer.checkpoint_callback.best_model_path)


def _report(name: str, models: Sequence[AVModule], options: argparse.Namespace) -> None:
    rows: dict[tuple[str, ...], list[float]] = {}
    for model in models:
        for key, value in _figures(model, options.dataset, "test" if options.test else "val", options.robust):
            rows.setdefault(key, []).append(value)
    for key, values in rows.items():
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(
            f"{name:<30} {'  '.join(key):<52} {statistics.mean(values):7.3f} ± {spread:.3f}, {len(values)} seeds",
            flush=True,
        )


@torch.no_grad()
def _figures(model: AVModule, dataset: Path, split: Any, robust: bool) -> Iterator[tuple[tuple[str, ...], float]]:
    """Accuracy by the second and by the clip, and macro log-loss, of all clips and of each kind of degradation."""
    data = TAU(dataset, val="metadata", classes=model.classes, preprocess=model.preprocess)
    data.extract([split])
    data.sets[split] = data.load(split)
    batch = data.whole(split)
    with (dataset / "metadata.csv").open(encoding="utf-8", newline="") as file:
        degraded = {Path(row["filename_video"]).stem: row["degradation"] for row in csv.DictReader(file)}
    kinds = [degraded[id_] for id_ in batch.id]
    for condition, audio, visual in _conditions(batch.audio, batch.visual, batch.label, robust):
        answers = model.branches(audio, visual) if isinstance(model, SECRNNFusion) else {"": model(audio, visual)}
        for branch, logits in answers.items():
            for kind in ["all", *sorted(set(kinds))]:
                chosen = torch.tensor([kind in ("all", one) for one in kinds])
                metrics = {"second": SegmentAccuracy(), "clip": ClipAccuracy()}
                if kind == "all":
                    metrics["log-loss"] = MacroLogLoss(len(model.classes))  # type: ignore[assignment]
                for unit, metric in metrics.items():
                    metric.update(logits[chosen], batch.label[chosen])
                    yield (condition, branch, kind, unit), float(metric.compute())


def _conditions(
    audio: Tensor, visual: Tensor, label: Tensor, robust: bool
) -> Iterator[tuple[str, Tensor | None, Tensor | None]]:
    """Sound and pictures as they are, and if asked for with one missing or the sound out of step."""
    yield "as it is", audio, visual
    if robust:
        yield "no sound", None, visual
        yield "no picture", audio, None
        yield "sound of another second", audio.roll(3, 1), visual
        order = label.argsort(stable=True)
        other = torch.empty_like(order).scatter_(0, order, order.roll(len(order) // 2))  # scenes away
        yield "sound of another scene", audio[other], visual


if __name__ == "__main__":
    main()
