"""Carries out one thing at a time on the engine; decides nothing."""

from __future__ import annotations

import io
import ipaddress
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from dual_iac.engine.build import build
from dual_iac.engine.errors import addresses_taken, engine_error, half_a_network, in_the_way
from dual_iac.engine.observe import DockerCommand, observe, observe_images, observe_service
from dual_iac.engine.proxy import routes_seen
from dual_iac.errors import DualError, UnhealthyError
from dual_iac.lock import lock
from dual_iac.output import COMPOSE_FILE
from dual_iac.state import (
    LABEL_WORKSPACE,
    PROXY,
    DesiredBuild,
    Observed,
    ObservedImage,
    OnProgress,
)

if TYPE_CHECKING:
    from python_on_whales import DockerClient

_COMPOSE = {
    # Progress as JSON; without this, as lines for a terminal.
    "COMPOSE_PROGRESS": "json",
    # What a user may have set for other projects, and what dual decides itself.
    "COMPOSE_REMOVE_ORPHANS": "false",
    "COMPOSE_COMPATIBILITY": "false",
    "COMPOSE_PROFILES": "",
}


_APART = (
    ("setsid",)
    if shutil.which("setsid")
    else (
        sys.executable,
        "-ISc",
        "import os, sys; os.setsid(); os.execvp(sys.argv[1], sys.argv[1:])",
    )
)
"""What starts a command apart from the terminal, whose Ctrl-C is for dual: it lets end what it
has begun, and that would be cut short. (python-on-whales can't be told to.)"""


_POLL = 0.3  # seconds between two looks at a health
_CRASHES = 3  # restarts after which a command counts as one that can't start
_LOG_LINES = 10


@dataclass(frozen=True)
class Usage:
    """What a container uses: CPU in percent of one, memory in bytes."""

    cpu: float
    memory: int


class Lines:
    """The lines that a container prints, both streams, as they come, until it is closed."""

    def __init__(self, command: DockerCommand, container: str, since: str) -> None:
        self._process = subprocess.Popen(
            [*command.argv, "logs", "--follow", "--since", since, container],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def __iter__(self) -> Iterator[str]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            yield line.decode(errors="replace").rstrip("\r\n")

    def close(self) -> None:
        """May be called at any time, from anywhere, also again: the lines end then."""
        self._process.kill()
        self._process.wait()


class DockerEngine:
    """The Docker engine that one project runs on.

    ``output`` is the folder of the rendered project. Every method raises
    :class:`~dual_iac.errors.EngineUnreachableError` if there is no engine, and
    :class:`~dual_iac.errors.DualError` with the engine's own words if it refuses.
    """

    def __init__(self, project: str, output: Path, context: str | None = None) -> None:
        self.project = project
        self.output = output
        self.context = context
        self.command = DockerCommand(context)
        self._building = threading.Lock()
        os.environ |= _COMPOSE

    # python-on-whales takes longer to import than most commands take to run: only where needed.

    @cached_property
    def client(self) -> DockerClient:
        from python_on_whales import DockerClient

        return DockerClient(
            context=self.context,
            compose_files=[self.output / COMPOSE_FILE],
            compose_project_name=self.project,
            compose_env_files=[self.variables],
            client_call=[*_APART, "docker"],
        )

    @property
    def variables(self) -> Path:
        """The file that Compose reads variables from: the .env beside dual.yaml.

        It is named even where there is none, as Compose would look for others.
        """
        path = self.output.parent / ".env"
        return path if path.is_file() else Path(os.devnull)

    def lock(self) -> AbstractContextManager[None]:
        """Be the only one who changes the project on this engine, by whatever context.

        Raises :class:`~dual_iac.errors.LockedError` where somebody else is.
        """
        return lock(self.project, self.command.run("info", "--format", "{{.ID}}").strip())

    def observe(self, images: Iterable[str] = (), *, routes: bool = False) -> Observed:
        """What is; with ``routes``, the proxy is asked, too, which route files it has read."""
        observed = observe(self.command, self.project, images, self.output)
        proxy = observed.containers.get(PROXY)
        if routes and proxy and proxy.running:
            return replace(observed, routes_seen=routes_seen(observed))
        return observed

    def with_images(self, observed: Observed, images: Iterable[str]) -> Observed:
        """What was observed, and these images besides, as far as they are there."""
        found = self.images(set(images) - set(observed.images))
        return replace(observed, images={**observed.images, **found}) if found else observed

    def pull(self, image: str) -> None:
        with _errors():
            self.client.image.pull(image, quiet=True)

    def build(self, image: str, wanted: DesiredBuild, say: Callable[[str], None]) -> None:
        """Have an image of this content, under this name; built only where there is none yet."""
        with self._building:  # two names may stand for one content
            if not observe_images(self.command, [wanted.tag]):
                build(self.command, wanted, self.project, say)
            self.command.run("tag", wanted.tag, image)

    def create(self, services: Sequence[str], progress: OnProgress) -> None:
        """Create the containers of services, replacing those that exist, and start none.

        Their networks and volumes are created where missing. Compose would start them one by
        one; :meth:`start` can be called side by side.
        """
        try:
            with _errors():
                self._stream(
                    self.client.compose.up(
                        list(services),
                        detach=True,
                        dependencies=False,
                        force_recreate=True,
                        start=False,
                        no_build=True,
                        pull="never",
                        stream_logs=True,
                    ),
                    progress,
                )
        except DualError as error:
            other = in_the_way(error)
            if other and other not in self._networks():
                raise half_a_network(other) from None
            raise

    def remove(self, container: str) -> None:
        """Stop a container, with the grace it was given, and remove it; volumes stay."""
        with _errors():
            self.client.container.stop(container)
            self.client.container.remove(container, force=True)

    def check_subnets(self, subnets: Iterable[str], going: Iterable[str]) -> None:
        """Raise :class:`DualError` if another network has addresses in one of these.

        ``going`` are the names of networks that are removed before.
        """
        inspected = self.command.run("network", "inspect", *self._networks(), partial=True)
        wanted = [ipaddress.ip_network(each) for each in subnets]
        going = set(going)
        found = [
            f"{data['Name']} has {config['Subnet']}"
            for data in json.loads(inspected or "[]")
            for config in (data["IPAM"].get("Config") or ())
            if data["Name"] not in going
            and any(ipaddress.ip_network(config["Subnet"]).overlaps(each) for each in wanted)
        ]
        if found:
            raise addresses_taken("\n".join(found))

    def check_port(self, bind: str, port: int, held: str = "") -> None:
        """Raise :class:`DualError` if something else listens there already.

        ``held`` is the address at which the project itself listens on that port.
        """
        if error := others_error(bind, port, held) if held else port_error(bind, port):
            filters = ("--filter", f"publish={port}", "--format", "{{.Names}}")
            holders = ", ".join(self.command.run("ps", *filters).split())
            raise DualError(
                f"Port {port} is taken by something else on this machine",
                why=f"{bind}:{port}: {error}" + (f", by {holders}" if holders else ""),
                mend=f"end what listens on {port}, or give another port as proxy.http",
            )

    def own(self, container: str, user: str, folders: Iterable[str]) -> None:
        """Make folders of a container belong to a user, whether it runs or not.

        They are unpacked over themselves, out of a tar archive that says so: that needs nothing in
        the image. Names are looked up in the image's own /etc/passwd.
        """
        uid, gid = self._ids(container, user)
        with self._writable(container) as target:
            for folder in folders:
                parent, _, name = folder.rpartition("/")
                entry = tarfile.TarInfo(name)
                entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, 0o755, uid, gid
                entry.mtime = int(time.time())
                archive = io.BytesIO()
                with tarfile.open(fileobj=archive, mode="w") as tar:
                    tar.addfile(entry)
                self.command.pipe("cp", "-", f"{target}:{parent or '/'}", stdin=archive.getvalue())

    @contextmanager
    def _writable(self, container: str) -> Iterator[str]:
        """The container; or, where it has nothing to write to, another one with its volumes."""
        line = "{{.HostConfig.ReadonlyRootfs}} {{.Image}}"
        read_only, image = self.command.run("inspect", "--format", line, container).split()
        if read_only != "true":
            yield container
            return
        # Labelled as one of `compose run`, so that it goes with the project, whatever happens.
        labels = (f"com.docker.compose.project={self.project}", "com.docker.compose.oneoff=True")
        words = [word for label in labels for word in ("--label", label)]
        other = self.command.run("create", "--volumes-from", container, *words, image, "-").strip()
        try:
            yield other
        finally:
            self.command.run("rm", "--force", other)

    def _ids(self, container: str, user: str) -> tuple[int, int]:
        """Numbers of a user and a group, which may be given by name; 0 for a group left out."""
        name, _, group = user.partition(":")
        rows: dict[str, list[str]] = {}
        if not name.isdecimal() or (group and not group.isdecimal()):
            for file in ("passwd", "group"):
                for line in self._read(container, f"/etc/{file}").splitlines():
                    rows.setdefault(f"{file} {line.partition(':')[0]}", line.split(":"))
        try:
            uid = int(name) if name.isdecimal() else int(rows[f"passwd {name}"][2])
            if not group:
                return uid, 0 if name.isdecimal() else int(rows[f"passwd {name}"][3])
            return uid, int(group) if group.isdecimal() else int(rows[f"group {group}"][2])
        except (KeyError, IndexError, ValueError):
            raise engine_error(f"unable to find user {user}: no matching entries") from None

    def _read(self, container: str, path: str) -> str:
        """A file of a container; empty if it has none."""
        archive = self.command.pipe("cp", f"{container}:{path}", "-", partial=True)
        if not archive:
            return ""
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            member = tar.next()
            file = tar.extractfile(member) if member else None
            return file.read().decode(errors="replace") if file else ""

    def images(self, names: Iterable[str]) -> dict[str, ObservedImage]:
        """Images by the names asked for, as far as they are there."""
        return observe_images(self.command, names)

    def start(self, container: str) -> None:
        with _errors():
            self.client.container.start(container)

    def restart(self, container: str) -> None:
        with _errors():
            self.client.container.restart(container)

    def stop(self, container: str) -> None:
        with _errors():
            self.client.container.stop(container)

    def wait_until_healthy(self, container: str, given_up: Event) -> None:
        """Until its healthcheck succeeds, or it is ``given_up``.

        Raises :class:`UnhealthyError` once the healthcheck, or the container, has failed.
        """
        while not given_up.wait(_POLL):
            data = json.loads(self.command.run("inspect", "--format", "{{json .}}", container))
            state, name = data["State"], data["Config"]["Labels"]["com.docker.compose.service"]
            # Docker also calls unhealthy what doesn't run just now.
            runs = state["Status"] == "running"
            health = (state.get("Health") or {}).get("Status", "healthy") if runs else ""
            if health == "healthy":
                return
            why: list[str] = []
            if health == "unhealthy":
                what, why = "is unhealthy", ["its healthcheck fails", *_said(state["Health"])]
            elif state["Status"] not in ("running", "restarting"):
                what, why = "does not run", [f"it is {state['Status']}"]
            elif data["RestartCount"] >= _CRASHES:
                what = "does not stay up"
                why = [f"its command ended with exit code {state['ExitCode']}"]
                why += self.last_logs(container, _LOG_LINES)
            if why:
                mend = f"mend it in dual.yaml; dual logs {name} has more"
                raise UnhealthyError(f"{name} {what}", why="\n".join(why), mend=mend)

    def unpause(self, container: str) -> None:
        with _errors():
            self.client.container.unpause(container)

    def rename(self, container: str, name: str) -> None:
        with _errors():
            self.client.container.rename(container, name)

    def connect(self, network: str, container: str, address: str) -> None:
        with _errors():
            self.client.network.connect(network, container, ip=address)

    def disconnect(self, network: str, container: str) -> None:
        with _errors():
            self.client.network.disconnect(network, container, force=True)

    def remove_network(self, network: str) -> None:
        with _errors():
            self.client.network.remove(network)

    def volumes(self) -> dict[str, str]:
        """The project's volumes, those of removed workspaces included, and whose they are."""
        filters = ("--filter", f"label=com.docker.compose.project={self.project}")
        line = f'{{{{.Name}}}}\t{{{{.Label "{LABEL_WORKSPACE}"}}}}'
        listed = self.command.run("volume", "ls", *filters, "--format", line).splitlines()
        return dict(sorted((name, owner) for name, _, owner in (x.partition("\t") for x in listed)))

    def remove_volumes(self, names: Sequence[str]) -> None:
        with _errors():
            if names:
                self.client.volume.remove(list(names))

    def last_logs(self, container: str, lines: int) -> list[str]:
        """The last lines that a container printed, both streams, in the order that they came in."""
        argv = [*self.command.argv, "logs", "--tail", str(lines), container]
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        text = done.stdout.decode(errors="replace")
        if done.returncode != 0:
            raise engine_error(text)
        return text.splitlines()

    def follow(self, workspace: str) -> Lines | None:
        """What a workspace prints, from shortly before its last start; None without a container.

        dockerd notes a start when the first lines may have been printed already.
        """
        found = observe_service(self.command, self.project, workspace)
        if found is None:
            return None
        before = datetime.fromisoformat(f"{found.started_at[:19]}+00:00") - timedelta(seconds=5)
        return Lines(self.command, found.id, before.isoformat())

    def listeners(self, container: str) -> set[tuple[str, int]] | None:
        """Addresses and ports that TCP servers in a container listen on.

        None where that can't be told: the image has no cat, or the container doesn't run.
        """
        from python_on_whales import DockerException

        try:
            tables = self.client.container.execute(
                container, ["cat", "/proc/net/tcp", "/proc/net/tcp6"]
            )
        except DockerException:
            return None
        return set(parse_listeners(str(tables)))

    def stray_bridge(self, subnet: str) -> str | None:
        """An interface of this machine with these addresses that no network of the engine has.

        A dockerd that is killed as it makes a network leaves the bridge behind, and a rule that
        leads answers to it astray. Looked for among this machine's routes, so None where the
        engine is elsewhere.
        """
        routes = Path("/proc/net/route")
        bridges = parse_bridges(routes.read_text(), subnet) if routes.exists() else set()
        if not bridges:
            return None
        return min(bridges - {f"br-{each[:12]}" for each in self._networks()}, default=None)

    def _networks(self) -> set[str]:
        """The ids of all networks of the engine."""
        return set(self.command.run("network", "ls", "--quiet", "--no-trunc").split())

    def usage(self, ids: Sequence[str]) -> dict[str, Usage]:
        """What running containers use, by id. Docker takes two seconds to measure it."""
        if not ids:
            return {}
        with _errors():
            return {
                stats.container_id: Usage(stats.cpu_percentage, int(stats.memory_used))
                for stats in self.client.container.stats(list(ids))
            }

    def _stream(self, lines: Any, progress: OnProgress) -> None:
        for service, event in compose_events(lines, self.project):
            progress(service, event)


def _said(health: Mapping[str, Any]) -> list[str]:
    """What the last of its tests printed."""
    log = health.get("Log") or [{}]
    lines = str(log[-1].get("Output", "")).splitlines()
    return [line for line in lines if line.strip()][-_LOG_LINES:]


def compose_events(lines: Iterable[tuple[str, bytes]], project: str) -> Iterator[tuple[str, str]]:
    """What happens to each service, from the JSON progress of Compose."""
    prefix = f"Container {project}-"
    for _, line in lines:
        try:
            event = json.loads(line)
            name, what = str(event["id"]), str(event["text"])
        except (ValueError, KeyError, TypeError):
            continue
        if name.startswith(prefix):
            yield name.removeprefix(prefix).rpartition("-")[0], what.lower()


def port_error(bind: str, port: int) -> str | None:
    """Why nothing could listen on a port of this machine; None if something could."""
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((bind, port))
        except PermissionError:
            return None  # a low port needs the engine's rights, and the engine has them
        except OSError as error:
            return error.strerror or str(error)
    return None


def others_error(bind: str, port: int, held: str) -> str | None:
    """As :func:`port_error`, where this project listens on that port at another address."""
    if bind not in ("0.0.0.0", "::"):
        return None if held in ("0.0.0.0", "::") else port_error(bind, port)
    tables = [Path(f"/proc/net/{name}") for name in ("tcp", "tcp6")]
    texts = [each.read_text() for each in tables if each.exists()]  # elsewhere, nobody can tell
    at = sorted({address for text in texts for address, p in parse_listeners(text) if p == port})
    others = [address for address in at if address != held]
    return f"{', '.join(others)} is in use" if others else None


def parse_listeners(tables: str) -> Iterator[tuple[str, int]]:
    """Listening sockets out of /proc/net/tcp and tcp6, as (address, port)."""
    for line in tables.splitlines():
        columns = line.split()
        if len(columns) > 3 and columns[3] == "0A":  # TCP_LISTEN
            address, _, port = columns[1].partition(":")
            # Words of four bytes, each in the machine's (little-endian) order.
            words = [address[at : at + 8] for at in range(0, len(address), 8)]
            raw = b"".join(bytes.fromhex(word)[::-1] for word in words)
            # Docker's own resolver listens on 127.0.0.11, in every container.
            if (shown := str(ipaddress.ip_address(raw))) != "127.0.0.11":
                yield shown, int(port, 16)


def parse_bridges(routes: str, subnet: str) -> set[str]:
    """Bridges that dockerd named, and that lead to a subnet, out of /proc/net/route."""
    network = ipaddress.IPv4Network(subnet)
    place = (network.network_address, network.netmask)
    return {
        columns[0]
        for columns in map(str.split, routes.splitlines()[1:])
        if re.fullmatch(r"br-[0-9a-f]{12}", columns[0])
        and place == tuple(_address(columns[each]) for each in (1, 7))
    }


def _address(word: str) -> ipaddress.IPv4Address:
    """An address in hexadecimal digits, in the machine's (little-endian) order."""
    return ipaddress.IPv4Address(bytes.fromhex(word)[::-1])


@contextmanager
def _errors() -> Iterator[None]:
    from python_on_whales import DockerException
    from python_on_whales.client_config import ClientNotFoundError

    try:
        yield
    except ClientNotFoundError:
        raise engine_error("[Errno 2] No such file or directory: 'docker'") from None
    except DockerException as error:
        output = error.stderr or str(error)
        raise engine_error(output) from error
