"""CPU seconds to read 10 pictures of a 10 s clip of 1280x720: the plan of `read_clip` against two plain ways.

    python docs/benchmarks/decode.py [--gop 50] [--rounds 5] [--clip my.mp4]

* naive: decode every picture and convert every one to RGB;
* sequential: decode every picture up to the last wanted one, convert the wanted ones (`read_clip(sequential=True)`);
* plan: `read_clip`.

All three must give the same pictures before anything is timed. One decoder thread, process time, methods interleaved,
median of the rounds; ratios are to the plan.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor

from avzoo.clip import probe, read_clip

SECONDS, FPS = 10, 25
TIMES = [k + 0.5 for k in range(SECONDS)]


def render(path: Path, gop: int) -> Path:
    """A grainy, textured picture that pans, with a patch moving across it, as H.264 with up to three B-frames."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 200, (60, 100, 3)).repeat(24, axis=0).repeat(24, axis=1)
    scene = (coarse + rng.integers(0, 55, coarse.shape)).astype(np.uint8)
    patch = rng.integers(0, 255, (160, 160, 3), dtype=np.uint8)
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "28"})
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = gop, 3
        for i in range(SECONDS * FPS):
            top, left = int(300 + 280 * np.sin(i / 40)), int(500 + 480 * np.cos(i / 55))
            image = scene[top : top + 720, left : left + 1280].astype(np.int16)
            image[200:360, 4 * i : 4 * i + 160] = patch
            image = (image + rng.integers(-6, 7, image.shape, dtype=np.int16)).clip(0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def naive(path: Path) -> Tensor:
    """Every picture decoded and converted; the wanted ones chosen afterwards."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        pictures = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(stream)]
    chosen = [max((p for p in pictures if p[0] <= t + 1e-6), key=lambda p: p[0])[1] for t in TIMES]
    return torch.from_numpy(np.stack(chosen)).permute(0, 3, 1, 2)


def sequential(path: Path) -> Tensor:
    """The reference inside the package."""
    return read_clip(path, times=TIMES, seconds=SECONDS, audio=False, sequential=True).frames


def plan(path: Path) -> Tensor:
    """What the package does."""
    return read_clip(path, times=TIMES, seconds=SECONDS, audio=False).frames


def equal(path: Path, methods: list[Callable[[Path], Tensor]]) -> bool:
    """Whether all methods give the same pictures, bit for bit."""
    first, *others = [method(path) for method in methods]
    return all(torch.equal(first, other) for other in others)


def main() -> None:
    """Render or take a clip, compare, time, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gop", type=int, default=50, help="pictures between keyframes of the rendered clip")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clip", type=Path, help="a file of one's own, at least 10 s long")
    args = parser.parse_args()
    methods = [naive, sequential, plan]
    with tempfile.TemporaryDirectory() as folder:
        path = args.clip or render(Path(folder) / "clip.mp4", args.gop)
        if not equal(path, methods):
            raise SystemExit("the methods give different pictures: nothing is timed")
        seconds: dict[str, list[float]] = {method.__name__: [] for method in methods}
        for _ in range(args.rounds):
            for method in methods:
                begin = time.process_time()
                method(path)
                seconds[method.__name__].append(time.process_time() - begin)
        best = statistics.median(seconds["plan"])
        print(probe(path))
        for name, values in seconds.items():
            ratios = [v / p for v, p in zip(values, seconds["plan"], strict=True)]
            low, _, high = statistics.quantiles(ratios, n=4)
            median = statistics.median(values)
            print(f"{name:10}  {median:6.3f} s CPU   {median / best:5.2f}x the plan   (25-75 %: {low:.2f}-{high:.2f})")
        print(read_clip(path, times=TIMES, seconds=SECONDS, audio=False).stats)


if __name__ == "__main__":
    main()
