"""Applies that are killed or interrupted at any moment: nothing is lost, the next one converges.

All rounds follow from a seed, which each failure names; DUAL_CHAOS_SEED plays them again, and a
single one can be chosen (-k round17). Only the exact instant of a signal is not in the seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from signal import Signals

import pytest

from tests.engine.chaos import Chaos, Round, chosen_seed, schedule
from tests.engine.conftest import LiveProject

ROUNDS = schedule(
    chosen_seed(), [Signals.SIGKILL] * 28 + [Signals.SIGTERM] * 6 + [Signals.SIGINT] * 6
)
# What Python calls each change to a file.
FILE_STEPS = ("os.rename", "os.remove", "os.link", "os.truncate", "tempfile.mkstemp")
# How a process may end that got the signal: by it, with a shell's code for it, or just in time.
CODES = {signal: {-signal, 128 + signal, 0} for signal in Signals}


@pytest.fixture(scope="module")
def chaos(shared: LiveProject) -> Iterator[Chaos]:
    attacked = Chaos(shared)
    yield attacked
    attacked.wait_for_strays()  # or they would make what is about to be removed


@pytest.mark.parametrize("this", ROUNDS, ids=lambda this: f"round{this.number}")
def test_an_apply_cut_short(chaos: Chaos, this: Round) -> None:
    problems = chaos.play(this, chaos.signalled)
    cut = chaos.cuts[-1]
    if cut.done.code not in CODES[this.signal]:
        problems.append(f"exit code {cut.done.code} after {this.signal.name}: {cut}")
    # An interrupt that comes while Python itself still starts is not dual's to catch.
    if "Traceback" in cut.done.stderr and "dual_iac" in cut.done.stderr:
        problems.append(f"a traceback after {this.signal.name}: {cut}")
    assert not problems, "\n".join(problems)


def test_killed_between_any_two_files(chaos: Chaos) -> None:
    """The moments are too short for chance to find them."""
    before, after = {"w0": 0, "w1": 0}, {"w0": 1, "w2": 0}
    problems: list[str] = []
    for step in range(1, 50):
        this = Round(0, step, before, after, 0)
        problems += chaos.play(this, lambda this: chaos.killed_at(this.number, FILE_STEPS))
        if chaos.cuts.pop().whole:
            break
    assert 1 < step < 49, f"killed {step - 1} times"
    assert not problems, "\n".join(problems)


def test_most_rounds_were_cut_short(chaos: Chaos) -> None:
    """Else the rounds would prove nothing, whatever they say."""
    whole = [cut for cut in chaos.cuts if cut.whole]
    assert 2 * len(whole) <= len(chaos.cuts), f"{len(whole)} applies ended before their signal"
