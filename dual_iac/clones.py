"""Clones of git repositories: one of its own for each workspace that has a git source.

Made from a mirror on this machine by hard links, so that a second one is quick; after that it is a
clone like any other, with a .git of its own and the real remote as its origin. Nothing here ever
touches one that is there, but for :func:`remove`, which is asked for by name.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dual_iac.errors import DualError

_MIRRORS = ".mirrors"
_NEW = ".new-"
_IGNORE = "*\n"  # the repository around it is not to know

_ENVIRONMENT = {
    # There is nobody to ask: dual's progress has the terminal.
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
    # What git sets for its hooks, from where dual may run, names another repository.
    **dict.fromkeys(("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR"), ""),
}


@dataclass(frozen=True)
class Clone:
    """What a workspace's clone is to be made from.

    ``shown`` stands for the URL in what people read: that may hold a password out of a variable.
    ``branch`` is None for the remote's own.
    """

    name: str
    path: Path
    url: str
    shown: str
    branch: str | None = None


@dataclass(frozen=True)
class GitState:
    """What a working copy is at. ``ahead`` and ``behind`` are None without an upstream."""

    branch: str | None
    dirty: bool
    ahead: int | None = None
    behind: int | None = None


def make(clone: Clone, home: Path, say: Callable[[str], None] = lambda _: None) -> str:
    """Make a clone that isn't there yet; returns what its branch was made from.

    ``home`` is the folder of dual.yaml: a branch that only the repository there has is taken from
    it. The clone is made beside its place, and moved there when it is complete. Raises
    :class:`DualError`.
    """
    try:
        return _make(clone, home, say)
    except DualError as error:
        why = error.why
        for part in (clone.url, clone.url.rpartition("://")[2]) if clone.url != clone.shown else ():
            why = why.replace(part, clone.shown)
        raise DualError(error.summary, why=why, mend=error.mend) from None
    except OSError as error:
        raise DualError(
            f"The clone of {clone.name} can't be made",
            why=f"{error.filename}: {error.strerror}",
            mend="make the folder writable, or name another one as clones",
        ) from error


def _make(clone: Clone, home: Path, say: Callable[[str], None]) -> str:
    root = clone.path.parent
    root.mkdir(parents=True, exist_ok=True)
    if not (root / ".gitignore").exists():
        (root / ".gitignore").write_text(_IGNORE)
    say("fetching")
    mirror = _mirror(root, clone.url)
    say("cloning")
    new = Path(tempfile.mkdtemp(prefix=f"{_NEW}{clone.name}-", dir=root))
    try:
        _git("clone", "--quiet", "--no-checkout", "--local", str(mirror), str(new))
        _git("remote", "set-url", "origin", clone.url, at=new)
        made_from = _check_out(clone, new, home)
        new.chmod(0o755)  # a temporary folder is private, and the workspace may run as anybody
        new.rename(clone.path)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return made_from


def clear_unfinished(root: Path) -> None:
    """Take away what a killed :func:`make` has left. Call it with the project's lock held."""
    for path in (*root.glob(f"{_NEW}*"), *(root / _MIRRORS).glob(f"{_NEW}*")):
        shutil.rmtree(path, ignore_errors=True)


def _mirror(root: Path, url: str) -> Path:
    """A bare copy of the remote, as it is now."""
    path = root / _MIRRORS / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.git"
    with _alone(path):
        if not path.is_dir():
            new = Path(tempfile.mkdtemp(prefix=_NEW, dir=path.parent))
            try:
                _git("clone", "--quiet", "--mirror", "--", url, str(new))
                new.rename(path)
            finally:
                shutil.rmtree(new, ignore_errors=True)
        else:
            # Pruned: a branch that is gone is not one to take.
            _git("fetch", "--quiet", "--prune", "origin", "+refs/*:refs/*", at=path)
    return path


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Two workspaces of one repository fetch it one after the other."""
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _check_out(clone: Clone, new: Path, home: Path) -> str:
    """The branch, of whoever has it: the remote, the repository at home, or nobody yet."""
    checkout = ("-c", "checkout.workers=0", "checkout", "--quiet")  # as many as there are CPUs
    branch = clone.branch
    if branch is None:
        own = _default_branch(new)
        if not own:
            return "an empty repository"
        _git(*checkout, "-B", own.removeprefix("origin/"), "--track", own, at=new)
        return f"{own}, the remote's own branch"
    if _ask("rev-parse", "--verify", "--quiet", f"refs/remotes/origin/{branch}", at=new):
        _git(*checkout, "-B", branch, "--track", f"origin/{branch}", at=new)
        return f"origin/{branch}"
    if local := _local_repository(home, clone.url, branch):
        _git("fetch", "--quiet", local, f"refs/heads/{branch}:refs/heads/{branch}", at=new)
        _git(*checkout, branch, at=new)
        return f"the local branch {branch}"
    start = _default_branch(new)
    if not start:
        raise DualError(
            f"There is no branch to start {branch} from",
            why=f"{clone.url} has no {branch}, and no branch of its own",
            mend="push a first commit to it, or name a branch that it has",
        )
    _git(*checkout, "-B", branch, "--no-track", start, at=new)
    return f"{start}, as nobody has {branch} yet"


def _default_branch(new: Path) -> str:
    """The remote's own branch, such as ``origin/main``; empty if it has none.

    Asked of the remote itself: a mirror doesn't learn of another one.
    """
    _run(("remote", "set-head", "origin", "--auto"), new)
    name = _ask("symbolic-ref", "--short", "refs/remotes/origin/HEAD", at=new)
    return name if name and _ask("rev-parse", "--verify", "--quiet", name, at=new) else ""


def _local_repository(home: Path, url: str, branch: str) -> str:
    """The repository that dual.yaml stands in, if it is one of the same remote with that branch."""
    top = _ask("rev-parse", "--show-toplevel", at=home)
    if not top:
        return ""
    urls = _ask("config", "--get-regexp", r"^remote\..*\.url$", at=home)
    is_same = url in {line.partition(" ")[2] for line in urls.splitlines()} or _same(url, top)
    has_it = _ask("rev-parse", "--verify", "--quiet", f"refs/heads/{branch}", at=home)
    return top if is_same and has_it else ""


def _same(url: str, folder: str) -> bool:
    """Whether a URL is that of a repository on this machine: of the one in a folder."""
    path = url.removeprefix("file://")
    return path.startswith("/") and os.path.realpath(path) == os.path.realpath(folder)


# ── what is there ───────────────────────────────────────────────────────────────────────────


def state(folder: Path) -> GitState | None:
    """What the working copy in a folder is at; None if it is none of its own."""
    told = _ask("status", "--porcelain=v2", "--branch", at=folder)
    if not told or _ask("rev-parse", "--show-prefix", at=folder):
        return None
    branch, ahead, behind, dirty = None, None, None, False
    for line in told.splitlines():
        key, _, value = line.removeprefix("# ").partition(" ")
        if not line.startswith("# "):
            dirty = True
        elif key == "branch.head":
            branch = None if value == "(detached)" else value
        elif key == "branch.ab":
            plus, minus = value.split()
            ahead, behind = int(plus), -int(minus)
    return GitState(branch, dirty, ahead, behind)


def unsaved(folder: Path) -> str:
    """The work in a clone that would be lost with it, in words; empty if there is none.

    Commits count on any branch, and so do stashes, unless a remote has them.
    """
    found = state(folder)
    if found is None:
        return "it is no working copy of its own"
    commits = _ask("rev-list", "--count", "--branches", "HEAD", "--not", "--remotes", at=folder)
    count = int(commits or 0) + len(_ask("stash", "list", at=folder).splitlines())
    parts = ["uncommitted changes"] if found.dirty else []
    if count:
        parts.append(f"{count} commit{'s' * (count != 1)} that no remote has")
    return " and ".join(parts)


def remove(folder: Path) -> None:
    """Delete a clone and all that is in it. Raises :class:`DualError`."""
    doomed = folder.with_name(f"{_NEW}{folder.name}-removed")
    try:
        folder.rename(doomed)  # gone at once, whatever happens next
        shutil.rmtree(doomed)
    except OSError as error:
        raise DualError(
            f"{folder} can't be removed", why=f"{error.filename}: {error.strerror}"
        ) from error


# ── git ─────────────────────────────────────────────────────────────────────────────────────


def _run(arguments: Iterable[str], at: Path | None) -> subprocess.CompletedProcess[str]:
    environment: Mapping[str, str] = {**os.environ, **_ENVIRONMENT}
    environment = {key: value for key, value in environment.items() if value}
    place = ("-C", str(at)) if at else ()
    try:
        return subprocess.run(
            ["git", *place, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            process_group=0,  # apart from the terminal, whose Ctrl-C is for dual
        )
    except OSError:
        raise DualError(
            "The git command is not installed", mend="install git, for the workspaces' clones"
        ) from None


def _ask(*arguments: str, at: Path) -> str:
    """What git says; empty where it fails."""
    done = _run(arguments, at)
    return done.stdout.strip() if done.returncode == 0 else ""


def _git(*arguments: str, at: Path | None = None) -> None:
    done = _run(arguments, at)
    if done.returncode != 0:
        command = next(each for each in arguments if not each.startswith("-") and "=" not in each)
        raise DualError(f"git {command} fails", why=_said(done.stderr), mend=_mend(done.stderr))


def _said(text: str) -> str:
    lines = [line.removeprefix("fatal: ") for line in text.splitlines() if line.strip()]
    return "\n".join(lines) or "it gave no reason"


def _mend(text: str) -> str:
    lower = text.lower()
    if "could not read username" in lower or "terminal prompts disabled" in lower:
        return "let git remember the password (git config credential.helper), or use an ssh URL"
    if "permission denied (publickey" in lower:
        return "add your key to the ssh agent: ssh-add"
    if "could not resolve host" in lower or "unable to access" in lower:
        return "check the URL and the network; clones that are there are left alone"
    if "does not exist" in lower or "not found" in lower or "not appear to be a git" in lower:
        return "check the URL under source.git"
    return ""
