"""What dual's proxy costs, beside a bare Traefik in front of the same workspace, and none."""

from __future__ import annotations

import json
import shutil
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.measure import Settings
from bench.project import BenchProject, bench_project
from bench.report import Row
from bench.wrk import Load, Target, put_load
from dual_iac.model import Proxy
from tests.engine.conftest import docker, free_port, run, wait_for

NAME = "main"
HOST = f"{NAME}.localhost"
WARM_UP = 2  # seconds, of each side
MUST, AIM = 0.95, 1.0
ROUNDS = 15  # many and short: whoever else is at work on the machine comes and goes between them
ANSWERS = {"12 bytes": "/", "64 KB": "/large"}
BARE_SUBNET = "10.97.0.0/29"  # beside the project's pool
BACKEND = Path(__file__).with_name("backend.js")

DUAL, BARE, DIRECT = "dual", "bare Traefik", "direct"

Rounds = Sequence[Mapping[str, Load]]
"""In each round, what was measured of each side."""


def rows(settings: Settings, scheme: str = "http", port: int | None = None) -> list[Row]:
    """``port`` is where dual's proxy speaks ``scheme``, if that is not http."""
    with bench_project("proxying") as project:
        shutil.copy(BACKEND, project.folder)
        project.declare_all(
            {"image": "node:22-slim", "source": {"path": "."}, "command": f"node {BACKEND.name}"},
            {NAME: {}},
        )
        project.timed_dual("apply", "-y")
        address = _address(project)
        sides = {
            DUAL: Target(scheme, HOST, "127.0.0.1", port or project.port),
            BARE: _bare_traefik(project, f"http://{address}:3000", scheme),
            DIRECT: Target("http", HOST, address, 3000),
        }
        return [
            row
            for answer, path in ANSWERS.items()
            for row in cost(answer, _measure(sides, path, ROUNDS * settings.rounds))
        ]


def cost(answer: str, rounds: Rounds) -> list[Row]:
    """What the proxy costs where answers are of this size."""

    def row(what: str, measured: Callable[[Load], float], unit: str, *, faster: bool) -> Row:
        middle = {
            side: unit.format(statistics.median(measured(loads[side]) for loads in rounds))
            for side in (DUAL, BARE, DIRECT)
        }
        # Each round's own, as both were measured one right after the other: what else the machine
        # was doing in that round falls out.
        ratios = [measured(loads[DUAL]) / measured(loads[BARE]) for loads in rounds]
        figure = statistics.median(ratio if faster else 1 / ratio for ratio in ratios)
        return Row(
            f"{what} through the proxy, answers of {answer}",
            middle[DUAL],
            f"{BARE}: {middle[BARE]}; {DIRECT}: {middle[DIRECT]}",
            figure,
            f"{figure:.2f}",
            MUST,
            AIM,
            more_is_better=True,
        )

    return [
        row("Requests", lambda load: load.rate, "{:,.0f}/s", faster=True),
        row("p50", lambda load: load.p50, "{:.2f} ms", faster=False),
        row("p99", lambda load: load.p99, "{:.2f} ms", faster=False),
    ]


def _measure(sides: Mapping[str, Target], path: str, count: int) -> Rounds:
    """All sides in turn, and the other way round in the next round: who comes first may gain."""
    for target in sides.values():
        put_load(target, path, WARM_UP)
    rounds = []
    for number in range(count):
        order = list(sides)[:: 1 if number % 2 == 0 else -1]
        loads = {}
        for side in order:
            loads[side] = put_load(sides[side], path)
            print(f"  {path} {side}: {loads[side]}", file=sys.stderr, flush=True)
        rounds.append(loads)
    return rounds


def _bare_traefik(project: BenchProject, backend: str, scheme: str) -> Target:
    """Start a Traefik with nothing but the way to the backend.

    Like dual's, it is on a network of its own, through which its port is published, and on the
    workspace's. It goes with the project.
    """
    entry_point = {"address": ":80", **({"http": {"tls": {}}} if scheme == "https" else {})}
    static = {
        "entryPoints": {"web": entry_point},
        "providers": {"file": {"filename": "/etc/traefik/routes.yaml"}},
    }
    routes = {
        "http": {
            "routers": {NAME: {"rule": f"Host(`{HOST}`)", "service": NAME}},
            "services": {NAME: {"loadBalancer": {"servers": [{"url": backend}]}}},
        }
    }
    configuration = project.folder / "bare"
    configuration.mkdir()
    (configuration / "traefik.yaml").write_text(json.dumps(static))  # JSON is YAML
    (configuration / "routes.yaml").write_text(json.dumps(routes))

    name = f"{project.name}_bare"  # sorts before the workspace's network, so publishes the port
    label = f"com.docker.compose.project={project.name}"
    port = free_port()
    docker("network", "create", "--label", label, "--subnet", BARE_SUBNET, name)
    docker(
        *("create", "--name", name, "--label", label, "--network", name),
        *("--publish", f"127.0.0.1:{port}:80", "--volume", f"{configuration}:/etc/traefik:ro"),
        Proxy().image,
    )
    docker("network", "connect", f"{project.name}_ws-{NAME}", name)
    docker("start", name)
    target = Target(scheme, HOST, "127.0.0.1", port)
    wait_for("the bare Traefik has read its route", lambda: _answers(target))
    return target


def _answers(target: Target) -> bool:
    resolve = f"{target.host}:{target.port}:{target.address}"
    return run("curl", "-fsSk", "--resolve", resolve, target.url()).code == 0


def _address(project: BenchProject) -> str:
    networks = project.inspect(NAME)["NetworkSettings"]["Networks"]
    return str(networks[f"{project.name}_ws-{NAME}"]["IPAddress"])
