"""SECRNNFusion against its paper: shapes, counts and equations by hand, what freezes, what decays, that it learns."""

from __future__ import annotations

import inspect
import json
import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avzoo import backbones
from avzoo.audio.gammatone import scale_crop
from avzoo.errors import AvzooError
from avzoo.models.secrnn_fusion import Block, FusionNetwork, SECRNNFusion, VisualNetwork
from avzoo.preprocess import Batch, Preprocess

TAU = [
    "airport",
    "bus",
    "metro",
    "metro_station",
    "park",
    "public_square",
    "shopping_mall",
    "street_pedestrian",
    "street_traffic",
    "tram",
]
FEW = TAU[:4]
FEATURES = 6
FRAME: dict[str, Any] = {
    "audio_kind": "gammatone",
    "bands": 2,
    "fps": 5,
    "visual_kind": "frame",
    "visual_backbone": "tf_efficientnet_lite0",
}
IMAGE: dict[str, Any] = FRAME | {"visual_kind": "image", "visual_backbone": "test_resnet.r160_in1k", "size": 32}
quiet = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*", "ignore:.*smaller than the logging.*", "ignore:Found .* in eval mode.*"
)


def paper(**options: Any) -> SECRNNFusion:
    """At full size, without weights: for counts and shapes."""
    with torch.device("meta"):
        return SECRNNFusion(TAU, **options)


def small(preprocess: dict[str, Any] = FRAME, **options: Any) -> SECRNNFusion:
    torch.manual_seed(0)
    model = SECRNNFusion(FEW, image_features=FEATURES, preprocess=preprocess, **options)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "encoder" not in name:
                parameter.add_(0.1 * torch.randn_like(parameter))  # biases and batch norms away from 0 and 1
    return model


def sound(rows: int = 3, segments: int = 2) -> Tensor:
    return 20 * torch.randn(rows, segments, 3, 2, 50, generator=torch.Generator().manual_seed(1)) - 60


def sight(rows: int = 3, segments: int = 2, image: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    if image:
        return torch.randint(0, 256, (rows, segments, 5, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return torch.randn(rows, segments, 5, FEATURES, generator=generator)


def count(module: nn.Module, *, trainable: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)


def statistics(module: nn.Module) -> dict[str, Tensor]:
    return {name: x.clone() for name, x in module.named_buffers() if name.endswith(("running_mean", "running_var"))}


def shapes(model: nn.Module, names: list[str], run: Any) -> dict[str, list[int]]:
    """What modules gave, and, with a leading ">", what they were given."""
    seen: dict[str, list[int]] = {}
    for name in names:

        def hook(_: nn.Module, inputs: Any, output: Any, name: str = name) -> None:
            result = inputs[0] if name[0] == ">" else output
            seen[name] = list((result[0] if isinstance(result, tuple) else result).shape)

        model.get_submodule(name.lstrip(">")).register_forward_hook(hook)
    run()
    return seen


# -- sizes and shapes of the paper's network ---------------------------------------------------------------------------


def test_the_default_is_the_papers_network() -> None:
    model = paper()
    assert count(model) == count(model, trainable=True) == 15_414_804
    assert sum(x.numel() for x in statistics(model).values()) == 1_344
    p = model.preprocess
    assert (p.audio_kind, p.bands, p.frames, p.sample_rate) == ("gammatone", 64, 50, 44_100)
    assert (p.visual_kind, p.visual_backbone, p.pool, p.size, p.pictures) == ("image", "vgg16.tv_in1k", "max", 224, 5)
    assert model.task == "clip"


def test_parameters_by_part() -> None:
    model = paper()
    parts = {
        "audio": 321_930,
        "audio.blocks.0": 11_520,
        "audio.blocks.1": 62_080,
        "audio.blocks.2": 247_040,
        "audio.blocks.0.gates": 1_056,
        "audio.blocks.1.gates": 4_160,
        "audio.blocks.2.gates": 16_512,
        "audio.classifier": 1_290,
        "visual": 14_820_170,
        "visual.encoder": 14_714_688,
        "visual.gru": 104_832,
        "visual.classifier": 650,
        "fusion": 272_704,
        "fusion.gru": 271_104,
        "fusion.early": 1_290,
        "fusion.late": 310,
    }
    assert {name: count(model.get_submodule(name)) for name in parts} == parts
    buffers = [sum(x.numel() for x in statistics(block).values()) for block in model.audio.blocks]
    assert buffers == [192, 384, 768]


@pytest.mark.parametrize(
    ("options", "total", "trainable"),
    [
        ({"freeze": "subnets"}, 15_414_804, 272_704),
        ({"freeze": "backbone"}, 15_414_804, 700_116),
        ({"stage": "audio"}, 321_930, 321_930),
        ({"stage": "visual"}, 14_820_170, 14_820_170),
        ({"stage": "visual", "freeze": "backbone"}, 14_820_170, 105_482),
        ({"stage": "visual", "train_blocks": 2}, 14_820_170, 105_482 + 2 * (512 * 512 * 9 + 512)),
    ],
    ids=str,
)
def test_parameters_by_stage(options: dict[str, Any], total: int, trainable: int) -> None:
    model = paper(**options)
    assert (count(model), count(model, trainable=True)) == (total, trainable)


def test_shapes_of_the_papers_network() -> None:
    model = paper().eval()
    blocks = ["audio.blocks.0", ">audio.blocks.1", "audio.blocks.1", ">audio.blocks.2", "audio.blocks.2"]
    visual = [">visual.gru", "visual.gru", "visual.classifier"]
    fusion = [">fusion.gru", "fusion.gru", ">fusion.early", ">fusion.late"]
    audio = torch.zeros(2, 1, 3, 64, 50, device="meta")
    pictures = torch.zeros(2, 1, 5, 3, 224, 224, dtype=torch.uint8, device="meta")
    out: list[Tensor] = []
    seen = shapes(model, [*blocks, *visual, *fusion], lambda: out.append(model(audio, pictures)))
    assert seen == {
        "audio.blocks.0": [2, 32, 64, 50],
        ">audio.blocks.1": [2, 32, 64, 25],
        "audio.blocks.1": [2, 64, 64, 25],
        ">audio.blocks.2": [2, 64, 64, 12],
        "audio.blocks.2": [2, 128, 64, 12],
        ">visual.gru": [2, 5, 512],
        "visual.gru": [2, 5, 64],
        "visual.classifier": [2, 5, 10],
        ">fusion.gru": [2, 5, 640],
        "fusion.gru": [2, 5, 128],
        ">fusion.early": [2, 128],
        ">fusion.late": [2, 30],
    }
    assert out[0].shape == (2, 1, 10)


@pytest.mark.parametrize(("pool", "expected"), [("max", 3.0), ("avg", 3 / 49)])
def test_pictures_are_pooled_by_their_maximum_or_mean(pool: str, expected: float) -> None:
    default = Preprocess.of(paper().preprocess).to_dict()
    model = paper(stage="visual", preprocess=default | {"pool": pool})
    maps = torch.zeros(1, 512, 7, 7)
    maps[0, :, 2, 5] = 3.0
    pooled = model.visual.encoder.network.forward_head(maps)
    torch.testing.assert_close(pooled, torch.full((1, 512), expected))


# -- the sound's blocks ------------------------------------------------------------------------------------------------


def randomised(block: Block) -> Block:
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return block.eval()


def norm_by_hand(layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
    scale = layer.weight / (layer.running_var + 1e-3).sqrt()
    return (x - layer.running_mean[:, None, None]) * scale[:, None, None] + layer.bias[:, None, None]


def block_by_hand(block: Block, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The sum before the gates after its ELU, the shortcut, and the output."""
    first, norm1, _, second, norm2 = block.main
    main = norm_by_hand(norm1, F.conv2d(x, first.weight, first.bias, padding=1))
    main = torch.where(main > 0, main, main.exp() - 1)
    main = norm_by_hand(norm2, F.conv2d(main, second.weight, second.bias, padding=1))
    shortcut = norm_by_hand(block.shortcut[1], F.conv2d(x, block.shortcut[0].weight, block.shortcut[0].bias))
    a = main + shortcut
    a = torch.where(a > 0, a, a.exp() - 1)
    hidden = torch.relu(a.mean((2, 3)) @ block.gates.squeeze.weight.T)
    channel = torch.sigmoid(hidden @ block.gates.excite.weight.T)
    place = torch.sigmoid((a * block.gates.place.weight.view(1, -1, 1, 1)).sum(1, keepdim=True))
    return a, shortcut, a * channel[:, :, None, None] + a * place + shortcut


@pytest.mark.parametrize(("inputs", "channels"), [(3, 32), (8, 8)])
def test_a_block_equals_its_equations(inputs: int, channels: int) -> None:
    torch.manual_seed(0)
    block = randomised(Block(inputs, channels))
    x = torch.randn(2, inputs, 4, 6)
    torch.testing.assert_close(block(x), block_by_hand(block, x)[2], atol=1e-5, rtol=1e-4)


def test_gates_of_a_half_leave_the_map_as_it_is() -> None:
    """sigmoid(0) = 0.5 twice: out = ELU(F + S) + S, to the last bit."""
    torch.manual_seed(0)
    block = randomised(Block(3, 32))
    for parameter in block.gates.parameters():
        nn.init.zeros_(parameter)
    x = torch.randn(2, 3, 4, 6)
    shortcut = block.shortcut(x)
    assert torch.equal(block(x), F.elu(block.main(x) + shortcut) + shortcut)


def test_every_block_has_a_shortcut_and_no_gate_a_bias() -> None:
    for block in small().audio.blocks:
        assert block.shortcut[0].kernel_size == (1, 1)
        assert block.shortcut[0].bias is not None
        assert [name for name, _ in block.gates.named_parameters()] == [
            "squeeze.weight",
            "excite.weight",
            "place.weight",
        ]
        norms = [m for m in block.modules() if isinstance(m, nn.BatchNorm2d)]
        assert [(m.eps, m.momentum) for m in norms] == [(1e-3, 0.01)] * 3


def test_initialisation_is_keras() -> None:
    torch.manual_seed(0)
    model = SECRNNFusion(FEW, image_features=64, preprocess=FRAME)
    for name, parameter in model.named_parameters():
        if "bias" in name:
            assert not parameter.any(), name
    conv = model.audio.blocks[2].main[3].weight  # glorot: uniform within sqrt(6 / (fan in + fan out))
    limit = math.sqrt(6 / (2 * 128 * 9))
    assert 0.99 * limit < conv.abs().max() <= limit
    kernel = model.fusion.gru.weight_ih_l0  # Keras draws the three gates' kernels as one matrix
    limit = math.sqrt(6 / (128 + 64 + 3 * 64))
    assert 0.99 * limit < kernel.abs().max() <= limit
    recurrent = model.visual.gru.weight_hh_l0_reverse
    torch.testing.assert_close(recurrent.T @ recurrent, torch.eye(32), atol=1e-5, rtol=0)
    squeeze = model.audio.blocks[2].gates.squeeze.weight  # he: deviation sqrt(2 / fan in), cut at two of the uncut
    assert squeeze.std().item() == pytest.approx(math.sqrt(2 / 128), rel=0.03)
    assert squeeze.abs().max() <= 2 * math.sqrt(2 / 128) / 0.8796


def test_crops_are_scaled_inside_each_by_its_own_range() -> None:
    model = small(stage="audio").eval()
    seen: list[Tensor] = []
    model.audio.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    audio = sound()
    answer = model(audio, None)
    assert seen[0].shape == (6, 3, 2, 50)
    assert (seen[0].amin((1, 2, 3)) == -1).all()
    assert (seen[0].amax((1, 2, 3)) == 1).all()
    louder = audio.clone()
    louder[:, 1] = 0.5 * louder[:, 1] + 30  # a gain and a range that only these segments have
    torch.testing.assert_close(model(louder, None), answer, atol=1e-4, rtol=1e-4)
    shifted = audio.clone()
    shifted[:, :, 1] += 30  # one channel alone: the range is that of all three
    assert not torch.allclose(model(shifted, None), answer, atol=1e-2)


# -- recurrence, posteriors and fusion ---------------------------------------------------------------------------------


def keras_gru(gru: nn.GRU, x: Tensor) -> Tensor:
    """Keras's cell with reset_after: gates in the order z, r, h; `[batch, time, features]` in, both directions out."""
    outputs = []
    for suffix in ("_l0", "_l0_reverse"):
        parameters = [getattr(gru, f"{name}{suffix}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        kernel, recurrent, bias, recurrent_bias = (torch.cat([p.chunk(3)[i] for i in (1, 0, 2)]).T for p in parameters)
        h, steps = x.new_zeros(len(x), gru.hidden_size), []
        for t in range(x.shape[1]) if suffix == "_l0" else reversed(range(x.shape[1])):
            x_z, x_r, x_h = (x[:, t] @ kernel + bias).chunk(3, -1)
            h_z, h_r, h_h = (h @ recurrent + recurrent_bias).chunk(3, -1)
            z, r = torch.sigmoid(x_z + h_z), torch.sigmoid(x_r + h_r)
            h = z * h + (1 - z) * torch.tanh(x_h + r * h_h)
            steps.append(h)
        outputs.append(torch.stack(steps if suffix == "_l0" else steps[::-1], 1))
    return torch.cat(outputs, -1)


@pytest.mark.filterwarnings("ignore:The use of `x.T` on tensors of dimension other than 2")
def test_the_recurrence_is_that_of_keras() -> None:
    model = small()
    x = sight()[:, 0]
    torch.testing.assert_close(model.visual.gru(x)[0], keras_gru(model.visual.gru, x), atol=1e-5, rtol=1e-4)


def test_the_visual_posterior_is_the_mean_over_frames() -> None:
    model = small(stage="visual").eval()
    visual = sight()
    by_frame = model.visual.classifier(model.visual.gru(visual.flatten(0, 1))[0]).softmax(-1)
    expected = by_frame.mean(1).view(3, 2, 4)
    torch.testing.assert_close(model(None, visual).exp(), expected)


def test_the_mean_of_posteriors_is_stable() -> None:
    network = VisualNetwork(3, 2, None).eval()
    network.gru.bias_hh_l0.data.fill_(2.0)
    nn.init.constant_(network.classifier.bias, 0.0)
    network.classifier.bias.data[0] = 1e4
    _, log = network(torch.randn(2, 5, 2))
    assert log.isfinite().all()
    torch.testing.assert_close(log.exp().sum(-1), torch.ones(2))


def test_fusion_equals_its_equations() -> None:
    model = small().eval()
    audio, visual = sound(), sight()
    maps: list[Tensor] = []
    late: list[Tensor] = []
    model.audio.blocks[2].register_forward_hook(lambda _, __, output: maps.append(output))
    model.fusion.late.register_forward_pre_hook(lambda _, inputs: late.append(inputs[0]))
    answers = {name: answer.flatten(0, 1) for name, answer in model.branches(audio, visual).items()}
    assert list(answers) == ["audio", "visual", "early", "late"]
    torch.testing.assert_close(
        answers["audio"], model.audio.classifier(maps[0].mean((2, 3))).log_softmax(-1), atol=1e-5, rtol=1e-4
    )
    tap = maps[0].mean(2)  # [batch, 128, 12]
    steps = torch.stack([tap[:, :, 2 * i : 2 * i + 3].mean(-1) for i in range(5)], 1)  # columns 0-2, 2-4, ... 8-10
    joined = torch.cat([steps, visual.flatten(0, 1)], -1)
    early = model.fusion.early(model.fusion.gru(joined)[0].mean(1)).softmax(-1)
    torch.testing.assert_close(answers["early"].exp(), early)
    inputs = torch.cat([early, answers["audio"].exp(), answers["visual"].exp()], -1)
    torch.testing.assert_close(late[0], inputs)
    torch.testing.assert_close(late[0].unflatten(-1, (3, 4)).sum(-1), torch.ones(6, 3))
    torch.testing.assert_close(answers["late"].exp(), model.fusion.late(inputs).softmax(-1))
    assert torch.equal(model(audio, visual).flatten(0, 1), answers["late"])


def test_steps_of_sound() -> None:
    assert [FusionNetwork.steps(columns) for columns in (50, 48, 44, 100)] == [5, 5, 5, 12]
    assert FusionNetwork.steps(8) < 1


# -- what comes out ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image", [False, True])
@pytest.mark.parametrize("stage", ["audio", "visual", "fusion"])
def test_posteriors(stage: str, image: bool) -> None:
    model = small(IMAGE if image else FRAME, stage=stage).eval()
    audio, visual = sound(), sight(image=image)
    answer = model(audio, visual)
    assert answer.shape == (3, 2, 4)
    assert answer.dtype == torch.float32
    posterior = answer.softmax(-1)
    assert posterior.isfinite().all()
    assert (posterior >= 0).all()
    torch.testing.assert_close(posterior.sum(-1), torch.ones(3, 2))
    torch.testing.assert_close(posterior, answer.exp())
    assert torch.equal(model(audio, visual), answer)
    torch.testing.assert_close(model(audio[1:2, 1:], visual[1:2, 1:]), answer[1:2, 1:], atol=1e-5, rtol=1e-4)


def test_one_modality_alone_is_answered_by_its_own_network() -> None:
    model = small().eval()
    audio, visual = sound(), sight()
    answers = model.branches(audio, visual)
    torch.testing.assert_close(model(audio, None), answers["audio"])
    torch.testing.assert_close(model(None, visual), answers["visual"])
    assert list(model.branches(None, visual)) == ["visual"]
    assert not torch.allclose(answers["late"], answers["audio"])
    assert model.modalities == ("audio", "visual")
    for stage, other in (("audio", (audio, visual + 1)), ("visual", (audio + torch.randn_like(audio), visual))):
        single = small(stage=stage).eval()
        assert single.modalities == (stage,)
        assert torch.equal(single(*other), single(audio, visual))


@pytest.mark.parametrize(
    ("stage", "given"), [("fusion", ""), ("audio", "visual"), ("visual", "audio"), ("visual", "")], ids=str
)
def test_nothing_to_answer_from(stage: str, given: str) -> None:
    model = small(stage=stage)
    with pytest.raises(AvzooError, match=f"stage '{stage}' was given nothing that it reads"):
        model(sound() if given == "audio" else None, sight() if given == "visual" else None)


def test_inputs_of_another_shape_are_refused() -> None:
    model = small()
    with pytest.raises(AvzooError, match=r"audio is \[3, 2, 3, 2, 40\], expected \[batch, segments, 3, 2, 50\]"):
        model(sound()[..., :40], sight())
    with pytest.raises(AvzooError, match=r"visual is \[3, 2, 4, 6\], expected \[batch, segments, 5, 6\]"):
        model(sound(), sight()[:, :, :4])
    with pytest.raises(AvzooError, match="not the same segments"):
        model(sound(), sight(segments=1))
    with pytest.raises(AvzooError, match=r"expected \[batch, segments, 5, 3, 32, 32\]"):
        small(IMAGE)(sound(), sight())


@pytest.mark.parametrize("image", [False, True])
def test_bfloat16_autocast_is_finite(image: bool) -> None:
    model = small(IMAGE if image else FRAME)
    model.visual.dropout.p = 0.0
    audio, visual, label = sound(), sight(image=image), torch.tensor([0, 1, 2])
    exact = model(audio, visual)
    with torch.autocast("cpu", torch.bfloat16):
        answer = model(audio, visual)
        loss = model.loss(answer, label)
    assert answer.dtype == loss.dtype == torch.float32
    assert (answer.exp() - exact.exp()).abs().max() < 0.05
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


# -- stages and freezing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preprocess", [FRAME, IMAGE], ids=["frame", "image"])
def test_a_tensor_has_one_name_in_all_stages(preprocess: dict[str, Any]) -> None:
    fusion = small(preprocess)
    own = {key: x.shape for key, x in fusion.state_dict().items()}
    for stage in ("audio", "visual"):
        names = {key: x.shape for key, x in small(preprocess, stage=stage).state_dict().items()}
        assert names == {key: shape for key, shape in own.items() if key.startswith(f"{stage}.")}
    assert {key.partition(".")[0] for key in own} == {"audio", "visual", "fusion"}
    assert any(key.startswith("visual.encoder.") for key in own) == (preprocess is IMAGE)


@pytest.mark.parametrize("image", [False, True])
def test_frozen_networks_do_not_move_and_their_dropout_does(image: bool) -> None:
    model = small(IMAGE if image else FRAME, freeze="subnets")  # as built: Lightning calls no train() of its own
    before = {key: x.clone() for key, x in model.state_dict().items()}
    optimizer = model.configure_optimizers()["optimizer"]
    assert sum(p.numel() for group in optimizer.param_groups for p in group["params"]) == count(model.fusion)
    audio, visual, label = sound(), sight(image=image), torch.tensor([0, 1, 2])
    model.loss(model(audio, visual), label).backward()
    optimizer.step()
    assert all(p.grad is None for part in (model.audio, model.visual) for p in part.parameters())
    assert all(p.grad is not None for p in model.fusion.parameters())
    moved = {key for key, x in model.state_dict().items() if not torch.equal(x, before[key])}
    assert moved == {name for name, _ in model.named_parameters() if name.startswith("fusion.")}
    assert model.visual.dropout.p == 0.5
    for mode in (True, False, True):
        first, second = (model.train(mode).branches(audio, visual) for _ in range(2))
        assert torch.equal(first["audio"], second["audio"])
        assert torch.equal(first["visual"], second["visual"]) != mode
        assert torch.equal(first["early"], second["early"])  # its pictures come from before the dropout
    assert [m for m in model.visual.modules() if isinstance(m, nn.BatchNorm2d) and m.training] == []


def test_what_trains_moves_its_batch_statistics_but_for_a_pretrained_encoders() -> None:
    model = small(IMAGE)
    before = statistics(model)
    model.loss(model(sound(), sight(image=True)), torch.tensor([0, 1, 2])).backward()
    assert all(p.grad is not None for p in model.parameters())
    kept = {key for key, x in statistics(model).items() if torch.equal(x, before[key])}
    assert kept == {key for key in before if ".encoder." in key}


def test_a_frozen_backbone_leaves_the_rest_to_train() -> None:
    for stage in ("visual", "fusion"):
        model = small(IMAGE, stage=stage, freeze="backbone")
        before = statistics(model)
        model.loss(model(sound(), sight(image=True)), torch.tensor([0, 1, 2])).backward()
        still = {name for name, p in model.named_parameters() if p.grad is None}
        assert still == {name for name, _ in model.named_parameters() if ".encoder." in name}
        kept = {key for key, x in statistics(model).items() if torch.equal(x, before[key])}
        assert kept == {key for key in before if ".encoder." in key}


def test_the_last_groups_of_the_backbone_train() -> None:
    model = small(IMAGE, stage="visual", train_blocks=1)
    trains = [p.requires_grad for name, p in model.named_parameters() if ".encoder." in name]
    assert 0 < sum(trains) < len(trains)
    assert trains == sorted(trains)
    with pytest.raises(AvzooError, match="groups of layers, asked for 99"):
        small(IMAGE, stage="visual", train_blocks=99)


def test_the_backbone_is_filled_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(9)
    pretrained = backbones.architecture("test_resnet.r160_in1k")
    asked = []
    monkeypatch.setattr(backbones, "build", lambda *names: asked.append(names) or pretrained)
    model = small(IMAGE, freeze="subnets")
    model.setup("test")
    assert asked == []
    model.setup("fit")
    assert asked == [("test_resnet.r160_in1k", "")]
    for name, x in pretrained.state_dict().items():
        assert torch.equal(model.state_dict()[f"visual.encoder.network.{name}"], x)
    assert count(model, trainable=True) == count(model.fusion)
    for other in (small(FRAME), small(IMAGE, stage="audio")):
        other.setup("fit")
    assert len(asked) == 1


def test_a_trained_backbone_is_not_filled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "build", lambda *_: pytest.fail("trained weights were thrown away"))
    trained = small(IMAGE)
    with torch.no_grad():
        for parameter in trained.visual.encoder.parameters():
            parameter.fill_(7.0)
    model = small(IMAGE)
    model.load_state_dict(trained.state_dict())
    model.setup("fit")
    assert all((parameter == 7.0).all() for parameter in model.visual.encoder.parameters())


def test_a_backbone_that_no_state_dict_brought_is_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    pretrained = backbones.architecture("test_resnet.r160_in1k")
    monkeypatch.setattr(backbones, "build", lambda *_: pretrained)
    model = small(IMAGE)
    model.load_state_dict({k: x for k, x in model.state_dict().items() if ".encoder." not in k}, strict=False)
    model.setup("fit")
    for name, x in pretrained.state_dict().items():
        assert torch.equal(model.state_dict()[f"visual.encoder.network.{name}"], x)


# -- loss, mixup, optimizer --------------------------------------------------------------------------------------------


def test_the_loss_is_the_cross_entropy_of_the_posterior() -> None:
    model = small()
    posterior = torch.rand(2, 3, 4)
    posterior = posterior / posterior.sum(-1, keepdim=True)
    label = torch.tensor([3, 1])
    expected = -torch.stack([posterior[0, :, 3], posterior[1, :, 1]]).log().mean()
    torch.testing.assert_close(model.loss(posterior.log(), label), expected)
    torch.testing.assert_close(model.loss(posterior.log(), F.one_hot(label, 4).float()), expected)
    soft = torch.tensor([[0.25, 0.0, 0.0, 0.75], [0.0, 1.0, 0.0, 0.0]])
    expected = -(soft[:, None] * posterior.log()).sum(-1).mean()
    torch.testing.assert_close(model.loss(posterior.log(), soft), expected)


def test_mixup_mixes_scaled_crops_and_labels_by_one_share_a_pair() -> None:
    model = small(stage="audio", mixup=0.4)
    audio, label = sound(rows=40, segments=1), torch.arange(40) % 4
    label[20:] = (label[20:] + 1) % 4  # the halves' labels differ in each pair
    crops, target = model.mix(audio, label)
    assert crops.shape == (20, 1, 3, 2, 50)
    assert target.shape == (20, 4)
    torch.testing.assert_close(target.sum(-1), torch.ones(20))
    share = target[torch.arange(20), label[:20]]
    assert len(share.unique()) == 20
    first, second = scale_crop(audio).chunk(2)
    weight = share.view(-1, 1, 1, 1, 1)
    torch.testing.assert_close(crops, weight * first + (1 - weight) * second)
    many = model.mix(audio.repeat_interleave(50, 0), label.repeat_interleave(50))[1]
    share = many[many > 0]  # both shares of each pair; Beta(0.4, 0.4) has mean 1/2 and variance 1 / 7.2
    assert share.var().item() == pytest.approx(1 / 7.2, rel=0.1)
    with pytest.raises(AvzooError, match="two equal halves, got 3 rows"):
        model.mix(sound(), torch.tensor([0, 1, 2]))


def step(model: SECRNNFusion, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    logged: list[tuple[str, int]] = []
    monkeypatch.setattr(model, "log", lambda name, _, **options: logged.append((name, options["batch_size"])))
    loss = model.training_step(batch, 0)
    assert logged == [("train_loss", len(batch.label))]
    return loss


def test_mixup_is_for_training_alone_and_off_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Batch(sound(rows=4, segments=1), sight(rows=4, segments=1), torch.tensor([0, 1, 2, 3]), list("abcd"))
    plain, mixing = small(stage="audio"), small(stage="audio", mixup=0.4)
    mixing.load_state_dict(plain.state_dict())
    one_hot = F.one_hot(batch.label, 4).float()
    answer = plain(batch.audio, None)
    torch.testing.assert_close(step(plain, batch, monkeypatch), -(one_hot[:, None] * answer).sum(-1).mean())
    monkeypatch.setattr(torch.distributions.Beta, "sample", lambda _, shape: torch.ones(shape))  # the first half alone
    torch.testing.assert_close(
        step(mixing, batch, monkeypatch), plain.loss(plain(batch.audio[:2], None), batch.label[:2])
    )
    assert torch.equal(mixing.eval()(batch.audio, None), mixing(batch.audio, batch.visual))


class Streams(L.LightningDataModule):
    classes = FEW

    def __init__(self, streams: int) -> None:
        super().__init__()
        self.streams = streams


class OneStream(L.LightningDataModule):
    classes = FEW


@pytest.mark.parametrize("data", [Streams(1), OneStream()], ids=["one", "unsaid"])
def test_mixup_asks_for_two_streams(data: L.LightningDataModule) -> None:
    model = small(stage="audio", mixup=0.4)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    model.trainer = trainer
    trainer.datamodule = data
    with pytest.raises(AvzooError, match=r"mixup=0\.4 .* set data\.streams to 2"):
        model.setup("fit")
    model.setup("test")  # nothing is mixed
    trainer.datamodule = Streams(2)
    model.setup("fit")


def decays(model: SECRNNFusion) -> dict[str, float]:
    names = {id(p): name for name, p in model.named_parameters()}
    groups = model.configure_optimizers()["optimizer"].param_groups
    return {names[id(p)]: group["weight_decay"] for group in groups for p in group["params"]}


def test_penalties_are_of_the_papers_kernels_alone() -> None:
    model = small(IMAGE)
    found = decays(model)
    assert set(found) == {name for name, _ in model.named_parameters()}
    kernels = {
        f"visual.encoder.{name}.weight"
        for name, module in model.visual.encoder.named_modules()
        if isinstance(module, nn.Conv2d)
    }
    assert kernels
    assert {name for name, decay in found.items() if decay == 4e-4} == kernels
    assert {name for name, decay in found.items() if decay == 2e-3} == {"visual.classifier.weight"}
    assert set(found.values()) == {0.0, 4e-4, 2e-3}
    assert set(decays(small(IMAGE, freeze="subnets")).values()) == {0.0}
    assert set(decays(small(IMAGE, stage="visual", freeze="backbone")).values()) == {0.0, 2e-3}
    assert set(decays(small(IMAGE, stage="audio")).values()) == {0.0}
    assert set(decays(small(IMAGE, kernel_decay=1.0, classifier_decay=0.0)).values()) == {0.0, 2.0}


def test_the_decay_has_the_gradient_of_the_penalty() -> None:
    """Adam's first step with it is that of the loss + k sum w^2, for a k that shows."""
    visual, label = sight(rows=4), torch.tensor([0, 1, 2, 3])
    models = [small(stage="visual", classifier_decay=k, lr=0.1) for k in (0.3, 0.0)]
    for model in models:
        model.visual.dropout.p = 0.0
        optimizer = model.configure_optimizers()["optimizer"]
        assert type(optimizer) is torch.optim.Adam
        loss = model.loss(model(None, visual), label)
        if model is models[1]:
            loss = loss + 0.3 * model.visual.classifier.weight.square().sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.testing.assert_close(models[0].state_dict(), models[1].state_dict())


def test_the_rate_is_halved_on_a_plateau() -> None:
    config = small(lr=0.4, plateau_patience=3).configure_optimizers()
    assert config["lr_scheduler"]["monitor"] == "val_loss"
    optimizer, scheduler = config["optimizer"], config["lr_scheduler"]["scheduler"]
    rates = []
    for loss in (0.2, 0.1, 0.1, 0.1, 0.09995, 0.05, 0.1, 0.1):  # the fifth is lower by less than Keras's 1e-4
        scheduler.step(loss)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [0.4, 0.4, 0.4, 0.4, 0.2, 0.2, 0.2, 0.2]
    assert small().configure_optimizers()["optimizer"].param_groups[0]["lr"] == 1e-3


def test_a_plateau_is_counted_in_epochs_where_validation_is_rare() -> None:
    model = small(plateau_patience=15)
    model.trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, check_val_every_n_epoch=5)
    config = model.configure_optimizers()["lr_scheduler"]
    assert config["frequency"] == 5
    rates = []
    for _ in range(5):  # the first sets the mark, then three validations are 15 epochs
        config["scheduler"].step(1.0)
        rates.append(config["scheduler"].get_last_lr()[0])
    assert rates == [1e-3, 1e-3, 1e-3, 5e-4, 5e-4]


# -- options and learning ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stage": "both"}, "stage is 'both', expected one of"),
        ({"freeze": "all"}, "freeze is 'all', expected one of"),
        ({"preprocess": {"audio_kind": "log_mel"}}, "set preprocess.audio_kind to 'gammatone'"),
        ({"preprocess": {"visual_kind": "segment"}}, "set preprocess.visual_kind to 'frame' or 'image'"),
        ({"preprocess": {"fps": 4}}, r"50 columns of sound make 5 steps .* has 4 frames.* set preprocess.fps to 5"),
        ({"preprocess": {"frames": 100, "hop": 441}}, r"100 columns of sound make 12 steps .*fps to 12"),
        ({"stage": "audio", "freeze": "subnets"}, "leaves stage 'audio' nothing to train"),
        ({"stage": "audio", "freeze": "backbone"}, "stage 'audio' has no image encoder"),
        ({"train_blocks": -1}, "train_blocks is -1"),
        ({"train_blocks": 1}, "owns no image encoder"),
        ({"train_blocks": 1, "freeze": "backbone", "preprocess": IMAGE}, "choose one"),
        ({"mixup": -0.1}, "mixup is -0.1"),
        ({"mixup": 0.4}, "only stage 'audio' mixes"),
        ({"plateau_patience": 0}, "plateau_patience is 0"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_contradictions_are_refused(options: dict[str, Any], message: str) -> None:
    preprocess = FRAME | options.pop("preprocess", {})
    with pytest.raises(AvzooError, match=message):
        small(preprocess, **options)


def test_a_single_stage_needs_no_frames_that_pair() -> None:
    assert small(FRAME | {"fps": 1}, stage="visual").forms["visual"] == [1, FEATURES]
    assert small(FRAME | {"frames": 100, "hop": 441}, stage="audio").forms["audio"] == [3, 2, 100]


def test_hyper_parameters_are_plain_json_and_hold_every_argument() -> None:
    model = small(IMAGE, stage="visual", freeze="backbone", lr=0.5)
    stored = json.loads(json.dumps(dict(model.hparams)))
    assert stored == dict(model.hparams)
    assert set(stored) == set(inspect.signature(SECRNNFusion).parameters)
    again = SECRNNFusion(**stored)
    assert again.preprocess == model.preprocess
    assert dict(again.hparams) == dict(model.hparams)
    assert again.state_dict().keys() == model.state_dict().keys()


def two_bits(rows: int, seed: int, size: int = 16) -> list[Batch]:
    """Four scenes: the sound says which half, the pictures say which of the half's two."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for start in range(0, rows, size):
        label = torch.randint(0, 4, (size,), generator=generator)
        audio = 5 * torch.randn(size, 1, 3, 2, 50, generator=generator) - 60
        audio[:, :, :, 1] += 20.0 * (label // 2).view(-1, 1, 1, 1)
        visual = 0.5 * torch.randn(size, 1, 5, FEATURES, generator=generator)
        visual[..., 0] += 2.0 * (label % 2).view(-1, 1, 1) - 1
        batches.append(Batch(audio, visual, label, [str(i) for i in range(start, start + size)]))
    return batches


def loader(batches: list[Batch]) -> Any:
    return torch.utils.data.DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


def fit(model: SECRNNFusion, epochs: int, train: list[Batch], val: list[Batch]) -> L.Trainer:
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(model, loader(train), loader(val))
    return trainer


@quiet
def test_it_learns_stage_by_stage_and_its_checkpoint_gives_the_same_answers(tmp_path: Path) -> None:
    L.seed_everything(0, verbose=False)
    train, val = two_bits(128, seed=0), two_bits(64, seed=1)
    options: dict[str, Any] = {"image_features": FEATURES, "preprocess": FRAME, "lr": 1e-2}
    parents: dict[str, Tensor] = {}
    for stage, mixup, epochs in (("audio", 0.4, 10), ("visual", 0.0, 6)):
        single = SECRNNFusion(FEW, stage=stage, mixup=mixup, **options)
        for module in single.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.3  # 0.01 takes hundreds of steps to know the data
        alone = fit(single, epochs, train, val).callback_metrics["val_clip_accuracy"]
        assert 0.3 < alone < 0.7, stage  # one bit of two
        parents |= single.state_dict()
    model = SECRNNFusion(FEW, freeze="subnets", **options)
    assert {key.partition(".")[0] for key in model.load_state_dict(parents, strict=False).missing_keys} == {"fusion"}
    trainer = fit(model, 15, train, val)
    metrics = trainer.callback_metrics
    assert metrics["val_clip_accuracy"] > 0.95
    assert metrics["val_segment_accuracy"] == metrics["val_clip_accuracy"]
    assert metrics["val_macro_accuracy"] > 0.9
    assert metrics["val_macro_log_loss"] < 1.0
    for key, x in parents.items():
        assert torch.equal(model.state_dict()[key], x), key
    file = tmp_path / "model.ckpt"
    trainer.save_checkpoint(file)
    again = SECRNNFusion.load_from_checkpoint(file, map_location="cpu", weights_only=True).eval()
    model.eval()
    assert dict(again.hparams) == dict(model.hparams)
    assert torch.equal(again(val[0].audio, val[0].visual), model(val[0].audio, val[0].visual))


def test_the_early_fusion_learns_an_answer_of_its_own_where_asked() -> None:
    batch = Batch(sound(3, 1), sight(3, 1), torch.tensor([0, 1, 2]), list("abc"))
    losses = {}
    for weight in (0.0, 0.5):
        torch.manual_seed(1)
        model = small(early_weight=weight).eval()
        model.log = lambda *_, **__: None  # type: ignore[method-assign]
        losses[weight] = float(model.training_step(batch, 0).detach())
        own = float(model.loss(model.branches(batch.audio, batch.visual)["early"], batch.label).detach())
    assert losses[0.5] == pytest.approx(losses[0.0] + 0.5 * own, rel=1e-5)
    with pytest.raises(AvzooError, match="fuses nothing"):
        small(stage="audio", early_weight=1.0)
