"""``${VAR}`` as Compose means it.

Values go into the rendered file as they stand, references and all, and Compose substitutes
them. dual checks them when it reads the spec, and substitutes them itself only to compare
with what runs.

Grammar (https://docs.docker.com/reference/compose-file/interpolation/)::

    $$                   a dollar sign
    $VAR  ${VAR}         the value, or nothing
    ${VAR:-default}      default if unset or empty      ${VAR-default}      if unset
    ${VAR:?message}      an error if unset or empty     ${VAR?message}      if unset
    ${VAR:+replacement}  replacement if set, not empty  ${VAR+replacement}  if set

Defaults, messages and replacements may hold references of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR = re.compile(r":?[-?+]")

MAX_DEPTH = 32
"""How deep references may stand in the defaults of others."""


class InterpolationError(ValueError):
    """A ``$`` that Compose would not understand, or a required variable that is missing."""


def has_references(text: str) -> bool:
    """Whether ``text`` means something else than it says, ``$$`` aside."""
    return "$" in text.replace("$$", "")


def starts_with_reference(text: str) -> bool:
    """Whether a variable decides how ``text`` begins: whether a path is absolute, say."""
    return text.startswith("$") and not text.startswith("$$")


def escape(text: str) -> str:
    """``text`` written so that Compose reads back exactly it."""
    return text.replace("$", "$$")


def unescape(text: str) -> str:
    """What :func:`escape` was given."""
    return text.replace("$$", "$")


def check(text: str) -> str:
    """What is sure of ``text``: all but its references, as if they stood for nothing.

    Raises :class:`InterpolationError` where Compose would refuse it.
    """
    return _substitute(text, None)


def substitute(text: str, environment: Mapping[str, str]) -> str:
    """``text`` as Compose would hand it on.

    Raises :class:`InterpolationError` for a ``${VAR:?message}`` whose variable is missing.
    """
    return _substitute(text, environment)


def _substitute(text: str, environment: Mapping[str, str] | None) -> str:
    """Without an environment: check the syntax alone, and all branches of it."""
    out: list[str] = []
    at = 0
    while (dollar := text.find("$", at)) >= 0:
        out.append(text[at:dollar])
        after = text[dollar + 1 : dollar + 2]
        if after == "$":
            out.append("$")
            at = dollar + 2
        elif after == "{":
            end = _closing_brace(text, dollar + 2)
            out.append(_braced(text[dollar + 2 : end], environment))
            at = end + 1
        elif name := _NAME.match(text, dollar + 1):
            out.append((environment or {}).get(name.group(), ""))
            at = name.end()
        else:
            raise InterpolationError(f"a lone $ before {after!r}" if after else "a lone $")
    out.append(text[at:])
    return "".join(out)


def _closing_brace(text: str, start: int) -> int:
    depth = 1
    at = start
    while at < len(text):
        if text.startswith("${", at):
            depth += 1
            if depth > MAX_DEPTH:
                raise InterpolationError(f"references nested more than {MAX_DEPTH} levels deep")
            at += 1
        elif text[at] == "}":
            depth -= 1
            if depth == 0:
                return at
        at += 1
    raise InterpolationError("a ${ that is never closed")


def _braced(inside: str, environment: Mapping[str, str] | None) -> str:
    name = _NAME.match(inside)
    if name is None:
        raise InterpolationError(f"${{{inside}}} does not start with a variable's name")
    rest = inside[name.end() :]
    if not rest:
        return (environment or {}).get(name.group(), "")
    operator = _OPERATOR.match(rest)
    if operator is None:
        raise InterpolationError(f"${{{inside}}} has {rest[0]!r} where :- :? or :+ may stand")
    argument = rest[operator.end() :]
    if environment is None:
        if operator.group()[-1] != "?":
            _substitute(argument, None)
        return ""
    value = environment.get(name.group())
    present = bool(value) if operator.group().startswith(":") else value is not None
    match operator.group()[-1]:
        case "-":
            return value or "" if present else _substitute(argument, environment)
        case "+":
            return _substitute(argument, environment) if present else ""
        case _:
            if not present:
                message = argument or "required, but not set"
                raise InterpolationError(f"variable {name.group()}: {message}")
            return value or ""
