"""With 100 workspaces running: nothing to do, one more, and how much memory apply takes."""

from __future__ import annotations

from bench.measure import Settings, alternate, seconds
from bench.memory import Peaks
from bench.project import TINY, BenchProject, bench_project, numbered
from bench.report import Row, ratio
from tests.engine.conftest import DUAL

NEWCOMER = "m"  # its name sorts before the others: the proxy's networks change in the middle


def rows(settings: Settings) -> list[Row]:
    count = settings.size(100)
    with bench_project("running") as project:
        project.declare_all(TINY, numbered(count))
        peaks = Peaks()
        seconds(*DUAL, "apply", "-y", cwd=project.folder, sample=peaks.sample)
        # Compose's first `up` may recreate the proxy, whose networks it did not attach itself.
        project.timed_compose("up", "-d")
        nothing = alternate(
            2 * settings.rounds + 1,
            {
                # Fails where there is something to do, after all.
                "dual": lambda: project.timed_dual("plan", "--detailed-exitcode"),
                "beside": lambda: project.timed_compose("up", "-d"),
            },
        )
        add = alternate(
            settings.rounds,
            {
                "dual": lambda: _add(project, count, by_compose=False),
                "beside": lambda: _add(project, count, by_compose=True),
            },
        )
    up = "docker compose up -d"
    results = [
        ratio(f"Nothing to do, `dual plan` at {count} running", nothing, up, 2.5, 1.0),
        ratio(f"Add one workspace among {count}", add, up, 1.0, 0.3),
    ]
    if peaks.own:
        results.append(_memory(peaks, count))
    return results


def _memory(peaks: Peaks, count: int) -> Row:
    return Row(
        f"Peak memory of `dual apply`, cold, {count} workspaces",
        f"{peaks.own:.0f} MB",
        f"its largest child, `{peaks.child_name}`: {peaks.child:.0f} MB",
        peaks.own,
        f"{peaks.own:.0f} MB",
        150,
        80,
    )


def _add(project: BenchProject, count: int, *, by_compose: bool) -> float:
    """Seconds until one more runs; afterwards it is gone again."""
    project.declare_all(TINY, {**numbered(count), NEWCOMER: {}})
    if by_compose:
        project.timed_dual("render")
        took = project.timed_compose("up", "-d")
    else:
        took = project.timed_dual("apply", "-y")
    project.declare_all(TINY, numbered(count))
    project.timed_dual("apply", "-y")
    # So that the proxy is one that Compose made with these networks: it would take one that has
    # been made with the newcomer's, and was detached from it since, for up to date.
    project.timed_compose("up", "-d")
    return took
