"""Trainings in a real Slurm, on two virtual nodes: stopped by a signal and by the time limit, requeued, and exact."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from slurm_cluster import Cluster, missing
from test_resume import fingerprint

from avzoo import cli, registry
from avzoo.commands.submit import seconds

pytestmark = [pytest.mark.slurm, pytest.mark.skipif(bool(missing()), reason=missing())]

# The `avzoo` of the jobs: it pauses in every step, so that there is time to disturb a training.
AVZOO = f"""\
#!{sys.executable}
import os, sys, time
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from lightning.pytorch.strategies import Strategy
from avzoo.cli import main

def slowly(*args, step=Strategy.training_step, **options):
    time.sleep(float(os.environ["PAUSE"]))
    return step(*args, **options)

Strategy.training_step = slowly
main()
"""
# 6 clips, 3 steps an epoch, 18 steps
SMALL = ["--data.batch_size", "2", "--model.hidden_dim", "8", "--trainer.max_epochs", "6", "--save_every", "2"]
NODES, TASKS = ["--nodes", "2", "--cpus", "1"], ["--nodes", "1", "--cpus", "2"]
RUNS = Path("runs", "avsdn-avemix")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="slurm") as folder:
        running = Cluster(Path(folder, "cluster"))
        try:
            running.start()
            yield running
        finally:
            running.stop()


@pytest.fixture
def submit(
    cluster: Cluster,
    rendered: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> Callable[..., str]:
    """Submit a training whose features are cached, and which pauses until it was requeued; the job's number."""
    request.getfixturevalue("cheap_backbones")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_CONF", cluster.env["SLURM_CONF"])
    monkeypatch.setenv("PATH", f"{tmp_path}:{cluster.env['PATH']}")
    Path("avzoo").write_text(AVZOO)
    Path("avzoo").chmod(0o755)
    data = ["--data.root", str(rendered), "--data.cache", str(tmp_path / "cache")]
    cli.main(["extract", "--config", str(registry.asset("recipes/avsdn-avemix.yaml")), *data, "--data.workers", "0"])

    def go(out: str, *options: str, pause: float = 0.0) -> str:
        setup = f"export MASTER_ADDR=127.0.0.1 PAUSE=$([ $SLURM_RESTART_COUNT ] && echo 0 || echo {pause})"
        capsys.readouterr()
        cli.main(["submit", "avsdn-avemix", "--setup", setup, "--out", out, "--go", *options, "--", *data, *SMALL])
        found = re.search(r": job (\d+)", capsys.readouterr().out)
        assert found is not None
        return found[1]

    return go


def log(job: str) -> str:
    path = Path(f"avsdn-avemix-{job}.log")
    return path.read_text() if path.exists() else ""


def end(cluster: Cluster, job: str, state: str, seconds: float = 300) -> dict[str, str]:
    """How a job ended, once all its processes are gone."""
    cluster.wait(lambda: not cluster.run("squeue", "-h", "-j", job), f"job {job} has ended: {log(job)}", seconds)
    facts = cluster.job(job)
    assert facts["JobState"] == state, f"{facts}\n{log(job)}\n{cluster.log(job)}"
    return facts


def start_again(cluster: Cluster, job: str) -> None:
    """Wait until a job was requeued; it need not wait two minutes longer, and has time.

    A node refuses what it is given within the second in which it revoked the job's last credential.
    """
    cluster.wait(lambda: cluster.run("squeue", "-h", "-j", job, "-o", "%T") == "PENDING", f"{job} is requeued", 300)
    assert cluster.job(job)["Restarts"] == "1", log(job)
    cluster.run("scontrol", "update", f"JobId={job}", "StartTime=now+2", "TimeLimit=30")


def kill_second_process(cluster: Cluster, job: str) -> None:
    wanted = {f"SLURM_CONF={cluster.env['SLURM_CONF']}", f"SLURM_JOB_ID={job}", "SLURM_PROCID=1"}
    killed = 0
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if wanted <= {*environment.read_text(errors="replace").split("\0")}:
                os.kill(int(environment.parent.name), signal.SIGKILL)
                killed += 1
    assert killed


@pytest.fixture
def undisturbed(cluster: Cluster, submit: Callable[..., str]) -> str:
    """Of the weights that two processes end with."""
    end(cluster, submit("undisturbed.sbatch", *TASKS), "COMPLETED")
    return fingerprint(RUNS / "version_0")


def test_two_requeued_jobs_of_one_recipe_end_like_an_undisturbed_one(
    cluster: Cluster, submit: Callable[..., str], undisturbed: str
) -> None:
    begin = time.monotonic()
    nodes = submit("nodes.sbatch", *NODES, pause=5)
    cluster.wait((RUNS / "version_1/checkpoints/last.ckpt").exists, "the first job trains", 300)
    tasks = submit("tasks.sbatch", *TASKS, "--signal-before", "5", pause=5)
    cluster.wait((RUNS / "version_2/checkpoints/last.ckpt").exists, "the second job trains", 300)
    cluster.run("scancel", "--signal=USR1", nodes)
    minutes = (seconds(cluster.job(tasks)["RunTime"]) + 20) // 60 + 1  # Slurm counts in them, and looks twice in each
    cluster.run("scontrol", "update", f"JobId={tasks}", f"TimeLimit={minutes}")
    start_again(cluster, tasks)  # its time was up; the other one may wait as well
    start_again(cluster, nodes)
    for job, run in ((nodes, RUNS / "version_1"), (tasks, RUNS / "version_2")):
        end(cluster, job, "COMPLETED")
        assert f"going on from {run}/checkpoints/last.ckpt" in log(job)
        assert log(job).count("going on from") == 1
        assert fingerprint(run) == undisturbed
    assert len(list(RUNS.iterdir())) == 3
    logs = [show(job) for job in (nodes, tasks) for show in (log, cluster.log)]
    print(f"{time.monotonic() - begin:.0f} s", undisturbed, *logs, sep="\n")


def test_what_ends_otherwise_is_not_requeued_and_another_job_goes_on_with_it(
    cluster: Cluster, submit: Callable[..., str]
) -> None:
    lost, last = submit("lost.sbatch", *TASKS, pause=2), RUNS / "version_0/checkpoints/last.ckpt"
    cluster.wait(last.exists, "there is a checkpoint", 300)
    kill_second_process(cluster, lost)
    assert end(cluster, lost, "FAILED")["ExitCode"] == "137:0"
    saved = last.stat().st_mtime_ns
    cancelled = submit("cancelled.sbatch", *NODES, pause=2)
    cluster.wait(lambda: last.stat().st_mtime_ns > saved, "the second job goes on", 300)
    cluster.run("scancel", cancelled)
    end(cluster, cancelled, "CANCELLED")
    assert "stopped by a signal after" in log(cancelled)  # saved, or in a validation, before which it had been
    assert f"going on from {last}" in log(cancelled)
    for job in (lost, cancelled):
        assert cluster.job(job)["Restarts"] == "0"
    print(log(lost), log(cancelled), sep="\n")
