"""The benchmark scripts start: their figures stand in README and cards."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = sorted((Path(__file__).parents[1] / "docs" / "benchmarks").glob("*.py"))


def script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_help(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [path.name, "--help"])
    with pytest.raises(SystemExit) as stop:
        script(path).main()
    assert stop.value.code == 0
    assert path.name in capsys.readouterr().out


@pytest.mark.usefixtures("cheap_backbones")
def test_accuracy_trains_every_row_and_measures_test_when_asked(
    rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = script(next(path for path in SCRIPTS if path.stem == "accuracy"))
    monkeypatch.chdir(tmp_path)
    quick = ["--data.workers", "0", "--trainer.max_epochs", "1"]
    monkeypatch.setattr(module, "RUNS", {name: (recipe, [*how, *quick]) for name, (recipe, how) in module.RUNS.items()})
    for more in ([], ["--test"]):
        monkeypatch.setattr(sys, "argv", ["x", str(rendered), "--rendered", str(rendered), "--seeds", "1", *more])
        module.main()
    table = json.loads((tmp_path / "accuracy.json").read_text())
    assert table.keys() == module.RUNS.keys()
    assert all(0 <= row[figure] <= 1 for rows in table.values() for row in rows for figure in ("val", "test"))
    assert "AVSDN, rendered clips too" in capsys.readouterr().out
