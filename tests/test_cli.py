"""The command line, in a process of its own where imports matter, in this one where speed does."""

import json
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
    assert "avsdn-ave has no weights yet: avzoo fit --config recipes/avsdn-ave.yaml" in " ".join(done.stdout.split())


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
