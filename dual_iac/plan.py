"""Desired and Observed → Plan: what has to change, why, and who stays untouched.

Pure. A plan is inert data: :mod:`dual_iac.view` shows it, :mod:`dual_iac.apply` carries it
out, and neither decides anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dual_iac.interpolation import has_references
from dual_iac.model import EDGE_NETWORK
from dual_iac.render import SEEN_FILE, read_rendered
from dual_iac.state import (
    PROXY,
    Desired,
    DesiredContainer,
    Fields,
    Observed,
    ObservedContainer,
)


class Action(StrEnum):
    CREATE = "create"
    UPDATE = "update"
    """Changed in place: nothing restarts."""
    REPLACE = "replace"
    DELETE = "delete"
    START = "start"


HIDDEN = "(hidden)"
"""Stands for a value that came out of a variable or a file."""


@dataclass(frozen=True)
class Reason:
    """One field that differs. ``before`` or ``after`` is None where there is none."""

    field: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Change:
    address: str
    action: Action
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class Plan:
    """``changes`` in the order of their addresses; ``untouched`` are the rest."""

    project: str
    changes: tuple[Change, ...]
    untouched: tuple[str, ...]

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.changes)

    @property
    def summary(self) -> Mapping[str, int]:
        """How many changes of each action, zeros included."""
        counts = Counter(change.action for change in self.changes)
        return {action.value: counts[action] for action in Action}

    def addresses(self, kind: str, *actions: Action) -> tuple[str, ...]:
        """The names of changes of a kind (``workspace``, ``network``, ``route``, ``proxy``)."""
        return tuple(
            change.address.partition(".")[2]
            for change in self.changes
            if change.address.partition(".")[0] == kind and change.action in actions
        )


def make_plan(desired: Desired, observed: Observed) -> Plan:
    """Compare what should be with what is."""
    changes: list[Change] = []
    untouched: list[str] = []
    for address in _in_order({*desired.containers, *observed.containers}):
        _note(address, _container(address, desired, observed), changes, untouched)
    for address in _in_order({*desired.networks, *observed.networks}):
        _note(address, _network(address, desired, observed), changes, untouched)
    for address, path in sorted(desired.routes.items()):
        before, after = observed.files.get(path), desired.files[path]
        _note(address, _file(address, before, after), changes, untouched)
    for path in sorted(set(observed.files) - set(desired.files)):
        # An output folder holds rendered files only: the engine reads no others into observed.
        name = path.rpartition("/")[2].removesuffix(".yaml")
        changes.append(Change(f"route.{name}", Action.DELETE, (Reason("file", path, None),)))
    if not changes:
        # With changes elsewhere, the compose file differs for their sake, and is written too.
        for path in sorted(set(desired.files) - set(desired.routes.values())):
            change = _file(f"file.{path}", observed.files.get(path), desired.files[path])
            changes += [change] if change else []
    return Plan(desired.project, tuple(changes), tuple(untouched))


def _note(address: str, change: Change | None, changes: list[Change], untouched: list[str]) -> None:
    if change is None:
        untouched.append(address)
    else:
        changes.append(change)


def _in_order(addresses: Iterable[str]) -> list[str]:
    """The proxy first, then by name."""
    return sorted(addresses, key=lambda address: (address != PROXY, address))


def _container(address: str, desired: Desired, observed: Observed) -> Change | None:
    wanted, found = desired.containers.get(address), observed.containers.get(address)
    if found is None:
        return Change(address, Action.CREATE, (Reason("container", None, "missing"),))
    if wanted is None:
        return Change(address, Action.DELETE, (Reason("declared", True, False),))

    reasons = list(_differences(wanted, found, observed))
    attachable = address == PROXY and all(
        # Its published port hangs on edge: to move that is to drop every connection anyway.
        r.field.startswith("networks.") and r.field != f"networks.{EDGE_NETWORK}"
        for r in reasons
    )
    if not reasons and wanted.hash != found.hash:
        reasons.append(Reason("definition", found.hash, wanted.hash))
        attachable = False
    if not reasons:
        for key, network in desired.networks.items():
            held = observed.networks.get(key)
            if (
                f"networks.{network.key}" in wanted.fields
                and held
                and held.subnet != network.subnet
            ):
                reasons.append(Reason(f"networks.{network.key}", held.subnet, network.subnet))
        attachable = False
    if address == PROXY and found.running and not _follows_its_files(desired, observed):
        reasons.append(Reason("routes", observed.routes_seen or "none read", "those in its files"))
        attachable = False
    if reasons and not attachable:
        return Change(address, Action.REPLACE, tuple(reasons))
    if not found.running:
        return Change(address, Action.START, (*reasons, Reason("state", found.state, "running")))
    if reasons:
        return Change(address, Action.UPDATE, tuple(reasons))
    return None


def _follows_its_files(desired: Desired, observed: Observed) -> bool:
    """Whether a running proxy has read what stands in its folder.

    It hasn't where that folder was removed: it would go on watching the one that is gone.
    """
    if SEEN_FILE in desired.files and SEEN_FILE not in observed.files:
        return False
    return observed.routes_seen == observed.routes_written


def _differences(
    wanted: DesiredContainer, found: ObservedContainer, observed: Observed
) -> Iterable[Reason]:
    """Field by field; what the spec leaves open is expected to be what the image says."""
    image = observed.images.get(wanted.image)
    if image is None and wanted.image == found.image:
        image = observed.images.get(found.image_id)  # its name is gone, it is not
    inherited: Fields = image.fields if image else {}
    for field in sorted({*wanted.fields, *found.fields}):
        after = wanted.fields.get(field, inherited.get(field))
        before = found.fields.get(field)
        if before != after:
            yield _reason(field, before, after, wanted, observed)
    if image and image.id != found.image_id and wanted.image == found.image:
        yield Reason("image.id", found.image_id, image.id)


_COMPOSE_KEYS = {
    "resources.cpus": "cpus",
    "resources.memory": "mem_limit",
    "mounts": "volumes",
}
"""Where a field stands in a service of the compose file, if not under its own first name."""


def _reason(
    field: str, before: Any, after: Any, wanted: DesiredContainer, observed: Observed
) -> Reason:
    if field in wanted.hidden and after is not None:
        after = HIDDEN
    service = _map(_map(observed.rendered.get("services")).get(wanted.service))
    if before is not None and field.startswith("env."):
        # What runs may hold a secret. It is shown only where the last render spelt it out.
        spelt = _map(service.get("environment")).get(field.removeprefix("env."))
        if has_references(str(spelt)) or str(spelt).replace("$$", "$") != before:
            before = HIDDEN
    elif before is not None:
        key = field if field in _COMPOSE_KEYS else field.partition(".")[0]
        last = service.get(_COMPOSE_KEYS.get(key, key), "")
        if field in wanted.hidden or has_references(str(last)):
            before = HIDDEN
    return Reason(field, before, after)


def _map(value: Any) -> Mapping[str, Any]:
    """A part of the compose file that stands there: someone may have made anything of it."""
    return value if isinstance(value, dict) else {}


def _network(address: str, desired: Desired, observed: Observed) -> Change | None:
    wanted, found = desired.networks.get(address), observed.networks.get(address)
    if found is None and wanted is not None:
        return Change(address, Action.CREATE, (Reason("subnet", None, wanted.subnet),))
    if wanted is None and found is not None:
        return Change(address, Action.DELETE, (Reason("declared", True, False),))
    if wanted and found and wanted.subnet != found.subnet:
        reason = Reason("subnet", found.subnet, wanted.subnet)
        return Change(address, Action.REPLACE, (reason,))
    return None


def _file(address: str, before: str | None, after: str) -> Change | None:
    if before is None:
        return Change(address, Action.CREATE, (Reason("file", None, "missing"),))
    if before == after:
        return None
    old, new = _flat(read_rendered(before)), _flat(read_rendered(after))
    reasons = [
        Reason(key, old.get(key), new.get(key))
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]
    return Change(address, Action.UPDATE, tuple(reasons) or (Reason("text", "edited", "rendered"),))


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    items: Iterable[tuple[Any, Any]]
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        return {path: value}
    flat: dict[str, Any] = {}
    for key, each in items:
        flat |= _flat(each, f"{path}.{key}" if path else str(key))
    return flat
