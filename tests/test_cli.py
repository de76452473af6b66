"""The command line, in a process of its own where imports matter, in this one where speed does."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from avzoo import cli


def test_list_needs_no_torch() -> None:
    code = (
        "import sys; from avzoo.cli import main; main(['list']);"
        "heavy = {'torch', 'lightning', 'timm', 'matplotlib'} & sys.modules.keys(); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "avsdn-avemix" in done.stdout


@pytest.mark.parametrize("options", [[], ["--backbones"]])
def test_a_piped_list_is_one_whole_line_each(
    options: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    cli.main(["list", *options, "--json"])
    facts = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    cli.main(["list", *options])
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.startswith("name ")
    for line, entry in zip(lines, facts, strict=True):
        assert line.startswith(f"{entry['name']} ")
        assert f" {entry['licence'] or '-'} " in f"{line} "
    monkeypatch.setenv("FORCE_COLOR", "1")  # as in a terminal
    cli.main(["list"])
    assert "avsdn-ave: avzoo fit --config recipes/avsdn-ave.yaml" in re.sub(r"\x1b.*?m", "", capsys.readouterr().out)


def test_piped_info_is_one_line_a_fact(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    cli.main(["info", "avsdn-ave"])
    piped = capsys.readouterr().out
    assert next(line for line in piped.splitlines() if "classes" in line).endswith("; background")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    cli.main(["info", "avsdn-ave"])
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 60
    assert shown.split() == piped.split()


@pytest.mark.parametrize("command", [["list"], ["info", "avsdn-ave"]])
def test_a_reader_that_has_gone_is_no_error(command: list[str]) -> None:
    gone, pipe = os.pipe()
    os.close(gone)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with os.fdopen(pipe, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "avzoo", *command],
            stdout=closed,
            stderr=subprocess.PIPE,
            env=environment,
            check=False,
        )
    assert done.stderr == b""


def test_list_as_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["list", "avsdn*", "--json"])
    names = [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()]
    assert names == sorted(names)
    assert {"avsdn-ave", "avsdn-ave-weak", "avsdn-avemix"} <= set(names)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["predcit"], "did you mean 'predict'?"),
        (["predict", "nowhere.mp4"], "nowhere.mp4"),
        (["predict", "nowhere.mp4", "--model", "avsdn-avmix"], "did you mean 'avsdn-avemix'?"),
        (["load", "avsdn-ave"], "avzoo fit --config recipes/avsdn-ave.yaml"),
        (["recipe", "avsdn-avmix"], "did you mean 'avsdn-avemix'?"),
    ],
)
def test_an_error_is_one_line_and_status_1(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 1
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("arguments", [["list", "--js"], ["--vers"]])
def test_an_option_is_written_out(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().out == ""


def test_help_of_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for command in cli.COMMANDS:
        with pytest.raises(SystemExit) as stop:
            cli.main([command, "--help"])
        assert stop.value.code == 0
        assert cli.COMMANDS[command][1:] in " ".join(capsys.readouterr().out.split())


def test_recipe_prints_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["recipe", "avsdn-avemix"])
    assert capsys.readouterr().out == (Path(__file__).parents[1] / "recipes" / "avsdn-avemix.yaml").read_text()


def test_files_may_follow_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["merge", str(tmp_path), "--out", str(tmp_path / "all.jsonl"), str(tmp_path)])
    assert "holds no video" in capsys.readouterr().err
