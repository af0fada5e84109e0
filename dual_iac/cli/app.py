"""The application, its global options, and what commands share."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from dual_iac import __version__
from dual_iac.errors import DualError, UsageError

if TYPE_CHECKING:
    from dual_iac.engine.docker import DockerEngine
    from dual_iac.model import Project, Workspace
    from dual_iac.setups import SetupFolder
    from dual_iac.state import Desired, DesiredClone, Observed, OnProgress


class Format(StrEnum):
    TEXT = "text"
    JSON = "json"


@dataclass
class Globals:
    """The options before the command."""

    file: Path | None = None
    context: str | None = None
    format: Format = Format.TEXT
    on_stop: Callable[[], None] = lambda: None
    """Called at the first signal that asks dual to end, while that takes a moment."""

    @property
    def json(self) -> bool:
        return self.format is Format.JSON


current = Globals()
"""The options of this run. Set once, by the callback below, before any command runs."""

_ORDER = (
    *("init", "validate", "schema", "render"),
    *("plan", "apply", "destroy"),
    *("status", "exec", "shell", "run", "cp", "activate", "deactivate"),
    *("logs", "start", "stop", "restart", "url", "open"),
    *("doctor", "trust", "untrust", "hash"),
)


class _InOrder(TyperGroup):
    """Lists commands as one comes to need them, whatever order their modules load in."""

    def list_commands(self, ctx: Any) -> list[str]:
        known = super().list_commands(ctx)
        return sorted(known, key=_ORDER.index)


app = typer.Typer(
    cls=_InOrder,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Parallel development workspaces as code.

    dual.yaml declares workspaces, one per branch, task or agent. `dual apply` makes this
    machine match it: each is a container with port 3000 to itself, and answers at
    http://<workspace>.localhost:3000 through one Traefik.

    Start with `dual init`, then `dual apply`.""",
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"dual {__version__}")
        raise typer.Exit


@app.callback()
def options(
    file: Annotated[
        Path | None,
        typer.Option("-f", "--file", help="The dual.yaml. Default: here, or nearest parent."),
    ] = None,
    context: Annotated[
        str | None, typer.Option("--context", help="The Docker context to run on.")
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.TEXT,
    version: Annotated[  # noqa: ARG001 - typer runs it through the callback
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    current.file, current.context = file, context
    if format_ is Format.JSON:  # a text may be the default, and JSON asked for further on
        current.format = format_


FormatOption = Annotated[
    Format | None, typer.Option("--format", help="text or json; also before the command.")
]
"""For commands that print data, where people expect the option after the command, too."""


def complete_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """For the shell: the workspaces whose names begin like that; none if dual.yaml is broken."""
    options_given = ctx.find_root().params
    current.file = options_given.get("file")
    try:
        names = here().load().workspaces
    except DualError:
        return []
    return [name for name in names if name.startswith(incomplete)]


Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME",
        help="Workspaces. Default: all.",
        show_default=False,
        autocompletion=complete_names,
    ),
]
Name = Annotated[
    str, typer.Argument(metavar="NAME", show_default=False, autocompletion=complete_names)
]
Yes = Annotated[bool, typer.Option("-y", "--yes", help="Don't ask.")]


def set_format(chosen: Format | None) -> None:
    if chosen is not None:
        current.format = chosen


def duration(text: str) -> timedelta:
    from dual_iac.model import parse_duration

    try:
        return parse_duration(text)
    except ValueError:
        raise typer.BadParameter("write a duration like 30s or 1m30s") from None


@dataclass(frozen=True)
class Place:
    """Where a dual.yaml stands, what it renders to, and the engine it runs on."""

    spec: Path

    @property
    def folder(self) -> Path:
        return self.spec.parent

    @property
    def output(self) -> Path:
        from dual_iac.output import OUTPUT_FOLDER

        return self.folder / OUTPUT_FOLDER

    @cached_property
    def rendered(self) -> Mapping[str, Any]:
        """What the last render left: the record of the subnets given."""
        from dual_iac.output import COMPOSE_FILE, read_rendered

        try:
            return read_rendered((self.output / COMPOSE_FILE).read_text("utf-8"))
        except (OSError, UnicodeDecodeError):
            return {}

    def load(self, *, check_host: bool = False, targets: Collection[str] = ()) -> Project:
        from dual_iac.spec import load_project

        return load_project(self.spec, check_host=check_host, targets=targets)

    def source(self, project: Project, workspace: Workspace) -> str:
        """The folder of this machine that is mounted in a workspace; empty if there is none."""
        from dual_iac.interpolation import substitute
        from dual_iac.spec import environment

        path = project.source_of(workspace)
        if path is None:
            return ""
        path = substitute(path, environment(self.folder))
        return str(self.folder / Path(path).expanduser())

    def clone(self, wanted: DesiredClone, progress: OnProgress) -> None:
        """Make a workspace's clone."""
        from dual_iac.clones import Clone, make
        from dual_iac.interpolation import substitute
        from dual_iac.spec import environment

        url = substitute(wanted.git, environment(self.folder))
        if url.split("/")[0] in (".", ".."):  # as git has it for submodules
            url = os.path.normpath(self.folder / url)
        clone = Clone(wanted.name, Path(wanted.path), url, wanted.git, wanted.branch)
        made_from = make(clone, self.folder, partial(progress, wanted.name))
        progress(wanted.name, f"cloned from {made_from}")

    def render(
        self, project: Project, output: Path | None = None, *, contents: bool = False
    ) -> Desired:
        from dual_iac.output import subnets_of
        from dual_iac.render import render
        from dual_iac.spec import environment

        return render(
            project,
            self.folder,
            output=output or self.output,
            given_subnets=subnets_of(self.rendered, project.name),
            environment=environment(self.folder),
            contents=self.contents(project) if contents else None,
        )

    def contents(self, project: Project) -> dict[str, str]:
        """The hashes of what images are built from, by the images' names."""
        builds = {each.image: each.build for each in project.enabled if each.build}
        if not builds:
            return {}
        from dual_iac.builds import content_hash

        return {image: content_hash(build, self.folder) for image, build in builds.items()}

    def render_and_observe(
        self, project: Project, engine: DockerEngine
    ) -> tuple[Desired, Observed]:
        """What should be, and what is. Side by side: the one computes, the other waits."""
        from dual_iac.certificates import chains, flaws
        from dual_iac.engine.proxy import serves
        from dual_iac.state import PROXY

        with ThreadPoolExecutor(1) as pool:
            observing = pool.submit(engine.observe, routes=True)
            desired = self.render(project, contents=True)
            desired = replace(desired, setups=self.setups(project))
            observed = observing.result()
        found = flaws(self.folder, desired.certificates) if desired.certificates else {}
        proxy = observed.containers.get(PROXY)
        if proxy and proxy.running and desired.certificates:
            sound = {n: each for n, each in desired.certificates.items() if n not in found}
            certificates = chains(self.folder, sound)
            observed = replace(observed, serves_certificates=serves(observed, certificates))
        there = {a for a, clone in desired.clones.items() if Path(clone.path).is_dir()}
        looked = {address: self.setup_folder(address).look() for address in desired.setups}
        observed = replace(
            observed,
            clones=frozenset(there),
            flaws=found,
            setups={address: each for address, each in looked.items() if each},
        )
        return desired, engine.with_images(observed, desired.images)

    def setups(self, project: Project) -> dict[str, str]:
        """The hashes of what the setups of workspaces are for, by address."""
        from dual_iac.state import workspace_address

        hashes = {}
        for workspace in project.enabled:
            if workspace.setup and (hash_ := self._setup_hash(project, workspace)):
                hashes[workspace_address(workspace.name)] = hash_
        return hashes

    def _setup_hash(self, project: Project, workspace: Workspace) -> str:
        """What the setup of a workspace is for; empty where its source isn't there yet."""
        from dual_iac.interpolation import substitute
        from dual_iac.setups import setup_hash
        from dual_iac.spec import environment

        source = self.source(project, workspace)
        if source and not Path(source).is_dir():
            return ""
        text = substitute(workspace.setup or "", environment(self.folder))
        return setup_hash(text, Path(source) if source else None)

    def setup_folder(self, workspace: str) -> SetupFolder:
        """Where the setup of a workspace tells how it goes; by name, or address."""
        from dual_iac.setups import SetupFolder

        return SetupFolder.of(self.folder, workspace.rpartition(".")[2])

    def ask_setup(self, project: Project, address: str, image: str) -> None:
        """Before a workspace starts in the image with this id."""
        from dual_iac.state import workspace_of

        workspace = project.workspaces[workspace_of(address)]
        self.setup_folder(address).ask(self._setup_hash(project, workspace), image)

    def settle_setups(self, project: Project, names: Collection[str]) -> None:
        """What has just been set up may have changed its own lock files."""
        for workspace in project.enabled:
            if workspace.setup and workspace.name in names:
                hash_ = self._setup_hash(project, workspace)
                self.setup_folder(workspace.name).settle(hash_)

    def engine(self, project: Project) -> DockerEngine:
        from dual_iac.engine.docker import DockerEngine
        from dual_iac.spec import environment

        if user := environment(self.folder).get("DUAL_USER"):
            os.environ["DUAL_USER"] = user  # for Compose, which reads the same references
        return DockerEngine(project.name, self.output, current.context)


def here() -> Place:
    """The place that the global options name, or the working directory is in."""
    from dual_iac.spec import find_spec

    spec = current.file or find_spec(Path.cwd())
    if spec.is_dir():
        spec = spec / "dual.yaml"
    return Place(spec.absolute())


def chosen(project: Project, names: Sequence[str] | None) -> list[Workspace]:
    """The workspaces of those names, or all. Raises :class:`UsageError` for an unknown one."""
    for name in names or ():
        if name not in project.workspaces:
            raise unknown_name(name, project.workspaces)
    return [w for w in project.workspaces.values() if not names or w.name in names]


def known_services(project: Project) -> list[str]:
    """Workspaces, their companions, and the proxy: what has logs, and can be started."""
    from dual_iac.model import PROXY_SERVICE, companion_service

    names = [PROXY_SERVICE, *project.workspaces]
    for workspace in project.workspaces.values():
        names += [companion_service(workspace.name, each) for each in workspace.services]
    return names


def unknown_name(name: str, known: Iterable[str]) -> DualError:
    names = list(known)
    nearest = difflib.get_close_matches(name, names, 1)
    return UsageError(
        f"No workspace {name!r} in dual.yaml",
        why=f"there are {', '.join(names[:20])}{' …' if len(names) > 20 else ''}" if names else "",
        mend=f"did you mean {nearest[0]}?" if nearest else "",
    )


def confirm(question: str, *, yes: bool, command: str) -> bool:
    """Ask on the terminal. Raises :class:`UsageError` where there is none to ask on."""
    if yes:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            f"{command} asks before it changes anything, and there is no terminal to ask on",
            mend=f"say yes beforehand: {command} -y",
        )
    return typer.confirm(question, err=True)
