"""``dual exec``, without all that other commands need: half of its time would go into imports.

It takes only what it understands without a doubt. Anything else (an option it doesn't know, a
dual.yaml that changed, a container that doesn't run) goes the long way, which can also explain it.
"""

from __future__ import annotations

import os
import sys

from dual_iac.inside.command import execute, place_inside
from dual_iac.inside.record import recall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_LONG_WAY = "DUAL_EXEC_LONG_WAY"
_SPEC = {"-f": "file", "--file": "file", "--context": "context"}
_OF_EXEC = {
    **{"-e": "env", "--env": "env", "-w": "workdir", "--workdir": "workdir"},
    **{"-u": "user", "--user": "user"},
}

_NO_TTY = ("-T", "--no-tty")


def attempt(arguments: Sequence[str]) -> None:
    """Become the command that ``dual exec …`` names, if that can be told at once."""
    if os.environ.get(_LONG_WAY):
        return
    before, rest = _options(arguments, _SPEC)
    if rest[:1] != ["exec"]:
        return
    options, words = _options(rest[1:], _OF_EXEC, flags=_NO_TTY)
    name, command = words[:1], words[1:]
    command = command[1:] if command[:1] == ["--"] else command
    variables = [each.partition("=") for each in options.get("env", [])]
    if (
        not name
        or name[0].startswith("-")
        or not command
        or not all(v[0] and v[1] for v in variables)
    ):
        return
    spec = _spec(before.get("file", [""])[-1])
    known = recall(spec, name[0]) if spec else None
    if known is None:
        return
    container, source = known
    execute(
        container,
        command,
        env={variable: value for variable, _, value in variables},
        workdir=options.get("workdir", [place_inside(source, os.getcwd())])[-1],
        user=options.get("user", [""])[-1],
        tty=not any(flag in options for flag in _NO_TTY),
        context=before.get("context", [None])[-1],
        retry=_again(arguments),
    )


def _options(
    arguments: Sequence[str], known: dict[str, str], flags: Sequence[str] = ()
) -> tuple[dict[str, list[str]], list[str]]:
    """The values of the options in front, by their names here, flags as they are; and the rest."""
    options: dict[str, list[str]] = {}
    rest = list(arguments)
    while rest:
        if rest[0] in known and len(rest) > 1:
            options.setdefault(known[rest.pop(0)], []).append(rest.pop(0))
        elif rest[0] in flags:
            options[rest.pop(0)] = []
        else:
            break
    return options, rest


def _spec(given: str) -> str:
    """The absolute path of the dual.yaml; empty if there is none."""
    if given:
        path = os.path.abspath(given)
        return f"{path}/dual.yaml" if os.path.isdir(path) else path
    folder = os.getcwd()
    while not os.path.exists(f"{folder}/dual.yaml"):
        if folder == "/":
            return ""
        folder = os.path.dirname(folder)
    return f"{folder.rstrip('/')}/dual.yaml"


def _again(arguments: Sequence[str]) -> str:
    """The same command line, to go the long way."""
    words = ["env", f"{_LONG_WAY}=1", sys.executable, "-m", "dual_iac", *arguments]
    return " ".join("'" + word.replace("'", "'\\''") + "'" for word in words)
