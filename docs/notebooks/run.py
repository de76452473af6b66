"""Execute the notebooks from clean kernels and save them with their outputs: `python docs/notebooks/run.py [FILE...]`.

Each runs in an empty folder, offline, on one thread, and beside the small Hub of the tests, so that nothing leaves this
machine. What differs from run to run without telling anything (times, versions, identifiers) is not saved.
"""

from __future__ import annotations

import base64
import io
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

from avzoo.files import whole

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NOTEBOOKS = sorted(HERE.glob("*.ipynb"))


def execute(file: Path, folder: Path, env: Mapping[str, str]) -> NotebookNode:
    """Run a notebook in a folder; nothing is written to its file.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell fails.
    """
    notebook = nbformat.read(file, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(
        notebook, timeout=600, resources=resources, record_timing=False, coalesce_streams=True, kernel_name="python3"
    )
    here = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "AVZOO_CACHE": str(folder / "cache"), "COLUMNS": "100"}
    here["PYTHONWARNINGS"] = "ignore:IProgress not found"  # tqdm's, where there are no widgets
    client.execute(env={**os.environ, **here, **env})
    return strip(notebook)


def strip(notebook: NotebookNode) -> NotebookNode:
    """Keep what a reader sees, and what a kernel is found by."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = nbformat.from_dict({"kernelspec": kernel, "language_info": {"name": "python"}})
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", nbformat.from_dict({})
        for output in cell.get("outputs", ()):
            if "metadata" in output:
                output.metadata = nbformat.from_dict({})
            if "image/png" in output.get("data", ()):
                output.data["image/png"] = smaller(output.data["image/png"])
            if len(output.get("data", ())) > 1:  # there is a picture or a table: not its digits as well
                output.data.pop("text/plain", None)
    return notebook


def smaller(picture: str) -> str:
    """A PNG in base64 in 256 colours."""
    with Image.open(io.BytesIO(base64.b64decode(picture))) as opened:
        if opened.mode == "P":
            return picture
        packed = io.BytesIO()
        opened.convert("RGB").quantize(256).save(packed, "png", optimize=True)
    return base64.b64encode(packed.getvalue()).decode()


def hub_env(url: str, token: str, folder: Path) -> dict[str, str]:
    """What the notebook on publishing is told about the Hub."""
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1"}
    return {"HF_ENDPOINT": url, "HF_TOKEN": token, "HF_HOME": str(folder / "hf"), "AVZOO_DOCS_REPO": "me/it", **quiet}


def main(files: list[Path]) -> None:
    """Execute and save."""
    sys.path.insert(0, str(ROOT / "tests"))
    from hub_server import WRITE, HubServer

    for file in files or NOTEBOOKS:
        with HubServer().running() as server, tempfile.TemporaryDirectory() as scratch:
            notebook = execute(file, Path(scratch), hub_env(server.url, WRITE, Path(scratch)))
        text = nbformat.writes(notebook)
        with whole(file) as unfinished:
            unfinished.write_text(text + "\n", encoding="utf-8")
        print(f"{file.name}: {len(text) / 1e3:.0f} kB")


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
