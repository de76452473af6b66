"""From a name to a verified model.

A name is looked for in this package, then in the Hugging Face cache, then on the Hub at the commit that
`checkpoints.yaml` pins. Whatever is found is checked by `avzoo.bundle` before it is believed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from avzoo import bundle, registry
from avzoo.errors import BundleError, HubError, UnknownModelError
from avzoo.models import MODELS, AVModule


@dataclass(frozen=True)
class Located:
    """A bundle on this machine.

    Attributes:
        folder: Where it is.
        expected: Size and sha256 of its files by the registry; None where only its own manifest can be asked.
    """

    folder: Path
    expected: Mapping[str, Mapping[str, Any]] | None


def load(name: str | Path, *, pretrained: bool = True, revision: str | None = None, device: str = "cpu") -> AVModule:
    """Load a model in eval mode.

    Args:
        name: A name of `list_models()`, `hf:owner/repo@commit`, or the `Path` of a bundle.
        pretrained: False builds the network of the name's recipe with random weights instead.
        revision: Another commit of the Hub repository than the registry's; it is then checked against the bundle's own
            manifest only.
        device: Where it goes: "cpu", "cuda", "cuda:1", "mps".

    Raises:
        UnknownModelError: If no entry has that name.
        BundleError: If the checkpoint is damaged, or there are no published weights.
        HubError: If it must be downloaded and cannot be.
    """
    return load_ref(registry.parse_ref(name), pretrained=pretrained, revision=revision, device=device)


def load_ref(
    ref: registry.Ref, *, pretrained: bool = True, revision: str | None = None, device: str = "cpu"
) -> AVModule:
    """`load` of a reference that `registry.parse_ref` has read."""
    if not pretrained:
        if not ref.name:
            raise UnknownModelError(
                "pretrained=False builds the recipe of a name of list_models(), not a folder or hf:"
            )
        return _build_fresh(registry.find(ref.name)).eval().to(device)
    located = locate(ref, revision)
    model = bundle.read(located.folder, located.expected, device=device)
    model.name = ref.name or ref.repo or located.folder.name
    return model


def _build_fresh(entry: registry.Checkpoint) -> AVModule:
    """The network of an entry's recipe with random weights."""
    recipe = yaml.safe_load(registry.asset(f"recipes/{entry.recipe}.yaml").read_text(encoding="utf-8"))
    options = {key: value for key, value in recipe["model"].items() if key != "name"}
    model = MODELS[entry.model](entry.classes, preprocess=recipe.get("preprocess"), **options)
    model.name = entry.name
    return model


def locate(ref: registry.Ref, revision: str | None = None) -> Located:
    """Find a bundle on this machine, downloading it first if need be; arguments and errors as `load`."""
    if ref.folder is not None:
        if revision is not None:
            raise HubError(f"{ref.folder} is a folder and has no revision {revision}: leave revision out")
        return Located(ref.folder, None)
    if ref.repo:
        return Located(_download(ref.repo, revision or ref.revision), None)
    entry = registry.find(ref.name)
    if entry.weights is None:
        raise BundleError(
            f"{entry.name} has no published weights. Train it: `{entry.train_command}`,"
            f" or start from random weights: avzoo.load({entry.name!r}, pretrained=False)"
        )
    if entry.weights == "package" and revision is None:
        return Located(registry.PACKAGE / "weights" / entry.name, entry.files)
    if not entry.hub:
        raise HubError(f"{entry.name} ships inside the package and has no other revision")
    if revision is not None:
        return Located(_download(entry.hub["repo"], revision), None)
    return Located(_download(entry.hub["repo"], entry.hub["revision"]), entry.files)


def _download(repo: str, revision: str) -> Path:
    """A repository's bundle at a commit, from the Hugging Face cache or the Hub."""
    import re

    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise HubError(f"hf:{repo}@{revision}: name the commit by its 40 hex digits; branches and tags move")
    where = f"https://huggingface.co/{repo}/tree/{revision}"
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=list(bundle.FILES)))
    except GatedRepoError as error:
        raise HubError(
            f"{repo} is gated: ask for access at https://huggingface.co/{repo}, then set HF_TOKEN"
        ) from error
    except RepositoryNotFoundError as error:
        raise HubError(f"there is no {repo} on the Hub, or it is private: check the name, or set HF_TOKEN") from error
    except RevisionNotFoundError as error:
        raise HubError(f"{repo} has no commit {revision}: see {where}") from error
    except LocalEntryNotFoundError as error:
        raise HubError(
            f"{where} is not in the cache and the Hub cannot be reached: load it once while online"
        ) from error
    except HFValidationError as error:
        raise HubError(f"{repo!r} is no name of a Hub repository: {error}") from error
    except HfHubHTTPError as error:
        raise HubError(f"{where} could not be downloaded: {error}") from error
