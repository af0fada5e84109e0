"""dual.yaml → Project, or every problem in it at once, each with its line and column."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dual_iac import document, seal
from dual_iac.document import Key, Node
from dual_iac.envfile import expand_home, read_env_file
from dual_iac.errors import Problem, SpecError, UsageError
from dual_iac.interpolation import (
    InterpolationError,
    has_references,
    starts_with_reference,
    substitute,
)
from dual_iac.model import Found, Project, Spec, WorkspaceSettings, conflicts, project_of

FILE_NAME = "dual.yaml"
_START = "start one with: dual init"


def find_spec(start: Path) -> Path:
    """The dual.yaml in ``start`` or in the nearest parent that has one.

    Raises :class:`UsageError` when there is none.
    """
    for folder in (start, *start.parents):
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
    raise UsageError(
        f"No {FILE_NAME} here",
        why=f"looked in {start} and all its parents",
        mend=f"name the file with dual -f FILE, or {_START}",
    )


def load_project(path: Path, *, check_host: bool = False, targets: Collection[str] = ()) -> Project:
    """Read and validate a spec.

    ``check_host`` also asks whether the files it names exist on this machine, and of folders,
    with ``targets``, those of these workspaces. Raises :class:`SpecError` with all problems,
    :class:`UsageError` if there is no such file.
    """
    folder = path.absolute().parent
    return parse_project(_read(path), _shown(path), folder, check_host=check_host, targets=targets)


def parse_project(
    text: str,
    file: str,
    folder: Path | None = None,
    *,
    check_host: bool = False,
    targets: Collection[str] = (),
) -> Project:
    """As :func:`load_project`, from text; ``file`` is its name in messages.

    Without the ``folder`` that it stands in, nothing is asked about files of this machine.
    """
    root, problems = document.parse(text)
    if root is None or root.value in (None, {}):
        empty = Problem(1, 1, "", "the file declares nothing", mend=_START)
        raise SpecError(file, problems or [empty], text)
    if not isinstance(root.value, dict):
        what = "the file must be a map of keys: version, project, workspaces"
        raise SpecError(file, [*problems, root.problem([], what, mend=_START)], text)

    tree = _with_defaults(root)
    if tree.size > (most := document.may_unfold(text)):
        what = f"defaults unfold to more than {most:,} values"
        raise SpecError(file, [*problems, root.problem(["defaults"], what)], text)
    spec, broken = _validate(tree)
    problems += broken
    if spec is not None:
        found = [*conflicts(spec)]
        if folder is not None:
            found += _laid_open(spec, folder)
        if folder is not None and check_host:
            found += _missing_on_host(spec, folder, targets)
        problems += [tree.problem(*each) for each in found]
    if problems or spec is None:
        raise SpecError(file, _distinct(problems), text)
    return project_of(spec)


def environment(folder: Path) -> dict[str, str]:
    """The variables that ``${VAR}`` sees: this process's, over those of ``folder``'s .env.

    ``DUAL_USER`` is there besides, where files of a bind mount should be this user's.
    """
    return {**_host_user(), **read_env_file(folder / ".env", os.environ), **os.environ}


def _host_user() -> dict[str, str]:
    """Who a workspace runs as, if dual.yaml doesn't say: whoever runs dual, on Linux.

    Elsewhere, Docker Desktop makes files the user's own anyway; so does a rootless engine, whose
    root is the user. And root is most images' own choice.
    """
    host = os.environ.get("DOCKER_HOST", "")
    rootless = "/run/user/" in host or not (host or Path("/var/run/docker.sock").exists())
    if sys.platform != "linux" or os.getuid() == 0 or rootless:
        return {}
    return {"DUAL_USER": f"{os.getuid()}:{os.getgid()}"}


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"No such file: {path}", mend=_START) from None
    except OSError as error:
        raise UsageError(f"{path} can't be read", why=error.strerror or str(error)) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig", errors="replace")
        line, column = document.place_after(before)
        what = "not UTF-8 text"
        why = f"byte 0x{data[error.start]:02x}: {error.reason}"
        raise SpecError(_shown(path), [Problem(line, column, "", what, why)]) from None


def _shown(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def _with_defaults(root: Node) -> Node:
    """The document with ``defaults`` merged under every workspace, positions kept."""
    defaults, workspaces = root.value.get("defaults"), root.value.get("workspaces")
    if workspaces is None or not isinstance(workspaces.value, dict):
        return root
    merged = {name: document.merged(defaults, node) for name, node in workspaces.value.items()}
    size = root.size - workspaces.size + sum(node.size for node in merged.values())
    workspaces = replace(workspaces, value=merged)
    return replace(root, value={**root.value, "workspaces": workspaces}, size=size)


def _validate(tree: Node) -> tuple[Spec | None, list[Problem]]:
    """The spec, and what is wrong with it.

    With problems, the spec is made of the parts that are sound, so that what only shows
    between parts (two workspaces with one host) is found in the same run; None if that is
    not possible either.
    """
    data = tree.plain()
    try:
        return Spec.model_validate(data), []
    except ValidationError as error:
        details = error.errors()
    problems = [_problem(detail, tree) for detail in details]
    for section, *rest in (detail["loc"] for detail in details if detail["loc"]):
        if section == "workspaces" and rest and isinstance(data.get(section), dict):
            data[section].pop(rest[0], None)
        else:
            data.pop(section, None)
    try:
        sound = {"version": 1, "project": "x", "workspaces": {}, **data}
        return Spec.model_validate(sound), problems
    except ValidationError:
        return None, problems


_EXPECTED = {
    "model_type": "a map of keys",
    "model_attributes_type": "a map of keys",
    "mapping_type": "a map of keys",
    "dict_type": "a map of keys",
    "tuple_type": "a list",
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
}


def _problem(detail: ErrorDetails, tree: Node) -> Problem:
    """One of pydantic's errors in this file's terms."""
    path: list[Key] = [key for key in detail["loc"] if key != "[key]"]
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "dual":
        problem = tree.problem(path, context["what"], context["why"], context["mend"])
        return replace(problem, secret=context["secret"])
    if kind == "missing":
        what, mend = f"{path[-1]} is missing", f"add {path[-1]}: {_EXAMPLES.get(path[-1], '…')}"
        return tree.problem(path, what, mend=mend)
    if kind == "extra_forbidden":
        return tree.problem(path, f"unknown key {path[-1]!r}", *_known_keys(path))
    if kind in _EXPECTED:
        return tree.problem(path, f"expected {_EXPECTED[kind]}, found {_found(tree, path)}")
    if kind == "literal_error":
        expected = context["expected"]
        return tree.problem(
            path, f"{detail['input']!r} is not known here", mend=f"write {expected}"
        )
    message = detail["msg"]
    return tree.problem(path, f"{detail['input']!r}: {message[:1].lower()}{message[1:]}")


_EXAMPLES: dict[Key, str] = {
    "version": "1",
    "project": "a name such as shop",
    "workspaces": "a map of names to workspaces",
    "image": "an image such as node:22-slim",
    "users": "a map of names to password hashes",
}


def _found(tree: Node, path: list[Key]) -> str:
    value = tree.at(path)[0].value
    if isinstance(value, dict):
        return "a map of keys"
    if isinstance(value, list):
        return "a list"
    return "nothing" if value is None else repr(value)


def _known_keys(path: list[Key]) -> tuple[str, str]:
    """Why a key is unknown, and what to write instead."""
    why, mend = _nearest(tuple(_keys_of(path[:-1])), str(path[-1]))
    if path[-1] == "name" and path[0] == "workspaces" and len(path) == 3:
        return why, "a workspace's name is its key under workspaces:"
    return why, mend


@lru_cache(maxsize=1024)
def _nearest(known: tuple[str, ...], unknown: str) -> tuple[str, str]:
    """Kept, as what is unknown under defaults is so in every workspace."""
    why = f"the keys here are {', '.join(known)}"
    nearest = difflib.get_close_matches(unknown.lower().replace("-", "_"), known, 1, 0.6)
    meant = _SYNONYMS.get(unknown) or (nearest[0] if nearest else None)
    return why, f"did you mean {meant}?" if meant in known else "remove it"


_SYNONYMS = {
    "name": "project",
    "environment": "env",
    "branches": "workspaces",
    "mem_limit": "resources",
    "ports": "proxy",
    "domains": "hosts",
    "cmd": "command",
    "run": "command",
    "mounts": "volumes",
    "limits": "resources",
}


def _keys_of(path: list[Key]) -> list[str]:
    """The keys that the models know at a path."""
    kinds: list[Any] = [Spec]
    for key in path:
        below = []
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                if key in kind.model_fields:
                    below.append(kind.model_fields[str(key)].annotation)
            elif get_origin(kind) is Mapping:
                below.append(get_args(kind)[1])
        kinds = [kind for each in below for kind in _alternatives(each)]
    models = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
    return [name for model in models for name in model.model_fields]


def _alternatives(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, UnionType):
        return list(get_args(annotation))
    return [annotation]


def _secrets(settings: WorkspaceSettings) -> Iterator[tuple[tuple[Key, ...], Mapping[str, str]]]:
    """The secrets of a workspace and of its companions, and where they stand."""
    yield ("secrets",), settings.secrets
    for name, companion in settings.services.items():
        yield ("services", name, "secrets"), companion.secrets


def _laid_open(spec: Spec, folder: Path) -> Iterator[Found]:
    """Folders and files that a container would mount, and that are the system's own.

    Those with variables in them are looked at when they are rendered.
    """
    for name, settings in spec.workspaces.items():
        mounted: list[tuple[tuple[Key, ...], str, Collection[str]]] = []
        if settings.source and settings.source.path:
            mounted.append((("source", "path"), settings.source.path, settings.allow))
        for at, secrets in _secrets(settings):
            owner = settings.services[str(at[1])] if len(at) > 1 else settings
            mounted += [((*at, each), path, owner.allow) for each, path in secrets.items()]
        for path, text, allow in mounted:
            if has_references(text):
                continue
            try:
                place = os.path.realpath(folder / Path(text.replace("$$", "$")).expanduser())
            except RuntimeError:  # somebody's home who isn't known here
                continue
            if not seal.is_granted(place, allow) and (why := seal.system_folder(place)):
                where = ("workspaces", name, *path)
                what = f"{text} is not for a workspace to have"
                yield where, what, why, f"if it must be, name it: allow: [{place}]"


def _missing_on_host(spec: Spec, folder: Path, targets: Collection[str]) -> Iterator[Found]:
    """Files and folders that the spec names, and this machine doesn't have.

    A folder matters to its own workspace alone; without an env_file, Compose refuses them all.
    """
    variables = environment(folder)
    for name, settings in spec.workspaces.items():
        paths: list[tuple[tuple[Key, ...], str, str]] = []
        asked = not targets or name in targets
        if settings.source and settings.source.path and asked:
            paths.append((("source", "path"), settings.source.path, "folder"))
        if settings.build and asked:
            folder_of, file = settings.build.context, settings.build.dockerfile
            paths.append((("build", "context"), folder_of, "folder"))
            if (folder / folder_of).is_dir():
                paths.append((("build", "dockerfile"), f"{folder_of}/{file}", "file"))
        for index, env_file in enumerate(settings.env_file):
            paths.append((("env_file", index), env_file, "file"))
        for at, secrets in _secrets(settings) if asked else ():
            paths += [((*at, each), path, "file") for each, path in secrets.items()]
        for path, text, kind in paths if settings.enabled else ():
            where = ("workspaces", name, *path)
            try:
                place = expand_home(substitute(text, variables))
            except InterpolationError as error:
                yield where, str(error), "", "set it, or give it a default: ${NAME:-default}"
                continue
            if starts_with_reference(text) and not place.is_absolute():
                what = "a path that starts with a variable must come out absolute"
                yield where, what, "", "put ./ before it, if it starts from dual.yaml's folder"
            elif not _is_there(folder / place, kind):
                # Where it looked is told only as far as the spec itself does: a variable may
                # hold what nobody else should read.
                yield where, f"no such {kind}: {text}", "", f"make the {kind}, or name another"


def _is_there(path: Path, kind: str) -> bool:
    try:
        return path.is_dir() if kind == "folder" else path.is_file()
    except OSError:  # a name that is too long, say
        return False


def _distinct(problems: Iterable[Problem]) -> list[Problem]:
    """One problem a place: what is wrong under defaults is wrong in every workspace."""
    first: dict[tuple[int, int, str], Problem] = {}
    for problem in sorted(problems, key=lambda p: (not p.key.startswith("defaults"), p.key)):
        first.setdefault((problem.line, problem.column, problem.what), problem)
    return list(first.values())
