"""Hands the terminal over to a docker command: what it prints passes through as it is."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence


def run(argv: Sequence[str]) -> int:
    """Run a command with this process's own stdin, stdout and stderr.

    Ctrl-C goes to the command, which decides what to do about it.
    """
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = subprocess.Popen(
            argv, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
        )
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda received, _: process.send_signal(received))
        code = process.wait()
    finally:
        signal.signal(signal.SIGINT, handler)
    return code if code >= 0 else 128 - code
