"""The files of a bundle: names, hashes, a strict `config.json`, and a folder that appears whole or not at all."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any

from avzoo.errors import BundleError, did_you_mean
from avzoo.files import HOST, is_running, sha256, temporary, writer

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
MAX_CONFIG = 1 << 20  # bytes
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


def manifest(folder: Path, names: tuple[str, ...] = FILES) -> dict[str, dict[str, Any]]:
    """Size and sha256 of a bundle's files, as `config.json` and `checkpoints.yaml` hold them."""
    present = [name for name in names if (folder / name).exists()]
    return {name: {"size": (folder / name).stat().st_size, "sha256": sha256(folder / name)} for name in present}


def load_config(path: Path) -> dict[str, Any]:
    """Read a `config.json` and check its form.

    Raises:
        BundleError: If it is too large, no strict JSON, of another format, or has other keys or kinds of values.
    """
    if path.stat().st_size > MAX_CONFIG:
        raise BundleError(f"{path} has {path.stat().st_size} bytes, more than {MAX_CONFIG}")
    config = load_json(path, path.read_bytes())
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


def load_json(path: Path, raw: bytes) -> dict[str, Any]:
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


def save_config(path: Path, config: dict[str, Any]) -> None:
    """Write a `config.json`."""
    path.write_text(json.dumps(config, indent=2, allow_nan=False) + "\n", encoding="utf-8")


# -- whole or not at all --------------------------------------------------------------------------------------------


@contextmanager
def whole_or_not_at_all(folder: Path) -> Iterator[Path]:
    """A folder to write into, which takes the given one's place once all went well.

    Raises:
        BundleError: If the given one holds something else than a bundle.
    """
    recover(folder)
    check_replaceable(folder)
    for leftover in _leftovers(folder):
        shutil.rmtree(leftover, ignore_errors=True)
    unfinished = temporary(folder)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        for file in unfinished.iterdir():
            file.chmod(0o644)  # safetensors writes for the owner alone
        _replace(folder, unfinished)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def check_replaceable(folder: Path) -> None:
    """Refuse to write a bundle where something else is.

    Raises:
        BundleError: If `folder` exists and is no bundle.
    """
    if folder.exists() and not _is_bundle(folder):
        raise BundleError(f"{folder} exists and is no bundle: give a new folder")


def recover(folder: Path) -> None:
    """Put back what a process was replacing when it was killed between two renames."""
    if folder.exists():
        return
    for leftover in _leftovers(folder):
        if leftover.suffix == ".old":
            leftover.rename(folder)
            return


def _leftovers(folder: Path) -> list[Path]:
    """Beside a folder, what processes that are no more had begun."""
    begun = [file for kind in ("tmp", "old") for file in folder.parent.glob(f".{escape(folder.name)}.{HOST}-*.{kind}")]
    # In a container the next process has the same number, so what bears it is a leftover too.
    return [file for file in begun if (pid := writer(file)) and (pid == os.getpid() or not is_running(pid))]


def _replace(folder: Path, unfinished: Path) -> None:
    replaced = temporary(folder, "old")
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


def _is_bundle(folder: Path) -> bool:
    """Whether a folder may be replaced: many programs keep a `config.json`, so every name has to be a bundle's."""
    if not folder.is_dir() or not {entry.name for entry in folder.iterdir()} <= set(FILES):
        return False
    try:
        load_config(folder / "config.json")
    except (BundleError, OSError):
        return False
    return True
