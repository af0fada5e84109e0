"""What Docker says → what dual says: pure readings of the engine's output."""

from __future__ import annotations

from itertools import islice

import pytest

from dual_iac.engine.docker import compose_events, parse_bridges, parse_listeners
from dual_iac.engine.doctor import Level, examine
from dual_iac.engine.errors import engine_error, half_a_network, in_the_way, said
from dual_iac.engine.observe import DockerCommand
from dual_iac.errors import DualError, EngineUnreachableError
from dual_iac.spec import parse_project
from dual_iac.view import format_bytes


@pytest.mark.parametrize(
    ("output", "kind", "summary"),
    [
        (
            "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. "
            "Is the docker daemon running?",
            EngineUnreachableError,
            "The Docker engine does not answer",
        ),
        (
            "permission denied while trying to connect to the docker API at "
            "unix:///var/run/docker.sock",
            EngineUnreachableError,
            "You may not talk to the Docker engine",
        ),
        (
            "docker: 'compose' is not a docker command.",
            EngineUnreachableError,
            "Docker Compose is not installed",
        ),
        (
            "Error response from daemon: driver failed programming external connectivity on "
            "endpoint shop-traefik-1: Error starting userland proxy: listen tcp4 127.0.0.1:3000: "
            "bind: address already in use",
            DualError,
            "Port 3000 is taken by something else on this machine",
        ),
        (
            "Error response from daemon: Bind for 127.0.0.1:8080 failed: port is already allocated",
            DualError,
            "Port 8080 is taken by something else on this machine",
        ),
        (
            "Error response from daemon: Pool overlaps with other one on this address space",
            DualError,
            "The networks' addresses are taken by another network",
        ),
        (
            "Error response from daemon: unable to find user ada: no matching entries",
            DualError,
            "Docker reports a failure",
        ),
        ("something else", DualError, "Docker reports a failure"),
        ("", DualError, "Docker reports a failure"),
    ],
)
def test_engine_errors(output: str, kind: type[DualError], summary: str) -> None:
    error = engine_error(output)
    assert (type(error), error.summary) == (kind, summary)
    assert error.why or not output


def test_what_a_user_can_do_about_it() -> None:
    nobody = engine_error("unable to find user ada: no matching entries in passwd file")
    assert nobody.mend.startswith("the image has no ada")
    held = engine_error("error while removing network: network x has active endpoints")
    assert "docker network disconnect" in held.mend


class OldDocker(DockerCommand):
    """One with a Compose of some version."""

    def __init__(self, compose: str) -> None:
        super().__init__()
        self.compose = compose

    def run(self, *arguments: str, partial: bool = False) -> str:  # noqa: ARG002
        return f"{self.compose}\n" if arguments[0] == "compose" else "20.10.24\n"


@pytest.mark.parametrize(
    ("compose", "services", "level"),
    [
        ("5.3.1", "{db: {image: y}}", Level.OK),
        ("2.40.0", "{db: {image: y}}", Level.WARNING),
        ("2.40.0", "~", Level.OK),
        ("2.20.0", "{db: {image: y}}", Level.FAILED),
    ],
)
def test_which_compose_will_do(compose: str, services: str, level: Level) -> None:
    spec = f"version: 1\nproject: p\nworkspaces: {{a: {{image: x, services: {services}}}}}\n"
    findings = examine(OldDocker(compose), parse_project(spec, "dual.yaml"))
    [found] = [each for each in islice(findings, 3) if each.check == "compose"]
    assert found.level is level


def test_half_a_network() -> None:
    ghost = "fe5f61011857a4ce53ec851dbd8550200f95c4d19aba33c5a8a44fd1bc63d2de"
    said_of_it = engine_error(
        f"failed to create network p_ws-a: cannot create network 393b (br-393b): conflicts with "
        f"network {ghost} (br-fe5f61011857): networks have overlapping IPv4"
    )
    assert in_the_way(said_of_it) == ghost
    error = half_a_network(ghost)
    assert "no network fe5f61011857:" in error.why
    assert "local-kv.db" in error.mend
    assert in_the_way(engine_error("no such user")) is None


def test_said_leaves_out_what_tells_nothing() -> None:
    output = "Error response from daemon: no such user\nError: failed to start containers: shop-a-1"
    assert said(output) == "no such user"
    assert said("exit status 1") == "exit status 1"


def test_said_unwraps_what_compose_says() -> None:
    output = (
        '{"id":"Container x","status":"Working","text":"Starting"}\n'
        '{"error":true,"message":"Error response from daemon: no"}\n'
        "Error response from daemon: no\n"
        "{not json\n"
    )
    assert said(output) == "no"


def test_compose_events_tell_services_apart() -> None:
    lines = [
        ("stderr", b'{"id":"Network p_edge","status":"Done","text":"Created"}\n'),
        ("stderr", b'{"id":"Container p-feat-auth-1","status":"Working","text":"Starting"}\n'),
        ("stderr", b"no json\n"),
        ("stderr", b"[1]\n"),
    ]
    assert list(compose_events(lines, "p")) == [("feat-auth", "starting")]


def test_bridges_that_lead_to_a_subnet() -> None:
    routes = (
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\n"
        "br-0123456789ab\t38A7790A\t00000000\t0001\t0\t0\t0\tF8FFFFFF\t0\n"
        "br-fedcba987654\t38A7790A\t00000000\t0001\t0\t0\t0\tF8FFFFFF\t0\n"
        "br-111111111111\t40A7790A\t00000000\t0001\t0\t0\t0\tF8FFFFFF\t0\n"
        "tun0\t38A7790A\t00000000\t0001\t0\t0\t0\tF8FFFFFF\t0\n"
    )
    bridges = parse_bridges(routes, "10.121.167.56/29")
    assert bridges == {"br-0123456789ab", "br-fedcba987654"}


def test_listeners_are_read_from_the_kernels_tables() -> None:
    tables = (
        "  sl  local_address rem_address   st tx_queue\n"
        "   0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000\n"
        "   1: 0B00007F:9C40 00000000:0000 0A 00000000:00000000\n"
        "   2: 0100007F:0BB8 0100007F:1234 01 00000000:00000000\n"
        "   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0:0\n"
    )
    assert set(parse_listeners(tables)) == {("127.0.0.1", 3000), ("::", 8080)}


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (64 * 1024**2, "64.0 MiB"),
        (3 * 1024**3, "3.0 GiB"),
    ],
)
def test_bytes_for_people(count: int, text: str) -> None:
    assert format_bytes(count) == text
