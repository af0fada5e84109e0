"""Somebody who asks a workspace through the proxy: with curl, by WebSocket, or byte by byte."""

from __future__ import annotations

import http.client
import json
import secrets
import socket
import ssl
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from websockets.sync.client import ClientConnection, connect

from tests.engine.conftest import Done, run

PATIENCE = 30  # seconds until an answer counts as lost


@dataclass(frozen=True)
class Client:
    """One who asks ``host`` at ``port`` of 127.0.0.1.

    ``authority`` is the file with the certificate to trust; without one, everything is plain.
    """

    host: str
    port: int
    authority: Path | None = None

    @property
    def scheme(self) -> str:
        return "https" if self.authority else "http"

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"

    def command(self, path: str, *options: str, http2: bool = False) -> list[str]:
        """curl's command line for a path, which it asks for as it is."""
        if not http2:
            version = "--http1.1"
        else:
            version = "--http2" if self.authority else "--http2-prior-knowledge"
        trust = ["--cacert", str(self.authority)] if self.authority else []
        place = f"{self.host}:{self.port}:127.0.0.1"
        return [
            *("curl", "--silent", "--show-error", "--no-buffer", "--path-as-is", version),
            *("--max-time", str(PATIENCE), "--resolve", place, *trust, *options),
            self.origin + path,
        ]

    def curl(self, path: str, *options: str, http2: bool = False) -> Done:
        done = run(*self.command(path, *options, http2=http2))
        assert done.code == 0, f"curl {path}: {done}"
        return done

    def seen(self, path: str, *options: str, http2: bool = False) -> Any:
        """What the server saw of a request; see ``answer_echo`` of the server."""
        return json.loads(self.curl(path, *options, http2=http2).stdout)

    def open_gate(self, name: str) -> None:
        assert self.curl(f"/gates/{name}", "--request", "POST").stdout == "open"

    def streaming(self, path: str, *options: str, http2: bool = False) -> Streaming:
        return Streaming(self.command(path, *options, http2=http2))

    def connected(self) -> socket.socket:
        """A connection that nothing has been sent over."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        if not self.authority:
            return plain
        return self._trust().wrap_socket(plain, server_hostname=self.host)

    def _trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.authority)

    def connection(self) -> http.client.HTTPConnection:
        """The same, for one HTTP/1.1 request after the other."""
        connection = http.client.HTTPConnection(self.host, self.port)
        connection.sock = self.connected()
        return connection

    def websocket(self, path: str = "/websocket", **options: Any) -> ClientConnection:
        websocket: ClientConnection = connect(
            f"{self.origin.replace('http', 'ws', 1)}{path}",
            sock=socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE),
            ssl=self._trust() if self.authority else None,
            proxy=None,
            ping_interval=None,  # the tests send their own
            open_timeout=PATIENCE,
            close_timeout=PATIENCE,
            **options,
        )
        return websocket


class Streaming:
    """A request that goes on: what it sends comes in pieces, and so does what it gets.

    ``body`` is a file to send; without one, :meth:`send` does.
    """

    def __init__(self, command: Sequence[str], body: IO[bytes] | None = None) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if body is None else body,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __enter__(self) -> Streaming:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def send(self, piece: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(piece)
        self._process.stdin.flush()

    def event(self) -> str:
        """The next lines up to an empty one, as soon as they are there; "" at the end."""
        assert self._process.stdout is not None
        read = self._process.stdout.readline
        return "\n".join(iter(lambda: read().decode().strip(), ""))

    def rest(self) -> str:
        """All that is left, when it has ended well."""
        rest, complaint = self._process.communicate()
        assert self._process.returncode == 0, complaint.decode()
        return rest.decode()


def new_name() -> str:
    """A name for a gate, or for a body that arrives, that no other test has."""
    return secrets.token_hex(4)
