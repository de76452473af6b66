"""An image backbone that a model owns: resized pictures in, pooled features out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from avzoo import backbones
from avzoo.errors import AvzooError
from avzoo.preprocess import Preprocess, normalise


class ImageEncoder(nn.Module):
    """A timm network, `preprocess.visual_backbone`, with random weights until `fill` is called.

    Args:
        preprocess: Names the network, its pooling and its normalisation.
        frozen: No gradient, always in eval mode: batch statistics stay as they are, stochastic depth is off.
        batch_statistics: In training mode batch norms take those of the batch, as for large batches of unlike pictures.
            Otherwise they keep the pretrained ones: a batch of a few clips, whose frames are alike, would spoil them
            (chosen; VGG16, as in SECRNNFusion's paper, has none).
        stored: State dicts hold it. False is for one that never trains and is found by name: it is neither saved nor
            loaded nor missed.

    Attributes:
        filled: Whether it holds pretrained weights or, from a state dict, trained ones; `fill` leaves these alone.

    Raises:
        AvzooError: If the pictures are none of that network's (`visual_kind` is not "image").
    """

    def __init__(
        self, preprocess: Preprocess, *, frozen: bool = False, batch_statistics: bool = False, stored: bool = True
    ) -> None:
        super().__init__()
        if preprocess.visual_kind != "image":
            raise AvzooError(
                f"a model that owns its backbone reads visual_kind='image', not {preprocess.visual_kind!r}"
            )
        self.preprocess, self.frozen, self.batch_statistics = preprocess, frozen, batch_statistics
        self.stored, self.filled = stored, False
        self.network = backbones.architecture(preprocess.visual_backbone, preprocess.pool)
        if frozen:
            self.requires_grad_(False)
        self.register_state_dict_post_hook(ImageEncoder._after_saving)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(ImageEncoder._before_loading)  # type: ignore[no-untyped-call]
        self.train()

    def train(self, mode: bool = True) -> ImageEncoder:
        """Training mode, which a frozen encoder ignores, and so may its batch norms."""
        super().train(mode and not self.frozen)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and not self.batch_statistics:
                module.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Uint8 `[..., 3, size, size]` to features `[..., features]`."""
        size = self.preprocess.size
        if [*images.shape[-3:]] != [3, size, size]:
            raise AvzooError(
                f"{self.preprocess.visual_backbone} reads [..., 3, {size}, {size}], got {list(images.shape)}"
            )
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features: Tensor = self.network(normalise(images.flatten(0, -4), self.preprocess))
        return features.view(*images.shape[:-3], -1)

    def fill(self) -> None:
        """Load the pretrained weights; nothing to do if it is `filled`.

        Raises:
            DataNotFoundError: If they are not here and cannot be fetched.
        """
        if self.filled:
            return
        p, device = self.preprocess, next(self.parameters()).device
        pretrained = backbones.build(p.visual_backbone, p.pool).state_dict()
        trains = {name: parameter.requires_grad for name, parameter in self.network.named_parameters()}
        self.network.load_state_dict(pretrained, assign=True)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(trains[name])
        if device.type != "meta":
            self.network.to(device)
        self.filled = True

    def train_last(self, groups: int) -> None:
        """Freeze all but the last groups of layers, by timm's own order from the input to the output.

        Raises:
            AvzooError: If there are fewer groups.
        """
        import timm

        matcher = self.network.group_matcher(coarse=True)  # type: ignore[operator]
        layers = timm.models.group_parameters(self.network, matcher)
        if not 0 < groups <= len(layers):
            raise AvzooError(
                f"{self.preprocess.visual_backbone} has {len(layers)} groups of layers, asked for {groups}"
            )
        last = {name for names in list(layers.values())[-groups:] for name in names}
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name in last)

    # -- state dicts -------------------------------------------------------------------------------------------------

    def _after_saving(self, state: dict[str, Any], prefix: str, *_: object) -> None:
        if not self.stored:
            for key in [key for key in state if key.startswith(prefix)]:
                del state[key]

    def _before_loading(self, state: dict[str, Any], prefix: str, *_: object) -> None:
        own = self.network.state_dict(prefix=f"{prefix}network.", keep_vars=True)
        if self.stored:
            self.filled |= own.keys() <= state.keys()
        elif held := [key for key in state if key.startswith(prefix)]:
            raise AvzooError(
                f"the state dict holds the frozen image encoder ({held[0]} and {len(held) - 1} more): leave it out, its"
                " weights are those that preprocess.visual_backbone names"
            )
        else:
            state.update(own)  # what it has: nothing is missing, and nothing changes
