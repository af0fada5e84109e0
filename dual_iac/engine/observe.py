"""What is: containers, networks and images of a project, in a constant number of calls.

python-on-whales inspects one object a call; a project has a hundred. So observing asks the
docker command line for all of them at once, and copies what counts into values of our own.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dual_iac.engine.errors import engine_error
from dual_iac.errors import DualError
from dual_iac.fields import capabilities
from dual_iac.model import PROXY_SERVICE
from dual_iac.render import COMPOSE_FILE, ROUTES_FOLDER, read_rendered, routes_written
from dual_iac.state import (
    LABEL_HASH,
    LABEL_PROJECT,
    LABEL_WORKSPACE,
    PROXY,
    Fields,
    Observed,
    ObservedContainer,
    ObservedImage,
    ObservedNetwork,
    network_address,
    workspace_address,
)

_PROJECT = "com.docker.compose.project"
_SERVICE = "com.docker.compose.service"
_NETWORK = "com.docker.compose.network"
_FOLDER = "com.docker.compose.project.working_dir"
_ONE_OFF = "com.docker.compose.oneoff"

# Docker Desktop shows a host path as its virtual machine sees it.
_DESKTOP_PREFIXES = ("/host_mnt", "/run/desktop/mnt/host")

_SWITCHED_OFF = frozenset({("restart", "no"), ("working_dir", "/")})


class DockerCommand:
    """The docker command line, for one context."""

    def __init__(self, context: str | None = None) -> None:
        self.argv = ("docker", *(("--context", context) if context else ()))

    def run(self, *arguments: str, partial: bool = False) -> str:
        """Its standard output. ``partial`` takes what there is where some names are unknown.

        Raises what :func:`engine_error` makes of a failure.
        """
        try:
            done = subprocess.run(
                [*self.argv, *arguments], capture_output=True, text=True, check=False
            )
        except OSError as error:
            raise engine_error(str(error)) from None
        unknown = "no such" in done.stderr.lower() or "not found" in done.stderr.lower()
        if done.returncode != 0 and not (partial and unknown):
            raise engine_error(done.stderr)
        return done.stdout


def observe(
    docker: DockerCommand, project: str, images: Iterable[str], output: Path | None = None
) -> Observed:
    """All there is of ``project``, and the ``images`` it wants, as far as they are there."""
    label = f"label={_PROJECT}={project}"
    container_ids = docker.run("ps", "--all", "--quiet", "--no-trunc", "--filter", label).split()
    network_ids = docker.run("network", "ls", "--quiet", "--no-trunc", "--filter", label).split()
    inspected = _inspect(docker, "inspect", [*container_ids, *network_ids])
    _refuse_foreign(inspected, project)
    if output:
        _refuse_other_checkout(inspected, project, output)
    containers = {}
    networks = {}
    wanted = set(images)
    for data in sorted(inspected, key=_container_number):
        if "HostConfig" in data:
            container = observed_container(data, project)
            if data["Config"]["Labels"].get(_ONE_OFF) != "True":
                address = (
                    PROXY
                    if container.service == PROXY_SERVICE
                    else workspace_address(container.service)
                )
                # Of several containers of one service, those after the first are in excess.
                containers[f"{address}#{container.name}" if address in containers else address] = (
                    container
                )
                wanted.add(container.image_id)
        else:
            network = observed_network(data)
            networks[network_address(network.key)] = network
    found = _inspect(docker, "image", ["inspect", *sorted(wanted)] if wanted else [])
    files = read_output(output) if output else {}
    rendered = read_rendered(files.get(COMPOSE_FILE, ""))
    if output and rendered.get("name", project) != project:
        _refuse_shared_output(docker, str(rendered["name"]), project, output)
    return Observed(
        containers=containers,
        networks=networks,
        images=_images_by_name(found, wanted),
        files=files,
        rendered=rendered,
        routes_written=routes_written(files),
    )


def observe_workspace(docker: DockerCommand, project: str, name: str) -> ObservedContainer | None:
    """The container of one workspace, and nothing else: what ``exec`` has to know."""
    filters = (f"label={_PROJECT}={project}", f"label={_SERVICE}={name}")
    arguments = [word for each in filters for word in ("--filter", each)]
    ids = docker.run("ps", "--all", "--quiet", "--no-trunc", *arguments).split()
    inspected = sorted(_inspect(docker, "inspect", ids), key=_container_number)
    _refuse_foreign(inspected, project)
    for data in inspected:
        if data["Config"]["Labels"].get(_ONE_OFF) != "True":
            return observed_container(data, project)
    return None


def _refuse_foreign(inspected: Iterable[Any], project: str) -> None:
    """Another compose project that happens to have this name is none of dual's business."""
    foreign = [
        data["Name"].removeprefix("/")
        for data in inspected
        if LABEL_PROJECT not in ((data.get("Config") or data).get("Labels") or {})
    ]
    if foreign:
        raise DualError(
            f"The project name {project} is taken by a compose project that isn't dual's",
            why=f"it has {', '.join(sorted(foreign))}; dual leaves them alone",
            mend="give another name as project: in dual.yaml, or take that project down yourself",
        )


def _refuse_other_checkout(inspected: Iterable[Any], project: str, output: Path) -> None:
    """A second clone, or a git worktree, must not take over what runs from the first one.

    A folder that isn't there any more has no claim: the project was moved.
    """
    for data in inspected:
        labels = (data.get("Config") or {}).get("Labels") or {}
        folder = labels.get(_FOLDER)
        if not folder or not (Path(folder) / COMPOSE_FILE).is_file():
            continue
        if os.path.realpath(folder) != os.path.realpath(output):
            raise DualError(
                f"Project {project} runs from another folder",
                why=f"it was applied from {Path(folder).parent}",
                mend="give this copy a project: and a proxy.http of its own, work in that folder, "
                "or run dual destroy there first",
            )


def _refuse_shared_output(docker: DockerCommand, other: str, project: str, output: Path) -> None:
    """An output folder that another project still runs from is not this one's to write."""
    filters = (f"label={_PROJECT}={other}", f"label={_FOLDER}={output}")
    arguments = [word for each in filters for word in ("--filter", each)]
    names = docker.run("ps", "--all", "--format", "{{.Names}}", *arguments).split()
    if names:
        raise DualError(
            f"Project {other} still runs from {output}",
            why=f"rendering {project} there would take its routes away: {', '.join(sorted(names))}",
            mend=f"take it down first (docker compose -p {other} down keeps its volumes), "
            f"or put the dual.yaml of {project} into a folder of its own",
        )


def _inspect(docker: DockerCommand, command: str, arguments: Sequence[str]) -> list[Any]:
    if not arguments:
        return []
    data = json.loads(docker.run(command, *arguments, partial=True) or "[]")
    return list(data)


def _container_number(data: Mapping[str, Any]) -> int:
    labels = (data.get("Config") or {}).get("Labels") or {}
    number = labels.get("com.docker.compose.container-number", "0")
    return int(number) if number.isdecimal() else 0


def read_output(output: Path) -> dict[str, str]:
    """The rendered files that stand in an output directory, by their paths in it."""
    routes = sorted((output / ROUTES_FOLDER).glob("*.yaml"))
    files = {}
    for path in (output / COMPOSE_FILE, output / "traefik/traefik.yaml", *routes):
        try:
            files[path.relative_to(output).as_posix()] = path.read_text("utf-8")
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, UnicodeDecodeError):  # whatever stands there, it is no rendered file
            files[path.relative_to(output).as_posix()] = ""
    return files


def observed_container(data: Mapping[str, Any], project: str) -> ObservedContainer:
    """A container, from what ``docker inspect`` says of it."""
    config, state = data["Config"], data["State"]
    labels = config.get("Labels") or {}
    health = state.get("Health") or {}
    return ObservedContainer(
        id=data["Id"],
        name=data["Name"].removeprefix("/"),
        service=labels.get(_SERVICE, ""),
        state=state["Status"],
        exit_code=state["ExitCode"],
        health=health.get("Status"),
        started_at=state["StartedAt"],
        image=config["Image"],
        image_id=data["Image"],
        restarts=data.get("RestartCount", 0),
        hash=labels.get(LABEL_HASH, ""),
        fields=_container_fields(data, project),
    )


def _container_fields(data: Mapping[str, Any], project: str) -> Fields:
    """The fields that a plan compares; what is unset or switched off has none."""
    config, host = data["Config"], data["HostConfig"]
    fields: dict[str, Any] = {
        "image": config["Image"],
        "user": config.get("User"),
        "working_dir": config.get("WorkingDir"),
        "command": tuple(config.get("Cmd") or ()),
        "entrypoint": tuple(config.get("Entrypoint") or ()),
        # Docker's own choice, where nobody made one.
        "hostname": None if data["Id"].startswith(config["Hostname"]) else config["Hostname"],
        "restart": host["RestartPolicy"]["Name"],
        "init": host.get("Init"),
        "read_only": host.get("ReadonlyRootfs"),
        "privileged": host.get("Privileged"),
        "pid_mode": host.get("PidMode"),
        "cap_add": capabilities(host.get("CapAdd")),
        "cap_drop": capabilities(host.get("CapDrop")),
        "security_opt": tuple(sorted(host.get("SecurityOpt") or ())),
        "resources.cpus": (host.get("NanoCpus") or 0) / 1e9,
        "resources.memory": host.get("Memory"),
        "resources.pids": max(host.get("PidsLimit") or 0, 0),
    }
    for variable in config.get("Env") or ():
        name, equals, value = variable.partition("=")
        if equals:  # a name alone, which Compose writes for one that isn't set, sets nothing
            fields[f"env.{name}"] = value
    for mount in data.get("Mounts") or ():
        if mount["Type"] == "volume" and len(mount.get("Name", "")) == 64:
            continue  # the image's own VOLUME, which nobody declared
        kind = mount["Type"]
        source = mount["Name"] if kind == "volume" else _host_path(mount.get("Source", ""))
        read_only = "" if mount.get("RW", True) else " (read-only)"
        fields[f"mounts.{mount['Destination']}"] = f"{kind} {source}{read_only}"
    for port, bindings in (host.get("PortBindings") or {}).items():
        published = [f"{b.get('HostIp', '')}:{b.get('HostPort', '')}" for b in bindings or ()]
        fields[f"ports.{port}"] = ", ".join(published)
    for name, network in (data["NetworkSettings"].get("Networks") or {}).items():
        address = (network.get("IPAMConfig") or {}).get("IPv4Address", "")
        fields[f"networks.{name.removeprefix(f'{project}_')}"] = address
    for label in (LABEL_PROJECT, LABEL_WORKSPACE):
        fields[f"labels.{label}"] = (config.get("Labels") or {}).get(label)
    # A variable may be empty and still be set; everything else that is empty is not there.
    return {
        name: value
        for name, value in fields.items()
        if (value and (name, value) not in _SWITCHED_OFF) or name.startswith(("env.", "networks."))
    }


def _host_path(path: str) -> str:
    for prefix in _DESKTOP_PREFIXES:
        if path.startswith(f"{prefix}/"):
            return path.removeprefix(prefix)
    return os.path.realpath(path)


def observed_network(data: Mapping[str, Any]) -> ObservedNetwork:
    """A network, from what ``docker network inspect`` says of it."""
    config = data["IPAM"].get("Config") or [{}]
    return ObservedNetwork(
        id=data["Id"],
        name=data["Name"],
        key=(data.get("Labels") or {}).get(_NETWORK, data["Name"]),
        subnet=config[0].get("Subnet", ""),
    )


def _images_by_name(found: Iterable[Any], wanted: Iterable[str]) -> dict[str, ObservedImage]:
    images: dict[str, ObservedImage] = {}
    for data in found:
        image = observed_image(data)
        names = {data["Id"], *(data.get("RepoTags") or ()), *(data.get("RepoDigests") or ())}
        images |= dict.fromkeys(names, image)
    return {name: images[full] for name in wanted for full in _full_names(name) if full in images}


def _full_names(reference: str) -> tuple[str, ...]:
    """How Docker itself may write a reference: with its tag, without Docker Hub's prefixes."""
    last = reference.rpartition("/")[2]
    tagged = reference if "@" in reference or ":" in last else f"{reference}:latest"
    short = tagged.removeprefix("docker.io/").removeprefix("library/")
    return (reference, tagged, short)


def observed_image(data: Mapping[str, Any]) -> ObservedImage:
    """An image, and what its containers inherit, from what ``docker image inspect`` says."""
    config = data.get("Config") or {}
    fields: dict[str, Any] = {
        "user": config.get("User"),
        "working_dir": config.get("WorkingDir"),
        "command": tuple(config.get("Cmd") or ()),
        "entrypoint": tuple(config.get("Entrypoint") or ()),
    }
    fields = {name: value for name, value in fields.items() if value}
    for variable in config.get("Env") or ():
        name, _, value = variable.partition("=")
        fields[f"env.{name}"] = value
    return ObservedImage(data["Id"], fields)
