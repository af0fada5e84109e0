"""Hands the terminal over to a command inside a workspace.

python-on-whales captures or decodes what passes through it. Here stdin, stdout and stderr are
inherited, so that every byte, the TTY and its size reach docker as they are.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from dual_iac.engine.observe import DockerCommand

_NOT_EXECUTABLE = 126
_NOT_FOUND = 127


def execute(
    docker: DockerCommand,
    container: str,
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    workdir: str | None = None,
    user: str | None = None,
    tty: bool = False,
) -> int:
    """Run a command in a container and return its exit code; 128+n if signal n ended it."""
    options = ["--interactive"]
    if tty:
        options.append("--tty")
    for name, value in (env or {}).items():
        options += ["--env", f"{name}={value}"]
    if workdir:
        options += ["--workdir", workdir]
    if user:
        options += ["--user", user]
    code = run([*docker.argv, "exec", *options, container, *command])
    if code == _NOT_EXECUTABLE and not _exists(docker, container, command[0], workdir):
        # Older engines say 126 for a command that isn't there, where a shell says 127.
        return _NOT_FOUND
    return code


def stdio_is_terminal() -> bool:
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))


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


def _exists(docker: DockerCommand, container: str, command: str, workdir: str | None) -> bool:
    """Whether a command is there at all; True where the image has no shell to ask."""
    place = ["--workdir", workdir] if workdir else []
    question = 'command -v -- "$0" || [ -e "$0" ]'
    probe = [*docker.argv, "exec", *place, container, "sh", "-c", question, command]
    done = subprocess.run(probe, capture_output=True, check=False)
    return done.returncode in (0, _NOT_EXECUTABLE)
