"""Projects to measure with: made, and taken away whatever happens."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bench.measure import seconds
from tests.engine import echo_server
from tests.engine.conftest import DUAL, LAB_IMAGE, LiveProject, docker, wait_for

PREFIX = "dual-bench-"
POOL = "10.96.0.0/16"
WORK = Path(__file__).parent / ".work"
"""Where the projects stand. Not in the system's folder for temporary files: that may be slow, or
small, and an engine in a virtual machine may not see it."""

Workspaces = Mapping[str, Mapping[str, Any]]

TINY = {"image": "busybox:1.35", "command": "httpd -f -p 3000 -h /"}
"""The least that answers on port 3000: what is measured is the work around it."""

ECHO = {
    "image": LAB_IMAGE,
    "source": {"path": "."},
    "command": f"python3 {Path(echo_server.__file__).name}",
}
"""What a steady load asks."""


def numbered(count: int) -> dict[str, dict[str, Any]]:
    """This many workspaces, all alike."""
    return {f"w{number:05}": {} for number in range(count)}


class BenchProject(LiveProject):
    def declare_all(self, defaults: Mapping[str, Any], workspaces: Workspaces) -> None:
        self.write(f"defaults: {json.dumps(defaults)}\nworkspaces: {json.dumps(workspaces)}\n")

    def timed_dual(self, *arguments: str) -> float:
        return seconds(*DUAL, *arguments, cwd=self.folder)

    def timed_compose(self, *arguments: str) -> float:
        """On what ``dual render`` made of dual.yaml."""
        command = ("docker", "compose", "-f", "compose/compose.yaml")
        return seconds(*command, *arguments, cwd=self.folder)

    def remove(self) -> None:
        wait_for(f"{self.name} is gone", self._is_gone, seconds=120)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _is_gone(self) -> bool:
        # An engine that was told to start or remove something may still be at it.
        with suppress(AssertionError):
            super().remove()
        return not any(self.leftovers().values())


@contextmanager
def bench_project(kind: str, pool: str = POOL) -> Iterator[BenchProject]:
    folder = WORK / kind
    folder.mkdir(parents=True)
    project = BenchProject(folder, name=f"{PREFIX}{kind}", pool=pool)
    try:
        yield project
    finally:
        project.remove()


def remove_leftovers() -> None:
    """Take away what a bench left that was killed."""
    label = "com.docker.compose.project"
    listing = ("--filter", f"label={label}", "--format", f'{{{{.Label "{label}"}}}}')
    found = {*docker("ps", "-a", *listing).split(), *docker("network", "ls", *listing).split()}
    for name in sorted(name for name in found if name.startswith(PREFIX)):
        BenchProject(WORK / name.removeprefix(PREFIX), name=name).remove()
    shutil.rmtree(WORK, ignore_errors=True)
