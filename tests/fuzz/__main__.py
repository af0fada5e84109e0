"""``python -m tests.fuzz --count 20000 --seed 1``: fuzz, sum up, keep what fails.

Exits with 1 if anything failed; for each way to fail, one input is then in ``--failures``, shrunk,
with what is wrong.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from tests.fuzz.campaign import Summary, in_processes, keep, show
from tests.fuzz.external import check_with_compose, check_with_traefik

BY_COMPOSE = 1500
BY_TRAEFIK = 400


def _outside(summary: Summary, arguments: argparse.Namespace) -> list[str]:
    """What the real programs have against what was accepted."""
    count = min(len(summary.rendered), BY_COMPOSE)
    chosen = random.Random(arguments.seed).sample(summary.rendered, count)
    wrong = []
    for name, checked in (
        ("projects that Compose reads", check_with_compose(chosen, jobs=arguments.jobs)),
        ("routes that Traefik loads", check_with_traefik(chosen[:BY_TRAEFIK])),
    ):
        passed_over = f" ({checked.skipped} inputs passed over)" if checked.skipped else ""
        print(f"{name}: {checked.count} checked{passed_over}, {len(checked.wrong)} wrong")
        wrong += checked.wrong
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the number of the first input")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--external", action="store_true", help="real Compose and Traefik, too")
    parser.add_argument("--failures", type=Path, default=Path("fuzz-failures"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        summary = in_processes(
            arguments.seed, arguments.first, arguments.count, arguments.jobs, Path(place)
        )
    show(summary)
    if summary.failures:
        keep(summary.failures, arguments.failures)
    wrong = _outside(summary, arguments) if arguments.external else []
    for each in wrong[:20]:
        print(f"- {each}")
    return 1 if summary.failures or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
