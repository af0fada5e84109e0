"""Commands in a workspace beside docker exec, edits that come through, and clones."""

from __future__ import annotations

import os
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench.measure import Settings, Times, alternate
from bench.project import BenchProject, bench_project
from bench.report import Row, ratio
from dual_iac.clones import Clone, make
from dual_iac.inside.record import state_folder
from tests.engine.conftest import DUAL, LAB_IMAGE

NAME = "one"
FILES = 5_000  # of the repository that is cloned
MEGABYTE = 2**20
DUAL_COMMAND = (str(Path(sys.executable).with_name("dual")),)
"""As people call it: `python -m` looks for the module first."""

WATCH = """
import ctypes, os, struct, sys, time
libc = ctypes.CDLL(None)
watch = libc.inotify_init()
libc.inotify_add_watch(watch, b"/workspace", 0x108)  # closed after writing, or created
print("watching", flush=True)
while True:
    os.read(watch, 4096)
    try:
        written = float(open("/workspace/edited").read())
    except ValueError:
        continue
    print(time.time() - written, flush=True)
"""


def rows(settings: Settings) -> list[Row]:
    with bench_project("inside") as project:
        project.declare_all(
            {"image": LAB_IMAGE, "source": {"path": "."}, "command": "python3 server.py"},
            {NAME: {"commands": ["true"]}},
        )
        project.timed_dual("apply", "-y")
        return [
            *_commands(project, 10 * settings.rounds),
            _streams(project, settings),
            _edits(project, 10 * settings.rounds),
            _clones(project.folder, settings),
        ]


def _commands(project: BenchProject, count: int) -> list[Row]:
    container = f"{project.name}-{NAME}-1"
    plain = _timed("docker", "exec", container, "true", at=project.folder)
    project.timed_dual("activate", NAME)
    shim = Path(state_folder(str(project.folder / "dual.yaml"))) / "shims" / NAME / "true"
    execs = _quietly(
        count, _timed(*DUAL_COMMAND, "exec", NAME, "--", "true", at=project.folder), plain
    )
    shims = _quietly(count, _timed(str(shim), at=project.folder), plain)
    against = "docker exec ID true"
    return [
        _milliseconds("`dual exec NAME -- true`", execs, against, 2.0, 1.3),
        _milliseconds("A shim", shims, against, 1.15, 1.05),
    ]


def _streams(project: BenchProject, settings: Settings) -> Row:
    size = settings.size(100)
    data = project.folder / "data"
    with data.open("wb") as file:
        block = secrets.token_bytes(MEGABYTE)
        for _ in range(size):
            file.write(block)
    container = f"{project.name}-{NAME}-1"
    times = alternate(
        5 * settings.rounds,
        {
            "dual": _timed(*DUAL_COMMAND, "exec", NAME, "--", "cat", at=project.folder, data=data),
            "beside": _timed(
                "docker", "exec", "-i", container, "cat", at=project.folder, data=data
            ),
        },
    )
    return ratio(f"{size} MB through stdin and stdout", times, "docker exec -i ID cat", 1.1, 1.0)


def _edits(project: BenchProject, count: int) -> Row:
    """How long after an edit here a program in the workspace is told, and has read it."""
    watching = subprocess.Popen(
        [*DUAL, "exec", NAME, "--", "python3", "-c", WATCH],
        cwd=project.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout
    try:
        assert watching.stdout.readline() == "watching\n"
        seen = []
        for _ in range(count):
            (project.folder / "edited").write_text(repr(time.time()))
            seen.append(float(watching.stdout.readline()) * 1000)
    finally:
        watching.terminate()
        watching.wait()
    middle = statistics.median(seen)
    return Row(
        "An edit here, told and read in the workspace",
        f"{middle:.1f} ms",
        f"the slowest of {count}: {max(seen):.1f} ms",
        max(seen),
        f"{max(seen):.1f} ms",
        100,
        100,
    )


def _clones(folder: Path, settings: Settings) -> Row:
    count = settings.size(FILES)
    remote = folder / "remote.git"
    _repository(folder / "work", remote, count)
    url = f"file://{remote}"
    root = folder / "clones"
    make(Clone("first", root / "first", url, url, "main"), folder)
    times = Times()
    for number in range(settings.rounds):
        name = f"n{number}"
        started = time.perf_counter()
        make(Clone(name, root / name, url, url, "main"), folder)
        times.take("dual", time.perf_counter() - started)
        started = time.perf_counter()
        subprocess.run(["git", "clone", "--quiet", url, str(folder / name)], check=True)
        times.take("beside", time.perf_counter() - started)
    return ratio(f"A second clone, {count:,} files", times, "git clone", 0.5, 0.25)


def _repository(work: Path, remote: Path, count: int) -> None:
    work.mkdir()
    for number in range(count):
        path = work / f"d{number % 200}" / f"f{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(secrets.token_hex(200 + secrets.randbelow(2800)))
    identity = ("-c", "user.name=bench", "-c", "user.email=bench@example.com")
    for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run(["git", *identity, *command], cwd=work, check=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(remote)], check=True)


def _timed(*argv: str, at: Path, data: Path | None = None) -> Callable[[], float]:
    """A command, with a file's content through it if there is one."""

    def run() -> float:
        with (data or Path(os.devnull)).open("rb") as stdin:
            started = time.perf_counter()
            subprocess.run(argv, cwd=at, stdin=stdin, stdout=subprocess.DEVNULL, check=True)
            return time.perf_counter() - started

    return run


def _quietly(count: int, dual: Callable[[], float], beside: Callable[[], float]) -> Times:
    """Both in turn, without a line for each."""
    dual(), beside()  # the first one looks things up
    times = Times()
    for _ in range(count):
        times.dual.append(dual())
        times.beside.append(beside())
    return times


def _milliseconds(what: str, times: Times, against: str, must: float, aim: float) -> Row:
    dual, beside = (1000 * statistics.median(each) for each in (times.dual, times.beside))
    return Row(
        what,
        f"{dual:.0f} ms",
        f"`{against}`: {beside:.0f} ms",
        dual / beside,
        f"{dual / beside:.2f}",
        must,
        aim,
    )
