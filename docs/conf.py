"""The site: `python -m sphinx -W -b html docs OUT`, offline, with the package importable.

What is particular to avzoo: the zoo's tables are made from `checkpoints.yaml`, and docstrings, which are Markdown
between Google's sections, have their code fences turned into what Sphinx reads.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import avzoo
from avzoo import registry

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "avzoo"
author = "the avzoo authors"
copyright = "the avzoo authors, Apache-2.0"
version = release = avzoo.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["benchmarks", "**.ipynb_checkpoints"]
nb_execution_mode = "off"  # notebooks are shown with the outputs that they were saved with
myst_enable_extensions = ["substitution", "colon_fence"]
myst_heading_anchors = 3

default_role = "code"
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes as a list, not as entries of the index

html_theme = "furo"
html_title = f"avzoo {version}"
html_show_sphinx = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1f5f8b", "color-brand-content": "#1f5f8b"},
    "dark_css_variables": {"color-brand-primary": "#7fb8e0", "color-brand-content": "#7fb8e0"},
}


ZOO = registry.read_registry(registry.asset("checkpoints.yaml"))  # none of what $AVZOO_REGISTRY names
SPACE = "\N{NO-BREAK SPACE}"


def unbroken(metric: Mapping[str, Any]) -> str:
    """A number that stays on one line."""
    return registry.format_metric(metric).replace(" ", SPACE)


def seeds(count: int) -> str:
    """How many, on one line."""
    return f"{count}{SPACE}{'seed' if count == 1 else 'seeds'}"


def table(columns: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def first(entry: registry.Checkpoint, split: str) -> str:
    """What was measured first on a split, else what the paper reports there."""
    for metric in entry.metrics:
        if metric["split"] == split:
            return unbroken(metric)
    if entry.paper.get("split") != split:
        return "-"
    unit = "" if entry.paper["name"] == "segment_accuracy" else f" ({entry.paper['name'].replace('_', ' ')})"
    return f"paper: {unbroken(entry.paper)}{unit}"


def models() -> str:
    """The zoo at a glance."""
    rows = [
        [
            f"[`{entry.name}`](#{entry.name})",
            entry.model,
            {"segment": "events", "clip": "scenes"}[entry.task],
            entry.dataset,
            first(entry, "test"),
            f"{entry.size / 1e6:.1f} MB" if entry.weights else "none yet",
        ]
        for entry in ZOO.checkpoints.values()
    ]
    return table(["name", "network", "answers", "trained on", "test, by the second", "weights"], rows)


def details() -> str:
    """Each model by itself: what it knows, what was measured, what it comes from."""
    return "\n\n".join(detail(entry) for entry in ZOO.checkpoints.values())


def detail(entry: registry.Checkpoint) -> str:
    """One model."""
    measured = [
        [metric["name"], metric["split"], unbroken(metric), seeds(metric["seeds"]), metric.get("note", "")]
        for metric in entry.metrics
    ]
    if entry.paper:
        name, split = entry.paper["name"], entry.paper["split"]
        measured.append([name, split, unbroken(entry.paper), "the paper", "not measured here"])
    weights = f"{entry.size / 1e6:.1f} MB under {entry.licence}" if entry.weights else "none are published yet"
    parts = [
        f"### {entry.name}",
        f"{entry.about}. Classes: {'; '.join(entry.classes)}.",
        table(["measure", "split", "value", "by", "note"], measured),
        f"Weights: {weights}. What trains it:",
        f"```bash\n{entry.train_command}\n```",
    ]
    if entry.sources:
        parts += ["Trained on:", "\n".join(f"* {source}" for source in entry.sources)]
    return "\n\n".join(parts)


def backbones() -> str:
    """The frozen encoders that have an entry."""
    rows = [
        [
            f"`{entry.name}`",
            "sound" if entry.kind == "audio" else f"images, {entry.size} px",
            str(entry.features),
            f"{entry.parameters / 1e6:.1f} M",
            entry.licence or "-",
            entry.about,
        ]
        for entry in ZOO.backbones.values()
    ]
    return table(["name", "reads", "features", "parameters", "licence", "what it is"], rows)


myst_substitutions = {"models": models(), "details": details(), "backbones": backbones()}


def markdown(_app: Sphinx, _what: str, _name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
    """A docstring's Markdown fences and tables as reStructuredText."""
    result: list[str] = []
    inside = ""  # a fence: what its lines are moved by; a table: a bar
    for line in lines:
        fence = re.match(r"(\s*)```(\w*)$", line)
        row = not inside.isspace() and line.startswith("| ")
        if fence:
            indent, language = fence.groups()
            result += [""] if inside else ["", f"{indent}.. code-block:: {language or 'text'}", ""]
            inside = "" if inside else "    "
        elif row:
            first, *others = (cell.strip() for cell in line.strip("|").split("|"))
            result += [] if inside else ["", ".. list-table::", "   :header-rows: 1", ""]
            result += [f"   * - {first}", *(f"     - {cell}" for cell in others)]
            inside = "|"
        elif inside != "|" or not line.startswith("|-"):
            inside = inside.strip("|")
            result.append(inside + line if line else line)
    lines[:] = result


def setup(app: Sphinx) -> None:
    """Before napoleon, whose priority is 500."""
    app.connect("autodoc-process-docstring", markdown, priority=400)
