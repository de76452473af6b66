"""Clips per class against accuracy: fine-tuning from a checkpoint, and training the same network from scratch.

    python docs/benchmarks/finetune.py avemix data/avemix   # events of two classes that the parent has never met
    python docs/benchmarks/finetune.py events               # rendered events of two classes
    python docs/benchmarks/finetune.py scenes               # four rendered scenes
    python docs/benchmarks/finetune.py draw                 # docs/finetuning.png, of what the others wrote to --out

The classes were chosen before anything was trained: of avemix the first and the last by the alphabet, of the events
those that avemix lacks, of the scenes that scenemix lacks the first two and the last two. The parent of `avemix` is
trained here, by `recipes/avsdn-avemix.yaml` on the clips in which neither class of the pair is heard or seen; the other
parents ship with avzoo. All clips of a setting are one pool; each seed draws its own training and validation clips from
it, of which those of fewer clips are part of those of more: `n` a class to train on and a quarter as many, at least
one, to choose the epoch by. All have one test split, on which nothing is chosen. What ends early is resumed.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import shutil
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer

import avzoo
from avzoo import registry, training
from avzoo.data import rendering
from avzoo.data.ave import AVE
from avzoo.data.base import AVDataModule, Split
from avzoo.data.tau import TAU
from avzoo.finetuning import finetune, quiet
from avzoo.models import AVModule
from avzoo.train.finetune import PLANS

PAIR = ("drone", "saxophone")  # of avemix
EVENTS = ("church_bell", "siren")
BESIDE = "drone"  # heard or seen beside them; its own clips are not used
SCENES = ("airport", "bus", "street_pedestrian", "tram")
RATES = {"AVSDN": 3e-3, "SECRNNFusion": 1e-3, "JointScalogramNet": 3e-3}  # from scratch; AVSDN's is the recipe's
LISTS: tuple[Split, ...] = ("train", "val", "test")
Rows = dict[Split, list[tuple[str, str]]]  # of each split label and line
TITLES = {
    "avemix AVSDN": "avemix, drone and saxophone\nAVSDN, accuracy by the second",
    "events AVSDN": "rendered church_bell and siren\nAVSDN, accuracy by the second",
    "scenes SECRNNFusion": "four rendered scenes\nSECRNNFusion, accuracy by the clip",
    "scenes JointScalogramNet": "four rendered scenes\nJointScalogramNet, accuracy by the clip",
}


def main() -> None:
    """Train one setting, and print a row for each number of clips; or draw them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("setting", choices=["avemix", "events", "scenes", "draw"])
    parser.add_argument("dataset", type=Path, nargs="?", default=Path("data/avemix"), help="avemix, in AVE's layout")
    parser.add_argument("--model", help="of the two parents of `scenes` this one alone")
    parser.add_argument("--clips", type=int, nargs="+", default=[2, 5, 10, 20], help="a class, in training")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--size", type=int, default=128, help="edge of a rendered picture, pixels")
    parser.add_argument("--work", type=Path, default=Path("data/finetune"), help="where clips, lists and parents go")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/finetune.json"))
    parser.add_argument("--picture", type=Path, default=Path("docs/finetuning.png"))
    options = parser.parse_args()
    table = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    if options.setting == "draw":
        print(f"the curves: {draw(table, options.picture)}")
        return
    for parent in _parents(options):
        key = f"{options.setting} {type(parent).__name__}"
        own = table.setdefault(key, {})
        for seed in range(options.seeds):
            for clips in options.clips:
                for start in ("checkpoint", "scratch"):
                    done = own.setdefault(start, {}).setdefault(str(clips), [])
                    if len(done) > seed:
                        continue
                    begun = time.monotonic()
                    data = _data(options, parent, clips, seed)
                    done.append(_accuracy(parent, data, seed, options.epochs, scratch=start == "scratch"))
                    own["one answer for all"] = _commonest(data)
                    options.out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
                    took = time.monotonic() - begun
                    print(f"{clips} clips, seed {seed}, {start}: {done[-1]:.4f}, {took:.0f} s", flush=True)
        for start in ("checkpoint", "scratch"):
            for number, values in own[start].items():
                mean, spread = _mean_and_spread(values)
                print(f"{key:<25} {start:<11} {number:>3} clips  {mean:6.2f} ± {spread:.2f} %, {len(values)} seeds")


def _mean_and_spread(values: list[float]) -> tuple[float, float]:
    return 100 * statistics.mean(values), 100 * (statistics.stdev(values) if len(values) > 1 else 0.0)


# -- parents ---------------------------------------------------------------------------------------------------------


def _parents(options: argparse.Namespace) -> list[AVModule]:
    if options.setting == "avemix":
        return [avzoo.load(_train_without(options.dataset, options.work / "avemix-without"))]
    names = {"events": ["avsdn-avemix"], "scenes": ["secrnn-scenemix", "joint-scalogram-scenemix"]}
    return [avzoo.load(name) for name in names[options.setting] if options.model in (None, name)]


def _train_without(dataset: Path, folder: Path) -> Path:
    """A model that has never met the pair: its bundle."""
    if (folder / "bundle").exists():
        return folder / "bundle"
    with (dataset / "metadata.csv").open(encoding="utf-8", newline="") as file:
        facts = {row["video_id"]: "|".join(row.values()) for row in csv.DictReader(file)}
    met = {id_ for id_, text in facts.items() if set(text.split("|")) & set(PAIR)}
    rows = _read_ave(dataset)
    _write_ave(folder, dataset, {s: [(a, line) for a, line in rows[s] if line.split("&")[1] not in met] for s in rows})
    recipe = str(registry.asset("recipes/avsdn-avemix.yaml"))
    best = training.main(["fit", "--config", recipe, "--data.root", str(folder)]).trainer.checkpoint_callback
    shutil.copytree(Path(best.best_model_path).parent.parent / "bundle", folder / "bundle")  # type: ignore[union-attr]
    return folder / "bundle"


# -- data ------------------------------------------------------------------------------------------------------------


def _data(options: argparse.Namespace, parent: AVModule, clips: int, seed: int) -> AVDataModule:
    """What one training sees: clips drawn from the pool."""
    folder = options.work / f"{options.setting}-{clips}-{seed}"
    how: dict[str, Any] = {**PLANS[type(parent).__name__].data, "preprocess": parent.preprocess, "seed": seed}
    if options.setting == "scenes":
        pool = options.work / f"scenes-{options.size}"
        if not (pool / "meta.csv").exists():
            many = {"train": 28 * len(SCENES), "test": 20 * len(SCENES)}
            rendering.write_tau(pool, **many, seed=31, scenes=SCENES, size=options.size, workers=2)
        _write_tau(folder, pool, _drawn(_read_tau(pool), clips, seed))
        return TAU(folder, val="metadata", classes=SCENES, **how)
    pool = options.dataset
    if options.setting == "events":
        pool, names = options.work / f"events-{options.size}", (*EVENTS, BESIDE)
        if not (pool / "Annotations.txt").exists():
            many = {split: len(names) * a_class for split, a_class in (("train", 24), ("val", 8), ("test", 25))}
            rendering.write_ave(pool, **many, seed=32, classes=names, size=options.size, workers=2)
    pair = PAIR if options.setting == "avemix" else EVENTS
    rows = {split: [row for row in own if row[0] in pair] for split, own in _read_ave(pool).items()}
    _write_ave(folder, pool, _drawn(rows, clips, seed))
    return AVE(folder, **how)


def _drawn(rows: Mapping[Split, list[tuple[str, str]]], clips: int, seed: int) -> Rows:
    """As many of each class as are wanted; of the test split all."""
    counts = {"train": clips, "val": max(1, clips // 4)}
    found: Rows = {}
    for split, own in rows.items():
        by_label: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for row in own:
            by_label[row[0]].append(row)
        for label, mine in sorted(by_label.items()):
            random.Random(f"{seed} {split} {label}").shuffle(mine)
            if len(mine) < counts.get(split, 0):
                raise SystemExit(f"{len(mine)} clips of {label} in {split}, wanted {counts[split]}")
        found[split] = [row for mine in by_label.values() for row in mine[: counts.get(split)]]
    return found


def _read_ave(folder: Path) -> Rows:
    texts = {split: (folder / f"{split}Set.txt").read_text(encoding="utf-8") for split in LISTS}
    return {split: [(line.split("&")[0], line) for line in text.splitlines()] for split, text in texts.items()}


def _write_ave(folder: Path, pool: Path, rows: Rows) -> None:
    _link(folder, pool, "AVE")
    for split, own in rows.items():
        _write(folder / f"{split}Set.txt", (line for _, line in own))
    _write(folder / "Annotations.txt", (line for split in LISTS for _, line in rows[split]))


def _read_tau(pool: Path) -> Rows:
    """Of the training list, in which the places of each scene follow one another, the last are for validation."""
    lines = (pool / "metadata.csv").read_text(encoding="utf-8").splitlines()[1:]
    listed: Rows = {split: [] for split in LISTS}
    for line in lines:
        _, _, label, _, split, _ = line.split("\t")
        listed["test" if split == "test" else "train"].append((label, line))
    held = 8 * len(SCENES)
    return {"train": listed["train"][:-held], "val": listed["train"][-held:], "test": listed["test"]}


def _write_tau(folder: Path, pool: Path, rows: Rows) -> None:
    _link(folder, pool, "audio", "video")
    setup = {"train": rows["train"] + rows["val"], "test": rows["test"], "evaluate": rows["test"]}
    for name, own in setup.items():
        lines = ["\t".join(line.split("\t")[:3]) for _, line in own]
        _write(
            folder / "evaluation_setup" / f"fold1_{name}.csv", ["filename_audio\tfilename_video\tscene_label", *lines]
        )
    table = ["\t".join([*line.split("\t")[:2], split]) for split, own in rows.items() for _, line in own]
    _write(folder / "metadata.csv", ["filename_audio\tfilename_video\tsplit", *table])


def _link(folder: Path, pool: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if not (folder / name).exists():
            (folder / name).symlink_to((pool / name).resolve())


def _write(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


# -- figures ---------------------------------------------------------------------------------------------------------


def _accuracy(parent: AVModule, data: AVDataModule, seed: int, epochs: int, *, scratch: bool) -> float:
    """On test: of the seconds of events, or of the clips of scenes."""
    kind = type(parent)
    if scratch:
        torch.manual_seed(seed)
        start = kind(**dict(parent.hparams))  # what is new all over, trains all over
        lr = RATES[kind.__name__]
        model = finetune(start, data, freeze="none", lr=lr, lr_rest=lr, epochs=epochs, seed=seed)
    else:
        model = finetune(parent, data, epochs=epochs, seed=seed)
    with quiet():
        tester = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
        [figures] = tester.test(model, datamodule=data, verbose=False)
    return figures["test_segment_accuracy" if model.task == "segment" else "test_clip_accuracy"]


def _commonest(data: AVDataModule) -> float:
    """The test accuracy of whoever always answers what is commonest."""
    data.setup("test")
    labels = data.sets["test"].label.flatten().tolist()  # type: ignore[attr-defined]
    return max(Counter(labels).values()) / len(labels)


def draw(table: Mapping[str, Mapping[str, Any]], path: Path) -> Path:
    """The curves, one field a setting and paper: mean and standard deviation over seeds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    keys = [key for key in TITLES if key in table]
    figure = Figure(figsize=(3.8 * len(keys), 3.8), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    for axes, key in zip(figure.subplots(1, len(keys), squeeze=False, sharey=True).flat, keys, strict=True):
        for start, colour, label, beside in (
            ("checkpoint", "#0072B2", "from the checkpoint", 0.98),
            ("scratch", "#D55E00", "from scratch", 1.02),
        ):
            own = {int(number): _mean_and_spread(values) for number, values in table[key][start].items()}
            numbers = sorted(own)
            means, spreads = ([own[n][i] for n in numbers] for i in (0, 1))
            places = [n * beside for n in numbers]
            axes.errorbar(places, means, spreads, color=colour, marker="o", capsize=3, label=label)
        axes.axhline(100 * table[key]["one answer for all"], color="#888888", linestyle=":", label="one answer for all")
        axes.set_title(TITLES[key], fontsize=10, loc="left")
        axes.set_xscale("log")
        axes.set_xticks(numbers, [str(n) for n in numbers])
        axes.minorticks_off()
        axes.set_xlabel("training clips a class")
        axes.set_ylim(0, 102)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("test accuracy, %")
    figure.axes[0].legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=100)
    return path


if __name__ == "__main__":
    main()
