"""Starts, restarts and stops what is there: one workspace after another's pace, none in the way.

Unlike an apply, it doesn't ask what dual.yaml says now: a workspace consists of the containers that
it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from threading import Event
from typing import Protocol

from dual_iac.apply import in_order
from dual_iac.state import Observed, ObservedContainer, OnProgress, workspace_address


class Engine(Protocol):
    """What this needs of an engine."""

    def start(self, container: str) -> None: ...
    def restart(self, container: str) -> None: ...
    def stop(self, container: str) -> None: ...
    def unpause(self, container: str) -> None: ...
    def wait_until_healthy(self, container: str, given_up: Event) -> None: ...


def parts_of(observed: Observed, name: str) -> list[ObservedContainer]:
    """What a workspace consists of, as the parts need each other; or the one service of a name."""
    there = [each for address, each in observed.containers.items() if "#" not in address]
    if any(each.service == each.workspace == name for each in there):
        return in_order(each for each in there if each.workspace == name)
    return [each for each in there if each.service == name]


def start(
    parts: Sequence[ObservedContainer],
    engine: Engine,
    progress: OnProgress,
    ask: Callable[[str, str], None],
    given_up: Event,
    *,
    again: Iterable[str] = (),
) -> None:
    """Start what doesn't run, and whatever has lost the network that it shared.

    The services ``again`` are restarted where they run. ``ask`` is called before one with a setup
    starts. A workspace waits until its companions are healthy.
    """
    holder = next((part for part in parts if part.is_holder), None)
    for part in parts:
        if part.service == part.workspace:
            for companion in parts:
                if companion.has_healthcheck and companion is not part:
                    engine.wait_until_healthy(companion.id, given_up)
        if given_up.is_set():  # while it waited
            return
        # It keeps to the network that the holder had when it joined it.
        joins = part if part is holder else holder
        lost = joins is not None and (not joins.is_up or joins.instant > part.instant)
        if part.is_up and not lost and part.service not in again:
            continue
        if part.has_setup:
            ask(workspace_address(part.workspace), part.image_id)
        progress(part.service, "starting")
        if part.state == "paused":
            engine.unpause(part.id)
        elif part.is_up:
            engine.restart(part.id)
        else:
            engine.start(part.id)
        progress(part.service, "started")


def stop(parts: Sequence[ObservedContainer], engine: Engine, progress: OnProgress) -> None:
    """Stop all of them; the workspace itself first."""
    for part in reversed(parts):
        progress(part.service, "stopping")
        engine.stop(part.id)
        progress(part.service, "stopped")
