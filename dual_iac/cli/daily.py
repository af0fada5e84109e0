"""Daily work: status, exec, shell, logs, start, stop, restart, url, open."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from dual_iac.cli.app import (
    FormatOption,
    Name,
    Names,
    Place,
    app,
    chosen,
    current,
    duration,
    here,
    set_format,
    unknown_name,
)
from dual_iac.errors import DualError, UsageError

if TYPE_CHECKING:
    from dual_iac.engine.docker import DockerEngine
    from dual_iac.model import Project, Workspace
    from dual_iac.state import ObservedContainer
    from dual_iac.view.status import WorkspaceStatus

_WATCH_SECONDS = 2.0

Requires = Annotated[list[str], typer.Argument(metavar="NAME", show_default=False)]


@app.command()
def status(
    names: Names = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep showing it.")] = False,
    stats: Annotated[
        bool, typer.Option(help="CPU and memory, which Docker takes two seconds to measure.")
    ] = True,
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

    def look() -> list[WorkspaceStatus]:
        return _status(engine, project, workspaces)

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


def _status(
    engine: DockerEngine, project: Project, workspaces: Sequence[Workspace]
) -> list[WorkspaceStatus]:
    from dual_iac.verify.ready import answers
    from dual_iac.view.status import WorkspaceStatus

    observed = engine.observe()
    containers = {w.name: observed.workspace(w.name) for w in workspaces}
    running = [w for w in workspaces if (found := containers[w.name]) and found.running]
    answer = answers(project, running)
    rows = []
    for workspace in workspaces:
        found = containers[workspace.name]
        health = None
        if workspace.name in answer:
            health = (
                "ready"
                if answer[workspace.name].is_from(workspace.name, project.name)
                else "not ready"
            )
            if found and found.health == "unhealthy":
                health = "unhealthy"
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
            )
        )
    return rows


def _with_usage(engine: DockerEngine, rows: list[WorkspaceStatus]) -> list[WorkspaceStatus]:
    usage = engine.usage([row.container for row in rows if row.container and row.is_running])
    return [
        replace(row, cpu_percent=used.cpu, memory_bytes=used.memory)
        if (used := usage.get(row.container or ""))
        else row
        for row in rows
    ]


@app.command(name="exec", context_settings={"allow_interspersed_args": False})
def execute(
    name: Name,
    command: Annotated[list[str], typer.Argument(metavar="CMD", show_default=False)],
    env: Annotated[
        list[str] | None, typer.Option("-e", "--env", metavar="K=V", help="Set a variable.")
    ] = None,
    workdir: Annotated[
        str | None,
        typer.Option(
            *("-w", "--workdir"),
            metavar="DIR",
            help="Start there. Default: where you are, if that is in the workspace's source.",
        ),
    ] = None,
    user: Annotated[str | None, typer.Option("-u", "--user", help="Run as that user.")] = None,
    no_tty: Annotated[bool, typer.Option("-T", "--no-tty", help="Give it no terminal.")] = False,
    timeout: Annotated[
        timedelta | None,
        typer.Option(
            parser=duration, metavar="DURATION", help="End it after that long, and exit with 124."
        ),
    ] = None,
) -> None:
    """Run a command in a workspace, as if it ran right here.

    Exit code, streams, signals and terminal are the command's own. What ends dual exec ends the
    command, too, and all that it started. Example: dual exec main -- npm test
    """
    words = command[1:] if command[:1] == ["--"] else command
    if not words:
        raise UsageError("No command to run", mend=f"dual exec {name} -- npm test, say")
    _become(
        name,
        words,
        env=dict(_variable(each) for each in env or ()),
        workdir=workdir,
        user=user,
        timeout=timeout,
        tty=not no_tty,
    )


def _become(
    name: str,
    words: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    workdir: str | None = None,
    user: str | None = None,
    timeout: timedelta | None = None,
    tty: bool = True,
) -> NoReturn:
    """Become a command in a workspace that runs."""
    from dual_iac.inside.command import execute, place_inside
    from dual_iac.inside.record import remember
    from dual_iac.interpolation import has_references

    place, workspace, container = _running(name)
    source = place.source(workspace)
    if not (workspace.source and has_references(workspace.source.path or "")):
        remember(str(place.spec), name, container.name, source)
    execute(
        container.name,
        words,
        env=env,
        workdir=place_inside(source, str(Path.cwd())) if workdir is None else workdir,
        user=user or "",
        timeout=timeout.total_seconds() if timeout else None,
        tty=tty,
        context=current.context,
    )


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"{text!r} is not a variable", mend="write it like -e NODE_ENV=test")
    return name, value


@app.command()
def shell(
    name: Name,
    user: Annotated[str | None, typer.Option("-u", "--user", help="Be that user.")] = None,
) -> None:
    """Open a shell in a workspace.

    It is bash where there is one, else sh.
    """
    best = "command -v bash >/dev/null 2>&1 && exec bash; exec sh"
    _become(name, ["sh", "-c", best], user=user)


def _running(name: str) -> tuple[Place, Workspace, ObservedContainer]:
    """A workspace, and its container, which runs."""
    from dual_iac.engine.observe import DockerCommand, observe_workspace

    place = here()
    project = place.load()
    chosen(project, [name])
    found = observe_workspace(DockerCommand(current.context), project.name, name)
    if found is None or not found.running:
        raise DualError(
            f"Workspace {name} does not run",
            why=f"its container is {found.state}" if found else "it has no container",
            mend=_mend(project, name, found),
        )
    return place, project.workspaces[name], found


def _mend(project: Project, name: str, found: ObservedContainer | None) -> str:
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

    The proxy goes by the name traefik.
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
    """Names of workspaces, or the proxy's."""
    from dual_iac.model import PROXY_SERVICE

    for name in names:
        if name not in project.workspaces and name != PROXY_SERVICE:
            raise unknown_name(name, project.workspaces)
    return list(names)


@app.command()
def start(names: Requires) -> None:
    """Start workspaces, and wait until they answer."""
    _lifecycle("start", names)


@app.command()
def stop(names: Requires) -> None:
    """Stop workspaces; they keep their containers."""
    _lifecycle("stop", names)


@app.command()
def restart(names: Requires) -> None:
    """Restart workspaces, and wait until they answer.

    Their neighbours are left alone.
    """
    _lifecycle("restart", names)


def _lifecycle(action: Literal["start", "stop", "restart"], names: Sequence[str]) -> None:
    from dual_iac.verify.ready import wait_until_ready
    from dual_iac.view import console
    from dual_iac.view.progress import Progress
    from dual_iac.view.ready import not_ready_text

    place = here()
    project = place.load()
    services = _services(project, names)
    engine = place.engine(project)
    progress = Progress()
    with engine.lock():
        found = {each.service: each.id for each in engine.observe().containers.values()}
        if missing := [name for name in services if name not in found]:
            mend = _mend(project, missing[0], None)
            raise DualError(f"No container to {action}: {', '.join(missing)}", mend=mend)
        with progress:
            for name in services:
                progress(name, f"{action}{'p' if action == 'stop' else ''}ing")
            engine.lifecycle(action, [found[name] for name in services])
    workspaces = [project.workspaces[name] for name in services if name in project.workspaces]
    with progress:
        waiting = [] if action == "stop" else workspaces
        failed = wait_until_ready(project, waiting, engine, progress)
    for problem in failed:
        console(stderr=True).print(not_ready_text(problem))
    if failed:
        raise typer.Exit(1)


@app.command()
def url(
    name: Annotated[str | None, typer.Argument(metavar="NAME", show_default=False)] = None,
    format_: FormatOption = None,
) -> None:
    """Print the URL of a workspace, or of all."""
    from dual_iac.view import console, print_json
    from dual_iac.view.ready import urls_text

    set_format(format_)
    project = here().load()
    workspaces = chosen(project, [name]) if name else project.enabled
    if current.json:
        print_json({workspace.name: project.url(workspace) for workspace in workspaces})
    elif name:
        print(project.url(workspaces[0]))
    else:
        console().print(urls_text(project, workspaces))


@app.command(name="open")
def open_(name: Name) -> None:
    """Open a workspace in the browser."""
    import webbrowser

    project = here().load()
    address = project.url(chosen(project, [name])[0])
    print(address)
    if not webbrowser.open(address):
        raise DualError("No browser could be opened", mend=f"open {address} yourself")
