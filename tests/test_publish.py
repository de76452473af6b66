"""From a training checkpoint to the Hub and back: one commit, a card from facts, the same answers."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import CheapBackbone
from fresh import Fresh
from hub_server import READ, WRITE, HubServer

from avzoo import backbones, bundle, card, cli, hub, provenance, publishing, registry
from avzoo.errors import AvzooError, BundleError, ClassMismatchError, HubError
from avzoo.models import AVSDN

CLASSES = ["drone", "helicopter", "background"]
PREPROCESS = {"audio_backbone": "avzoo-audio", "visual_backbone": "tf_efficientnet_lite0"}
ENTRY: dict[str, Any] = {
    "model": "AVSDN",
    "task": "segment",
    "about": "Hears and sees what flies",
    "dataset": "toys",
    "recipe": "avsdn-avemix",
    "features": "own extraction",
    "classes": CLASSES,
    "licence": "CC-BY-4.0",
    "metrics": [{"name": "segment_accuracy", "split": "test", "mean": 0.9, "sd": 0.0123, "seeds": 5}],
    "paper": {"name": "segment_accuracy", "split": "test", "value": 0.754},
    "sources": ["toys, rendered, CC0"],
}
COMMENTED = "# what I trained\nfirst: {entry}\n\n# the best of them\nmine:  # it flies\n{mine}\n# the end\n"


@pytest.fixture(scope="module")
def fresh() -> Iterator[Fresh]:
    process = Fresh()
    yield process
    process.close()


@pytest.fixture(scope="module")
def server() -> Iterator[HubServer]:
    with HubServer().running() as running:
        yield running


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `avzoo fit` leaves: a checkpoint, and the recipe two folders up."""
    run = tmp_path_factory.mktemp("run")
    model = AVSDN(CLASSES, audio_dim=128, visual_dim=1280, hidden_dim=4, preprocess=PREPROCESS)
    (run / "checkpoints").mkdir()
    (run / "recipe.yaml").write_text("seed_everything: 0\n")
    state = {"avzoo_model": "AVSDN", "hyper_parameters": dict(model.hparams), "state_dict": model.state_dict()}
    state["avzoo"] = {"commit": "abcd" * 10, "versions": {"torch": "1.0"}}
    torch.save(state, run / "checkpoints" / "best.ckpt")
    return run / "checkpoints" / "best.ckpt"


def registry_file(folder: Path, **changes: Any) -> Path:
    entry = {key: value for key, value in {**ENTRY, **changes}.items() if value is not None}
    mine = "".join(f"  {line}\n" for line in yaml.safe_dump(entry).splitlines())
    file = folder / "mine.yaml"
    file.write_text(COMMENTED.format(entry=json.dumps(ENTRY), mine=mine))
    return file


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry of the user's own, in use."""
    file = registry_file(tmp_path)
    monkeypatch.setenv("AVZOO_REGISTRY", str(file))
    return file


def command(*arguments: str) -> str:
    """What `avzoo` prints, with backbones that cost nothing."""
    widths = {"tf_efficientnet_lite0": 1280}
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.setattr(backbones, "build", lambda name, pool="": CheapBackbone(widths.get(name, 128)))  # noqa: ARG005
        torch.set_num_threads(1)
        cli._run(list(arguments))  # which raises, where main() prints and exits
    return out.getvalue()


def answers(name: str, folder: str) -> list[float]:
    """Of the model of a name, for the golden features."""
    model = hub.load(name)
    assert bundle.golden_difference(Path(folder), model) == 0
    with torch.no_grad():
        found: list[float] = model(torch.ones(1, 10, 128), torch.ones(1, 10, 1280)).flatten().tolist()
    return found


@pytest.fixture
def env(server: HubServer, tmp_path: Path, mine: Path) -> dict[str, str]:
    server.faults.__init__()  # type: ignore[misc]
    server.repos.clear()
    server.log.clear()
    quiet = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_TOKEN": WRITE}
    return {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), "AVZOO_REGISTRY": str(mine), **quiet}


@pytest.fixture(scope="module")
def ready(ckpt: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that a dry run has made of the checkpoint, for the tests that do not mind how."""
    home = tmp_path_factory.mktemp("ready")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVZOO_REGISTRY", str(registry_file(home)))
        said = command("publish", "mine", "--ckpt", str(ckpt), "--repo", "me/it", "--out", str(home / "it"))
    assert said.splitlines()[-1].startswith("nothing was uploaded")
    assert (home / "it" / "README.md").read_text() in said
    assert "revision: <commit>" in said
    return home / "it"


# -- the whole way ---------------------------------------------------------------------------------------------------


def test_published_and_loaded_elsewhere_it_gives_the_same_logits(
    fresh: Fresh, server: HubServer, env: dict[str, str], ckpt: Path, mine: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "made" / "mine"
    arguments = ("publish", "mine", "--ckpt", str(ckpt), "--repo", "me/it", "--push", "--write", "--out", str(folder))
    (said,) = fresh(command, *arguments, env=env)
    commit = said.splitlines()[-1]
    repo = server.repos["me/it"]
    assert commit == repo.head
    assert re.fullmatch("[0-9a-f]{40}", commit)
    assert len(repo.commits) == 2  # the empty repository's and ours
    assert list(repo.tags.values()) == [commit]
    assert {*repo.commits[commit]} - {".gitattributes"} == {*bundle.FILES}
    assert all(repo.commits[commit][file.name] == file.read_bytes() for file in folder.iterdir())

    entry = registry.find("mine")
    assert (entry.weights, entry.hub) == ("hub", {"repo": "me/it", "revision": commit})
    assert entry.files == bundle.manifest(folder)
    assert mine.read_text().startswith("# what I trained\nfirst: {")
    assert "\n\n# the best of them\nmine:  # it flies\n" in mine.read_text()
    assert mine.read_text().endswith("\n# the end\n")

    reader = {**env, "HF_TOKEN": READ, "HF_HOME": str(tmp_path / "elsewhere")}
    here = fresh(answers, "mine", str(folder), env={**env, "HF_HOME": str(tmp_path / "another")})
    assert fresh(answers, "mine", str(folder), env=reader) == here
    assert fresh(answers, "mine", str(folder), env={**reader, "HF_HUB_OFFLINE": "1"}) == here
    assert fresh(answers, f"hf:me/it@{commit}", str(folder), env={**reader, "HF_HUB_OFFLINE": "1"}) == here

    before = mine.read_text()
    (again,) = fresh(command, *arguments, env=env)
    assert again.splitlines()[-1] == commit
    assert len(repo.commits) == 2
    assert mine.read_text() == before


def test_a_bundle_is_published_with_a_card_of_today(
    fresh: Fresh, server: HubServer, env: dict[str, str], ready: Path, tmp_path: Path
) -> None:
    given = Path(shutil.copytree(ready, tmp_path / "given"))
    registry_file(tmp_path, about="Knows better now")
    out = tmp_path / "out"
    options = ("--ckpt", str(given), "--repo", "me/new", "--private", "--push", "--out", str(out))
    (said,) = fresh(command, "publish", "mine", *options, env=env)
    repo = server.repos["me/new"]
    assert repo.private
    assert said.splitlines()[-1] == repo.head
    assert b"Knows better now" in repo.commits[repo.head]["README.md"]
    assert bundle.golden_difference(out, bundle.read(out, bundle.manifest(out))) == 0
    assert bundle.manifest(given) == bundle.manifest(ready)
    (said,) = fresh(command, "load", f"hf:me/new@{repo.head}", env=env)
    assert "verified against the bundle's own manifest (finds damage, not malice)" in said


@pytest.mark.parametrize("made_by", ["a checkpoint that does not say what made it", "a bundle without a clip"])
@pytest.mark.usefixtures("mine")
def test_what_training_leaves_becomes_a_whole_bundle(made_by: str, ckpt: Path, tmp_path: Path) -> None:
    given = tmp_path / "run" / "checkpoints" / "best.ckpt"
    given.parent.mkdir(parents=True)
    if made_by.startswith("a checkpoint"):
        (tmp_path / "run" / "recipe.yaml").write_text("seed_everything: 0\n")
        torch.save({k: v for k, v in torch.load(ckpt, weights_only=True).items() if k != "avzoo"}, given)
        commit, versions = provenance.code_commit(), provenance.versions()
    else:
        given, commit, versions = given.parent / "bundle", "1234" * 10, {"torch": "2.0"}
        model = bundle.read_training_checkpoint(ckpt)
        bundle.write(given, model, recipe="seed_everything: 0\n", half=False, commit=commit, versions=versions)
    out = tmp_path / "out"
    command("publish", "mine", "--ckpt", str(given), "--repo", "me/it", "--out", str(out))
    assert {file.name for file in out.iterdir()} == {*bundle.FILES}
    config = json.loads((out / "config.json").read_text())
    assert (config["commit"], config["versions"]) == (commit, versions)
    assert bundle.golden_difference(out, bundle.read(out)) == 0


def test_a_fine_tuned_model_names_its_parents_and_no_folder_of_this_machine(
    fresh: Fresh, server: HubServer, env: dict[str, str], ckpt: Path, tmp_path: Path
) -> None:
    registry_file(tmp_path, recipe="mine")
    model, first, given = bundle.read_training_checkpoint(ckpt), tmp_path / "first try", tmp_path / "second"
    bundle.write(first, model, recipe="init_from: [avsdn-avemix]\n")
    recipe = {
        "data": {"root": str(tmp_path / "a long way" / "to go for it" / "my clips")},
        "init_from": [str(first), str(given)],
    }
    bundle.write(given, model, recipe=f"# By `avzoo finetune`.\n{yaml.safe_dump(recipe)}")
    options = ("publish", "mine", "--repo", "me/it", "--push", "--write", "--out", str(tmp_path / "out"))
    (said,) = fresh(command, *options, "--ckpt", str(given), env=env)
    assert "avsdn-avemix is under CC-BY-SA-4.0, which asks for the same of what is made of it, not CC-BY-4.0" in said
    repo = server.repos["me/it"]
    published = repo.commits[repo.head]
    assert not [name for name, content in published.items() if str(tmp_path).encode() in content]
    assert published["recipe.yaml"].startswith(b"# By `avzoo finetune`.\n")
    written = yaml.safe_load(published["recipe.yaml"])
    assert written == {"data": {"root": "my clips"}, "init_from": ["first try", "second"]}
    text = published["README.md"].decode()
    assert "parameters, fine-tuned on toys from first try, avsdn-avemix (CC-BY-SA-4.0), second.\n" in text
    assert "\navzoo fit --config recipe.yaml\n" in text
    (info,) = fresh(command, "info", "mine", env=env)
    assert re.search(r"\n  train +avzoo fit --config /\S+/recipe\.yaml\n", info)

    registry_file(tmp_path, licence="CC BY-SA 4.0")
    out = tmp_path / "out"
    (said,) = fresh(command, *options[:2], "--ckpt", str(given), "--out", str(out), env=env)
    assert "asks for the same" not in said
    shutil.copyfile(given / "recipe.yaml", out / "recipe.yaml")  # a whole bundle from before paths were left out
    config = json.loads((out / "config.json").read_text())
    config["files"]["recipe.yaml"] = bundle.manifest(out)["recipe.yaml"]
    (out / "config.json").write_text(json.dumps(config))
    again = publishing.publish("mine", ckpt=out, out=tmp_path / "again").folder
    assert (again / "recipe.yaml").read_bytes() == published["recipe.yaml"]


def test_a_recipe_that_is_none_is_refused(ckpt: Path, mine: Path, tmp_path: Path) -> None:
    model = bundle.read_training_checkpoint(ckpt)
    for text in ("", "- a list", "a: [", "a text"):
        bundle.write(tmp_path / "given", model, recipe=text)
        with pytest.raises(BundleError, match=r"recipe\.yaml is no recipe: expected YAML"):
            publishing.publish("mine", ckpt=tmp_path / "given", out=tmp_path / "out")
    assert mine.exists()


def test_a_bundle_for_the_package_is_written_without_a_hub(ready: Path, mine: Path, tmp_path: Path) -> None:
    done = publishing.publish("mine", ckpt=ready, write=True, out=tmp_path / "weights")
    entry = registry.find("mine")
    assert (done.commit, entry.weights, entry.hub) == ("", "package", {})
    assert entry.files == bundle.manifest(done.folder)
    assert done.lines in mine.read_text()


def test_a_file_that_is_gone_is_gone_on_the_hub(
    fresh: Fresh, server: HubServer, env: dict[str, str], ready: Path, tmp_path: Path
) -> None:
    given = Path(shutil.copytree(ready, tmp_path / "given"))
    options = ("publish", "mine", "--ckpt", str(given), "--repo", "me/it", "--push", "--out", str(tmp_path / "out"))
    fresh(command, *options, env=env)
    config = json.loads((given / "config.json").read_text())
    del config["files"]["timeline.png"]
    (given / "config.json").write_text(json.dumps(config))
    (given / "timeline.png").unlink()
    fresh(command, *options, env=env)
    repo = server.repos["me/it"]
    assert "timeline.png" not in repo.commits[repo.head]
    assert b"timeline.png" not in repo.commits[repo.head]["README.md"]
    assert len(repo.commits) == 3


# -- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "fault", "said"),
    [
        (READ, {}, "answers 403: the token may not do this: it needs write access to publish"),
        ("hf_wrong", {}, "answers 401: the token is not accepted"),
        ("", {}, "answers 401: the token is not accepted: set HF_TOKEN or run `hf auth login`"),
        (WRITE, {"stale": True}, "answers 412: somebody else committed meanwhile: run the same command again"),
        (WRITE, {"status": 500}, "answers 500: try again later"),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    fresh: Fresh, server: HubServer, env: dict[str, str], ready: Path, tmp_path: Path, token: str, fault: Any, said: str
) -> None:
    for name, value in fault.items():
        setattr(server.faults, name, value)
    options = ("--ckpt", str(ready), "--repo", "me/it", "--push", "--write", "--out", str(tmp_path / "out"))
    before = Path(env["AVZOO_REGISTRY"]).read_text()
    with pytest.raises(HubError) as caught:
        fresh(command, "publish", "mine", *options, env={**env, "HF_TOKEN": token})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert Path(env["AVZOO_REGISTRY"]).read_text() == before


def test_offline_nothing_is_published(
    fresh: Fresh, server: HubServer, env: dict[str, str], ready: Path, tmp_path: Path
) -> None:
    options = ("--ckpt", str(ready), "--repo", "me/it", "--push", "--out", str(tmp_path / "out"))
    with pytest.raises(HubError, match="me/it cannot be asked while HF_HUB_OFFLINE is set: unset it"):
        fresh(command, "publish", "mine", *options, env={**env, "HF_HUB_OFFLINE": "1"})
    assert server.log == []


def test_a_hub_that_is_down(fresh: Fresh, server: HubServer, env: dict[str, str], ready: Path, tmp_path: Path) -> None:
    options = ("--ckpt", str(ready), "--repo", "me/it", "--push", "--out", str(tmp_path / "out"))
    server.stop()
    try:
        with pytest.raises(HubError, match=r"http\S+ cannot be reached \(ConnectError\)"):
            fresh(command, "publish", "mine", *options, env=env)
    finally:
        server.start()


@pytest.mark.parametrize("lacking", [["metrics"], ["licence", "sources"], ["metrics", "licence", "sources"]])
def test_an_incomplete_entry_is_refused(lacking: list[str], ckpt: Path, tmp_path: Path, mine: Path) -> None:
    registry_file(tmp_path, **dict.fromkeys(lacking))
    with pytest.raises(BundleError, match=f"entry mine lacks {', '.join(lacking)}: a published model says"):
        publishing.publish("mine", ckpt=ckpt, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert mine.exists()


@pytest.mark.usefixtures("mine")
def test_a_model_that_is_not_its_entrys_is_refused(ckpt: Path, ready: Path, tmp_path: Path) -> None:
    registry_file(tmp_path, classes=["helicopter", "drone", "background"])
    for given in (ckpt, ready):
        with pytest.raises(ClassMismatchError, match=r"class 0 is 'helicopter' in the entry .* and 'drone'"):
            publishing.publish("mine", ckpt=given, out=tmp_path / "out")
    (tmp_path / "lonely").mkdir()
    lonely = shutil.copy(ckpt, tmp_path / "lonely" / "best.ckpt")
    registry_file(tmp_path)
    with pytest.raises(BundleError, match=r"recipe\.yaml is missing: `avzoo fit` writes it"):
        publishing.publish("mine", ckpt=lonely, out=tmp_path / "out")


@pytest.mark.usefixtures("mine")
def test_options_that_contradict_one_another(ckpt: Path) -> None:
    with pytest.raises(HubError, match="give repo='owner/name'"):
        publishing.publish("mine", ckpt=ckpt, push=True)
    with pytest.raises(HubError, match="give push=True too"):
        publishing.publish("mine", ckpt=ckpt, repo="me/it", write=True)


def test_a_bundle_that_answers_otherwise_is_refused(
    ready: Path, tmp_path: Path, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mine.exists()
    monkeypatch.setattr(bundle, "golden_difference", lambda *_, **__: 0.5)
    with pytest.raises(BundleError, match=r"answers otherwise than .*: golden logits differ by 0\.5"):
        publishing.publish("mine", ckpt=ready, out=tmp_path / "out")


def test_a_folder_that_is_no_bundle_is_left_alone(ready: Path, tmp_path: Path, mine: Path) -> None:
    (tmp_path / "out").mkdir()
    shutil.copy(mine, tmp_path / "out" / "thesis.txt")
    with pytest.raises(BundleError, match="out exists and is no bundle: give a new folder"):
        publishing.publish("mine", ckpt=ready, out=tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


# -- checkpoints.yaml ------------------------------------------------------------------------------------------------

LINES = "  weights: package\n  files:\n" + "".join(
    f"    {name}: {{size: 3, sha256: {'a0' * 32}}}\n" for name in ("config.json", "model.safetensors")
)


def test_writing_an_entry_touches_nothing_else(tmp_path: Path) -> None:
    file = registry_file(tmp_path)
    before = file.read_text()
    publishing.write_entry(file, "mine", LINES)
    assert file.read_text().replace(LINES, "") == before
    written = file.read_text()
    publishing.write_entry(file, "mine", LINES)
    assert file.read_text() == written
    publishing.write_entry(file, "mine", LINES.replace("size: 3", "size: 4"))
    assert file.read_text() == written.replace("size: 3", "size: 4")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_an_entry_that_cannot_be_written_by_lines_is_left_alone(tmp_path: Path) -> None:
    file = registry_file(tmp_path)
    before = file.read_text()
    for name, lines in (("first", LINES), ("mine", LINES.replace("package", "somewhere")), ("none", LINES)):
        with pytest.raises(AvzooError):
            publishing.write_entry(file, name, lines)
        assert file.read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


# -- the card --------------------------------------------------------------------------------------------------------


def test_the_cards_metadata_is_what_the_hub_reads(ready: Path) -> None:
    from huggingface_hub import ModelCard

    text = (ready / "README.md").read_text()
    data = ModelCard(text).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("cc-by-4.0", "avzoo", "video-classification")
    assert data.model_name == "mine"
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value) == ("segment_accuracy", 0.9)
    assert (result.dataset_name, result.dataset_split) == ("toys", "test")
    assert yaml.safe_load(data.to_yaml())["model-index"] == yaml.safe_load(text.split("---\n")[1])["model-index"]


def test_the_card_says_what_the_entry_says(ready: Path) -> None:
    text = (ready / "README.md").read_text()
    assert "| segment_accuracy | test | 90.0 ± 1.2 % | 5 | 75.4 % |" in text
    for fact in (ENTRY["about"], "CC-BY-4.0", "toys, rendered, CC0", "; ".join(CLASSES), "(timeline.png)"):
        assert fact in text
    assert "avzoo fit --config recipes/avsdn-avemix.yaml" in text
    config = json.loads((ready / "config.json").read_text())
    assert (config["commit"], config["versions"]) == ("abcd" * 10, {"torch": "1.0"})  # of the training, not of today
    assert f"code at commit `{'abcd' * 10}`" in text


def test_a_licence_that_the_hub_does_not_know_is_named(ready: Path) -> None:
    entry = registry.Checkpoint(name="mine", **{**ENTRY, "licence": "Research only", "metrics": ()})
    facts = card.metadata(entry)
    assert (facts["license"], facts["license_name"]) == ("other", "research-only")
    assert "model-index" not in facts
    assert "under Research only." in card.render_card(entry, bundle.read(ready))


def use(snippet: str, folder: str) -> str:
    widths = {"tf_efficientnet_lite0": 1280}
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.setattr(backbones, "build", lambda name, pool="": CheapBackbone(widths.get(name, 128)))  # noqa: ARG005
        patch.chdir(folder)
        exec(snippet, {})
    return out.getvalue()


def test_the_cards_snippet_runs(fresh: Fresh, env: dict[str, str], ready: Path, mine: Path, tmp_path: Path) -> None:
    options = ("--ckpt", str(ready), "--repo", "me/it", "--push", "--write", "--out", str(tmp_path / "out"))
    fresh(command, "publish", "mine", *options, env=env)
    (snippet,) = re.findall(r"```python\n(.*?)```", (ready / "README.md").read_text(), re.DOTALL)
    shutil.copy(ready / "golden.mp4", tmp_path / "clip.mp4")
    (said,) = fresh(use, snippet, str(tmp_path), env=env)
    assert all(line.split()[2] in CLASSES for line in said.splitlines())

    (info,) = fresh(command, "info", "mine", env=env)
    assert "verified against the registry" in " ".join(info.split())
    assert "segment_accuracy, test" in info
    assert "90.0 ± 1.2 %, 5 seed(s)" in info
    (verified,) = fresh(command, "verify", "mine", env=env)
    assert "golden features -> logits: differ by 0 (at most 0.0001)" in verified
    assert "golden.mp4 -> logits: differ by 0 (at most 0.05)" in verified
    (cached,) = fresh(command, "cache", env=env)
    assert "me/it" in cached
    assert registry.find("mine").hub["revision"] in cached
    (removed,) = fresh(command, "cache", "--remove", "mine", env=env)
    assert "me/it: 1 revision(s) removed" in removed
    (cached,) = fresh(command, "cache", env=env)
    assert cached.startswith("0 model(s), 0.0 MB in ")
    assert mine.exists()


# -- commands --------------------------------------------------------------------------------------------------------


def test_info_says_who_vouches(ready: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["info", str(ready)])
    assert "against the bundle's own manifest (finds damage, not malice)" in capsys.readouterr().out
    cli.main(["info", "avsdn-ave-weak"])  # no weights, and no torch needed
    assert "none are published" in capsys.readouterr().out


def test_verify_says_what_a_bundle_lacks(ckpt: Path, tmp_path: Path) -> None:
    plain = bundle.write(tmp_path / "plain", bundle.read_training_checkpoint(ckpt), recipe="")
    said = command("verify", str(plain))
    assert "golden features -> logits: not compared, the bundle has no golden.safetensors" in said
    assert "golden.mp4 -> logits: not compared, the bundle has no golden.mp4" in said


def test_verify_refuses_other_answers(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "golden_difference", lambda *_, **__: float("nan"))
    with pytest.raises(BundleError, match=r"golden features -> logits differ by nan, more than 0\.0001"):
        command("verify", str(ready))
