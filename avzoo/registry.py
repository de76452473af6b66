"""`checkpoints.yaml`: which models there are, where their weights lie, and what was measured of them.

Read without torch, so that `avzoo list` answers at once. One entry a published result:

```yaml
avsdn-avemix:
  model: AVSDN                   # a name of avzoo.models.MODELS
  task: segment                  # segment | clip
  about: one line for people
  dataset: avemix
  recipe: avsdn-avemix           # recipes/<this>.yaml trains it
  features: own extraction       # or: the authors' files
  classes: [drone, ..., background]
  licence: CC-BY-SA-4.0          # of the weights; null while there are none
  weights: package               # package | hub | null (none are published)
  hub: {repo: owner/name, revision: <40 hex>}          # where weights is hub
  files: {model.safetensors: {size: 1, sha256: <64 hex>}, ...}
  metrics: [{name: segment_accuracy, split: test, mean: 0.9, sd: 0.01, seeds: 5}]
  paper: {name: segment_accuracy, split: test, value: 0.754}
  sources: [where the data came from, with its licence]
```
"""

from __future__ import annotations

import fnmatch
import functools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from avzoo.errors import AvzooError, UnknownModelError, did_you_mean

PACKAGE = Path(__file__).parent
_REPO = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


def asset(name: str) -> Path:
    """A file that lives at the top of the repository and travels in the wheel: `checkpoints.yaml`, `recipes/x.yaml`."""
    inside = PACKAGE / "_assets" / name
    return inside if inside.exists() else PACKAGE.parent / name


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One entry of `checkpoints.yaml`; the module docstring explains every key."""

    name: str
    model: str
    task: Literal["segment", "clip"]
    about: str
    dataset: str
    recipe: str
    features: str
    classes: tuple[str, ...]
    licence: str | None = None
    weights: Literal["package", "hub"] | None = None
    hub: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    metrics: tuple[Mapping[str, Any], ...] = ()
    paper: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(int(facts["size"]) for facts in self.files.values())

    @property
    def train_command(self) -> str:
        """What trains it."""
        return f"avzoo fit --config recipes/{self.recipe}.yaml"


def figure(metric: Mapping[str, Any]) -> str:
    """A measured or reported number in words; without a unit it is a share, shown in percent.

    >>> figure({"mean": 0.9, "sd": 0.0123})
    '90.0 ± 1.2 %'
    >>> figure({"value": 0.754})
    '75.4 %'
    >>> figure({"mean": 1.31, "unit": "nats"})
    '1.310 nats'
    """
    value, spread = metric.get("mean", metric.get("value", 0.0)), metric.get("sd")
    unit = metric.get("unit", "share")
    if unit == "share":
        return f"{100 * value:.1f}{'' if spread is None else f' ± {100 * spread:.1f}'} %"
    return f"{value:.3f}{'' if spread is None else f' ± {spread:.3f}'} {unit}"


class _Loader(yaml.SafeLoader):
    """`safe_load` that refuses a name given twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Read a mapping."""
        names = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for name in names:
            if names.count(name) > 1:
                raise yaml.MarkedYAMLError(problem=f"{name!r} is given twice", problem_mark=node.start_mark)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


def read_registry(path: Path) -> dict[str, Checkpoint]:
    """Read and check a registry file.

    Raises:
        AvzooError: Naming the entry and the key that is wrong.
    """
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise AvzooError(f"{path} cannot be read as a registry: {error}") from error
    if not isinstance(document, dict):
        raise AvzooError(f"{path}: expected names with entries below them, got {type(document).__name__}")
    return {name: _entry(path, name, keys) for name, keys in document.items()}


def _entry(path: Path, name: str, keys: Any) -> Checkpoint:
    def refuse(key: str, problem: str) -> AvzooError:
        return AvzooError(f"{path}: entry {name!r}, key {key!r}: {problem}")

    known = [f.name for f in fields(Checkpoint) if f.name != "name"]
    required = ("model", "task", "about", "dataset", "recipe", "features")
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", str(name)) or not isinstance(name, str):
        raise refuse(
            "name", "expected small letters, digits, '-', '_' and '.'; write it in quotes if YAML reads it otherwise"
        )
    if not isinstance(keys, dict):
        raise refuse("*", f"expected keys {known}")
    for key in keys:
        if key not in known:
            raise refuse(str(key), f"is unknown{did_you_mean(str(key), known)}")
    for key in required:
        if not isinstance(keys.get(key), str) or not keys[key]:
            raise refuse(key, f"expected a text, got {keys.get(key)!r}")
    if keys["task"] not in ("segment", "clip"):
        raise refuse("task", f"expected 'segment' or 'clip', got {keys['task']!r}")
    if keys.get("weights") not in (None, "package", "hub"):
        raise refuse("weights", f"expected 'package', 'hub' or null, got {keys['weights']!r}")
    classes = keys.get("classes")
    if not isinstance(classes, list) or len(classes) < 2 or not all(isinstance(c, str) for c in classes):
        raise refuse("classes", f"expected a list of two or more names, got {classes!r:.80}")
    if len(set(classes)) < len(classes):
        raise refuse("classes", f"{max(classes, key=classes.count)!r} occurs twice")
    if not isinstance(keys.get("licence"), str | None):
        raise refuse("licence", f"expected a text, got {keys['licence']!r}")
    for key, kind in (("hub", dict), ("files", dict), ("paper", dict), ("metrics", list), ("sources", list)):
        if key in keys and not isinstance(keys[key], kind):
            raise refuse(key, f"expected a {kind.__name__}, got {keys[key]!r}")
    if keys.get("weights"):
        for key in ("files", "licence"):
            if not keys.get(key):
                raise refuse(key, "is required once there are weights")
        for file in ("config.json", "model.safetensors"):
            if file not in keys["files"]:
                raise refuse(f"files.{file}", "is required once there are weights")
    for file, facts in keys.get("files", {}).items():
        whole = isinstance(facts, dict) and type(facts.get("size")) is int and facts["size"] > 0
        if not (whole and re.fullmatch(r"[0-9a-f]{64}", str(facts.get("sha256")))):
            raise refuse(f"files.{file}", f"expected {{size: bytes, sha256: 64 hex digits}}, got {facts!r}")
    hub = keys.get("hub", {})
    if hub or keys.get("weights") == "hub":
        if not _REPO.fullmatch(str(hub.get("repo"))):
            raise refuse("hub.repo", f"expected owner/name, got {hub.get('repo')!r}")
        if not re.fullmatch(r"[0-9a-f]{40}", str(hub.get("revision"))):
            raise refuse("hub.revision", f"expected a commit of 40 hex digits, got {hub.get('revision')!r}")
    paper = [keys["paper"]] if keys.get("paper") else []
    for key, figures, number in (("metrics", keys.get("metrics", []), "mean"), ("paper", paper, "value")):
        needed = {"name", "split", number} | ({"seeds"} if key == "metrics" else set())
        for figure in figures:
            if not isinstance(figure, dict) or not needed <= figure.keys() or type(figure[number]) not in (int, float):
                raise refuse(key, f"needs {', '.join(sorted(needed))}, {number} being a number, got {figure!r}")
    listed = {key: tuple(keys[key]) for key in ("classes", "metrics", "sources") if key in keys}
    return Checkpoint(name=str(name), **{**keys, **listed})


def _own() -> Mapping[str, Checkpoint]:
    file = asset("checkpoints.yaml")
    return _read_once(file, file.stat().st_mtime_ns)  # `avzoo publish --write` changes it


@functools.cache
def _read_once(file: Path, _changed: int) -> Mapping[str, Checkpoint]:
    return read_registry(file)


def entries(registry: str | Path | None = None) -> Mapping[str, Checkpoint]:
    """Avzoo's own entries, and those of a user's file, by name.

    Args:
        registry: The user's file; default `$AVZOO_REGISTRY`, if that is set.

    Raises:
        AvzooError: If the file cannot be read, or takes a name of avzoo's own.
    """
    file = registry or os.environ.get("AVZOO_REGISTRY")
    if not file:
        return _own()
    users = read_registry(Path(file))
    for name in users.keys() & _own().keys():
        raise AvzooError(f"{file}: entry {name!r} has a name of avzoo's own: give it another")
    return {**_own(), **users}


def origin(name: str, registry: str | Path | None = None) -> Path:
    """The file that holds the entry of a name."""
    return asset("checkpoints.yaml") if name in _own() else Path(registry or os.environ["AVZOO_REGISTRY"])


def recipe_file(entry: Checkpoint, registry: str | Path | None = None) -> Path:
    """The recipe of an entry: in `recipes` beside the file that holds the entry, else avzoo's own."""
    beside = origin(entry.name, registry).parent / "recipes" / f"{entry.recipe}.yaml"
    return beside if beside.exists() else asset(f"recipes/{entry.recipe}.yaml")


def list_models(pattern: str = "*", *, registry: str | Path | None = None) -> list[str]:
    """Names of the registry, and of a user's own, that match a shell pattern.

    >>> "avsdn-avemix" in list_models("avsdn*")
    True
    """
    return sorted(fnmatch.filter(entries(registry), pattern))


def find(name: str, registry: str | Path | None = None) -> Checkpoint:
    """The entry of a name.

    Raises:
        UnknownModelError: With the nearest name.
    """
    known = entries(registry)
    try:
        return known[name]
    except KeyError:
        raise UnknownModelError(
            f"there is no model called {name!r}{did_you_mean(name, known)} (`avzoo list` shows all: {', '.join(known)})"
        ) from None


@dataclass(frozen=True)
class Ref:
    """What a model reference means: exactly one of the three is set."""

    name: str = ""
    folder: Path | None = None
    repo: str = ""
    revision: str = ""


def parse_ref(given: str | Path, *, paths: bool = False) -> Ref:
    """Read a model reference: a `Path` is a folder, a `str` a name or `hf:owner/repo@commit`.

    Args:
        given: The reference.
        paths: Whether a `str` with a separator or a leading dot is a folder (the command line and YAML) or an error.

    Raises:
        UnknownModelError: If a `str` looks like a path and `paths` is false, or `hf:` is malformed.

    >>> parse_ref("avsdn-avemix").name
    'avsdn-avemix'
    >>> parse_ref("runs/best", paths=True).folder.as_posix()
    'runs/best'
    """
    if isinstance(given, Path):
        return Ref(folder=given)
    if given.startswith("hf:"):
        repo, _, revision = given[3:].partition("@")
        if not _REPO.fullmatch(repo):
            raise UnknownModelError(f"{given!r}: expected hf:owner/repo@commit")
        return Ref(repo=repo, revision=revision)
    if "/" in given or "\\" in given or given.startswith("."):
        if paths:
            return Ref(folder=Path(given))
        raise UnknownModelError(
            f"{given!r} looks like a folder: write Path({given!r}), or hf:owner/repo@commit for the Hub"
        )
    return Ref(name=given)
