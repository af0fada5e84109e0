"""What a sealed container lives with: npm, apt and PostgreSQL, as root and as somebody else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.conftest import LAB_IMAGE, LiveProject, docker, run


def test_packages_databases_and_users(live: LiveProject) -> None:
    """Packages that make users and set owners, a database that becomes somebody else, npm."""
    (live.folder / "package.json").write_text('{"name": "x", "dependencies": {"ms": "2.1.3"}}\n')
    live.write(
        f"""\
        defaults: {{image: "{LAB_IMAGE}", command: python3 -m http.server 3000}}
        workspaces:
          one:
            image: node:22-slim
            command: "node -e 'require(`http`).createServer((_, a) => a.end()).listen(3000)'"
            user: root
            source: {{path: .}}
            volumes: {{modules: /workspace/node_modules}}
            services:
              db:
                image: "postgres:15"
                env: {{POSTGRES_PASSWORD: dev}}
                volumes: {{data: /var/lib/postgresql/data}}
                healthcheck: {{test: "pg_isready -h localhost", interval: 1s}}
          two: {{allow: [new-privileges, SYS_PTRACE]}}
        """
    )
    live.apply()

    def inside(name: str, *command: str) -> str:
        done = live.dual("exec", name, "--", *command)
        assert done.code == 0, f"{command} in {name}: {done}"
        return done.stdout

    # A service with a user of its own, which its package makes, and owns its folders with.
    inside("one", "apt-get", "update", "-qq")
    inside("one", "apt-get", "install", "-qq", "-y", "--no-install-recommends", "redis-server")
    assert "redis" in inside("one", "stat", "-c", "%U", "/var/lib/redis")
    assert inside("one", "su", "-s", "/bin/sh", "redis", "-c", "id -un").strip() == "redis"
    inside("one", "npm", "install", "--no-audit", "--no-fund")
    assert "ms" in inside("one", "ls", "node_modules")
    database = docker(
        "exec", f"{live.name}-one--db-1", "psql", "-U", "postgres", "-tAc", "select 6*7"
    )
    assert database == "42"
    rights = {
        name: docker("exec", f"{live.name}-{name}-1", "cat", "/proc/1/status").splitlines()
        for name in ("one", "two")
    }
    assert "NoNewPrivs:\t1" in rights["one"]
    assert "NoNewPrivs:\t0" in rights["two"]
    found = live.dual("doctor")
    assert "two may new-privileges, SYS_PTRACE" in found.stdout


@pytest.mark.parametrize(
    ("flags", "field"),
    [
        (("--cap-add", "NET_RAW"), "cap_add"),
        (("--security-opt", "seccomp=unconfined"), "security_opt"),
        (("--pid", "host"), "pid_mode"),
        (("--ipc", "host"), "ipc_mode"),
        (("--volume", "/var/run/docker.sock:/s"), "mounts./s"),
        (("--sysctl", "net.ipv4.ip_forward=0"), "sysctls.net.ipv4.ip_forward"),
    ],
)
def test_a_seal_that_somebody_broke_by_hand(
    flags: tuple[str, str], field: str, broken: LiveProject
) -> None:
    broken.recreate("one", {flags[0]: [*_kept(broken, flags[0]), flags[1]]})
    [change] = broken.plan()["changes"]
    assert (change["address"], change["action"]) == ("workspace.one", "replace")
    assert [reason["field"] for reason in change["reasons"]] == [field]
    assert broken.plan()["drift"] == ["workspace.one"]


def _kept(live: LiveProject, option: str) -> list[str]:
    host = live.inspect("one")["HostConfig"]
    kept = {"--cap-add": host["CapAdd"], "--security-opt": host["SecurityOpt"]}
    return list(kept.get(option) or [])


@pytest.fixture
def broken(shared: LiveProject) -> LiveProject:
    """A workspace as it was applied, whatever a test before has done to it."""
    shared.declare("one")
    shared.apply()
    return shared


def test_what_is_not_sealed_is_refused_before_anything_is_done(
    live: LiveProject,
) -> None:
    live.declare("one")
    overrides = live.folder / ".dual/templates"
    overrides.mkdir(parents=True)
    shipped = Path(__file__).parents[2] / "templates/workspace.yaml.j2"
    text = shipped.read_text().replace("    init: true\n", "    init: true\n    pid: host\n")
    (overrides / "workspace.yaml.j2").write_text(text)
    done = live.dual("apply", "-y")
    assert done.code == 65, done
    assert "workspace.one is not sealed" in done.stderr
    assert "allow: [host-pid]" in done.stderr
    assert live.leftovers() == {"containers": "", "networks": "", "volumes": ""}
    assert run("test", "-e", str(live.folder / "compose")).code == 1
