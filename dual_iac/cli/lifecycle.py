"""What makes and unmakes a running project: plan, apply, destroy."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dual_iac.cli.app import (
    FormatOption,
    Names,
    Yes,
    app,
    chosen,
    confirm,
    current,
    here,
    set_format,
)
from dual_iac.cli.project import DIFFERENCES

if TYPE_CHECKING:
    from dual_iac.model import Project
    from dual_iac.plan import Plan
    from dual_iac.verify.ready import NotReady


def duration(text: str) -> timedelta:
    from dual_iac.model import parse_duration

    try:
        return parse_duration(text)
    except ValueError:
        raise typer.BadParameter("write a duration like 30s or 1m30s") from None


@app.command()
def plan(
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="Exit 2 if there is anything to do.")
    ] = False,
    format_: FormatOption = None,
) -> None:
    """Show what apply would do, and why. Changes nothing."""
    from dual_iac.plan import make_plan
    from dual_iac.view import console, print_json
    from dual_iac.view.plan import plan_data, plan_text

    set_format(format_)
    place = here()
    project = place.load(check_host=True)
    desired = place.render(project)
    observed = place.engine(project).observe(desired.images, routes=True)
    planned = make_plan(desired, observed)
    if current.json:
        print_json(plan_data(planned))
    else:
        console().print(plan_text(planned))
    if detailed_exitcode and planned:
        raise typer.Exit(DIFFERENCES)


@app.command()
def apply(
    yes: Yes = False,
    timeout: Annotated[
        timedelta | None,
        typer.Option(parser=duration, metavar="DURATION", help="Instead of every ready.timeout."),
    ] = None,
    format_: FormatOption = None,
) -> None:
    """Make this machine match dual.yaml.

    Shows the plan, asks, carries it out, and waits until every workspace answers. Who isn't
    in the plan is not touched.
    """
    from dual_iac.apply import apply_plan
    from dual_iac.plan import make_plan
    from dual_iac.verify.ready import wait_until_ready
    from dual_iac.view.progress import Progress

    set_format(format_)
    place = here()
    project = place.load(check_host=True)
    desired = place.render(project)
    engine = place.engine(project)
    observed = engine.observe(desired.images, routes=True)
    planned = make_plan(desired, observed)
    if planned and not approved(planned, yes=yes):
        raise declined()
    with Progress() as progress:
        refused = apply_plan(planned, desired, observed, engine, place.output, progress)
        failed = wait_until_ready(project, project.enabled, engine, progress, timeout, refused)
    report(project, planned, failed)


def approved(planned: Plan, *, yes: bool) -> bool:
    """Show the plan, and ask."""
    from dual_iac.view import console
    from dual_iac.view.plan import plan_text

    if not current.json:
        console(stderr=True).print(plan_text(planned))
    return confirm("Apply it?", yes=yes, command="dual apply")


def declined() -> typer.Exit:
    """What to raise after a no."""
    from dual_iac.view import console

    console(stderr=True).print("Nothing was changed.")
    return typer.Exit(1)


def report(project: Project, planned: Plan, failed: Sequence[NotReady]) -> None:
    """Say how it went. Exits 1 if a workspace doesn't answer."""
    from dual_iac.view import console, print_json
    from dual_iac.view.plan import plan_data
    from dual_iac.view.ready import not_ready_data, not_ready_text, urls_text

    missing = {problem.workspace for problem in failed}
    up = [workspace for workspace in project.enabled if workspace.name not in missing]
    if current.json:
        outcome: dict[str, Any] = plan_data(planned)
        outcome["ready"] = {workspace.name: project.url(workspace) for workspace in up}
        outcome["not_ready"] = [not_ready_data(problem) for problem in failed]
        print_json(outcome)
    elif planned or failed:
        if up:
            console().print(urls_text(project, up))
    else:
        count = len(up)
        console().print(
            f"No changes: {count} workspace{'s' if count != 1 else ''} of {project.name} "
            f"run{'s' if count == 1 else ''} as dual.yaml says."
        )
    for problem in failed:
        console(stderr=True).print(not_ready_text(problem))
    if failed:
        console(stderr=True).print(
            f"{len(up)} of {len(up) + len(failed)} workspaces answer; "
            "the others were left running, for you to look at."
        )
        raise typer.Exit(1)


@app.command()
def destroy(
    names: Names = None,
    yes: Yes = False,
    volumes: Annotated[
        bool, typer.Option("--volumes", help="Delete the volumes and what is in them, too.")
    ] = False,
    format_: FormatOption = None,
) -> None:
    """Take the project down, or only some workspaces.

    Volumes stay, unless --volumes is given.
    """
    from dual_iac.state import network_address
    from dual_iac.view import console, print_json
    from dual_iac.view.progress import Progress

    set_format(format_)
    place = here()
    project = place.load()
    workspaces = chosen(project, names)
    engine = place.engine(project)
    observed = engine.observe()
    prefixes = tuple(f"{project.name}_{workspace.name}--" for workspace in workspaces)
    doomed = [v for v in engine.volumes() if not names or v.startswith(prefixes)] if volumes else []
    selected = set(names or ())
    containers = {
        address: container
        for address, container in observed.containers.items()
        if not names or container.service in selected
    }
    networks = [
        network
        for network in observed.networks.values()
        if not names or network.key in {f"ws-{name}" for name in names}
    ]
    outcome = {
        "project": project.name,
        "destroyed": list(containers),
        "volumes": doomed,
    }
    if not containers and not networks and not doomed:
        if current.json:
            print_json(outcome)
        else:
            console().print("Nothing to destroy.")
        return
    for address in sorted([*containers, *(network_address(n.key) for n in networks)]):
        console(stderr=True).print(f"- {address}")
    for volume in doomed:
        console(stderr=True).print(f"- volume {volume} and what is in it")
    if not confirm("Destroy this?", yes=yes, command="dual destroy"):
        raise declined()
    with Progress() as progress:
        if names:
            engine.take_down(containers.values(), networks, observed, progress)
        else:
            engine.down(progress)
        engine.remove_volumes(doomed)
    if current.json:
        print_json(outcome)
    else:
        console().print(_destroyed(containers, doomed, volumes=volumes))


def _destroyed(containers: Any, doomed: Sequence[str], *, volumes: bool) -> str:
    count = len(containers)
    text = f"Destroyed {count} container{'s' if count != 1 else ''}"
    if volumes:
        return f"{text} and {len(doomed)} volume{'s' if len(doomed) != 1 else ''}."
    return f"{text}. Volumes were kept."
