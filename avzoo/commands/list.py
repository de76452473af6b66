"""`avzoo list`: the models there are. Needs no torch."""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import json
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from avzoo import registry
from avzoo.errors import UnknownModelError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = (
        "task: what has an answer, each segment (events) or the whole clip (scenes).\n"
        "test: the first figure measured on the test split, ± the deviation of several\n"
        "trainings. weights: none if not trained yet, Hub if fetched when first used.\n"
        "In a pipe each model is one line."
    )
    parser.add_argument("pattern", nargs="?", default="*", help="of the names, such as 'avsdn*' (default all)")
    parser.add_argument(
        "--backbones", action="store_true", help="list the frozen encoders that models are built on, not models"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")


def run(options: argparse.Namespace) -> None:
    """Print the table."""
    if options.backbones:
        _backbones(options)
        return
    entries = [registry.find(name) for name in registry.list_models(options.pattern)]
    if options.json:
        for entry in entries:
            facts = {key: getattr(entry, key) for key in ("name", "model", "task", "dataset", "weights", "licence")}
            print(json.dumps({**facts, "size": entry.size, "metrics": list(entry.metrics)}))
        return
    if not entries:
        raise UnknownModelError(f"no model's name matches {options.pattern!r}; `avzoo list` shows all")
    notes = ["[dim]avzoo info NAME says what was measured, how often and by what.[/dim]"]
    if untrained := [f"  {entry.name}: {entry.train_command}" for entry in entries if not entry.weights]:
        notes += ["What has no weights yet can be trained:", *untrained]
    _print(
        ("name", "task", "data", "test", "weights", "licence"),
        (
            (
                f"[bold]{entry.name}[/bold]",
                entry.task,
                entry.dataset,
                next((registry.format_metric(metric) for metric in entry.metrics if metric["split"] == "test"), "-"),
                f"{entry.size / 1e6:.1f} MB{', Hub' * (entry.weights == 'hub')}" if entry.weights else "none",
                entry.licence or "-",
            )
            for entry in entries
        ),
        notes,
    )


def _backbones(options: argparse.Namespace) -> None:
    found = [entry for name, entry in registry.backbones().items() if fnmatch.fnmatch(name, options.pattern)]
    if options.json:
        for entry in found:
            print(json.dumps(dataclasses.asdict(entry)))
        return
    if not found:
        raise UnknownModelError(f"no backbone's name matches {options.pattern!r}; `avzoo list --backbones` shows all")
    _print(
        ("name", "reads", "features", "parameters", "licence", "sha256"),
        (
            (
                f"[bold]{entry.name}[/bold]",
                "sound" if entry.kind == "audio" else f"images {entry.size} px",
                str(entry.features),
                f"{entry.parameters / 1e6:.1f} M",
                entry.licence or "-",
                entry.sha256[:8] if entry.sha256 else "-",
            )
            for entry in found
        ),
        ["[dim]--json has sources and whole hashes. Any other timm name works too.[/dim]"],
    )


def _print(columns: Iterable[str], rows: Iterable[Iterable[str]], notes: Iterable[str]) -> None:
    table = Table(*columns, box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for row in rows:
        table.add_row(*row)
    console = Console(width=10_000)  # one line a model: rich would break it at a terminal's width, also in a pipe
    console.print(table)
    if console.is_terminal:
        console.print("", *notes, sep="\n")
