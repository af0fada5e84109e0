"""What should be and what is → a plan. A test is two literals and one expected text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from dual_iac.output import SEEN_FILE, read_rendered
from dual_iac.plan import Action, Plan, make_plan
from dual_iac.render import render
from dual_iac.spec import parse_project
from dual_iac.state import (
    GONE,
    LABEL_PROJECT,
    PROXY,
    Desired,
    DesiredCertificate,
    DesiredContainer,
    DesiredNetwork,
    Observed,
    ObservedContainer,
    ObservedImage,
    ObservedNetwork,
)

T = TypeVar("T")

COMPOSE = """\
name: shop
services:
  a:
    image: node
    environment: {A: spelt, REF: "${REF}", DOLLAR: $$5}
  b:
    image: node
"""


def text_of(plan: Plan) -> str:
    """A plan as text: a line a change, and a line a reason."""
    lines = []
    for change in plan.changes:
        lines.append(f"{change.action} {change.address}")
        lines += [f"  {r.field}: {r.before} -> {r.after}" for r in change.reasons]
    return "\n".join(lines)


def container(
    service: str, *, hidden: tuple[str, ...] = (), digest: str = "h1", **fields: Any
) -> DesiredContainer:
    fields = made(service) | dotted(fields)
    return DesiredContainer(service, digest, {}, fields, frozenset(map(dot, hidden)))


def running(
    service: str,
    *,
    state: str = "running",
    image_id: str = "sha256:1",
    digest: str = "h1",
    **fields: Any,
) -> ObservedContainer:
    fields = made(service) | dotted(fields)
    return ObservedContainer(
        id=f"id-{service}",
        name=fields["name"],
        service=service,
        state=state,
        exit_code=0,
        health=None,
        started_at="2026-01-01T00:00:00Z",
        image=fields["image"],
        image_id=image_id,
        restarts=0,
        hash=digest,
        fields=fields,
    )


def network(key: str, subnet: str, digest: str = "n1") -> ObservedNetwork:
    return ObservedNetwork(f"id-{key}", f"shop_{key}", key, subnet, digest)


def made(service: str) -> dict[str, Any]:
    """What every container here has."""
    return {
        "image": "node",
        "name": f"shop-{service}-1",
        f"labels.{LABEL_PROJECT}": "shop",
    }


def stray(service: str) -> ObservedContainer:
    """A container that dual didn't make."""
    there = running(service)
    return replace(there, fields={"image": "node", "name": there.name})


def dot(name: str) -> str:
    return name.replace("__", ".")


def dotted(fields: Mapping[str, Any]) -> dict[str, Any]:
    """``env__A`` stands for ``env.A``."""
    return {dot(name): value for name, value in fields.items() if value is not None}


def desired(**parts: Any) -> Desired:
    """Two workspaces and the proxy, with what ``parts`` change."""
    whole: dict[str, Any] = {
        "project": "shop",
        "files": {"compose.yaml": COMPOSE, "traefik/traefik.yaml": "log: {}\n"}
        | {f"traefik/routes/{name}.yaml": f"http: {{{name}: 1}}\n" for name in "ab"},
        "containers": {
            "proxy": container("traefik", networks__edge="10.0.0.3", digest="p1"),
            "workspace.a": container("a"),
            "workspace.b": container("b"),
        },
        "networks": {
            "network.traefik": DesiredNetwork("edge", "10.0.0.0/29", "n1"),
            "network.a": DesiredNetwork("ws-a", "10.0.0.8/29", "n1"),
            "network.b": DesiredNetwork("ws-b", "10.0.0.16/29", "n1"),
        },
        "routes": {f"route.{name}": f"traefik/routes/{name}.yaml" for name in "ab"},
    }
    return Desired(**joined(whole, parts))


def observed(**parts: Any) -> Observed:
    """What :func:`desired` comes to, once applied, with what ``parts`` change."""
    whole: dict[str, Any] = {
        "containers": {
            "proxy": running("traefik", networks__edge="10.0.0.3", digest="p1"),
            "workspace.a": running("a"),
            "workspace.b": running("b"),
        },
        "networks": {
            f"network.{name}": network(key, subnet)
            for name, key, subnet in (
                ("traefik", "edge", "10.0.0.0/29"),
                ("a", "ws-a", "10.0.0.8/29"),
                ("b", "ws-b", "10.0.0.16/29"),
            )
        },
        "images": {"node": ObservedImage("sha256:1", {})},
        "files": dict(desired().files),
        "rendered": read_rendered(COMPOSE),
    }
    return Observed(**joined(whole, parts))


def joined(whole: dict[str, Any], parts: dict[str, Any]) -> dict[str, Any]:
    """``whole`` with ``parts`` over it; a None in them takes a part away."""
    result = dict(whole)
    for name, changes in parts.items():
        both = {**whole[name], **changes}
        result[name] = {key: value for key, value in both.items() if value is not None}
    return result


def a(**fields: Any) -> dict[str, DesiredContainer]:
    return {"workspace.a": container("a", **fields)}


def a_runs(**fields: Any) -> dict[str, ObservedContainer]:
    return {"workspace.a": running("a", **fields)}


# ── the whole of it ─────────────────────────────────────────────────────────────────────────


def test_nothing_to_do() -> None:
    plan = make_plan(desired(), observed())
    assert not plan
    assert plan.changes == ()
    assert plan.project == "shop"
    assert plan.untouched == (
        "proxy",
        "workspace.a",
        "workspace.b",
        "network.a",
        "network.b",
        "network.traefik",
        "route.a",
        "route.b",
    )
    assert plan.summary == {"create": 0, "update": 0, "replace": 0, "delete": 0, "start": 0}


def test_from_nothing() -> None:
    plan = make_plan(desired(), Observed())
    assert plan
    assert plan.untouched == ()
    assert plan.summary == {"create": 8, "update": 0, "replace": 0, "delete": 0, "start": 0}
    assert [change.address for change in plan.changes] == [
        "proxy",
        "workspace.a",
        "workspace.b",
        "network.a",
        "network.b",
        "network.traefik",
        "route.a",
        "route.b",
    ]
    assert plan.addresses("workspace", Action.CREATE) == ("a", "b")
    assert plan.addresses("workspace", Action.DELETE) == ()
    assert plan.addresses("proxy", Action.CREATE, Action.START) == ("",)


def test_to_nothing() -> None:
    nothing = Desired("shop", {}, {}, {}, {})
    files = dict.fromkeys(desired().routes.values(), "")
    plan = make_plan(nothing, replace(observed(), files=files))
    assert {change.action for change in plan.changes} == {Action.DELETE}
    assert plan.addresses("workspace", Action.DELETE) == ("a", "b")
    assert plan.addresses("network", Action.DELETE) == ("a", "b", "traefik")
    assert plan.addresses("route", Action.DELETE) == ("a", "b")
    assert plan.addresses("proxy", Action.DELETE) == ("",)


def test_the_same_states_give_the_same_plan_in_any_order() -> None:
    wanted = desired()
    found = observed(containers={"workspace.a": None, "workspace.b": running("b", user="x")})
    turned = Desired(
        project=wanted.project,
        files=backwards(wanted.files),
        containers=backwards(wanted.containers),
        networks=backwards(wanted.networks),
        routes=backwards(wanted.routes),
    )
    turned_around = replace(
        found,
        containers=backwards(found.containers),
        networks=backwards(found.networks),
        files=backwards(found.files),
    )
    assert make_plan(wanted, found) == make_plan(turned, turned_around)


def backwards(parts: Mapping[str, T]) -> dict[str, T]:
    return dict(reversed(list(parts.items())))


def test_reasons_are_plain_values() -> None:
    wanted = desired(containers=a(command=("x", "y"), resources__cpus=1.5, init=True))
    assert make_plan(wanted, observed())
    for change in make_plan(wanted, observed()).changes:
        for reason in change.reasons:
            json.dumps([reason.field, reason.before, reason.after])


@pytest.mark.parametrize("gone", ["workspace.a", "workspace.b"])
def test_the_other_workspace_is_untouched(gone: str) -> None:
    plan = make_plan(desired(), observed(containers={gone: None}))
    assert [change.address for change in plan.changes] == [gone]
    assert len(plan.untouched) == 7
    assert gone not in plan.untouched


# ── containers ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("wanted", "found", "expected"),
    [
        (a(), {"workspace.a": None}, "create workspace.a\n  container: missing -> running"),
        ({"workspace.a": None}, a_runs(), "delete workspace.a\n  declared: True -> False"),
        (a(digest="h2"), a_runs(), "replace workspace.a\n  definition: h1 -> h2"),
        (a(), a_runs(digest=""), "replace workspace.a\n  definition:  -> h1"),
        (a(image="deno"), a_runs(), "replace workspace.a\n  image: node -> deno"),
        (
            a(command=("npm", "start")),
            a_runs(command=("npm", "run", "dev")),
            "replace workspace.a\n  command: ('npm', 'run', 'dev') -> ('npm', 'start')",
        ),
        (a(user="1000"), a_runs(), "replace workspace.a\n  user: None -> 1000"),
        (a(), a_runs(user="root"), "replace workspace.a\n  user: root -> None"),
        (
            a(resources__memory=2**30),
            a_runs(resources__memory=2**29),
            "replace workspace.a\n  resources.memory: 536870912 -> 1073741824",
        ),
        (
            a(resources__cpus=1.0),
            a_runs(resources__cpus=2.0, resources__pids=5),
            "replace workspace.a\n  resources.cpus: 2.0 -> 1.0\n  resources.pids: 5 -> None",
        ),
        (
            a(**{"mounts./workspace": "bind /a"}),
            a_runs(**{"mounts./workspace": "bind /b"}),
            "replace workspace.a\n  mounts./workspace: bind /b -> bind /a",
        ),
        (
            a(),
            a_runs(**{"ports.3000/tcp": "0.0.0.0:3000"}),
            "replace workspace.a\n  ports.3000/tcp: 0.0.0.0:3000 -> None",
        ),
        (a(), a_runs(privileged=True), "replace workspace.a\n  privileged: True -> None"),
        (
            a(security_opt=("no-new-privileges:true",)),
            a_runs(),
            "replace workspace.a\n  security_opt: None -> ('no-new-privileges:true',)",
        ),
        (
            a(**{"networks.ws-a": "10.0.0.10"}),
            a_runs(**{"networks.ws-a": "10.0.0.10", "networks.ws-b": ""}),
            "replace workspace.a\n  networks.ws-b:  -> None",
        ),
        (
            a(env__A="new", env__B="b"),
            a_runs(env__A="spelt"),
            "replace workspace.a\n  env.A: spelt -> new\n  env.B: None -> b",
        ),
        (a(), a_runs(state="exited"), "start workspace.a\n  state: exited -> running"),
        (a(), a_runs(state="created"), "start workspace.a\n  state: created -> running"),
        (
            a(user="1"),
            a_runs(state="exited"),
            "replace workspace.a\n  user: None -> 1",
        ),
        # A command that ends, and is started again, is no change: the next one would be the same.
        (a(), a_runs(state="restarting"), ""),
        (a(), a_runs(state="paused"), "start workspace.a\n  state: paused -> running"),
        (a(), a_runs(state="dead"), "replace workspace.a\n  state: dead -> running"),
        (a(), a_runs(state="removing"), "replace workspace.a\n  state: removing -> running"),
        (a(), a_runs(name="x"), "update workspace.a\n  name: x -> shop-a-1"),
        (
            a(),
            a_runs(name="x", state="exited"),
            "start workspace.a\n  name: x -> shop-a-1\n  state: exited -> running",
        ),
        (
            a(),
            a_runs(name="x", user="y"),
            "replace workspace.a\n  name: x -> shop-a-1\n  user: y -> None",
        ),
        (a(), a_runs(labels__note="x"), "replace workspace.a\n  labels.note: x -> None"),
        (
            a(**{"networks.ws-a": "10.0.0.10"}),
            a_runs(state="exited", **{"networks.ws-a": GONE}),
            "replace workspace.a\n  networks.ws-a: gone -> 10.0.0.10",
        ),
        (
            {"workspace.c": container("c")},
            {},
            "create workspace.c\n  declared: False -> True",
        ),
        (
            {},
            {"workspace.x": stray("x")},
            "delete workspace.x\n  container: shop-x-1 -> None",
        ),
        (
            {},
            {"workspace.a#x": running("a", name="x")},
            "delete workspace.a#x\n  container: x -> None",
        ),
        (a(digest="h2", user="1"), a_runs(), "replace workspace.a\n  user: None -> 1"),
    ],
)
def test_a_container(
    wanted: dict[str, DesiredContainer], found: dict[str, ObservedContainer], expected: str
) -> None:
    plan = make_plan(desired(containers=wanted), observed(containers=found))
    assert text_of(plan) == expected


def test_an_image_with_the_same_name_and_another_id() -> None:
    images = {"node": ObservedImage("sha256:2", {})}
    plan = make_plan(desired(), observed(images=images))
    assert text_of(plan) == (
        "replace proxy\n  image.id: sha256:1 -> sha256:2\n"
        "replace workspace.a\n  image.id: sha256:1 -> sha256:2\n"
        "replace workspace.b\n  image.id: sha256:1 -> sha256:2"
    )


def test_another_image_is_one_reason() -> None:
    images = {"deno": ObservedImage("sha256:2", {})}
    plan = make_plan(desired(containers=a(image="deno")), observed(images=images))
    assert text_of(plan) == "replace workspace.a\n  image: node -> deno"


def test_what_the_image_says_is_no_drift() -> None:
    inherited: dict[str, Any] = {
        "env.PATH": "/bin",
        "user": "node",
        "working_dir": "/app",
        "command": ("node",),
    }
    plan = make_plan(
        desired(containers=a(env__PATH="/sbin", user="ada")),
        observed(
            images={"node": ObservedImage("sha256:1", inherited)},
            containers={
                "proxy": running("traefik", networks__edge="10.0.0.3", digest="p1", **inherited),
                "workspace.a": running("a", **inherited | {"env.PATH": "/sbin", "user": "ada"}),
                "workspace.b": running("b", **inherited),
            },
        ),
    )
    assert text_of(plan) == ""


def test_what_differs_from_the_image_is_drift() -> None:
    plan = make_plan(
        desired(containers={"workspace.b": None}),
        Observed(
            containers={"workspace.a": running("a", working_dir="/tmp")},
            images={"node": ObservedImage("sha256:1", {"working_dir": "/app"})},
        ),
    )
    assert "replace workspace.a\n  working_dir: /tmp -> /app\n" in text_of(plan)


def test_an_image_that_is_not_here_says_nothing() -> None:
    assert not make_plan(desired(), observed(images={"node": None}))


# ── the proxy ───────────────────────────────────────────────────────────────────────────────


def proxy(*, digest: str = "p1", **fields: Any) -> dict[str, DesiredContainer]:
    return {"proxy": container("traefik", networks__edge="10.0.0.3", digest=digest, **fields)}


def proxy_runs(
    *, state: str = "running", digest: str = "p1", **fields: Any
) -> dict[str, ObservedContainer]:
    edge = {"networks.edge": "10.0.0.3"} | fields
    return {"proxy": running("traefik", state=state, digest=digest, **edge)}


WS_A = {"networks.ws-a": "10.0.0.11"}


@pytest.mark.parametrize(
    ("wanted", "found", "expected"),
    [
        (
            proxy(**WS_A),
            proxy_runs(),
            "update proxy\n  networks.ws-a: None -> 10.0.0.11",
        ),
        (
            proxy(),
            proxy_runs(**WS_A),
            "update proxy\n  networks.ws-a: 10.0.0.11 -> None",
        ),
        (
            proxy(**WS_A),
            proxy_runs(**{"networks.ws-a": "10.0.0.12"}),
            "update proxy\n  networks.ws-a: 10.0.0.12 -> 10.0.0.11",
        ),
        (
            proxy(),
            proxy_runs(**{"networks.edge": "10.9.0.3"}),
            "replace proxy\n  networks.edge: 10.9.0.3 -> 10.0.0.3",
        ),
        (
            proxy(**WS_A),
            proxy_runs(state="exited"),
            "start proxy\n  networks.ws-a: None -> 10.0.0.11\n  state: exited -> running",
        ),
        (
            proxy(image="traefik:v3.8", **WS_A),
            proxy_runs(),
            "replace proxy\n  image: node -> traefik:v3.8\n  networks.ws-a: None -> 10.0.0.11",
        ),
        (proxy(digest="p2"), proxy_runs(), "replace proxy\n  definition: p1 -> p2"),
        (
            proxy(**{"ports.8000/tcp": "127.0.0.1:3001"}),
            proxy_runs(**{"ports.8000/tcp": "127.0.0.1:3000"}),
            "replace proxy\n  ports.8000/tcp: 127.0.0.1:3000 -> 127.0.0.1:3001",
        ),
        (proxy(), proxy_runs(state="exited"), "start proxy\n  state: exited -> running"),
        (
            proxy(),
            proxy_runs(state="exited", **{"networks.ws-a": GONE}),
            "replace proxy\n  networks.ws-a: gone -> None",
        ),
        (
            {},
            {"proxy#x": running("traefik", name="x")},
            "delete proxy#x\n  container: x -> None",
        ),
        ({}, {"proxy": None}, "create proxy\n  declared: False -> True"),
    ],
)
def test_the_proxy(
    wanted: dict[str, DesiredContainer], found: dict[str, ObservedContainer], expected: str
) -> None:
    plan = make_plan(desired(containers=wanted), observed(containers=found))
    assert text_of(plan) == expected


# ── networks ────────────────────────────────────────────────────────────────────────────────


def test_a_subnet_that_changes_takes_its_workspace_along() -> None:
    moved = {"network.a": network("ws-a", "10.9.0.0/29")}
    at = {"networks.ws-a": "10.0.0.10"}
    plan = make_plan(
        desired(containers=a(**at)),
        observed(networks=moved, containers=a_runs(**{"networks.ws-a": "10.9.0.2"})),
    )
    assert text_of(plan) == (
        "replace workspace.a\n  networks.ws-a: 10.9.0.2 -> 10.0.0.10\n"
        "replace network.a\n  subnet: 10.9.0.0/29 -> 10.0.0.8/29"
    )


def test_a_subnet_that_changes_around_an_address_does_too() -> None:
    moved = {"network.a": network("ws-a", "10.0.0.0/24")}
    at = {"networks.ws-a": "10.0.0.10"}
    plan = make_plan(desired(containers=a(**at)), observed(networks=moved, containers=a_runs(**at)))
    assert text_of(plan) == (
        "replace workspace.a\n  networks.ws-a: 10.0.0.0/24 -> 10.0.0.8/29\n"
        "replace network.a\n  subnet: 10.0.0.0/24 -> 10.0.0.8/29"
    )


@pytest.mark.parametrize(
    ("wanted", "found", "expected"),
    [
        ({}, {"network.a": None}, "create network.a\n  subnet: None -> 10.0.0.8/29"),
        (
            {},
            {"network.old": network("ws-old", "10.0.1.0/29")},
            "delete network.old\n  declared: True -> False",
        ),
        (
            {"network.traefik": DesiredNetwork("edge", "10.1.0.0/29", "n1")},
            {},
            "replace network.traefik\n  subnet: 10.0.0.0/29 -> 10.1.0.0/29",
        ),
    ],
)
def test_a_network(wanted: dict[str, Any], found: dict[str, Any], expected: str) -> None:
    plan = make_plan(desired(networks=wanted), observed(networks=found))
    assert expected in text_of(plan)


def test_a_network_that_was_made_otherwise_takes_its_workspace_along() -> None:
    """Its label tells what no look at it shows: a key of a user's own template, say."""
    made = {"network.a": network("ws-a", "10.0.0.8/29", "n0")}
    at = {"networks.ws-a": "10.0.0.10"}
    plan = make_plan(
        desired(containers=a(**at)),
        observed(networks=made, containers=a_runs(**at)),
    )
    assert text_of(plan) == (
        "replace workspace.a\n  networks.ws-a: n0 -> n1\nreplace network.a\n  definition: n0 -> n1"
    )


# ── some workspaces only ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("found", "targets", "expected", "left_out"),
    [
        # Both have changes: one is asked for.
        (
            {"containers": a_runs(user="x") | {"workspace.b": running("b", user="x")}},
            ["a"],
            "replace workspace.a\n  user: x -> None",
            ["workspace.b"],
        ),
        # What it doesn't need isn't done, not even to the proxy.
        (
            {"containers": a_runs(user="x") | proxy_runs(user="x")},
            ["a"],
            "replace workspace.a\n  user: x -> None",
            ["proxy"],
        ),
        # All that is its own.
        (
            {
                "containers": {"workspace.a": None, "workspace.b": None},
                "networks": {"network.a": None, "network.b": None},
                "files": {"traefik/routes/a.yaml": None, "traefik/routes/b.yaml": None},
            },
            ["a"],
            "create workspace.a\n  container: missing -> running\n"
            "create network.a\n  subnet: None -> 10.0.0.8/29\n"
            "create route.a\n  file: None -> traefik/routes/a.yaml",
            ["workspace.b", "network.b", "route.b"],
        ),
        # One that is gone from dual.yaml.
        (
            {"containers": {"workspace.old": running("old"), "workspace.b": None}},
            ["old"],
            "delete workspace.old\n  declared: True -> False",
            ["workspace.b"],
        ),
        # The ones in excess are its own, too.
        (
            {"containers": {"workspace.a#shop-a-2": running("a", name="shop-a-2")}},
            ["a"],
            "delete workspace.a#shop-a-2\n  container: shop-a-2 -> None",
            [],
        ),
        # Without a proxy it would not answer.
        (
            {"containers": a_runs(user="x") | proxy_runs(state="exited")},
            ["a"],
            "start proxy\n  state: exited -> running\nreplace workspace.a\n  user: x -> None",
            [],
        ),
        ({"containers": {"workspace.b": None}}, ["a"], "", ["workspace.b"]),
        ({"files": {"compose.yaml": ""}}, ["a"], "", ["file.compose.yaml"]),
        ({}, ["a"], "", []),
    ],
)
def test_a_plan_for_some(
    found: dict[str, Any], targets: list[str], expected: str, left_out: list[str]
) -> None:
    plan = make_plan(desired(), observed(**found), targets)
    assert text_of(plan) == expected
    assert list(plan.left_out) == left_out
    assert set(left_out) <= set(plan.untouched)
    assert plan.targets == tuple(targets)


def test_of_the_proxy_a_target_takes_its_own_network_only() -> None:
    both = {"networks.ws-a": "10.0.0.11", "networks.ws-b": "10.0.0.19"}
    wanted = desired(containers=proxy(image="traefik:v4", **both))
    plan = make_plan(wanted, observed(), ["b", "b"])
    assert text_of(plan) == "update proxy\n  networks.ws-b: None -> 10.0.0.19"
    assert plan.targets == ("b",)


def test_a_proxy_that_is_started_for_a_target_needs_no_network_of_another() -> None:
    """That of one that is left out isn't there yet, and won't be."""
    both = {"networks.ws-a": "10.0.0.11", "networks.ws-b": "10.0.0.19"}
    there = observed(
        containers={"workspace.b": None} | proxy_runs(state="exited"), networks={"network.b": None}
    )
    plan = make_plan(desired(containers=proxy(**both)), there, ["a"])
    assert text_of(plan) == (
        "start proxy\n  networks.ws-a: None -> 10.0.0.11\n  state: exited -> running"
    )


def test_what_can_be_done_in_place_hides_no_other_change() -> None:
    """The label would not be renewed, and the next plan would find it."""
    plan = make_plan(desired(containers=proxy(digest="p2", networks__ws_a="10.0.0.11")), observed())
    [change] = plan.changes
    assert (change.action.value, [reason.field for reason in change.reasons]) == (
        "replace",
        ["definition", "networks.ws_a"],
    )


def test_a_proxy_that_ends_again_and_again_is_replaced() -> None:
    plan = make_plan(desired(), observed(containers=proxy_runs(state="restarting")))
    assert text_of(plan) == "replace proxy\n  state: restarting -> running"


def test_one_that_never_ran_is_no_drift() -> None:
    plan = make_plan(desired(), observed(containers=a_runs(state="created")))
    assert text_of(plan) == "start workspace.a\n  state: created -> running"
    assert not plan.changes[0].is_drift


def test_a_route_of_one_that_is_not_there_is_no_drift() -> None:
    there = observed(containers={"workspace.a": None}, files={"traefik/routes/a.yaml": None})
    plan = make_plan(desired(), there)
    assert [c.is_drift for c in plan.changes if c.address == "route.a"] == [False]


def test_an_image_that_is_not_here_yet_may_say_the_same() -> None:
    there = observed(
        containers=a_runs(env__PATH="/bin"),
        images={"sha256:1": ObservedImage("sha256:1", {"env.PATH": "/bin"})},
    )
    plan = make_plan(desired(containers=a(image="node:next")), there)
    assert text_of(plan) == "replace workspace.a\n  image: node -> node:next"


def test_a_proxy_that_is_made_for_a_target_needs_all_networks() -> None:
    plan = make_plan(desired(), Observed(), ["a"])
    assert [change.address for change in plan.changes] == [
        "proxy",
        "workspace.a",
        "network.a",
        "network.b",
        "network.traefik",
        "route.a",
    ]
    assert plan.left_out == ("workspace.b", "route.b")


def test_a_proxy_that_is_made_takes_no_network_of_another_away() -> None:
    """Who runs on it would go down with it, and is left out."""
    there = observed(
        containers={"proxy": None, "workspace.old": running("old")},
        networks={"network.old": network("ws-old", "10.0.1.0/29")},
    )
    plan = make_plan(desired(), there, ["a"])
    assert text_of(plan) == "create proxy\n  declared: False -> True"
    assert plan.left_out == ("workspace.old", "network.old")


def test_a_proxy_that_is_made_on_a_moved_network_takes_its_workspace_along() -> None:
    """It can't be there before the network is, and the network not while that one runs on it."""
    at: dict[str, Any] = {"networks.ws-b": "10.0.0.18"}
    there = observed(
        containers={"proxy": None, "workspace.b": running("b", **at)},
        networks={"network.b": network("ws-b", "10.9.0.0/29")},
    )
    plan = make_plan(desired(containers={"workspace.b": container("b", **at)}), there, ["a"])
    assert actions(plan) == {
        "proxy": "create",
        "workspace.b": "replace",
        "network.b": "replace",
    }


# ── drift: what somebody changed by hand, and what only looks like it ───────────────────────


@pytest.mark.parametrize(
    ("wanted", "found", "drift"),
    [
        ({}, {"containers": a_runs(user="x")}, ["workspace.a"]),
        ({}, {"containers": a_runs(state="exited")}, ["workspace.a"]),
        ({}, {"containers": a_runs(name="x")}, ["workspace.a"]),
        ({}, {"containers": {"workspace.x": stray("x")}}, ["workspace.x"]),
        ({}, {"containers": {"workspace.a#x": running("a", name="x")}}, ["workspace.a#x"]),
        ({}, {"networks": {"network.a": network("ws-a", "10.9.0.0/29")}}, ["network.a"]),
        ({"containers": proxy(**WS_A)}, {}, ["proxy"]),
        # dual.yaml was edited, or a file of variables, or an image was pulled.
        ({"containers": a(digest="h2", user="x")}, {}, []),
        ({"containers": a(env__T="2", hidden=("env.T",))}, {"containers": a_runs(env__T="1")}, []),
        ({}, {"images": {"node": ObservedImage("sha256:2", {})}}, []),
        ({}, {"networks": {"network.a": network("ws-a", "10.0.0.8/29", "n0")}}, []),
        ({}, {"networks": {"network.a": network("ws-a", "10.9.0.0/29", "n0")}}, []),
        ({"containers": proxy(**WS_A)}, {"networks": {"network.a": None}}, []),
        # An env_file that lost a variable: neither the hash nor what is hidden has it any more.
        (
            {"containers": {"workspace.a": replace(container("a"), definition={"env_file": []})}},
            {"containers": a_runs(env__T="s3cret")},
            [],
        ),
        ({}, {"containers": a_runs(env__T="by hand")}, ["workspace.a"]),
    ],
)
def test_drift(wanted: dict[str, Any], found: dict[str, Any], drift: list[str]) -> None:
    plan = make_plan(desired(**wanted), observed(**found))
    assert plan
    assert [change.address for change in plan.changes if change.is_drift] == drift


def test_a_moved_pool_is_no_drift_of_the_proxy() -> None:
    """Its hash leaves its networks out, as it is attached to them live."""
    before = rendered(SPEC)
    after = rendered(SPEC.replace("workspaces:", "network: {pool: 10.9.0.0/16}\nworkspaces:"))
    plan = make_plan(after, applied(before))
    assert actions(plan)["proxy"] == "replace"
    assert [change.address for change in plan.changes if change.is_drift] == []


# ── files ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"traefik/routes/a.yaml": None}, "create route.a\n  file: None -> traefik/routes/a.yaml"),
        ({"traefik/routes/a.yaml": "http: {a: 2}\n"}, "update route.a\n  http.a: 2 -> 1"),
        (
            {"traefik/routes/a.yaml": "http: {a: 1, c: [x, y]}\n"},
            "update route.a\n  http.c.0: x -> None\n  http.c.1: y -> None",
        ),
        (
            {"traefik/routes/a.yaml": "# edited\nhttp: {a: 1}\n"},
            "update route.a\n  text: edited -> rendered",
        ),
        ({"traefik/routes/a.yaml": "{broken"}, "update route.a\n  http.a: None -> 1"),
        (
            {"traefik/routes/old.yaml": "http: {}\n"},
            "delete route.old\n  file: traefik/routes/old.yaml -> None",
        ),
        (
            {"compose.yaml": COMPOSE.replace("spelt", "edited")},
            "update file.compose.yaml\n  services.a.environment.A: (hidden) -> spelt",
        ),
        (
            {"compose.yaml": f"# edited\n{COMPOSE}"},
            "update file.compose.yaml\n  text: edited -> rendered",
        ),
        ({"compose.yaml": None}, "create file.compose.yaml\n  file: None -> compose.yaml"),
        (
            {"traefik/traefik.yaml": "log: x\n"},
            "update file.traefik/traefik.yaml\n  log: x -> None",
        ),
        (
            {"compose.yaml": "", "traefik/routes/a.yaml": None},
            "create route.a\n  file: None -> traefik/routes/a.yaml",
        ),
    ],
)
def test_a_file(files: dict[str, Any], expected: str) -> None:
    plan = make_plan(desired(), observed(files=files))
    assert text_of(plan) == expected


# ── what must stay hidden ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("wanted", "found", "expected"),
    [
        (
            a(env__REF="s3cret-new", hidden=("env.REF",)),
            a_runs(env__REF="s3cret-old"),
            "env.REF: (hidden) -> (hidden)",
        ),
        (a(env__REF="s3cret", hidden=("env.REF",)), a_runs(), "env.REF: None -> (hidden)"),
        (a(), a_runs(env__REF="s3cret"), "env.REF: (hidden) -> None"),
        (a(env__REF="shown"), a_runs(env__REF="s3cret"), "env.REF: (hidden) -> shown"),
        (a(), a_runs(env__FROM_FILE="s3cret"), "env.FROM_FILE: (hidden) -> None"),
        (a(env__A="new"), a_runs(env__A="s3cret"), "env.A: (hidden) -> new"),
        (a(env__A="new"), a_runs(env__A="spelt"), "env.A: spelt -> new"),
        (a(env__DOLLAR="new"), a_runs(env__DOLLAR="$5"), "env.DOLLAR: $5 -> new"),
        (
            a(env__A="s3cret", hidden=("env.A",)),
            a_runs(env__A="spelt"),
            "env.A: spelt -> (hidden)",
        ),
        (
            a(command=("run", "s3cret"), hidden=("command",)),
            a_runs(command=("run", "s3cret-old")),
            "command: (hidden) -> (hidden)",
        ),
        (
            a(user="s3cret", hidden=("user",)),
            a_runs(),
            "user: None -> (hidden)",
        ),
        (a(hidden=("user",)), a_runs(user="s3cret"), "user: (hidden) -> None"),
    ],
)
def test_secrets_never_show(
    wanted: dict[str, DesiredContainer], found: dict[str, ObservedContainer], expected: str
) -> None:
    plan = make_plan(desired(containers=wanted), observed(containers=found))
    assert text_of(plan) == f"replace workspace.a\n  {expected}"
    assert "s3cret" not in repr(plan)


@pytest.mark.parametrize(
    ("last", "fields"),
    [
        ("command: run $TOKEN", {"command": ("run", "s3cret")}),
        ("command: [run, '${TOKEN}']", {"command": ("run", "s3cret")}),
        ("user: $TOKEN", {"user": "s3cret"}),
        ("mem_limit: $TOKEN", {"resources.memory": "s3cret"}),
        ("cpus: $TOKEN", {"resources.cpus": "s3cret"}),
        (
            "volumes: [{type: bind, source: $TOKEN, target: /d}]",
            {"mounts./d": "bind s3cret"},
        ),
        ("labels: {note: $TOKEN}", {"labels.note": "s3cret"}),
    ],
)
def test_what_the_last_render_took_from_a_variable_stays_hidden(
    last: str, fields: dict[str, Any]
) -> None:
    rendered = read_rendered(f"services: {{a: {{image: node, {last}}}}}")
    plan = make_plan(desired(), replace(observed(containers=a_runs(**fields)), rendered=rendered))
    [field] = fields
    assert text_of(plan) == f"replace workspace.a\n  {field}: (hidden) -> None"
    assert "s3cret" not in repr(plan)


@pytest.mark.parametrize(
    ("wanted", "fields", "recorded", "expected"),
    [
        # Rendered anew, or pulled, the last render says nothing of what runs; its record does.
        (a(env__A="new"), {"env__A": "old"}, "", "env.A: old -> new"),
        (a(env__A="new"), {"env__A": "s3cret"}, "env.A", "env.A: (hidden) -> new"),
        (a(env__A="new"), {"env__A": "s3cret"}, "env_file", "env.A: (hidden) -> new"),
        (a(), {"env__ADDED": "s3cret"}, "", "env.ADDED: (hidden) -> None"),
        (a(), {"user": "ada"}, "env_file", "user: ada -> None"),
        (a(), {"user": "s3cret"}, "user", "user: (hidden) -> None"),
        (a(user="s3cret", hidden=("user",)), {"user": "ada"}, "", "user: ada -> (hidden)"),
    ],
)
def test_what_runs_has_its_own_record_of_what_is_hidden(
    wanted: dict[str, DesiredContainer], fields: dict[str, Any], recorded: str, expected: str
) -> None:
    there = {
        address: replace(each, hidden=frozenset(recorded.split()))
        for address, each in a_runs(**fields).items()
    }
    plan = make_plan(desired(containers=wanted), observed(containers=there))
    assert text_of(plan) == f"replace workspace.a\n  {expected}"
    assert "s3cret" not in repr(plan)


@pytest.mark.parametrize(
    "rendered",
    [
        *("", "services:", "services: x", "services: {a: }", "services: {a: [x]}"),
        "services: {a: {environment: [A=s3cret]}}",
    ],
)
def test_without_a_last_render_every_variable_is_hidden(rendered: str) -> None:
    state = observed(containers=a_runs(env__A="s3cret", user="ada"))
    plan = make_plan(desired(), replace(state, rendered=read_rendered(rendered)))
    assert text_of(plan) == ("replace workspace.a\n  env.A: (hidden) -> None\n  user: ada -> None")


# ── with what render makes ──────────────────────────────────────────────────────────────────

SPEC = """\
version: 1
project: shop
workspaces:
  main: {image: node, env: {TOKEN: "${TOKEN}"}, source: {path: .}}
  other: {image: node, user: "1000"}
"""


def rendered(text: str, before: Desired | None = None, **variables: str) -> Desired:
    given = {n.key: n.subnet for n in before.networks.values()} if before else {}
    project = parse_project(text, "dual.yaml")
    return render(project, Path("/shop"), given_subnets=given, environment=variables)


def applied(wanted: Desired) -> Observed:
    """What an engine shows once ``wanted`` was applied to it."""
    return Observed(
        containers={
            address: replace(
                running(each.service, digest=each.hash), fields=each.fields, image=each.image
            )
            for address, each in wanted.containers.items()
        },
        networks={
            address: network(each.key, each.subnet, each.hash)
            for address, each in wanted.networks.items()
        },
        images={each.image: ObservedImage("sha256:1", {}) for each in wanted.containers.values()},
        files=wanted.files,
        rendered=read_rendered(wanted.files["compose.yaml"]),
    )


def actions(plan: Plan) -> dict[str, str]:
    return {change.address: change.action.value for change in plan.changes}


def test_after_applying_there_is_nothing_to_do() -> None:
    wanted = rendered(SPEC, TOKEN="s3cret")
    assert not make_plan(wanted, applied(wanted))


@pytest.mark.parametrize(
    ("written", "seen", "follows"),
    [("r1", "r1", True), ("r1", "r0", False), ("r1", None, False), (None, None, False)],
)
def test_a_proxy_that_does_not_follow_its_files_is_replaced(
    written: str | None, seen: str | None, follows: bool
) -> None:
    files = {**desired().files, SEEN_FILE: "seen"}
    there = files if written else desired().files
    state = replace(observed(files=there), routes_written=written, routes_seen=seen)
    plan = make_plan(desired(files=files), state)
    proxy = [(c.address, c.action) for c in plan.changes if c.address == PROXY]
    assert proxy == ([] if follows else [(PROXY, Action.REPLACE)])


def test_adding_a_workspace_touches_nobody_else() -> None:
    before = rendered(SPEC)
    after = rendered(f"{SPEC}  new: {{image: node}}\n", before)
    plan = make_plan(after, applied(before))
    assert actions(plan) == {
        "proxy": "update",
        "workspace.new": "create",
        "network.new": "create",
        "route.new": "create",
    }
    assert {"workspace.main", "workspace.other", "route.main"} <= set(plan.untouched)


def test_attaching_the_proxy_as_it_runs_leaves_nothing_to_do() -> None:
    """Its label still bears the hash of the day it was made."""
    before = rendered(SPEC)
    after = rendered(f"{SPEC}  new: {{image: node}}\n", before)
    state = applied(after)
    old = applied(before).containers["proxy"]
    attached = replace(old, fields=after.containers["proxy"].fields)
    assert not make_plan(after, replace(state, containers={**state.containers, "proxy": attached}))


def test_removing_a_workspace_touches_nobody_else() -> None:
    before = rendered(SPEC)
    head, _, _ = SPEC.partition("  other:")
    assert actions(make_plan(rendered(head, before), applied(before))) == {
        "proxy": "update",
        "workspace.other": "delete",
        "network.other": "delete",
        "route.other": "delete",
    }


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('user: "1000"', 'user: "1001"', "replace workspace.other\n  user: 1000 -> 1001"),
        (
            'user: "1000"',
            'user: "1000", volumes: {v: /v}',
            "replace workspace.other\n  mounts./v: None -> volume shop_other--v",
        ),
        (
            'user: "1000"',
            'user: "1000", hosts: [x.localhost]',
            "update route.other\n  http.routers.other.rule: Host(`other.localhost`)"
            " -> Host(`other.localhost`) || Host(`x.localhost`)",
        ),
        (
            "project: shop\n",
            "project: shop\nproxy: {http: 3001}\n",
            "replace proxy\n  ports.8000/tcp: 127.0.0.1:3000 -> 127.0.0.1:3001",
        ),
        (
            "TOKEN: ",
            "LOG: debug, TOKEN: ",
            "replace workspace.main\n  env.LOG: None -> debug",
        ),
        ("image: node, user", "image: 'node', user", ""),
    ],
)
def test_an_edit_of_the_spec(old: str, new: str, expected: str) -> None:
    before = rendered(SPEC)
    after = rendered(SPEC.replace(old, new), before)
    assert text_of(make_plan(after, applied(before))) == expected


def test_a_variable_that_changes_is_told_but_not_shown() -> None:
    before, after = rendered(SPEC, TOKEN="s3cret"), rendered(SPEC, TOKEN="s3cret-2")
    plan = make_plan(after, applied(before))
    assert text_of(plan) == "replace workspace.main\n  env.TOKEN: (hidden) -> (hidden)"
    assert "s3cret" not in repr(plan)


# ── certificates ────────────────────────────────────────────────────────────────────────────


def certified(**names: str) -> dict[str, Any]:
    """Desired certificates: hosts, and the workspaces that they are of."""
    return {
        host: DesiredCertificate(f"certificate.{workspace}", host)
        for workspace, host in names.items()
    }


def test_certificates_are_told_by_workspace_and_host() -> None:
    wanted = replace(desired(), certificates=certified(a="a.localhost", b="b.localhost"))
    there = replace(observed(), flaws={"a.localhost": "ends on 2026-12-24"})
    plan = make_plan(wanted, there)
    assert text_of(plan) == ("update certificate.a\n  a.localhost: ends on 2026-12-24 -> made anew")
    assert "certificate.b" in plan.untouched
    assert not make_plan(wanted, there, ["b"])


def test_a_proxy_that_serves_other_certificates_is_replaced() -> None:
    wanted = replace(desired(), certificates=certified(a="a.localhost"))
    there = replace(observed(), serves_certificates=False)
    assert text_of(make_plan(wanted, there)) == (
        "replace proxy\n  certificates: others served -> those in its folder"
    )


# ── sealed ──────────────────────────────────────────────────────────────────────────────────


def test_a_network_that_lets_out_is_made_anew() -> None:
    closed = DesiredNetwork("ws-a", "10.0.0.8/29", "n1", internal=True)
    plan = make_plan(desired(networks={"network.a": closed}), observed())
    assert text_of(plan) == "replace network.a\n  egress: True -> False"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("network_mode", "host"),
        ("ipc_mode", "host"),
        ("sysctls.net.ipv4.ip_forward", "1"),
        ("dns", ("10.0.0.1",)),
    ],
)
def test_a_seal_that_somebody_broke_is_drift(field: str, value: Any) -> None:
    there = running("a")
    there = replace(there, fields={**there.fields, field: value})
    plan = make_plan(desired(), observed(containers={"workspace.a": there}))
    assert text_of(plan) == f"replace workspace.a\n  {field}: {value} -> None"
    assert plan.changes[0].is_drift


def test_hashes_of_passwords_are_compared_and_never_shown() -> None:
    def route(hashed: str) -> dict[str, str]:
        users = f'{{basicAuth: {{users: ["ada:{hashed}"]}}}}'
        return {"traefik/routes/a.yaml": f"http: {{middlewares: {{a_auth: {users}}}}}\n"}

    plan = make_plan(desired(files=route("$2b$05$new")), observed(files=route("$2b$05$old")))
    assert text_of(plan) == (
        "update route.a\n  http.middlewares.a_auth.basicAuth.users.0: (hidden) -> (hidden)"
    )
