"""Class-activation maps of a model's pictures: Grad-CAM on the last map of the image network.

R. R. Selvaraju and others: "Grad-CAM: visual explanations from deep networks via gradient-based localization", ICCV
2017, https://arxiv.org/abs/1610.02391.

The gradient of a class's score comes to the pictures' features through the model, and through the network's pooling
to the maps. A mean spreads it evenly, so that a map is what each place adds to the score, to first order; a maximum
gives it to the one place that each channel took, of which Grad-CAM, as always, takes the mean over places.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from avzoo.models.base import AVModule
from avzoo.models.image_encoder import ImageEncoder


class Watch:
    """Records the last feature maps of a model's image network, be it frozen preprocessing or its own encoder.

    A network that pools no map of features (a transformer) has none.
    """

    def __init__(self, model: AVModule) -> None:
        from timm.layers.adaptive_avgmax_pool import SelectAdaptivePool2d

        self.preprocess = model.preprocess
        self.encoder = next((part for part in model.modules() if isinstance(part, ImageEncoder)), None)
        self.network = model.preprocessor.visual_backbone if self.encoder is None else self.encoder.network
        self._pools = [part for part in self.network.modules() if isinstance(part, SelectAdaptivePool2d)]

    def __enter__(self) -> Watch:
        """Keep what passes from now on."""
        self._hooks = [self.network.register_forward_hook(self._keep_pooled)]
        self._hooks += [pool.register_forward_pre_hook(self._keep_maps) for pool in self._pools[-1:]]
        if self.encoder is not None:
            self._hooks.append(self.encoder.register_forward_hook(self._cut))
        return self

    def __exit__(self, *error: object) -> None:
        """Watch no longer."""
        for hook in self._hooks:
            hook.remove()

    def _keep_pooled(self, module: nn.Module, inputs: Any, pooled: Tensor) -> None:  # noqa: ARG002
        self._pooled = pooled.detach()  # [segments * pictures, features]

    def _keep_maps(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:  # noqa: ARG002
        self._maps = inputs[0].detach()  # [segments * pictures, channels, height, width]

    def _cut(self, module: nn.Module, inputs: Any, features: Tensor) -> Tensor:  # noqa: ARG002
        self._features = features.detach().requires_grad_()
        return self._features

    def saw(self, visual: Tensor) -> None:
        """Be told what the model is about to read, `[segments, ...]`: features, where it has no encoder of its own."""
        if self.encoder is None:
            self._features = visual.requires_grad_()

    def maps(self, scores: Tensor, explained: list[int]) -> Tensor | None:
        """Where each segment's pictures speak for its class.

        Args:
            scores: What the model made of what it saw, `[segments, classes]`.
            explained: The class of each segment.

        Returns:
            `[segments, pictures, height, width]`, each map from 0 to 1; None of a network without maps.
        """
        if not self._pools:
            return None
        segments, pictures = self.preprocess.segments, self.preprocess.pictures
        slopes = []
        for segment, label in enumerate(explained):
            slope = self._slope(scores[segment, label], self._features).view(segments, -1, self._features.shape[-1])
            slopes.append(slope[segment].expand(pictures, -1))  # one feature of several pictures is their mean
        maps = self._maps.requires_grad_()
        pooled = self.network.forward_head(maps)  # type: ignore[operator]
        weights = self._slope(pooled, maps, torch.cat(slopes)).mean((2, 3), keepdim=True)
        heat = (weights * maps.detach()).sum(1).relu()
        heat = heat / heat.amax((1, 2), keepdim=True).clamp(min=torch.finfo(heat.dtype).tiny)
        return heat.view(segments, pictures, *heat.shape[1:]).float().cpu()

    @contextmanager
    def remembering(self, *, frozen: bool = False) -> Iterator[None]:
        """Let the model's own encoder, if any, repeat its features; with `frozen`, the first picture's for all."""
        if self.encoder is None:
            yield
            return
        features = self._features.detach().flatten(0, -2)
        self.encoder.network = _Given(features[:1].expand_as(features) if frozen else features)
        try:
            yield
        finally:
            self.encoder.network = self.network

    def frozen(self, visual: Tensor) -> Tensor:
        """`visual` as if every picture were the first."""
        if self.preprocess.visual_kind == "segment":
            return self._pooled[:1].expand_as(visual)
        return visual[:1, :1].expand_as(visual)

    @staticmethod
    def _slope(of: Tensor, by: Tensor, weights: Tensor | None = None) -> Tensor:
        return torch.autograd.grad(of, by, weights, retain_graph=True, allow_unused=True, materialize_grads=True)[0]


class _Given(nn.Module):
    """Stands in for a network whose answer is known."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features

    def forward(self, images: Tensor) -> Tensor:  # noqa: ARG002
        """The answer."""
        return self.features
