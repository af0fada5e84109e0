"""What is: containers, networks and images of a project, in a constant number of calls.

python-on-whales inspects one object a call; a project has a hundred. So observing asks the
docker command line for all of them at once, and copies what counts into values of our own.
"""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

from dual_iac.engine.errors import engine_error
from dual_iac.errors import DualError
from dual_iac.fields import HEALTH_TIMES, LIMITS, capabilities, compared_labels, security_options
from dual_iac.model import PROXY_SERVICE, companion_service, format_duration
from dual_iac.output import COMPOSE_FILE, read_files, read_rendered, routes_written
from dual_iac.state import (
    GONE,
    LABEL_COMPANION,
    LABEL_HASH,
    LABEL_HIDDEN,
    LABEL_PROJECT,
    NETWORK_MODE,
    PROXY,
    Fields,
    Observed,
    ObservedContainer,
    ObservedImage,
    ObservedNetwork,
    companion_address,
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

_OWN_MODES = frozenset({"private", "shareable"})
_MAY_BE_EMPTY = ("env.", "networks.", "labels.", "tmpfs.")
_SWITCHED_OFF = frozenset({("restart", "no"), ("working_dir", "/")})


class DockerCommand:
    """The docker command line, for one context."""

    def __init__(self, context: str | None = None) -> None:
        self.argv = ("docker", *(("--context", context) if context else ()))

    def run(self, *arguments: str, partial: bool = False) -> str:
        """Its standard output. ``partial`` takes what there is where some names are unknown.

        Raises what :func:`engine_error` makes of a failure.
        """
        return self.pipe(*arguments, partial=partial).decode(errors="replace")

    def pipe(self, *arguments: str, stdin: bytes = b"", partial: bool = False) -> bytes:
        """As :meth:`run`, for bytes in and out."""
        try:
            done = subprocess.run(
                [*self.argv, *arguments],
                input=stdin,
                capture_output=True,
                check=False,
                process_group=0,  # apart from the terminal, whose Ctrl-C is for dual
            )
        except OSError as error:
            raise engine_error(str(error)) from None
        said = done.stderr.decode(errors="replace")
        unknown = any(words in said.lower() for words in ("no such", "not found", "not find"))
        if done.returncode != 0 and not (partial and unknown):
            raise engine_error(said)
        return done.stdout


def observe(
    docker: DockerCommand, project: str, images: Iterable[str] = (), output: Path | None = None
) -> Observed:
    """All there is of ``project``, with the images it uses, and further ``images``.

    Networks are listed, and files read, beside the rest: the engine answers several at once.
    """
    with ThreadPoolExecutor(2) as pool:
        listing = pool.submit(_list_networks, docker)
        reading = pool.submit(_read, output)
        containers = _all_of(docker, "container", _of(project))
        files, rendered = reading.result()
        own = _own_networks(listing.result(), project, rendered)
        networks = _with_subnets(docker, own, containers)
    ids = {network["Id"] for network in networks}
    found = _addressed(containers, project, ids)
    used = {name for each in found.values() for name in (each.image, each.image_id)}
    _refuse_foreign([*containers, *networks], project)
    if output:
        _refuse_other_checkout(containers, project, output)
    if output and rendered.get("name", project) != project:
        _refuse_shared_output(docker, str(rendered["name"]), project, output)
    return Observed(
        containers=found,
        networks={network_address(n.key): n for n in map(observed_network, networks)},
        one_offs=tuple(observed_container(each, project) for each in containers if _one_off(each)),
        images=observe_images(docker, {*images, *used}),
        files=files,
        rendered=rendered,
        routes_written=routes_written(files),
    )


def observe_images(docker: DockerCommand, names: Iterable[str]) -> dict[str, ObservedImage]:
    """Images by the names asked for (references or ids), as far as they are there."""
    wanted = sorted(set(names))
    return _images_by_name(_inspect(docker, "image", wanted), wanted)


def _read(output: Path | None) -> tuple[dict[str, str], Mapping[str, Any]]:
    """The rendered files, and what the compose file among them declares."""
    files = read_files(output) if output else {}
    rendered = read_rendered(files.get(COMPOSE_FILE, ""))
    rendered.get("networks")  # read now, and kept
    return files, rendered


_NETWORK_LABELS = (_PROJECT, _NETWORK, LABEL_PROJECT, LABEL_HASH)


def _list_networks(docker: DockerCommand) -> list[str]:
    """All networks, a line each: id, name, whether it is internal, and some labels.

    To inspect a hundred networks takes the engine longer than all else together.
    """
    labels = (f'{{{{.Label "{label}"}}}}' for label in _NETWORK_LABELS)
    line = "\t".join(["{{.ID}}", "{{.Name}}", "{{.Internal}}", *labels])
    return docker.run("network", "ls", "--no-trunc", "--format", line).splitlines()


def _own_networks(
    listed: Iterable[str], project: str, rendered: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The project's, in the form that inspecting has, but for their addresses.

    Those without labels that have the name of one that was rendered are the project's, too:
    Compose takes them for that, and somebody may have made one anew by hand.
    """
    known = rendered.get("networks")
    keys = {f"{project}_{key}": key for key in (known if isinstance(known, dict) else ())}
    networks = []
    for each in listed:
        number, name, internal, *values = each.split("\t")
        labels = zip(_NETWORK_LABELS, values, strict=True)
        given = {label: value for label, value in labels if value}
        if given.get(_PROJECT) == project or (_PROJECT not in given and name in keys):
            given.setdefault(_NETWORK, keys.get(name, name))
            is_internal = internal == "true"
            networks.append({"Id": number, "Name": name, "Internal": is_internal, "Labels": given})
    return networks


def _with_subnets(
    docker: DockerCommand, networks: list[dict[str, Any]], containers: Iterable[Any]
) -> list[dict[str, Any]]:
    """Networks with their addresses: from a running container on each, or asked for."""
    subnets = {}
    for container in containers:
        for end in (container["NetworkSettings"].get("Networks") or {}).values():
            if end.get("IPAddress"):
                place = ipaddress.ip_interface(f"{end['IPAddress']}/{end['IPPrefixLen']}")
                subnets[end["NetworkID"]] = str(place.network)
    unknown = [network["Id"] for network in networks if network["Id"] not in subnets]
    asked = {data["Id"]: data["IPAM"] for data in _inspect(docker, "network", unknown)}
    for network in networks:
        known = {"Config": [{"Subnet": subnets.get(network["Id"], "")}]}
        network["IPAM"] = asked.get(network["Id"], known)
    return networks


def _of(project: str, service: str | None = None) -> list[str]:
    """The filters that pick what Compose made of a project, or of one service in it."""
    labels = [f"{_PROJECT}={project}", *([f"{_SERVICE}={service}"] if service else [])]
    return [word for label in labels for word in ("--filter", f"label={label}")]


def _all_of(docker: DockerCommand, kind: str, filters: Sequence[str]) -> list[Any]:
    """What inspecting says of all containers or networks that the filters pick."""
    everything = ["--all"] if kind == "container" else []
    ids = docker.run(kind, "ls", *everything, "--quiet", "--no-trunc", *filters).split()
    return _inspect(docker, kind, ids)


def _addressed(
    inspected: Sequence[Any], project: str, networks: Collection[str] | None = None
) -> dict[str, ObservedContainer]:
    """Containers by address, given the ids of the project's networks.

    Those after the first of a service are in excess. First is what bears dual's labels, then
    the lower number, then the newer: an apply that was interrupted as it replaced a container
    leaves the new one beside the old.
    """
    containers: dict[str, ObservedContainer] = {}
    services = {data["Id"]: _labels(data).get(_SERVICE, "") for data in inspected}
    newest_first = sorted(inspected, key=lambda data: str(data["Created"]), reverse=True)
    for data in sorted(newest_first, key=lambda data: (not _is_duals(data), _number(data))):
        if _one_off(data):
            continue
        container = observed_container(data, project, networks, services)
        address = _address(container, _labels(data))
        if address in containers:
            address = f"{address}#{container.name}"
        containers[address] = container
    return containers


def _address(container: ObservedContainer, labels: Mapping[str, str]) -> str:
    if container.service == PROXY_SERVICE:
        return PROXY
    companion = labels.get(LABEL_COMPANION, "")
    if companion and container.service == companion_service(container.workspace, companion):
        return companion_address(container.workspace, companion)
    return workspace_address(container.service or container.name)


def observe_service(docker: DockerCommand, project: str, name: str) -> ObservedContainer | None:
    """The container of one workspace, or companion, and nothing else: what ``exec`` must know."""
    inspected = _all_of(docker, "container", _of(project, name))
    _refuse_foreign(inspected, project)
    return next(iter(_addressed(inspected, project).values()), None)


def _labels(data: Mapping[str, Any]) -> Mapping[str, str]:
    """The labels of a container or a network."""
    return (data.get("Config") or data).get("Labels") or {}


def _is_duals(data: Mapping[str, Any]) -> bool:
    return LABEL_PROJECT in _labels(data)


def _one_off(data: Mapping[str, Any]) -> bool:
    return _labels(data).get(_ONE_OFF) == "True"


def _number(data: Mapping[str, Any]) -> int:
    number = _labels(data).get("com.docker.compose.container-number", "")
    return int(number) if number.isdecimal() else sys.maxsize


def _refuse_foreign(inspected: Sequence[Any], project: str) -> None:
    """Another compose project that happens to have this name is none of dual's business.

    What somebody added to a project of dual's is: the plan shows it.
    """
    labelled = [data for data in inspected if _PROJECT in _labels(data)]
    if labelled and not any(map(_is_duals, labelled)):
        names = sorted(data["Name"].removeprefix("/") for data in labelled)
        raise DualError(
            f"The project name {project} is taken by a compose project that isn't dual's",
            why=f"it has {', '.join(names)}; dual leaves them alone",
            mend="give another name as project: in dual.yaml, or take that project down yourself",
        )


def _refuse_other_checkout(inspected: Iterable[Any], project: str, output: Path) -> None:
    """A second clone, or a git worktree, must not take over what runs from the first one.

    A folder that isn't there any more has no claim: the project was moved.
    """
    for data in inspected:
        folder = _labels(data).get(_FOLDER)
        if not folder or not _is_duals(data) or not (Path(folder) / COMPOSE_FILE).is_file():
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
    filters = [*_of(other), "--filter", f"label={_FOLDER}={output}"]
    names = docker.run("ps", "--all", "--format", "{{.Names}}", *filters).split()
    if names:
        raise DualError(
            f"Project {other} still runs from {output}",
            why=f"rendering {project} there would take its routes away: {', '.join(sorted(names))}",
            mend=f"take it down first (docker compose -p {other} down keeps its volumes), "
            f"or put the dual.yaml of {project} into a folder of its own",
        )


def _inspect(docker: DockerCommand, kind: str, names: Sequence[str]) -> list[Any]:
    """Of those that are still there."""
    if not names:
        return []
    return list(json.loads(docker.run(kind, "inspect", *names, partial=True) or "[]"))


def observed_container(
    data: Mapping[str, Any],
    project: str,
    networks: Collection[str] | None = None,
    services: Mapping[str, str] | None = None,
) -> ObservedContainer:
    """A container, from what ``docker inspect`` says of it.

    With the ids of the ``networks`` that the project has, one that it refers to and that was
    removed since has the address :data:`GONE`; ``services`` are those of the project's containers,
    by id, any of which may share its network.
    """
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
        fields=_container_fields(data, project, networks, services or {}),
        hidden=_recorded(labels),
    )


def _recorded(labels: Mapping[str, str]) -> frozenset[str] | None:
    text = labels.get(LABEL_HIDDEN)
    return None if text is None else frozenset(filter(None, text.split(", ")))


def _container_fields(
    data: Mapping[str, Any],
    project: str,
    networks: Collection[str] | None,
    services: Mapping[str, str],
) -> Fields:
    """The fields that a plan compares; what is unset or switched off has none."""
    config, host = data["Config"], data["HostConfig"]
    mode, _, holder = str(host.get("NetworkMode")).partition(":")
    shares = mode == "container"
    fields: dict[str, Any] = {
        "image": config["Image"],
        "name": data["Name"].removeprefix("/"),
        "user": config.get("User"),
        "working_dir": config.get("WorkingDir"),
        "command": tuple(config.get("Cmd") or ()),
        "entrypoint": tuple(config.get("Entrypoint") or ()),
        # Docker's own choice, where nobody made one; or that of whose network it shares.
        "hostname": None if shares or config["Hostname"] == data["Id"][:12] else config["Hostname"],
        NETWORK_MODE: f"service:{services.get(holder, holder[:12])}" if shares else None,
        "restart": host["RestartPolicy"]["Name"],
        "init": host.get("Init"),
        "read_only": host.get("ReadonlyRootfs"),
        "privileged": host.get("Privileged"),
        **_namespaces(host),
        **{f"sysctls.{name}": value for name, value in (host.get("Sysctls") or {}).items()},
        "dns": tuple(host.get("Dns") or ()),
        "dns_opt": tuple(host.get("DnsOptions") or ()),
        "cap_add": capabilities(host.get("CapAdd")),
        "cap_drop": capabilities(host.get("CapDrop")),
        "security_opt": security_options(host.get("SecurityOpt")),
        "group_add": tuple(sorted(host.get("GroupAdd") or ())),
        "devices": tuple(sorted(map(_device, host.get("Devices") or ()))),
        "resources.cpus": (host.get("NanoCpus") or 0) / 1e9,
        "resources.memory": host.get("Memory"),
        "resources.pids": max(host.get("PidsLimit") or 0, 0),
        **_limits(host),
        **_health(config.get("Healthcheck")),
        **dict(compared_labels(config.get("Labels"))),
    }
    for target, options in (host.get("Tmpfs") or {}).items():
        fields[f"tmpfs.{target}"] = options
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
    for name, end in (data["NetworkSettings"].get("Networks") or {}).items():
        ours = name.startswith(f"{project}_")
        gone = ours and networks is not None and end["NetworkID"] not in ("", *networks)
        address = (end.get("IPAMConfig") or {}).get("IPv4Address", "")
        fields[f"networks.{name.removeprefix(f'{project}_')}"] = GONE if gone else address
    # A variable may be empty and still be set; everything else that is empty is not there.
    return {
        name: value
        for name, value in fields.items()
        if (value and (name, value) not in _SWITCHED_OFF) or name.startswith(_MAY_BE_EMPTY)
    }


def _health(check: Mapping[str, Any] | None) -> dict[str, Any]:
    """The fields of a healthcheck, as far as they are set."""
    found = check or {}
    fields: dict[str, Any] = {
        "healthcheck.test": tuple(found.get("Test") or ()),
        "healthcheck.retries": found.get("Retries"),
    }
    for key, name in HEALTH_TIMES.items():
        if nanoseconds := found.get(name):
            fields[f"healthcheck.{key}"] = format_duration(
                timedelta(microseconds=nanoseconds / 1e3)
            )
    return {name: value for name, value in fields.items() if value}


def _namespaces(host: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are not the container's own."""
    modes = {
        "pid_mode": host.get("PidMode"),
        "ipc_mode": host.get("IpcMode"),
        "uts_mode": host.get("UTSMode"),
        "userns_mode": host.get("UsernsMode"),
    }
    if host.get("NetworkMode") == "host":
        modes[NETWORK_MODE] = "host"
    return {field: mode for field, mode in modes.items() if mode and mode not in _OWN_MODES}


def _device(device: Mapping[str, str]) -> str:
    keys = ("PathOnHost", "PathInContainer", "CgroupPermissions")
    return ":".join(device[key] for key in keys)


def _limits(host: Mapping[str, Any]) -> dict[str, Any]:
    """The limits that dual.yaml has no key for, where they are set."""
    limits: dict[str, Any] = {}
    for key, name in LIMITS.items():
        value = host.get(name) or 0
        if value in (0, -1) or (name == "MemorySwap" and value == 2 * host.get("Memory", 0)):
            continue  # unset, unlimited, or Docker's own choice beside a limit of memory
        limits[f"resources.{key}"] = value if key.startswith("mem") else str(value)
    return limits


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
        key=_labels(data).get(_NETWORK, data["Name"]),
        subnet=config[0].get("Subnet", ""),
        hash=_labels(data).get(LABEL_HASH, ""),
        internal=bool(data.get("Internal")),
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
        **_health(config.get("Healthcheck")),
    }
    fields = {name: value for name, value in fields.items() if value}
    for variable in config.get("Env") or ():
        name, _, value = variable.partition("=")
        fields[f"env.{name}"] = value
    fields |= compared_labels(config.get("Labels"))
    exposed = [port.partition("/") for port in config.get("ExposedPorts") or ()]
    ports = frozenset(int(port) for port, _, kind in exposed if kind != "udp" and port.isdecimal())
    return ObservedImage(data["Id"], fields, ports)
