"""`avzoo list`: the models there are. Needs no torch."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from avzoo import registry


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
    table = Table(box=None, pad_edge=False)
    for column in ("name", "task", "data", "measured", "size", "status", "licence"):
        table.add_column(column, no_wrap=column == "name", overflow="fold")
    for entry in entries:
        table.add_row(
            f"[bold]{entry.name}[/bold]",
            entry.task,
            entry.dataset,
            "\n".join(map(_metric, entry.metrics)) or "-",
            f"{entry.size / 1e6:.1f} MB" if entry.weights else "-",
            {"package": "in the package", "hub": "on the Hub", None: "no weights yet"}[entry.weights],
            entry.licence or "-",
        )
    console = Console()
    console.print(table)
    untrained = [entry for entry in entries if entry.weights is None]
    for entry in untrained:
        console.print(f"[dim]{entry.name} is trained by[/dim] {entry.train_command}")


def _metric(metric: Mapping[str, Any]) -> str:
    return f"{metric['name']} {registry.figure(metric)} ({metric['split']}, {metric['seeds']} seeds)"
