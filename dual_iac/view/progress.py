"""What happens to each workspace, as it happens, on stderr."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from dual_iac.view import console

_ENDINGS = {"ready": ("✓", "green"), "removed": ("✓", "green"), "failed": ("✗", "red")}


class Progress:
    """A live line per workspace on a terminal; elsewhere a plain line per event.

    Call it with a name and what happens. Workspaces that are done scroll away upwards, so
    that a hundred of them don't need a hundred lines at once.
    """

    def __init__(self) -> None:
        self._console = console(stderr=True)
        self._now: dict[str, str] = {}
        self._started = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            # A new one each time: one that is started again clears what was printed since.
            self._live = Live(
                self._table(), console=self._console, transient=True, refresh_per_second=8
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def say(self, text: str) -> None:
        """Something that is about all of them."""
        self._console.print(text)

    def output(self, name: str, line: str) -> None:
        """A line that something prints in a workspace: it stays, above what goes on."""
        # Its colours, and no other control of the terminal.
        self._console.print(Text.assemble((f"{name} | ", "dim"), Text.from_ansi(line)))

    def __call__(self, name: str, event: str) -> None:
        if self._now.get(name) == event or (event == "ready" and name not in self._now):
            return  # nothing new, or somebody untouched who answers as ever
        self._now[name] = event
        mark, style = _ENDINGS.get(event, ("·", ""))
        seconds = f"{time.monotonic() - self._started:.1f}s"
        if self._live is None:
            self._console.print(f"{name}: {event} ({seconds})")
            return
        if event in _ENDINGS:
            line = Text.assemble(
                (f"{mark} ", style), (name, "bold"), f" {event} ", (seconds, "dim")
            )
            self._live.console.print(line)
            self._now.pop(name, None)
        self._live.update(self._table(), refresh=True)  # or what takes no time is never seen

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 1))
        room = max(self._console.size.height - 4, 5)
        for name, event in list(self._now.items())[:room]:
            table.add_row(Spinner("dots"), Text(name, "bold"), Text(event))
        if len(self._now) > room:
            table.add_row("", f"… and {len(self._now) - room} more")
        return table
