"""What the proxy answers: the only way to see what Traefik itself sees."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from dual_iac.model import Proxy
from dual_iac.output import PROXY_PORT, ROUTES_HEADER, ROUTES_HOST, TLS_PORT
from dual_iac.state import PROXY, Observed

IDENTITY_HEADER = "X-Dual-Workspace"
PROJECT_HEADER = "X-Dual-Project"

_GATEWAY_ERRORS = (502, 503, 504)
_PATIENCE = 1.5  # seconds that Traefik may take to start, or to follow its files
_POLL = 0.05
_AT_ONCE = 16  # handshakes


@dataclass(frozen=True)
class Answer:
    """What came back through the proxy; ``status`` is 0 where nothing did."""

    status: int
    workspace: str | None
    error: str = ""
    routes: str | None = None
    project: str | None = None

    def is_from(self, name: str, project: str) -> bool:
        """Whether the workspace itself answered: the proxy's own errors don't count.

        Nor does another project's workspace of that name, whose proxy has the port.
        """
        identity = (self.workspace, self.project)
        return identity == (name, project) and self.status not in (0, *_GATEWAY_ERRORS)

    @property
    def is_unrouted(self) -> bool:
        """Whether this is the proxy's own answer for a host that it has no route for."""
        return self.workspace is None and self.status == http.client.NOT_FOUND


def ask(proxy: Proxy, host: str, path: str = "/", timeout: float = 5.0) -> Answer:
    """GET ``path`` of ``host`` from the proxy, wherever the host name would lead."""
    return _ask(proxy.bind, proxy.http, host, path, timeout)


def _reachable(bind: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind, bind)


def _ask(bind: str, port: int, host: str, path: str, timeout: float) -> Answer:
    connection = http.client.HTTPConnection(_reachable(bind), port, timeout=timeout)
    try:
        headers = {"Host": f"{host}:{port}", "Connection": "close"}
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return Answer(
            response.status,
            response.getheader(IDENTITY_HEADER),
            routes=response.getheader(ROUTES_HEADER),
            project=response.getheader(PROJECT_HEADER),
        )
    except (OSError, http.client.HTTPException) as error:
        return Answer(0, None, str(error) or type(error).__name__)
    finally:
        connection.close()


def routes_seen(observed: Observed) -> str | None:
    """Which state of the route files a running proxy has read; None if it has none, or is mute.

    What it answers must be what stands in the files: it gets a moment to start and to follow.
    """
    bind, port = _published(observed, PROXY_PORT)
    return _seen(bind, port, observed.routes_written) if port else None


def _published(observed: Observed, target: int) -> tuple[str, int]:
    """Where a port of the proxy is published; port 0 where it isn't."""
    published = observed.containers[PROXY].fields.get(f"ports.{target}/tcp", "")
    bind, _, port = str(published).rpartition(":")
    return bind, int(port) if port.isdecimal() else 0


def serves(observed: Observed, chains: Mapping[str, str]) -> bool:
    """Whether a running proxy serves these certificates, by host; it gets a moment to read them.

    It doesn't where the folder that it has mounted was removed: another one has its name now.
    """
    bind, port = _published(observed, TLS_PORT)
    return not port or wait_for_certificates(bind, port, chains)


def wait_for_certificates(bind: str, port: int, chains: Mapping[str, str]) -> bool:
    """Until the proxy serves these certificates (PEM, by host), or is given up: then False."""
    end = time.monotonic() + _PATIENCE

    def is_served(host: str) -> bool:
        chain = chains[host]
        certificate = ssl.PEM_cert_to_DER_cert(chain[: chain.find(_PEM_END) + len(_PEM_END)])
        while _served(bind, port, host) != certificate:
            if time.monotonic() >= end:
                return False
            time.sleep(_POLL)
        return True

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return all(pool.map(is_served, chains))


_PEM_END = "-----END CERTIFICATE-----"


def _served(bind: str, port: int, host: str) -> bytes | None:
    """The certificate that a proxy shows who asks for a host; None if it shows none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((_reachable(bind), port), timeout=_PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname=host) as wrapped,
        ):
            return wrapped.getpeercert(binary_form=True)
    except OSError:
        return None


def wait_for_routes(proxy: Proxy, written: str | None) -> None:
    """Until the proxy has read this state of the route files, or is given up."""
    _seen(proxy.bind, proxy.http, written)


def _seen(bind: str, port: int, written: str | None) -> str | None:
    end = time.monotonic() + _PATIENCE
    while True:
        seen = _ask(bind, port, ROUTES_HOST, "/", timeout=_PATIENCE).routes
        if seen == written or time.monotonic() >= end:
            return seen
        time.sleep(_POLL)
