"""Random projects, applies that are cut short, and what must hold after the next apply."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals

import yaml

from tests.engine.conftest import DUAL, Done, LiveProject, docker, wait_for

IMAGE = "busybox:1.35"
NAMES = tuple(f"w{number}" for number in range(8))
SEED_VARIABLE = "DUAL_CHAOS_SEED"
_MARK = "DUAL_CHAOS_PROCESS"  # in the environment of an apply and of all that it starts
_PATIENCE = 60.0  # seconds that an apply may go on after it was asked to end

# dual, killed at a step that Python tells its audit hooks of.
_KILLED_AT = """
import os, runpy, signal, sys

left, events = int(sys.argv.pop(1)), sys.argv.pop(1).split(",")

def step(event, arguments):
    global left
    left -= event in events
    if event in events and left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(step)
runpy.run_module("dual_iac", run_name="__main__")
"""

Spec = dict[str, int]
"""Workspaces, and the value of the variable that each has: another value, another container."""


@dataclass(frozen=True)
class Round:
    """One apply from ``before`` to ``after``, cut short at a share of its usual duration."""

    seed: int
    number: int
    before: Spec
    after: Spec
    moment: float
    signal: Signals = Signals.SIGKILL

    def kept(self) -> set[str]:
        return {name for name, value in self.before.items() if self.after.get(name) == value}

    def __str__(self) -> str:
        created = sorted(self.after.keys() - self.before.keys())
        removed = sorted(self.before.keys() - self.after.keys())
        replaced = sorted(self.after.keys() & self.before.keys() - self.kept())
        return (
            f"round {self.number} of {SEED_VARIABLE}={self.seed}: create {created}, "
            f"replace {replaced}, remove {removed}; {self.signal.name} at {self.moment:.0%}"
        )


def chosen_seed() -> int:
    return int(os.environ.get(SEED_VARIABLE) or secrets.randbelow(2**32))


def schedule(seed: int, signals: Sequence[Signals]) -> list[Round]:
    """As many rounds as signals: all of them follow from the seed alone.

    The moments are spread evenly from the start of an apply to a little beyond its end.
    """
    chance = random.Random(seed)
    count = len(signals)
    moments = [1.05 * (number + chance.random()) / count for number in range(count)]
    chance.shuffle(moments)
    shuffled = chance.sample(signals, count)
    rounds = []
    spec = _next_spec(chance, {}, 0)
    for number in range(count):
        before, spec = spec, _next_spec(chance, spec, number + 1)
        rounds.append(Round(seed, number, before, spec, moments[number], shuffled[number]))
    return rounds


def _next_spec(chance: random.Random, before: Spec, value: int) -> Spec:
    after: Spec = {}
    while not after or after == before:
        after = {}
        for name in NAMES:
            roll = chance.random()
            if name in before and roll < 0.45:
                after[name] = before[name]
            elif roll < (0.75 if name in before else 0.5):
                after[name] = value
    return after


@dataclass(frozen=True)
class Cut:
    """How an apply ended that was, or was to be, cut short."""

    done: Done
    seconds: float
    whole: bool  # it ended by itself

    @property
    def phase(self) -> str:
        """The last thing it said."""
        return (self.done.stderr.strip().splitlines() or ["(nothing said yet)"])[-1]

    def __str__(self) -> str:
        how = "ended by itself" if self.whole else "was cut short"
        return f"apply {how} after {self.seconds:.2f}s: {self.done}"


@dataclass
class Chaos:
    """A project under attack, and what is known of it."""

    project: LiveProject
    prefix: Callable[[], Sequence[str]] = tuple  # what dual's command line starts with
    markers: dict[str, str] = field(default_factory=dict)  # workspace → what its volume holds
    settled: Spec | None = None  # what runs, if the last round ended well
    seconds: float = 0.0  # that an apply takes
    own_files: set[str] = field(default_factory=set)  # in compose/, besides the routes
    cuts: list[Cut] = field(default_factory=list)

    # --- One round -----------------------------------------------------------

    def play(
        self, this: Round, cut_short: Callable[[Round], Cut], *, restarts: bool = False
    ) -> list[str]:
        """The round as far as one apply after the cut; returns what does not hold then.

        ``restarts`` says that the cut itself restarts all containers.
        """
        self.settle(this.before)
        before = self.identities()
        self.write(this.after)
        self.settled = None
        cut = cut_short(this)
        self.cuts.append(cut)
        print(f"{this}\n{cut}")
        problems = [f"half a file after the cut: {each}" for each in self.broken_files()]
        again = self.project.dual("apply", "-y")
        print(f"the apply after it: {again}")
        if again.code != 0:
            problems.append(f"the apply after it failed: {again}")
        problems += self.differences(this.after)
        if not restarts:
            problems += self.touched(before, this.kept())
        if problems:
            problems += [f"it was {this}", str(cut)]
        else:
            self.mark(this.after)
            self.settled = this.after
        return problems

    def signalled(self, this: Round) -> Cut:
        """Start an apply; send the round's signal, to that process alone, at its moment."""
        with self.applying() as (process, output):
            started = time.monotonic()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(this.moment * self.seconds)
            process.send_signal(this.signal)  # unless it has ended
            cut = self.ended(process, output, started)
        if cut.whole:
            self.seconds = (self.seconds + cut.seconds) / 2
        else:
            self.seconds = max(self.seconds, cut.seconds)
        return cut

    @contextlib.contextmanager
    def applying(
        self, dual: Sequence[str] = DUAL
    ) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
        """A running ``dual apply -y``; the path is that of a folder with stdout and stderr."""
        folder = self.project.folder / f"output-{secrets.token_hex(4)}"
        folder.mkdir()
        with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
            process = subprocess.Popen(
                [*self.prefix(), *dual, "apply", "-y"],
                cwd=self.project.folder,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env={**os.environ, _MARK: self.project.name},
                # What runs in the background, such as this test perhaps, may ignore SIGINT.
                preexec_fn=_heed_interrupts,
            )
        try:
            yield process, folder
        finally:
            process.kill()
            process.wait()

    def ended(self, process: subprocess.Popen[bytes], output: Path, started: float) -> Cut:
        """Wait for an apply that was cut short."""
        try:
            code = process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"apply goes on {_PATIENCE:g}s after it was cut short: {_said(output)}"
            ) from None
        done = Done(code, *_said(output))
        return Cut(done, time.monotonic() - started, whole=code == 0)

    def killed_at(self, step: int, events: Sequence[str]) -> Cut:
        """Start an apply that is killed just before the step-th of these audit events."""
        started = time.monotonic()
        killed = (sys.executable, "-c", _KILLED_AT, str(step), ",".join(events))
        with self.applying(killed) as (process, output):
            return self.ended(process, output, started)

    # --- Getting there -------------------------------------------------------

    def write(self, spec: Spec, slow: Sequence[str] = ()) -> None:
        """Write dual.yaml; those that are ``slow`` take 3 seconds to listen."""
        late = "command: \"sh -c 'sleep 3; exec httpd -f -p 3000 -h /'\", "
        lines = "".join(
            f"  {name}: {{{late if name in slow else ''}"
            f'env: {{VALUE: "{value}"}}, volumes: {{data: /data}}}}\n'
            for name, value in sorted(spec.items())
        )
        self.project.write(
            f'defaults: {{image: "{IMAGE}", command: httpd -f -p 3000 -h /}}\nworkspaces:\n{lines}'
        )

    def settle(self, spec: Spec) -> None:
        """Make this spec run, whatever a failed round before has left behind."""
        if self.settled == spec:
            return
        self.wait_for_strays()
        self.write(spec)
        started = time.monotonic()
        done = self.project.dual("apply", "-y")
        seconds = time.monotonic() - started
        if done.code != 0 or self.differences(spec):
            self.clear()
            started = time.monotonic()
            done = self.project.dual("apply", "-y")
            seconds = time.monotonic() - started
            problems = self.differences(spec)
            assert not problems, f"a project without containers does not come up: {problems} {done}"
        self.seconds = self.seconds or seconds
        self.own_files = self.own_files or {each for each in self.files() if not _is_route(each)}
        self.mark(spec)
        self.settled = spec

    def clear(self) -> None:
        """Take containers and networks away by hand. Volumes stay."""
        left = self.project.leftovers()
        for kind, options in (("container", ["-fv"]), ("network", [])):
            if names := left[f"{kind}s"].split():
                docker(kind, "rm", *options, *names)
        for each in self.files() - self.own_files:
            (self.project.folder / "compose" / each).unlink()

    def wait_for_strays(self) -> None:
        """What a killed apply had started, such as Compose, may still be at work."""
        wait_for("what a killed apply had started ends", lambda: not self.strays(), 60)

    def strays(self) -> list[int]:
        mark = f"{_MARK}={self.project.name}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
        return found

    def mark(self, spec: Spec) -> None:
        """Leave something behind in each volume that has nothing in it yet."""
        for name in sorted(spec.keys() - self.markers.keys()):
            marker = f"{name} {secrets.token_hex(8)}"
            write = f"echo {marker} >/data/marker"
            docker("exec", f"{self.project.name}-{name}-1", "sh", "-c", write)
            self.markers[name] = marker

    # --- What must hold ------------------------------------------------------

    def differences(self, spec: Spec) -> list[str]:
        """Whatever is not as it must be after an apply of ``spec``."""
        problems = []
        plan = self.project.dual("plan", "--format", "json")
        if plan.code != 0:
            problems.append(f"plan failed: {plan}")
        elif plan.data["changes"]:
            problems.append(f"the plan is not empty: {plan.data['changes']}")
        problems += [f"{each} does not answer" for each in spec if not self.project.is_up(each)]
        problems += [f"half a file: {each}" for each in self.broken_files()]
        if self.own_files:
            problems += [
                f"left behind: compose/{each}"
                for each in sorted(self.files() - self.own_files)
                if not _is_route(each)
            ]
        return problems + self.lost()

    def lost(self) -> list[str]:
        """Volumes that are gone, or that hold something else than what was put there."""
        label = f"label=com.docker.compose.project={self.project.name}"
        there = docker("volume", "ls", "-q", "--filter", label).split()
        volumes = {f"{self.project.name}_{name}--data": name for name in self.markers}
        # Only what is there: to mount a volume is to make it.
        mounts = [f"-v={each}:/volumes/{volumes[each]}:ro" for each in there if each in volumes]
        look = "cd /volumes && grep -H . */marker; true"
        found = (
            docker("run", "--rm", "--network=none", *mounts, IMAGE, "sh", "-c", look)
            if mounts
            else ""
        )
        held = dict(line.split("/marker:", 1) for line in found.splitlines())
        problems = []
        for volume, name in volumes.items():
            if volume not in there:
                problems.append(f"volume {volume} is gone")
            elif held.get(name) != self.markers[name]:
                problems.append(f"volume {volume} lost its marker; it has: {held.get(name)}")
            else:
                continue
        for name in [name for name in self.markers if held.get(name) != self.markers[name]]:
            del self.markers[name]  # said once, and no failure of the rounds to come
        return problems

    def identities(self) -> dict[str, str]:
        """What changes when a container is replaced or restarted, by service."""
        label = f"label=com.docker.compose.project={self.project.name}"
        ids = docker("ps", "-aq", "--no-trunc", "--filter", label).split()
        service = '{{index .Config.Labels "com.docker.compose.service"}}'
        told = docker(
            "inspect", "--format", f"{service} {{{{.Id}}}} {{{{.State.StartedAt}}}}", *ids
        )
        return dict(line.split(" ", 1) for line in told.splitlines())

    def touched(self, before: dict[str, str], kept: set[str]) -> list[str]:
        """Neighbours that were replaced or restarted, though nothing about them changed."""
        now = self.identities()
        return [
            f"{name} was touched: it was {before[name]}, it is {now.get(name, 'gone')}"
            for name in sorted({*kept, "traefik"})
            if now.get(name) != before[name]
        ]

    def files(self) -> set[str]:
        folder = self.project.folder / "compose"
        return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}

    def broken_files(self) -> list[str]:
        """Rendered files that are not a whole YAML document."""
        broken = []
        for name in sorted(each for each in self.files() if each.endswith(".yaml")):
            text = (self.project.folder / "compose" / name).read_text()
            try:
                whole = isinstance(yaml.safe_load(text), dict) and text.endswith("\n")
            except yaml.YAMLError:
                whole = False
            if not whole:
                broken.append(f"{name}: {text!r}")
        return broken


def _is_route(file: str) -> bool:
    return file in {f"traefik/routes/{name}.yaml" for name in NAMES}


def _said(output: Path) -> tuple[str, str]:
    stdout, stderr = ((output / each).read_text(errors="replace") for each in ("stdout", "stderr"))
    return stdout, stderr


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
