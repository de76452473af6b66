"""SIGTERM and SIGUSR1 end a training in good order: all processes at the same step, saved, exit status 75.

Lightning's own handler talks to the other processes from within a signal, which blocks them for good. Here a handler
sets a flag, and the processes ask one another between two steps. Before the first step and after the last one there
is nothing to save, and the handler ends its process at once: features that are being extracted are kept clip by clip.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

AGAIN = 75  # EX_TEMPFAIL: run the same command again


class Stopped(SystemExit):
    """Training was asked to stop, and what it needs to go on is saved."""


class StopFlag:
    """Whether one of the two signals came; a second one changes nothing.

    Attributes:
        raised: It came.
        asked: Somebody will look at `raised`; otherwise the signal itself ends the process.
    """

    def __init__(self) -> None:
        self.raised = self.asked = False
        self._process = os.getpid()

    def install(self) -> None:
        """Take the place of all other handlers, for as long as the process lives."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGUSR1):
                signal.signal(number, self._raise)

    def _raise(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - what Python hands over
        if self.raised or os.getpid() != self._process:  # Slurm signals the forks that load data as well
            return
        self.raised = True
        if not self.asked:
            raise stop()


def stop() -> Stopped:
    """What to raise: 75, but 0 in a process that Lightning started, which would take another status for a crash."""
    child = "AVZOO_RUN" in os.environ and os.environ.get("LOCAL_RANK", "0") != "0"
    return Stopped(0 if child else AGAIN)
