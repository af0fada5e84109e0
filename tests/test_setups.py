"""What a setup is for, and how it went: both sides of it, without a container."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from dual_iac.errors import DualError
from dual_iac.render import Raw, template_environment
from dual_iac.setups import FAILED, LOCK_FILES, SUCCEEDED, prepare, read_report, setup_hash
from dual_iac.state import Setup


class Inside:
    """The script of a workspace, run right here."""

    def __init__(self, folder: Path) -> None:
        self.dual, self.source = folder / "dual", folder / "source"
        self.report, self.script = self.dual / "report", self.dual / "setup.sh"
        for each in (self.report, self.dual / "record", self.source):
            each.mkdir(parents=True)
        template = template_environment(folder).get_template("setup.sh.j2")
        text = template.render(
            inside=Raw(str(self.dual)),
            lock_files=Raw(" ".join(LOCK_FILES)),
            succeeded=Raw(SUCCEEDED),
            failed=Raw(FAILED),
        )
        self.script.write_text(text)

    def start(self, setup: str) -> str:
        """Start the workspace, whose command says "up"; returns what it prints."""
        return subprocess.run(
            ["sh", str(self.script), "echo", "up"],
            cwd=self.source,
            env={**os.environ, "DUAL_SETUP": setup},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout


@pytest.fixture
def inside(tmp_path: Path) -> Inside:
    return Inside(tmp_path)


@pytest.mark.parametrize("setup", ["echo ran", "echo ran\n", "echo 'ran' # ü $HOME\n\n"])
def test_both_sides_agree_on_what_it_is_for(inside: Inside, setup: str) -> None:
    assert inside.start(setup) == f"ran\n{SUCCEEDED}\nup\n"
    assert read_report(inside.report) == Setup("done", hash=setup_hash(setup, inside.source))
    for name in LOCK_FILES[:3]:
        (inside.source / name).write_text(f"of {name}")
        assert inside.start(setup) == f"ran\n{SUCCEEDED}\nup\n"
        assert inside.start(setup) == f"{SUCCEEDED}\nup\n"
        assert read_report(inside.report) == Setup("done", hash=setup_hash(setup, inside.source))


def test_a_setup_that_changes_a_lock_file_has_done_so(inside: Inside) -> None:
    setup = "date +%N >package-lock.json; echo ran"
    inside.start(setup)
    assert inside.start(setup) == f"{SUCCEEDED}\nup\n"


def test_another_image_and_one_that_nobody_knows(inside: Inside) -> None:
    ran, not_again = f"ran\n{SUCCEEDED}\nup\n", f"{SUCCEEDED}\nup\n"
    assert inside.start("echo ran") == ran
    prepare(inside.report, "sha256:1")
    assert inside.start("echo ran") == not_again, "Compose alone has started it before"
    (inside.dual / "record/done").unlink()
    assert inside.start("echo ran") == ran
    prepare(inside.report, "sha256:2")
    assert inside.start("echo ran") == ran
    (inside.report / "image").unlink()
    assert inside.start("echo ran") == not_again, "Compose alone starts it now"


def test_the_first_line_that_fails_ends_it(inside: Inside) -> None:
    (inside.source / "tail").write_text('#!/bin/sh\necho waiting "$@"\n')
    (inside.source / "tail").chmod(0o755)
    os.environ["PATH"], path = f"{inside.source}:{os.environ['PATH']}", os.environ["PATH"]
    try:
        printed = inside.start("echo one; false; echo two")
    finally:
        os.environ["PATH"] = path
    assert printed == f"one\n{FAILED} 1\nwaiting -f /dev/null\n"
    assert read_report(inside.report) == Setup("failed", exit_code=1)
    assert inside.start("echo one") == f"one\n{SUCCEEDED}\nup\n"


def test_a_report_of_nothing(tmp_path: Path) -> None:
    assert read_report(tmp_path / "none") is None
    for text in ("", "failed", "failed x", "done", "running on", "\xff" * 300):
        (tmp_path / "state").write_text(text)
        assert read_report(tmp_path) is None
    (tmp_path / "state").unlink()
    (tmp_path / "target").write_text("running\n")
    (tmp_path / "state").symlink_to("target")
    assert read_report(tmp_path) is None, "a link may lead anywhere"


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DualError, match="can't be written"):
        prepare(tmp_path / "file/main", "sha256:1")
