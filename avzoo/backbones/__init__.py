"""Frozen feature extractors by name: what each one eats, what it gives, where its weights come from.

| name                            | input              | features                  |
|---------------------------------|--------------------|---------------------------|
| `avzoo-audio`, `vggish`         | log-mel of 0.975 s | 128                       |
| an entry of `checkpoints.yaml`  | RGB image          | as the entry says         |
| any other timm name             | RGB image          | timm's, pooled            |

`avzoo list --backbones` prints the entries; each pins its weights by commit or sha256. A timm name without one is
taken from where timm gets it: checked by the digits in the file's name, or, where timm names a Hub repository alone,
trusted as the Hub gives it.

A backbone is built on the meta device and then filled, so no random initialisation is ever executed, and it comes
back frozen and in eval mode. timm's VGGs lose what follows their convolutions: `vgg16` has 14,714,688 parameters and
512 features, pooled from `[512, 7, 7]`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from avzoo import registry
from avzoo.backbones import sources
from avzoo.backbones.places365 import convert_places365_vgg16
from avzoo.backbones.sources import Backbone
from avzoo.backbones.vggish import FRONT_END as VGGISH_FRONT_END
from avzoo.backbones.vggish import VGGish, convert_vggish
from avzoo.errors import AvzooError, DataNotFoundError, UnknownModelError, did_you_mean

__all__ = [
    "Backbone",
    "VGGish",
    "architecture",
    "build",
    "build_empty",
    "convert_places365_vgg16",
    "convert_vggish",
    "feature_dim",
    "find",
]

POOLS = ("", "avg", "max")
HEADS = ("fc.", "classifier.", "head.", "pre_logits.")  # what is in a file for classes that nobody asks for


@functools.cache
def find(name: str) -> Backbone:
    """Look a backbone up by name, without building it.

    Raises:
        UnknownModelError: If neither the registry nor timm knows the name.
        DataNotFoundError: If nobody has trained weights for it.

    >>> find("vggish").input["mels"]
    64
    """
    entry = registry.backbones().get(name)
    if entry is None:
        return _of_timm(name)
    if entry.kind == "image":
        _check_timm_name(entry.architecture, f"{entry.architecture!r} of backbone {name!r}")
    file = entry.source.rpartition("/")[2]
    weights = file if sources.digits(file) or not entry.sha256 else f"sha256:{entry.sha256}"
    numbers = _sound(entry.architecture)[1] if entry.kind == "audio" else _image_input(entry.architecture)
    return Backbone(
        name,
        entry.kind,
        weights,
        {**numbers, **entry.input},
        entry.licence or "unknown",
        entry.architecture,
        entry.source,
        entry.sha256,
        entry.revision,
    )


def build(name: str, pool: str = "") -> nn.Module:
    """Build a backbone with its pretrained weights, frozen and in eval mode.

    An image backbone maps normalised images `[batch, 3, size, size]` to pooled features `[batch, features]`; an
    audio backbone maps log-mel segments `[batch, 1, mels, frames]` to `[batch, features]`.

    Args:
        name: Of an entry or of timm.
        pool: How an image backbone's maps become a vector: "avg", "max", or "", the backbone's own way.

    Raises:
        UnknownModelError: If no backbone has that name.
        DataNotFoundError: If its weights are not here and cannot be fetched; the message says where to put them.
        AvzooError: If the backbone cannot pool so.
    """
    backbone = find(name)
    network = build_empty(name, pool)
    state = sources.read(backbone)
    missing, unexpected = network.load_state_dict(state, strict=False, assign=True)
    if missing or [key for key in unexpected if not key.startswith(HEADS)]:
        raise DataNotFoundError(
            f"the weights {backbone.weights} do not fit {name}: missing {missing[:3]}, unexpected {unexpected[:3]}"
        )
    return network.eval().requires_grad_(False)


def build_empty(name: str, pool: str = "") -> nn.Module:
    """`architecture` on the meta device: no memory, no random initialisation."""
    with torch.device("meta"):
        return architecture(name, pool)


def architecture(name: str, pool: str = "") -> nn.Module:
    """The network alone, randomly initialised on the current default device; arguments and errors as `build`.

    What a model that owns its backbone makes in its constructor. A network with tables that its constructor computes
    and no weights file holds is built on the CPU where the default device is meta.
    """
    backbone = find(name)
    if pool not in POOLS or (pool and backbone.kind == "audio"):
        raise AvzooError(f"{name!r} cannot pool by {pool!r}: expected one of {POOLS}, for sound ''")
    if backbone.kind == "audio":
        return _sound(backbone.architecture)[0]()
    network = _timm_network(backbone.architecture, pool)
    if {key for key, value in network.named_buffers() if value.is_meta} <= set(network.state_dict()):
        return network
    with torch.device("cpu"):
        return _timm_network(backbone.architecture, pool)


def feature_dim(name: str, pool: str = "") -> int:
    """How many features a backbone gives for one segment or image.

    >>> feature_dim("tf_efficientnet_lite0")
    1280
    """
    network = build_empty(name, pool)
    if find(name).kind == "audio":
        return int(network.dim)  # type: ignore[arg-type]
    # num_features counts the maps' channels; what comes out is wider where layers follow the pooling (MobileNetV3)
    return int(getattr(network, "head_hidden_size", network.num_features))  # type: ignore[arg-type]


def _sound(architecture: str) -> tuple[type[nn.Module], Mapping[str, Any]]:
    """A sound encoder and the numbers of its front-end."""
    if architecture == "vggish":
        return VGGish, VGGISH_FRONT_END
    from avzoo.audio_encoder import FRONT_END, AudioEncoder

    return AudioEncoder, FRONT_END


def _of_timm(name: str) -> Backbone:
    """A timm name that no entry has."""
    import timm

    _check_timm_name(name, repr(name))
    cfg: Any = timm.get_pretrained_cfg(name)
    if not (cfg.url or cfg.hf_hub_id):
        raise DataNotFoundError(f"timm has no pretrained weights for {name!r}: take a name of `timm.list_pretrained()`")
    file = (cfg.url or "").rpartition("/")[2]
    source = cfg.url if sources.digits(file) else f"hf:{cfg.hf_hub_id}"
    weights = file if sources.digits(file) else source
    return Backbone(name, "image", weights, _image_input(name), cfg.license or "unknown", name, source)


def _check_timm_name(name: str, whose: str) -> None:
    import timm

    plain, _, tag = name.partition(".")
    if not timm.is_model(plain) or (tag and not timm.is_model_pretrained(name)):
        known = [*registry.backbones(), *timm.list_models(), *timm.list_pretrained()]
        raise UnknownModelError(
            f"{whose} is no backbone that avzoo or timm knows{did_you_mean(name, known)}"
            " (`avzoo list --backbones`, and `timm.list_pretrained()` prints timm's names)"
        )


def _image_input(name: str) -> dict[str, Any]:
    import timm

    cfg: Any = timm.get_pretrained_cfg(name)
    return {
        "size": cfg.input_size[-1],
        "interpolation": cfg.interpolation,
        "mean": tuple(cfg.mean),
        "std": tuple(cfg.std),
    }


def _timm_network(name: str, pool: str) -> nn.Module:
    import timm
    from timm.models.vgg import VGG

    options: dict[str, Any] = {"global_pool": pool} if pool else {}
    if name.startswith("vgg"):
        options["mlp_ratio"] = 1 / 4096  # what is thrown away below is not built 120 M parameters large first
    try:
        network: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, **options)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        if not pool:
            raise
        raise AvzooError(f"{name!r} cannot pool by {pool!r}: {type(error).__name__}: {error}") from error
    if isinstance(network, VGG):
        network.pre_logits = nn.Identity()  # type: ignore[assignment]  # the papers pool the convolutions' maps
        network.head_hidden_size = network.num_features
    return network
