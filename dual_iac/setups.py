"""What a workspace's setup is for, and how it goes: the side of this machine.

``templates/setup.sh.j2`` is the other side: rendered, it runs in the workspace, with Compose alone,
too. Each workspace with a setup has a folder here, in :data:`SETUPS_FOLDER`:

- ``asked/setup``: a word that stands for one start, and what the setup is for. The workspace only
  reads it.
- ``report/state``: how it goes, after the word that it was asked with. The workspace writes it, so
  nothing in there is trusted or followed, and this side writes nothing there.
- ``for``: the hash that the last one was asked for with.
- ``settled``: the word, and the hash once that setup was done: it may have brought lock files up to
  date.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dual_iac.errors import DualError
from dual_iac.output import write_ignore
from dual_iac.state import Setup

SETUPS_FOLDER = ".dual/setup"
"""Beside dual.yaml."""

BEGINS = "dual: setup begins:"
SUCCEEDED = "dual: setup is done:"
FAILED = "dual: setup failed:"
"""What a workspace prints where its setup begins and ends, before the word it was asked with."""

LOCK_FILES = (
    *("package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml"),
    *("bun.lock", "bun.lockb", "deno.lock"),
    *("uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "requirements.txt", "pixi.lock"),
    *("Gemfile.lock", "composer.lock", "Cargo.lock", "go.sum", "mix.lock", "rebar.lock"),
    *("pubspec.lock", "Package.resolved", "packages.lock.json", "gradle.lockfile", "flake.lock"),
)
"""At the top of a source: where one changes, what was set up is out of date."""

_LONGEST = 200  # bytes of a report: whatever a workspace writes there, no more is read
_UNKNOWN = "-"


def setup_hash(setup: str, source: Path | None) -> str:
    """What a setup is for: its text, variables filled in, and the lock files in the source."""
    whole = hashlib.sha256(f"{setup}\n".encode())
    for name in LOCK_FILES if source else ():
        assert source is not None
        with suppress(OSError):
            path = source / name
            if stat.S_ISREG(path.stat().st_mode):
                with path.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
                whole.update(f"{name} {content}\n".encode())
    return whole.hexdigest()


@dataclass(frozen=True)
class SetupFolder:
    """Where this machine and a workspace meet."""

    path: Path

    @classmethod
    def of(cls, folder: Path, workspace: str) -> SetupFolder:
        """``folder`` is that of dual.yaml."""
        return cls(folder / SETUPS_FOLDER / workspace)

    def ask(self, hash_: str, image: str) -> None:
        """Before a workspace starts: say what its setup is for, in the image with this id.

        Raises :class:`DualError` where the folder can't be written.
        """
        try:
            for each in ("asked", "report"):
                (self.path / each).mkdir(parents=True, exist_ok=True)
            # A workspace may run as anybody, whatever the umask here.
            for each, mode in ((".", 0o755), ("asked", 0o755), ("report", 0o777)):
                (self.path / each).chmod(mode)
            write_ignore(self.path.parent)
            what = hashlib.sha256(f"{hash_} {image}".encode()).hexdigest()
            self._write("asked/setup", f"{secrets.token_hex(4)} {what}\n")
            self._write("for", f"{hash_}\n")
        except OSError as error:
            raise DualError(
                f"{self.path} can't be written",
                why=error.strerror or str(error),
                mend="make the folder yours, or remove it",
            ) from None

    def look(self) -> Setup | None:
        """How the setup goes, as far as the workspace says; None where nobody has asked."""
        said = self._report()
        word = self._read("asked/setup").partition(" ")[0] or _UNKNOWN
        if word == _UNKNOWN and not said:
            return None
        if not said or said[0] != word:
            return Setup("asked", word)
        match said[1:]:
            case ["running"]:
                return Setup("running", word)
            case ["failed", code] if re.fullmatch(r"\d{1,3}", code):
                return Setup("failed", word, exit_code=int(code))
            case ["done"]:
                return Setup("done", word, hashes=frozenset(self._hashes(word)))
        return Setup("asked", word)

    def settle(self, hash_: str) -> None:
        """Once it is done: lock files that it has brought up to date are what it was for.

        Once for each start: whatever changes them later is somebody else.
        """
        setup = self.look()
        if setup and setup.hashes and self._settled[0] != setup.word:
            with suppress(OSError):
                self._write("settled", f"{setup.word} {hash_}\n")

    def forget(self) -> None:
        """Take the folder away with its workspace, as far as it is this user's to take."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _hashes(self, word: str) -> Iterable[str]:
        """What the setup was asked for with this word; nothing where Compose alone has asked."""
        if word == _UNKNOWN:
            return
        yield self._read("for").strip()
        settled, hash_ = self._settled
        if settled == word:
            yield hash_

    @property
    def _settled(self) -> tuple[str, str]:
        word, _, hash_ = self._read("settled").strip().partition(" ")
        return word, hash_

    def _report(self) -> list[str]:
        # A link in it may lead to what the workspace can't read itself, and a pipe to nowhere.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            with os.fdopen(os.open(self.path / "report/state", flags), "rb") as file:
                return file.read(_LONGEST).decode(errors="replace").split()
        except OSError:
            return []

    def _read(self, name: str) -> str:
        try:
            return (self.path / name).read_text("utf-8", errors="replace")
        except OSError:
            return ""

    def _write(self, name: str, text: str) -> None:
        new = self.path / f"{name}.new"
        new.write_text(text)
        new.chmod(0o644)  # whatever the umask
        new.replace(self.path / name)


def said_by(setup: Setup, lines: Iterable[str]) -> list[str]:
    """Of what a workspace has printed, what its setup has; or its command, if it got so far."""
    found: list[str] = []
    for line in lines:
        before, ends, after = line.partition(FAILED)
        if line == f"{BEGINS} {setup.word}" or line.endswith(f"{SUCCEEDED} {setup.word}"):
            found = []
        elif ends and after.startswith(f" {setup.word}:"):
            return [*found, before] if before else found
        else:
            found.append(line)
    return found
