"""The state of each workspace, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from dual_iac.view import format_bytes

_STYLES = {
    "running": "green",
    "ready": "green",
    "healthy": "green",
    "disabled": "dim",
    "missing": "red",
    "restarting": "red",
    "not ready": "yellow",
    "setting up": "yellow",
    "unhealthy": "red",
}


@dataclass(frozen=True)
class ServiceStatus:
    """A companion: ``health`` is what its healthcheck says, None where it has none."""

    name: str
    state: str
    health: str | None
    container: str | None
    image: str


@dataclass(frozen=True)
class WorkspaceStatus:
    """One row. ``state`` is Docker's, or missing, or disabled.

    ``health`` is ready or not ready (does it answer through the proxy?), or what the image's
    own health check says when that is worse, or how a setup goes; None where nothing runs.
    ``cpu_percent`` is of one CPU; ``memory_bytes`` what it holds; both None where nothing runs.
    ``services`` are its companions. ``branch`` and
    ``dirty`` are what git says of the source, None where it is no working copy; ``ahead`` and
    ``behind`` count commits, None where the branch follows none.
    """

    name: str
    state: str
    health: str | None
    url: str
    container: str | None
    image: str
    started_at: str | None
    exit_code: int | None = None
    branch: str | None = None
    dirty: bool | None = None
    ahead: int | None = None
    behind: int | None = None
    cpu_percent: float | None = None
    memory_bytes: int | None = None
    services: tuple[ServiceStatus, ...] = ()

    @property
    def is_running(self) -> bool:
        return self.state == "running"


def status_data(project: str, rows: Sequence[WorkspaceStatus]) -> dict[str, Any]:
    return {"project": project, "workspaces": [asdict(row) for row in rows]}


def status_table(rows: Sequence[WorkspaceStatus], now: datetime | None = None) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    with_branch = any(row.dirty is not None for row in rows)
    columns = ["WORKSPACE", "STATE", "HEALTH", "URL", "IMAGE", "UP", "CPU", "MEMORY"]
    if with_branch:
        columns.insert(4, "BRANCH")
    for column in columns:
        right = column in ("UP", "CPU", "MEMORY")
        table.add_column(column, justify="right" if right else "left", no_wrap=column != "IMAGE")
    for row in rows:
        table.add_row(
            Text(row.name),
            _styled(_state(row)),
            _styled(row.health or "-"),
            Text(row.url),
            *([_branch(row)] if with_branch else []),
            Text(row.image),
            _uptime(row, now or datetime.now(UTC)),
            "-" if row.cpu_percent is None else f"{row.cpu_percent:.0f}%",
            "-" if row.memory_bytes is None else format_bytes(row.memory_bytes),
        )
        for service in row.services:
            table.add_row(
                Text(f"  {service.name}"),
                _styled(service.state),
                _styled(service.health or "-"),
                "",
                *([""] if with_branch else []),
                Text(service.image),
            )
    return table


@dataclass(frozen=True)
class Volume:
    """A volume; ``target`` is where dual.yaml has it mounted, None where it doesn't any more."""

    workspace: str
    name: str
    target: str | None


def volumes_data(project: str, rows: Sequence[Volume]) -> dict[str, Any]:
    return {"project": project, "volumes": [asdict(row) for row in rows]}


def volumes_table(rows: Sequence[Volume]) -> Table:
    table = Table("WORKSPACE", "VOLUME", "AT", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(row.workspace, row.name, row.target or Text("not declared any more", "dim"))
    return table


def _branch(row: WorkspaceStatus) -> Text:
    """A branch, as prompts of shells show it: with a star for changes, and arrows for commits."""
    if row.dirty is None:
        return Text("-")
    text = Text(row.branch or "(detached)")
    if row.dirty:
        text.append("*", "yellow")
    for arrow, count in (("↑", row.ahead), ("↓", row.behind)):
        if count:
            text.append(f" {arrow}{count}", "yellow")
    return text


def _state(row: WorkspaceStatus) -> str:
    return f"exited ({row.exit_code})" if row.state == "exited" else row.state


def _styled(text: str) -> Text:
    return Text(
        text, style=_STYLES.get(text, "red" if text.startswith(("exited", "setup")) else "")
    )


def _uptime(row: WorkspaceStatus, now: datetime) -> str:
    if row.state != "running" or row.started_at is None:
        return "-"
    # Docker writes nanoseconds, which datetime does not read.
    started = datetime.fromisoformat(row.started_at[:19] + "+00:00")
    seconds = max(int((now - started).total_seconds()), 0)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
