"""Seconds and memory to load a checkpoint: `bundle.read` against `torch.load` and a copy into a random-init model.

    python docs/benchmarks/load.py [--hidden 1024] [--rounds 9]

* usual: `torch.load(weights_only=True)`, the constructor with its random initialisation, `load_state_dict`;
* filling: what `bundle.read` does but for sha256 and the check that every number is finite, which cannot be turned off;
* read: `bundle.read`, all of it.

All must give the same weights, bit for bit, before anything is timed. torch has one thread, and sha256 one of its own;
wall time, methods interleaved, median of the rounds; files are in the page cache. The memory peak is that of a fresh
process, above what it held before (Linux).
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import torch

from avzoo import bundle
from avzoo.bundle import reading
from avzoo.models import AVSDN, AVModule

CLASSES = [f"class {index}" for index in range(28)] + ["background"]
PREPROCESS = {"audio_backbone": "avzoo-audio", "visual_backbone": "tf_efficientnet_lite0"}
PEAK = """
import sys
from pathlib import Path
import torch
from avzoo import backbones, bundle
torch.set_num_threads(1)
backbones.find("tf_efficientnet_lite0"), backbones.find("avzoo-audio")  # imports what is imported once
held = lambda key: int(Path("/proc/self/status").read_text().split(key + ":")[1].split()[0]) * 1024
before = held("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
model = bundle.read(Path(sys.argv[1]))
print(held("VmHWM") - before)
"""


def build(hidden: int) -> AVSDN:
    """The network, with random weights."""
    return AVSDN(CLASSES, audio_dim=128, visual_dim=1280, hidden_dim=hidden, preprocess=PREPROCESS)


def usual(path: Path, hidden: int) -> AVModule:
    """As it is done without avzoo."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    model = build(hidden)
    model.load_state_dict(state)
    return model.eval()


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """`bundle.read` without its two checks, for the clock."""
    unhashed = mock.MagicMock()
    unhashed.return_value.__enter__.return_value.hex.return_value = mock.ANY  # equals whatever is expected
    with (
        mock.patch.object(reading, "_compare"),
        mock.patch.object(reading, "_is_finite", return_value=True),
        mock.patch.object(reading, "Digest", unhashed),
    ):
        yield


def filling(folder: Path) -> AVModule:
    """Build on the meta device and assign."""
    with unchecked():
        return bundle.read(folder)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=1024, help="width of the recurrent layers")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        model = build(options.hidden).eval()
        methods: dict[str, Callable[[], AVModule]] = {}
        for name, half in (("float16", True), ("float32", False)):  # the first rounds the weights for both
            folder = bundle.write(home / name, model, recipe="", half=half)
            methods[f"filling, {name}"] = lambda folder=folder: filling(folder)
            methods[f"read, {name}"] = lambda folder=folder: bundle.read(folder)
        torch.save(model.state_dict(), home / "weights.pt")
        methods = {"usual": lambda: usual(home / "weights.pt", options.hidden), **methods}
        for name, method in methods.items():
            state = method().state_dict()
            for key, value in model.state_dict().items():
                if not torch.equal(state[key], value):
                    sys.exit(f"{name}: {key} differs")
        print(f"AVSDN, {sum(p.numel() for p in model.parameters()):,} parameters; the weights are equal bit for bit")
        seconds: dict[str, list[float]] = {name: [] for name in methods}
        for _ in range(options.rounds):
            for name, method in methods.items():
                started = time.perf_counter()
                method()
                seconds[name].append(time.perf_counter() - started)
        for name, times in seconds.items():
            middle = statistics.median(times)
            print(f"{name:<18} {1000 * middle:8.1f} ms  {statistics.median(seconds['usual']) / middle:5.2f} x")
        for name in ("float16", "float32"):
            size = (home / name / "model.safetensors").stat().st_size
            command = [sys.executable, "-c", PEAK, str(home / name)]
            peak = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            tensors = sum(p.numel() * 4 for p in model.parameters())
            print(
                f"memory peak of read, {name}: {peak / 1e6:.0f} MB; file {size / 1e6:.0f} MB ({peak / size:.2f} x),"
                f" the float32 model itself {tensors / 1e6:.0f} MB"
            )


if __name__ == "__main__":
    main()
