"""An explanation as HTML: rows over time that a notebook and the page in the browser show."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from avzoo import notebook, plot
from avzoo.errors import AvzooError
from avzoo.explaining.figure import glowing_frames, words

if TYPE_CHECKING:
    from avzoo.explaining.explanation import Explanation

LIGHT = "The light is where a picture speaks for its answer."


def card(found: Explanation) -> str:
    """The card of a prediction, with the light of the maps and with what each modality alone says."""
    try:
        frames = lit(found)
    except (AvzooError, OSError):  # the video is gone, as the card says of its own frames
        frames = []
    return notebook.card(found, before=frames, after=alone(found), remarks=[LIGHT] if frames else [])


def lit(found: Explanation) -> list[str]:
    """The row of pictures with the light of their maps; none, where there are no maps."""
    frames = "".join(notebook.image(frame) for _, _, frame in glowing_frames(found))
    return [notebook.row("where", f'<div class="frames lane">{frames}</div>')] if frames else []


def alone(found: Explanation) -> list[str]:
    """A row a modality: what it alone says of each segment's class, as the strength of the colour."""
    step = math.ceil(len(found.explained) / notebook.MOST_COLUMNS)
    picked = [*enumerate(found.explained)][::step]
    rows = []
    for view in ("sound_alone", "picture_alone"):
        if view in found.views:
            cells = ""
            for column, (segment, label) in enumerate(picked):
                share = float(found.views[view][segment, found.classes.index(label)])
                cells += (
                    f'<rect x="{column}" width="1" height="1" shape-rendering="crispEdges" fill-opacity="{share:.2f}"'
                    f' fill="{plot.class_colour(found, label)}"><title>{escape(label)} {share:.2f}</title></rect>'
                )
            rows.append(notebook.row(words(view), notebook.svg(f"0 0 {len(picked)} 1", cells)))
    return rows
