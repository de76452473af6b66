"""From a trained checkpoint to a bundle that others can load."""

from __future__ import annotations

import tempfile
from pathlib import Path

from avzoo import bundle, inference, plot, registry
from avzoo.card import render_card
from avzoo.data import rendering
from avzoo.errors import BundleError

GOLDEN_SEED = 30_000_001  # of the golden clip; training and tests use seeds below 10 million


def publish(name: str, *, ckpt: str | Path, out: str | Path | None = None) -> Path:
    """Make a bundle of a trained model, read it back and compare its golden outputs.

    Args:
        name: Its entry in `checkpoints.yaml`, which the card is written from.
        ckpt: A checkpoint of `avzoo fit`; the resolved recipe is taken from beside it.
        out: The bundle's folder; default `bundles/<name>`.

    Returns:
        The bundle.

    Raises:
        BundleError: If the checkpoint does not fit the entry, or the bundle does not answer as the checkpoint.
    """
    entry = registry.find(name)
    model = bundle.read_training_checkpoint(Path(ckpt))
    model.name = name
    if type(model).__name__ != entry.model:
        raise BundleError(f"{ckpt} holds a {type(model).__name__}, the entry {name} says {entry.model}")
    model.check_classes(entry.classes)
    recipe = Path(ckpt).parent.parent / "recipe.yaml"
    if not recipe.exists():
        raise BundleError(f"{recipe} is missing: `avzoo fit` writes it beside the checkpoints")
    folder = Path(out) if out is not None else Path("bundles") / name
    with tempfile.TemporaryDirectory() as scratch:
        script = rendering.script(
            GOLDEN_SEED, classes=[c for c in rendering.CLASSES if c in model.classes] or rendering.CLASSES
        )
        clip = rendering.render(script, Path(scratch) / "golden.mp4")
        answer = inference.predict(clip, model)
        picture = plot.timeline(answer, Path(scratch) / "timeline.png")
        bundle.write(
            folder,
            model,
            recipe=recipe.read_text(encoding="utf-8"),
            golden_clip=clip,
            card=render_card(entry, model),
            picture=picture,
        )
    difference = bundle.golden_difference(folder, bundle.read(folder), media=True)
    if difference > bundle.GOLDEN_TOLERANCE:
        raise BundleError(f"{folder} answers otherwise than {ckpt}: golden logits differ by {difference:.2g}")
    return folder
