"""What a workspace's setup is for, and how it went: the side of this machine.

``templates/setup.sh.j2`` is the other side: rendered, it runs in the workspace, with Compose alone,
too. The two meet in a folder of each workspace's, :data:`REPORTS_FOLDER`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path

from dual_iac.errors import DualError
from dual_iac.state import Setup

REPORTS_FOLDER = ".dual/setup"
"""Beside dual.yaml: a folder for each workspace with a setup."""

SUCCEEDED = "dual: the setup is done"
FAILED = "dual: the setup failed with exit code"
"""What a workspace prints, on a line of its own, where its setup ends."""

LOCK_FILES = (
    *("package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml"),
    *("bun.lock", "bun.lockb", "deno.lock"),
    *("uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "requirements.txt", "pixi.lock"),
    *("Gemfile.lock", "composer.lock", "Cargo.lock", "go.sum", "mix.lock", "rebar.lock"),
    *("pubspec.lock", "Package.resolved", "packages.lock.json", "gradle.lockfile", "flake.lock"),
)
"""At the top of a source: where one changes, what was set up is out of date."""

_IGNORE = "# dual's own. Nothing in here is worth keeping in git.\n*\n"
_LONGEST = 200  # bytes of a report: whatever a workspace writes there, no more is read


def setup_hash(setup: str, source: Path | None) -> str:
    """What a setup is for: its text, variables filled in, and the lock files in the source.

    As the script in the workspace has it.
    """
    whole = hashlib.sha256(f"{setup}\n".encode())
    for name in LOCK_FILES if source else ():
        assert source is not None
        with suppress(OSError):
            content = (source / name).read_bytes()
            whole.update(f"{name}\n".encode() + content)
    return whole.hexdigest()


def report_folder(folder: Path, workspace: str) -> Path:
    """``folder`` is that of dual.yaml."""
    return folder / REPORTS_FOLDER / workspace


def prepare(report: Path, image: str) -> None:
    """Before a workspace starts: leave it the id of its image, and forget how it went last time.

    Raises :class:`DualError` where the folder can't be written.
    """
    try:
        report.mkdir(parents=True, exist_ok=True)
        ignored = report.parent / ".gitignore"
        if not ignored.exists():
            ignored.write_text(_IGNORE)
        if report.stat().st_mode & 0o777 != 0o777:
            report.chmod(0o777)  # a workspace may run as anybody
        (report / "state").unlink(missing_ok=True)
        (report / "image").write_text(f"{image}\n")
    except OSError as error:
        raise DualError(
            f"{report} can't be written",
            why=error.strerror or str(error),
            mend="make the folder yours, or remove it",
        ) from None


def forget(report: Path) -> None:
    """Take the folder away with its workspace, as far as it is this user's to take."""
    shutil.rmtree(report, ignore_errors=True)


def read_report(report: Path) -> Setup | None:
    """How the setup of a workspace goes, as the workspace says; None where it says nothing."""
    try:
        # It is the workspace's to write: a link in it may lead to what it can't read itself.
        handle = os.open(report / "state", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(handle, "rb") as file:
        words = file.read(_LONGEST).decode(errors="replace").split()
    match words:
        case ["running"]:
            return Setup("running")
        case ["failed", code] if code.isdecimal():
            return Setup("failed", exit_code=int(code))
        case ["done", hash_]:
            return Setup("done", hash=hash_)
    return None
