"""Hundreds of hostile inputs; ``make fuzz`` tries them by the ten thousand."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from dual_iac import render
from dual_iac.errors import Problem, SpecError
from dual_iac.model import Spec
from tests.fuzz.campaign import fuzz, shrink
from tests.fuzz.mutate import CORPUS, corpus, make_input, sound
from tests.fuzz.oracle import MARKER, Broken, Folder, check, check_command_line

KINDS = ("refused", "unset", "rendered")
HEAD = "version: 1\nproject: shop\nworkspaces:\n"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder.made_in(tmp_path)


def one(fields: str) -> bytes:
    return f"{HEAD}  a: {{image: x, {fields}}}\n".encode()


def test_hundreds_of_inputs() -> None:
    summary = fuzz(number_of_seed=20261124, first=0, count=500)
    assert [(each.number, each.what) for each in summary.failures] == []
    kinds = {kind: sum(n for (_, k), n in summary.count.items() if k == kind) for kind in KINDS}
    assert min(kinds["refused"], kinds["rendered"]) > 100, "neither is rare"
    assert summary.slowest[0] > 0


def test_an_input_can_be_made_again() -> None:
    assert make_input(7, 4321) == make_input(7, 4321) != make_input(8, 4321)
    assert make_input(7, 0).data == corpus()[0]


def test_the_corpus_has_every_key() -> None:
    """A key that is added to dual.yaml is to be fuzzed, too: add it to everything.yaml."""

    def keys(schema: Mapping[str, Any]) -> set[str]:
        models = [schema, *schema["$defs"].values()]
        return {key for model in models for key in model.get("properties", {})}

    texts = "\n".join(path.read_text(errors="replace") for path in CORPUS.iterdir())
    missing = {key for key in keys(Spec.model_json_schema()) if f"{key}:" not in texts}
    assert missing == set()
    assert len(sound()) > 10


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: str(path.stem))
def test_the_corpus_through_the_command_line(path: Path, folder: Folder) -> None:
    check_command_line(check(path.read_bytes(), folder), folder)


def test_what_hypothesis_makes_is_mostly_sound() -> None:
    counted = fuzz(number_of_seed=1, first=10**6, count=80).count
    assert counted["hypothesis", "rendered"] > 10


# ── it finds what is planted ────────────────────────────────────────────────────────────────

HOSTILE = (CORPUS / "hostile-values.yaml").read_bytes()


def unquoted(value: Any) -> str:
    return value if isinstance(value, str) else yaml.safe_dump(value, width=9999).split("\n...")[0]


def half_quoted(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else unquoted(value)


@pytest.mark.parametrize("faulty", [unquoted, half_quoted])
def test_values_that_are_not_quoted_are_caught(
    faulty: Callable[[Any], str], folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dual_iac.render.to_yaml", faulty)
    with pytest.raises(Broken):
        check(HOSTILE, folder)
    with pytest.raises(Broken):
        check(one('command: ["x", "y\\nprivileged: true"]'), folder)
    assert fuzz(number_of_seed=1, first=1000, count=20).failures


@pytest.mark.parametrize(
    ("there", "instead", "what"),
    [
        ("user:", "privileged: true\n    user:", "keys .'privileged'. differ"),
        ("cap_drop: [ALL]", "cap_drop: []", "cap_drop"),
        ("MAIL=x", "{{ env }}", "is not"),
        ("target: /workspace", "target: /", "target"),
        ("read_only: true", "read_only: false", "read_only"),
        ("ipv4_address: ", "ipv4_address: 1", "ipv4_address"),
        ("\nnetworks:\n", "\nnetworks:\n  more: {}\n", "keys"),
        ("\nservices:\n", "\nservices:\n  more: {image: x}\n", "keys"),
        ("name: shop", "name: other", "other"),
        ("init: true", "init: true\n    init: true", "twice"),
    ],
)
def test_a_file_with_something_else_in_it_is_caught(
    there: str, instead: str, what: str, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    _change(monkeypatch, "compose.yaml", there, instead)
    with pytest.raises(Broken, match=what):
        check(one("env: {A: MAIL=x}, source: {path: .}, volumes: {v: /v}, user: '1'"), folder)


@pytest.mark.parametrize(
    ("there", "instead", "what"),
    [
        ("Host(`a.localhost`)", "Host(`a.localhost`) || Host(`b`)", "rule"),
        ("[web]", "[traefik]", "entryPoints"),
        ("X-Dual-Project", "X-Other", "keys"),
        ("Rendered by", '{{ env "HOME" }}', "a Go template"),
    ],
)
def test_a_route_to_something_else_is_caught(
    there: str, instead: str, what: str, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    _change(monkeypatch, "traefik/routes/a.yaml", there, instead)
    with pytest.raises(Broken, match=what):
        check(one("user: '1'"), folder)


def _change(patch: pytest.MonkeyPatch, name: str, there: str, instead: str) -> None:
    """Have a rendered file say something else."""

    def changed(*arguments: Any, **options: Any) -> Any:
        desired = render.render(*arguments, **options)
        assert there in desired.files[name]
        files = {**desired.files, name: desired.files[name].replace(there, instead)}
        return replace(desired, files=files)

    patch.setattr("tests.fuzz.oracle.render", changed)


def _reads(*_: Any, **__: Any) -> None:
    Path("/etc/hostname").read_bytes()


def _reads_beside(path: Path) -> None:
    (path.parent.parent / "outside.env").read_text()


def _runs(*_: Any, **__: Any) -> None:
    subprocess.run(["true"], check=True)


def _fails(*_: Any, **__: Any) -> None:
    raise KeyError("x")


def _is_nowhere(*_: Any, **__: Any) -> None:
    raise SpecError("dual.yaml", [Problem(1000, 1, "", "wrong")])


def _tells(*_: Any, **__: Any) -> None:
    raise SpecError("dual.yaml", [Problem(1, 1, "", MARKER)])


@pytest.mark.parametrize(
    ("load", "what"),
    [
        (_reads, "it opened"),
        (_reads_beside, "it opened .*outside.env"),
        (_runs, "it ran subprocess.Popen"),
        (_fails, "load_project raised KeyError at test_fuzz.py"),
        (_is_nowhere, "which is nowhere"),
        (_tells, "tells what stands outside"),
    ],
)
def test_what_a_reader_must_not_do_is_caught(
    load: Callable[..., None], what: str, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.fuzz.oracle.load_project", load)
    with pytest.raises(Broken, match=what):
        check(one("user: '1'"), folder)


def test_what_takes_long_is_caught(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.oracle.SECONDS", 0.0)
    with pytest.raises(Broken, match="of processor time"):
        check(one("user: '1'"), folder)


def test_control_characters_on_the_terminal_are_caught(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = check(one('"\\e": 1'), folder)
    check_command_line(outcome, folder)
    monkeypatch.setattr("dual_iac.view.errors.harmless", lambda text: text)
    with pytest.raises(Broken, match="goes to the terminal"):
        check_command_line(outcome, folder)


def test_shrinking_keeps_what_matters() -> None:
    data = b"\n".join(b"line %d" % number for number in range(50)) + b"\nevil here\n"
    assert shrink(data, lambda given: b"evil" in given) == b"evil"
