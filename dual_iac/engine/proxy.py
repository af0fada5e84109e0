"""What the proxy answers: the only way to see what Traefik itself sees."""

from __future__ import annotations

import http.client
import time
from dataclasses import dataclass

from dual_iac.model import Proxy
from dual_iac.output import PROXY_PORT, ROUTES_HEADER, ROUTES_HOST
from dual_iac.state import PROXY, Observed

IDENTITY_HEADER = "X-Dual-Workspace"
PROJECT_HEADER = "X-Dual-Project"

_GATEWAY_ERRORS = (502, 503, 504)
_PATIENCE = 1.5  # seconds that Traefik may take to start, or to follow its files
_POLL = 0.05


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


def _ask(bind: str, port: int, host: str, path: str, timeout: float) -> Answer:
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind, bind)
    connection = http.client.HTTPConnection(address, port, timeout=timeout)
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
    published = observed.containers[PROXY].fields.get(f"ports.{PROXY_PORT}/tcp", "")
    bind, _, port = str(published).rpartition(":")
    return _seen(bind, int(port), observed.routes_written) if port.isdecimal() else None


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
