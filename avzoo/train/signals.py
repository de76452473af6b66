"""SIGTERM and SIGUSR1 end a training in good order: all processes at the same step, saved, exit status 75.

Lightning's own handler talks to the other processes from within a signal, which blocks them for good. Here a handler
sets a flag, and the processes ask one another between two steps. Before the first step and after the last one there
is nothing to save, and the handler ends its process at once: features that are being extracted are kept clip by clip.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

AGAIN = 75  # EX_TEMPFAIL: run the same command again
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Stopped(SystemExit):
    """Training was asked to stop, and what it needs to go on is saved."""

    _said = False

    def say(self, after: str = "") -> None:
        """Say so, once."""
        if not self._said:
            print(f"stopped by a signal{after}; the same command goes on", flush=True)
        self._said = True


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
        """Take the place of all other handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._raise)

    def _raise(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - what Python hands over
        if self.raised or os.getpid() != self._process:  # Slurm signals the forks that load data as well
            return
        self.raised = True
        if not self.asked:
            raise stop()


@contextlib.contextmanager
def heeded() -> Iterator[None]:
    """Heed the signals in a block of one process, say so if one ends it, and give them back as they were."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    StopFlag().install()
    try:
        yield
    except Stopped as stopped:
        stopped.say()
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def stop() -> Stopped:
    """What to raise: 75, but 0 in a process that Lightning started, which would take another status for a crash."""
    child = "AVZOO_RUN" in os.environ and os.environ.get("LOCAL_RANK", "0") != "0"
    return Stopped(0 if child else AGAIN)
