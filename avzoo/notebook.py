"""A prediction as a card for notebooks: frames, sound and answers over time, a player, the events. HTML of its own.

Everything is inside the card: pictures as small JPEGs, sound as MP3, curves as SVG, no script but the playhead's line.
Text and lines take the page's colour, so that it can be read on dark pages too.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import soundfile
from PIL import Image

from avzoo import audio, plot
from avzoo.clip import read_clip
from avzoo.errors import AvzooError

if TYPE_CHECKING:
    from avzoo.prediction import Prediction

LONGEST_SOUND = 180.0  # s that a player is given for; about 2.5 kB each
SOUND_RATE = 16_000  # Hz
FRAME_HEIGHT = 108  # pixels, twice what is shown at most
MOST_EVENTS = 12
MOST_COLUMNS = 400  # of a curve

STYLE = """
.avzoo{max-width:860px;margin:4px 0;padding:12px 16px;border:1px solid rgba(128,128,128,.35);border-radius:8px;
 font:13px/1.45 system-ui,-apple-system,"Segoe UI",sans-serif;color:inherit}
.avzoo *{box-sizing:border-box}
.avzoo .head{display:flex;justify-content:space-between;gap:1em;opacity:.65;overflow-wrap:anywhere}
.avzoo .says{font-size:17px;font-weight:600;margin:1px 0 8px;overflow-wrap:anywhere}
.avzoo .note{margin:6px 0 0;opacity:.75;overflow-wrap:anywhere}
.avzoo .time{position:relative;display:grid;grid-template-columns:8em 1fr;gap:3px 10px;align-items:center}
.avzoo .time>b{text-align:right;font-weight:500;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.avzoo .time svg{display:block;width:100%;height:26px;margin:0}
.avzoo .frames{display:flex;gap:1px;height:54px;border-radius:4px;overflow:hidden}
.avzoo .frames img{flex:1;min-width:0;height:54px;object-fit:cover;margin:0}
.avzoo .axis{display:flex;justify-content:space-between;font-size:11px;opacity:.65}
.avzoo .playhead{position:absolute;top:0;bottom:0;width:2px;background:currentColor;opacity:.6;display:none;
 left:calc(8em + 10px + (100% - 8em - 10px)*var(--at,0))}
.avzoo audio{display:block;width:100%;height:32px;margin:8px 0 0}
[data-jp-theme-light=false] .avzoo audio,[data-theme=dark] .avzoo audio,.vscode-dark .avzoo audio{color-scheme:dark}
.avzoo table{border-collapse:collapse;margin:10px 0 0;font-size:13px;border:0}
.avzoo th,.avzoo td{padding:2px 14px 2px 0!important;text-align:left!important;border:0;background:none!important;
 color:inherit;font-variant-numeric:tabular-nums;overflow-wrap:anywhere;white-space:normal}
.avzoo th{font-weight:500;opacity:.65}
.avzoo td i{display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:7px}
.avzoo .bar{display:inline-block;width:80px;height:6px;border-radius:3px;margin-right:8px;vertical-align:middle;
 background:rgba(128,128,128,.25)}
.avzoo .bar i{display:block;height:6px;margin:0}
"""
PLAYHEAD = (
    "var card=this.closest('.avzoo'),line=card.querySelector('.playhead');line.style.display='block';"
    "card.style.setProperty('--at',Math.min(1,this.currentTime/card.dataset.seconds))"
)


def card(
    prediction: Prediction, *, before: Sequence[str] = (), after: Sequence[str] = (), remarks: Sequence[str] = ()
) -> str:
    """HTML of one prediction; where the video is no longer there, without frames and sound, which it says.

    Args:
        prediction: Of one video.
        before: Rows over time, above those of the classes.
        after: And below them.
        remarks: Below the rest.
    """
    head = f'<div class="head"><span>{escape(prediction.video.name)}</span>{{}}</div>'
    if prediction.error:
        return _framed(head.format(""), '<div class="says">no answer</div>', note(prediction.error))
    seconds = prediction.segments[-1].end
    facts = f"<span>{escape(prediction.model)} · {prediction.duration:.1f} s</span>"
    parts = [head.format(facts), f'<div class="says">{escape(plot.headline(prediction))}</div>']
    notes = [*remarks, *conditions(prediction)]
    rows: list[str] = []
    player = ""
    try:
        rows, player = _media(prediction, seconds)
    except (AvzooError, OSError) as error:
        notes.append(f"without frames and sound: {error}")
    rows += [*before, *(curve(prediction, index) for index in plot.shown_classes(prediction)), *after]
    parts += ['<div class="time">', *rows, axis(seconds), "</div>"]
    parts += [player, table(prediction), *map(note, notes)]
    return _framed(*parts, seconds=seconds)


def _framed(*parts: str, seconds: float = 0.0) -> str:
    return f'<div class="avzoo" data-seconds="{seconds:g}"><style>{STYLE}</style>{"".join(parts)}</div>'


def conditions(prediction: Prediction) -> list[str]:
    """What there is to say of the file itself: that it is damaged, silent, black."""
    damaged = f"damaged: {prediction.damage}" if prediction.damage else ""
    return [text for text in (damaged, prediction.remark) if text]


def note(text: str) -> str:
    """A remark below the rest."""
    return f'<div class="note">{escape(text)}</div>'


def axis(seconds: float) -> str:
    """Times at the ends and, evenly, between; and the playhead."""
    times = np.linspace(0, seconds, 6 if seconds >= 5 else 2).round(1).tolist()
    ticks = "".join(f"<span>{time:g} s</span>" for time in times)
    return f'<b></b><div class="axis">{ticks}</div><div class="playhead"></div>'


def _media(prediction: Prediction, seconds: float) -> tuple[list[str], str]:
    """The rows of frames and sound, and the player; sound that is long has none."""
    frames, low, high = plot.glimpse(prediction, plot.MOST_FRAMES)
    rows = [row("", f'<div class="frames">{"".join(map(image, frames))}</div>')] if frames else []
    top = max(float(np.abs([low, high]).max()), 1e-3)
    heard = bool(high.any() or low.any())
    if heard:
        outline = [*enumerate(high / top), *reversed([*enumerate(low / top)])]
        path = "M" + "L".join(f"{index} {-value:.2f}" for index, value in outline) + "Z"
        box = f"0 -1 {len(low)} 2"
        rows.append(row("", svg(box, f'<path d="{path}" fill="currentColor" fill-opacity=".55"/>')))
    if not heard or seconds > LONGEST_SOUND:
        return rows, ""
    clip = read_clip(
        prediction.source,
        times=(),
        seconds=seconds,
        audio_path=prediction.sound,
        on_missing_audio="silence",
        on_damage="pad",
    )
    wave = audio.resample(audio.mono(clip.waveform), clip.sample_rate, SOUND_RATE)
    file = io.BytesIO()
    soundfile.write(file, wave.clamp(-1, 1).numpy(), SOUND_RATE, format="MP3")
    source = f"data:audio/mpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
    return rows, f'<audio controls src="{source}" ontimeupdate="{PLAYHEAD}"></audio>'


def row(label: str, content: str) -> str:
    """A row over time, by its name."""
    return f'<b title="{escape(label)}">{escape(label)}</b>{content}'


def image(pixels: plot.Pixels) -> str:
    """A frame as a small JPEG."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((picture.width, FRAME_HEIGHT))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=72)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}">'


def svg(box: str, content: str) -> str:
    """A drawing that takes the width there is."""
    return f'<svg viewBox="{box}" preserveAspectRatio="none">{content}</svg>'


def curve(prediction: Prediction, index: int) -> str:
    """The row of a class: its probability as steps, with its events above a line at zero."""
    curve = plot.pool(prediction.probabilities, MOST_COLUMNS)[:, index].tolist()
    colour = plot.class_colour(prediction, prediction.classes[index])
    steps = "".join(f"V{1 - value:.3f}H{column + 1}" for column, value in enumerate(curve))
    line = '<path d="M0 1H{}" stroke="currentColor" stroke-opacity=".25" vector-effect="non-scaling-stroke"/>'
    area = f'<path d="M0 1{steps}V1Z" fill="{colour}" fill-opacity=".85"/>'
    return row(prediction.classes[index], svg(f"0 0 {len(curve)} 1", area + line.format(len(curve))))


def table(prediction: Prediction) -> str:
    """The events, or of a scene the classes."""
    if prediction.clip is not None:
        scenes = ([name(prediction, label), bar(prediction, label, share)] for label, share in prediction.clip)
        return cells(("scene", "probability"), scenes)
    if not prediction.events:
        return ""
    rows = (
        [name(prediction, e.label), f"{e.start:.1f} s", f"{e.end:.1f} s", bar(prediction, e.label, e.probability)]
        for e in prediction.events[:MOST_EVENTS]
    )
    more = len(prediction.events) - MOST_EVENTS
    table = cells(("event", "from", "to", "probability"), rows)
    return table + (note(f"and {more} more: the attribute events has them all") if more > 0 else "")


def cells(head: Sequence[str], rows: Iterable[list[str]]) -> str:
    """A table of what is HTML already."""
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>{body}</table>"


def name(prediction: Prediction, label: str) -> str:
    """A class, in its colour."""
    return f'<i style="background:{plot.class_colour(prediction, label)}"></i>{escape(label)}'


def bar(prediction: Prediction, label: str, share: float) -> str:
    """A probability, as a bar and a number."""
    filled = f'<i style="width:{100 * share:.0f}%;background:{plot.class_colour(prediction, label)}"></i>'
    return f'<span class="bar">{filled}</span>{share:.2f}'
