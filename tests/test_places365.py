"""Places365: its lists and folders, seeded views, broken pictures, and a backbone fine-tuned, exported and used."""

from __future__ import annotations

import shutil
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from avzoo import backbones, cli, registry
from avzoo.clip import Clip
from avzoo.data.places365 import PictureBatches, Places365
from avzoo.data.places365_lists import Listing, read_categories, read_list
from avzoo.errors import AnnotationError, AvzooError, DataNotFoundError, MediaError
from avzoo.models.places import PlacesClassifier, export_backbone
from avzoo.preprocess import PictureBatch, Preprocess, Preprocessor

LIGHT = "test_efficientnet.r160_in1k"  # 99,196 parameters, 256 features
SMALL = {"visual_kind": "image", "visual_backbone": LIGHT, "size": 32}
CLASSES = ["airfield", "apartment_building/outdoor"]
COLOURS = {"airfield": (30, 60, 200), "apartment_building/outdoor": (200, 50, 30)}
# What Lightning says of loaders without workers.
pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")
RECIPE = registry.asset("recipes/places365-efficientnetv2.yaml")


@pytest.fixture(autouse=True)
def _weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is downloaded: the light network's pretrained weights are those of one seed."""
    real = backbones.build

    def build(name: str, pool: str = "") -> nn.Module:
        if name != LIGHT:
            return real(name, pool)
        with torch.random.fork_rng():
            torch.manual_seed(7)
            return backbones.architecture(name, pool).eval().requires_grad_(False)

    monkeypatch.setattr(backbones, "build", build)


def _draw(path: Path, colour: tuple[int, int, int], seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-30, 30, (30, 44, 3))
    Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(path, quality=95)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout of places365standard: two classes, 24 training and 8 validation pictures."""
    root = tmp_path_factory.mktemp("places")
    (root / "categories_places365.txt").write_text("/a/airfield 0\n/a/apartment_building/outdoor 1\n")
    train, val = [], []
    for label, name in enumerate(CLASSES):
        for number in range(12):
            file = f"/a/{name}/{number:08d}.jpg"
            _draw(root / "data_large" / file[1:], COLOURS[name], 2 * number + label)
            train.append(f"{file} {label}\n")
        for number in range(4):
            file = f"Places365_val_{4 * label + number:08d}.jpg"
            _draw(root / "val_large" / file, COLOURS[name], 100 + 2 * number + label)
            val.append(f"{file} {label}\n")
    (root / "places365_train_standard.txt").write_text("".join(train))
    (root / "places365_train_challenge.txt").write_text("".join(train[:14]))
    (root / "places365_val.txt").write_text("".join(val))
    return root


@pytest.fixture
def own(places: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return shutil.copytree(places, tmp_path / "places")


def data(root: Path, **options: object) -> Places365:
    module = Places365(root, SMALL, **({"workers": 0, "batch_size": 6} | options))  # type: ignore[arg-type]
    module.setup("fit")
    return module


def listed(module: Places365, split: str) -> list[tuple[str, int]]:
    """What a split holds, by the name of the file alone."""
    listing = module._pictures[split].listing
    return [(Path(listing[index][0]).name, listing[index][1]) for index in range(len(listing))]


# -- lists and folders -----------------------------------------------------------------------------------------------


def test_the_lists_are_read(places: Path) -> None:
    module = data(places)
    assert module.classes == CLASSES
    assert module._pictures["train"].listing[13] == ("a/apartment_building/outdoor/00000001.jpg", 1)
    assert listed(module, "val")[4] == ("Places365_val_00000004.jpg", 1)
    assert len(listed(data(places, subset="challenge"), "train")) == 14


@pytest.mark.parametrize("names", [("data_256", "val_256"), ("data_large_standard", "val_large")])
def test_other_names_of_the_folders_are_known(own: Path, names: tuple[str, str]) -> None:
    whole = listed(data(own), "train")
    for old, new in zip(("data_large", "val_large"), names, strict=True):
        (own / old).rename(own / new)
    assert listed(data(own), "train") == whole
    assert data(own)._pictures["train"].folder == own / names[0]


@pytest.mark.parametrize("with_categories", [True, False])
def test_the_easy_format_is_the_same_pictures(own: Path, tmp_path: Path, with_categories: bool) -> None:
    easy = tmp_path / "easy"
    for split in ("train", "val"):
        pictures = data(own)._pictures[split]
        for index in range(len(pictures.listing)):
            name, label = pictures.listing[index]
            target = easy / split / CLASSES[label].replace("/", "-") / Path(name).name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(pictures.folder / name, target)
    if with_categories:
        shutil.copy(own / "categories_places365.txt", easy)
    (easy / "train" / "airfield" / "Thumbs.db").touch()
    module = data(easy)
    assert [name.replace("-", "/") for name in module.classes] == CLASSES
    assert module.classes[1] == ("apartment_building/outdoor" if with_categories else "apartment_building-outdoor")
    for split in ("train", "val"):
        assert listed(module, split) == listed(data(own), split)
    (easy / "val" / "zoo").mkdir()
    with pytest.raises(AnnotationError, match="zoo: is none of the 2 classes"):
        data(easy)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("categories_places365.txt", "/a/airfield 0\n/a/bar 2\n", r"categories_places365.txt:2: .* number 1"),
        ("categories_places365.txt", "airfield 0\n", r"categories_places365.txt:1: expected a new category"),
        ("categories_places365.txt", "/a/airfield 0\n/a/airfield 1\n", r"categories_places365.txt:2"),
        ("places365_val.txt", "a.jpg 0\nb.jpg\n", r"places365_val.txt:2: 'b.jpg', expected a path and a number"),
        ("places365_val.txt", "a.jpg 0\n\nb.jpg 2\n", r"places365_val.txt:3: label 2, expected 0 to 1"),
        ("places365_val.txt", "a.jpg -1\n", r"places365_val.txt:1"),
        ("places365_val.txt", "../a.jpg 1\n", r"places365_val.txt:1: ../a.jpg leads out"),
        ("places365_val.txt", "\n", r"places365_val.txt: lists no picture"),
        ("places365_train_standard.txt", "/a/airfield/1.jpg 1\n", r"places365_train_standard.txt:1: .*/outdoor"),
    ],
)
def test_a_list_that_cannot_be_read_is_named_with_its_line(own: Path, file: str, text: str, said: str) -> None:
    (own / file).write_text(text)
    with pytest.raises(AnnotationError, match=said):
        data(own)


def test_what_is_not_there_is_named(own: Path, tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match="data_256_standard, data_256;"):
        data(own, images="256")
    (own / "places365_val.txt").write_bytes(b"\xff\xfe 1\n")
    with pytest.raises(AnnotationError, match="UTF-8"):
        data(own)
    (own / "places365_val.txt").unlink()
    with pytest.raises(DataNotFoundError, match=r"places365_val\.txt"):
        data(own)
    with pytest.raises(DataNotFoundError, match="data_large"):
        Places365(tmp_path / "nowhere", SMALL).classes  # noqa: B018
    with pytest.raises(AvzooError, match="subset is 'all', expected one of"):
        Places365(own, SMALL, subset="all")  # type: ignore[arg-type]


def test_a_line_takes_its_own_bytes_and_ten_more(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("".join(f"/a/airfield/{number:08d}.jpg 0\n" for number in range(10_000)))
    listing = Listing(read_list(path, ["airfield"], by_folder=True))
    held = list(vars(listing).values())
    assert all(isinstance(buffer, np.ndarray) for buffer in held)  # no object a line
    assert sum(buffer.nbytes for buffer in held) == 10_000 * (len("a/airfield/00000000.jpg") + 8 + 2) + 8
    assert listing[9_999] == ("a/airfield/00009999.jpg", 0)


def test_the_real_categories_are_read_if_they_are_like_these(tmp_path: Path) -> None:
    path = tmp_path / "categories_places365.txt"
    path.write_text("".join(f"/{chr(97 + n // 15)}/place_{n:03d}/indoor {n}\n" for n in range(365)))
    assert len(read_categories(path)) == 365


# -- views -----------------------------------------------------------------------------------------------------------


def epoch(module: Places365, number: int) -> list[tuple[Tensor, Tensor]]:
    loader = module.train_dataloader()
    loader.sampler.set_epoch(number)  # type: ignore[attr-defined]
    return [(batch.images, batch.label) for batch, _ in loader]


def test_an_epoch_is_its_seed_and_number_and_no_two_are_alike(places: Path) -> None:
    first = epoch(data(places), 3)
    for (images, labels), (again, same) in zip(first, epoch(data(places, workers=2), 3), strict=True):
        assert torch.equal(images, again)
        assert torch.equal(labels, same)
    assert sorted(torch.cat([labels for _, labels in first]).tolist()) == [0] * 12 + [1] * 12
    for other in (epoch(data(places), 4), epoch(data(places, seed=1), 3)):
        assert not torch.equal(first[0][0], other[0][0])
    assert len({row.seed for rows in PictureBatches(500, 100, seed=0) for row in rows}) == 500
    assert [[row.picture for row in rows] for rows in PictureBatches(3, 2)] == [[0, 1], [2]]


def test_epochs_follow_one_another_where_nobody_counts() -> None:
    batches = PictureBatches(50, 10, seed=0)
    first, second = list(batches), list(batches)
    assert first != second
    batches.set_epoch(0)
    assert list(batches) == first


def test_validation_sees_pictures_as_the_signal_path_does(places: Path) -> None:
    images = next(iter(data(places).val_dataloader()))[0].images
    with Image.open(places / "val_large" / "Places365_val_00000000.jpg") as picture:
        pixels = np.array(picture)
    frames = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    preprocess = Preprocess(seconds=1, segments=1, **SMALL)  # type: ignore[arg-type]
    clip = Clip(frames, torch.tensor([0.5]), torch.zeros(1, 16_000), 16_000, "a")
    assert torch.equal(images[0], Preprocessor(preprocess).images(clip)[0])


def test_a_last_batch_that_is_not_full_is_left_out_of_training_alone(places: Path) -> None:
    module = data(places, batch_size=7)
    assert [len(batch.label) for batch, _ in module.train_dataloader()] == [7, 7, 7]
    assert [len(batch.label) for batch, _ in module.val_dataloader()] == [7, 1]
    assert len(data(places, batch_size=100).train_dataloader()) == 1


# -- broken pictures -------------------------------------------------------------------------------------------------


def batches(module: Places365) -> list[PictureBatch]:
    return [module.on_before_batch_transfer(batch, 0) for batch in module.val_dataloader()]


@pytest.mark.parametrize("damage", ["cut", "text", "gone"])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_picture_is_named_or_left_out_and_counted(
    own: Path, damage: str, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    file = own / "val_large" / "Places365_val_00000005.jpg"
    content = file.read_bytes()
    file.unlink()
    if damage != "gone":
        file.write_bytes(content[: len(content) // 2] if damage == "cut" else b"<html>404</html>")
    with pytest.raises(MediaError, match=r"Places365_val_00000005\.jpg.*on_damage") as stop:
        batches(data(own, workers=workers))
    assert "\n" not in str(stop.value)
    module = data(own, workers=workers, on_damage="skip")
    for _ in range(2):
        assert [len(batch.images) for batch in batches(module)] == [5, 2]
    module.teardown("fit")
    assert "1 pictures were left out" in (said := capsys.readouterr().out)
    assert file.name in said


def test_a_wrong_folder_is_no_damage(own: Path) -> None:
    shutil.rmtree(own / "val_large")
    (own / "val_large").mkdir()
    with pytest.raises(MediaError, match="none of a batch of 6 pictures"):
        batches(data(own, on_damage="skip"))


# -- training and export ---------------------------------------------------------------------------------------------


def test_a_constructor_fills_nothing_and_fit_fills_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pretrained = backbones.build(LIGHT).state_dict()
    calls: list[str] = []
    build = backbones.build
    monkeypatch.setattr(backbones, "build", lambda name, pool="": calls.append(name) or build(name, pool))
    model = PlacesClassifier(CLASSES, SMALL)
    model.setup("validate")
    assert calls == []
    model.setup("fit")
    assert calls == [LIGHT]
    state = model.encoder.network.state_dict()
    assert all(torch.equal(state[key], value) for key, value in pretrained.items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    with torch.no_grad():
        state["conv_stem.weight"].zero_()
    model.setup("fit")
    assert calls == [LIGHT]
    again = PlacesClassifier(CLASSES, SMALL)
    again.load_state_dict(model.state_dict())
    again.setup("fit")  # what was trained goes on
    assert calls == [LIGHT]
    assert not again.encoder.network.state_dict()["conv_stem.weight"].any()
    with pytest.raises(AvzooError, match="visual_kind"):
        PlacesClassifier(CLASSES, SMALL | {"visual_kind": "segment"})
    with pytest.raises(AvzooError, match="two or more"):
        PlacesClassifier(["one"], SMALL)


def test_the_recipes_network_is_the_papers() -> None:
    asked = yaml.safe_load(RECIPE.read_text())
    with torch.device("meta"):
        model = PlacesClassifier([str(n) for n in range(365)], asked["preprocess"])
    assert sum(parameter.numel() for parameter in model.encoder.parameters()) == 20_177_488
    assert sum(parameter.numel() for parameter in model.scores.parameters()) == 1280 * 365 + 365
    assert model.encoder.preprocess.size == 288


def test_the_recipe_learns_and_its_export_is_a_backbone(
    places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["--preprocess.visual_backbone", LIGHT, "--preprocess.size", "32", "--data.batch_size", "8"]
    small += ["--data.workers", "0", "--trainer.precision", "32-true", "--trainer.enable_progress_bar", "false"]
    small += ["--trainer.max_epochs", "8", "--model.lr", "0.05"]
    cli.main(["fit", "--config", str(RECIPE), "--data.root", str(places), *small])
    assert "best val_accuracy 1.0000" in capsys.readouterr().out
    best = tmp_path / f"runs/{RECIPE.stem}/version_0/checkpoints/best.ckpt"
    cli.main(["validate", "--config", str(RECIPE), "--data.root", str(places), *small[:8], "--ckpt_path", str(best)])
    assert "val_top5_accuracy" in capsys.readouterr().out

    cache = tmp_path / "cache"
    entry = export_backbone(best, cache / "backbones" / "light-places.safetensors")
    (tmp_path / "registry.yaml").write_text(entry)
    monkeypatch.setenv("AVZOO_CACHE", str(cache))
    monkeypatch.setenv("AVZOO_REGISTRY", str(tmp_path / "registry.yaml"))
    facts = registry.backbones()["light-places"]
    assert (facts.features, facts.parameters, facts.size) == (256, 99_196, 32)
    preprocess = Preprocess(visual_kind="image", visual_backbone="light-places")
    assert (preprocess.size, preprocess.mean) == (32, Preprocess.of(SMALL).mean)
    model = PlacesClassifier.load_from_checkpoint(best, weights_only=True).eval()
    network = backbones.build("light-places")
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(network(images), model.encoder.network(images))
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not torch.equal(network(images), backbones.build(LIGHT)(images))  # it did train
    assert not [*cache.rglob("*.tmp")]


def test_export_refuses_what_is_no_checkpoint_of_it(tmp_path: Path) -> None:
    file = tmp_path / "a.ckpt"
    with pytest.raises(AvzooError, match="small letters"):
        export_backbone(file, tmp_path / "Big.safetensors")
    with pytest.raises(DataNotFoundError, match=r"a\.ckpt"):
        export_backbone(file, tmp_path / "a.safetensors")
    file.write_bytes(b"nothing")
    with pytest.raises(AvzooError, match="not a checkpoint"):
        export_backbone(file, tmp_path / "a.safetensors")
    torch.save({"state_dict": {}, "hyper_parameters": {}}, file)
    with pytest.raises(AvzooError, match="not a checkpoint"):
        export_backbone(file, tmp_path / "a.safetensors")
    torch.save({"state_dict": {}, "hyper_parameters": {"preprocess": SMALL}}, file)
    with pytest.raises(AvzooError, match=r"not a checkpoint of PlacesClassifier, below encoder\.network\."):
        export_backbone(file, tmp_path / "a.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ckpt"]


def test_a_run_is_the_same_again(places: Path, tmp_path: Path) -> None:
    states = []
    for _ in range(2):
        L.seed_everything(1, verbose=False)
        model = PlacesClassifier(CLASSES, SMALL)
        trainer = L.Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=tmp_path, log_every_n_steps=1,
        )  # fmt: skip
        trainer.fit(model, datamodule=data(places))
        states.append(model.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
