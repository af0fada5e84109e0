"""An engine of the tests' own, wholly apart from the machine's: one that may be killed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.engine.conftest import DUAL, Done, LiveProject, run, wait_for

_PATIENCE = 60.0  # seconds for an engine to start, or for its processes to end
_CGROUPS = Path("/sys/fs/cgroup")

# The first process in the namespaces. What an engine leaves in /run would be gone after a real
# power failure, too; /etc/docker holds the settings of the machine's own engine, and its identity.
_INIT = """
mkdir -p /etc/docker
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /etc/docker
ip link set lo up
echo ready
# Ignored, the signal lets the kernel reap whatever ends here: dockerd takes a dead containerd
# that nobody has reaped for a living one.
exec env --ignore-signal=CHLD sleep infinity
"""

# An engine that was killed alone leaves its pid file, and the next one would believe it.
_START = 'rm -f /run/docker.pid; exec dockerd "$@"'


class PrivateEngine:
    """dockerd in network, mount and process namespaces of its own.

    ``folder`` holds its data and its socket. No interface leads out of its network namespace:
    what it publishes can be reached from within (:meth:`inside`) alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name
        self.host = f"unix://{folder}/docker.sock"
        self._init: subprocess.Popen[bytes] | None = None
        self._daemon: subprocess.Popen[bytes] | None = None
        self._processes = ""  # what names the process namespace

    # --- Its life ------------------------------------------------------------

    def start(self, *, mended: bool = False) -> None:
        """Start it, on whatever an earlier life of it has left; returns when it answers."""
        if self._init is None:
            self._power_on()
        log = self.folder / "dockerd.log"
        with log.open("ab") as file:
            self._daemon = subprocess.Popen(
                [
                    *self._enter("mnt", "net", "pid_for_children"),
                    *("sh", "-c", _START, "dockerd"),
                    f"--host={self.host}",
                    f"--data-root={self.folder}/data",
                    "--exec-root=/run/docker",
                    "--pidfile=/run/docker.pid",
                    f"--cgroup-parent=/{self.name}",
                    "--exec-opt=native.cgroupdriver=cgroupfs",  # systemd is out of reach
                    "--log-level=warn",
                ],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,  # an interrupted test ends it in its own way
            )
        daemon = self._daemon

        def answers() -> bool:
            assert daemon.poll() is None, f"dockerd ended:\n{log.read_text()[-3000:]}"
            return self.answers()

        try:
            wait_for("the private engine answers", answers, _PATIENCE)
        except AssertionError as error:
            # A kill at a bad moment leaves it a network without addresses, on which it panics.
            if mended or "libnetwork.(*controller).reservePools" not in str(error):
                raise
            self._reap(daemon)
            self.forget_networks()
            self.start(mended=True)
        self._remove_half_networks()

    def _remove_half_networks(self) -> None:
        """What dual tells people to do about what a kill leaves of a network being made.

        That is a bridge of no network, or even one that dockerd knows in one place and not in
        another.
        """
        named = run(*self.inside(), "ip", "-o", "link", "show", "type", "bridge").stdout
        known = run("docker", "--host", self.host, "network", "ls", "--quiet").stdout.split()
        strays = {each for each in re.findall(r"\bbr-([0-9a-f]{12}):", named) if each not in known}
        recorded = self._network_record.read_bytes() if strays else b""
        for bridge in strays:
            self.run_inside("ip", "link", "delete", f"br-{bridge}")
        if any(bridge.encode() in recorded for bridge in strays):
            self.kill_daemon()
            self.forget_networks()
            self.start(mended=True)

    @property
    def _network_record(self) -> Path:
        return self.folder / "data/network/files/local-kv.db"

    def run_inside(self, *command: str) -> None:
        done = run(*self.inside(), *command)
        assert done.code == 0, f"{command}: {done}"

    def forget_networks(self) -> None:
        """Take its record of networks away, as people do where a dockerd can't start with it."""
        self._network_record.unlink()

    def answers(self) -> bool:
        version = ("version", "--format", "{{.Server.Version}}")
        return run("docker", "--host", self.host, *version).code == 0

    def kill_daemon(self) -> None:
        """SIGKILL to dockerd alone: its containerd dies with it, its containers live on."""
        killed = [pid for pid, program in self.processes() if program == "dockerd"]
        assert killed, "there is no dockerd to kill"
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        wait_for(
            "dockerd and its containerd are gone",
            lambda: not {"dockerd", "containerd"} & {program for _, program in self.processes()},
            _PATIENCE,
        )
        self._reap(self._daemon)
        self._daemon = None

    def power_off(self) -> None:
        """SIGKILL to everything at once: the engine, its containers and their networks."""
        if self._init is not None:
            self._init.kill()  # and with it, the kernel, all in its process namespace
            self._reap(self._init)
            if self._processes:
                wait_for("all is dead", lambda: not list(self.processes()), _PATIENCE)
        self._reap(self._daemon)
        self._init = self._daemon = None
        self._processes = ""
        self._remove_cgroups()

    def close(self) -> None:
        """End it, and take away all that there is of it."""
        self.power_off()
        shutil.rmtree(self.folder)

    # --- Reaching it ---------------------------------------------------------

    @property
    def is_on(self) -> bool:
        """Whether its namespaces are there, with or without a dockerd in them."""
        return self._init is not None

    def inside(self) -> Sequence[str]:
        """What a command line starts with that is to reach the ports that it publishes."""
        return self._enter("net")

    def load(self, *images: str) -> None:
        """Copy images from the machine's engine."""
        save = subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE)
        load = subprocess.run(
            ["docker", "--host", self.host, "load", "--quiet"],
            stdin=save.stdout,
            capture_output=True,
            check=False,
        )
        assert save.stdout is not None
        save.stdout.close()
        assert (save.wait(), load.returncode) == (0, 0), f"images can't be copied: {load.stderr!r}"

    def process_file(self, pid: int, name: str) -> str:
        """Of a process that the engine knows by this number: ``status``, say."""
        done = run(*self._enter("mnt"), "cat", f"/proc/{pid}/{name}")
        assert done.code == 0, f"/proc/{pid}/{name}: {done}"
        return done.stdout

    # --- Below ---------------------------------------------------------------

    def _power_on(self) -> None:
        self._init = subprocess.Popen(
            [
                *("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"),
                *("--mount-proc", "--propagation=private", "sh", "-euc", _INIT),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._init.stdout is not None
        assert self._init.stderr is not None
        if self._init.stdout.readline() != b"ready\n":
            why = self._init.stderr.read().decode(errors="replace")
            pytest.fail(
                f"no namespaces for a private engine (in a container, it needs to be "
                f"privileged): {why}"
            )
        # The process itself is the first one's parent, and outside of the process namespace.
        self._processes = _pid_namespace(self._init.pid, "pid_for_children")

    def _enter(self, *namespaces: str) -> list[str]:
        assert self._init is not None, "the engine is off"
        options = {"mnt": "--mount", "net": "--net", "pid_for_children": "--pid"}
        of = f"/proc/{self._init.pid}/ns"
        return ["nsenter", *(f"{options[each]}={of}/{each}" for each in namespaces), "--"]

    def processes(self) -> Iterator[tuple[int, str]]:
        """Process ids, as they are outside, and programs of all in the process namespace."""
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if _pid_namespace(path.name, "pid") == self._processes:
                    yield int(path.name), (path / "comm").read_text().strip()

    def _reap(self, process: subprocess.Popen[bytes] | None) -> None:
        if process is not None:
            process.wait(_PATIENCE)
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()

    def _remove_cgroups(self) -> None:
        """The kernel keeps those of dead processes."""
        for top in (*_CGROUPS.glob(self.name), *_CGROUPS.glob(f"*/{self.name}")):
            for folder, _, _ in os.walk(top, topdown=False):
                Path(folder).rmdir()


def _pid_namespace(process: int | str, which: str) -> str:
    return str(Path(f"/proc/{process}/ns/{which}").readlink())


@contextlib.contextmanager
def private_engine() -> Iterator[PrivateEngine]:
    """A running engine that goes away without a trace, whatever has been done to it."""
    missing = [each for each in ("dockerd", "ip", "nsenter", "unshare") if not shutil.which(each)]
    if os.geteuid() != 0 or missing:
        pytest.fail(
            "tests that kill an engine start one of their own, for which they must be root and "
            "have dockerd, iproute2 and util-linux: run them as root, after scripts/setup.sh test"
            + (f" (missing: {', '.join(missing)})" if missing else "")
        )
    # Not in pytest's own folder: the path of a socket has to be short.
    engine = PrivateEngine(Path(tempfile.mkdtemp(prefix="dual-test-engine-")))
    try:
        engine.start()
        yield engine
    finally:
        engine.close()


@dataclass
class PrivateProject(LiveProject):
    """A project on a private engine, which DOCKER_HOST has to name."""

    engine: PrivateEngine = field(kw_only=True)

    def dual(
        self, *arguments: str, stdin: bytes | None = None, env: Mapping[str, str] | None = None
    ) -> Done:
        # Where the engine is off, there is no place to be inside of, and nothing to reach there.
        prefix = self.engine.inside() if self.engine.is_on else ()
        return run(*prefix, *DUAL, *arguments, cwd=self.folder, stdin=stdin, env=env)

    def is_up(self, name: str) -> bool:
        curl = ("curl", "-sS", "--max-time", "10", "-D", "-", "-o", os.devnull)
        host = ("-H", f"Host: {name}.localhost", f"http://127.0.0.1:{self.port}/")
        done = run(*self.engine.inside(), *curl, *host)
        lines = done.stdout.lower().splitlines()
        identity = {f"x-dual-workspace: {name}", f"x-dual-project: {self.name}"}
        return identity <= set(lines) and not any(
            each in lines[0] for each in ("502", "503", "504")
        )

    def remove(self) -> None:
        """Its engine takes all of it along."""
