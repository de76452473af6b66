"""Where a training starts: tensors of models that were trained before, taken over by name.

`init_from` of a recipe lists them: a name of the registry, a recipe's own name (its newest run in `runs/`), a bundle's
folder, or a `.ckpt`. What fits by name and shape is taken; what depends on the classes only where they are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from avzoo import bundle, registry
from avzoo.errors import AvzooError, DataNotFoundError, UnknownModelError, did_you_mean
from avzoo.hub import locate
from avzoo.models import AVModule

MODALITIES: tuple[Literal["audio", "visual"], ...] = ("audio", "visual")


def find_parent(given: str) -> AVModule:
    """The model that one entry of `init_from` names, called by that name.

    Raises:
        DataNotFoundError: If it names a recipe that was not trained here; the message has the command.
        UnknownModelError: If it names nothing.
        BundleError: If what it names cannot be read.
    """
    model = _read(given)
    model.name = given
    return model


def _read(given: str) -> AVModule:
    ref = registry.parse_ref(given, paths=True)
    if ref.folder is not None and ref.folder.suffix == ".ckpt":
        return bundle.read_training_checkpoint(ref.folder)
    entry = registry.entries().get(ref.name)
    if not ref.name or (entry is not None and entry.weights is not None):
        return locate(ref).read()
    runs = sorted(Path("runs", ref.name).glob("version_*/bundle"), key=lambda folder: folder.stat().st_mtime)
    if runs:
        return bundle.read(runs[-1])
    if ref.name not in registry.recipes():
        known = [*registry.entries(), *registry.recipes()]
        raise UnknownModelError(
            f"init_from: {given!r} is no model, no recipe and no folder{did_you_mean(given, known)} (a folder has a"
            " separator or a leading dot)"
        )
    raise DataNotFoundError(
        f"init_from: {ref.name} has not been trained here (no runs/{ref.name}/version_*/bundle):"
        f" `avzoo fit --config recipes/{ref.name}.yaml` makes it"
    )


def take_over(model: AVModule, parents: Sequence[AVModule]) -> str:
    """Copy into a model what its parents know.

    Args:
        model: On any device, in any state.
        parents: A later one wins.

    Returns:
        A sentence on what was taken and what stays fresh.

    Raises:
        AvzooError: If a parent reads another signal path, or has nothing to give.
    """
    own = model.state_dict()
    taken: dict[str, str] = {}
    for parent in parents:
        _check_signal_path(model, parent)
        heads = set() if parent.classes == model.classes else class_dependent(parent)
        given = parent.state_dict()
        fitting = {key for key in given.keys() & own.keys() - heads if own[key].shape == given[key].shape}
        for part in model.wholes:
            keys = {key for key in own if key.startswith(part)}
            if not keys <= fitting:
                fitting -= keys
        if not fitting:
            raise AvzooError(f"init_from: {parent.name} has no tensor that fits {model.name}; is it of another kind?")
        with torch.no_grad():
            for key in sorted(fitting):
                own[key].copy_(given[key])
        taken |= dict.fromkeys(sorted(fitting), parent.name)
    fresh = sorted({".".join(key.split(".")[:2]) for key in own if key not in taken})
    from_ = ", ".join(dict.fromkeys(taken.values()))
    return f"{len(taken)} of {len(own)} tensors from {from_}; fresh: {', '.join(fresh) or 'nothing'}"


def _check_signal_path(model: AVModule, parent: AVModule) -> None:
    """Refuse weights that were trained on other numbers of a modality that they read."""
    theirs, ours = parent.preprocess.to_dict(), model.preprocess.to_dict()
    for modality in MODALITIES:
        if modality not in parent.modalities or modality not in model.modalities:
            continue
        keys = parent.preprocess.numbers(modality).keys() - {"visual_kind"}  # whose backbone it is changes no feature
        for key in sorted(keys):
            if theirs[key] != ours[key]:
                raise AvzooError(
                    f"init_from: {parent.name} was trained with {key}={theirs[key]!r}, this recipe has {ours[key]!r}:"
                    f" its weights are for another {'sound' if modality == 'audio' else 'picture'}"
                )


def class_dependent(model: AVModule) -> set[str]:
    """The tensors whose shape depends on the number of classes."""
    given = dict(model.hparams).items()  # those of LightningCLI begin with a line
    options = {key: value for key, value in given if key != "classes" and not key.startswith("_")}
    with torch.device("meta"):
        wider = type(model)([*model.classes, "one more"], **options).state_dict()
    return {key for key, value in model.state_dict().items() if value.shape != wider[key].shape}
