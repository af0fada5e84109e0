"""The folder of the rendered project."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from dual_iac.errors import DualError
from dual_iac.output import (
    COMPOSE_FILE,
    ROUTES_FOLDER,
    SEEN_FILE,
    read_files,
    read_rendered,
    routes_written,
    stale_files,
    subnets_of,
    write_file,
    write_files,
)

FILES = {"compose.yaml": "a: 1\n", "traefik/routes/main.yaml": "b: 2\n"}
MANY = {**FILES, **{f"traefik/routes/w{number}.yaml": f"{number}\n" for number in range(40)}}


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


def test_many_files_are_written_as_few_are(tmp_path: Path) -> None:
    assert write_files(MANY, tmp_path) == list(MANY)
    assert read_files(tmp_path) == MANY
    assert {p.name for p in tmp_path.iterdir()} == {"compose.yaml", "traefik"}


def test_a_file_that_stays_is_not_written_again(tmp_path: Path) -> None:
    """Traefik reads all files anew for one that is."""
    write_files(FILES, tmp_path)
    before = (tmp_path / "compose.yaml").stat().st_ino
    assert write_files({**FILES, "traefik/routes/main.yaml": "b: 3\n"}, tmp_path)
    assert (tmp_path / "compose.yaml").stat().st_ino == before


def test_line_ends_that_a_checkout_turned_are_stale(tmp_path: Path) -> None:
    write_files(FILES, tmp_path)
    (tmp_path / "compose.yaml").write_bytes(b"a: 1\r\n")
    assert stale_files(FILES, tmp_path) == ["compose.yaml"]
    write_files(FILES, tmp_path)
    assert (tmp_path / "compose.yaml").read_bytes() == b"a: 1\n"


@pytest.mark.parametrize("text", ["", "ä: \N{SNOWMAN}\n", "a: 1\n", "no end"])
def test_texts_are_read_as_they_were_written(tmp_path: Path, text: str) -> None:
    write_files({COMPOSE_FILE: text}, tmp_path)
    assert read_files(tmp_path) == {COMPOSE_FILE: text}


def test_nothing_is_read_where_nothing_stands(tmp_path: Path) -> None:
    assert read_files(tmp_path) == {}
    assert read_files(tmp_path / "compose") == {}
    (tmp_path / "compose").write_text("a file where the folder should be")
    assert read_files(tmp_path / "compose") == {}


def test_whatever_stands_in_a_files_place_is_no_rendered_file(tmp_path: Path) -> None:
    write_files(FILES, tmp_path)
    (tmp_path / "compose.yaml").write_bytes(b"\xff\xfe")
    (tmp_path / "traefik/routes/main.yaml").unlink()
    (tmp_path / "traefik/routes/main.yaml").mkdir()
    assert read_files(tmp_path) == {"compose.yaml": ""}, "a folder is no file"
    (tmp_path / "traefik/routes/main.yaml").rmdir()
    (tmp_path / "traefik/routes/.#main.yaml").symlink_to("ada@host.1")
    assert read_files(tmp_path) == {"compose.yaml": "", "traefik/routes/.#main.yaml": ""}
    write_files(FILES, tmp_path)
    assert read_files(tmp_path) == FILES


def test_all_that_traefik_would_read_is_a_route(tmp_path: Path) -> None:
    write_files(FILES, tmp_path)
    routes = tmp_path / ROUTES_FOLDER
    (routes / "more").mkdir()
    added = ["by-hand.yml", "by-hand.toml", "more/deep.yaml"]
    for name in [*added, "notes.txt"]:
        (routes / name).write_text("x: 1\n")
    assert set(read_files(tmp_path)) == {*FILES, *(f"{ROUTES_FOLDER}/{name}" for name in added)}
    write_files(FILES, tmp_path)
    assert read_files(tmp_path) == FILES
    assert {path.name for path in routes.iterdir()} == {"main.yaml", "notes.txt"}


def test_what_is_in_the_way_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "compose").write_text("a file where the folder should be")
    with pytest.raises(DualError, match="can't be written") as raised:
        write_files(FILES, tmp_path / "compose")
    assert raised.value.mend == "something else stands there: move it away"


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


@pytest.mark.parametrize(("files", "call"), [(FILES, "os.fsync"), (MANY, "os.sync")])
def test_a_failed_write_leaves_the_old_files_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], call: str
) -> None:
    write_files(files, tmp_path)

    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(call, full)
    changed = {name: f"{text}# new\n" for name, text in files.items()}
    with pytest.raises(DualError, match="can't be written") as raised:
        write_files(changed, tmp_path)
    assert "No space left" in raised.value.why
    assert read_files(tmp_path) == files
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_what_a_killed_process_left_behind_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".new").mkdir()
    (tmp_path / ".new/0").write_text("half a te")
    write_files(FILES, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"compose.yaml", "traefik"}


def test_two_at_once_write_whole_files(tmp_path: Path) -> None:
    texts = [{name: f"{name} {number}\n" for name in MANY} for number in range(4)]
    threads = [threading.Thread(target=write_files, args=(each, tmp_path)) for each in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_files(tmp_path) in texts


def test_one_file(tmp_path: Path) -> None:
    path = tmp_path / "saved.plan"
    for text in ("one\n", "two\n"):
        write_file(path, text)
        assert path.read_text() == text
    assert [p.name for p in tmp_path.iterdir()] == ["saved.plan"]


def test_one_file_where_there_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DualError, match=r"nowhere/saved\.plan can't be written") as raised:
        write_file(tmp_path / "nowhere/saved.plan", "one\n")
    assert "No such file or directory" in raised.value.why
    assert raised.value.mend


@pytest.mark.parametrize("text", ["", "a: [", "- a", "text", "on: 2020-13-45", "a: !!python/x 1"])
def test_what_is_no_compose_file_declares_nothing(text: str) -> None:
    assert not any(read_rendered(text).values())


@pytest.mark.parametrize("depth", [100, 100_000])
@pytest.mark.parametrize(
    ("opens", "closes"), [("[", "]"), ("[", ""), ("{a: ", "}"), ("- ", ""), ("? ", "")]
)
def test_what_nests_without_end_declares_nothing(opens: str, closes: str, depth: int) -> None:
    """Nor does it take the process down with it, as some versions of PyYAML would."""
    deep = f"networks:\n  {opens * depth}x{closes * depth}\n"
    assert not any(read_rendered(deep).values())
    assert not any(read_rendered(f"'name': shop\n{deep}").values())  # read as a whole


def seen(value: Any) -> dict[str, str]:
    headers = f"headers: {{customResponseHeaders: {{X-Dual-Routes: {value}}}}}"
    return {SEEN_FILE: f"http: {{middlewares: {{traefik: {{{headers}}}}}}}"}


@pytest.mark.parametrize(
    ("files", "written"),
    [
        (seen("abc"), "abc"),
        (seen(123), "123"),
        (seen("null"), None),
        ({}, None),
        ({SEEN_FILE: ""}, None),
        ({SEEN_FILE: "http: [a]"}, None),
        ({SEEN_FILE: "http: {middlewares: {traefik: }}"}, None),
    ],
)
def test_the_state_of_the_routes(files: dict[str, str], written: str | None) -> None:
    assert routes_written(files) == written


@pytest.mark.parametrize(
    ("text", "subnets"),
    [
        ("{name: shop, networks: {a: {ipam: {config: [{subnet: 10.0.0.0/29}]}}}}", "10.0.0.0/29"),
        ("{name: other, networks: {a: {ipam: {config: [{subnet: 10.0.0.0/29}]}}}}", None),
        ("{name: shop, networks: {a: {ipam: {config: []}}}}", None),
        ("{name: shop, networks: {a: }}", None),
        ("{name: shop, networks: [a]}", None),
        ("{name: shop}", None),
    ],
)
def test_subnets_once_given(text: str, subnets: str | None) -> None:
    assert subnets_of(read_rendered(text), "shop").get("a") == subnets
