"""The folder of the rendered project: what stands in it, and how it comes to hold what it should.

Files are replaced whole: neither Traefik nor a crash, nor a machine that loses its power, ever
sees half of one.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from dual_iac.errors import DualError
from dual_iac.model import PROXY_SERVICE

try:
    from yaml import CSafeLoader as _YamlLoader
except ImportError:  # pragma: no cover - a PyYAML without libyaml, some 10 times slower
    from yaml import SafeLoader as _YamlLoader  # type: ignore[assignment]

OUTPUT_FOLDER = "compose"
COMPOSE_FILE = "compose.yaml"
STATIC_FILE = "traefik/traefik.yaml"
SETUP_FILE = "setup.sh"
"""What runs the setups of workspaces, in those that have one."""
ROUTES_FOLDER = "traefik/routes"
SEEN_FILE = f"{ROUTES_FOLDER}/{PROXY_SERVICE}.yaml"
"""A route of the proxy's own, that tells which state of all others Traefik has read: a watch
that died, or a mount of a folder that was removed since, shows in no other way."""
CERTIFICATES_FOLDER = ".dual/tls/live"
"""Beside dual.yaml: the certificates that the proxy serves, and their keys."""
CERTIFICATES_INSIDE = "/certificates"
ROUTES_HOST = "dual.invalid"
ROUTES_HEADER = "X-Dual-Routes"

PROXY_PORT, TLS_PORT, DASHBOARD_PORT = 8000, 8443, 8080
"""Where Traefik listens inside its container: above 1023, as it holds no capability."""

_READ_BY_TRAEFIK = frozenset({".yaml", ".yml", ".toml"})  # in subfolders, too

_FEW = 16  # files that are quicker synced one by one than all at once


MAX_DEPTH = 64
"""How deep YAML may nest: twice what a dual.yaml may, and far more than any rendered file does."""


class _Loader(_YamlLoader):
    """Refuses what nests too deep: PyYAML 6.0.2 and older runs out of stack, and ends the process.

    PyYAML calls these two on its way into and out of each value, whatever they do there.
    """

    _depth = 0

    def descend_resolver(self, current_node: Any, current_index: Any) -> None:  # noqa: ARG002
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise yaml.YAMLError(f"nested more than {MAX_DEPTH} levels deep")

    def ascend_resolver(self) -> None:
        self._depth -= 1


def load_yaml(text: str) -> Any:
    """Plain values out of YAML. Raises ``yaml.YAMLError`` or ValueError (a date that is none)."""
    return yaml.load(text, Loader=_Loader)


def read_files(output: Path) -> dict[str, str]:
    """The rendered files that stand in an output folder, by their paths in it.

    Of the routes, all that Traefik would read, whoever put them there.
    """
    there = (output / ROUTES_FOLDER).rglob("*")
    # A link that leads nowhere, such as an editor's lock, keeps Traefik from reading them all.
    routes = sorted(p for p in there if p.suffix in _READ_BY_TRAEFIK and not p.is_dir())
    files = {}
    for path in (output / COMPOSE_FILE, output / STATIC_FILE, output / SETUP_FILE, *routes):
        try:
            files[path.relative_to(output).as_posix()] = path.read_bytes().decode()
        except (FileNotFoundError, NotADirectoryError):
            if path.is_symlink():
                files[path.relative_to(output).as_posix()] = ""
        except (OSError, UnicodeDecodeError):  # whatever stands there, it is no rendered file
            files[path.relative_to(output).as_posix()] = ""
    return files


_KEY = re.compile(r"^([A-Za-z_][\w-]*):", re.MULTILINE)
_NO_KEY = re.compile(r"^[^\s#A-Za-z_]", re.MULTILINE)


class _Sections(Mapping[str, Any]):
    """The keys of a YAML map, each read only when it is asked for.

    A compose.yaml of ten thousand services takes seconds to read, and hardly anybody needs more
    of it than its networks.
    """

    def __init__(self, text: str) -> None:
        starts = [*_KEY.finditer(text)]
        ends = [*(start.start() for start in starts[1:]), *([len(text)] if starts else [])]
        self._whole = text
        self._texts = {
            start[1]: text[start.start() : end] for start, end in zip(starts, ends, strict=True)
        }
        self._values: dict[str, Any] = {}

    def __getitem__(self, key: str) -> Any:
        if key not in self._values:
            try:
                self._values[key] = load_yaml(self._texts[key])[key]
            except (yaml.YAMLError, ValueError):  # an anchor in another section, say
                self._values = {**dict.fromkeys(self._texts), **_read_whole(self._whole)}
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)


@lru_cache(maxsize=16)
def read_rendered(text: str) -> Mapping[str, Any]:
    """What a compose.yaml declares; nothing where it isn't one (a merge conflict, say).

    Kept, as one run reads the same text for the record of subnets, the plan and the guard.
    """
    return _read_whole(text) if _NO_KEY.search(text) else _Sections(text)


def _read_whole(text: str) -> Mapping[str, Any]:
    try:
        data = load_yaml(text)
    except (yaml.YAMLError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def routes_written(files: Mapping[str, str]) -> str | None:
    """Which state of the route files an output folder declares; None if it does not say."""
    middlewares: Any = dict(read_rendered(files.get(SEEN_FILE, "")))
    for key in ("http", "middlewares", PROXY_SERVICE, "headers", "customResponseHeaders"):
        middlewares = middlewares.get(key) if isinstance(middlewares, dict) else None
    written = middlewares.get(ROUTES_HEADER) if isinstance(middlewares, dict) else None
    return None if written is None else str(written)


def subnets_of(rendered: Mapping[str, Any], project: str) -> dict[str, str]:
    """The subnets that the rendered compose file of a project gives to its networks."""
    subnets = {}
    networks = rendered.get("networks") if rendered.get("name") == project else None
    for key, network in networks.items() if isinstance(networks, dict) else ():
        try:
            subnets[str(key)] = str(network["ipam"]["config"][0]["subnet"])
        except (KeyError, TypeError, IndexError):
            continue
    return subnets


def stale_files(files: Mapping[str, str], output: Path) -> list[str]:
    """The files in an output folder that are missing, differ, or should not be there."""
    found = read_files(output)
    stale = [name for name, text in files.items() if found.get(name) != text]
    return stale + [name for name in found if name not in files]


def write_files(files: Mapping[str, str], output: Path) -> list[str]:
    """Make an output folder hold these rendered files and no others; return what changed.

    Nothing is replaced before all is written: a full disk leaves everything as it was.
    """
    with _errors(f"The rendered project can't be written to {output}"):
        (output / ROUTES_FOLDER).mkdir(parents=True, exist_ok=True)
        with _alone_in(output):
            changed = stale_files(files, output)
            texts = {output / name: files[name] for name in changed if name in files}
            _replace_all(texts, output / ".new")
            for name in changed:
                if name not in files:
                    _remove(name, output)
            for path in (output / "traefik", output / ROUTES_FOLDER, *(output / n for n in files)):
                _make_readable(path)
    return changed


def _remove(name: str, output: Path) -> None:
    """With the folders that somebody made for it: Traefik reads them, but watches none inside."""
    (output / name).unlink()
    with suppress(OSError):  # something else is in there
        for folder in takewhile(lambda each: each != Path(ROUTES_FOLDER), Path(name).parents):
            (output / folder).rmdir()


def remove_routes(names: Iterable[str], output: Path) -> None:
    """Take away the ways to workspaces that are about to go, for the proxy to follow."""
    with _errors(f"The routes in {output} can't be removed"):
        for name in names:
            (output / ROUTES_FOLDER / f"{name}.yaml").unlink(missing_ok=True)


def have_routes_read(output: Path) -> None:
    """Have the proxy read its routes again, and with them the certificates that they name.

    It does when a file in its folder is replaced, whatever is in that.
    """
    path = output / SEEN_FILE
    with _errors(f"The routes in {output} can't be written"):
        write_file(path, path.read_text("utf-8"))
        _make_readable(path)


_IGNORE = "# dual's own. Nothing in here is worth keeping in git.\n*\n"


def write_ignore(folder: Path) -> None:
    """Keep a folder of dual's own out of git. Raises OSError."""
    ignored = folder / ".gitignore"
    if not ignored.exists():
        ignored.write_text(_IGNORE)


def write_file(path: Path, text: str) -> None:
    """Write one file, whole or not at all."""
    with _errors(f"{path} can't be written"):
        _replace_all({path: text}, path.with_name(f".{path.name}.new"))


@contextmanager
def _errors(summary: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        in_the_way = isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError)
        raise DualError(
            summary,
            why=f"{error.filename2 or error.filename or 'writing'}: {error.strerror}",
            mend="something else stands there: move it away"
            if in_the_way
            else "make the folder writable, or free space",
        ) from error


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Two that render at once would take each other's unfinished files away."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _replace_all(texts: Mapping[Path, str], staging: Path) -> None:
    """Write every text to a folder beside, see to it that it is on the disk, and move it.

    A process that is killed leaves that folder behind, and the next one clears it.
    """
    shutil.rmtree(staging, ignore_errors=True)
    if not texts:
        return
    try:
        staging.mkdir()
        for number, text in enumerate(texts.values()):
            with (staging / str(number)).open("w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                if len(texts) <= _FEW:
                    os.fsync(file.fileno())
        if len(texts) > _FEW:
            os.sync()  # a thousand times fsync takes longer than all the rest of a render
        for number, path in enumerate(texts):
            (staging / str(number)).replace(path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _make_readable(path: Path) -> None:
    """Traefik reads them as a user of its own, whatever the umask here, or of a git checkout."""
    mode = path.stat().st_mode
    wanted = mode | (0o055 if path.is_dir() else 0o044)
    if wanted != mode:
        path.chmod(wanted)
