"""`avzoo info NAME`: what a model is, what was measured, where its weights lie and who vouches for them."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from collections.abc import Iterator

from avzoo import registry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("name", help="a name of `avzoo list`, hf:owner/repo@commit, or a folder")
    parser.add_argument("--revision", metavar="COMMIT", help="of its Hugging Face repository, not the listed one")


def run(options: argparse.Namespace) -> None:
    """Print it; weights are fetched if need be, and verified."""
    ref = registry.parse_ref(options.name, paths=True)
    entry = registry.find(ref.name) if ref.name else None
    rows = dict(_of_entry(entry)) if entry else {}
    if entry is None or entry.weights:
        from avzoo import hub

        located = hub.locate(ref, options.revision)
        model = located.read()
        rows["network"] = f"{type(model).__name__}, {sum(x.numel() for x in model.parameters()):,} parameters"
        rows["task"] = model.task
        rows["classes"] = "; ".join(model.classes)
        rows["signal path"] = model.preprocess.describe()
        if entry and not registry.recipe_file(entry).exists():
            rows["train"] = f"avzoo fit --config {located.folder / 'recipe.yaml'}"
        rows["folder"] = str(located.folder)
        rows["verified"] = f"against {located.authority}"
    width = max(map(len, rows))
    lines = textwrap.TextWrapper(
        width=shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize,  # in a pipe a line is a fact
        subsequent_indent=" " * (width + 4),
        break_long_words=False,  # such as paths
        break_on_hyphens=False,
    )
    print(options.name)
    for key, value in rows.items():
        print(lines.fill(f"  {key:<{width}}  {value}"))


def _of_entry(entry: registry.Checkpoint) -> Iterator[tuple[str, str]]:
    yield "about", entry.about
    yield "network", entry.model
    yield "task", entry.task
    yield "classes", "; ".join(entry.classes)
    yield "dataset", f"{entry.dataset}, {entry.features}"
    for metric in entry.metrics:
        yield f"{metric['name']}, {metric['split']}", f"{registry.format_metric(metric)}, {metric['seeds']} seed(s)"
    if entry.paper:
        yield "the paper", f"{entry.paper['name']} {registry.format_metric(entry.paper)} on {entry.paper['split']}"
    yield "licence", entry.licence or "none yet"
    for number, source in enumerate(entry.sources, start=1):
        yield f"source {number}", source
    if entry.hub:
        yield "hub", f"hf:{entry.hub['repo']}@{entry.hub['revision']}"
    yield "train", entry.train_command
    yield "weights", f"{entry.size / 1e6:.1f} MB, {entry.weights}" if entry.weights else "none are published"
