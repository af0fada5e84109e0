"""A command's text → its words, as Compose splits it.

Nearly as a shell does, but no shell runs: Compose gives up the rest of a command at a ``;``, ``&``,
``|``, ``<`` or ``>`` without saying so, and refuses or passes on what a shell would run in
parentheses and backquotes. Such a text is refused here. Otherwise, within single quotes everything
stands for itself; elsewhere, a backslash takes the next character as it is, and ``\\n`` and ``\\t``
are a new line and a tab.
"""

from __future__ import annotations

import re
from functools import lru_cache

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
      | (?P<plain>[^ \t\r\n'"\\;&|<>()`]+)
      | '(?P<single>[^']*)'
      | "(?P<double>(?:[^"\\]|\\.)*)"
      | \\(?P<escaped>.)""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t"}


@lru_cache(maxsize=64)
def split(text: str) -> tuple[str, ...]:
    """The words of a command. Raises ValueError where Compose would not read all of it.

    Kept, as most workspaces run the same.
    """
    words: list[str] = []
    word: list[str] | None = None
    at = 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            character = text[at]
            if character in "'\"":
                raise ValueError("no closing quotation")
            if character == "\\":
                raise ValueError("no escaped character")
            raise ValueError(f"no shell runs that would know what {character} means")
        at = token.end()
        kind = token.lastgroup
        if kind == "space":
            if word is not None:
                words.append("".join(word))
            word = None
            continue
        part = token[kind or 0]
        if kind == "double":
            part = _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), part)
        elif kind == "escaped":
            part = _ESCAPED.get(part, part)
        word = word or []
        word.append(part)
    if word is not None:
        words.append("".join(word))
    return tuple(words)
