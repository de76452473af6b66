"""Frames and a waveform into an mp4 file: the encoder behind the synthetic clips.

The same frames and sound give the same bytes, with the same version of FFmpeg, on any kind and number of cores.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from avzoo.errors import AvzooError
from avzoo.files import whole


def encode(
    path: Path,
    frames: Iterable[npt.NDArray[np.uint8]],
    *,
    size: int,
    fps: int,
    sound: tuple[npt.NDArray[np.float32], int] | None,
) -> Path:
    """Write RGB frames uint8 [size, size, 3] as mp4, with a waveform [samples] or [2, samples] and its rate if any."""
    if size < 16 or size % 2 or fps < 1:
        raise AvzooError(f"size must be even and at least 16 pixels and fps at least 1, given {size} and {fps}")
    with whole(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        # One thread, and no floating point in an order of the processor's own: the bytes must not depend on them.
        options = {"preset": "veryfast", "crf": "21", "g": str(2 * fps), "threads": "1"}
        options["x264-params"] = "cpu-independent=1"
        video = container.add_stream("libx264", rate=fps, options=options)
        video.width, video.height, video.pix_fmt = size, size, "yuv420p"
        audio = None
        if sound is not None:
            channels = np.atleast_2d(sound[0])
            layout = ("mono", "stereo")[len(channels) - 1]
            audio = container.add_stream("aac", rate=sound[1], layout=layout, bit_rate=64_000 * len(channels))
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if audio is not None and sound is not None:
            rate = sound[1]
            block = av.AudioFrame.from_ndarray(np.ascontiguousarray(channels), format="fltp", layout=layout)
            block.sample_rate, block.pts, block.time_base = rate, 0, Fraction(1, rate)
            container.mux(audio.encode(block))
            container.mux(audio.encode())
    return path
