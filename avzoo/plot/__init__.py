"""Predictions as lines and as pictures, confusion matrices and maps of embeddings.

`text.py` says a prediction in words and `timeline.py` draws it; `matrix.py` and `maps.py` draw what many predictions
and embeddings look like; `style.py` is what all pictures share, also those of explanations and of trainings.
"""

from avzoo.plot.maps import embedding_map
from avzoo.plot.matrix import confusion, draw_confusion
from avzoo.plot.style import (
    COLOURS,
    DARK,
    FORMATS,
    INK,
    check_picture,
    class_colour,
    new_figure,
    plain_axes,
    save,
    shortened,
)
from avzoo.plot.text import headline, pool, shown_classes, timeline_text
from avzoo.plot.timeline import MOST_FRAMES, Pixels, glimpse, timeline_figure

__all__ = [
    "COLOURS",
    "DARK",
    "FORMATS",
    "INK",
    "MOST_FRAMES",
    "Pixels",
    "check_picture",
    "class_colour",
    "confusion",
    "draw_confusion",
    "embedding_map",
    "glimpse",
    "headline",
    "new_figure",
    "plain_axes",
    "pool",
    "save",
    "shortened",
    "shown_classes",
    "timeline_figure",
    "timeline_text",
]
