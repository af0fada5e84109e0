"""From nothing to 50 workspaces, and back to nothing."""

from __future__ import annotations

from bench.measure import Settings, Times
from bench.project import TINY, bench_project, numbered
from bench.report import Row, ratio


def rows(settings: Settings) -> list[Row]:
    count = settings.size(50)
    cold, destroy = Times(), Times()
    with bench_project("lifecycle") as project:
        project.declare_all(TINY, numbered(count))
        for _ in range(settings.rounds):
            cold.take("dual", project.timed_dual("apply", "-y"))
            destroy.take("dual", project.timed_dual("destroy", "-y"))
            cold.take("beside", project.timed_compose("up", "-d"))
            destroy.take("beside", project.timed_compose("down"))
    return [
        ratio(f"Cold apply, {count} workspaces", cold, "docker compose up -d", 1.05, 0.8),
        ratio(f"Destroy {count}", destroy, "docker compose down", 1.0, 0.5),
    ]
