"""Hostile input that was accepted, before the real Compose and the real Traefik."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from dual_iac.output import write_files
from dual_iac.render import render
from dual_iac.spec import load_project
from tests.fuzz.campaign import fuzz
from tests.fuzz.external import (
    check_with_compose,
    check_with_traefik,
    compose_differs,
    lay_out,
    traefik_differs,
)
from tests.fuzz.mutate import CORPUS
from tests.fuzz.oracle import VARIABLES, Folder

HOSTILE = (CORPUS / "hostile-values.yaml").read_bytes()


@pytest.fixture(scope="module")
def accepted() -> list[bytes]:
    found = fuzz(number_of_seed=20261124, first=5000, count=130).rendered
    assert len(found) > 30
    return [HOSTILE, *found][:60]


def test_compose_reads_what_dual_says(accepted: list[bytes]) -> None:
    checked = check_with_compose(accepted)
    assert checked.wrong == []
    assert checked.count > 30


def test_traefik_has_the_routes_and_nothing_else(accepted: list[bytes]) -> None:
    checked = check_with_traefik(accepted)
    assert checked.wrong == []
    assert checked.count > 30


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder.made_in(tmp_path)
    made.spec.write_bytes((CORPUS / "everything.yaml").read_bytes())
    return made


@pytest.mark.parametrize(
    ("there", "instead", "what"),
    [
        ('"${TOKEN:-none}"', '"${TOKEN:-some}"', "feat-auth.env.TOKEN: Compose has 'some'"),
        ('command: [npm, run, "a b"]', "command: npm run a b", "built.command"),
        ('mem_limit: "512m"', 'mem_limit: "513m"', "feat-auth.resources.memory"),
        ("image: postgres:17", "image: postgres:18", "feat-auth--db.image"),
        ("\nservices:\n", "\nservices:\n  evil: {image: x}\n", "other services: \\['evil'"),
        ("\nservices:\n", "\nservices:\n  evil: {imag: x}\n", "Compose refuses it"),
    ],
)
def test_what_compose_reads_otherwise_is_caught(
    there: str, instead: str, what: str, folder: Folder
) -> None:
    desired = render(load_project(folder.spec), folder.path, environment=VARIABLES)
    write_files(desired.files, folder.output)
    assert compose_differs(desired, folder) == []
    path = folder.output / "compose.yaml"
    assert there in path.read_text()
    path.write_text(path.read_text().replace(there, instead))
    assert any(re.search(what, each) for each in compose_differs(desired, folder))


def _other_hosts(routes: Path) -> None:
    path = routes / "f0-built.yaml"
    path.write_text(path.read_text().replace("Host(`", "Host(`x."))


def _no_rule(routes: Path) -> None:
    path = routes / "f0-built.yaml"
    path.write_text(path.read_text().replace("Host(`", "Host("))


def _one_more(routes: Path) -> None:
    (routes / "evil.yaml").write_text(
        "http: {routers: {evil: {rule: Host(`e`), service: f0-built}}}"
    )


def _one_less(routes: Path) -> None:
    (routes / "f0-built.yaml").unlink()


def _unknown_key(routes: Path) -> None:
    path = routes / "f0-built.yaml"
    path.write_text(path.read_text().replace("middlewares: [", "more: ["))


def _template(routes: Path) -> None:
    path = routes / "f0-built.yaml"
    path.write_text(path.read_text().replace("X-Dual-Project:", 'A: {{ nosuch "x" }} #'))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (_other_hosts, r"Traefik has .*Host\(`x\.f0\.built\."),
        (_no_rule, r"Traefik has \('disabled'"),
        (_one_more, "Traefik has a route web-evil@file"),
        (_one_less, "Traefik has no route web-f0-built@file"),
        (_unknown_key, "Traefik says: .* ERR "),
        (_template, "Traefik says: .* ERR "),
    ],
)
def test_what_traefik_reads_otherwise_is_caught(
    change: Callable[[Path], None], what: str, folder: Folder
) -> None:
    project = lay_out([folder.spec.read_bytes()], folder)
    change(folder.output / "traefik/routes")
    wrong = traefik_differs(folder, project, seconds=3)
    assert any(re.search(what, each) for each in wrong), wrong
