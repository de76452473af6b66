"""What the page says of a clip, as HTML: the timeline under the video, and the answer beside it."""

from __future__ import annotations

import base64
import csv
import io
import json
from dataclasses import replace
from html import escape

from avzoo import notebook, plot
from avzoo.explaining import Explanation, card
from avzoo.models.base import AVModule

STYLE = notebook.STYLE
MOST_EVENTS = 3  # that are explained one by one
MOST_SCENES = 5  # that are listed
NO_LIGHT = "Without light: the image network of this model, a transformer, has no maps of the pictures."
LINES = {
    "sound_alone": "The sound alone",
    "picture_alone": "The picture alone",
    "sound_muted": "With the sound muted",
    "picture_frozen": "With the picture standing still",
}


def heading(max_seconds: float, max_mb: float) -> str:
    """The top of the page."""
    return (
        '<div class="top"><h1>What happens in this video?</h1><p>A model of the zoo listens and looks, on this machine:'
        f" no clip leaves it. Up to {max_seconds:g} s and {max_mb:g} MB.</p></div>"
    )


def classes(model: AVModule) -> str:
    """What a model can say."""
    what = f"It tells apart the scenes {', '.join(model.classes)}."
    if model.task == "segment":
        what = f"It finds the events {', '.join(model.classes[:-1])}; all else is {model.classes[-1]}."
    return f'<div class="avzoo">{notebook.note(what)}</div>'


def sentence(text: str) -> str:
    """What is said in place of an answer."""
    return f'<div class="avzoo"><div class="sorry" role="alert">{escape(text)}</div></div>'


def unseen() -> str:
    """The note below a clip that the browser cannot show; the page hides it otherwise."""
    words = "This browser cannot show the clip, or it has no picture. The model answers all the same."
    return f'<div class="avzoo" role="alert" hidden>{notebook.note(words)}</div>'


BROKEN = sentence(
    "Something went wrong: see the terminal where `avzoo app` runs, if it still does. Another clip, or model, may do."
)


def timeline(found: Explanation) -> str:
    """Frames with the light of their maps, curves of the classes, what each modality alone says; over time."""
    seconds = found.segments[-1].end
    frames = card.lit(found)
    curves = [notebook.curve(found, index) for index in plot.shown_classes(found)]
    rows = [*frames, *curves, *card.alone(found), notebook.axis(seconds)]
    light = f"{card.LIGHT} A click on a picture goes there." if frames else ""
    if found.maps is None and "picture_frozen" in found.views:
        light = NO_LIGHT
    drawn = f'<div class="time" role="img" aria-label="Timeline: {escape(plot.headline(found))}">{"".join(rows)}</div>'
    return f'<div class="avzoo" data-seconds="{seconds:g}">{drawn}{notebook.note(light) if light else ""}</div>'


def answer(found: Explanation) -> str:
    """The answer, why, and all of it to take away."""
    facts = (found.video.name, f"{found.model} · {found.duration:.1f} s")
    parts = [f'<div class="head">{"".join(f"<span>{escape(fact)}</span>" for fact in facts)}</div>']
    parts.append(f'<div class="says" role="heading" aria-level="2">{escape(plot.headline(found))}</div>')
    spans = found.spans()
    for label, start, end in spans[:MOST_EVENTS]:
        parts.append(_why(found, label, start, end, f"{start:.1f}-{end:.1f} s" if len(spans) > 1 else ""))
    if found.clip is not None or len(spans) > MOST_EVENTS:
        parts.append(notebook.table(replace(found, clip=found.clip and found.clip[:MOST_SCENES])))
    parts += map(notebook.note, notebook.conditions(found))
    name = found.video.stem
    whole = json.dumps({**found.to_dict(), "video": found.video.name}, indent=1)
    links = _link(f"{name}.json", "application/json", whole) + _link(f"{name}.csv", "text/csv", _table(found))
    return f'<div class="avzoo">{"".join(parts)}<p class="take">{links}</p></div>'


def _why(found: Explanation, label: str, start: float, end: float, when: str) -> str:
    """What the sound and the picture say of a class, in a line and as bars."""
    shares = found.evidence(label, start, end)
    alone = (("The sound", "sound_alone"), ("The picture", "picture_alone"))
    said = " ".join(f"{what} alone says {shares[view]:.2f}." for what, view in alone if view in shares)
    said = said or f"By the {'sound' if 'sound_muted' in shares else 'picture'} alone."
    rows = ([LINES[view], notebook.bar(found, label, share)] for view, share in shares.items() if view != "both")
    return f'<p class="because">{said}</p>{notebook.cells((f"how sure of {escape(label)}", when), rows)}'


def _table(found: Explanation) -> str:
    """As CSV, a row a segment: the probability of every class, and of the answered one in the other views."""
    rows = io.StringIO()
    table = csv.writer(rows, lineterminator="\n")
    views = [view for view in found.views if view != "both"]
    table.writerow(["video", "model", "start", "end", "label", *found.classes, *views])
    for row, shares in zip(found.rows(), found.probabilities.tolist(), strict=True):
        told = [row["start"], row["end"], row["label"], *(round(share, 4) for share in shares)]
        table.writerow([found.video.name, found.model, *told, *(row[view] for view in views)])
    return rows.getvalue()


def _link(name: str, kind: str, content: str) -> str:
    data = base64.b64encode(content.encode()).decode()
    return f'<a download="{escape(name)}" href="data:{kind};base64,{data}">{escape(name)}</a>'
