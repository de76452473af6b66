"""The site builds without a warning, and every code block in it and in the README is run or checked.

The blocks of a page run one after the other, in a folder of their own, in which lies what a reader is told to have: a
clip, a folder of clips, runs that were trained. What takes long runs smaller (`SMALLER`) or is parsed alone (`PARSED`);
each of the latter says why.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import traceback
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from fresh import Fresh
from hub_server import HubServer, Repo
from markdown_it import MarkdownIt

import avzoo
from avzoo import bundle, cli, data, models, registry
from avzoo.data import rendering

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SITE = {"{toctree}", "{eval-rst}"}  # what only the site's build reads
PICTURES = {"", "text"}  # drawings of folders and what a command prints

# Commands that are parsed by the real parser and not run.
PARSED = {
    "fit": "trains for hours; the recipes' own tests run it",
    "validate": "needs the data and the run that `fit` leaves",
    "test": "likewise",
    "extract": "needs the data",
    "shard": "needs the data; its own tests run it",
    "lr": "trains; its own tests run it",
    "publish": "needs the run that `fit` leaves; the tests of publishing run it",
    "export": "needs an extra; its own tests run it",
    "app": "serves until it is stopped; its own tests run it",
}
# What a command that is run gets besides, so that it is done in seconds.
SMALLER = {
    "synth": ["--train", "6", "--val", "3", "--test", "3", "--size", "64", "--workers", "1"],
    "finetune": ["--epochs", "2", "--workers", "0"],
}
# Other programs that a page may name, which this test does not start.
OTHERS = {
    "python",
    "pip",
    "export",
    "cd",
    "ruff",
    "mypy",
    "hf",
    "sbatch",
    "squeue",
    "scancel",
    "srun",
    "torchrun",
    "apt-get",
}
# Python that is compiled and not run: a part of its text, and why.
NOT_RUN = {
    "s3://bucket/ave": "an object store; the tests of shards read by URL",
    "webdataset.WebDataset": "shards of a large dataset; the tests of shards read small ones so",
}

REPO = "owner/name"


class Block(NamedTuple):
    """A block of code of a page."""

    line: int
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """Fenced blocks, and indented ones, which have no language and are taken for the shell's."""
    tokens = MarkdownIt().parse(page.read_text(encoding="utf-8"))
    language = {"fence": lambda token: token.info.strip(), "code_block": lambda _: "bash"}
    code = [token for token in tokens if token.type in language]
    return [Block((token.map or [0])[0] + 1, language[token.type](token), token.content) for token in code]


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a shell block, word by word; of a console block what follows the prompts."""
    lines = text.replace("\\\n", " ").splitlines()
    prompts = [line[2:] for line in lines if line.startswith("$ ")]
    for line in prompts or lines:
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        command: list[str] = []
        for word in [*words, ";"]:
            if set(word) <= set("();<>|&"):
                yield from [command] if command else []
                command = []
            elif command or not re.match(r"[A-Z_]+=", word):
                command.append(word)


# -- in a process of their own --------------------------------------------------------------------------------------


class Parsed(Exception):
    """A command of Lightning's was read to its end."""


def run_page(page: Path, folder: Path, commit: str) -> str:
    """Run the blocks of a page; what went wrong, or nothing."""
    os.chdir(folder)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        text = block.text.replace("<40-hex commit>", commit)
        text = re.sub(r"<(\d+) hex digits>", lambda found: "a" * int(found[1]), text)
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                run_block(block.language, text, namespace)
        except (Exception, SystemExit):
            return f"{page.name}, line {block.line}:\n{text}\n{said.getvalue()}\n{traceback.format_exc()}"
    return ""


def run_block(language: str, text: str, namespace: dict[str, Any]) -> None:
    if language == "python":
        code = compile(text, "<block>", "exec")
        if not any(part in text for part in NOT_RUN):
            exec(code, namespace)
    elif language in ("bash", "console"):
        for command in commands(text):
            run_command(command)
    elif language == "yaml":
        check_yaml(text)
    else:
        assert language in SITE | PICTURES, f"nothing here checks a block of {language!r}"


def run_command(words: list[str]) -> None:
    if words[0] == "avzoo" or ("avzoo" in words and words[0] in ("srun", "torchrun")):
        arguments = words[words.index("avzoo") + 1 :]
        parse(arguments)
        if arguments[0] not in PARSED:
            for word in arguments[1:]:
                if word.endswith(".mp4") and not Path(word).exists():  # a reader's own video
                    shutil.copy("clip.mp4", word)
            cli.main([*arguments, *SMALLER.get(arguments[0], [])])
        return
    assert words[0] in OTHERS, f"{words[0]} is a program that this test does not know"
    if words[0] == "python":
        check_python(words[1:])


def parse(arguments: list[str]) -> None:
    """By the parser that the command itself has; an unknown option ends it."""
    if arguments[0] in cli.COMMANDS:
        parser = ArgumentParser()
        importlib.import_module(f"avzoo.commands.{arguments[0]}").add_arguments(parser)
        parser.parse_intermixed_args(arguments[1:])
        return
    from avzoo.training import AvzooCLI

    def stop(_cli: AvzooCLI) -> None:
        raise Parsed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AvzooCLI, "before_instantiate_classes", stop)
        patch.setattr(sys, "argv", ["avzoo"])
        with pytest.raises(Parsed):
            cli._run(arguments)


def check_python(words: list[str]) -> None:
    """A module that there is, a file that there is, extras that there are."""
    if words[0] != "-m":
        assert (ROOT / words[0]).is_file(), words
        return
    assert importlib.util.find_spec(words[1]), words
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extras in re.findall(r"\[([\w,]+)\]", " ".join(words)):
        assert {*extras.split(",")} <= project["optional-dependencies"].keys(), words


def check_yaml(text: str) -> None:
    """A registry file, or a recipe: whole, or a part that is laid over one that is."""
    file = Path("block.yaml")
    file.write_text(text, encoding="utf-8")
    sections = {"seed_everything", "preprocess", "model", "data", "trainer", "monitor", "init_from"}
    content = yaml.safe_load(text)
    if content.keys() & sections:
        base = [] if {"model", "data"} <= content.keys() else ["--config", "recipes/avsdn-avemix.yaml"]
        parse(["fit", *base, "--config", str(file)])
    else:
        registry.read_registry(file)


# -- the tests -------------------------------------------------------------------------------------------------------


def get_ready() -> None:
    """What every page needs, once, before the processes part."""
    import avzoo.training  # noqa: F401

    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def fresh() -> Iterator[Fresh]:
    process = Fresh()
    process._pool.submit(get_ready).result()
    yield process
    process.close()


@pytest.fixture(scope="module")
def server() -> Iterator[HubServer]:
    with HubServer().running() as running:
        yield running


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, server: HubServer) -> Path:
    """A folder with what the pages speak of."""
    folder = tmp_path_factory.mktemp("desk")
    rendering.render(rendering.script(5, seconds=4), folder / "clip.mp4", size=64)
    rendering.write_clips(folder / "my_clips", train=6, val=3, test=3, classes=rendering.CLASSES[:3], size=64)
    for recipe in (ROOT / "recipes").glob("*.yaml"):
        run = folder / "runs" / recipe.stem / "version_0"
        (run / "checkpoints").mkdir(parents=True)
        shutil.copy(recipe, run / "recipe.yaml")
        torch.save({}, run / "checkpoints" / "best.ckpt")
    shipped = registry.PACKAGE / "weights" / "avsdn-synthetic"
    shutil.copytree(shipped, folder / "bundles" / "mine")
    repo = server.repos[REPO] = Repo()
    repo.commit({file.name: file.read_bytes() for file in shipped.iterdir()})
    entry = yaml.safe_load(registry.asset("checkpoints.yaml").read_text(encoding="utf-8"))["avsdn-synthetic"]
    entry |= {"weights": "hub", "hub": {"repo": REPO, "revision": repo.head}, "files": bundle.manifest(shipped)}
    (folder / "my-models.yaml").write_text(yaml.safe_dump({"mine": entry}))
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_code_block_runs_or_is_checked(
    page: Path, fresh: Fresh, server: HubServer, desk: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(desk, tmp_path / "desk"))
    env = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    (wrong,) = fresh(run_page, page, folder, server.repos[REPO].head, env={**env, "HF_HUB_DISABLE_XET": "1"})
    assert not wrong, wrong


def test_a_block_that_is_wrong_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for block in (
        "```bash\navzoo predict clip.mp4 --modle x\n```",
        "```bash\navzoo fit --config recipes/avsdn-ave.yaml --data.rot /data\n```",
        "```console\n$ avzoo nothing\n```",
        "* a list\n\n  ```python\n  import avzo\n  ```",
        "```bash\npython -m pip install 'avzoo[nothing]'\n```",
        "```yaml\ntrainer: {max_epoch: 3}\n```",
        "```yaml\nmine: {model: AVSDN, tusk: segment}\n```",
        "```ruby\nputs 1\n```",
        "    avzoo info --nothing",
    ):
        page = tmp_path / "page.md"
        page.write_text(f"# Page\n\n{block}\n")
        assert "page.md, line " in run_page(page, tmp_path, "0" * 40), block


def test_every_command_is_on_a_page_and_every_exception_is_needed() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    known = {*cli.COMMANDS, *cli.TRAINING}
    for command in known:
        assert re.search(rf"(\bavzoo |`){command}\b", text), command
    assert {*PARSED, *SMALLER} <= known
    assert all(part in text for part in NOT_RUN)


def test_files_that_are_named_are_there() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        links = re.findall(r"\]\((?!https?:)([^)#]+)", text) if page.name == "README.md" else []  # else Sphinx looks
        for name in [*links, *re.findall(r"`((?:avzoo|docs|tests)/[\w./-]+)", text)]:
            assert (ROOT / name).exists(), f"{page.name}: {name}"


def test_the_site_builds_without_a_warning_and_needs_no_network(tmp_path: Path) -> None:
    pytest.importorskip("furo", reason="needs the extra docs")
    out = tmp_path / "html"
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", str(tmp_path / "trees")]
    done = subprocess.run(
        [*command, "-b", "html", str(ROOT / "docs"), str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    api, zoo = (out / "api.html").read_text(encoding="utf-8"), (out / "zoo.html").read_text(encoding="utf-8")
    for module in (avzoo, data, models):
        for name in {*module.__all__} - {"__version__", "AvzooError", "MODELS"}:
            assert f'id="{module.__name__}.{name}"' in api, f"docs/api.md has no {module.__name__}.{name}"
    for name in registry.list_models():
        assert f'id="{name}"' in zoo
    assert "1\N{NO-BREAK SPACE}seed<" in zoo
    assert {page.stem for page in out.glob("*.html")} >= {page.stem for page in (ROOT / "docs").glob("*.md")}
    for page in out.rglob("*.html"):
        fetched = re.findall(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"(https?:[^\"]*)", page.read_text())
        assert not fetched, f"{page.name} fetches {fetched}"
