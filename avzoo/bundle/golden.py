"""Golden outputs: what the network answered when it was written, so that every later reader can compare."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from avzoo.errors import BundleError
from avzoo.models import AVModule
from avzoo.preprocess import Preprocessor, read_window

GOLDEN_TOLERANCE = 1e-4  # of golden logits on another machine or with other versions


def golden(model: AVModule, path: Path) -> dict[str, Tensor]:
    """The features of a clip and their logits, by the whole path from media to scores."""
    preprocessor, clip = Preprocessor(model.preprocess), read_window(path, model.preprocess)
    audio, visual = preprocessor.audio(clip), preprocessor.visual(clip)
    with torch.no_grad():
        logits = model(audio[None], visual[None])[0]
    return {"audio": audio.contiguous(), "visual": visual.contiguous(), "logits": logits.contiguous()}


def golden_difference(folder: Path, model: AVModule, *, media: bool = False) -> float:
    """The largest difference between stored and recomputed golden logits.

    Args:
        folder: A bundle.
        model: What was read from it.
        media: Whether to go the whole path from the golden clip, or from the stored features.

    Raises:
        BundleError: If the golden tensors are missing or are not this model's.
    """
    try:
        with safe_open(folder / "golden.safetensors", "pt") as file:
            stored = {key: file.get_tensor(key) for key in ("audio", "visual", "logits")}
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{folder / 'golden.safetensors'} is damaged or missing: {error}") from error
    with torch.no_grad():
        logits = model(stored["audio"][None], stored["visual"][None])[0]
    if media:
        logits = model.logits(read_window(folder / "golden.mp4", model.preprocess))
    if logits.shape != stored["logits"].shape or not torch.isfinite(logits - stored["logits"]).all():
        raise BundleError(
            f"{folder}: the golden logits {list(stored['logits'].shape)} are not finite or of another shape"
        )
    return float((logits - stored["logits"]).abs().max())
