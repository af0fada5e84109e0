"""Carries out a Plan, in a fixed order, and decides nothing.

Interrupted at any point, running again converges: files are replaced whole, and whatever was
not reached yet is still in the next plan. Volumes are never touched.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from dual_iac.errors import DualError, EngineUnreachableError
from dual_iac.model import PROXY_SERVICE
from dual_iac.plan import Action, Change, Plan
from dual_iac.render import ROUTES_FOLDER
from dual_iac.state import (
    PROXY,
    Desired,
    Observed,
    ObservedContainer,
    ObservedNetwork,
    network_address,
)

OnProgress = Callable[[str, str], None]
"""Called with a workspace's name and what happens to it."""


class Engine(Protocol):
    """What applying needs of an engine."""

    def observe(self) -> Observed: ...
    def pull(self, image: str) -> None: ...
    def up(self, services: list[str], *, recreate: bool, progress: OnProgress) -> None: ...
    def take_down(
        self,
        containers: Iterable[ObservedContainer],
        networks: Iterable[ObservedNetwork],
        observed: Observed,
        progress: OnProgress,
    ) -> None: ...
    def check_port(self, bind: str, port: int) -> None: ...
    def start(self, container: str) -> None: ...
    def unpause(self, container: str) -> None: ...
    def connect(self, network: str, container: str, address: str) -> None: ...
    def disconnect(self, network: str, container: str) -> None: ...


def apply_plan(
    plan: Plan,
    desired: Desired,
    observed: Observed,
    engine: Engine,
    output: Path,
    progress: OnProgress,
) -> dict[str, DualError]:
    """Make it so; return the workspaces that the engine refused to start, and why.

    One workspace's failure leaves the others applied. Raises :class:`DualError` where all
    depend on what failed (an image, a file, a network, the proxy), and where somebody was
    touched whom the plan leaves out.
    """
    if not plan:
        return {}
    if Action.CREATE in (c.action for c in plan.changes if c.address == PROXY):
        bind, _, port = desired.published.rpartition(":")
        engine.check_port(bind, int(port))
    pull_missing(plan, desired, observed, engine, progress)
    write_files(desired.files, output)
    _remove(plan, observed, engine, progress)
    failed = _bring_up(plan, desired, observed, engine, progress)
    _attach(plan, desired, observed, engine)
    if PROXY_SERVICE in failed:
        raise failed[PROXY_SERVICE]
    check_untouched(plan, observed, engine.observe())
    return failed


def check_untouched(plan: Plan, before: Observed, after: Observed) -> None:
    """Whoever the plan leaves out must have kept container and start time.

    A guard, not a hope: raises :class:`DualError` that names who did not.
    """
    touched = []
    for address in plan.untouched:
        was, now = before.containers.get(address), after.containers.get(address)
        if was and (now is None or (was.id, was.started_at) != (now.id, now.started_at)):
            touched.append(f"{address}: {_life(was)} before, {_life(now) if now else 'gone'} now")
    if touched:
        raise DualError(
            "Containers changed that the plan had left out",
            why="\n".join(touched),
            mend="if nobody else restarted or replaced them meanwhile, please report this",
        )


def _life(container: ObservedContainer) -> str:
    return f"{container.id[:12]} started {container.started_at}"


def pull_missing(
    plan: Plan, desired: Desired, observed: Observed, engine: Engine, progress: OnProgress
) -> None:
    """Get the images that the engine doesn't have, before anything is touched.

    All are tried; raises :class:`DualError` with the workspaces whose image can't be had.
    """
    users: dict[str, list[str]] = {}
    for address in (change.address for change in plan.changes):
        container = desired.containers.get(address)
        if container and container.image not in observed.images:
            users.setdefault(container.image, []).append(container.service)

    def pull(image: str) -> str:
        for service in users[image]:
            progress(service, f"pulling {image}")
        try:
            engine.pull(image)
        except EngineUnreachableError:
            raise
        except DualError as error:
            return f"{image} (for {', '.join(users[image])}): {error.why}"
        return ""

    with ThreadPoolExecutor(4) as pool:
        failures = [failure for failure in pool.map(pull, sorted(users)) if failure]
    if failures:
        raise DualError(
            f"{len(failures)} image{'s' if len(failures) > 1 else ''} can't be had",
            why="\n".join(failures),
            mend="check the name, log in with docker login, or build it under that name; "
            "nothing was changed",
        )


def stale_files(files: Mapping[str, str], output: Path) -> list[str]:
    """The files in an output folder that are missing, differ, or should not be there."""
    stale = [name for name, text in files.items() if not _holds(output / name, text)]
    routes = sorted((output / ROUTES_FOLDER).glob("*.yaml"))
    extra = [name for path in routes if (name := _name(path, output)) not in files]
    return stale + extra


def write_files(files: Mapping[str, str], output: Path) -> list[str]:
    """Make an output folder hold these rendered files and no others; return what changed.

    Each file is replaced whole, so that neither Traefik nor a crash ever sees half of one.
    """
    try:
        (output / ROUTES_FOLDER).mkdir(parents=True, exist_ok=True)
        changed = stale_files(files, output)
        for name in changed:
            if name in files:
                _replace(output / name, files[name])
            else:
                (output / name).unlink()
        for path in (output / "traefik", output / ROUTES_FOLDER, *(output / n for n in files)):
            _readable(path)
    except OSError as error:
        raise DualError(
            f"The rendered project can't be written to {output}",
            why=f"{error.filename or output}: {error.strerror}",
            mend="make the folder writable, or free space",
        ) from error
    return changed


def _readable(path: Path) -> None:
    """Traefik reads them as a user of its own, whatever the umask here, or of a git checkout."""
    mode = path.stat().st_mode
    wanted = mode | (0o055 if path.is_dir() else 0o044)
    if wanted != mode:
        path.chmod(wanted)


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()


def _name(path: Path, output: Path) -> str:
    return path.relative_to(output).as_posix()


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise


def _remove(plan: Plan, observed: Observed, engine: Engine, progress: OnProgress) -> None:
    """Workspaces that are gone, and networks that are gone or move with all that is on them."""
    gone = plan.addresses("network", Action.DELETE, Action.REPLACE)
    names = {*plan.addresses("workspace", Action.DELETE), *gone}
    containers = [found for name in sorted(names) if (found := observed.workspace(name))]
    networks = [observed.networks[network_address(name)] for name in gone]
    if containers or networks:
        engine.take_down(containers, networks, observed, progress)


def _bring_up(
    plan: Plan, desired: Desired, observed: Observed, engine: Engine, progress: OnProgress
) -> dict[str, DualError]:
    failed: dict[str, DualError] = {}
    for action, recreate in ((Action.REPLACE, True), (Action.CREATE, False)):
        services = _services(plan, desired, action)
        if services:
            failed |= _up(services, recreate, engine, progress)
    for change in plan.changes:
        if change.action is Action.START:
            # The container that is there, as it is: Compose might make another one.
            found = observed.containers[change.address]
            progress(found.service, "starting")
            try:
                if found.state == "paused":
                    engine.unpause(found.id)
                else:
                    engine.start(found.id)
            except EngineUnreachableError:
                raise
            except DualError as error:
                progress(found.service, "failed")
                failed[found.service] = error
    return failed


def _up(
    services: list[str], recreate: bool, engine: Engine, progress: OnProgress
) -> dict[str, DualError]:
    """All at once, which is quick; where that fails, one by one, to tell who is to blame."""
    try:
        engine.up(services, recreate=recreate, progress=progress)
    except EngineUnreachableError:
        raise
    except DualError as error:
        if len(services) == 1:
            progress(services[0], "failed")
            return {services[0]: error}
        failed: dict[str, DualError] = {}
        for service in services:
            failed |= _up([service], recreate, engine, progress)
        return failed
    return {}


def _services(plan: Plan, desired: Desired, action: Action) -> list[str]:
    return [
        desired.containers[change.address].service
        for change in plan.changes
        if change.action is action and change.address in desired.containers
    ]


def _attach(plan: Plan, desired: Desired, observed: Observed, engine: Engine) -> None:
    """Networks of a proxy that stays: attached live, so that it never restarts for them."""
    gone = set(plan.addresses("network", Action.REPLACE, Action.DELETE))
    for change in plan.changes:
        if change.address != PROXY or change.action not in (Action.UPDATE, Action.START):
            continue
        for key, before, after in _network_reasons(change):
            ours = key.startswith("ws-")
            network = f"{desired.project}_{key}" if ours else key
            if before is not None and not (ours and key.removeprefix("ws-") in gone):
                engine.disconnect(network, observed.containers[PROXY].id)
            if after is not None:
                engine.connect(network, observed.containers[PROXY].id, after)


def _network_reasons(change: Change) -> list[tuple[str, str | None, str | None]]:
    return [
        (reason.field.removeprefix("networks."), reason.before, reason.after)
        for reason in change.reasons
        if reason.field.startswith("networks.")
    ]
