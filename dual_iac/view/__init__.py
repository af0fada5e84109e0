"""Plans, tables and errors as text or JSON. Prints; decides nothing.

JSON goes to stdout alone; progress and prose go to stderr, what was asked for to stdout.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

# Text that is piped somewhere has no width to fit into.
_UNBOUNDED = 1000


def console(*, stderr: bool = False) -> Console:
    """Where text goes: in colour and fitted on a terminal, plain and whole elsewhere."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(
        file=stream,
        width=None if stream is not None and stream.isatty() else _UNBOUNDED,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
    )


_CONTROLS = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def harmless(text: str) -> str:
    """A text of a file's, for a terminal: without what would move its cursor or turn its lines."""
    return _CONTROLS.sub("\ufffd", text)


def print_json(data: Any) -> None:
    json.dump(data, sys.stdout, indent=2, default=str)
    sys.stdout.write("\n")


def print_table(table: Table) -> None:
    """A table, without the blanks that pad its last column."""
    screen = console()
    if screen.is_terminal:
        screen.print(table)
        return
    with screen.capture() as capture:
        screen.print(table)
    for line in capture.get().splitlines():
        print(line.rstrip())


def format_bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
