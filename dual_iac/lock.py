"""One apply at a time for a project on an engine.

The lock is the kernel's own (flock): it ends with the process that holds it, however that ends,
so a dead holder's lock is none. All who use an engine on this machine share it, whoever they
are and whichever context or folder they come from.
"""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO

from dual_iac.errors import DualError, LockedError

_FOLDER = Path("/tmp/dual-locks")  # not $TMPDIR: that may be another for each who runs dual


@contextmanager
def lock(project: str, engine: str) -> Iterator[None]:
    """Hold the lock of a project on the engine with that id.

    Raises :class:`LockedError`, which tells who has it since when, if somebody else does.
    """
    name = re.sub(r"[^A-Za-z0-9_-]", "", f"{project}_{engine}")
    with _locked(_FOLDER / f"{name}.lock", project) as file:
        file.write(json.dumps(_me()))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


@contextmanager
def _locked(path: Path, project: str) -> Iterator[IO[str]]:
    while True:
        with _opened(path) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _held(project, file.read()) from None
            if _is_still(path, file):
                file.seek(0)
                file.truncate(0)
                yield file
                return
        # Somebody cleaned the folder up between the opening and the locking.


def _opened(path: Path) -> IO[str]:
    try:
        with suppress(FileExistsError):
            path.parent.mkdir()
            path.parent.chmod(0o1777)
        try:
            # Not O_CREAT at first: the kernel denies that for another user's file in there.
            handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        except FileNotFoundError:
            handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CREAT, 0o666)
            os.fchmod(handle, 0o666)  # whatever the umask: the next one may be another user
    except OSError as error:
        raise DualError(
            "The lock of this project can't be taken",
            why=f"{path}: {error.strerror}",
            mend=f"make {path.parent} writable, or free space",
        ) from error
    return os.fdopen(handle, "r+", encoding="utf-8")


def _is_still(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _me() -> dict[str, str | int]:
    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in many a CI container
        user = f"user {os.getuid()}"
    return {
        "pid": os.getpid(),
        "user": user,
        "command": shlex.join(command),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _held(project: str, holder: str) -> LockedError:
    try:
        who = json.loads(holder)
        since = datetime.fromisoformat(who["since"])
        seconds = (datetime.now().astimezone() - since).total_seconds()
        why = (
            f"{who['user']} runs `{who['command']}` (process {who['pid']}) "
            f"since {since:%H:%M:%S}, {seconds:.0f} s ago"
        )
        mend = f"wait until it is done, or end it: kill {who['pid']}"
    except (ValueError, KeyError, TypeError):
        why, mend = "it has just begun", "wait until it is done"
    return LockedError(f"Somebody else is changing project {project} right now", why=why, mend=mend)
