"""The model card: written from the entry of `checkpoints.yaml` and the model itself, never from prose."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from avzoo.models.base import AVModule
from avzoo.registry import Checkpoint, format_metric, recipes

# Of the licences that https://huggingface.co/docs/hub/repositories-licenses lists; any other is `other` with its name.
HUB_LICENCES = {"apache-2.0", "mit", "cc0-1.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0"}
HUB_LICENCES |= {"cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "bsd-3-clause", "gpl-3.0"}
ANSWER = {
    "segment": ("result.events", "print(event.start, event.end, event.label, event.probability)", "event"),
    "clip": ("result.clip", "print(*scene)", "scene"),
}


def metadata(entry: Checkpoint) -> dict[str, Any]:
    """What the Hub reads of a card: licence, library, task and results (`model-index`)."""
    licence = (entry.licence or "").lower()
    facts: dict[str, Any] = {"license": licence}
    if licence not in HUB_LICENCES:
        facts = {"license": "other", "license_name": licence_id(licence) or "none"}
    facts |= {
        "library_name": "avzoo",
        "pipeline_tag": "video-classification",
        "tags": ["audio-visual", "avzoo", entry.dataset, entry.model],
    }
    if entry.metrics:
        task = {"type": "video-classification", "name": f"audio-visual {entry.task} classification"}
        results = [
            {
                "task": dict(task),  # a mapping of its own: YAML would write an alias for one that is shared
                "dataset": {"type": entry.dataset, "name": entry.dataset, "split": metric["split"]},
                "metrics": [{"type": metric["name"], "value": metric["mean"], "name": metric["name"]}],
            }
            for metric in entry.metrics
        ]
        facts["model-index"] = [{"name": entry.name, "results": results}]
    return facts


def licence_id(licence: str) -> str:
    """A licence's name in one spelling.

    >>> licence_id("CC BY-SA 4.0")
    'cc-by-sa-4.0'
    """
    return re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-")


def render_card(
    entry: Checkpoint,
    model: AVModule,
    *,
    commit: str = "",
    picture: bool = True,
    parents: Mapping[str, str] | None = None,
) -> str:
    """The README of a bundle, Markdown.

    Args:
        entry: Of `checkpoints.yaml`.
        model: Its network, which knows its signal path and its size.
        commit: Of the code it was trained with; empty if that is unknown.
        picture: Whether a `timeline.png` lies beside it.
        parents: The models that it was fine-tuned from, each with its licence, empty where that is not known.
    """
    answers, line, one = ANSWER[entry.task]
    trained = f"{'fine-tuned' if parents else 'trained'} on {entry.dataset}"
    if parents:
        trained += " from " + ", ".join(f"{name} ({licence})" if licence else name for name, licence in parents.items())
    packaged = not parents and entry.recipe in recipes()
    lines = [
        "---",
        yaml.safe_dump(metadata(entry), sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        f"# {entry.name}",
        "",
        f"{entry.about}.  ",
        f"{entry.model}, {sum(x.numel() for x in model.parameters()):,} parameters, {trained}.",
        "",
        *(["![frames, sound and the model's answer over time](timeline.png)", ""] if picture else []),
        "```python",
        "import avzoo",
        "",
        f'result = avzoo.predict("clip.mp4", "{entry.name}")',
        f"for {one} in {answers}:",
        f"    {line}",
        "```",
        "",
        'A copy that is in no registry is loaded by its commit: `avzoo.load("hf:owner/repo@<commit>")`.',
        "",
        "## What it knows",
        "",
        f"* Classes, in label order: {'; '.join(entry.classes)}",
        f"* Signal path: {model.preprocess.describe()}",
        f"* Features: {entry.features}",
        "",
        "## What it does not know",
        "",
        f"* Every {entry.task} gets one of these {len(entry.classes)} classes, whatever happens in it.",
        f"* It was measured on {entry.dataset} alone: the figures below say nothing of other recordings.",
        f"* It reads {model.preprocess.seconds:g} s at a time; longer videos are answered window by window.",
        "",
        "## Measured",
        "",
        "| measure | split | here (mean ± sd) | seeds | the paper | note |",
        "|---|---|---|---|---|---|",
        *(_row(entry, metric) for metric in entry.metrics),
        "",
        "## Train it again",
        "",
        "```bash",
        entry.train_command if packaged else "avzoo fit --config recipe.yaml",
        "```",
        "",
        f"The recipe as resolved is `recipe.yaml`{f'; code at commit `{commit}`' if commit else ''}.",
        "",
        "## Data and licence",
        "",
        f"The weights are under {entry.licence or 'no licence yet'}. They were trained on:",
        "",
        *(f"* {source}" for source in entry.sources),
        "",
    ]
    return "\n".join(lines)


def _row(entry: Checkpoint, metric: Any) -> str:
    """A measure beside what the paper reports of the same measure and split."""
    paper = entry.paper
    same = paper and (paper["name"], paper["split"]) == (metric["name"], metric["split"])
    reported = format_metric({"unit": metric.get("unit", "share"), **paper}) if same else "-"
    cells = (metric["name"], metric["split"], format_metric(metric), metric["seeds"], reported, metric.get("note", ""))
    return f"| {' | '.join(str(cell) for cell in cells)} |"
