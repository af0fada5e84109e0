"""What a setup is for, and how it goes: both sides of it, without a container."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from dual_iac.errors import DualError
from dual_iac.render import Raw, template_environment
from dual_iac.setups import BEGINS, FAILED, LOCK_FILES, SUCCEEDED, SetupFolder, said_by, setup_hash
from dual_iac.state import Setup


class Inside:
    """The script of a workspace, run right here."""

    def __init__(self, folder: Path) -> None:
        self.folder = SetupFolder(folder / "dual")
        self.source = folder / "source"
        self.record = self.folder.path / "record"
        for each in (self.record, self.source, self.folder.path / "report"):
            each.mkdir(parents=True)
        self.script = folder / "setup.sh"
        template = template_environment(folder).get_template("setup.sh.j2")
        places = {"inside": str(self.folder.path)}
        marks = {"begins": BEGINS, "succeeded": SUCCEEDED, "failed": FAILED}
        texts = {name: Raw(text) for name, text in (places | marks).items()}
        self.script.write_text(template.render(texts))

    def start(self, setup: str = "echo ran", image: str | None = "sha256:1") -> list[str]:
        """Start the workspace, whose command says "up"; returns what it prints.

        Without an image, as Compose alone does.
        """
        if image is not None:
            self.folder.ask(setup_hash(setup, self.source), image)
        return subprocess.run(
            ["sh", str(self.script), "echo", "up"],
            cwd=self.source,
            env={**os.environ, "DUAL_SETUP": setup},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout.splitlines()


@pytest.fixture
def inside(tmp_path: Path) -> Inside:
    return Inside(tmp_path)


def ran(lines: list[str]) -> bool:
    assert lines[-1] == "up"
    return "ran" in lines


@pytest.mark.parametrize("setup", ["echo ran", "echo ran\n", "echo 'ran' # ü $HOME\n\n"])
def test_once_for_what_it_is_for(inside: Inside, setup: str) -> None:
    lines = inside.start(setup)
    done = inside.folder.look()
    assert done is not None
    assert done.state == "done"
    assert lines == [f"{BEGINS} {done.word}", "ran", f"{SUCCEEDED} {done.word}", "up"]
    assert done.hashes == {setup_hash(setup, inside.source)}
    for name in LOCK_FILES[:3]:
        assert not ran(inside.start(setup))
        (inside.source / name).write_text(f"of {name}")
        assert ran(inside.start(setup))
    assert ran(inside.start(setup, image="sha256:2"))
    assert not ran(inside.start(setup, image="sha256:2"))


def test_what_is_no_file_is_no_lock_file(inside: Inside) -> None:
    without = setup_hash("x", inside.source)
    (inside.source / "go.sum").mkdir()
    os.mkfifo(inside.source / "uv.lock")
    (inside.source / "yarn.lock").symlink_to("/nowhere")
    assert setup_hash("x", inside.source) == without == setup_hash("x", None)


def test_a_setup_that_changes_a_lock_file_has_done_so(inside: Inside) -> None:
    setup = "date +%N >package-lock.json; echo ran"
    inside.start(setup)
    inside.folder.settle(setup_hash(setup, inside.source))
    done = inside.folder.look()
    assert done is not None
    assert setup_hash(setup, inside.source) in done.hashes
    (inside.source / "package-lock.json").write_text("by hand")
    inside.folder.settle(setup_hash(setup, inside.source))
    done = inside.folder.look()
    assert done is not None
    assert setup_hash(setup, inside.source) not in done.hashes, "that was not the setup"


def test_with_compose_alone_it_runs_once(inside: Inside) -> None:
    assert ran(inside.start(image=None))
    assert inside.folder.look() == Setup("done", "-")
    assert not ran(inside.start(image=None))
    assert ran(inside.start()), "nobody knows what it was for"
    assert not ran(inside.start())


def test_the_first_line_that_fails_ends_it(inside: Inside) -> None:
    (inside.source / "sleep").write_text("#!/bin/sh\nkill $PPID\n")
    (inside.source / "sleep").chmod(0o755)
    inside.folder.ask("for", "sha256:1")
    environment = {**os.environ, "PATH": f"{inside.source}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", str(inside.script), "echo", "up"],
        cwd=inside.source,
        env={**environment, "DUAL_SETUP": "echo one; printf two; false; echo three"},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    setup = inside.folder.look()
    assert setup is not None
    assert (setup.state, setup.exit_code) == ("failed", 1)
    lines = done.stdout.splitlines()
    assert lines == [f"{BEGINS} {setup.word}", "one", f"two{FAILED} {setup.word}: exit code 1"]
    assert said_by(setup, ["of an earlier start", *lines, "later"]) == ["one", "two"]
    lines = inside.start()
    assert ran(lines)
    done_now = inside.folder.look()
    assert done_now is not None
    assert said_by(done_now, lines) == ["up"]


def test_who_was_asked_and_has_not_begun(inside: Inside) -> None:
    assert SetupFolder(inside.folder.path / "nowhere").look() is None
    inside.start()
    inside.folder.ask("for", "sha256:1")
    setup = inside.folder.look()
    assert setup is not None
    assert setup.state == "asked", "what was said before was about another start"


def test_nothing_that_a_workspace_writes_does_harm(inside: Inside, tmp_path: Path) -> None:
    inside.start()
    done = inside.folder.look()
    assert done is not None
    state = inside.folder.path / "report/state"
    for text in ("", "x", done.word, f"{done.word} failed 9999", "\xff" * 300, "x" * 10**6):
        state.write_text(text)
        assert inside.folder.look() == Setup("asked", done.word)
    precious = tmp_path / "precious"
    precious.write_text(f"{done.word} running\n")
    state.unlink()
    state.symlink_to(precious)
    assert inside.folder.look() == Setup("asked", done.word), "a link may lead anywhere"
    inside.folder.ask("for", "sha256:1")
    assert precious.read_text() == f"{done.word} running\n"
    state.unlink()
    os.mkfifo(state)
    assert inside.folder.look() is not None


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DualError, match="can't be written"):
        SetupFolder(tmp_path / "file/main").ask("for", "sha256:1")
