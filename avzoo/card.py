"""The model card: written from the entry of `checkpoints.yaml` and the model itself, never from prose."""

from __future__ import annotations

from avzoo.models.base import AVModule
from avzoo.registry import Checkpoint


def render_card(entry: Checkpoint, model: AVModule) -> str:
    """The README of a bundle, Markdown."""
    p = model.preprocess
    metrics = [
        f"| {m['name']} | {m['split']} | {100 * m['mean']:.2f} ± {100 * m.get('sd', 0):.2f} % | {m['seeds']} |"
        f" {m.get('note', '')} |"
        for m in entry.metrics
    ]
    lines = [
        f"# {entry.name}",
        "",
        f"{entry.about}.",
        f"{entry.model}, {sum(x.numel() for x in model.parameters()):,} parameters, trained on {entry.dataset}.",
        "",
        "```python",
        "import avzoo",
        "",
        f'result = avzoo.predict("clip.mp4", "{entry.name}")',
        "for event in result.events:",
        "    print(event.start, event.end, event.label, event.probability)",
        "```",
        "",
        f"**Classes**: {', '.join(entry.classes)}",
        "",
        f"**Signal path**: windows of {p.seconds:g} s in {p.segments} segments; {p.audio_backbone} on sound at"
        f" {p.sample_rate} Hz, {p.visual_backbone} on {p.fps:g} frame(s) a second at {p.size} x {p.size}",
        "",
        *(
            ["| measured | split | mean ± sd | seeds | note |", "|---|---|---|---|---|", *metrics, ""]
            if metrics
            else []
        ),
        f"**Train it again**: `{entry.train_command}`",
        "",
        f"**Licence of the weights**: {entry.licence or 'none yet'}",
        "",
        "**Data**",
        "",
        *(f"* {source}" for source in entry.sources),
        "",
    ]
    return "\n".join(lines)
