"""CPU seconds of training: `avzoo fit` against the loop that one would write in plain PyTorch.

    python docs/benchmarks/overhead.py [--rounds 7] [--clips 1280] [--epochs 2] [--batch 64]

The network is AVSDN at the paper's size, the data are random features of AVE's shape in memory: `[10, 128]` of sound
and `[10, 2048]` of pictures, 29 classes, 402 clips of validation. Both train on the same batches in the same order,
validate and count accuracy after every epoch, and save the state then, once more if it is the best so far. `avzoo fit`
is all of it: rows on the terminal, metrics.csv, checkpoints that a run goes on from exactly. Both must end with the
same weights, bit for bit. One thread; the two take turns step by step, in one process, so that whatever else the
machine does meets both. The ratio is the median of the rounds, with its 25-75 % spread; what `avzoo fit` does once
(reading the recipe, the bundle, the report) is given in seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn

from avzoo import training
from avzoo.data.base import Item, Split
from avzoo.data.events import EventDataModule, EventSet
from avzoo.metrics import SegmentAccuracy
from avzoo.models import AVSDN
from avzoo.preprocess import Preprocess
from avzoo.train.tracking import Record

CLASSES = [f"event {index}" for index in range(28)] + ["background"]
VALIDATION = 402

State = dict[str, Tensor]


class Shaped(EventDataModule):
    """Random features of AVE's shape; the same for the same `clips`.

    Args:
        preprocess: Whose shapes are taken.
        clips: Of training.
        batch_size: Clips a step.
        seed: Of the order.
    """

    def __init__(
        self, preprocess: Preprocess | dict[str, Any] | None = None, *, clips: int, batch_size: int = 64, seed: int = 0
    ) -> None:
        super().__init__(preprocess, batch_size=batch_size, seed=seed)
        self.clips = clips

    @property
    def classes(self) -> list[str]:
        """As many as AVE has."""
        return CLASSES

    def items(self, split: Split) -> list[Item]:  # noqa: ARG002
        """There are no files."""
        return []

    def prepare_data(self) -> None:
        """Nothing is extracted."""

    def load(self, split: Split) -> EventSet:
        """Random numbers."""
        count = self.clips if split == "train" else VALIDATION
        generator = torch.Generator().manual_seed(count)
        return EventSet(
            torch.rand(count, 10, 128, generator=generator),
            torch.rand(count, 1, 10, 2048, generator=generator),
            torch.arange(count),
            torch.randint(len(CLASSES), (count, 10), generator=generator),
            [str(index) for index in range(count)],
            len(CLASSES) - 1,
        )


class Clock(Record):
    """The run's record, which after every step takes one of the plain loop, and keeps two accounts.

    Attributes:
        plain: CPU seconds of the loop.
        own: CPU seconds of all else between the first step and the end.
    """

    plain = own = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Both begin with the same weights."""
        self.loop = loop(trainer.datamodule, copy.deepcopy(pl_module.state_dict()), trainer.max_epochs)  # type: ignore[attr-defined, arg-type]
        self.begun = time.process_time()

    def on_train_batch_end(self, *_: Any) -> None:
        """The loop's turn."""
        begun = time.process_time()
        self.state = next(self.loop, None) or self.state
        self.plain += time.process_time() - begun

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the loop finish, and compare."""
        super().on_train_end(trainer, pl_module)
        self.on_train_batch_end()
        self.own = time.process_time() - self.begun - self.plain
        weights = pl_module.state_dict()
        different = [key for key, value in self.state.items() if not torch.equal(value, weights[key])]
        if different:
            sys.exit(f"the two end with other weights: {different[:3]}")


def loop(data: Shaped, start: State, epochs: int) -> Iterator[State]:
    """Training in plain PyTorch, step by step."""
    model: nn.Module = AVSDN(CLASSES)
    model.load_state_dict(start)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 15_000, gamma=0.1)
    train, val = data.sets["train"], data.sets["val"]
    order = data.batches("train")
    best = -1.0
    for epoch in range(epochs):
        order.set_epoch(epoch)
        model.train()
        total = torch.zeros(())
        for rows in order:
            batch = train[rows]
            loss = model.loss(model(batch.audio, batch.visual), batch.label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach() * len(batch.label)
            yield model.state_dict()
        model.eval()
        accuracy = SegmentAccuracy()
        with torch.inference_mode():
            for rows in data.batches("val"):
                batch = val[rows]
                logits = model(batch.audio, batch.visual)
                model.loss(logits, batch.label)
                accuracy.update(logits, batch.label)
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
        torch.save(state, "last.pt")
        if float(accuracy.compute()) > best:
            best = float(accuracy.compute())
            torch.save(state, "best.pt")


def fit(options: argparse.Namespace) -> tuple[float, float, float]:
    """`avzoo fit` in an empty folder; CPU seconds of its training, of the plain loop, and of what it does once."""
    recipe = Path("recipe.yaml")
    recipe.write_text(
        "seed_everything: 0\n"
        "preprocess: {audio_backbone: vggish, visual_backbone: resnet152.tv_in1k}\n"
        "model: {name: AVSDN}\n"
        f"data: {{name: {Shaped.__module__}.Shaped, clips: {options.clips}, batch_size: {options.batch}}}\n"
        f"trainer: {{max_epochs: {options.epochs}, accelerator: cpu}}\n"
        "monitor: val_segment_accuracy\n"
    )
    begun = time.process_time()
    with mock.patch("avzoo.train.tracking.Record", Clock), contextlib.redirect_stdout(io.StringIO()):
        clock = training.main(["fit", "--config", str(recipe)]).record
    if not isinstance(clock, Clock):
        raise SystemExit("this script's clock was not in the training")
    return clock.own, clock.plain, time.process_time() - begun - clock.own - clock.plain


def main() -> None:
    """Compare, then time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clips", type=int, default=1280)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rounds = []
    for _ in range(options.rounds + 1):
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            rounds.append(fit(options))
    own, plain, once = zip(*rounds[1:], strict=True)  # the first one warms up
    ratios = [ours / theirs for ours, theirs in zip(own, plain, strict=True)]
    steps = options.epochs * -(-options.clips // options.batch)
    low, middle, high = statistics.quantiles(ratios, n=4)
    step = 1000 * statistics.median(plain) / steps
    more = 1000 * (statistics.median(own) - statistics.median(plain)) / steps
    print(f"{steps} steps of {options.batch} clips, {os.cpu_count()} CPUs, torch {torch.__version__}")
    print(f"plain loop   {step:7.1f} ms a step, validation and saving included")
    print(f"avzoo fit    {step + more:7.1f} ms a step: {middle:.3f} of it ({low:.3f} to {high:.3f}), {more:+.1f} ms")
    print(f"once a run   {statistics.median(once):7.1f} s")


if __name__ == "__main__":
    main()
