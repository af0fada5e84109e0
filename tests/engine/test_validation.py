"""The validation that this project rests on, one test a row, with 8 workspaces of one project."""

from __future__ import annotations

import re
from typing import Any

import pytest
import testinfra

from tests.engine.conftest import LiveProject, docker

THREE = ("w1", "w2", "w3")
EIGHT = (*THREE, "w4", "w5", "w6", "w7", "w8")


@pytest.fixture(scope="module")
def eight(shared: LiveProject) -> LiveProject:
    """Three workspaces first, then eight, as row 1.1 has it."""
    shared.declare(*THREE)
    shared.apply()
    for name in THREE:
        assert shared.is_up(name)
    shared.declare(*EIGHT)
    shared.apply()
    return shared


def inside(project: LiveProject, name: str) -> Any:
    """testinfra's view from inside a workspace."""
    return testinfra.get_host(f"docker://{project.name}-{name}-1")


def test_1_1_three_then_eight_listen_on_the_same_port(eight: LiveProject) -> None:
    for name in EIGHT:
        host = inside(eight, name)
        assert host.socket("tcp://0.0.0.0:3000").is_listening, name
        assert eight.inspect(name)["State"]["Status"] == "running", name


@pytest.mark.parametrize("name", EIGHT)
def test_1_2_localhost_is_the_workspace_itself(eight: LiveProject, name: str) -> None:
    assert inside(eight, name).check_output("curl -sS localhost:3000").split() == [name]


@pytest.mark.parametrize("code", [0, 1, 42, 126, 127, 255])
def test_1_3_exec_keeps_exit_codes(eight: LiveProject, code: int) -> None:
    done = eight.dual("exec", "w1", "--", "sh", "-c", f"exit {code}")
    assert done.code == code, done


def test_1_3_exec_says_127_for_a_command_that_is_not_there(eight: LiveProject) -> None:
    done = eight.dual("exec", "w1", "--", "nosuchcommand")
    assert done.code == 127, done


def test_1_3_exec_says_126_for_a_file_that_is_no_program(eight: LiveProject) -> None:
    done = eight.dual("exec", "w1", "--", "/etc/passwd")
    assert done.code == 126, done


@pytest.mark.parametrize("name", EIGHT)
def test_2_1_no_workspace_publishes_a_port(eight: LiveProject, name: str) -> None:
    data = eight.inspect(name)
    assert not data["HostConfig"]["PortBindings"]
    assert data["NetworkSettings"]["Ports"] == {"3000/tcp": None}


def test_2_1_only_traefik_publishes_and_only_on_loopback(eight: LiveProject) -> None:
    ports = eight.inspect("traefik")["NetworkSettings"]["Ports"]
    published = [binding for bindings in ports.values() for binding in bindings or ()]
    assert published == [{"HostIp": "127.0.0.1", "HostPort": str(eight.port)}]


@pytest.mark.parametrize("name", EIGHT)
def test_2_1_each_answers_on_its_own_host(eight: LiveProject, name: str) -> None:
    assert eight.body(f"{name}.localhost").split() == [name]
    answer = eight.ask(f"{name}.localhost")
    assert (answer.status, answer.workspace) == (200, name)


def test_2_1_an_unknown_host_gets_the_proxys_404(eight: LiveProject) -> None:
    answer = eight.ask("unknown.localhost")
    assert (answer.status, answer.workspace) == (404, None)


def test_3_1_everyone_has_a_namespace_an_address_and_a_network(eight: LiveProject) -> None:
    namespaces, addresses, networks = set(), set(), set()
    for name in EIGHT:
        namespaces.add(inside(eight, name).check_output("readlink /proc/self/ns/net"))
        attached = eight.inspect(name)["NetworkSettings"]["Networks"]
        assert list(attached) == [f"{eight.name}_ws-{name}"]
        for network, endpoint in attached.items():
            networks.add(network)
            addresses.add(endpoint["IPAddress"])
    assert len(namespaces) == len(addresses) == len(networks) == len(EIGHT)


def test_4_1_a_restart_leaves_the_neighbours_alone(eight: LiveProject) -> None:
    others = [name for name in (*EIGHT, "traefik") if name != "w5"]
    before = {name: eight.identity(name) for name in others}
    sandbox = eight.inspect("w5")["NetworkSettings"]["SandboxID"]
    done = eight.dual("restart", "w5")
    assert done.code == 0, done
    assert {name: eight.identity(name) for name in others} == before
    assert eight.inspect("w5")["NetworkSettings"]["SandboxID"] != sandbox
    for name in EIGHT:
        assert eight.is_up(name), name


def test_4_2_all_run_together_and_memory_is_reported(eight: LiveProject) -> None:
    done = eight.dual("status", "--format", "json")
    assert done.code == 0, done
    rows = done.data["workspaces"]
    assert [row["name"] for row in rows] == list(EIGHT)
    for row in rows:
        assert (row["state"], row["health"]) == ("running", "ready"), row
        assert row["memory_bytes"] > 0, row
    table = eight.dual("status").stdout
    assert re.search(r"w8 +running +ready +http://w8\.localhost:\d+ .* MiB", table), table


def test_the_proxy_holds_nothing_it_does_not_need(eight: LiveProject) -> None:
    data = eight.inspect("traefik")
    assert data["HostConfig"]["ReadonlyRootfs"] is True
    assert data["HostConfig"]["CapDrop"] == ["ALL"]
    assert data["HostConfig"]["Privileged"] is False
    assert data["Config"]["User"] == "65532:65532"
    assert [mount["Destination"] for mount in data["Mounts"]] == ["/etc/traefik"]
    assert data["Mounts"][0]["RW"] is False


def test_a_new_workspace_restarts_nobody(eight: LiveProject) -> None:
    """Adding five to three left the three, and Traefik, as they were."""
    before = {name: eight.identity(name) for name in (*EIGHT, "traefik")}
    eight.declare(*EIGHT, "a-new-one")
    eight.apply()
    assert {name: eight.identity(name) for name in before} == before
    assert eight.is_up("a-new-one")
    eight.declare(*EIGHT)
    eight.apply()
    assert {name: eight.identity(name) for name in before} == before
    assert docker("ps", "-aq", "--filter", f"name={eight.name}-a-new-one") == ""
