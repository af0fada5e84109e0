"""A rendered service → the flat fields that a plan compares.

The names follow dual.yaml where it has one. What is left out of a service has no field, and
is expected to be what the image says.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dual_iac.envfile import expand_home, read_env_file
from dual_iac.interpolation import InterpolationError, has_references, substitute
from dual_iac.model import format_duration, parse_duration, size_in_bytes
from dual_iac.state import (
    ENV_FILE,
    LABEL_BUILD,
    LABEL_HASH,
    LABEL_HIDDEN,
    NETWORK_MODE,
    Fields,
)
from dual_iac.words import split

LIMITS = {
    "cpu_shares": "CpuShares",
    "cpu_quota": "CpuQuota",
    "cpu_period": "CpuPeriod",
    "cpuset": "CpusetCpus",
    "mem_reservation": "MemoryReservation",
    "memswap_limit": "MemorySwap",
}
"""Limits that only a user's template or ``docker update`` sets: Compose's name, and Docker's."""

NAMESPACES = {
    "pid": "pid_mode",
    "ipc": "ipc_mode",
    "uts": "uts_mode",
    "userns_mode": "userns_mode",
}
"""Namespaces that a container may share with this machine: Compose's key, and the field."""

HEALTH_TIMES = {"interval": "Interval", "timeout": "Timeout", "start_period": "StartPeriod"}
"""The durations of a healthcheck: Compose's name, and Docker's."""

_UNLABELLED = frozenset({"label=disable", "label:disable"})
_OTHERS_LABELS = ("com.docker.", "desktop.docker.io/", "io.podman.")


def compared_labels(labels: Mapping[str, str] | None) -> Iterable[tuple[str, str]]:
    """Labels as fields, without those that engines and Compose add, and the records."""
    for name, value in (labels or {}).items():
        if name == LABEL_BUILD:
            yield "build", value
        elif name not in (LABEL_HASH, LABEL_HIDDEN) and not name.startswith(_OTHERS_LABELS):
            yield f"labels.{name}", value


def recorded_hidden(definition: Mapping[str, Any], hidden: Iterable[str]) -> list[str]:
    """Of a service's hidden fields, those that its definition tells without its files.

    So they are the same on every machine, and can stand in the rendered file.
    """
    fields = {field for field in hidden if not field.startswith("env.")}
    for name, value in definition.get("environment", {}).items():
        if value is None or has_references(str(value)):
            fields.add(f"env.{name}")
    return sorted(fields | ({ENV_FILE} if definition.get("env_file") else set()))


_OWN_REFERENCE = re.compile(r"\$\{DUAL_USER:-\}")


def _is_secret(text: str) -> bool:
    """Whether a value comes out of the user's variables: dual's own hold no secret."""
    return has_references(_OWN_REFERENCE.sub("", text))


def security_options(options: Iterable[str] | None) -> tuple[str, ...]:
    """Without what Docker itself adds to a container that shares a namespace of the host."""
    return tuple(sorted(each for each in options or () if each not in _UNLABELLED))


def capabilities(names: Iterable[str] | None) -> tuple[str, ...]:
    """Capabilities as Docker compares them: ``NET_ADMIN`` and ``CAP_NET_ADMIN`` are one."""
    return tuple(sorted(name.upper().removeprefix("CAP_") for name in names or ()))


def desired_fields(
    service: str,
    definition: Mapping[str, Any],
    folder: Path,
    environment: Mapping[str, str],
    project: str,
) -> tuple[Fields, frozenset[str]]:
    """The fields of one service of a compose file in ``folder``, and the names of hidden ones.

    Raises :class:`InterpolationError` where a required variable is missing.
    """
    hidden: set[str] = set()

    def read(field: str, value: Any) -> str:
        text = str(value)
        if _is_secret(text):
            hidden.add(field)
        return substitute(text, environment)

    fields: dict[str, Any] = {
        "image": read("image", definition["image"]),
        "name": definition.get("container_name", f"{project}-{service}-1"),
    }
    if not fields["image"]:
        raise InterpolationError("its image comes to nothing, with variables filled in")
    for key in ("command", "entrypoint"):
        words = definition.get(key)
        if isinstance(words, str):
            fields[key] = split(read(key, words))
        elif words is not None:
            fields[key] = tuple(read(key, word) for word in words)
    for key in ("user", "working_dir", "hostname", "restart"):
        if key in definition and (value := read(key, definition[key])):
            fields[key] = value
    for key in ("init", "read_only", "privileged"):
        if definition.get(key):
            fields[key] = True
    for key in ("cap_add", "cap_drop"):
        if definition.get(key):
            fields[key] = capabilities(definition[key])
    for key, field in NAMESPACES.items():
        if definition.get(key, "private") != "private":
            fields[field] = read(field, definition[key])
    for name, value in (definition.get("sysctls") or {}).items():
        fields[f"sysctls.{name}"] = read(f"sysctls.{name}", value)
    for key in ("dns", "dns_opt"):
        if definition.get(key):
            fields[key] = tuple(read(key, each) for each in definition[key])
    if security := security_options(definition.get("security_opt")):
        fields["security_opt"] = security
    if definition.get("group_add"):
        fields["group_add"] = tuple(sorted(map(str, definition["group_add"])))
    if definition.get("devices"):
        fields["devices"] = tuple(sorted(map(_device, definition["devices"])))
    tmpfs = definition.get("tmpfs", ())
    for text in [tmpfs] if isinstance(tmpfs, str) else tmpfs:
        target, _, options = text.partition(":")
        fields[f"tmpfs.{target}"] = options

    limits = {**((definition.get("deploy") or {}).get("resources") or {}).get("limits", {})}
    cpus = definition.get("cpus", limits.get("cpus"))
    if cpus is not None:
        fields["resources.cpus"] = float(read("resources.cpus", cpus))
    memory = definition.get("mem_limit", limits.get("memory"))
    if memory is not None:
        fields["resources.memory"] = size_in_bytes(read("resources.memory", memory))
    pids = definition.get("pids_limit", limits.get("pids"))
    if pids is not None:
        fields["resources.pids"] = int(read("resources.pids", pids))
    for key in LIMITS:
        if key not in definition:
            continue
        text = read(f"resources.{key}", definition[key])
        if text in ("0", "-1") and key != "cpuset":  # unlimited
            continue
        fields[f"resources.{key}"] = size_in_bytes(text) if key.startswith("mem") else text
    if fields.get("resources.memswap_limit") == 2 * fields.get("resources.memory", 0):
        del fields["resources.memswap_limit"]  # Docker's own choice, as if nobody had said so

    for name, value, secret in _environment(definition, folder, environment):
        field = f"env.{name}"
        fields[field] = value
        if secret:
            hidden.add(field)
        else:
            hidden.discard(field)
    for mount in definition.get("volumes", ()):
        field = f"mounts.{substitute(mount['target'], environment)}"
        if mount["type"] == "bind":
            source = expand_home(read(field, mount["source"]))
            fields[field] = f"bind {os.path.realpath(folder / source)}"
        else:
            fields[field] = f"volume {project}_{mount['source']}"
        if mount.get("read_only"):
            fields[field] += " (read-only)"
    for port in definition.get("ports", ()):
        published = f"{port['host_ip']}:{port['published']}"
        fields[f"ports.{port['target']}/{port.get('protocol', 'tcp')}"] = published
    for key, network in definition.get("networks", {}).items():
        fields[f"networks.{key}"] = (network or {}).get("ipv4_address", "")
    if definition.get(NETWORK_MODE):
        fields[NETWORK_MODE] = read(NETWORK_MODE, definition[NETWORK_MODE])
    health = definition.get("healthcheck") or {}
    if test := health.get("test"):
        words = ["CMD-SHELL", test] if isinstance(test, str) else test
        fields["healthcheck.test"] = tuple(read("healthcheck.test", word) for word in words)
    for key in HEALTH_TIMES:
        if key in health:
            fields[f"healthcheck.{key}"] = format_duration(parse_duration(str(health[key])))
    if "retries" in health:
        fields["healthcheck.retries"] = int(health["retries"])
    for field, value in compared_labels(definition.get("labels")):
        fields[field] = read(field, value)
    return fields, frozenset(hidden)


def _device(text: str) -> str:
    """A device in Compose's short notation, with all that it may leave out."""
    host, target, permissions, *_ = [*text.split(":"), "", ""]
    return f"{host}:{target or host}:{permissions or 'rwm'}"


def _environment(
    definition: Mapping[str, Any], folder: Path, environment: Mapping[str, str]
) -> list[tuple[str, str, bool]]:
    """Names, values and whether a value must stay hidden; later ones win."""
    variables: list[tuple[str, str, bool]] = []
    for each in definition.get("env_file", ()):
        path = Path(os.path.normpath(folder / expand_home(substitute(each["path"], environment))))
        variables += [(*item, True) for item in read_env_file(path, environment).items()]
    for name, value in definition.get("environment", {}).items():
        if value is not None:
            text = str(value)
            variables.append((name, substitute(text, environment), has_references(text)))
        elif name in environment:
            variables.append((name, environment[name], True))
    return variables
