"""Fine-tuning: a trained model, some clips of one's own, and a model of one's own classes a few minutes later.

Everything but the head is taken over (`init_from`); `FineTune` says what learns how fast. The epoch with the lowest
validation loss is kept; where none was better for `patience` epochs, training ends. The bundle's `recipe.yaml` has all
of it: `avzoo fit` does the same again. What trains for a bundle is kept beside it until that is there: where a process
was killed, the next one with the same options goes on exactly.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from lightning import Trainer
from lightning.pytorch.callbacks import EarlyStopping

from avzoo import bundle
from avzoo.data.base import BACKGROUND, AVDataModule, Split
from avzoo.data.clips import Clips
from avzoo.data.scenes import SceneDataModule
from avzoo.data.windows import WindowDataModule
from avzoo.errors import AvzooError, DataNotFoundError
from avzoo.hub import load
from avzoo.init_from import find_parent, take_over
from avzoo.models.base import DATA_TASK, AVModule
from avzoo.train.best import Best
from avzoo.train.finetune import Balance, FineTune, Freeze, plan_of
from avzoo.train.noise import NOISE
from avzoo.train.progress import Progress
from avzoo.train.resume import Resumable, WholeCheckpoints
from avzoo.train.runs import until_made
from avzoo.train.signals import keeps_keyboard_interrupt, stops_on_signals

OF_TRAINER = {"gradient_clip_val": 1.0, "num_sanity_val_steps": 0}
STEPS = 10  # between two validations at least: a few clips make an epoch of one step, after which nobody can tell
SAVE_EVERY = 100  # steps between two checkpoints to go on from, beside those ahead of a validation


def finetune(
    model: str | Path | AVModule,
    data: str | Path | AVDataModule,
    *,
    freeze: Freeze = "backbone",
    epochs: int = 40,
    lr: float = 3e-3,
    lr_rest: float | None = None,
    patience: int = 10,
    balance: Balance = "none",
    batch_size: int | None = None,
    val_fraction: float = 0.2,
    out: str | Path | None = None,
    device: str = "cpu",
    workers: int | None = None,
    on_missing_audio: Literal["error", "silence"] = "error",
    on_damage: Literal["error", "pad"] = "error",
    on_missing: Literal["error", "skip"] = "error",
    seed: int = 0,
) -> AVModule:
    """Train a model on other clips, from what it knows.

    Args:
        model: A name of `list_models()`, a bundle's `Path`, or a loaded model, which is left as it is.
        data: A folder of folders or a table, see `avzoo.data.Clips`, read as events for a model of events and as scenes
            for one of scenes; or a datamodule with the model's own `preprocess`, whose options are then its own.
        freeze: What keeps its weights: "none", "backbone" or "encoders", see `FineTune`.
        epochs: At most; one is all clips once, or so often that it has ten steps.
        lr: Learning rate of the head, falling to zero along a cosine.
        lr_rest: Of all else; the default depends on the model, see `FineTune`.
        patience: Epochs without a lower validation loss after which it ends.
        balance: For classes of different size: "weights" in the loss or a "sampler", see `FineTune`.
        batch_size: Default 4 windows (events), 8 seconds (SECRNNFusion) or 64 pairs (JointScalogramNet) a step.
        val_fraction: Share of the training clips that is held back for validation where none is declared, see `Clips`.
        out: A folder for the result as a bundle, which `load` and `avzoo publish` take; replaced if it is one already.
            Only with it a training that is killed goes on when it is started again.
        device: Where it trains: "cpu", "cuda", "cuda:1", "mps".
        workers: Processes that extract features; 0 uses this one, None takes one per CPU core.
        on_missing_audio: What to do with a clip without sound: "error" or "silence".
        on_damage: What to do with a clip that is cut short: "error" or "pad".
        on_missing: What to do with clips that are not there or cannot be read: "error" or "skip".
        seed: Of the head's first weights and the order of training.

    Returns:
        The model of the best epoch, in eval mode, on the CPU.

    Raises:
        AvzooError: If an option is not one of those above, or the model has nothing of what is to be frozen.
        DataNotFoundError: If there is no such folder or table, or no video in it.
        AnnotationError: If the clips give nothing to learn; `avzoo check` says more.
        BundleError: If `out` is something else than a bundle.
        MediaError: If clips cannot be read.
    """
    counts = {"epochs": (epochs, 1), "patience": (patience, 1), "batch_size": (batch_size, 1), "workers": (workers, 0)}
    for name, (count, least) in counts.items():
        if count is not None and count < least:
            raise AvzooError(f"{name} is {count}, expected {least} or more")
    if not lr > 0:
        raise AvzooError(f"lr is {lr:g}, expected a rate above 0")
    tuning = FineTune(lr_rest=lr_rest, freeze=freeze, balance=balance)
    where = _place(device)
    place = None if out is None else Path(out)
    if place is not None:
        bundle.check_replaceable(place)
    parent = _parent(model)
    plan = plan_of(parent)
    given: dict[str, Any] = {"on_missing_audio": on_missing_audio, "on_damage": on_damage, "on_missing": on_missing}
    given |= plan.data if batch_size is None else {**plan.data, "batch_size": batch_size}
    clips = _clips(
        data, parent, {**given, "val_fraction": val_fraction, "workers": workers, "device": device, "seed": seed}
    )
    clips.items("val")  # what is wrong with the clips as a whole is said before anything else
    with torch.random.fork_rng(), quiet(), stops_on_signals() if place else contextlib.nullcontext():
        torch.manual_seed(seed)
        own = {key: value for key, value in dict(parent.hparams).items() if key not in ("classes", "preprocess")}
        child = type(parent)(clips.classes, preprocess=parent.preprocess, **{**own, **plan.options, "lr": lr})
        print(f"{parent.name}: {len(parent.classes)} classes; now {len(child.classes)}: {', '.join(child.classes)}")
        if isinstance(clips, Clips) and clips.task == "events" and not clips.has_background:
            print(f"no clip of {BACKGROUND}: it will rarely be answered (a folder or label of that name is for it)")
        clips.extract(("train", "val"))
        clips.setup("fit")
        repeats = -(-STEPS // len(clips.batches("train")))  # type: ignore[arg-type]
        length = {"max_epochs": epochs * repeats, "check_val_every_n_epoch": repeats, **OF_TRAINER}
        callbacks_of = [
            {"name": "FineTune", "lr_rest": lr_rest, "freeze": freeze, "balance": balance},
            {"name": "EarlyStopping", "monitor": "val_loss", "patience": patience},
        ]
        start = str(model.resolve()) if isinstance(model, Path) else parent.name
        recipe = _recipe(child, clips, given, start, {**length, "callbacks": callbacks_of}, seed)
        with until_made(place, f"{recipe}of: {_origin(parent, clips)}\n") as run:
            if run.checkpoint is None:
                child.take_over = lambda: print(f"init_from: {take_over(child, [parent])}")  # type: ignore[method-assign]
            else:
                done = _epochs(run.checkpoint) // repeats
                print(f"going on after epoch {done} of {epochs} (in {run.folder}; without that it starts anew)")
            best = Best(run, "val_loss")
            callbacks = [tuning, EarlyStopping("val_loss", patience=patience), Progress("val_loss", repeats), best]
            callbacks += [Resumable(run, SAVE_EVERY)] if place else []
            options: dict[str, Any] = {**where, "logger": False, "enable_model_summary": False}
            trainer = Trainer(callbacks=callbacks, plugins=[WholeCheckpoints()], **length, **options)  # type: ignore[arg-type]
            trainer.fit(child, datamodule=clips, ckpt_path=run.checkpoint)
            result = bundle.read_training_checkpoint(Path(best.best_model_path))
            if (
                result.task == "clip"
                and isinstance(clips, WindowDataModule | SceneDataModule)
                and (calibrated := result.calibrate(clips.whole("val")))
            ):
                print(calibrated)
            done, last = (_epochs(Path(best.best_model_path)) + 1) // repeats, trainer.current_epoch // repeats
            print(f"epoch {done} of {last} is the best: {_figures(result, clips, options)}")
            if done == epochs:
                print("the last epoch is the best one: more epochs may make it better still")
            result = result.cpu().eval()
            result.name = _result_name(parent, data)
            if place is not None:
                replaced = " (replaced)" if place.exists() else ""
                print(f"as a bundle{replaced}: {bundle.write(place, result, recipe=recipe, half=False)}")
    return result


def _parent(given: str | Path | AVModule) -> AVModule:
    if isinstance(given, AVModule):
        return given
    if isinstance(given, Path):
        return load(given)
    try:
        return find_parent(given)
    except AvzooError as error:
        raise type(error)(str(error).removeprefix("init_from: ")) from error


def _clips(data: str | Path | AVDataModule, parent: AVModule, options: Mapping[str, Any]) -> AVDataModule:
    if not isinstance(data, AVDataModule):
        return Clips(Path(data), task=DATA_TASK[parent.task], preprocess=parent.preprocess, **options)
    ours, theirs = parent.preprocess.to_dict(), data.preprocess.to_dict()
    for key, value in ours.items():
        if value != theirs[key]:
            raise AvzooError(
                f"the data has {key}={theirs[key]!r}, {parent.name} was trained with {value!r}: give the datamodule"
                " preprocess=model.preprocess"
            )
    return data


# -- around it -------------------------------------------------------------------------------------------------------


def _place(device: str) -> dict[str, Any]:
    """What Lightning calls a device."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise AvzooError(f"device {device!r} cannot be used here ({str(error).splitlines()[0]}): try cpu") from error
    kind, _, number = device.partition(":")
    return {"accelerator": kind, "devices": [int(number)] if number and kind == "cuda" else 1}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence Lightning's messages and known warnings; Ctrl+C stays a `KeyboardInterrupt`, for notebooks."""
    loggers = [logging.getLogger(f"lightning.{name}") for name in ("pytorch.utilities.rank_zero", "pytorch")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        with keeps_keyboard_interrupt(), warnings.catch_warnings():
            for message in NOISE:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _figures(model: AVModule, data: AVDataModule, options: dict[str, Any]) -> str:
    """The model's metrics on validation, and on test where there is one, as a sentence."""
    said = []
    quiet = {**options, "enable_checkpointing": False, "enable_progress_bar": False}
    for split, name in (("val", "validation"), ("test", "test")):
        if not _has(data, split):  # type: ignore[arg-type]
            continue
        run = Trainer(**quiet).validate if split == "val" else Trainer(**quiet).test
        [figures] = run(model, datamodule=data, verbose=False)
        said.append(f"{name} {_words(figures, split)} ({len(data.items(split))} windows)")  # type: ignore[arg-type]
    return "; ".join(said)


def _words(figures: Mapping[str, Any], split: str) -> str:
    """The metrics of a split.

    >>> _words({"val_loss": 0.5, "val_segment_accuracy": 0.75, "val_macro_accuracy": 0.7501, "train_loss": 0.4}, "val")
    'loss 0.500, segment accuracy 0.750'
    """
    own = {key.partition("_")[2]: f"{float(figures[key]):.3f}" for key in figures if key.startswith(f"{split}_")}
    for name, alike in (("macro_accuracy", "segment_accuracy"), ("macro_log_loss", "loss")):
        if own.get(name) == own.get(alike):  # as where classes are equally frequent
            own.pop(name, None)
    return ", ".join(f"{name.replace('_', ' ')} {figure}" for name, figure in own.items())


def _has(data: AVDataModule, split: Split) -> bool:
    try:
        return bool(data.items(split))
    except DataNotFoundError:
        return False


def _epochs(checkpoint: Path) -> int:
    """How many of Lightning's epochs were done when it was written."""
    return int(bundle.load_training_checkpoint(checkpoint)["epoch"])


def _origin(parent: AVModule, data: AVDataModule) -> str:
    """What a training is recognised by beside its recipe: the parent's weights, the clips, the order of an epoch."""
    digest = hashlib.sha256()
    for key, value in parent.state_dict().items():
        digest.update(key.encode() + value.cpu().contiguous().numpy().tobytes())
    for item in (*data.items("train"), *data.items("val")):
        media = item.path.stat() if item.path.exists() else None
        digest.update(f"{item} {media and (media.st_size, media.st_mtime_ns)}".encode())
    for rows in data.batches("train"):
        digest.update(repr(rows.tolist() if isinstance(rows, torch.Tensor) else rows).encode())
    return digest.hexdigest()


def _result_name(parent: AVModule, data: str | Path | AVDataModule) -> str:
    """What the result is called: after what it came from and what it learnt."""
    learnt = type(data).__name__ if isinstance(data, AVDataModule) else Path(data).resolve().stem
    return re.sub(r"[^\w.-]+", "-", f"{Path(parent.name).name}-{learnt}")


def _recipe(
    model: AVModule, data: AVDataModule, given: Mapping[str, Any], start: str, trainer: Mapping[str, Any], seed: int
) -> str:
    """What `avzoo fit` takes to do the same."""
    options = {key: value for key, value in dict(model.hparams).items() if key not in ("classes", "preprocess")}
    clips: dict[str, Any] = {"name": type(data).__name__}
    head = "# By `avzoo finetune`; `avzoo fit --config` with this file does the same again.\n"
    if isinstance(data, Clips):
        clips |= {"root": str(data.root.resolve()), "task": data.task, "val_fraction": data.val_fraction, **given}
    else:
        head = "# By `avzoo.finetune` with a datamodule: fill in its arguments for `avzoo fit`.\n"
    recipe = {
        "seed_everything": seed,
        "preprocess": model.preprocess.to_dict(),
        "model": {"name": type(model).__name__, **options},
        "data": clips,
        "trainer": dict(trainer),
        "init_from": [start],
        "monitor": "val_loss",
    }
    text: str = yaml.safe_dump(_plain(recipe), sort_keys=False, allow_unicode=True)
    return head + text


def _plain(value: Any) -> Any:
    """With lists for tuples, which YAML does not know."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
