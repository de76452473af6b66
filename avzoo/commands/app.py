"""`avzoo app`: a page on this machine to drop videos on."""

from __future__ import annotations

import argparse
import signal
import time
from contextlib import suppress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = "No clip leaves this machine. Needs: pip install 'avzoo[app]'"
    parser.add_argument(
        "--model",
        help="chosen at first: a name of `avzoo list`, hf:owner/repo@commit, or a folder (default avsdn-avemix)",
    )
    parser.add_argument("--port", type=int, default=7860, help="where on 127.0.0.1 (default 7860)")
    parser.add_argument(
        "--max-seconds", type=float, default=120, metavar="S", help="longest clip that is answered (default 120)"
    )
    parser.add_argument(
        "--max-mb", type=float, default=200, metavar="MB", help="largest file that is taken (default 200)"
    )


def run(options: argparse.Namespace) -> None:
    """Serve until it is interrupted, told to end, or its terminal closes; uploads are removed each way."""
    from avzoo.app import page

    for stop in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):  # the latter comes when a terminal closes
        if signal.getsignal(stop) is not signal.SIG_IGN:  # as under nohup
            signal.signal(stop, signal.default_int_handler)
    served = page(options.model, port=options.port, max_seconds=options.max_seconds, max_mb=options.max_mb)
    with served as blocks, suppress(KeyboardInterrupt):  # the way to end it is no failure
        print(f"avzoo is at {blocks.local_url}  (Ctrl+C ends it)", flush=True)
        wait()


def wait() -> None:
    """Until a signal comes."""
    while True:
        time.sleep(3600)
