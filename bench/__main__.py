"""Runs the benchmarks, and writes docs/benchmarks.md when all of them ran at full size."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from bench import inside, lifecycle, neighbours, proxying, rendering, running
from bench.measure import Settings
from bench.project import remove_leftovers
from bench.report import Row, document, table

KINDS: dict[str, Callable[[Settings], list[Row]]] = {
    "lifecycle": lifecycle.rows,
    "running": running.rows,
    "neighbours": neighbours.rows,
    "proxying": proxying.rows,
    "rendering": rendering.rows,
    "inside": inside.rows,
}
RESULTS = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("only", nargs="*", metavar="KIND", help=f"of: {', '.join(KINDS)}")
    parser.add_argument("--rounds", type=int, default=3, help="of each measure (default: 3)")
    parser.add_argument(
        "--divide", type=int, default=1, metavar="N", help="all sizes by N, for a quick try"
    )
    options = parser.parse_args()
    if unknown := set(options.only) - set(KINDS):
        parser.error(f"no such kind: {', '.join(sorted(unknown))}")
    settings = Settings(max(1, options.rounds), max(1, options.divide))
    # So that a killed bench takes its containers away, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    remove_leftovers()
    rows: list[Row] = []
    for name, kind in KINDS.items():
        if not options.only or name in options.only:
            print(f"{name}:", file=sys.stderr, flush=True)
            rows += kind(settings)
    print(table(rows))
    if not options.only and settings.divide == 1:
        RESULTS.write_text(document(rows, settings), encoding="utf-8")


if __name__ == "__main__":
    main()
