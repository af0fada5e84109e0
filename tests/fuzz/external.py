"""What the real Compose and the real Traefik make of inputs that were accepted."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dual_iac import authority
from dual_iac.errors import DualError
from dual_iac.interpolation import starts_with_reference, substitute
from dual_iac.model import Network, Project, Proxy, format_duration, parse_duration
from dual_iac.output import (
    CERTIFICATES_FOLDER,
    CERTIFICATES_INSIDE,
    STATIC_FILE,
    write_files,
)
from dual_iac.render import render
from dual_iac.spec import load_project
from dual_iac.state import Desired
from tests.fuzz.oracle import RECORDS, VARIABLES, Folder, rule_of

COMPOSE = ("docker", "compose")
TRAEFIK_IMAGE = "traefik:v3.7.15"


@dataclass
class Checked:
    """How much was checked, what could not be, and what is wrong."""

    count: int = 0
    skipped: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, other: Checked) -> None:
        self.count += other.count
        self.skipped += other.skipped
        self.wrong += other.wrong


# ── Compose ─────────────────────────────────────────────────────────────────────────────────


def check_with_compose(inputs: Sequence[bytes], jobs: int = 2) -> Checked:
    """Each renders to what Compose takes, and reads as ``desired_fields`` says that it does.

    Passed over are inputs that name files of variables which can't be made here.
    """
    total = Checked()
    with ThreadPoolExecutor(jobs) as pool:
        for checked in pool.map(_check_one, inputs):
            total.add(checked)
    return total


def _check_one(data: bytes) -> Checked:
    with tempfile.TemporaryDirectory() as place:
        folder = Folder.made_in(Path(place))
        folder.spec.write_bytes(data)
        project = load_project(folder.spec)
        if not _make_env_files(project, folder):
            return Checked(skipped=1)
        try:
            desired = render(project, folder.path, environment=VARIABLES)
        except DualError as error:
            return Checked(1, wrong=[f"{error.summary} ({error.why}): {data[:300]!r}"])
        write_files(desired.files, folder.output)
        wrong = compose_differs(desired, folder)
        return Checked(1, wrong=[f"{each}: {data[:1000]!r}" for each in wrong])


def _make_env_files(project: Project, folder: Folder) -> bool:
    """Make the files that Compose would miss. Whether it misses none."""
    for workspace in project.enabled:
        for text in workspace.env_file:
            written = substitute(text, VARIABLES)
            if starts_with_reference(text) and not written.startswith("/"):
                return False  # which dual refuses, before it applies
            path = Path(os.path.normpath(folder.path / written))
            if folder.path not in path.parents:
                if not path.is_file() or path.parent != folder.path.parent:
                    return False
                continue
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            except OSError:
                return False
    return True


def compose_differs(desired: Desired, folder: Folder) -> list[str]:
    """What Compose reads otherwise than dual does, of a project that stands in its folder."""
    done = subprocess.run(
        [*COMPOSE, "-f", str(folder.output / "compose.yaml"), "config", "--format", "json"],
        capture_output=True,
        env=VARIABLES,
        check=False,
        timeout=60,
    )
    if b"key cannot contain a space" in done.stderr:
        return []  # a file of variables that is none: a mistake of the text, not of the rendering
    if done.returncode != 0:
        return [f"Compose refuses it: {done.stderr.decode(errors='replace').strip()[-300:]}"]
    services = json.loads(done.stdout)["services"]
    wanted = {container.service: container.fields for container in desired.containers.values()}
    if services.keys() != wanted.keys():
        return [f"Compose has other services: {sorted(services.keys() ^ wanted.keys())}"]
    return [
        f"{service}.{name}: Compose has {found!r}, dual {expected!r}"
        for service, fields in wanted.items()
        for name, found, expected in _differences(
            _fields(desired.project, services[service]), fields
        )
    ]


def _differences(
    found: Mapping[str, Any], expected: Mapping[str, Any]
) -> Iterable[tuple[str, Any, Any]]:
    for name in sorted(found.keys() | expected.keys() - {"name"}):
        if found.get(name) != expected.get(name):
            yield name, found.get(name), expected.get(name)


_AS_THEY_ARE = ("image", "user", "working_dir", "hostname", "restart", "init", "read_only")


def _fields(project: str, service: Any) -> dict[str, Any]:
    """A service of ``docker compose config`` in the terms of a plan, worked out independently."""
    service = _unescaped(service)
    fields: dict[str, Any] = {key: service[key] for key in _AS_THEY_ARE if service.get(key)}
    for key in ("security_opt", "cap_drop", "cap_add"):
        if service.get(key):
            fields[key] = tuple(sorted(service[key]))
    for key in ("dns", "dns_opt"):
        if service.get(key):
            fields[key] = tuple(service[key])
    for key, name in (("pid", "pid_mode"), ("ipc", "ipc_mode"), ("privileged", "privileged")):
        if service.get(key):
            fields[name] = service[key]
    for name, value in (service.get("sysctls") or {}).items():
        fields[f"sysctls.{name}"] = value
    if service.get("command") is not None:
        fields["command"] = tuple(service["command"])
    for name, value in (service.get("environment") or {}).items():
        if value is not None:
            fields[f"env.{name}"] = value
    for name, value in service["labels"].items():
        if name not in RECORDS:
            fields[f"labels.{name}"] = value
    for name, key in (("cpus", "cpus"), ("memory", "mem_limit"), ("pids", "pids_limit")):
        if service.get(key):
            fields[f"resources.{name}"] = float(service[key])
    for mount in service.get("volumes") or ():
        ending = " (read-only)" if mount.get("read_only") else ""
        named = mount["type"] == "volume"
        source = f"{project}_{mount['source']}" if named else os.path.realpath(mount["source"])
        fields[f"mounts.{mount['target']}"] = f"{mount['type']} {source}{ending}"
    for port in service.get("ports") or ():
        place = f"{port['target']}/{port['protocol']}"
        fields[f"ports.{place}"] = f"{port['host_ip']}:{port['published']}"
    for key, network in (service.get("networks") or {}).items():
        fields[f"networks.{key}"] = network["ipv4_address"]
    if service.get("network_mode"):
        fields["network_mode"] = service["network_mode"]
    health = service.get("healthcheck") or {}
    if health:
        fields["healthcheck.test"] = tuple(health["test"])
        fields["healthcheck.retries"] = health["retries"]
    for key in ("interval", "timeout", "start_period"):
        if key in health:
            duration = parse_duration(health[key].replace("µ", "u"))
            fields[f"healthcheck.{key}"] = format_duration(duration)
    return fields


def _unescaped(value: Any) -> Any:
    """``docker compose config`` writes each dollar sign twice."""
    if isinstance(value, dict):
        return {key: _unescaped(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_unescaped(each) for each in value]
    return value.replace("$$", "$") if isinstance(value, str) else value


# ── Traefik ─────────────────────────────────────────────────────────────────────────────────


def check_with_traefik(inputs: Sequence[bytes]) -> Checked:
    """All their routes, in one Traefik: each is enabled, with its rule, and no error is logged."""
    with tempfile.TemporaryDirectory() as place:
        folder = Folder.made_in(Path(place))
        project = lay_out(inputs, folder)
        return Checked(len(project.enabled), wrong=traefik_differs(folder, project))


def lay_out(inputs: Sequence[bytes], folder: Folder) -> Project:
    """Write all that a Traefik reads of them, as one project, with certificates of an authority."""
    project = _together(inputs, folder)
    desired = render(project, folder.path, environment=VARIABLES)
    write_files(desired.files, folder.output)
    ours = authority.load_or_make(folder.path / "authority")
    live = folder.path / CERTIFICATES_FOLDER
    live.mkdir(parents=True)
    for host in desired.certificates:
        issued = ours.issue(host)
        (live / f"{host}.pem").write_text(issued.chain)
        (live / f"{host}.key").write_text(issued.key)
    return project


def _together(inputs: Sequence[bytes], folder: Folder) -> Project:
    """The workspaces of many projects as one project, each under a name of its own."""
    workspaces = {}
    first: Project | None = None
    for number, data in enumerate(inputs):
        folder.spec.write_bytes(data)
        project = load_project(folder.spec)
        first = first or project
        for workspace in project.enabled:
            name = f"f{number}-{workspace.name[:50]}".rstrip("-")
            hosts = tuple(f"f{number}.{host}"[:253] for host in workspace.host_names)
            update = {"name": name, "host_names": hosts, "env": {}, "env_file": ()}
            workspaces[name] = workspace.model_copy(update=update)
    if first is None:
        raise ValueError("no inputs")
    return Project(
        name=first.name,
        proxy=Proxy(https=3443),
        network=Network(pool="10.0.0.0/8"),
        clones=first.clones,
        workspaces=dict(sorted(workspaces.items())),
    )


def traefik_differs(folder: Folder, project: Project, seconds: float = 30) -> list[str]:
    """What a Traefik that reads what is laid out there has otherwise than the project says.

    It runs as the rendered service does, but for a static configuration of its own: that switches
    its API on, and listens on whatever address the container has.
    """
    read = folder.output / "traefik"
    static = yaml.safe_load((read / "traefik.yaml").read_text()) | {"api": {"insecure": True}}
    for entry in static["entryPoints"].values():
        entry["address"] = f":{entry['address'].rpartition(':')[2]}"
    name = f"dual-fuzz-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory() as place:
        other = Path(place) / Path(STATIC_FILE).name
        other.write_text(yaml.safe_dump(static))
        other.chmod(0o644)
        Path(place).chmod(0o755)
        _docker(
            *("run", "--detach", "--name", name, "--publish", "127.0.0.1::8080"),
            *("--user", "65532:65532", "--read-only", "--cap-drop", "ALL"),
            *("--volume", f"{read}:/etc/traefik:ro", "--volume", f"{place}:/static:ro"),
            "--volume",
            f"{folder.path / CERTIFICATES_FOLDER}:{CERTIFICATES_INSIDE}:ro",
            *(TRAEFIK_IMAGE, "--configfile=/static/traefik.yaml"),
        )
        expected = dict(_expected_routers(project))
        try:
            address = _docker("port", name, "8080/tcp").split()[0]
            found = _routers(address, len(expected), seconds)
            logged = _docker("logs", name)
        finally:
            _docker("rm", "--force", "--volumes", name)
    wrong = [f"Traefik says: {line[:300]}" for line in logged.splitlines() if " ERR " in line]
    missing = sorted(expected.keys() - found.keys())
    more = sorted(found.keys() - expected.keys() - {"traefik@file"})
    wrong += [f"Traefik has no route {each}" for each in missing[:5]]
    wrong += [f"Traefik has a route {each}" for each in more[:5]]
    keys = ("status", "rule", "entryPoints", "middlewares", "service")
    for each in expected.keys() & found.keys():
        looks = tuple(found[each][key] for key in keys)
        if looks != expected[each]:
            wrong.append(f"Traefik has {looks}, expected {expected[each]}")
    return wrong


def _expected_routers(project: Project) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """By its name, what Traefik's API tells of each router: one for each scheme."""
    for workspace in project.enabled:
        own = workspace.name
        passes = [f"{own}@file", *([f"{own}_auth@file"] if workspace.auth else [])]
        for entry, scheme in (("web", "http"), ("websecure", "https")):
            first = f"from_{scheme}@file"
            router = ("enabled", rule_of(workspace), [entry], [first, *passes], own)
            yield f"{entry}-{own}@file", router


def _routers(address: str, count: int, seconds: float) -> dict[str, Any]:
    """The routers out of files that Traefik has; waits until there are ``count``, and one more."""
    end = time.monotonic() + seconds
    url = f"http://{address}/api/http/routers?per_page=100000"
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                listed = json.load(answer)
        except (urllib.error.URLError, OSError):
            listed = []
        found = {each["name"]: each for each in listed if each["provider"] == "file"}
        if len(found) > count or time.monotonic() > end:
            return found
        time.sleep(0.1)  # between two looks


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, check=False, timeout=120)
    said = (done.stdout + done.stderr).decode(errors="replace")
    if done.returncode != 0:
        raise AssertionError(f"docker {' '.join(arguments)}: {said}")
    return re.sub(r"\x1b\[[0-9;]*m", "", said).strip()
