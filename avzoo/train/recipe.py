"""How a recipe and a command line are read: short names, what may not be set by hand, spelling, where it lies."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from avzoo.errors import AvzooError, DataNotFoundError
from avzoo.registry import find_recipe

# What is wired from elsewhere, and what to set instead.
LINKED = {
    ("model", "classes"): "the label order comes from the data",
    ("model", "preprocess"): "set the top-level `preprocess`, which model and data share",
    ("data", "preprocess"): "set the top-level `preprocess`, which model and data share",
    ("data", "seed"): "set the top-level `seed_everything`",
}


def read_recipe(text: str) -> Any:
    """Parse a recipe: `{name: AVSDN, ...}` for model, data and callbacks becomes jsonargparse's class path form.

    One name of `init_from` is a list of one.
    """
    recipe = yaml.safe_load(text)
    if not isinstance(recipe, dict):
        return recipe
    if isinstance(recipe.get("init_from"), str):
        recipe["init_from"] = [recipe["init_from"]]
    for section in ("model", "data"):
        if section in recipe:
            recipe[section] = _named(recipe[section])
    trainer = recipe.get("trainer")
    if isinstance(trainer, dict) and isinstance(trainer.get("callbacks"), list):
        trainer["callbacks"] = [_named(callback) for callback in trainer["callbacks"]]
    return recipe


def _named(options: Any) -> Any:
    if not (isinstance(options, dict) and "name" in options):
        return options
    init_args = {key: value for key, value in options.items() if key != "name"}
    return {"class_path": options["name"], "init_args": init_args}


def complete(arguments: Sequence[str]) -> list[str]:
    """The command line with its recipe found.

    `--config NAME` or `--config recipes/NAME.yaml` is the package's recipe where no such file lies here; `validate` and
    `test` without a recipe take the one that lies beside the checkpoint.

    Raises:
        AvzooError: If something is set by hand that is wired from elsewhere.
        DataNotFoundError: If there is no such recipe, or a checkpoint has none beside it.
    """
    found = [part for word in arguments for part in _split(word)]
    for index, word in enumerate(found[:-1]):
        path = found[index + 1]
        inline = isinstance(_yaml(path), dict)
        if word == "--config" and "://" not in path and not inline and (not Path(path).exists() or Path(path).is_dir()):
            found[index + 1] = str(find_recipe(path))
        if word == "--init_from" and isinstance(_yaml(path), str):
            found[index + 1] = json.dumps([path])
    if found and found[0] in ("validate", "test") and "--config" not in found and "--ckpt_path" in found[:-1]:
        checkpoint = Path(found[found.index("--ckpt_path") + 1])
        found[1:1] = ["--config", str(_recipe_beside(checkpoint))]
    check_links(found)
    return found


def _split(word: str) -> list[str]:
    if word == "-c":
        return ["--config"]
    name, equals, value = word.partition("=")
    return [name, value] if equals and name in ("--config", "--ckpt_path", "--init_from") else [word]


def _recipe_beside(checkpoint: Path) -> Path:
    """`run/recipe.yaml` of `run/checkpoints/best.ckpt`, and `recipe.yaml` of a bundle's folder."""
    if not checkpoint.exists():
        raise DataNotFoundError(f"{checkpoint}: there is no such checkpoint")
    places = (
        [checkpoint] if checkpoint.is_dir() else [checkpoint.absolute().parent.parent, checkpoint.absolute().parent]
    )
    for place in places:
        if (place / "recipe.yaml").exists():
            return place / "recipe.yaml"
    raise DataNotFoundError(f"{checkpoint} has no recipe.yaml beside it: name its recipe by `--config`")


def check_links(arguments: Sequence[str]) -> None:
    """Refuse what would be ignored silently, on the command line and in the recipes that it names.

    >>> check_links(["fit", "--data.seed", "3"])
    Traceback (most recent call last):
    avzoo.errors.AvzooError: --data.seed cannot be set by hand: set the top-level `seed_everything`
    """
    for word, following in pairwise([*arguments, ""]):
        option, equals, value = word.partition("=")
        value = value if equals else following
        content = _yaml(value)
        if option in ("--config", "--model", "--data") and not isinstance(content, dict) and Path(value).is_file():
            content = _content(value)
        for key in reversed([] if option == "--config" else option.removeprefix("--").split(".")):
            content = {key: content}
        for section, key in _given(content):
            if (section, key) in LINKED:
                where = f"{value}: " if option == "--config" else "--"
                raise AvzooError(f"{where}{section}.{key} cannot be set by hand: {LINKED[section, key]}")


def _content(file: str) -> Any:
    try:
        return read_recipe(Path(file).read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:
        raise AvzooError(f"{file} is no YAML: {' '.join(str(error).split())}") from error


def _yaml(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):  # of other options than these, or jsonargparse says what is wrong with it
        return None


def _given(recipe: Any) -> Iterator[tuple[str, str]]:
    """Sections and keys that are set, be it as the section's own or as `init_args`."""
    for section in ("model", "data"):
        options = recipe.get(section) if isinstance(recipe, dict) else None
        for given in (options, options.get("init_args")) if isinstance(options, dict) else ():
            for key in given if isinstance(given, dict) else ():
                yield section, str(key).removesuffix("+")
