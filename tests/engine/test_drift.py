"""Break one thing by hand: the plan names it, apply mends it, the plan is empty."""

from __future__ import annotations

import shutil

import pytest

from tests.engine.conftest import DUAL, LiveProject, docker, run, wait_for


@pytest.fixture
def two(live: LiveProject) -> LiveProject:
    live.declare("one", "two")
    live.apply()
    return live


def changes(live: LiveProject) -> list[tuple[str, str]]:
    return [(change["address"], change["action"]) for change in live.plan()["changes"]]


def mended(live: LiveProject) -> None:
    live.apply()
    assert live.plan()["changes"] == []
    for name in ("one", "two"):
        assert live.is_up(name)


def test_a_removed_output_folder(two: LiveProject) -> None:
    """Traefik would go on watching the folder that is gone, and see no route ever after."""
    shutil.rmtree(two.folder / "compose")
    assert ("proxy", "replace") in changes(two)
    mended(two)
    two.declare("one", "two", "three")
    two.apply()
    assert two.is_up("three")


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


def test_an_edited_configuration_that_traefik_was_restarted_on(two: LiveProject) -> None:
    path = two.folder / "compose/traefik/traefik.yaml"
    path.write_text(path.read_text().replace(":8000", ":8001"))
    docker("restart", f"{two.name}-traefik-1")
    assert ("proxy", "replace") in changes(two)
    mended(two)


def test_edited_and_deleted_routes(two: LiveProject) -> None:
    route = two.folder / "compose/traefik/routes/one.yaml"
    route.write_text(route.read_text().replace("one.localhost", "other.localhost"))
    (two.folder / "compose/traefik/routes/two.yaml").unlink()
    wait_for("the edit to be live", lambda: two.ask("one.localhost").status == 404)
    before = two.identity("traefik")
    assert changes(two) == [("route.one", "update"), ("route.two", "create")]
    mended(two)
    assert two.identity("traefik") == before


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("rm -f {}-two-1", [("workspace.two", "create")]),
        ("stop -t 0 {}-two-1", [("workspace.two", "start")]),
        ("kill {}-two-1", [("workspace.two", "start")]),
        ("pause {}-two-1", [("workspace.two", "start")]),
        ("stop -t 0 {}-traefik-1", [("proxy", "start")]),
        ("rm -f {}-traefik-1", [("proxy", "create")]),
        ("network disconnect {0}_ws-two {0}-traefik-1", [("proxy", "update")]),
        ("network disconnect {0}_ws-two {0}-two-1", [("workspace.two", "replace")]),
        ("network connect {0}_ws-one {0}-two-1", [("workspace.two", "replace")]),
        ("rename {0}-traefik-1 {0}-renamed", []),
    ],
)
def test_what_docker_did_by_hand(
    command: str, expected: list[tuple[str, str]], two: LiveProject
) -> None:
    before = two.identity("one")
    docker(*command.format(two.name).split())
    assert changes(two) == expected
    mended(two)
    assert two.identity("one") == before


def test_a_network_attached_to_a_renamed_proxy(two: LiveProject) -> None:
    docker("rename", f"{two.name}-traefik-1", f"{two.name}-renamed")
    two.declare("one", "two", "three")
    two.apply()
    assert two.is_up("three")


def test_a_second_container_of_a_workspace(two: LiveProject) -> None:
    labels = {
        "com.docker.compose.project": two.name,
        "com.docker.compose.service": "two",
        "com.docker.compose.container-number": "2",
        "dev.dual.project": two.name,
    }
    options = [word for item in labels.items() for word in ("--label", "=".join(item))]
    docker("create", "--name", f"{two.name}-two-2", *options, "dual-lab:bookworm", "true")
    assert changes(two) == [(f"workspace.two#{two.name}-two-2", "delete")]
    mended(two)


def test_an_image_whose_name_is_gone(live: LiveProject) -> None:
    tag = f"{live.name}:x"
    docker("tag", "dual-lab:bookworm", tag)
    live.declare("one", extra=f"  two: {{image: '{tag}'}}\n")
    live.apply()
    docker("rmi", tag)
    assert live.plan()["changes"] == []


def test_an_image_that_was_tagged_anew(live: LiveProject) -> None:
    tag = f"{live.name}:x"
    docker("tag", "dual-lab:bookworm", tag)
    live.declare("one", extra=f"  two: {{image: '{tag}'}}\n")
    live.apply()
    container = docker("create", "dual-lab:bookworm", "true")
    docker("commit", "--change", "LABEL new=1", container, tag)
    docker("rm", container)
    try:
        (change,) = live.plan()["changes"]
        assert change["address"] == "workspace.two"
        assert [reason["field"] for reason in change["reasons"]] == ["image.id"]
        live.apply()
        assert live.plan()["changes"] == []
    finally:
        live.remove()
        docker("rmi", tag)


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


def test_another_project_still_runs_from_the_folder(two: LiveProject) -> None:
    spec = two.folder / "dual.yaml"
    text = spec.read_text()
    spec.write_text(text.replace(f"project: {two.name}", f"project: {two.name}-new"))
    done = run(*DUAL, "apply", "-y", cwd=two.folder)
    assert done.code == 1, done
    assert f"docker compose -p {two.name} down" in done.stderr
    spec.write_text(text)
    assert two.plan()["changes"] == []


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
