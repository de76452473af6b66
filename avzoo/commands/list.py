"""`avzoo list`: the models there are. Needs no torch."""

from __future__ import annotations

import argparse
import json

from rich.console import Console
from rich.table import Table

from avzoo import registry
from avzoo.errors import UnknownModelError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("pattern", nargs="?", default="*", help="a shell pattern, such as 'avsdn*'")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")


def run(options: argparse.Namespace) -> None:
    """Print the table."""
    entries = [registry.find(name) for name in registry.list_models(options.pattern)]
    if options.json:
        for entry in entries:
            facts = {key: getattr(entry, key) for key in ("name", "model", "task", "dataset", "weights", "licence")}
            print(json.dumps({**facts, "size": entry.size, "metrics": list(entry.metrics)}))
        return
    if not entries:
        raise UnknownModelError(f"no model's name matches {options.pattern!r}; `avzoo list` shows all")
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for column in ("name", "task", "data", "test", "size", "weights", "licence"):
        table.add_column(column, no_wrap=column != "licence", overflow="fold")
    for entry in entries:
        table.add_row(
            f"[bold]{entry.name}[/bold]",
            entry.task,
            entry.dataset,
            "\n".join(registry.figure(metric) for metric in entry.metrics if metric["split"] == "test") or "-",
            f"{entry.size / 1e6:.1f} MB" if entry.weights else "-",
            {"package": "shipped", "hub": "Hub", None: "none"}[entry.weights],
            entry.licence or "-",
        )
    console = Console()
    console.print(table)
    console.print("\n[dim]avzoo info NAME says what was measured, how often and by what.[/dim]")
    for entry in entries:
        if entry.weights is None:
            console.print(f"{entry.name} has no weights yet: {entry.train_command}", soft_wrap=True)
