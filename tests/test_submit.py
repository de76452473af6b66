"""Job files for Slurm, without one: what they say, what is refused, and whose run a job goes on with."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from avzoo import cli
from avzoo.commands import submit
from avzoo.errors import AvzooError
from avzoo.train import runs


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def program(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program of ours before all others."""
    Path("bin").mkdir(exist_ok=True)
    Path("bin", name).write_text(f"#!/bin/sh\n{text}\n")
    Path("bin", name).chmod(0o755)
    monkeypatch.setenv("PATH", str(Path("bin").resolve()), prepend=":")


def test_a_job_says_all_that_was_asked(capsys: pytest.CaptureFixture[str]) -> None:
    wanted = ["--nodes", "2", "--gpus", "4", "--cores", "6", "--mem", "64G", "--time", "1-0", "--signal-before", "300"]
    wanted += ["--partition", "gpu", "--account", "lab", "--setup", "module load cuda"]
    cli.main(["submit", "avsdn-ave", *wanted, "--", "--data.root", "/the data", "--trainer.precision=bf16-mixed"])
    assert "sbatch avsdn-ave.sbatch" in capsys.readouterr().out
    text = Path("avsdn-ave.sbatch").read_text()
    directives = {line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH")}
    assert directives == {
        *("job-name=avsdn-ave", f"chdir={Path.cwd()}", "output=%x-%j.log", "open-mode=append", "requeue"),
        *("nodes=2", "ntasks-per-node=4", "cpus-per-task=6", "gres=gpu:4", "mem=64G", "time=1-0"),
        *("signal=SIGUSR1@300", "partition=gpu", "account=lab"),
    }
    assert text.index("module load cuda") < text.index("MASTER_ADDR") < text.index("srun ")
    assert not [path for path in Path.cwd().iterdir() if path.name.endswith(".tmp")]


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (1, False), (75, True), (137, False)])
def test_only_75_is_requeued_and_every_status_is_passed_on(
    code: int, requeued: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "_check", lambda _: None)  # which the others test
    cli.main(["submit", "avsdn-ave", "--nodes", "2", "--cpus", "1", "--out", "a.sbatch", "--", "--data.root", "/a b"])
    program("srun", f'for word; do echo "$word"; done > words; echo "$MASTER_ADDR" > address; exit {code}', monkeypatch)
    program("scontrol", '[ "$1" = show ] && printf "n7\\nn8\\n" || echo "$@" > requeued', monkeypatch)
    env = {"PATH": f"{Path('bin').resolve()}:/usr/bin:/bin", "SLURM_JOB_ID": "12", "SLURM_JOB_NODELIST": "n[7-8]"}
    assert subprocess.run(["bash", "a.sbatch"], env=env, check=False).returncode == code
    assert Path("address").read_text() == "n7\n"
    assert Path("words").read_text().splitlines() == [
        *("--kill-on-bad-exit=0", "--wait=60", "avzoo", "fit", "--config", "recipes/avsdn-ave.yaml"),
        *("--trainer.accelerator", "cpu", "--trainer.num_nodes", "2", "--trainer.devices", "1"),
        *("--trainer.strategy", "ddp", "--data.root", "/a b"),
    ]
    assert Path("requeued").exists() == requeued
    if requeued:
        assert Path("requeued").read_text() == "requeue 12\n"


def test_a_setup_that_bash_cannot_read_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["submit", "avsdn-ave", "--setup", "echo 'hi"])
    assert "--setup is no command that bash can read: " in capsys.readouterr().err
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["avsdn-avee"], "there is no recipe 'avsdn-avee'; did you mean 'avsdn-ave'?"),
        (["recipes/avsdn-avee.yaml"], "did you mean 'avsdn-ave'?"),
        (["avsdn-ave", "--time", "noon"], "--time noon: Slurm has minutes, HH:MM:SS or DAYS-HH:MM:SS"),
        (["avsdn-ave", "--time", "2"], "--signal-before 120 leaves nothing of --time 2"),
        (["avsdn-ave", "--nodes", "0"], "--nodes 0: at least 1"),
        (["avsdn-ave", "--", "--trainer.devices=3"], "--trainer.devices=3 behind `--`"),
        (["avsdn-ave", "--", "--model.hiden_dim", "3"], "no option 'hiden_dim'; did you mean 'hidden_dim'?"),
        (["avsdn-ave", "--", "--data.seed", "3"], "set the top-level `seed_everything`"),
        (["avsdn-ave", "--go"], "there is no sbatch on this machine"),
    ],
)
def test_what_cannot_be_submitted_is_said_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(SystemExit) as stop:
        cli.main(["submit", *arguments])
    error = capsys.readouterr().err
    assert stop.value.code == 1
    assert said in error
    assert error.count("\n") == 1
    assert not list(Path.cwd().iterdir())


def test_go_submits_and_what_sbatch_refuses_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "_check", lambda _: None)
    program("sbatch", 'echo "$@" > given; echo "31;west"', monkeypatch)
    cli.main(["submit", "avsdn-ave", "--go"])
    assert "job 31\n" in capsys.readouterr().out
    assert Path("given").read_text() == "--parsable avsdn-ave.sbatch\n"
    program("sbatch", "echo sbatch: error: invalid partition >&2; exit 1", monkeypatch)
    with pytest.raises(SystemExit):
        cli.main(["submit", "avsdn-ave", "--go"])
    assert "avsdn-ave.sbatch is written, but sbatch refused it: sbatch: error: invalid" in capsys.readouterr().err


def test_a_file_that_says_something_else_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "_check", lambda _: None)
    for _ in range(2):  # the same is written again
        cli.main(["submit", "avsdn-ave"])
    Path("avsdn-ave.sbatch").write_text("by hand")
    with pytest.raises(SystemExit):
        cli.main(["submit", "avsdn-ave"])
    assert Path("avsdn-ave.sbatch").read_text() == "by hand"


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [("5", 300), ("1:30", 90), ("2:00:05", 7205), ("1-1", 90000), ("1-1:30", 91800), ("1-0:0:1", 86401)],
)
def test_limits_as_slurm_has_them(limit: str, seconds: int) -> None:
    assert submit.seconds(limit) == seconds


@pytest.mark.parametrize("limit", ["", "-", "1-", "-5", "1:2:3:4", "1h", "1.5"])
def test_limits_that_slurm_has_not(limit: str) -> None:
    with pytest.raises(AvzooError, match="--time"):
        submit.seconds(limit)


def test_a_job_goes_on_with_its_own_run_and_with_none_of_a_job_in_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(job: str) -> Path:
        monkeypatch.setenv("SLURM_JOB_ID", job)
        run = runs.start(tmp_path / "runs", "{}")
        run.checkpoints.mkdir()
        run.release()
        return run.folder

    def goes_on(job: str) -> Path | None:
        monkeypatch.setenv("SLURM_JOB_ID", job)
        run = runs.unfinished(tmp_path / "runs", "{}")
        if run is not None:
            run.release()
        return run.folder if run is not None else None

    first, second, by_hand = begin("11"), begin("12"), begin("")
    program("squeue", 'case "$*" in *=11 | *=12) echo here ;; *) exit 1 ;; esac', monkeypatch)
    assert [goes_on(job) for job in ("11", "12")] == [first, second]
    assert goes_on("13") == by_hand
    shutil.rmtree(by_hand)
    assert goes_on("13") is None
    assert goes_on("") is None
    program("squeue", 'case "$*" in *=11) echo here ;; *) exit 1 ;; esac', monkeypatch)
    assert goes_on("13") == second  # its job is gone for good
