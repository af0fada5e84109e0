"""Desired and observed: addresses, and what belongs to whom."""

from __future__ import annotations

import pytest

from dual_iac.state import (
    Desired,
    DesiredContainer,
    Observed,
    ObservedContainer,
    ObservedNetwork,
    network_address,
    route_address,
    workspace_address,
)


def container(service: str, state: str = "running") -> ObservedContainer:
    return ObservedContainer(
        id=f"id-{service}",
        name=f"shop-{service}-1",
        service=service,
        state=state,
        exit_code=0,
        health=None,
        started_at="2026-01-01T00:00:00Z",
        image="node",
        image_id="sha256:1",
        restarts=0,
        hash="h",
        fields={},
    )


def network(key: str) -> ObservedNetwork:
    return ObservedNetwork(f"id-{key}", f"shop_{key}", key, "10.0.0.0/29", "n")


ALL = Observed(
    containers={
        "proxy": container("traefik"),
        "workspace.a": container("a"),
        "workspace.a#shop-a-2": container("a"),
        "workspace.edge": container("edge"),
        "workspace.stray": container(""),
    },
    networks={
        "network.traefik": network("edge"),
        "network.a": network("ws-a"),
        "network.edge": network("ws-edge"),
    },
    one_offs=(container("a"), container("edge")),
    files={"compose.yaml": ""},
)


def test_addresses() -> None:
    assert workspace_address("a") == "workspace.a"
    assert route_address("a") == "route.a"
    assert network_address("ws-a") == "network.a"
    assert network_address("edge") == "network.traefik"
    assert network_address("ws-edge") == "network.edge"


@pytest.mark.parametrize(
    ("names", "addresses", "one_offs"),
    [
        (["a"], ["workspace.a", "workspace.a#shop-a-2", "network.a"], ["a"]),
        # Not the proxy's network, though its key is edge.
        (["edge"], ["workspace.edge", "network.edge"], ["edge"]),
        (["nobody"], [], []),
    ],
)
def test_what_belongs_to_some(names: list[str], addresses: list[str], one_offs: list[str]) -> None:
    only = ALL.only(names)
    assert [*only.containers, *only.networks] == addresses
    assert [each.service for each in only.one_offs] == one_offs
    assert only.files == ALL.files


def test_without_names_all_is_meant() -> None:
    assert ALL.only(()) is ALL


def test_one_workspace() -> None:
    found = ALL.workspace("a")
    assert found
    assert found.service == "a"
    assert ALL.workspace("nobody") is None


@pytest.mark.parametrize(
    ("state", "running", "up"),
    [
        ("running", True, True),
        ("restarting", False, True),
        *((state, False, False) for state in ("created", "paused", "removing", "exited", "dead")),
    ],
)
def test_what_is_up(state: str, running: bool, up: bool) -> None:
    assert container("a", state).running is running
    assert container("a", state).is_up is up


def test_what_desired_tells() -> None:
    fields = {"image": "traefik", "name": "shop-traefik-1", "ports.8000/tcp": "[::1]:3000"}
    proxy = DesiredContainer("traefik", "h", {}, fields)
    desired = Desired("shop", {}, {"proxy": proxy}, {}, {})
    assert desired.published == ["[::1]:3000"]
    assert desired.images == {"traefik"}
    assert proxy.name == "shop-traefik-1"


def test_a_network_that_is_not_duals_is_no_workspaces() -> None:
    """A key may be some workspace's name."""
    assert network_address("ws-zeta") == "network.zeta"
    assert network_address("zeta") == "network.#zeta"
    assert network_address("edge") == "network.traefik"
