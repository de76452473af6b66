"""The registry, what a reference means, and the networks that its entries promise."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
import yaml

import avzoo
from avzoo import backbones, bundle, cli, hub, registry
from avzoo.data import ave
from avzoo.errors import AvzooError, BundleError, HubError, UnknownModelError
from avzoo.models import MODELS
from avzoo.registry import Ref, find, list_models, parse_ref, read_registry

SHA = "0123456789abcdef" * 4
FILES = {name: {"size": 3, "sha256": SHA} for name in ("config.json", "model.safetensors")}
ENTRY: dict[str, Any] = {
    "model": "AVSDN",
    "task": "segment",
    "about": "It does",
    "dataset": "own",
    "recipe": "own",
    "features": "own extraction",
    "classes": ["a", "background"],
}
PUBLISHED: dict[str, Any] = {
    **ENTRY,
    "weights": "hub",
    "licence": "Apache-2.0",
    "files": FILES,
    "hub": {"repo": "me/own", "revision": "0" * 40},
    "metrics": [{"name": "segment_accuracy", "split": "test", "mean": 0.5, "sd": 0.1, "seeds": 5, "unit": "share"}],
    "paper": {"name": "segment_accuracy", "split": "test", "value": 0.754},
    "sources": ["of my own"],
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        pytest.fail("the network was used")

    torch.set_num_threads(1)
    monkeypatch.setattr("socket.socket.connect", refuse)


def write(folder: Path, document: object) -> Path:
    file = folder / "mine.yaml"
    file.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return file


# -- reading ---------------------------------------------------------------------------------------------------------


def test_entries_without_and_with_weights_are_read(tmp_path: Path) -> None:
    entries = read_registry(write(tmp_path, {"own": ENTRY, "own-2": PUBLISHED})).checkpoints
    assert list(entries) == ["own", "own-2"]
    assert entries["own"].weights is None
    assert entries["own"].classes == ("a", "background")
    assert entries["own"].size == 0
    assert entries["own"].train_command == "avzoo fit --config recipes/own.yaml"
    assert entries["own-2"].size == 6
    assert entries["own-2"].metrics[0]["mean"] == 0.5
    assert entries["own-2"].sources == ("of my own",)


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in PUBLISHED.items() if name != key}


WRONG: list[tuple[str, Any, str]] = [
    ("*", None, "expected keys"),
    ("*", ["model"], "expected keys"),
    ("licnce", {**PUBLISHED, "licnce": "MIT"}, "is unknown; did you mean 'licence'?"),
    ("name", {**PUBLISHED, "name": "x"}, "is unknown"),
    ("5", {**PUBLISHED, 5: 5}, "is unknown"),
    *((key, without(key), "expected a text, got None") for key in ENTRY if key != "classes"),
    ("model", {**ENTRY, "model": ["AVSDN"]}, "expected a text"),
    ("about", {**ENTRY, "about": ""}, "expected a text"),
    ("task", {**ENTRY, "task": "video"}, "expected 'segment' or 'clip', got 'video'"),
    ("weights", {**PUBLISHED, "weights": "s3"}, "expected 'package', 'hub' or null, got 's3'"),
    ("weights", {**PUBLISHED, "weights": True}, "expected 'package', 'hub' or null, got True"),
    ("weights", {**PUBLISHED, "weights": []}, "expected 'package', 'hub' or null, got []"),
    ("classes", without("classes"), "expected a list of two or more names, got None"),
    ("classes", {**ENTRY, "classes": "drone"}, "expected a list"),
    ("classes", {**ENTRY, "classes": []}, "two or more"),
    ("classes", {**ENTRY, "classes": ["a", False]}, "expected a list"),
    ("classes", {**ENTRY, "classes": ["a", "b", "a"]}, "'a' occurs twice"),
    ("licence", without("licence"), "is required once there are weights"),
    ("licence", {**ENTRY, "licence": 5}, "expected a text, got 5"),
    ("files", without("files"), "is required once there are weights"),
    ("files", {**PUBLISHED, "files": {}}, "is required once there are weights"),
    ("files", {**ENTRY, "files": ["a"]}, "expected a dict"),
    ("files.config.json", {**PUBLISHED, "files": {"model.safetensors": FILES["config.json"]}}, "is required"),
    ("files.model.safetensors", {**PUBLISHED, "files": {"config.json": FILES["config.json"]}}, "is required"),
    ("files.README.md", {**PUBLISHED, "files": {**FILES, "README.md": 5}}, "expected {size: bytes"),
    ("files.x", {**ENTRY, "files": {"x": {"size": "many", "sha256": SHA}}}, "expected {size: bytes"),
    ("files.x", {**ENTRY, "files": {"x": {"size": 0, "sha256": SHA}}}, "expected {size: bytes"),
    ("files.x", {**ENTRY, "files": {"x": {"size": True, "sha256": SHA}}}, "expected {size: bytes"),
    ("files.x", {**ENTRY, "files": {"x": {"size": 1, "sha256": SHA[:-1]}}}, "64 hex digits"),
    ("files.x", {**ENTRY, "files": {"x": {"size": 1, "sha256": SHA.upper()}}}, "64 hex digits"),
    ("hub.repo", without("hub"), "expected owner/name, got None"),
    ("hub.repo", {**PUBLISHED, "hub": {"revision": "0" * 40}}, "expected owner/name"),
    ("hub.repo", {**PUBLISHED, "hub": {"repo": "../..", "revision": "0" * 40}}, "expected owner/name"),
    ("hub.repo", {**PUBLISHED, "weights": "package", "hub": {"repo": "me", "revision": "0" * 40}}, "owner/name"),
    ("hub.revision", {**PUBLISHED, "hub": {"repo": "me/own", "revision": "main"}}, "40 hex digits, got 'main'"),
    ("hub.revision", {**PUBLISHED, "hub": {"repo": "me/own"}}, "40 hex digits, got None"),
    ("hub", {**PUBLISHED, "hub": "me/own"}, "expected a dict"),
    ("metrics", {**PUBLISHED, "metrics": {"mean": 1}}, "expected a list"),
    ("metrics", {**PUBLISHED, "metrics": [5]}, "mean being a number, got 5"),
    ("metrics", {**PUBLISHED, "metrics": [{"name": "a", "split": "test", "mean": 0.5}]}, "needs mean, name, seeds"),
    ("metrics", {**PUBLISHED, "metrics": [{"name": "a", "split": "t", "mean": "high", "seeds": 1}]}, "a number"),
    ("paper", {**PUBLISHED, "paper": {"name": "segment_accuracy", "value": 0.7}}, "needs name, split, value"),
    ("paper", {**PUBLISHED, "paper": {"name": "a", "split": "test", "value": None}}, "value being a number"),
    ("sources", {**PUBLISHED, "sources": "me"}, "expected a list"),
]


@pytest.mark.parametrize(("key", "entry", "words"), WRONG, ids=lambda value: str(value)[:30])
def test_an_error_names_file_entry_and_key(key: str, entry: Any, words: str, tmp_path: Path) -> None:
    file = write(tmp_path, {"fine": ENTRY, "own": entry})
    with pytest.raises(AvzooError) as caught:
        read_registry(file)
    assert str(caught.value).startswith(f"{file}: entry 'own', key {key!r}: ")
    assert words in str(caught.value)


@pytest.mark.parametrize("name", [5, True, None, "with/slash", "..", ".hidden", "hf:me/x", "Capital", "two words", ""])
def test_names_that_no_reference_can_mean_are_refused(name: object, tmp_path: Path) -> None:
    with pytest.raises(AvzooError, match=re.escape(f"entry {name!r}, key 'name': expected small letters")):
        read_registry(write(tmp_path, {name: ENTRY}))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected names with entries below them, got NoneType"),
        ("- own", "got list"),
        ("own: {", "cannot be read as a registry"),
        ("own: !!python/object/apply:os.getcwd []", "cannot be read as a registry"),
        ("own: {model: A}\nown: {model: B}", "'own' is given twice"),
        ("own:\n  model: A\n  task: clip\n  model: B", "'model' is given twice"),
    ],
)
def test_a_file_that_is_no_registry_is_refused(text: str, words: str, tmp_path: Path) -> None:
    file = write(tmp_path, text)
    with pytest.raises(AvzooError, match=re.escape(words)) as caught:
        read_registry(file)
    assert str(file) in str(caught.value)


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(AvzooError, match=r"mine\.yaml cannot be read as a registry"):
        read_registry(tmp_path / "mine.yaml")
    (tmp_path / "mine.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(AvzooError, match=r"mine\.yaml cannot be read as a registry"):
        read_registry(tmp_path / "mine.yaml")


def test_anchors_and_merges_are_yaml_as_usual(tmp_path: Path) -> None:
    text = yaml.safe_dump({"own": ENTRY}).replace("own:", "own: &own", 1) + "other:\n  <<: *own\n  about: Another\n"
    assert read_registry(write(tmp_path, text)).checkpoints["other"].about == "Another"


# -- backbones -------------------------------------------------------------------------------------------------------

BACKBONE: dict[str, Any] = {
    "kind": "image",
    "about": "It sees",
    "architecture": "test_resnet",
    "source": "hf:me/eyes",
    "revision": "0" * 40,
    "sha256": SHA,
    "licence": "MIT",
    "features": 96,
    "parameters": 376_320,
    "size": 160,
    "input": {"mean": [0.5, 0.5, 0.5], "size": 64},
}
EARS = {
    **{key: BACKBONE[key] for key in ("about", "sha256", "licence", "features", "parameters")},
    **{"kind": "audio", "architecture": "vggish", "source": "file:ears.safetensors"},
}


def seeing(**changes: Any) -> dict[str, Any]:
    return {key: value for key, value in {**BACKBONE, **changes}.items() if value != "absent"}


WRONG_BACKBONES: list[tuple[str, Any, str]] = [
    ("*", None, "expected keys"),
    ("weights", seeing(weights="x"), "is unknown"),
    ("kind", seeing(kind="video"), "expected 'audio' or 'image', got 'video'"),
    ("about", seeing(about="absent"), "expected a text, got None"),
    ("architecture", seeing(architecture=5), "expected a text, got 5"),
    ("architecture", {**EARS, "architecture": "resnet50"}, "expected 'avzoo-audio' or 'vggish' for sound"),
    ("source", seeing(source="../eyes.pth"), "expected package:FILE"),
    ("source", seeing(source="http://x.org/eyes.pth"), "expected package:FILE"),
    ("source", seeing(source="file:../../eyes.pth"), "expected package:FILE"),
    ("source", seeing(source="hf:me"), "expected package:FILE"),
    ("sha256", seeing(sha256="absent"), "or null where nobody states it, got 'nothing'"),
    ("sha256", seeing(sha256=SHA[:8]), "expected 64 hex digits or null"),
    ("sha256", seeing(sha256=None), "may be null for https:// alone"),
    ("licence", seeing(licence="absent"), "expected a text, or null"),
    ("revision", seeing(revision="main"), "expected a commit of 40 hex digits, got 'main'"),
    ("revision", seeing(revision="absent"), "expected a commit of 40 hex digits, got None"),
    ("revision", seeing(source="file:eyes.pth"), "expected none but with hf:"),
    ("features", seeing(features=0), "expected a number from 1, got 0"),
    ("parameters", seeing(parameters="many"), "expected a number from 1"),
    ("size", seeing(size="absent"), "expected a number from 1, got None"),
    ("input", seeing(input={"mels": 64}), "expected size, interpolation, mean, std, for images alone"),
    ("input", {**EARS, "input": {"size": 64}}, "for images alone"),
    ("input.mean", seeing(input={"mean": [0.5]}), "got [0.5]"),
    ("input.std", seeing(input={"std": 0.5}), "got 0.5"),
    ("input.size", seeing(input={"size": "64"}), "got '64'"),
]


@pytest.mark.parametrize(("key", "entry", "words"), WRONG_BACKBONES, ids=lambda value: str(value)[:30])
def test_an_error_in_a_backbone_names_file_entry_and_key(key: str, entry: Any, words: str, tmp_path: Path) -> None:
    file = write(tmp_path, {"fine": ENTRY, "backbones": {"ears": EARS, "eyes": entry}})
    with pytest.raises(AvzooError) as caught:
        read_registry(file)
    assert str(caught.value).startswith(f"{file}: backbone 'eyes', key {key!r}: ")
    assert words in str(caught.value)


def test_backbones_stand_apart_from_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, {"own": ENTRY, "backbones": {"eyes": BACKBONE, "ears": EARS}})
    found = read_registry(file)
    assert (list(found.checkpoints), sorted(found.backbones)) == (["own"], ["ears", "eyes"])
    assert found.backbones["eyes"].input == {"mean": (0.5, 0.5, 0.5), "size": 64}
    assert "eyes" not in registry.backbones()
    monkeypatch.setenv("AVZOO_REGISTRY", str(file))
    assert {"eyes", "ears", "vggish"} <= registry.backbones().keys()
    assert "eyes" not in list_models()
    with pytest.raises(AvzooError, match="backbones: expected names with entries below them, got list"):
        read_registry(write(tmp_path, {"backbones": ["eyes"]}))
    write(tmp_path, {"backbones": {"vggish": EARS}})
    with pytest.raises(AvzooError, match="entry 'vggish' has a name of avzoo's own"):
        registry.backbones()


@pytest.mark.parametrize("name", registry.backbones())
def test_every_backbone_builds_and_is_what_its_metadata_says(name: str) -> None:
    entry = registry.backbones()[name]
    known = backbones.find(name)
    network = backbones.build_empty(name)
    assert (known.kind, known.licence) == (entry.kind, entry.licence)
    assert backbones.feature_dim(name) == entry.features
    assert sum(parameter.numel() for parameter in network.parameters()) == entry.parameters
    if entry.kind == "image":
        assert known.input["size"] == entry.size
        shape = (1, 3, entry.size, entry.size)
    else:
        shape = (1, 1, known.input["mels"], known.input["frames"])
    with torch.device("meta"):
        assert network.eval()(torch.zeros(shape)).shape == (1, entry.features)


def test_list_shows_backbones_apart(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["list", "--backbones"])
    said = capsys.readouterr().out
    assert "vgg16.places365" in said
    assert "avsdn" not in said
    cli.main(["list", "--backbones", "vgg16.*", "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["name"] for row in rows] == ["vgg16.tv_in1k", "vgg16.places365"]
    assert rows[0]["sha256"] == registry.backbones()["vgg16.tv_in1k"].sha256
    with pytest.raises(UnknownModelError, match="no backbone's name matches 'nothing\\*'"):
        cli._run(["list", "--backbones", "nothing*"])


# -- finding ---------------------------------------------------------------------------------------------------------


def test_list_models_takes_shell_patterns() -> None:
    assert list_models() == sorted(registry.entries())
    assert {"avsdn-ave", "avsdn-ave-weak", "avsdn-avemix"} <= set(list_models("avsdn*"))
    assert list_models("avsdn-ave") == ["avsdn-ave"]
    assert list_models("avsdn-av?") == ["avsdn-ave"]
    assert list_models("*[xk]") == [name for name in list_models() if name[-1] in "xk"]
    assert list_models("nothing*") == []
    assert avzoo.list_models("avsdn-ave") == ["avsdn-ave"]


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UnknownModelError, match=r"called 'avsdn-avmix'; did you mean 'avsdn-avemix'\?"):
        avzoo.load("avsdn-avmix")
    with pytest.raises(UnknownModelError, match=r"called 'resnet' \(`avzoo list` shows all: .*avsdn-ave"):
        avzoo.load("resnet")
    with pytest.raises(UnknownModelError, match="did you mean"):
        avzoo.load("avsdn-avmix", pretrained=False)


COMMIT = "0123456789" * 4


@pytest.mark.parametrize(
    ("given", "paths", "meant"),
    [
        ("avsdn-ave", False, Ref(name="avsdn-ave")),
        ("avsdn-ave", True, Ref(name="avsdn-ave")),
        (Path("avsdn-ave"), False, Ref(folder=Path("avsdn-ave"))),
        (Path("runs/best"), True, Ref(folder=Path("runs/best"))),
        ("runs/best", True, Ref(folder=Path("runs/best"))),
        ("./best", True, Ref(folder=Path("best"))),
        (".", True, Ref(folder=Path())),
        ("/tmp/best", True, Ref(folder=Path("/tmp/best"))),
        (f"hf:me/my-model.v2@{COMMIT}", False, Ref(repo="me/my-model.v2", revision=COMMIT)),
        (f"hf:me/my-model@{COMMIT}", True, Ref(repo="me/my-model", revision=COMMIT)),
        ("hf:me/my-model", False, Ref(repo="me/my-model")),
    ],
    ids=str,
)
def test_what_a_reference_means(given: str | Path, paths: bool, meant: Ref) -> None:
    assert parse_ref(given, paths=paths) == meant


@pytest.mark.parametrize("given", ["runs/best", "./best", "..", "/tmp/best", "me/my-model", r"C:\best", ".hidden"])
def test_a_text_that_looks_like_a_folder_is_told_both_spellings(given: str) -> None:
    with pytest.raises(UnknownModelError) as caught:
        avzoo.load(given)
    assert f"Path({given!r})" in str(caught.value)
    assert "hf:owner/repo@commit" in str(caught.value)


@pytest.mark.parametrize(
    "given", ["hf:", "hf:me", "hf:a/b/c", "hf:@x", "hf:../..@x", "hf:me/../x@y", "hf:me /x", "hf:/x"]
)
@pytest.mark.parametrize("paths", [True, False])
def test_a_malformed_hub_reference_is_refused(given: str, paths: bool) -> None:
    with pytest.raises(UnknownModelError, match=r"expected hf:owner/repo@commit"):
        parse_ref(given, paths=paths)


@pytest.mark.parametrize("revision", ["", "@", "@main", "@v1.0", "@0123456", f"@{COMMIT}0", f"@{COMMIT[:-1]}G"])
def test_a_hub_reference_needs_a_whole_commit(revision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_present", lambda *_: "it moves")  # which would ask the Hub
    with pytest.raises(HubError, match="40 hex digits"):
        avzoo.load(f"hf:me/model{revision}")


@pytest.mark.parametrize("repo", ["me/a..b", "me/a--b", "me/" + "x" * 100, "me/x.git"])
def test_a_name_that_no_repository_can_have_is_an_error_of_ours(repo: str) -> None:
    with pytest.raises(HubError, match="is no name of a Hub repository"):
        avzoo.load(f"hf:{repo}@{COMMIT}")


# -- loading ---------------------------------------------------------------------------------------------------------


def unpublished() -> list[str]:
    return [name for name in list_models() if find(name).weights is None]


@pytest.mark.parametrize("name", ["avsdn-ave", "avsdn-ave-weak"])
def test_a_name_without_weights_shows_how_to_train_it(name: str) -> None:
    if name not in unpublished():
        pytest.skip("its weights are published now")
    for revision in (None, COMMIT):
        with pytest.raises(BundleError) as caught:
            avzoo.load(name, revision=revision)
        assert f"{name} has no published weights" in str(caught.value)
        assert f"`avzoo fit --config recipes/{name}.yaml`" in str(caught.value)
        assert f"avzoo.load({name!r}, pretrained=False)" in str(caught.value)


def test_random_weights_are_of_the_recipes_network() -> None:
    model = avzoo.load("avsdn-ave", pretrained=False)
    assert sum(p.numel() for p in model.parameters()) == 2_497_693
    assert not model.training
    assert model.name == "avsdn-ave"
    assert avzoo.load("avsdn-ave-weak", pretrained=False).weak
    with torch.no_grad():
        assert model(torch.zeros(1, 10, 128), torch.zeros(1, 10, 2048)).shape == (1, 10, 29)


def test_only_a_name_has_a_recipe_and_a_folder_no_revision(tmp_path: Path) -> None:
    for given in (tmp_path, f"hf:me/model@{COMMIT}"):
        with pytest.raises(UnknownModelError, match="pretrained=False builds the recipe of a name"):
            avzoo.load(given, pretrained=False)
    with pytest.raises(HubError, match="is a folder and has no revision"):
        avzoo.load(tmp_path, revision=COMMIT)


def test_a_package_has_no_other_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = registry.Checkpoint(name="own", **{**PUBLISHED, "weights": "package", "hub": {}})
    monkeypatch.setattr(registry, "find", lambda *_: entry)
    with pytest.raises(HubError, match="own ships inside the package and has no other revision"):
        hub.locate(Ref(name="own"), COMMIT)
    assert hub.locate(Ref(name="own")) == hub.Located(registry.PACKAGE / "weights" / "own", FILES)


def test_the_registrys_hashes_go_with_its_own_commit_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    entry = registry.Checkpoint(name="own", **PUBLISHED)
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(registry, "find", lambda *_: entry)
    monkeypatch.setattr(hub, "_download", lambda repo, revision: asked.append((repo, revision)) or tmp_path)
    assert hub.locate(Ref(name="own")) == hub.Located(tmp_path, FILES)
    assert hub.locate(Ref(name="own"), COMMIT) == hub.Located(tmp_path, None)
    assert hub.locate(Ref(repo="a/b", revision=COMMIT)) == hub.Located(tmp_path, None)
    assert asked == [("me/own", "0" * 40), ("me/own", COMMIT), ("a/b", COMMIT)]


# -- every entry is what it says -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list_models())
def test_every_entry_builds_and_is_what_its_metadata_says(name: str) -> None:
    entry = find(name)
    recipe = yaml.safe_load(registry.asset(f"recipes/{entry.recipe}.yaml").read_text())
    model = avzoo.load(name, pretrained=False)
    assert type(model) is MODELS[entry.model]
    assert recipe["model"]["name"] == entry.model
    assert model.task == entry.task
    assert tuple(model.classes) == entry.classes
    for key, value in recipe["preprocess"].items():
        assert getattr(model.preprocess, key) == value
    if entry.task == "segment":
        assert entry.classes[-1] == "background"
    if entry.dataset == "AVE":
        assert entry.classes == (*ave.AVE_CLASSES, ave.BACKGROUND)
    if entry.weights == "package":
        folder = registry.PACKAGE / "weights" / name
        assert bundle.manifest(folder) == entry.files
        shipped = avzoo.load(name)
        assert (type(shipped), shipped.classes) == (type(model), model.classes)
        assert shipped.preprocess == model.preprocess
        shapes = {key: value.shape for key, value in model.state_dict().items()}
        assert {key: value.shape for key, value in shipped.state_dict().items()} == shapes
        assert bundle.golden_difference(folder, shipped) < bundle.GOLDEN_TOLERANCE


def test_every_recipe_of_an_entry_is_named_like_it() -> None:
    for name in list_models():
        assert find(name).recipe == name


def test_the_registry_needs_no_torch() -> None:
    program = (
        "import sys, avzoo; from avzoo import registry\n"
        "assert avzoo.list_models('avsdn*') and registry.find('avsdn-ave').train_command and registry.backbones()\n"
        "registry.parse_ref('hf:a/b')\n"
        "heavy = {'torch', 'lightning', 'timm', 'numpy', 'huggingface_hub', 'safetensors', 'av'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, env={"PYTHONPATH": root}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
