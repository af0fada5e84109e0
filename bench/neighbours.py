"""What neighbours under load lose while one workspace is added, changed and removed."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from bench.measure import Settings
from bench.project import ECHO, BenchProject, Workspaces, bench_project, numbered
from bench.report import Row
from tests.engine import echo_server
from tests.engine.load import Toll, steady_load

NEWCOMER = "m"  # its name sorts before the others'
QUESTIONS = 300  # a second, over all neighbours and ways: what two cores carry on the side


def rows(settings: Settings) -> list[Row]:
    return [row for full in (9, 50) for row in _rows(settings.size(full), settings.rounds)]


def _rows(count: int, rounds: int) -> list[Row]:
    neighbours = numbered(count - 1)
    steps: dict[str, Workspaces] = {
        "adding": {**neighbours, NEWCOMER: {}},
        "changing": {**neighbours, NEWCOMER: {"env": {"GREETING": "changed"}}},
        "removing": neighbours,
    }
    tolls: dict[tuple[str, str], list[Toll]] = {}
    with bench_project("neighbours") as project:
        shutil.copy(Path(echo_server.__file__), project.folder)
        project.declare_all(ECHO, neighbours)
        project.timed_dual("apply", "-y")
        for _ in range(rounds):
            for side, carry_out in (("dual", _by_dual), ("compose", _by_compose)):
                for step, workspaces in steps.items():
                    project.declare_all(ECHO, workspaces)
                    toll = _toll(project, list(neighbours), carry_out)
                    tolls.setdefault((step, side), []).append(toll)
                    print(f"  {side}, {step} one of {count}: {toll}", file=sys.stderr, flush=True)
            # Compose leaves the network of what it removed.
            project.timed_dual("apply", "-y")
    return [
        _row(f"Lost while {step} one of {count}", tolls[step, "dual"], tolls[step, "compose"])
        for step in steps
    ]


def _row(what: str, dual: list[Toll], compose: list[Toll]) -> Row:
    lost = sum(toll.lost for toll in dual)
    beside = f"`docker compose up -d --remove-orphans`: {_lost(compose)}"
    return Row(what, _lost(dual), beside, lost, f"{lost} lost", 0, 0)


def _toll(
    project: BenchProject, neighbours: list[str], carry_out: Callable[[BenchProject], None]
) -> Toll:
    interval = 3 * len(neighbours) / QUESTIONS
    with steady_load(project.port, neighbours, interval) as load, load.watched() as toll:
        carry_out(project)
    if not toll.fewest:
        raise RuntimeError(f"too little load to tell what was lost: {toll}")
    return toll


def _by_dual(project: BenchProject) -> None:
    project.timed_dual("apply", "-y")


def _by_compose(project: BenchProject) -> None:
    project.timed_dual("render")
    project.timed_compose("up", "-d", "--remove-orphans")


def _lost(tolls: list[Toll]) -> str:
    failed, requests = sum(t.failed for t in tolls), sum(t.requests for t in tolls)
    closed, websockets = sum(t.closed for t in tolls), sum(t.websockets for t in tolls)
    return f"{failed:,} of {requests:,} requests, {closed:,} of {websockets:,} WebSockets"
