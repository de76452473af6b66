"""The models of the zoo: a file for each paper, and the baseline they are compared with.

`distillation` and `places` train backbones, the sound encoder and the image encoder that recipes name.
"""

from avzoo.models.avsdn import AVSDN
from avzoo.models.base import AVModule
from avzoo.models.baselines import SegmentMLP
from avzoo.models.joint_scalogram import JointScalogramNet
from avzoo.models.secrnn_fusion import SECRNNFusion

# What a checkpoint may name as its class; nothing else is ever built from one.
MODELS: dict[str, type[AVModule]] = {
    "AVSDN": AVSDN,
    "JointScalogramNet": JointScalogramNet,
    "SECRNNFusion": SECRNNFusion,
    "SegmentMLP": SegmentMLP,
}

__all__ = ["AVSDN", "MODELS", "AVModule", "JointScalogramNet", "SECRNNFusion", "SegmentMLP"]
