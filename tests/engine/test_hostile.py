"""A hostile afternoon: what goes wrong on a real machine, each with its code and its mend."""

from __future__ import annotations

import http.server
import secrets
import shutil
import socket
import threading

import pytest

from tests.engine.conftest import DUAL, LAB_IMAGE, LiveProject, changes, docker, run, wait_for

NO_ENGINE = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}


def test_no_engine(live: LiveProject) -> None:
    live.declare("one")
    for command in (("apply", "-y"), ("plan",), ("status",), ("exec", "one", "--", "true")):
        done = live.dual(*command, env=NO_ENGINE)
        assert done.code == 69, (command, done)
        assert "The Docker engine does not answer" in done.stderr
        assert "→ start Docker" in done.stderr
        assert "Traceback" not in done.stderr
    assert live.dual("validate", env=NO_ENGINE).code == 0
    assert live.dual("render", env=NO_ENGINE).code == 0


def test_no_docker_command(live: LiveProject) -> None:
    live.declare("one")
    done = live.dual("apply", "-y", env={"PATH": "/nonexistent"})
    assert done.code == 69, done
    assert "The docker command is not installed" in done.stderr


def test_an_unknown_context(live: LiveProject) -> None:
    live.declare("one")
    done = live.dual("--context", "no-such-context", "plan")
    assert done.code == 69, done
    assert "no-such-context" in done.stderr


def test_doctor(live: LiveProject) -> None:
    live.declare("one")
    well = live.dual("doctor")
    assert well.code == 0, well
    assert f"{live.port} is free" in well.stdout
    ill = live.dual("doctor", env=NO_ENGINE)
    assert ill.code == 69, ill
    assert "systemctl start docker" in ill.stdout


def test_the_port_is_taken(live: LiveProject) -> None:
    live.declare("one")
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", live.port), http.server.BaseHTTPRequestHandler
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        done = live.dual("apply", "-y")
        assert done.code == 1, done
        assert f"Port {live.port} is taken" in done.stderr
        assert "proxy.http" in done.stderr
        assert "Traceback" not in done.stderr
        found = live.dual("doctor")
        assert found.code == 1, found
        assert f"end what listens on {live.port}" in found.stdout
    finally:
        server.shutdown()
        server.server_close()
    live.apply()  # running it again goes on from there
    assert live.is_up("one")


def test_an_image_that_is_nowhere(live: LiveProject) -> None:
    live.write(
        f"""\
        defaults: {{source: {{path: .}}, command: python3 server.py}}
        workspaces:
          good: {{image: "{LAB_IMAGE}"}}
          bad: {{image: "dual-test/no-such-image:1"}}
        """
    )
    done = live.dual("apply", "-y")
    assert done.code == 1, done
    assert "bad failed: Image dual-test/no-such-image:1 can't be had: " in done.stderr
    assert "→ check the name" in done.stderr
    assert "1 of 2 workspaces answer, not bad." in done.stderr
    assert live.is_up("good")
    assert live.ask("bad.localhost").status == 404
    before = live.identities("good", "traefik")
    docker("tag", LAB_IMAGE, "dual-test/no-such-image:1")
    try:
        live.apply()  # it goes on from there
        assert live.is_up("bad")
        assert live.identities(*before) == before
        assert live.plan()["changes"] == []
    finally:
        live.remove()
        docker("rmi", "dual-test/no-such-image:1")


def test_the_proxys_image_is_nowhere(live: LiveProject) -> None:
    image = "dual-test/no-such-proxy:1"
    live.write(f"workspaces: {{one: {{image: '{LAB_IMAGE}'}}}}", image=image)
    done = live.dual("apply", "-y")
    assert done.code == 1, done
    assert "proxy can't be made, and nothing was changed" in done.stderr
    assert "Image dual-test/no-such-proxy:1 can't be had: " in done.stderr
    assert live.leftovers() == {"containers": "", "networks": "", "volumes": ""}


def test_the_proxy_is_to_move_to_a_port_that_is_taken(live: LiveProject) -> None:
    live.declare("one")
    live.apply()
    before = live.identities("one", "traefik")
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        spec = live.folder / "dual.yaml"
        spec.write_text(spec.read_text().replace(f'"http": {live.port}', f'"http": {taken}'))
        done = live.dual("apply", "-y")
    assert done.code == 1, done
    assert f"Port {taken} is taken" in done.stderr
    assert live.identities(*before) == before
    assert live.is_up("one")


def test_a_command_that_ends_at_once(live: LiveProject) -> None:
    live.declare("good", extra="  bad: {command: \"sh -c 'echo sorry, no; exit 3'\"}\n")
    done = live.dual("apply", "-y")
    assert done.code == 1, done
    assert "bad does not answer: its command ended with exit code 3" in done.stderr
    assert "| sorry, no" in done.stderr
    assert f"http://good.localhost:{live.port}" in done.stdout
    assert live.is_up("good")


def test_a_command_that_is_not_there(live: LiveProject) -> None:
    live.declare("good", extra="  bad: {command: nosuchcommand}\n")
    done = live.dual("apply", "-y")
    assert done.code == 1, done
    assert "nosuchcommand" in done.stderr
    assert "Traceback" not in done.stderr
    assert "1 of 2 workspaces answer" in done.stderr
    assert live.is_up("good")


def test_nothing_listens(live: LiveProject) -> None:
    live.declare("good", extra="  bad: {command: sleep 1000, ready: {timeout: 2s}}\n")
    done = live.dual("apply", "-y")
    assert done.code == 1, done
    assert "bad does not answer: nothing listens on port 3000 in it" in done.stderr
    as_json = live.dual("apply", "-y", "--timeout", "1s", "--format", "json")
    assert as_json.code == 1, as_json
    assert as_json.data["ready"] == {"good": f"http://good.localhost:{live.port}"}
    assert [each["workspace"] for each in as_json.data["not_ready"]] == ["bad"]


def test_it_listens_on_another_port(live: LiveProject) -> None:
    serve = "python3 -m http.server 8080"
    live.declare("bad", extra=f"  worse: {{command: {serve}, ready: {{timeout: 2s}}}}\n")
    done = live.dual("apply", "-y")
    assert done.code == 1, done
    assert "nothing listens on port 3000 in it (but on 8080)" in done.stderr


def test_it_listens_on_localhost_only(live: LiveProject) -> None:
    serve = "python3 -m http.server 3000 --bind 127.0.0.1"
    live.declare("good", extra=f"  bad: {{command: {serve}, ready: {{timeout: 2s}}}}\n")
    done = live.dual("apply", "-y")
    assert done.code == 1, done
    assert "it listens on port 3000 of 127.0.0.1 only" in done.stderr
    assert "listen on 0.0.0.0" in done.stderr


def test_addresses_that_another_network_has(live: LiveProject) -> None:
    foreign = f"{live.name}-foreign"
    docker("network", "create", "--subnet", live.pool, foreign)
    try:
        live.declare("one")
        found = live.dual("doctor")
        assert "give another range as network.pool" in found.stdout, found
        done = live.dual("apply", "-y")
        assert done.code == 1, done
        assert "addresses are taken by another network" in done.stderr
        assert "network.pool" in done.stderr
    finally:
        docker("network", "rm", foreign)


def test_a_source_that_is_not_there(live: LiveProject) -> None:
    live.declare("one", extra="  two: {source: {path: ./nowhere}}\n")
    done = live.dual("apply", "-y")
    assert done.code == 65, done
    assert "no such folder: ./nowhere" in done.stderr
    assert not (live.folder / "nowhere").exists()
    assert live.leftovers()["containers"] == ""
    assert live.dual("apply", "-y", "two").code == 65
    assert live.dual("apply", "-y", "one").code == 0, "the others can be applied by name"
    assert live.is_up("one")


def test_exec_where_nothing_runs(live: LiveProject) -> None:
    live.declare("one")
    missing = live.dual("exec", "one", "--", "true")
    assert missing.code == 1, missing
    assert "Workspace one does not run" in missing.stderr
    typo = live.dual("exec", "oen", "--", "true")
    assert typo.code == 64, typo
    assert "did you mean one?" in typo.stderr


def test_somebody_elses_project_of_the_same_name(live: LiveProject) -> None:
    label = f"com.docker.compose.project={live.name}"
    theirs = docker("run", "-d", "--label", label, LAB_IMAGE, "sleep", "1000")
    live.declare("one")
    for command in (("apply", "-y"), ("destroy", "-y"), ("destroy", "-y", "--volumes"), ("plan",)):
        done = live.dual(*command)
        assert done.code == 1, (command, done)
        assert f"The project name {live.name} is taken" in done.stderr
    found = live.dual("doctor")
    assert found.code == 1, found
    assert f"The project name {live.name} is taken" in found.stdout
    assert live.leftovers()["containers"] == theirs[:12]
    assert docker("inspect", "--format", "{{.State.Status}}", theirs) == "running"


def test_a_second_checkout_does_not_take_the_first_ones_over(
    live: LiveProject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    live.declare("one")
    live.apply()
    before = live.identity("one")
    copy = tmp_path_factory.mktemp("copy")
    for name in ("dual.yaml", "server.py"):
        shutil.copy(live.folder / name, copy / name)
    for command in (("plan",), ("apply", "-y"), ("destroy", "-y")):
        done = run(*DUAL, *command, cwd=copy)
        assert done.code == 1, (command, done)
        assert f"it was applied from {live.folder}" in done.stderr
    assert live.identity("one") == before
    # A folder that was moved, though, takes its project along.
    moved = live.folder.rename(live.folder.with_name(f"{live.folder.name}-moved"))
    live.folder = moved
    live.apply()
    assert live.plan()["changes"] == []


def test_a_disabled_workspace_says_so(live: LiveProject) -> None:
    live.declare("one", extra="  two: {enabled: false}\n")
    done = live.dual("exec", "two", "--", "true")
    assert done.code == 1, done
    assert "remove enabled: false of two" in done.stderr


def test_doctor_looks_at_the_machine_whatever_the_spec_says(live: LiveProject) -> None:
    (live.folder / "dual.yaml").write_text("version: 1\n")
    done = live.dual("doctor")
    assert done.code == 1, done
    assert "see dual validate" in done.stdout
    assert "engine" in done.stdout


def test_a_private_umask_hides_nothing_from_traefik(live: LiveProject) -> None:
    live.declare("one")
    umask = ["sh", "-c", 'umask 077; exec "$@"', "sh"]
    done = run(*umask, *DUAL, "apply", "-y", cwd=live.folder)
    assert done.code == 0, done
    assert live.is_up("one")


def test_a_full_and_a_read_only_disk(live: LiveProject) -> None:
    """Nothing is touched, and what stood there still stands; with room again, apply goes on."""
    mounted = run("mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(live.folder))
    assert mounted.code == 0, f"this test mounts a small disk, and needs root for it: {mounted}"
    try:
        live.declare("one")
        live.apply()
        before = (
            live.identities("one", "traefik"),
            (live.folder / "compose/compose.yaml").read_text(),
        )
        live.declare("one", "two")
        for break_it, said, mend_it in (
            ("head -c 200k /dev/zero > fill", "No space left", "rm fill"),
            ("mount -o remount,ro .", "Read-only file system", "mount -o remount,rw ."),
        ):
            run("sh", "-c", break_it, cwd=live.folder)
            done = live.dual("apply", "-y")
            assert done.code == 1, done
            assert said in done.stderr, done
            assert "Traceback" not in done.stderr, done
            run("sh", "-c", mend_it, cwd=live.folder)
            compose = (live.folder / "compose/compose.yaml").read_text()
            assert (live.identities("one", "traefik"), compose) == before
        live.apply()
        assert live.plan()["changes"] == []
        live.remove()
    finally:
        run("umount", "--lazy", str(live.folder))


def test_the_volumes_of_one_are_not_another_ones(live: LiveProject) -> None:
    """Though their names begin alike."""
    live.write(
        f"defaults: {{image: '{LAB_IMAGE}', source: {{path: .}}, command: python3 server.py}}\n"
        "workspaces:\n  a: {volumes: {data: /data}}\n  a--b: {volumes: {data: /data}}\n"
    )
    live.apply()
    assert live.dual("destroy", "-y", "a--b").code == 0
    done = live.dual("destroy", "-y", "a", "--volumes")
    assert "1 container and 1 volume" in done.stdout, done
    assert live.leftovers()["volumes"] == f"{live.name}_a--b--data"


def test_a_pool_that_another_network_has(live: LiveProject) -> None:
    live.declare("one")
    live.apply()
    before = live.identities("one", "traefik")
    foreign, text = f"{live.name}-foreign", (live.folder / "dual.yaml").read_text()
    taken = f"10.{200 + secrets.randbelow(50)}.0.0/16"
    docker("network", "create", "--subnet", taken, foreign)
    try:
        (live.folder / "dual.yaml").write_text(text.replace(live.pool, taken))
        done = live.dual("apply", "-y")
        assert done.code == 1, done
        assert "addresses are taken by another network" in done.stderr
        assert f"{foreign} has {taken}" in done.stderr
        assert live.identities(*before) == before
        assert live.is_up("one")
    finally:
        docker("network", "rm", foreign)


def test_networks_that_only_look_like_the_projects(live: LiveProject) -> None:
    live.declare("zeta")
    live.apply()
    before = live.identities("zeta", "traefik")
    labels = [f"--label=com.docker.compose.project={live.name}"]
    labels.append("--label=com.docker.compose.network=zeta")
    foreign = [f"{live.name}_edge-lab", f"{live.name}_ws-mine", f"{live.name}_zeta"]
    try:
        for name in foreign:
            subnet = f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(256)}.0/29"
            ours = labels if name.endswith("zeta") else []
            docker("network", "create", "--subnet", subnet, *ours, name)
        plan = live.plan()
        assert changes(plan) == [("network.#zeta", "delete", ["network"])]
        live.apply()
        assert live.plan()["changes"] == []
        assert live.identities(*before) == before
        left = docker("network", "ls", "--format", "{{.Name}}", "--filter", f"name={live.name}_")
        assert set(foreign[:2]) <= set(left.split())
        assert foreign[2] not in left.split()
    finally:
        for name in foreign:
            run("docker", "network", "rm", name)


def test_variables_that_only_compose_would_read(live: LiveProject) -> None:
    live.declare("one", extra='  two: {env: {GREETING: "${DUAL_TEST_WORD:-hello}"}}\n')
    assert live.dual("render").code == 0
    (live.folder / "compose/.env").write_text("DUAL_TEST_WORD=other\n")
    (live.folder / "others.env").write_text("DUAL_TEST_WORD=another\n")
    env = {"COMPOSE_ENV_FILES": str(live.folder / "others.env")}
    live.apply(env)
    assert live.plan(env)["changes"] == []
    assert live.body("two.localhost") == "two hello"


def test_a_proxy_that_cannot_read_its_files(live: LiveProject) -> None:
    live.declare("one")
    live.apply()
    before = live.identity("one")
    (live.folder / "compose/traefik").chmod(0o700)
    proxy = f"{live.name}-traefik-1"
    docker("restart", "-t", "0", proxy)
    state = ("inspect", "--format", "{{.State.Status}} {{.RestartCount}}", proxy)
    wait_for("it ends again and again", lambda: docker(*state).split()[1] != "0")
    [(address, action, _)] = changes(live.plan())
    assert (address, action) == ("proxy", "replace")
    live.apply()
    assert live.is_up("one")
    assert live.plan()["changes"] == []
    assert live.identity("one") == before


def test_a_lock_file_of_an_editor_among_the_routes(live: LiveProject) -> None:
    """A link that leads nowhere: Traefik reads no route at all any more."""
    live.declare("one")
    live.apply()
    before = live.identities("one", "traefik")
    lock = live.folder / "compose/traefik/routes/.#one.yaml"
    lock.symlink_to("ada@host.1")
    assert changes(live.plan()) == [("route..#one", "delete", ["file"])]
    live.declare("one", extra=f"  two: {{image: '{LAB_IMAGE}', hosts: [other.localhost]}}\n")
    live.apply()
    assert not lock.is_symlink()
    assert live.ask("other.localhost").is_from("two", live.name)
    assert live.plan()["changes"] == []
    assert live.identities(*before) == before


def test_a_wider_address_on_a_port_that_somebody_has_elsewhere(live: LiveProject) -> None:
    live.declare("one")
    live.apply()
    before = live.identities("one", "traefik")
    spec = live.folder / "dual.yaml"
    wider = spec.read_text().replace('{"http":', '{"bind": "0.0.0.0", "http":')
    spec.write_text(wider)
    with socket.create_server(("127.0.0.2", live.port)):
        done = live.dual("apply", "-y")
        assert done.code == 1, done
        assert f"Port {live.port} is taken" in done.stderr
        assert "127.0.0.2 is in use" in done.stderr
        assert live.identities(*before) == before
    live.apply()
    assert live.is_up("one")


def test_daily_work_beside_a_compose_file_of_something_else(live: LiveProject) -> None:
    live.declare("one")
    live.apply()
    folder = live.folder / "elsewhere"
    folder.mkdir()
    (folder / "compose.yaml").write_text("services: {zzz: {image: nowhere}}\n")
    for command in (("stop", "one"), ("start", "one"), ("restart", "one"), ("logs", "one")):
        done = run(*DUAL, *command, cwd=folder)
        assert done.code == 0, (command, done)
