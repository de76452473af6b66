"""A Slurm cluster of two virtual nodes on this machine, in a folder of its own: no accounts, no cgroups, no services.

Needs root and Debian's packages `slurm-wlm` and `munge`. Nothing of it outlives `stop`, which goes by the pid files.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue", "sinfo")
NODES = ("n1", "n2")
CONFIG = """\
ClusterName=virtual
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=10
{nodes}
PartitionName=main Nodes=ALL Default=YES State=UP MaxTime=INFINITE OverSubscribe=FORCE:4
"""


def missing() -> str:
    """Why there can be no cluster on this machine; empty if there can."""
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    if lacking:
        return f"Slurm is not installed ({', '.join(lacking)}): apt-get install slurm-wlm slurmctld slurmd munge"
    return "" if os.geteuid() == 0 else "a virtual Slurm cluster needs root"


class Cluster:
    """A cluster that runs between `start` and `stop`.

    Args:
        folder: For its configuration, state and logs; its path is short, because it holds a socket.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def start(self) -> None:
        """Bring it up, and wait until both nodes are idle."""
        self.folder.mkdir(parents=True)
        self.folder.chmod(0o755)  # munged refuses others
        host = socket.gethostname().partition(".")[0]
        port, *ports = _free_ports(1 + len(NODES))
        nodes = "\n".join(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={own} CPUs=2"
            for name, own in zip(NODES, ports, strict=True)
        )
        config = CONFIG.format(host=host, port=port, folder=self.folder, nodes=nodes)
        (self.folder / "slurm.conf").write_text(config)
        (self.folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        places = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        self.run("munged", "--force", *(f"--{name}={self.folder}/munge.{end}" for name, end in places.items()))
        self.run("slurmctld", "-i", "-f", self.env["SLURM_CONF"])
        for name in NODES:
            self.run("slurmd", "-N", name, "-f", self.env["SLURM_CONF"])
        self.wait(lambda: self.run("sinfo", "-h", "-o", "%D %t") == f"{len(NODES)} idle", "both nodes are idle", 60)

    def stop(self) -> None:
        """End it and whatever still runs in it."""
        pids = [file for name in (*NODES, "slurmctld", "munge") if (file := self.folder / f"{name}.pid").exists()]
        try:
            if self.folder / "slurmctld.pid" in pids:
                self.run("scancel", "--user=root", check=False)
                self.wait(lambda: not self.run("squeue", "-h", check=False), "all jobs have ended", 60)
        finally:
            for file in pids:
                program = Path("/proc", file.read_text().strip())
                os.kill(int(program.name), signal.SIGTERM)
                self.wait(lambda program=program: not program.exists(), f"{file.stem} has ended", 30)

    def run(self, *command: str, check: bool = True) -> str:
        """What a command prints."""
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False, timeout=60)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout.strip()

    def job(self, number: str) -> dict[str, str]:
        """What Slurm knows of a job: JobState, Restarts, ExitCode, ..."""
        shown = self.run("scontrol", "show", "job", number, "--oneliner")
        return dict(word.partition("=")[::2] for word in shown.split() if "=" in word)

    def log(self, number: str) -> str:
        """What the controller and the nodes wrote of a job, in the order of time."""
        lines = [line for file in self.folder.glob("*.log") for line in file.read_text(errors="replace").splitlines()]
        own = re.compile(rf"JobId={number}\b|\bjob {number}\b|\[{number}\.", re.IGNORECASE)
        return "\n".join(sorted(filter(own.search, lines)))

    def wait(self, condition: Callable[[], object], what: str, seconds: float) -> None:
        """Until a condition holds."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"{self.folder}: {seconds} s passed, and not yet: {what}")
            time.sleep(0.25)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
