"""dual activate: commands of a workspace, by their own names, in every shell and every script."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.conftest import DUAL, LAB_IMAGE, Done, LiveProject, docker, run, wait_for

SHELLS = ("bash", "zsh", "fish", "dash")
ECHO = "import sys; print(sys.argv[1:]); print(sys.stdin.read()); sys.exit(42)"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveProject]:
    project = LiveProject(tmp_path_factory.mktemp("shims"))
    (project.folder / "below").mkdir()
    project.write(
        f"defaults: {{image: '{LAB_IMAGE}', source: {{path: .}}, command: python3 server.py}}\n"
        "workspaces:\n  one: {commands: [python3, nosuch]}\n  two: {}\n"
    )
    try:
        project.apply()
        yield project
    finally:
        project.remove()


@pytest.fixture(autouse=True)
def all_shells_are_here() -> None:
    missing = [each for each in (*SHELLS, "direnv") if not shutil.which(each)]
    assert not missing, f"scripts/setup.sh test installs what is missing: {missing}"


def activated(live: LiveProject, shell: str, script: str, *, cwd: Path | None = None) -> Done:
    """A script in a shell of some kind, after the workspace one was activated in it."""
    command = shlex.join([*DUAL, "-f", str(live.folder / "dual.yaml")])
    start = (
        f"{command} activate one | source"
        if shell == "fish"
        else f'eval "$({command} activate one)"'
    )
    argv = {"bash": ["bash", "-c"], "zsh": ["zsh", "-fc"], "fish": ["fish", "-Nc"]}
    return run(*argv.get(shell, ["dash", "-c"]), f"{start}\n{script}", cwd=cwd or live.folder)


@pytest.mark.parametrize("shell", SHELLS)
def test_in_every_shell(live: LiveProject, shell: str) -> None:
    """Commands run in the workspace until it is deactivated; git, say, stays here."""
    script = f"""
    python3 -c 'import os; print(os.uname().nodename, os.getcwd())'
    echo "$DUAL_WORKSPACE"
    command -v git
    echo input | python3 -c {shlex.quote(ECHO)} 'a b' "it's" '"' '$HOME' '*' ''
    echo "code {"$status" if shell == "fish" else "$?"}"
    nosuch
    echo "code {"$status" if shell == "fish" else "$?"}"
    deactivate
    command -v python3
    echo "[$DUAL_SHIMS$DUAL_WORKSPACE]"
    """
    done = activated(live, shell, script, cwd=live.folder / "below")
    lines = [line for line in done.stdout.splitlines() if "OCI runtime" not in line]
    assert lines == [
        "one /workspace/below",
        "one",
        shutil.which("git"),
        """['a b', "it's", '"', '$HOME', '*', '']""",
        "input",
        "",
        "code 42",
        "code 127",
        shutil.which("python3"),
        "[]",
    ], done


def test_from_scripts_and_programs(live: LiveProject, tmp_path: Path) -> None:
    """They are files in PATH, not functions of a shell; and need no Python of dual's."""
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\npython3 -c 'import os; print(os.uname().nodename)'\n")
    script.chmod(0o755)
    done = activated(live, "dash", f"{script}; env python3 -c 'print(1 + 1)'; echo $DUAL_SHIMS")
    assert done.stdout.splitlines()[:2] == ["one", "2"], done
    shims = Path(done.stdout.splitlines()[2])
    bare = {"PATH": f"{shims}:/usr/bin:/bin", "HOME": "/nonexistent"}
    alone = subprocess.run(
        ["/bin/sh", "-c", "npm() { exit 1; }; exec python3 -c 'print(2 + 2)'"],
        env=bare,
        cwd=live.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (alone.returncode, alone.stdout) == (0, "4\n"), alone
    assert {path.name for path in shims.iterdir() if not path.name.startswith(".")} == {
        *("npm", "pnpm", "yarn", "bun", "npx", "node", "python", "pip", "curl", "make"),
        *("python3", "nosuch"),
    }
    assert "python" not in (shims / ".shim").read_text() + (shims / ".run.sh").read_text().lower()


def test_one_takes_the_place_of_another(live: LiveProject) -> None:
    command = shlex.join(DUAL)
    script = (
        f'before=$PATH; eval "$({command} activate two)"\n'
        f'make --version; eval "$({command} activate one)"\n'
        "python3 -c 'import os; print(os.uname().nodename)'\n"
        f'echo "$DUAL_WORKSPACE"; eval "$({command} deactivate)"\n'
        '[ "$PATH" = "$before" ] && echo same'
    )
    done = run("bash", "-c", script, cwd=live.folder)
    assert done.stdout.splitlines()[-3:] == ["one", "one", "same"], done


def test_the_deactivate_of_a_virtual_environment_stays(live: LiveProject) -> None:
    command = shlex.join(DUAL)
    script = (
        'deactivate() { echo "of the environment"; }\n'
        f'eval "$({command} activate one)"\ndeactivate; dual_deactivate; echo "[$DUAL_SHIMS]"'
    )
    for shell in (["bash", "-c"], ["zsh", "-fc"]):
        done = run(*shell, script, cwd=live.folder)
        assert done.stdout == "of the environment\n[]\n", done


def test_direnv(live: LiveProject) -> None:
    command = shlex.join([*DUAL, "-f", str(live.folder / "dual.yaml")])
    folder = live.folder / "below"
    (folder / ".envrc").write_text(f'eval "$({command} activate one)"\n')
    env = {"HOME": str(live.folder.parent / "home"), "XDG_DATA_HOME": str(live.folder / "data")}
    assert run("direnv", "allow", str(folder), env=env).code == 0
    say = "import os; print(os.uname().nodename, os.getcwd())"
    done = run("direnv", "exec", str(folder), "python3", "-c", say, cwd=folder, env=env)
    assert done.stdout == "one /workspace/below\n", done


def test_a_workspace_that_does_not_run(live: LiveProject) -> None:
    docker("stop", "-t", "0", f"{live.name}-one-1")
    try:
        done = activated(live, "bash", "python3 -c 1")
        assert done.code == 1
        assert "workspace one does not run: dual start one" in done.stderr
    finally:
        docker("start", f"{live.name}-one-1")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_ends_it_ends_it_inside(live: LiveProject, number: signal.Signals) -> None:
    shims = activated(live, "dash", "echo $DUAL_SHIMS").stdout.strip()
    mark = str(secrets.randbelow(10**9))
    code = f"import time; time.sleep({mark})"
    process = subprocess.Popen([f"{shims}/python3", "-c", code], cwd=live.folder)

    def there() -> bool:
        return mark in docker("exec", f"{live.name}-one-1", "ps", "-eo", "args")

    try:
        wait_for("it runs", there)
        os.kill(process.pid, number)
        process.wait(30)
        wait_for("nothing of it is left", lambda: not there())
    finally:
        process.kill()


def test_cp(live: LiveProject, tmp_path: Path) -> None:
    (tmp_path / "a b").write_bytes(b"\x00\xff")
    assert live.dual("cp", str(tmp_path / "a b"), "one:/tmp/copy").code == 0
    assert live.dual("cp", "one:/tmp/copy", str(tmp_path / "back")).code == 0
    assert (tmp_path / "back").read_bytes() == b"\x00\xff"
    archive = subprocess.run(
        [*DUAL, "cp", "one:/tmp/copy", "-"], cwd=live.folder, capture_output=True, check=False
    )
    assert b"\x00\xff" in archive.stdout
    neither = live.dual("cp", "a", "b")
    assert neither.code == 64
    assert "NAME:PATH" in neither.stderr
    typo = live.dual("cp", "oen:/tmp/copy", ".")
    assert typo.code == 64
    assert "did you mean one?" in typo.stderr
