"""Commands inside a workspace behave as if they ran right here, and are ended right here."""

from __future__ import annotations

import hashlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.engine.conftest import DUAL, LAB_IMAGE, LiveProject, docker, run, wait_for
from tests.engine.terminal import heed_signals, on_a_terminal, resize, said_until

BARE_IMAGE = """
FROM busybox:1.35 AS box
FROM scratch
COPY --from=box /bin/busybox /busybox
CMD ["/busybox", "httpd", "-f", "-p", "3000", "-h", "/"]
"""
"""An image without a shell: one program, which is not called sh."""

GRACEFUL = """\
trap 'echo "ended gently"; exit 7' INT TERM HUP
echo ready
while :; do sleep 0.1; done
"""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveProject]:
    folder = tmp_path_factory.mktemp("inside")
    project = LiveProject(folder)
    bare = f"{project.name}:bare"
    (folder / "Dockerfile").write_text(BARE_IMAGE)
    built = run("docker", "build", "-t", bare, ".", cwd=folder, env={"DOCKER_BUILDKIT": "0"})
    assert built.code == 0, built
    (folder / "below" / "a b").mkdir(parents=True)
    project.write(
        f"defaults: {{source: {{path: .}}}}\n"
        f"workspaces:\n"
        f'  one: {{image: "{LAB_IMAGE}", command: python3 server.py}}\n'
        f'  bare: {{image: "{bare}"}}\n'
    )
    try:
        project.apply()
        yield project
    finally:
        project.remove()
        run("docker", "rmi", "-f", bare)


@contextmanager
def running(
    live: LiveProject, *words: str, name: str = "one", options: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """A command that goes on, without a terminal; it is ended at the end, whatever became of it."""
    process = subprocess.Popen(
        [*DUAL, "exec", *options, name, "--", *words],
        cwd=live.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=heed_signals,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def processes(live: LiveProject, mark: str) -> list[str]:
    """Command lines in the workspace that have this text in them."""
    listed = docker("exec", f"{live.name}-one-1", "ps", "-eo", "pid,args", "--no-headers")
    return [line for line in listed.splitlines() if mark in line]


def fresh() -> str:
    """A duration to sleep that tells one test's processes from another's."""
    return f"{1000 + secrets.randbelow(10**6)}.{secrets.randbelow(10**6)}"


# ── streams, codes and places ───────────────────────────────────────────────────────────────


def test_a_hundred_megabytes_pass_unchanged(live: LiveProject, tmp_path: Path) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy"
    block = secrets.token_bytes(2**20)
    data.write_bytes(block * 100)
    with data.open("rb") as stdin, copy.open("wb") as stdout:
        done = subprocess.run(
            [*DUAL, "exec", "one", "--", "cat"],
            cwd=live.folder,
            stdin=stdin,
            stdout=stdout,
            check=False,
        )
    assert done.returncode == 0
    sums = [hashlib.sha256(each.read_bytes()).hexdigest() for each in (data, copy)]
    assert sums[0] == sums[1], f"{data.stat().st_size} bytes went in, {copy.stat().st_size} came"


@pytest.mark.parametrize("long_way", ["", "1"], ids=["short", "long"])
def test_streams_and_codes_are_the_commands_own(live: LiveProject, long_way: str) -> None:
    """Whether dual.yaml was read for it or not."""
    env = {"DUAL_EXEC_LONG_WAY": long_way}
    echo = 'cat; echo "to  stderr" >&2; exit 42'
    done = live.dual("exec", "one", "--", "sh", "-c", echo, stdin=b"\x00\xffbytes\n", env=env)
    assert (done.code, done.stdout, done.stderr) == (42, "\x00\ufffdbytes\n", "to  stderr\n")
    words = ["a b", "'", '"', "$HOME", "*", "", "--", "-e", "ü"]
    done = live.dual("exec", "one", "--", "printf", "%s|", *words, env=env)
    assert done.stdout == "a b|'|\"|$HOME|*||--|-e|ü|"
    for command, code in (
        (["nosuchcommand"], 127),
        (["/etc/passwd"], 126),
        (["sh", "-c", "kill -TERM $$"], 143),
        (["false"], 1),
    ):
        assert live.dual("exec", "one", "--", *command, env=env).code == code, command
    given = ("-e", "A=b c", "-e", "EMPTY=", "-w", "/tmp", "-u", "1000:1000")
    shown = 'echo "$A|$EMPTY|$(pwd)|$(id -u)"'
    done = live.dual("exec", *given, "one", "--", "sh", "-c", shown, env=env)
    assert done.stdout == "b c||/tmp|1000\n"


@pytest.mark.parametrize(
    ("here", "there"),
    [(".", "/workspace"), ("below/a b", "/workspace/below/a b"), ("..", "/workspace")],
)
def test_it_starts_where_one_is(live: LiveProject, here: str, there: str) -> None:
    """In the source's folder and below; elsewhere, in the container's own working directory."""
    spec = str(live.folder / "dual.yaml")
    for _ in range(2):  # the second time by the short way
        done = run(*DUAL, "-f", spec, "exec", "one", "--", "pwd", cwd=live.folder / here)
        assert done.stdout == f"{there}\n", done
    link = live.folder.parent / f"link-{live.name}-{len(here)}"
    link.symlink_to(live.folder / "below")
    done = run(*DUAL, "-f", spec, "exec", "one", "--", "pwd", cwd=link)
    assert done.stdout == "/workspace/below\n"


def test_a_closed_stdin_is_an_empty_one(live: LiveProject) -> None:
    line = " ".join([*DUAL, "exec one -- cat <&-"])
    done = run("sh", "-c", line, cwd=live.folder)
    assert (done.code, done.stdout, done.stderr) == (0, "", "")


def test_a_workspace_that_does_not_run_is_explained(live: LiveProject) -> None:
    assert live.dual("exec", "one", "--", "true").code == 0
    docker("stop", "-t", "0", f"{live.name}-one-1")
    try:
        done = live.dual("exec", "one", "--", "true")
        assert done.code == 1
        assert "Workspace one does not run" in done.stderr
        assert "→ dual start one" in done.stderr
    finally:
        docker("start", f"{live.name}-one-1")


# ── a terminal ──────────────────────────────────────────────────────────────────────────────


def test_a_terminal_where_both_ends_are_one(live: LiveProject) -> None:
    # Older engines tell the size a moment after the start.
    script = """
    test -t 0 && test -t 1 && echo both
    until [ "$(stty size)" = "33 99" ]; do sleep 0.1; done
    echo large
    until [ "$(stty size)" = "20 50" ]; do sleep 0.1; done
    echo small
    read word
    echo "got $word"
    """
    with on_a_terminal(live, "exec", "one", "--", "sh", "-c", script) as (process, terminal):
        assert b"both" in said_until(terminal, b"large")
        resize(terminal, 20, 50)
        said_until(terminal, b"small")
        os.write(terminal, b"key\n")
        said_until(terminal, b"got key")
        assert process.wait(30) == 0


def test_no_terminal_where_one_end_is_none(live: LiveProject) -> None:
    read, write = os.pipe()
    script = "test -t 0 || test -t 1 || echo none; cat"
    with on_a_terminal(live, "exec", "one", "--", "sh", "-c", script, stdout=write) as (
        process,
        terminal,
    ):
        os.close(write)
        os.write(terminal, b"typed\n\x04")  # with the end of the input
        assert process.wait(30) == 0
    with open(read, "rb") as output:  # noqa: PTH123 - it takes a file descriptor
        assert output.read() == b"none\ntyped\n"


def test_ctrl_c_on_a_terminal_is_the_commands_own(live: LiveProject) -> None:
    with on_a_terminal(live, "exec", "one", "--", "sh", "-c", GRACEFUL) as (process, terminal):
        said_until(terminal, b"ready")
        os.write(terminal, b"\x03")
        said_until(terminal, b"ended gently")
        assert process.wait(30) == 7


def test_ctrl_c_without_a_terminal_inside(live: LiveProject) -> None:
    """What it says while it ends still comes out: docker doesn't see the key."""
    read, write = os.pipe()
    with on_a_terminal(live, "exec", "one", "--", "sh", "-c", GRACEFUL, stdout=write) as (
        process,
        terminal,
    ):
        os.close(write)
        with open(read, "rb") as output:  # noqa: PTH123 - it takes a file descriptor
            assert output.readline() == b"ready\n"
            os.write(terminal, b"\x03")
            assert output.read() == b"ended gently\n"
        assert process.wait(30) == 7


# ── ending it ───────────────────────────────────────────────────────────────────────────────

FAMILY = "sleep {0} & setsid sleep {0} & env -i /bin/sleep {0} & (sleep {0}; :) & sleep {0}; :"
"""A command with children of all kinds."""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_it_and_all_that_it_started(
    live: LiveProject, number: signal.Signals, code: int
) -> None:
    mark = fresh()
    with running(live, "sh", "-c", FAMILY.format(mark)) as process:
        wait_for("its family is there", lambda: len(processes(live, f"sleep {mark}")) >= 6)
        process.send_signal(number)
        assert process.wait(30) == code
    assert processes(live, mark) == []


@pytest.mark.parametrize("whole_group", [False, True], ids=["client", "group"])
def test_a_killed_client_ends_it(live: LiveProject, whole_group: bool) -> None:
    mark = fresh()
    with running(live, "sh", "-c", FAMILY.format(mark)) as process:
        wait_for("its family is there", lambda: len(processes(live, f"sleep {mark}")) >= 6)
        if whole_group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        wait_for("nothing of it is left", lambda: not processes(live, mark))


def test_a_killed_docker_client_ends_it(live: LiveProject) -> None:
    mark = fresh()
    with running(live, "sh", "-c", FAMILY.format(mark)) as process:
        wait_for("its family is there", lambda: len(processes(live, f"sleep {mark}")) >= 6)
        clients = [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if path.read_bytes().startswith(b"docker\0exec\0")
            and mark.encode() in path.read_bytes()
        ]
        assert len(clients) == 1
        os.kill(clients[0], signal.SIGKILL)
        assert process.wait(30) == 137
    assert processes(live, mark) == []


def test_nobody_reads_any_more(live: LiveProject) -> None:
    mark = fresh()
    line = f"yes {mark}"
    command = " ".join(DUAL)
    done = run("sh", "-c", f"{command} exec one -- {line} | head -n 1", cwd=live.folder)
    assert done.stdout == f"{mark}\n"
    wait_for("nothing of it is left", lambda: not processes(live, mark))


def test_who_handles_a_signal_decides_what_becomes_of_it(live: LiveProject) -> None:
    with running(live, "sh", "-c", GRACEFUL) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == b"ended gently\n"
        assert process.wait(30) == 7


def test_who_ignores_it_is_killed_at_the_second_one(live: LiveProject) -> None:
    mark = fresh()
    with running(live, "sh", "-c", f"trap '' INT TERM; echo ready; sleep {mark}") as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 137
    assert processes(live, mark) == []


def test_a_timeout_ends_it_all(live: LiveProject) -> None:
    mark = fresh()
    started = time.monotonic()
    done = live.dual("exec", "--timeout", "500ms", "one", "--", "sh", "-c", FAMILY.format(mark))
    assert done.code == 124, done
    assert time.monotonic() - started < 10
    assert processes(live, mark) == []


def test_in_time_nothing_happens(live: LiveProject) -> None:
    done = live.dual("exec", "--timeout", "1m", "one", "--", "sh", "-c", "echo done; exit 3")
    assert (done.code, done.stdout) == (3, "done\n")


def test_what_it_leaves_in_the_background_stays(live: LiveProject) -> None:
    """As on the host: nothing ended it."""
    mark = fresh()
    start = f"sleep {mark} >/dev/null 2>&1 & exit 130"
    assert live.dual("exec", "one", "--", "sh", "-c", start).code == 130
    [line] = processes(live, mark)
    docker("exec", f"{live.name}-one-1", "kill", line.split()[0])


# ── without a shell ─────────────────────────────────────────────────────────────────────────


def test_an_image_without_a_shell(live: LiveProject) -> None:
    for _ in range(2):
        done = live.dual("exec", "bare", "--", "/busybox", "echo", "hello")
        assert (done.code, done.stdout, done.stderr) == (0, "hello\n", "")
    assert live.dual("exec", "bare", "--", "/busybox", "false").code == 1
    with running(live, "/busybox", "sleep", "20", name="bare") as process:
        top = ("top", f"{live.name}-bare-1", "-eo", "pid,args")
        wait_for("it runs", lambda: "sleep 20" in docker(*top))
        process.send_signal(signal.SIGTERM)
        assert process.stderr
        said = process.stderr.readline()
        assert b"there is no sh in" in said, said
        assert process.wait(60) == 0  # it ran to its end
