"""What can go wrong, as data: a summary, why, and the edit or command that mends it.

One boundary (``dual_iac.cli.main``) catches :class:`DualError`, prints it and exits with its
code. A subclass exists only where a caller acts on it, or where the exit code differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

ENGINE_REFUSED = "Docker reports a failure"
"""The summary where nothing is known but what Docker itself says."""


class DualError(Exception):
    """Something the user can understand and mend.

    ``summary`` is one constant-looking sentence, ``why`` the circumstances (may have several
    lines), ``mend`` the command or edit that helps.
    """

    kind: ClassVar[str] = "failed"
    exit_code: ClassVar[int] = 1

    def __init__(self, summary: str, *, why: str = "", mend: str = "") -> None:
        super().__init__(summary)
        self.summary = summary
        self.why = why
        self.mend = mend

    @property
    def brief(self) -> str:
        """Why, after the summary where that says more than that the engine refused."""
        if not self.why or self.summary == ENGINE_REFUSED:
            return self.why or self.summary
        return f"{self.summary}: {self.why}"


class UsageError(DualError):
    """The command line asks for something that can't be meant."""

    kind = "usage"
    exit_code = 64


class EngineUnreachableError(DualError):
    """No Docker client, no Compose, or no engine that answers."""

    kind = "engine-unreachable"
    exit_code = 69


class UnhealthyError(DualError):
    """A companion that does not come up: whoever waited for it need not do so again."""


class LockedError(DualError):
    """Somebody else is changing the same project on the same engine."""

    kind = "locked"
    exit_code = 75


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a spec file.

    ``line`` and ``column`` count from 1. ``key`` is the path of keys to the place, such as
    ``workspaces.feat-auth.image``; empty for the document as a whole.
    """

    line: int
    column: int
    key: str
    what: str
    why: str = ""
    mend: str = ""
    secret: bool = False
    """Whether what stands there may be a password, and is not to be shown."""


class InvalidError(DualError):
    """What dual.yaml, or a template of the user's own, declares is not to be."""

    kind = "invalid-spec"
    exit_code = 65


class SpecError(InvalidError):
    """A dual.yaml that can't be used: every problem in it at once, in the order of the file."""

    def __init__(self, file: str, problems: Sequence[Problem], text: str = "") -> None:
        self.file = file
        self.problems = tuple(sorted(problems, key=lambda p: (p.line, p.column, p.key, p.what)))
        self.lines = tuple(text.splitlines())
        count = len(self.problems)
        super().__init__(f"{file} has {count} problem{'s' if count != 1 else ''}")
