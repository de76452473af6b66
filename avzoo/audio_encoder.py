"""The zoo's own sound encoder: one second of log-mel in, 128 numbers out; 1.2 M parameters.

A small residual network, trained here by `recipes/audio-encoder.yaml`: distilled from YAMNet (AudioSet; Apache-2.0,
Google) and taught the sounds of avemix by name, on crops that were mixed, filtered and shifted at random (see
`avzoo.models.distillation`). None of YAMNet's weights are in it. The trained weights are
`avzoo/weights/audio-encoder.safetensors`, written by that module's `export_encoder` in half precision.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from avzoo.audio import log_mel, mel_bank
from avzoo.errors import AvzooError

# The signal numbers of the weights, YAMNet's own: teacher and student read the same spectrogram. Hz, samples, and the
# offset before the logarithm. The bank is AudioSet's: `mel_bank(..., linear_in="mel")`.
FRONT_END: dict[str, Any] = {
    "sample_rate": 16_000,
    "n_fft": 512,
    "window": 400,  # 25 ms
    "hop": 160,  # 10 ms
    "mels": 64,
    "f_min": 125.0,
    "f_max": 7500.0,
    "log_offset": 0.001,
    "frames": 96,  # 0.975 s: what YAMNet reads of a second
}


def spectrogram(waveform: Tensor, frames: int | None = FRONT_END["frames"]) -> Tensor:
    """Waveforms at 16 kHz `[batch, samples]` as log-mel `[batch, 1, mels, frames]`; None keeps all frames."""
    f = FRONT_END
    bank = mel_bank(
        sample_rate=f["sample_rate"],
        n_fft=f["n_fft"],
        n_mels=f["mels"],
        f_min=f["f_min"],
        f_max=f["f_max"],
        linear_in="mel",
    )
    mel = log_mel(
        waveform,
        bank,
        n_fft=f["n_fft"],
        win_length=f["window"],
        hop_length=f["hop"],
        offset=f["log_offset"],
    )
    return mel[:, None, :, :frames]


class Residual(nn.Module):
    """ResNet's basic block that halves both axes: `[batch, inputs, h, w]` to `[batch, width, h / 2, w / 2]`."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, width, 1, 2, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """Map the feature maps `x`."""
        out = self.bn1(self.conv1(x)).relu()
        merged: Tensor = self.bn2(self.conv2(out)) + self.shortcut(x)
        return merged.relu()


class AudioEncoder(nn.Module):
    """Log-mel segments `[batch, 1, 64, frames]` to features `[batch, dim]`, each about zero mean and unit variance.

    Args:
        dim: Features per segment.
        widths: Channels of the stem and of the stages after it; each halves both axes.

    >>> import torch
    >>> AudioEncoder()(torch.zeros(2, 1, 64, 96)).shape
    torch.Size([2, 128])
    """

    def __init__(self, dim: int = 128, *, widths: tuple[int, ...] = (32, 64, 128, 256)) -> None:
        super().__init__()
        self.dim = dim
        self.norm = nn.BatchNorm1d(FRONT_END["mels"])  # per band
        self.stem = nn.Sequential(nn.Conv2d(1, widths[0], 3, 2, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU())
        self.blocks = nn.Sequential(*(Residual(inputs, width) for inputs, width in pairwise(widths)))
        self.embed = nn.Linear(widths[-1], dim, bias=False)
        self.scale = nn.BatchNorm1d(dim, affine=False)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Embed `[batch, 1, 64, frames]` as `[batch, dim]`.

        Raises:
            AvzooError: If the input has another shape.
        """
        if log_mel.ndim != 4 or log_mel.shape[1:3] != (1, FRONT_END["mels"]):
            raise AvzooError(f"expected log-mel [batch, 1, {FRONT_END['mels']}, frames], got {list(log_mel.shape)}")
        x = self.norm(log_mel[:, 0])[:, None]
        x = self.blocks(self.stem(x))
        embedding: Tensor = self.scale(self.embed(x.mean((2, 3))))
        return embedding
