"""Many inputs: tried in several processes, summed up; what fails is shrunk and kept.

A quarter of the inputs come from hypothesis, the others from the mutator.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.mutate import Input, make_input
from tests.fuzz.oracle import Broken, Folder, check, check_command_line
from tests.fuzz.strategies import inputs

CHUNK = 250
HANGS = 30  # seconds of processor time, after which an input is taken to hang
BY_COMMAND_LINE = 20  # every so many inputs go through the command line, too
ATTEMPTS = 400  # to shrink one input
LONGEST_SHRUNK = 20_000  # bytes


@dataclass
class Failure:
    input: Input
    number: int
    what: str


@dataclass
class Summary:
    """What came of a number of inputs."""

    count: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    slowest: tuple[float, int, str] = (0.0, 0, "")
    rendered: list[bytes] = field(default_factory=list)

    def add(self, other: Summary) -> None:
        self.count += other.count
        self.failures += other.failures
        self.slowest = max(self.slowest, other.slowest)
        self.rendered += other.rendered

    def try_one(self, number: int, each: Input, folder: Folder) -> None:
        try:
            with _time_limit(HANGS):
                outcome = check(each.data, folder)
                if number % BY_COMMAND_LINE == 0:
                    check_command_line(outcome, folder)
        except Broken as error:
            self.count[each.mutator, "failed"] += 1
            self.failures.append(Failure(each, number, str(error)))
            return
        self.count[each.mutator, outcome.kind] += 1
        self.slowest = max(self.slowest, (outcome.seconds, number, each.mutator))
        if outcome.kind == "rendered" and len(each.data) < 20_000:
            self.rendered.append(each.data)


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def stop(_: int, __: FrameType | None) -> None:
        raise Broken(f"it does not end within {seconds:g} s of processor time")

    signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def fuzz(number_of_seed: int, first: int, count: int, current: Path | None = None) -> Summary:
    """Try ``count`` inputs from number ``first`` on; ``current`` holds the one that is tried."""
    summary = Summary()
    with tempfile.TemporaryDirectory() as place:
        folder = Folder.made_in(Path(place))

        def attempt(number: int, each: Input) -> None:
            if current:
                current.write_bytes(each.data)
            summary.try_one(number, each, folder)

        generated = count // 4
        for number in range(first, first + count - generated):
            attempt(number, make_input(number_of_seed, number))
        if generated:
            _from_hypothesis(number_of_seed + first, first + count - generated, generated, attempt)
    return summary


def _from_hypothesis(
    number_of_seed: int, first: int, count: int, attempt: Callable[[int, Input], None]
) -> None:
    numbers = iter(range(first, first + count * 10))

    @seed(number_of_seed)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[*HealthCheck],
    )
    @given(inputs())
    def each(data: bytes) -> None:
        attempt(next(numbers), Input("hypothesis", data))

    each()


def shrink(data: bytes, still_fails: Callable[[bytes], bool]) -> bytes:
    """The same failure in fewer lines, and then in fewer characters."""
    attempts = ATTEMPTS
    for separator in (b"\n", b""):
        parts = data.split(b"\n") if separator else [bytes([each]) for each in data]
        size = len(parts) // 2
        while size >= 1 and attempts > 0:
            at = 0
            while at < len(parts) and attempts > 0:
                fewer = parts[:at] + parts[at + size :]
                attempts -= 1
                if still_fails(separator.join(fewer)):
                    parts = fewer
                else:
                    at += size
            size //= 2
        data = separator.join(parts)
    return data


def _shrunk(failure: Failure, folder: Folder) -> bytes:
    kind = failure.what[:40]

    def still_fails(data: bytes) -> bool:
        try:
            with _time_limit(HANGS):
                check_command_line(check(data, folder), folder)
        except Broken as error:
            return str(error)[:40] == kind
        return False

    data = failure.input.data
    takes_long = "processor time" in failure.what or len(data) > LONGEST_SHRUNK
    return data if takes_long else shrink(data, still_fails)


def keep(failures: list[Failure], place: Path) -> None:
    """Save one input for each way to fail."""
    place.mkdir(parents=True, exist_ok=True)
    kinds: dict[str, list[Failure]] = {}
    for failure in failures:
        kinds.setdefault(failure.what[:40], []).append(failure)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Folder.made_in(Path(scratch))
        for number, same in enumerate(kinds.values()):
            first = min(same, key=lambda failure: len(failure.input.data))
            path = place / f"{number:02}-{first.input.mutator}.yaml"
            path.write_bytes(first.input.data)
            path.with_suffix(".shrunk.yaml").write_bytes(_shrunk(first, folder))
            path.with_suffix(".txt").write_text(f"input {first.number}: {first.what}\n")
            print(f"{len(same)} failed like {path}: {first.what[:300]}")


def in_processes(number_of_seed: int, first: int, count: int, jobs: int, place: Path) -> Summary:
    """As :func:`fuzz`, in several processes; a process that dies is a failure, too."""
    summary, began = Summary(), time.monotonic()
    starts = range(0, count, CHUNK)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        waiting = {
            pool.submit(
                fuzz,
                number_of_seed,
                first + start,
                min(CHUNK, count - start),
                place / f"current-{start}",
            ): start
            for start in starts
        }
        done = 0
        for future in as_completed(waiting):
            try:
                summary.add(future.result())
            except BrokenProcessPool as error:
                died = [path.read_bytes() for path in sorted(place.glob("current-*"))]
                what = f"the process died at one of {len(died)} inputs: {error}"
                summary.failures += [Failure(Input("unknown", each), -1, what) for each in died]
                if not died:
                    raise
                break
            (place / f"current-{waiting[future]}").unlink()
            done += min(CHUNK, count - waiting[future])
            failed = len(summary.failures)
            seconds = time.monotonic() - began
            print(f"{done} inputs in {seconds:.0f} s, {failed} failed", file=sys.stderr, flush=True)
    return summary


def show(summary: Summary) -> None:
    kinds = ("refused", "unset", "rendered", "failed")
    print(f"{'mutator':<20}" + "".join(f"{kind:>10}" for kind in kinds))
    mutators = sorted({mutator for mutator, _ in summary.count})
    for mutator in mutators:
        counts = [summary.count[mutator, kind] for kind in kinds]
        print(f"{mutator:<20}" + "".join(f"{count:>10}" for count in counts))
    totals = [sum(summary.count[mutator, kind] for mutator in mutators) for kind in kinds]
    print(f"{'all ' + str(sum(totals)):<20}" + "".join(f"{count:>10}" for count in totals))
    seconds, number, mutator = summary.slowest
    print(f"slowest: {seconds:.2f} s of processor time, input {number} ({mutator})")
