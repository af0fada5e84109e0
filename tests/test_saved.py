"""A plan in a file: what is kept, what is refused, and why."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from dual_iac.errors import DualError, UsageError
from dual_iac.plan import Action, Change, Plan, Reason, make_plan
from dual_iac.saved import (
    SavedPlan,
    check_current,
    plan_document,
    plan_of,
    read_plan,
    save_plan,
)
from dual_iac.state import Desired, DesiredContainer, DesiredNetwork, Observed, ObservedImage

ROOT = Path(__file__).parents[1]

DESIRED = Desired(
    project="shop",
    files={"compose.yaml": "a: 1\n"},
    containers={
        "workspace.a": DesiredContainer(
            "a",
            "h1",
            {},
            {"image": "node", "name": "shop-a-1", "command": ("x", "y"), "env.T": "s3cret"},
            frozenset({"env.T"}),
        )
    },
    networks={"network.a": DesiredNetwork("ws-a", "10.0.0.0/29", "n1")},
    routes={},
)
OBSERVED = Observed(images={"node": ObservedImage("sha256:1", {})})
PLAN = make_plan(DESIRED, OBSERVED)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A saved plan."""
    save_plan(tmp_path / "saved.plan", PLAN, DESIRED, OBSERVED)
    return tmp_path / "saved.plan"


def test_the_document_is_what_it_was(path: Path) -> None:
    saved = read_plan(path)
    assert plan_of(saved) == PLAN
    check_current(path, saved, PLAN, DESIRED, OBSERVED)


def test_a_plan_of_all_sorts_is_shown_as_it_was_made() -> None:
    plan = Plan(
        "shop",
        changes=(
            Change("proxy", Action.UPDATE, (Reason("networks.ws-a", None, "10.0.0.3"),)),
            Change("workspace.a", Action.REPLACE, (Reason("resources.cpus", 1.5, None),), True),
        ),
        untouched=("workspace.b", "network.b"),
        targets=("a",),
        left_out=("workspace.b",),
    )
    document = plan_document(plan)
    assert plan_of(document) == plan
    assert document.drift == ("workspace.a",)
    assert document.model_dump(mode="json") == {
        "format_version": 1,
        "project": "shop",
        "changes": [
            {
                "address": "proxy",
                "action": "update",
                "reasons": [{"field": "networks.ws-a", "before": None, "after": "10.0.0.3"}],
            },
            {
                "address": "workspace.a",
                "action": "replace",
                "reasons": [{"field": "resources.cpus", "before": 1.5, "after": None}],
            },
        ],
        "untouched": ["workspace.b", "network.b"],
        "summary": {"create": 0, "update": 1, "replace": 1, "delete": 0, "start": 0},
        "drift": ["workspace.a"],
        "targets": ["a"],
        "left_out": ["workspace.b"],
    }


def test_words_of_a_command_survive_json(tmp_path: Path) -> None:
    """A tuple is read back as a list: still the same plan."""
    reason = Reason("command", ("x",), ("x", "y"))
    plan = Plan("shop", (Change("workspace.a", Action.REPLACE, (reason,)),), ())
    save_plan(tmp_path / "p", plan, DESIRED, OBSERVED)
    check_current(tmp_path / "p", read_plan(tmp_path / "p"), plan, DESIRED, OBSERVED)


def test_no_secret_is_kept(path: Path) -> None:
    """Nor two hashes of one: who has two saved plans can't tell whether a password stayed."""
    first = read_plan(path)
    assert "s3cret" not in path.read_text()
    save_plan(path, PLAN, DESIRED, OBSERVED)
    assert read_plan(path).bound_to.variables != first.bound_to.variables


def test_without_variables_nothing_is_hashed(tmp_path: Path) -> None:
    plain = replace(DESIRED, containers={})
    plan = make_plan(plain, OBSERVED)
    save_plan(tmp_path / "p", plan, plain, OBSERVED)
    assert read_plan(tmp_path / "p").bound_to.variables == ""
    check_current(tmp_path / "p", read_plan(tmp_path / "p"), plan, plain, OBSERVED)


def with_secret(value: str) -> Desired:
    container = DESIRED.containers["workspace.a"]
    fields = {**container.fields, "env.T": value}
    return replace(DESIRED, containers={"workspace.a": replace(container, fields=fields)})


@pytest.mark.parametrize(
    ("desired", "observed", "lines"),
    [
        (replace(DESIRED, networks={}), OBSERVED, ["network.a: not declared any more"]),
        (DESIRED, Observed(), ["workspace.a: its image is gone"]),
        (
            with_secret("other"),
            OBSERVED,
            ["a variable or a file of variables: another value now"],
        ),
        (
            replace(with_secret("other"), files={}),
            Observed(),
            [
                "file.compose.yaml: not declared any more",
                "workspace.a: its image is gone",
                "a variable or a file of variables: another value now",
            ],
        ),
        # Of another project, everything else differs as well, and doesn't matter.
        (
            replace(DESIRED, project="other", files={}),
            OBSERVED,
            ["project: shop then, other now"],
        ),
    ],
)
def test_what_moved_is_named(
    path: Path, desired: Desired, observed: Observed, lines: list[str]
) -> None:
    with pytest.raises(DualError, match="is out of date") as raised:
        check_current(path, read_plan(path), make_plan(desired, observed), desired, observed)
    first, *rest = raised.value.why.splitlines()
    assert first.startswith("made at 2")
    assert rest == lines
    assert f"dual plan --out {path}" in raised.value.mend
    assert "s3cret" not in raised.value.why


def test_another_plan_of_the_same_is_refused(path: Path) -> None:
    """A newer dual may plan otherwise, and nobody has seen that plan."""
    with pytest.raises(DualError) as raised:
        check_current(path, read_plan(path), replace(PLAN, changes=()), DESIRED, OBSERVED)
    assert "not what this version of dual plans now" in raised.value.why


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't be read") as raised:
        read_plan(tmp_path / "nowhere.plan")
    assert raised.value.why == "No such file or directory"


def edited(**keys: Any) -> str:
    document = {
        "project": "shop",
        "changes": [],
        "untouched": [],
        "summary": {},
        "bound_to": {
            "made_at": "2026-01-01T00:00:00Z",
            "desired": {},
            "observed": {},
            "salt": "",
            "variables": "",
        },
    }
    return json.dumps({**document, **keys})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Invalid JSON"),
        ("version: 1\n", "Invalid JSON"),
        ("\x00\udc80", "Invalid JSON"),
        ("[]", "Input should be an object"),
        ("{}", "project: Field required"),
        (edited(format_version=2), "format_version: "),
        (edited(summary={"destroy": 1}), "summary.destroy"),
        (edited(bound_to=None), "bound_to: "),
        (
            edited(changes=[{"address": "a", "action": "create", "reasons": []}]),
            "changes.0.reasons: ",
        ),
    ],
)
def test_a_file_that_is_no_plan(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "saved.plan"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(UsageError, match="is not a saved plan") as raised:
        read_plan(path)
    assert why in raised.value.why
    assert raised.value.mend.startswith("dual plan --out FILE makes one")
    assert path.name not in raised.value.mend, "who follows it must not overwrite a dual.yaml"


def test_a_file_of_another_kind_is_not_overwritten(path: Path) -> None:
    spec = path.with_name("dual.yaml")
    spec.write_text("version: 1\n")
    with pytest.raises(UsageError, match="can't be saved") as raised:
        save_plan(spec, PLAN, DESIRED, OBSERVED)
    assert raised.value.why == "there is a file of that name, which is not a saved plan"
    assert spec.read_text() == "version: 1\n"


@pytest.mark.parametrize(
    ("place", "why"),
    [("/dev/null", "it is no file"), (".", "it is a folder"), ("no/p", "there is no such folder")],
)
def test_a_plan_is_saved_in_a_file_alone(place: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't be saved") as raised:
        save_plan(tmp_path / place, PLAN, DESIRED, OBSERVED)
    assert raised.value.why == why


def test_a_link_stays_one(path: Path) -> None:
    (path.parent / "empty").touch()
    link = path.with_name("link")
    for end in ("saved.plan", "empty", "nothing-yet"):
        link.unlink(missing_ok=True)
        link.symlink_to(end)
        save_plan(link, PLAN, DESIRED, OBSERVED)
        assert link.is_symlink()
        assert plan_of(read_plan(path.with_name(end))) == PLAN


def test_a_later_version_may_add_keys(tmp_path: Path) -> None:
    path = tmp_path / "saved.plan"
    path.write_text(edited(added=1))
    assert read_plan(path).project == "shop"
    assert isinstance(read_plan(path), SavedPlan)


def test_the_json_of_a_plan_is_as_its_schema_says() -> None:
    schema = json.loads((ROOT / "docs/reference/plan.schema.json").read_text())
    data = plan_document(PLAN).model_dump(mode="json")
    jsonschema.validate(data, schema)
    for key in ("changes", "untouched", "summary", "drift", "targets", "left_out"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**data, key: "text"}, schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({each: data[each] for each in data if each != key}, schema)
