"""Hands this process over to a command inside a container."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

SCRIPT = os.path.join(os.path.dirname(__file__), "run.sh")
WORKSPACE_FOLDER = "/workspace"


def execute(
    container: str,
    words: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    workdir: str = "",
    user: str = "",
    timeout: float | None = None,
    tty: bool = True,
    context: str | None = None,
    retry: str = "",
) -> NoReturn:
    """Become a command in a container: its exit code is this process's, and so are its streams.

    ``tty`` gives it a terminal if stdin and stdout are one; ``timeout`` is in seconds. ``retry``
    is a command line of a shell, for where the container doesn't run.
    """
    options = [f"--env={name}={value}" for name, value in (env or {}).items()]
    options += [f"--workdir={workdir}"] if workdir else []
    options += [f"--user={user}"] if user else []
    seconds = "" if timeout is None else f"{timeout:g}"
    fixed = [container, user, workdir, seconds, "" if tty else "no", words[0]]
    variables = {**os.environ, "DUAL_RETRY": retry}
    if context:
        variables["DOCKER_CONTEXT"] = context
        variables.pop("DOCKER_HOST", None)  # it would come first
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os.execve("/bin/sh", ["sh", SCRIPT, *fixed, *options, container, *words], variables)


def place_inside(source: str, folder: str) -> str:
    """Where a folder of this machine is in a workspace; empty if it isn't below its source.

    ``source`` is the folder that is mounted at /workspace, or empty.
    """
    if not source:
        return ""
    top, here = os.path.realpath(source), os.path.realpath(folder)
    if here == top:
        return WORKSPACE_FOLDER
    below = here.removeprefix(top.rstrip("/") + "/")
    return f"{WORKSPACE_FOLDER}/{below}" if below != here else ""
