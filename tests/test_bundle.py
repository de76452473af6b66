"""Bundles: written whole or not at all, read back to the same answers, and refused when anything about them is off."""

from __future__ import annotations

import builtins
import json
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import pytest
import torch
from media import Picture, Sound, write_media
from safetensors.torch import load_file, save_file
from torch import Tensor

from avzoo import bundle, provenance
from avzoo.bundle import reading
from avzoo.errors import BundleError, DataNotFoundError
from avzoo.files import HOST, sha256
from avzoo.models import AVSDN, MODELS

CLASSES = ["drone", "bell", "background"]
PREPROCESS = {"audio_backbone": "avzoo-audio", "visual_backbone": "tf_efficientnet_lite0"}
RECIPE = "seed_everything: 0\n"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        pytest.fail("a bundle on disk was read over the network")

    monkeypatch.setattr("socket.socket.connect", refuse)


def network(seed: int = 0, **options: Any) -> AVSDN:
    torch.manual_seed(seed)
    sizes = {"audio_dim": 128, "visual_dim": 1280, "hidden_dim": 4}
    return AVSDN(CLASSES, **{**sizes, **options}, preprocess=PREPROCESS).eval()


class FakePreprocessor:
    """Features of ten seconds out of nothing: for whatever is not about the backbones."""

    def __init__(self, *_: object) -> None: ...

    def audio(self, _: object) -> Tensor:
        return torch.randn(10, 128, generator=torch.Generator().manual_seed(0))

    def visual(self, _: object) -> Tensor:
        return torch.randn(10, 1280, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avzoo.bundle.golden.Preprocessor", FakePreprocessor)
    monkeypatch.setattr("avzoo.bundle.golden.read_window", lambda *_: None)


def write(folder: Path, model: AVSDN, **options: Any) -> Path:
    clip = folder.parent / "a clip"
    clip.write_bytes(b"no film")
    return bundle.write(folder, model, **{"recipe": RECIPE, "golden_clip": clip, "card": "# a model\n", **options})


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("avzoo.bundle.golden.Preprocessor", FakePreprocessor)
        patch.setattr("avzoo.bundle.golden.read_window", lambda *_: None)
        return write(tmp_path_factory.mktemp("pristine") / "bundle", network())


@pytest.fixture
def good(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "home" / "bundle"))


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file that a bundle must not lead to; it shares no folder with the bundle but the topmost."""
    file = tmp_path / "elsewhere" / "secret"
    file.parent.mkdir()
    file.write_bytes(b"secret")
    return file


def refused(folder: Path, *words: str, expected: Any = None) -> str:
    """Read a bundle that must be refused, by a short message that names the folder and the words."""
    started = time.monotonic()
    with pytest.raises(BundleError) as caught:
        bundle.read(folder, expected)
    message = str(caught.value)
    for word in (str(folder), *words):
        assert word in message
    assert len(message) < 1000
    assert time.monotonic() - started < 5
    return message


def config(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return document


def edit(folder: Path, **changes: Any) -> Path:
    """Change keys of config.json, as an attacker can: the bundle's own manifest does not cover it."""
    (folder / "config.json").write_text(json.dumps({**config(folder), **changes}))
    return folder


def reseal(folder: Path) -> Path:
    """Make the manifest fit the files again, as an attacker would."""
    names = tuple(name for name in bundle.FILES if name != "config.json")
    return edit(folder, files=bundle.manifest(folder, names))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(folder / "model.safetensors"))


def reweigh(folder: Path, **tensors: torch.Tensor | None) -> Path:
    """Replace tensors (None removes one; `__` in a name is a dot) and make the manifest fit."""
    state: dict[str, Any] = weights(folder)
    state.update({key.replace("__", "."): value for key, value in tensors.items()})
    save_file({key: value for key, value in state.items() if value is not None}, folder / "model.safetensors")
    return reseal(folder)


def header(folder: Path) -> tuple[dict[str, Any], bytes]:
    raw = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def put(folder: Path, head: dict[str, Any] | bytes, data: bytes, length: int | None = None) -> Path:
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return reseal(folder)


# -- what a good bundle does -----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("film") / "golden.mp4"
    return write_media(file, Picture(fps=5, seconds=10), Sound(seconds=10))


def test_the_whole_path_from_media_to_the_same_answers(film: Path, tmp_path: Path) -> None:
    model = network()
    folder = bundle.write(tmp_path / "b", model, recipe=RECIPE, golden_clip=film, card="# card\n", commit="abc")
    again = bundle.read(folder)
    assert bundle.golden_difference(folder, again, media=True) < bundle.GOLDEN_TOLERANCE
    assert bundle.golden_difference(folder, again) == 0
    assert config(folder)["commit"] == "abc"
    pins = config(folder)["backbones"]
    assert all(pin.startswith("sha256:") and len(pin) == 71 for pin in pins.values())
    assert set(pins) == set(PREPROCESS.values())
    assert (folder / "model.safetensors").stat().st_size < 200_000  # frozen backbones are named, not stored


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "share_u": False}, {"decoder_init": "label_guided"}])
def test_reads_back_what_was_written(half: bool, options: dict[str, Any], tmp_path: Path) -> None:
    model = network(**options)
    audio, visual = FakePreprocessor().audio(None), FakePreprocessor().visual(None)
    folder = write(tmp_path / "b", model, half=half)
    again = bundle.read(folder, bundle.manifest(folder))
    assert not again.training
    assert again.classes == CLASSES
    assert again.preprocess == model.preprocess
    assert dict(again.hparams) == dict(model.hparams)
    assert {p.dtype for p in again.state_dict().values()} == {torch.float32}
    stored = {str(p.dtype) for p in weights(folder).values()}
    assert stored == {"torch.float16" if half else "torch.float32"}
    for key, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    with torch.no_grad():
        assert torch.equal(model(audio[None], visual[None]), again(audio[None], visual[None]))
    assert bundle.golden_difference(folder, again) == 0
    assert all(p.requires_grad for p in again.parameters())  # a loaded model can be trained on


def test_reading_draws_no_random_number_and_opens_no_pickle(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        pytest.fail("a pickle was opened, or a tensor filled at random")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    before = torch.get_rng_state()
    model = bundle.read(good)
    assert torch.equal(before, torch.get_rng_state())
    assert not any(p.is_meta for p in model.state_dict().values())


@pytest.mark.usefixtures("cheap")
def test_what_is_read_does_not_change_with_the_file_afterwards(tmp_path: Path) -> None:
    folder = write(tmp_path / "b", network(), half=False)
    model = bundle.read(folder)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    data = header(folder)[1]
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-len(data), os.SEEK_END)
        file.write(b"\0" * len(data))
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_only_the_files_of_a_bundle_are_opened(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (good / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    (good / "notes.txt").write_text("text")
    opened: list[str] = []
    real = builtins.open
    monkeypatch.setattr("io.open", lambda file, *a, **k: opened.append(Path(file).name) or real(file, *a, **k))
    bundle.read(good)
    assert set(opened) <= set(bundle.FILES)
    assert "model.safetensors" in opened


def test_a_snapshot_of_the_hubs_cache_is_read_through_its_links(good: Path, tmp_path: Path) -> None:
    repo = tmp_path / "models--o--r"
    snapshot = repo / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    for number, file in enumerate(good.iterdir()):
        shutil.move(file, repo / "blobs" / str(number))
        (snapshot / file.name).symlink_to(Path("../../blobs") / str(number))
    assert bundle.read(snapshot).classes == CLASSES
    (snapshot / "README.md").unlink()
    (repo / "refs").write_text("not a blob")
    (snapshot / "README.md").symlink_to(repo / "refs")
    refused(snapshot, "link out of the bundle")


# -- writing ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("cheap")
def test_a_bundle_is_replaced_whole(good: Path) -> None:
    write(good, network(seed=1), card="# newer\n")
    assert (good / "README.md").read_text() == "# newer\n"
    assert torch.equal(bundle.read(good).classifier.weight, network(seed=1).classifier.weight.half().float())
    assert sorted(p.name for p in good.parent.iterdir()) == ["a clip", "bundle"]


@pytest.mark.usefixtures("cheap")
def test_a_folder_that_is_no_bundle_is_left_alone(tmp_path: Path) -> None:
    for name, content in (("config.json", '{"scripts": {}}'), ("config.json", "not even JSON"), ("thesis.tex", "x")):
        folder = tmp_path / name / str(len(content))
        folder.mkdir(parents=True)
        (folder / name).write_text(content)
        with pytest.raises(BundleError, match=r"is no bundle: give a new folder"):
            write(folder, network())
        assert (folder / name).read_text() == content
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(BundleError, match="is no bundle"):
        write(file, network())


@pytest.mark.usefixtures("cheap")
def test_a_bundle_with_somebodys_own_files_in_it_is_left_alone(good: Path) -> None:
    (good / "thesis.tex").write_text("x")
    with pytest.raises(BundleError, match="is no bundle"):
        write(good, network())
    assert (good / "thesis.tex").exists()


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("where", ["golden", "manifest", "rename"])
def test_a_failure_in_the_middle_leaves_the_old_bundle(where: str, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = bundle.manifest(good)

    def fail(*_: object) -> NoReturn:
        raise OSError("no space left on device")

    if where == "rename":
        real = Path.rename
        monkeypatch.setattr(Path, "rename", lambda p, to: fail() if p.name.endswith(".tmp") else real(p, to))
    else:
        monkeypatch.setattr(f"avzoo.bundle.writing.{where}", fail)
    with pytest.raises(OSError, match="no space"):
        write(good, network(seed=1))
    monkeypatch.undo()
    assert bundle.manifest(good) == before
    assert bundle.golden_difference(good, bundle.read(good)) == 0
    assert sorted(p.name for p in good.parent.iterdir()) == ["a clip", "bundle"]


PROGRAM = """
import os, pathlib, signal, sys, torch
torch.set_num_threads(1)
from avzoo import bundle
from avzoo.bundle import writing
folder = pathlib.Path(sys.argv[1])
model = bundle.read(folder)
print(os.getpid(), bundle.golden_difference(folder, model), flush=True)
writing.golden = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
bundle.write(folder, model, recipe="", golden_clip=folder / "golden.mp4", card="never seen")
"""


@pytest.mark.usefixtures("cheap")
def test_another_process_has_the_same_answers_and_killed_while_it_writes_leaves_the_old_bundle(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = bundle.manifest(good)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(good)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    child, difference = done.stdout.split()
    assert float(difference) == 0
    assert (good.parent / f".bundle.{HOST}-{child}.tmp" / "README.md").read_text() == "never seen"
    assert bundle.manifest(good) == before
    monkeypatch.setattr(os, "getpid", lambda: int(child))  # in a container the next process has the same number
    for leftover in (f".bundle.{HOST}-{child}.old", f".bundle.{HOST}-99999999.tmp"):
        (good.parent / leftover).mkdir()
        (good.parent / leftover / "x").write_text("x")
    write(good, network(seed=1))
    assert bundle.manifest(good) != before
    assert bundle.golden_difference(good, bundle.read(good)) == 0
    assert sorted(p.name for p in good.parent.iterdir()) == ["a clip", "bundle"]


def die_between_two_renames(folder: Path) -> None:
    rename = Path.rename

    def die(path: Path, to: Path) -> None:
        if path.suffix == ".tmp":
            os.kill(os.getpid(), signal.SIGKILL)
        rename(path, to)

    Path.rename = die  # type: ignore[assignment,method-assign]
    bundle.write(folder, network(seed=2), recipe=RECIPE)


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("by", ["reading", "writing"])
def test_what_a_process_that_was_killed_between_two_renames_left_is_put_back(by: str, good: Path) -> None:
    before = bundle.manifest(good)
    child = multiprocessing.get_context("fork").Process(target=die_between_two_renames, args=(good,))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert not good.exists()
    if by == "reading":
        assert bundle.read(good).classes == CLASSES
        assert bundle.manifest(good) == before
    write(good, network(seed=1))
    assert bundle.golden_difference(good, bundle.read(good)) == 0
    assert sorted(p.name for p in good.parent.iterdir()) == ["a clip", "bundle"]


def test_what_others_have_begun_is_left_alone(good: Path) -> None:
    """A process that still runs, one of another machine, and what has another name."""
    running, gone = f"{HOST}-{os.getppid()}", f"{HOST}-99999999"
    for name in (f"{running}.tmp", "elsewhere-99999999.tmp", "tmp", f"{HOST}-1x.old", f"{gone}.bak", f"2.{gone}.old"):
        (good.parent / f".bundle.{name}").mkdir()
    before = sorted(good.parent.iterdir())
    bundle.write(good, network(), recipe=RECIPE)
    assert sorted(good.parent.iterdir()) == before


def test_a_bundle_may_lack_clip_card_and_picture(tmp_path: Path) -> None:
    model = network()
    folder = bundle.write(tmp_path / "plain", model, recipe=RECIPE, half=False)
    assert {file.name for file in folder.iterdir()} == {"config.json", "model.safetensors", "recipe.yaml"}
    again = bundle.read(folder)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())
    with pytest.raises(BundleError, match=r"golden\.safetensors is damaged or missing"):
        bundle.golden_difference(folder, again)


def test_a_bundle_says_what_it_was_trained_with(tmp_path: Path) -> None:
    folder = bundle.write(tmp_path / "b", network(), recipe=RECIPE)
    assert (config(folder)["versions"], config(folder)["commit"]) == (provenance.versions(), provenance.code_commit())
    bundle.write(folder, network(), recipe=RECIPE, versions={"torch": "1.0"}, commit="0" * 40)
    assert (config(folder)["versions"], config(folder)["commit"]) == ({"torch": "1.0"}, "0" * 40)
    assert bundle.read(folder).classes == CLASSES


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e5])
def test_weights_that_would_not_be_finite_are_not_written(value: float, good: Path) -> None:
    before = bundle.manifest(good)
    model = network()
    with torch.no_grad():
        model.classifier.weight[0, 0] = value
    with pytest.raises(BundleError, match=r"classifier\.weight holds numbers that are not finite in half precision"):
        write(good, model)
    assert bundle.manifest(good) == before
    assert model.classifier.weight[0, 0].item() == pytest.approx(value, nan_ok=True)


def test_golden_outputs_that_cannot_be_compared_are_refused(good: Path) -> None:
    model = bundle.read(good)
    golden = load_file(good / "golden.safetensors")
    file = good / "golden.safetensors"
    for logits in (torch.full((10, 3), torch.nan), torch.zeros(3), torch.zeros(10, 1), torch.zeros(0, 3)):
        save_file({**golden, "logits": logits}, file)
        with pytest.raises(BundleError, match="golden logits"):
            bundle.golden_difference(good, model)
    save_file({**golden, "logits": golden["logits"] + 1}, file)
    assert bundle.golden_difference(good, model) == pytest.approx(1, rel=1e-5)
    for content in (b"", b"\xff" * 100):
        file.write_bytes(content)
        with pytest.raises(BundleError, match=r"golden\.safetensors is damaged or missing"):
            bundle.golden_difference(good, model)
    file.unlink()
    with pytest.raises(BundleError, match=r"golden\.safetensors is damaged or missing"):
        bundle.golden_difference(good, model)


# -- bundles of earlier versions -------------------------------------------------------------------------------------


@pytest.fixture
def format1(tmp_path: Path) -> Path:
    """Written by the first version; nobody may write it again."""
    return Path(shutil.copytree(Path(__file__).parent / "fixtures" / "format1", tmp_path / "format1"))


def test_every_version_reads_format_1_and_answers_as_the_first_did(format1: Path) -> None:
    written = sha256(format1 / "config.json")
    assert written == "bd040e8eb61b3b564fa9e41b3db7a08c5fd8e5618d01f0839f9c1155876c31df"
    model = bundle.read(format1, bundle.manifest(format1))
    assert model.classes == CLASSES
    assert (model.preprocess.audio_backbone, model.preprocess.segments) == ("avzoo-audio", 2)
    assert not model.training
    assert bundle.golden_difference(format1, model) <= bundle.GOLDEN_TOLERANCE
    stored = load_file(format1 / "golden.safetensors")["logits"]
    assert stored.tolist()[0] == pytest.approx([-0.3394, -0.3792, 0.6156], abs=1e-4)
    assert bundle.read(format1).state_dict().keys() == model.state_dict().keys()


def test_numbers_that_an_earlier_version_did_not_know_take_their_defaults(format1: Path) -> None:
    numbers = config(format1)["preprocess"]
    kept = {key: numbers[key] for key in ("seconds", "segments", "audio_backbone", "visual_backbone")}
    assert bundle.read(edit(format1, preprocess=kept)).preprocess.to_dict() | numbers == (
        bundle.read(format1).preprocess.to_dict()
    )


# -- models that hold a backbone -------------------------------------------------------------------------------------


class Holder(AVSDN):
    """Holds a frozen network whose weights are in no state dict; `fill_backbone` brings them."""

    filled: ClassVar[bool] = True

    def __init__(self, classes: list[str], **options: Any) -> None:
        super().__init__(classes, **options)
        self.seeing = torch.nn.Linear(2, 2)
        self.register_state_dict_post_hook(Holder._forget)

    @staticmethod
    def _forget(_module: Any, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
        for key in [key for key in state if key.startswith(f"{prefix}seeing.")]:
            del state[key]

    def fill_backbone(self) -> None:
        if self.filled:
            self.seeing.load_state_dict({"weight": torch.eye(2), "bias": torch.ones(2)}, assign=True)


class Trainer(AVSDN):
    """Holds a network that was trained with it: nothing may be put in its place."""

    def __init__(self, classes: list[str], **options: Any) -> None:
        super().__init__(classes, **options)
        self.seeing = torch.nn.Linear(2, 2)

    def fill_backbone(self) -> NoReturn:
        pytest.fail("trained weights were thrown away")


def test_a_trained_backbone_is_stored_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "Trainer", Trainer)
    model = Trainer(CLASSES, audio_dim=128, visual_dim=1280, hidden_dim=4, preprocess=PREPROCESS)
    folder = bundle.write(tmp_path / "b", model, recipe=RECIPE)
    assert torch.equal(bundle.read(folder).seeing.weight, model.seeing.weight)
    file = tmp_path / "best.ckpt"
    torch.save(checkpoint(model, avzoo_model="Trainer"), file)
    assert torch.equal(bundle.read_training_checkpoint(file).seeing.weight, model.seeing.weight)


def test_a_frozen_backbone_that_a_model_holds_is_brought_and_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "Holder", Holder)
    sizes = {"audio_dim": 128, "visual_dim": 1280, "hidden_dim": 4}
    model = Holder(CLASSES, **sizes, preprocess=PREPROCESS)
    folder = bundle.write(tmp_path / "b", model, recipe=RECIPE)
    assert not [key for key in weights(folder) if key.startswith("seeing")]
    assert bundle.read(folder).seeing.weight.tolist() == [[1, 0], [0, 1]]
    reweigh(folder, seeing__weight=torch.zeros(2, 2))
    refused(folder, "tensor 'seeing.weight'", "no such tensor")
    reweigh(folder, seeing__weight=None)
    file = tmp_path / "best.ckpt"
    torch.save(checkpoint(model, avzoo_model="Holder"), file)
    assert bundle.read_training_checkpoint(file).seeing.bias.tolist() == [1, 1]
    monkeypatch.setattr(Holder, "filled", False)
    refused(folder, "needs 'seeing.weight', which no bundle and no backbone holds")


# -- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in bundle.FILES if name not in ("config.json", "timeline.png")])
@pytest.mark.parametrize("own", [True, False])
def test_a_changed_file_is_refused(name: str, own: bool, good: Path) -> None:
    expected = None if own else bundle.manifest(good)
    file = good / name
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    refused(good, name, "sha256", expected=expected)
    file.write_bytes(content + b"x")
    refused(good, name, f"{len(content) + 1} bytes, expected {len(content)}", expected=expected)
    file.unlink()
    refused(good, name, expected=expected)


def test_a_config_that_is_not_the_registrys_is_refused(good: Path) -> None:
    expected = bundle.manifest(good)
    assert bundle.read(good, expected).classes == CLASSES
    edit(good, classes=CLASSES[::-1])
    refused(good, "config.json", "not the file that was published", expected=expected)
    del expected["config.json"]
    refused(good, "config.json", "nothing vouches for it", expected=expected)


@pytest.mark.parametrize("name", ["model.safetensors", "golden.safetensors", "README.md"])
def test_a_file_that_no_manifest_names_is_refused(name: str, good: Path) -> None:
    files = {key: facts for key, facts in config(good)["files"].items() if key != name}
    refused(edit(good, files=files), name, "nothing vouches for it")


@pytest.mark.parametrize("facts", [None, 5, [], {}, {"size": "x", "sha256": 3}, {"size": [0] * 10_000}], ids=range(6))
def test_a_manifest_of_another_form_is_refused(facts: object, good: Path) -> None:
    refused(edit(good, files={**config(good)["files"], "README.md": facts}), "README.md")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_folder_without_them_is_no_bundle(name: str, good: Path) -> None:
    (good / name).unlink()
    refused(good, f"holds no {name}")
    (good / name).mkdir()
    refused(good, f"holds no {name}")


def test_what_is_no_folder_is_refused(good: Path, tmp_path: Path) -> None:
    refused(tmp_path / "nothing", "is no folder")
    refused(good / "README.md", "is no folder")


@pytest.mark.parametrize(
    "name",
    [
        "modeling.py",
        "MODEL.PY",
        "deep/er/hook.py",
        "data.pkl",
        "weights.pt",
        "pytorch_model.bin",
        "best.ckpt",
        "lib.so",
        "scaler.joblib",
        "other.safetensors",
        "model-00002-of-00002.safetensors",
        "deep/model.safetensors",
    ],
)
def test_code_pickles_and_other_weights_are_refused(name: str, good: Path) -> None:
    expected = bundle.manifest(good)
    (good / name).parent.mkdir(parents=True, exist_ok=True)
    (good / name).write_bytes(b"")
    refused(good, name, "no code or pickles")
    refused(good, name, "no code or pickles", expected=expected)


@pytest.mark.parametrize("name", ["../elsewhere/secret", "/etc/passwd", "sub/../model.safetensors", "", "x" * 100_000])
def test_names_outside_the_folder_are_refused(name: str, good: Path, secret: Path) -> None:
    facts = {"size": 6, "sha256": sha256(secret)}
    refused(edit(good, files={**config(good)["files"], name: facts}), "does not belong into a bundle")


@pytest.mark.parametrize("name", ["README.md", "golden.safetensors", "model.safetensors", "config.json", "notes.txt"])
def test_a_link_out_of_the_folder_is_refused(name: str, good: Path, secret: Path) -> None:
    if (good / name).exists():
        secret.write_bytes((good / name).read_bytes())  # the right bytes do not make it right
        (good / name).unlink()
    (good / name).symlink_to(secret)
    refused(good, name, "link out of the bundle")


def test_a_folder_that_links_out_is_refused(good: Path, secret: Path) -> None:
    (good / "extra").symlink_to(secret.parent, target_is_directory=True)
    refused(good, "extra", "link out of the bundle")


def test_links_beside_the_bundle_and_in_circles_are_refused(good: Path) -> None:
    beside = good.parent / "blobs" / "x"  # a Hub cache's blobs are believed only from its snapshots
    beside.parent.mkdir()
    shutil.move(good / "README.md", beside)
    (good / "README.md").symlink_to(beside)
    refused(good, "README.md", "link out of the bundle")
    (good / "README.md").unlink()
    (good / "README.md").symlink_to(good / "README.md")
    refused(good, "README.md")


def test_a_bundle_may_itself_be_reached_through_a_link(good: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(good, target_is_directory=True)
    assert bundle.read(tmp_path / "latest").classes == CLASSES


def test_a_pipe_in_place_of_a_file_does_not_hang(good: Path) -> None:
    (good / "model.safetensors").unlink()
    os.mkfifo(good / "model.safetensors")
    refused(good, "holds no model.safetensors")


# -- config.json -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"clases": []}, ("unknown key 'clases'", "did you mean 'classes'?")),
        ({"auto_map": {"AutoModel": "evil--x"}}, ("unknown key 'auto_map'",)),
        ({"x" * 100_000: 1}, ("unknown key",)),
        ({"model": "AVSND"}, ("unknown model 'AVSND'", "did you mean 'AVSDN'?")),
        ({"model": "os.system"}, ("unknown model 'os.system'",)),
        ({"model": "y" * 100_000}, ("unknown model",)),
        ({"model": ["AVSDN"]}, ("model is ['AVSDN'], expected str",)),
        ({"format": 2}, ("format 2", "reads format 1", "upgrade avzoo")),
        ({"format": None}, ("format None",)),
        ({"format": True}, ("format is True, expected int",)),
        ({"format": "z" * 100_000}, ("format",)),
        ({"task": "clip"}, ("task is 'clip'", "'segment'")),
        ({"classes": ["a", 5, "background"]}, ("classes must be names",)),
        ({"classes": ["a", ["b"], "background"]}, ("classes must be names",)),
        ({"classes": ["a", "\x1b[2Jb", "background"]}, ("classes must be names",)),
        ({"classes": ["a", "\ud800", "background"]}, ("classes must be names",)),
        ({"classes": ["a", "", "background"]}, ("classes must be names",)),
        ({"classes": ["a", "a", "background"]}, ("distinct",)),
        ({"classes": []}, ("two or more",)),
        ({"classes": {"a": 1}}, ("expected list",)),
        ({"preprocess": None}, ("preprocess is None, expected dict",)),
        ({"backbones": {}}, ("trained on backbones {}", "avzoo-audio")),
        ({"backbones": {"avzoo-audio": "sha256:00"}}, ("sha256:00", "this avzoo has")),
        ({"backbones": {**dict.fromkeys(PREPROCESS.values(), "sha256:00"), "extra": "x"}}, ("extra",)),
        ({"files": {}}, ("nothing vouches",)),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_config_of_another_make_is_refused(changes: dict[str, Any], words: tuple[str, ...], good: Path) -> None:
    refused(edit(good, **changes), *words)


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("hidden_dim", 10**9, "cannot be built|parameters, more than"),
        ("hidden_dim", 10**5, "parameters, more than"),
        ("hidden_dim", 10**12, "hidden_dim = 1e+12 is out of range"),
        ("hidden_dim", -(10**12), "out of range"),
        ("hidden_dim", -4, "cannot be built"),
        ("hidden_dim", 0, "cannot be built"),
        ("hidden_dim", 4.5, "hidden_dim is of type float, expected int"),
        ("hidden_dim", "4", "expected int"),
        ("hidden_dim", [4], "expected int"),
        ("hidden_dim", None, "expected int"),
        ("hidden_dim", True, "expected int"),
        ("bidirectional", 1, "expected bool"),
        ("feature_dropout", "x", "expected float"),
        ("audio_dim", 2**31 - 1, "cannot be built|parameters, more than"),
        ("hiden_dim", 4, "hiden_dim"),
        ("classes", ["a", "b"], "classes"),
        ("self", 1, "self"),
        ("__class__", "x", "__class__"),
        ("loss", "evil", "loss is 'evil'"),
        ("loss", {"a": 1}, "loss is of type dict, expected str"),
        ("lr", 1e300, "lr = 1e+300 is out of range"),
    ],
    ids=str,
)
def test_init_arguments_that_make_no_network_are_refused(key: str, value: object, word: str, good: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    message = refused(edit(good, init_args={**config(good)["init_args"], key: value}))
    assert any(option in message for option in word.split("|")), message
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("fsp", 1.0, ("fsp", "did you mean 'fps'?")),
        ("visual_backbone", "tf_efficientnet_lit0", ("did you mean 'tf_efficientnet_lite0'",)),
        ("visual_backbone", "hf-hub:evil/model", ("hf-hub:evil/model", "no backbone")),
        ("visual_backbone", "resnet152.tv_in1k", ("trained on backbones", "resnet152")),
        ("visual_backbone", "/etc/passwd", ("no backbone",)),
        ("audio_backbone", "tf_efficientnet_lite0", ("which reads pictures",)),
        ("audio_backbone", 5, ("is of type int, expected str",)),
        ("audio_backbone", ["vggish"], ("expected str",)),
        ("size", 10**12, ("size = 1e+12 is out of range",)),
        ("seconds", "ten", ("expected float",)),
        ("mels", "64", ("mels is of type str, expected int",)),
        ("segments", 0, ("cannot be built", "segments")),
        ("segments", 10**6, ("segments",)),
        ("mean", 5, ("expected list",)),
        ("mean", ["x"], ("cannot be built",)),
    ],
    ids=str,
)
def test_signal_numbers_of_another_make_are_refused(
    key: str, value: object, words: tuple[str, ...], good: Path
) -> None:
    refused(edit(good, preprocess={**config(good)["preprocess"], key: value}), *words)


@pytest.mark.parametrize("number", ["Infinity", "-Infinity", "NaN", "1e999", "-1e999", "9" * 5000, "9" * 400])
@pytest.mark.parametrize("key", ["lr", "hidden_dim"])
def test_numbers_that_are_none_are_refused(number: str, key: str, good: Path) -> None:
    document = config(good)
    document["init_args"][key] = "HERE"
    (good / "config.json").write_text(json.dumps(document).replace('"HERE"', number))
    refused(good, "config.json", number[:8])


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"\xff\xfe\x00",
        b"\x80\x04\x95",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"format": 1, "init_args": {"lr": ' + b"[" * 900 + b"]" * 900 + b"}}",
        b'{"format": 1, "format": 1}',
    ],
    ids=lambda text: str(text[:20]),
)
def test_what_is_no_json_object_is_refused(text: bytes, good: Path) -> None:
    (good / "config.json").write_bytes(text)
    refused(good, "config.json")


@pytest.mark.parametrize("depth", [100, 500, 900, 940, 960, 980, 990])
@pytest.mark.parametrize("keys", [["model"], ["format"], ["init_args", "loss"], ["backbones", "x"], ["files", "x"]])
def test_values_nested_deep_are_refused(depth: int, keys: list[str], good: Path) -> None:
    document = config(good)
    inner = document if len(keys) == 1 else document[keys[0]]
    inner[keys[-1]] = "HERE"
    (good / "config.json").write_text(json.dumps(document).replace('"HERE"', "[" * depth + "]" * depth))
    refused(good)


def test_a_config_of_2_mb_is_refused_unread(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(good, commit="x" * 2_000_000)
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("it was read"))
    monkeypatch.setattr(Path, "read_text", lambda _, **__: pytest.fail("it was read"))
    refused(good, "more than 1048576")


def test_as_many_classes_as_a_config_can_hold_are_refused_at_once(good: Path) -> None:
    refused(edit(good, classes=[str(index) for index in range(90_000)]), "90000 classes, more than 10000")


# -- model.safetensors -----------------------------------------------------------------------------------------------


def test_missing_unexpected_and_misshapen_tensors_are_refused(good: Path) -> None:
    reweigh(good, classifier__bias=None)
    refused(good, "tensor 'classifier.bias'", "it is missing", "[3]")
    reweigh(good, classifier__bias=torch.zeros(4))
    refused(good, "tensor 'classifier.bias'", "[4]", "wants [3]")
    reweigh(good, classifier__bias=torch.zeros(3, 1))
    refused(good, "[3, 1]", "wants [3]")
    reweigh(good, classifier__bias=torch.zeros(3), backdoor=torch.zeros(2))
    refused(good, "tensor 'backdoor'", "no such tensor")
    reweigh(good, backdoor=None)
    assert bundle.read(good).classes == CLASSES


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64])
def test_tensors_of_another_kind_are_refused(dtype: torch.dtype, good: Path) -> None:
    reweigh(good, classifier__bias=torch.zeros(3, dtype=dtype))
    refused(good, "'classifier.bias'", str(dtype), "torch.float32")


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3", "EVIL", 5, None])
def test_types_that_torch_does_not_have_are_refused(dtype: object, good: Path) -> None:
    head, data = header(good)
    head["classifier.bias"]["dtype"] = dtype
    refused(put(good, head, data), "model.safetensors")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.float32])
def test_other_floats_come_back_as_float32(dtype: torch.dtype, good: Path) -> None:
    reweigh(good, classifier__bias=torch.ones(3, dtype=dtype))
    bias = bundle.read(good).classifier.bias
    assert bias.dtype == torch.float32
    assert bias.tolist() == [1, 1, 1]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e300])
def test_weights_that_are_not_finite_are_refused(value: float, good: Path) -> None:
    reweigh(good, classifier__bias=torch.tensor([0.0, value, 0.0], dtype=torch.float64))
    refused(good, "'classifier.bias'", "NaN or infinite")


@pytest.mark.parametrize("length", [10 << 30, 2**63 - 1, 2**64 - 1, (1 << 24) + 1])
def test_a_header_that_claims_gigabytes_is_refused(length: int, good: Path) -> None:
    head, data = header(good)
    refused(put(good, head, data, length), f"claims {length} bytes")


def test_a_header_that_is_none_is_refused(good: Path) -> None:
    _, data = header(good)
    for text in (b"", b"x" * 50, b"\xff" * 50, b"[1, 2]", b"5", b'{"a": 5}', b"[" * 90_000, b'{"a": ' + b"9" * 5000):
        refused(put(good, text, data), "model.safetensors")
    for content in (b"", b"\1", struct.pack("<Q", 5)):
        (good / "model.safetensors").write_bytes(content)
        refused(reseal(good), "model.safetensors")


def test_a_tensor_named_twice_is_refused(good: Path) -> None:
    head, data = header(good)
    text = json.dumps(head)
    first = json.dumps({"classifier.bias": head["classifier.bias"]})[1:-1]
    refused(put(good, ("{" + first + ", " + text[1:]).encode(), data), "model.safetensors", "twice")


def offsets(head: dict[str, Any], key: str, begin: int, end: int) -> dict[str, Any]:
    return {**head, key: {**head[key], "data_offsets": [begin, end]}}


def test_offsets_that_lie_are_refused(good: Path) -> None:
    head, data = header(good)
    begin, end = head["classifier.weight"]["data_offsets"]
    for lie in (
        offsets(head, "classifier.weight", 0, end - begin),  # over another tensor
        offsets(head, "classifier.weight", begin, end + 2),  # longer than its shape
        offsets(head, "classifier.weight", end, begin),
        offsets(head, "classifier.weight", len(data), len(data) + end - begin),  # behind the end
        offsets(head, "classifier.weight", 2**62, 2**62 + end - begin),
        offsets(head, "classifier.weight", -24, 0),
    ):
        refused(put(good, lie, data), "model.safetensors")
    for lie in ([0.5, 24], "0", None, [0], [0, 24, 48]):
        head["classifier.weight"]["data_offsets"] = lie
        refused(put(good, head, data), "model.safetensors")


@pytest.mark.parametrize("shape", [[10**12, 10**12], [-3, -4], [3.0, 4.0], "3x4", None, [[3], 4], [4, 3]])
def test_shapes_that_lie_are_refused(shape: object, good: Path) -> None:
    head, data = header(good)
    head["classifier.weight"]["shape"] = shape
    refused(put(good, head, data), "model.safetensors")


def test_a_config_and_a_header_that_lie_together_are_refused_before_memory_is_taken(good: Path) -> None:
    """The decompression bomb of a format without compression: 1.6 GB described, a few kB there."""
    document = config(good)["init_args"]
    edit(good, init_args={**document, "hidden_dim": 10_000})
    with torch.device("meta"):
        wanted = network(hidden_dim=10_000).state_dict()
    head = {key: {"dtype": "F16", "shape": list(value.shape), "data_offsets": [0, 8]} for key, value in wanted.items()}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(put(good, head, b"\0" * 4096), "model.safetensors", "damaged")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


@pytest.mark.parametrize("keep", [0.999, 0.5, 0.01])
def test_a_truncated_file_is_refused(keep: float, good: Path) -> None:
    file = good / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * keep)])
    refused(good, "model.safetensors", "bytes, expected")
    refused(reseal(good), "model.safetensors")


@pytest.mark.parametrize(
    ("first", "after", "then", "read"),
    [
        ("published", 1, "changed", False),  # the last tensor is another
        ("changed", -1, "published", False),  # what was read is not what lies there in the end
        ("published", -1, "changed", True),  # what was read is what was published
    ],
)
def test_what_was_hashed_is_what_is_used(
    first: str, after: int, then: str, read: bool, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is written to while it is read: after one tensor, or after the last."""
    file = good / "model.safetensors"
    stored = {key: value.clone() for key, value in weights(good).items()}  # not the file's own pages
    content = file.read_bytes()
    versions = {"published": content, "changed": content[:-1] + bytes([content[-1] ^ 1])}
    seen: list[torch.Tensor] = []

    def meanwhile(value: torch.Tensor) -> bool:
        seen.append(value)
        if len(seen) == after % (len(stored) + 1):
            file.write_bytes(versions[then])
        return True

    monkeypatch.setattr(reading, "_is_finite", meanwhile)
    file.write_bytes(versions[first])
    if read:
        state = bundle.read(good).state_dict()
        assert all(torch.equal(value.float(), state[key]) for key, value in stored.items())
    else:
        refused(good, "not the file that was published")
    assert file.read_bytes() == versions[then]


def test_bytes_behind_the_tensors_are_refused(good: Path) -> None:
    head, data = header(good)
    refused(put(good, head, data + b"payload!"), "model.safetensors")


# -- checkpoints of training -----------------------------------------------------------------------------------------


def checkpoint(model: AVSDN, **changes: Any) -> dict[str, Any]:
    content = {
        "state_dict": model.state_dict(),
        "hyper_parameters": dict(model.hparams),
        "avzoo_model": "AVSDN",
        "epoch": 3,
        "optimizer_states": [],
    }
    return {key: value for key, value in {**content, **changes}.items() if value is not None}


def test_a_training_checkpoint_comes_back(tmp_path: Path) -> None:
    model = network(seed=5)
    file = tmp_path / "best.ckpt"
    torch.save(checkpoint(model), file)
    again = bundle.read_training_checkpoint(file)
    assert not again.training
    assert again.classes == CLASSES
    assert again.preprocess == model.preprocess
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())


def test_a_training_checkpoint_says_what_made_it(tmp_path: Path) -> None:
    file = tmp_path / "best.ckpt"
    torch.save(checkpoint(network(), avzoo=provenance.training()), file)
    assert bundle.training_facts(file) == (provenance.code_commit(), provenance.versions())
    assert bundle.read_training_checkpoint(file).classes == CLASSES
    for facts in (None, 5, {}, {"commit": 5, "versions": [1]}):
        torch.save(checkpoint(network(), avzoo=facts), file)
        assert bundle.training_facts(file) == ("", {})


def test_the_commit_is_that_of_the_repository_if_there_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert len(provenance.code_commit()) in (0, 40)
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "avzoo" / "provenance.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.code_commit.__wrapped__() == ""
    monkeypatch.setenv("PATH", "")
    assert provenance.code_commit.__wrapped__() == ""


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.marker),)


def test_a_checkpoint_with_code_is_not_executed(tmp_path: Path) -> None:
    file, marker = tmp_path / "best.ckpt", tmp_path / "owned"
    torch.save(checkpoint(network(), extra=Evil(marker)), file)
    with pytest.raises(BundleError, match="tensors and plain values alone") as caught:
        bundle.read_training_checkpoint(file)
    assert "weights_only" not in str(caught.value)  # nobody is told how to run it all the same
    torch.save(checkpoint(network(), extra=Evil(marker)), file, _use_new_zipfile_serialization=False)
    with pytest.raises(BundleError, match="it is no zip file"):
        bundle.read_training_checkpoint(file)
    file.write_bytes(pickle.dumps(Evil(marker)))
    with pytest.raises(BundleError, match="it is no zip file"):
        bundle.read_training_checkpoint(file)
    assert not marker.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"hello world\n", b"# lr: 1\n", b"lr: 0.1", b"h", b"t", b"(", b"GIF89a", b"PK\3\4junk", b"X\1\0\0\0\xff."],
)
def test_what_is_no_checkpoint_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "best.ckpt"
    file.write_bytes(content)
    with pytest.raises(BundleError, match=r"best\.ckpt is no checkpoint of `avzoo fit`: it is no zip file"):
        bundle.read_training_checkpoint(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("best/version", "3\n")
        archive.writestr("best/byteorder", "little")
        archive.writestr("best/data.pkl", content)
    with pytest.raises(BundleError, match=r"best\.ckpt is no checkpoint of `avzoo fit`"):
        bundle.read_training_checkpoint(file)


@pytest.mark.parametrize(
    "changes",
    [
        {"avzoo_model": None},
        {"avzoo_model": "Other"},
        {"avzoo_model": ["AVSDN"]},
        {"hyper_parameters": None},
        {"hyper_parameters": {"classes": ["a"]}},
        {"hyper_parameters": {"classes": CLASSES, "hiden_dim": 4}},
        {"hyper_parameters": [1]},
        {"state_dict": None},
        {"state_dict": {}},
        {"state_dict": {"x": torch.zeros(2)}},
        {"state_dict": 5},
    ],
    ids=str,
)
def test_a_checkpoint_of_another_make_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "best.ckpt"
    content = {**checkpoint(network()), **changes}
    torch.save({key: value for key, value in content.items() if value is not None}, file)
    with pytest.raises(BundleError, match=r"best\.ckpt is no checkpoint of `avzoo fit`"):
        bundle.read_training_checkpoint(file)
    torch.save([1, 2], file)
    with pytest.raises(BundleError, match="is no checkpoint"):
        bundle.read_training_checkpoint(file)


def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"nothing\.ckpt is not there: `avzoo fit` writes"):
        bundle.read_training_checkpoint(tmp_path / "nothing.ckpt")
