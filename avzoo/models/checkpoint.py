"""One network of a training checkpoint, as a file of its weights."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from avzoo.errors import AvzooError, DataNotFoundError
from avzoo.files import whole


def write_weights(
    checkpoint: Path,
    out: Path,
    *,
    of: str,
    prefix: str,
    build: Callable[[Mapping[str, Any]], nn.Module],
    half: bool = False,
) -> Mapping[str, Any]:
    """Write what a checkpoint has of one network as safetensors.

    Args:
        checkpoint: A `.ckpt` of `avzoo fit`; loaded with `weights_only`.
        out: The file to write.
        of: The class that was trained.
        prefix: What its names of that network's tensors begin with.
        build: Makes the network, weights aside, from the checkpoint's hyperparameters.
        half: In half precision.

    Returns:
        The checkpoint's hyperparameters.

    Raises:
        DataNotFoundError: If there is no such checkpoint.
        AvzooError: If it is none of that class.
    """
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
        options: Mapping[str, Any] = content.get("hyper_parameters", {})
        expected = build(options).state_dict().keys()
        state = {
            key.removeprefix(prefix): (value.half() if half and value.is_floating_point() else value).contiguous()
            for key, value in content["state_dict"].items()
            if key.startswith(prefix)
        }
    except FileNotFoundError as error:
        raise DataNotFoundError(f"{checkpoint}: there is no such file") from error
    except (OSError, LookupError, TypeError, AttributeError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise AvzooError(f"{checkpoint}: not a checkpoint of {of} ({type(error).__name__})") from error
    if state.keys() != expected:
        raise AvzooError(f"{checkpoint}: not a checkpoint of {of}, below {prefix} it has {list(state)[:3]}")
    with whole(out) as unfinished:
        save_file(state, unfinished)
    return options
