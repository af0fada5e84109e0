"""A steady load through the proxy: what neighbours lose while something else changes.

Each workspace is asked in three ways at once: a request on a fresh connection, a request on a
connection that is kept alive, and a message over a WebSocket, opened at the start and never again,
that must come back. The workspaces run :mod:`tests.engine.echo_server`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from dual_iac.engine.proxy import IDENTITY_HEADER

PATIENCE = 5.0  # seconds until an answer counts as lost
STEADY = 3  # good answers in a row that a way needs to count as steady
_SHOWN = 5  # reasons of failures that a report spells out


class WrongAnswerError(Exception):
    """Something answered, but not what the workspace says."""


@dataclass
class Way:
    """One way of asking one workspace. It is asked again and again, one question at a time."""

    workspace: str
    port: int
    sent: int = 0
    in_a_row: int = 0
    slowest: float = 0.0
    failures: list[str] = field(default_factory=list)
    over: bool = False
    """Nothing more can be asked: the WebSocket is gone."""

    @property
    def host(self) -> str:
        return f"{self.workspace}.localhost:{self.port}"

    async def ask(self) -> None:
        """One question; raises when the answer is not the workspace's own."""
        raise NotImplementedError

    async def drop(self) -> None:
        """Let go of the connection, if there is one."""

    async def keep_asking(self, interval: float) -> None:
        clock = asyncio.get_running_loop().time
        while not self.over:
            asked = clock()
            try:
                async with asyncio.timeout(PATIENCE):
                    await self.ask()
                self.in_a_row += 1
            except (OSError, EOFError, WrongAnswerError, WebSocketException) as error:
                # TimeoutError is an OSError, and a stream that ends early is an EOFError.
                self.in_a_row = 0
                self.failures.append(f"{self}: {_reason(error)}")
                await self.drop()
            self.sent += 1
            self.slowest = max(self.slowest, clock() - asked)
            await asyncio.sleep(max(0.0, asked + interval - clock()))


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {PATIENCE:g}s"
    if isinstance(error, EOFError):
        return "the connection was closed"
    return str(error) or type(error).__name__


@dataclass
class _Requests(Way):
    _streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self) -> None:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self._streams
        writer.write(f"GET / HTTP/1.1\r\nHost: {self.host}\r\n\r\n".encode())
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        body = (await reader.readexactly(int(headers.get("content-length", "0")))).decode()
        if status.split()[1] != "200":
            raise WrongAnswerError(f"{status}: {body}")
        if headers.get(IDENTITY_HEADER.lower()) != self.workspace:
            raise WrongAnswerError(f"the answer bears no {IDENTITY_HEADER}: {self.workspace}")
        if body.split()[:1] != [self.workspace]:
            raise WrongAnswerError(f"another workspace answers: {body!r}")

    async def drop(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class KeptAlive(_Requests):
    def __str__(self) -> str:
        return f"{self.workspace} on a kept connection"


class Fresh(_Requests):
    async def ask(self) -> None:
        await super().ask()
        await self.drop()

    def __str__(self) -> str:
        return f"{self.workspace} on a fresh connection"


@dataclass
class WebSocket(Way):
    _connection: ClientConnection | None = None

    async def ask(self) -> None:
        if self._connection is None:
            self._connection = await connect(
                f"ws://{self.host}/",
                host="127.0.0.1",
                port=self.port,
                proxy=None,
                compression=None,
                ping_interval=None,  # the messages tell as much
                close_timeout=1,
            )
        message = f"{self.workspace} {self.sent}"
        await self._connection.send(message)
        echoed = await self._connection.recv()
        if echoed != message:
            raise WrongAnswerError(f"{echoed!r} came back for {message!r}")

    async def drop(self) -> None:
        if self._connection is not None:
            self.over = True
            await self._connection.close()

    def __str__(self) -> str:
        return f"{self.workspace} over its WebSocket"


@dataclass
class Toll:
    """What was asked while something else went on, and what of it was lost."""

    requests: int = 0
    failed: int = 0
    echoes: int = 0
    websockets: int = 0
    closed: int = 0
    """WebSockets that closed, or stopped to echo."""
    fewest: int = 0
    """The least that any neighbour was asked in any one way: proof that there was a load."""
    slowest: float = 0.0
    """Seconds that the slowest answer took."""
    failures: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        return self.failed + self.closed

    def __str__(self) -> str:
        shown = [f"  {failure}" for failure in self.failures[:_SHOWN]]
        if more := len(self.failures) - len(shown):
            shown.append(f"  and {more} more")
        head = (
            f"{self.failed} of {self.requests} requests failed, {self.closed} of "
            f"{self.websockets} WebSockets closed ({self.echoes} echoes); each neighbour was asked "
            f"at least {self.fewest} times in each way; slowest answer {self.slowest:.2f}s"
        )
        return "\n".join([head, *shown])


@contextlib.contextmanager
def steady_load(port: int, workspaces: Sequence[str], interval: float = 0.1) -> Iterator[Load]:
    """A load on these workspaces, steady from the start of the context to its end.

    ``interval`` is the seconds from one question to the next, for each workspace and way.
    """
    load = Load(port, workspaces, interval)
    try:
        load.warm_up()
        yield load
    finally:
        load.stop()


class Load:
    """A load that runs; see :func:`steady_load`."""

    def __init__(self, port: int, workspaces: Sequence[str], interval: float) -> None:
        self._ways = [
            kind(workspace, port)
            for kind in (Fresh, KeptAlive, WebSocket)
            for workspace in workspaces
        ]
        self._interval = interval
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._over = False
        self._asking = self._thread.submit(asyncio.run, self._ask_all())

    @contextlib.contextmanager
    def watched(self) -> Iterator[Toll]:
        """Count what is lost from here until all answers are good again (at most a minute).

        The Toll is complete when the context ends.
        """
        toll = Toll()
        before = [(way.sent, len(way.failures)) for way in self._ways]
        for way in self._ways:
            way.slowest = 0.0
        yield toll
        during = [
            way.sent - sent
            for way, (sent, _) in zip(self._ways, before, strict=True)
            if not way.over
        ]
        toll.fewest = min(during, default=0)
        toll.failures = [f"{reason}, for a minute" for reason in self._wait_until_steady(60)]
        for way, (sent, failures) in zip(self._ways, before, strict=True):
            lost = way.failures[failures:]
            if isinstance(way, WebSocket):
                toll.websockets += 1
                toll.closed += way.over
                toll.echoes += way.sent - sent - len(lost)
            else:
                toll.requests += way.sent - sent
                toll.failed += len(lost)
            toll.failures += lost
            toll.slowest = max(toll.slowest, way.slowest)

    def warm_up(self) -> None:
        """Wait until everybody answers in every way; raises RuntimeError if that takes a minute."""
        if unsteady := self._wait_until_steady(60):
            raise RuntimeError("no steady load came about:\n" + "\n".join(unsteady))

    def stop(self) -> None:
        self._over = True
        self._thread.shutdown()
        self._asking.result()

    async def _ask_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = []
            for place, way in enumerate(self._ways):
                tasks.append(group.create_task(way.keep_asking(self._interval)))
                if place < len(self._ways) - 1:  # spread over the interval, not all at once
                    await asyncio.sleep(self._interval / len(self._ways))
            while not self._over:
                await asyncio.sleep(0.05)
            for task in tasks:
                task.cancel()
        await asyncio.gather(*(way.drop() for way in self._ways))

    def _wait_until_steady(self, seconds: float) -> list[str]:
        """Wait for good answers in a row from now on; return the ways that have none in time."""
        marks = [way.sent for way in self._ways]

        def is_unsteady(way: Way, mark: int) -> bool:
            return not way.over and (way.sent < mark + STEADY or way.in_a_row < STEADY)

        def unsteady() -> list[Way]:
            return [w for w, mark in zip(self._ways, marks, strict=True) if is_unsteady(w, mark)]

        self._wait(lambda: not unsteady(), seconds)
        return [f"{way}: no {STEADY} good answers in a row" for way in unsteady()]

    def _wait(self, condition: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            if self._asking.done():
                self._asking.result()  # raises what ended it
            time.sleep(0.02)
