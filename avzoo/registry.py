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
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from avzoo.errors import AvzooError, UnknownModelError, did_you_mean

PACKAGE = Path(__file__).parent


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


def read_registry(path: Path) -> dict[str, Checkpoint]:
    """Read and check a registry file.

    Raises:
        AvzooError: Naming the entry and the key that is wrong.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
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
    if not isinstance(keys.get("classes"), list) or not all(isinstance(c, str) for c in keys["classes"]):
        raise refuse("classes", f"expected a list of names, got {keys.get('classes')!r:.80}")
    for key, kind in (("hub", dict), ("files", dict), ("paper", dict), ("metrics", list), ("sources", list)):
        if key in keys and not isinstance(keys[key], kind):
            raise refuse(key, f"expected a {kind.__name__}, got {keys[key]!r}")
    if keys.get("weights"):
        if not keys.get("files") or not keys.get("licence"):
            raise refuse("files" if not keys.get("files") else "licence", "is required once there are weights")
        for file, facts in keys["files"].items():
            whole = isinstance(facts, dict) and isinstance(facts.get("size"), int) and facts["size"] > 0
            if not (whole and re.fullmatch(r"[0-9a-f]{64}", str(facts.get("sha256")))):
                raise refuse(f"files.{file}", f"expected {{size: bytes, sha256: 64 hex digits}}, got {facts!r}")
    if keys.get("weights") == "hub":
        hub = keys.get("hub", {})
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(hub.get("repo"))):
            raise refuse("hub.repo", f"expected owner/name, got {hub.get('repo')!r}")
        if not re.fullmatch(r"[0-9a-f]{40}", str(hub.get("revision"))):
            raise refuse("hub.revision", f"expected a commit of 40 hex digits, got {hub.get('revision')!r}")
    for metric in keys.get("metrics", []):
        if not isinstance(metric, dict) or not {"name", "split", "mean", "seeds"} <= metric.keys():
            raise refuse("metrics", f"each needs name, split, mean and seeds, got {metric!r}")
    listed = {key: tuple(keys[key]) for key in ("classes", "metrics", "sources") if key in keys}
    return Checkpoint(name=str(name), **{**keys, **listed})


@functools.cache
def registry() -> Mapping[str, Checkpoint]:
    """Avzoo's own entries, by name."""
    return read_registry(asset("checkpoints.yaml"))


def list_models(pattern: str = "*") -> list[str]:
    """Names of the registry that match a shell pattern.

    >>> "avsdn-avemix" in list_models("avsdn*")
    True
    """
    return sorted(fnmatch.filter(registry(), pattern))


def find(name: str) -> Checkpoint:
    """The entry of a name.

    Raises:
        UnknownModelError: With the nearest name.
    """
    try:
        return registry()[name]
    except KeyError:
        raise UnknownModelError(
            f"there is no model called {name!r}{did_you_mean(name, registry())}"
            f" (`avzoo list` shows all: {', '.join(registry())})"
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
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
            raise UnknownModelError(f"{given!r}: expected hf:owner/repo@commit")
        return Ref(repo=repo, revision=revision)
    if "/" in given or "\\" in given or given.startswith("."):
        if paths:
            return Ref(folder=Path(given))
        raise UnknownModelError(
            f"{given!r} looks like a folder: write Path({given!r}), or hf:owner/repo@commit for the Hub"
        )
    return Ref(name=given)
