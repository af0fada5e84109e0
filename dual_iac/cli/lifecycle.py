"""What makes and unmakes a running project: plan, apply, destroy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dual_iac.cli.app import (
    FormatOption,
    Globals,
    Names,
    Yes,
    app,
    chosen,
    complete_names,
    confirm,
    current,
    duration,
    here,
    set_format,
    unknown_name,
)
from dual_iac.cli.project import DIFFERENCES
from dual_iac.errors import DualError, UsageError

if TYPE_CHECKING:
    from rich.text import Text

    from dual_iac.model import Project, Workspace
    from dual_iac.plan import Plan
    from dual_iac.state import Desired, Observed
    from dual_iac.verify.ready import NotReady
    from dual_iac.view.progress import Progress


_IN_PATHS = frozenset("./")  # and in no workspace's name

PlanArguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME|FILE",
        help="Workspaces (default: all), or a plan that plan --out saved.",
        show_default=False,
        autocompletion=complete_names,
    ),
]


@app.command()
def plan(
    arguments: PlanArguments = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Save it, for dual apply FILE.")
    ] = None,
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="Exit 2 if there is anything to do.")
    ] = False,
    format_: FormatOption = None,
) -> None:
    """Show what apply would do, and why. Changes nothing.

    With names, only for these workspaces. With a file, the plan that was saved there.
    """
    from dual_iac.plan import make_plan

    set_format(format_)
    if saved_in := plan_file(arguments):
        from dual_iac.saved import plan_of, read_plan

        if out:
            raise UsageError("A saved plan can't be saved again", mend="leave out --out, or FILE")
        planned, clash = plan_of(read_plan(saved_in)), None
    else:
        place = here()
        project = place.load(check_host=True, targets=arguments or ())
        if out and is_workspace(out, project):
            mend = f"give the file another name: {out}.plan, say"
            raise UsageError(f"{out} is the name of a workspace", mend=mend)
        desired, observed = place.render_and_observe(project, place.engine(project))
        planned = make_plan(desired, observed, targets(arguments, project, observed))
        clash = first_clash(planned, desired, observed)
        if out:
            from dual_iac.saved import save_plan

            save_plan(out, planned, desired, observed)
    show_plan(planned)
    if clash:
        raise clash
    if out:
        tell(f"Saved. Carry it out with: dual apply {out}")
    if detailed_exitcode and planned:
        raise typer.Exit(DIFFERENCES)


@app.command()
def apply(
    arguments: PlanArguments = None,
    yes: Yes = False,
    timeout: Annotated[
        timedelta | None,
        typer.Option(
            parser=duration,
            metavar="DURATION",
            help="For all of it, setups included; instead of every ready.timeout.",
        ),
    ] = None,
    format_: FormatOption = None,
) -> None:
    """Make this machine match dual.yaml.

    Shows the plan, asks, carries it out, and waits until every workspace answers. Who isn't
    in the plan is not touched. With names, only these workspaces; with a file, the plan that
    was saved there, and only if nothing has moved since.
    """
    from dual_iac import certificates
    from dual_iac.apply import apply_plan
    from dual_iac.clones import clear_unfinished
    from dual_iac.engine.proxy import wait_for_certificates, wait_for_routes
    from dual_iac.output import read_files, routes_written
    from dual_iac.plan import Action, make_plan
    from dual_iac.verify.ready import wait_until_ready

    set_format(format_)
    names: Sequence[str] = arguments or ()
    if saved_in := plan_file(arguments):
        from dual_iac.saved import check_current, read_plan

        saved = read_plan(saved_in)
        names = saved.targets
    place = here()
    project = place.load(check_host=True, targets=names)
    engine = place.engine(project)
    with engine.lock():
        desired, observed = place.render_and_observe(project, engine)
        planned = make_plan(desired, observed, targets(names, project, observed))
        if saved_in:
            check_current(saved_in, saved, planned, desired, observed)
        if planned and not approved(planned, yes=yes):
            raise declined()
        with show_progress() as progress:
            clear_unfinished(place.folder / project.clones)
            refused = apply_plan(
                *(planned, desired, observed, engine, place.output, progress),
                clone=place.clone,
                ask=partial(place.ask_setup, project),
                certify=partial(certificates.make, place.folder),
            )
            if not planned.left_out:  # whose routes may still name others
                certificates.keep_only(place.folder, desired.certificates)
    asked = [each for each in project.enabled if not names or each.name in names]
    follows = True
    with progress:
        if planned.addresses("route", *Action):
            wait_for_routes(project.proxy, routes_written(read_files(place.output)))
        if project.proxy.https and planned.addresses("certificate", *Action):
            made = certificates.chains(place.folder, desired.certificates)
            follows = wait_for_certificates(project.proxy.bind, project.proxy.https, made)
        failed = wait_until_ready(
            *(project, asked, engine, progress, timeout, refused),
            setups=place.setup_folder,
            begun=planned.addresses("workspace", *Action),
            output=progress.output,
        )
    place.settle_setups(project, planned.addresses("workspace", *Action))
    report(project, planned, asked, failed)
    if not follows:
        raise DualError(
            "The proxy does not serve its certificates",
            why="somebody took the folder that they were in away as it ran",
            mend="run dual apply again: it replaces the proxy",
        )


def plan_file(arguments: Sequence[str] | None) -> Path | None:
    """The saved plan that a command line names in place of workspaces; None if it names none.

    Names of workspaces have no dot and no slash, and what is one is taken for one.
    """
    if not arguments:
        return None
    if len(arguments) > 1:
        if files := [each for each in arguments if _IN_PATHS & set(each)]:
            mend = "name it alone: it holds the names that it was made for"
            raise UsageError(f"{files[0]} is a file, and a saved plan stands alone", mend=mend)
        return None
    path = Path(arguments[0])
    if _IN_PATHS & set(arguments[0]):
        return path
    return path if path.is_file() and not is_workspace(path, here().load()) else None


def is_workspace(path: Path, project: Project) -> bool:
    return str(path) in project.workspaces


def targets(names: Sequence[str] | None, project: Project, observed: Observed) -> tuple[str, ...]:
    """Names of workspaces that are declared, or that are still there and to be removed."""
    from dual_iac.model import PROXY_SERVICE
    from dual_iac.state import workspace_of

    left = {workspace_of(address) for address in (*observed.containers, *observed.networks)}
    known = {*project.workspaces, *left} - {"", PROXY_SERVICE}
    for name in names or ():
        if name not in known:
            raise unknown_name(name, project.workspaces)
    return tuple(names or ())


def first_clash(planned: Plan, desired: Desired, observed: Observed) -> DualError | None:
    """What apply could not do: start two in one workspace that listen on one port."""
    from dual_iac.ports import port_clashes

    return next(iter(port_clashes(desired, observed.images, planned.workspaces).values()), None)


def show_plan(planned: Plan) -> None:
    """Print a plan, as what was asked for."""
    from dual_iac.view import console, print_json
    from dual_iac.view.plan import plan_data, plan_text

    if current.json:
        print_json(plan_data(planned))
    else:
        console().print(plan_text(planned))


@contextmanager
def show_progress() -> Iterator[Progress]:
    """For what an interruption lets end: it says so."""
    from dual_iac.view.progress import Progress

    with Progress() as progress:
        current.on_stop = partial(progress.say, "Ending what has begun. Once more: at once.")
        try:
            yield progress
        finally:
            current.on_stop = Globals.on_stop


def tell(text: str | Text) -> None:
    """Say something besides what was asked for."""
    from dual_iac.view import console

    console(stderr=True).print(text)


def approved(planned: Plan, *, yes: bool) -> bool:
    """Show the plan, and ask."""
    from dual_iac.view.plan import plan_text

    if not (current.json and yes):  # nobody is asked about what isn't shown
        tell(plan_text(planned))
    return confirm("Apply it?", yes=yes, command="dual apply")


def declined() -> typer.Exit:
    """What to raise after a no."""
    tell("Nothing was changed.")
    return typer.Exit(1)


def report(
    project: Project, planned: Plan, asked: Sequence[Workspace], failed: Sequence[NotReady]
) -> None:
    """Say how it went. Exits 1 if something failed, or a workspace doesn't answer."""
    from dual_iac.view import console, print_json
    from dual_iac.view.plan import plan_data
    from dual_iac.view.ready import not_ready_data, not_ready_text, outcome_text, urls_text

    missing = {problem.workspace for problem in failed}
    up = [workspace for workspace in asked if workspace.name not in missing]
    if current.json:
        outcome: dict[str, Any] = plan_data(planned)
        outcome["ready"] = {workspace.name: project.url(workspace) for workspace in up}
        outcome["not_ready"] = [not_ready_data(problem) for problem in failed]
        print_json(outcome)
    elif not planned and not failed:
        console().print(f"No changes: {counted(up)} of {project.name} as dual.yaml says.")
    elif up:
        console().print(urls_text(project, up))
    for problem in failed:
        tell(not_ready_text(problem))
    if failed:
        tell(outcome_text(asked, failed))
        raise typer.Exit(1)


def counted(workspaces: Sequence[Workspace]) -> str:
    count = len(workspaces)
    return f"{count} workspace{'s run' if count != 1 else ' runs'}"


@app.command()
def destroy(
    names: Names = None,
    yes: Yes = False,
    volumes: Annotated[
        bool, typer.Option("--volumes", help="Delete the volumes and what is in them, too.")
    ] = False,
    clones: Annotated[
        bool, typer.Option("--clones", help="Delete the clones of git sources, too.")
    ] = False,
    force: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Delete this clone even with work in it that no remote has."
        ),
    ] = None,
    format_: FormatOption = None,
) -> None:
    """Take the project down, or only some workspaces.

    Volumes and clones stay, unless --volumes or --clones is given.
    """
    from dual_iac import certificates
    from dual_iac.apply import all_of, take_down
    from dual_iac.clones import remove
    from dual_iac.output import remove_routes
    from dual_iac.view import console, print_json

    set_format(format_)
    place = here()
    project = place.load()
    chosen(project, names)
    engine = place.engine(project)
    with engine.lock():
        observed = engine.observe()
        doomed = observed.only(names or ())
        containers = [*doomed.containers.values(), *doomed.one_offs]
        there = engine.volumes() if volumes else {}
        lost = [volume for volume, owner in there.items() if not names or owner in names]
        folders = _clones(place.folder / project.clones, names, force or ()) if clones else []
        if containers or doomed.networks or lost or folders:
            _announce([*doomed.containers, *(c.name for c in doomed.one_offs), *doomed.networks])
            _announce(f"volume {volume} and what is in it" for volume in lost)
            _announce(f"clone {folder} and what is in it" for folder in folders)
            if not confirm("Destroy this?", yes=yes, command="dual destroy"):
                raise declined()
        with show_progress() as progress:
            if names:
                remove_routes(names, place.output)
            failures = take_down(containers, doomed.networks.values(), observed, engine, progress)
            if failures:
                raise all_of(failures, "could not be taken down")
            engine.remove_volumes(lost)
            for folder in folders:
                remove(folder)
            for name in names or project.workspaces:
                place.setup_folder(name).forget()
            if not names:
                certificates.keep_only(place.folder, ())
    if current.json:
        data = {"project": project.name, "destroyed": list(doomed.containers), "volumes": lost}
        print_json({**data, "clones": [folder.name for folder in folders]})
    elif containers or doomed.networks or lost or folders:
        console().print(_destroyed(containers, lost if volumes else None, folders))
    else:
        console().print("Nothing to destroy.")


def _clones(root: Path, names: Sequence[str] | None, force: Sequence[str]) -> list[Path]:
    """The clones to delete. Raises :class:`DualError` where work would be lost with one."""
    from dual_iac.clones import unsaved

    there = [path for path in sorted(root.glob("*")) if path.is_dir() and path.name[0] != "."]
    folders = [path for path in there if not names or path.name in names]
    if unknown := set(force) - {path.name for path in folders}:
        raise UsageError(f"There is no clone to remove of {', '.join(sorted(unknown))}")
    at_risk = {path.name: unsaved(path) for path in folders if path.name not in force}
    if lines := [f"{name}: {what}" for name, what in at_risk.items() if what]:
        forced = " ".join(f"--force {name}" for name, what in at_risk.items() if what)
        raise DualError(
            "Work would be lost that stands in clones alone",
            why="\n".join(lines),
            mend=f"commit and push it, or say that it may go: {forced}; nothing was changed",
        )
    return folders


def _announce(parts: Iterable[str]) -> None:
    for part in sorted(parts):
        tell(f"- {part}")


def _destroyed(
    containers: Sequence[Any], volumes: Sequence[str] | None, clones: Sequence[Path]
) -> str:
    """``volumes`` is None where nobody asked for them to go."""
    parts = [_count(containers, "container")]
    parts += [_count(volumes, "volume")] if volumes is not None else []
    parts += [_count(clones, "clone")] if clones else []
    kept = "" if volumes is not None else " Volumes were kept."
    return f"Destroyed {' and '.join(parts)}.{kept}"


def _count(things: Sequence[Any], what: str) -> str:
    return f"{len(things)} {what}{'s' if len(things) != 1 else ''}"
