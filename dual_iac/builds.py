"""What an image is built from: the files of a context, as one hash.

The same files give the same hash on every machine, whatever their dates and owners: what is built
from them once is built for all.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from dual_iac.model import Build

_IGNORE = ".dockerignore"
_LENGTH = 16


def content_hash(build: Build, folder: Path) -> str:
    """The hash of all that an image is made of; ``folder`` is that of dual.yaml.

    Ignored files are left out as Docker leaves them out. A context that isn't there has the hash
    of an empty one: whoever needs it checks.
    """
    context = folder / build.context
    dockerfile = context / build.dockerfile
    whole = hashlib.sha256()
    for text in (build.target or "", *(f"{k}={v}" for k, v in sorted(build.args.items()))):
        whole.update(f"{text}\0".encode())
    whole.update(_of_file(dockerfile))
    for name in _files(context, dockerfile):
        path = context / name
        mode = "link" if path.is_symlink() else "x" if os.access(path, os.X_OK) else "-"
        whole.update(f"{name}\0{mode}\0".encode(errors="surrogateescape"))
        whole.update(_of_file(path))
    return whole.hexdigest()[:_LENGTH]


def _of_file(path: Path) -> bytes:
    if path.is_symlink():
        return hashlib.sha256(os.fsencode(path.readlink())).digest()
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return b""


def _files(context: Path, dockerfile: Path) -> Iterator[str]:
    """The files that Docker would be sent, in the order of their names."""
    from pathspec import PathSpec

    lines: list[str] = []
    for ignore in (dockerfile.with_name(f"{dockerfile.name}.dockerignore"), context / _IGNORE):
        if ignore.is_file():
            lines = ignore.read_text("utf-8", "replace").splitlines()
            break
    spec = PathSpec.from_lines("gitignore", [each for line in lines for each in _anchored(line)])
    keeps = any(line.lstrip().startswith("!") for line in lines)
    found = []
    for top, folders, names in os.walk(context):
        below = Path(top).relative_to(context)
        links = [name for name in folders if (Path(top) / name).is_symlink()]
        for name in [*names, *links]:
            path = (below / name).as_posix()
            if not spec.match_file(path):
                found.append(path)
        # What is ignored whole is not walked through, unless something in it may be kept.
        folders[:] = [
            each
            for each in folders
            if each not in links and (keeps or not spec.match_file((below / each).as_posix()))
        ]
    return iter(sorted(found))


def _anchored(line: str) -> list[str]:
    """A line of a .dockerignore as some of a .gitignore: Docker's patterns start at the top."""
    text = line.strip()
    if not text or text.startswith("#"):
        return []
    sign, pattern = ("!", text[1:]) if text.startswith("!") else ("", text)
    pattern = os.path.normpath(pattern.strip()).lstrip("/")
    return [f"{sign}/{pattern}", f"{sign}/{pattern}/**"] if pattern != "." else []
