"""dual run: a container of its own, made like a workspace's."""

from __future__ import annotations

import signal
import subprocess

from tests.engine.conftest import DUAL, LAB_IMAGE, LiveProject, docker, run, wait_for
from tests.engine.terminal import COLUMNS, ROWS, on_a_terminal, said_until

DECLARED = f"""\
defaults:
  {{image: {LAB_IMAGE}, source: {{path: .}}, env: {{SOME: thing}}, volumes: {{data: /data}}}}
workspaces:
  up: {{command: python3 -m http.server 3000}}
  broken: {{command: "false", setup: "false"}}
  with: {{command: python3 -m http.server 3000, services: {{db: {{
    image: "busybox:1.35", command: httpd -f -p 5432 -h /bin}}}}}}
"""


def containers(live: LiveProject) -> set[str]:
    label = f"label=com.docker.compose.project={live.name}"
    return set(docker("ps", "-aq", "--filter", label).split())


def test_beside_a_workspace_that_runs_and_where_it_would_not(shared: LiveProject) -> None:
    live = shared
    live.write(DECLARED)
    assert live.dual("run", "up", "--", "true").code == 1, "nothing is rendered yet"
    live.dual("apply", "-y", "up", "with")
    there = containers(live)
    live.dual("exec", "up", "--", "sh", "-c", "echo kept >/data/file")
    look = 'cat /data/file; pwd; echo "$SOME $MORE"; exit 42'
    done = live.dual("run", "-e", "MORE=b c", "up", "--", "sh", "-c", look)
    assert (done.code, done.stdout) == (42, "kept\n/workspace\nthing b c\n"), done
    (live.folder / "deep/er").mkdir(parents=True)
    inside = run(
        *DUAL,
        "run",
        "-u",
        "1234",
        "up",
        "--",
        "sh",
        "-c",
        "pwd; id -u",
        cwd=live.folder / "deep/er",
    )
    assert inside.stdout == "/workspace/deep/er\n1234\n", inside
    # One that doesn't start: no setup, no command.
    done = live.dual("run", "broken", "--", "sh", "-c", "cat; ls /workspace", stdin=b"\0\xff\n")
    assert done.code == 0, done
    assert "dual.yaml" in done.stdout
    # Companions are where they always are.
    done = live.dual(
        "run", "with", "--", "curl", "-sf", "-o", "/dev/null", "localhost:5432/busybox"
    )
    assert done.code == 0, done
    assert containers(live) == there, "it is removed at the end"
    assert live.plan()["changes"] != []  # broken never ran
    assert live.is_up("up")


def test_what_ends_it_ends_the_command(shared: LiveProject) -> None:
    live = shared
    live.write(DECLARED)
    assert live.dual("render").code == 0
    there = containers(live)
    process = subprocess.Popen(
        [*DUAL, "run", "up", "--", "sh", "-c", "echo begun; exec sleep 1000"],
        cwd=live.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    assert process.stderr.read().strip() == b"", "Compose says nothing of its own"
    process.stdout.close()
    process.stderr.close()
    wait_for("its container is gone", lambda: containers(live) == there)


def test_it_says_what_is_wrong(live: LiveProject) -> None:
    live.write(DECLARED)
    assert live.dual("render").code == 0
    assert "Missing argument 'CMD'" in live.dual("run", "up").stderr
    services = live.dual("run", "with", "--", "true")
    assert "The services of with do not run" in services.stderr
    assert "→ dual apply" in services.stderr
    assert "did you mean up?" in live.dual("run", "upp", "--", "true").stderr


def test_it_has_a_terminal_where_there_is_one(shared: LiveProject) -> None:
    shared.write(DECLARED)
    assert shared.dual("render").code == 0
    look = "test -t 0 && test -t 1 && until stty size | grep -v '0 0'; do :; done"
    with on_a_terminal(shared, "run", "up", "--", "sh", "-c", look) as (process, terminal):
        said_until(terminal, f"{ROWS} {COLUMNS}".encode())
        assert process.wait(30) == 0
