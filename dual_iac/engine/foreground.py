"""Hands the terminal over to a docker command: what it prints passes through as it is."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence


def run(argv: Sequence[str]) -> int:
    """Run a command with this process's own stdin, stdout and stderr; returns its exit code.

    Ctrl-C goes to the command, which decides what to do about it. A signal that ends this process
    is passed on; 128+n is returned then, whatever the command makes of it.
    """
    passed_on = []

    def pass_on(number: int, _: object) -> None:
        passed_on.append(number)
        process.send_signal(number)

    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = subprocess.Popen(
            argv, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
        )
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, pass_on)
        code = process.wait()
    finally:
        signal.signal(signal.SIGINT, handler)
    if passed_on and code != 0:
        return 128 + passed_on[-1]
    return code if code >= 0 else 128 - code
