"""VGGish, the sound encoder of AVE's features, and the public file of its weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from avzoo.errors import DataNotFoundError

# The signal numbers of the weights: Hz, samples, and the offset before the logarithm.
FRONT_END = {
    "sample_rate": 16000,
    "n_fft": 512,
    "window": 400,  # 25 ms
    "hop": 160,  # 10 ms
    "mels": 64,
    "f_min": 125.0,
    "f_max": 7500.0,
    "log_offset": 0.01,
    "frames": 96,  # 0.975 s: the rest of a one-second segment is not read
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
    with torch.device("meta"):
        wanted = {key: value.shape for key, value in VGGish().state_dict().items()}
    converted = {key: value for key, value in state.items() if not key.startswith("pproc.")}
    if {key: value.shape for key, value in converted.items()} != wanted:
        raise DataNotFoundError(
            f"this is not the public VGGish file: expected keys as {sorted(wanted)[:2]}, got {sorted(state)[:2]}"
        )
    return converted
