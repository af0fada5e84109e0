"""What is wrong with this machine: doctor."""

from __future__ import annotations

from dataclasses import asdict

import typer

from dual_iac.cli.app import FormatOption, app, current, here, set_format
from dual_iac.errors import EngineUnreachableError, SpecError, UsageError


@app.command()
def doctor(format_: FormatOption = None) -> None:
    """Find what is missing or wrong on this machine.

    Looks at Docker, Compose, host names, the port, images and addresses; says how to mend each.
    """
    from rich.table import Table
    from rich.text import Text

    from dual_iac.engine.doctor import Finding, Level, examine
    from dual_iac.engine.observe import DockerCommand
    from dual_iac.view import print_json, print_table

    set_format(format_)
    # With no dual.yaml, or a broken one, the machine can be looked at all the same.
    project, findings = None, []
    try:
        project = here().load()
    except UsageError:
        if current.file:
            raise
    except SpecError as error:
        findings.append(Finding("dual.yaml", Level.FAILED, error.summary, "see dual validate"))
    findings += examine(DockerCommand(current.context), project)
    if current.json:
        print_json({"findings": [asdict(finding) for finding in findings]})
    else:
        styles = {Level.OK: "green", Level.WARNING: "yellow", Level.FAILED: "red"}
        table = Table(box=None, pad_edge=False, show_header=False)
        for finding in findings:
            table.add_row(
                Text(finding.level.value, styles[finding.level]),
                Text(finding.check, "bold"),
                Text(f"{finding.found}\n→ {finding.mend}" if finding.mend else finding.found),
            )
        print_table(table)
    failed = {finding.check for finding in findings if finding.level is Level.FAILED}
    if {"docker command", "engine", "compose"} & failed:
        raise typer.Exit(EngineUnreachableError.exit_code)
    if failed:
        raise typer.Exit(1)
