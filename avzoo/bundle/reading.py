"""Reading a bundle: every check first, then a network without random initialisation, then its tensors.

The weights are read once: the same bytes are hashed, on a thread of their own, and become the tensors, so that a file
that changes meanwhile is either the published one or refused.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avzoo import backbones
from avzoo.bundle.files import FILES, REQUIRED, load_config, load_json, manifest, recover
from avzoo.errors import BundleError, did_you_mean
from avzoo.files import sha256
from avzoo.models import MODELS, AVModule
from avzoo.preprocess import Preprocess

WEIGHTS = "model.safetensors"
FOREIGN = {".py", ".pyc", ".so", ".dll", ".pkl", ".pickle", ".joblib", ".dill", ".pt", ".pth", ".ckpt", ".bin", ".npy"}
FOREIGN |= {".npz", ".h5", ".onnx", ".safetensors", ".gguf", ".msgpack"}
MAX_PARAMETERS = 2_000_000_000
MAX_CLASSES = 10_000  # what is counted by pairs of classes has real memory, whatever the weights have
MAX_HEADER = 1 << 24  # bytes of a safetensors header
CHUNK = 1 << 22  # bytes that are read before they are hashed
DTYPES = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "I32": torch.int32,
    "I64": torch.int64,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}


def read(folder: Path, expected: Mapping[str, Mapping[str, Any]] | None = None, *, device: str = "cpu") -> AVModule:
    """Read a bundle into a model in eval mode.

    Args:
        folder: The bundle.
        expected: Size and sha256 of every file, from a registry; None compares with the bundle's own manifest, which
            finds damage but not malice.
        device: Where the model goes.

    Raises:
        BundleError: If anything is missing, changed, of another make or not to be trusted.
        DataNotFoundError: If the model holds a frozen backbone whose weights are not here.
    """
    config, weights = _checked(folder, expected)
    model = _build(folder, config)
    state = _tensors(folder / WEIGHTS, model, weights)
    model.load_state_dict(state, strict=False, assign=True)  # the names were compared; a frozen backbone is not in them
    if _unfilled(model):  # else a backbone of its own was trained, and is in the bundle
        model.fill_backbone()
    if missing := _unfilled(model):
        raise BundleError(f"{folder}: {config['model']} needs {missing[0]!r}, which no bundle and no backbone holds")
    return model.eval().to(device)


def _unfilled(model: AVModule) -> list[str]:
    return [key for key, value in [*model.named_parameters(), *model.named_buffers()] if value.is_meta]


def read_config(folder: Path, expected: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Any]:
    """Check every file of a bundle and read its `config.json`; arguments and errors as `read`."""
    config, weights = _checked(folder, expected)
    if sha256(folder / WEIGHTS) != weights.get("sha256"):
        raise _changed(folder / WEIGHTS, weights)
    return config


def pins(model: AVModule) -> dict[str, str]:
    """The pretrained backbones that a model's signal path names, with what pins their weights."""
    names = (model.preprocess.audio_backbone, model.preprocess.visual_backbone)
    return {name: backbones.find(name).weights for name in names if name}


def _checked(folder: Path, expected: Mapping[str, Any] | None) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """The config of a bundle whose files all are as expected, and size and sha256 of the weights.

    Of the weights only the size was compared: they are hashed as they are read.
    """
    recover(folder)
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
    config = load_config(folder / "config.json")
    if expected is None:
        expected = {**config["files"], "config.json": manifest(folder, ("config.json",))["config.json"]}
        _compare(folder, expected)
    weights: Mapping[str, Any] = expected[WEIGHTS]
    return config, weights


def _target(link: Path) -> Path:
    try:
        return link.resolve()
    except (OSError, RuntimeError) as error:  # Python 3.11 raises the latter for a loop
        raise BundleError(f"{link} is a link that leads nowhere") from error


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
        wrong = file.stat().st_size != facts.get("size")
        if wrong or (name != WEIGHTS and sha256(file) != facts.get("sha256")):
            raise _changed(file, facts)


def _changed(file: Path, facts: Mapping[str, Any]) -> BundleError:
    return BundleError(
        f"{file} is not the file that was published ({file.stat().st_size} bytes, expected"
        f" {facts.get('size')!s:.20}; or its sha256 differs): delete it and load again"
    )


def _build(folder: Path, config: Mapping[str, Any]) -> AVModule:
    """The network of a config, on the meta device: no memory, no random initialisation."""
    kind = MODELS.get(config["model"])
    if kind is None:
        raise BundleError(f"{folder}: unknown model {config['model']!r:.80}{did_you_mean(config['model'], MODELS)}")
    if config["task"] != kind.task:
        raise BundleError(f"{folder}: task is {config['task']!r:.80}, {config['model']} does {kind.task!r}")
    if len(config["classes"]) > MAX_CLASSES:
        raise BundleError(f"{folder}: config.json names {len(config['classes'])} classes, more than {MAX_CLASSES}")
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
    if config["backbones"] != pins(model):
        raise BundleError(
            f"{folder}: it was trained on backbones {config['backbones']!r:.200}; this avzoo has {pins(model)}"
        )
    return model


def _check_values(folder: Path, given: Mapping[str, Any], usual: Mapping[str, Any]) -> None:
    """Each value is of its default's type and of at most 31 bits; names that are unknown the constructors refuse."""
    for key, value in given.items():
        like = usual.get(key)
        if like is not None and type(value) is not type(like) and (type(like), type(value)) != (float, int):
            raise BundleError(f"{folder}: {key:.80} is of type {type(value).__name__}, expected {type(like).__name__}")
        if isinstance(value, int | float) and abs(value) >= 1 << 31:
            raise BundleError(f"{folder}: {key:.80} = {value:.3g} is out of range")


# -- tensors --------------------------------------------------------------------------------------------------------


def _tensors(path: Path, model: AVModule, expected: Mapping[str, Any]) -> dict[str, Tensor]:
    """Read weights after their header was compared with the network; floats come back as float32."""
    try:
        return _read_tensors(path, model.state_dict(), expected)
    except BundleError:
        # Whatever is wrong inside a file that is not the published one, that it is not is what has to be said.
        if sha256(path) != expected.get("sha256"):
            raise _changed(path, expected) from None
        raise


def _read_tensors(path: Path, empty: Mapping[str, Tensor], expected: Mapping[str, Any]) -> dict[str, Tensor]:
    size = path.stat().st_size
    state: dict[str, Tensor] = {}
    with path.open("rb", buffering=0) as raw, Digest() as digest:
        prefix = raw.read(8)
        length = int.from_bytes(prefix, "little")
        if length > min(MAX_HEADER, size - 8):
            raise BundleError(f"{path}: its header claims {length} bytes of a file of {size}")
        header = raw.read(length)
        digest.update(prefix + header)
        for key, dtype in _layout(path, load_json(path, header), empty, size - 8 - length):
            data = torch.empty(empty[key].numel() * dtype.itemsize, dtype=torch.uint8)
            view = data.numpy().data
            for start in range(0, len(view), CHUNK):
                part = view[start : start + CHUNK]
                if raw.readinto(part) != len(part):
                    raise BundleError(f"{path} is damaged: it ends within tensor {key!r:.80}")
                digest.update(part)
            value = data.view(dtype).reshape(empty[key].shape)
            if not _is_finite(value := value.to(empty[key].dtype)):
                raise BundleError(f"{path}: tensor {key!r} holds NaN or infinite numbers")
            state[key] = value
    if digest.hex() != expected.get("sha256"):
        raise _changed(path, expected)
    return state


def _layout(
    path: Path, header: Mapping[str, Any], empty: Mapping[str, Tensor], size: int
) -> list[tuple[str, torch.dtype]]:
    """Names and types of a file's tensors in their order, which have to be the network's and to fill the file."""
    header = {key: facts for key, facts in header.items() if key != "__metadata__"}
    if not all(isinstance(facts, dict) for facts in header.values()):
        raise BundleError(f"{path} is no safetensors file: its header is no table of tensors")
    wanted = {key: list(value.shape) for key, value in empty.items()}
    for key in sorted(wanted.keys() | header.keys()):
        found = header[key].get("shape", "none") if key in header else "none: it is missing"
        if wanted.get(key) != found or any(type(n) is not int for n in found):
            raise BundleError(
                f"{path}: tensor {key!r:.80} has shape {found!s:.80},"
                f" the network wants {wanted.get(key, 'no such tensor')}"
            )
    places: dict[tuple[int, int], str] = {}
    for key, facts in header.items():
        dtype, place = DTYPES.get(str(facts.get("dtype"))), facts.get("data_offsets")
        if dtype is None or (dtype != empty[key].dtype and not (dtype.is_floating_point and _is_float(empty[key]))):
            stored = dtype or repr(facts.get("dtype"))[:20]
            raise BundleError(f"{path}: tensor {key!r} is {stored}, the network wants {empty[key].dtype}")
        if not isinstance(place, list) or [type(n) for n in place] != [int, int]:
            raise BundleError(f"{path} is damaged: tensor {key!r} lies at {place!r:.80}")
        if place[1] - place[0] != math.prod(wanted[key]) * dtype.itemsize:
            raise BundleError(f"{path} is damaged: tensor {key!r} of {wanted[key]} {dtype} lies at {place}")
        places[place[0], place[1]] = key
    ends = [0, *(end for _, end in sorted(places))]
    if len(places) != len(header) or [begin for begin, _ in sorted(places)] != ends[:-1] or ends[-1] != size:
        raise BundleError(f"{path} is damaged: its tensors overlap, leave gaps or do not fill the file")
    return [(places[place], DTYPES[header[places[place]]["dtype"]]) for place in sorted(places)]


def _is_float(value: Tensor) -> bool:
    return value.dtype == torch.float32


def _is_finite(value: Tensor) -> bool:
    """Whether every number is finite: a sum with one that is not is not, and is twenty times faster to ask."""
    return bool(value.sum().isfinite()) or bool(torch.isfinite(value).all())  # a sum may overflow by itself


class Digest:
    """A sha256 that is computed on a thread of its own, while more is being read."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._thread = ThreadPoolExecutor(1)

    def __enter__(self) -> Digest:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def update(self, data: bytes | memoryview) -> None:
        """Hash what nobody writes to any more."""
        self._thread.submit(self._hash.update, data)

    def hex(self) -> str:
        """Once the thread has ended."""
        return self._hash.hexdigest()
