"""Does a workspace answer through the proxy? And if not: why, and what would mend it."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from dual_iac.errors import DualError
from dual_iac.model import WORKSPACE_PORT, Project, Proxy, Workspace
from dual_iac.state import Observed, ObservedContainer

IDENTITY_HEADER = "X-Dual-Workspace"
LOG_LINES = 10

_POLL = 0.1  # seconds between questions to a workspace that doesn't answer yet
_LOOK = 1.0  # seconds between looks at the containers themselves
_GATEWAY_ERRORS = (502, 503, 504)
_CRASHES = 3  # restarts after which a command counts as one that can't start


@dataclass(frozen=True)
class Answer:
    """What came back through the proxy; ``status`` is 0 where nothing did."""

    status: int
    workspace: str | None
    error: str = ""

    def is_from(self, name: str) -> bool:
        """Whether the workspace itself answered: the proxy's own errors don't count."""
        return self.workspace == name and self.status not in (0, *_GATEWAY_ERRORS)


@dataclass(frozen=True)
class NotReady:
    workspace: str
    why: str
    mend: str
    log: tuple[str, ...] = ()


class Engine(Protocol):
    """What finding out needs of an engine."""

    def observe(self) -> Observed: ...
    def last_logs(self, container: str, lines: int) -> list[str]: ...
    def listeners(self, container: str) -> set[tuple[str, int]] | None: ...


def ask(proxy: Proxy, host: str, path: str = "/", timeout: float = 5.0) -> Answer:
    """GET ``path`` of ``host`` from the proxy, wherever the host name would lead."""
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(proxy.bind, proxy.bind)
    connection = http.client.HTTPConnection(address, proxy.http, timeout=timeout)
    try:
        connection.request(
            "GET", path, headers={"Host": f"{host}:{proxy.http}", "Connection": "close"}
        )
        response = connection.getresponse()
        return Answer(response.status, response.getheader(IDENTITY_HEADER))
    except (OSError, http.client.HTTPException) as error:
        return Answer(0, None, str(error) or type(error).__name__)
    finally:
        connection.close()


def answers(project: Project, workspaces: Iterable[Workspace]) -> dict[str, Answer]:
    """One question to each workspace, all at once."""
    asked = list(workspaces)
    with ThreadPoolExecutor(16) as pool:
        found = pool.map(
            lambda w: ask(project.proxy, w.host_names[0], w.ready.path, timeout=2.0), asked
        )
        return {workspace.name: answer for workspace, answer in zip(asked, found, strict=True)}


def wait_until_ready(
    project: Project,
    workspaces: Iterable[Workspace],
    engine: Engine,
    progress: Callable[[str, str], None],
    timeout: timedelta | None = None,
) -> list[NotReady]:
    """Ask until each workspace answers, ends, or runs out of its ``ready.timeout``.

    Returns those that don't answer, in the order of their names.
    """
    started = time.monotonic()
    pending: dict[str, Workspace] = {w.name: w for w in workspaces}
    failed: list[NotReady] = []
    looked = started
    while pending:
        found = answers(project, pending.values())
        for name, answer in found.items():
            if answer.is_from(name):
                progress(name, "ready")
                del pending[name]
        now = time.monotonic()
        late = {
            name
            for name, workspace in pending.items()
            if now - started >= (timeout or workspace.ready.timeout).total_seconds()
        }
        if pending and (late or now - looked >= _LOOK):
            looked = now
            for problem in _given_up(project, pending, found, late, engine):
                progress(problem.workspace, "failed")
                failed.append(problem)
                del pending[problem.workspace]
        for name in pending:
            progress(name, "waiting for an answer")
        if pending:
            time.sleep(_POLL)
    return sorted(failed, key=lambda problem: problem.workspace)


def _given_up(
    project: Project,
    pending: Mapping[str, Workspace],
    found: Mapping[str, Answer],
    late: set[str],
    engine: Engine,
) -> list[NotReady]:
    observed = engine.observe()
    problems = []
    for name in pending:
        container = observed.workspace(name)
        ended = container is None or (
            container.state in ("exited", "dead") or container.restarts >= _CRASHES
        )
        if ended or name in late:
            why, mend = _explained(project, name, container, found[name], engine)
            log: list[str] = []
            if container is not None:
                try:
                    log = engine.last_logs(container.id, LOG_LINES)
                except DualError:
                    log = []  # it went away meanwhile; the reason above still holds
            problems.append(NotReady(name, why, mend, tuple(log)))
    return problems


def _explained(
    project: Project, name: str, container: ObservedContainer | None, answer: Answer, engine: Engine
) -> tuple[str, str]:
    """Why a workspace doesn't answer, and what would mend it."""
    if container is None:
        return "it has no container", "run dual apply again"
    if container.restarts >= _CRASHES or container.state in ("exited", "dead"):
        again = f", {container.restarts + 1} times" if container.restarts else ""
        return (
            f"its command ended with exit code {container.exit_code}{again}",
            "mend the command: it must keep running, and listen on port 3000",
        )
    if answer.status == 0:
        where = f"{project.proxy.bind}:{project.proxy.http}"
        return (
            f"the proxy doesn't answer on {where}: {answer.error}",
            "see dual logs traefik",
        )
    listeners = engine.listeners(container.id)
    here = {address for address, port in listeners or () if port == WORKSPACE_PORT}
    if here and all(address.startswith("127.") or address == "::1" for address in here):
        return (
            f"it listens on port {WORKSPACE_PORT} of {' and '.join(sorted(here))} only, "
            "where the proxy can't reach it",
            "make the server listen on 0.0.0.0 (with Vite: --host; with Next.js: -H 0.0.0.0)",
        )
    if listeners is not None and not here:
        others = sorted({port for _, port in listeners})
        seen = f" (but on {', '.join(map(str, others))})" if others else ""
        return (
            f"nothing listens on port {WORKSPACE_PORT} in it{seen}",
            f"make the command listen on port {WORKSPACE_PORT}, or give it more time "
            "with ready.timeout",
        )
    if answer.workspace is None:
        return (
            f"the proxy has no route to it (status {answer.status})",
            "see dual logs traefik",
        )
    return (
        f"it answers with status {answer.status}",
        f"see dual logs {name}, or ask for another path with ready.path",
    )
