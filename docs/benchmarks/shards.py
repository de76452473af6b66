"""What an index of two million rows costs: seconds to write, to open, to find keys and to list items; and memory.

    python docs/benchmarks/shards.py [--rows 2000000]

The index is generated: keys of 20 characters, ids of 11, one event a row, shards of 1000 records, 2.5 % of the rows in
each of validation and test. It is opened in a fresh process; memory is the RSS of the whole process, the pages of the
index that were looked at included, and what the imports take is stated apart. There, one after the other:

* open: `Shards(...)`, to the first row that can be asked for; the hash of the index is most of that;
* find: 10,000 random keys, to the row of each;
* labels: the class of every segment of all training rows, which a training of events asks for at its beginning;
* items: all training rows as `Item`, one after the other, keeping none; no training from features asks for that.

With `--records DIR` random records of shards are read too, one by one: all of their files are in the page cache.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from avzoo.files import sha256
from avzoo.shards import Shards
from avzoo.shards.index import Entry, write_index
from avzoo.shards.reading import FORMAT


def entries(rows: int) -> Iterator[Entry]:
    """Rows of 102,400 bytes."""
    for row in range(rows):
        digest = hashlib.sha256(row.to_bytes(8)).digest()
        events = ((row % 28, float(row % 5), float(row % 5 + 3)),)
        place = (row // 1000, row % 1000 * 102_400, 102_400, digest, 0.0)
        yield Entry(f"clip-{row:015d}", digest.hex()[:11], *place, events)


def generate(folder: Path, rows: int) -> None:
    """Write index and description, without any shard."""
    path = folder / "index.safetensors"
    write_index(path, entries(rows))
    held_back = rows // 40
    facts = {
        "format": FORMAT,
        "content": "features",
        "task": "events",
        "classes": [*map(str, range(28)), "background"],
        "splits": {"train": rows - 2 * held_back, "val": held_back, "test": held_back},
        "shards": {f"{number:06d}.tar": 102_401_024 for number in range(-(-rows // 1000))},
        "index": {"size": path.stat().st_size, "sha256": sha256(path)},
    }
    (folder / "shards.json").write_text(json.dumps(facts), encoding="utf-8")


def memory(key: str = "VmRSS") -> float:
    """Of this process, MB."""
    return int(Path("/proc/self/status").read_text(encoding="utf-8").split(f"{key}:")[1].split()[0]) * 1024 / 1e6


def measure(folder: Path) -> None:
    """Print the table; in a fresh process."""
    importlib.import_module("torch")  # which safetensors maps by
    before, started = memory(), time.perf_counter()
    shards = Shards(folder)
    seconds = time.perf_counter() - started
    print(f"open    {1000 * seconds:10.1f} ms   {memory():6.0f} MB, of which {before:.0f} are imports")
    rng, rows = random.Random(0), len(shards.index)
    wanted = [rng.randrange(rows) for _ in range(10_000)]
    started = time.perf_counter()
    for row in wanted:
        if shards.index.find(f"clip-{row:015d}") != row:
            sys.exit(f"row {row} was not found")
    print(f"find    {100 * (time.perf_counter() - started):10.1f} us   {memory():6.0f} MB, a random key")
    before = memory()
    from avzoo.data.sharded import Rows, segment_labels
    from avzoo.preprocess import Preprocess

    preprocess = Preprocess(audio_backbone="avzoo-audio", visual_backbone="tf_efficientnet_lite0")
    print(f"        {'':13} {memory() - before:8.0f} MB more for what a training imports")
    training = Rows(shards, shards.splits["train"])
    started = time.perf_counter()
    labels = segment_labels(shards, np.fromiter(training.rows, np.int64, len(training)), preprocess)
    print(f"labels  {time.perf_counter() - started:10.1f} s    {memory():6.0f} MB, {len(labels):,} rows")
    del labels
    started = time.perf_counter()
    count = sum(1 for _ in training)
    print(f"items   {1e6 * (time.perf_counter() - started) / count:10.1f} us   {memory():6.0f} MB, a row of {count:,}")
    print(f"peak    {'':13} {memory('VmHWM'):8.0f} MB")


def read(folder: Path) -> None:
    """Random records, the first time (with their sha256) and again."""
    shards = Shards(folder)
    rows = random.Random(0).choices(range(len(shards.index)), k=2000)
    for name in ("first", "again"):
        started = time.perf_counter()
        size = sum(sum(map(len, shards.read(row).values())) for row in rows)
        seconds = time.perf_counter() - started
        print(f"record {name}  {1e6 * seconds / len(rows):8.0f} us   {size / seconds / 1e6:6.0f} MB/s")


def main() -> None:
    """Generate and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--records", type=Path, metavar="DIR", help="shards whose records are read")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        measure(options.folder)
        return
    if options.records:
        read(options.records)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        generate(Path(folder), options.rows)
        size = (Path(folder) / "index.safetensors").stat().st_size
        print(f"write   {time.perf_counter() - started:10.1f} s    {options.rows:,} rows, {size / 1e6:.0f} MB")
        sys.stdout.flush()
        subprocess.run([sys.executable, __file__, "--folder", folder], check=True)


if __name__ == "__main__":
    main()
