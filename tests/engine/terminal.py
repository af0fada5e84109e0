"""A user in front of a terminal: what they type, and what they see."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.engine.conftest import DUAL, LiveProject

ROWS, COLUMNS = 33, 99
_PATIENCE = 60.0  # seconds for something to be said


def heed_signals() -> None:
    """What runs in the background, or under nohup, such as these tests perhaps, ignores some."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def on_a_terminal(
    live: LiveProject, *arguments: str, stdout: int | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A dual in front of a terminal, whose Ctrl-C goes to all in front; maybe not its ``stdout``.

    Yields the process, and the user's end of the terminal: a file descriptor.
    """
    terminal, its_end = pty.openpty()
    resize(terminal, ROWS, COLUMNS)

    def take() -> None:
        fcntl.ioctl(its_end, termios.TIOCSCTTY, 0)
        heed_signals()

    process = subprocess.Popen(
        [*DUAL, *arguments],
        cwd=live.folder,
        stdin=its_end,
        stdout=its_end if stdout is None else stdout,
        stderr=its_end,
        start_new_session=True,
        preexec_fn=take,
    )
    os.close(its_end)
    try:
        yield process, terminal
    finally:
        process.kill()
        process.wait()
        os.close(terminal)


def resize(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def said_until(terminal: int, words: bytes) -> bytes:
    said, end = b"", time.monotonic() + _PATIENCE
    while words not in said:
        ready, _, _ = select.select([terminal], [], [], max(end - time.monotonic(), 0))
        assert ready, f"it does not say {words!r} but {said!r}"
        try:
            said += os.read(terminal, 4096)
        except OSError:  # EIO, once nobody has the other end any more
            raise AssertionError(f"it ended, and did not say {words!r} but {said!r}") from None
    return said


def all_said(terminal: int) -> bytes:
    said = b""
    with suppress(OSError):  # EIO, once nobody has the other end any more
        while more := os.read(terminal, 4096):
            said += more
    return said
