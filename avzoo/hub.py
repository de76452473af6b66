"""From a name to a verified model.

A name is looked for in this package, then in the Hugging Face cache, then on the Hub at the commit that
`checkpoints.yaml` pins. Whatever is found is checked by `avzoo.bundle` before it is believed. Cache, endpoint, token
and offline mode are those of `huggingface_hub`: `HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE`.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

import avzoo.registry as registry_
from avzoo import bundle
from avzoo.errors import AvzooError, BundleError, DataNotFoundError, HubError, UnknownModelError
from avzoo.models import MODELS, AVModule

SILENCE = 3  # s without a byte after which a transfer is begun anew, where it was


@dataclass(frozen=True)
class Located:
    """A bundle on this machine.

    Attributes:
        folder: Where it is.
        expected: Size and sha256 of its files by the registry; None where only its own manifest can be asked.
        repo: The Hub repository whose cached copy it is; empty for what is not from the Hub.
    """

    folder: Path
    expected: Mapping[str, Mapping[str, Any]] | None
    repo: str = field(default="", compare=False)

    @property
    def authority(self) -> str:
        """What the files were verified against."""
        return "the registry" if self.expected is not None else "the bundle's own manifest (finds damage, not malice)"

    def read(self, device: str = "cpu") -> AVModule:
        """`bundle.read`, and what to do about a damaged copy in the cache."""
        try:
            return bundle.read(self.folder, self.expected, device=device)
        except BundleError as error:
            if not self.repo:
                raise
            raise BundleError(
                f"{error}; `avzoo cache --remove {self.repo}` throws this copy away, so that it is downloaded again"
            ) from error


def load(
    name: str | Path,
    *,
    pretrained: bool = True,
    revision: str | None = None,
    device: str = "cpu",
    registry: str | Path | None = None,
) -> AVModule:
    """Load a model in eval mode.

    Args:
        name: A name of `list_models()`, `hf:owner/repo@commit`, or the `Path` of a bundle.
        pretrained: False builds the network of the name's recipe with random weights instead.
        revision: Another commit of the Hub repository than the registry's; it is then checked against the bundle's own
            manifest only.
        device: Where it goes: "cpu", "cuda", "cuda:1", "mps".
        registry: A registry file of your own, beside avzoo's; default `$AVZOO_REGISTRY`.

    Raises:
        UnknownModelError: If no entry has that name.
        BundleError: If the checkpoint is damaged, or there are no published weights.
        HubError: If it must be downloaded and cannot be.
    """
    ref = registry_.parse_ref(name)
    return load_ref(ref, pretrained=pretrained, revision=revision, device=device, registry=registry)


def load_ref(
    ref: registry_.Ref,
    *,
    pretrained: bool = True,
    revision: str | None = None,
    device: str = "cpu",
    registry: str | Path | None = None,
) -> AVModule:
    """`load` of a reference that `registry.parse_ref` has read."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise AvzooError(f"device {device!r} cannot be used here ({str(error).splitlines()[0]}): try cpu") from error
    if not pretrained:
        if not ref.name:
            raise UnknownModelError(
                "pretrained=False builds the recipe of a name of list_models(), not a folder or hf:"
            )
        entry = registry_.find(ref.name, registry)
        return _build_fresh(entry, registry_.recipe_file(entry, registry)).eval().to(device)
    located = locate(ref, revision, registry)
    model = located.read(device)
    model.name = ref.name or ref.repo or located.folder.name
    return model


def _build_fresh(entry: registry_.Checkpoint, recipe_file: Path) -> AVModule:
    """The network of an entry's recipe with random weights."""
    if not recipe_file.exists():
        raise DataNotFoundError(f"{recipe_file} is missing: {entry.name} names it as its recipe")
    recipe = yaml.safe_load(recipe_file.read_text(encoding="utf-8"))
    options = {key: value for key, value in recipe["model"].items() if key != "name"}
    model = MODELS[entry.model](entry.classes, preprocess=recipe.get("preprocess"), **options)
    model.name = entry.name
    return model


def locate(ref: registry_.Ref, revision: str | None = None, registry: str | Path | None = None) -> Located:
    """Find a bundle on this machine, downloading it first if need be; arguments and errors as `load`."""
    if ref.folder is not None:
        if revision is not None:
            raise HubError(f"{ref.folder} is a folder and has no revision {revision}: leave revision out")
        return Located(ref.folder, None)
    if ref.repo:
        return Located(_download(ref.repo, revision or ref.revision), None, ref.repo)
    entry = registry_.find(ref.name, registry)
    if entry.weights is None:
        raise BundleError(
            f"{entry.name} has no published weights. Train it: `{entry.train_command}`,"
            f" or start from random weights: avzoo.load({entry.name!r}, pretrained=False)"
        )
    shipped = registry_.PACKAGE / "weights" / entry.name
    if entry.weights == "package" and revision is None and (shipped.is_dir() or not entry.hub):
        return Located(shipped, entry.files)
    if not entry.hub:
        raise HubError(f"{entry.name} ships inside the package and has no other revision")
    repo = entry.hub["repo"]
    if revision is not None and revision != entry.hub["revision"]:
        return Located(_download(repo, revision), None, repo)
    return Located(_download(repo, entry.hub["revision"]), entry.files, repo)


# -- the Hub --------------------------------------------------------------------------------------------------------


def _download(repo: str, revision: str) -> Path:
    """A repository's bundle at a commit, from the Hugging Face cache or the Hub."""
    from huggingface_hub import HfApi, constants, hf_hub_url, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        given = f"hf:{repo}@{revision}".rstrip("@")
        raise HubError(f"{given}: name the commit by its 40 hex digits: {_present(repo, revision)}")
    files = list(bundle.FILES)
    with hub_errors(repo, revision):
        try:
            cached = Path(snapshot_download(repo, revision=revision, allow_patterns=files, local_files_only=True))
            if _is_whole(cached):
                return cached
        except LocalEntryNotFoundError:
            pass
        # One question that is not repeated: it tells every refusal apart at once, where snapshot_download keeps
        # asking for half a minute before it says that it cannot connect.
        address = hf_hub_url(repo, "config.json", revision=revision)
        HfApi().get_hf_file_metadata(url=address, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        with _patience():
            return Path(snapshot_download(repo, revision=revision, allow_patterns=files))


@contextmanager
def _patience() -> Iterator[None]:
    """Give up a body that does not come within half a minute, unless `HF_HUB_DOWNLOAD_TIMEOUT` asks for other times.

    The client waits so many seconds six times over, with pauses of one second; its 10 s make that more than a minute.
    """
    from huggingface_hub import constants

    usual = constants.HF_HUB_DOWNLOAD_TIMEOUT
    if "HF_HUB_DOWNLOAD_TIMEOUT" not in os.environ:
        constants.HF_HUB_DOWNLOAD_TIMEOUT = SILENCE
    try:
        yield
    finally:
        constants.HF_HUB_DOWNLOAD_TIMEOUT = usual


def _is_whole(folder: Path) -> bool:
    """Whether a cached copy, which another program may have begun, holds what its `config.json` lists."""
    try:
        listed = set(json.loads((folder / "config.json").read_bytes())["files"])
    except OSError:
        return False
    except (ValueError, LookupError, TypeError):
        return True  # reading it will say what is wrong
    return all((folder / name).is_file() for name in {*bundle.REQUIRED, *listed} & {*bundle.FILES})


def _present(repo: str, revision: str) -> str:
    """What to write instead of a branch, a tag or nothing."""
    from huggingface_hub import HfApi, constants

    try:
        with hub_errors(repo, revision):
            info = HfApi().model_info(repo, revision=revision or None, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except HubError as error:
        return f"branches and tags move ({error})"
    return f"{revision or 'main'} is at hf:{repo}@{info.sha} now, and may move"


@contextmanager
def hub_errors(repo: str, revision: str = "") -> Iterator[None]:
    """Turn whatever `huggingface_hub` raises into one `HubError` that says what to do.

    Its warnings of every try that failed are held back meanwhile, unless `HF_HUB_VERBOSITY` asks for them.
    """
    import httpx2
    from huggingface_hub.utils import logging as client

    verbosity = client.get_verbosity()
    if "HF_HUB_VERBOSITY" not in os.environ:
        client.set_verbosity(logging.ERROR)
    try:
        yield
    except (httpx2.HTTPError, OSError, ValueError, RuntimeError) as error:
        raise HubError(_explain(error, repo, revision)) from error
    finally:
        client.set_verbosity(verbosity)


def _explain(error: BaseException, repo: str, revision: str) -> str:
    import httpx2
    from huggingface_hub import constants, errors

    if isinstance(error, errors.LocalEntryNotFoundError | RuntimeError) and error.__cause__ is not None:
        error = error.__cause__  # the client's wrapping of what happened
    hub, page = constants.ENDPOINT, f"{constants.ENDPOINT}/{repo}"
    at = f"{repo}@{revision}" if revision else repo
    login = "set HF_TOKEN or run `hf auth login`"
    match error:
        case errors.OfflineModeIsEnabled():
            if not revision:
                return f"{repo} cannot be asked while HF_HUB_OFFLINE is set: unset it"
            return f"{at} is not in the cache and HF_HUB_OFFLINE is set: unset it, or load it once while online"
        case errors.GatedRepoError():
            return f"{repo} is gated: ask for access at {page}, then {login}"
        case errors.RepositoryNotFoundError():
            return f"there is no {repo} at {hub}, or it is private: check the name, or {login}"
        case errors.RevisionNotFoundError():
            now = _present(repo, "") if revision else "it is empty"
            return f"{repo} has no commit {revision} (any more): {now}"
        case errors.RemoteEntryNotFoundError():
            return f"{at} holds no config.json: it is no avzoo bundle"
        case errors.HFValidationError():
            return f"{repo!r} is no name of a Hub repository: {' '.join(str(error).split())}"
        case errors.HfHubHTTPError():
            status = error.response.status_code
            advice = {
                401: f"the token is not accepted: {login}; public models need none",
                403: "the token may not do this: it needs write access to publish"
                f" ({constants.ENDPOINT}/settings/tokens)",
                412: "somebody else committed meanwhile: run the same command again",
                429: "too many requests: wait some minutes, then run it again",
            }
            return f"{at}: {hub} answers {status}: {advice.get(status, 'try again later')}"
        case httpx2.RemoteProtocolError() | httpx2.ReadError():
            return f"{at}: the transfer broke off: run it again, what is complete is not transferred twice"
        case httpx2.TransportError():
            cached = f"{at} is not in the cache and " if revision else ""
            return f"{cached}{hub} cannot be reached ({type(error).__name__}): check the network and HF_ENDPOINT"
    return f"{at}: {type(error).__name__}: {' '.join(str(error).split()):.300}"
