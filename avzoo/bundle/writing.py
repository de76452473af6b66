"""Writing a bundle, or copying one with another card and recipe."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from avzoo import provenance
from avzoo.bundle.files import FILES, FORMAT, load_config, manifest, save_config, whole_or_not_at_all
from avzoo.bundle.golden import golden
from avzoo.bundle.reading import pins
from avzoo.errors import BundleError
from avzoo.models import AVModule


def write(
    folder: Path,
    model: AVModule,
    *,
    recipe: str,
    golden_clip: Path | None = None,
    card: str | None = None,
    picture: Path | None = None,
    commit: str | None = None,
    versions: Mapping[str, str] | None = None,
    half: bool = True,
) -> Path:
    """Write a model as a bundle; the folder appears whole or not at all.

    Args:
        folder: Where; replaced if it is a bundle already.
        model: In eval mode, on the CPU.
        recipe: The resolved recipe, YAML.
        golden_clip: A video of the generator; it is copied, and its logits stored.
        card: The README, Markdown.
        picture: The golden clip's timeline.
        commit: Of the code that it was trained with; default: of this code.
        versions: What it was trained with; default: what is installed.
        half: Store weights as float16, to which the given model is rounded too: golden outputs are of what is stored.

    Raises:
        BundleError: If the folder holds something else, or a weight is not finite as it is stored.
    """
    model.eval()
    stored = {key: value.detach().cpu().clone().contiguous() for key, value in model.state_dict().items()}
    if half:
        stored = {key: value.half() if value.dtype == torch.float32 else value for key, value in stored.items()}
    for key, value in stored.items():
        if not torch.isfinite(value).all():
            raise BundleError(f"{key} holds numbers that are not finite{' in half precision' if half else ''}")
    with whole_or_not_at_all(folder) as unfinished:
        rounded = {key: value.float() if value.is_floating_point() else value for key, value in stored.items()}
        model.load_state_dict(rounded, strict=False)  # a frozen backbone of its own is not in its state
        save_file(stored, unfinished / "model.safetensors")
        (unfinished / "recipe.yaml").write_text(recipe, encoding="utf-8")
        if card is not None:
            (unfinished / "README.md").write_text(card, encoding="utf-8")
        if picture is not None:
            shutil.copyfile(picture, unfinished / "timeline.png")
        if golden_clip is not None:
            clip = shutil.copyfile(golden_clip, unfinished / "golden.mp4")
            save_file(golden(model, clip), unfinished / "golden.safetensors")
        init_args = {key: value for key, value in dict(model.hparams).items() if not key.startswith("_")}
        config = {
            "format": FORMAT,
            "model": type(model).__name__,
            "task": model.task,
            "classes": model.classes,
            "init_args": {key: value for key, value in init_args.items() if key not in ("classes", "preprocess")},
            "preprocess": model.preprocess.to_dict(),
            "backbones": pins(model),
            "versions": dict(provenance.versions() if versions is None else versions),
            "commit": provenance.code_commit() if commit is None else commit,
            "files": manifest(unfinished),
        }
        save_config(unfinished / "config.json", config)
    return folder


def copy(source: Path, folder: Path, *, card: str, recipe: str) -> Path:
    """Copy a bundle that was read, with another card and recipe; the folder appears whole or not at all.

    Raises:
        BundleError: If the folder holds something else.
    """
    with whole_or_not_at_all(folder) as unfinished:
        for name in FILES:
            if (source / name).exists():
                shutil.copyfile(source / name, unfinished / name)
        (unfinished / "README.md").write_text(card, encoding="utf-8")
        (unfinished / "recipe.yaml").write_text(recipe, encoding="utf-8")
        files = manifest(unfinished, tuple(name for name in FILES if name != "config.json"))
        save_config(unfinished / "config.json", {**load_config(unfinished / "config.json"), "files": files})
    return folder
