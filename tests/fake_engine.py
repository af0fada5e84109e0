"""An engine in memory, that does and refuses what Docker and Compose do and refuse.

It knows nothing of what is desired: like Compose, it makes containers out of the compose.yaml
that stands in the output folder. So a plan that is empty after an apply says that files, order
and actions were right, not only that the fake was told so.
"""

from __future__ import annotations

import ipaddress
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from dual_iac.apply import Failures, apply_plan
from dual_iac.errors import DualError
from dual_iac.fields import desired_fields
from dual_iac.model import PROXY_SERVICE, companion_service
from dual_iac.output import COMPOSE_FILE, read_files, read_rendered, routes_written, subnets_of
from dual_iac.plan import Plan, make_plan
from dual_iac.render import render
from dual_iac.spec import parse_project
from dual_iac.state import (
    GONE,
    LABEL_COMPANION,
    LABEL_HASH,
    LABEL_PROJECT,
    LABEL_WORKSPACE,
    NETWORK_MODE,
    PROXY,
    Desired,
    DesiredBuild,
    Observed,
    ObservedContainer,
    ObservedImage,
    ObservedNetwork,
    companion_address,
    network_address,
    workspace_address,
)

_UP = ("running", "paused", "restarting")
_NEVER = "0001-01-01T00:00:00Z"


@dataclass
class Endpoint:
    """A container's place in a network, that may have been removed since."""

    network: str
    address: str


@dataclass
class FakeContainer:
    id: str
    name: str
    service: str
    image: str
    image_id: str
    hash: str
    fields: dict[str, Any]
    """All but its name and its networks, which are kept on their own."""
    endpoints: dict[str, Endpoint]
    """By the names of networks."""
    created: int
    number: int = 1
    state: str = "created"
    started_at: str = _NEVER
    restarts: int = 0
    one_off: bool = False
    joined: str = ""
    """The id of the container whose network it shares."""


@dataclass
class FakeEngine:
    """The engine of one project. ``pullable`` are the images that a registry has, and their ids.

    ``refuse`` holds pairs of an operation (a method's name) and a service, an image or a network
    that it fails for. ``calls`` are all operations that changed something, in their order.
    """

    project: str
    output: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    tagged: dict[str, ObservedImage] = field(default_factory=dict)
    pullable: dict[str, ObservedImage] = field(default_factory=dict)
    containers: dict[str, FakeContainer] = field(default_factory=dict)
    networks: dict[str, ObservedNetwork] = field(default_factory=dict)
    refuse: set[tuple[str, str]] = field(default_factory=set)
    taken_ports: set[int] = field(default_factory=set)
    taken_subnets: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = field(default_factory=list)
    owned: set[tuple[str, str, str]] = field(default_factory=set)
    """Services, users, and the folders that were handed over to them."""
    calls: list[tuple[str, str]] = field(default_factory=list)
    on_call: Callable[[str, str], None] = lambda *_: None
    """Called before each operation: for what somebody else does meanwhile."""
    blind: bool = False
    """Whether Traefik doesn't follow its files: their folder was removed under it."""
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _lock: threading.RLock = field(default_factory=threading.RLock)

    # ── what apply asks of an engine ────────────────────────────────────────────────────────

    def observe(self, images: Iterable[str] = (), *, routes: bool = False) -> Observed:
        files = read_files(self.output)
        found = self._addressed()
        written = routes_written(files)
        proxy = found.get(PROXY)
        asked = routes and proxy is not None and proxy.running and not self.blind
        used = {name for each in found.values() for name in (each.image, each.image_id)}
        names = {*images, *used} & set(self.tagged)
        return Observed(
            containers=found,
            networks={network_address(each.key): each for each in self.networks.values()},
            one_offs=tuple(self._observed(c) for c in self.containers.values() if c.one_off),
            images={name: self.tagged[name] for name in sorted(names)},
            files=files,
            rendered=read_rendered(files.get(COMPOSE_FILE, "")),
            routes_written=written,
            routes_seen=written if asked else None,
        )

    def pull(self, image: str) -> None:
        with self._doing("pull", image):
            if image not in self.pullable:
                raise DualError("No such image", why=f"manifest for {image} not found")
            self.tagged[image] = self.tagged[self.pullable[image].id] = self.pullable[image]

    def build(self, image: str, wanted: DesiredBuild, say: Callable[[str], None]) -> None:
        with self._doing("build", wanted.content):
            say("Step 1/1")
            self.tagged[image] = ObservedImage(
                f"sha256:{wanted.content}", {"build": wanted.content}
            )

    def create(self, services: list[str], progress: Callable[[str, str], None]) -> None:
        text = read_files(self.output).get(COMPOSE_FILE, "")
        compose = read_rendered(text)
        assert compose.get("name") == self.project
        unknown = [each for each in services if each not in compose["services"]]
        assert not unknown, f"no such service: {unknown}"
        for service in services:
            with self._doing("create", service):
                definition = compose["services"][service]
                for key in definition.get("networks", ()):
                    self._need_network(key, compose["networks"][key])
                self._recreate(service, definition)
            progress(service, "created")

    def check_port(self, bind: str, port: int, held: str = "") -> None:
        if port in self.taken_ports:
            raise DualError(f"Port {port} is taken", why=f"{bind}, besides {held or 'nothing'}")

    def check_subnets(self, subnets: Iterable[str], going: Iterable[str]) -> None:
        there = [each for name, each in self.networks.items() if name not in set(going)]
        taken = [ipaddress.ip_network(each.subnet) for each in there] + self.taken_subnets
        for subnet in map(ipaddress.ip_network, subnets):
            if any(subnet.overlaps(each) for each in taken):
                raise DualError("The networks' addresses are taken", why=str(subnet))

    def volumes(self) -> Mapping[str, str]:
        return {}

    def own(self, container: str, user: str, folders: Iterable[str]) -> None:
        found = self._find(container)
        with self._doing("own", found.service):
            self.owned |= {(found.service, user, folder) for folder in folders}

    def start(self, container: str) -> None:
        found = self._find(container)
        with self._doing("start", found.service):
            if found.state in ("paused", "dead", "removing"):
                raise DualError("Refused", why=f"cannot start a {found.state} container")
            if found.state in _UP:
                return
            if found.joined:
                holder = self.containers.get(found.joined)
                if holder is None or holder.state not in _UP:
                    raise DualError("Refused", why="cannot join network of a non running container")
            for name, endpoint in found.endpoints.items():
                network = self.networks.get(name)
                if network is None or network.id != endpoint.network:
                    raise DualError("Refused", why=f"network {endpoint.network} not found")
                self._check_address(endpoint.address, name)
            found.state, found.started_at = "running", self._now()
            if found.service == PROXY_SERVICE:
                self.blind = False  # a start mounts what stands there now

    def images(self, names: Iterable[str]) -> Mapping[str, ObservedImage]:
        return {name: self.tagged[name] for name in names if name in self.tagged}

    def restart(self, container: str) -> None:
        found = self._find(container)
        with self._doing("restart", found.service):
            found.started_at = self._now()

    def wait_until_healthy(self, container: str, _: threading.Event) -> None:
        found = self._find(container)
        with self._doing("wait", found.service):
            if found.state != "running":
                raise DualError("Refused", why=f"{found.service} does not run")

    def unpause(self, container: str) -> None:
        found = self._find(container)
        with self._doing("unpause", found.service):
            if found.state != "paused":
                raise DualError("Refused", why=f"container {found.name} is not paused")
            found.state = "running"

    def rename(self, container: str, name: str) -> None:
        found = self._find(container)
        with self._doing("rename", found.service):
            self._check_name(name)
            found.name = name

    def remove(self, container: str) -> None:
        found = self._find(container)
        with self._doing("remove", found.service):
            del self.containers[found.id]

    def connect(self, network: str, container: str, address: str) -> None:
        found = self._find(container)
        with self._doing("connect", found.service):
            if network not in self.networks:
                raise DualError("Refused", why=f"network {network} not found")
            if network in found.endpoints:
                raise DualError("Refused", why=f"endpoint with name {found.name} already exists")
            self._check_address(address, network)
            found.endpoints[network] = Endpoint(self.networks[network].id, address)

    def disconnect(self, network: str, container: str) -> None:
        found = self._find(container)
        with self._doing("disconnect", found.service):
            if network not in self.networks:
                raise DualError("Refused", why=f"network {network} not found")
            if network not in found.endpoints:
                raise DualError("Refused", why=f"{found.name} is not connected to {network}")
            del found.endpoints[network]

    def remove_network(self, network: str) -> None:
        with self._doing("remove_network", network):
            if network not in self.networks:
                raise DualError("Refused", why=f"network {network} not found")
            if users := [each.name for each in self._up_in(network)]:
                raise DualError("Refused", why=f"network has active endpoints: {users}")
            del self.networks[network]

    # ── what people do by hand ──────────────────────────────────────────────────────────────

    def container(self, service: str) -> FakeContainer:
        """The one container of a service."""
        [found] = [each for each in self.containers.values() if each.service == service]
        return found

    def stop(self, service: str) -> None:
        self.container(service).state = "exited"

    def add(self, service: str, name: str, **fields: Any) -> FakeContainer:
        """A container that runs, and that dual didn't make."""
        self._check_name(name)
        container = FakeContainer(
            id=self._id(),
            name=name,
            service=service,
            image="busybox",
            image_id="sha256:busybox",
            hash="",
            fields=fields,
            endpoints={},
            created=self._next(),
            number=2,
            state="running",
            started_at=self._now(),
        )
        self.containers[container.id] = container
        return container

    # ── how ─────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def _doing(self, operation: str, what: str) -> Iterator[None]:
        self.on_call(operation, what)
        with self._lock:
            if (operation, what) in self.refuse:
                raise DualError("Refused", why=f"can't {operation} {what}", mend="mend it")
            yield
            self.calls.append((operation, what))

    def _next(self) -> int:
        return next(self._numbers)

    def _now(self) -> str:
        """A little later each time."""
        return (datetime(2026, 1, 1) + timedelta(seconds=self._next())).isoformat() + "Z"

    def _id(self) -> str:
        return f"{self._next():064x}"[::-1]  # so that they differ in the few digits that are shown

    def _find(self, container: str) -> FakeContainer:
        for each in self.containers.values():
            if container in (each.id, each.name):
                return each
        raise DualError("Refused", why=f"No such container: {container}")

    def _check_name(self, name: str) -> None:
        if any(each.name == name for each in self.containers.values()):
            raise DualError("Refused", why=f"the container name {name} is already in use")

    def _up_in(self, network: str) -> list[FakeContainer]:
        return [
            each
            for each in self.containers.values()
            if each.state in _UP and network in each.endpoints
        ]

    def _check_address(self, address: str, network: str) -> None:
        subnet = ipaddress.ip_network(self.networks[network].subnet)
        if address and ipaddress.ip_address(address) not in subnet:
            raise DualError("Refused", why=f"no subnet of {network} contains {address}")
        if address in (each.endpoints[network].address for each in self._up_in(network)):
            raise DualError("Refused", why=f"{address} is already in use")

    def _need_network(self, key: str, definition: Mapping[str, Any]) -> None:
        name = f"{self.project}_{key}"
        subnet = ipaddress.ip_network(definition["ipam"]["config"][0]["subnet"])
        digest = definition["labels"][LABEL_HASH]
        if found := self.networks.get(name):
            if (found.subnet, found.hash) != (str(subnet), digest):
                raise DualError("Refused", why=f"network {name} needs to be recreated")
            return
        for other in self.networks.values():
            if subnet.overlaps(ipaddress.ip_network(other.subnet)):
                raise DualError("Refused", why=f"{name} overlaps with {other.name}")
        self.networks[name] = ObservedNetwork(self._id(), name, key, str(subnet), digest)

    def _recreate(self, service: str, definition: Mapping[str, Any]) -> None:
        fields, _ = desired_fields(service, definition, self.output, self.variables, self.project)
        image = self.tagged.get(fields["image"])
        if image is None:
            raise DualError("Refused", why=f"No such image: {fields['image']}")
        joined = ""
        if mode := definition.get(NETWORK_MODE):
            holder = mode.removeprefix("service:")
            there = [each.id for each in self.containers.values() if each.service == holder]
            if not there:
                raise DualError("Refused", why=f"no container of {holder}")
            joined = there[0]
        name = str(fields["name"])
        for old in [each for each in self.containers.values() if each.service == service]:
            del self.containers[old.id]
        self._check_name(name)
        endpoints = {
            f"{self.project}_{key}": Endpoint(
                self.networks[f"{self.project}_{key}"].id, fields[f"networks.{key}"]
            )
            for key in definition.get("networks", ())
        }
        own = {
            field: value
            for field, value in fields.items()
            if field not in ("name", NETWORK_MODE) and not field.startswith("networks.")
        }
        digest = definition["labels"][LABEL_HASH]
        container = FakeContainer(
            id=self._id(),
            name=name,
            service=service,
            image=fields["image"],
            image_id=image.id,
            hash=digest,
            fields={**image.fields, **own},
            endpoints=endpoints,
            created=self._next(),
            joined=joined,
        )
        self.containers[container.id] = container

    def _addressed(self) -> dict[str, ObservedContainer]:
        """As dual_iac.engine.observe does it: what is dual's first, then by number and age."""
        found: dict[str, ObservedContainer] = {}
        newest_first = sorted(self.containers.values(), key=lambda each: -each.created)
        for each in sorted(newest_first, key=lambda each: (not is_duals(each), each.number)):
            if each.one_off:
                continue
            address = self._address(each)
            if address in found:
                address = f"{address}#{each.name}"
            found[address] = self._observed(each)
        return found

    def _address(self, container: FakeContainer) -> str:
        name = container.service or container.name
        workspace = str(container.fields.get(f"labels.{LABEL_WORKSPACE}", ""))
        companion = str(container.fields.get(f"labels.{LABEL_COMPANION}", ""))
        if companion and name == companion_service(workspace, companion):
            return companion_address(workspace, companion)
        return PROXY if name == PROXY_SERVICE else workspace_address(name)

    def _observed(self, container: FakeContainer) -> ObservedContainer:
        networks = {}
        for name, endpoint in container.endpoints.items():
            there = name in self.networks and self.networks[name].id == endpoint.network
            key = name.removeprefix(f"{self.project}_")
            networks[f"networks.{key}"] = endpoint.address if there else GONE
        if container.joined:
            holder = self.containers.get(container.joined)
            networks[NETWORK_MODE] = (
                f"service:{holder.service if holder else container.joined[:12]}"
            )
        return ObservedContainer(
            id=container.id,
            name=container.name,
            service=container.service,
            state=container.state,
            exit_code=0,
            health=None,
            started_at=container.started_at,
            image=container.image,
            image_id=container.image_id,
            restarts=container.restarts,
            hash=container.hash,
            fields={
                "image": container.image,
                **container.fields,
                "name": container.name,
                **networks,
            },
        )


def is_duals(container: FakeContainer) -> bool:
    return f"labels.{LABEL_PROJECT}" in container.fields


@dataclass
class Machine:
    """A folder with a dual.yaml, and an engine: what the commands put together."""

    folder: Path
    project: str = "shop"
    variables: dict[str, str] = field(default_factory=dict)
    engine: FakeEngine = field(init=False)
    progress: list[tuple[str, str]] = field(default_factory=list)
    certified: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.engine = FakeEngine(self.project, self.folder / "compose", self.variables)

    def desired(self, spec: str) -> Desired:
        """What a dual.yaml renders to here: subnets once given stay."""
        files = read_files(self.engine.output)
        return render(
            parse_project(spec, "dual.yaml"),
            self.folder,
            given_subnets=subnets_of(read_rendered(files.get(COMPOSE_FILE, "")), self.project),
            environment=self.variables,
        )

    def observed(self, desired: Desired) -> Observed:
        there = {a for a, clone in desired.clones.items() if Path(clone.path).is_dir()}
        observed = self.engine.observe(desired.images, routes=True)
        flaws = {name: "missing" for name in desired.certificates if name not in self.certified}
        return replace(observed, clones=frozenset(there), flaws=flaws)

    def plan(self, spec: str, *targets: str) -> Plan:
        desired = self.desired(spec)
        return make_plan(desired, self.observed(desired), targets)

    def apply(self, spec: str, *targets: str) -> tuple[Plan, Failures]:
        desired = self.desired(spec)
        observed = self.observed(desired)
        plan = make_plan(desired, observed, targets)
        return plan, self.carry_out(plan, desired, observed)

    def carry_out(self, plan: Plan, desired: Desired, observed: Observed) -> Failures:
        return apply_plan(
            plan,
            desired,
            observed,
            self.engine,
            self.engine.output,
            lambda service, event: self.progress.append((service, event)),
            lambda clone, _: Path(clone.path).mkdir(parents=True),
            lambda *_: None,
            lambda wanted: self.certified.update(each.name for each in wanted),
        )

    def lives(self) -> dict[str, tuple[str, str]]:
        """Id and start time of every container, by address."""
        found = self.engine.observe().containers
        return {address: (each.id, each.started_at) for address, each in found.items()}
