"""Commands inside a workspace: exec, shell, cp, activate, deactivate."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from dual_iac.cli.app import (
    Name,
    Place,
    app,
    chosen,
    current,
    duration,
    here,
    known_services,
    unknown_name,
)
from dual_iac.cli.daily import how_to_run
from dual_iac.errors import DualError, UsageError
from dual_iac.inside.shims import Shell

if TYPE_CHECKING:
    from dual_iac.model import Project
    from dual_iac.state import ObservedContainer


Command = Annotated[list[str], typer.Argument(metavar="CMD", show_default=False)]
Env = Annotated[
    list[str] | None, typer.Option("-e", "--env", metavar="K=V", help="Set a variable.")
]
Workdir = Annotated[
    str | None,
    typer.Option(
        *("-w", "--workdir"),
        metavar="DIR",
        help="Start there. Default: where you are, if that is in the workspace's source.",
    ),
]
User = Annotated[str | None, typer.Option("-u", "--user", help="Run as that user.")]
NoTty = Annotated[bool, typer.Option("-T", "--no-tty", help="Give it no terminal.")]


@app.command(name="exec", context_settings={"allow_interspersed_args": False})
def execute(
    name: Name,
    command: Command,
    env: Env = None,
    workdir: Workdir = None,
    user: User = None,
    no_tty: NoTty = False,
    timeout: Annotated[
        timedelta | None,
        typer.Option(
            parser=duration, metavar="DURATION", help="End it after that long, and exit with 124."
        ),
    ] = None,
) -> None:
    """Run a command in a workspace, as if it ran right here; in its service db as NAME--db.

    Exit code, streams, signals and terminal are the command's own. What ends dual exec ends the
    command, too, and all that it started. Example: dual exec main -- npm test
    """
    _become(
        name,
        _words(command, f"dual exec {name}"),
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

    place, project, container = _running(name)
    workspace = project.workspaces.get(name)  # or a companion, which has no source
    source = place.source(project, workspace) if workspace else ""
    if not (workspace and has_references(project.source_of(workspace) or "")):
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


def _words(command: list[str], example: str) -> list[str]:
    words = command[1:] if command[:1] == ["--"] else command
    if not words:
        raise UsageError("No command to run", mend=f"{example} -- npm test, say")
    return words


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


# Its own address is the workspace's, which may be running: a one-off takes any other.
_ANY_ADDRESS = """\
services:
  {name}:
    networks: !override
      ws-{name}: {{}}
"""


@app.command(context_settings={"allow_interspersed_args": False})
def run(
    name: Name,
    command: Command,
    env: Env = None,
    workdir: Workdir = None,
    user: User = None,
    no_tty: NoTty = False,
) -> None:
    """Run a command in a container of its own, made like a workspace's, and remove it then.

    It has the image, the files, the volumes and the environment of the workspace, and its services
    on localhost, whether the workspace itself runs or not: to look around where it won't start,
    say. Nothing is set up before. Example: dual run main -- npm ci
    """
    from secrets import token_hex
    from tempfile import TemporaryDirectory

    from dual_iac.engine import foreground
    from dual_iac.engine.observe import observe_service
    from dual_iac.inside.command import place_inside
    from dual_iac.model import HOLDER, companion_service
    from dual_iac.output import COMPOSE_FILE

    words = _words(command, f"dual run {name}")
    place = here()
    project = place.load()
    [workspace] = chosen(project, [name])
    if name not in (place.rendered.get("services") or {}):
        mend = how_to_run(project, name, None)
        raise DualError(f"Workspace {name} is not in {place.output.name}/{COMPOSE_FILE}", mend=mend)
    engine = place.engine(project)
    if workspace.services:
        holder = observe_service(engine.command, project.name, companion_service(name, HOLDER))
        if not (holder and holder.running):
            raise DualError(
                f"The services of {name} do not run",
                why="the command would share their localhost",
                mend=how_to_run(project, name, holder),
            )
    options = [f"--env={key}={value}" for key, value in map(_variable, env or ())]
    if workdir is None:
        workdir = place_inside(place.source(project, workspace), str(Path.cwd()))
    options += [f"--workdir={workdir}"] if workdir else []
    options += [f"--user={user}"] if user else []
    options += ["--no-TTY"] if no_tty else []
    container = f"{project.name}-{name}-run-{token_hex(4)}"
    with TemporaryDirectory() as folder:
        files = [place.output / COMPOSE_FILE]
        if not workspace.services:
            files.append(Path(folder) / "any-address.yaml")
            files[-1].write_text(_ANY_ADDRESS.format(name=name), encoding="utf-8")
        argv = [
            *engine.command.argv,
            "compose",
            "--progress=quiet",
            f"--project-name={project.name}",
        ]
        argv += [f"--env-file={engine.variables}", *(f"--file={each}" for each in files)]
        argv += ["run", "--rm", "--no-deps", f"--name={container}", *options, name, *words]
        code = foreground.run(argv)
    if code >= 128:  # a signal: Compose may not have got as far as to remove it
        engine.command.run("rm", "--force", container, partial=True)
    raise typer.Exit(code)


def _running(name: str, *, stopped: bool = False) -> tuple[Place, Project, ObservedContainer]:
    """The project, and the container of a workspace, or of a companion (``main--db``).

    It runs, or may be ``stopped``.
    """
    from dual_iac.engine.observe import DockerCommand, observe_service
    from dual_iac.model import PROXY_SERVICE

    place = here()
    project = place.load()
    if name == PROXY_SERVICE or name not in known_services(project):
        raise unknown_name(name, project.workspaces)
    found = observe_service(DockerCommand(current.context), project.name, name)
    if found is None or not (found.running or stopped):
        raise DualError(
            f"{'Workspace' if name in project.workspaces else 'Service'} {name} does not run",
            why=f"its container is {found.state}" if found else "it has no container",
            mend=how_to_run(project, name, found),
        )
    return place, project, found


ShellOption = Annotated[
    Shell | None, typer.Option("--shell", help="For this shell. Default: the one that runs this.")
]


@app.command()
def activate(name: Name, shell: ShellOption = None) -> None:
    """Print shell code that makes npm, node, python … run in a workspace.

    Use it with: eval "$(dual activate NAME)". It puts a folder of shims first in PATH: npm, pnpm,
    yarn, bun, npx, node, python, pip, curl, make, and what commands: in dual.yaml adds, run in the
    workspace from then on, from scripts, too. Everything else stays on this machine. Undo it with:
    deactivate
    """
    from dual_iac.engine.observe import DockerCommand, observe_service
    from dual_iac.inside.record import state_folder
    from dual_iac.inside.shims import activation, write_shims

    place = here()
    project = place.load()
    [workspace] = chosen(project, [name])
    found = observe_service(DockerCommand(current.context), project.name, name)
    folder = Path(state_folder(str(place.spec))) / "shims" / name
    write_shims(
        folder,
        name=name,
        container=found.name if found else f"{project.name}-{name}-1",
        source=place.source(project, workspace),
        commands=workspace.commands,
        context=current.context,
    )
    print(activation(shell or _this_shell(), folder, name), end="")


@app.command()
def deactivate(shell: ShellOption = None) -> None:
    """Print shell code that undoes dual activate.

    Use it with: eval "$(dual deactivate)", or just: deactivate
    """
    from dual_iac.inside.shims import deactivation

    print(deactivation(shell or _this_shell()), end="")


def _this_shell() -> Shell:
    """The shell that runs dual."""
    import shellingham

    try:
        name, _ = shellingham.detect_shell()
    except shellingham.ShellDetectionFailure:
        name = Path(os.environ.get("SHELL", "sh")).name
    return next((shell for shell in Shell if shell == name), Shell.SH)


@app.command()
def cp(
    source: Annotated[str, typer.Argument(metavar="FROM", show_default=False)],
    target: Annotated[str, typer.Argument(metavar="TO", show_default=False)],
) -> None:
    """Copy files between this machine and a workspace: NAME:PATH is a place in one.

    - is a tar archive on stdin or stdout. Example: dual cp main:/tmp/report.html .
    """
    from dual_iac.engine import foreground
    from dual_iac.engine.observe import DockerCommand

    project = here().load()
    places = [_place(each, known_services(project)) for each in (source, target)]
    if not any(name for name, _ in places):
        mend = "write NAME:PATH for the one that is in a workspace"
        raise UsageError("Neither of the two is in a workspace", mend=mend)
    words = []
    for name, path in places:
        words.append(f"{_running(name, stopped=True)[2].name}:{path}" if name else path)
    argv = [*DockerCommand(current.context).argv, "cp", "--quiet", "--", *words]
    raise typer.Exit(foreground.run(argv))


def _place(text: str, workspaces: Sequence[str]) -> tuple[str, str]:
    """The workspace, if there is one, and the path: as docker cp tells the two apart."""
    name, colon, path = text.partition(":")
    if not colon or text.startswith(("/", ".")):
        return "", text
    if name not in workspaces:
        raise unknown_name(name, workspaces)
    return name, path
