"""Carries out a Plan, in a fixed order, and decides nothing.

Interrupted at any point, running again converges: files are replaced whole, and whatever was
not reached yet is still in the next plan. Volumes are never touched.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Event, Semaphore
from typing import Protocol

from dual_iac.errors import DualError, EngineUnreachableError, UnhealthyError
from dual_iac.fingerprint import moved, observed_fingerprint
from dual_iac.model import HOLDER, PROXY_SERVICE, SETUP_INSIDE
from dual_iac.output import (
    ROUTES_FOLDER,
    SEEN_FILE,
    STATIC_FILE,
    have_routes_read,
    write_files,
)
from dual_iac.plan import HIDDEN, RESTARTED, Action, Change, Plan, make_plan
from dual_iac.ports import port_clashes
from dual_iac.state import (
    ENV_FILE,
    PROXY,
    Desired,
    DesiredBuild,
    DesiredCertificate,
    DesiredClone,
    DesiredContainer,
    Observed,
    ObservedContainer,
    ObservedImage,
    ObservedNetwork,
    OnProgress,
    companion_address,
    network_address,
    route_address,
    source_address,
    workspace_address,
    workspace_of,
)

Failures = dict[str, DualError]
"""What went wrong, by address."""

_TASK_EXISTS = re.compile(r"task \w+: already exists")

_TELLING = 3  # characters from which on a value counts as a secret: a text has many a "1" in it
_STARTS = 4  # at once: more gain nothing, the kernel makes network interfaces one by one
_WAITS = 32  # workspaces at once whose companions are waited for
_STOPS = 32  # at once: a command may take ten seconds to end, and nobody waits for another's
_PULLS = 4


class Engine(Protocol):
    """What applying needs of an engine."""

    def observe(self, images: Iterable[str] = ()) -> Observed: ...
    def pull(self, image: str) -> None: ...
    def build(self, image: str, wanted: DesiredBuild, say: Callable[[str], None]) -> None: ...
    def create(self, services: list[str], progress: OnProgress) -> None: ...
    def check_port(self, bind: str, port: int, held: str = "") -> None: ...
    def check_subnets(self, subnets: Iterable[str], going: Iterable[str]) -> None: ...
    def volumes(self) -> Mapping[str, str]: ...
    def own(self, container: str, user: str, folders: Iterable[str]) -> None: ...
    def images(self, names: Iterable[str]) -> Mapping[str, ObservedImage]: ...
    def start(self, container: str) -> None: ...
    def restart(self, container: str) -> None: ...
    def wait_until_healthy(self, container: str, given_up: Event) -> None: ...
    def unpause(self, container: str) -> None: ...
    def rename(self, container: str, name: str) -> None: ...
    def remove(self, container: str) -> None: ...
    def connect(self, network: str, container: str, address: str) -> None: ...
    def disconnect(self, network: str, container: str) -> None: ...
    def remove_network(self, network: str) -> None: ...


def apply_plan(
    plan: Plan,
    desired: Desired,
    observed: Observed,
    engine: Engine,
    output: Path,
    progress: OnProgress,
    clone: Callable[[DesiredClone, OnProgress], None],
    ask: Callable[[str, str], None],
    certify: Callable[[Iterable[DesiredCertificate]], None],
) -> Failures:
    """Make it so; return what the engine refused, and why.

    ``clone`` makes a clone; ``ask`` says what the setup of a workspace is for, before that starts,
    by its address and the id of its image; ``certify`` makes certificates.

    One workspace's failure leaves the others applied. Raises :class:`DualError` where all
    depend on what failed (a file, the proxy or its image), where something moved since it was
    observed, and where somebody was touched whom the plan leaves out.
    """
    if not plan:
        return {}
    _check_port(plan, desired, observed, engine)
    _check_subnets(plan, desired, observed, engine)
    missing = pull_missing(plan, desired, observed, engine, progress)
    missing |= _clone_missing(plan, desired, clone, progress)
    missing |= _without_room(plan, desired, observed, engine)
    check_unmoved(observed, engine.observe())
    _certify(plan, desired, output, certify)
    files = _files(plan, desired, observed)
    round_ = _Round(plan, desired, observed, files, output, engine, progress, ask)
    failures = round_.run(missing)
    after = engine.observe(desired.images)
    # What was waited for in vain would be so again.
    missing |= {a: error for a, error in failures.items() if isinstance(error, UnhealthyError)}
    if failures.keys() > missing.keys():
        # An apply that was killed may have left the engine still at work, and in the way. So
        # look again, and try what is left, one by one: that also tells who is to blame.
        again, seen = _what_is_left(plan, desired, after, failures)
        failures = replace(round_, plan=again, observed=seen, one_by_one=True).run(missing)
        after = engine.observe()
    failures = without_secrets(failures, desired.containers.values())
    for address in failures:
        progress(_service(address, desired), "failed")
    check_untouched(plan, observed, after, failures)
    if PROXY in failures:
        raise failures[PROXY] if len(failures) == 1 else all_of(failures, "could not be applied")
    return failures


def _check_port(plan: Plan, desired: Desired, observed: Observed, engine: Engine) -> None:
    """A proxy that is to publish elsewhere must find its port free, before the old one goes."""
    proxy = plan.change(PROXY)
    if proxy is None or proxy.action not in (Action.CREATE, Action.REPLACE):
        return
    going = [c.address for c in plan.changes if c.action in (Action.DELETE, Action.REPLACE)]
    held = [
        str(value).rpartition(":")
        for address in going
        if address in observed.containers
        for field, value in observed.containers[address].fields.items()
        if field.startswith("ports.")
    ]
    for bind, _, port in (each.rpartition(":") for each in desired.published):
        own = next((address for address, _, each in held if each == port), "")
        if own != bind:
            engine.check_port(bind, int(port), own)


def _check_subnets(plan: Plan, desired: Desired, observed: Observed, engine: Engine) -> None:
    """Networks that move must find their new addresses free, before the old ones go."""
    if moved := plan.addresses("network", Action.REPLACE):
        come = (*moved, *plan.addresses("network", Action.CREATE))
        go = (*moved, *plan.addresses("network", Action.DELETE))
        engine.check_subnets(
            [desired.networks[f"network.{name}"].subnet for name in come],
            [observed.networks[f"network.{name}"].name for name in go],
        )


def without_secrets(
    failures: Failures, containers: Iterable[DesiredContainer | ObservedContainer]
) -> Failures:
    """What the engine said, without what came out of variables in these containers."""
    secrets: set[str] = set()
    for container in containers:
        hidden = container.hidden or frozenset()
        in_files = {each for each in container.fields if each.startswith("env.")}
        for name in hidden | (in_files if ENV_FILE in hidden else set()):
            value = container.fields.get(name, "")
            secrets |= {value} if isinstance(value, str) else set(map(str, value or ()))
    secrets = {each for each in secrets if len(each) >= _TELLING}

    def cleaned(text: str) -> str:
        for secret in sorted(secrets, key=len, reverse=True):
            text = text.replace(secret, HIDDEN)
        return text

    return {
        address: DualError(cleaned(error.summary), why=cleaned(error.why), mend=cleaned(error.mend))
        for address, error in failures.items()
    }


def _service(address: str, desired: Desired) -> str:
    container = desired.containers.get(address)
    return container.service if container else address.partition(".")[2]


def _what_is_left(
    plan: Plan, desired: Desired, after: Observed, failures: Failures
) -> tuple[Plan, Observed]:
    """Of a plan that was carried out in part: what to do still, and what it starts from.

    Containers are made anew that were not started, and can't be: an engine that was killed as
    it started one may never start it again ("task … already exists"). Others are only if they
    have never run, so that there is nothing in them to lose. Where such a container stood
    before this plan, that engine may have left a process on its network, with its address: so
    the network is made anew with it.
    """

    def is_stuck(address: str) -> bool:
        found, error = after.containers.get(address), failures.get(address)
        never_ran = found is not None and found.state == "created"
        return error is not None and (never_ran or bool(_TASK_EXISTS.search(error.why)))

    begun = {c.address for c in plan.changes if c.action is Action.START}
    haunted = {
        address: replace(network, hash="")
        for address, network in after.networks.items()
        if (owner := _on_network(address, desired)) in begun and is_stuck(owner)
    }
    # Whether Traefik follows what was written just now is for the next plan to find out.
    seen = replace(after, networks={**after.networks, **haunted}, routes_seen=after.routes_written)
    changes = []
    for change in make_plan(desired, seen, plan.targets).changes:
        attaches = change.address == PROXY and change.action is Action.UPDATE
        if plan.change(change.address) or change.address in haunted or (haunted and attaches):
            replaced = change.action is Action.START and is_stuck(change.address)
            changes.append(replace(change, action=Action.REPLACE) if replaced else change)
    return replace(plan, changes=tuple(changes)), seen


def _files(plan: Plan, desired: Desired, observed: Observed) -> Mapping[str, str]:
    """The rendered files to write: those of whom the plan leaves out stay as they are."""
    if not plan.left_out:
        return desired.files
    kept = {desired.routes[a] for a in plan.left_out if a in desired.routes}
    kept |= {path for path in observed.files if path not in desired.files}
    if any(address.startswith("route.") for address in plan.left_out):
        kept.add(SEEN_FILE)
    if PROXY in plan.left_out:
        kept.add(STATIC_FILE)
    kept -= {f"{ROUTES_FOLDER}/{name}.yaml" for name in plan.addresses("route", Action.DELETE)}
    if SEEN_FILE not in observed.files:
        kept.discard(SEEN_FILE)
    files = {path: text for path, text in desired.files.items() if path not in kept}
    return files | {path: observed.files[path] for path in kept if path in observed.files}


def _on_network(network: str, desired: Desired) -> str:
    """The address of what has the workspace's place on its network: its holder, or itself."""
    name = workspace_of(network)
    holder = companion_address(name, HOLDER)
    return holder if holder in desired.containers else workspace_address(name)


def _route_of(address: str) -> str:
    return route_address(workspace_of(address))


def check_unmoved(before: Observed, now: Observed) -> None:
    """Nothing of the project may have changed between the look that was planned on, and now.

    Raises :class:`DualError` that names what has.
    """
    was, now_is = (observed_fingerprint(replace(each, routes_seen=None)) for each in (before, now))
    if lines := moved(was, now_is):
        raise DualError(
            "The project changed while it was planned",
            why="\n".join(lines),
            mend="nothing was done; run it again to plan anew",
        )


def check_untouched(
    plan: Plan, before: Observed, after: Observed, failures: Failures | None = None
) -> None:
    """Whoever the plan leaves out must have kept container and start time.

    A guard, not a hope: raises :class:`DualError` that names who did not, and ``failures``
    besides. A command that ends and is started again by its restart policy is nobody's doing.
    """
    touched = []
    for address in plan.untouched:
        was, now = before.containers.get(address), after.containers.get(address)
        if was and not (now and _lives_on(was, now)):
            touched.append(f"{address}: {_life(was)} before, {_life(now) if now else 'gone'} now")
    if touched:
        raise DualError(
            "Containers changed that the plan had left out",
            why="\n".join([*touched, *_lines(failures or {})]),
            mend="if nobody else restarted or replaced them meanwhile, please report this",
        )


def _lives_on(was: ObservedContainer, now: ObservedContainer) -> bool:
    unbroken = was.started_at == now.started_at
    # The engine counts a restart before it carries it out.
    restarted = now.restarts > was.restarts or was.state == "restarting"
    return was.id == now.id and (unbroken or restarted)


def _life(container: ObservedContainer) -> str:
    return f"{container.id[:12]} started {container.started_at}"


def pull_missing(
    plan: Plan, desired: Desired, observed: Observed, engine: Engine, progress: OnProgress
) -> Failures:
    """Get the images that the engine doesn't have, before anything is touched.

    All are tried; returns the workspaces whose image can't be had, which stay as they are.
    Raises :class:`DualError` where one of them can't, as its network is to be replaced under
    it, and where the proxy's own image is missing.
    """
    users: dict[str, list[str]] = {}
    for address in (c.address for c in plan.changes if c.action in (Action.CREATE, Action.REPLACE)):
        container = desired.containers.get(address)
        if container and not _is_there(container.image, desired, observed):
            users.setdefault(container.image, []).append(address)

    def tell(image: str, event: str) -> None:
        for address in users[image]:
            progress(desired.containers[address].service, event)

    def pull(image: str) -> None:
        if image in desired.builds:
            tell(image, "building")
            engine.build(image, desired.builds[image], partial(tell, image))
            return
        hidden = any("image" in desired.containers[address].hidden for address in users[image])
        tell(image, f"pulling {'its image' if hidden else image}")
        engine.pull(image)

    failed = side_by_side(_PULLS, {image: partial(pull, image) for image in users})
    missing = {
        address: DualError(
            f"Image {image} can't be had",
            why=error.brief,
            mend="check the name, log in with docker login, or build it under that name",
        )
        if image not in desired.builds
        else error
        for image, error in sorted(failed.items())
        for address in users[image]
    }
    moving = plan.addresses("network", Action.REPLACE)
    if any(address == PROXY or workspace_of(address) in moving for address in missing):
        missing = without_secrets(missing, desired.containers.values())
        raise all_of(missing, "can't be made, and nothing was changed")
    return missing


def _is_there(image: str, desired: Desired, observed: Observed) -> bool:
    found, build = observed.images.get(image), desired.builds.get(image)
    if build is None or found is None:
        return found is not None
    return found.fields.get("build") == build.content


def _clone_missing(
    plan: Plan,
    desired: Desired,
    clone: Callable[[DesiredClone, OnProgress], None],
    progress: OnProgress,
) -> Failures:
    """Make the clones that aren't there; returns the workspaces that get none, and why."""
    jobs = {
        workspace_address(name): partial(clone, desired.clones[source_address(name)], progress)
        for name in plan.addresses("source", Action.CREATE)
    }
    return side_by_side(_PULLS, jobs)


def _certify(
    plan: Plan,
    desired: Desired,
    output: Path,
    certify: Callable[[Iterable[DesiredCertificate]], None],
) -> None:
    """Make certificates before the routes that name them, and have a proxy that runs read them."""
    addresses = {c.address for c in plan.changes if c.address.startswith("certificate.")}
    if addresses:
        certify([each for each in desired.certificates.values() if each.address in addresses])
        if (output / SEEN_FILE).is_file():
            have_routes_read(output)


def _without_room(plan: Plan, desired: Desired, observed: Observed, engine: Engine) -> Failures:
    """Workspaces in which two would listen on one port, as far as their images tell."""
    used = {
        container.image
        for address, container in desired.containers.items()
        if container.is_companion and workspace_of(address) in plan.workspaces
    }
    images = {**observed.images, **engine.images(used - observed.images.keys())}
    return port_clashes(desired, images, plan.workspaces)


def side_by_side(
    count: int, jobs: Mapping[str, Callable[[], None]], given_up: Event | None = None
) -> Failures:
    """Do all jobs, ``count`` at a time; return those that failed, by the names they have here.

    An interruption, or an engine that has gone, lets those end that have begun, and begins no
    more: nothing is left half done that takes a moment to do. ``given_up`` is set then, for jobs
    that only wait.
    """
    failures: Failures = {}
    pool = ThreadPoolExecutor(max(1, min(count, len(jobs))))
    try:
        begun: dict[str, Future[None]] = {name: pool.submit(job) for name, job in jobs.items()}
        for name, job in begun.items():
            try:
                job.result()
            except EngineUnreachableError:
                raise
            except DualError as error:
                failures[name] = error
    except BaseException:
        if given_up:
            given_up.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return failures


def all_of(failures: Failures, what: str) -> DualError:
    """Several failures as one error: ``what`` says what they have in common."""
    return DualError(
        f"{', '.join(failures)} {what}",
        why="\n".join(_lines(failures)),
        mend=next((error.mend for error in failures.values() if error.mend), ""),
    )


def _lines(failures: Failures) -> list[str]:
    return [f"{name}: {error.brief}" for name, error in failures.items()]


@dataclass(frozen=True)
class _Round:
    """One pass over a plan, in the order in which things need each other."""

    plan: Plan
    desired: Desired
    observed: Observed
    files: Mapping[str, str]
    output: Path
    engine: Engine
    progress: OnProgress
    ask: Callable[[str, str], None]
    one_by_one: bool = False
    at_once: Semaphore = field(default_factory=partial(Semaphore, _STARTS))
    """Held by what starts a container."""
    given_up: Event = field(default_factory=Event)

    def run(self, missing: Failures) -> Failures:
        """``missing`` can't be made; returned with them is what else fails, and why."""
        self._write()
        images = self.engine.images(
            {self.desired.containers[change.address].image for change in self._changes(*Action)}
        )
        volumes = self.engine.volumes() if self._handed_over(images) else {}
        failures = missing | self._remove(without=missing)
        failures |= self._rename(without=failures)
        failures |= self._create(without=failures)
        failures |= self._attach(without=failures)
        self._open_ways(failures)
        failures |= self._own(volumes, images, without=failures)
        failures |= self._start(images, without=failures)
        return failures

    def _write(self) -> None:
        """All files but the ways that lead nowhere yet."""
        closed = self._closed_ways()
        files = {path: text for path, text in self.files.items() if path not in closed}
        if SEEN_FILE in self.observed.files:
            files[SEEN_FILE] = self.observed.files[SEEN_FILE]
        write_files(files, self.output)

    def _open_ways(self, failures: Failures) -> None:
        routes = {self.desired.routes.get(_route_of(address)) for address in failures}
        closed = self._closed_ways() & routes
        write_files(
            {path: self.files[path] for path in self.files if path not in closed}, self.output
        )

    def _closed_ways(self) -> set[str]:
        """Routes to networks that the proxy isn't on yet, and the file that says what it read.

        They are written last: the proxy would send whatever comes for them out of this machine.
        """
        names = set(self.plan.addresses("network", Action.CREATE, Action.REPLACE))
        proxy = self.plan.change(PROXY)
        for reason in proxy.reasons if proxy else ():
            if reason.field.startswith("networks.ws-") and reason.before is None:
                names.add(reason.field.removeprefix("networks.ws-"))
        routes = {self.desired.routes.get(route_address(name)) for name in names}
        return {SEEN_FILE, *(path for path in routes if path)}

    def _changes(self, *actions: Action, without: Iterable[str] = ()) -> list[Change]:
        """The changes of containers that are to be, with one of these actions.

        Where something of a workspace has failed, nothing of it goes on.
        """
        failed = set(map(_whose, without))
        return [
            change
            for change in self.plan.changes
            if change.action in actions
            and change.address in self.desired.containers
            and _whose(change.address) not in failed
        ]

    def _remove(self, without: Iterable[str]) -> Failures:
        """Workspaces that are gone, and networks that are gone or move with all on them.

        Nothing of those that stay as they are, as something can't be had that they need.
        """
        stay = set(map(_whose, without))
        gone = [
            name
            for name in self.plan.addresses("network", Action.DELETE, Action.REPLACE)
            if name not in stay
        ]
        deleted = {c.address for c in self.plan.changes if c.action is Action.DELETE}
        addresses = {address for address in deleted if _whose(address) not in stay}
        there = self.observed.containers
        addresses |= {address for address in there if workspace_of(address) in gone}
        return take_down(
            [there[address] for address in sorted(addresses) if address in there],
            [self.observed.networks[f"network.{name}"] for name in gone],
            self.observed,
            self.engine,
            self.progress,
        )

    def _rename(self, without: Iterable[str]) -> Failures:
        jobs = {}
        for change in self._changes(Action.UPDATE, Action.START, without=without):
            if any(reason.field == "name" for reason in change.reasons):
                container = self.observed.containers[change.address].id
                name = self.desired.containers[change.address].name
                jobs[change.address] = partial(self.engine.rename, container, name)
        return side_by_side(_STARTS, jobs)

    def _create(self, without: Iterable[str]) -> Failures:
        """With one call of Compose, which is quick, and takes volumes along as Compose does."""
        changes = self._changes(Action.CREATE, Action.REPLACE, without=without)
        changes.sort(key=lambda change: _rank(change.address))
        for change in changes:
            _make_mount_points(self.desired.containers[change.address])
        groups = [[change] for change in changes] if self.one_by_one else [changes]
        failures: Failures = {}
        for group in filter(None, groups):
            services = [self.desired.containers[change.address].service for change in group]
            create = partial(self.engine.create, services, self.progress)
            failed = side_by_side(1, {"": create})
            failures |= {change.address: error for change in group for error in failed.values()}
        return failures

    def _attach(self, without: Iterable[str]) -> Failures:
        """Networks of a proxy that stays: attached live, so that it never restarts for them."""
        keys: dict[str, list[str]] = {}
        for change in self._changes(Action.UPDATE, Action.START, without=without):
            for reason in change.reasons if change.address == PROXY else ():
                if reason.field.startswith("networks."):
                    key = reason.field.removeprefix("networks.")
                    name = key.removeprefix("ws-")
                    address = workspace_address(name) if name != key else PROXY
                    if _whose(address) not in map(_whose, without):
                        keys.setdefault(address, []).append(key)
        jobs = {address: partial(self._attach_to, each) for address, each in keys.items()}
        return side_by_side(_STARTS, jobs)

    def _attach_to(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._attach_one(key, ours=key.startswith("ws-"))

    def _attach_one(self, key: str, *, ours: bool) -> None:
        proxy, field = self.observed.containers[PROXY], f"networks.{key}"
        network = f"{self.desired.project}_{key}" if ours else key
        taken_down = self.plan.addresses("network", Action.DELETE, Action.REPLACE)
        if field in proxy.fields and not (ours and key.removeprefix("ws-") in taken_down):
            self.engine.disconnect(network, proxy.id)
        if field in (wanted := self.desired.containers[PROXY].fields):
            self.engine.connect(network, proxy.id, wanted[field])

    def _handed_over(
        self, images: Mapping[str, ObservedImage]
    ) -> dict[str, tuple[str, dict[str, str]]]:
        """The volumes of containers that will start for the first time as somebody but root.

        By address: who that is, and the names of volumes and where they are mounted.
        """
        found = {}
        for change in self._changes(Action.CREATE, Action.REPLACE, Action.START):
            container = self.desired.containers[change.address]
            image = images.get(container.image)
            inherited = image.fields if image and not container.is_companion else {}
            user = str(container.fields.get("user") or inherited.get("user", ""))
            there = self.observed.containers.get(change.address)
            never_ran = there is not None and there.state == "created"
            is_root = user.partition(":")[0] in ("", "0", "root")
            if not is_root and (change.action is not Action.START or never_ran):
                volumes = {
                    str(value).removeprefix("volume "): name.removeprefix("mounts.")
                    for name, value in container.fields.items()
                    if name.startswith("mounts.") and str(value).startswith("volume ")
                }
                found[change.address] = user, volumes
        return {address: (user, volumes) for address, (user, volumes) in found.items() if volumes}

    def _own(
        self,
        there: Mapping[str, str],
        images: Mapping[str, ObservedImage],
        without: Iterable[str],
    ) -> Failures:
        """Hand new volumes over to whom they are for: Docker gives them to root.

        And the record of a setup, which is dual's own, whoever it was for before.
        """
        jobs = {}
        for address, (user, volumes) in self._handed_over(images).items():
            found = self.observed.containers.get(address)
            never_ran = found is not None and found.state == "created"
            folders = [
                at
                for name, at in volumes.items()
                if never_ran or name not in there or at == f"{SETUP_INSIDE}/record"
            ]
            wanted = self.desired.containers[address]
            if folders and _whose(address) not in map(_whose, without):
                jobs[address] = partial(self.engine.own, wanted.name, user, folders)
        return side_by_side(_STARTS, jobs)

    def _start(self, images: Mapping[str, ObservedImage], without: Iterable[str]) -> Failures:
        """Side by side, but the containers of each workspace one after the other."""
        changes = self._changes(Action.CREATE, Action.REPLACE, Action.START, without=without)
        again = self._changes(Action.UPDATE, without=without)
        changes += [change for change in again if change.fields & RESTARTED]
        groups: dict[str, list[tuple[str, Callable[[], None]]]] = {}
        for change in sorted(changes, key=lambda change: _rank(change.address)):
            start = partial(self._start_one, change, images)
            groups.setdefault(_whose(change.address), []).append((change.address, start))
        for whose, jobs in groups.items():
            # Before the workspace itself, or, where that goes on meanwhile, at the end.
            last = jobs.pop() if jobs[-1][0] == workspace_address(whose) else None
            jobs += self._waits(whose)
            jobs += [last] if last else []
        failures: Failures = {}
        in_turn = {
            whose: partial(_in_turn, jobs, failures)
            # Who waits for nobody comes first: no slow companion is in the way of others.
            for whose, jobs in sorted(groups.items(), key=lambda group: len(group[1]))
        }
        side_by_side(_WAITS, in_turn, self.given_up)
        return failures

    def _waits(self, workspace: str) -> list[tuple[str, Callable[[], None]]]:
        prefix = companion_address(workspace, "")
        return [
            (address, partial(self._wait_for, wanted))
            for address, wanted in self.desired.containers.items()
            if address.startswith(prefix) and wanted.has_healthcheck
        ]

    def _wait_for(self, companion: DesiredContainer) -> None:
        self.progress(companion.service, "waiting for it to be healthy")
        self.engine.wait_until_healthy(companion.name, self.given_up)
        self.progress(companion.service, "healthy")

    def _start_one(self, change: Change, images: Mapping[str, ObservedImage]) -> None:
        wanted = self.desired.containers[change.address]
        container, start = wanted.name, self.engine.start
        if change.action in (Action.START, Action.UPDATE):
            found = self.observed.containers[change.address]
            container = found.id
            start = self.engine.unpause if found.state == "paused" else start
            start = self.engine.restart if change.action is Action.UPDATE else start
        with self.at_once:
            if self.given_up.is_set():  # while it waited, for a companion say
                return
            if wanted.has_setup:
                image = images.get(wanted.image)
                self.ask(change.address, image.id if image else "")
            self.progress(wanted.service, "starting")
            start(container)
        self.progress(wanted.service, "started")


def _in_turn(jobs: Iterable[tuple[str, Callable[[], None]]], failures: Failures) -> None:
    """Do jobs, by address, until one fails: that one goes into ``failures``."""
    for address, job in jobs:
        try:
            job()
        except EngineUnreachableError:
            raise
        except DualError as error:
            failures[address] = error
            return


def _whose(address: str) -> str:
    """The workspace that a container's address belongs to, or the address itself (the proxy's)."""
    return workspace_of(address) or address


def _rank(address: str) -> tuple[int, str]:
    """In which order the containers of a workspace need each other: holder, companions, itself."""
    if address.startswith("companion."):
        return (0 if address.endswith(f"/{HOLDER}") else 1), address
    return 2, address


def _make_mount_points(container: DesiredContainer) -> None:
    """Folders of this machine that a volume hides: Docker would make them, as root's."""
    mounts = {
        field.removeprefix("mounts."): str(value).partition(" ")
        for field, value in container.fields.items()
        if field.startswith("mounts.")
    }
    for target, (kind, _, source) in mounts.items():
        for inner, (inner_kind, _, _) in mounts.items():
            below = inner.removeprefix(f"{target}/")
            nested = kind == "bind" and inner_kind == "volume" and below != inner
            if nested and Path(source).is_dir():
                with suppress(OSError):  # whoever can't write there lets Docker do it
                    (Path(source) / below).mkdir(parents=True, exist_ok=True)


def take_down(
    containers: Iterable[ObservedContainer],
    networks: Iterable[ObservedNetwork],
    observed: Observed,
    engine: Engine,
    progress: OnProgress,
) -> Failures:
    """Remove containers and networks, workspace by workspace; return what could not be removed.

    The proxy is detached from these networks, live; if it goes itself, it goes last.
    """
    proxy = observed.containers.get(PROXY)
    parts: dict[str, tuple[list[ObservedContainer], list[ObservedNetwork]]] = {}
    for container in reversed(in_order(containers)):
        is_proxy = proxy and container.id == proxy.id
        address = PROXY if is_proxy else workspace_address(container.workspace or container.name)
        parts.setdefault(address, ([], []))[0].append(container)
    for network in networks:
        name = network_address(network.key).partition(".")[2]
        address = PROXY if name == PROXY_SERVICE else workspace_address(name)
        parts.setdefault(address, ([], []))[1].append(network)

    def remove(address: str) -> None:
        doomed, emptied = parts[address]
        for network in emptied:
            if proxy and proxy not in doomed and f"networks.{network.key}" in proxy.fields:
                engine.disconnect(network.name, proxy.id)
        for container in doomed:
            progress(container.service, "removing")
            engine.remove(container.id)
            progress(container.service, "removed")
        for network in emptied:
            engine.remove_network(network.name)

    jobs = {address: partial(remove, address) for address in parts}
    last = {PROXY: jobs.pop(PROXY)} if PROXY in jobs else {}
    return side_by_side(_STOPS, jobs) | side_by_side(1, last)


def in_order(containers: Iterable[ObservedContainer]) -> list[ObservedContainer]:
    """As those of a workspace need each other: the holder first, the workspace itself last."""
    return sorted(containers, key=lambda each: (not each.is_holder, each.service == each.workspace))
