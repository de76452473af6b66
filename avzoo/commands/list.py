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

_WHERE = {"package": "shipped", "hub": "Hub"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("pattern", nargs="?", default="*", help="a shell pattern, such as 'avsdn*'")
    parser.add_argument("--backbones", action="store_true", help="the frozen encoders that models are built on instead")
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
    console = _print(
        ("name", "task", "data", "test", "weights", "licence"),
        (
            (
                f"[bold]{entry.name}[/bold]",
                entry.task,
                entry.dataset,
                next((registry.figure(metric) for metric in entry.metrics if metric["split"] == "test"), "-"),
                f"{entry.size / 1e6:.1f} MB, {_WHERE[entry.weights]}" if entry.weights else "none",
                entry.licence or "-",
            )
            for entry in entries
        ),
    )
    console.print("\n[dim]avzoo info NAME says what was measured, how often and by what.[/dim]")
    for entry in entries:
        if entry.weights is None:
            console.print(f"{entry.name} has no weights yet: {entry.train_command}", soft_wrap=True)


def _backbones(options: argparse.Namespace) -> None:
    found = [entry for name, entry in registry.backbones().items() if fnmatch.fnmatch(name, options.pattern)]
    if options.json:
        for entry in found:
            print(json.dumps(dataclasses.asdict(entry)))
        return
    if not found:
        raise UnknownModelError(f"no backbone's name matches {options.pattern!r}; `avzoo list --backbones` shows all")
    console = _print(
        ("name", "reads", "features", "parameters", "licence", "sha256"),
        (
            (
                f"[bold]{entry.name}[/bold]",
                "sound" if entry.kind == "audio" else f"images, {entry.size} px",
                str(entry.features),
                f"{entry.parameters / 1e6:.1f} M",
                entry.licence or "-",
                entry.sha256[:8] if entry.sha256 else "not stated",
            )
            for entry in found
        ),
    )
    console.print("\n[dim]--json has sources and whole hashes. Any other timm name works too.[/dim]")


def _print(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Console:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=column != "licence", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(table)
    return console
