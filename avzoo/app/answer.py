"""What the page says of a clip, as HTML: the timeline under the video, and the answer beside it."""

from __future__ import annotations

import base64
import csv
import io
import json
from html import escape

from avzoo import notebook, plot
from avzoo.explaining import Explanation, card
from avzoo.models.base import DATA_TASK, AVModule

STYLE = notebook.STYLE
MOST_EVENTS = 3  # that are explained one by one
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
    what = f"the {DATA_TASK[model.task]} {', '.join(model.classes)}"
    return f'<div class="avzoo"><div class="note">It knows {escape(what)}.</div></div>'


def sentence(text: str) -> str:
    """What is said in place of an answer."""
    return f'<div class="avzoo"><div class="sorry" role="alert">{escape(text)}</div></div>'


def unseen() -> str:
    """What is said of a clip that is not shown, for as long as it is there."""
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
    note = notebook.note(f"{card.LIGHT} A click on a picture goes there.") if frames else ""
    drawn = f'<div class="time" role="img" aria-label="Timeline: {escape(plot.headline(found))}">{"".join(rows)}</div>'
    return f'<div class="avzoo" data-seconds="{seconds:g}">{drawn}{note}</div>'


def answer(found: Explanation) -> str:
    """The answer, why, and all of it to take away."""
    parts = [f'<div class="says" role="heading" aria-level="2">{escape(plot.headline(found))}</div>']
    spans = found.spans()
    for label, start, end in spans[:MOST_EVENTS]:
        parts.append(_why(found, label, start, end, f"{start:.1f}-{end:.1f} s" if len(spans) > 1 else ""))
    if found.clip is not None or len(spans) > MOST_EVENTS:
        parts.append(notebook.table(found))
    if found.damage:
        parts.append(notebook.note(f"damaged: {found.damage}"))
    name = found.video.stem
    rows = io.StringIO()
    table = csv.DictWriter(rows, list(found.rows()[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(found.rows())
    whole = json.dumps({**found.to_dict(), "video": found.video.name}, indent=1)
    links = _link(f"{name}.json", "application/json", whole) + _link(f"{name}.csv", "text/csv", rows.getvalue())
    return f'<div class="avzoo">{"".join(parts)}<p class="take">{links}</p></div>'


def _why(found: Explanation, label: str, start: float, end: float, when: str) -> str:
    """What the sound and the picture say of a class, in a line and as bars."""
    shares = found.evidence(label, start, end)
    alone = (("The sound", "sound_alone"), ("The picture", "picture_alone"))
    said = " ".join(f"{what} alone says {shares[view]:.2f}." for what, view in alone if view in shares)
    said = said or f"By the {'sound' if 'sound_muted' in shares else 'picture'} alone."
    rows = ([LINES[view], notebook.bar(found, label, share)] for view, share in shares.items() if view != "both")
    return f'<p class="because">{said}</p>{notebook.cells((f"how sure of {escape(label)}", when), rows)}'


def _link(name: str, kind: str, content: str) -> str:
    data = base64.b64encode(content.encode()).decode()
    return f'<a download="{escape(name)}" href="data:{kind};base64,{data}">{escape(name)}</a>'
