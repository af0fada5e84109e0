"""Plans for some, plans in files, one apply at a time, and Compose beside dual."""

from __future__ import annotations

import base64
import getpass
import hashlib
import http.client
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from tests.engine.conftest import (
    DUAL,
    Done,
    LiveProject,
    changes,
    docker,
    run,
    wait_for,
)
from tests.engine.terminal import all_said, on_a_terminal, said_until

NO_ENGINE = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}
ALL = ("one", "two", "traefik")
HELLO = "  two: {env: {GREETING: hello}}\n"


@pytest.fixture(scope="module")
def module_project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveProject]:
    project = LiveProject(tmp_path_factory.mktemp("pair"))
    yield project
    project.remove()


@pytest.fixture
def pair(module_project: LiveProject) -> LiveProject:
    """Two workspaces that run, as declared, for every test anew."""
    for name in (".env", "vars.env", "my.plan"):
        (module_project.folder / name).unlink(missing_ok=True)
    module_project.declare("one", "two")
    module_project.apply()
    return module_project


def planned(live: LiveProject, *names: str) -> list[tuple[str, str, list[str]]]:
    done = live.dual("plan", *names, "--format", "json")
    assert done.code == 0, f"dual plan failed: {done}"
    return changes(done.data)


def succeeded(done: Done) -> Done:
    assert done.code == 0, done
    return done


def compose_up(live: LiveProject) -> None:
    succeeded(run("docker", "compose", "-f", "compose/compose.yaml", "up", "-d", cwd=live.folder))


# Plans for some workspaces


def test_only_a_target_is_changed(pair: LiveProject) -> None:
    one, two = "  one: {env: {GREETING: ahoy}}\n", HELLO
    pair.declare(extra=one + two)
    before = pair.identities("one", "traefik")
    plan = succeeded(pair.dual("plan", "two", "--format", "json")).data
    assert changes(plan) == [("workspace.two", "replace", ["env.GREETING"])]
    assert plan["targets"] == ["two"]
    assert plan["left_out"] == ["workspace.one"]
    assert "workspace.one" in plan["untouched"]
    shown = succeeded(pair.dual("plan", "two")).stdout
    assert "Only for two: 1 other change is left out (workspace.one)" in shown
    done = succeeded(pair.dual("apply", "-y", "two"))
    assert pair.body("two.localhost") == "two hello"
    assert pair.identities(*before) == before, f"an apply of two touched others: {done}"
    assert planned(pair, "two") == []
    assert planned(pair) == [("workspace.one", "replace", ["env.GREETING"])]
    pair.apply()
    assert pair.body("one.localhost") == "one ahoy"


def test_several_targets(pair: LiveProject) -> None:
    pair.declare("three", extra="  one: {env: {GREETING: ahoy}}\n" + HELLO)
    before = pair.identities("traefik")
    succeeded(pair.dual("apply", "-y", "one", "two"))
    assert [pair.body(f"{name}.localhost") for name in ("one", "two")] == ["one ahoy", "two hello"]
    assert "three" not in docker(
        "ps", "-a", "--format", "{{.Names}}", "--filter", f"name={pair.name}"
    )
    assert pair.identities(*before) == before


def test_a_new_workspace_alone_among_others(pair: LiveProject) -> None:
    pair.declare("one", "two", "three", "four")
    before = pair.identities(*ALL)
    alone = [
        ("proxy", "update", ["networks.ws-three"]),
        ("workspace.three", "create", ["declared"]),
        ("network.three", "create", ["subnet"]),
        ("route.three", "create", ["file"]),
    ]
    assert planned(pair, "three") == alone
    succeeded(pair.dual("apply", "-y", "three"))
    assert pair.is_up("three")
    assert pair.ask("four.localhost").status == 404
    assert pair.identities(*before) == before
    assert [address for address, _, _ in planned(pair)] == [
        address.replace("three", "four") for address, _, _ in alone
    ]
    pair.apply()
    assert pair.identities(*before) == before
    assert pair.is_up("four")
    assert planned(pair) == []


def test_a_workspace_that_is_not_declared_any_more_can_be_a_target(live: LiveProject) -> None:
    live.declare("one", "two")
    live.apply()
    live.declare(extra="  one: {env: {GREETING: ahoy}}\n")
    before = live.identities("one", "traefik")
    assert planned(live, "two") == [
        ("proxy", "update", ["networks.ws-two"]),
        ("workspace.two", "delete", ["declared"]),
        ("network.two", "delete", ["declared"]),
        ("route.two", "delete", ["file"]),
    ]
    succeeded(live.dual("apply", "-y", "two"))
    answer = live.ask("two.localhost")
    assert answer.is_unrouted, f"asked for a workspace that is gone, the proxy says {answer}"
    assert live.identities(*before) == before
    assert planned(live) == [("workspace.one", "replace", ["env.GREETING"])]


def test_who_is_taken_away_has_no_way_left(live: LiveProject) -> None:
    """Else the proxy, off that network, would send what is asked of it out into the world."""
    live.declare("one", "two")
    live.apply()
    before = live.identities("one", "traefik")
    succeeded(live.dual("destroy", "-y", "two"))
    answer = live.ask("two.localhost")
    assert answer.is_unrouted, f"asked for a workspace that is gone, the proxy says {answer}"
    assert live.identities(*before) == before
    live.apply()
    assert live.is_up("two")
    assert live.identities(*before) == before


def test_an_unknown_target(pair: LiveProject) -> None:
    before = pair.identities(*ALL)
    for command in (("plan", "tow"), ("apply", "-y", "tow"), ("apply", "-y", "one", "tow")):
        done = pair.dual(*command)
        assert done.code == 64, (command, done)
        assert "No workspace 'tow'" in done.stderr
        assert "did you mean two?" in done.stderr
    assert pair.identities(*before) == before


def test_a_target_behind_a_proxy_that_is_gone(pair: LiveProject) -> None:
    pair.declare(extra="  one: {env: {GREETING: ahoy}}\n" + HELLO)
    docker("rm", "-f", f"{pair.name}-traefik-1")
    before = pair.identities("one")
    assert planned(pair, "two") == [
        ("proxy", "create", ["container"]),
        ("workspace.two", "replace", ["env.GREETING"]),
    ]
    succeeded(pair.dual("apply", "-y", "two"))
    assert pair.is_up("one")
    assert pair.body("two.localhost") == "two hello"
    assert pair.identities(*before) == before


# Plans in files


def test_a_saved_plan_is_carried_out(pair: LiveProject) -> None:
    pair.declare("one", extra=HELLO)
    before = pair.identities("one", "traefik")
    saved = succeeded(pair.dual("plan", "--out", "my.plan"))
    assert "dual apply my.plan" in saved.stderr
    done = succeeded(pair.dual("apply", "my.plan", "-y"))
    assert pair.body("two.localhost") == "two hello", done
    assert pair.identities(*before) == before
    assert planned(pair) == []
    again = pair.dual("apply", "my.plan", "-y")
    assert again.code == 1, again
    assert "out of date" in again.stderr


def test_a_saved_plan_for_a_target(pair: LiveProject) -> None:
    pair.declare(extra="  one: {env: {GREETING: ahoy}}\n" + HELLO)
    before = pair.identities("one", "traefik")
    succeeded(pair.dual("plan", "two", "--out", "my.plan"))
    succeeded(pair.dual("apply", "my.plan", "-y"))
    assert pair.body("two.localhost") == "two hello"
    assert pair.identities(*before) == before


def redeclared(live: LiveProject) -> None:
    live.declare("one", extra="  two: {env: {GREETING: bye, SECRET: '${SECRET}'}}\n")


@pytest.mark.parametrize(
    ("moves", "said"),
    [
        (redeclared, "workspace.two: declared otherwise now"),
        (lambda live: live.recreate("one"), "workspace.one: has another container now"),
        (
            lambda live: docker("stop", "-t", "0", live.container("two")),
            "workspace.two: running then, exited now",
        ),
        (
            lambda live: docker("update", "--cpu-shares=512", live.container("one")),
            "workspace.one: its name, limits or networks were changed",
        ),
        (lambda live: (live.folder / ".env").write_text("SECRET=another-secret\n"), "variable"),
        (lambda live: (live.folder / "vars.env").write_text("IN_FILE=other-secret\n"), "variable"),
    ],
    ids=["dual.yaml", "replaced", "stopped", "updated", "variable", "env_file"],
)
def test_a_saved_plan_that_is_out_of_date(
    moves: Callable[[LiveProject], object], said: str, pair: LiveProject
) -> None:
    (pair.folder / ".env").write_text("SECRET=first-secret\n")
    (pair.folder / "vars.env").write_text("IN_FILE=first-secret\n")
    spec = "  two: {env: {GREETING: hello, SECRET: '${SECRET}'}, env_file: [vars.env]}\n"
    pair.declare("one", extra=spec)
    succeeded(pair.dual("plan", "--out", "my.plan"))
    moves(pair)
    before = pair.identities(*ALL)
    done = pair.dual("apply", "my.plan", "-y")
    assert done.code == 1, done
    assert "The plan in my.plan is out of date" in done.stderr
    assert said in done.stderr
    assert "secret" not in done.stderr.lower().replace("env.secret", ""), "it shows a secret"
    assert pair.identities(*before) == before, "an outdated plan was carried out"
    assert "workspace.two" in succeeded(pair.dual("plan", "my.plan")).stdout


def test_a_saved_plan_is_shown_without_an_engine(pair: LiveProject) -> None:
    pair.declare("one", extra=HELLO)
    text = succeeded(pair.dual("plan", "--out", "my.plan")).stdout
    data = succeeded(pair.dual("plan", "--format", "json")).data
    (pair.folder / "dual.yaml").unlink()
    assert succeeded(pair.dual("plan", "my.plan", env=NO_ENGINE)).stdout == text
    shown = succeeded(pair.dual("plan", "my.plan", "--format", "json", env=NO_ENGINE))
    assert shown.data == data
    assert pair.dual("plan", "my.plan", "--detailed-exitcode", env=NO_ENGINE).code == 2


def test_a_file_that_is_no_saved_plan(pair: LiveProject) -> None:
    (pair.folder / "corrupt.plan").write_text('{"format_version": 1, "project": "')
    (pair.folder / "other.plan").write_text("[]\n")
    (pair.folder / "binary.plan").write_bytes(b"\xff\xfe\x00")
    (pair.folder / "newer.plan").write_text('{"format_version": 2}')
    (pair.folder / "folder.plan").mkdir(exist_ok=True)
    for name, said in (
        ("corrupt.plan", "is not a saved plan"),
        ("other.plan", "is not a saved plan"),
        ("binary.plan", "is not a saved plan"),
        ("newer.plan", "is not a saved plan"),
        ("folder.plan", "is no file"),
        ("missing.plan", "can't be read"),
        ("dual.yaml", "is not a saved plan"),
        ("./server.py", "is not a saved plan"),
    ):
        for command in (("plan", name), ("apply", name, "-y")):
            done = pair.dual(*command)
            assert done.code == 64, (command, done)
            assert said in done.stderr, (command, done)
            assert "Traceback" not in done.stderr, (command, done)


def test_a_plan_file_named_like_a_workspace(pair: LiveProject) -> None:
    done = pair.dual("plan", "--out", "two")
    assert done.code == 64, done
    assert "two is the name of a workspace" in done.stderr
    assert not (pair.folder / "two").exists()


def test_a_plan_file_holds_no_secret(pair: LiveProject) -> None:
    secrets = ("hunter2-of-dotenv", "hunter2-of-envfile", "hunter2-from-around")
    (pair.folder / ".env").write_text(f"DOTENV={secrets[0]}\n")
    (pair.folder / "vars.env").write_text(f"IN_FILE={secrets[1]}\n")
    env = "{A: '${DOTENV}', B: '${AROUND}', C: 'x${DOTENV}y'}"
    pair.declare("one", extra=f"  two: {{env_file: [vars.env], env: {env}}}\n")
    around = {"AROUND": secrets[2]}
    succeeded(pair.dual("plan", "--out", "my.plan", env=around))
    text = (pair.folder / "my.plan").read_text()
    assert json.loads(text)["changes"], text
    for secret in secrets:
        for form in (
            secret,
            base64.b64encode(secret.encode()).decode().rstrip("="),
            *(hashlib.new(kind, secret.encode()).hexdigest() for kind in ("md5", "sha256")),
        ):
            assert form not in text, f"the plan file holds {form}, which is {secret}"
    succeeded(pair.dual("apply", "my.plan", "-y", env=around))
    (pair.folder / ".env").write_text("DOTENV=hunter2-changed\n")
    succeeded(pair.dual("plan", "--out", "my.plan", env=around))
    text = (pair.folder / "my.plan").read_text()
    assert "hunter2" not in text, "the plan of a change holds the old or the new secret"


def test_exit_codes_of_plan(pair: LiveProject) -> None:
    assert pair.dual("plan", "--detailed-exitcode").code == 0
    pair.declare("one", extra=HELLO)
    assert pair.dual("plan", "--detailed-exitcode").code == 2
    assert pair.dual("plan", "two", "--detailed-exitcode").code == 2
    assert pair.dual("plan", "one", "--detailed-exitcode").code == 0
    assert pair.dual("plan").code == 0


# One apply at a time


@contextmanager
def asking(live: LiveProject) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """An apply that waits for its user to say yes: the process, and its terminal."""
    with on_a_terminal(live, "apply") as (process, terminal):
        said_until(terminal, b"Apply it?")
        yield process, terminal


def test_ctrl_c_lets_end_what_has_begun(live: LiveProject) -> None:
    """Compose makes all the containers: it doesn't see the key, that would cut it short."""
    names = [f"w{number}" for number in range(8)]
    live.declare(*names)
    with on_a_terminal(live, "apply", "-y") as (process, terminal):
        said = said_until(terminal, b"creating")
        os.write(terminal, b"\x03")
        said += all_said(terminal)
        assert process.wait(timeout=60) == 130, said.decode()
    assert b"Ending what has begun" in said, said.decode()
    assert said.strip().endswith(b"Interrupted."), said.decode()
    label = f"label=com.docker.compose.project={live.name}"
    listed = docker("ps", "-a", "--format", "{{.Names}} {{.State}}", "--filter", label)
    assert sorted(listed.split("\n")) == sorted(
        f"{live.name}-{name}-1 created" for name in [*names, "traefik"]
    )
    live.apply()
    assert live.plan()["changes"] == []
    assert all(live.is_up(name) for name in names)


def test_a_second_one_is_told_who_is_first(pair: LiveProject) -> None:
    pair.declare("one", extra=HELLO)
    before = pair.identities(*ALL)
    with asking(pair) as (first, terminal):
        for command in (("apply", "-y"), ("apply", "-y", "one"), ("destroy", "-y")):
            second = pair.dual(*command)
            assert second.code == 75, (command, second)
            for word in (f"process {first.pid}", f"{getpass.getuser()} runs", "apply", "since"):
                assert word in second.stderr, (command, second)
        assert pair.identities(*before) == before
        assert pair.dual("plan").code == 0, "a plan changes nothing, and needs no lock"
        as_json = pair.dual("apply", "-y", "--format", "json")
        assert as_json.code == 75, as_json
        os.write(terminal, b"y\n")
        said = said_until(terminal, b"http://two.localhost")
        assert first.wait(timeout=60) == 0, said.decode()
    assert pair.body("two.localhost") == "two hello"
    pair.apply()


def test_the_lock_of_one_that_was_killed_is_free(pair: LiveProject) -> None:
    pair.declare("one", extra=HELLO)
    with asking(pair) as (first, _):
        assert pair.dual("apply", "-y").code == 75
        first.kill()
        first.wait()
        pair.apply()
    assert pair.body("two.localhost") == "two hello"


def test_a_no_changes_nothing_and_frees_the_lock(pair: LiveProject) -> None:
    pair.declare("one", extra=HELLO)
    before = pair.identities(*ALL)
    with asking(pair) as (first, terminal):
        os.write(terminal, b"n\n")
        said_until(terminal, b"Nothing was changed")
        assert first.wait(timeout=60) == 1
    assert pair.identities(*before) == before
    pair.apply()


def test_what_moved_while_somebody_was_asked(pair: LiveProject) -> None:
    """The plan that was approved is not what would be done now: so nothing is."""
    pair.declare("one", extra=HELLO)
    with asking(pair) as (first, terminal):
        docker("restart", "-t", "0", pair.container("one"))
        docker("stop", "-t", "0", pair.container("one"))
        before = pair.identity("two")
        os.write(terminal, b"y\n")
        said = b""
        while b"nothing was done" not in said:
            said += os.read(terminal, 4096)
        assert b"workspace.one: running then, exited now" in said
        assert first.wait(timeout=60) == 1
    assert pair.identity("two") == before


# Neighbours


def test_a_neighbour_whose_command_keeps_ending(pair: LiveProject) -> None:
    loops = "  loops: {command: \"sh -c 'exit 3'\", ready: {timeout: 5s}}\n"
    pair.declare("one", "two", extra=loops)
    first = pair.dual("apply", "-y")
    assert first.code == 1, first
    assert "loops does not answer: its command ended with exit code 3" in first.stderr
    restarts = pair.inspect("loops")["RestartCount"]
    for _ in range(3):
        assert planned(pair) == []
    pair.declare("one", extra=HELLO + loops)
    succeeded(pair.dual("apply", "-y", "two"))
    assert pair.body("two.localhost") == "two hello"
    pair.declare("one", "two", extra=loops)
    whole = pair.dual("apply", "-y")
    assert whole.code == 1, whole
    assert "left out" not in whole.stderr, whole
    assert "2 of 3 workspaces answer" in whole.stderr
    wait_for("it to crash meanwhile", lambda: pair.inspect("loops")["RestartCount"] > restarts)
    assert planned(pair) == []


def test_a_neighbour_that_somebody_restarts_meanwhile(pair: LiveProject) -> None:
    """two takes its time to stop, so that there is a moment in which to do it."""
    stubborn = "import signal\nsignal.signal(signal.SIGTERM, lambda *_: open('asked', 'w'))\n"
    (pair.folder / "stubborn.py").write_text(stubborn + (pair.folder / "server.py").read_text())
    asked = pair.folder / "asked"
    pair.declare("one", extra="  two: {command: python3 stubborn.py}\n")
    pair.apply()
    asked.unlink(missing_ok=True)
    pair.declare("one", extra="  two: {command: python3 stubborn.py, env: {GREETING: hello}}\n")
    with subprocess.Popen(
        [*DUAL, "apply", "-y"],
        cwd=pair.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as applying:
        wait_for("two to be asked to stop", asked.exists)
        docker("restart", "-t", "0", pair.container("one"))
        docker("kill", pair.container("two"))
        stdout, stderr = applying.communicate(timeout=120)
    assert applying.returncode == 1, (stdout, stderr)
    assert "Containers changed that the plan had left out" in stderr
    assert "workspace.one" in stderr.split("left out", 1)[1]
    assert "workspace.two" not in stderr.split("left out", 1)[1]
    pair.apply()
    assert planned(pair) == []


def test_one_that_can_not_start_leaves_the_others_applied(pair: LiveProject) -> None:
    bad = "  bad: {command: nosuchcommand}\n"
    pair.declare("one", "good", extra=HELLO + bad)
    before = pair.identities("one", "traefik")
    done = pair.dual("apply", "-y")
    assert done.code == 1, done
    assert "nosuchcommand" in done.stderr
    assert pair.is_up("good")
    assert pair.body("two.localhost") == "two hello"
    assert pair.identities(*before) == before
    assert planned(pair) == [], "it is there as declared, and tried again and again"
    stayed = pair.identities("one", "two", "good", "traefik")
    pair.declare("one", "good", "bad", extra=HELLO)
    pair.apply()
    assert pair.is_up("bad")
    assert pair.identities(*stayed) == stayed
    assert planned(pair) == []


# The proxy and its routes


def test_another_host_touches_no_container(pair: LiveProject) -> None:
    before = pair.identities(*ALL)
    pair.declare("one", extra="  two: {hosts: [deux.localhost]}\n")
    assert planned(pair) == [("route.two", "update", ["http.routers.two.rule"])]
    pair.apply()
    assert pair.ask("deux.localhost").is_from("two", pair.name)
    assert pair.identities(*before) == before
    assert planned(pair) == []


@contextmanager
def kept_open(live: LiveProject, name: str) -> Iterator[Callable[[], int]]:
    """One connection to a workspace through the proxy; asks on it, and never opens another."""
    connection = http.client.HTTPConnection("127.0.0.1", live.port, timeout=10)
    connection.connect()
    connection.auto_open = 0

    def ask() -> int:
        connection.request("GET", "/", headers={"Host": f"{name}.localhost"})
        response = connection.getresponse()
        response.read()
        return response.status

    try:
        yield ask
    finally:
        connection.close()


@pytest.mark.parametrize("name", ["0", "a", "zz"])
def test_a_new_network_leaves_the_published_port_where_it_is(name: str, pair: LiveProject) -> None:
    before = pair.identities(*ALL)
    with kept_open(pair, "one") as ask:
        assert ask() == 200
        pair.declare("one", "two", extra=f'  "{name}": {{}}\n')
        pair.apply()
        assert ask() == 200, "the connection was lost as a workspace came"
        assert pair.is_up(name)
        pair.declare("one", "two")
        pair.apply()
        assert ask() == 200, "the connection was lost as a workspace went"
    assert pair.identities(*before) == before


def test_another_port_or_image_replaces_the_proxy_alone(pair: LiveProject) -> None:
    before = pair.identities("one", "two")
    image = f"{pair.name}-traefik:1"
    used = docker("inspect", "--format", "{{.Config.Image}}", f"{pair.name}-traefik-1")
    docker("tag", used, image)
    spec = pair.folder / "dual.yaml"
    text = spec.read_text()
    old_port = pair.port
    try:
        spec.write_text(text.replace('"http": ', f'"image": "{image}", "http": '))
        assert planned(pair) == [("proxy", "replace", ["image"])]
        pair.apply()
        assert pair.inspect("traefik")["Config"]["Image"] == image
        spec.write_text(text)
        pair.port = LiveProject(pair.folder).port
        spec.write_text(text.replace(f'"http": {old_port}', f'"http": {pair.port}'))
        assert planned(pair) == [("proxy", "replace", ["image", "ports.8000/tcp"])]
        shown = succeeded(pair.dual("plan")).stdout
        assert "proxy  (Traefik restarts: open connections through it end)" in shown
        pair.apply()
        assert pair.is_up("one")
        assert pair.is_up("two")
    finally:
        run("docker", "rmi", image)
    assert pair.identities(*before) == before
    assert planned(pair) == []


# Compose beside dual


def test_compose_has_nothing_to_do_but_to_attach_the_proxy(pair: LiveProject) -> None:
    before = pair.identities(*ALL)
    compose_up(pair)
    assert pair.identities(*before) == before
    pair.declare("one", "two", "three")
    pair.apply()
    before = pair.identities("one", "two", "three")
    compose_up(pair)
    assert pair.identities(*before) == before
    assert planned(pair) == []
    for name in before:
        wait_for(f"{name} to answer", partial(pair.is_up, name))


def test_what_compose_made_is_what_dual_would_have(live: LiveProject) -> None:
    (live.folder / "vars.env").write_text("IN_FILE=value\n")
    (live.folder / ".env").write_text("DOTENV=value\n")
    full = (
        "{env: {A: '${DOTENV}', B: b}, env_file: [vars.env], volumes: {data: /data}, "
        "user: '1000:1000', resources: {cpus: 0.5, memory: 128m, pids: 64}, "
        "hosts: [deux.localhost]}"
    )
    live.declare("one", extra=f"  two: {full}\n")
    succeeded(live.dual("render"))
    succeeded(
        run(
            *("docker", "compose", "-f", "compose/compose.yaml", "--env-file", ".env"),
            *("up", "-d"),
            cwd=live.folder,
        )
    )
    before = live.identities(*ALL)
    done = live.dual("plan", "--detailed-exitcode")
    assert done.code == 0, f"dual finds something wrong with what Compose made: {done}"
    wait_for("the workspaces to answer", lambda: live.is_up("one") and live.is_up("two"))
    again = succeeded(live.dual("apply"))
    assert "No changes" in again.stdout
    assert live.identities(*before) == before
