"""Fine-tuning: a trained model, some clips of one's own, and a model of one's own classes a few minutes later.

Everything but the head is taken over (`init_from`), which learns at `lr`, the rest at `lr_rest`. The epoch with the
lowest validation loss is kept; where none was better for `patience` epochs, training ends.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from torch import Tensor

from avzoo import bundle
from avzoo.data.base import AVDataModule, Split
from avzoo.data.clips import Clips
from avzoo.data.scenes import SceneDataModule
from avzoo.errors import AvzooError, DataNotFoundError
from avzoo.hub import load
from avzoo.init_from import class_dependent, find_parent, take_over
from avzoo.models import AVModule

Freeze = Literal["none", "backbone", "encoders"]
Balance = Literal["none", "weights"]


@dataclass(frozen=True)
class Plan:
    """What fine-tuning has to know of a model.

    Attributes:
        backbone: Beginnings of the names of what a pretrained image encoder of the model's own has.
        encoders: Likewise, of all that reads one modality; their classifiers, if any, always train.
        options: Arguments of the model that fine-tuning sets: what is frozen is its own choice.
        data: Arguments of `Clips`, as the model's recipes have them.
    """

    backbone: tuple[str, ...] = ()
    encoders: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)


PLANS: dict[str, Plan] = {
    "AVSDN": Plan(
        encoders=("attention.", "audio_encoder.", "visual_encoder."),
        data={"swap": 1.0, "reverse": 0.5, "batch_size": 4},
    ),
    "SegmentMLP": Plan(data={"swap": 1.0, "reverse": 0.5, "batch_size": 4}),
    "SECRNNFusion": Plan(
        backbone=("visual.encoder.",),
        encoders=("audio.", "visual."),
        options={"freeze": "none", "train_blocks": 0, "mixup": 0.0},
        data={"examples": "second", "batch_size": 8},
    ),
    "JointScalogramNet": Plan(
        backbone=("image_encoder.",),
        encoders=("audio_encoder.", "image_encoder."),
        options={"ae_frozen": False, "audio_temperature": 1.0, "visual_temperature": 1.0},
        data={"examples": "pair", "batch_size": 64},
    ),
}


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
        freeze: What keeps its weights and batch statistics. "backbone", the model's own image encoder (SECRNNFusion's;
            JointScalogramNet's never trains, and of AVSDN and SegmentMLP the backbones are preprocessing); "encoders",
            also all that reads sound or pictures alone (AVSDN's attention and two encoders; SECRNNFusion's audio and
            visual network but for their classifiers; JointScalogramNet's AE); "none", nothing.
        epochs: At most.
        lr: Learning rate of the head, falling to zero along a cosine.
        lr_rest: Of all else; default a tenth of `lr`.
        patience: Epochs without a lower validation loss after which it ends.
        balance: "weights" gives every class the same weight in the training loss, however many clips it has (of events,
            a window counts for the class that takes most of it).
        batch_size: Default 4 windows (events), 8 seconds (SECRNNFusion) or 64 pairs (JointScalogramNet) a step.
        out: A folder for the result as a bundle, which `load` and `avzoo publish` take; replaced if it is one already.
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
        MediaError: If clips cannot be read.
    """
    if freeze not in ("none", "backbone", "encoders") or balance not in ("none", "weights"):
        raise AvzooError(
            f"freeze={freeze!r}, balance={balance!r}: expected 'none', 'backbone' or 'encoders' and 'none' or 'weights'"
        )
    lr_rest = lr / 10 if lr_rest is None else lr_rest
    if epochs < 1 or patience < 1 or not lr > 0 or not lr_rest >= 0:
        raise AvzooError(
            f"epochs={epochs}, patience={patience}, lr={lr:g}, lr_rest={lr_rest:g}: expected 1 or more of both, a rate"
            " above 0 and one that is not below"
        )
    place = _place(device)
    parent = _parent(model)
    plan = PLANS[type(parent).__name__]
    clips = _clips(
        data, parent, plan, batch_size=batch_size, workers=workers, device=device,
        on_missing_audio=on_missing_audio, on_damage=on_damage, on_missing=on_missing, seed=seed,
    )  # fmt: skip
    clips.items("val")  # what is wrong with the clips as a whole is said before anything else
    with torch.random.fork_rng(), _quiet(), tempfile.TemporaryDirectory() as scratch:
        torch.manual_seed(seed)
        own = {key: value for key, value in dict(parent.hparams).items() if key not in ("classes", "preprocess")}
        child = type(parent)(clips.classes, preprocess=parent.preprocess, **{**own, **plan.options, "lr": lr})
        frozen = _freeze(child, plan, freeze)
        head = head_of(child)
        print(f"{parent.name}: {len(parent.classes)} classes; now {len(child.classes)}: {', '.join(child.classes)}")
        child.take_over = lambda: print(f"init_from: {take_over(child, [parent])}")  # type: ignore[method-assign]
        child.configure_optimizers = lambda: _optimizer(child, head, lr, lr_rest, epochs)  # type: ignore[method-assign]
        best = ModelCheckpoint(scratch, "best", monitor="val_loss", save_weights_only=True)
        callbacks: list[Callback] = [best, EarlyStopping("val_loss", patience=patience), _KeepFrozen(frozen)]
        if balance == "weights":
            callbacks.append(_Balanced())
        options: dict[str, Any] = {**place, "logger": False, "enable_model_summary": False}
        options["enable_progress_bar"] = sys.stderr.isatty()
        trainer = Trainer(
            max_epochs=epochs, callbacks=callbacks, num_sanity_val_steps=0, gradient_clip_val=1.0, **options
        )
        trainer.fit(child, datamodule=clips)
        result = bundle.read_training_checkpoint(Path(best.best_model_path))
        if result.hparams.get("modality_dropout") and isinstance(clips, Clips | SceneDataModule):
            print(result.calibrate(clips.whole("val")))
        epoch = torch.load(best.best_model_path, map_location="cpu", weights_only=True)["epoch"]
        print(f"epoch {epoch + 1} of {trainer.current_epoch} is the best: {_figures(result, clips, options)}")
    result = result.cpu().eval()
    result.name = _result_name(parent, data)
    if out is not None:
        recipe = _recipe(result, clips, parent, model, epochs=epochs, seed=seed)
        print(f"as a bundle: {bundle.write(Path(out), result, recipe=recipe, half=False)}")
    return result


def head_of(model: AVModule) -> set[str]:
    """The names of the tensors that other classes need anew: what `init_from` leaves fresh then."""
    heads = class_dependent(model)
    parts = [part for part in model.wholes if any(key.startswith(part) for key in heads)]
    return heads | {key for key in model.state_dict() if key.startswith(tuple(parts))}


def _parent(given: str | Path | AVModule) -> AVModule:
    if isinstance(given, AVModule):
        return given
    return load(given) if isinstance(given, Path) else find_parent(given)


def _clips(
    data: str | Path | AVDataModule, parent: AVModule, plan: Plan, *, batch_size: int | None, **options: Any
) -> AVDataModule:
    if not isinstance(data, AVDataModule):
        options |= plan.data if batch_size is None else {**plan.data, "batch_size": batch_size}
        task: Literal["events", "scenes"] = "events" if parent.task == "segment" else "scenes"
        return Clips(Path(data), task=task, preprocess=parent.preprocess, **options)
    ours, theirs = parent.preprocess.to_dict(), data.preprocess.to_dict()
    for key, value in ours.items():
        if value != theirs[key]:
            raise AvzooError(
                f"the data has {key}={theirs[key]!r}, {parent.name} was trained with {value!r}: give the datamodule"
                " preprocess=model.preprocess"
            )
    return data


# -- how it trains ---------------------------------------------------------------------------------------------------


def _freeze(model: AVModule, plan: Plan, freeze: Freeze) -> list[torch.nn.Module]:
    """Freeze parameters but for the head's, and return the modules whose statistics are to stay as they are.

    Raises:
        AvzooError: If the model has no encoders.
    """
    parts = {"none": (), "backbone": plan.backbone, "encoders": plan.encoders}[freeze]
    if freeze == "encoders" and not parts:
        raise AvzooError(
            f"a {type(model).__name__} has no encoders to freeze: its backbones are preprocessing as it is"
        )
    head = head_of(model)
    for name, parameter in model.named_parameters():
        if name.startswith(parts or ("\0",)) and name not in head:
            parameter.requires_grad_(False)
    names = tuple(part.rstrip(".") for part in parts)
    return [module for name, module in model.named_modules() if name in names]


class _KeepFrozen(Callback):
    """Batch statistics and dropout of what is frozen rest, whatever mode the model is put into."""

    def __init__(self, modules: list[torch.nn.Module]) -> None:
        self.modules = modules

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        for module in self.modules:
            module.eval()


def _optimizer(model: AVModule, head: set[str], lr: float, lr_rest: float, epochs: int) -> Any:
    """AdamW with a rate for the head and one for the rest."""
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    rest = [parameter for name, parameter in trained if name not in head]
    groups = [{"params": [parameter for name, parameter in trained if name in head], "lr": lr}]
    groups += [{"params": rest, "lr": lr_rest}] if rest else []
    optimizer = torch.optim.AdamW(groups)
    return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)}


class _Balanced(Callback):
    """Every class weighs the same in the training loss."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the training windows, and weigh from now on."""
        if not isinstance(pl_module, AVModule):
            return
        data: AVDataModule = trainer.datamodule  # type: ignore[attr-defined]
        count = Counter(item.label for item in data.items("train"))
        weights = torch.tensor([1 / count[name] if count[name] else 0.0 for name in pl_module.classes])
        pl_module.loss = weighted(pl_module, weights.to(pl_module.device))  # type: ignore[method-assign, assignment]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Leave the model as it was."""
        del pl_module.loss


def weighted(model: AVModule, weights: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The model's loss, in training with a weight for each row by its class.

    Args:
        model: Whose loss is a mean over rows.
        weights: Float32 `[classes]`. A row of segments has the class of its commonest event.
    """
    plain = model.loss

    def loss(logits: Tensor, label: Tensor) -> Tensor:
        if not model.training:
            return plain(logits, label)
        row = label if label.ndim == 1 else _category(label, len(model.classes))
        total, share = logits.new_zeros(()), logits.new_zeros(())
        for kind in torch.unique(row):
            mine = row == kind
            weight = weights[kind] * mine.sum()
            total, share = total + weight * plain(logits[mine], label[mine]), share + weight
        return total / share

    return loss


def _category(label: Tensor, classes: int) -> Tensor:
    """The commonest event of each row of `[batch, segments]`, the background where there is none."""
    counts = torch.nn.functional.one_hot(label, classes).sum(1)
    counts[:, -1] = 0  # ties, and rows of nothing else, are decided below
    return torch.where(counts.sum(1) > 0, counts.argmax(1), classes - 1)


# -- around it -------------------------------------------------------------------------------------------------------


def _place(device: str) -> dict[str, Any]:
    """What Lightning calls a device."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise AvzooError(f"device {device!r} cannot be used here ({str(error).splitlines()[0]}): try cpu") from error
    kind, _, number = device.partition(":")
    return {"accelerator": kind, "devices": [int(number)] if number and kind == "cuda" else 1}


NOISE = (
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
    r".*in eval mode at the start of training.*",
    r".*does not have many workers.*",
    r".*Checkpoint directory .* exists and is not empty.*",
    r".*smaller than the logging interval.*",
)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what Lightning says that helps nobody here."""
    loggers = [logging.getLogger(f"lightning.{name}") for name in ("pytorch.utilities.rank_zero", "pytorch")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        with warnings.catch_warnings():
            for message in NOISE:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _figures(model: AVModule, data: AVDataModule, options: dict[str, Any]) -> str:
    """The model's metrics on validation, and on test where there is one, as a sentence."""
    said = []
    quiet = {**options, "enable_progress_bar": False, "enable_checkpointing": False}
    for split, name in (("val", "validation"), ("test", "test")):
        if not _has(data, split):  # type: ignore[arg-type]
            continue
        run = Trainer(**quiet).validate if split == "val" else Trainer(**quiet).test
        [figures] = run(model, datamodule=data, verbose=False)
        words = [f"{key.removeprefix(f'{split}_').replace('_', ' ')} {value:.3f}" for key, value in figures.items()]
        said.append(f"{name} {', '.join(words)} ({len(data.items(split))} windows)")  # type: ignore[arg-type]
    return "; ".join(said)


def _has(data: AVDataModule, split: Split) -> bool:
    try:
        return bool(data.items(split))
    except DataNotFoundError:
        return False


def _result_name(parent: AVModule, data: str | Path | AVDataModule) -> str:
    """What the result is called: after what it came from and what it learnt."""
    learnt = type(data).__name__ if isinstance(data, AVDataModule) else Path(data).resolve().stem
    return re.sub(r"[^\w.-]+", "-", f"{Path(parent.name).name}-{learnt}")


def _recipe(
    result: AVModule, data: AVDataModule, parent: AVModule, given: str | Path | AVModule, *, epochs: int, seed: int
) -> str:
    """What `avzoo fit` takes to do nearly the same."""
    options = {key: value for key, value in dict(result.hparams).items() if key not in ("classes", "preprocess")}
    clips: dict[str, Any] = {"name": type(data).__name__}
    if isinstance(data, Clips):
        clips |= {"root": str(data.root.resolve()), "task": data.task, "val_fraction": data.val_fraction}
        clips |= PLANS[type(result).__name__].data
    clips["batch_size"] = data.batch_size
    recipe = {
        "seed_everything": seed,
        "preprocess": result.preprocess.to_dict(),
        "model": {"name": type(result).__name__, **options},
        "data": clips,
        "trainer": {"max_epochs": epochs},
        "init_from": [str(given.resolve()) if isinstance(given, Path) else parent.name],
        "monitor": "val_loss",
    }
    text: str = yaml.safe_dump(_plain(recipe), sort_keys=False, allow_unicode=True)
    head = "# By `avzoo finetune`, whose learning rates by part and early stopping `avzoo fit` does not have.\n"
    return head + text


def _plain(value: Any) -> Any:
    """With lists for tuples, which YAML does not know."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
