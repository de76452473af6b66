"""How a recipe and a command line are read: short names, what may not be set by hand, spelling, where it lies."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from avzoo.errors import AvzooError, DataNotFoundError, did_you_mean
from avzoo.registry import asset

# What is wired from elsewhere, and what to set instead.
LINKED = {
    ("model", "classes"): "the label order comes from the data",
    ("model", "preprocess"): "set the top-level `preprocess`, which model and data share",
    ("data", "preprocess"): "set the top-level `preprocess`, which model and data share",
    ("data", "seed"): "set the top-level `seed_everything`",
}


def recipes() -> list[str]:
    """The names of the package's recipes."""
    return sorted(file.stem for file in asset("recipes").glob("*.yaml"))


def read_recipe(text: str) -> Any:
    """Parse a recipe: `{name: AVSDN, ...}` for model, data and callbacks becomes jsonargparse's class path form."""
    recipe = yaml.safe_load(text)
    if not isinstance(recipe, dict):
        return recipe
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

    `--config recipes/NAME.yaml` names the recipe in the package where no such file lies here; `validate` and `test`
    without a recipe take the one that lies beside the checkpoint.

    Raises:
        AvzooError: If something is set by hand that is wired from elsewhere.
        DataNotFoundError: If there is no such recipe, or a checkpoint has none beside it.
    """
    found = [part for word in arguments for part in _split(word)]
    for index, word in enumerate(found[:-1]):
        path = found[index + 1]
        if word == "--config" and "://" not in path and not Path(path).exists():
            if not asset(path).exists():
                near = did_you_mean(Path(path).stem, recipes())
                raise DataNotFoundError(
                    f"{path}: there is no such recipe{near} (a file, or recipes/NAME.yaml, see `avzoo fit --help`)"
                )
            found[index + 1] = str(asset(path))
    if found and found[0] in ("validate", "test") and "--config" not in found and "--ckpt_path" in found[:-1]:
        checkpoint = Path(found[found.index("--ckpt_path") + 1])
        found[1:1] = ["--config", str(_recipe_beside(checkpoint))]
    check_links(found)
    return found


def _split(word: str) -> list[str]:
    if word == "-c":
        return ["--config"]
    name, equals, value = word.partition("=")
    return [name, value] if equals and name in ("--config", "--ckpt_path") else [word]


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
    for word in arguments:
        match = re.match(r"--(model|data)\.(?:init_args\.)?(\w+)", word)
        if match and match.groups() in LINKED:
            raise AvzooError(f"{match.group()} cannot be set by hand: {LINKED[match.group(1), match.group(2)]}")
    for word, path in pairwise(arguments):
        if word == "--config" and Path(path).is_file():
            try:
                recipe = read_recipe(Path(path).read_text(encoding="utf-8"))
            except yaml.YAMLError as error:
                raise AvzooError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
            for section, key in _given(recipe):
                if (section, key) in LINKED:
                    raise AvzooError(f"{path}: {section}.{key} cannot be set by hand: {LINKED[section, key]}")


def _given(recipe: Any) -> Iterator[tuple[str, str]]:
    for section in ("model", "data"):
        options = recipe.get(section) if isinstance(recipe, dict) else None
        init_args = options.get("init_args") if isinstance(options, dict) else None
        for key in init_args if isinstance(init_args, dict) else ():
            yield section, key
