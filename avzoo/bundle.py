"""A checkpoint on disk: what is written, and what is believed when it is read.

```
config.json          format, class, its arguments, classes, preprocess, backbones, versions, and a manifest
model.safetensors    the weights (float16 where the answers stay the same); frozen backbones are named, not stored
golden.safetensors   audio, visual -> logits, and the golden clip's own logits
golden.mp4           a clip of our generator, for the whole path from media to scores
recipe.yaml          the recipe as resolved
README.md            the card
timeline.png         the golden clip's picture
```

A folder is written under a temporary name and renamed. Reading trusts nothing: no other kind of file is opened, size
and sha256 are compared first, the class comes from a literal dict, the network is built on the meta device and its
tensors compared with the file's header before any is read. No pickle is ever opened.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import os
import pickle
import platform
import shutil
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from avzoo import __version__, backbones
from avzoo.errors import BundleError, DataNotFoundError, did_you_mean
from avzoo.models import MODELS, AVModule
from avzoo.preprocess import Preprocess, Preprocessor, read_window

FORMAT = 1
FILES = (
    "config.json",
    "model.safetensors",
    "golden.safetensors",
    "recipe.yaml",
    "README.md",
    "golden.mp4",
    "timeline.png",
)
REQUIRED = ("config.json", "model.safetensors")
FOREIGN = {".py", ".pyc", ".so", ".dll", ".pkl", ".pickle", ".joblib", ".dill", ".pt", ".pth", ".ckpt", ".bin", ".npy"}
FOREIGN |= {".npz", ".h5", ".onnx", ".safetensors", ".gguf", ".msgpack"}
MAX_CONFIG = 1 << 20  # bytes
MAX_PARAMETERS = 2_000_000_000
MAX_HEADER = 1 << 24  # bytes of a safetensors header
KEYS = {
    "format": int,
    "model": str,
    "task": str,
    "classes": list,
    "init_args": dict,
    "preprocess": dict,
    "backbones": dict,
    "versions": dict,
    "commit": str,
    "files": dict,
}
GOLDEN_TOLERANCE = 1e-4  # of golden logits on another machine or with other versions


def sha256(path: Path) -> str:
    """The sha256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def manifest(folder: Path, names: tuple[str, ...] = FILES) -> dict[str, dict[str, Any]]:
    """Size and sha256 of a bundle's files, as `config.json` and `checkpoints.yaml` hold them."""
    present = [name for name in names if (folder / name).exists()]
    return {name: {"size": (folder / name).stat().st_size, "sha256": sha256(folder / name)} for name in present}


# -- writing --------------------------------------------------------------------------------------------------------


def write(
    folder: Path,
    model: AVModule,
    *,
    recipe: str,
    golden_clip: Path,
    card: str,
    picture: Path | None = None,
    commit: str = "",
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
        commit: The commit it was trained at.
        half: Store weights as float16, to which the given model is rounded too: golden outputs are of what is stored.

    Raises:
        BundleError: If the folder holds something else, or a weight is not finite as it is stored.
    """
    _must_be_free(folder)
    model.eval()
    stored = {key: value.detach().cpu().clone().contiguous() for key, value in model.state_dict().items()}
    if half:
        stored = {key: value.half() if value.dtype == torch.float32 else value for key, value in stored.items()}
    for key, value in stored.items():
        if not torch.isfinite(value).all():
            raise BundleError(f"{key} holds numbers that are not finite{' in half precision' if half else ''}")
    model.load_state_dict({key: value.float() if value.is_floating_point() else value for key, value in stored.items()})
    with _whole_or_not_at_all(folder) as unfinished:
        save_file(stored, unfinished / "model.safetensors")
        (unfinished / "recipe.yaml").write_text(recipe, encoding="utf-8")
        (unfinished / "README.md").write_text(card, encoding="utf-8")
        shutil.copyfile(golden_clip, unfinished / "golden.mp4")
        if picture is not None:
            shutil.copyfile(picture, unfinished / "timeline.png")
        save_file(_golden(model, unfinished / "golden.mp4"), unfinished / "golden.safetensors")
        init_args = {key: value for key, value in dict(model.hparams).items() if not key.startswith("_")}
        config = {
            "format": FORMAT,
            "model": type(model).__name__,
            "task": model.task,
            "classes": model.classes,
            "init_args": {key: value for key, value in init_args.items() if key not in ("classes", "preprocess")},
            "preprocess": model.preprocess.to_dict(),
            "backbones": {name: backbones.find(name).weights for name in _backbone_names(model)},
            "versions": {"avzoo": __version__, "torch": torch.__version__, "python": platform.python_version()},
            "commit": commit,
            "files": manifest(unfinished),
        }
        (unfinished / "config.json").write_text(json.dumps(config, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return folder


def copy(source: Path, folder: Path, *, card: str) -> Path:
    """Copy a bundle that was read, with another card; the folder appears whole or not at all.

    Raises:
        BundleError: If the folder holds something else.
    """
    _must_be_free(folder)
    with _whole_or_not_at_all(folder) as unfinished:
        for name in FILES:
            if (source / name).exists():
                shutil.copyfile(source / name, unfinished / name)
        (unfinished / "README.md").write_text(card, encoding="utf-8")
        files = manifest(unfinished, tuple(name for name in FILES if name != "config.json"))
        config = {**_config(unfinished / "config.json"), "files": files}
        (unfinished / "config.json").write_text(json.dumps(config, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return folder


@contextmanager
def _whole_or_not_at_all(folder: Path) -> Iterator[Path]:
    """A folder to write into, which takes the given one's place once all went well."""
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        for file in unfinished.iterdir():
            file.chmod(0o644)  # safetensors writes for the owner alone
        _replace(folder, unfinished)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _replace(folder: Path, unfinished: Path) -> None:
    replaced = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    if not folder.exists():
        unfinished.rename(folder)
        return
    shutil.rmtree(replaced, ignore_errors=True)
    folder.rename(replaced)
    try:
        unfinished.rename(folder)
    except OSError:
        replaced.rename(folder)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def _must_be_free(folder: Path) -> None:
    if folder.exists() and not _is_bundle(folder):
        raise BundleError(f"{folder} exists and is no bundle: give a new folder")


def _is_bundle(folder: Path) -> bool:
    """Whether a folder may be replaced: many programs keep a `config.json`, so every name has to be a bundle's."""
    if not folder.is_dir() or not {entry.name for entry in folder.iterdir()} <= set(FILES):
        return False
    try:
        _config(folder / "config.json")
    except (BundleError, OSError):
        return False
    return True


def _backbone_names(model: AVModule) -> tuple[str, str]:
    return model.preprocess.audio_backbone, model.preprocess.visual_backbone


def _golden(model: AVModule, clip: Path) -> dict[str, Tensor]:
    """The golden clip's features and logits, by the whole path from media to scores."""
    sample = Preprocessor(model.preprocess)(read_window(clip, model.preprocess))
    with torch.no_grad():
        logits = model(sample.audio[None], sample.visual[None])[0]
    return {"audio": sample.audio, "visual": sample.visual, "logits": logits}


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


def read_training_checkpoint(path: Path) -> AVModule:
    """The model in a Lightning checkpoint of `avzoo fit`, in eval mode; nothing in the file is executed.

    Raises:
        DataNotFoundError: If there is no such file.
        BundleError: If it is no checkpoint of avzoo.
    """
    if not path.is_file():
        raise DataNotFoundError(
            f"{path} is not there: `avzoo fit` writes runs/<recipe>/version_<n>/checkpoints/best.ckpt"
        )
    if not zipfile.is_zipfile(path):  # neither torch's old format nor a bare pickle is so much as looked at
        raise BundleError(f"{path} is no checkpoint of `avzoo fit`: it is no zip file, as torch.save writes")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        kind = MODELS[checkpoint["avzoo_model"]]
        options = {key: value for key, value in checkpoint["hyper_parameters"].items() if not key.startswith("_")}
        model = kind(**options)
        model.load_state_dict(checkpoint["state_dict"], strict=True)
    except pickle.UnpicklingError as error:  # torch's own text advises to read it unsafely
        raise BundleError(
            f"{path} is no checkpoint of `avzoo fit`: it is no file of tensors and plain values alone"
        ) from error
    except (OSError, RuntimeError, LookupError, TypeError, AttributeError, ValueError, EOFError, struct.error) as error:
        raise BundleError(f"{path} is no checkpoint of `avzoo fit`: {type(error).__name__}: {error}") from error
    return model.eval()


# -- reading --------------------------------------------------------------------------------------------------------


def read(folder: Path, expected: Mapping[str, Mapping[str, Any]] | None = None, *, device: str = "cpu") -> AVModule:
    """Read a bundle into a model in eval mode.

    Args:
        folder: The bundle.
        expected: Size and sha256 of every file, from a registry; None compares with the bundle's own manifest, which
            finds damage but not malice.
        device: Where the model goes.

    Raises:
        BundleError: If anything is missing, changed, of another make or not to be trusted.
    """
    config = read_config(folder, expected)
    model = _build(folder, config)
    state = _tensors(folder / "model.safetensors", model)
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval().to(device)


def read_config(folder: Path, expected: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Any]:
    """Check every file of a bundle and read its `config.json`; arguments and errors as `read`."""
    if not folder.is_dir():
        raise BundleError(
            f"{folder} is no folder (`avzoo publish` makes one of a .ckpt):"
            f" a bundle is a folder with {' and '.join(REQUIRED)}"
        )
    for name in REQUIRED:
        if not (folder / name).is_file():
            raise BundleError(f"{folder} holds no {name}: it is no avzoo bundle, or not whole")
    root = folder.resolve()
    # The Hub's cache links each file of snapshots/<commit> into blobs beside snapshots.
    homes = {root, root.parent.parent / "blobs"} if root.parent.name == "snapshots" else {root}
    for entry in folder.rglob("*"):
        if entry.suffix.lower() in FOREIGN and entry.relative_to(folder).as_posix() not in FILES:
            raise BundleError(
                f"{entry} does not belong into a bundle: it holds {', '.join(FILES)} and no code or pickles"
            )
        if entry.is_symlink() and homes.isdisjoint(_target(entry).parents):
            raise BundleError(f"{entry} is a link out of the bundle: copy the file itself")
    if expected is not None:
        _compare(folder, expected)
    config = _config(folder / "config.json")
    if expected is None:
        _compare(folder, {**config["files"], "config.json": manifest(folder, ("config.json",))["config.json"]})
    return config


def _target(link: Path) -> Path:
    try:
        return link.resolve()
    except (OSError, RuntimeError) as error:  # Python 3.11 raises the latter for a loop
        raise BundleError(f"{link} is a link that leads nowhere") from error


def _config(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MAX_CONFIG:
        raise BundleError(f"{path} has {path.stat().st_size} bytes, more than {MAX_CONFIG}")
    config = _json(path, path.read_bytes())
    if config.get("format") != FORMAT:
        raise BundleError(
            f"{path} has format {config.get('format')!r:.80}; this avzoo reads format {FORMAT}: upgrade avzoo"
        )
    for key in config:
        if key not in KEYS:
            raise BundleError(f"{path}: unknown key {key!r:.80}{did_you_mean(key, KEYS)}")
    for key, kind in KEYS.items():
        if type(config.get(key)) is not kind:
            raise BundleError(f"{path}: {key} is {config.get(key)!r:.80}, expected {kind.__name__}")
    if not all(isinstance(name, str) and name and name.isprintable() for name in config["classes"]):
        raise BundleError(f"{path}: classes must be names in printable characters")
    return config


def _json(path: Path, raw: bytes) -> dict[str, Any]:
    """Parse an object strictly: no name twice, no NaN or Infinity (also not as 1e999), no integer of 10^16 or more."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) != len(pairs):
            raise ValueError("a name occurs twice in it")
        return table

    def real(text: str) -> float:
        if not math.isfinite(float(text)):
            raise ValueError(f"it holds {text:.20}, which is no finite number")
        return float(text)

    def integer(text: str) -> int:
        if len(text) > 16:
            raise ValueError(f"it holds {text:.20}..., which is out of range")
        return int(text)

    try:
        value = json.loads(
            raw.decode(), object_pairs_hook=once, parse_float=real, parse_constant=real, parse_int=integer
        )
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise BundleError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def _compare(folder: Path, expected: Mapping[str, Any]) -> None:
    for name in FILES:
        if name not in expected and (name in REQUIRED or (folder / name).exists()):
            raise BundleError(f"{folder}: the manifest does not name {name}, so nothing vouches for it")
    for name, facts in expected.items():
        if name not in FILES:
            raise BundleError(f"{folder}: the manifest names {name!r:.80}, which does not belong into a bundle")
        file = folder / name
        if not isinstance(facts, Mapping) or not file.is_file():
            raise BundleError(f"{file} is missing")
        size = file.stat().st_size
        if size != facts.get("size") or sha256(file) != facts.get("sha256"):
            raise BundleError(
                f"{file} is not the file that was published ({size} bytes, expected {facts.get('size')!s:.20};"
                " or its sha256 differs): delete it and load again"
            )


def _build(folder: Path, config: Mapping[str, Any]) -> AVModule:
    """The network of a config, on the meta device: no memory, no random initialisation."""
    kind = MODELS.get(config["model"])
    if kind is None:
        raise BundleError(f"{folder}: unknown model {config['model']!r:.80}{did_you_mean(config['model'], MODELS)}")
    if config["task"] != kind.task:
        raise BundleError(f"{folder}: task is {config['task']!r:.80}, {config['model']} does {kind.task!r}")
    _check_values(folder, config["preprocess"], Preprocess().to_dict())
    parameters = inspect.signature(kind).parameters.values()
    _check_values(folder, config["init_args"], {p.name: p.default for p in parameters if p.default is not p.empty})
    try:
        with torch.device("meta"):
            model = kind(config["classes"], preprocess=config["preprocess"], **config["init_args"])
    except (TypeError, ValueError, RuntimeError, AttributeError, ArithmeticError) as error:
        raise BundleError(f"{folder}: {config['model']} cannot be built from config.json: {error}") from error
    count = sum(p.numel() for p in model.parameters())
    if count > MAX_PARAMETERS:
        raise BundleError(f"{folder}: config.json describes {count} parameters, more than {MAX_PARAMETERS}")
    pins = {name: backbones.find(name).weights for name in _backbone_names(model)}
    if config["backbones"] != pins:
        raise BundleError(f"{folder}: it was trained on backbones {config['backbones']!r:.200}; this avzoo has {pins}")
    return model


def _check_values(folder: Path, given: Mapping[str, Any], usual: Mapping[str, Any]) -> None:
    """Each value is of its default's type and of at most 31 bits; names that are unknown the constructors refuse."""
    for key, value in given.items():
        like = usual.get(key)
        if like is not None and type(value) is not type(like) and (type(like), type(value)) != (float, int):
            raise BundleError(f"{folder}: {key:.80} is of type {type(value).__name__}, expected {type(like).__name__}")
        if isinstance(value, int | float) and abs(value) >= 1 << 31:
            raise BundleError(f"{folder}: {key:.80} = {value:.3g} is out of range")


def _tensors(path: Path, model: AVModule) -> dict[str, Tensor]:
    """Read weights after their header was compared with the network; floats come back as float32."""
    size = path.stat().st_size
    with path.open("rb") as raw:
        length = int.from_bytes(raw.read(8), "little")
        if length > min(MAX_HEADER, size - 8):
            raise BundleError(f"{path}: its header claims {length} bytes of a file of {size}")
        header = _json(path, raw.read(length))
    if not all(isinstance(facts, dict) for facts in header.values()):
        raise BundleError(f"{path} is no safetensors file: its header is no table of tensors")
    empty = model.state_dict()
    wanted = {key: list(value.shape) for key, value in empty.items()}
    found = {key: facts.get("shape") for key, facts in header.items() if key != "__metadata__"}
    for key in sorted(wanted.keys() | found.keys()):
        if wanted.get(key) != found.get(key):
            raise BundleError(
                f"{path}: tensor {key!r:.80} has shape {found.get(key, 'none: it is missing')!s:.80},"
                f" the network wants {wanted.get(key, 'no such tensor')}"
            )
    try:
        with safe_open(path, "pt") as file:
            state = {key: file.get_tensor(key) for key in wanted}
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{path} is damaged: {error}") from error
    for key, value in state.items():
        # A copy even of float32: the file's own pages would follow whoever writes to the file after its check.
        state[key] = value = value.to(torch.float32 if value.is_floating_point() else value.dtype, copy=True)
        if value.dtype != empty[key].dtype:
            raise BundleError(f"{path}: tensor {key!r} is {value.dtype}, the network wants {empty[key].dtype}")
        if not _is_finite(value):
            raise BundleError(f"{path}: tensor {key!r} holds NaN or infinite numbers")
    return state


def _is_finite(value: Tensor) -> bool:
    """Whether every number is finite: a sum with one that is not is not, and is twenty times faster to ask."""
    return bool(value.sum().isfinite()) or bool(torch.isfinite(value).all())  # a sum may overflow by itself
