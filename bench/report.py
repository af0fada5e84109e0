"""Results as a table, and the page that holds them."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.measure import Settings, Times
from bench.wrk import CONNECTIONS, SECONDS
from dual_iac.model import Proxy
from tests.engine.conftest import docker
from tests.engine.load import PATIENCE


@dataclass(frozen=True)
class Row:
    """One measure: what dual took, what stands beside it, and the figure that has a limit.

    Without ``must`` and ``aim`` it is there for the reader only. They are the most that the figure
    may be, or the least, where more is better.
    """

    what: str
    dual: str
    beside: str
    figure: float
    shown: str
    must: float | None = None
    aim: float | None = None
    more_is_better: bool = False

    @property
    def verdict(self) -> str:
        if self.must is None or self.aim is None:
            return ""
        if self._keeps(self.aim):
            return "aim met"
        return "met" if self._keeps(self.must) else "**not met**"

    def _keeps(self, limit: float) -> bool:
        return self.figure >= limit if self.more_is_better else self.figure <= limit

    def shown_limit(self, limit: float | None) -> str:
        if limit is None:
            return ""
        return f"at least {limit:g}" if self.more_is_better else f"{limit:g}"


def ratio(
    what: str, times: Times, against: str, must: float | None = None, aim: float | None = None
) -> Row:
    """A row of medians, and dual's divided by the other's."""
    dual, beside = statistics.median(times.dual), statistics.median(times.beside)
    figure = dual / beside
    return Row(
        what, f"{dual:.2f} s", f"`{against}`: {beside:.2f} s", figure, f"{figure:.2f}", must, aim
    )


def table(rows: Iterable[Row]) -> str:
    lines = [
        "| What | dual | Beside it | Figure | Must | Aim | |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        limits = [row.shown_limit(limit) for limit in (row.must, row.aim)]
        cells = [row.what, row.dual, row.beside, row.shown, *limits, row.verdict]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def document(rows: Iterable[Row], settings: Settings) -> str:
    return f"""\
# Benchmarks

Written by `make bench`. Each measure runs dual and plain Docker Compose in turn, on the project
that `dual render` wrote, with every image already there, in {settings.rounds} rounds (where there
is nothing to do, in {2 * settings.rounds + 1}). Times are medians. Figures are dual's divided by
what stands beside it, unless they say otherwise: less is better, but where a limit says "at least".

- dual's times are those of the whole command, the start of Python included. `dual apply` also
  waits until every workspace answers through the proxy, and checks afterwards that nobody else was
  touched; `docker compose up -d` does neither.
- Workspaces in the timed measures run `busybox httpd`, and start at once.
- Lost is what failed of requests on fresh connections, requests on connections kept alive, and
  WebSockets opened before, to workspaces that nobody wanted to touch, from the start of the command
  until all answers were good again. All rounds are added up. An answer has {PATIENCE:g} seconds to
  come. A WebSocket is lost when it closes, or when a message doesn't come back.
- Commands in a workspace are measured as whole processes, in 10 times as many rounds. An edit is
  seen when a program in the workspace that waits for inotify events has read the file again.
- Through the proxy, `wrk` asks over {CONNECTIONS} connections that it keeps alive, each as fast as
  answers come: through dual's Traefik, through a bare one (the same image, one entry point, one
  route, all else as it comes) and at the workspace's own address. The workspace answers with bytes
  that are ready. Each side is asked for {SECONDS} s in turn, the order reversed each time, in
  15 times as many rounds. Figures are the medians of the rounds' own ratios (requests: dual's
  by the bare one's; p50 and p99: the bare one's by dual's), so that what else the machine does
  falls out: the two that are divided were measured one right after the other.
- Memory is the most that a process had resident by its own account (`VmHWM`, read every 20 ms):
  dual's, and apart from it the largest of the processes that it starts.

{table(rows)}

## The machine

{machine()}
"""


def machine() -> str:
    """What the figures depend on; nothing that tells whose machine it is."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    facts = {
        "CPU": f"{_cpu()}, {os.cpu_count()} cores",
        "Memory": f"{memory:.1f} GiB",
        "Kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        "Docker Engine": docker("version", "--format", "{{.Server.Version}}"),
        "Docker Compose": docker("compose", "version", "--short"),
        "Traefik": Proxy().image.rpartition(":")[2],
        "Python": platform.python_version(),
        "Date": datetime.now(UTC).date().isoformat(),
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {facts[key]} |" for key in facts)])


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
