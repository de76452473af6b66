"""SIGTERM and SIGUSR1 end a training in good order: all processes at the same step, saved, exit status 75.

Lightning's own handler talks to the other processes from within a signal, which blocks them for good. Here a handler
sets a flag, and the processes ask one another between two steps.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

AGAIN = 75  # EX_TEMPFAIL: run the same command again


class Stopped(SystemExit):
    """Training was asked to stop, and what it needs to go on is saved."""


class StopFlag:
    """Whether one of the two signals came."""

    def __init__(self) -> None:
        self.raised = False

    def install(self) -> None:
        """Take the place of Lightning's handlers, which puts back what was there before when training ends."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGUSR1):
                signal.signal(number, self._raise)

    def _raise(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - what Python hands over
        self.raised = True


def stop(trainer: Any) -> Stopped:
    """What to raise: 75, but 0 in a process that Lightning started, which would take another status for a crash."""
    child = "AVZOO_RUN" in os.environ and trainer.local_rank != 0
    return Stopped(0 if child else AGAIN)
