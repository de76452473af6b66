"""The notebooks of the documentation run from clean kernels, offline, and what is saved in them is theirs."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("nbclient", reason="needs the extra docs")

import nbformat
from hub_server import WRITE, HubServer
from nbformat import NotebookNode

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
LARGEST = 300_000  # bytes of a file


def load_runner() -> ModuleType:
    """`docs/notebooks/run.py`, which is no module of the package."""
    spec = importlib.util.spec_from_file_location("run_notebooks", ROOT / "docs" / "notebooks" / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


runner = load_runner()


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer().running() as running:
        yield running


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def kinds(notebook: NotebookNode) -> list[str]:
    """What a reader sees after each cell, in order: text, tables, pictures."""
    return [kind for output in outputs(notebook) for kind in output.get("data", {output.output_type: ""})]


def run_clean(file: Path, folder: Path, env: dict[str, str]) -> None:
    notebook = runner.execute(file, folder, env)
    said = [output.text for output in outputs(notebook) if output.get("name") == "stderr"]
    assert not said  # neither warnings nor progress bars
    assert kinds(notebook) == kinds(nbformat.read(file, as_version=4)), "run docs/notebooks/run.py"


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs_and_shows_what_is_saved(file: Path, server: HubServer, tmp_path: Path) -> None:
    run_clean(file, tmp_path, runner.hub_env(server.url, WRITE, tmp_path))
    assert ("me/it" in server.repos) == (file.stem == "3-publish")


def test_publishing_is_a_dry_run_until_it_is_told_where_to(server: HubServer, tmp_path: Path) -> None:
    env = runner.hub_env(server.url, WRITE, tmp_path)
    del env["AVZOO_DOCS_REPO"]
    run_clean(NOTEBOOKS[2], tmp_path, env)
    assert server.log == []


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_what_is_saved_is_whole_and_small(file: Path) -> None:
    assert file.stat().st_size < LARGEST
    notebook = nbformat.read(file, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert {output.output_type for output in outputs(notebook)} <= {"stream", "display_data", "execute_result"}
    assert {"image/png", "image/jpeg", "text/html"} & {*kinds(notebook)}
    text = file.read_text(encoding="utf-8")
    assert str(ROOT) not in text
    assert "/tmp" not in text
    assert runner.strip(notebook) == nbformat.read(file, as_version=4)
