"""What a plan is bound to: two states and what is said to have moved between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from dual_iac.fingerprint import desired_fingerprint, moved, observed_fingerprint
from dual_iac.state import (
    Desired,
    DesiredContainer,
    DesiredNetwork,
    Observed,
    ObservedContainer,
    ObservedImage,
    ObservedNetwork,
    digest,
)

DESIRED = Desired(
    project="shop",
    files={"compose.yaml": "a: 1\n", "traefik/routes/a.yaml": "b: 2\n"},
    containers={"workspace.a": DesiredContainer("a", "h1", {}, {"image": "node"})},
    networks={"network.a": DesiredNetwork("ws-a", "10.0.0.0/29", "n1")},
    routes={"route.a": "traefik/routes/a.yaml"},
)
CONTAINER = ObservedContainer(
    id="0123456789abcdef",
    name="shop-a-1",
    service="a",
    state="running",
    exit_code=0,
    health=None,
    started_at="2026-01-01T00:00:00Z",
    image="node",
    image_id="sha256:1",
    restarts=0,
    hash="h1",
    fields={"name": "shop-a-1", "env.A": "s3cret", "resources.memory": 1},
)
OBSERVED = Observed(
    containers={"workspace.a": CONTAINER},
    networks={"network.a": ObservedNetwork("id-a", "shop_ws-a", "ws-a", "10.0.0.0/29", "n1")},
    images={"node": ObservedImage("sha256:1", {})},
    files={"compose.yaml": "a: 1\n"},
    routes_seen="r1",
)


def a(**parts: Any) -> dict[str, ObservedContainer]:
    return {"workspace.a": replace(CONTAINER, **parts)}


def a_with(**fields: Any) -> dict[str, ObservedContainer]:
    return a(fields={**CONTAINER.fields, **{k.replace("__", "."): v for k, v in fields.items()}})


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        ({"containers": {}}, "workspace.a: not declared any more"),
        (
            {"containers": {"workspace.a": DesiredContainer("a", "h2", {}, {"image": "node"})}},
            "workspace.a: declared otherwise now",
        ),
        ({"networks": {}}, "network.a: not declared any more"),
        (
            {"networks": {"network.a": DesiredNetwork("ws-a", "10.0.0.0/29", "n2")}},
            "network.a: declared otherwise now",
        ),
        ({"files": {**DESIRED.files, "x": ""}}, "file.x: not declared then"),
        ({"files": {**DESIRED.files, "compose.yaml": ""}}, "file.compose.yaml: declared otherwise"),
        (
            {"files": {**DESIRED.files, "traefik/routes/a.yaml": ""}},
            "route.a: declared otherwise now",
        ),
    ],
)
def test_what_is_declared(parts: Mapping[str, Any], line: str) -> None:
    now = desired_fingerprint(replace(DESIRED, **parts))
    [said] = moved(desired_fingerprint(DESIRED), now)
    assert said.startswith(line)


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        ({"containers": {}}, "workspace.a: its container is gone"),
        ({"containers": a(id="f" * 16)}, "workspace.a: has another container now"),
        ({"containers": a(state="exited")}, "workspace.a: running then, exited now"),
        (
            {"containers": a_with(name="x")},
            "workspace.a: its name, limits or networks were changed",
        ),
        ({"containers": a_with(resources__memory=2)}, "workspace.a: its name, limits or networks"),
        ({"containers": a_with(restart="no")}, "workspace.a: its name, limits or networks"),
        ({"containers": a_with(**{"networks.ws-b": ""})}, "workspace.a: its name, limits or"),
        ({"networks": {}}, "network.a: its network is gone"),
        (
            {"networks": {"network.a": replace(OBSERVED.networks["network.a"], id="other")}},
            "network.a: has another network now",
        ),
        ({"images": {}}, "workspace.a: its image is gone"),
        (
            {"images": {"node": ObservedImage("sha256:2", {})}},
            "workspace.a: its image is another one now",
        ),
        ({"routes_seen": "r2"}, "proxy: the proxy has read other routes now"),
        ({"routes_seen": None}, "proxy: the proxy has read no routes now"),
        ({"files": {}}, "file.compose.yaml: gone now"),
        ({"files": {"compose.yaml": "a: 2\n"}}, "file.compose.yaml: edited since"),
    ],
)
def test_what_there_is(parts: Mapping[str, Any], line: str) -> None:
    now = observed_fingerprint(replace(OBSERVED, **parts), DESIRED)
    before = observed_fingerprint(OBSERVED, DESIRED)
    [said] = moved(before, now)
    assert said.startswith(line)
    new = moved(now, before)
    assert len(new) == 1
    assert new[0].partition(":")[0] == said.partition(":")[0]


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        (Observed(), OBSERVED, "workspace.a: had no container then"),
        (Observed(), OBSERVED, "network.a: had no network then"),
        (Observed(), OBSERVED, "file.compose.yaml: not there then"),
    ],
)
def test_what_is_new(before: Observed, after: Observed, line: str) -> None:
    assert line in moved(observed_fingerprint(before), observed_fingerprint(after))


@pytest.mark.parametrize(
    "containers",
    [
        a(state="restarting"),  # a command that ends by itself, and is started again
        a(started_at="2026-02-02T00:00:00Z", restarts=7),
        a(health="unhealthy", exit_code=1),
    ],
)
def test_what_containers_do_by_themselves_moves_nothing(containers: dict[str, Any]) -> None:
    now = observed_fingerprint(replace(OBSERVED, containers=containers))
    assert moved(observed_fingerprint(OBSERVED), now) == []


def test_no_value_that_may_be_a_secret_is_in_it() -> None:
    assert "s3cret" not in repr(observed_fingerprint(OBSERVED))


def test_lines_come_in_the_order_of_addresses() -> None:
    lines = moved({}, observed_fingerprint(OBSERVED))
    assert lines == sorted(lines)


def test_digests() -> None:
    assert digest({"a": 1, "b": (1, 2)}) == digest({"b": [1, 2], "a": 1})
    assert digest("a") != digest("b")
    assert len(digest(None)) == 16
