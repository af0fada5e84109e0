"""Desired and observed, keyed by the same addresses, so that a plan is a comparison.

Addresses: ``proxy``, ``workspace.<name>``, ``companion.<workspace>/<name>`` (``…/localhost`` holds
the network that they share), ``network.<name>`` (``network.traefik`` is the proxy's),
``route.<name>``, ``source.<name>`` (the clone of a git source).

What a container is made of is compared field by field, so both sides are flat maps of the
same field names to plain values (``env.NODE_ENV``, ``resources.memory``, ``mounts./workspace``,
``networks.ws-main`` …). :mod:`dual_iac.fields` makes the desired ones from a rendered service,
the engine the observed ones from what Docker reports.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from dual_iac.model import EDGE_NETWORK, HOLDER, PROXY_SERVICE, SETUP_INSIDE, companion_service

PROXY = "proxy"

LABEL_PROJECT = "dev.dual.project"
LABEL_WORKSPACE = "dev.dual.workspace"
LABEL_COMPANION = "dev.dual.companion"
LABEL_PORT = "dev.dual.port"
LABEL_HASH = "dev.dual.hash"
LABEL_HIDDEN = "dev.dual.hidden"
LABEL_BUILD = "dev.dual.build"
"""On an image that dual built: the hash of what it was built from."""

ENV_FILE = "env_file"
"""Among hidden fields: whatever else is in the environment may come out of a file."""

NETWORK_MODE = "network_mode"
"""The field of a container that shares another's network: ``service:`` and the other's service."""

GONE = "gone"
"""Stands for the address in a network that a container refers to, but that was removed."""

Fields = Mapping[str, Any]

OnProgress = Callable[[str, str], None]
"""Called with the name of a service, and what happens to it."""

_DIGEST_LENGTH = 16


def digest(value: Any, also: str = "") -> str:
    """A short hash of any plain value, and of a text besides; equal ones have equal hashes."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str) + also
    return hashlib.sha256(canonical.encode()).hexdigest()[:_DIGEST_LENGTH]


def workspace_address(name: str) -> str:
    return f"workspace.{name}"


def companion_address(workspace: str, name: str) -> str:
    """The address of a companion, or of the holder of a workspace's network."""
    return f"companion.{workspace}/{name}"


def workspace_of(address: str) -> str:
    """The workspace that an address belongs to: ``main`` for ``network.main``, say."""
    return re.split("[#/]", address.partition(".")[2], maxsplit=1)[0]


def network_address(key: str) -> str:
    """The address of a network, from its key in the compose file (``ws-main``, ``edge``).

    The proxy's goes by the one name that no workspace can have: a workspace may be named edge.
    One that isn't dual's bears a mark: its key may be some workspace's name.
    """
    if key == EDGE_NETWORK:
        return f"network.{PROXY_SERVICE}"
    return f"network.{key.removeprefix('ws-') if key.startswith('ws-') else f'#{key}'}"


def route_address(name: str) -> str:
    return f"route.{name}"


def certificate_address(name: str) -> str:
    """Of the certificates of a workspace's hosts; ``certificate.traefik`` are the user's own."""
    return f"certificate.{name}"


def source_address(name: str) -> str:
    return f"source.{name}"


@dataclass(frozen=True)
class DesiredContainer:
    """A service of the rendered project.

    ``hash`` stands for its whole definition, the label that records it aside. ``hidden``
    names the fields whose values came out of variables and files: compared, never shown.
    """

    service: str
    hash: str
    definition: Mapping[str, Any]
    fields: Fields
    hidden: frozenset[str] = frozenset()

    @property
    def image(self) -> str:
        return str(self.fields["image"])

    @property
    def name(self) -> str:
        """The container's name."""
        return str(self.fields["name"])

    @property
    def holder(self) -> str | None:
        """The service whose network it shares; None if it has networks of its own."""
        mode = str(self.fields.get(NETWORK_MODE, ""))
        return mode.removeprefix("service:") if mode.startswith("service:") else None

    @property
    def has_healthcheck(self) -> bool:
        """Whether dual.yaml gives it one."""
        return bool(self.definition.get("healthcheck"))

    @property
    def has_setup(self) -> bool:
        return f"mounts.{SETUP_INSIDE}/report" in self.fields

    @property
    def is_companion(self) -> bool:
        return f"labels.{LABEL_COMPANION}" in self.fields


@dataclass(frozen=True)
class DesiredNetwork:
    """A network of the rendered project; ``key`` is its name in the compose file.

    ``hash`` stands for its whole definition, the label that records it aside. Nothing in one that
    is ``internal`` gets out.
    """

    key: str
    subnet: str
    hash: str
    internal: bool = False


@dataclass(frozen=True)
class DesiredBuild:
    """An image to build: absolute paths, and ``content``, the hash of all that goes into it."""

    context: str
    dockerfile: str
    target: str | None
    args: Mapping[str, str]
    repository: str
    content: str

    @property
    def tag(self) -> str:
        """The image's name by its content."""
        return f"{self.repository}:content-{self.content}"


@dataclass(frozen=True)
class DesiredClone:
    """A workspace's clone: its absolute path, and what it is made from.

    ``git`` is as written: a variable in it is not filled in. ``branch`` None is the remote's own.
    """

    name: str
    path: str
    git: str
    branch: str | None


@dataclass(frozen=True)
class DesiredCertificate:
    """A certificate in the proxy's folder, and its key: ``name``.pem and ``name``.key there.

    dual makes it for the host that it is named after; or it is a copy of ``cert`` and ``key``,
    absolute paths of the user's own (no key where it is none to serve with).
    """

    address: str
    name: str
    cert: str = ""
    key: str = ""

    @property
    def is_own(self) -> bool:
        return bool(self.cert)


@dataclass(frozen=True)
class Setup:
    """How the setup of a workspace goes: ``asked`` until the workspace says that it is running.

    ``word`` stands for the start that it was asked at, "-" where Compose alone did. ``hashes`` are
    what it is done for; none where nobody knows.
    """

    state: Literal["asked", "running", "failed", "done"]
    word: str
    exit_code: int = 0
    hashes: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Desired:
    """What dual.yaml renders to.

    ``files`` maps paths inside the output directory to whole texts. ``routes`` maps an
    address to the path of its file. ``clones`` has those of git sources,
    ``builds`` what images are built from, by their names. ``setups`` has the hashes of what the
    setups of workspaces are for, by address, as far as their sources are there. ``certificates``
    has those that the proxy serves, by the names of their files.
    """

    project: str
    files: Mapping[str, str]
    containers: Mapping[str, DesiredContainer]
    networks: Mapping[str, DesiredNetwork]
    routes: Mapping[str, str]
    clones: Mapping[str, DesiredClone] = field(default_factory=dict)
    builds: Mapping[str, DesiredBuild] = field(default_factory=dict)
    setups: Mapping[str, str] = field(default_factory=dict)
    certificates: Mapping[str, DesiredCertificate] = field(default_factory=dict)

    @property
    def published(self) -> list[str]:
        """Where the proxy publishes: addresses and ports of the host, as in ``127.0.0.1:3000``."""
        fields = self.containers[PROXY].fields
        return [str(value) for name, value in fields.items() if name.startswith("ports.")]

    @property
    def images(self) -> set[str]:
        return {container.image for container in self.containers.values()}


@dataclass(frozen=True)
class ObservedContainer:
    """A container of the project, as the engine reports it."""

    id: str
    name: str
    service: str
    state: str
    """created, running, paused, restarting, removing, exited or dead."""
    exit_code: int
    health: str | None
    """starting, healthy or unhealthy, if the image has a health check."""
    started_at: str
    """RFC 3339; the zero time if it never ran."""
    image: str
    image_id: str
    restarts: int
    hash: str
    fields: Fields
    hidden: frozenset[str] | None = None
    """The fields whose values came out of variables, or files; None where nobody recorded it."""

    @property
    def workspace(self) -> str:
        """Whose it is; empty for what is no workspace's."""
        named = self.fields.get(f"labels.{LABEL_WORKSPACE}")
        return str(named) if named else "" if self.service == PROXY_SERVICE else self.service

    @property
    def instant(self) -> tuple[str, str]:
        """When it was started, to compare: engines leave out zeros at the end."""
        return self.started_at[:19], self.started_at[19:].rstrip("Z").ljust(10, "0")

    @property
    def has_setup(self) -> bool:
        return f"mounts.{SETUP_INSIDE}/report" in self.fields

    @property
    def has_healthcheck(self) -> bool:
        """Whether dual.yaml, or its image, gives it one."""
        return "healthcheck.test" in self.fields

    @property
    def is_holder(self) -> bool:
        """Whether it holds the network that a workspace and its companions share."""
        return self.service == companion_service(self.workspace, HOLDER)

    @property
    def running(self) -> bool:
        return self.state == "running"

    @property
    def is_up(self) -> bool:
        """Whether the engine keeps it running: a command that ends is started again."""
        return self.state in ("running", "restarting")


@dataclass(frozen=True)
class ObservedNetwork:
    id: str
    name: str
    key: str
    subnet: str
    hash: str
    internal: bool = False


@dataclass(frozen=True)
class ObservedImage:
    """An image on the engine: what containers inherit from it, as fields."""

    id: str
    fields: Fields
    ports: frozenset[int] = frozenset()
    """The TCP ports that it says its containers listen on."""


@dataclass(frozen=True)
class Observed:
    """What is: on the engine, and in the output directory.

    ``one_offs`` are containers of ``docker compose run``: nobody's but theirs who ran them.
    ``images`` is keyed by reference and by id. ``files`` maps paths inside the output
    directory to texts; ``rendered`` is what the compose.yaml among them declares.
    ``clones`` are the addresses of those that are there, ``setups`` how those of workspaces go, by
    address. ``flaws`` says why certificates must be made anew, by the names of their files.
    ``serves_certificates`` tells whether a running proxy serves those that are there.
    ``routes_written`` is the state of the route files there, ``routes_seen`` the one that
    a running proxy has read.
    """

    containers: Mapping[str, ObservedContainer] = field(default_factory=dict)
    networks: Mapping[str, ObservedNetwork] = field(default_factory=dict)
    one_offs: tuple[ObservedContainer, ...] = ()
    images: Mapping[str, ObservedImage] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    rendered: Mapping[str, Any] = field(default_factory=dict)
    clones: frozenset[str] = frozenset()
    setups: Mapping[str, Setup] = field(default_factory=dict)
    flaws: Mapping[str, str] = field(default_factory=dict)
    serves_certificates: bool = True
    routes_written: str | None = None
    routes_seen: str | None = None

    def workspace(self, name: str) -> ObservedContainer | None:
        return self.containers.get(workspace_address(name))

    def only(self, names: Collection[str]) -> Observed:
        """What belongs to some workspaces; everything without names."""
        if not names:
            return self
        keys = {f"ws-{name}" for name in names}
        return replace(
            self,
            containers={a: each for a, each in self.containers.items() if each.workspace in names},
            networks={a: each for a, each in self.networks.items() if each.key in keys},
            one_offs=tuple(each for each in self.one_offs if each.workspace in names),
        )
