"""`init_from`: what is taken from a parent, what stays fresh, what is refused, and which names are found."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from avzoo import bundle, cli, registry
from avzoo.errors import AvzooError, BundleError, DataNotFoundError, UnknownModelError
from avzoo.init_from import find_parent, take_over
from avzoo.models import AVSDN, AVModule, SECRNNFusion, SegmentMLP

CLASSES = ["bus", "tram", "background"]
LIGHT: dict[str, Any] = {"audio_backbone": "vggish", "visual_backbone": "tf_efficientnet_lite0"}
SOUND: dict[str, Any] = {
    "audio_kind": "gammatone", "fps": 5, "visual_kind": "frame", "visual_backbone": "tf_efficientnet_lite0",
}  # fmt: skip


def mlp(seed: int, classes: list[str] = CLASSES, *, preprocess: dict[str, Any] = LIGHT, **sizes: int) -> SegmentMLP:
    torch.manual_seed(seed)
    sizes = {"audio_dim": 4, "visual_dim": 5, "hidden_dim": 6, **sizes}
    return SegmentMLP(classes, preprocess=preprocess, **sizes)  # type: ignore[arg-type]


def state(model: AVModule) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


# -- what is taken ---------------------------------------------------------------------------------------------------


def test_everything_is_taken_where_the_classes_are_the_same() -> None:
    child, parent = mlp(0), mlp(1)
    before = state(parent)
    assert take_over(child, [parent]) == "4 of 4 tensors from SegmentMLP; fresh: nothing"
    for key, value in parent.state_dict().items():
        assert torch.equal(child.state_dict()[key], value)
        assert torch.equal(value, before[key])
    child.network[0].weight.data.add_(1)  # a copy, not the parent's own
    assert torch.equal(parent.network[0].weight, before["network.0.weight"])


@pytest.mark.parametrize(
    "classes",
    [["bus", "metro", "background"], ["tram", "bus", "background"], ["bus", "metro", "tram", "background"]],
    ids=["renamed", "in another order", "more"],
)
def test_all_but_the_head_is_taken_where_they_differ(classes: list[str]) -> None:
    child, parent = mlp(0, classes), mlp(1)
    before = state(child)
    assert take_over(child, [parent]) == "2 of 4 tensors from SegmentMLP; fresh: network.3"
    for key in ("network.0.weight", "network.0.bias"):
        assert torch.equal(child.state_dict()[key], parent.state_dict()[key])
    for key in ("network.3.weight", "network.3.bias"):
        assert torch.equal(child.state_dict()[key], before[key])


def test_what_does_not_fit_by_shape_stays_fresh() -> None:
    child, parent = mlp(0, audio_dim=7), mlp(1)
    said = take_over(child, [parent])
    assert said == "3 of 4 tensors from SegmentMLP; fresh: network.0"
    assert torch.equal(child.network[0].bias, parent.network[0].bias)


def test_a_later_parent_wins() -> None:
    child, first, second = mlp(0), mlp(1), mlp(2, ["a", "b", "background"])
    first.name, second.name = "first", "second"
    assert take_over(child, [first, second]) == "4 of 4 tensors from second, first; fresh: nothing"
    assert torch.equal(child.network[0].weight, second.network[0].weight)
    assert torch.equal(child.network[3].weight, first.network[3].weight)


def test_batch_statistics_and_dtypes_come_along() -> None:
    child = SECRNNFusion(CLASSES, stage="audio", preprocess=SOUND)
    parent = SECRNNFusion(CLASSES, stage="audio", preprocess=SOUND).double()
    for _, buffer in parent.named_buffers():
        if buffer.is_floating_point():
            buffer.fill_(0.625)
    said = take_over(child, [parent])
    assert said.endswith("fresh: nothing")
    means = [value for key, value in child.state_dict().items() if key.endswith("running_mean")]
    assert means
    assert all(value.dtype == torch.float32 and bool((value == 0.625).all()) for value in means)


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 192}, "size=192, this recipe has 224: its weights are for another picture"),
        ({"f_min": 50.0}, "f_min=50.0, this recipe has 125.0: its weights are for another sound"),
        ({"fps": 2.0}, "fps=2.0"),
        ({"segments": 5}, "segments=5"),
        ({"visual_backbone": "resnet18"}, "another picture"),
    ],
    ids=str,
)
def test_another_signal_path_is_refused(changes: dict[str, Any], words: str) -> None:
    child = mlp(0)
    before = state(child)
    with pytest.raises(AvzooError, match=rf"init_from: SegmentMLP was trained with .*{words}"):
        take_over(child, [mlp(1, preprocess={**LIGHT, **changes})])
    assert all(torch.equal(child.state_dict()[key], value) for key, value in before.items())


def test_only_what_a_parent_reads_has_to_agree() -> None:
    child = SECRNNFusion(CLASSES, stage="fusion", preprocess=SOUND, image_features=1280)
    heard = SECRNNFusion(CLASSES, stage="audio", preprocess={**SOUND, "size": 64, "fps": 1})
    assert "fresh: " in take_over(child, [heard])
    with pytest.raises(AvzooError, match="another sound"):
        take_over(child, [SECRNNFusion(CLASSES, stage="audio", preprocess={**SOUND, "log_offset": 1e-5})])
    seen = SECRNNFusion(CLASSES, stage="visual", image_features=1280, preprocess={**SOUND, "log_offset": 1e-5})
    take_over(child, [seen])
    with pytest.raises(AvzooError, match="another picture"):
        take_over(child, [SECRNNFusion(CLASSES, stage="visual", image_features=1280, preprocess={**SOUND, "size": 64})])


def test_a_parent_of_another_kind_is_refused() -> None:
    with pytest.raises(AvzooError, match="AVSDN has no tensor that fits SegmentMLP"):
        take_over(mlp(0), [AVSDN(CLASSES, preprocess=LIGHT)])


# -- names -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_names_that_lead_nowhere(here: Path) -> None:  # noqa: ARG001
    with pytest.raises(DataNotFoundError, match=r"no runs/secrnn-tau-audio/version_\*/bundle\): `avzoo fit --config"):
        find_parent("secrnn-tau-audio")
    with pytest.raises(UnknownModelError, match=r"'secrnn-tau-audo' is no model.*did you mean 'secrnn-tau-audio'"):
        find_parent("secrnn-tau-audo")
    with pytest.raises((BundleError, DataNotFoundError), match="nothing-there"):
        find_parent("./nothing-there")
    with pytest.raises((BundleError, DataNotFoundError), match=r"nothing\.ckpt"):
        find_parent("./nothing.ckpt")


def test_every_recipe_names_parents_that_exist() -> None:
    """As recipes, so that a missing run is answered by a command."""
    named = []
    for path in (Path(__file__).parents[1] / "recipes").glob("*.yaml"):
        named += yaml.safe_load(path.read_text()).get("init_from", [])
    assert named
    for name in named:
        assert registry.asset(f"recipes/{name}.yaml").exists()


def test_a_registered_model_is_the_shipped_one(here: Path) -> None:  # noqa: ARG001
    assert find_parent("avsdn-avemix").classes[-1] == "background"


def test_a_bundles_folder_and_the_newest_run_of_a_recipe(here: Path) -> None:
    models = [mlp(seed) for seed in range(3)]
    for number, age in ((0, 300), (10, 100), (9, 200)):  # version_10 is the newest, whatever sorts last
        folder = here / "runs" / "mlp-avemix" / f"version_{number}" / "bundle"
        bundle.write(folder, models[number % 8], recipe="", half=False)
        os.utime(folder, (1e9 - age, 1e9 - age))
    newest = find_parent("mlp-avemix")
    assert torch.equal(newest.network[0].weight, models[2].network[0].weight)
    given = find_parent("./runs/mlp-avemix/version_9/bundle")
    assert torch.equal(given.network[0].weight, models[1].network[0].weight)


# -- the command line ------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.usefixtures("cheap_backbones")
def test_training_starts_where_a_run_ended(
    rendered: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = ["--config", str(registry.asset("recipes/mlp-avemix.yaml")), "--data.root", str(rendered)]
    small = ["--trainer.max_epochs", "1", "--data.workers", "0", "--trainer.enable_progress_bar", "false"]
    with pytest.raises(SystemExit):
        cli.main(["fit", *recipe, *small, "--init_from", "[mlp-avemix]"])
    assert "`avzoo fit --config recipes/mlp-avemix.yaml` makes it" in capsys.readouterr().err
    cli.main(["fit", *recipe, *small])
    first = here / "runs" / "mlp-avemix" / "version_0"
    trained = bundle.read(first / "bundle").state_dict()
    assert "init_from" not in capsys.readouterr().out
    started: list[dict[str, torch.Tensor]] = []
    monkeypatch.setattr(SegmentMLP, "on_fit_start", lambda self: started.append(state(self)), raising=False)
    for name in ("mlp-avemix", str(first / "bundle"), str(first / "checkpoints" / "best.ckpt")):
        cli.main(["fit", *recipe, *small, "--init_from", f"[{name}]", "--model.lr", "0"])
        assert "init_from: 4 of 4 tensors from " in capsys.readouterr().out
        assert all(torch.equal(started[-1][key], value) for key, value in trained.items())
    assert len(started) == 3
    cli.main(["fit", *recipe, *small, "--init_from", "[mlp-avemix]", "--data.classes", "[mandolin, drone, helicopter]"])
    assert "2 of 4 tensors from " in capsys.readouterr().out
    last = str(first / "checkpoints" / "last.ckpt")
    cli.main(["fit", *recipe, *small, "--init_from", "[not-even-a-name]", "--ckpt_path", last])  # resumed: not read
