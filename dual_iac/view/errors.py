"""Errors: a constant summary, then where, why, and what mends it."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from dual_iac.errors import DualError, Problem, SpecError
from dual_iac.view import console, harmless, print_json


def show_error(error: DualError, *, as_json: bool = False) -> None:
    if as_json:
        print_json({"error": error_data(error)})
    screen = console(stderr=True)
    if isinstance(error, SpecError):
        for problem in error.problems:
            screen.print(problem_text(error, problem))
    screen.print(Text.assemble(("Error: ", "bold red"), (harmless(error.summary), "bold")))
    _print_rest(error.why, error.mend)


def _print_rest(why: str, mend: str) -> None:
    screen = console(stderr=True)
    for line in why.splitlines():
        screen.print(f"  {harmless(line)}")
    if mend:
        screen.print(Text.assemble("  ", ("→ ", "cyan"), harmless(mend)))


def problem_text(error: SpecError, problem: Problem) -> Text:
    """One problem as a compiler shows it: the place, the line itself, and the mend."""
    text = Text()
    text.append(f"{error.file}:{problem.line}:{problem.column}: ", "bold")
    if problem.key:
        text.append(f"{harmless(problem.key)}: ", "cyan")
    text.append(f"{harmless(problem.what)}\n", "red")
    if problem.line <= len(error.lines):
        line = harmless(error.lines[problem.line - 1].replace("\t", " "))
        if problem.secret:
            line = f"{line[: problem.column - 1]}…"
        text.append(f"{problem.line:>5} | {line}\n", "dim")
        text.append(f"      | {' ' * (problem.column - 1)}^\n", "dim")
    if problem.why:
        text.append(f"  {harmless(problem.why)}\n")
    if problem.mend:
        text.append("  → ", "cyan")
        text.append(f"{harmless(problem.mend)}\n")
    return text


def error_data(error: DualError) -> dict[str, Any]:
    data: dict[str, Any] = {
        "kind": error.kind,
        "exit_code": error.exit_code,
        "summary": error.summary,
        "why": error.why,
        "mend": error.mend,
    }
    if isinstance(error, SpecError):
        data["file"] = error.file
        data["problems"] = [
            {
                "line": problem.line,
                "column": problem.column,
                "key": problem.key,
                "what": problem.what,
                "why": problem.why,
                "mend": problem.mend,
            }
            for problem in error.problems
        ]
    return data
