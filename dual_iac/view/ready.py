"""Which workspaces answer, and which don't, why, and what they printed last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from dual_iac.model import Project, Workspace
from dual_iac.verify.ready import NotReady


def urls_text(project: Project, workspaces: Sequence[Workspace], *, tls: bool = False) -> Text:
    """One line a workspace: its name and where it answers."""
    width = max((len(workspace.name) for workspace in workspaces), default=0)
    text = Text()
    for number, workspace in enumerate(workspaces):
        text.append("\n" if number else "")
        text.append(f"{workspace.name:<{width}}  ", "bold")
        text.append(project.url(workspace, tls=tls), "cyan")
    return text


def not_ready_text(problem: NotReady) -> Text:
    text = Text()
    text.append(f"✗ {problem.workspace} ", "bold red")
    first, *more = problem.why.splitlines() or [""]
    text.append(f"{problem.what}: {first}\n")
    for line in more:
        text.append(f"  {line}\n")
    for line in problem.log:
        text.append(f"    | {line}\n", "dim")
    if problem.mend:
        text.append("  → ", "cyan")
        text.append(problem.mend)
    text.rstrip()
    return text


def outcome_text(asked: Sequence[Workspace], failed: Sequence[NotReady]) -> str:
    """How many answer, and by name those that don't, or that are still there."""
    names = {problem.workspace for problem in failed if not problem.answers}
    silent = [workspace.name for workspace in asked if workspace.name in names]
    left = sorted(names.difference(silent))
    text = f"{len(asked) - len(silent)} of {len(asked)} workspaces answer"
    text += f", not {', '.join(silent)}." if silent else "."
    for name in sorted(problem.workspace for problem in failed if problem.answers):
        text += f" A service of {name} does not stay up."
    if left:
        text += f" {', '.join(left)} could not be removed."
    return f"{text} All is left as it is, for you to look at; dual apply goes on from there."


def not_ready_data(problem: NotReady) -> dict[str, Any]:
    return {
        "workspace": problem.workspace,
        "what": problem.what,
        "why": problem.why,
        "mend": problem.mend,
        "log": list(problem.log),
    }
