"""The checkpoint that `avzoo fit` leaves, read without executing anything in it."""

from __future__ import annotations

import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch

from avzoo.errors import BundleError, DataNotFoundError
from avzoo.models import MODELS, AVModule


def read_training_checkpoint(path: Path) -> AVModule:
    """The model in a Lightning checkpoint of `avzoo fit`, in eval mode; nothing in the file is executed.

    Raises:
        DataNotFoundError: If there is no such file.
        BundleError: If it is no checkpoint of avzoo.
    """
    checkpoint = load_training_checkpoint(path)
    try:
        kind = MODELS[checkpoint["avzoo_model"]]
        options = {key: value for key, value in checkpoint["hyper_parameters"].items() if not key.startswith("_")}
        model = kind(**options)
        differing = checkpoint["state_dict"].keys() ^ model.state_dict().keys()
        if differing:
            raise KeyError(f"tensors that only the file or only the network has: {sorted(differing)[:3]}")
        model.load_state_dict(checkpoint["state_dict"], strict=False)
    except (RuntimeError, LookupError, TypeError, AttributeError, ValueError) as error:
        raise BundleError(f"{path} is no checkpoint of `avzoo fit`: {type(error).__name__}: {error}") from error
    if not {name for name, _ in model.named_parameters()} <= checkpoint["state_dict"].keys():
        model.fill_backbone()  # a frozen one of the model's own, which no state dict holds
    return model.eval()


def training_facts(path: Path) -> tuple[str, dict[str, str]]:
    """Commit of the code and versions that a checkpoint was trained with; both empty where it does not say.

    Raises:
        DataNotFoundError: If there is no such file.
        BundleError: If it is no checkpoint of avzoo.
    """
    content = load_training_checkpoint(path)
    facts = content.get("avzoo") if isinstance(content, dict) else None
    if not isinstance(facts, dict):
        return "", {}
    commit, versions = facts.get("commit"), facts.get("versions")
    known = versions if isinstance(versions, dict) else {}
    return commit if isinstance(commit, str) else "", {str(key): str(value) for key, value in known.items()}


def load_training_checkpoint(path: Path) -> Any:
    """What is in a checkpoint; errors as `read_training_checkpoint`."""
    if not path.is_file():
        raise DataNotFoundError(
            f"{path} is not there: `avzoo fit` writes runs/<recipe>/version_<n>/checkpoints/best.ckpt"
        )
    if not zipfile.is_zipfile(path):  # neither torch's old format nor a bare pickle is so much as looked at
        raise BundleError(f"{path} is no checkpoint of `avzoo fit`: it is no zip file, as torch.save writes")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:  # torch's own text advises to read it unsafely
        raise BundleError(
            f"{path} is no checkpoint of `avzoo fit`: it is no file of tensors and plain values alone"
        ) from error
    except (OSError, RuntimeError, LookupError, TypeError, AttributeError, ValueError, EOFError, struct.error) as error:
        raise BundleError(f"{path} is no checkpoint of `avzoo fit`: {type(error).__name__}: {error}") from error
