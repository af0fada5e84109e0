"""The spec and what it renders to: init, validate, schema, render."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dual_iac.cli.app import FormatOption, app, current, here, set_format
from dual_iac.errors import UsageError

DIFFERENCES = 2
"""The exit code for: the command worked, and found differences."""


@app.command()
def init(
    force: Annotated[bool, typer.Option("--force", help="Overwrite a dual.yaml.")] = False,
) -> None:
    """Write an annotated dual.yaml for this repository."""
    from dual_iac.init import first_spec
    from dual_iac.view import console

    target = current.file or Path.cwd() / "dual.yaml"
    if target.exists() and not force:
        raise UsageError(
            f"There is a {target.name} already",
            why=str(target),
            mend="edit it, or overwrite it with dual init --force",
        )
    target.write_text(first_spec(target.absolute().parent), encoding="utf-8")
    console(stderr=True).print(f"Wrote {target.name}. Look it over, then run: dual apply")


@app.command()
def validate(format_: FormatOption = None) -> None:
    """Check dual.yaml, and show every problem at once."""
    from dual_iac.view import console, print_json

    set_format(format_)
    place = here()
    project = place.load()
    if current.json:
        print_json({"valid": True, "project": project.name, "workspaces": [*project.workspaces]})
    else:
        count = len(project.workspaces)
        console().print(
            f"{place.spec.name} is valid: project {project.name}, "
            f"{count} workspace{'s' if count != 1 else ''}."
        )


@app.command()
def schema() -> None:
    """Print the JSON Schema of dual.yaml, for editors."""
    from dual_iac.model import Spec
    from dual_iac.view import print_json

    print_json(
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            **Spec.model_json_schema(),
            "title": "dual.yaml",
        }
    )


@app.command()
def render(
    out: Annotated[
        Path | None, typer.Option("--out", help="The folder. Default: compose/ beside dual.yaml.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 2 if it is not current.")
    ] = False,
    format_: FormatOption = None,
) -> None:
    """Write the compose project that dual.yaml describes."""
    from dual_iac.output import stale_files, write_files

    set_format(format_)
    place = here()
    desired = place.render(place.load(), out)
    output = (out or place.output).absolute()
    changed = stale_files(desired.files, output) if check else write_files(desired.files, output)
    if current.json:
        from dual_iac.view import print_json

        print_json({"project": desired.project, "output": str(output), "changed": changed})
    elif check and changed:
        print(f"{output.name}/ is not what {place.spec.name} renders to:", file=sys.stderr)
    if changed and not current.json:
        verb = "differs" if check else "wrote"
        print("\n".join(f"{verb} {output.name}/{name}" for name in changed))
    if not changed:
        print(f"{output.name}/ is current.", file=sys.stderr)
    if check and changed:
        raise typer.Exit(DIFFERENCES)
