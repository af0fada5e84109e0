"""What people read: plans, progress, outcomes."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from dual_iac.errors import SpecError
from dual_iac.model import Workspace
from dual_iac.plan import Action, Change, Plan, Reason
from dual_iac.spec import parse_project
from dual_iac.verify.ready import NotReady
from dual_iac.view import progress as progress_module
from dual_iac.view.errors import problem_text
from dual_iac.view.plan import plan_text
from dual_iac.view.progress import Progress
from dual_iac.view.ready import not_ready_text, outcome_text


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        ("env.A", "plain words", "plain words"),
        ("env.A", "", '""'),
        ("env.A", " x", '" x"'),
        ("env.A", "two\nlines", '"two\\nlines"'),
        ("env.A", "\x1b[31mred", '"\\u001b[31mred"'),
        ("env.A", None, "(none)"),
        ("command", ("sh", "-c", "a b"), "sh -c 'a b'"),
        ("command", ("echo", "\x1b[31mred"), "echo '\ufffd[31mred'"),
        ("resources.memory", 2**30, "1.0 GiB"),
    ],
)
def test_a_value_can_be_told_from_the_line_around_it(field: str, value: Any, shown: str) -> None:
    change = Change("workspace.a", Action.REPLACE, (Reason(field, value, "x"),))
    text = plan_text(Plan("shop", (change,), ())).plain
    assert f"{field}: {shown} → x" in text


def test_an_emptied_file_is_not_listed_line_by_line() -> None:
    reasons = tuple(Reason(f"services.a.{number}", None, "x") for number in range(20))
    change = Change("file.compose.yaml", Action.UPDATE, reasons)
    text = plan_text(Plan("shop", (change,), ())).plain
    assert text.count("services.a.") == 8
    assert "… and 12 more\n" in text


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal gets."""
    written = io.StringIO()
    terminal = Console(file=written, force_terminal=True, width=80, height=24, color_system=None)
    monkeypatch.setattr(progress_module, "console", lambda **_: terminal)
    return written


def test_progress_that_goes_on_erases_nothing_above_it(screen: io.StringIO) -> None:
    with Progress() as progress:
        progress("a", "starting")
        progress("b", "starting")
    screen.write("printed between\n")
    before = len(screen.getvalue())
    with progress:
        progress("c", "starting")
    went_on = screen.getvalue()[before:]
    up, first_line = went_on.find("\x1b[1A"), went_on.find("a")
    assert up == -1 or up > first_line, repr(went_on)


def test_progress_says_what_concerns_all(screen: io.StringIO) -> None:
    with Progress() as progress:
        progress.say("Ending what has begun.")
    assert "Ending what has begun.\n" in screen.getvalue()


def workspaces(*names: str) -> list[Workspace]:
    rows = "".join(f"  {name}: {{image: x}}\n" for name in names)
    spec = f"version: 1\nproject: shop\nworkspaces:\n{rows}"
    return list(parse_project(spec, "dual.yaml").workspaces.values())


@pytest.mark.parametrize(
    ("failed", "said"),
    [
        (["a"], "1 of 2 workspaces answer, not a. All is left as it is"),
        (["a", "b"], "0 of 2 workspaces answer, not a, b. All is left as it is"),
        (["gone"], "2 of 2 workspaces answer. gone could not be removed. All is left"),
        (["b", "gone"], "1 of 2 workspaces answer, not b. gone could not be removed. All is left"),
    ],
)
def test_an_outcome_names_everybody(failed: list[str], said: str) -> None:
    problems = [NotReady(name, "why", "mend") for name in failed]
    assert outcome_text(workspaces("a", "b"), problems).startswith(said)


def test_reasons_of_several_lines_stay_below_their_workspace() -> None:
    text = not_ready_text(NotReady("a", "first\nsecond", "mend it", what="failed")).plain
    assert text == "✗ a failed: first\n  second\n  → mend it"


def test_a_file_says_nothing_to_the_terminal() -> None:
    """Nor does it turn a line of an error round, so that it reads otherwise than it is."""
    text = 'version: 1\nworkspaces: {"\\e[2J": {"\\u202e": x}}\n# \u202e'
    with pytest.raises(SpecError) as raised:
        parse_project(text, "dual.yaml")
    shown = "".join(problem_text(raised.value, each).plain for each in raised.value.problems)
    assert "workspaces.\ufffd[2J.\ufffd: unknown key" in shown
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", shown)
