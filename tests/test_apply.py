"""Carrying out a plan: what can be shown without an engine."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from dual_iac.apply import check_untouched, stale_files, write_files
from dual_iac.errors import DualError
from dual_iac.plan import Plan
from dual_iac.state import Observed, ObservedContainer

FILES = {"compose.yaml": "a: 1\n", "traefik/routes/main.yaml": "b: 2\n"}

MAIN = ObservedContainer(
    id="0123456789abcdef",
    name="shop-main-1",
    service="main",
    state="running",
    exit_code=0,
    health=None,
    started_at="2026-01-01T00:00:00Z",
    image="busybox",
    image_id="sha256:1",
    restarts=0,
    hash="h",
    fields={},
)
PLAN = Plan("shop", (), ("workspace.main", "network.main"))


def seen(*containers: ObservedContainer) -> Observed:
    return Observed(containers={f"workspace.{c.service}": c for c in containers})


def test_untouched_containers_pass() -> None:
    check_untouched(PLAN, seen(MAIN), seen(replace(MAIN, fields={"env.A": "1"})))
    check_untouched(PLAN, seen(), seen())


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (seen(replace(MAIN, id="f" * 16)), "ffffffffffff started 2026-01-01T00:00:00Z now"),
        (
            seen(replace(MAIN, started_at="2026-02-02T00:00:00Z")),
            "started 2026-02-02T00:00:00Z now",
        ),
        (seen(), "gone now"),
    ],
)
def test_a_touched_one_is_an_error_that_names_it(after: Observed, said: str) -> None:
    with pytest.raises(DualError) as raised:
        check_untouched(PLAN, seen(MAIN), after)
    assert raised.value.why.startswith("workspace.main: 0123456789ab started")
    assert said in raised.value.why


def test_files_are_written_once_and_strays_removed(tmp_path: Path) -> None:
    assert write_files(FILES, tmp_path) == list(FILES)
    assert write_files(FILES, tmp_path) == []
    stray = tmp_path / "traefik/routes/gone.yaml"
    stray.write_text("")
    (tmp_path / "traefik/routes/notes.txt").write_text("not ours to remove")
    assert stale_files(FILES, tmp_path) == ["traefik/routes/gone.yaml"]
    assert write_files(FILES, tmp_path) == ["traefik/routes/gone.yaml"]
    assert sorted(p.name for p in (tmp_path / "traefik/routes").iterdir()) == [
        "main.yaml",
        "notes.txt",
    ]


def test_traefik_can_read_what_a_private_umask_made(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_files(FILES, tmp_path / "compose")
    finally:
        os.umask(before)
    route = tmp_path / "compose/traefik/routes/main.yaml"
    route.chmod(0o600)  # as a git checkout under that umask leaves it
    write_files(FILES, tmp_path / "compose")
    assert route.stat().st_mode & 0o044 == 0o044
    assert route.parent.stat().st_mode & 0o055 == 0o055


def test_a_failed_write_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(FILES, tmp_path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DualError, match="can't be written") as raised:
        write_files({**FILES, "compose.yaml": "a: 2\n"}, tmp_path)
    assert "No space left" in raised.value.why
    assert (tmp_path / "compose.yaml").read_text() == "a: 1\n"
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
