"""What a training has to do with Slurm: its job's number, whether another job still waits, who requeues."""

from __future__ import annotations

import os
import shutil
import subprocess

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment


def job() -> str:
    """The number of the job that this process belongs to, which a requeued job keeps; empty outside Slurm."""
    return os.environ.get("SLURM_JOB_ID", "")


def is_queued(number: str) -> bool:
    """Whether a job runs, or waits to run (again)."""
    if not number or shutil.which("squeue") is None:
        return False
    asked = ["squeue", "--noheader", "--format=%i", f"--jobs={number}"]
    return bool(subprocess.run(asked, capture_output=True, check=False).stdout.strip())


def environments() -> list[SLURMEnvironment]:
    """How Lightning is to work under `srun`: it would save and requeue from within a signal, see `train.signals`."""
    if TorchElasticEnvironment.detect() or not SLURMEnvironment.detect():  # torchrun may run under Slurm too
        return []
    return [SLURMEnvironment(auto_requeue=False)]
