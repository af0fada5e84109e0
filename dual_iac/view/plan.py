"""A plan, as text for people and as JSON for programs."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from dual_iac.plan import Action, Change, Plan
from dual_iac.view import format_bytes

FORMAT_VERSION = 1

_MARKS = {
    Action.CREATE: ("+", "green"),
    Action.UPDATE: ("~", "yellow"),
    Action.REPLACE: ("±", "magenta"),
    Action.DELETE: ("-", "red"),
    Action.START: ("▶", "green"),
}
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
        if change.action not in (Action.CREATE, Action.DELETE):
            for reason in change.reasons:
                text.append(f"      {reason.field}: ", "cyan")
                before, after = (_value(reason.field, v) for v in (reason.before, reason.after))
                text.append(f"{before} → {after}\n")
    parts = [f"{plan.summary[a.value]} {_DONE[a]}" for a in Action if plan.summary[a.value]]
    text.append("Plan: ", "bold")
    text.append(f"{', '.join(parts) or 'no changes'}; {len(plan.untouched)} untouched.")
    return text


def _note(change: Change) -> str:
    if change.address == "proxy" and change.action is Action.UPDATE:
        return "  (networks only: Traefik keeps running)"
    if change.address == "proxy" and change.action is Action.REPLACE:
        return "  (Traefik restarts: open connections through it end)"
    return ""


def _value(field: str, value: Any) -> str:
    if value is None:
        return "(none)"
    if isinstance(value, bool):
        return str(value).lower()
    if field == "resources.memory" and isinstance(value, int):
        return format_bytes(value)
    if isinstance(value, tuple | list):
        return " ".join(map(str, value))
    return str(value)


def plan_data(plan: Plan) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "project": plan.project,
        "changes": [
            {
                "address": change.address,
                "action": change.action.value,
                "reasons": [
                    {"field": reason.field, "before": reason.before, "after": reason.after}
                    for reason in change.reasons
                ],
            }
            for change in plan.changes
        ],
        "untouched": list(plan.untouched),
        "summary": dict(plan.summary),
    }
