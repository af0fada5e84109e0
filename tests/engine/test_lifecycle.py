"""Apply twice, edit, remove, destroy; and the project without dual."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.engine.conftest import DUAL, LAB_IMAGE, LiveProject, docker, run

NOTHING = {"containers": "", "networks": "", "volumes": ""}


def test_apply_twice_changes_nothing_and_says_so(live: LiveProject) -> None:
    live.declare("one", "two")
    live.apply()
    before = {name: live.identity(name) for name in ("one", "two", "traefik")}
    again = live.dual("apply")  # nothing to ask about, so no -y needed
    assert again.code == 0, again
    assert "No changes" in again.stdout
    assert again.stderr == ""
    assert {name: live.identity(name) for name in before} == before
    assert live.plan()["changes"] == []


def test_an_edited_env_reaches_the_container_and_nobody_else(live: LiveProject) -> None:
    live.declare("one", "two")
    live.apply()
    before = {name: live.identity(name) for name in ("one", "traefik")}
    live.declare("one", extra="  two: {env: {GREETING: welcome}}\n")
    (change,) = live.plan()["changes"]
    assert change == {
        "address": "workspace.two",
        "action": "replace",
        "reasons": [{"field": "env.GREETING", "before": None, "after": "welcome"}],
    }
    live.apply()
    assert live.body("two.localhost") == "two welcome"
    assert {name: live.identity(name) for name in before} == before
    assert live.plan()["changes"] == []


def test_a_removed_workspace_goes_and_its_volume_stays(live: LiveProject) -> None:
    with_volume = "  two: {volumes: {data: /data}}\n"
    live.declare("one", extra=with_volume)
    live.apply()
    done = live.dual("exec", "two", "--", "sh", "-c", "echo precious > /data/file")
    assert done.code == 0, done
    live.declare("one")
    live.apply()
    assert live.ask("two.localhost").status == 404
    left = live.leftovers()
    assert len(left["containers"].split()) == 2
    assert docker("volume", "ls", "-q", "--filter", f"name={live.name}_two--data")
    live.declare("one", extra=with_volume)
    live.apply()
    assert live.dual("exec", "two", "--", "cat", "/data/file").stdout == "precious\n"


def test_destroy_leaves_nothing_and_touches_no_other_project(
    live: LiveProject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = LiveProject(tmp_path_factory.mktemp("other"))
    try:
        other.declare("one")
        other.apply()
        before = {name: other.identity(name) for name in ("one", "traefik")}
        live.declare("one", extra="  two: {volumes: {data: /data}}\n")
        live.apply()
        refused = live.dual("destroy")
        assert refused.code == 64, refused
        assert "dual destroy -y" in refused.stderr
        done = live.dual("destroy", "-y")
        assert done.code == 0, done
        left = live.leftovers()
        assert (left["containers"], left["networks"]) == ("", "")
        assert left["volumes"] == f"{live.name}_two--data"
        again = live.dual("destroy", "-y", "--volumes")
        assert again.code == 0, again
        assert live.leftovers() == NOTHING
        assert {name: other.identity(name) for name in before} == before
        assert other.is_up("one")
    finally:
        other.remove()


def test_destroy_of_one_keeps_the_others(live: LiveProject) -> None:
    live.declare("one", "two")
    live.apply()
    before = {name: live.identity(name) for name in ("one", "traefik")}
    done = live.dual("destroy", "-y", "two")
    assert done.code == 0, done
    assert {name: live.identity(name) for name in before} == before
    assert live.is_up("one")
    assert [c["address"] for c in live.plan()["changes"]] == [
        "proxy",
        "workspace.two",
        "network.two",
        "route.two",
    ]
    live.apply()
    assert live.is_up("two")


def test_the_rendered_project_stands_alone(live: LiveProject) -> None:
    """Compose alone brings up the same system, and dual has nothing to add."""
    live.declare("one", extra="  two: {hosts: [deux.localhost]}\n")
    rendered = live.dual("render")
    assert rendered.code == 0, rendered
    up = run("docker", "compose", "-f", "compose/compose.yaml", "up", "-d", cwd=live.folder)
    assert up.code == 0, up
    again = live.dual("apply")
    assert again.code == 0, again
    assert "No changes" in again.stdout
    assert live.ask("deux.localhost").is_from("two", live.name)


def test_compose_has_nothing_to_do_after_apply(live: LiveProject) -> None:
    live.declare("one", "two")
    live.apply()
    before = {name: live.identity(name) for name in ("one", "two", "traefik")}
    up = run("docker", "compose", "-f", "compose/compose.yaml", "up", "-d", cwd=live.folder)
    assert up.code == 0, up
    assert {name: live.identity(name) for name in before} == before


def test_every_working_field_reaches_the_container(live: LiveProject) -> None:
    (live.folder / "vars.env").write_text("FROM_FILE=file\nBOTH=file\n")
    live.write(
        f"""\
        defaults: {{image: "{LAB_IMAGE}", env: {{BASE: base}}}}
        workspaces:
          full:
            source: {{path: .}}
            command: [python3, server.py]
            hosts: [also.localhost]
            env: {{BOTH: env, NORWAY: no, VERSION: 1.10, REF: "${{SECRET_TOKEN}}", DOLLAR: $$5}}
            env_file: [vars.env]
            volumes: {{cache: /var/cache/full}}
            user: "1000:1000"
            resources: {{cpus: 0.5, memory: 128m, pids: 64}}
            ready: {{path: /health, timeout: 30s}}
          off: {{enabled: false}}
        """
    )
    secret = {"SECRET_TOKEN": "hunter2-secret"}
    live.apply(secret)
    env = dict(
        line.split("=", 1)
        for line in live.dual("exec", "full", "--", "env").stdout.splitlines()
        if "=" in line
    )
    expected = {
        "BASE": "base",
        "BOTH": "env",
        "FROM_FILE": "file",
        "NORWAY": "no",
        "VERSION": "1.10",
        "REF": "hunter2-secret",
        "DOLLAR": "$5",
    }
    assert {name: env.get(name) for name in expected} == expected
    host = live.inspect("full")["HostConfig"]
    assert host["NanoCpus"] == 500_000_000
    assert host["Memory"] == 128 * 1024**2
    assert host["PidsLimit"] == 64
    assert host["Init"] is True
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    who = live.dual("exec", "full", "--", "sh", "-c", "id -u; id -g; hostname; pwd")
    assert who.stdout.split() == ["1000", "1000", "full", "/workspace"]
    assert live.ask("also.localhost").is_from("full", live.name)
    status = live.dual("status", "--format", "json").data["workspaces"]
    assert [(row["name"], row["state"]) for row in status] == [
        ("full", "running"),
        ("off", "disabled"),
    ]
    # The secret stands nowhere: not in what was rendered, nor in any plan, of then or now.
    for path in (live.folder / "compose").rglob("*.yaml"):
        assert "hunter2" not in path.read_text(), path
    assert live.plan(secret)["changes"] == []
    changed = live.dual("plan", "--format", "json", env={"SECRET_TOKEN": "other-secret"})
    assert "secret" not in changed.stdout.lower().replace("secret_token", "")
    (change,) = changed.data["changes"]
    assert change["reasons"] == [{"field": "env.REF", "before": "(hidden)", "after": "(hidden)"}]


def test_disabling_stops_a_workspace_and_enabling_brings_it_back(live: LiveProject) -> None:
    live.declare("one", "two")
    live.apply()
    live.declare("one", extra="  two: {enabled: false}\n")
    live.apply()
    assert live.ask("two.localhost").status == 404
    live.declare("one", "two")
    live.apply()
    assert live.is_up("two")


def test_stop_shows_as_drift_and_start_brings_it_back(live: LiveProject) -> None:
    live.declare("one", "two")
    live.apply()
    assert live.dual("stop", "two").code == 0
    (change,) = live.plan()["changes"]
    assert (change["address"], change["action"]) == ("workspace.two", "start")
    status = live.dual("status", "two").stdout
    assert "exited" in status, status
    done = live.dual("start", "two")
    assert done.code == 0, done
    assert live.is_up("two")
    assert live.plan()["changes"] == []


def test_limits_changed_by_hand_are_drift_and_are_mended(live: LiveProject) -> None:
    live.declare("one", extra="  two: {resources: {memory: 128m}}\n")
    live.apply()
    docker("update", "--memory", "256m", "--memory-swap", "512m", live.container("two"))
    (change,) = live.plan()["changes"]
    assert change["reasons"] == [
        {"field": "resources.memory", "before": 256 * 1024**2, "after": 128 * 1024**2}
    ]
    live.apply()
    assert live.plan()["changes"] == []


def test_logs_url_and_plan_exit_code(live: LiveProject) -> None:
    live.declare("one")
    differs = live.dual("plan", "--detailed-exitcode")
    assert differs.code == 2, differs
    assert "+ create  workspace.one" in differs.stdout
    live.apply()
    assert live.dual("plan", "--detailed-exitcode").code == 0
    assert live.dual("url", "one").stdout == f"http://one.localhost:{live.port}\n"
    wrote = live.dual("exec", "one", "--", "sh", "-c", "echo to-the-log > /proc/1/fd/1")
    assert wrote.code == 0, wrote
    logs = live.dual("logs", "one")
    assert "to-the-log" in logs.stdout, logs
    assert live.dual("logs", "nosuch").code == 64


def test_exec_hands_streams_through(live: LiveProject) -> None:
    live.declare("one")
    live.apply()
    binary = bytes(range(256)) * 4096 + b"no newline at the end"
    done = subprocess.run(
        [*DUAL, "exec", "one", "--", "cat"],
        cwd=live.folder,
        input=binary,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == binary
    both = live.dual(
        "exec",
        "-e",
        "A=b c",
        "-w",
        "/tmp",
        "-u",
        "1000",
        "one",
        "--",
        "sh",
        "-c",
        'echo "$A $(pwd) $(id -u)"; echo oops >&2',
    )
    assert (both.stdout, both.stderr) == ("b c /tmp 1000\n", "oops\n")


def test_shell_runs_what_it_is_given(live: LiveProject) -> None:
    live.declare("one")
    live.apply()
    done = live.dual("shell", "one", stdin=b"hostname; exit 7\n")
    assert (done.code, done.stdout) == (7, "one\n"), done


def test_status_json_has_what_it_promises(live: LiveProject) -> None:
    live.declare("one")
    before = live.dual("status", "--format", "json")
    assert before.code == 0, before
    assert before.data["workspaces"][0]["state"] == "missing"
    live.apply()
    data = json.loads(live.dual("--format", "json", "status").stdout)
    assert data["project"] == live.name
    (row,) = data["workspaces"]
    assert row["container"] == live.container("one")
    assert row["url"] == f"http://one.localhost:{live.port}"
    assert set(row) >= {"name", "state", "health", "url", "container", "image", "started_at"}


def test_variables_mean_to_dual_what_they_mean_to_compose(live: LiveProject) -> None:
    """Where the two read a value differently, the plan after an apply would not be empty."""
    (live.folder / ".env").write_text("FROM_DOTENV=dotenv\nSINGLE='$HOME'\n")
    (live.folder / "vars.env").write_text(
        "PLAIN=a b\nSINGLE='$AROUND ${AROUND}'\nDOUBLE=\"$AROUND ${AROUND}\"\n"
        "BARE=$AROUND/${AROUND}\nEARLIER=${PLAIN}!\nAROUND\nUNSET_BARE\nEMPTY=\n"
        "DOLLARS=a$$b\nexport EXPORTED=yes # not this\nAROUND_AGAIN=${AROUND:-no}\n"
    )
    live.declare(
        "one",
        extra="""\
  two:
    env_file: [vars.env]
    env:
      A: ${FROM_DOTENV}
      B: ${NOPE:-${FROM_DOTENV}}
      C: ${AROUND:+set}
      D: $$x $AROUND ${SINGLE}
      AROUND: ~
      NOT_SET:
""",
    )
    around = {"AROUND": "from outside"}
    live.apply(env=around)
    assert live.plan(env=around)["changes"] == []
    env = dict(
        line.split("=", 1) for line in live.dual("exec", "two", "--", "env").stdout.splitlines()
    )
    assert env["A"] == env["B"] == "dotenv"
    assert env["SINGLE"] == "$AROUND ${AROUND}"
    assert env["D"] == "$x from outside $HOME"
    assert "NOT_SET" not in env


def test_names_that_could_mean_something_else(live: LiveProject) -> None:
    names = ("0", "127", "a--b", "edge", "localhost", "no", "proxy", "zz", "x" * 63)
    live.write(
        f"defaults: {{image: '{LAB_IMAGE}', source: {{path: .}}, command: python3 server.py}}\n"
        "workspaces:\n" + "".join(f'  "{name}": {{}}\n' for name in names)
    )
    live.apply()
    for name in names:
        assert live.body(f"{name}.localhost").split() == [name]
    assert live.plan()["changes"] == []
    live.declare("edge")
    live.apply()
    assert live.body("edge.localhost").split() == ["edge"]
    assert live.plan()["changes"] == []


def test_volumes_are_listed_also_those_of_removed_workspaces(live: LiveProject) -> None:
    spec = "  two: {volumes: {data: /data}}\n  three: {volumes: {cache: /cache}}\n"
    live.declare("one", extra=spec)
    live.apply()
    live.declare("one", extra=spec.replace("  three", "  #three"))
    live.apply()
    rows = live.dual("status", "--volumes", "--format", "json").data["volumes"]
    assert rows == [
        {"workspace": "three", "name": f"{live.name}_three--cache", "target": None},
        {"workspace": "two", "name": f"{live.name}_two--data", "target": "/data"},
    ]
    shown = live.dual("status", "--volumes").stdout
    assert f"{live.name}_three--cache  not declared any more" in shown
