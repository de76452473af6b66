"""Hashes of trainings that were killed and given the same command again, beside that of one left alone.

    python docs/benchmarks/kills.py

Six rendered clips, three epochs of six steps with dropout, exchanges, averaged weights and one cycle, as the recipe
avsdn-avemix has them. Hashed are all weights, averaged and not, and the state of optimizer and schedule. It uses
the helpers of the tests, so it runs from a checkout.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
MOMENTS = {
    "never": "left alone",
    "step:0:KILL": "kill -9 in the first step, before there is a checkpoint",
    "step:9:KILL": "kill -9 in the middle of an epoch",
    "validation:1:KILL": "kill -9 in a validation",
    "saving:8:KILL": "kill -9 with half a checkpoint written",
    "step:17:KILL": "kill -9 in the last step",
    "step:15:TERM+TERM": "SIGTERM twice",
    "validation:0:USR1": "SIGUSR1 in a validation",
    "step:8:INT": "Ctrl+C",
}


def main() -> None:
    """Train, strike, train on; print a table."""
    parser = argparse.ArgumentParser(prog=Path(__file__).name, description=__doc__.partition("\n")[0])
    parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    import struck
    from test_resume import SMALL, fingerprint, only_run

    from avzoo import registry
    from avzoo.data import rendering

    print("| struck | exit status | then | sha256 |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        root = rendering.write_ave(Path(place, "data"), train=6, val=3, test=3, classes=rendering.CLASSES[:3], size=64)
        command = ["fit", "--config", str(registry.asset("recipes/avsdn-avemix.yaml")), "--data.root", str(root)]
        command += ["--data.cache", str(Path(place, "features")), *SMALL]
        for number, (moment, words) in enumerate(MOMENTS.items()):
            folder = Path(place, str(number))
            (first,), *rest = struck.drive(folder, moment if moment == "never" else f"{moment},never", command)
            then = rest[0][0] if rest else ""
            print(f"| {words} | {first} | {then} | {fingerprint(only_run(folder))[:16]} |", flush=True)


if __name__ == "__main__":
    main()
