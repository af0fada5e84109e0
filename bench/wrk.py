"""As many requests as a server answers, and how long its answers take: by wrk."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

CONNECTIONS = 32
SECONDS = 1
_THREADS = 2
_REPORT = Path(__file__).with_name("wrk.lua")


@dataclass(frozen=True)
class Load:
    """How a server bore it: requests per second, and latencies in milliseconds."""

    rate: float
    p50: float
    p99: float

    def __str__(self) -> str:
        return f"{self.rate:,.0f}/s, p50 {self.p50:.2f} ms, p99 {self.p99:.2f} ms"


@dataclass(frozen=True)
class Target:
    """Who is asked, by what name, and the address where that is looked for."""

    scheme: str
    host: str
    address: str
    port: int

    def url(self, path: str = "/") -> str:
        return f"{self.scheme}://{self.host}:{self.port}{path}"


def put_load(target: Target, path: str, seconds: int = SECONDS) -> Load:
    """Ask again and again, on each of the connections, which are kept alive.

    Raises RuntimeError when an answer was none, late, or of a status from 400 on.
    """
    sizes = (f"--threads={_THREADS}", f"--connections={CONNECTIONS}", f"--duration={seconds}s")
    command = ("wrk", *sizes, f"--script={_REPORT}", target.url(path))
    environment = {**os.environ, "ADDRESS": target.address}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    if result["failed"] or not result["requests"]:
        raise RuntimeError(f"{target} did not answer all requests well:\n{done.stdout}")
    return Load(
        rate=result["requests"] / result["duration"] * 1e6,
        p50=result["p50"] / 1e3,
        p99=result["p99"] / 1e3,
    )
