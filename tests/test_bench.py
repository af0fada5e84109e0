import dataclasses

import pytest

from bench.proxying import BARE, DIRECT, DUAL, cost
from bench.report import Row, table
from bench.wrk import Load

COST = Row("Cold apply", "2 s", "compose: 2 s", 1.02, "1.02", must=1.05, aim=0.8)
GAIN = Row("Requests", "96/s", "bare: 100/s", 0.96, "0.96", must=0.95, aim=1, more_is_better=True)


@pytest.mark.parametrize(
    ("row", "figure", "verdict"),
    [
        (COST, 0.8, "aim met"),
        (COST, 1.05, "met"),
        (COST, 1.06, "**not met**"),
        (GAIN, 1.0, "aim met"),
        (GAIN, 0.95, "met"),
        (GAIN, 0.94, "**not met**"),
    ],
)
def test_a_figure_is_held_against_its_limits(row: Row, figure: float, verdict: str) -> None:
    assert dataclasses.replace(row, figure=figure).verdict == verdict


def test_a_row_without_limits_has_no_verdict() -> None:
    assert dataclasses.replace(COST, must=None, aim=None).verdict == ""


def test_the_table_says_which_way_a_limit_goes() -> None:
    assert table([COST, GAIN]) == (
        "| What | dual | Beside it | Figure | Must | Aim | |\n"
        "|---|---|---|---|---|---|---|\n"
        "| Cold apply | 2 s | compose: 2 s | 1.02 | 1.05 | 0.8 | met |\n"
        "| Requests | 96/s | bare: 100/s | 0.96 | at least 0.95 | at least 1 | met |"
    )


def test_the_cost_of_the_proxy_is_that_of_the_rounds_and_not_of_what_else_was_going_on() -> None:
    def loads(speed: float, dual: float) -> dict[str, Load]:
        """A round in which the machine is this fast, and dual's proxy so, beside the bare one."""
        return {
            side: Load(100 * fast, 2 / fast, 10 / fast)
            for side, fast in ((DUAL, speed * dual), (BARE, speed), (DIRECT, speed * 8))
        }

    rows = cost("12 bytes", [loads(1, 0.9), loads(4, 0.96), loads(2, 0.98)])

    assert [row.what for row in rows] == [
        "Requests through the proxy, answers of 12 bytes",
        "p50 through the proxy, answers of 12 bytes",
        "p99 through the proxy, answers of 12 bytes",
    ]
    assert [row.shown for row in rows] == ["0.96"] * 3
    assert {row.verdict for row in rows} == {"met"}
    assert rows[0].dual == "196/s"
    assert rows[0].beside == "bare Traefik: 200/s; direct: 1,600/s"
