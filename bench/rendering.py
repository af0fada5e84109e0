"""From dual.yaml to files: 1,000 and 10,000 workspaces. No engine is asked."""

from __future__ import annotations

import time
from contextlib import suppress

from bench.measure import Settings, Times
from bench.project import TINY, BenchProject, bench_project, numbered
from bench.report import Row, ratio

POOL = "10.96.0.0/12"  # 10,000 networks don't fit into a /16


def rows(settings: Settings) -> list[Row]:
    small, large = settings.size(1_000), settings.size(10_000)
    fresh, again = Times(), Times()
    grown, grown_again = Times(), Times()  # the smaller size stands beside the larger one
    with bench_project("rendering", POOL) as project:
        for _ in range(settings.rounds):
            first, second = _render(project, small)
            fresh.take("dual", first)
            again.take("dual", second)
            config = project.timed_compose("config", "-q")
            fresh.take("beside", config)
            again.beside.append(config)
            grown.beside.append(first)
            grown_again.beside.append(second)
            first, second = _render(project, large)
            grown.take("dual", first)
            grown_again.take("dual", second)
    config_q, render = "docker compose config -q", f"dual render, {small:,}"
    return [
        ratio(f"Render and validate {small:,}, new files", fresh, config_q, 0.5, 0.2),
        ratio(f"Render and validate {small:,}, nothing new", again, config_q),
        ratio(f"Render {large:,}, new files", grown, render, 12, 10),
        ratio(f"Render {large:,}, nothing new", grown_again, render),
    ]


def _render(project: BenchProject, count: int) -> tuple[float, float]:
    """Seconds into an empty folder, and again into the same."""
    workspaces = numbered(count)
    for name, workspace in workspaces.items():
        workspace["env"] = {"NAME": name}
    project.declare_all(TINY, workspaces)
    with suppress(FileNotFoundError):
        # Moved, not deleted: where thousands of files were deleted a moment ago, ext4 takes a
        # hundred times longer to make new ones.
        (project.folder / "compose").rename(project.folder / f"before-{time.monotonic_ns()}")
    return project.timed_dual("render"), project.timed_dual("render")
