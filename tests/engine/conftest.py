"""Real projects on a real engine: each test has a name, a port and addresses of its own."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from dual_iac.engine.proxy import Answer, ask
from dual_iac.model import Proxy

LAB_IMAGE = "dual-lab:bookworm"
PLAN_SCHEMA = Path(__file__).parents[2] / "docs/reference/plan.schema.json"
DUAL = [sys.executable, "-m", "dual_iac"]

SERVER = """
import http.server, os, socket

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{socket.gethostname()} {os.environ.get('GREETING', '')}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer(("0.0.0.0", 3000), Answer).serve_forever()
"""


@dataclass
class Done:
    """A finished command."""

    code: int
    stdout: str
    stderr: str

    def __str__(self) -> str:
        return f"exit {self.code}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"

    @property
    def data(self) -> Any:
        return json.loads(self.stdout)


def run(
    *argv: str,
    cwd: Path | None = None,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
) -> Done:
    done = subprocess.run(
        argv,
        cwd=cwd,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        env={**os.environ, **(env or {})},
        timeout=300,
        check=False,
    )
    return Done(
        done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    )


def docker(*arguments: str) -> str:
    done = run("docker", *arguments)
    assert done.code == 0, f"docker {' '.join(arguments)}: {done}"
    return done.stdout.strip()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(what: str, condition: Callable[[], bool], seconds: float = 20) -> None:
    """Poll a condition; fails with ``what`` when it doesn't come true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:g}s in vain: {what}"
        time.sleep(0.05)  # between two looks at a condition, not instead of one


@dataclass
class LiveProject:
    """A folder with a dual.yaml, and what runs from it."""

    folder: Path
    name: str = field(default_factory=lambda: f"dual-test-{secrets.token_hex(4)}")
    port: int = field(default_factory=free_port)
    pool: str = field(
        default_factory=lambda: f"10.{64 + secrets.randbelow(64)}.{secrets.randbelow(16) * 16}.0/20"
    )

    def write(self, rest: str, **proxy: Any) -> None:
        """Write dual.yaml: ``rest`` is what comes after project, proxy and network."""
        head = {"http": self.port, **proxy}
        self.folder.chmod(0o755)  # a workspace may run as anybody
        (self.folder / "server.py").write_text(SERVER)
        (self.folder / "dual.yaml").write_text(
            f"version: 1\nproject: {self.name}\nproxy: {json.dumps(head)}\n"
            f"network: {{pool: {self.pool}}}\n" + textwrap.dedent(rest)
        )

    def declare(self, *names: str, extra: str = "") -> None:
        """Write dual.yaml with a server in each of these workspaces."""
        workspaces = "".join(f"  {name}: {{}}\n" for name in names)
        self.write(
            f"defaults:\n  image: {LAB_IMAGE}\n  source: {{path: .}}\n"
            f"  command: python3 server.py\nworkspaces:\n{workspaces}{extra}"
        )

    def dual(
        self, *arguments: str, stdin: bytes | None = None, env: Mapping[str, str] | None = None
    ) -> Done:
        return run(*DUAL, *arguments, cwd=self.folder, stdin=stdin, env=env)

    def apply(self, env: Mapping[str, str] | None = None) -> Done:
        done = self.dual("apply", "-y", env=env)
        assert done.code == 0, f"dual apply failed: {done}"
        return done

    def plan(self, env: Mapping[str, str] | None = None) -> Any:
        done = self.dual("plan", "--format", "json", env=env)
        assert done.code == 0, f"dual plan failed: {done}"
        jsonschema.validate(done.data, json.loads(PLAN_SCHEMA.read_text()))
        return done.data

    def container(self, service: str) -> str:
        """The id of a service's container."""
        return docker("inspect", "--format", "{{.Id}}", f"{self.name}-{service}-1")

    def inspect(self, service: str) -> Any:
        return json.loads(docker("inspect", f"{self.name}-{service}-1"))[0]

    def identity(self, service: str) -> tuple[str, str]:
        """What changes when a container is replaced or restarted: its id and start time."""
        data = self.inspect(service)
        return data["Id"], data["State"]["StartedAt"]

    def identities(self, *services: str) -> dict[str, tuple[str, str]]:
        """The identity of each of these services."""
        return {service: self.identity(service) for service in services}

    def recreate(self, service: str, instead: Mapping[str, list[str]] | None = None) -> None:
        """Replace a container by one of ``docker run``, made from what inspecting it says.

        ``instead`` maps options of ``docker run`` to other values; ``image`` and ``command``
        are options here, too.
        """
        data = self.inspect(service)
        config, host = data["Config"], data["HostConfig"]
        options: dict[str, list[str]] = {
            "--name": [data["Name"].removeprefix("/")],
            "--hostname": [config["Hostname"]],
            "--user": [config["User"]] if config["User"] else [],
            "--workdir": [config["WorkingDir"]] if config["WorkingDir"] else [],
            "--env": config["Env"] or [],
            "--label": [f"{name}={value}" for name, value in config["Labels"].items()],
            "--init": ["true"] if host["Init"] else [],
            "--restart": [host["RestartPolicy"]["Name"]],
            "--security-opt": host["SecurityOpt"] or [],
            "--cap-drop": host["CapDrop"] or [],
            "--cap-add": host["CapAdd"] or [],
            "--dns": host["Dns"] or [],
            "--memory": [str(host["Memory"])] if host["Memory"] else [],
            "--cpus": [str(host["NanoCpus"] / 1e9)] if host["NanoCpus"] else [],
            "--pids-limit": [str(host["PidsLimit"])] if host["PidsLimit"] else [],
            "--mount": [_mount_option(mount) for mount in data["Mounts"]],
            "image": [config["Image"]],
            "command": config["Cmd"],
        }
        for name, network in data["NetworkSettings"]["Networks"].items():
            options["--network"] = [name]
            options["--ip"] = [network["IPAMConfig"]["IPv4Address"]]
        options |= instead or {}
        image, command = options.pop("image"), options.pop("command")
        words = [f"{option}={value}" for option, values in options.items() for value in values]
        docker("rm", "-f", data["Id"])
        docker("run", "--detach", *words, *image, *command)

    def ask(self, host: str, path: str = "/") -> Answer:
        return ask(Proxy(http=self.port), host, path)

    def is_up(self, name: str) -> bool:
        """Whether the workspace answers through this project's own proxy."""
        return self.ask(f"{name}.localhost").is_from(name, self.name)

    def body(self, host: str) -> str:
        """What curl gets through the proxy."""
        url = f"http://127.0.0.1:{self.port}/"
        done = run("curl", "-sS", "--max-time", "10", "-H", f"Host: {host}", url)
        assert done.code == 0, f"curl {host}: {done}"
        return done.stdout

    def leftovers(self) -> dict[str, str]:
        """What the engine still has of this project."""
        label = f"label=com.docker.compose.project={self.name}"
        return {
            "containers": docker("ps", "-aq", "--filter", label),
            "networks": docker("network", "ls", "-q", "--filter", label),
            "volumes": docker("volume", "ls", "-q", "--filter", label),
        }

    def remove(self) -> None:
        """Take everything of this project away, whatever state a test left it in."""
        left = self.leftovers()
        for kind, options in (("container", ["-fv"]), ("network", []), ("volume", ["-f"])):
            names = left[f"{kind}s"].split()
            with ThreadPoolExecutor(8) as pool:  # docker rm takes one after the other
                list(pool.map(lambda name, k=kind, o=options: docker(k, "rm", *o, name), names))


def changes(plan: Any) -> list[tuple[str, str, list[str]]]:
    """A plan's JSON in short: addresses, actions, and the fields that are the reasons."""
    return [
        (change["address"], change["action"], [reason["field"] for reason in change["reasons"]])
        for change in plan["changes"]
    ]


def _mount_option(mount: Mapping[str, Any]) -> str:
    source = mount["Name"] if mount["Type"] == "volume" else mount["Source"]
    option = f"type={mount['Type']},source={source},target={mount['Destination']}"
    return option if mount["RW"] else f"{option},readonly"


@pytest.fixture(scope="session", autouse=True)
def engine() -> None:
    """An engine that does not answer is a failure, never a skip."""
    done = run("docker", "info", "--format", "{{.ServerVersion}}")
    if done.code != 0:
        pytest.fail(f"the engine tests need a Docker engine; start one with make test. {done}")


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveProject]:
    project = LiveProject(tmp_path)
    yield project
    project.remove()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveProject]:
    """One project for all tests of a module."""
    project = LiveProject(tmp_path_factory.mktemp("project"))
    yield project
    project.remove()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.engine)
