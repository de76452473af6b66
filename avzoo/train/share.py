"""One batch over many processes: the gradients of a step are those that one process has on the whole batch.

Two things stand between plain data parallelism and that. Processes are averaged as equals, though their shares of a
batch may differ by a row: each loss is weighed. And batch normalisation would see a share alone: here its mean and
variance in training are those of the whole batch, on CPUs as on GPUs, whatever the shares.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class WholeBatch(Callback, TorchSyncBatchNorm):
    """Weighs each process's loss by its rows; as a plugin, takes the statistics of batch norms over all processes.

    Lightning asks the plugin only where there are several processes. Weights are called the same with it and without.
    """

    def __init__(self) -> None:
        self.weight = 1.0  # of this process's share of the present batch

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:  # noqa: ARG002 - Lightning's
        """Note the weight of the coming batch."""
        self.weight = getattr(batch, "weight", 1.0)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:  # noqa: ARG002
        """Weigh the loss that is about to be differentiated."""
        if self.weight != 1.0:
            loss.mul_(self.weight)

    def apply(self, model: nn.Module) -> nn.Module:
        """Let every batch norm see the whole batch."""
        for layer in _batch_norms(model):
            layer.forward = functools.partial(self._normalise, layer)  # type: ignore[method-assign]
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Undo `apply`."""
        for layer in _batch_norms(model):
            layer.__dict__.pop("forward", None)
        return model

    def _normalise(self, layer: _BatchNorm, x: Tensor) -> Tensor:
        """What the layer makes of `[rows, channels, ...]`; the one row of a share without rows counts nothing."""
        if not layer.training or layer.running_mean is None or layer.running_var is None:
            return type(layer).forward(layer, x)
        rest = [0, *range(2, x.ndim)]
        wide = x.float() if self.weight else x.float() * 0
        count = _total(wide.new_tensor(float(x.numel() // x.shape[1] if self.weight else 0)))
        mean = _total(wide.sum(rest)) / count
        centred = x.float() - _beside(mean, x)
        variance = _total((centred if self.weight else centred * 0).square().sum(rest)) / count
        with torch.no_grad():
            layer.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            share = 1 / layer.num_batches_tracked if layer.momentum is None else layer.momentum  # type: ignore[operator]
            layer.running_mean.lerp_(mean, float(share))
            layer.running_var.lerp_(variance * count / (count - 1).clamp(min=1), float(share))
        y = centred * _beside((variance + layer.eps).rsqrt(), x)
        if layer.affine:
            y = y * _beside(layer.weight, x) + _beside(layer.bias, x)
        return y.to(x.dtype)


def _batch_norms(model: nn.Module) -> Iterator[_BatchNorm]:
    return (layer for layer in model.modules() if isinstance(layer, _BatchNorm))


def _beside(of_channels: Tensor, x: Tensor) -> Tensor:
    """`[channels]`, ready to broadcast over `[rows, channels, ...]`."""
    return of_channels.view(1, -1, *[1] * (x.ndim - 2))


class _Total(torch.autograd.Function):
    """The sum over all processes; so is its gradient, because every process's loss depends on it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
        total = x.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Total.forward(ctx, gradient)


def _total(x: Tensor) -> Tensor:
    total: Tensor = _Total.apply(x)
    return total
