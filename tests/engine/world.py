"""An engine with a world around it: a service of its host, one outside, and a cloud's metadata."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.engine.conftest import run, wait_for
from tests.engine.private import PrivateEngine

HOST_PORT = 7001
"""What the engine's host serves on all of its addresses, as many a developer's tool does."""

HOSTS_LINK, OUTSIDE = "198.18.0.1", "198.18.0.2"  # of the network for benchmarks, RFC 2544
METADATA = "169.254.169.254"

_SERVER = """
import http.server, sys

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(sys.argv[1].encode())

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("0.0.0.0", int(sys.argv[2])), Answer).serve_forever()
"""


_NO_SUCH_NAME = """
import socket, sys

link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
link.bind((sys.argv[1], 53))  # the address that answers come from
while True:
    asked, who = link.recvfrom(512)
    link.sendto(asked[:2] + bytes([0x81, 0x83]) + asked[4:], who)
"""

_DOCKERS_CHOICE = ("8.8.8.8", "8.8.4.4")  # where its host's own name servers are on loopback


def _name_servers() -> list[str]:
    lines = Path("/etc/resolv.conf").read_text().splitlines()
    named = [line.split()[1] for line in lines if line.startswith("nameserver ")]
    addresses = [each for each in named if "." in each and not each.startswith("127.")]
    return addresses or list(_DOCKERS_CHOICE)


@dataclass(frozen=True)
class Outside:
    """What a command line starts with that is to run there."""

    prefix: tuple[str, ...]

    def received(self) -> int:
        """How many IP packets have come in there."""
        return packets_in(run(*self.prefix, "cat", *COUNTERS).stdout)


COUNTERS = ("/proc/net/snmp", "/proc/net/dev")


def packets_in(counters: str) -> int:
    """Of :data:`COUNTERS`, one after the other: the IP packets that came in from a network.

    Those from itself don't count, among them what tells that an address can't be reached.
    """
    lines = [line.split() for line in counters.splitlines()]
    names, values = (line for line in lines if line[:1] == ["Ip:"])
    [itself] = (int(line[2]) for line in lines if line[:1] == ["lo:"])
    return int(values[names.index("InReceives")]) - itself


@contextlib.contextmanager
def world(engine: PrivateEngine) -> Iterator[Outside]:
    """All that an engine's network namespace lacks: a way out, and something at its end."""
    with contextlib.ExitStack() as stack:
        outside = _started(stack, ["unshare", "--net", "sleep", "infinity"])
        there = ["nsenter", f"--net=/proc/{outside.pid}/ns/net", "--"]
        wait_for("a namespace of its own", lambda: _namespace(there) != _namespace([]))
        engine.run_inside(
            *("ip", "link", "add", "w0", "type", "veth"),
            *("peer", "name", "w1", "netns", str(outside.pid)),
        )
        served = [f"{address}/32" for address in (METADATA, *_name_servers())]
        for link, prefix, addresses in (
            ("w0", [*engine.inside()], [f"{HOSTS_LINK}/30"]),
            ("w1", there, [f"{OUTSIDE}/30", *served]),
        ):
            for address in addresses:
                _run([*prefix, "ip", "address", "add", address, "dev", link])
            _run([*prefix, "ip", "link", "set", link, "up"])
        engine.run_inside("ip", "route", "add", "default", "via", OUTSIDE)
        _serve(stack, engine.inside(), "the host", HOST_PORT)
        _serve(stack, there, "outside", 80)
        for address in _name_servers():
            _started(stack, [*there, sys.executable, "-c", _NO_SUCH_NAME, address])
        yield Outside(tuple(there))


def _serve(stack: contextlib.ExitStack, prefix: Sequence[str], says: str, port: int) -> None:
    _started(stack, [*prefix, sys.executable, "-c", _SERVER, says, str(port)])
    url = f"http://127.0.0.1:{port}/"
    _run([*prefix, "ip", "link", "set", "lo", "up"])
    wait_for(f"{says} serves", lambda: run(*prefix, "curl", "-sS", url).stdout == says)


def _started(stack: contextlib.ExitStack, argv: Sequence[str]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process


def _namespace(prefix: Sequence[str]) -> str:
    return run(*prefix, "readlink", "/proc/self/ns/net").stdout


def _run(argv: Sequence[str]) -> None:
    done = run(*argv)
    assert done.code == 0, f"{argv}: {done}"
