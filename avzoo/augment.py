"""Augmented pictures, seeded: the same picture and seed give the same view, on any device, so that it can be cached.

What a view is: RandomResizedCrop, RandomHorizontalFlip, ColorJitter, as JointScalogramNet was trained
(arXiv 2204.11420). The paper gives no numbers: the crop's and the flip's are torchvision's defaults, the jitter's are
chosen.
"""

from __future__ import annotations

import functools
import hashlib

import torch
from torch import Tensor, nn

AUGMENT_VERSION = 2  # raise it whenever a seed leads to another view: cached views are then made anew


def view_seeds(id_: str, view: int, frames: int) -> Tensor:
    """The seeds of a clip's pictures in one view, int64 `[frames]`; view 0 is the clip itself, whose seeds are 0.

    >>> view_seeds("a", 0, 2).tolist(), view_seeds("a", 1, 2).unique().numel()
    ([0, 0], 2)
    """
    if view == 0:
        return torch.zeros(frames, dtype=torch.int64)
    digest = hashlib.sha256(f"{id_}/{view}".encode()).digest()
    return torch.arange(frames) + (1 + (int.from_bytes(digest[:8], "big") >> 2))


@torch.no_grad()
def augment(images: Tensor, seeds: Tensor) -> Tensor:
    """Each picture in the view that its seed names.

    Args:
        images: Uint8 `[n, 3, height, width]`.
        seeds: Int64 `[n]`; 0 leaves a picture as it is.

    Returns:
        Uint8 `[n, 3, height, width]`.
    """
    draw = transform(*images.shape[-2:])
    views = []
    for image, seed in zip(images, seeds.tolist(), strict=True):
        if seed == 0:
            views.append(image)
            continue
        with torch.random.fork_rng(devices=[]):  # the transforms draw their numbers on the CPU, wherever the image is
            torch.default_generator.manual_seed(seed)
            views.append(draw(image))
    return torch.stack(views)


@functools.cache
def transform(height: int, width: int) -> nn.Module:
    """The three transforms in a row, which draw from the process's own random numbers."""
    from torchvision.transforms import v2

    transforms: nn.Module = v2.Compose(
        [
            v2.RandomResizedCrop((height, width), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
        ]
    )
    return transforms
