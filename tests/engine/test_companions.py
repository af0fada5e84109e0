"""Companions: services that share a workspace's localhost, on a real engine."""

from __future__ import annotations

import signal
import subprocess

import pytest

from tests.engine.conftest import DUAL, LAB_IMAGE, LiveProject, changes, docker, run, wait_for
from tests.engine.terminal import heed_signals

SMALL = "busybox:1.35"
# A database, as far as a test needs one: it keeps what it has in a volume, on port 5432.
DB = (
    "image: 'busybox:1.35', env: {WHO: $who}, volumes: {data: /srv}, "
    "command: [sh, -c, 'test -f /srv/made || cat /proc/sys/kernel/random/uuid >/srv/made; "
    "exec httpd -f -p 5432 -h /srv'], "
    "healthcheck: {test: 'wget -qO /dev/null http://127.0.0.1:5432/made', interval: 1s}"
)


def declare(live: LiveProject, **companions: str) -> None:
    """Workspaces with a companion db, by name: what is added to it; and a neighbour without."""
    workspaces = "".join(
        f"  {name}: {{services: {{db: {{{DB.replace('$who', name)}{more}}}}}}}\n"
        for name, more in companions.items()
    )
    live.write(
        f"defaults: {{image: {LAB_IMAGE}, command: python3 -m http.server 3000}}\n"
        f"workspaces:\n  other: {{}}\n{workspaces}"
    )


def made(live: LiveProject, service: str) -> str:
    """What the database says that a workspace's container finds on its localhost."""
    return docker("exec", f"{live.name}-{service}-1", "curl", "-s", "http://localhost:5432/made")


def test_each_has_its_own_and_nobody_else_sees_it(live: LiveProject) -> None:
    declare(live, a="", b="")
    live.apply()
    assert len(made(live, "a")) == 36
    assert made(live, "a") != made(live, "b")
    assert live.plan()["changes"] == []
    [address] = docker(
        *("inspect", f"{live.name}-a--localhost-1", "--format"),
        "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}",
    ).split()
    for service in ("other", "b"):
        for host in (address, "a", "db", "a--db", "a--localhost"):
            url = f"http://{host}:5432/made"
            found = run("docker", "exec", f"{live.name}-{service}-1", "curl", "-m1", "-s", url)
            assert found.code != 0, f"{service} reaches {url}: {found}"
    for host in ("a--db", "db"):
        assert live.ask(f"{host}.localhost").status == 404
    listed = docker("ps", "--format", "{{.Names}} {{.Ports}}", "--filter", f"name={live.name}")
    assert "5432" not in listed, "it is not published"


def test_a_change_of_one_touches_that_one_alone(live: LiveProject) -> None:
    declare(live, a="", b="")
    live.apply()
    before, data = (
        live.identities("a", "a--db", "a--localhost", "b", "b--db", "traefik"),
        made(live, "a"),
    )

    text = (live.folder / "dual.yaml").read_text()
    (live.folder / "dual.yaml").write_text(
        text.replace("a: {services", "a: {env: {X: y}, services")
    )
    assert changes(live.plan()) == [("workspace.a", "replace", ["env.X"])]
    live.apply()
    after = live.identities(*before)
    assert {name for name in before if before[name] != after[name]} == {"a"}
    assert (made(live, "a"), live.is_up("a")) == (data, True)

    (live.folder / "dual.yaml").write_text(text.replace("WHO: b", "WHO: bob"))
    before = after
    plan = live.plan()
    assert ("companion.b/db", "replace", ["env.WHO"]) in changes(plan)
    (live.folder / "dual.yaml").write_text(
        (live.folder / "dual.yaml").read_text().replace("a: {services", "a: {env: {X: y}, services")
    )
    assert changes(live.plan()) == [("companion.b/db", "replace", ["env.WHO"])]
    data = made(live, "b")
    live.apply()
    after = live.identities(*before)
    assert {name for name in before if before[name] != after[name]} == {"b--db"}
    wait_for("it is back", lambda: made(live, "b") == data)
    assert live.plan()["changes"] == []


def test_they_come_and_go(live: LiveProject) -> None:
    declare(live)
    live.apply()
    other = live.identity("other")
    declare(live, a="")
    live.apply()
    data = made(live, "a")
    text = (live.folder / "dual.yaml").read_text()
    (live.folder / "dual.yaml").write_text(text.partition("  a: ")[0] + "  a: {}\n")
    assert [(address, action) for address, action, _ in changes(live.plan())] == [
        ("companion.a/db", "delete"),
        ("companion.a/localhost", "delete"),
        ("workspace.a", "replace"),
    ]
    live.apply()
    assert live.is_up("a")
    assert live.plan()["changes"] == []
    (live.folder / "dual.yaml").write_text(text)
    live.apply()
    assert made(live, "a") == data, "its volume was kept"
    assert live.plan()["changes"] == []
    declare(live)
    live.apply()
    assert live.identity("other") == other
    assert live.plan()["changes"] == []
    assert live.dual("status", "--volumes").stdout.count("a--db---data") == 1
    assert live.dual("destroy", "-y", "--volumes").code == 0
    assert not "".join(live.leftovers().values())


def test_the_command_waits_until_they_are_healthy(live: LiveProject) -> None:
    slow = DB.replace("exec httpd", "sleep 3; exec httpd").replace("$who", "a")
    look = "curl -sf http://localhost:5432/made >/tmp/found; exec python3 -m http.server 3000"
    live.write(
        f"workspaces:\n  a: {{image: {LAB_IMAGE}, command: [sh, -c, '{look}'], "
        f"services: {{db: {{{slow}}}}}}}\n"
        f"  b: {{image: {LAB_IMAGE}, command: python3 -m http.server 3000}}\n"
    )
    done = live.apply()
    assert "a--db: waiting for it to be healthy" in done.stderr
    assert docker("exec", f"{live.name}-a-1", "cat", "/tmp/found")
    order = [line.partition(" (")[0] for line in done.stderr.splitlines()]
    assert order.index("a--db: healthy") < order.index("a: starting")
    assert order.index("b: started") < order.index("a--db: healthy"), "nobody else waits"

    # So it does after a stop, and with Compose alone.
    assert live.dual("stop", "a").code == 0
    states = docker(
        "ps", "-a", "--format", "{{.State}}", "--filter", f"name={live.name}-a-"
    ).split()
    assert states == ["exited"] * 3
    assert live.dual("start", "a").code == 0
    assert docker("exec", f"{live.name}-a-1", "cat", "/tmp/found")
    assert live.plan()["changes"] == []


def test_with_compose_alone(live: LiveProject) -> None:
    declare(live, a="")
    assert live.dual("render").code == 0
    compose = ("docker", "compose", "-f", str(live.folder / "compose/compose.yaml"))
    up = run(*compose, "up", "-d")
    assert up.code == 0, up
    wait_for("it answers", lambda: live.is_up("a"))
    assert live.plan()["changes"] == []
    declare(live, a="", b="")
    live.apply()
    before = live.identities("a", "a--db", "a--localhost", "b", "b--db", "b--localhost", "other")
    up = run(*compose, "up", "-d")
    assert up.code == 0, up
    assert live.identities(*before) == before


def test_one_that_never_gets_healthy(live: LiveProject) -> None:
    declare(live, a="")
    text = (live.folder / "dual.yaml").read_text()
    broken = text.replace(
        "wget -qO /dev/null http://127.0.0.1:5432/made', interval: 1s",
        "echo no database here; exit 3', interval: 1s, retries: 2",
    )
    (live.folder / "dual.yaml").write_text(broken)
    done = live.dual("apply", "-y")
    assert done.code == 1
    assert "✗ a failed: its service db: a--db is unhealthy: its healthcheck fails\n" in done.stderr
    assert "no database here" in done.stderr
    assert "dual logs a--db has more" in done.stderr
    assert live.is_up("other")
    [row] = [
        each
        for each in live.dual("status", "--format", "json", "--no-stats").data["workspaces"]
        if each["name"] == "a"
    ]
    assert [(each["name"], each["state"], each["health"]) for each in row["services"]] == [
        ("db", "running", "unhealthy")
    ]
    assert changes(live.plan()) == [("workspace.a", "start", ["state"])]
    (live.folder / "dual.yaml").write_text(text)
    live.apply()
    assert live.plan()["changes"] == []


def test_one_that_does_not_stay_up(live: LiveProject) -> None:
    declare(live, a="")
    text = (live.folder / "dual.yaml").read_text()
    (live.folder / "dual.yaml").write_text(
        text.replace("exec httpd -f -p 5432 -h /srv", "echo no space left; exit 7")
    )
    done = live.dual("apply", "-y")
    assert done.code == 1
    assert "a--db does not stay up: its command ended with exit code 7\n" in done.stderr, done
    assert "no space left" in done.stderr


@pytest.mark.parametrize("how", ["restart", "stop", "remove"])
def test_a_holder_that_somebody_lays_hands_on(live: LiveProject, how: str) -> None:
    declare(live, a="")
    live.apply()
    data = made(live, "a")
    holder = f"{live.name}-a--localhost-1"
    docker(*(("rm", "-f") if how == "remove" else (how,)), holder)
    found = changes(live.plan())
    assert [(address, action) for address, action, _ in found if "localhost" not in address] == [
        ("companion.a/db", "replace" if how == "remove" else "update"),
        ("workspace.a", "replace" if how == "remove" else "update"),
    ], found
    other = live.identity("other")
    live.apply()
    assert made(live, "a") == data
    assert live.is_up("a")
    assert live.plan()["changes"] == []
    assert live.identity("other") == other


def test_two_on_one_port(live: LiveProject) -> None:
    """An image says what it listens on: nothing is begun where that can't be."""
    image = f"{live.name}:db"
    (live.folder / "Dockerfile").write_text(f"FROM {SMALL}\nEXPOSE 5432\n")
    docker("build", "--quiet", "--tag", image, str(live.folder))
    try:
        small = "command: [tail, -f, /dev/null]"
        live.write(
            f"defaults: {{image: {LAB_IMAGE}, command: python3 -m http.server 3000}}\n"
            f"workspaces:\n  other: {{}}\n  a:\n    services:\n"
            f"      db: {{image: '{image}', {small}}}\n"
            f"      cache: {{image: '{image}', {small}}}\n"
        )
        both = "he service cache and the service db both listen on port 5432"
        for command in (("plan",), ("apply", "-y")):
            done = live.dual(*command)
            assert done.code == 1
            assert both in done.stderr, done
            assert "say where with port:" in done.stderr
        label = f"label=com.docker.compose.project={live.name}"
        names = docker("ps", "-a", "--format", "{{.Names}}", "--filter", label)
        assert f"{live.name}-a" not in names, "nothing of it is begun"
        assert live.is_up("other")
        text = (live.folder / "dual.yaml").read_text()
        (live.folder / "dual.yaml").write_text(text.replace("cache: {", "cache: {port: 6379, "))
        live.apply()
    finally:
        live.remove()
        run("docker", "rmi", "--force", image)


def test_daily_work_with_one(live: LiveProject) -> None:
    declare(live, a="")
    live.apply()
    done = live.dual("exec", "a--db", "--", "sh", "-c", "cat /srv/made; echo $WHO")
    assert done.stdout.split() == [made(live, "a"), "a"]
    assert live.dual("exec", "a--db", "--", "sh", "-c", "exit 42").code == 42
    assert live.dual("logs", "a--db").code == 0
    assert live.dual("cp", "a--db:/srv/made", "made").code == 0
    assert (live.folder / "made").read_text().strip() == made(live, "a")
    before = live.identities("a--db", "a--localhost")
    assert live.dual("restart", "a").code == 0
    assert live.identities(*before) == before
    assert "  db" in live.dual("status", "--no-stats").stdout
    assert live.dual("restart", "a--db").code == 0
    assert live.identity("a--db") != before["a--db"]
    wait_for("it is back", lambda: len(made(live, "a")) == 36)


def test_one_that_gets_broken_beside_a_workspace_that_stays(live: LiveProject) -> None:
    declare(live, a="")
    live.apply()
    before, text = live.identity("a"), (live.folder / "dual.yaml").read_text()
    for good, broken, said in (
        ("wget -qO /dev/null http://127.0.0.1:5432/made'", "exit 1', retries: 2", "is unhealthy"),
        ("exec httpd -f -p 5432 -h /srv", "exit 3", "does not stay up"),
    ):
        (live.folder / "dual.yaml").write_text(text.replace(good, broken))
        done = live.dual("apply", "-y")
        assert done.code == 1, done
        assert f"✗ a failed: its service db: a--db {said}" in done.stderr, done
        assert live.identity("a") == before
    (live.folder / "dual.yaml").write_text(text)
    live.apply()
    assert live.identity("a") == before


def test_one_without_a_healthcheck_that_ends_again_and_again(live: LiveProject) -> None:
    live.write(
        f"workspaces:\n  a: {{image: {LAB_IMAGE}, command: python3 -m http.server 3000, "
        f"services: {{x: {{image: '{SMALL}', command: [sh, -c, 'echo oh no; exit 3']}}}}}}\n"
    )
    live.dual("apply", "-y")

    def rests() -> bool:  # for six seconds and more: Docker waits twice as long each time
        data = live.inspect("a--x")
        return bool(data["RestartCount"] >= 6 and data["State"]["Status"] == "restarting")

    wait_for("it ends again and again", rests)
    done = live.dual("apply", "-y")
    assert done.code == 1, done
    assert "✗ a answers, but its service x does not stay up: exit code 3" in done.stderr
    assert "| oh no" in done.stderr


def test_a_workspace_that_cannot_be_made_keeps_all_that_it_has(live: LiveProject) -> None:
    declare(live, a="")
    live.apply()
    data = made(live, "a")
    before = live.identities("a", "a--db", "a--localhost")
    text = (live.folder / "dual.yaml").read_text()
    nowhere = text.replace("a: {services", "a: {image: 'nope/nope:1', services")
    for broken in (
        nowhere.replace("{db: {", "{pg: {"),
        nowhere.partition("  a: ")[0] + "  a: {image: 'nope/nope:1'}\n",
        text.replace("{db: {", "{pg: {image: 'nope/nope:1'}, other: {"),
    ):
        (live.folder / "dual.yaml").write_text(broken)
        done = live.dual("apply", "-y")
        assert done.code == 1
        assert "can't be had" in done.stderr, done
        assert live.identities(*before) == before
        assert (made(live, "a"), live.is_up("a")) == (data, True)


@pytest.mark.parametrize("command", ["start", "restart"])
def test_daily_work_finds_the_network_again(live: LiveProject, command: str) -> None:
    declare(live, a="")
    live.apply()
    docker("stop", f"{live.name}-a--localhost-1")
    done = live.dual(command, "a")
    assert done.code == 0, done
    assert live.is_up("a")
    assert live.plan()["changes"] == []
    docker("restart", f"{live.name}-a--localhost-1")
    assert live.dual(command, "a").code == 0
    assert live.plan()["changes"] == []


def test_daily_work_with_several_and_with_what_is_not_applied_yet(live: LiveProject) -> None:
    # The one of a comes up only once.
    once = DB.replace("$who", "'${WHO_IS_IT:-topsecret}'").replace(
        "test -f /srv/made ||", "echo I am $$WHO; test -f /srv/made && exit 3;"
    )
    live.write(
        f"defaults: {{image: {LAB_IMAGE}, command: python3 -m http.server 3000}}\n"
        f"workspaces:\n  a: {{services: {{db: {{{once}}}}}}}\n  b: {{}}\n"
    )
    live.apply()
    assert live.dual("stop", "a", "b").code == 0
    done = live.dual("start", "a", "b")
    assert done.code == 1
    assert "a--db does not stay up" in done.stderr
    assert "I am (hidden)" in done.stderr
    assert "topsecret" not in done.stderr
    assert live.is_up("b")
    text = (live.folder / "dual.yaml").read_text()
    (live.folder / "dual.yaml").write_text(
        text.replace("db: {", f"pg: {{image: '{SMALL}'}}, db: {{")
    )
    assert live.dual("stop", "a").code == 0


def test_no_two_share_a_volume(live: LiveProject) -> None:
    declare(live, a="")
    live.apply()
    live.write(
        f"defaults: {{image: {LAB_IMAGE}, command: python3 -m http.server 3000}}\n"
        "workspaces:\n  a: {}\n  a--db: {volumes: {data: /srv}}\n"
    )
    live.apply()
    assert live.dual("exec", "a--db", "--", "ls", "/srv").stdout == ""
    assert live.dual("destroy", "a", "--volumes", "-y").code == 0
    assert docker("volume", "ls", "-q", "--filter", f"name={live.name}_a--db--data") != ""


def test_defaults_are_taken_back(live: LiveProject) -> None:
    live.write(
        f"defaults: {{image: {LAB_IMAGE}, command: python3 -m http.server 3000, services: "
        f"{{db: {{{DB}}}, x: {{image: '{SMALL}', command: [tail, -f, /dev/null]}}}}}}\n"
        "workspaces:\n  a: {services: {db: ~}}\n  b: {services: ~}\n"
    )
    live.apply()
    label = f"label=com.docker.compose.project={live.name}"
    names = docker("ps", "--format", "{{.Names}}", "--filter", label).split()
    assert sorted(name.removeprefix(f"{live.name}-") for name in names) == [
        *("a--localhost-1", "a--x-1", "a-1", "b-1", "traefik-1")
    ]


def test_an_interruption_ends_the_wait(live: LiveProject) -> None:
    declare(live, a="")
    text = (live.folder / "dual.yaml").read_text()
    slow = text.replace("wget -qO /dev/null http://127.0.0.1:5432/made'", "exit 1', retries: 1000")
    (live.folder / "dual.yaml").write_text(slow)
    process = subprocess.Popen(
        [*DUAL, "apply", "-y"],
        cwd=live.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=heed_signals,
    )
    assert process.stderr is not None
    with process.stderr:
        for line in process.stderr:
            if b"waiting for it to be healthy" in line:
                break
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    assert live.inspect("a")["State"]["Status"] == "created", "it waited for its companion"
    (live.folder / "dual.yaml").write_text(text)
    live.apply()
