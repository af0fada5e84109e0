"""Neighbours under load, while workspaces around them come, change and go."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.engine import echo_server
from tests.engine.conftest import LAB_IMAGE, LiveProject, wait_for
from tests.engine.load import Load, steady_load

NEIGHBOURS = ("b", "m")
ENOUGH = 3  # questions for each neighbour in each way: an apply that saw fewer proves nothing


def declare(live: LiveProject, *workspaces: str) -> None:
    """Write dual.yaml with echo servers: the neighbours, and these lines for others."""
    shutil.copy(Path(echo_server.__file__), live.folder)
    lines = [f"  {name}: {{}}\n" for name in NEIGHBOURS] + [f"  {line}\n" for line in workspaces]
    live.write(
        f"defaults:\n  image: {LAB_IMAGE}\n  source: {{path: .}}\n"
        f"  command: python3 echo_server.py\nworkspaces:\n" + "".join(lines)
    )


def apply_under_load(live: LiveProject, load: Load, *kept: str) -> None:
    """Apply what is declared. Nobody of ``kept``, of the neighbours, and no request is harmed."""
    services = (*NEIGHBOURS, "traefik", *kept)
    before = {name: live.identity(name) for name in services}
    with load.watched() as toll:
        done = live.apply()
    touched = [name for name in services if live.identity(name) != before[name]]
    assert not touched, f"replaced or restarted: {', '.join(touched)}. {done}"
    assert toll.lost == 0, toll
    assert toll.websockets == len(NEIGHBOURS), toll
    assert toll.fewest >= ENOUGH, f"too little load to tell: {toll}"
    assert not toll.failures, toll


@pytest.mark.parametrize(
    "steps",
    [[["0"], ["a"], ["zz"]], [["0", "a", "zz"]]],
    ids=["one after the other", "all at once"],
)
def test_added_workspaces_disturb_nobody(live: LiveProject, steps: Sequence[list[str]]) -> None:
    """Names that sort before, between and after those that are there: Docker goes by names."""
    declare(live)
    live.apply()
    added: list[str] = []
    with steady_load(live.port, NEIGHBOURS) as load:
        for step in steps:
            earlier = tuple(added)
            added += step
            declare(live, *(f'"{name}": {{}}' for name in added))
            apply_under_load(live, load, *earlier)
            assert all(live.is_up(name) for name in added)
    assert live.plan()["changes"] == []


def test_changed_and_removed_workspaces_disturb_nobody(live: LiveProject) -> None:
    declare(live, "a: {}", "z: {}")
    live.apply()
    with steady_load(live.port, NEIGHBOURS) as load:
        changed = live.container("a")
        declare(live, "a: {env: {GREETING: changed}}", "z: {}")
        apply_under_load(live, load, "z")
        assert live.container("a") != changed
        assert live.body("a.localhost") == "a changed"

        declare(live, "a: {env: {GREETING: changed}, hosts: [other.localhost]}", "z: {}")
        apply_under_load(live, load, "a", "z")  # a route only: no container is touched
        wait_for(
            "the new host answers",
            lambda: live.ask("other.localhost").is_from("a", live.name),
        )

        declare(live, "z: {}")
        apply_under_load(live, load, "z")
        wait_for("the removed host is unknown", lambda: live.ask("a.localhost").is_unrouted)
    assert live.plan()["changes"] == []
