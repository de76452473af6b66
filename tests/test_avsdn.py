"""AVSDN against its paper: equations recomputed by hand, parameter counts, every option, and that it learns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avzoo.errors import AvzooError, ClassMismatchError
from avzoo.models import MODELS
from avzoo.models.avsdn import AVSDN, AudioGuidedAttention, DMRNFusion
from avzoo.models.base import AVModule
from avzoo.preprocess import Batch, Preprocess

SHARED = Path(__file__).parents[2] / "shared"
NAMES = [f"event {i}" for i in range(28)] + ["background"]
FEW = ["Violin, fiddle", "Frying (food)", "background"]  # a comma inside a name, as AVE has
SMALL: dict[str, Any] = {
    "audio_dim": 5,
    "visual_dim": 7,
    "hidden_dim": 6,
    "preprocess": {"audio_backbone": "vggish", "visual_backbone": "tf_efficientnet_lite0"},
}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"bidirectional": True},
    {"share_u": False},
    {"relu_states": True},
    {"concat_global": True},
    {"bidirectional": True, "concat_global": True, "relu_states": True, "share_u": False},
    {"attention": True},
    {"decoder_init": "visual"},
    {"decoder_init": "audio", "bidirectional": True},
    {"decoder_init": "label_guided"},
    {"decoder_init": "label_guided", "bidirectional": True, "weak": True},
    {"weak": True},
    {"weak": True, "weak_target": "mil"},
    {"loss": "mlsm_on_softmax"},
    {"loss": "ce", "weak": True},
]


def small(classes: Sequence[str] = FEW, seed: int = 0, **options: Any) -> AVSDN:
    """A narrow network with weights large enough that nothing is close to linear."""
    torch.manual_seed(seed)
    model = AVSDN(classes, **(SMALL | options))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5)
    return model.eval()


def features(batch: int = 3, time: int = 4, seed: int = 1, attention: bool = False) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, time, 49, 7) if attention else (batch, time, 7)
    return torch.randn(batch, time, 5, generator=generator), torch.randn(shape, generator=generator)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


# -- the equations, by hand ------------------------------------------------------------------------------------------


def lstm_by_hand(lstm: nn.LSTM, inputs: Tensor, h0: Tensor | None, c0: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Eq. 1 step by step: outputs `[batch, time, directions * hidden]`, last h and c `[directions, batch, hidden]`."""
    outputs, last_h, last_c = [], [], []
    for direction, suffix in enumerate(("_l0", "_l0_reverse") if lstm.bidirectional else ("_l0",)):
        w_i, w_h = getattr(lstm, f"weight_ih{suffix}"), getattr(lstm, f"weight_hh{suffix}")
        bias = getattr(lstm, f"bias_ih{suffix}") + getattr(lstm, f"bias_hh{suffix}")
        zeros = inputs.new_zeros(len(inputs), lstm.hidden_size)
        h = zeros if h0 is None else h0[direction]
        c = zeros if c0 is None else c0[direction]
        steps: dict[int, Tensor] = {}
        order = range(inputs.shape[1])
        for t in reversed(order) if direction else order:
            i, f, g, o = (inputs[:, t] @ w_i.T + h @ w_h.T + bias).chunk(4, dim=-1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            steps[t] = h
        outputs.append(torch.stack([steps[t] for t in order], dim=1))
        last_h.append(h)
        last_c.append(c)
    return torch.cat(outputs, dim=-1), torch.stack(last_h), torch.stack(last_c)


def fuse_by_hand(block: DMRNFusion, a: Tensor, v: Tensor) -> Tensor:
    def mlp(layers: nn.Sequential, x: Tensor) -> Tensor:
        first, last = layers[0], layers[2]
        return torch.tanh(x @ first.weight.T + first.bias) @ last.weight.T + last.bias

    m = 0.5 * (mlp(block.u_audio, a) + mlp(block.u_visual, v))
    return 0.5 * (torch.tanh(a + m) + torch.tanh(v + m))


def network_by_hand(model: AVSDN, audio: Tensor, visual: Tensor) -> Tensor:
    options = model.hparams
    states = []
    for name, sequence in (("audio", audio), ("visual", visual)):
        if hasattr(model, f"{name}_encoder"):
            states.append(lstm_by_hand(getattr(model, f"{name}_encoder").lstm, sequence, None, None)[1:])
    if options["relu_states"]:
        states = [(h.clamp(min=0), c.clamp(min=0)) for h, c in states]
    if options["decoder_init"] == "fusion":
        (h_a, c_a), (h_v, c_v) = states
        h, c = fuse_by_hand(model.fuse_hidden, h_a, h_v), fuse_by_hand(model.fuse_cell or model.fuse_hidden, c_a, c_v)
    else:
        h = sum(state[0] for state in states) / len(states)
        c = sum(state[1] for state in states) / len(states)
    inputs = torch.cat([audio, visual], -1)
    if options["concat_global"]:
        repeated = torch.cat(list(h), -1)[:, None].repeat(1, inputs.shape[1], 1)
        inputs = torch.cat([inputs, repeated], -1)
    decoded = lstm_by_hand(model.decoder, inputs, h, c)[0]
    if options["relu_states"]:
        decoded = decoded.clamp(min=0)
    return decoded @ model.classifier.weight.T + model.classifier.bias


@pytest.mark.parametrize("options", [o for o in OPTIONS if not o.keys() & {"attention", "loss"}], ids=str)
def test_the_network_equals_its_equations(options: dict[str, Any]) -> None:
    model = small(**options)
    audio, visual = features()
    logits = model(audio, visual)
    assert logits.shape == (3, 4, len(FEW))
    torch.testing.assert_close(logits, network_by_hand(model, audio, visual), atol=1e-5, rtol=1e-5)


def test_every_network_option_changes_the_output() -> None:
    """On equal weights where the shapes allow it: the recomputation above would not notice an option nobody reads."""
    audio, visual = features()
    plain = small()
    relu = small(relu_states=True)
    relu.load_state_dict(plain.state_dict())
    assert not torch.allclose(plain(audio, visual), relu(audio, visual))
    own = small(share_u=False)
    shared = {key.replace("fuse_hidden", "fuse_cell"): value for key, value in plain.state_dict().items()}
    own.load_state_dict({**plain.state_dict(), **shared})
    torch.testing.assert_close(own(audio, visual), plain(audio, visual))
    with torch.no_grad():
        own.fuse_cell.u_audio[0].bias.add_(1.0)  # only c is fused by it
    (h, c), _ = own.initial_state(audio, visual)
    (h_plain, c_plain), _ = plain.initial_state(audio, visual)
    torch.testing.assert_close(h, h_plain)
    assert not torch.allclose(c, c_plain)


@pytest.mark.parametrize("modality", ["audio", "visual"])
def test_an_ablation_hears_or_sees_alone(modality: str) -> None:
    audio, visual = features()
    model = small(modality=modality)
    unheard, unseen = model(audio + 1, visual), model(audio, visual + 1)
    kept, ignored = (unheard, unseen) if modality == "audio" else (unseen, unheard)
    torch.testing.assert_close(ignored, model(audio, visual))
    assert not torch.allclose(kept, model(audio, visual))


# -- shapes and sizes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 2_497_693),
        ({"visual_dim": 512}, 924_829),
        ({"bidirectional": True}, 4_929_309),
        ({"bidirectional": True, "visual_dim": 512}, 1_783_581),
        ({"hidden_dim": 64}, 1_183_325),
        ({"hidden_dim": 256}, 5_519_645),
        ({"hidden_dim": 512}, 13_136_413),
        ({"concat_global": True}, 2_497_693 + 65_536),
        ({"share_u": False}, 2_497_693 + 66_048),
        ({"decoder_init": "visual"}, 1_115_136 + 1_180_672 + 3_741),
        ({"decoder_init": "audio"}, 132_096 + 1_180_672 + 3_741),
        ({"decoder_init": "label_guided"}, 2_497_693 - 66_048 + 256 * 29 + 29),
        ({"relu_states": True, "weak": True, "loss": "ce", "feature_dropout": 0.5}, 2_497_693),
    ],
    ids=str,
)
def test_parameter_counts(options: dict[str, Any], count: int) -> None:
    with torch.device("meta"):  # counted, not initialised
        assert parameters(AVSDN(NAMES, **options)) == count


def test_parameters_by_part() -> None:
    model = AVSDN(NAMES)
    parts = {
        "audio_encoder": 132_096,
        "visual_encoder": 1_115_136,
        "fuse_hidden": 66_048,
        "decoder": 1_180_672,
        "classifier": 3_741,
    }
    assert {name: parameters(getattr(model, name)) for name in parts} == parts
    assert model.fuse_cell is None
    assert not [key for key in model.state_dict() if key.startswith("fuse_cell")]


@pytest.mark.parametrize("time", [1, 7, 10])
def test_shapes_of_the_papers_network(time: int) -> None:
    model = AVSDN(NAMES).eval()
    audio, visual = torch.rand(2, time, 128), torch.rand(2, time, 2048)
    (h, c), guide = model.initial_state(audio, visual)
    assert h.shape == c.shape == (1, 2, 128)
    assert guide is None
    assert h.abs().max() < 1
    assert c.abs().max() < 1
    logits = model(audio, visual)
    assert logits.shape == (2, time, 29)
    posterior = logits.softmax(-1)
    assert posterior.isfinite().all()
    assert (posterior >= 0).all()
    torch.testing.assert_close(posterior.sum(-1), torch.ones(2, time))


# -- fusion ----------------------------------------------------------------------------------------------------------


def test_fusion_is_symmetric_and_reduces_to_the_mean_of_tanh() -> None:
    torch.manual_seed(0)
    block, swapped = DMRNFusion(6), DMRNFusion(6)
    swapped.u_audio.load_state_dict(block.u_visual.state_dict())
    swapped.u_visual.load_state_dict(block.u_audio.state_dict())
    a, v = 3 * torch.randn(2, 4, 6), 3 * torch.randn(2, 4, 6)
    torch.testing.assert_close(block(a, v), swapped(v, a))
    torch.testing.assert_close(block(a, v), fuse_by_hand(block, a, v))
    assert not torch.allclose(block(a, v), block(v, a))
    assert block(a, v).abs().max() < 1
    nn.init.zeros_(block.u_audio[2].weight)
    nn.init.zeros_(block.u_audio[2].bias)
    nn.init.zeros_(block.u_visual[2].weight)
    nn.init.zeros_(block.u_visual[2].bias)
    torch.testing.assert_close(block(a, v), (a.tanh() + v.tanh()) / 2)


def test_one_number_fused_by_hand() -> None:
    """a = 1, v = -0.5, U_a(x) = 2 tanh(x) + 0.1, U_v(x) = tanh(3 x)."""
    block = DMRNFusion(1)
    values = {"u_audio.0": (1, 0), "u_audio.2": (2, 0.1), "u_visual.0": (3, 0), "u_visual.2": (1, 0)}
    for name, (weight, bias) in values.items():
        layer = block.get_submodule(name)
        nn.init.constant_(layer.weight, weight)
        nn.init.constant_(layer.bias, bias)
    # m = (2 tanh 1 + 0.1 + tanh(-1.5)) / 2 = (1.5231883 + 0.1 - 0.9051483) / 2 = 0.3590200
    # f = (tanh 1.3590200 + tanh(-0.1409800)) / 2 = (0.8761788 - 0.1400535) / 2
    fused = block(torch.tensor([[1.0]]), torch.tensor([[-0.5]]))
    torch.testing.assert_close(fused, torch.tensor([[0.3680627]]), atol=1e-5, rtol=0)


def test_the_decoder_starts_from_the_fused_state(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small()
    audio, visual = features()
    normal = model(audio, visual)
    state, _ = model.initial_state(audio, visual)
    order = torch.tensor([2, 0, 3, 1])
    other, _ = model.initial_state(audio[:, order], visual[:, order])
    inputs = torch.cat([audio, visual], -1)

    def start(h: Tensor, c: Tensor) -> Tensor:
        monkeypatch.setattr(model, "initial_state", lambda *_: ((h, c), None))
        logits: Tensor = model(audio, visual)
        return logits

    torch.testing.assert_close(start(*state), normal)
    plain = model.classifier(model.decoder(inputs)[0])
    torch.testing.assert_close(start(torch.zeros(1, 3, 6), torch.zeros(1, 3, 6)), plain)
    assert not torch.allclose(normal, plain)
    assert not torch.allclose(start(torch.zeros(1, 3, 6), state[1]), normal)
    assert not torch.allclose(start(state[0], torch.zeros(1, 3, 6)), normal)
    permuted = model.classifier(model.decoder(inputs, other)[0])
    torch.testing.assert_close(start(*other), permuted)
    assert not torch.allclose(permuted, normal)


@pytest.mark.parametrize("options", [o for o in OPTIONS if not o.keys() & {"loss", "weak"}], ids=str)
def test_padding_does_not_leak(options: dict[str, Any]) -> None:
    model = small(**options)
    audio, visual = features(time=6, attention=options.get("attention", False))
    lengths = torch.tensor([6, 3, 1])
    for row, length in enumerate(lengths.tolist()):
        audio[row, length:], visual[row, length:] = 1e3, -1e3
    (h, c), _ = model.initial_state(audio, _pooled(model, audio, visual), lengths)
    logits = model(audio, visual, lengths)
    assert logits.shape == (3, 6, len(FEW))
    for row, length in enumerate(lengths.tolist()):
        short_audio, short_visual = audio[row : row + 1, :length], visual[row : row + 1, :length]
        (h_short, c_short), _ = model.initial_state(short_audio, _pooled(model, short_audio, short_visual))
        torch.testing.assert_close(h[:, row], h_short[:, 0])
        torch.testing.assert_close(c[:, row], c_short[:, 0])
        torch.testing.assert_close(logits[row, :length], model(short_audio, short_visual)[0])


def _pooled(model: AVSDN, audio: Tensor, visual: Tensor) -> Tensor:
    return model.attention(audio, visual) if model.hparams["attention"] else visual


def test_lengths_of_a_full_batch_change_nothing() -> None:
    model = small()
    audio, visual = features()
    torch.testing.assert_close(model(audio, visual, torch.tensor([4, 4, 4])), model(audio, visual))


# -- attention -------------------------------------------------------------------------------------------------------


def test_attention_weights_sum_to_one_and_follow_the_sound() -> None:
    torch.manual_seed(0)
    attention = AudioGuidedAttention(5, 7)
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.normal_(0, 0.5)
    audio, maps = features(attention=True)
    pooled = attention(audio, maps)
    assert pooled.shape == (3, 4, 7)
    # weights that sum to 1 leave a map that is the same everywhere as it is, and lie within the maps' range
    flat = torch.randn(3, 4, 1, 7).expand(-1, -1, 49, -1)
    torch.testing.assert_close(attention(audio, flat), flat[:, :, 0])
    assert (pooled <= maps.amax(2)).all()
    assert (pooled >= maps.amin(2)).all()
    assert not torch.allclose(pooled, maps.mean(2))
    assert not torch.allclose(attention(-audio, maps), pooled)
    # seven regions show each unit vector: what comes out is the weights themselves
    one_hot = torch.eye(7).repeat(7, 1)[:49].expand(1, 1, 49, 7)
    weights = attention(audio[:1, :1], one_hot)
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(), torch.tensor(1.0))


def test_attention_by_hand() -> None:
    """softmax over regions of w_f tanh(W_v relu(U_v v_k) + (W_a relu(U_a a))_k), region by region."""
    torch.manual_seed(0)
    attention = AudioGuidedAttention(5, 7)
    audio, maps = features(batch=1, time=1, attention=True)
    heard = attention.from_audio.weight @ torch.relu(attention.audio[0](audio[0, 0]))  # [49]
    by_region = torch.stack(  # as in AVE's code: the sound's k-th number is added to all of region k's
        [
            attention.score.weight[0]
            @ torch.tanh(attention.from_visual.weight @ torch.relu(attention.visual[0](region)) + heard[k])
            for k, region in enumerate(maps[0, 0])
        ]
    )
    expected = (by_region.softmax(0)[:, None] * maps[0, 0]).sum(0)
    torch.testing.assert_close(attention(audio, maps)[0, 0], expected)


def test_the_network_with_attention_decodes_the_pooled_maps() -> None:
    model = small(attention=True)
    audio, maps = features(attention=True)
    expected = network_by_hand(model, audio, model.attention(audio, maps))
    torch.testing.assert_close(model(audio, maps), expected, atol=1e-5, rtol=1e-5)


# -- losses and targets ----------------------------------------------------------------------------------------------


def logits_and_labels() -> tuple[Tensor, Tensor]:
    logits = 3 * torch.randn(2, 10, 3, generator=torch.Generator().manual_seed(0))
    return logits, torch.tensor([[0] * 8 + [2] * 2, [2, 1, 1, 2, 2, 2, 2, 2, 2, 2]])


def test_bce_is_binary_cross_entropy_of_the_softmax() -> None:
    logits, label = logits_and_labels()
    p = logits.exp() / logits.exp().sum(-1, keepdim=True)
    y = torch.eye(3)[label]
    expected = -(y * p.log() + (1 - y) * (1 - p).log()).mean()
    torch.testing.assert_close(small().loss(logits, label), expected)
    # one segment of two equal scores: -(log 0.5 + log 0.5) / 2
    model = small(["x", "background"])
    loss = model.loss(torch.zeros(1, 1, 2), torch.zeros(1, 1, dtype=torch.int64))
    torch.testing.assert_close(loss, torch.tensor(0.693147), atol=1e-5, rtol=0)


def test_mlsm_feeds_the_softmax_into_a_second_sigmoid() -> None:
    logits, label = logits_and_labels()
    p, y = logits.softmax(-1).flatten(0, 1), torch.eye(3)[label].flatten(0, 1)
    loss = small(loss="mlsm_on_softmax").loss(logits, label)
    torch.testing.assert_close(loss, nn.MultiLabelSoftMarginLoss()(p, y))
    s = 1 / (1 + (-p).exp())
    torch.testing.assert_close(loss, -(y * s.log() + (1 - y) * (1 - s).log()).mean())


def test_ce_is_the_plain_cross_entropy() -> None:
    logits, label = logits_and_labels()
    loss = small(loss="ce").loss(logits, label)
    torch.testing.assert_close(loss, nn.CrossEntropyLoss()(logits.flatten(0, 1), label.flatten()))


@pytest.mark.parametrize("loss", ["bce", "mlsm_on_softmax", "ce"])
def test_the_weak_loss_pools_logits_before_the_softmax(loss: str) -> None:
    logits, label = logits_and_labels()
    target = torch.tensor([[0.8, 0.0, 0.2], [0.0, 0.2, 0.8]])
    p = logits.mean(1).softmax(-1)
    expected = {
        "bce": -(target * p.log() + (1 - target) * (1 - p).log()).mean(),
        "mlsm_on_softmax": nn.MultiLabelSoftMarginLoss()(p, target),
        "ce": -(target * p.log()).sum(-1).mean(),
    }[loss]
    model = small(loss=loss, weak=True)
    torch.testing.assert_close(model.loss(logits, label), expected)
    assert not torch.allclose(model.loss(logits, label), small(loss=loss).loss(logits, label))


def test_weak_targets() -> None:
    model = AVSDN(NAMES, weak=True)
    label = torch.full((4, 10), 28)
    label[0, :8] = 5  # Start 0, End 8
    label[1, :] = 3
    label[2, 4] = 27
    target = model.video_target(label)  # the last row is background throughout
    assert target.shape == (4, 29)
    torch.testing.assert_close(target.sum(-1), torch.ones(4))
    torch.testing.assert_close(target[0, [5, 28]], torch.tensor([0.8, 0.2]))
    assert target[1, 28] == 0
    assert target[1, 3] == 1
    torch.testing.assert_close(target[2, [27, 28]], torch.tensor([0.1, 0.9]))
    assert target[3, 28] == 1
    mil = AVSDN(NAMES, weak=True, weak_target="mil").video_target(label)
    assert mil.tolist() == F.one_hot(torch.tensor([5, 3, 27, 28]), 29).tolist()


def test_a_weak_model_is_read_by_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small(weak=True)
    monkeypatch.setattr(model, "log", lambda *_, **__: None)
    audio, visual = features()
    answers = model(audio, visual).argmax(-1)
    label = answers.clone()
    label[0, 0] = (label[0, 0] + 1) % 3
    model.validation_step(Batch(audio, visual, label, ["a", "b", "c"]), 0)
    assert model.metrics["segment_accuracy"].compute() == pytest.approx(11 / 12)


def test_losses_stay_finite_where_the_softmax_saturates() -> None:
    logits = torch.tensor([[[200.0, -200.0, 0.0]]], requires_grad=True)
    for loss in ("bce", "mlsm_on_softmax", "ce"):
        for dtype in (torch.float32, torch.bfloat16):
            value = small(loss=loss).loss(logits.to(dtype), torch.tensor([[1]]))
            assert value.dtype == torch.float32
            assert value.isfinite()


def step(model: AVSDN, monkeypatch: pytest.MonkeyPatch, batch: Batch) -> Tensor:
    logged: list[str] = []
    monkeypatch.setattr(model, "log", lambda name, *_, **__: logged.append(name))
    loss = model.training_step(batch, 0)
    assert logged == ["train_loss"]
    return loss


def batch_for(options: dict[str, Any]) -> Batch:
    audio, visual = features(time=10, attention=options.get("attention", False))
    label = torch.full((3, 10), 2)
    label[0, 2:6], label[1] = 0, 1
    return Batch(audio, visual, label, ["a", "b", "c"])


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_parameter_gets_a_gradient(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Distributed training stops at a parameter that a step does not reach."""
    model = small(**options).train()
    step(model, monkeypatch, batch_for(options)).backward()
    starved = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not starved


@pytest.mark.parametrize("weak", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_label_guided_states_have_a_loss_of_their_own(
    weak: bool, bidirectional: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small(decoder_init="label_guided", weak=weak, bidirectional=bidirectional)
    batch = batch_for({})
    h_a = lstm_by_hand(model.audio_encoder.lstm, batch.audio, None, None)[1]
    h_v = lstm_by_hand(model.visual_encoder.lstm, batch.visual, None, None)[1]
    states = torch.cat([part[d] for d in range(len(h_a)) for part in (h_a, h_v)], -1)  # per direction: sound, picture
    p = model.guide(states).softmax(-1)
    target = model.video_target(batch.label)
    guided = -(target * p.log() + (1 - target) * (1 - p).log()).mean()
    expected = model.loss(model(batch.audio, batch.visual), batch.label) + guided
    torch.testing.assert_close(step(model, monkeypatch, batch), expected)


@pytest.mark.parametrize(
    ("start", "absent"),
    [
        ("fusion", {"guide", "attention"}),
        ("visual", {"audio_encoder", "fuse_hidden", "fuse_cell", "guide"}),
        ("audio", {"visual_encoder", "fuse_hidden", "fuse_cell", "guide"}),
        ("label_guided", {"fuse_hidden", "fuse_cell"}),
    ],
)
def test_decoder_init_builds_only_what_it_uses(start: str, absent: set[str]) -> None:
    parts = {name for name, _ in small(decoder_init=start).named_children()}
    assert not parts & absent
    assert {"decoder", "classifier"} <= parts


def test_a_single_modality_only_starts_the_decoder() -> None:
    audio, visual = features()
    heard, seen = small(decoder_init="audio"), small(decoder_init="visual")
    torch.testing.assert_close(heard.initial_state(audio, visual)[0], heard.initial_state(audio, -visual)[0])
    torch.testing.assert_close(seen.initial_state(audio, visual)[0], seen.initial_state(-audio, visual)[0])
    assert not torch.allclose(heard(audio, visual), heard(audio, -visual))  # the decoder still sees both
    assert not torch.allclose(seen(audio, visual), seen(-audio, visual))


# -- regularisation, optimiser ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", [False, True])
def test_feature_dropout_zeroes_inputs_while_training_only(attention: bool) -> None:
    torch.manual_seed(0)
    model = small(feature_dropout=0.25, attention=attention)
    seen: list[Tensor] = []
    model.decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    audio = torch.ones(50, 10, 5)
    visual = torch.ones(50, 10, 49, 7) if attention else torch.ones(50, 10, 7)
    with torch.no_grad():
        torch.testing.assert_close(model(audio, visual), model(audio, visual), atol=0, rtol=0)
        torch.testing.assert_close(seen[0], torch.ones(50, 10, 12))
        model.train()
        first, second = model(audio, visual), model(audio, visual)
    assert not torch.equal(first, second)
    dropped = seen[-1][..., :5] if attention else seen[-1]
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert (dropped == 0).float().mean() == pytest.approx(0.25, abs=0.03)
    still = small().train()
    torch.testing.assert_close(still(*features()), still(*features()), atol=0, rtol=0)


def test_optimizer_and_schedule() -> None:
    configured = small(lr=0.02, lr_step=2, weight_decay=0.1).configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]
    assert isinstance(optimizer, torch.optim.AdamW)  # without weight decay, Adam
    assert optimizer.param_groups[0]["weight_decay"] == 0.1
    assert schedule["interval"] == "step"
    rates = []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule["scheduler"].step()
    assert rates == pytest.approx([0.02, 0.02, 0.002, 0.002, 0.0002])
    default = AVSDN(NAMES).configure_optimizers()
    assert default["optimizer"].param_groups[0]["lr"] == 1e-3
    assert default["optimizer"].param_groups[0]["weight_decay"] == 0
    assert default["lr_scheduler"]["scheduler"].step_size == 15_000
    assert len({id(p) for p in default["optimizer"].param_groups[0]["params"]}) == len(list(AVSDN(NAMES).parameters()))


# -- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"decoder_init": "both"}, r"decoder_init.*'both'.*label_guided"),
        ({"loss": "mse"}, r"loss.*'mse'.*mlsm_on_softmax"),
        ({"weak_target": "max"}, r"weak_target.*'max'.*average"),
        ({"preprocess": {"second": 10}}, r"'second'.*did you mean 'seconds'"),
    ],
)
def test_bad_options_name_the_right_ones(options: dict[str, Any], words: str) -> None:
    with pytest.raises(AvzooError, match=words):
        AVSDN(FEW, **options)


@pytest.mark.parametrize("classes", [[], ["background"], ["a", "a", "background"]])
def test_bad_classes(classes: list[str]) -> None:
    with pytest.raises(AvzooError, match="two or more distinct"):
        AVSDN(classes)


@pytest.mark.parametrize(
    ("attention", "audio", "visual"),
    [
        (False, (2, 4, 6), (2, 4, 7)),
        (False, (2, 4, 5), (2, 4, 8)),
        (False, (2, 3, 5), (2, 4, 7)),
        (False, (3, 4, 5), (2, 4, 7)),
        (False, (4, 5), (4, 7)),
        (False, (2, 4, 5), (2, 4, 49, 7)),  # maps without attention
        (True, (2, 4, 5), (2, 4, 7)),  # attention without maps
        (True, (2, 4, 5), (2, 4, 36, 7)),
    ],
)
def test_features_of_another_shape_are_refused(
    attention: bool, audio: tuple[int, ...], visual: tuple[int, ...]
) -> None:
    model = small(attention=attention)
    with pytest.raises(AvzooError, match=r"expected \[batch, time, 5\] and \[batch, time, (49, )?7\]"):
        model(torch.zeros(audio), torch.zeros(visual))


# -- classes ---------------------------------------------------------------------------------------------------------


def test_the_first_difference_of_two_label_orders_is_named() -> None:
    model = small(["a", "b", "c", "background"])
    model.check_classes(["a", "b", "c", "background"])
    with pytest.raises(ClassMismatchError, match="class 1 is 'c' in the data and 'b' in the model"):
        model.check_classes(["a", "c", "b", "background"])
    with pytest.raises(ClassMismatchError, match="3 classes, the model 4"):
        model.check_classes(["a", "b", "c"])
    with pytest.raises(ClassMismatchError, match="5 classes, the model 4"):
        model.check_classes(["a", "b", "c", "background", "d"])


class Labelled(L.LightningDataModule):
    classes = FEW

    def __init__(self, **facts: str) -> None:
        super().__init__()
        vars(self).update(facts)


def test_data_of_the_other_task_are_refused_before_they_reach_the_loss() -> None:
    model = small()
    model.trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    model.trainer.datamodule = Labelled(task="scenes")
    with pytest.raises(AvzooError, match="AVSDN is a model of events, Labelled is data of scenes: choose a model of"):
        model.setup("fit")
    for data in (Labelled(task="events"), Labelled()):  # somebody else's data need not say
        model.trainer.datamodule = data
        model.setup("fit")


def test_classes_round_trip_by_name() -> None:
    model = AVSDN(tuple(FEW), **SMALL)
    again = AVSDN(**json.loads(json.dumps(dict(model.hparams))))
    assert again.classes == list(FEW)
    index = {name: i for i, name in enumerate(again.classes)}
    assert [again.classes[index[name]] for name in FEW] == list(FEW)
    assert MODELS[type(again).__name__] is AVSDN
    assert AVSDN.task == "segment"


# -- checkpoints and training ----------------------------------------------------------------------------------------

# What Lightning says of small data, and what torch 2.14 says of Lightning 2.6.
quiet = pytest.mark.filterwarnings("ignore:.*(does not have many workers|no `val_dataloader`|treespec, LeafSpec)")


def separable(clips: int, seed: int) -> list[Batch]:
    """An event is where sound and picture show the same class; both wander on their own elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    prototypes = torch.eye(4)
    heard = torch.randint(3, (clips, 1), generator=generator)
    start = torch.randint(0, 6, (clips, 1), generator=generator)
    time = torch.arange(10)[None]
    inside = (time >= start) & (time < start + 4)
    audio_class = torch.where(inside | (time % 3 == 0), heard, torch.full_like(heard, 3))
    visual_class = torch.where(inside | (time % 3 == 1), heard, torch.full_like(heard, 3))
    label = torch.where((audio_class == visual_class) & (audio_class < 3), heard, torch.full_like(heard, 3))
    noise = 0.1 * torch.randn(2, clips, 10, 4, generator=generator)
    audio, visual = prototypes[audio_class] + noise[0], prototypes[visual_class] + noise[1]
    return [
        Batch(audio[i : i + 16], visual[i : i + 16], label[i : i + 16], [str(k) for k in range(i, i + 16)])
        for i in range(0, clips, 16)
    ]


def fit(model: AVModule, epochs: int, **data: Any) -> L.Trainer:
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(model, **data)
    return trainer


def learner(**options: Any) -> AVSDN:
    L.seed_everything(0, verbose=False)
    numbers = SMALL | {"audio_dim": 4, "visual_dim": 4, "hidden_dim": 24, "lr": 0.02} | options
    return AVSDN(["a", "b", "c", "background"], **numbers)


def loader(batches: list[Batch]) -> Any:
    return torch.utils.data.DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


@quiet
def test_it_learns_and_its_checkpoint_gives_the_same_answers(tmp_path: Path) -> None:
    model = learner()
    val = separable(64, seed=1)
    trainer = fit(model, 10, train_dataloaders=loader(separable(160, seed=0)), val_dataloaders=loader(val))
    assert trainer.callback_metrics["val_segment_accuracy"] > 0.97
    assert {"train_loss", "val_loss", "val_segment_accuracy"} <= set(trainer.callback_metrics)
    file = tmp_path / "model.ckpt"
    trainer.save_checkpoint(file)
    stored = torch.load(file, weights_only=True)
    assert stored["avzoo_model"] == "AVSDN"
    assert json.loads(json.dumps(stored["hyper_parameters"])) == stored["hyper_parameters"]
    again = AVSDN.load_from_checkpoint(file, map_location="cpu", weights_only=True)
    assert again.classes == model.classes
    assert again.preprocess == model.preprocess
    assert dict(again.hparams) == dict(model.hparams)
    batch = val[0]
    model.eval()
    again.eval()
    torch.testing.assert_close(again(batch.audio, batch.visual), model(batch.audio, batch.visual), atol=0, rtol=0)


@quiet
def test_the_weak_model_learns_which_event_it_is() -> None:
    model = learner(weak=True, weak_target="mil", loss="ce")
    fit(model, 4, train_dataloaders=loader(separable(160, seed=0)))
    model.eval()
    right = [
        model(b.audio, b.visual).mean(1).argmax(-1) == model.video_target(b.label).argmax(-1)
        for b in separable(64, seed=1)
    ]
    assert torch.cat(right).float().mean() > 0.95


@quiet
def test_data_with_another_label_order_is_refused_before_training() -> None:
    class Shuffled(L.LightningDataModule):
        classes = ("b", "a", "c", "background")

        def train_dataloader(self) -> Any:
            return loader(separable(16, seed=0))

    with pytest.raises(ClassMismatchError, match="class 0 is 'b' in the data and 'a' in the model"):
        fit(learner(), 1, datamodule=Shuffled())


def test_hyper_parameters_are_plain_json_and_hold_every_argument() -> None:
    numbers = Preprocess(audio_backbone="vggish", visual_backbone="tf_efficientnet_lite0", fps=2.0)
    model = AVSDN(FEW, audio_dim=5, visual_dim=7, hidden_dim=6, weak=True, preprocess=numbers)
    stored = json.loads(json.dumps(dict(model.hparams)))
    assert stored == dict(model.hparams)
    assert stored["preprocess"] == numbers.to_dict()
    assert AVSDN(**stored).preprocess == numbers
    import inspect

    assert set(stored) == set(inspect.signature(AVSDN).parameters)


def test_the_backbones_are_neither_trained_nor_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """`logits(clip)` is the one path from media to scores."""
    from avzoo import backbones
    from avzoo.clip import Clip
    from avzoo.preprocess import Preprocessor

    class Fake(nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()
            self.layer = nn.Linear(3, dim)

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :1].expand(-1, self.layer.out_features)

    monkeypatch.setattr(backbones, "build", lambda name, *_: Fake(5 if name == "vggish" else 7).eval())
    model = small()
    before = set(model.state_dict())
    clip = Clip(
        frames=torch.zeros(10, 3, 224, 224, dtype=torch.uint8),
        frame_times=torch.arange(10, dtype=torch.float64) + 0.5,
        waveform=torch.zeros(2, 160_000),
        sample_rate=16_000,
        id="x",
    )
    logits = model.logits(clip)
    assert logits.shape == (10, len(FEW))
    assert not logits.requires_grad
    sample = Preprocessor(model.preprocess)(clip)
    torch.testing.assert_close(logits, model(sample.audio[None], sample.visual[None])[0])
    assert set(model.state_dict()) == before


# -- the annotations of AVE ------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (SHARED / "data" / "ave").is_dir(), reason="AVE's annotation file is not at hand")
def test_labels_rebuilt_from_the_annotations_of_ave() -> None:
    import h5py

    from avzoo.data.base import Item
    from avzoo.data.events import segment_labels

    folder = SHARED / "data" / "ave"
    rows = [line.split("&") for line in (folder / "Annotations.txt").read_text(encoding="utf-8").splitlines()]
    names = list(dict.fromkeys(row[0] for row in rows))
    assert len(rows) == 4143
    assert (names[0], names[1], names[27]) == ("Church bell", "Male speech, man speaking", "Mandolin")
    numbers = Preprocess(audio_backbone="vggish", visual_backbone="tf_efficientnet_lite0")
    labels = torch.stack(
        [
            segment_labels(Item(id_, id_, Path(f"{id_}.mp4"), name, float(start), float(end)), [*names, "bg"], numbers)
            for name, id_, _, start, end in rows
        ]
    )
    assert labels.shape == (4143, 10)
    assert int((labels == 28).sum()) == 7078
    assert int((labels != 28).sum()) == 34352
    assert (labels[26] == 28).all()
    assert rows[26][1] == "VWi2ENBuTbw"
    order = {}
    for split in ("train", "val", "test"):
        with h5py.File(folder / f"{split}_order.h5") as file:
            order[split] = file["order"][:].tolist()
    assert [len(order[split]) for split in ("train", "val", "test")] == [3339, 402, 402]
    assert sorted(row for rows_of in order.values() for row in rows_of) == list(range(4143))
    test = labels[order["test"]]
    background = test == 28
    assert int(background.sum()) == 715
    always, located_everywhere = torch.full_like(test, 28), test.clone()
    category = torch.tensor([names.index(rows[row][0]) for row in order["test"]])
    located_everywhere = category[:, None].expand(-1, 10)
    from avzoo.metrics import segment_accuracy

    assert segment_accuracy(F.one_hot(always, 29), test).item() == pytest.approx(0.17786, abs=1e-5)
    assert segment_accuracy(F.one_hot(located_everywhere, 29), test).item() == pytest.approx(0.82214, abs=1e-5)
    targets = AVSDN(NAMES, weak=True).video_target(labels)
    torch.testing.assert_close(targets.sum(-1), torch.ones(4143))
    assert int((targets[:, 28] == 0).sum()) == 2750


def test_segment_accuracy_counts_every_segment_once() -> None:
    """Unequal batches: the mean over segments, not over batches, background included."""
    from avzoo.metrics import SegmentAccuracy, segment_accuracy

    metric = SegmentAccuracy()
    right = F.one_hot(torch.tensor([[2, 0, 1, 2]]), 3).float()
    metric.update(right, torch.tensor([[2, 0, 1, 2]]))
    metric.update(right[:, :1].repeat(2, 1, 1), torch.tensor([[0], [1]]))
    assert metric.compute().item() == pytest.approx(4 / 6)
    assert segment_accuracy(right, torch.tensor([[2, 1, 1, 0]])).item() == 0.5


def test_smoothing_moves_the_training_target_and_not_the_evaluation() -> None:
    logits, label = torch.randn(2, 3, 3), torch.tensor([[0, 1, 2], [2, 2, 1]])
    model = small(label_smoothing=0.3, loss="ce")
    target = torch.nn.functional.one_hot(label, 3) * 0.7 + 0.1
    expected = -(target * logits.log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(model.train().loss(logits, label), expected)
    plain = torch.nn.functional.cross_entropy(logits.flatten(0, 1), label.flatten())
    torch.testing.assert_close(model.eval().loss(logits, label), plain)
