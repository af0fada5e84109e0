"""Carrying out a plan, on an engine in memory. Each test is two specs and what became of it."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dual_iac.apply import all_of, check_unmoved, check_untouched, side_by_side, take_down
from dual_iac.errors import DualError, EngineUnreachableError
from dual_iac.output import SEEN_FILE, STATIC_FILE
from dual_iac.plan import Action, Plan, make_plan
from dual_iac.state import PROXY, Observed, ObservedContainer, ObservedImage
from tests.fake_engine import Machine

SPEC = """\
version: 1
project: shop
workspaces:
  a: {image: "node:22"}
  b: {image: "node:22", user: "1000"}
"""
ONE_MORE = f"{SPEC}  c: {{image: 'node:22'}}\n"
ONLY_B = SPEC.replace('  a: {image: "node:22"}\n', "")
OTHER_POOL = SPEC.replace("workspaces:", "network: {pool: 10.9.0.0/16}\nworkspaces:")


@pytest.fixture
def here(tmp_path: Path) -> Machine:
    """A machine that can pull what the specs above need, and has nothing."""
    machine = Machine(tmp_path)
    machine.engine.pullable = {
        name: ObservedImage(f"sha256:{name}", {"env.PATH": "/bin"})
        for name in ("node:22", "traefik:v3.7.15")
    }
    return machine


@pytest.fixture
def running(here: Machine) -> Machine:
    """A machine that SPEC was applied to; what it did for that is forgotten."""
    assert here.apply(SPEC)[1] == {}
    here.engine.calls.clear()
    here.progress.clear()
    return here


# ── what is done, and in which order ────────────────────────────────────────────────────────


def test_from_nothing(here: Machine) -> None:
    here.apply(SPEC)
    pulls, rest = here.engine.calls[:2], here.engine.calls[2:]
    assert sorted(pulls) == [("pull", "node:22"), ("pull", "traefik:v3.7.15")]
    assert rest[:3] == [("create", "traefik"), ("create", "a"), ("create", "b")]
    assert sorted(rest[3:]) == [("start", "a"), ("start", "b"), ("start", "traefik")]
    assert here.plan(SPEC).changes == ()
    assert ("a", "pulling node:22") in here.progress
    assert ("a", "started") in here.progress


def test_nothing_to_do_does_nothing(running: Machine) -> None:
    plan, failures = running.apply(SPEC)
    assert (plan.changes, failures, running.engine.calls) == ((), {}, [])


def test_one_more_is_attached_live(running: Machine) -> None:
    before = running.lives()
    running.apply(ONE_MORE)
    assert running.engine.calls == [("create", "c"), ("connect", "traefik"), ("start", "c")]
    assert running.lives().items() >= before.items()


def test_one_less_is_detached_live(running: Machine) -> None:
    proxy = running.lives()[PROXY]
    running.apply(ONLY_B)
    assert running.engine.calls == [
        ("disconnect", "traefik"),
        ("remove", "a"),
        ("remove_network", "shop_ws-a"),
    ]
    assert running.lives()[PROXY] == proxy
    assert running.plan(ONLY_B).changes == ()


def test_another_pool_moves_everything(running: Machine) -> None:
    running.apply(OTHER_POOL)
    assert running.plan(OTHER_POOL).changes == ()
    assert all(each.subnet.startswith("10.9.") for each in running.engine.networks.values())


def test_what_is_stopped_or_paused_is_started_as_it_is(running: Machine) -> None:
    ids = {address: life[0] for address, life in running.lives().items()}
    running.engine.stop("a")
    running.engine.container("b").state = "paused"
    running.apply(SPEC)
    assert sorted(running.engine.calls) == [("start", "a"), ("unpause", "b")]
    assert {address: life[0] for address, life in running.lives().items()} == ids


def test_a_name_is_given_back_while_it_runs(running: Machine) -> None:
    before = running.lives()
    running.engine.container("a").name = "mine"
    plan, _ = running.apply(SPEC)
    assert plan.addresses("workspace", Action.UPDATE) == ("a",)
    assert running.engine.calls == [("rename", "a")]
    assert running.engine.container("a").name == "shop-a-1"
    assert running.lives() == before


def test_the_proxy_goes_back_to_its_own_address(running: Machine) -> None:
    before, proxy = running.lives(), running.engine.container("traefik")
    running.engine.disconnect("shop_ws-a", proxy.id)
    running.engine.connect("shop_ws-a", proxy.id, "")
    running.engine.calls.clear()
    running.apply(SPEC)
    assert running.engine.calls == [("disconnect", "traefik"), ("connect", "traefik")]
    assert running.lives() == before
    assert running.plan(SPEC).changes == ()


def test_a_network_that_was_pruned_comes_back_with_a_new_container(running: Machine) -> None:
    """A stopped container refers to networks by id, and would never start again."""
    running.engine.stop("a")
    running.engine.disconnect("shop_ws-a", running.engine.container("traefik").id)
    running.engine.remove_network("shop_ws-a")
    plan, failures = running.apply(SPEC)
    assert failures == {}
    assert plan.addresses("workspace", Action.REPLACE) == ("a",)
    assert running.plan(SPEC).changes == ()


@pytest.mark.parametrize("service", ["a", "traefik"])
def test_one_too_many_is_removed(running: Machine, service: str) -> None:
    before = running.lives()
    fields = running.engine.container(service).fields
    running.engine.add(service, f"shop-{service}-2", **fields)
    running.apply(SPEC)
    assert running.engine.calls == [("remove", service)]
    assert running.lives() == before
    assert running.plan(SPEC).changes == ()


def test_a_container_of_nobodys_is_removed(running: Machine) -> None:
    running.engine.add("", "stray")
    plan, _ = running.apply(SPEC)
    assert [change.address for change in plan.changes] == ["workspace.stray"]
    assert running.engine.calls == [("remove", "")]


# ── before anything is touched ──────────────────────────────────────────────────────────────


def test_a_port_that_is_taken_changes_nothing(here: Machine) -> None:
    here.engine.taken_ports = {3000}
    with pytest.raises(DualError, match="Port 3000 is taken"):
        here.apply(SPEC)
    assert here.engine.calls == []
    assert not here.engine.output.exists()


def test_a_port_that_is_taken_keeps_the_proxy(running: Machine) -> None:
    running.engine.taken_ports = {3001}
    moved = SPEC.replace("workspaces:", "proxy: {http: 3001}\nworkspaces:")
    with pytest.raises(DualError, match="Port 3001 is taken"):
        running.apply(moved)
    assert running.engine.calls == []
    assert running.plan(SPEC).changes == ()


def test_a_proxy_that_keeps_its_port_does_not_stand_in_its_own_way(running: Machine) -> None:
    opened = SPEC.replace("workspaces:", "proxy: {bind: 0.0.0.0}\nworkspaces:")
    running.engine.taken_ports = {3000}
    with pytest.raises(DualError, match="Port 3000 is taken") as raised:
        running.apply(opened)
    assert raised.value.why == "0.0.0.0, besides 127.0.0.1"
    assert running.engine.calls == []
    running.engine.taken_ports = set()
    assert running.apply(opened)[1] == {}
    assert running.plan(opened).changes == ()


def test_a_port_that_goes_with_this_plan_is_free(running: Machine) -> None:
    """A container of nobody's has taken the proxy's place, and its port."""
    del running.engine.containers[running.engine.container("traefik").id]
    running.engine.add("traefik", "stray", **{"ports.8000/tcp": "127.0.0.1:3000"})
    running.engine.taken_ports = {3000}
    assert running.apply(SPEC)[1] == {}
    assert running.plan(SPEC).changes == ()


def test_addresses_that_are_taken_change_nothing(running: Machine) -> None:
    running.engine.taken_subnets = [ipaddress.ip_network("10.9.0.0/16")]
    before = running.lives()
    with pytest.raises(DualError, match="addresses are taken"):
        running.apply(OTHER_POOL)
    assert running.engine.calls == []
    assert running.lives() == before


def test_what_the_engine_says_keeps_secrets(running: Machine) -> None:
    running.variables["WHO"] = "s3cret"
    running.engine.variables = running.variables

    def refuse(operation: str, service: str) -> None:
        if (operation, service) == ("start", "b"):
            raise DualError("Refused", why="no user s3cret", mend="make s3cret")

    running.engine.on_call = refuse
    _, failures = running.apply(SPEC.replace('"1000"', '"${WHO}"'))
    assert failures["workspace.b"].why == "no user (hidden)"
    assert failures["workspace.b"].mend == "make (hidden)"


def test_without_the_proxys_image_nothing_is_changed(here: Machine) -> None:
    here.engine.pullable = {}
    with pytest.raises(DualError, match="nothing was changed") as raised:
        here.apply(SPEC)
    assert raised.value.why.splitlines() == [
        "workspace.a: Image node:22 can't be had: No such image: manifest for node:22 not found",
        "workspace.b: Image node:22 can't be had: No such image: manifest for node:22 not found",
        "proxy: Image traefik:v3.7.15 can't be had: "
        "No such image: manifest for traefik:v3.7.15 not found",
    ]
    assert here.engine.calls == []
    assert not here.engine.output.exists()


def test_an_image_that_cannot_be_had_leaves_the_others_applied(running: Machine) -> None:
    """The one that is new isn't there; the one that would be replaced runs on as it was."""
    lives = running.lives()
    spec = f'{SPEC.replace("node:22", "nowhere:1", 1)}  c: {{image: "nowhere:2"}}\n'
    spec = f'{spec}  d: {{image: "node:22"}}\n'
    _, failures = running.apply(spec)
    assert {address: error.summary for address, error in failures.items()} == {
        "workspace.a": "Image nowhere:1 can't be had",
        "workspace.c": "Image nowhere:2 can't be had",
    }
    assert {a: life for a, life in running.lives().items() if a in lives} == lives
    assert running.engine.container("d").state == "running"
    assert set(running.lives()) == {*lives, "workspace.d"}
    assert "traefik/routes/c.yaml" not in running.engine.observe().files
    assert [call for call in running.engine.calls if "c" in call] == []
    running.engine.pullable |= {f"nowhere:{n}": ObservedImage(f"sha256:{n}", {}) for n in (1, 2)}
    assert running.apply(spec)[1] == {}
    assert running.plan(spec).changes == ()


def test_one_that_must_leave_its_network_needs_its_image_first(running: Machine) -> None:
    before = running.lives()
    spec = OTHER_POOL.replace("node:22", "nowhere:1", 1)
    with pytest.raises(DualError, match="can't be made, and nothing was changed"):
        running.apply(spec)
    assert running.lives() == before


@pytest.mark.parametrize("state", ["exited", "running"])
def test_what_needs_no_image_pulls_none(running: Machine, state: str) -> None:
    """An image that lost its name, or was removed, is nothing to a container that has it."""
    running.engine.container("traefik").state = state
    del running.engine.tagged["traefik:v3.7.15"]
    running.apply(ONE_MORE)
    assert ("pull", "traefik:v3.7.15") not in running.engine.calls
    assert running.plan(ONE_MORE).changes == ()


def test_what_moved_while_it_was_planned_changes_nothing(running: Machine) -> None:
    desired = running.desired(ONE_MORE)
    observed = running.observed(desired)
    plan = make_plan(desired, observed)
    running.engine.stop("a")
    with pytest.raises(DualError, match="changed while it was planned") as raised:
        running.carry_out(plan, desired, observed)
    assert raised.value.why == "workspace.a: running then, exited now"
    assert running.engine.calls == []


def test_images_that_were_pulled_meanwhile_are_no_move(running: Machine) -> None:
    observed = running.engine.observe()
    check_unmoved(observed, replace(observed, images={"node:22": ObservedImage("other", {})}))


def test_a_folder_that_cannot_be_written_changes_nothing(
    running: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise DualError("The rendered project can't be written")

    monkeypatch.setattr("dual_iac.apply.write_files", full)
    with pytest.raises(DualError, match="can't be written"):
        running.apply(ONE_MORE)
    assert running.engine.calls == []


# ── when it fails ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("operation", ["create", "start"])
def test_one_that_fails_leaves_the_others_applied(running: Machine, operation: str) -> None:
    proxy, two_more = running.lives()[PROXY], f"{ONE_MORE}  d: {{image: 'node:22'}}\n"
    running.engine.refuse = {(operation, "c")}
    _, failures = running.apply(two_more)
    assert list(failures) == ["workspace.c"]
    assert failures["workspace.c"].why == f"can't {operation} c"
    assert running.engine.container("d").state == "running"
    assert running.lives()[PROXY] == proxy, "Traefik keeps running, whoever fails"
    assert ("c", "failed") in running.progress
    running.engine.refuse = set()
    assert running.apply(two_more)[1] == {}
    assert running.plan(two_more).changes == ()


def test_the_second_round_mends_what_was_in_the_way_for_a_moment(running: Machine) -> None:
    def once(operation: str, _: str) -> None:
        running.engine.refuse.discard((operation, "c"))
        if operation == "create":
            running.engine.on_call = lambda *_: None
            raise DualError("Refused", why="removal of container is already in progress")

    running.engine.on_call = once
    assert running.apply(ONE_MORE)[1] == {}
    assert running.plan(ONE_MORE).changes == ()


def test_a_new_container_that_can_never_start_is_made_anew(running: Machine) -> None:
    """As after an engine that was killed while it started one: "task already exists"."""
    tried: list[str] = []

    def never(operation: str, service: str) -> None:
        if (operation, service) == ("start", "c"):
            tried.append(running.engine.container("c").id)
            if tried[-1] == tried[0]:
                raise DualError("Refused", why="task already exists")

    running.engine.on_call = never
    assert running.apply(ONE_MORE)[1] == {}
    assert running.engine.calls.count(("create", "c")) == 2


def test_what_a_killed_engine_left_on_a_network_goes_with_it(running: Machine) -> None:
    """An engine that was killed as it started c left a process with its address, unknown to all."""
    running.engine.refuse = {("start", "c")}
    running.apply(ONE_MORE)
    lives, networks = running.lives(), dict(running.engine.networks)
    stuck = running.engine.container("c").id

    def never(operation: str, service: str) -> None:
        if (operation, service) == ("start", "c") and running.engine.container("c").id == stuck:
            raise DualError("Refused", why=f"task {stuck}: already exists")

    running.engine.refuse, running.engine.on_call = set(), never
    plan, failures = running.apply(ONE_MORE)
    assert (plan.addresses("workspace", Action.START), failures) == (("c",), {})
    changed = [name for name, each in running.engine.networks.items() if networks[name] != each]
    assert changed == ["shop_ws-c"]
    assert {a: life for a, life in running.lives().items() if a != "workspace.c"} == {
        a: life for a, life in lives.items() if a != "workspace.c"
    }
    assert running.plan(ONE_MORE).changes == ()


def test_a_workspace_that_cannot_be_removed_is_named(running: Machine) -> None:
    running.engine.refuse = {("remove", "a")}
    _, failures = running.apply(ONLY_B.replace("1000", "1001"))
    assert list(failures) == ["workspace.a"]
    assert running.engine.container("b").fields["user"] == "1001"
    assert ("a", "failed") in running.progress


def test_a_rename_that_fails_is_the_workspaces(running: Machine) -> None:
    running.engine.container("a").name = "mine"
    running.engine.refuse = {("rename", "a")}
    assert list(running.apply(SPEC)[1]) == ["workspace.a"]


def test_a_workspace_that_cannot_be_attached_fails_alone(running: Machine) -> None:
    running.engine.refuse = {("connect", "traefik")}
    _, failures = running.apply(ONE_MORE)
    assert list(failures) == ["workspace.c"]


@pytest.mark.parametrize("operation", ["create", "start"])
def test_without_the_proxy_nothing_works(here: Machine, operation: str) -> None:
    here.engine.refuse = {(operation, "traefik")}
    with pytest.raises(DualError) as raised:
        here.apply(SPEC)
    assert raised.value.why == f"can't {operation} traefik"
    assert here.engine.container("a").state == "running", "what doesn't need it is done"


def test_a_network_that_cannot_move_is_told_and_moves_the_next_time(running: Machine) -> None:
    running.engine.refuse = {("remove", "a")}
    with pytest.raises(DualError):
        running.apply(OTHER_POOL)
    running.engine.refuse = set()
    assert running.apply(OTHER_POOL)[1] == {}
    assert running.plan(OTHER_POOL).changes == ()


def test_a_proxy_that_fails_hides_no_other_failure(running: Machine) -> None:
    running.engine.refuse = {("start", "traefik"), ("start", "c")}
    spec = ONE_MORE.replace("workspaces:", "proxy: {http: 3001}\nworkspaces:")
    with pytest.raises(DualError, match="could not be applied") as raised:
        running.apply(spec)
    assert raised.value.why.splitlines() == [
        "proxy: Refused: can't start traefik",
        "workspace.c: Refused: can't start c",
    ]


# ── for some workspaces only ────────────────────────────────────────────────────────────────


def test_one_name_from_nothing_brings_up_the_proxy_and_stays(here: Machine) -> None:
    """Traefik isn't replaced afterwards, for files that weren't written the first time."""
    here.apply(SPEC, "a")
    assert set(here.lives()) == {PROXY, "workspace.a"}
    assert here.plan(SPEC, "a").changes == ()
    proxy = here.lives()[PROXY]
    rest = here.plan(SPEC)
    assert rest.change(PROXY) is None or rest.addresses(PROXY, Action.UPDATE)
    here.apply(SPEC)
    assert here.lives()[PROXY] == proxy
    assert here.plan(SPEC).changes == ()


def test_files_of_whom_a_plan_leaves_out_stay(running: Machine) -> None:
    spec = ONE_MORE.replace("user:", "hosts: [b.test], user:")
    spec = spec.replace("workspaces:", "proxy: {http: 3001}\nworkspaces:")
    before = running.engine.observe().files
    plan, _ = running.apply(spec, "c")
    after = running.engine.observe().files
    assert plan.left_out
    kept = ("traefik/routes/b.yaml", SEEN_FILE, STATIC_FILE)
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert "traefik/routes/c.yaml" in after


def test_what_a_plan_leaves_out_is_no_drift_afterwards(running: Machine) -> None:
    running.apply(ONE_MORE.replace("1000", "1001"), "c")
    moved = ONE_MORE.replace("1000", "1001").replace("user:", "hosts: [b.test], user:")
    changes = {change.address: change.is_drift for change in running.plan(moved).changes}
    assert changes == {"workspace.b": False, "route.b": False}


def test_a_proxy_that_is_left_out_keeps_its_own_configuration(running: Machine) -> None:
    """It would read another one if it restarted by itself, and nobody has agreed to that."""
    static = running.engine.output / STATIC_FILE
    static.write_text("# of another version\n")
    spec = SPEC.replace("1000", "1001").replace("workspaces:", "proxy: {http: 1}\nworkspaces:")
    plan, _ = running.apply(spec, "b")
    assert plan.left_out == (PROXY,)
    assert static.read_text() == "# of another version\n"


def test_the_route_of_one_that_is_gone_goes_with_it(running: Machine) -> None:
    """Also where the plan leaves out somebody else."""
    spec = ONLY_B.replace("1000", "1001")
    plan, _ = running.apply(spec, "a")
    assert plan.change("route.a")
    assert plan.left_out == ("workspace.b",)
    assert "traefik/routes/a.yaml" not in running.engine.observe().files
    assert running.plan(spec, "a").changes == ()


@pytest.mark.parametrize("spec", [ONLY_B, OTHER_POOL], ids=["another is gone", "another pool"])
def test_a_proxy_that_comes_up_takes_nobody_down(running: Machine, spec: str) -> None:
    """What it needs of others' networks is in the plan, with all who are touched for it."""
    running.engine.remove(running.engine.container("traefik").id)
    plan, failures = running.apply(spec, "b")
    assert failures == {}
    assert running.plan(spec, "b").changes == ()
    running.apply(spec)
    assert running.plan(spec).changes == ()
    assert plan.addresses(PROXY, Action.CREATE)


# ── the guard ───────────────────────────────────────────────────────────────────────────────

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


@pytest.mark.parametrize(
    "now",
    [
        MAIN,
        replace(MAIN, fields={"env.A": "1"}),
        replace(MAIN, state="exited"),
        # A command that ends is started again by its restart policy: nobody touched it.
        replace(MAIN, started_at="2026-02-02T00:00:00Z", restarts=1),
    ],
)
def test_untouched_containers_pass(now: ObservedContainer) -> None:
    check_untouched(PLAN, seen(MAIN), seen(now))
    check_untouched(PLAN, seen(), seen())


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (seen(replace(MAIN, id="f" * 16)), "ffffffffffff started 2026-01-01T00:00:00Z now"),
        (
            seen(replace(MAIN, started_at="2026-02-02T00:00:00Z")),
            "started 2026-02-02T00:00:00Z now",
        ),
        (seen(replace(MAIN, id="f" * 16, restarts=1)), "ffffffffffff started"),
        (seen(), "gone now"),
    ],
)
def test_a_touched_one_is_an_error_that_names_it(after: Observed, said: str) -> None:
    with pytest.raises(DualError) as raised:
        check_untouched(PLAN, seen(MAIN), after)
    assert raised.value.why.startswith("workspace.main: 0123456789ab started")
    assert said in raised.value.why


def test_a_restart_that_was_counted_before_it_came_is_nobodys() -> None:
    now = replace(MAIN, started_at="2026-02-02T00:00:00Z")
    check_untouched(PLAN, seen(replace(MAIN, state="restarting")), seen(now))


def test_who_was_touched_hides_no_failure() -> None:
    failures = {"workspace.other": DualError("no", why="full")}
    with pytest.raises(DualError) as raised:
        check_untouched(PLAN, seen(MAIN), seen(), failures)
    assert raised.value.why.splitlines()[1:] == ["workspace.other: no: full"]


def test_apply_looks_after_whom_it_left_out(running: Machine) -> None:
    def meddle(operation: str, _: str) -> None:
        if operation == "connect":
            running.engine.container("a").started_at = "2026-02-02T00:00:00Z"

    running.engine.on_call = meddle
    with pytest.raises(DualError, match="the plan had left out") as raised:
        running.apply(ONE_MORE)
    assert raised.value.why.startswith("workspace.a: ")


# ── side by side ────────────────────────────────────────────────────────────────────────────


def test_jobs_run_side_by_side_and_failures_bear_their_names() -> None:
    meeting = threading.Barrier(2, timeout=10)

    def meet() -> None:
        meeting.wait()

    def fail() -> None:
        raise DualError("no")

    failures = side_by_side(2, {"a": meet, "b": meet, "c": fail})
    assert {name: error.summary for name, error in failures.items()} == {"c": "no"}
    assert side_by_side(2, {}) == {}


@pytest.mark.parametrize("error", [EngineUnreachableError("gone"), KeyboardInterrupt()])
def test_after_an_interruption_no_more_is_begun(error: BaseException) -> None:
    begun: list[int] = []

    def job(number: int) -> Callable[[], None]:
        def run() -> None:
            begun.append(number)
            raise error

        return run

    # One at a time: while the first one's error is on its way, at most one more can begin.
    with pytest.raises(type(error)):
        side_by_side(1, {str(number): job(number) for number in range(50)})
    assert len(begun) < 50


def test_several_failures_as_one() -> None:
    failures = {"a": DualError("no", why="full", mend="free"), "b": DualError("gone", mend="x")}
    error = all_of(failures, "could not be taken down")
    assert error.summary == "a, b could not be taken down"
    assert error.why == "a: no: full\nb: gone"
    assert error.mend == "free"


# ── taking down ─────────────────────────────────────────────────────────────────────────────


def torn_down(machine: Machine, *names: str) -> dict[str, DualError]:
    observed = machine.engine.observe()
    doomed = observed.only(names)
    return take_down(
        [*doomed.containers.values(), *doomed.one_offs],
        doomed.networks.values(),
        observed,
        machine.engine,
        lambda *_: None,
    )


def test_all_is_taken_down_the_proxy_last(running: Machine) -> None:
    assert torn_down(running) == {}
    assert not running.engine.containers
    assert not running.engine.networks
    assert running.engine.calls[-2:] == [("remove", "traefik"), ("remove_network", "shop_edge")]


def test_one_is_taken_down_with_what_ran_beside_it(running: Machine) -> None:
    """A ``docker compose run`` holds the network, too."""
    proxy = running.lives()[PROXY]
    beside = running.engine.add("a", "shop-a-run-1", **running.engine.container("a").fields)
    beside.one_off = True
    running.engine.connect("shop_ws-a", beside.id, "")
    assert torn_down(running, "a") == {}
    assert set(running.lives()) == {PROXY, "workspace.b"}
    assert running.lives()[PROXY] == proxy
    assert "shop_ws-a" not in running.engine.networks


def test_what_cannot_be_taken_down_is_named_and_the_rest_is_gone(running: Machine) -> None:
    running.engine.refuse = {("remove", "a")}
    assert list(torn_down(running, "a", "b")) == ["workspace.a"]
    assert set(running.lives()) == {PROXY, "workspace.a"}


# ── whose volumes are ───────────────────────────────────────────────────────────────────────


def test_new_volumes_are_handed_over_before_the_start(here: Machine) -> None:
    here.engine.containers.clear()
    spec = SPEC.replace('user: "1000"', 'user: "1000:7", volumes: {d: /d}')
    spec += "  c: {image: 'node:22', user: root, volumes: {d: /d}}\n"
    spec += "  d: {image: 'node:22', volumes: {d: /d}}\n"
    assert here.apply(spec)[1] == {}
    assert here.engine.owned == {("b", "1000:7", "/d")}
    order = [call for call in here.engine.calls if call[1] == "b"]
    assert order == [("create", "b"), ("own", "b"), ("start", "b")]


def test_a_volume_that_is_there_stays_whose_it_is(
    running: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(running.engine), "volumes", lambda _: {"shop_b--d": "b"})
    running.apply(SPEC.replace('user: "1000"', 'user: "1000", volumes: {d: /d, e: /e}'))
    assert running.engine.owned == {("b", "1000", "/e")}


def test_places_for_volumes_in_a_source_are_made_by_whoever_runs_dual(here: Machine) -> None:
    (here.folder / "src").mkdir()
    spec = SPEC.replace('user: "1000"', "source: {path: src}, volumes: {d: /workspace/x/y, e: /e}")
    assert here.apply(spec)[1] == {}
    assert [
        each.relative_to(here.folder / "src").as_posix()
        for each in (here.folder / "src").rglob("*")
    ] == ["x", "x/y"]
