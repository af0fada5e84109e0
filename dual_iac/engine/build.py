"""Builds an image, with BuildKit where there is buildx, else with the classic builder."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from functools import lru_cache

from dual_iac.engine.observe import DockerCommand
from dual_iac.errors import DualError
from dual_iac.state import LABEL_BUILD, LABEL_PROJECT, DesiredBuild

_LINES = 15
# What builders say of their own doings, and what of it is worth showing.
_STEP = re.compile(r"^(Step \d+/\d+ : .*|#\d+ \[.*\d+/\d+\] .*)$")


def build(
    docker: DockerCommand, wanted: DesiredBuild, project: str, say: Callable[[str], None]
) -> None:
    """Build an image, under the tag of its content. Raises :class:`DualError`."""
    argv = [*docker.argv, "build", "--force-rm"]  # also the container of a step that failed
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
    if _has_buildx(docker.argv):
        argv = [*docker.argv, "buildx", "build", "--load", "--progress=plain"]
    argv += ["--file", wanted.dockerfile, "--tag", wanted.tag]
    argv += ["--label", f"{LABEL_BUILD}={wanted.content}", "--label", f"{LABEL_PROJECT}={project}"]
    argv += ["--target", wanted.target] if wanted.target else []
    for name, value in wanted.args.items():
        argv += ["--build-arg", f"{name}={value}"]
    last: list[str] = []
    with subprocess.Popen(
        [*argv, wanted.context],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        process_group=0,  # apart from the terminal, whose Ctrl-C is for dual
    ) as process:
        assert process.stdout is not None
        for line in map(str.rstrip, process.stdout):
            if _STEP.match(line):
                say(line)
            if line:
                last = [*last[-_LINES:], line]
    if process.returncode != 0:
        raise DualError(
            "The image can't be built",
            why="\n".join(last) or f"docker build ended with exit code {process.returncode}",
            mend=f"mend {wanted.dockerfile}, and run dual apply again",
        )


@lru_cache
def _has_buildx(argv: tuple[str, ...]) -> bool:
    done = subprocess.run([*argv, "buildx", "version"], capture_output=True, check=False)
    return done.returncode == 0
