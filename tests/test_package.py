"""What an installed avzoo carries."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_wheel_carries_what_the_commands_read(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    wheel = next(tmp_path.glob("*.whl"))
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"avzoo/_assets/checkpoints.yaml", "avzoo/py.typed", "avzoo/weights/audio-encoder.safetensors"} <= names
    recipes = {f"avzoo/_assets/recipes/{path.name}" for path in (ROOT / "recipes").glob("*.yaml")}
    assert recipes <= names
    shipped = {path.relative_to(ROOT).as_posix() for path in (ROOT / "avzoo" / "weights").rglob("*") if path.is_file()}
    assert shipped <= names
    assert not [name for name in names if name.startswith("tests/")]
    assert wheel.stat().st_size < 40e6
