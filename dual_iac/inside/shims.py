"""Shims: files in PATH that run commands of a workspace in it, and the shell code that puts them
there and takes them away again.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

from dual_iac.inside.command import SCRIPT
from dual_iac.output import write_file

COMMANDS = ("npm", "pnpm", "yarn", "bun", "npx", "node", "python", "pip", "curl", "make")
"""What runs in the workspace by default."""


class Shell(StrEnum):
    """A kind of shell code; ``sh`` does for every POSIX shell."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"
    SH = "sh"


def write_shims(
    folder: Path,
    *,
    name: str,
    container: str,
    source: str,
    commands: Iterable[str] = (),
    context: str | None = None,
) -> None:
    """Make a folder hold the shims of one workspace, and nothing else. They need no Python.

    ``source`` is the folder that is mounted at /workspace, or empty; ``context`` is a Docker
    context.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"name": name, "container": container, "source": _stem(source)}
    text = "".join(f"{key}={shlex.quote(value)}\n" for key, value in settings.items())
    if context:
        text += f"export DOCKER_CONTEXT={shlex.quote(context)}\nunset DOCKER_HOST\n"
    write_file(folder / ".workspace", text)
    write_file(folder / ".run.sh", Path(SCRIPT).read_text("utf-8"))
    write_file(folder / ".shim", Path(SCRIPT).with_name("shim.sh").read_text("utf-8"))
    (folder / ".shim").chmod(0o755)
    wanted = {*COMMANDS, *commands}
    for path in folder.iterdir():
        if path.name not in wanted and not path.name.startswith("."):
            path.unlink()
    for command in wanted:
        if not (folder / command).is_symlink():
            (folder / command).symlink_to(".shim")


def _stem(source: str) -> str:
    """The folder, as it is without links; nothing lies below one that isn't there."""
    return str(Path(source).resolve()).rstrip("/") if source else "/dev/null"


def activation(shell: Shell, folder: Path, name: str) -> str:
    """Code that puts a folder of shims first in PATH, in place of another one of dual's."""
    if shell is Shell.FISH:
        return (
            f"{_FISH_OFF}\n"
            f"set -gx DUAL_SHIMS {_fish(str(folder))}\n"
            f"set -gx DUAL_WORKSPACE {_fish(name)}\n"
            "set -gx PATH $DUAL_SHIMS $PATH\n"
            f"function deactivate\n{_FISH_OFF}\nfunctions -e deactivate\nend\n"
        )
    quoted = shlex.quote(str(folder))
    return (
        f"{_OFF}\n"
        f"export DUAL_SHIMS={quoted}\n"
        f"export DUAL_WORKSPACE={shlex.quote(name)}\n"
        'export PATH="$DUAL_SHIMS:$PATH"\n'
        # A virtual environment's deactivate is not ours to take away.
        f"dual_deactivate() {{\n{_OFF}\nunset -f dual_deactivate\n}}\n"
        'case "$(type deactivate 2>/dev/null)" in\n'
        "*function*) ;;\n"
        "*) deactivate() { dual_deactivate; unset -f deactivate; } ;;\nesac\n"
    )


def deactivation(shell: Shell) -> str:
    """Code that undoes :func:`activation`."""
    return f"{_FISH_OFF if shell is Shell.FISH else _OFF}\n"


_OFF = """\
case ":$PATH:" in
*":${DUAL_SHIMS:--}:"*)
PATH=":$PATH:"
PATH="${PATH%%":$DUAL_SHIMS:"*}:${PATH#*":$DUAL_SHIMS:"}"
PATH="${PATH#:}"
export PATH="${PATH%:}"
;;
esac
unset DUAL_SHIMS DUAL_WORKSPACE"""

_FISH_OFF = """\
if set -q DUAL_SHIMS
set -gx PATH (string match -v -- $DUAL_SHIMS $PATH)
set -e DUAL_SHIMS
set -e DUAL_WORKSPACE
end"""


def _fish(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
