"""How much memory a command has resident at most, apart from what it starts.

``ru_maxrss`` can't tell: that of a command counts its children in, and a child's starts with what
its parent had when it forked. The high-water mark in ``/proc`` belongs to one program alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_MB = 1000**2


@dataclass
class Peaks:
    """In MB (of 1,000,000 bytes), as far as seen."""

    own: float = 0.0
    child: float = 0.0
    child_name: str = "none"

    def sample(self, pid: int) -> None:
        """Look at a process and all that descends from it."""
        with suppress(OSError):  # they may end at any time
            self.own = max(self.own, _high_water(pid))
            program = Path(f"/proc/{pid}/exe").readlink()
            for child in _descendants(pid):
                with suppress(OSError):
                    # Between fork and exec, a child still is its parent.
                    peak = _high_water(child)
                    if peak > self.child and Path(f"/proc/{child}/exe").readlink() != program:
                        self.child = peak
                        self.child_name = Path(f"/proc/{child}/comm").read_text().strip()


def _high_water(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / _MB
    return 0.0  # a process that has ended, and that nobody has waited for


def _descendants(pid: int) -> Iterator[int]:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            for child in (thread / "children").read_text().split():
                yield int(child)
                yield from _descendants(int(child))
