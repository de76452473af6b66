"""`avzoo check DIR|TABLE`: look through one's own clips for what would spoil a training."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from avzoo.checking import Report

SHOWN = 3  # files that the table names; --json has all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.description = (
        f"{parser.description}\n\n"
        "DIR is a folder per class: DIR/<class>/*.mp4, or with splits\n"
        "DIR/{train,val,test}/<class>/*.mp4. A table is a CSV or Parquet file with the\n"
        "columns path, label and, where wanted, start, end (s), split and group (of clips\n"
        "that must share a split, such as those of one recording).\n\n"
        "Exit status: 1 if there are errors, 0 if none, whatever the warnings."
    )
    parser.add_argument("path", type=Path, metavar="DIR|TABLE", help="the clips")
    parser.add_argument(
        "--val-fraction", type=float, default=0.2, help="share held back for validation, as in finetune (default 0.2)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, with all files by name")


def run(options: argparse.Namespace) -> None:
    """Check, print, and exit with 1 if there are errors."""
    from avzoo.checking import check

    report = check(options.path, val_fraction=options.val_fraction)
    if options.json:
        print(json.dumps(report.to_dict(), ensure_ascii=False))
    else:
        _print(report)
    if report.errors:
        sys.exit(1)


def _print(report: Report) -> None:
    console = Console(width=None if sys.stdout.isatty() else 10_000)  # in a pipe a line is a class
    if report.files:
        table = Table(box=None, pad_edge=False, padding=(0, 1))
        table.add_column("class")
        for column in ("train", "val", "test", "seconds"):
            table.add_column(column, justify="right")
        for label, counts in report.classes.items():
            table.add_row(escape(label), *(f"{value:g}" for value in counts.values()))
        console.print(table)
        lengths = ", ".join(f"{name} {value:g} s" for name, value in report.seconds.items())
        console.print(
            f"\n{report.files} files of {report.task}; {lengths or 'none of them can be read'}", soft_wrap=True
        )
    for problem in report.problems:
        colour = "red" if problem.severity == "error" else "yellow"
        console.print(
            f"\n[bold {colour}]{problem.severity}[/] [bold]{problem.kind}[/]: {escape(problem.message)}", soft_wrap=True
        )
        for file in problem.files[:SHOWN]:
            console.print(f"    {escape(file)}", soft_wrap=True, highlight=False)
        if len(problem.files) > SHOWN:
            console.print(f"    and {len(problem.files) - SHOWN} more")
        console.print(f"  [dim]{escape(problem.advice)}[/dim]", soft_wrap=True)
    warnings = len(report.problems) - report.errors
    console.print(f"\nerrors: {report.errors}, warnings: {warnings}")
