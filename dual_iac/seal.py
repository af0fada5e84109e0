"""What seals a container off, and what ``allow:`` in dual.yaml may give it besides.

A grant is one word: the name of a capability (``NET_ADMIN``), one of :data:`GRANTS`, or a folder of
this machine that is the system's or the user's own, and that a container may mount (``/etc``,
``~``). :func:`breaches` reads a rendered service, so that it sees what a user's own template does.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL"),
    *("NET_BIND_SERVICE", "SETGID", "SETUID", "SYS_CHROOT"),
)
"""What a container keeps. npm, apt and PostgreSQL live with these; of what Docker would give
besides, NET_RAW forges packets, MKNOD makes devices, and the others aren't missed."""

_DOCKERS_OWN = frozenset({*CAPABILITIES, "AUDIT_WRITE", "MKNOD", "NET_RAW", "SETFCAP", "SETPCAP"})

KNOWN_CAPABILITIES = frozenset(
    {
        *_DOCKERS_OWN,
        *("AUDIT_CONTROL", "AUDIT_READ", "BLOCK_SUSPEND", "BPF", "CHECKPOINT_RESTORE"),
        *("DAC_READ_SEARCH", "IPC_LOCK", "IPC_OWNER", "LEASE", "LINUX_IMMUTABLE"),
        *("MAC_ADMIN", "MAC_OVERRIDE", "NET_ADMIN", "NET_BROADCAST", "PERFMON", "SYSLOG"),
        *("SYS_ADMIN", "SYS_BOOT", "SYS_MODULE", "SYS_NICE", "SYS_PACCT", "SYS_PTRACE"),
        *("SYS_RAWIO", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "WAKE_ALARM"),
    }
)

PRIVILEGED = "privileged"
NEW_PRIVILEGES = "new-privileges"
DOCKER_SOCKET = "docker-socket"
UNCONFINED = "unconfined"

GRANTS: Mapping[str, str] = {
    PRIVILEGED: "everything that root of this machine may do",
    NEW_PRIVILEGES: "sudo, and other programs that make somebody else of who runs them",
    DOCKER_SOCKET: "the engine's socket, and with it root of this machine",
    UNCONFINED: "no seccomp, no AppArmor",
    "host-ipc": "shared memory with this machine's processes",
    "host-pid": "this machine's processes",
    "host-network": "this machine's network; by a template of your own, dual's doesn't do it",
}
"""What ``allow`` may name besides capabilities and folders, and what it gives."""

SOCKET = "/var/run/docker.sock"
_SOCKETS = frozenset({"docker.sock", "containerd.sock", "podman.sock", "crio.sock"})

_SYSTEM = (
    *("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/run"),
    *("/sbin", "/sys", "/usr/bin", "/usr/include", "/usr/lib", "/usr/libexec", "/usr/sbin"),
    *("/usr/share", "/var/lib/containerd", "/var/lib/docker", "/var/log", "/var/run", "/var/spool"),
    *("/System", "/Library", "/private/etc", "/private/var/db", "/private/var/run"),  # macOS
)
"""Folders that are the system's own, with all in them."""


@dataclass(frozen=True)
class Breach:
    """Something in a service that only ``grant``, named under ``allow``, would let it have.

    An empty grant: nothing would.
    """

    grant: str
    what: str


def system_folder(path: str) -> str | None:
    """What ``path`` of this machine would lay open, in words; None if that is nobody's own.

    It is absolute, with no link in it.
    """
    for each in _system_folders():
        if _within(path, each) or _within(each, path):
            return f"{each} is the system's own"
    home = os.path.realpath(Path.home())
    if home != "/" and _within(home, path):
        return "your home folder has keys in it"
    return None


@cache
def _system_folders() -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(os.path.realpath, _SYSTEM)))


def is_granted(path: str, allow: Iterable[str]) -> bool:
    """Whether ``allow`` names that folder, or one that it is in."""
    folders = (os.path.realpath(Path(each).expanduser()) for each in allow if each[0] in "/~")
    return any(_within(path, each) for each in folders)


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def breaches(
    definition: Mapping[str, Any], fields: Mapping[str, Any], allow: Collection[str]
) -> Iterator[Breach]:
    """What a service has that it shouldn't, and that ``allow`` doesn't name.

    ``fields`` are those that :func:`dual_iac.fields.desired_fields` makes of its ``definition``.
    """
    if PRIVILEGED in allow:
        return
    for breach in (*_namespaces(definition), *_rights(fields), *_devices(fields)):
        if breach.grant not in allow:
            yield breach
    for field, value in sorted(fields.items()):
        if field.startswith("mounts.") and str(value).startswith("bind "):
            source = str(value).removeprefix("bind ").removesuffix(" (read-only)")
            yield from _mount(source, allow)
        if field.startswith("ports."):
            yield Breach("", f"it publishes a port on this machine ({value})")


def _namespaces(definition: Mapping[str, Any]) -> Iterator[Breach]:
    for key, kind in (
        ("network_mode", "network"),
        ("pid", "pid"),
        ("ipc", "ipc"),
        ("uts", "uts"),
        ("userns_mode", "userns"),
        ("cgroup", "cgroup"),
    ):
        if definition.get(key) == "host":
            grant = f"host-{kind}"
            yield Breach(grant if grant in GRANTS else PRIVILEGED, f"{key} is host")


def _rights(fields: Mapping[str, Any]) -> Iterator[Breach]:
    if fields.get("privileged"):
        yield Breach(PRIVILEGED, "it is privileged")
    added, dropped = set(fields.get("cap_add", ())), set(fields.get("cap_drop", ()))
    if "ALL" in added:
        yield Breach(PRIVILEGED, "it has all capabilities")
    kept = (set() if "ALL" in dropped else _DOCKERS_OWN - dropped) | (added - {"ALL"})
    for name in sorted(kept - set(CAPABILITIES)):
        yield Breach(name, f"it has the capability {name}")
    options = {str(each).replace("=", ":") for each in fields.get("security_opt", ())}
    if not options & {"no-new-privileges", "no-new-privileges:true"}:
        yield Breach(NEW_PRIVILEGES, "its programs may gain privileges")
    for each in sorted(options):
        if each.endswith(":unconfined"):
            yield Breach(UNCONFINED, f"{each.partition(':')[0]} is off")


def _devices(fields: Mapping[str, Any]) -> Iterator[Breach]:
    for each in fields.get("devices", ()):
        device = str(each).partition(":")[0]
        yield Breach(device, f"it has the device {device}")


def _mount(source: str, allow: Collection[str]) -> Iterator[Breach]:
    if source.rpartition("/")[2] in _SOCKETS:
        if DOCKER_SOCKET not in allow:
            yield Breach(DOCKER_SOCKET, f"it mounts {source}")
    elif not is_granted(source, allow) and (why := system_folder(source)):
        yield Breach(source, f"it mounts {source}, and {why}")
