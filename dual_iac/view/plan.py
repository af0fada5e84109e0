"""A plan, as text for people and as JSON for programs."""

from __future__ import annotations

import json
import shlex
from typing import Any

from rich.text import Text

from dual_iac.plan import LOCALHOST, SETUP, Action, Change, Plan
from dual_iac.view import format_bytes, harmless

_MARKS = {
    Action.CREATE: ("+", "green"),
    Action.UPDATE: ("~", "yellow"),
    Action.REPLACE: ("±", "magenta"),
    Action.DELETE: ("-", "red"),
    Action.START: ("▶", "green"),
}
_FEW = 8  # lines of a file that somebody emptied: nobody reads them all
_DONE = {
    Action.CREATE: "to create",
    Action.UPDATE: "to update in place",
    Action.REPLACE: "to replace",
    Action.DELETE: "to delete",
    Action.START: "to start",
}


def plan_text(plan: Plan) -> Text:
    """What changes, why, and how many stay; readable without its colours."""
    text = Text()
    for change in plan.changes:
        mark, style = _MARKS[change.action]
        text.append(f"{mark} {change.action.value:<8}", style)
        text.append(f"{change.address}", "bold")
        text.append(f"{_note(change)}\n")
        reasons = () if _is_plain(change) else change.reasons
        most = _FEW if change.address.startswith("file.") else len(reasons)
        for reason in reasons[:most]:
            text.append(f"      {reason.field}: ", "cyan")
            before, after = (_value(reason.field, v) for v in (reason.before, reason.after))
            text.append(f"{before} → {after}\n")
        if len(reasons) > most:
            text.append(f"      … and {len(reasons) - most} more\n", "dim")
    parts = [f"{plan.summary[a.value]} {_DONE[a]}" for a in Action if plan.summary[a.value]]
    text.append("Plan: ", "bold")
    text.append(f"{', '.join(parts) or 'no changes'}; {_stay(plan)}.")
    if plan.left_out:
        count = len(plan.left_out)
        text.append(
            f"\nOnly for {', '.join(plan.targets)}: {count} other change"
            f"{'s are' if count > 1 else ' is'} left out ({_listed(plan.left_out)}).",
            "yellow",
        )
    return text


def _is_plain(change: Change) -> bool:
    """Whether its action says it all: it is new in dual.yaml, or gone from there."""
    return (
        change.action in (Action.CREATE, Action.DELETE)
        and not change.is_drift
        and all(reason.field in ("declared", "subnet", "file") for reason in change.reasons)
    )


def _stay(plan: Plan) -> str:
    """Who is not touched, counted: containers first, as it is they who matter."""
    workspaces = sum(address.startswith("workspace.") for address in plan.untouched)
    kept = f"{workspaces} workspace{'s' if workspaces != 1 else ''}"
    if "proxy" in plan.untouched:
        kept += " and the proxy"
    return f"{kept} untouched"


def _listed(addresses: tuple[str, ...]) -> str:
    return ", ".join(addresses[:5]) + (" …" if len(addresses) > 5 else "")


def _note(change: Change) -> str:
    if change.address == "proxy" and change.action is Action.UPDATE:
        return "  (live: Traefik keeps running)" + _drift(change)
    if change.action is Action.UPDATE and SETUP in change.fields:
        return "  (restarts, for its setup to run)"
    if change.action is Action.UPDATE and LOCALHOST in change.fields:
        return "  (restarts, to share one localhost again)" + _drift(change)
    if change.address == "proxy" and change.action is Action.REPLACE:
        return "  (Traefik restarts: open connections through it end)" + _drift(change)
    return _drift(change)


def _drift(change: Change) -> str:
    return "  (drift: not as applied)" if change.is_drift else ""


def _value(field: str, value: Any) -> str:
    if value is None:
        return "(none)"
    if isinstance(value, bool):
        return str(value).lower()
    if field == "resources.memory" and isinstance(value, int):
        return format_bytes(value)
    if isinstance(value, tuple | list):
        return harmless(shlex.join(map(str, value)))
    text = str(value)
    # As it is only where that can be told from the line around it.
    return text if text == text.strip() != "" and text.isprintable() else json.dumps(text)


def plan_data(plan: Plan) -> dict[str, Any]:
    """A plan as JSON: :class:`~dual_iac.saved.PlanDocument` says what stands where."""
    from dual_iac.saved import plan_document  # takes a while to import, and text needs none

    return plan_document(plan).model_dump(mode="json")
