"""Fine-tuning: what is taken, what rests, what learns how fast, and that the bundle is the model that was returned."""

from __future__ import annotations

import functools
import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import struck
import torch
import yaml
from media import Picture, Sound, texture, write_media
from test_benchmarks import SCRIPTS, script

import avzoo
from avzoo import bundle, cli
from avzoo.data.clips import Clips
from avzoo.data.events import EventBatches, Row
from avzoo.data.scenes import SceneBatches
from avzoo.errors import AnnotationError, AvzooError, BundleError, DataNotFoundError
from avzoo.finetuning import finetune
from avzoo.models import AVSDN, AVModule, JointScalogramNet, SECRNNFusion, SegmentMLP
from avzoo.train import finetune as tuning
from avzoo.train.finetune import class_weights, head_of, weighted

LIGHT: dict[str, Any] = {"audio_backbone": "vggish", "visual_backbone": "tf_efficientnet_lite0", "size": 32}
GAMMATONE: dict[str, Any] = {
    "audio_kind": "gammatone", "sample_rate": 8000, "window": 320, "hop": 160, "f_max": 4000.0, "fps": 5,
    "visual_kind": "frame", "visual_backbone": "tf_efficientnet_lite0", "size": 16,
}  # fmt: skip
SCALOGRAM: dict[str, Any] = {
    "audio_kind": "scalogram", "visual_kind": "frame", "visual_backbone": "tf_efficientnet_lite0", "size": 16,
    "sample_rate": 8000, "n_fft": 2048, "window": 2048, "hop": 1000, "bands": 40, "bank": "geometric", "frames": 3,
}  # fmt: skip
OLD = ["drone", "guitar", "background"]
QUICK: dict[str, Any] = {"epochs": 2, "workers": 0}

pytestmark = pytest.mark.usefixtures("cheap_backbones")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, four clips of 3 s each, that even a mean tells apart."""
    root = tmp_path_factory.mktemp("mine") / "my clips"
    for n in range(8):
        label = ("bell", "siren")[n % 2]
        path = root / label / f"{n}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        shade = 4 if n % 2 else 1
        picture = Picture(seconds=3, fps=5, render=lambda i, size, n=n, s=shade: texture(50 * n + i, size) // s)  # type: ignore[misc]
        write_media(path, picture, Sound(seconds=3))
    return root


def avsdn(**options: Any) -> AVSDN:
    torch.manual_seed(1)
    return AVSDN(OLD, visual_dim=1280, hidden_dim=4, preprocess=LIGHT, **options).eval()


def changed(before: AVModule, after: AVModule) -> set[str]:
    """First words of the names of the parameters that differ."""
    old = dict(before.named_parameters())
    return {
        name.partition(".")[0]
        for name, value in after.named_parameters()
        if value.shape != old[name].shape or not torch.equal(value, old[name])
    }


def test_other_classes_come_out_as_a_bundle(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parent = avsdn()
    before = {key: value.clone() for key, value in parent.state_dict().items()}
    model = avzoo.finetune(parent, folder, out=tmp_path / "mine", **QUICK)
    said = capsys.readouterr().out
    assert "AVSDN: 3 classes; now 3: bell, siren, background" in said
    assert said.count("no clip of background: it will rarely be answered") == 1
    assert " weights, 2 epochs of 10 batches (all of the data 5 times), cpu, 32-true\n" in said
    assert "epoch  train_loss    val_loss  val_segment_accuracy     clips/s\n" in said
    rows = [line.split() for line in said.splitlines() if line[3:5] == "/2"]
    assert [row[0] for row in rows] == ["1/2", "2/2"]
    assert rows[0][-1] == "best"
    assert f"as a bundle: {tmp_path / 'mine'}" in said
    assert "init_from: 20 of 22 tensors from AVSDN; fresh: classifier" in said
    assert "is the best: validation loss" in said
    assert model.classes == ["bell", "siren", "background"]
    assert model.name == "AVSDN-my-clips"
    assert not model.training
    assert all(torch.equal(parent.state_dict()[key], value) for key, value in before.items())
    again = avzoo.load(tmp_path / "mine")
    assert again.classes == model.classes
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)
    prediction = avzoo.predict(folder / "bell" / "0.mp4", again)
    assert {label for label, _ in prediction.segments[0].labels} == set(model.classes)


@pytest.mark.parametrize("kind", ["events", "scenes"])
def test_the_recipe_of_the_bundle_gives_the_same_model_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Plain YAML with `init_from`, by `avzoo fit`: rates, freezing, balance and early stopping are in it."""
    monkeypatch.chdir(tmp_path)
    parent = avsdn(feature_dropout=0.2) if kind == "events" else joint(modality_dropout=0.3, audio_temperature=7.0)
    bundle.write(tmp_path / "old", parent, recipe="", half=False)
    options: dict[str, Any] = {"freeze": "encoders", "balance": "sampler", "lr_rest": 2e-3, "patience": 1, "epochs": 6}
    model = finetune(tmp_path / "old", folder, out=tmp_path / "new", workers=0, seed=3, lr=0.1, **options)
    recipe = tmp_path / "new" / "recipe.yaml"
    written = yaml.safe_load(recipe.read_text())
    assert written["init_from"] == [str(tmp_path / "old")]
    if kind == "events":  # six clips make two steps, five times over
        assert written["trainer"]["max_epochs"] == 6 * 5
        assert written["trainer"]["check_val_every_n_epoch"] == 5
    cli.main(["fit", "--config", str(recipe), "--data.workers", "0", "--trainer.enable_progress_bar", "false"])
    again = avzoo.load(tmp_path / "runs" / "recipe" / "version_0" / "bundle")
    assert again.classes == model.classes
    assert dict(again.hparams) == dict(model.hparams)
    assert all(torch.equal(again.state_dict()[key], value) for key, value in model.state_dict().items())


def test_fine_tuning_by_plain_yaml_goes_on_exactly_where_it_was_killed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    parent = secrnn()
    bundle.write(tmp_path / "old", parent, recipe="", half=False)
    recipe = {
        "seed_everything": 1,
        "preprocess": GAMMATONE,
        "model": {"name": "SECRNNFusion", "image_features": 1280, "lr": 0.01},
        "data": {"name": "Clips", "root": str(folder), "examples": "second", "batch_size": 2, "workers": 0},
        "init_from": [str(tmp_path / "old")],
        "save_every": 1,
    }
    recipe["data"]["cache"] = str(tmp_path / "features")  # type: ignore[index]
    callbacks = [{"name": "FineTune", "freeze": "encoders", "balance": "weights"}]
    callbacks.append({"name": "EarlyStopping", "monitor": "val_loss"})
    recipe["trainer"] = {"max_epochs": 2, "enable_progress_bar": False, "callbacks": callbacks}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    command = ["--config", str(tmp_path / "mine.yaml")]
    cli.main(["extract", *command])
    cli.main(["fit", *command])
    assert struck.drive(tmp_path / "b", "step:4:KILL,never", ["fit", *command]) == [[-9], [0]]  # amid the second epoch
    ends = [
        torch.load(root / "runs/mine/version_0/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for root in (tmp_path, tmp_path / "b")
    ]
    assert all(torch.equal(ends[1][key], value) for key, value in ends[0].items())
    before = parent.state_dict()
    changed_ = {key for key, value in ends[1].items() if not torch.equal(before[key], value)}
    assert {key.partition(".")[0] for key in changed_ if "classifier" not in key} == {"fusion"}


def test_it_learns(folder: Path) -> None:
    """Loud differences are learnt from six clips: bells are lighter than sirens."""
    torch.manual_seed(0)
    parent = SegmentMLP(OLD, audio_dim=128, visual_dim=1280, hidden_dim=16, dropout=0.0, preprocess=LIGHT)
    model = finetune(parent, folder, epochs=30, workers=0, lr=1e-2)
    data = Clips(folder, task="events", preprocess=LIGHT)
    data.setup("fit")
    batch = data.sets["val"][[Row(0), Row(1)]]  # type: ignore[index]
    assert (model(batch.audio, batch.visual).argmax(-1) == batch.label).float().mean() > 0.9


@pytest.mark.parametrize(
    ("freeze", "rest"),
    [("encoders", {"classifier", "decoder", "fuse_hidden"}), ("backbone", None), ("none", None)],
)
def test_what_is_frozen_stays(folder: Path, freeze: Any, rest: set[str] | None) -> None:
    parent = avsdn()
    everything = {name.partition(".")[0] for name, _ in parent.named_parameters()}
    model = finetune(parent, folder, freeze=freeze, lr=1e-2, **QUICK)
    assert changed(parent, model) == (rest or everything)


def secrnn(**options: Any) -> SECRNNFusion:
    torch.manual_seed(1)
    return SECRNNFusion(OLD[:2], preprocess=GAMMATONE, image_features=1280, **options)


def joint(**options: Any) -> JointScalogramNet:
    torch.manual_seed(1)
    model = JointScalogramNet(OLD[:2], preprocess=SCALOGRAM, **options)
    model.audio_mean.fill_(-3.0)
    model.audio_std.fill_(2.0)
    return model


def test_a_frozen_network_of_scenes_keeps_its_statistics_and_learns_its_heads(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parent = secrnn(freeze="subnets")  # as the last stage leaves it: here `freeze` decides
    bundle.write(tmp_path / "scenes", parent, recipe="", half=False)
    parent = bundle.read(tmp_path / "scenes")  # type: ignore[assignment]
    model = finetune(tmp_path / "scenes", folder, freeze="encoders", lr=1e-2, **QUICK)
    assert "val_segment_accuracy   seconds/s\n" in capsys.readouterr().out
    assert model.classes == ["bell", "siren"]
    heads = {"audio.classifier", "visual.classifier", "fusion.early", "fusion.late"}
    old, new = parent.state_dict(), model.state_dict()
    moved = {key.rpartition(".")[0] for key in old if not torch.equal(old[key], new[key])}
    assert heads <= moved
    assert not {name for name in moved if name.startswith(("audio", "visual"))} - heads
    assert {name for name in moved if name.startswith("fusion.gru")}
    free = finetune(parent, folder, freeze="none", lr=1e-2, **QUICK)
    assert not torch.equal(
        free.state_dict()["audio.blocks.0.main.1.running_mean"], old["audio.blocks.0.main.1.running_mean"]
    )


def test_a_joint_network_keeps_its_encoder_and_statistics(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parent = joint()
    model = finetune(parent, folder, freeze="encoders", **QUICK)
    said = capsys.readouterr().out
    assert "epoch  train_loss    val_loss  val_segment_accuracy     pairs/s\n" in said
    assert re.search(r"validation loss \S+, segment accuracy \S+, clip accuracy \S+ \(2 windows\)\n", said)
    assert changed(parent, model) == {"classifier"}
    assert torch.equal(model.audio_mean, parent.audio_mean)  # type: ignore[arg-type]
    encoder = {key: value for key, value in parent.state_dict().items() if key.startswith("audio_encoder")}
    assert all(torch.equal(model.state_dict()[key], value) for key, value in encoder.items())
    assert "audio_encoder" in changed(parent, finetune(parent, folder, **QUICK))


def test_a_joint_network_that_may_lose_a_modality_is_calibrated_anew(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parent = joint(modality_dropout=0.3, audio_temperature=7.0)
    model = finetune(parent, folder, out=tmp_path / "mine", **QUICK)
    assert "calibrated on validation: audio_temperature " in capsys.readouterr().out
    assert model.hparams["audio_temperature"] != 7.0
    assert avzoo.load(tmp_path / "mine").hparams["audio_temperature"] == model.hparams["audio_temperature"]


def test_heads() -> None:
    assert head_of(avsdn()) == {"classifier.weight", "classifier.bias"}
    assert all(key.startswith("classifier.") for key in head_of(joint()))
    assert "classifier.hidden.0.weight" in head_of(joint())  # taken over whole or not at all


def test_rates_by_part(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, float]] = []
    real = tuning.optimizer

    def spy(*given: Any) -> Any:
        made = real(*given)
        seen.append({"groups": [(len(group["params"]), group["lr"]) for group in made["optimizer"].param_groups]})  # type: ignore[dict-item]
        return made

    monkeypatch.setattr(tuning, "optimizer", spy)
    parent = avsdn()
    rest = len(list(parent.parameters())) - 2
    finetune(parent, folder, lr=0.02, **QUICK)
    finetune(parent, folder, lr=0.02, lr_rest=0.0, **QUICK)
    assert seen == [{"groups": [(2, 0.02), (rest, 0.02)]}, {"groups": [(2, 0.02), (rest, 0.0)]}]
    seen.clear()
    finetune(joint(), folder, lr=0.02, **QUICK)
    assert [rate for _, rate in seen[0]["groups"]] == [0.02, 0.002]  # type: ignore[attr-defined]


def test_it_ends_early_and_keeps_the_best_epoch(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finetune(avsdn(), folder, epochs=50, lr=100.0, patience=2, workers=0)
    said = capsys.readouterr().out
    best, last = (int(word) for word in re.findall(r"\nepoch (\d+) of (\d+) is the best", said)[0])
    assert said.count("/50  ") == last
    assert "\nstopped early: Monitored metric val_loss did not improve in the last 2 records." in said
    assert last < 50
    assert last - best == 2
    assert "more epochs" not in said
    finetune(avsdn(), folder, epochs=1, workers=0)
    assert "the last epoch is the best one: more epochs" in capsys.readouterr().out


def test_a_window_weighs_by_its_commonest_event(folder: Path, tmp_path: Path) -> None:
    """In each, the longest is a siren and most segments are bells: no row may weigh nothing."""
    times = (("bell", 0, 0.9), ("siren", 0.9, 2.4), ("bell", 2.4, 3))
    lines = [f"{path},{label},{a},{b}" for path in sorted(folder.rglob("*.mp4")) for label, a, b in times]
    (tmp_path / "clips.csv").write_text("\n".join(["path,label,start,end", *lines]))
    data = Clips(tmp_path / "clips.csv", preprocess=LIGHT, workers=0)
    data.prepare_data()
    data.setup("fit")
    model, label = avsdn(), next(iter(data.train_dataloader())).label
    logits = torch.randn(*label.shape, 3)
    expected = model.loss(logits, label)
    tuning.FineTune(balance="weights").on_train_start(SimpleNamespace(datamodule=data), model)  # type: ignore[arg-type]
    torch.testing.assert_close(model.train().loss(logits, label), expected)


def test_the_same_seed_gives_the_same_model_and_leaves_the_generator_alone(folder: Path) -> None:
    state = torch.random.get_rng_state()
    models = [finetune(avsdn(feature_dropout=0.2), folder, seed=seed, **QUICK) for seed in (3, 3, 4)]
    torch.random.set_rng_state(state)
    first, second, other = (model.state_dict()["classifier.weight"] for model in models)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_weights_make_rare_classes_count_as_much(folder: Path, tmp_path: Path) -> None:
    model = avsdn()
    plain = model.loss
    logits = torch.randn(4, 10, 3)
    label = torch.tensor([[0] * 10, [0] * 10, [0] * 10, [1] * 4 + [2] * 6])
    loss = weighted(model, class_weights(torch.tensor([0, 0, 0, 1]), len(OLD)))
    model.train()
    expected = (plain(logits[:3], label[:3]) + plain(logits[3:], label[3:])) / 2
    torch.testing.assert_close(loss(logits, label), expected)
    model.eval()
    torch.testing.assert_close(loss(logits, label), plain(logits, label))
    for n in range(3):
        target = tmp_path / "uneven" / "bell" / f"{n}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / "bell" / f"{2 * n}.mp4", target)
    shutil.copytree(folder / "siren", tmp_path / "uneven" / "siren")
    results = [
        finetune(avsdn(), tmp_path / "uneven", balance=balance, **QUICK).state_dict()["classifier.weight"]
        for balance in ("none", "weights", "sampler", "weights", "sampler")
    ]
    assert not torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    assert torch.equal(results[1], results[3])
    assert torch.equal(results[2], results[4])


def test_a_sampler_draws_every_class_equally_often_and_every_clip_in_turn() -> None:
    category = torch.tensor([0] * 9 + [1] * 2 + [2] * 1)
    events = EventBatches(12, 5, shuffle=True, category=category, balanced=True, swap=1.0, seed=3)
    pairs = SceneBatches(12, 4, torch.arange(7), every=True, category=category, seed=3)
    crops = SceneBatches(12, 4, torch.arange(7), category=category, streams=2, seed=3)
    for batches, each in ((events, 1), (pairs, 7), (crops, 1)):
        epochs = []
        for epoch in (0, 1):
            batches.set_epoch(epoch)
            drawn = [[int(row[0]) for row in batch] for batch in batches]
            stream = [item for batch in drawn for item in batch[: batches.batch_size]]
            times = torch.bincount(torch.tensor(stream), minlength=12)
            assert torch.equal(times[9:], each * torch.tensor([2, 2, 4]))
            assert times[:9].sum() == 4 * each  # of nine, another four each time
            assert times[:9].max() == each
            epochs.append(drawn)
        assert epochs[0] != epochs[1]
        batches.set_epoch(1)  # as a training that goes on does
        assert [[int(row[0]) for row in batch] for batch in batches] == epochs[1]


def test_a_datamodule_of_ones_own(folder: Path) -> None:
    data = Clips(folder, task="events", preprocess=LIGHT, workers=0, classes=["siren", "bell"])
    assert finetune(avsdn(), data, epochs=1).classes == ["siren", "bell", "background"]
    other = Clips(folder, task="events", preprocess={**LIGHT, "size": 48}, workers=0)
    with pytest.raises(AvzooError, match="the data has size=48, AVSDN was trained with 32"):
        finetune(avsdn(), other, epochs=1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"freeze": "all"}, "freeze='all'"),
        ({"balance": "both"}, "balance='both'"),
        ({"epochs": 0}, "epochs is 0, expected 1 or more"),
        ({"patience": 0}, "patience is 0, expected 1 or more"),
        ({"batch_size": 0}, "batch_size is 0, expected 1 or more"),
        ({"workers": -1}, "workers is -1, expected 0 or more"),
        ({"val_fraction": 1.0}, "val_fraction is 1, expected a share between 0 and 1"),
        ({"lr": 0.0}, "lr is 0, expected a rate above 0"),
        ({"lr_rest": -1.0}, "lr_rest=-1"),
        ({"device": "gpu"}, "device 'gpu' cannot be used here"),
    ],
)
def test_options_out_of_range(folder: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(AvzooError, match=said):
        finetune(avsdn(), folder, **options)


def test_what_cannot_be_fine_tuned(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(AvzooError, match="a SegmentMLP has no encoders to freeze"):
        finetune(SegmentMLP(OLD, visual_dim=1280, preprocess=LIGHT), folder, freeze="encoders", **QUICK)
    with pytest.raises(DataNotFoundError, match="holds no video"):
        finetune(avsdn(), tmp_path, **QUICK)
    shutil.copytree(folder / "bell", tmp_path / "bell")
    with pytest.raises(AnnotationError, match="there is one class, bell"):
        finetune(avsdn(), tmp_path, **QUICK)
    (tmp_path / "siren").mkdir()
    shutil.copyfile(folder / "siren" / "1.mp4", tmp_path / "siren" / "1.mp4")
    with pytest.raises(AnnotationError, match="there is one clip of siren"):
        finetune(avsdn(), tmp_path, **QUICK)


def test_events_for_a_model_of_scenes_are_answered_with_a_model(folder: Path, tmp_path: Path) -> None:
    names = [str(path) for path in sorted(folder.rglob("*.mp4"))]
    lines = [f"{name},{Path(name).parent.name},0,1" for name in names]
    (tmp_path / "clips.csv").write_text("\n".join(["path,label,start,end", *lines]))
    with pytest.raises(
        AnnotationError, match="from 0 to 1 s: take task events and a model of events, such as avsdn-avemix, or leave"
    ):
        finetune(joint(), tmp_path / "clips.csv", **QUICK)
    assert "avsdn-avemix" in avzoo.list_models()


def test_a_place_that_is_taken_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "text.txt").touch()
    with pytest.raises(BundleError, match="thesis exists and is no bundle: give a new folder"):
        finetune(tmp_path / "no model", tmp_path / "no clips", out=tmp_path / "thesis")
    assert [file.name for file in tmp_path.rglob("*")] == ["thesis", "text.txt"]


def test_the_command(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    bundle.write(tmp_path / "old", avsdn(), recipe="", half=False)
    arguments = ["finetune", "./old", "--data", str(folder), "--epochs", "1", "--workers", "0", "--balance", "weights"]
    for name in ("old-my-clips", "old-my-clips-2"):
        cli.main(arguments)
        said = capsys.readouterr().out
        assert f"ask it:  avzoo predict clip.mp4 --model './finetuned/{name}'" in said
        assert f"avzoo app --model './finetuned/{name}'" in said
        assert f"avzoo fit --config './finetuned/{name}/recipe.yaml'" in said
        assert avzoo.load(tmp_path / "finetuned" / name).classes == ["bell", "siren", "background"]
    with pytest.raises(SystemExit):
        cli.main(["finetune", "avsdn-avmix", "--data", str(folder)])
    assert capsys.readouterr().err.startswith("avzoo: 'avsdn-avmix' is no model")


def test_the_command_replaces_and_refuses_in_its_own_words(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle.write(tmp_path / "old", avsdn(), recipe="", half=False)
    mute = shutil.copytree(folder, tmp_path / "clips") / "bell" / "mute.mp4"
    write_media(mute, Picture(seconds=3, fps=5))
    arguments = ["finetune", str(tmp_path / "old"), "--data", str(tmp_path / "clips"), "--workers", "0"]
    with pytest.raises(SystemExit):
        cli.main(arguments)
    said = capsys.readouterr().err
    assert (
        f"\n  {mute}: has no audio stream that can be decoded; --on-missing-audio silence reads it as silent\n" in said
    )
    assert "`--on-missing skip` goes on without" in said
    assert f"`avzoo check '{tmp_path / 'clips'}'` looks for such beforehand" in said
    cli.main([*arguments, "--on-missing", "skip", "--epochs", "1", "--out", str(tmp_path / "old")])
    assert f"as a bundle (replaced): {tmp_path / 'old'}" in capsys.readouterr().out


def test_the_curve_is_measured_and_drawn(rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark of the clips that are enough, with a parent that knows nothing."""
    monkeypatch.chdir(tmp_path)
    module = script(next(path for path in SCRIPTS if path.stem == "finetune"))
    monkeypatch.setattr(module, "PAIR", ("drone", "mandolin"))
    monkeypatch.setattr(module, "_parents", lambda _: [avsdn()])
    monkeypatch.setattr(module, "AVE", functools.partial(module.AVE, workers=0))
    command = ["x", "avemix", str(rendered), "--clips", "1", "2", "--seeds", "1", "--epochs", "1", "--out", "a.json"]
    for arguments in (command, ["x", "draw", "--out", "a.json", "--picture", "a.png"]):
        monkeypatch.setattr(sys, "argv", arguments)
        module.main()
    figures = json.loads(Path("a.json").read_text())["avemix AVSDN"]
    assert figures.keys() == {"checkpoint", "scratch", "one answer for all"}
    assert figures["scratch"].keys() == {"1", "2"}
    lists = [(tmp_path / "data/finetune" / f"avemix-{clips}-0" / "trainSet.txt").read_text() for clips in (1, 2)]
    assert [text.count("drone") for text in lists] == [text.count("mandolin") for text in lists] == [1, 2]
    assert set(lists[0].splitlines()) < set(lists[1].splitlines())
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")
