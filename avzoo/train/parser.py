"""The command line of `avzoo fit` and the other training commands: help by sections, errors of one line.

Lightning's CLI makes an option of every key of model, data and trainer. `--help` explains those of a run and names the
rest; `--model.help NAME`, `--data.help NAME`, `--preprocess.help` and `--trainer.help` explain a section's.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import textwrap
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import DefaultHelpFormatter, Namespace
from lightning.pytorch.cli import LightningArgumentParser

from avzoo.errors import AvzooError, DataNotFoundError, did_you_mean
from avzoo.registry import recipes
from avzoo.train.recipe import LINKED
from avzoo.train.signals import AGAIN, INTERRUPTED

_AVE = "--config recipes/avsdn-ave.yaml --data.root /data/AVE_Dataset"
_BEST = "runs/avsdn-ave/version_0/checkpoints/best.ckpt"
EXAMPLES = {
    "fit": (_AVE, "--config recipes/avsdn-ave.yaml --model.lr 3e-4 --trainer.devices 2"),
    "validate": (f"--ckpt_path {_BEST}",),
    "test": (f"--ckpt_path {_BEST}", "--ckpt_path runs/avsdn-ave/version_0/bundle"),
    "extract": (_AVE, f"{_AVE} --part 1/8"),
    "shard": (f"{_AVE} --out shards/ave",),
    "lr": (_AVE,),
}
# What Lightning says of these options at length, or not at all: what they take, and what they do.
WORDS = {
    "config": ("RECIPE", f"a recipe: a file of your own, or one of {', '.join(recipes())}"),
    "print_config": (None, "print the recipe with all that the options change, and exit"),
    "seed_everything": ("SEED", "the seed of weights, order of the data and augmentation; true draws one"),
    "ckpt_path": ("FILE", "a checkpoint to measure, or for `fit` to go on from; to measure, a bundle's folder will do"),
    "weights_only": (None, "read nothing but tensors and plain values from it"),
    "model": ("NAME", "the model, or the class path of your own"),
    "model.help": ("NAME", "explain its options, --model.KEY VALUE"),
    "data": ("NAME", "the dataset, or the class path of your own"),
    "data.help": ("NAME", "explain its options, --data.KEY VALUE"),
    "optimizer": ("NAME", "in place of the model's own"),
    "optimizer.help": ("NAME", "explain its options, --optimizer.KEY VALUE"),
    "lr_scheduler": ("NAME", "in place of the model's own"),
    "lr_scheduler.help": ("NAME", "explain its options, --lr_scheduler.KEY VALUE"),
}
# What comes after the options of a run, in this order.
_SECTIONS = {
    "model": "model and data",
    "data": None,
    "optimizer": None,
    "lr_scheduler": None,
    "preprocess": "signal path, which model and data share",
    "trainer": "Lightning's trainer",
}
# Base classes, and what the commands wire themselves: not to be named on a command line.
_INTERNAL = re.compile(
    r"lightning\.\w+$|avzoo\.train(ing)?\.(?!finetune\.)|.*\.(Optimizer|LRScheduler|DummyLogger|SaveConfigCallback)$"
)
_LISTED = ", known subclasses: "
_CLASS = re.compile(r"<class '(?:\w+\.)*(\w+)'>")
_MARKUP = re.compile(r":\w+:`\s*~?(?:[\w.]+\.)?(\w+)`")  # :class:`~torch.utils.data.Sampler` is Sampler


def about(command: str, sentence: str) -> dict[str, str]:
    """What the help of a command begins and ends with, as arguments of its parser.

    >>> about("lr", "find a rate")["description"].splitlines()[0]
    'Find a rate.'
    """
    what = f"{sentence[0].upper()}{sentence[1:]}.\nEvery key of a recipe is an option, which overrides it.\n"
    examples = "".join(f"\n  avzoo {command} {example}" for example in EXAMPLES[command])
    status = "exit status: 0 done; 1 what was given cannot be used; 2 a wrong command line"
    if command == "fit":
        status += f";\n{AGAIN} a signal stopped it, {INTERRUPTED} Ctrl+C did: all is saved, the same command goes on"
    needed = {"validate": "--ckpt_path FILE", "test": "--ckpt_path FILE", "shard": "--config RECIPE --out FOLDER"}
    return {
        "usage": f"avzoo {command} {needed.get(command, '--config RECIPE')} [--KEY VALUE ...]",
        "description": f"{what}{examples}\n\n{status}",
    }


class SectionHelp(argparse._HelpAction):
    """`--trainer.help`: explain the options of that section, and exit."""

    def __call__(self, parser: argparse.ArgumentParser, *arguments: Any, **options: Any) -> None:
        """Print it."""
        parser.section = self.dest.partition(".")[0]  # type: ignore[attr-defined]
        super().__call__(parser, *arguments, **options)


class HelpFormatter(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """jsonargparse's, with classes by name, plain text for markup, and no type where the metavar says it."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)

    def _get_type_str(self, action: argparse.Action) -> str | None:
        return None if action.metavar else _CLASS.sub(r"\1", super()._get_type_str(action) or "") or None

    def _get_help_string(self, action: argparse.Action) -> str:
        if isinstance(action, argparse._HelpAction):
            return action.help or ""
        text = super()._get_help_string(action)
        if action.default in (None, "", ()):
            text = re.sub(r"(, )?default: %\(default\)s", "", text)
        text, listed, classes = text.partition(_LISTED)
        if listed:
            text = f"{text})".removesuffix(" ()") + f"; by name: {', '.join(_class_names(classes[:-1]))}"
        return _MARKUP.sub(r"\1", text.removesuffix(" ()")).replace("``", "`")


class RecipeParser(LightningArgumentParser):
    """Lightning's parser, with a help by sections; a misspelt key or class is named, with the nearest one."""

    section = ""  # whose help was asked for

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"prog": "avzoo", "allow_abbrev": False, **options})

    def format_help(self, *arguments: Any, **options: Any) -> str:
        """What matters first; of preprocess and trainer the keys alone, unless they were asked for."""
        for action in self._actions:
            if action.dest in WORDS:
                metavar, action.help = WORDS[action.dest]
                action.metavar = metavar or action.metavar
            if tuple(action.dest.split(".")[:2]) in LINKED:
                action.help = argparse.SUPPRESS
        groups = self.groups or {}
        if "trainer" not in groups:  # `--model.help NAME`
            self.usage, self.formatter_class = argparse.SUPPRESS, HelpFormatter
            return super().format_help(*arguments, **options)
        for name, title in _SECTIONS.items():
            groups[name].title = title
        if self.section:
            self.usage, self.description = f"{self._command} --{self.section}.KEY VALUE ...", None
            self._action_groups = [groups[self.section]]
        else:
            first, own = self._optionals, self._action_groups[-1]  # Lightning adds the command's own last
            first._group_actions += own._group_actions
            for name in _SECTIONS:
                _keys_alone(groups[name]._group_actions)
            self._action_groups = [first, groups["training"], *(groups[name] for name in _SECTIONS)]  # type: ignore[list-item]
        return super().format_help(*arguments, **options)

    @property
    def _command(self) -> str:
        return self.prog.replace(" [options]", "")

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """End with one line: what was given, what is expected, where to look."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):  # whatever it is, it is about the command
                action.choices[self.args[0]].error(message, ex)
        said, where = self._in_short(message)
        if not self.exit_on_error:  # the parser of a class, which is quoted by the command's
            super().error(said, ex)
        self.exit(2, f"{self._command}: error: {said} (`{self._command} {where}` explains)\n")

    def _in_short(self, message: str) -> tuple[str, str]:
        """What jsonargparse says in a paragraph, and the option that explains what could be given instead."""
        named = re.search(r'(?:Parser key "|^--)([\w.]+?)(?:\.help:|")', message)
        key = named.group(1) if named else ""
        if of_class := re.search(r"class_path '(?:[\w.]*\.)?(\w+)':\s+(.*)", message):
            name, said = of_class.groups()
            return f"{key} {name}: {said}", f"--{key}.help {name}"
        if unknown := re.search(r"(?:Option|accept option) '([^']+)'|unrecognized arguments: --([\w.]+)", message):
            key = unknown.group(1) or unknown.group(2)
            said = f"there is no option {key!r}{self._nearest(key)}"
        elif unknown := re.search(r"dot import path string: (\S+)", message):
            said = f"{key}: there is no class {unknown.group(1)!r}{did_you_mean(unknown.group(1), self._classes(key))}"
        elif bare := re.match(r"argument --([\w.]+)\.help: expected one argument", message):
            key = bare.group(1)
            said = f"--{key}.help explains one of {', '.join(self._classes(key))}: name it"
        elif missing := re.match(r"the following arguments are required: (.*)", message):
            options = re.sub(r"[a-z]+\.", "--", missing.group(1))
            said = f"missing: {options}{'; a recipe has them: --config RECIPE' if '--model' in options else ''}"
        elif stray := re.match(r"unrecognized arguments: (.*)", message):
            said = f"{stray.group(1)!r} belongs to no option; a recipe is named by --config"
        else:
            said = _value(key, message) or " ".join(message.split())
        section = key.partition(".")[0]
        explained = [action.dest for action in self._actions if isinstance(action, SectionHelp)]
        return said, f"--{section}.help" if f"{section}.help" in explained else "--help"

    def _classes(self, key: str) -> list[str]:
        """The classes that an option takes."""
        listed = next((action.extra_help() for action in self._actions if action.dest == key), "")  # type: ignore[attr-defined]
        return _class_names(listed.removeprefix(_LISTED))

    def _nearest(self, given: str) -> str:
        """The nearest option, with or without its section; the nearest section, if there is no such."""
        names = {action.dest for action in self._actions}
        section, _, key = given.partition(".")
        sections = {name.partition(".")[0] for name in names}
        if section not in sections:
            return did_you_mean(section, sections)
        return did_you_mean(given, names) or did_you_mean(key, {name.rpartition(".")[2] for name in names})


def refusal(error: ValueError, config: Namespace) -> AvzooError | None:
    """What a class of avzoo says against its arguments, without the paragraphs that jsonargparse makes of it.

    Args:
        error: As it comes from instantiation.
        config: Of the command.

    Returns:
        None if no such class said anything.
    """
    said: BaseException | None = error
    while said is not None and not isinstance(said, AvzooError):
        said = said.__cause__
    root = config.get("data.init_args.root")
    lost = isinstance(said, DataNotFoundError) and root and not Path(root).exists()
    if lost and config["config"] and not any(".root" in word for word in sys.argv):
        recipe = os.path.relpath(config["config"][0])
        return DataNotFoundError(f"{said}; {root} is data.root of {recipe}, --data.root names another")
    return said


def _keys_alone(actions: list[argparse.Action]) -> None:
    """Leave the names of a section's options, if it has a help of its own."""
    actions.sort(key=lambda action: action.dest.endswith(".help"))
    *others, last = actions
    if isinstance(last, SectionHelp):
        section = last.dest.partition(".")[0]
        keys = [action.dest.partition(".")[2] for action in others if action.dest.count(".") == 1]
        last.help = f"explain --{section}.KEY VALUE: {', '.join(keys)}"
        for action in others:
            action.help = argparse.SUPPRESS


def _value(key: str, message: str) -> str:
    r"""What is said of a value that a key cannot have; nothing, if the message is about something else.

    >>> _value("save_every", "Expected a <class 'int'>. Got value: often")
    "save_every is 'often', expected int"
    >>> _value("loss", "Expected a typing.Literal['bce', 'ce']\nExpected a <class 'NoneType'>\nGiven value: mse")
    "loss is 'mse', expected one of ['bce', 'ce'] or null"
    """
    before, found, after = re.sub(r"(?:Got|Given) value: ", "\0", message).partition("\0")
    types = re.findall(r"(?:Expected (?:an? )?|Not of type )(.*?)(?:\. |$)", before, re.MULTILINE)
    if not (found and types):
        return ""
    expected = _CLASS.sub(r"\1", " or ".join(types)).replace("NoneType", "null").replace("typing.Literal", "one of ")
    expected = expected.replace(": does not conform to restriction v", " ")
    return f"{key} is {after.splitlines()[0]!r}, expected {expected.replace('] or one of [', ', ')}"


def _class_names(paths: str) -> list[str]:
    """What the classes that an option takes are called.

    >>> _class_names("lightning.Callback, lightning.pytorch.callbacks.Timer, avzoo.train.best.Best")
    ['Timer']
    """
    return list(dict.fromkeys(path.rpartition(".")[2] for path in paths.split(", ") if not _INTERNAL.match(path)))
