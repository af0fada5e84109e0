"""The engine itself goes away: half way through an apply, or while all runs; and comes back."""

from __future__ import annotations

import contextlib
import ipaddress
import random
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from signal import Signals

import pytest
import yaml

from tests.engine.chaos import IMAGE, Chaos, Cut, Round, chosen_seed, schedule
from tests.engine.conftest import Done, docker, wait_for
from tests.engine.private import PrivateEngine, PrivateProject, private_engine

PROXY_IMAGE = "traefik:v3.7.15"
ROUNDS = schedule(chosen_seed(), [Signals.SIGKILL] * 4)


@pytest.fixture(scope="module")
def own_engine() -> Iterator[PrivateEngine]:
    with private_engine() as engine:
        engine.load(IMAGE, PROXY_IMAGE)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DOCKER_HOST", engine.host)
            patch.delenv("DOCKER_CONTEXT", raising=False)  # it would come first
            yield engine


@pytest.fixture(scope="module")
def chaos(own_engine: PrivateEngine, tmp_path_factory: pytest.TempPathFactory) -> Chaos:
    project = PrivateProject(tmp_path_factory.mktemp("project"), engine=own_engine)
    return Chaos(project, prefix=own_engine.inside)


@pytest.fixture(autouse=True)
def engine_is_up(own_engine: PrivateEngine) -> None:
    """Whatever the test before left behind."""
    if not own_engine.answers():
        own_engine.power_off()
        own_engine.start()


def kill(engine: PrivateEngine, *, power: bool) -> None:
    if power:
        engine.power_off()
    else:
        engine.kill_daemon()


def says_that_the_engine_is_away(done: Done) -> bool:
    return (
        done.code == 69
        and "The Docker engine does not answer" in done.stderr
        and "→ start Docker" in done.stderr
        and "Traceback" not in done.stderr
    )


@pytest.mark.parametrize("this", ROUNDS, ids=lambda this: f"round{this.number}")
def test_an_engine_killed_at_any_moment(
    own_engine: PrivateEngine, chaos: Chaos, this: Round
) -> None:
    def cut_short(this: Round) -> Cut:
        with chaos.applying() as (process, output):
            started = time.monotonic()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(this.moment * chaos.seconds)
            kill(own_engine, power=this.number % 2 == 0)
            cut = chaos.ended(process, output, started)
        own_engine.start()
        return cut

    problems = chaos.play(this, cut_short, restarts=True)
    cut = chaos.cuts[-1]
    if not cut.whole and not says_that_the_engine_is_away(cut.done):
        problems.append(f"without an engine, {cut}")
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    ("phase", "power"),
    [
        ("removing", False),
        ("creating", True),
        ("started", True),
        ("waiting for an answer", False),
    ],
)
def test_an_engine_that_goes_away_half_way(
    own_engine: PrivateEngine, chaos: Chaos, phase: str, power: bool
) -> None:
    chaos.settle({"w0": 0, "w1": 0})
    chaos.settled = None
    chaos.write({"w0": 1, "w2": 1}, slow=["w2"])
    with chaos.applying() as (process, output):
        started = time.monotonic()
        wait_for(
            f"apply says {phase}",
            lambda: process.poll() is not None or phase in (output / "stderr").read_text(),
            60,
        )
        kill(own_engine, power=power)
        cut = chaos.ended(process, output, started)
    assert says_that_the_engine_is_away(cut.done), cut
    still_away = chaos.project.dual("apply", "-y")
    assert says_that_the_engine_is_away(still_away), still_away
    own_engine.start()
    again = chaos.project.dual("apply", "-y")
    assert again.code == 0, f"{cut}\nand, once the engine was back: {again}"
    problems = chaos.differences({"w0": 1, "w2": 1})
    assert not problems, "\n".join([*problems, str(cut), str(again)])


@pytest.mark.parametrize("number", range(2))
def test_a_daemon_killed_while_it_starts_containers(
    own_engine: PrivateEngine, chaos: Chaos, number: int
) -> None:
    """containerd has begun then what dockerd, started again, knows nothing of.

    Such a process may even have the container's address: one kill in six, with six to start.
    """
    chance = random.Random(f"{chosen_seed()} {number}")
    before = {"w7": 0}
    after = {"w7": 0, **dict.fromkeys((f"w{each}" for each in range(6)), number + 1)}

    def begun() -> int:
        return [program for _, program in own_engine.processes()].count("containerd-shim")

    def cut_short(_: Round) -> Cut:
        enough = begun() + chance.randint(1, 4)
        with chaos.applying() as (process, output):
            started = time.monotonic()
            wait_for("containers begin", lambda: begun() >= enough or process.poll() is not None)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(chance.random() * 0.15)
            own_engine.kill_daemon()
            cut = chaos.ended(process, output, started)
        own_engine.start()
        return cut

    problems = chaos.play(Round(0, 0, before, after, 0), cut_short, restarts=True)
    assert not problems, "\n".join(problems)


def test_all_comes_back_after_a_power_failure(own_engine: PrivateEngine, chaos: Chaos) -> None:
    spec = {"w0": 0, "w1": 0, "w2": 0}
    chaos.settle(spec)
    docker("stop", f"{chaos.project.name}-w1-1")  # by hand: that one is not to come back
    own_engine.power_off()
    away = chaos.project.dual("plan")
    assert says_that_the_engine_is_away(away), away
    own_engine.start()

    def running() -> set[str]:
        service = '{{.Label "com.docker.compose.service"}}'
        return set(docker("ps", "--format", service, "--filter", "status=running").split())

    wait_for("all comes back", lambda: running() == {"traefik", "w0", "w2"})
    changes = {each["address"]: each["action"] for each in chaos.project.plan()["changes"]}
    assert changes == {"workspace.w1": "start"}
    before = chaos.identities()
    chaos.project.apply()
    assert chaos.differences(spec) == []
    assert chaos.touched(before, {"w0", "w2"}) == []


def test_an_engine_that_forgot_its_networks(own_engine: PrivateEngine, chaos: Chaos) -> None:
    """A kill can leave dockerd a record that it panics on; people delete that then."""
    spec = {"w0": 0, "w1": 0}
    chaos.settle(spec)
    own_engine.power_off()
    own_engine.forget_networks()
    own_engine.start()
    again = chaos.project.dual("apply", "-y")
    problems = chaos.differences(spec)
    assert not problems, "\n".join([*problems, str(again)])


def test_a_bridge_that_a_killed_engine_left(own_engine: PrivateEngine, chaos: Chaos) -> None:
    """Killed as it made a network, it leaves the addresses taken, and a rule about them."""
    chaos.settle({"w1": 0})
    chaos.settled = None
    chaos.write({"w0": 0, "w1": 0})
    assert chaos.project.dual("render").code == 0
    rendered = yaml.safe_load((chaos.project.folder / "compose/compose.yaml").read_text())
    subnet = rendered["networks"]["ws-w0"]["ipam"]["config"][0]["subnet"]
    bridge = f"br-{secrets.token_hex(6)}"
    first = next(ipaddress.ip_network(subnet).hosts())
    own_engine.run_inside("ip", "link", "add", bridge, "type", "bridge")
    own_engine.run_inside("ip", "address", "add", f"{first}/29", "dev", bridge)
    own_engine.run_inside("ip", "link", "set", bridge, "up")
    rule = ("POSTROUTING", "-s", subnet, "!", "-o", bridge, "-j", "MASQUERADE")
    own_engine.run_inside("iptables", "-t", "nat", "-A", *rule)

    done = chaos.project.dual("apply", "-y", "--timeout", "8s")
    assert done.code == 1
    assert (
        f"w0 does not answer: the bridge {bridge} of this machine has its addresses" in done.stderr
    )
    assert f"→ sudo ip link delete {bridge}" in done.stderr
    own_engine.run_inside("ip", "link", "delete", bridge)
    assert chaos.differences({"w0": 0, "w1": 0}) == []


def test_a_private_engine_leaves_no_trace() -> None:
    with private_engine() as engine:
        folder, name = engine.folder, engine.name
        docker("--host", engine.host, "network", "create", "some")
        assert docker("network", "ls", "-q", "--filter", "name=^some$") == ""
    assert not folder.exists()
    assert str(folder) not in Path("/proc/mounts").read_text()
    assert not [*Path("/sys/fs/cgroup").glob(f"*/{name}")]
