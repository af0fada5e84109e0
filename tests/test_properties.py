"""What must hold for every dual.yaml: rendered for real, applied to an engine in memory."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from dual_iac.apply import check_untouched
from dual_iac.errors import DualError, EngineUnreachableError
from dual_iac.output import write_files
from dual_iac.plan import RESTARTED, Action, Plan, make_plan
from dual_iac.saved import check_current, plan_document, plan_of, read_plan, save_plan
from dual_iac.state import PROXY, Desired, Observed, ObservedImage, digest, workspace_of
from tests.fake_engine import FakeEngine, Machine

NAMES = ("a", "b", "edge", "feat-x")  # edge: also the name of the proxy's network
IMAGES = (
    "busybox:1.35",
    "node:22",
    "node:24",
    "node:s3cret-tag",
    "traefik:v3.7.15",
    "traefik:v3.8.0",
)
VARIABLES = {"SECRET": "s3cret-variable", "TAG": "s3cret-tag", "UNUSED": "1"}
ENV_FILE = "FROM_FILE=s3cret-file\nB=s3cret-file\n"

# Deterministic, so that a change that passes here passes in CI; no deadline, as CI is slow.
few = settings(
    max_examples=16,
    deadline=None,
    derandomize=True,
    database=None,
    # Without Phase.shrink: put it in to look into a failure, it takes minutes.
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(autouse=True, scope="module")
def _no_sync() -> Iterator[None]:
    """Thousands of files are written here, and none has to survive a power cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        yield


@contextmanager
def machine() -> Iterator[Machine]:
    folder = Path(tempfile.mkdtemp(prefix="dual-"))
    try:
        (folder / "secret.env").write_text(ENV_FILE)
        made = Machine(folder, variables=dict(VARIABLES))
        inherited = {"env.PATH": "/bin", "command": ("serve",), "labels.vendor": "ada"}
        made.engine.pullable = {n: ObservedImage(f"sha256:{digest(n)}", inherited) for n in IMAGES}
        yield made
    finally:
        shutil.rmtree(folder)


# ── any dual.yaml ───────────────────────────────────────────────────────────────────────────

Spec = dict[str, Any]


def companions() -> st.SearchStrategy[Spec]:
    return st.fixed_dictionaries(
        {"image": st.sampled_from(["node:22", "node:${TAG}"])},
        optional={
            "env": st.dictionaries(st.just("A"), st.sampled_from(["1", "${SECRET}"])),
            "volumes": st.just({"data": "/d"}),
            "healthcheck": st.just({"test": "true", "interval": "1s"}),
        },
    )


@st.composite
def workspaces(draw: st.DrawFn, name: str) -> Spec:
    """One workspace, with any of its keys. The empty ones come first: hypothesis shrinks."""
    keys: dict[str, st.SearchStrategy[Any]] = {
        "image": st.sampled_from(["node:22", "node:24", "node:${TAG}"]),
    }
    optional: dict[str, st.SearchStrategy[Any]] = {
        "env": st.dictionaries(
            st.sampled_from(["A", "B", "PATH"]),
            st.sampled_from(["1", "", "$$5", "x y: z", "${SECRET}", "${NOT_SET:-}"]),
        ),
        "env_file": st.just(["secret.env"]),
        "hosts": st.lists(st.sampled_from([f"{name}.test", f"{name}.example"]), unique=True),
        "volumes": st.dictionaries(
            st.sampled_from(["cache", "data"]), st.sampled_from(["/v"]), max_size=1
        ),
        "source": st.just({"path": "."}),
        "user": st.sampled_from(["1000", "1000:1000"]),
        "command": st.sampled_from(["sleep 60", ["sh", "-c", "echo $$X"], ["run", "${SECRET}"]]),
        "resources": st.fixed_dictionaries(
            {},
            optional={
                "cpus": st.sampled_from([1, 0.5]),
                "memory": st.sampled_from(["64m", "1g"]),
                "pids": st.just(50),
            },
        ),
        "enabled": st.booleans(),
        "services": st.dictionaries(st.sampled_from(["db", "mail"]), companions(), max_size=2),
    }
    return draw(st.fixed_dictionaries(keys, optional=optional))


@st.composite
def specs(draw: st.DrawFn, at_least: int = 0) -> Spec:
    spec: Spec = {
        "version": 1,
        "project": "shop",
        "proxy": {
            "http": draw(st.sampled_from([3000, 3001])),
            "image": draw(st.sampled_from(["traefik:v3.7.15", "traefik:v3.8.0"])),
        },
        "network": {"pool": draw(st.sampled_from(["10.213.0.0/16", "10.214.0.0/24"]))},
    }
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=at_least))
    spec["workspaces"] = {name: draw(workspaces(name)) for name in names}
    if draw(st.booleans()):
        spec["defaults"] = {"env": {"SHARED": "1"}}
    return spec


@st.composite
def edits(draw: st.DrawFn, at_least: int = 0) -> tuple[Spec, Spec]:
    """Two specs, the second one an edit of the first: most parts of it stay."""
    before, other = draw(specs(at_least)), draw(specs())
    after = dict(before)
    for key in draw(st.sets(st.sampled_from(["proxy", "network", "defaults"]), max_size=1)):
        after.pop(key, None)
        if key in other:
            after[key] = other[key]
    moved = draw(st.sets(st.sampled_from(NAMES)))
    kept = {name: each for name, each in before["workspaces"].items() if name not in moved}
    new = {name: each for name, each in other["workspaces"].items() if name in moved}
    after["workspaces"] = kept | new
    return before, after


def text(spec: Spec) -> str:
    return yaml.safe_dump(spec, sort_keys=False)


@st.composite
def turned(draw: st.DrawFn, value: Any) -> Any:
    """A value with every map in it in another order."""
    if isinstance(value, dict):
        return {key: draw(turned(value[key])) for key in draw(st.permutations(list(value)))}
    return value


# ── what must hold ──────────────────────────────────────────────────────────────────────────


def applied(on: Machine, spec: Spec, *targets: str) -> Plan:
    """Apply a spec, and see that nobody but whom the plan names was touched."""
    before = on.lives()
    plan, failures = on.apply(text(spec), *targets)
    assert failures == {}
    check_lives(plan, before, on.lives())
    return plan


def check_lives(plan: Plan, before: dict[str, Any], after: dict[str, Any]) -> None:
    for address, life in before.items():
        change = plan.change(address)
        if change is None or (change.action is Action.UPDATE and not change.fields & RESTARTED):
            assert after[address] == life, f"{address} was touched"
        elif change.action in (Action.START, Action.UPDATE) and address in after:
            assert after[address][0] == life[0], f"{address} was replaced"


def check_covers(plan: Plan, desired: Desired, observed: Observed) -> None:
    """Every address is either changed or untouched."""
    changed = [change.address for change in plan.changes]
    both = [each for each in (*changed, *plan.untouched) if not each.startswith("file.")]
    assert len(both) == len(set(both))
    assert {*desired.containers, *desired.networks, *desired.routes} <= set(both)
    assert {*observed.containers, *observed.networks} <= set(both)
    assert all(change.reasons for change in plan.changes)


def check_converged(on: Machine, spec: Spec) -> None:
    assert on.plan(text(spec)).changes == ()


@given(edits())
@few
def test_after_apply_the_plan_is_empty_and_only_who_was_named_was_touched(
    specs: tuple[Spec, Spec],
) -> None:
    with machine() as here:
        for spec in specs:
            desired = here.desired(text(spec))
            observed = here.observed(desired)
            check_covers(make_plan(desired, observed), desired, observed)
            applied(here, spec)
            check_converged(here, spec)


@given(st.data())
@few
def test_the_order_of_keys_in_the_yaml_means_nothing(data: st.DataObject) -> None:
    before, after = data.draw(edits(at_least=1))
    with machine() as here:
        here.apply(text(before))
        desired, other = here.desired(text(after)), here.desired(text(data.draw(turned(after))))
        assert desired == other
        assert list(desired.files.items()) == list(other.files.items())
        observed = here.observed(desired)
        assert make_plan(desired, observed) == make_plan(other, observed)


@given(edits(at_least=1), st.permutations(NAMES), st.sampled_from(["up", "down", "gone"]))
@settings(few, max_examples=10)
def test_a_plan_for_a_name_changes_what_is_its_own(
    specs: tuple[Spec, Spec], names: list[str], proxy: str
) -> None:
    with machine() as here:
        applied(here, specs[0])
        if proxy == "down":
            here.engine.stop("traefik")
        elif proxy == "gone":
            here.engine.remove(here.engine.container("traefik").id)
        for name in names:
            desired = here.desired(text(specs[1]))
            observed = here.observed(desired)
            found = observed.containers.get(PROXY)
            plan = applied(here, specs[1], name)
            check_covers(plan, desired, observed)
            others = [c for c in plan.changes if workspace_of(c.address) not in ("", name)]
            if found and found.is_up:
                assert others == []
                assert plan.change(PROXY) is None or plan.addresses(PROXY, Action.UPDATE)
            # What the targets need has been done: the same again has nothing to do.
            assert here.plan(text(specs[1]), name).changes == ()
        applied(here, specs[1])
        check_converged(here, specs[1])


@given(specs(), st.permutations(NAMES))
@few
def test_names_one_by_one_come_to_the_same_as_all(spec: Spec, names: list[str]) -> None:
    """Also from nothing, where the first name brings up the proxy."""
    with machine() as here:
        for name in names:
            applied(here, spec, name)
        proxy = here.lives().get(PROXY)
        applied(here, spec)
        check_converged(here, spec)
        assert proxy in (None, here.lives()[PROXY]), "the proxy stays, once it is up"


# ── what people do by hand ──────────────────────────────────────────────────────────────────


def stop(engine: FakeEngine, service: str) -> None:
    engine.stop(service)


def pause(engine: FakeEngine, service: str) -> None:
    if engine.container(service).state == "running":
        engine.container(service).state = "paused"


def die(engine: FakeEngine, service: str) -> None:
    engine.container(service).state = "dead"


def remove(engine: FakeEngine, service: str) -> None:
    engine.remove(engine.container(service).id)


def relabel(engine: FakeEngine, service: str) -> None:
    engine.container(service).hash = "0000"


def limit(engine: FakeEngine, service: str) -> None:
    engine.container(service).fields["resources.memory"] = 2**20


def never_restart(engine: FakeEngine, service: str) -> None:
    engine.container(service).fields.pop("restart", None)


def rename(engine: FakeEngine, service: str) -> None:
    engine.container(service).name = f"renamed-{service}"


def detach(engine: FakeEngine, service: str) -> None:
    engine.container(service).endpoints.popitem()


def attach(engine: FakeEngine, service: str) -> None:
    """To all networks of the project."""
    container = engine.container(service)
    for name in set(engine.networks) - set(container.endpoints):
        engine.connect(name, container.id, "")


def take_network(engine: FakeEngine, service: str) -> None:
    """Stop all who use it, and remove it: what ``docker network prune`` does."""
    for name in engine.container(service).endpoints:
        for each in engine.containers.values():
            if name in each.endpoints:
                each.state = "exited"
        if name in engine.networks:
            engine.remove_network(name)
        return


def double(engine: FakeEngine, service: str) -> None:
    """``docker compose up --scale``."""
    engine.add(service, f"shop-{service}-2", **engine.container(service).fields)


def join(engine: FakeEngine, service: str) -> None:
    """A container of nobody's in the compose project."""
    engine.add("", f"foreign-{service}")


def retag(engine: FakeEngine, service: str) -> None:
    name = engine.container(service).image
    engine.tagged[name] = replace(engine.tagged[name], id=f"{engine.tagged[name].id}-new")


def edit_file(engine: FakeEngine, service: str) -> None:
    path = engine.output / f"traefik/routes/{service}.yaml"
    path.write_text(path.read_text() + "# edited\n")


def delete_file(engine: FakeEngine, service: str) -> None:
    (engine.output / f"traefik/routes/{service}.yaml").unlink()


def edit_compose(engine: FakeEngine, service: str) -> None:
    path = engine.output / "compose.yaml"
    path.write_text(path.read_text().replace(f"  {service}:\n    image", f"  {service}:\n    imag"))


def delete_folder(engine: FakeEngine, _: str) -> None:
    shutil.rmtree(engine.output)
    engine.blind = True


def add_file(engine: FakeEngine, _: str) -> None:
    (engine.output / "traefik/routes/stray.yaml").write_text("http: {}\n")


def lose_sight(engine: FakeEngine, _: str) -> None:
    """Traefik's watch of its files died."""
    engine.blind = True


def untag(engine: FakeEngine, service: str) -> None:
    engine.tagged.pop(engine.container(service).image, None)


DRIFTS: list[Callable[[FakeEngine, str], None]] = [
    *(stop, pause, die, remove, relabel, limit, never_restart, rename, detach, attach),
    *(take_network, double, join, retag, edit_file, delete_file, edit_compose, delete_folder),
    *(add_file, lose_sight, untag),
]
PLAIN: Spec = {
    "version": 1,
    "project": "shop",
    "workspaces": {
        "a": {"image": "node:22", "source": {"path": "."}, "env": {"A": "1"}},
        "b": {"image": "node:${TAG}", "env_file": ["secret.env"], "user": "1000"},
        "c": {"image": "node:22", "services": {"db": {"image": "node:22"}}},
    },
}


def possible(drift: Callable[[FakeEngine, str], None], service: str) -> bool:
    """What shares another's network has none of its own, and companions have no route."""
    if service in ("c", "c--db") and drift in (detach, take_network):
        return False
    return "--" not in service or drift not in (edit_file, delete_file)


@pytest.mark.parametrize(
    ("drift", "service"),
    [
        pytest.param(drift, service, id=f"{drift.__name__}-{service}")
        for drift in DRIFTS
        for service in ("a", "traefik", "c", "c--db", "c--localhost")
        if possible(drift, service)
    ],
)
def test_any_one_change_by_hand_is_shown_and_undone(
    drift: Callable[[FakeEngine, str], None], service: str
) -> None:
    with machine() as here:
        applied(here, PLAIN)
        drift(here.engine, service)
        if drift is untag or (drift is attach and service == "traefik"):
            # An image that lost its name is still what the container runs, and the proxy is on
            # all networks anyway.
            assert here.plan(text(PLAIN)).changes == ()
            return
        assert applied(here, PLAIN).changes
        check_converged(here, PLAIN)


@given(
    edits(at_least=1),
    st.lists(
        st.tuples(
            st.sampled_from(DRIFTS), st.sampled_from([*NAMES, "traefik", "a--db", "a--localhost"])
        ),
        min_size=2,
    ),
    st.booleans(),
)
@few
def test_all_sorts_of_changes_by_hand_are_undone(
    specs: tuple[Spec, Spec],
    drifts: list[tuple[Callable[[FakeEngine, str], None], str]],
    edited: bool,
) -> None:
    """Whatever was done by hand, together with an edit of dual.yaml or without."""
    spec = specs[1] if edited else specs[0]
    with machine() as here:
        applied(here, specs[0])
        for drift, service in drifts:
            # What can't be done to the state that is there was no drift.
            try:
                drift(here.engine, service)
            except (ValueError, KeyError, OSError, DualError):
                continue
        paused = [c.service for c in here.engine.containers.values() if c.state == "paused"]
        applied(here, spec)
        if "traefik" in paused and here.engine.blind:
            # What a paused proxy has read can't be asked: that shows once it runs again.
            applied(here, spec)
        check_converged(here, spec)


# ── failures ────────────────────────────────────────────────────────────────────────────────


@given(edits(at_least=1), st.sampled_from(NAMES), st.sampled_from(["create", "start", "remove"]))
@few
def test_who_fails_fails_alone(specs: tuple[Spec, Spec], failing: str, operation: str) -> None:
    # A network moves when all who are on it are gone, and the proxy needs it where it moved to.
    pools = [spec.get("network") for spec in specs]
    assume(operation != "remove" or pools[0] == pools[1])
    with machine() as here:
        applied(here, specs[0])
        before = here.lives()
        here.engine.refuse = {(operation, failing)}
        plan, failures = here.apply(text(specs[1]))
        assert {workspace_of(address) for address in failures} <= {failing}
        check_lives(plan, before, here.lives())
        left = here.plan(text(specs[1]))
        assert {workspace_of(change.address) for change in left.changes} <= {failing, ""}
        if proxy := left.change(PROXY):
            assert [reason.field for reason in proxy.reasons] == [f"networks.ws-{failing}"]
        here.engine.refuse = set()
        applied(here, specs[1])
        check_converged(here, specs[1])


@given(edits(at_least=1), st.integers(0, 12), st.booleans())
@few
def test_interrupted_anywhere_the_next_apply_converges(
    specs: tuple[Spec, Spec], last: int, gently: bool
) -> None:
    """By a signal, or by an engine that goes away: both end it, wherever it is."""
    with machine() as here:
        applied(here, specs[0])
        before = here.lives()
        left = iter(range(last))
        error = KeyboardInterrupt() if gently else EngineUnreachableError("gone")

        def interrupt(*_: str) -> None:
            if next(left, None) is None:
                raise error

        here.engine.on_call = interrupt
        plan = here.plan(text(specs[1]))
        with suppress(KeyboardInterrupt, EngineUnreachableError):
            here.apply(text(specs[1]))
        check_lives(plan, before, here.lives())
        here.engine.on_call = lambda *_: None
        applied(here, specs[1])
        check_converged(here, specs[1])


# ── saved plans ─────────────────────────────────────────────────────────────────────────────


@given(edits(at_least=1), st.sampled_from([(), ("a",)]))
@settings(few, max_examples=8)
def test_a_saved_plan_is_the_same_when_it_is_read(
    specs: tuple[Spec, Spec], targets: tuple[str, ...]
) -> None:
    with machine() as here:
        here.apply(text(specs[0]))
        desired = here.desired(text(specs[1]))
        observed = here.observed(desired)
        plan = make_plan(desired, observed, targets)
        path = here.folder / "saved.plan"
        save_plan(path, plan, desired, observed)
        assert "s3cret" not in path.read_text()
        saved = read_plan(path)
        check_current(path, saved, plan, desired, observed)
        shown, made = plan_document(plan_of(saved)), plan_document(plan)
        assert shown.model_dump(mode="json") == made.model_dump(mode="json")
        # The same is planned again, from another look at the same things.
        again = here.desired(text(specs[1]))
        seen = here.observed(again)
        check_current(path, saved, make_plan(again, seen, targets), again, seen)


@pytest.mark.parametrize("drift", DRIFTS, ids=lambda each: each.__name__)
def test_a_saved_plan_is_refused_after_any_change_by_hand(
    drift: Callable[[FakeEngine, str], None],
) -> None:
    """By a line that begins with what has changed."""
    with machine() as here:
        applied(here, PLAIN)
        edited = PLAIN | {"proxy": {"http": 3001}}
        desired = here.desired(text(edited))
        observed = here.observed(desired)
        path = here.folder / "saved.plan"
        save_plan(path, make_plan(desired, observed), desired, observed)
        drift(here.engine, "a")
        if drift is relabel:
            return  # no engine can change a label of a container that stays
        now = here.observed(desired)
        with pytest.raises(DualError, match="is out of date") as raised:
            check_current(path, read_plan(path), make_plan(desired, now), desired, now)
        named = {
            "lose_sight": "proxy: ",
            "take_network": "network.a: its network is gone",
            "retag": "workspace.a: its image is another one now",
            "untag": "workspace.a: its image is gone",
            "double": "workspace.a#shop-a-2: had no container then",
            "join": "workspace.foreign-a: had no container then",
            "edit_file": "file.traefik/routes/a.yaml: edited since",
            "delete_file": "file.traefik/routes/a.yaml: gone now",
            "edit_compose": "file.compose.yaml: edited since",
            "delete_folder": "file.compose.yaml: gone now",
            "add_file": "file.traefik/routes/stray.yaml: not there then",
            "remove": "workspace.a: its container is gone",
            "stop": "workspace.a: running then, exited now",
        }.get(drift.__name__, "workspace.a: ")
        lines = raised.value.why.splitlines()[1:]
        assert any(line.startswith(named) for line in lines), lines


def change(spec: Spec, **workspace: Any) -> Spec:
    """``spec`` with some keys of workspace a changed."""
    edited = {**spec["workspaces"]["a"], **workspace}
    return spec | {"workspaces": {**spec["workspaces"], "a": edited}}


@pytest.mark.parametrize(
    ("after", "named"),
    [
        (change(PLAIN, env={"A": "2"}), "workspace.a: declared otherwise now"),
        (change(PLAIN, user="1"), "workspace.a: declared otherwise now"),
        (change(PLAIN, hosts=["a.test"]), "route.a: declared otherwise now"),
        (change(PLAIN, enabled=False), "workspace.a: not declared any more"),
        (PLAIN | {"proxy": {"http": 3001}}, "proxy: declared otherwise now"),
        (PLAIN | {"network": {"pool": "10.9.0.0/16"}}, "network.a: declared otherwise now"),
        (
            PLAIN | {"workspaces": {**PLAIN["workspaces"], "d": {"image": "node:22"}}},
            "workspace.d: not declared then",
        ),
    ],
)
def test_a_saved_plan_is_refused_after_any_change_of_the_spec(after: Spec, named: str) -> None:
    with machine() as here:
        desired = here.desired(text(PLAIN))
        observed = here.observed(desired)
        path = here.folder / "saved.plan"
        save_plan(path, make_plan(desired, observed), desired, observed)
        changed = here.desired(text(after))
        with pytest.raises(DualError, match="is out of date") as raised:
            check_current(path, read_plan(path), make_plan(changed, observed), changed, observed)
        assert named in raised.value.why.splitlines()


def test_a_saved_plan_is_refused_after_a_change_of_variables() -> None:
    with machine() as here:
        desired = here.desired(text(PLAIN))
        observed = here.observed(desired)
        plan = make_plan(desired, observed)
        path = here.folder / "saved.plan"
        save_plan(path, plan, desired, observed)
        (here.folder / "secret.env").write_text(ENV_FILE.replace("s3cret-file", "s3cret-other"))
        changed = here.desired(text(PLAIN))
        with pytest.raises(DualError, match="is out of date") as raised:
            check_current(path, read_plan(path), plan, changed, observed)
        assert "a variable or a file of variables: another value now" in raised.value.why
        assert "s3cret" not in raised.value.why


def test_the_guard_of_these_tests_is_the_one_of_apply() -> None:
    """check_untouched would raise for what check_lives finds: neither is looser by mistake."""
    with machine() as here:
        applied(here, PLAIN)
        desired = here.desired(text(PLAIN))
        observed = here.observed(desired)
        here.engine.container("a").started_at = "2026-02-02T00:00:00Z"
        with pytest.raises(DualError, match="the plan had left out"):
            check_untouched(make_plan(desired, observed), observed, here.observed(desired))


def test_write_files_leaves_nothing_behind() -> None:
    with machine() as here:
        desired = here.desired(text(PLAIN))
        write_files(desired.files, here.engine.output)
        there = {
            path.relative_to(here.engine.output).as_posix()
            for path in here.engine.output.rglob("*")
            if path.is_file()
        }
        assert there == set(desired.files)
