"""Plans, tables and errors as text or JSON. Prints; decides nothing.

JSON goes to stdout alone; progress and prose go to stderr, what was asked for to stdout.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console

# Text that is piped somewhere has no width to fit into.
_UNBOUNDED = 1000


def console(*, stderr: bool = False) -> Console:
    """Where text goes: in colour and fitted on a terminal, plain and whole elsewhere."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(
        file=stream,
        width=None if stream.isatty() else _UNBOUNDED,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
    )


def print_json(data: Any) -> None:
    json.dump(data, sys.stdout, indent=2, default=str)
    sys.stdout.write("\n")
