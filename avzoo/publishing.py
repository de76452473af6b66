"""From a trained checkpoint to a bundle that others can load, here and on the Hugging Face Hub."""

from __future__ import annotations

import itertools
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from avzoo import __version__, bundle, hub, inference, plot, provenance, registry
from avzoo.card import licence_id, render_card
from avzoo.data import rendering
from avzoo.errors import AvzooError, BundleError, HubError
from avzoo.files import sha256, whole
from avzoo.models import AVModule

GOLDEN_SEED = 30_000_001  # of the golden clip; no shipped training set has it
REQUIRED = ("metrics", "licence", "sources")


@dataclass(frozen=True)
class Published:
    """What `publish` made.

    Attributes:
        folder: The bundle.
        lines: What `checkpoints.yaml` has to say of it, YAML below the entry's name.
        commit: On the Hub, 40 hex digits; empty for a dry run.
    """

    folder: Path
    lines: str
    commit: str


def publish(
    name: str,
    *,
    ckpt: str | Path,
    repo: str | None = None,
    private: bool = False,
    push: bool = False,
    write: bool = False,
    out: str | Path | None = None,
) -> Published:
    """Make a bundle of a trained model, read it back, compare its golden outputs, and bring it to the Hub.

    Args:
        name: Its entry in `checkpoints.yaml`, which the card is written from.
        ckpt: A checkpoint of `avzoo fit`, beside which the resolved recipe lies, or a bundle's folder.
        repo: `owner/name` on the Hub; None for a bundle that ships inside the package.
        private: Whether a repository that is created is private.
        push: Whether it goes to the Hub; otherwise nothing leaves this machine.
        write: Whether the entry is brought up to date in its registry file.
        out: The bundle's folder; default `bundles/<name>`.

    Raises:
        BundleError: If the entry is not complete, the checkpoint does not fit it, or the bundle does not answer as the
            checkpoint.
        HubError: If the Hub refuses or cannot be reached.
    """
    entry = registry.find(name)
    if push and repo is None:
        raise HubError("push needs to know where to: give repo='owner/name'")
    if write and repo is not None and not push:
        raise HubError("write needs the commit that only a push knows: give push=True too")
    lacking = [key for key in REQUIRED if not getattr(entry, key)]
    if lacking:
        raise BundleError(
            f"{registry.origin(name)}: entry {name} lacks {', '.join(lacking)}: a published model says how well it"
            " does, under which licence it is, and which data it was trained on"
        )
    folder = Path(out) if out is not None else Path("bundles") / name
    given = Path(ckpt)
    model = bundle.read(given) if given.is_dir() else bundle.read_training_checkpoint(given)
    _check_fit(entry, model, given)
    text = _read_recipe((given if given.is_dir() else given.parent.parent) / "recipe.yaml")
    parents, recipe = dict(_parents(text)), _without_folders(text)
    whole = (given / "golden.mp4").exists()  # a bundle that `publish` made; what `avzoo fit` leaves has no clip yet
    if whole:
        commit = json.loads((given / "config.json").read_bytes())["commit"]
        picture = (given / "timeline.png").exists()
        card = render_card(entry, model, commit=commit, picture=picture, parents=parents)
        bundle.copy(given, folder, card=card, recipe=recipe)
    else:
        _bundle(entry, model, given, folder, recipe, parents)
    # A whole bundle may come from another machine, whose decoder need not give the same last bits.
    difference = bundle.golden_difference(folder, bundle.read(folder), media=not whole)
    if difference > bundle.GOLDEN_TOLERANCE:
        raise BundleError(f"{folder} answers otherwise than {ckpt}: golden logits differ by {difference:.2g}")
    revision = _push(folder, repo, private) if push and repo else ""
    lines = _lines(folder, repo, revision)
    if write:
        write_entry(registry.origin(name), name, lines)
    for parent, licence in parents.items():
        if "-sa-" in licence_id(licence) and licence_id(licence) != licence_id(entry.licence or ""):
            print(f"{parent} is under {licence}, which asks for the same of what is made of it, not {entry.licence}")
    return Published(folder, lines, revision)


def _check_fit(entry: registry.Checkpoint, model: AVModule, source: Path) -> None:
    """Give the model its entry's name; refuse it if its class or its labels are not the entry's."""
    model.name = entry.name
    if type(model).__name__ != entry.model:
        raise BundleError(f"{source} holds a {type(model).__name__}, the entry {entry.name} says {entry.model}")
    model.check_classes(entry.classes, f"the entry {entry.name}")


def _bundle(
    entry: registry.Checkpoint, model: AVModule, given: Path, folder: Path, recipe: str, parents: Mapping[str, str]
) -> None:
    """Make a whole bundle of a checkpoint of `avzoo fit`, or of the bundle without a clip that it leaves."""
    if given.is_dir():
        config = json.loads((given / "config.json").read_bytes())
        commit, versions = config["commit"], config["versions"]
    else:
        commit, versions = bundle.training_facts(given)
        commit, versions = commit or provenance.code_commit(), versions or provenance.versions()
    with tempfile.TemporaryDirectory() as scratch:
        clip = _golden_clip(model, Path(scratch) / "golden.mp4")
        bundle.write(
            folder,
            model,
            recipe=recipe,
            golden_clip=clip,
            card=render_card(entry, model, commit=commit, parents=parents),
            picture=plot.save(plot.timeline_figure(inference.predict(clip, model)), Path(scratch) / "timeline.png"),
            commit=commit,
            versions=versions,
        )


def _golden_clip(model: AVModule, path: Path) -> Path:
    """Render what the model knows, as far as the generator does."""
    if model.task == "clip":
        scene = next((name for name in model.classes if name in rendering.SCENES), "park")
        take = rendering.Take(scene, "lisbon", GOLDEN_SEED, 0, "none", GOLDEN_SEED)
        return rendering.film(take, path, seconds=10, size=128, fps=8, sample_rate=16_000)
    known = [name for name in rendering.CLASSES if name in model.classes]
    enough = len(known) >= 3  # an event, and two others to be mistaken for it
    return rendering.render(rendering.script(GOLDEN_SEED, classes=known if enough else rendering.CLASSES), path)


# -- the recipe -----------------------------------------------------------------------------------------------------


def _read_recipe(file: Path) -> str:
    """Its text, which is YAML of names with values."""
    if not file.exists():
        raise BundleError(f"{file} is missing: `avzoo fit` writes it beside the checkpoints")
    text = file.read_text(encoding="utf-8")
    try:
        known = isinstance(yaml.safe_load(text), dict)
    except yaml.YAMLError:
        known = False
    if not known:
        raise BundleError(f"{file} is no recipe: expected YAML, names with values below them")
    return text


def _parents(recipe: str, seen: frozenset[str] = frozenset()) -> Iterator[tuple[str, str]]:
    """The models that a recipe starts from, and what those did, each with its licence, empty where that is not known.

    A stage of one of avzoo's own recipes is no model of its own.
    """
    names = yaml.safe_load(recipe).get("init_from") or []
    for given in [names] if isinstance(names, str) else names:
        entry, beside = registry.entries().get(given), Path(given) / "recipe.yaml"
        if entry is not None:
            yield given, entry.licence or ""
        elif given not in seen and given not in registry.recipes():
            yield given if given.startswith("hf:") else Path(given).name, ""
            yield from _parents(_read_recipe(beside), seen | {given}) if beside.exists() else ()


def _without_folders(recipe: str) -> str:
    """The recipe with the last part alone of each path of this machine."""

    def short(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: short(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [short(inner) for inner in value]
        return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value

    before = yaml.safe_load(recipe)
    if (after := short(before)) == before:
        return recipe
    head = "".join(itertools.takewhile(lambda line: line.startswith("#"), recipe.splitlines(keepends=True)))
    return head + yaml.safe_dump(after, sort_keys=False, allow_unicode=True)


# -- the Hub --------------------------------------------------------------------------------------------------------


def _push(folder: Path, repo: str, private: bool) -> str:
    """Upload in one commit, tag it, and return it; what the Hub has already is left alone."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi()
    names = [name for name in bundle.FILES if (folder / name).exists()]
    with hub.hub_errors(repo):
        api.create_repo(repo, private=private, exist_ok=True)
        head = api.model_info(repo)
        there = {file.rfilename for file in head.siblings or ()}
        operations: list[Any] = [CommitOperationAdd(name, folder / name) for name in names]
        operations += [CommitOperationDelete(name) for name in bundle.FILES if name in there - {*names}]
        # Not upload_folder: where hf_xet is installed it may cut a folder into several commits.
        message = f"{json.loads((folder / 'config.json').read_bytes())['model']}, by avzoo {__version__}"
        commit = api.create_commit(repo, operations, commit_message=message, parent_commit=head.sha)
        revision = str(commit.oid)
        tag = f"avzoo-{sha256(folder / 'config.json')[:12]}"
        api.create_tag(repo, tag=tag, revision=revision, exist_ok=True)
    return revision


# -- checkpoints.yaml -----------------------------------------------------------------------------------------------


def _lines(folder: Path, repo: str | None, revision: str) -> str:
    """The keys `weights`, `hub` and `files` of an entry, indented by two."""
    lines = ["  weights: package"]
    if repo is not None:
        lines = ["  weights: hub", f"  hub: {{repo: {repo}, revision: {revision or '<commit>'}}}"]
    lines += ["  files:"]
    for file, facts in bundle.manifest(folder).items():
        lines.append(f"    {file}: {{size: {facts['size']}, sha256: {facts['sha256']}}}")
    return "\n".join(lines) + "\n"


def write_entry(file: Path, name: str, lines: str) -> None:
    """Replace `weights`, `hub` and `files` of one entry of a registry file; every other line stays as it is.

    Raises:
        AvzooError: If the file is laid out so that this cannot be done by lines; it is then left alone.
    """
    before = registry.read_registry(file)
    text = file.read_text(encoding="utf-8").splitlines(keepends=True)
    heads = [index for index, line in enumerate(text) if re.match(rf"(['\"]?){re.escape(name)}\1\s*:", line)]
    if len(heads) != 1:
        raise AvzooError(f"{file}: no line begins with {name!r}: add these lines by hand:\n{lines}")
    start = heads[0] + 1
    end = next((index for index in range(start, len(text)) if re.match(r"[^\s#]", text[index])), len(text))
    kept, dropping = [], False
    for line in text[start:end]:
        if re.match(r"  \S", line):
            dropping = re.match(r"  (weights|hub|files)\s*:", line) is not None
        elif not line.strip() or line.startswith("#"):
            dropping = False
        if not dropping:
            kept.append(line)
    last = max((index for index, line in enumerate(kept) if re.match(r"\s+[^\s#]", line)), default=-1) + 1
    changed = "".join([*text[:start], *kept[:last], lines, *kept[last:], *text[end:]])
    with whole(file) as new:
        new.write_text(changed, encoding="utf-8")
        after = registry.read_registry(new)
        changed_entry = {name: after.checkpoints[name]}
        same = {**before.checkpoints, **changed_entry} == after.checkpoints and before.backbones == after.backbones
        if not same or list(before.checkpoints) != list(after.checkpoints):
            raise AvzooError(f"{file}: another entry would change: add these lines to {name} by hand:\n{lines}")
