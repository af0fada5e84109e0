"""Setups of workspaces, on a real engine: once, again where something moved, until it succeeds."""

from __future__ import annotations

import json

from dual_iac.setups import SetupFolder
from tests.engine.conftest import LAB_IMAGE, LiveProject, changes, docker, run, wait_for

SETUP = """\
    setup: |
      echo "setting up in $$PWD as $$(id -u)"
      sh ./prepare.sh
      echo run >>/data/runs
"""


def declare(live: LiveProject, rest: str = "", setup: str = SETUP) -> None:
    """One workspace with a setup, and a neighbour without."""
    (live.folder / "main").mkdir(exist_ok=True)
    (live.folder / "main/prepare.sh").touch()
    live.write(
        f"defaults: {{image: {LAB_IMAGE}, command: python3 -m http.server 3000}}\n"
        "workspaces:\n  other: {}\n  main:\n    source: {path: main}\n"
        f"    volumes: {{data: /data}}\n{setup}{rest}"
    )


def runs(live: LiveProject) -> int:
    """How often the setup has come to its end."""
    return len(inside(live, "cat", "/data/runs").split())


def inside(live: LiveProject, *command: str) -> str:
    return docker("exec", f"{live.name}-main-1", *command)


def test_once_and_again_only_where_something_moved(live: LiveProject) -> None:
    declare(live)
    done = live.apply()
    assert "main | setting up in /workspace as 0\n" in done.stderr, "its output streams"
    assert "dual: setup" not in done.stderr
    assert runs(live) == 1
    assert live.plan()["changes"] == []
    assert "DUAL_SETUP" not in inside(live, "sh", "-c", "tr '\\0' '\\n' </proc/7/environ; true")

    # Neither a restart nor a new container runs it again.
    assert live.dual("restart", "main").code == 0
    declare(live, "    env: {SOME: thing}\n")
    assert changes(live.plan()) == [("workspace.main", "replace", ["env.SOME"])]
    live.apply()
    assert runs(live) == 1

    other = live.identity("other")
    (live.folder / "main/package-lock.json").write_text("{}")
    assert changes(live.plan()) == [("workspace.main", "update", ["setup"])]
    shown = live.dual("plan").stdout
    assert "~ update  workspace.main  (restarts, for its setup to run)" in shown, shown
    assert "setup: done, and out of date → done" in shown, shown
    live.apply()
    assert runs(live) == 2
    assert live.plan()["changes"] == []

    declare(live, setup=SETUP.replace("setting up", "getting ready"))
    assert changes(live.plan()) == [("workspace.main", "replace", ["env.DUAL_SETUP", "env.SOME"])]
    assert "main | getting ready" in live.apply().stderr
    assert runs(live) == 3
    assert live.identity("other") == other


def test_an_image_with_other_content_is_set_up_anew(live: LiveProject) -> None:
    image = f"{live.name}:mine"
    docker("tag", LAB_IMAGE, image)
    try:
        declare(live, f"    image: {image}\n")
        live.apply()
        (live.folder / "Dockerfile").write_text(f"FROM {LAB_IMAGE}\nLABEL some=other\n")
        docker("build", "--quiet", "--tag", image, str(live.folder))
        assert changes(live.plan()) == [("workspace.main", "replace", ["image.id"])]
        live.apply()
        assert runs(live) == 2
        assert live.plan()["changes"] == []
    finally:
        live.remove()
        run("docker", "rmi", "--force", image)


def test_a_failure_leaves_it_up_and_is_tried_again(live: LiveProject) -> None:
    declare(live)
    (live.folder / "main/prepare.sh").write_text("seq 20; echo no such package >&2; exit 42")
    done = live.dual("apply", "-y")
    assert done.code == 1
    assert "✗ main is not set up: its setup failed with exit code 42\n" in done.stderr
    last = "".join(f"    | {line}\n" for line in (*range(12, 21), "no such package"))
    assert last in done.stderr, "its last ten lines"
    assert "1 of 2 workspaces answer, not main." in done.stderr
    assert live.is_up("other")

    assert live.dual("exec", "main", "--", "cat", "/workspace/prepare.sh").code == 0
    [row] = live.dual("status", "main", "--format", "json", "--no-stats").data["workspaces"]
    assert (row["state"], row["health"]) == ("running", "setup failed (42)")
    [change] = live.plan()["changes"]
    assert change["action"] == "update"
    assert change["reasons"] == [
        {"field": "setup", "before": "failed with exit code 42", "after": "done"}
    ]
    again = live.dual("apply", "-y", "--format", "json")
    assert again.code == 1
    [problem] = again.data["not_ready"]
    assert problem["what"] == "is not set up"
    assert problem["log"][-1] == "no such package"

    other, before = live.identity("other"), live.container("main")
    (live.folder / "main/prepare.sh").write_text("echo mended")
    assert "main | mended\n" in live.apply().stderr
    assert (runs(live), live.plan()["changes"]) == (1, [])
    assert live.container("main") == before, "whatever was done in it by hand is still there"
    assert live.identity("other") == other


def test_it_has_all_the_time_it_needs(live: LiveProject) -> None:
    """``ready.timeout`` is for the answer: it begins where the setup ends."""
    declare(live, "    ready: {timeout: 2s}\n")
    (live.folder / "main/prepare.sh").write_text(
        "for each in 1 2 3 4; do echo $each; sleep 1; done"
    )
    done = live.apply()
    assert "main: setting up" in done.stderr
    assert "main | 4\n" in done.stderr


def test_compose_alone_sets_it_up(live: LiveProject) -> None:
    declare(live)
    assert live.dual("render").code == 0
    compose = ("docker", "compose", "-f", str(live.folder / "compose/compose.yaml"))
    done = run(*compose, "up", "-d")
    assert done.code == 0, done
    wait_for("it is set up", lambda: live.is_up("main"))
    assert runs(live) == 1
    assert live.plan()["changes"] == []
    assert "No changes" in live.apply().stdout
    declare(live, "    env: {SOME: thing}\n")
    live.apply()
    assert runs(live) == 2, "nobody knew what it was for"

    # And the record goes with the data.
    done = run(*compose, "down", "--volumes")
    assert done.code == 0, done
    done = run(*compose, "up", "-d")
    assert done.code == 0, done
    wait_for("it is set up again", lambda: live.is_up("main"))
    assert runs(live) == 1


def test_the_record_goes_with_the_volumes(live: LiveProject) -> None:
    declare(live)
    live.apply()
    listed = live.dual("status", "--volumes", "main").stdout
    assert f"{live.name}_main--_setup" in listed
    assert "/dual/record" in listed
    assert live.dual("destroy", "-y").code == 0
    live.apply()
    assert runs(live) == 1, "volumes were kept"
    assert live.dual("destroy", "-y", "--volumes").code == 0
    assert not [*(live.folder / ".dual/setup").glob("*/state")]
    live.apply()
    assert runs(live) == 1


def test_as_somebody_else(live: LiveProject) -> None:
    declare(live, '    user: "1234:1234"\n')
    assert "main | setting up in /workspace as 1234\n" in live.apply().stderr
    assert live.dual("restart", "main").code == 0
    assert runs(live) == 1


def test_a_workspace_writes_nothing_on_the_host_but_its_report(live: LiveProject) -> None:
    declare(live)
    live.apply()
    precious = live.folder / "precious"
    precious.write_text("kept")
    for write in (
        f"ln -sf {precious} /dual/report/state",
        "rm /dual/report/state; mkfifo /dual/report/state",
        "rm /dual/report/state; head -c 1000000 /dev/zero >/dual/report/state",
    ):
        inside(live, "sh", "-c", write)
        assert changes(live.plan()) == [("workspace.main", "update", ["setup"])]
        live.apply()
        assert live.plan()["changes"] == []
    assert precious.read_text() == "kept"
    for place in ("asked/setup", "asked/new", "setup.sh"):
        done = run("docker", "exec", f"{live.name}-main-1", "sh", "-c", f"echo >/dual/{place}")
        assert done.code != 0, place
    assert live.dual("destroy", "-y").code == 0


def test_what_is_asked_for_and_never_begun_is_asked_again(live: LiveProject) -> None:
    """An apply may be killed between the two."""
    declare(live, setup="    setup: sh prepare.sh && echo run >>/data/runs\n")
    (live.folder / "main/prepare.sh").write_text("exit 5")
    assert live.dual("apply", "-y").code == 1
    done = live.dual("start", "main")
    assert done.code == 1
    assert "main is not set up: its setup failed with exit code 5" in done.stderr, done
    SetupFolder.of(live.folder, "main").ask("for", "")
    [change] = live.plan()["changes"]
    assert change["reasons"][0]["before"] == "asked for, and never begun"
    (live.folder / "main/prepare.sh").write_text("true")
    live.apply()
    assert (runs(live), live.plan()["changes"]) == (1, [])


def test_a_limit_is_for_the_setup_as_well(live: LiveProject) -> None:
    declare(live, setup="    setup: sleep 3600\n")
    done = live.dual("apply", "-y", "--timeout", "3s")
    assert done.code == 1
    assert "✗ main is not set up: its setup is still running" in done.stderr
    assert live.is_up("other")


def test_an_image_that_is_somebody_by_itself(live: LiveProject) -> None:
    """And a record that was somebody else's before."""
    image = f"{live.name}:somebody"
    (live.folder / "Dockerfile").write_text(f"FROM {LAB_IMAGE}\nUSER 1234\nWORKDIR /data\n")
    docker("build", "--quiet", "--tag", image, str(live.folder))
    spec = "workspaces: {{main: {{image: '{}', command: python3 -m http.server 3000, {}}}}}\n"
    setup = "setup: id -u >>/data/runs, volumes: {data: /data}"
    try:
        live.write(spec.format(image, setup))
        live.apply()
        assert live.dual("restart", "main").code == 0
        assert inside(live, "cat", "/data/runs").split() == ["1234"]
        live.write(spec.format(image, f"user: '4321', {setup.replace('>>/data/runs', '')}"))
        assert "can't be written" not in live.apply().stderr
        assert live.dual("restart", "main").code == 0
    finally:
        live.remove()
        run("docker", "rmi", "--force", image)


def test_variables_and_quotes_arrive(live: LiveProject) -> None:
    variable = "two  words; 'quoted'"
    declare(live, setup='    setup: printf \'%s\\n\' "${WHAT:?}" "$$HOME" >/data/runs\n')
    live.apply(env={"WHAT": variable})
    assert inside(live, "cat", "/data/runs").splitlines()[0] == variable
    plan = live.plan(env={"WHAT": "something else"})
    assert changes(plan) == [("workspace.main", "replace", ["env.DUAL_SETUP"])]
    assert variable not in json.dumps(plan)
