"""Who trusts the local certificate authority: trust, untrust."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from dual_iac.cli.app import FormatOption, app, current, set_format

if TYPE_CHECKING:
    from dual_iac.authority import Authority
    from dual_iac.trust import Step


@app.command()
def trust(
    path: Annotated[
        bool, typer.Option("--path", help="Only print where the certificate is, for other tools.")
    ] = False,
    format_: FormatOption = None,
) -> None:
    """Have this machine trust the certificates of https workspaces.

    They are issued by an authority of your own, made on first use and kept outside of projects.
    What you may do yourself is done: browsers, the keychain of macOS, Windows around WSL. What
    takes root is printed as the command to run. Run it again whenever a browser has been added:
    what trusts it already stays as it is. dual untrust undoes it.
    """
    from dual_iac.authority import load_or_make
    from dual_iac.trust import hints, this_machine
    from dual_iac.trust import trust as trust_authority

    set_format(format_)
    if os.geteuid() == 0 and (user := os.environ.get("SUDO_USER")):
        who = f"Under sudo, this is for root's own workspaces and browsers, not for {user}'s."
        print(f"{who} Without sudo, the one command that takes root is printed.", file=sys.stderr)
    authority = load_or_make()
    if path:
        print(authority.path)
        return
    steps = list(trust_authority(authority, this_machine()))
    if current.json:
        _print_data(steps, authority=_data(authority), hints=hints(authority))
    else:
        _print_steps(steps)
        print(f"\nThe certificate: {authority.path}")
        print("Programs that look into none of these stores:")
        for who, how in hints(authority).items():
            print(f"  {who + ':':<9}{how}")
    _exit(steps)


@app.command()
def untrust(
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete the authority, its private key included.")
    ] = False,
    format_: FormatOption = None,
) -> None:
    """Take back what dual trust did.

    Your authority, and former ones of yours, leave all stores they are found in. Its files stay,
    so that dual trust brings the same one back, unless you delete them, too: then the next https
    workspace, or dual trust, makes a new one.
    """
    from dual_iac import authority
    from dual_iac.errors import DualError
    from dual_iac.trust import this_machine
    from dual_iac.trust import untrust as untrust_authority

    set_format(format_)
    try:
        there = authority.load()
    except DualError:  # one that can't be used can be trusted all the same
        there = None
    name = there.name if there else authority.default_name()
    steps = list(untrust_authority(name, this_machine()))
    deleted = delete and authority.delete()
    if current.json:
        _print_data(steps, name=name, deleted=deleted)
    else:
        _print_steps(steps)
        if delete:
            print(f"\n{'Deleted' if deleted else 'There was none in'} {authority.default_folder()}")
    _exit(steps)


def _data(authority: Authority) -> dict[str, str]:
    return {
        "path": str(authority.path),
        "name": authority.name,
        "fingerprint": authority.fingerprint,
        "ends": authority.ends.isoformat(),
    }


def _print_data(steps: Sequence[Step], **more: object) -> None:
    from dual_iac.view import print_json

    print_json({**more, "steps": [asdict(step) for step in steps]})


def _print_steps(steps: Sequence[Step]) -> None:
    from rich.table import Table
    from rich.text import Text

    from dual_iac.trust import Outcome
    from dual_iac.view import print_table

    styles = {
        Outcome.DONE: "green",
        Outcome.ALREADY: "green",
        Outcome.TO_DO: "yellow",
        Outcome.SKIPPED: "dim",
        Outcome.FAILED: "red",
    }
    to_do = [step for step in steps if step.outcome is Outcome.TO_DO]
    table = Table(box=None, pad_edge=False, show_header=False)
    for step in steps:
        table.add_row(
            Text(step.outcome.value, styles[step.outcome]),
            Text(step.store, "bold"),
            Text(f"{step.why}\n→ {step.mend}" if step.mend and step not in to_do else step.why),
        )
    print_table(table)
    if to_do:
        print("\nTo do:")  # below the table, where no line is broken: they are to be copied
    for step in to_do:
        print(f"  {step.mend}")


def _exit(steps: Sequence[Step]) -> None:
    from dual_iac.trust import Outcome

    if any(step.outcome is Outcome.FAILED for step in steps):
        raise typer.Exit(1)
