"""JointScalogramNet against its paper: lengths, counts, the order of every step, what is frozen, what is missing."""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from avzoo import backbones
from avzoo.errors import AvzooError, ClassMismatchError
from avzoo.models.joint_scalogram import AudioEncoder, JointScalogramNet
from avzoo.preprocess import Batch, Preprocess

NAMES = [f"scene {i}" for i in range(10)]
FEW = ["park", "bus, moving", "tram"]
LIGHT = "test_efficientnet.r160_in1k"  # 99,196 parameters, 256 features
FEATURES: dict[str, Any] = {"audio_kind": "fbank", "bands": 32, "visual_kind": "frame", "visual_backbone": LIGHT}
IMAGES: dict[str, Any] = FEATURES | {"visual_kind": "image", "size": 32}

# What Lightning says of loaders without workers, and of the frozen parts' eval mode.
pytestmark = pytest.mark.filterwarnings("ignore:.*(does not have many workers|in eval mode at the start)")


@pytest.fixture(autouse=True)
def _weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pretrained weights are read: a backbone is filled with those of one seed."""

    def build(name: str, pool: str = "") -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(7)
            network = backbones.architecture(name, pool)
            for module in network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.running_mean.uniform_(-0.1, 0.1)
        return network.eval().requires_grad_(False)

    monkeypatch.setattr(backbones, "build", build)


def small(seed: int = 0, *, classes: list[str] = FEW, **options: Any) -> JointScalogramNet:
    """In eval mode; batch norms and statistics are no identities."""
    torch.manual_seed(seed)
    model = JointScalogramNet(classes, **({"image_features": 6, "preprocess": FEATURES} | options))
    for module in (*getattr(model, "audio_encoder", nn.Module()).modules(), *model.classifier.modules()):
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    with torch.no_grad():
        model.classifier.scores.weight.mul_(8)  # frames differ
    if model.hears:
        nn.init.uniform_(model.audio_mean, -5, -4)
        nn.init.uniform_(model.audio_std, 1, 2)
    return model.eval()


def sound(batch: int = 2, segments: int = 3, frames: int = 4, seed: int = 1, bands: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(batch, segments, frames, 2, bands, generator=generator) - 5


def seen(batch: int = 2, segments: int = 3, seed: int = 2) -> Tensor:
    return torch.randn(batch, segments, 1, 6, generator=torch.Generator().manual_seed(seed))


def pictures(batch: int = 2, segments: int = 3, seed: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, segments, 1, 3, 32, 32), generator=generator, dtype=torch.uint8)


def parameters(module: nn.Module, trained: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained)


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, whatever state_dict() says."""
    return {key: value.detach().clone() for key, value in (*module.named_parameters(), *module.named_buffers())}


# -- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bands", "pool_kernel", "lengths"),
    [
        (290, 2, [288, 145, 143, 72, 70, 36, 34, 18]),
        (256, 2, [254, 128, 126, 64, 62, 32, 30, 16]),
        (290, 3, [288, 144, 142, 71, 69, 35, 33, 17]),
        (256, 3, [254, 127, 125, 63, 61, 31, 29, 15]),
    ],
)
@pytest.mark.parametrize("residual", ["pre", "post", "none"])
@pytest.mark.parametrize("concat", ["last", "all"])
def test_lengths_after_every_step(bands: int, pool_kernel: int, lengths: list[int], residual: str, concat: str) -> None:
    encoder = AudioEncoder(bands, pool_kernel=pool_kernel, residual=residual, concat=concat, dropout=0.5).eval()
    seen_lengths: list[tuple[int, int]] = []
    widths: list[int] = []
    for block in encoder.blocks:
        for layer in (block.conv, block.pool):
            layer.register_forward_hook(lambda _m, _i, out: seen_lengths.append(tuple(out.shape[1:])))
    encoder.dense.register_forward_pre_hook(lambda _m, inputs: widths.append(inputs[0].shape[1]))
    assert encoder(torch.randn(5, 2, bands)).shape == (5, 1024)
    channels = [4, 4, 8, 8, 16, 16, 32, 32]
    assert seen_lengths == list(zip(channels, lengths, strict=True))
    outputs = [c * n for c, n in seen_lengths[1::2]]
    assert widths == [2 * bands + (sum(outputs) if concat == "all" else outputs[-1])]
    if pool_kernel == 2 and concat == "last":
        assert (outputs[-1], widths[0]) == {290: (576, 1156), 256: (512, 1024)}[bands]
    if pool_kernel == 2 and concat == "all":
        assert widths[0] == {290: 2888, 256: 2560}[bands]


AE_COUNTS = {  # as the spec of the network has them, by bands, pool, residual, concat
    (290, 2, "pre", "last"): 4_478_176,
    (290, 2, "post", "last"): 4_477_496,
    (290, 2, "none", "last"): 4_476_076,
    (290, 2, "pre", "all"): 8_025_312,
    (290, 3, "pre", "last"): 4_412_640,
    (256, 2, "pre", "last"): 4_207_840,
    (256, 2, "post", "last"): 4_207_160,
    (256, 2, "none", "last"): 4_205_740,
    (256, 2, "pre", "all"): 7_353_568,
}


@pytest.mark.parametrize("case", list(itertools.product((290, 256), (2, 3), ("pre", "post", "none"), ("last", "all"))))
def test_parameters_of_every_reading_of_the_audio_encoder(case: tuple[int, int, str, str]) -> None:
    bands, pool_kernel, residual, concat = case
    preprocess = {"audio_kind": "scalogram" if bands == 290 else "fbank", "visual_kind": "frame"}
    with torch.device("meta"):
        model = JointScalogramNet(
            NAMES, pool_kernel=pool_kernel, residual=residual, concat=concat, preprocess=preprocess
        )
    blocks = model.audio_encoder.blocks
    assert sum(parameters(block.conv) + parameters(block.norm) for block in blocks) == 2220
    shortcuts = sum(parameters(block.shortcut) for block in blocks if residual != "none")
    assert shortcuts == {"pre": 2100, "post": 1420 if pool_kernel == 2 else 2100, "none": 0}[residual]
    lengths = {(290, 2): (145, 72, 36, 18), (290, 3): (144, 71, 35, 17)}
    lengths |= {(256, 2): (128, 64, 32, 16), (256, 3): (127, 63, 31, 15)}
    outputs = [c * n for c, n in zip((4, 8, 16, 32), lengths[bands, pool_kernel], strict=True)]
    joined = 2 * bands + (sum(outputs) if concat == "all" else outputs[-1])
    dense = (joined + 1) * 2048 + 2 * 2048 + 2049 * 1024 + 2 * 1024
    assert parameters(model.audio_encoder) == 2220 + shortcuts + dense
    assert parameters(model.audio_encoder) == AE_COUNTS.get(case, parameters(model.audio_encoder))


def test_the_default_is_the_papers_best_system() -> None:
    model = JointScalogramNet(NAMES)
    assert model.preprocess == Preprocess(
        audio_kind="scalogram", visual_kind="image", visual_backbone="tf_efficientnetv2_s.in1k", size=288
    )
    assert parameters(model.audio_encoder) == 4_478_176
    assert parameters(model.classifier) == 2_372_618
    assert parameters(model.image_encoder) == 20_177_488
    assert parameters(model.image_encoder, trained=True) == 0
    assert parameters(model, trained=True) == 6_850_794
    assert parameters(model) == 27_028_282
    assert model.task == "clip"
    with torch.no_grad():
        picture = torch.zeros(1, 1, 1, 3, 288, 288, dtype=torch.uint8)
        posterior = model.eval()(torch.randn(1, 1, 3, 2, 290), picture).exp()
    assert posterior.shape == (1, 1, 10)
    torch.testing.assert_close(posterior.sum(-1), torch.ones(1, 1))


@pytest.mark.parametrize(
    ("system", "backbone", "classifier", "encoder"),
    [
        ("joint", "tf_efficientnetv2_s.in1k", 2_372_618, 20_177_488),
        ("joint", "resnet50.tv_in1k", 3_159_050, 23_508_032),
        ("audio", "resnet50.tv_in1k", 1_061_898, None),
        ("visual", "tf_efficientnetv2_s.in1k", 1_324_042, 20_177_488),
        ("visual", "resnet50.tv_in1k", 2_110_474, 23_508_032),
    ],
)
def test_parameters_of_the_four_systems(system: str, backbone: str, classifier: int, encoder: int | None) -> None:
    options: dict[str, Any] = {"audio_kind": "scalogram", "visual_backbone": backbone}
    with torch.device("meta"):
        model = JointScalogramNet(NAMES, system=system, preprocess=options | {"visual_kind": "image"})
        width = 2048 if "resnet" in backbone else 1280
        on_features = JointScalogramNet(
            NAMES, system=system, image_features=width, preprocess=options | {"visual_kind": "frame"}
        )
    for network in (model, on_features):
        assert parameters(network.classifier) == classifier
        assert hasattr(network, "audio_encoder") == (system != "visual")
        assert not [key for key in network.state_dict() if not key.startswith(("audio_", "classifier."))]
    assert on_features.image_encoder is None
    assert (None if model.image_encoder is None else parameters(model.image_encoder)) == encoder
    if system != "audio":
        assert model.hparams["image_features"] == width  # the encoder's, whatever the argument


# -- the network, by hand --------------------------------------------------------------------------------------------


def norm(x: Tensor, layer: nn.BatchNorm1d) -> Tensor:
    shape = (1, -1) + (1,) * (x.ndim - 2)
    mean, var, scale, shift = (t.view(shape) for t in (layer.running_mean, layer.running_var, layer.weight, layer.bias))
    return (x - mean) / (var + 1e-5).sqrt() * scale + shift


def encoder_by_hand(encoder: AudioEncoder, x: Tensor, options: Mapping[str, Any]) -> Tensor:
    kernel, residual = options["pool_kernel"], options["residual"]
    kept = [x.flatten(1)]
    for block in encoder.blocks:
        y = norm(F.conv1d(x, block.conv.weight, block.conv.bias), block.norm)
        if residual == "pre":
            y = y + F.conv1d(x, block.shortcut.weight, block.shortcut.bias)
        padded = F.pad(y.clamp(min=0), (1, 1))
        y = padded.unfold(-1, kernel, 2).mean(-1)
        if residual == "post":
            y = y + F.conv1d(x, block.shortcut.weight, block.shortcut.bias, stride=2)
        x = y
        kept.append(x.flatten(1))
    joined = torch.cat(kept if options["concat"] == "all" else [kept[0], kept[-1]], 1)
    first, second = encoder.dense[0], encoder.dense[4]
    hidden = norm(joined @ first.weight.T + first.bias, encoder.dense[1]).clamp(min=0)
    return norm(hidden @ second.weight.T + second.bias, encoder.dense[5]).clamp(min=0)


@pytest.mark.parametrize("system", ["joint", "audio", "visual"])
@pytest.mark.parametrize("pool_kernel", [2, 3])
@pytest.mark.parametrize(("residual", "concat"), [("pre", "last"), ("post", "all"), ("none", "last")])
@torch.no_grad()
def test_the_network_equals_its_equations(system: str, pool_kernel: int, residual: str, concat: str) -> None:
    model = small(system=system, pool_kernel=pool_kernel, residual=residual, concat=concat)
    audio, visual = sound(), seen()
    frames = 4 if model.hears else 1
    parts = []
    if model.hears:
        standard = (audio - model.audio_mean) / model.audio_std
        parts.append(encoder_by_hand(model.audio_encoder, standard.flatten(0, 2), model.hparams))
    if model.sees:
        parts.append(visual.repeat(1, 1, frames, 1).flatten(0, 2))
    linear, batch_norm = model.classifier.hidden[0], model.classifier.hidden[1]
    hidden = norm(torch.cat(parts, 1) @ linear.weight.T + linear.bias, batch_norm).clamp(min=0)
    scores = hidden @ model.classifier.scores.weight.T + model.classifier.scores.bias
    scores = scores.view(2, 3, frames, len(FEW))
    answer = model(audio, visual)
    torch.testing.assert_close(answer.exp(), scores.softmax(-1).mean(2), atol=1e-5, rtol=1e-4)
    if model.hears:  # and it is not the softmax of the mean
        assert (answer.exp() - scores.mean(2).softmax(-1)).abs().max() > 1e-3
    torch.testing.assert_close(answer.exp().sum(-1), torch.ones(2, 3))
    assert torch.equal(answer, model(audio, visual))
    found = model.embeddings(audio, visual)
    torch.testing.assert_close(found["fused"], hidden.view(2, 3, frames, -1).mean(2), atol=1e-5, rtol=1e-4)
    assert torch.equal(found.pop("logits"), answer)
    assert found.keys() == {"joint": {"audio", "visual", "fused"}}.get(system, {system, "fused"})
    if model.hears:
        torch.testing.assert_close(found["audio"], parts[0].view(2, 3, frames, -1).mean(2), atol=1e-5, rtol=1e-4)
    if model.sees:
        torch.testing.assert_close(found["visual"], visual[:, :, 0])


def test_embeddings_are_those_of_eval_mode_and_leave_no_trace() -> None:
    model = small()
    expected = model.embeddings(sound(), seen())
    before = state_of(model.train())
    model.classifier.hidden.eval()  # as fine-tuning holds what is frozen
    found = model.embeddings(sound(), seen())
    torch.testing.assert_close(found, expected)
    assert not any(value.requires_grad for value in found.values())
    assert [module.training for module in (model, model.classifier, model.classifier.hidden)] == [True, True, False]
    assert not changed(model, before)


@torch.no_grad()
def test_sure_frames_are_averaged_without_overflow() -> None:
    """Scores of thousands: the mean of two opposite certainties is a half each, and its logarithm is finite."""
    model = small(system="audio", classes=["a", "b"])
    model.classifier.scores.weight.mul_(1e5)
    answer = model(sound(8, 2, 4), None)
    assert answer.isfinite().any()
    assert not answer.isnan().any()
    posterior = answer.exp()
    assert ((posterior * 4).round() / 4 - posterior).abs().max() < 1e-3  # every frame is sure
    torch.testing.assert_close(posterior.sum(-1), torch.ones(8, 2))


def test_the_loss_is_the_cross_entropy_of_single_pairs() -> None:
    model = small()
    audio, visual, label = sound(5, 1, 1), seen(5, 1), torch.tensor([0, 2, 1, 1, 0])
    scores = model.classifier(torch.cat([model.audio_encoder(_standard(model, audio)), visual.flatten(0, 2)], 1))
    torch.testing.assert_close(model.loss(model(audio, visual), label), F.cross_entropy(scores, label))
    # of a whole clip: every segment has the clip's label
    answer = model(sound(), seen())
    expected = -(answer[0, :, 2].sum() + answer[1, :, 0].sum()) / 6
    torch.testing.assert_close(model.loss(answer, torch.tensor([2, 0])), expected)


def _standard(model: JointScalogramNet, audio: Tensor) -> Tensor:
    return ((audio - model.audio_mean) / model.audio_std).flatten(0, 2)


# -- seconds that have fewer frames ----------------------------------------------------------------------------------


@torch.no_grad()
def test_a_frame_that_is_none_is_left_out_of_the_mean() -> None:
    model = small()
    audio, visual = sound(), seen()
    audio[0, 1, 3:] = audio[1, 2, 2:] = torch.nan
    answer, found = model(audio, visual), model.embeddings(audio, visual)
    full = model(audio.nan_to_num(), visual)
    for clip, segment, frames in ((0, 1, 3), (1, 2, 2), (0, 0, 4)):
        short, look = audio[clip : clip + 1, segment : segment + 1, :frames], visual[clip : clip + 1, [segment]]
        torch.testing.assert_close(answer[clip, segment], model(short, look)[0, 0])
        for name, value in model.embeddings(short, look).items():
            torch.testing.assert_close(found[name][clip, segment], value[0, 0])
        assert torch.allclose(answer[clip, segment], full[clip, segment]) == (frames == 4)
    assert answer.isfinite().all()


@torch.no_grad()
def test_a_segment_without_frames_has_no_answer() -> None:
    audio = sound()
    audio[1, 2] = torch.nan
    answer = small()(audio, seen())
    assert answer[1, 2].isnan().all()
    assert answer.isnan().sum() == len(FEW)


def test_a_frame_that_is_none_reaches_neither_batch_norm_nor_gradient() -> None:
    audio, visual = sound(4, 1, 3), seen(4, 1)
    audio[:, :, 2] = torch.nan
    results = []
    for frames in (3, 2):
        model = small(dropout=0.0).train()
        loss = model.loss(model(audio[:, :, :frames], visual), torch.tensor([0, 1, 2, 0]))
        loss.backward()
        results.append((loss.detach(), [p.grad for p in model.parameters()], list(model.buffers())))
    (loss, gradients, buffers), (loss_short, gradients_short, buffers_short) = results
    torch.testing.assert_close(loss, loss_short)
    assert all(g.isfinite().all() for g in gradients)
    torch.testing.assert_close(gradients, gradients_short)
    torch.testing.assert_close(buffers, buffers_short)
    model = small()  # in eval mode no rows are taken out: an explanation by gradients is finite all the same
    model(audio, visual).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@torch.no_grad()
def test_a_damaged_frame_is_no_missing_one() -> None:
    audio = sound()
    audio[0, 0, 0, 0, 5] = torch.nan
    answer = small()(audio, seen())
    assert answer[0, 0].isnan().all()
    assert answer[0, 1:].isfinite().all()


# -- a modality that is missing --------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_missing_modality_is_a_zero_embedding() -> None:
    model = small()
    audio, visual = sound(), seen()
    torch.testing.assert_close(model(audio, None), model(audio, torch.zeros_like(visual)))
    hidden = model.classifier(torch.cat([torch.zeros(6, 1024), visual.flatten(0, 2)], 1)).view(2, 3, -1)
    torch.testing.assert_close(model(None, visual), hidden.log_softmax(-1))
    assert not torch.allclose(model(None, visual), model(audio, visual))
    assert model.embeddings(None, visual).keys() == {"visual", "fused", "logits"}
    assert model.embeddings(audio, None).keys() == {"audio", "fused", "logits"}
    with pytest.raises(AvzooError, match=r"nothing to go by.*sound or pictures"):
        model(None, None)


@torch.no_grad()
def test_a_system_of_one_modality_ignores_the_other() -> None:
    audio, visual = sound(), seen()
    hearing, seeing = small(system="audio"), small(system="visual")
    assert torch.equal(hearing(audio, visual), hearing(audio, None))
    assert torch.equal(seeing(audio, visual), seeing(None, visual))
    with pytest.raises(AvzooError, match=r"nothing to go by.*needs sound"):
        hearing(None, visual)
    with pytest.raises(AvzooError, match=r"nothing to go by.*needs pictures"):
        seeing(audio, None)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@torch.no_grad()
def test_modality_dropout_takes_one_of_the_two_from_a_share_of_the_pairs(share: float) -> None:
    n = 4000
    model = small(modality_dropout=share, dropout=0.0).train()
    joined: list[Tensor] = []
    model.classifier.register_forward_pre_hook(lambda _m, inputs: joined.append(inputs[0]))
    audio, visual = torch.randn(n, 1, 1, 2, 32), torch.randn(n, 1, 1, 6) + 9
    model.audio_encoder.dense[5].bias.fill_(1.0)  # no embedding is zero by itself
    model(audio, visual)
    deaf, blind = (joined[0][:, :1024] == 0).all(1), (joined[0][:, 1024:] == 0).all(1)
    assert not (deaf & blind).any()
    for lost in (deaf, blind):
        assert abs(float(lost.float().mean()) - share / 2) <= 4 * math.sqrt(share / 2 / n)
    assert (deaf | blind).all() == (share == 1)
    torch.testing.assert_close(joined[0][~blind, 1024:], visual.flatten(0, 2)[~blind])
    model.eval()(audio, visual)
    assert not ((joined[1][:, :1024] == 0).all(1) | (joined[1][:, 1024:] == 0).all(1)).any()


# -- what is frozen --------------------------------------------------------------------------------------------------


def step(model: JointScalogramNet, audio: Tensor | None, visual: Tensor | None, label: Tensor) -> Tensor:
    """One step of the model's own optimiser."""
    optimizer = model.configure_optimizers()["optimizer"]
    optimizer.zero_grad()
    loss = model.loss(model(audio, visual), label)
    loss.backward()
    optimizer.step()
    return loss.detach()


def changed(model: nn.Module, before: Mapping[str, Tensor]) -> set[str]:
    return {key.split(".")[0] for key, value in state_of(model).items() if not torch.equal(value, before[key])}


def test_a_step_leaves_the_image_encoder_as_it_is() -> None:
    model = JointScalogramNet(FEW, preprocess=IMAGES)
    model.fill_backbone()
    encoder = model.image_encoder
    assert model.training
    assert not any(module.training for module in encoder.modules())  # from the constructor on
    model.eval().train()
    assert not any(module.training for module in encoder.modules())
    assert parameters(encoder, trained=True) == 0
    before, images = state_of(model), pictures(6, 1)
    first = encoder(images)
    assert first.shape == (6, 1, 1, 256)
    assert not first.requires_grad
    step(model, sound(6, 1, 1), images, torch.tensor([0, 1, 2, 0, 1, 2]))
    assert changed(model, before) == {"audio_encoder", "classifier"}
    assert torch.equal(encoder(images), first)
    for name, parameter in model.named_parameters():
        frozen = name.startswith("image_encoder.")
        assert (parameter.grad is None) == frozen, name
        assert frozen or parameter.grad.abs().sum() > 0 or name.endswith(("conv.bias", "0.bias", "4.bias")), name


def test_a_frozen_audio_encoder_stays_as_it_is() -> None:
    model = small(ae_frozen=True).train()
    assert not any(module.training for module in model.audio_encoder.modules())
    assert model.classifier.hidden.training
    before = state_of(model)
    step(model, sound(6, 1, 1), seen(6, 1), torch.tensor([0, 1, 2, 0, 1, 2]))
    assert changed(model, before) == {"classifier"}
    assert all(p.grad is None for p in model.audio_encoder.parameters())
    assert parameters(model, trained=True) == parameters(model.classifier)
    held = model.configure_optimizers()["optimizer"].param_groups[0]["params"]
    assert sum(p.numel() for p in held) == parameters(model.classifier)
    trainable = small().train()
    before = state_of(trainable)
    step(trainable, sound(6, 1, 1), seen(6, 1), torch.tensor([0, 1, 2, 0, 1, 2]))
    assert changed(trainable, before) == {"audio_encoder", "classifier"}


def test_a_trainable_image_encoder_is_refused() -> None:
    model = JointScalogramNet(FEW, preprocess=IMAGES)
    next(model.image_encoder.parameters()).requires_grad_(True)
    batch = Batch(sound(6, 1, 1), pictures(6, 1), torch.tensor([0, 1, 2, 0, 1, 2]), list("abcdef"))
    with pytest.raises(AvzooError, match="Places365 is a module of its own"):
        model.training_step(batch, 0)


def test_one_pair_alone_is_refused_in_training() -> None:
    model = small().train()
    with pytest.raises(AvzooError, match=r"1 pair .* drop the last batch"):
        model(sound(1, 1, 1), seen(1, 1))
    audio = sound(1, 1, 3)
    audio[:, :, 1:] = torch.nan
    with pytest.raises(AvzooError, match=r"1 pair .* drop the last batch"):
        model(audio, seen(1, 1))
    assert model.eval()(sound(1, 1, 1), seen(1, 1)).isfinite().all()


# -- state dicts without the image encoder ---------------------------------------------------------------------------


def test_no_state_dict_holds_the_image_encoder() -> None:
    model = small(preprocess=IMAGES)
    model.fill_backbone()
    state = model.state_dict()
    assert {key.split(".")[0] for key in state} == {"audio_mean", "audio_std", "audio_encoder", "classifier"}
    wrapped = nn.Sequential(copy.deepcopy(model))  # by another prefix, as averaged weights are kept
    assert set(wrapped.state_dict()) == {f"0.{key}" for key in state}

    other = small(seed=1, preprocess=IMAGES)
    other.fill_backbone()
    assert not torch.allclose(other(sound(), pictures()), model(sound(), pictures()))
    other.load_state_dict(state, strict=True)
    assert torch.equal(other(sound(), pictures()), model(sound(), pictures()))
    nn.Sequential(other).load_state_dict(wrapped.state_dict(), strict=True)

    with pytest.raises(RuntimeError, match=r"Missing.*audio_encoder\.dense\.0\.weight"):
        other.load_state_dict({key: value for key, value in state.items() if key != "audio_encoder.dense.0.weight"})
    with pytest.raises(RuntimeError, match=r"Unexpected.*classifier\.more"):
        other.load_state_dict(state | {"classifier.more": torch.zeros(1)})
    for strict in (True, False):
        with pytest.raises(AvzooError, match="holds the frozen image encoder"):
            other.load_state_dict(state | {"image_encoder.network.conv_stem.weight": torch.zeros(1)}, strict=strict)


def test_a_network_on_the_meta_device_is_loaded_then_filled() -> None:
    model = small(preprocess=IMAGES, ae_frozen=True)
    model.fill_backbone()
    with torch.device("meta"):
        empty = JointScalogramNet(FEW, preprocess=IMAGES, ae_frozen=True)
    empty.load_state_dict(model.state_dict(), strict=True, assign=True)
    assert all(p.is_meta for p in empty.image_encoder.parameters())
    empty.fill_backbone()
    assert not [key for key, value in (*empty.named_parameters(), *empty.named_buffers()) if value.is_meta]
    assert torch.equal(empty.eval()(sound(), pictures()), model(sound(), pictures()))
    assert parameters(empty, trained=True) == parameters(empty.classifier)
    empty.metrics["macro_log_loss"].update(torch.zeros(1, 2, 3), torch.tensor([1]))
    assert float(empty.metrics["macro_log_loss"].compute()) == pytest.approx(math.log(3))


def test_the_audio_encoder_of_an_audio_only_system_loads_by_name() -> None:
    heard = small(system="audio")
    joint = small(seed=1, preprocess=IMAGES)
    theirs = {key: value for key, value in heard.state_dict().items() if key.startswith("audio_")}
    missing, unexpected = joint.load_state_dict(theirs, strict=False)
    assert not unexpected
    assert {key.split(".")[0] for key in missing} == {"classifier"}
    audio = sound()
    torch.testing.assert_close(joint.embeddings(audio, None)["audio"], heard.embeddings(audio, None)["audio"])


def test_hyper_parameters_are_plain_json_and_build_the_same_network() -> None:
    model = small(preprocess=Preprocess(**IMAGES), concat="all", residual="post", modality_dropout=0.1)
    stored = json.loads(json.dumps(dict(model.hparams)))
    assert stored == dict(model.hparams)
    assert (stored["image_features"], stored["classes"]) == (256, FEW)
    again = JointScalogramNet(**stored)
    again.load_state_dict(model.state_dict())
    assert again.preprocess == model.preprocess


# -- training --------------------------------------------------------------------------------------------------------


def test_the_rate_falls_along_cosines_and_restarts_at_epochs_10_30_and_70() -> None:
    configured = small().configure_optimizers()
    optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    assert isinstance(optimizer, torch.optim.SGD)
    assert configured["lr_scheduler"]["interval"] == "epoch"
    assert optimizer.defaults["momentum"] == 0.9
    assert optimizer.defaults["weight_decay"] == 0
    rates = []
    for _ in range(150):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    starts, lengths = [0, 10, 30, 70], [10, 20, 40, 80]  # 150 epochs in all
    expected = [
        1e-5 + (1e-2 - 1e-5) * (1 + math.cos(math.pi * epoch / length)) / 2
        for length in lengths
        for epoch in range(length)
    ]
    assert rates == pytest.approx(expected)
    assert [epoch for epoch, rate in enumerate(rates) if rate == pytest.approx(1e-2)] == starts
    lows = [rates[start + length - 1] for start, length in zip(starts, lengths, strict=True)]
    assert lows == sorted(lows, reverse=True)
    assert 1e-5 < lows[-1] < 2e-5
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-2)  # the next cycle would begin
    own = small(lr=0.1, lr_min=1e-3, momentum=0.5, weight_decay=1e-4, restart_epochs=2, restart_factor=1)
    configured = own.configure_optimizers()
    assert configured["optimizer"].defaults.items() >= {"lr": 0.1, "momentum": 0.5, "weight_decay": 1e-4}.items()
    scheduler = configured["lr_scheduler"]["scheduler"]
    assert (scheduler.T_0, scheduler.T_mult, scheduler.eta_min) == (2, 1, 1e-3)


@pytest.mark.parametrize("system", ["joint", "audio", "visual"])
def test_it_learns_a_few_pairs_by_heart(system: str) -> None:
    torch.manual_seed(0)
    label = torch.arange(24) % 3
    audio, visual = sound(24, 1, 1), seen(24, 1)
    model = JointScalogramNet(FEW, system=system, image_features=6, lr=0.05, dropout=0.2, preprocess=FEATURES)
    optimizer = model.configure_optimizers()["optimizer"]
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(model(audio, visual), label).backward()
        optimizer.step()
    model.eval()
    assert (model(audio, visual)[:, 0].argmax(-1) == label).all()
    assert model.loss(model(audio, visual), label) < 0.2


def test_joint_training_in_bfloat16_stays_finite() -> None:
    model = small(preprocess=IMAGES).train()
    label = torch.tensor([0, 1, 2, 0, 1, 2])
    with torch.autocast("cpu", torch.bfloat16):
        answer = model(sound(6, 1, 1), pictures(6, 1))
        loss = model.loss(answer, label)
    assert answer.dtype == loss.dtype == torch.float32
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    model.eval()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        rough = model(sound(), pictures())
    torch.testing.assert_close(rough.exp().sum(-1), torch.ones(2, 3))
    torch.testing.assert_close(rough.exp(), model(sound(), pictures()).exp().detach(), atol=0.05, rtol=0)


class Scenes(L.LightningDataModule):
    """Pairs for training, clips for validation; a class is heard in the mean and seen in the brightness."""

    def __init__(self, preprocess: Mapping[str, Any], classes: list[str] = FEW) -> None:
        super().__init__()
        self.preprocess, self.classes = Preprocess.of(preprocess), classes
        self.asked = 0
        self.mean = torch.full((2, self.preprocess.bands), -5.0)
        self.std = torch.full((2, self.preprocess.bands), 2.0)

    def audio_statistics(self) -> tuple[Tensor, Tensor]:
        self.asked += 1
        return self.mean, self.std

    def _batches(self, segments: int, frames: int, seed: int) -> Iterator[Batch]:
        for index in range(2):
            label = torch.arange(12) % 3
            audio = sound(12, segments, frames, seed + index) + label.view(-1, 1, 1, 1, 1)
            images = pictures(12, segments, seed + index) // 3 + (label * 60).view(-1, 1, 1, 1, 1, 1)
            yield Batch(audio, images.to(torch.uint8), label, ["x"] * 12)

    def train_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(list(self._batches(1, 1, seed=10)), batch_size=None)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(list(self._batches(2, 3, seed=20)), batch_size=None)  # type: ignore[arg-type]

    test_dataloader = val_dataloader


def trainer(epochs: int = 1) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def test_a_fit_fills_learns_statistics_keeps_the_encoder_and_comes_back_from_its_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = Scenes(IMAGES)
    model = JointScalogramNet(FEW, preprocess=IMAGES)
    fresh = state_of(model.image_encoder)
    run = trainer(12)
    run.fit(model, datamodule=data)
    assert data.asked == 1
    assert torch.equal(model.audio_mean, data.mean)
    assert torch.equal(model.audio_std, data.std)
    filled = {f"network.{key}": value for key, value in state_of(backbones.build(LIGHT)).items()}
    assert changed(model.image_encoder, fresh)
    assert not changed(model.image_encoder, filled)
    assert float(run.callback_metrics["val_segment_accuracy"]) > 0.9
    run.save_checkpoint(tmp_path / "last.ckpt")
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert not [key for key in checkpoint["state_dict"] if "image_encoder" in key]

    scores = run.test(model, datamodule=data, verbose=False)[0]
    expected = {"segment_accuracy", "clip_accuracy", "macro_accuracy", "macro_log_loss", "loss"}
    assert scores.keys() == {f"test_{name}" for name in expected}
    assert scores["test_macro_log_loss"] == pytest.approx(scores["test_loss"], abs=1e-4)  # as many of each class
    assert int(model.confusion.compute().sum()) == 48
    again = JointScalogramNet.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert not changed(again.image_encoder, filled)
    assert trainer().test(again, datamodule=data, verbose=False)[0] == pytest.approx(scores)
    fresh_model = JointScalogramNet(FEW, preprocess=IMAGES)
    trainer().test(fresh_model, datamodule=data, verbose=False)  # no checkpoint, no fit: the encoder is filled
    assert not changed(fresh_model.image_encoder, filled)


def test_statistics_that_came_with_the_audio_encoder_are_kept() -> None:
    model, data = small(ae_frozen=True, preprocess=IMAGES), Scenes(IMAGES)
    mean, std = model.audio_mean.clone(), model.audio_std.clone()
    before = state_of(model.audio_encoder)
    trainer().fit(model, datamodule=data)
    assert data.asked == 0
    assert torch.equal(model.audio_mean, mean)
    assert torch.equal(model.audio_std, std)
    assert not changed(model.audio_encoder, before)
    with pytest.raises(AvzooError, match="never trained: set init_from"):
        trainer().fit(JointScalogramNet(FEW, ae_frozen=True, preprocess=IMAGES), datamodule=Scenes(IMAGES))


def test_a_system_that_sees_alone_asks_for_no_statistics() -> None:
    model, data = JointScalogramNet(FEW, system="visual", preprocess=IMAGES), Scenes(IMAGES)
    trainer().fit(model, datamodule=data)
    assert data.asked == 0
    assert "audio_mean" not in model.state_dict()


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"audio_kind": "scalogram", "bank": "geometric"}, "bank 'geometric' for 'scatnet'"),
        ({"audio_kind": "scalogram", "log_offset": 1e-6}, "log_offset 1e-06 for 1e-08"),
        ({"audio_kind": "fbank", "bands": 290}, "audio_kind 'fbank' for 'scalogram'"),
    ],
)
def test_statistics_from_another_feature_kind_are_refused(other: dict[str, Any], what: str) -> None:
    ours = {"audio_kind": "scalogram", "visual_kind": "frame"}
    model = JointScalogramNet(FEW, preprocess=ours)
    with pytest.raises(AvzooError, match=f"statistics from another feature kind: .*{what}"):
        trainer().fit(model, datamodule=Scenes(ours | other))


def test_data_that_does_not_fit_the_model_is_refused() -> None:
    data = Scenes(IMAGES)
    data.mean = torch.zeros(2, 290)
    with pytest.raises(AvzooError, match=r"statistics \[2, 290\] and \[2, 32\] do not fit: expected \[2, 32\]"):
        trainer().fit(JointScalogramNet(FEW, preprocess=IMAGES), datamodule=data)
    with pytest.raises(ClassMismatchError):
        trainer().fit(JointScalogramNet(FEW, preprocess=IMAGES), datamodule=Scenes(IMAGES, FEW[::-1]))


# -- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"system": "both"}, "system is 'both', expected one of"),
        ({"pool_kernel": 4}, "pool_kernel is 4"),
        ({"residual": "yes"}, "residual is 'yes'"),
        ({"concat": "first"}, "concat is 'first'"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"modality_dropout": -0.1}, "modality_dropout=-0.1"),
        ({"system": "audio", "modality_dropout": 0.1}, "only a joint system"),
        ({"system": "visual", "ae_frozen": True}, "has no AE"),
        ({"preprocess": FEATURES | {"visual_kind": "segment"}}, "set visual_kind to 'frame'"),
        ({"preprocess": FEATURES | {"fps": 5}}, "5 pictures a segment.*set .*fps to 1"),
        ({"preprocess": {"visual_kind": "frame"}}, "audio_kind is 'log_mel': set it to 'scalogram' or 'fbank'"),
        ({"preprocess": FEATURES | {"bands": 16}}, "16 bands.*32 or more"),
        ({"classes": ["one"]}, "two or more"),
    ],
    ids=str,
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(AvzooError, match=message):
        JointScalogramNet(**({"classes": FEW, "preprocess": FEATURES} | options))


def test_a_system_checks_only_what_it_reads() -> None:
    JointScalogramNet(FEW, system="audio", preprocess=FEATURES | {"visual_kind": "segment"})
    JointScalogramNet(FEW, system="visual", preprocess={"visual_kind": "frame"})


@pytest.mark.parametrize(
    ("audio", "visual"),
    [
        (sound(bands=290), seen()),
        (sound()[:, :, 0], seen()),
        (sound(), torch.zeros(2, 3, 1, 1280)),
        (sound(), torch.zeros(2, 3, 2, 6)),
        (sound(), seen()[:, :, 0]),
        (sound(), seen().to(torch.uint8)),
        (sound(), pictures()),
        (sound(segments=4), seen()),
    ],
    ids=lambda x: "x".join(map(str, x.shape)),
)
def test_features_of_other_sizes_are_refused(audio: Tensor, visual: Tensor) -> None:
    expected = r"got audio .* expected .*frames, 2, 32\] and float .*segments, 1, 6\].*image_features"
    with pytest.raises(AvzooError, match=expected):
        small()(audio, visual)


def test_pictures_of_another_size_or_scale_are_refused() -> None:
    model = small(preprocess=IMAGES)
    for images in (pictures()[..., :16, :16], pictures() / 255, seen()):
        with pytest.raises(AvzooError, match=r"uint8 \[batch, segments, 1, 3, 32, 32\]"):
            model(sound(), images)


@torch.no_grad()
def test_temperatures_make_a_lost_modality_honest() -> None:
    torch.manual_seed(3)
    model = small(modality_dropout=0.3)
    audio, visual = sound(6), seen(6)
    label = torch.randint(len(model.classes), (6,))
    for parameter in model.classifier.scores.parameters():
        parameter.mul_(40)  # far too sure of itself
    model.eval()
    before = float(model.loss(model(audio, None), label))
    both = model(audio, visual)
    model.train()
    assert "audio_temperature" in model.calibrate(Batch(audio, visual, label, ["x"] * 6))
    assert model.training
    model.eval()
    assert float(model.loss(model(audio, None), label)) < before
    assert model.hparams["audio_temperature"] == model.audio_temperature > 1
    assert torch.equal(model(audio, visual), both)
    again = type(model)(**{key: value for key, value in model.hparams.items()})
    assert again.audio_temperature == model.audio_temperature
    assert small().calibrate(Batch(audio, visual, label, ["x"] * 6)) == ""
