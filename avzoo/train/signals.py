"""SIGTERM, SIGUSR1 and Ctrl+C end a training in good order: all processes at the same step, saved, exit status 75.

Lightning's own handler talks to the other processes from within a signal, which blocks them for good. Here a handler
sets a flag, and the processes ask one another between two steps. Before the sanity check and after the last step there
is nothing to save, and the handler ends its process at once: features that are being extracted are kept clip by clip.

Ctrl+C (SIGINT) is 130, as everywhere, and a `KeyboardInterrupt` wherever there is nothing to wait for; so is a second.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

AGAIN = 75  # EX_TEMPFAIL: run the same command again
INTERRUPTED = 130  # what a shell makes of Ctrl+C
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Stopped(SystemExit):
    """Training was asked to stop, and what it needs to go on is saved."""

    _said = False

    def say(self, after: str = "") -> None:
        """Say so, once."""
        if not self._said:
            print(f"stopped by a signal{after}; the same command goes on", flush=True)
        self._said = True


class StopFlag:
    """Whether one of the signals came; a second one changes nothing, but for a second Ctrl+C.

    Attributes:
        raised: The number of the first that came; 0 before.
        deferred: A training looks at `raised` before each step; otherwise the signal itself ends the process.
    """

    def __init__(self) -> None:
        self.raised, self.deferred = 0, False
        self._process = os.getpid()

    def install(self) -> None:
        """Take the place of all other handlers, but let a job in the background ignore Ctrl+C as it does."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if number != signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, self._raise)

    def _raise(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - what Python hands over
        if os.getpid() != self._process:  # Slurm and a terminal signal the forks that load data as well
            return
        at_once = number == self.raised == signal.SIGINT or not (self.raised or self.deferred)
        self.raised = self.raised or number
        if at_once:
            stopped = self.stop()
            raise KeyboardInterrupt if stopped.code == INTERRUPTED else stopped

    def stop(self) -> Stopped:
        """What to raise: a process that Lightning started ends with 0, it would take another status for a crash."""
        child = "AVZOO_RUN" in os.environ and os.environ.get("LOCAL_RANK", "0") != "0"
        return Stopped(0 if child else INTERRUPTED if self.raised == signal.SIGINT else AGAIN)


@contextlib.contextmanager
def stops_on_signals() -> Iterator[None]:
    """Heed the signals in a block of one process, say so if one ends it, and give them back as they were.

    Raises:
        KeyboardInterrupt: If it was Ctrl+C, which is to end a cell of a notebook and no more.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    StopFlag().install()
    try:
        yield
    except Stopped as stopped:
        stopped.say()
        if stopped.code == INTERRUPTED:
            raise KeyboardInterrupt from None
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def keeps_keyboard_interrupt() -> Iterator[None]:
    """Ctrl+C stays what it is in a block: Lightning would make an exit with status 1 of it, without a word."""
    try:
        yield
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
