"""Desired and Observed → Plan: what has to change, why, and who stays untouched.

Pure. A plan is inert data: :mod:`dual_iac.view` shows it, :mod:`dual_iac.apply` carries it
out, and neither decides anything.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from dual_iac.interpolation import has_references
from dual_iac.model import EDGE_NETWORK, HOLDER
from dual_iac.output import ROUTES_FOLDER, SEEN_FILE, SETUP_FILE, read_rendered
from dual_iac.state import (
    ENV_FILE,
    GONE,
    LABEL_HASH,
    LABEL_PROJECT,
    PROXY,
    Desired,
    DesiredClone,
    DesiredContainer,
    Fields,
    Observed,
    ObservedContainer,
    companion_address,
    network_address,
    source_address,
    workspace_address,
    workspace_of,
)


class Action(StrEnum):
    CREATE = "create"
    UPDATE = "update"
    """Changed in place. Nothing restarts but for its setup, or to join its companions again."""
    REPLACE = "replace"
    DELETE = "delete"
    START = "start"


SETUP = "setup"
LOCALHOST = "localhost"
RESTARTED = frozenset({SETUP, LOCALHOST})
"""The fields of reasons that are mended by a restart: a setup that is to run again, and a network
that is not the one that its companions have any more."""

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
    """What is to be done to one address, and why.

    ``is_drift`` where dual.yaml still declares what was applied: it is the thing itself that
    differs, as somebody changed it by hand, or an apply was interrupted.
    """

    address: str
    action: Action
    reasons: tuple[Reason, ...]
    is_drift: bool = False

    @property
    def fields(self) -> frozenset[str]:
        """The fields that differ."""
        return frozenset(reason.field for reason in self.reasons)


@dataclass(frozen=True)
class Plan:
    """``changes`` in the order of their addresses; ``untouched`` are the rest.

    With ``targets``, which are names of workspaces, only what these need is changed.
    ``left_out`` are the addresses of the changes that don't concern them: ``untouched``, too,
    unless it is the proxy, of which a part does.
    """

    project: str
    changes: tuple[Change, ...]
    untouched: tuple[str, ...]
    targets: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.changes)

    @property
    def summary(self) -> Mapping[str, int]:
        """How many changes of each action, zeros included."""
        counts = Counter(change.action for change in self.changes)
        return {action.value: counts[action] for action in Action}

    @property
    def workspaces(self) -> frozenset[str]:
        """The names of those that have a container that changes, a companion's included."""
        kinds = ("workspace", "companion")
        addresses = (change.address for change in self.changes)
        return frozenset(workspace_of(a) for a in addresses if a.partition(".")[0] in kinds)

    def addresses(self, kind: str, *actions: Action) -> tuple[str, ...]:
        """The names of changes of a kind (``workspace``, ``network``, ``route``, ``proxy``)."""
        return tuple(
            change.address.partition(".")[2]
            for change in self.changes
            if change.address.partition(".")[0] == kind and change.action in actions
        )

    def change(self, address: str) -> Change | None:
        """The change of an address, if there is one."""
        return next((change for change in self.changes if change.address == address), None)


def make_plan(desired: Desired, observed: Observed, targets: Iterable[str] = ()) -> Plan:
    """Compare what should be with what is; with ``targets``, for these workspaces alone."""
    networks = {
        address: _network(address, desired, observed)
        for address in _in_order({*desired.networks, *observed.networks})
    }
    found: dict[str, Change | None] = {
        address: _container(address, desired, observed, networks)
        for address in _in_order({*desired.containers, *observed.containers})
    }
    for address, wanted in desired.containers.items():
        if wanted.holder:
            holder = companion_address(workspace_of(address), HOLDER)
            found[address] = _joined(found[address], address, holder, found[holder], observed)
    found |= networks
    found |= _certificates(desired, observed)
    for address, clone in sorted(desired.clones.items()):
        found[address] = None if address in observed.clones else _clone(address, clone)
    same_routes = desired.files.get(SEEN_FILE) == observed.files.get(SEEN_FILE)
    for address, path in sorted(desired.routes.items()):
        there = workspace_address(workspace_of(address)) in observed.containers
        drift = same_routes and there
        found[address] = _file(address, path, desired, observed, is_drift=drift)
    for path in sorted(set(observed.files) - set(desired.files)):
        # An output folder holds rendered files only: the engine reads no others into observed.
        address = f"route.{path.removeprefix(f'{ROUTES_FOLDER}/').removesuffix('.yaml')}"
        if path == SETUP_FILE:
            address = f"file.{path}"
        reason = Reason("file", path, None)
        found[address] = Change(address, Action.DELETE, (reason,), is_drift=same_routes)
    if not any(found.values()):
        # With changes elsewhere, the compose file differs for their sake, and is written too.
        for path in sorted(set(desired.files) - set(desired.routes.values())):
            if change := _file(f"file.{path}", path, desired, observed, is_drift=True):
                found[change.address] = change
    plan = Plan(
        desired.project,
        changes=tuple(change for change in found.values() if change),
        untouched=tuple(address for address, change in found.items() if not change),
    )
    return _targeted(plan, tuple(sorted(set(targets))), observed)


def _targeted(plan: Plan, targets: tuple[str, ...], observed: Observed) -> Plan:
    """Of a whole plan, what the targets need: what is theirs, and a proxy that runs."""
    if not targets:
        return plan
    proxy = observed.containers.get(PROXY)
    comes_up = proxy is None or not proxy.is_up
    # A proxy that is made is so as it is declared: on all of its networks.
    of_proxy = plan.change(PROXY)
    made = comes_up and of_proxy and of_proxy.action in (Action.CREATE, Action.REPLACE)
    moved = plan.addresses("network", Action.REPLACE) if made else ()
    chosen = []
    for change in plan.changes:
        kind, name = change.address.partition(".")[0], workspace_of(change.address)
        needed = made and (
            change.address == PROXY
            or (kind == "network" and change.action is not Action.DELETE)
            or (kind in ("workspace", "companion") and name in moved)
        )
        if needed or name in targets:
            chosen.append(change)
        elif change.address == PROXY:
            fields = {f"networks.ws-{target}" for target in targets}
            if comes_up:
                fields |= {each.field for each in change.reasons if "networks." not in each.field}
            if reasons := tuple(each for each in change.reasons if each.field in fields):
                action = Action.START if comes_up else Action.UPDATE
                chosen.append(replace(change, action=action, reasons=reasons))
    left_out = tuple(change.address for change in plan.changes if change not in chosen)
    touched = {change.address for change in chosen}
    untouched = (*plan.untouched, *(address for address in left_out if address not in touched))
    return Plan(plan.project, tuple(chosen), untouched, targets, left_out)


def _in_order(addresses: Iterable[str]) -> list[str]:
    """The proxy first, then by name."""
    return sorted(addresses, key=lambda address: (address != PROXY, address))


def _container(
    address: str,
    desired: Desired,
    observed: Observed,
    networks: Mapping[str, Change | None],
) -> Change | None:
    wanted, found = desired.containers.get(address), observed.containers.get(address)
    if found is None and wanted is not None:
        return _missing(address, wanted, observed)
    if wanted is None or found is None:
        return _undeclared(address, observed)

    reasons = list(_differences(wanted, found, observed))
    if wanted.hash != found.hash and all(_in_place(address, reason) for reason in reasons):
        reasons.append(Reason("definition", found.hash, wanted.hash))
    if source_address(wanted.service) in set(desired.clones) - observed.clones:
        reasons.append(Reason("source", "missing", "cloned"))  # it holds a folder that is gone
    moved = list(_moved_networks(wanted, reasons, desired, observed, networks))
    reasons = sorted([*reasons, *moved], key=lambda reason: reason.field)
    setup = _setup(address, found, desired, observed)
    if setup and all(_in_place(address, reason) for reason in reasons):
        reasons.append(setup)
    if address == PROXY and found.running:
        reasons += _unread(desired, observed)
    # A workspace whose command ends again and again is as declared; without the proxy, nothing is.
    if found.state in ("dead", "removing") or (address == PROXY and found.state == "restarting"):
        reasons.append(Reason("state", found.state, "running"))
    drift = (
        wanted.hash == found.hash
        and not any(_is_declared(networks, reason.field) for reason in moved)
        and not any(_is_explained(address, reason, wanted, networks) for reason in reasons)
    )
    if not all(_in_place(address, reason) for reason in reasons):
        return Change(address, Action.REPLACE, tuple(reasons), drift)
    if not found.is_up:
        reasons.append(Reason("state", found.state, "running"))
        return Change(address, Action.START, tuple(reasons), is_drift=found.state != "created")
    if reasons:
        return Change(address, Action.UPDATE, tuple(reasons), drift)
    return None


def _missing(address: str, wanted: DesiredContainer, observed: Observed) -> Change:
    """A container that is new in dual.yaml, or one that somebody removed."""
    last = _map(_map(observed.rendered.get("services")).get(wanted.service))
    if not last:
        return Change(address, Action.CREATE, (Reason("declared", False, True),))
    # A fresh clone has a rendered project, too; networks only where it was applied.
    applied = (
        network_address(EDGE_NETWORK if address == PROXY else f"ws-{workspace_of(address)}")
        in observed.networks
    )
    same = _map(last.get("labels")).get(LABEL_HASH) == wanted.hash
    reason = Reason("container", "missing", "running")
    return Change(address, Action.CREATE, (reason,), is_drift=applied and same)


def _is_explained(
    address: str,
    reason: Reason,
    wanted: DesiredContainer,
    networks: Mapping[str, Change | None],
) -> bool:
    """Whether a difference is nobody's doing, though the definition is what was applied.

    A variable or an image has moved on, or, for the proxy, whose hash leaves its networks out,
    a network comes or goes.
    """
    if reason.field in {*wanted.hidden, "image.id", "build", SETUP}:
        return True
    if reason.field.startswith("env.") and "env_file" in wanted.definition:
        return True  # a variable that stands in no file any more is not hidden, either
    return address == PROXY and reason.before != GONE and _is_declared(networks, reason.field)


def _is_declared(networks: Mapping[str, Change | None], field: str) -> bool:
    """Whether a container's network changes as dual.yaml did, and by nobody's hand."""
    change = networks.get(network_address(field.removeprefix("networks.")))
    return change is not None and not change.is_drift


def _in_place(address: str, reason: Reason) -> bool:
    """Whether a field can be changed on the container that is there.

    The proxy's networks can, but for the one that its published port hangs on: to move that
    is to drop every connection anyway.
    """
    is_network = reason.field.startswith("networks.") and reason.before != GONE
    is_edge = reason.field == f"networks.{EDGE_NETWORK}"
    return reason.field in ("name", *RESTARTED) or (address == PROXY and is_network and not is_edge)


def _undeclared(address: str, observed: Observed) -> Change:
    """A container that nobody declares any more, or that never was dual's."""
    found = observed.containers[address]
    if "#" in address or f"labels.{LABEL_PROJECT}" not in found.fields:
        reason = Reason("container", found.name, None)
        return Change(address, Action.DELETE, (reason,), is_drift=True)
    return Change(address, Action.DELETE, (Reason("declared", True, False),))


def _moved_networks(
    wanted: DesiredContainer,
    known: Iterable[Reason],
    desired: Desired,
    observed: Observed,
    networks: Mapping[str, Change | None],
) -> Iterable[Reason]:
    """The networks of a container that are replaced, even where its own address stays."""
    fields = {reason.field for reason in known}
    for address, change in networks.items():
        if change and change.action is Action.REPLACE:
            field = f"networks.{desired.networks[address].key}"
            if field in wanted.fields and field not in fields:
                before, after = observed.networks[address], desired.networks[address]
                if before.subnet != after.subnet:
                    yield Reason(field, before.subnet, after.subnet)
                else:
                    yield Reason(field, before.hash or None, after.hash)


def _unread(desired: Desired, observed: Observed) -> Iterable[Reason]:
    """What a running proxy hasn't read of the files in its folders, for all that it answers.

    It doesn't answer where somebody put it on a network whose name sorts before its own: Docker
    has moved its published port there then.
    """
    if not _follows_its_files(desired, observed):
        yield Reason("routes", observed.routes_seen or "none read", "those in its files")
    if not observed.serves_certificates:
        yield Reason("certificates", "others served", "those in its folder")


def _follows_its_files(desired: Desired, observed: Observed) -> bool:
    """Whether a running proxy has read what stands in its folder.

    It hasn't where that folder was removed: it would go on watching the one that is gone.
    """
    if SEEN_FILE in desired.files and SEEN_FILE not in observed.files:
        return False
    return observed.routes_seen == observed.routes_written


def _joined(
    change: Change | None, address: str, holder: str, held: Change | None, observed: Observed
) -> Change | None:
    """The change of a container that shares the network of another, given that one's change.

    It joined the network that its holder had when it was started itself, and keeps to that one.
    """
    found, there = observed.containers.get(address), observed.containers.get(holder)
    if found is None or there is None or (change and change.action is Action.REPLACE):
        return change
    known = change.reasons if change else ()
    if held and held.action in (Action.CREATE, Action.REPLACE):
        reason = Reason(LOCALHOST, there.service, "made anew")
        return Change(address, Action.REPLACE, (*known, reason), held.is_drift)
    starts = held is not None and held.action is Action.START
    if found.running and (starts or there.instant > found.instant):
        reason = Reason(LOCALHOST, f"that of {there.service} before its last start", "its own now")
        return Change(address, Action.UPDATE, (*known, reason), is_drift=True)
    return change


def _setup(
    address: str, found: ObservedContainer, desired: Desired, observed: Observed
) -> Reason | None:
    """Why the setup of a running workspace is to run, or None.

    One that goes on is none of a plan's business. Where the container doesn't run, or is made
    anew, the setup is asked for at its start anyway.
    """
    setup, wanted = observed.setups.get(address), desired.setups.get(address)
    if not found.running or setup is None or wanted is None:
        return None
    match setup.state:
        case "asked":
            return Reason(SETUP, "asked for, and never begun", "done")
        case "failed":
            return Reason(SETUP, f"failed with exit code {setup.exit_code}", "done")
        case "done" if setup.hashes and wanted not in setup.hashes:
            return Reason(SETUP, "done, and out of date", "done")
    return None


def _differences(
    wanted: DesiredContainer, found: ObservedContainer, observed: Observed
) -> Iterable[Reason]:
    """Field by field; what the spec leaves open is expected to be what the image says."""
    image = observed.images.get(wanted.image)
    if image is None:
        # Its name is gone, it is not; or the new one isn't here yet, and may say the same.
        image = observed.images.get(found.image_id)
    inherited: Fields = image.fields if image else {}
    for field in sorted({*wanted.fields, *found.fields}):
        after = wanted.fields.get(field, inherited.get(field))
        before = found.fields.get(field)
        if before != after:
            yield _reason(field, before, after, wanted, found, observed)
    if image and image.id != found.image_id and wanted.image == found.image:
        yield Reason("image.id", found.image_id, image.id)


_COMPOSE_KEYS = {
    "resources.cpus": "cpus",
    "resources.memory": "mem_limit",
    "mounts": "volumes",
}
"""Where a field stands in a service of the compose file, if not under its own first name."""


def _reason(
    field: str,
    before: Any,
    after: Any,
    wanted: DesiredContainer,
    found: ObservedContainer,
    observed: Observed,
) -> Reason:
    if field in wanted.hidden and after is not None:
        after = HIDDEN
    if before is not None and _may_be_secret(field, before, wanted, found, observed):
        before = HIDDEN
    return Reason(field, before, after)


def _may_be_secret(
    field: str,
    value: Any,
    wanted: DesiredContainer,
    found: ObservedContainer,
    observed: Observed,
) -> bool:
    """Whether a value of what runs came out of a variable or a file, for all that is known.

    The container's own record tells. It can't tell of a variable that dual.yaml doesn't have:
    that one is shown only where the last render spelt it out, which also goes for all where
    there is no record.
    """
    recorded = found.hidden
    is_env = field.startswith("env.")
    if recorded is not None and (
        not is_env or field in wanted.fields or {field, ENV_FILE} & recorded
    ):
        return field in recorded or (is_env and ENV_FILE in recorded)
    service = _map(_map(observed.rendered.get("services")).get(wanted.service))
    if is_env:
        spelt = _map(service.get("environment")).get(field.removeprefix("env."))
        return has_references(str(spelt)) or str(spelt).replace("$$", "$") != value
    key = field if field in _COMPOSE_KEYS else field.partition(".")[0]
    last = service.get(_COMPOSE_KEYS.get(key, key), "")
    return field in wanted.hidden or has_references(str(last))


def _map(value: Any) -> Mapping[str, Any]:
    """A part of the compose file that stands there: someone may have made anything of it."""
    return value if isinstance(value, dict) else {}


def _network(address: str, desired: Desired, observed: Observed) -> Change | None:
    wanted, found = desired.networks.get(address), observed.networks.get(address)
    if found is None and wanted is not None:
        left = any(
            each.fields.get(f"networks.{wanted.key}") == GONE
            for each in observed.containers.values()
        )
        reason = Reason("subnet", None, wanted.subnet)
        return Change(address, Action.CREATE, (reason,), is_drift=left)
    if wanted is None or found is None:
        found = observed.networks[address]
        if found.hash:
            return Change(address, Action.DELETE, (Reason("declared", True, False),))
        reason = Reason("network", found.name, None)  # never was dual's
        return Change(address, Action.DELETE, (reason,), is_drift=True)
    if wanted.subnet != found.subnet:
        reason = Reason("subnet", found.subnet, wanted.subnet)
    elif wanted.internal != found.internal:
        reason = Reason("egress", not found.internal, not wanted.internal)
    elif wanted.hash != found.hash:
        reason = Reason("definition", found.hash or None, wanted.hash)
    else:
        return None
    # One without the record of a definition was not made from dual.yaml.
    drift = found.hash in ("", wanted.hash)
    return Change(address, Action.REPLACE, (reason,), is_drift=drift)


def _clone(address: str, clone: DesiredClone) -> Change:
    """A clone that isn't there yet. One that is there is never touched, whatever it is at."""
    branch = [Reason("branch", None, clone.branch)] if clone.branch else []
    return Change(address, Action.CREATE, (*branch, Reason("git", None, clone.git)))


def _certificates(desired: Desired, observed: Observed) -> dict[str, Change | None]:
    """Those of a workspace's hosts go together: what is wrong with one tells its name."""
    reasons: dict[str, list[Reason]] = {}
    for name, wanted in sorted(desired.certificates.items()):
        ours = reasons.setdefault(wanted.address, [])
        if flaw := observed.flaws.get(name):
            ours.append(Reason(name, flaw, "copied" if wanted.is_own else "made anew"))
    return {
        address: Change(address, Action.UPDATE, tuple(ours)) if ours else None
        for address, ours in sorted(reasons.items())
    }


_HASHED = re.compile(r"\.basicAuth\.users\.")
# Whoever edited a service may have written values into it, as `docker compose config` does.
_SPELT_OUT = re.compile(rf"^services\.|{_HASHED.pattern}")


def _file(
    address: str, path: str, desired: Desired, observed: Observed, *, is_drift: bool
) -> Change | None:
    before, after = observed.files.get(path), desired.files[path]
    if before is None:
        return Change(address, Action.CREATE, (Reason("file", None, path),), is_drift)
    if before == after:
        return None
    old, new = (_flat(dict(read_rendered(text))) for text in (before, after))
    old_shown = {key: HIDDEN if _SPELT_OUT.search(key) else old[key] for key in old}
    new_shown = {key: HIDDEN if _HASHED.search(key) else new[key] for key in new}
    reasons = [
        Reason(key, old_shown.get(key), new_shown.get(key))
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]
    edited = (Reason("text", "edited", "rendered"),)
    return Change(address, Action.UPDATE, tuple(reasons) or edited, is_drift)


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
