"""From inside every workspace to everything there is: what is documented, and nothing else.

The engine is one of the tests' own, in a network namespace of its own with a small world around
it (``world.py``): so what answers is what is meant, and a metadata service can be played.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from dual_iac.seal import CAPABILITIES
from tests.engine.conftest import LAB_IMAGE, docker, run
from tests.engine.private import PrivateProject, private_engine
from tests.engine.world import (
    COUNTERS,
    HOST_PORT,
    HOSTS_LINK,
    METADATA,
    OUTSIDE,
    Outside,
    packets_in,
    world,
)

SILENCE = {"nothing", "refused", "no such name"}

BITS = {
    **{"CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "FSETID": 4, "KILL": 5, "SETGID": 6},
    **{"SETUID": 7, "NET_BIND_SERVICE": 10, "NET_ADMIN": 12, "NET_RAW": 13, "SYS_CHROOT": 18},
}
"""The kernel's numbers of capabilities, from its linux/capability.h."""

WORKSPACES = ("open", "other", "shut", "tool")
COMPANIONS = {"open": "open--db", "shut": "shut--db"}

# Says who it is, on a port of its own; asked for anything.
SERVER = """
import http.server, sys

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(sys.argv[1].encode())

http.server.ThreadingHTTPServer(("", int(sys.argv[2])), Answer).serve_forever()
"""

# Asks many targets at once, each over HTTP; prints what answers, as JSON.
ASKING = r"""
import json, re, socket, sys
from concurrent.futures import ThreadPoolExecutor

def ask(target):
    host, port, header = target
    try:
        with socket.create_connection((host, port), 1.5) as link:
            link.sendall(f"GET / HTTP/1.0\r\nHost: {header}\r\n\r\n".encode())
            link.settimeout(3)
            answer = b""
            while part := link.recv(65536):
                answer += part
    except socket.gaierror:
        return "no such name"
    except OSError as error:
        return "refused" if isinstance(error, ConnectionRefusedError) else "nothing"
    head, _, body = answer.decode().partition("\r\n\r\n")
    proxied = re.search(r"(?m)^x-dual-workspace: (\S+)", head.lower())
    return f"{proxied[1]} by the proxy" if proxied else body

targets = json.load(sys.stdin)
with ThreadPoolExecutor(32) as pool:
    print(json.dumps(list(pool.map(ask, targets))))
"""

# Sends all kinds of packets to an address; whether anything comes back doesn't matter.
KNOCKING = r"""
import socket, sys
address, = sys.argv[1:]
for port in (53, 3000, 5432, 8000, 40000):
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    link.sendto(b"knock", (address, port))
    link = socket.socket()
    link.setblocking(False)
    link.connect_ex((address, port))
try:
    ping = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
    ping.sendto(b"\x08\0\0\0\0\1\0\1knock", (address, 0))
except OSError:
    pass
"""


@dataclass
class Sealed:
    """A running project, and the addresses of all that is in it."""

    project: PrivateProject
    networks: dict[str, ipaddress.IPv4Network]
    outside: Outside

    def address(self, name: str) -> str:
        return str(self.networks[name][2])

    def proxys(self, name: str) -> str:
        """The proxy's address on a network."""
        return str(self.networks[name][3])

    def gateway(self, name: str) -> str:
        """The host's address on a network, or the one that it would have."""
        bridge = self.networks[name]
        shown = run(*self.project.engine.inside(), "ip", "-4", "-o", "address").stdout
        for word in shown.split():
            if "/" in word and ipaddress.ip_interface(word).network == bridge:
                return word.partition("/")[0]
        return str(bridge[4])  # where Docker puts it by itself

    def container(self, service: str) -> str:
        return f"{self.project.name}-{service}-1"

    def ask(self, service: str, *targets: tuple[str, int] | tuple[str, int, str]) -> list[str]:
        """What answers a service that asks these: hosts, ports, and names in the Host header."""
        asked = [[*target, "x"][:3] for target in targets]
        argv = ("exec", "-i", self.container(service), "python3", "-c", ASKING)
        done = run("docker", *argv, stdin=json.dumps(asked).encode())
        assert done.code == 0, f"asking from {service}: {done}"
        return list(done.data)

    def received(self, service: str) -> int:
        """How many IP packets have come in for a service."""
        return packets_in(docker("exec", self.container(service), "cat", *COUNTERS))

    def received_by_proxy(self) -> int:
        """The same of the proxy, whose image has no cat."""
        joined = f"container:{self.container('traefik')}"
        argv = ("run", "--rm", "--network", joined, LAB_IMAGE, "cat", *COUNTERS)
        return packets_in(docker(*argv))

    def knock(self, service: str, address: str) -> None:
        docker("exec", self.container(service), "python3", "-c", KNOCKING, address)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sealed]:
    with private_engine() as engine, pytest.MonkeyPatch.context() as patch:
        engine.load(LAB_IMAGE, "traefik:v3.7.15", "busybox:1.35")
        patch.setenv("DOCKER_HOST", engine.host)
        patch.delenv("DOCKER_CONTEXT", raising=False)  # it would come first
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        with world(engine) as outside:
            project = PrivateProject(tmp_path_factory.mktemp("project"), engine=engine)
            declare(project)
            project.apply()
            networks = {}
            for key in ("edge", *(f"ws-{name}" for name in WORKSPACES)):
                [data] = json.loads(docker("network", "inspect", f"{project.name}_{key}"))
                subnet = data["IPAM"]["Config"][0]["Subnet"]
                networks[key.removeprefix("ws-")] = ipaddress.IPv4Network(subnet)
            yield Sealed(project, networks, outside)


def declare(project: PrivateProject, bind: str = "127.0.0.1") -> None:
    """Each workspace and each companion says its own name."""

    def serving(name: str, port: int) -> str:
        return json.dumps(["python3", "-c", SERVER, name, str(port)])

    def companion(service: str) -> str:
        return f'{{db: {{image: "{LAB_IMAGE}", command: {serving(service, 5432)}}}}}'

    project.write(
        f"""\
        defaults: {{image: "{LAB_IMAGE}"}}
        workspaces:
          open:
            command: {serving("open", 3000)}
            services: {companion("open--db")}
          other: {{command: {serving("other", 3000)}}}
          shut:
            command: {serving("shut", 3000)}
            services: {companion("shut--db")}
            network: {{egress: false}}
          tool:
            command: {serving("tool", 3000)}
            allow: [NET_ADMIN, NET_RAW]
        """,
        https=project.port + 1,
        dashboard=True,
        dashboard_port=project.port + 2,
        bind=bind,
    )


# ── what each reaches ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", WORKSPACES)
def test_a_workspace_reaches_itself(sealed: Sealed, name: str) -> None:
    assert sealed.ask(name, ("127.0.0.1", 3000), ("localhost", 3000)) == [name, name]
    assert sealed.ask(name, (sealed.address(name), 3000)) == [name]
    if name in COMPANIONS:
        assert sealed.ask(name, ("localhost", 5432)) == [COMPANIONS[name]]


@pytest.mark.parametrize("name", WORKSPACES)
def test_a_workspace_reaches_no_other_and_no_companion_of_one(sealed: Sealed, name: str) -> None:
    targets: list[tuple[str, int]] = []
    for other in WORKSPACES:
        if other != name:
            hosts = [other, f"{other}--localhost", f"{other}--db", sealed.container(other)]
            hosts += [f"{other}.{sealed.project.name}_ws-{other}", sealed.address(other)]
            targets += [(host, port) for host in hosts for port in (3000, 5432)]
    answers = sealed.ask(name, *targets)
    assert set(answers) <= SILENCE, dict(zip(targets, answers, strict=True))


@pytest.mark.parametrize("name", WORKSPACES)
def test_a_workspace_reaches_no_port_of_the_proxy(sealed: Sealed, name: str) -> None:
    """By its name, by each of its addresses, and by where it publishes on the host."""
    published = [sealed.project.port + number for number in range(3)]
    own = [("traefik", port) for port in (8000, 8443, 8080, 3000)]
    own += [(sealed.proxys(net), port) for net in sealed.networks for port in (8000, 8443, 8080)]
    own += [(sealed.gateway(net), port) for net in sealed.networks for port in published]
    own += [(HOSTS_LINK, port) for port in published]
    targets = [(*target, "other.localhost") for target in own]
    answers = sealed.ask(name, *targets)
    assert set(answers) <= SILENCE, dict(zip(targets, answers, strict=True))


@pytest.mark.parametrize("name", ["open", "other", "tool"])
def test_a_workspace_reaches_its_host_and_beyond(sealed: Sealed, name: str) -> None:
    """What the host serves on all of its addresses, what is outside, and a cloud's metadata."""
    gateways = [(sealed.gateway(net), HOST_PORT) for net in (name, "edge")]
    assert sealed.ask(name, *gateways, (HOSTS_LINK, HOST_PORT)) == ["the host"] * 3
    assert sealed.ask(name, (OUTSIDE, 80), (METADATA, 80)) == ["outside"] * 2


def test_without_egress_nothing_is_reached(sealed: Sealed) -> None:
    gateways = [(sealed.gateway(net), HOST_PORT) for net in sealed.networks]
    targets = [*gateways, (HOSTS_LINK, HOST_PORT), (OUTSIDE, 80), (METADATA, 80)]
    answers = sealed.ask("shut", *targets)
    assert set(answers) <= SILENCE, dict(zip(targets, answers, strict=True))
    assert sealed.project.is_up("shut")  # the proxy reaches it


def test_without_egress_no_question_for_a_name_gets_out(sealed: Sealed) -> None:
    """Docker's own resolver would carry whatever is asked for to the host's."""

    def packets_of(service: str) -> int:
        look_up = "import socket; socket.getaddrinfo('secret.example.com', 80)"
        before = sealed.outside.received()
        run("docker", "exec", sealed.container(service), "python3", "-c", look_up)
        return sealed.outside.received() - before

    assert packets_of("shut") == 0
    assert packets_of("shut--db") == 0
    assert packets_of("open") > 0  # so this test would see one


def test_published_to_everyone_means_to_workspaces_too(sealed: Sealed) -> None:
    """As docs/security.md says of ``proxy.bind``: they are among those who reach this machine."""
    declare(sealed.project, bind="0.0.0.0")
    sealed.project.apply()
    try:
        port = sealed.project.port
        asked = [(sealed.gateway(name), port, "other.localhost") for name in ("open", "shut")]
        assert sealed.ask("open", asked[0]) == ["other by the proxy"]
        assert set(sealed.ask("shut", *asked)) <= SILENCE
    finally:
        declare(sealed.project)
        sealed.project.apply()


# ── no packet ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", WORKSPACES)
def test_no_packet_gets_from_one_to_another(sealed: Sealed, name: str) -> None:
    others = [each for each in (*WORKSPACES, *COMPANIONS.values()) if not each.startswith(name)]
    before = {each: sealed.received(each) for each in others}
    for other in WORKSPACES:
        if other != name:
            sealed.knock(name, sealed.address(other))
    assert {each: sealed.received(each) for each in others} == before
    assert sealed.project.is_up("other")
    assert sealed.received("other") > (before.get("other") or 0)  # what is counted does count


def test_the_proxy_passes_nothing_on(sealed: Sealed) -> None:
    """It is on all networks, and a workspace that may set its routes can send through it."""
    target, through = sealed.address("other"), sealed.proxys("tool")
    docker("exec", sealed.container("tool"), "ip", "route", "add", target, "via", through)
    before = sealed.received("other")
    at_proxy = sealed.received_by_proxy()
    sealed.knock("tool", target)
    assert sealed.received_by_proxy() > at_proxy  # it got there
    assert sealed.received("other") == before


@pytest.mark.parametrize("name", [*WORKSPACES, "open--db"])
def test_nobody_has_an_address_of_ipv6(sealed: Sealed, name: str) -> None:
    addresses = docker("exec", sealed.container(name), "cat", "/proc/net/if_inet6").splitlines()
    assert [line for line in addresses if line.split()[-1] != "lo"] == []


# ── what each may do ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "more"),
    [
        *[(each, ()) for each in ("open", "other", "shut", "open--db")],
        *[("tool", ("NET_ADMIN", "NET_RAW")), ("traefik", None), ("open--localhost", None)],
    ],
)
def test_rights_as_the_kernel_has_them(
    sealed: Sealed, name: str, more: tuple[str, ...] | None
) -> None:
    """Of the first process: capabilities, whether it may gain any, its filter of system calls."""
    pid = sealed.project.inspect(name)["State"]["Pid"]
    lines = sealed.project.engine.process_file(pid, "status").splitlines()
    status = dict(line.split(":", 1) for line in lines)
    kept = () if more is None else (*CAPABILITIES, *more)
    mask = sum(1 << BITS[each] for each in kept)
    assert int(status["CapBnd"], 16) == mask, f"{int(status['CapBnd'], 16):x} is not {mask:x}"
    assert int(status["CapEff"], 16) & ~mask == 0
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"
    if name == "traefik":
        assert status["Uid"].split() == ["65532"] * 4


def test_the_proxy_has_no_socket_and_writes_nowhere(sealed: Sealed) -> None:
    data = sealed.project.inspect("traefik")
    mounts = {each["Destination"]: each["RW"] for each in data["Mounts"]}
    assert mounts == {"/etc/traefik": False, "/certificates": False}
    assert data["HostConfig"]["ReadonlyRootfs"]
    assert not any(each["Source"].endswith(".sock") for each in data["Mounts"])


@pytest.mark.parametrize("name", ["open", "open--db"])
def test_processes_are_limited(sealed: Sealed, name: str) -> None:
    files = "/sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max"
    command = f"cat {files} 2>/dev/null"
    assert docker("exec", sealed.container(name), "sh", "-c", f"{command} || true") == "4096"


def test_after_all_that_the_plan_is_empty(sealed: Sealed) -> None:
    assert sealed.project.plan()["changes"] == []
