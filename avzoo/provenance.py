"""What made a checkpoint: the commit of the code and the versions of what it ran on. Imports nothing heavy."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import subprocess
from pathlib import Path

from avzoo import __version__

PACKAGES = ("torch", "torchvision", "torchaudio", "timm", "lightning", "av")


@functools.cache
def code_commit() -> str:
    """The last commit of the code and the recipes, 40 hex digits; empty where avzoo is not run from its repository."""
    command = ["git", "log", "-1", "--format=%H", "--", "avzoo", "recipes"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def versions() -> dict[str, str]:
    """Versions by name, of avzoo, Python and what a model's answers depend on.

    >>> versions()["avzoo"] == __version__
    True
    """
    found = {"avzoo": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def training() -> dict[str, object]:
    """What a training checkpoint keeps of the above, plain values alone."""
    return {"commit": code_commit(), "versions": versions()}
