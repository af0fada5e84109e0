"""Running one command, and what it took."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """How often to measure, and by what to divide all sizes."""

    rounds: int
    divide: int

    def size(self, full: int) -> int:
        return max(2, full // self.divide)


@dataclass
class Times:
    """What dual, and what stands beside it, took in each round, in seconds."""

    dual: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)

    def take(self, side: str, seconds: float) -> None:
        getattr(self, side).append(seconds)
        print(f"  {side}: {seconds:.2f} s", file=sys.stderr, flush=True)


def alternate(rounds: int, sides: Mapping[str, Callable[[], float]]) -> Times:
    """Both sides in turn, as often as there are rounds."""
    times = Times()
    for _ in range(rounds):
        for side, measure in sides.items():
            times.take(side, measure())
    return times


def seconds(
    *argv: str, cwd: Path, sample: Callable[[int], None] | None = None, every: float = 0.02
) -> float:
    """Run a command, and return the seconds until it ended.

    ``sample`` is called with its process id as long as it runs. Raises CalledProcessError,
    with the output, for a command that fails.
    """
    started = time.perf_counter()
    process = subprocess.Popen(
        argv,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )
    output = None
    try:
        while output is None:
            # A second call goes on where the first left off: no output is lost.
            with suppress(subprocess.TimeoutExpired):
                output, _ = process.communicate(timeout=every if sample else None)
            if sample:
                sample(process.pid)
    except BaseException:
        # Whoever it started must end, too: they would go on making containers.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    took = time.perf_counter() - started
    if process.returncode:
        print(output, file=sys.stderr)
        raise subprocess.CalledProcessError(process.returncode, argv, output)
    return took
