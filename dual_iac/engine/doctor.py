"""What is missing or wrong on this machine, each with its mend."""

from __future__ import annotations

import ipaddress
import json
import re
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from dual_iac import authority
from dual_iac.engine.docker import port_error
from dual_iac.engine.observe import DockerCommand, observe
from dual_iac.errors import DualError, EngineUnreachableError
from dual_iac.model import Project, companion_service
from dual_iac.state import PROXY, Observed

MINIMUM_ENGINE = (20, 10)
MINIMUM_COMPOSE = (2, 24)
COMPOSE_FOR_SERVICES = (5, 3)
"""Tried from here on: containers that share the network of another one, which stays."""


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    check: str
    level: Level
    found: str
    mend: str = ""


def examine(docker: DockerCommand, project: Project | None) -> Iterator[Finding]:
    """Look at the engine, then at what ``project`` needs of it and of this machine."""
    engine = None
    with_services = project is not None and any(each.services for each in project.enabled)
    for finding in _tools(docker, with_services=with_services):
        yield finding
        if finding.check == "engine":
            engine = finding
    yield _local_names(project)
    if project is not None:
        yield from _holes(project)
        if project.proxy.https is not None:
            yield _authority()
    if project is None or engine is None or engine.level is Level.FAILED:
        return
    images = {project.proxy.image, *(workspace.image for workspace in project.enabled)}
    images |= {each.image for workspace in project.enabled for each in workspace.services.values()}
    images |= {project.network.holder} if with_services else set()
    try:
        observed = observe(docker, project.name, {i for i in images if "$" not in i})
    except DualError as error:
        yield Finding("project", Level.FAILED, error.summary, error.mend)
        return
    yield from _ports(project, observed)
    yield from _images(images, observed)
    yield _addresses(docker, project)


def _tools(docker: DockerCommand, *, with_services: bool) -> Iterator[Finding]:
    path = shutil.which("docker")
    if path is None:
        yield Finding(
            "docker command",
            Level.FAILED,
            "not installed",
            "install Docker: https://docs.docker.com/get-started/get-docker/",
        )
        return
    yield Finding("docker command", Level.OK, path)
    try:
        version = docker.run("version", "--format", "{{.Server.Version}}").strip()
    except DualError as error:
        why = error.why.splitlines()[0] if error.why else error.summary
        yield Finding("engine", Level.FAILED, why, _mend(error))
    else:
        yield _at_least("engine", version, MINIMUM_ENGINE, "update Docker")
    try:
        version = docker.run("compose", "version", "--short").strip()
    except DualError:
        mend = "install it: https://docs.docker.com/compose/install/"
        yield Finding("compose", Level.FAILED, "not installed", mend)
    else:
        found = _at_least("compose", version, MINIMUM_COMPOSE, "update the Compose plugin")
        newer = _at_least("compose", version, COMPOSE_FOR_SERVICES, "")
        if with_services and found.level is Level.OK and newer.level is Level.FAILED:
            what = f"{version}; workspaces with services were tried with 5.3 and newer"
            found = Finding("compose", Level.WARNING, what, "update the Compose plugin")
        yield found


def _mend(error: DualError) -> str:
    if not isinstance(error, EngineUnreachableError):
        return error.mend
    if "permission denied" in error.why.lower():
        return "sudo usermod -aG docker $USER, then log in anew; or use rootless Docker"
    return "start Docker: Docker Desktop, or sudo systemctl start docker"


def _at_least(check: str, version: str, minimum: tuple[int, int], mend: str) -> Finding:
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    wanted = ".".join(map(str, minimum))
    if numbers < minimum:
        return Finding(check, Level.FAILED, f"{version}; {wanted} is needed", mend)
    return Finding(check, Level.OK, version)


def _local_names(project: Project | None) -> Finding:
    domain = project.proxy.domain if project else "localhost"
    name = f"dual-doctor.{domain}"
    try:
        addresses = {str(each[4][0]) for each in socket.getaddrinfo(name, 80)}
    except OSError:
        return Finding(
            "host names",
            Level.WARNING,
            f"this system does not resolve {name}",
            "browsers and curl do for *.localhost all by themselves; for other programs "
            "send a Host header, or install nss-myhostname (libnss-myhostname)",
        )
    return Finding("host names", Level.OK, f"*.{domain} is {', '.join(sorted(addresses))}")


def _holes(project: Project) -> Iterator[Finding]:
    """What dual.yaml opens of what is sealed by itself."""
    for workspace in project.enabled:
        allowed = {workspace.name: workspace.allow}
        for name, companion in workspace.services.items():
            allowed[companion_service(workspace.name, name)] = companion.allow
        for name, words in allowed.items():
            if words:
                mend = "take from its allow: what it does without"
                yield Finding("seal", Level.WARNING, f"{name} may {', '.join(words)}", mend)
    bind, open_to_all = project.proxy.bind, [w.name for w in project.enabled if not w.auth]
    if not ipaddress.ip_address(bind).is_loopback and open_to_all:
        yield Finding(
            "seal",
            Level.WARNING,
            f"whoever reaches this machine's {bind} reaches {', '.join(open_to_all)}, and so do "
            "other workspaces",
            "give them auth:, or leave out proxy.bind",
        )


def _authority() -> Finding:
    """Who signs the certificates; whether programs trust it, each of them must tell."""
    try:
        found = authority.load()
    except DualError as error:
        return Finding("authority", Level.FAILED, f"{error.summary}: {error.why}", error.mend)
    if found is None:
        what = "there is none yet; dual apply makes one"
        return Finding("authority", Level.OK, what, "have this machine trust it: dual trust")
    return Finding("authority", Level.OK, f"{found.name}, until {found.ends:%Y-%m-%d}")


def _ports(project: Project, observed: Observed) -> Iterator[Finding]:
    proxy, bind = project.proxy, project.proxy.bind
    ports = [("http", bind, proxy.http)]
    if proxy.https is not None:
        ports.append(("https", bind, proxy.https))
    if proxy.dashboard:
        ports.append(("dashboard_port", "127.0.0.1", proxy.dashboard_port))
    found = observed.containers.get(PROXY)
    served = {str(value) for value in found.fields.values()} if found and found.running else set()
    for key, address, port in ports:
        if f"{address}:{port}" in served:
            yield Finding("port", Level.OK, f"{port} is served by this project's proxy")
        elif error := port_error(address, port):
            mend = f"end what listens on {port}, or give another port as proxy.{key}"
            yield Finding("port", Level.FAILED, f"{address}:{port}: {error}", mend)
        else:
            yield Finding("port", Level.OK, f"{port} is free")


def _images(wanted: set[str], observed: Observed) -> Iterator[Finding]:
    for image in sorted(image for image in wanted if "$" not in image):
        if image in observed.images:
            yield Finding("image", Level.OK, f"{image} is here")
        else:
            yield Finding("image", Level.WARNING, f"{image} is not here", "dual apply pulls it")


def _addresses(docker: DockerCommand, project: Project) -> Finding:
    """Does any other network on the engine overlap the pool?"""

    pool = ipaddress.ip_network(project.network.pool)
    ids = docker.run("network", "ls", "--quiet").split()
    others = []
    for data in json.loads(docker.run("network", "inspect", *ids, partial=True) or "[]"):
        labels = data.get("Labels") or {}
        if labels.get("com.docker.compose.project") == project.name:
            continue
        for config in data["IPAM"].get("Config") or ():
            subnet = ipaddress.ip_network(config.get("Subnet", "0.0.0.0/32"))
            # Another dual project's small networks may share the pool; they seldom meet.
            if subnet.version == 4 and subnet.overlaps(pool) and subnet.prefixlen < 29:
                others.append(f"{data['Name']} has {subnet}")
    if others:
        mend = "give another range as network.pool, such as 10.214.0.0/16"
        return Finding("addresses", Level.WARNING, "; ".join(others), mend)
    return Finding("addresses", Level.OK, f"{pool} is free of other networks")
