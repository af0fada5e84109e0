"""Break one thing by hand: the plan names it and nothing else, apply mends it, the plan is empty.

Most things are broken on a workspace of their own, so that one project serves the whole table:
one plan, one apply, and a test a row. What concerns the proxy, or the project as a whole, is
broken by itself further down.
"""

from __future__ import annotations

import ipaddress
import json
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.engine.conftest import (
    DUAL,
    LAB_IMAGE,
    LiveProject,
    changes,
    docker,
    run,
    wait_for,
)

ByHand = Callable[[LiveProject, str], object]
"""Breaks something of a project: of the workspace with that name, if it is one's."""

Expected = tuple[str, str, list[str]]
"""The address, the action and the fields of a change that a plan has to name."""


@dataclass(frozen=True)
class Row:
    """What is done by hand to a workspace, and what the plan must say of it.

    ``{}`` stands for the workspace's name. ``of_proxy`` are fields that the change of the proxy
    names for its sake, and ``spec`` is how it is declared.
    """

    by_hand: ByHand
    expected: list[Expected]
    of_proxy: list[str] = field(default_factory=list)
    spec: str = "{}"
    is_drift: bool = True

    def of(self, name: str) -> list[Expected]:
        return [
            (address.format(name), action, [each.format(name) for each in fields])
            for address, action, fields in self.expected
        ]


def replaced(*fields: str) -> list[Expected]:
    return [("workspace.{}", "replace", list(fields))]


def started() -> list[Expected]:
    return [("workspace.{}", "start", ["state"])]


def docker_does(*words: str) -> ByHand:
    """A docker command: ``{0}`` stands for the project, ``{1}`` for the workspace."""
    return lambda live, name: docker(*(word.format(live.name, name) for word in words))


def container(*words: str) -> ByHand:
    """A docker command that ends with the workspace's container."""
    return docker_does(*words, "{0}-{1}-1")


def recreated(**instead: str | list[str]) -> ByHand:
    """The container made anew by ``docker run``, with other options: ``env="A=b"``."""

    def by_hand(live: LiveProject, name: str) -> None:
        options = {}
        for option, value in instead.items():
            values = [value] if isinstance(value, str) else value
            texts = [each.format(live.folder, live.name) for each in values]
            key = option if option in ("image", "command") else f"--{option.replace('_', '-')}"
            options[key] = texts
        live.recreate(name, options)

    return by_hand


def relabelled(**labels: str) -> ByHand:
    """The container made anew with other labels; an empty one goes."""

    def by_hand(live: LiveProject, name: str) -> None:
        found = live.inspect(name)["Config"]["Labels"]
        found |= {label.replace("_", "."): value for label, value in labels.items()}
        live.recreate(name, {"--label": [f"{k}={v}" for k, v in found.items() if v]})

    return by_hand


def tagged_anew(live: LiveProject, name: str) -> None:
    """The tag of the workspace's image is given to another one, with the same settings."""
    docker("commit", "--message", "another", live.container(name), f"{live.name}:tagged")


def second_container(live: LiveProject, name: str) -> None:
    labels = {
        "com.docker.compose.project": live.name,
        "com.docker.compose.service": name,
        "com.docker.compose.container-number": "2",
        "dev.dual.project": live.name,
    }
    options = [f"--label={label}={value}" for label, value in labels.items()]
    docker("run", "-d", "--init", "--name", f"{name}-again", *options, LAB_IMAGE, "sleep", "1000")


def another_place() -> str:
    """A subnet that lies in nobody's pool."""
    return f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(256)}.0/29"


def another_subnet(live: LiveProject, name: str) -> None:
    """The workspace's network made anew with another subnet, and all that was on it moved."""
    network, proxy = f"{live.name}_ws-{name}", f"{live.name}-traefik-1"
    kept = docker("inspect", "--format", "{{json .Labels}}", network)
    data = live.inspect(name)
    docker("network", "disconnect", network, proxy)
    docker("network", "disconnect", network, data["Id"])
    docker("network", "rm", network)
    subnet = another_place()
    first = subnet.removesuffix("0/29")
    labels = [f"--label={label}={value}" for label, value in json.loads(kept).items()]
    docker("network", "create", "--subnet", subnet, *labels, network)
    docker("network", "connect", "--ip", f"{first}3", network, proxy)
    docker("network", "connect", "--ip", f"{first}2", network, data["Id"])


def unlabelled_network(live: LiveProject, name: str) -> None:
    """The workspace's network made anew as it was, but for its labels."""
    network, proxy = f"{live.name}_ws-{name}", f"{live.name}-traefik-1"
    subnet = docker("inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", network)
    container = live.inspect(name)["Id"]
    address = ipaddress.ip_network(subnet).network_address
    for each in (proxy, container):
        docker("network", "disconnect", network, each)
    docker("network", "rm", network)
    docker("network", "create", "--subnet", subnet, network)
    docker("network", "connect", "--ip", str(address + 3), network, proxy)
    docker("network", "connect", "--ip", str(address + 2), network, container)


def edited_route(live: LiveProject, name: str) -> None:
    route = live.folder / f"compose/traefik/routes/{name}.yaml"
    route.write_text(route.read_text().replace(f"{name}.localhost", "elsewhere.localhost"))


def no_route(live: LiveProject, name: str) -> None:
    (live.folder / f"compose/traefik/routes/{name}.yaml").unlink()


def nothing(live: LiveProject, name: str) -> None:
    """Whatever the plan says is wrong."""


LIMITED = "{resources: {memory: 128m, cpus: 1.5, pids: 100}}"
HELLO = "{env: {GREETING: hello}}"
HOME = "HOME=/tmp"
HERE = "type=bind,source={0},target=/workspace"
ELSEWHERE = "type=bind,source={0}/elsewhere,target=/workspace"

ROWS: dict[str, Row] = {
    # What docker can do to a container that stays.
    "removed": Row(container("rm", "-f"), [("workspace.{}", "create", ["container"])]),
    "stopped": Row(container("stop", "-t", "0"), started()),
    "killed": Row(container("kill"), started()),
    "paused": Row(container("pause"), started()),
    "renamed": Row(
        docker_does("rename", "{0}-{1}-1", "{0}-other"), [("workspace.{}", "update", ["name"])]
    ),
    "memory": Row(
        container("update", "--memory=256m", "--memory-swap=512m"),
        replaced("resources.memory"),
        spec=LIMITED,
    ),
    "cpus": Row(container("update", "--cpus=0.5"), replaced("resources.cpus"), spec=LIMITED),
    "pids": Row(container("update", "--pids-limit=50"), replaced("resources.pids"), spec=LIMITED),
    "cpu-shares": Row(container("update", "--cpu-shares=512"), replaced("resources.cpu_shares")),
    "restart": Row(container("update", "--restart=no"), replaced("restart")),
    "net-extra": Row(
        docker_does("network", "connect", "{0}_ws-neighbour", "{0}-{1}-1"),
        replaced("networks.ws-neighbour"),
    ),
    "net-missing": Row(
        docker_does("network", "disconnect", "{0}_ws-{1}", "{0}-{1}-1"),
        replaced("networks.ws-{}"),
    ),
    "net-no-proxy": Row(
        docker_does("network", "disconnect", "{0}_ws-{1}", "{0}-traefik-1"),
        [],
        of_proxy=["networks.ws-{}"],
    ),
    "net-subnet": Row(
        another_subnet,
        [
            ("workspace.{}", "replace", ["networks.ws-{}"]),
            ("network.{}", "replace", ["subnet"]),
        ],
        of_proxy=["networks.ws-{}"],
    ),
    "net-labels": Row(
        unlabelled_network,
        [
            ("workspace.{}", "replace", ["networks.ws-{}"]),
            ("network.{}", "replace", ["definition"]),
        ],
        of_proxy=["networks.ws-{}"],
    ),
    # The same container made anew by hand: that is no drift. With one thing changed, it is.
    "twin": Row(recreated(), [], spec=LIMITED),
    "env": Row(recreated(env=["GREETING=bye", HOME]), replaced("env.GREETING"), spec=HELLO),
    "env-added": Row(
        recreated(env=["GREETING=hello", "ADDED=1", HOME]), replaced("env.ADDED"), spec=HELLO
    ),
    "label": Row(relabelled(dev_dual_workspace="other"), replaced("labels.dev.dual.workspace")),
    "label-added": Row(relabelled(added="1"), replaced("labels.added")),
    # Without a true record, nobody can tell by whose hand it differs.
    "label-hash": Row(relabelled(dev_dual_hash="0"), replaced("definition"), is_drift=False),
    "bind": Row(recreated(mount=[ELSEWHERE]), replaced("mounts./workspace")),
    "volume": Row(
        recreated(mount=[HERE, "type=volume,source={1}-other,target=/data"]),
        replaced("mounts./data"),
        spec="{volumes: {data: /data}}",
    ),
    "mount-extra": Row(
        recreated(mount=[HERE, "type=bind,source={0}/elsewhere,target=/extra,readonly"]),
        replaced("mounts./extra"),
    ),
    "port": Row(recreated(publish="127.0.0.1::3000"), replaced("ports.3000/tcp")),
    "command": Row(recreated(command=["python3", "./server.py"]), replaced("command")),
    "device": Row(recreated(device="/dev/null:/dev/other"), replaced("devices")),
    "group": Row(recreated(group_add="999"), replaced("group_add")),
    "tmpfs": Row(recreated(tmpfs="/scratch"), replaced("tmpfs./scratch")),
    "hostname": Row(recreated(hostname="other"), replaced("hostname")),
    "user": Row(recreated(user="1000:1000"), replaced("user")),
    "unsafe": Row(
        recreated(cap_add="NET_ADMIN", security_opt=[], init=[]),
        replaced("cap_add", "init", "security_opt"),
    ),
    # Images. A tag that moved on is a change, and not drift: a pull does that, too.
    "tagged": Row(tagged_anew, replaced("image.id"), spec="{image: '{0}:tagged'}", is_drift=False),
    "untagged": Row(docker_does("rmi", "{0}:untagged"), [], spec="{image: '{0}:untagged'}"),
    "image": Row(recreated(image="{1}:untagged-too"), replaced("image")),
    "inherits": Row(nothing, [], spec="{image: '{0}:rich', source: ~, command: ~}"),
    "overrides": Row(
        nothing,
        [],
        spec="{image: '{0}:rich', user: '0', command: server.py, env: {FROM_IMAGE: other}}",
    ),
    # Files, and what is in excess.
    "route-edited": Row(edited_route, [("route.{}", "update", ["http.routers.{}.rule"])]),
    "route-deleted": Row(no_route, [("route.{}", "create", ["file"])]),
    "second": Row(second_container, [("workspace.{0}#{0}-again", "delete", ["container"])]),
}

RICH_IMAGE = f"""
FROM {LAB_IMAGE}
COPY server.py /srv/server.py
ENV FROM_IMAGE=yes EMPTY="" PATH=/usr/local/bin:/usr/bin:/bin
LABEL from.image=yes dev.dual.from=image
USER 1000:1000
WORKDIR /srv
VOLUME /cache
EXPOSE 9999
HEALTHCHECK --interval=1h CMD true
ENTRYPOINT ["python3"]
CMD ["server.py"]
"""
"""Everything that a container can inherit."""


@dataclass(frozen=True)
class Table:
    """One project with a workspace a row: what was planned for it, applied, and is now."""

    live: LiveProject
    planned: Any
    applied: Any
    after: Any
    stayed: Mapping[str, tuple[str, str]]
    """Who ran before it all and is not concerned."""


@pytest.fixture(scope="module")
def table(shared: LiveProject) -> Iterator[Table]:
    specs = "".join(
        f"  {name}: {row.spec.replace('{0}', shared.name)}\n" for name, row in ROWS.items()
    )
    shared.declare("neighbour", extra=specs)
    shutil.copytree(shared.folder, shared.folder / "elsewhere")
    tags = [f"{shared.name}:{tag}" for tag in ("tagged", "untagged", "untagged-too", "rich")]
    try:
        for tag in tags[:-1]:
            docker("tag", LAB_IMAGE, tag)
        build_rich_image(shared, tags[-1])
        shared.apply()
        assert shared.plan()["changes"] == [], "the plan is not empty before anything was broken"
        stayed = shared.identities("neighbour", "traefik", "inherits", "overrides", "untagged")
        with ThreadPoolExecutor(4) as pool:
            broken = {n: pool.submit(row.by_hand, shared, n) for n, row in ROWS.items()}
        for name, each in broken.items():
            if error := each.exception():
                pytest.fail(f"{name} could not be broken: {error}", pytrace=False)
        planned = shared.plan()
        applied = shared.dual("apply", "-y", "--format", "json")
        yield Table(shared, planned, applied, shared.plan(), stayed)
    finally:
        shared.remove()
        run("docker", "volume", "rm", f"{shared.name}-other")
        run("docker", "rmi", "-f", *tags)


def build_rich_image(live: LiveProject, tag: str) -> None:
    (live.folder / "Dockerfile").write_text(RICH_IMAGE)
    done = run(
        *("docker", "build", "--tag", tag, "."),
        cwd=live.folder,
        env={"DOCKER_BUILDKIT": "0"},  # the bench has no builder but the classic one
    )
    assert done.code == 0, done


def in_short(plan: Any) -> dict[str, tuple[str, list[str]]]:
    return {address: (action, fields) for address, action, fields in changes(plan)}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_the_table(name: str, table: Table) -> None:
    row, found = ROWS[name], in_short(table.planned)
    own = [
        (address, *change)
        for address, change in found.items()
        if address.partition(".")[2].partition("#")[0] == name
    ]
    assert own == row.of(name), f"the plan says this of {name}: {own}"
    of_proxy = [each for each in found.get("proxy", ("", []))[1] if each.endswith(f"-{name}")]
    assert of_proxy == [each.format(name) for each in row.of_proxy], found.get("proxy")
    drift = [address for address, _, _ in own if address in table.planned["drift"]]
    assert drift == [address for address, _, _ in own if row.is_drift], (
        f"the plan calls drift {drift}"
    )
    assert table.live.is_up(name), f"{name} does not answer after the apply: {table.applied}"
    left = [address for address in in_short(table.after) if name in address]
    assert left == [], f"after the apply, the plan still has {left}"


def test_the_table_has_nothing_else(table: Table) -> None:
    expected = [each for name, row in ROWS.items() for each in row.of(name)]
    fields = sorted(each.format(name) for name, row in ROWS.items() for each in row.of_proxy)
    expected.append(("proxy", "update", fields))
    assert sorted(changes(table.planned)) == sorted(expected)


def test_the_table_is_mended_as_planned(table: Table) -> None:
    assert table.applied.code == 0, f"dual apply failed: {table.applied}"
    assert table.applied.data["changes"] == table.planned["changes"]
    assert table.after["changes"] == []
    stayed = table.live.identities(*table.stayed)
    assert stayed == table.stayed, "an apply touched whom the plan had left out"
    assert table.live.is_up("neighbour")


@pytest.fixture(scope="module")
def module_project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveProject]:
    project = LiveProject(tmp_path_factory.mktemp("two"))
    project.declare("one", "two")
    yield project
    project.remove()


@pytest.fixture
def two(module_project: LiveProject) -> Iterator[LiveProject]:
    """A project with two workspaces that run, and a plan that is empty, for every test anew."""
    module_project.apply()
    yield module_project
    module_project.declare("one", "two")


def mended(live: LiveProject, stayed: Mapping[str, tuple[str, str]] | None = None) -> None:
    """Apply, and see that it was enough: and that these kept container and start time."""
    live.apply()
    assert live.plan()["changes"] == [], "after the apply, the plan is not empty"
    for name in ("one", "two"):
        assert live.is_up(name), f"{name} does not answer after the apply"
    if stayed:
        assert live.identities(*stayed) == stayed, "an apply touched whom the plan had left out"


ALL = ("one", "two", "traefik")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("stop -t 0 {0}-traefik-1", [("proxy", "start", ["state"])]),
        ("pause {0}-traefik-1", [("proxy", "start", ["state"])]),
        ("rm -f {0}-traefik-1", [("proxy", "create", ["container"])]),
        ("rename {0}-traefik-1 {0}-renamed", [("proxy", "update", ["name"])]),
        ("update --restart=no {0}-traefik-1", [("proxy", "replace", ["restart"])]),
        # Both take its published port from where it listens.
        (
            "network connect bridge {0}-traefik-1",
            [("proxy", "replace", ["networks.bridge", "routes"])],
        ),
        (
            "network disconnect {0}_edge {0}-traefik-1",
            [("proxy", "replace", ["networks.edge", "routes"])],
        ),
    ],
)
def test_what_docker_did_to_the_proxy(
    command: str, expected: list[Expected], two: LiveProject
) -> None:
    stays = ALL if expected[0][1] == "update" else ("one", "two")
    before = two.identities(*ALL) if stays == ALL else two.identities("one", "two")
    docker(*command.format(two.name).split())
    plan = two.plan()
    assert changes(plan) == expected
    assert plan["drift"] == ["proxy"]
    mended(two, before)


@pytest.mark.parametrize(
    ("path", "address", "field"),
    [
        ("compose.yaml", "file.compose.yaml", "services.two.hostname"),
        ("traefik/traefik.yaml", "file.traefik/traefik.yaml", "log.level"),
    ],
)
def test_an_edited_file(path: str, address: str, field: str, two: LiveProject) -> None:
    before = two.identities(*ALL)
    file = two.folder / "compose" / path
    text = file.read_text()
    edited = text.replace("hostname: two", "hostname: other").replace("ERROR", "DEBUG")
    assert edited != text
    file.write_text(edited)
    plan = two.plan()
    assert changes(plan) == [(address, "update", [field])]
    assert plan["drift"] == [address]
    mended(two, before)
    assert file.read_text() == text


@pytest.mark.parametrize("path", ["compose.yaml", "traefik/traefik.yaml"])
def test_a_deleted_file(path: str, two: LiveProject) -> None:
    before = two.identities(*ALL)
    file = two.folder / "compose" / path
    text = file.read_text()
    file.unlink()
    plan = two.plan()
    assert changes(plan) == [(f"file.{path}", "create", ["file"])]
    assert plan["drift"] == [f"file.{path}"]
    mended(two, before)
    assert file.read_text() == text


def test_a_route_that_nobody_declared(two: LiveProject) -> None:
    before = two.identities(*ALL)
    routes = two.folder / "compose/traefik/routes"
    extra = (routes / "one.yaml").read_text().replace("one:", "extra:")
    (routes / "extra.yaml").write_text(extra.replace("one.localhost", "extra.localhost"))
    wait_for("the extra route to be live", lambda: two.ask("extra.localhost").status != 404)
    plan = two.plan()
    assert changes(plan) == [("route.extra", "delete", ["file"])]
    assert plan["drift"] == ["route.extra"]
    mended(two, before)
    wait_for("the extra route to be gone", lambda: two.ask("extra.localhost").status == 404)


def test_a_foreign_container_on_the_projects_label(two: LiveProject) -> None:
    before = two.identities(*ALL)
    name = f"{two.name}-foreign"
    label = f"com.docker.compose.project={two.name}"
    docker("run", "-d", "--init", "--name", name, "--label", label, LAB_IMAGE, "sleep", "1000")
    plan = two.plan()
    assert changes(plan) == [(f"workspace.{name}", "delete", ["container"])]
    assert plan["drift"] == [f"workspace.{name}"]
    mended(two, before)
    assert docker("ps", "-aq", "--filter", f"name={name}") == ""


def test_a_foreign_network_on_the_projects_label(two: LiveProject) -> None:
    before = two.identities(*ALL)
    name = f"{two.name}-foreign"
    label = f"com.docker.compose.project={two.name}"
    docker("network", "create", "--subnet", another_place(), "--label", label, name)
    plan = two.plan()
    assert changes(plan) == [(f"network.#{name}", "delete", ["network"])]
    assert plan["drift"] == [f"network.#{name}"]
    mended(two, before)
    assert docker("network", "ls", "-q", "--filter", f"name={name}") == ""


def test_everything_stopped_and_a_network_removed(two: LiveProject) -> None:
    containers = [f"{two.name}-{service}-1" for service in ALL]
    docker("stop", "-t", "0", *containers)
    docker("network", "rm", f"{two.name}_ws-two")
    plan = two.plan()
    assert changes(plan) == [
        ("proxy", "replace", ["networks.ws-two"]),
        ("workspace.one", "start", ["state"]),
        ("workspace.two", "replace", ["networks.ws-two"]),
        ("network.two", "create", ["subnet"]),
    ]
    assert plan["drift"] == ["proxy", "workspace.one", "workspace.two", "network.two"]
    one = two.container("one")
    mended(two)
    assert two.container("one") == one


def test_an_edited_configuration_that_traefik_was_restarted_on(two: LiveProject) -> None:
    before = two.identities("one", "two")
    path = two.folder / "compose/traefik/traefik.yaml"
    path.write_text(path.read_text().replace(":8000", ":8001"))
    docker("restart", "-t", "0", f"{two.name}-traefik-1")
    assert changes(two.plan()) == [("proxy", "replace", ["routes"])]
    mended(two, before)


def test_networks_of_others_on_the_proxy(two: LiveProject) -> None:
    """Their names sort after its own, so that it goes on to answer."""
    before, others = two.identities(*ALL), [f"{each}-{two.name}" for each in ("x", "y")]
    try:
        for network in others:
            docker("network", "create", "--subnet", another_place(), network)
            docker("network", "connect", network, f"{two.name}-traefik-1")
        fields = [f"networks.{other}" for other in others]
        assert changes(two.plan()) == [("proxy", "update", fields)]
        mended(two, before)
    finally:
        run("docker", "network", "rm", *others)


@pytest.mark.parametrize("name", ["extra.yml", "extra.toml", "more/extra.yaml"])
def test_a_route_of_any_kind_that_somebody_added(name: str, two: LiveProject) -> None:
    """Traefik reads them all: this one takes a workspace's host over."""
    before = two.identities(*ALL)
    text = (two.folder / "compose/traefik/routes/two.yaml").read_text()
    text = text.replace("two.localhost", "three.localhost").replace(" two:", " extra:")
    extra = two.folder / "compose/traefik/routes" / name
    extra.parent.mkdir(exist_ok=True)
    if name.endswith(".toml"):
        text = "[http.routers.extra]\nrule = 'Host(`three.localhost`)'\nservice = 'extra'\n"
        text += "[[http.services.extra.loadBalancer.servers]]\nurl = 'http://127.0.0.1:9'\n"
    extra.write_text(text)
    if extra.parent.name == "more":  # there it is read, but not watched
        shutil.copy(extra.parent.parent / "two.yaml", extra.parent.parent / "copy")
        (extra.parent.parent / "copy").rename(extra.parent.parent / "two.yaml")
    wait_for("the route to be live", lambda: two.ask("three.localhost").status != 404)
    address = f"route.{name.removesuffix('.yaml')}"
    plan = two.plan()
    assert changes(plan) == [(address, "delete", ["file"])]
    assert plan["drift"] == [address]
    mended(two, before)
    wait_for("the route to be gone", lambda: two.ask("three.localhost").status == 404)


def test_an_edited_route_is_live_until_it_is_mended(two: LiveProject) -> None:
    before = two.identities(*ALL)
    edited_route(two, "one")
    wait_for("the edit to be live", lambda: two.ask("one.localhost").status == 404)
    assert changes(two.plan()) == [("route.one", "update", ["http.routers.one.rule"])]
    mended(two, before)


def test_a_removed_output_folder(two: LiveProject) -> None:
    """Traefik would go on watching the folder that is gone, and see no route ever after."""
    before = two.identities("one", "two")
    shutil.rmtree(two.folder / "compose")
    assert changes(two.plan()) == [
        ("proxy", "replace", ["routes"]),
        ("route.one", "create", ["file"]),
        ("route.two", "create", ["file"]),
    ]
    mended(two, before)
    two.declare("one", "two", "three")
    two.apply()
    assert two.is_up("three")
    assert two.identities(*before) == before


def test_an_output_folder_that_git_took_away_and_brought_back(two: LiveProject) -> None:
    shutil.copytree(two.folder / "compose", two.folder / "kept")
    shutil.rmtree(two.folder / "compose")
    (two.folder / "kept").rename(two.folder / "compose")
    two.declare("one", "two", "three")
    done = two.dual("apply", "-y")  # the watch died: nothing can tell before a file changes
    if done.code:
        two.apply()
    assert two.is_up("three")
    assert two.plan()["changes"] == []


def test_a_network_attached_to_a_renamed_proxy(two: LiveProject) -> None:
    docker("rename", f"{two.name}-traefik-1", f"{two.name}-renamed")
    two.declare("one", "two", "three")
    two.apply()
    assert two.is_up("three")


def test_a_stopped_proxy_and_a_new_workspace(two: LiveProject) -> None:
    docker("stop", "-t", "0", f"{two.name}-traefik-1")
    container = two.container("traefik")
    two.declare("one", "two", "three")
    two.apply()
    assert two.container("traefik") == container
    assert two.is_up("three")
    assert two.plan()["changes"] == []


def test_a_stopped_proxy_is_named_at_once(two: LiveProject) -> None:
    docker("stop", "-t", "0", f"{two.name}-traefik-1")
    done = two.dual("restart", "one")
    assert done.code == 1, done
    assert "the proxy doesn't run" in done.stderr


def test_another_project_still_runs_from_the_folder(two: LiveProject) -> None:
    spec = two.folder / "dual.yaml"
    text = spec.read_text()
    spec.write_text(text.replace(f"project: {two.name}", f"project: {two.name}-new"))
    done = run(*DUAL, "apply", "-y", cwd=two.folder)
    assert done.code == 1, done
    assert f"docker compose -p {two.name} down" in done.stderr
    spec.write_text(text)
    assert two.plan()["changes"] == []


def test_another_projects_proxy_is_not_this_ones(
    two: LiveProject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Both have a workspace named one, and the other's proxy took the port."""
    other = LiveProject(tmp_path_factory.mktemp("other"), port=two.port)
    docker("stop", "-t", "0", f"{two.name}-traefik-1")
    try:
        other.declare("one")
        other.apply()
        assert other.is_up("one")
        rows = two.dual("status", "--no-stats", "--format", "json").data["workspaces"]
        assert [row["health"] for row in rows] == ["not ready", "not ready"]
        third = LiveProject(tmp_path_factory.mktemp("third"), port=two.port)
        third.declare("one")
        refused = third.dual("apply", "-y")
        assert refused.code == 1, refused
        assert f"by {other.name}-traefik-1" in refused.stderr
        assert third.leftovers() == {"containers": "", "networks": "", "volumes": ""}
    finally:
        other.remove()


def test_destroying_a_workspace_named_edge_keeps_the_proxys_network(live: LiveProject) -> None:
    live.declare("one", "edge")
    live.apply()
    before = {name: live.identity(name) for name in ("one", "traefik")}
    assert live.dual("destroy", "-y", "edge").code == 0
    assert {name: live.identity(name) for name in before} == before
    assert live.is_up("one")


def test_a_slow_first_answer_is_waited_for(live: LiveProject) -> None:
    live.declare("one")
    slow = (live.folder / "server.py").read_text()
    slow = slow.replace("        body", "        __import__('time').sleep(4)\n        body")
    (live.folder / "slow.py").write_text(slow)
    live.declare("one", extra="  two: {command: python3 slow.py}\n")
    live.apply()
    live.declare("one", extra="  two: {command: python3 slow.py, ready: {timeout: 2s}}\n")
    done = live.dual("apply", "-y")
    assert done.code == 1, done
    assert "it took the request, and gave no answer in time" in done.stderr
