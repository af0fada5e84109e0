"""A plan as a document: what ``--format json`` prints, and what ``plan --out`` keeps in a file.

A saved plan is bound to what it was made from. It can always be shown; it is carried out only
where neither dual.yaml nor the machine has moved since.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dual_iac.errors import DualError, UsageError
from dual_iac.fingerprint import desired_fingerprint, moved, observed_fingerprint
from dual_iac.output import write_file
from dual_iac.plan import Action, Change, Plan, Reason
from dual_iac.state import Desired, Observed


class _Document(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        from_attributes=True,
        use_attribute_docstrings=True,
        json_schema_serialization_defaults_required=True,
    )


class ReasonDocument(_Document):
    """One field that differs."""

    field: str
    """What differs: ``env.NAME``, ``resources.memory``, ``networks.ws-NAME``, ``state`` …"""
    before: Any
    """What is now; null where there is none, "(hidden)" where it may be a secret."""
    after: Any
    """What will be; null where there will be none."""


class ChangeDocument(_Document):
    """What is to be done to one address, and why."""

    address: str
    """``proxy``, ``workspace.NAME``, ``companion.WORKSPACE/NAME``, ``network.NAME``,
    ``route.NAME``, ``source.NAME`` or ``file.PATH``."""
    action: Action
    reasons: tuple[ReasonDocument, ...] = Field(min_length=1)


class PlanDocument(_Document):
    """A plan: what apply would change, and whom it leaves alone."""

    format_version: Literal[1] = 1
    """Another number where a key has changed its meaning, or is gone. Keys may be added."""
    project: str
    changes: tuple[ChangeDocument, ...]
    untouched: tuple[str, ...]
    """Every address that has no change."""
    summary: dict[Action, int]
    """How many changes of each action, zeros included."""
    drift: tuple[str, ...] = ()
    """Of the changes, the addresses that somebody changed by hand since they were applied."""
    targets: tuple[str, ...] = ()
    """The workspaces that the plan was narrowed to; empty for all."""
    left_out: tuple[str, ...] = ()
    """Addresses that have changes which no target needs. They are ``untouched``, too, unless it is
    the proxy, of which a part is needed."""


class Binding(_Document):
    """What a saved plan was made from. Holds no value that may be a secret."""

    made_at: datetime
    desired: dict[str, dict[str, str]]
    observed: dict[str, dict[str, str]]
    salt: str
    variables: str
    """A slow, salted hash of all values that came out of variables and files."""


class SavedPlan(PlanDocument):
    """A plan in a file."""

    bound_to: Binding


def plan_document(plan: Plan) -> PlanDocument:
    """The document of a plan."""
    return PlanDocument(
        project=plan.project,
        changes=tuple(ChangeDocument.model_validate(change) for change in plan.changes),
        untouched=plan.untouched,
        summary={Action(name): count for name, count in plan.summary.items()},
        drift=tuple(change.address for change in plan.changes if change.is_drift),
        targets=plan.targets,
        left_out=plan.left_out,
    )


def plan_of(document: PlanDocument) -> Plan:
    """The plan that a document tells of: to be shown."""
    return Plan(
        document.project,
        changes=tuple(
            Change(
                change.address,
                change.action,
                tuple(Reason(each.field, each.before, each.after) for each in change.reasons),
                is_drift=change.address in document.drift,
            )
            for change in document.changes
        ),
        untouched=document.untouched,
        targets=document.targets,
        left_out=document.left_out,
    )


def save_plan(path: Path, plan: Plan, desired: Desired, observed: Observed) -> None:
    """Keep a plan in a file, bound to what it was made from.

    Raises :class:`UsageError` where there can be no such file.
    """
    path = path.resolve()  # to a link's end: the link itself stays
    if why := _in_the_way(path):
        raise UsageError(f"The plan can't be saved in {path}", why=why, mend="name another file")
    salt = secrets.token_hex(16)
    saved = SavedPlan(
        **dict(plan_document(plan)),
        bound_to=Binding(
            made_at=datetime.now(UTC).replace(microsecond=0),
            desired={k: dict(v) for k, v in desired_fingerprint(desired).items()},
            observed={k: dict(v) for k, v in observed_fingerprint(observed, desired).items()},
            salt=salt,
            variables=_hash_of_variables(desired, salt),
        ),
    )
    write_file(path, saved.model_dump_json(indent=2) + "\n")


def _in_the_way(path: Path) -> str:
    """What a plan would overwrite that is none, or why nothing can stand there."""
    if not path.parent.is_dir():
        return "there is no such folder"
    if path.is_dir():
        return "it is a folder"
    if not path.exists():
        return ""
    if not path.is_file():
        return "it is no file"
    try:
        if path.stat().st_size:
            read_plan(path)
    except UsageError:
        return "there is a file of that name, which is not a saved plan"
    return ""


def read_plan(path: Path) -> SavedPlan:
    """A saved plan. Raises :class:`UsageError` for a file that is none."""
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is no file", mend="name a plan that dual plan --out saved")
    try:
        return SavedPlan.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} can't be read", why=error.strerror or str(error)) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UsageError(
            f"{path} is not a saved plan",
            why=f"{place}: {first['msg']}" if place else first["msg"],
            mend="dual plan --out FILE makes one; another dual.yaml is named with dual -f FILE",
        ) from None


def check_current(
    path: Path, saved: SavedPlan, plan: Plan, desired: Desired, observed: Observed
) -> None:
    """A saved plan must still be what would be planned. Raises :class:`DualError` otherwise.

    ``plan`` is the one that is made of ``desired`` and ``observed`` now.
    """
    bound = saved.bound_to
    lines = moved(bound.desired, desired_fingerprint(desired))
    lines += moved(bound.observed, observed_fingerprint(observed, desired))
    if bound.variables != _hash_of_variables(desired, bound.salt):
        lines.append("a variable or a file of variables: another value now")
    if saved.project != desired.project:
        lines = [f"project: {saved.project} then, {desired.project} now"]
    document = PlanDocument.model_validate(dict(saved))
    if not lines and document != _as_read(plan_document(plan)):
        lines = ["what it says is not what this version of dual plans now"]
    if lines:
        raise DualError(
            f"The plan in {path} is out of date",
            why=f"made at {bound.made_at:%Y-%m-%d %H:%M:%S} UTC; since then:\n" + "\n".join(lines),
            mend=f"nothing was done; `dual plan {path}` still shows it, "
            f"`dual plan --out {path}` makes a new one",
        )


def _as_read(document: PlanDocument) -> PlanDocument:
    return PlanDocument.model_validate_json(document.model_dump_json())


def _hash_of_variables(desired: Desired, salt: str) -> str:
    """Slow on purpose: nobody shall find a password by trying what gives the same hash."""
    values = {
        address: {field: container.fields[field] for field in sorted(container.hidden)}
        for address, container in desired.containers.items()
        if container.hidden
    }
    if not values:
        return ""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.scrypt(text.encode(), salt=salt.encode(), n=2**14, r=8, p=1).hex()
