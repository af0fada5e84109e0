"""Does a workspace answer through the proxy? And if not: why, and what would mend it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Protocol

from dual_iac.engine.proxy import Answer, ask
from dual_iac.errors import DualError
from dual_iac.model import WORKSPACE_PORT, Project, Workspace, companion_service
from dual_iac.setups import BEGINS, FAILED, SUCCEEDED, SetupFolder, said_by
from dual_iac.state import (
    PROXY,
    Observed,
    OnProgress,
    Setup,
    companion_address,
    workspace_of,
)

LOG_LINES = 10

_POLL = 0.1  # seconds between questions to a workspace that doesn't answer yet
_PATIENCE = 5.0  # seconds that the last lines of a setup may take to come
_MANY = 200  # lines among which those of a setup are
_LOOK = 1.0  # seconds between looks at the containers themselves
_QUIET = 0.5  # seconds in which an answer is nothing to talk about
_CRASHES = 3  # restarts after which a command counts as one that can't start
_UNROUTED = 5.0  # seconds after which a proxy without the route won't get it any more
_GLANCE = 2.0  # seconds that a workspace has to answer when it is only looked at


@dataclass(frozen=True)
class NotReady:
    """A workspace that is not as it should be: ``what`` it does, and why."""

    workspace: str
    why: str
    mend: str
    log: tuple[str, ...] = ()
    what: str = "does not answer"
    answers: bool = False


class Lines(Protocol):
    """Lines as they are printed."""

    def __iter__(self) -> Iterator[str]: ...
    def close(self) -> None: ...


class Engine(Protocol):
    """What finding out needs of an engine."""

    def observe(self) -> Observed: ...
    def last_logs(self, container: str, lines: int) -> list[str]: ...
    def listeners(self, container: str) -> set[tuple[str, int]] | None: ...
    def follow(self, workspace: str) -> Lines | None: ...
    def stray_bridge(self, subnet: str) -> str | None: ...


def is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"


def answers(project: Project, workspaces: Iterable[Workspace], engine: Engine) -> dict[str, bool]:
    """Whether each workspace answers: one question to each, all at once."""

    def answer(workspace: Workspace) -> bool:
        said = ask(project.proxy, workspace.host_names[0], workspace.ready.path, timeout=_GLANCE)
        return said.is_from(workspace.name, project.name) and (
            workspace.auth is None or _listens(project, workspace.name, engine)
        )

    asked = list(workspaces)
    with ThreadPoolExecutor(16) as pool:
        return {w.name: is_up for w, is_up in zip(asked, pool.map(answer, asked), strict=True)}


class _Asking(threading.Thread):
    """Asks one workspace until it answers, or its time is up.

    A question may take all the time there is: a dev server compiles at the first one. While its
    setup runs, as ``folder`` tells, its time has not begun, unless a ``limit`` is set to all of it.
    """

    def __init__(
        self,
        project: Project,
        workspace: Workspace,
        limit: timedelta | None,
        folder: SetupFolder | None,
        listens: Callable[[], bool],
    ) -> None:
        super().__init__(daemon=True)
        self._listens = listens
        self._proxy = project.proxy
        self._project = project.name
        self._workspace = workspace
        self._is_limited = limit is not None
        self._timeout = (limit or workspace.ready.timeout).total_seconds()
        self._deadline = time.monotonic() + self._timeout
        self._folder = folder
        self.setup: Setup | None = None
        self._over = threading.Event()
        self.answer = Answer(0, None, "not asked yet")
        self.answered = 0.0  # when, on the monotonic clock
        self.ready = False

    def run(self) -> None:
        host, path = self._workspace.host_names[0], self._workspace.ready.path
        while not self._over.is_set():
            self.setup = self._folder.look() if self._folder else None
            if self.failed_setup or time.monotonic() >= self._deadline:
                return
            if self.is_setting_up:
                if not self._is_limited:
                    self._deadline = time.monotonic() + self._timeout
                self._over.wait(_POLL)
                continue
            left = self._deadline - time.monotonic()
            self.answer = ask(self._proxy, host, path, timeout=max(left, _LOOK))
            self.answered = time.monotonic()
            answers = self.answer.is_from(self._workspace.name, self._project)
            # With auth, it is the proxy that answers, and lets nobody through.
            self.ready = answers and (self._workspace.auth is None or self._listens())
            if self.ready or time.monotonic() >= self._deadline:
                return
            self._over.wait(_POLL)

    @property
    def is_setting_up(self) -> bool:
        return self.setup is not None and self.setup.state == "running"

    @property
    def failed_setup(self) -> Setup | None:
        return self.setup if self.setup and self.setup.state == "failed" else None

    def give_up(self) -> None:
        self._over.set()


class _Streaming(threading.Thread):
    """Tells what the setup of a workspace prints, as it does; ``word`` stands for its start."""

    def __init__(self, workspace: str, word: str, engine: Engine, output: OnProgress) -> None:
        super().__init__(daemon=True)
        self._workspace = workspace
        self._begins = f"{BEGINS} {word}"
        self._ends = (f"{SUCCEEDED} {word}", f"{FAILED} {word}:")
        self._engine = engine
        self._output = output
        self._lines: Lines | None = None
        self._closed = False

    def run(self) -> None:
        with suppress(DualError):  # the container went away: who waits for it will say so
            self._lines = self._engine.follow(self._workspace)
        if self._closed:  # meanwhile
            self.close()
        has_begun = False
        for line in self._lines or ():
            end = next((text for text in self._ends if text in line), None)
            said = line.partition(end)[0] if end else line  # its last line may have had no end
            if has_begun and (said or not end):
                self._output(self._workspace, said)
            has_begun = has_begun or line == self._begins
            if end:
                return

    def close(self) -> None:
        self._closed = True
        if self._lines:
            self._lines.close()


def wait_until_ready(
    project: Project,
    workspaces: Iterable[Workspace],
    engine: Engine,
    progress: OnProgress,
    timeout: timedelta | None = None,
    refused: Mapping[str, DualError] | None = None,
    setups: Callable[[str], SetupFolder] | None = None,
    begun: Collection[str] = (),
    output: OnProgress = lambda *_: None,
) -> list[NotReady]:
    """Ask until each workspace answers, ends, or runs out of its ``ready.timeout``.

    ``timeout`` instead is for all of it, setups included. ``refused`` is what the engine did not
    do, by address: there is nobody to ask. ``setups`` gives the folder where the setup of a
    workspace tells how it goes; ``output`` is called with each line that one prints, from the start
    on in workspaces that have ``begun`` just now. Returns those that don't answer, and those whose
    services don't stay up, in the order of their names.
    """
    broken: dict[str, NotReady] = {}
    for address, error in (refused or {}).items():
        name, companion = workspace_of(address), address.partition("/")[2]
        why = f"its service {companion}: {error.brief}" if companion else error.brief
        broken.setdefault(name, NotReady(name, why, error.mend, what="failed"))
    failed = [*broken.values()]
    workspaces = list(workspaces)
    asked = [workspace.name for workspace in workspaces]
    asking = {
        workspace.name: _Asking(
            project,
            workspace,
            timeout,
            setups(workspace.name) if setups and workspace.setup else None,
            partial(_listens, project, workspace.name, engine),
        )
        for workspace in workspaces
        if workspace.name not in broken
    }
    streams: dict[str, _Streaming] = {}

    def stream(name: str, setup: Setup | None) -> None:
        has_begun = setup is not None and (setup.state == "running" or name in begun)
        if setup and has_begun and setup.state != "asked" and name not in streams:
            streams[name] = _Streaming(name, setup.word, engine, output)
            streams[name].start()

    started = looked = time.monotonic()
    for each in asking.values():
        each.start()
    try:
        while asking:
            next(iter(asking.values())).join(_POLL)
            for name, each in asking.items():
                stream(name, each.setup)
            over = [name for name, each in asking.items() if each.ready or each.failed_setup]
            for name in streams.keys() & over:
                streams[name].join(_PATIENCE)  # it has yet to tell the last lines
            for name in [name for name in over if asking[name].ready]:
                progress(name, "ready")
                del asking[name]
            now = time.monotonic()
            late = {
                name
                for name, each in asking.items()
                if (not each.is_alive() and not each.ready)
                or (each.answer.is_unrouted and each.answered - started > _UNROUTED)
            }
            if asking and (late or now - looked >= _LOOK):
                looked = now
                for problem in _given_up(project, asking, late, engine):
                    progress(problem.workspace, "failed")
                    failed.append(problem)
                    asking.pop(problem.workspace).give_up()
            for name, each in asking.items() if now - started > _QUIET else ():
                progress(name, "setting up" if each.is_setting_up else "waiting for an answer")
    finally:
        for streaming in streams.values():
            streaming.close()
    failed += _without_services(project, set(asked) - {each.workspace for each in failed}, engine)
    return sorted(failed, key=lambda problem: problem.workspace)


def _listens(project: Project, name: str, engine: Engine) -> bool:
    """Whether a workspace listens where the proxy can reach it, as far as that can be told."""
    listeners = engine.listeners(f"{project.name}-{name}-1")
    return listeners is None or any(
        port == WORKSPACE_PORT and not is_loopback(address) for address, port in listeners
    )


def _without_services(project: Project, names: set[str], engine: Engine) -> list[NotReady]:
    """Those that answer, and whose services don't stay up: nobody else would tell."""
    named = [name for name in sorted(names) if project.workspaces[name].services]
    observed = engine.observe() if named else None
    problems = []
    for name in named:
        for companion in sorted(project.workspaces[name].services):
            found = observed and observed.containers.get(companion_address(name, companion))
            if not found or found.state in ("restarting", "exited", "dead"):
                why = f"exit code {found.exit_code}" if found else "it has no container"
                log = tuple(engine.last_logs(found.id, LOG_LINES)) if found else ()
                mend = f"mend it in dual.yaml; dual logs {companion_service(name, companion)}"
                what = f"answers, but its service {companion} does not stay up"
                problems.append(NotReady(name, why, mend, log, what, answers=True))
    return problems


def _given_up(
    project: Project,
    asking: Mapping[str, _Asking],
    late: set[str],
    engine: Engine,
) -> list[NotReady]:
    observed = engine.observe()
    proxy = observed.containers.get(PROXY)
    proxy_runs = proxy is not None and proxy.running
    problems = []
    for name, each in asking.items():
        container = observed.workspace(name)
        ended = (
            container is None
            or container.state in ("exited", "dead")
            or (container.state == "restarting" and container.restarts >= _CRASHES)
            or not proxy_runs
        )
        if ended or name in late:
            why, mend = _explained(project, name, observed, each.answer, engine)
            what = "does not answer"
            is_up = container is not None and container.is_up
            if each.failed_setup and is_up:
                what = "is not set up"
                why = f"its setup failed with exit code {each.failed_setup.exit_code}"
                mend = f"it is up, to look around in: dual shell {name}; dual apply tries again"
            elif each.is_setting_up and is_up:
                what, why = "is not set up", "its setup is still running"
                mend = "give it more time, with another --timeout or none; it goes on meanwhile"
            elif each.setup and each.setup.state == "asked" and not is_up:
                why += "; its setup has not even begun"
                mend += (
                    ". Before a command comes the setup, so an image's entrypoint must pass on to "
                    "what it is given"
                )
            elif not proxy_runs:
                why, mend = "the proxy doesn't run", "dual apply, or dual start traefik"
            log: list[str] = []
            if container is not None:
                try:
                    log = engine.last_logs(container.id, _MANY if each.setup else LOG_LINES)
                    log = (said_by(each.setup, log) if each.setup else log)[-LOG_LINES:]
                except DualError:
                    log = []  # it went away meanwhile; the reason above still holds
            problems.append(NotReady(name, why, mend, tuple(log), what))
    return problems


def _explained(
    project: Project, name: str, observed: Observed, answer: Answer, engine: Engine
) -> tuple[str, str]:
    """Why a workspace doesn't answer, and what would mend it."""
    container = observed.workspace(name)
    if container is None:
        return "it has no container", "run dual apply again"
    if container.state in ("exited", "dead", "restarting"):
        again = f", {container.restarts + 1} times" if container.restarts else ""
        return (
            f"its command ended with exit code {container.exit_code}{again}",
            "mend the command: it must keep running, and listen on port 3000",
        )
    if container.restarts >= _CRASHES:
        return (
            f"its command has ended {container.restarts} times",
            "mend the command: it must keep running, and listen on port 3000",
        )
    if answer.workspace and answer.project != project.name:
        return (
            f"the proxy of project {answer.project} has port {project.proxy.http}",
            "give this project a port of its own as proxy.http",
        )
    network = observed.networks.get(f"network.{name}")
    if network and (bridge := engine.stray_bridge(network.subnet)):
        return (
            f"the bridge {bridge} of this machine has its addresses, {network.subnet}, and "
            "belongs to no network: a Docker engine that was killed has left it",
            f"sudo ip link delete {bridge}",
        )
    if answer.error == "timed out":
        return (
            "it took the request, and gave no answer in time",
            "give it more time with ready.timeout, or ask for a quicker path with ready.path",
        )
    if answer.status == 0:
        where = f"{project.proxy.bind}:{project.proxy.http}"
        return (
            f"the proxy doesn't answer on {where}: {answer.error}",
            "see dual logs traefik",
        )
    listeners = engine.listeners(container.id)
    here = {address for address, port in listeners or () if port == WORKSPACE_PORT}
    if here and all(map(is_loopback, here)):
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
            "run dual apply again: it renews a proxy that no longer follows its files",
        )
    return (
        f"the proxy gets no answer from it (status {answer.status})",
        f"see dual logs {name}; it must listen on 0.0.0.0, not on IPv6 alone",
    )
