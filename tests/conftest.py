"""What several test files share: small rendered datasets, cheap backbones, a cache that goes with the session."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from media import CONTAINERS, write_media
from torch import Tensor, nn

from avzoo import backbones
from avzoo.data import rendering


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Small tensors: a second thread costs more than it brings."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads or writes the user's cache."""
    patch = pytest.MonkeyPatch()
    patch.setenv("AVZOO_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AVE's layout: 6 train, 3 val, 3 test clips of the first three classes."""
    folder = tmp_path_factory.mktemp("rendered")
    return rendering.write_ave(folder, train=6, val=3, test=3, classes=rendering.CLASSES[:3], size=64, seed=900)


@pytest.fixture(scope="session")
def rendered_tau(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TAU's layout, two scenes: 8 training clips of four locations, two of them validation by metadata.csv; 2 test."""
    folder = tmp_path_factory.mktemp("rendered-tau")
    rendering.write_tau(folder, train=8, test=2, scenes=("tram", "airport"), size=64, sample_rate=16_000, seed=3)
    table = folder / "metadata.csv"
    rows = [line.split("\t") for line in table.read_text().splitlines()]
    for row in rows[5:9]:  # the later location of each scene
        row[rows[0].index("split")] = "val"
    table.write_text("".join("\t".join(row) + "\n" for row in rows))
    return folder


class CheapBackbone(nn.Module):
    """Means over the input, spread over as many features as the real one has."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.num_features = self.dim = features
        with torch.device("cpu"):  # a real one may be built on the meta device; this one is whole at once
            generator = torch.Generator().manual_seed(features)
            self.weight = nn.Parameter(torch.randn(16, features, generator=generator), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(x.mean(1, keepdim=True), 4).flatten(1)
        return pooled @ self.weight


@pytest.fixture
def cheap_backbones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every backbone that is built in this process is a cheap one of the right width; its features are kept apart."""
    monkeypatch.setenv("AVZOO_CACHE", str(tmp_path / "cache-of-cheap-features"))
    widths = {"vggish": 128, "avzoo-audio": 128, "resnet152": 2048, "vgg16": 512}

    def cheap(name: str, pool: str = "") -> CheapBackbone:  # noqa: ARG001
        return CheapBackbone(widths.get(name.split(".")[0], 1280))

    for maker in ("build", "architecture"):
        monkeypatch.setattr(backbones, maker, cheap)


@pytest.fixture(scope="session")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of `media.CONTAINERS`."""
    folder = tmp_path_factory.mktemp("containers")
    for name, tracks in CONTAINERS.items():
        write_media(folder / name, *tracks)
    return folder


class Ear(nn.Module):
    """Loudest and mean log-mel of a segment."""

    def forward(self, spectrogram: Tensor) -> Tensor:
        return torch.stack([spectrogram.amax((1, 2, 3)), spectrogram.mean((1, 2, 3))], -1)


class Eye(nn.Module):
    """Mean colour of an image."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))


@pytest.fixture
def ear_and_eye(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand in for the two backbones; the names that were built."""
    names: list[str] = []

    def build(name: str, pool: str = "") -> nn.Module:  # noqa: ARG001
        names.append(name)
        return Ear().eval() if name == "vggish" else Eye().eval()

    monkeypatch.setattr(backbones, "build", build)
    return names
