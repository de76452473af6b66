"""What `avzoo fit --help` and its kin say, and what a wrong command line is told."""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import re
import shlex
import sys
from pathlib import Path

import pytest
from lightning import Trainer

from avzoo import cli, registry
from avzoo.preprocess import Preprocess
from avzoo.train.finetune import FineTune
from avzoo.train.parser import EXAMPLES, WORDS

AVEMIX = ["--config", str(registry.asset("recipes/avsdn-avemix.yaml"))]
SECTIONS = {"preprocess": Preprocess, "trainer": Trainer}


@functools.cache
def help_of(*arguments: str) -> str:
    """What is printed on a terminal of 100 columns."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as said:
        patch.setenv("COLUMNS", "100")
        patch.setattr(sys, "argv", ["avzoo"])
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
    assert stop.value.code == 0
    return said.getvalue()


def entries(text: str) -> dict[str, str]:
    """The options, without what they take, and what is said of each."""
    blocks = re.findall(r"^  (-.*(?:\n {20,}.*)*)", text, re.MULTILINE)
    parts = [re.split(r"  +|\n +", block, maxsplit=1) for block in blocks]
    found = {re.findall(r"--[\w.]+", part[0])[0]: " ".join(" ".join(part[1:]).split()) for part in parts}
    assert len(found) == len(blocks)
    return found


@pytest.mark.parametrize("command", cli.TRAINING)
def test_the_first_screen_says_what_matters(command: str) -> None:
    text = help_of(command, "--help")
    usage, description, *_ = text.split("\n\n")
    assert usage.startswith(f"usage: avzoo {command} ")
    assert usage.count("\n") < 3
    assert cli.TRAINING[command][1:] in description
    screen = "\n".join(text.splitlines()[:66])
    assert [
        word for word in ("--config", "--limit", "--model.help", "--data.help", "AVSDN", "TAU") if word not in screen
    ] == []
    recipes = [path.stem for path in registry.asset("recipes").glob("*.yaml")]
    assert [name for name in recipes if name not in screen] == []
    assert all(f"avzoo {command} {example}" in screen for example in EXAMPLES[command])
    assert max(map(len, text.splitlines())) <= 100


def test_that_of_fit_has_what_a_run_does() -> None:
    screen = "\n".join(help_of("fit", "--help").splitlines()[:60])
    options = ("monitor", "init_from", "resume", "save_every", "track", "keep_best", "seed_everything", "ckpt_path")
    assert [name for name in options if f"  --{name} " not in screen] == []
    assert "75 a signal stopped it" in screen
    assert {f"--{option}" for option in WORDS} <= entries(help_of("fit", "--help")).keys()  # else Lightning changed


@pytest.mark.parametrize(
    ("command", "example"),
    [(command, text) for command in EXAMPLES for text in EXAMPLES[command] if "--config" in text],
)
def test_an_example_is_a_command_line(command: str, example: str) -> None:
    assert help_of(command, *shlex.split(example), "--print_config").startswith("# lightning")


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_of_a_section_is_named_and_explained(section: str) -> None:
    keys = set(inspect.signature(SECTIONS[section]).parameters)
    named = entries(help_of("fit", "--help"))[f"--{section}.help"]
    assert keys <= set(re.findall(r"\w+", named))
    explained = entries(help_of("fit", f"--{section}.help"))
    assert {f"--{section}.{key}" for key in keys} <= explained.keys()


@pytest.mark.parametrize(
    "arguments",
    [
        *((command, "--help") for command in cli.TRAINING),
        *(("fit", f"--{section}.help") for section in SECTIONS),
        ("fit", "--model.help", "AVSDN"),
        ("fit", "--data.help", "AVE"),
    ],
)
def test_no_option_is_without_a_word_and_nothing_internal_is_named(arguments: tuple[str, ...]) -> None:
    text = help_of(*arguments)
    found = entries(text)
    assert [option for option, said in found.items() if not re.match(r'[\w"`]', said)] == []
    internal = {
        name
        for module in [module for name, module in sys.modules.items() if re.match(r"avzoo\.train", name)]
        for name, kind in inspect.getmembers(module, inspect.isclass)
        if kind.__module__.startswith("avzoo.train") and kind is not FineTune
    }
    assert {"Best", "Resumable", "WholeBatch"} <= internal
    assert internal & set(re.findall(r"\w+", text)) == set()
    assert re.findall(r"<class|DummyLogger|avzoo\.train|:class:|``|known subclasses", text) == []


def test_what_is_wired_is_not_an_option_of_a_model() -> None:
    assert "--model.lr" in entries(help_of("fit", "--model.help", "AVSDN"))
    assert not {"--model.classes", "--model.preprocess"} & entries(help_of("fit", "--model.help", "AVSDN")).keys()
    assert "FineTune" in entries(help_of("fit", "--trainer.help"))["--trainer.callbacks"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fit"], "avzoo fit: error: missing: --data, --model; a recipe has them: --config RECIPE"),
        (["shard", *AVEMIX], "avzoo shard: error: missing: --out (`avzoo shard --help` explains)"),
        (["fit", "--confg", "x"], "there is no option 'confg'; did you mean 'config'? (`avzoo fit --help` explains)"),
        (
            ["fit", "recipes/avsdn-ave.yaml"],
            "'recipes/avsdn-ave.yaml' belongs to no option; a recipe is named by --config",
        ),
        (["fit", *AVEMIX, "--model", "AVSND"], "model: there is no class 'AVSND'; did you mean 'AVSDN'?"),
        (["fit", "--data.help", "AVEE"], "data: there is no class 'AVEE'; did you mean 'AVE'?"),
        (["fit", *AVEMIX, "--model.hiden_dim", "3"], "'hidden_dim'? (`avzoo fit --model.help AVSDN` explains)"),
        (["fit", *AVEMIX, "--model.hidden_dim", "x"], "model AVSDN: hidden_dim is 'x', expected int"),
        (["fit", *AVEMIX, "--track", "x"], "track is 'x', expected one of ['csv', 'tensorboard', 'wandb']"),
        (["fit", *AVEMIX, "--limi", "1"], "there is no option 'limi'; did you mean 'limit'?"),
        (["fit", *AVEMIX, "--trainer.max_epoch", "1"], "did you mean 'trainer.max_epochs'?"),
        (["fit", "--model.help"], "--model.help explains one of AVSDN, "),
        (["fit", "--model.help", "AVSDN", "--x"], "avzoo: error: there is no option 'x'"),
        (["fit", *AVEMIX, "--trainer.precision", "17"], "precision is '17', expected one of [64, 32, 16, 'transformer"),
        (["fit", *AVEMIX, "--limit", "0"], "limit is '0', expected PositiveInt >0 or null"),
        (["lr", *AVEMIX, "--trainer.precison", "16"], "'trainer.precision'? (`avzoo lr --trainer.help` explains)"),
    ],
)
def test_a_wrong_command_line_is_told_so_in_one(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["__main__.py"])  # as of `python -m avzoo`
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("modl: {name: AVSDN}", "there is no option 'modl.name'; did you mean 'model'?"),
        ("model: {name: AVSDN}\ndata: {name: AVE}", "data AVE: missing: root (`avzoo fit --data.help AVE` explains)"),
        ("trainer: {callbacks: [{name: FineTne}]}", "there is no class 'FineTne'; did you mean 'FineTune'?"),
        ("model: {name: AVSDN\ndata: 3", "mine.yaml is no YAML"),
        ("caf\xe9", "mine.yaml is no YAML: 'utf-8' codec"),
    ],
)
def test_so_is_a_wrong_recipe(recipe: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text(recipe, encoding="latin-1")
    with pytest.raises(SystemExit):
        cli.main(["fit", "--config", str(tmp_path / "mine.yaml")])
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_recipe_that_is_not_there_is_named_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["fit", "--config", "recipes/avsdn-avemx.yaml"])
    assert "there is no recipe 'recipes/avsdn-avemx.yaml'; did you mean 'avsdn-avemix'?" in capsys.readouterr().err
