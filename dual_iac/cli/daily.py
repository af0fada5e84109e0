"""Daily work: status, logs, start, stop, restart, url, open."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dual_iac.cli.app import (
    FormatOption,
    Name,
    Names,
    Place,
    app,
    chosen,
    complete_names,
    current,
    here,
    known_services,
    set_format,
    unknown_name,
)
from dual_iac.errors import DualError, UsageError

if TYPE_CHECKING:
    from dual_iac.engine.docker import DockerEngine
    from dual_iac.model import Project, Workspace
    from dual_iac.state import Observed, ObservedContainer
    from dual_iac.view.status import ServiceStatus, WorkspaceStatus

_WATCH_SECONDS = 2.0
_AT_ONCE = 8  # workspaces that are started or stopped

Https = Annotated[bool, typer.Option("--https", help="The one for HTTPS.")]
Requires = Annotated[
    list[str], typer.Argument(metavar="NAME", show_default=False, autocompletion=complete_names)
]


@app.command()
def status(
    names: Names = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep showing it.")] = False,
    stats: Annotated[
        bool, typer.Option(help="CPU and memory, which Docker takes two seconds to measure.")
    ] = True,
    volumes: Annotated[
        bool, typer.Option("--volumes", help="List the volumes instead, and whose they are.")
    ] = False,
    format_: FormatOption = None,
) -> None:
    """Show what each workspace does, and where it answers."""
    from dual_iac.view import console, print_json, print_table
    from dual_iac.view.status import status_data, status_table

    set_format(format_)
    place = here()
    project = place.load()
    workspaces = chosen(project, names)
    engine = place.engine(project)

    if volumes:
        _show_volumes(engine, project, names or ())
        return

    def look() -> list[WorkspaceStatus]:
        return _status(place, engine, project, workspaces)

    def measured(rows: list[WorkspaceStatus]) -> list[WorkspaceStatus]:
        return _with_usage(engine, rows) if stats else rows

    if current.json:
        print_json(status_data(project.name, measured(look())))
    elif sys.stdout is not None and sys.stdout.isatty():
        from rich.live import Live

        # The table is there at once, and CPU and memory come in when they are known.
        with Live(console=console(), auto_refresh=False) as live:
            rows = look()
            live.update(status_table(rows), refresh=True)
            live.update(status_table(measured(rows)), refresh=True)
            while watch:
                time.sleep(_WATCH_SECONDS)
                live.update(status_table(measured(look())), refresh=True)
    else:
        print_table(status_table(measured(look())))


def _show_volumes(engine: DockerEngine, project: Project, names: Sequence[str]) -> None:
    """Those of removed workspaces, too: they stay until somebody destroys them."""
    from dual_iac.view import print_json, print_table
    from dual_iac.view.status import Volume, volumes_data, volumes_table

    rows = []
    for volume, owner in engine.volumes().items():
        if not names or owner in names:
            workspace = project.workspaces.get(owner)
            part = volume.removeprefix(f"{project.name}_{owner}--")
            places = {}
            if workspace:
                places = workspace.own_volumes
                for companion in workspace.services:
                    places |= workspace.volumes_of(companion)
            rows.append(Volume(owner, volume, places.get(part)))
    if current.json:
        print_json(volumes_data(project.name, rows))
    else:
        print_table(volumes_table(rows))


def _status(
    place: Place, engine: DockerEngine, project: Project, workspaces: Sequence[Workspace]
) -> list[WorkspaceStatus]:
    from dual_iac.clones import state
    from dual_iac.verify.ready import answers
    from dual_iac.view.status import WorkspaceStatus

    folders = [place.source(project, workspace) for workspace in workspaces]
    pool = ThreadPoolExecutor(8)
    looking = [pool.submit(state, Path(each)) if each else None for each in folders]
    observed = engine.observe()
    containers = {w.name: observed.workspace(w.name) for w in workspaces}
    running = [w for w in workspaces if (found := containers[w.name]) and found.running]
    answer = answers(project, running, engine)
    rows = []
    for workspace, look in zip(workspaces, looking, strict=True):
        found = containers[workspace.name]
        git = look.result() if look else None
        health = None
        if workspace.name in answer:
            health = "ready" if answer[workspace.name] else "not ready"
            if found and found.health == "unhealthy":
                health = "unhealthy"
            setup = place.setup_folder(workspace.name).look() if workspace.setup else None
            if setup and setup.state in ("asked", "running"):
                health = "setting up"
            elif setup and setup.state == "failed":
                health = f"setup failed ({setup.exit_code})"
        rows.append(
            WorkspaceStatus(
                name=workspace.name,
                state=found.state if found else "missing" if workspace.enabled else "disabled",
                health=health,
                url=project.url(workspace),
                container=found.id if found else None,
                image=found.image if found else workspace.image,
                started_at=found.started_at if found else None,
                exit_code=found.exit_code if found else None,
                branch=git.branch if git else None,
                dirty=git.dirty if git else None,
                ahead=git.ahead if git else None,
                behind=git.behind if git else None,
                services=_services_status(workspace, observed),
            )
        )
    return rows


def _services_status(workspace: Workspace, observed: Observed) -> tuple[ServiceStatus, ...]:
    from dual_iac.state import companion_address
    from dual_iac.view.status import ServiceStatus

    rows = []
    for name, companion in sorted(workspace.services.items()):
        found = observed.containers.get(companion_address(workspace.name, name))
        missing = "missing" if workspace.enabled else "disabled"
        rows.append(
            ServiceStatus(
                name=name,
                state=found.state if found else missing,
                health=found.health if found and found.running else None,
                container=found.id if found else None,
                image=found.image if found else companion.image,
            )
        )
    return tuple(rows)


def _with_usage(engine: DockerEngine, rows: list[WorkspaceStatus]) -> list[WorkspaceStatus]:
    usage = engine.usage([row.container for row in rows if row.container and row.is_running])
    return [
        replace(row, cpu_percent=used.cpu, memory_bytes=used.memory)
        if (used := usage.get(row.container or ""))
        else row
        for row in rows
    ]


def how_to_run(project: Project, name: str, found: ObservedContainer | None) -> str:
    """How to get a workspace to run."""
    if name in project.workspaces and not project.workspaces[name].enabled:
        return f"it is declared, but not enabled: remove enabled: false of {name}, then dual apply"
    return f"dual start {name}" if found else "dual apply"


@app.command()
def logs(
    names: Names = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Keep printing.")] = False,
    tail: Annotated[int | None, typer.Option("-n", "--tail", help="Only the last lines.")] = None,
) -> None:
    """Show what workspaces printed.

    The companion db of main goes by the name main--db, and the proxy by traefik.
    """
    from dual_iac.engine import foreground
    from dual_iac.engine.observe import DockerCommand

    project = here().load()
    services = _services(project, names or ())
    docker = DockerCommand(current.context)
    docker.run("version", "--format", "{{.Server.Version}}")  # fails as any command does
    argv = [*docker.argv, "compose", "-p", project.name, "logs"]
    argv += ["--follow"] if follow else []
    argv += ["--tail", str(tail)] if tail is not None else []
    raise typer.Exit(foreground.run([*argv, *services]))


def _services(project: Project, names: Sequence[str]) -> list[str]:
    """Names of workspaces, of companions (``main--db``), or the proxy's."""
    known = set(known_services(project))
    for name in names:
        if name not in known:
            raise unknown_name(name, project.workspaces)
    return list(names)


@app.command()
def start(names: Requires) -> None:
    """Start workspaces with their companions, and wait until they answer."""
    _lifecycle("start", names)


@app.command()
def stop(names: Requires) -> None:
    """Stop workspaces with their companions; they keep their containers."""
    _lifecycle("stop", names)


@app.command()
def restart(names: Requires) -> None:
    """Restart workspaces, and wait until they answer.

    Their companions and their neighbours are left alone.
    """
    _lifecycle("restart", names)


def _lifecycle(action: Literal["start", "stop", "restart"], names: Sequence[str]) -> None:
    from dual_iac.apply import side_by_side, without_secrets
    from dual_iac.daily import parts_of, start, stop
    from dual_iac.state import workspace_address
    from dual_iac.verify.ready import wait_until_ready
    from dual_iac.view import console
    from dual_iac.view.progress import Progress
    from dual_iac.view.ready import not_ready_text

    place = here()
    project = place.load()
    services = _services(project, names)
    engine = place.engine(project)
    progress, given_up = Progress(), Event()
    with engine.lock(), progress:
        observed = engine.observe()
        parts = {name: parts_of(observed, name) for name in services}
        if missing := [name for name in services if not parts[name]]:
            mend = how_to_run(project, missing[0], None)
            raise DualError(f"No container to {action}: {', '.join(missing)}", mend=mend)
        ask = partial(place.ask_setup, project)
        again = services if action == "restart" else ()
        jobs: dict[str, Callable[[], None]] = {
            name: partial(stop, each, engine, progress)
            if action == "stop"
            else partial(start, each, engine, progress, ask, given_up, again=again)
            for name, each in parts.items()
        }
        failures = side_by_side(_AT_ONCE, jobs, given_up)
        failures = without_secrets(failures, observed.containers.values())
    workspaces = [project.workspaces[name] for name in services if name in project.workspaces]
    with progress:
        failed = wait_until_ready(
            *(project, [] if action == "stop" else workspaces, engine, progress),
            refused={workspace_address(name): error for name, error in failures.items()},
            setups=place.setup_folder,
            begun=services,
            output=progress.output,
        )
    place.settle_setups(project, services)
    for problem in failed:
        console(stderr=True).print(not_ready_text(problem))
    if failed:
        raise typer.Exit(1)


@app.command()
def url(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", show_default=False, autocompletion=complete_names),
    ] = None,
    https: Https = False,
    format_: FormatOption = None,
) -> None:
    """Print the URL of a workspace, or of all."""
    from dual_iac.view import console, print_json
    from dual_iac.view.ready import urls_text

    set_format(format_)
    project = here().load()
    workspaces = chosen(project, [name]) if name else project.enabled
    _check_https(project, https=https)
    if current.json:
        print_json({each.name: project.url(each, tls=https) for each in workspaces})
    elif name:
        print(project.url(workspaces[0], tls=https))
    else:
        console().print(urls_text(project, workspaces, tls=https))


def _check_https(project: Project, *, https: bool) -> None:
    if https and project.proxy.https is None:
        raise UsageError(
            "This project has no HTTPS", mend="declare it in dual.yaml: proxy: {https: 3443}"
        )


@app.command(name="open")
def open_(name: Name, https: Https = False) -> None:
    """Open a workspace in the browser."""
    import webbrowser

    project = here().load()
    _check_https(project, https=https)
    address = project.url(chosen(project, [name])[0], tls=https)
    print(address)
    if not webbrowser.open(address):
        raise DualError("No browser could be opened", mend=f"open {address} yourself")
