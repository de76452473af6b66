"""How much a model's answers change when the same clips come in another container, codec, rate or shape.

    python docs/benchmarks/reencode.py DATASET [--model avsdn-avemix] [--clips 120] [--json out.json]

`DATASET` has AVE's layout; its test split is re-encoded clip by clip into each of the variants below, and every
variant's answers are compared with those on the original: the share of segments whose best class changed, and the
segment accuracy. "rotated" is stored a quarter turn round, losslessly, with metadata that turns it upright.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import avzoo
from avzoo.data.ave import AVE
from avzoo.data.events import segment_labels

Pixels = NDArray[np.uint8]


def transcode(
    source: Path,
    target: Path,
    *,
    video: str,
    audio: str,
    rate: int | None = None,
    channels: str = "stereo",
    fps: int | None = None,
    change: Callable[[Pixels], Pixels] = lambda pixels: pixels,
    options: dict[str, str] | None = None,
) -> None:
    """Write `source` again; `change` maps one RGB picture `[height, width, 3]`."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        picture, sound = old.streams.video[0], old.streams.audio[0]
        own_fps = Fraction(picture.average_rate or 8)
        out_fps = Fraction(fps) if fps else own_fps
        sound_out = new.add_stream(audio, rate=rate or sound.codec_context.sample_rate, layout=channels)
        resampler = av.AudioResampler(sound_out.format.name, channels, rate or sound.codec_context.sample_rate)
        frames = [frame.to_ndarray(format="rgb24") for frame in old.decode(picture)]
        first = change(frames[0])
        picture_out = new.add_stream(video, rate=out_fps, options=options or {})
        picture_out.height, picture_out.width = first.shape[:2]
        picture_out.pix_fmt = "yuv420p"
        for index in range(round(len(frames) * out_fps / own_fps)):
            frame = av.VideoFrame.from_ndarray(change(frames[int(index * own_fps / out_fps)]), format="rgb24")
            frame.pts, frame.time_base = index, 1 / out_fps
            new.mux(picture_out.encode(frame))
        new.mux(picture_out.encode())
        old.seek(0)
        for heard in old.decode(sound):
            for part in resampler.resample(heard):
                new.mux(sound_out.encode(part))
        for part in resampler.resample(None):
            new.mux(sound_out.encode(part))
        new.mux(sound_out.encode())


def rotate(source: Path, target: Path) -> None:
    """Store the picture a quarter turn round without loss, the sound packet by packet, and say so in the metadata."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        picture, sound = old.streams.video[0], old.streams.audio[0]
        sound_out = new.add_stream_from_template(sound)
        picture_out = new.add_stream("libx264", rate=picture.average_rate, options={"qp": "0", "preset": "fast"})
        picture_out.width, picture_out.height = picture.codec_context.height, picture.codec_context.width
        picture_out.pix_fmt = "yuv420p"
        picture_out.codec_context.time_base = picture.time_base
        picture_out.set_display_rotation(90)
        for packet in old.demux(picture, sound):
            if packet.dts is None:
                continue
            if packet.stream is sound:
                packet.stream = sound_out
                new.mux(packet)
                continue
            for frame in packet.decode():
                new.mux(picture_out.encode(_turned(frame, picture.time_base)))
        for frame in picture.codec_context.decode(None):
            new.mux(picture_out.encode(_turned(frame, picture.time_base)))
        new.mux(picture_out.encode())


def _turned(frame: av.VideoFrame, time_base: Fraction | None) -> av.VideoFrame:
    """A YUV picture, its three planes turned clockwise: the metadata turns it back."""
    height, width = frame.height, frame.width
    planes = frame.to_ndarray(format="yuv420p").reshape(-1)
    luma, chroma = height * width, height * width // 4
    parts = (
        planes[:luma].reshape(height, width),
        planes[luma : luma + chroma].reshape(height // 2, width // 2),
        planes[luma + chroma :].reshape(height // 2, width // 2),
    )
    turned = np.concatenate([np.rot90(part, -1).reshape(-1) for part in parts]).reshape(width * 3 // 2, height)
    out = av.VideoFrame.from_ndarray(np.ascontiguousarray(turned), format="yuv420p")
    out.pts, out.time_base = frame.pts, time_base
    return out


def pillar_box(pixels: Pixels) -> Pixels:
    """A portrait crop of a picture between black bars, in a 16:9 frame."""
    height, width = pixels.shape[:2]
    narrow = pixels[:, width // 2 - height * 9 // 32 : width // 2 + height * 9 // 32]
    wide = np.zeros((height, height * 16 // 9 // 2 * 2, 3), np.uint8)
    left = (wide.shape[1] - narrow.shape[1]) // 2
    wide[:, left : left + narrow.shape[1]] = narrow
    return wide


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "webm VP9 + Opus": (
        "webm",
        {"video": "libvpx-vp9", "audio": "libopus", "rate": 48000, "options": {"crf": "32", "b": "0", "cpu-used": "6"}},
    ),
    "mkv HEVC + AAC": (
        "mkv",
        {"video": "libx265", "audio": "aac", "options": {"preset": "fast", "x265-params": "log-level=error"}},
    ),
    "mp4 60 fps": ("mp4", {"video": "libx264", "audio": "aac", "fps": 60, "options": {"preset": "fast"}}),
    "mp4 44.1 kHz mono": (
        "mp4",
        {"video": "libx264", "audio": "aac", "rate": 44100, "channels": "mono", "options": {"preset": "fast"}},
    ),
    "mp4 pillar-boxed": (
        "mp4",
        {"video": "libx264", "audio": "aac", "change": pillar_box, "options": {"preset": "fast"}},
    ),
}


def main() -> None:
    """Measure and print one row a variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--model", default="avsdn-avemix")
    parser.add_argument("--clips", type=int, default=120)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    model = avzoo.load(options.model)
    data = AVE(options.dataset, classes=model.classes, preprocess=model.preprocess)
    items = data.items("test")[: options.clips]
    truth = np.stack([segment_labels(item, model.classes, model.preprocess).numpy() for item in items])
    answers: dict[str, list[NDArray[np.int64]]] = {name: [] for name in ("original", "rotated", *VARIANTS)}

    def ask(name: str, video: Path) -> None:
        answers[name].append(avzoo.predict(video, model).probabilities.argmax(-1).numpy())

    with tempfile.TemporaryDirectory() as folder:
        for item in tqdm(items, unit="clip", disable=None):
            ask("original", item.path)
            rotate(item.path, Path(folder, "a.mp4"))
            ask("rotated", Path(folder, "a.mp4"))
            for name, (suffix, how) in VARIANTS.items():
                transcode(item.path, Path(folder, f"a.{suffix}"), **how)
                ask(name, Path(folder, f"a.{suffix}"))
    original = np.stack(answers["original"])
    rows = {
        name: {"accuracy": float((np.stack(a) == truth).mean()), "changed": float((np.stack(a) != original).mean())}
        for name, a in answers.items()
    }
    print(f"{len(items)} clips, {truth.size} segments")
    for name, row in rows.items():
        print(f"{name:<20} accuracy {100 * row['accuracy']:6.2f} %   segments changed {100 * row['changed']:5.2f} %")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
