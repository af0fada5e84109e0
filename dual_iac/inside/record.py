"""What ``dual exec`` found out the last time: it needn't read dual.yaml for the next.

Each dual.yaml has a folder of its own in the user's state, which can be deleted at any time.
"""

from __future__ import annotations

import os

from dual_iac import __version__

_FILE = "workspaces"


def state_folder(spec: str) -> str:
    """Where dual keeps what it knows about the dual.yaml with this absolute path."""
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    name = spec.strip("/").replace("%", "%25").replace("/", "%")
    return f"{home}/dual/{name[-200:]}"


def remember(spec: str, workspace: str, container: str, source: str) -> None:
    """Keep a workspace's container and the folder of its source, as long as dual.yaml stays.

    ``source`` is empty where there is none. What can't be kept is found out anew each time.
    """
    entry = (workspace, container, source)
    if any(mark in text for text in entry for mark in "\t\n"):
        return
    try:
        stamp = _stamp(spec)
        known = [each for each in _read(spec, stamp) if each[0] != workspace]
        folder = state_folder(spec)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        new = f"{folder}/{_FILE}.{os.getpid()}"
        with open(new, "w", encoding="utf-8") as file:
            file.writelines("\t".join(line) + "\n" for line in ([stamp], *known, entry))
        os.replace(new, f"{folder}/{_FILE}")
    except OSError:
        return


def recall(spec: str, workspace: str) -> tuple[str, str] | None:
    """Container and source of a workspace, if dual.yaml is still what it was."""
    try:
        for name, container, source in _read(spec, _stamp(spec)):
            if name == workspace:
                return container, source
    except OSError:
        pass
    return None


def _stamp(spec: str) -> str:
    found = os.stat(spec)
    return f"{__version__} {found.st_mtime_ns} {found.st_size} {found.st_ino} {spec}"


def _read(spec: str, stamp: str) -> list[tuple[str, str, str]]:
    try:
        with open(f"{state_folder(spec)}/{_FILE}", encoding="utf-8") as file:
            first, *lines = file.read().splitlines()
        rows = [tuple(line.split("\t")) for line in lines]
        return [(row[0], row[1], row[2]) for row in rows] if first == stamp else []
    except (OSError, ValueError, IndexError):
        return []
