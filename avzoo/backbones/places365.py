"""VGG16 trained on the scenes of Places365: the public Keras file in timm's names.

The file has a group a layer, `block1_conv1` to `block5_conv3`, with a kernel `[3, 3, in, out]` and a bias below it,
called `block1_conv1/kernel:0` and `block1_conv1/bias:0` by Keras 2 and `block1_conv1_W_1:0` and `block1_conv1_b_1:0`
by older ones. What follows the convolutions (`fc1`, `fc2`, `predictions`) is not read.

The network came from Caffe: it expects B, G, R from 0 to 255 minus a mean. Its first kernel is therefore turned to
R, G, B here, and `input` of the entry `vgg16.places365` does the rest: a mean, and a deviation of 1/255, so that no
weight is scaled. The mean is that of the public code's own example, ImageNet's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from avzoo.errors import DataNotFoundError

_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def convert_places365_vgg16(file: Path) -> dict[str, Tensor]:
    """Read the public Keras file of VGG16 on Places365 as the `features.*` of timm's `vgg16`, for R, G, B.

    Raises:
        DataNotFoundError: If it is no such file.
    """
    state: dict[str, Tensor] = {}
    index, channels = 0, 3
    try:
        with h5py.File(file, "r") as content:
            layers = content.get("model_weights", content)  # a whole model, or weights
            for block, widths in enumerate(_BLOCKS, start=1):
                for number, width in enumerate(widths, start=1):
                    name = f"block{block}_conv{number}"
                    found = _arrays(layers[name])
                    if sorted(array.shape for array in found) != sorted([(3, 3, channels, width), (width,)]):
                        raise DataNotFoundError(
                            f"{file} is not the public Places365 VGG16: {name} holds arrays of"
                            f" {[array.shape for array in found]}, expected (3, 3, {channels}, {width}) and ({width},)"
                        )
                    for array in found:
                        tensor = torch.from_numpy(array.astype(np.float32))
                        if tensor.ndim == 1:
                            state[f"features.{index}.bias"] = tensor
                        else:
                            state[f"features.{index}.weight"] = tensor.permute(3, 2, 0, 1).contiguous()
                    index, channels = index + 2, width
                index += 1  # the block's pooling
    except (OSError, KeyError, AttributeError) as error:
        raise DataNotFoundError(f"{file} is not the public Places365 VGG16: {error}") from error
    state["features.0.weight"] = state["features.0.weight"].flip(1)  # B, G, R to R, G, B
    return state


def _arrays(group: Any) -> list[Any]:
    found: list[Any] = []
    group.visititems(lambda _, item: found.append(item[()]) if isinstance(item, h5py.Dataset) else None)
    return found
