"""What passes through the proxy unchanged, both ways, by real clients."""

from __future__ import annotations

import hashlib
import importlib.util
import ipaddress
import json
import re
import select
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.engine import django_app, through_server
from tests.engine.browser import started_browser, trust
from tests.engine.client import PATIENCE, Client, Streaming, new_name
from tests.engine.conftest import LAB_IMAGE, LiveProject, docker, free_port, run, wait_for

SCHEMES = ["http", "https"]
TEMPLATE = Path(__file__).parents[2] / "templates/traefik/traefik.yaml.j2"

MEGABYTE = 1 << 20
GIGABYTE = 1 << 30
FLAT = 64 * MEGABYTE  # what Traefik may grow by while a gigabyte goes through it

DECLARED = f"""\
defaults: {{image: "{LAB_IMAGE}", source: {{path: .}}, command: python3 through_server.py}}
workspaces:
  main: {{}}
"""
DJANGO = """\
  django: {command: python3 django_app.py}
"""


def declare(live: LiveProject, rest: str) -> None:
    """Write dual.yaml with these workspaces, and what they run beside it."""
    shutil.copy(through_server.__file__, live.folder)
    live.write(rest, **({"https": free_port()} if "https" in SCHEMES else {}))


def client_of(live: LiveProject, scheme: str, workspace: str = "main") -> Client:
    if scheme == "http":
        return Client(f"{workspace}.localhost", live.port)
    port = yaml.safe_load((live.folder / "dual.yaml").read_text())["proxy"]["https"]
    authority = Path(live.dual("trust", "--path").stdout.strip())
    return Client(f"{workspace}.localhost", port, authority)


@pytest.fixture(scope="module", autouse=True)
def data_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Certificates come from an authority of these tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(scope="module")
def through(shared: LiveProject) -> LiveProject:
    """A project with the server in one workspace, and Django in the other."""
    shutil.copy(django_app.__file__, shared.folder)
    for package in ("asgiref", "django", "sqlparse"):  # of Python alone, so they run anywhere
        spec = importlib.util.find_spec(package)
        assert spec is not None, f"{package} is not installed"
        assert spec.origin is not None
        without = shutil.ignore_patterns("*.po", "*.mo", "__pycache__")
        shutil.copytree(Path(spec.origin).parent, shared.folder / package, ignore=without)
    declare(shared, DECLARED + DJANGO)
    shared.apply()
    return shared


@pytest.fixture(scope="module", params=SCHEMES)
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def client(through: LiveProject, scheme: str) -> Client:
    return client_of(through, scheme)


@pytest.fixture(params=[False, True], ids=["http/1.1", "http/2"])
def http2(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


# --- requests


PATHS = [
    "/",
    "/a//b/./c/../d/",
    "/proxy/https://example.com/x?y=//z",
    "/@fs//workspace/@id/__x00__virtual",
    "/a%2Fb%5Cc%00d%3Fe%23f%25g%3Bh",
    "/a;b=c/%E2%9C%93+~!$&'()*,:@",
    "/?",
    "/?a=1&a=2&b=%26&c=+&d=%zz&e=/../f",
]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_arrives_as_it_was_sent(client: Client, http2: bool, path: str) -> None:
    assert client.seen(path, "--globoff", http2=http2)["path"] == path


def test_a_semicolon_in_a_query_stays_one(client: Client, http2: bool) -> None:
    """Encoded, so that nobody takes what follows for another parameter."""
    seen = client.seen("/css?family=Inter:wght@400;700", http2=http2)
    assert seen["path"] == "/css?family=Inter:wght@400%3B700"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_a_request_arrives_as_it_was_sent(client: Client, http2: bool, method: str) -> None:
    sent = [
        ("Accept-Language", "de, *;q=0.5"),
        ("Cookie", "a=1; b=2"),
        ("X-Custom", "ü 1"),
        ("Authorization", "Bearer x.y"),
        ("Referer", client.origin),
        ("Accept", "text/html"),
        ("Accept-Encoding", "br"),
        ("User-Agent", "test"),
        ("Content-Type", "text/x; a=b"),
    ]
    headers = [option for name, value in sent for option in ("--header", f"{name}: {value}")]
    body = f"{method} with a body"
    options = ("--request", method, "--data-binary", body, *headers)
    seen = client.seen("/echo", *options, http2=http2)
    assert seen["method"] == method
    assert seen["sha256"] == hashlib.sha256(body.encode()).hexdigest()
    assert seen["version"] == "HTTP/1.1"
    own = {"Host", "Content-Length", "X-Real-Ip"}
    arrived = [
        (name, value.encode("latin-1").decode())
        for name, value in seen["headers"]
        if name not in own and not name.startswith("X-Forwarded-")
    ]
    assert sorted(arrived) == sorted(sent)


def test_http_2_is_spoken_to_clients(client: Client, http2: bool) -> None:
    done = client.curl("/", "--output", "/dev/null", "--write-out", "%{http_version}", http2=http2)
    assert done.stdout == ("2" if http2 else "1.1")


def test_a_connection_is_kept_alive(client: Client) -> None:
    connection = client.connection()
    kept = connection.sock
    for number in range(3):
        connection.request("POST", f"/{number}", body=b"x" * number)
        answer = connection.getresponse()
        assert json.loads(answer.read())["path"] == f"/{number}"
        assert answer.getheader("Connection") is None
        assert connection.sock is kept, "it was closed"
    connection.close()


def test_a_body_arrives_while_it_is_sent(client: Client, http2: bool) -> None:
    """Nobody waits for its end: its length is not known before."""
    name = new_name()
    with client.streaming(f"/collect/{name}", "--upload-file", "-", http2=http2) as upload:
        upload.send(b"first ")
        assert client.curl(f"/arrived/{name}?atleast=6").stdout == "first "
        upload.send(b"second ")
        assert client.curl(f"/arrived/{name}?atleast=13").stdout == "first second "
        assert upload.rest() == "first second "


def test_a_client_may_ask_before_it_sends_a_body(client: Client) -> None:
    with client.connected() as connection:
        head = f"PUT /count HTTP/1.1\r\nHost: {client.host}\r\nContent-Length: 4\r\n"
        connection.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        told = connection.recv(1000)
        assert told.startswith(b"HTTP/1.1 100 Continue\r\n"), told
        connection.sendall(b"body")
        answer = connection.recv(1000)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer
        assert answer.endswith(b"\r\n\r\n4"), answer


def memory(live: LiveProject) -> dict[str, int]:
    """Traefik's resident memory in bytes, now (VmRSS) and at its highest (VmHWM).

    The kernel keeps the highest itself, so no moment is missed; files in its cache don't count.
    """
    process = docker("inspect", "--format", "{{.State.Pid}}", live.container("traefik"))
    status = Path(f"/proc/{process}/status").read_text()
    return {key: 1024 * int(kib) for key, kib in re.findall(r"(Vm\w+):\s*(\d+) kB", status)}


# Of unknown length it comes in chunks; over TLS, in HTTP/2's frames.
UPLOADS = [("http", "known"), ("https", "unknown")]


@pytest.mark.parametrize(("over", "length"), [each for each in UPLOADS if each[0] in SCHEMES])
def test_an_upload_of_a_gigabyte(
    through: LiveProject, over: str, length: str, tmp_path: Path
) -> None:
    client = client_of(through, over)
    zeros = tmp_path / "zeros"
    with zeros.open("wb") as file:
        file.truncate(GIGABYTE)  # takes no room
    before = memory(through)
    source = str(zeros) if length == "known" else "-"
    command = client.command("/count", "--upload-file", source, http2=over == "https")
    with zeros.open("rb") as body, Streaming([*command, "--max-time", "120"], body) as upload:
        assert upload.rest() == str(GIGABYTE)
    grown = memory(through)["VmHWM"] - before["VmRSS"]
    assert grown < FLAT, f"Traefik grew by {grown / MEGABYTE:.0f} MB"


# --- answers


ANSWERS = [
    ("/status/200",),
    ("/status/200", "--head"),
    ("/status/201",),
    ("/status/204",),
    ("/status/304",),
    ("/status/404",),
    ("/status/418",),
    ("/status/500",),
    ("/status/503",),
    ("/redirect?to=http://localhost:3000/elsewhere?a%26b%23c",),
    ("/redirect?to=../relative",),
    ("/cookies",),
    ("/large?size=50000",),
    ("/large?size=50000", "--head"),
    ("/gzip",),
    ("/gzip", "--head"),
    ("/range",),
    ("/range", "--range", "2-5"),
]
HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive"}
IDENTITY = {"x-dual-workspace", "x-dual-project"}


def parsed(answer: str) -> tuple[str, list[tuple[str, str]], str]:
    """Status, headers that are for more than one hop, sorted, and all that follows them."""
    head, _, body = answer.partition("\r\n\r\n")
    status, *lines = head.split("\r\n")
    pairs = [line.split(": ", 1) for line in lines]
    headers = [(name.lower(), value) for name, value in pairs]
    left_out = HOP_BY_HOP | IDENTITY | {"date"}
    return status.split()[1], sorted(pair for pair in headers if pair[0] not in left_out), body


@pytest.mark.parametrize("asked", ANSWERS, ids=" ".join)
def test_an_answer_comes_as_the_workspace_gives_it(
    through: LiveProject, client: Client, http2: bool, asked: tuple[str, ...]
) -> None:
    """The same as curl gets inside the workspace."""
    path, *options = asked
    options += ["--include", "--header", "Accept-Encoding: gzip"]
    inside = ["curl", "--silent", "--show-error", *options, f"http://localhost:3000{path}"]
    given = run("docker", "exec", through.container("main"), *inside)
    assert given.code == 0, given
    assert parsed(client.curl(path, *options, http2=http2).stdout) == parsed(given.stdout)


def test_early_hints_come_before_the_answer(client: Client, http2: bool) -> None:
    answer = client.curl("/hints", "--include", http2=http2).stdout
    hints, final, body = answer.split("\r\n\r\n")
    assert hints.split()[1] == "103"
    assert hints.lower().endswith("link: </app.css>; rel=preload")
    assert final.split()[1] == "200"
    assert body == "hinted"


STREAMS = ["/stream/{}?count=3", "/stream/{}?count=3&type=text/event-stream", "/events/{}?count=3"]


@pytest.mark.parametrize("path", STREAMS)
def test_each_piece_comes_before_the_next_is_sent(client: Client, http2: bool, path: str) -> None:
    """Chunks and server-sent events: nobody on the way waits for more of them."""
    gate = new_name()
    with client.streaming(path.format(gate), http2=http2) as stream:
        assert "data: 0" in stream.event()
        for number in (1, 2):
            client.open_gate(gate)
            assert f"data: {number}" in stream.event()
        client.open_gate(gate)
        assert stream.rest() == ""


def test_trailers_come_after_the_chunks(client: Client, http2: bool) -> None:
    gate = new_name()
    client.open_gate(gate)
    answer = client.curl(f"/stream/{gate}?count=1", "--dump-header", "-", http2=http2).stdout
    assert answer.lower().endswith("data: 0\n\nx-chunks: 1\r\n"), answer


# --- WebSockets


def test_messages_come_back_as_they_were_sent(client: Client) -> None:
    with client.websocket() as websocket:
        for message in ("text ü", "", b"\x00\xff", "x" * 70_000, b"y" * 900_000):
            websocket.send(message)
            assert websocket.recv(timeout=PATIENCE) == message


def test_fragments_of_a_message_stay_apart(client: Client) -> None:
    with client.websocket() as websocket:
        websocket.send(["a", "b" * 70_000, "c"])
        fragments = [part for part in websocket.recv_streaming() if part]
        assert fragments == ["a", "b" * 70_000, "c"]


def test_a_ping_is_answered_by_the_workspace(client: Client) -> None:
    with client.websocket() as websocket:
        assert websocket.ping(b"are you there").wait(timeout=PATIENCE)


def test_a_subprotocol_is_agreed_on(client: Client) -> None:
    offered = [Subprotocol("vite-hmr"), Subprotocol("other")]
    with client.websocket(subprotocols=offered) as websocket:
        assert websocket.subprotocol == "vite-hmr"


def test_a_close_code_and_its_reason_come_back(client: Client) -> None:
    with client.websocket() as websocket:
        websocket.close(4321, "enough")
        with pytest.raises(ConnectionClosed) as closed:
            websocket.recv(timeout=PATIENCE)
    received = closed.value.rcvd
    assert received is not None
    assert (received.code, received.reason) == (4321, "enough")


def test_a_websocket_knows_where_it_was_opened(client: Client) -> None:
    """Its handshake is a request like others: host, origin and scheme reach the workspace."""
    with client.websocket(origin=client.origin) as websocket:
        seen = websocket.response.headers["X-Seen"] if websocket.response else ""
    assert (
        dict(json.loads(seen)).items()
        >= {
            "Host": f"{client.host}:{client.port}",
            "Origin": client.origin,
            "X-Forwarded-Host": f"{client.host}:{client.port}",
            "X-Forwarded-Proto": client.scheme,
        }.items()
    )


# --- a browser


def test_chromium_gets_events_and_messages(client: Client, tmp_path: Path) -> None:
    """Over TLS, with the authority in a profile of its own and without a warning."""
    if client.authority:
        trust(tmp_path, client.authority)
    gate = new_name()
    with started_browser(tmp_path) as browser:

        def page(expression: str) -> Any:
            return browser.execute_script(f"return {expression}")

        browser.get(f"{client.origin}/page/{gate}")
        assert browser.title == "through", "a warning stands before it"
        wait_for("the first event comes", lambda: page("events") == ["0"])
        client.open_gate(gate)
        wait_for("the second event comes", lambda: page("events") == ["0", "1"])
        wait_for("the word comes back", lambda: page("echoes") == ["from the page"])
        spoken = {"http": "http/1.1", "https": "h2"}[client.scheme]
        assert page("performance.getEntriesByType('navigation')[0].nextHopProtocol") == spoken


# --- whom the application believes


def told(seen: Any) -> dict[str, str]:
    """Host, and what the workspace hears of client, host and scheme, by header."""
    about = ("host", "forwarded", "x-forwarded", "x-real-ip", "front-end", "client-ip", "x-url")
    headers = [(name, value) for name, value in seen["headers"]]
    names = [name for name, _ in headers]
    assert len(set(names)) == len(names), f"said twice: {names}"
    like = {name: re.sub("[^a-z0-9]", "-", name.lower()) for name in names}
    return {name: value for name, value in headers if like[name].startswith(about)}


@pytest.mark.parametrize("form", ["{host}:{port}", "{host}", "{HOST}:{port}", "{host}.:{port}"])
def test_host_and_scheme_reach_the_application(client: Client, http2: bool, form: str) -> None:
    """As Django, Rails, Next.js and Vite read them; a host without a port means the scheme's."""
    host = form.format(host=client.host, HOST=client.host.upper(), port=client.port)
    heard = told(client.seen("/", "--header", f"Host: {host}", http2=http2))
    address = heard.pop("X-Real-Ip")
    assert ipaddress.ip_address(address)
    assert heard.pop("X-Forwarded-Server")
    usual = {"http": "80", "https": "443"}[client.scheme]
    assert heard == {
        "Host": host,
        "X-Forwarded-Host": host,
        "X-Forwarded-Port": str(client.port) if ":" in host else usual,
        "X-Forwarded-Proto": client.scheme,
        "X-Forwarded-For": address,
    }


FORGED = {
    "Client-Ip": "6.6.6.6",
    "Forwarded": "for=6.6.6.6;proto=gopher;host=evil.localhost",
    "Front-End-Https": "on",
    "X-Forwarded": "6.6.6.6",
    "X-Forwarded-For": "6.6.6.6",
    "X-Forwarded-Host": "evil.localhost",
    "X-Forwarded-Method": "DELETE",
    "X-Forwarded-Port": "1",
    "X-Forwarded-Prefix": "/evil",
    "X-Forwarded-Proto": "gopher",
    "X-Forwarded-Protocol": "gopher",
    "X-Forwarded-Scheme": "gopher",
    "X-Forwarded-Server": "evil",
    "X-Forwarded-Ssl": "on",
    "X-Forwarded-Uri": "/evil",
    "X-Real-Ip": "6.6.6.6",
    "X-Url-Scheme": "gopher",
}
SPELLINGS = {
    "as it is": lambda name: name,
    "lower case": lambda name: name.lower(),
    "underscores": lambda name: name.replace("-", "_"),
    "one underscore": lambda name: name[::-1].replace("-", "_", 1)[::-1],
    "dots": lambda name: name.replace("-", "."),
    "tildes": lambda name: name.replace("-", "~"),
}


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_no_client_is_believed(client: Client, http2: bool, spell: Callable[[str], str]) -> None:
    """Whatever it says of itself, the application hears the same, however it is spelt."""
    honest = told(client.seen("/", http2=http2))
    lies = [part for name, lie in FORGED.items() for part in ("--header", f"{spell(name)}: {lie}")]
    assert told(client.seen("/", *lies, http2=http2)) == honest


def test_no_client_takes_away_what_the_proxy_says(client: Client) -> None:
    """HTTP/1.1 lets a client name headers that end at the next hop."""
    honest = told(client.seen("/"))
    for name in honest:
        hop = ("--header", f"Connection: close, {name}")
        assert told(client.seen("/", *hop)) == honest, name


def test_an_unknown_host_reaches_no_workspace(client: Client, http2: bool) -> None:
    for host in ("127.0.0.1", f"[::1]:{client.port}", "localhost", f"x{client.host}"):
        options = ("--header", f"Host: {host}", "--include")
        status, headers, _ = parsed(client.curl("/", *options, http2=http2).stdout)
        assert status == "404", host
        assert not dict(headers).get("server"), "a workspace answered"


def test_django_knows_its_own_address(through: LiveProject, scheme: str, tmp_path: Path) -> None:
    client = client_of(through, scheme, "django")
    jar = ("--cookie-jar", str(tmp_path / "jar"), "--cookie", str(tmp_path / "jar"))
    lie = ("--header", "X-Forwarded-Proto: https", "--header", "X_Forwarded_Proto: https")
    seen = client.seen("/a/?b=c", *jar, *lie)
    assert seen["uri"] == f"{client.origin}/a/?b=c"
    assert seen["secure"] is (scheme == "https")

    def post(origin: str) -> str:
        claim = ("--header", f"Origin: {origin}", "--header", f"X-CSRFToken: {seen['token']}")
        status = ("--output", "/dev/null", "--write-out", "%{http_code}")
        return client.curl("/", *jar, "--request", "POST", *claim, *status).stdout

    assert post(client.origin) == "200"
    assert post(f"{scheme}://{client.host}") == "403", "another port is another origin"
    assert post("https://evil.localhost") == "403"


# --- limits


def test_a_large_header_reaches_the_workspace(client: Client, http2: bool) -> None:
    """More than Node.js takes (16 KiB), and as much as Python's server does."""
    sent = "x" * 60_000
    seen = client.seen("/", "--header", f"X-Large: {sent}", http2=http2)
    assert dict(seen["headers"])["X-Large"] == sent


def test_a_header_without_end_is_refused_by_the_proxy(client: Client) -> None:
    with client.connected() as connection:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {client.host}\r\n".encode())
        connection.sendall(b"X-Large: " + b"x" * (MEGABYTE + 4096))
        connection.sendall(b"\r\n\r\n")
        answer = connection.recv(1000)
    assert answer.startswith(b"HTTP/1.1 431 "), answer
    assert b"X-Dual-Workspace" not in answer


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side has closed it; what else it had sent is read before."""
    while select.select([connection], [], [], 0)[0]:
        if not connection.recv(1000):
            return True
    return False


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveProject]:
    """A project whose proxy gives requests, and idle connections, a second instead of its hour."""
    live = LiveProject(tmp_path_factory.mktemp("impatient"))
    shipped = TEMPLATE.read_text()
    template = re.sub(r"(readTimeout|idleTimeout): \w+", r"\1: 1s", shipped)
    assert template.count(": 1s") == shipped.count("Timeout: "), "there is another timeout"
    own = live.folder / ".dual/templates/traefik/traefik.yaml.j2"
    own.parent.mkdir(parents=True)
    own.write_text(template)
    declare(live, DECLARED)
    try:
        live.apply()
        yield live
    finally:
        live.remove()


def test_what_takes_long_outlives_every_timeout(impatient: LiveProject, scheme: str) -> None:
    """A long poll, events, chunks and a WebSocket, silent while all that Traefik limits is over.

    It is over when Traefik has given up two connections that were opened last: one that stopped
    amid its headers (``readTimeout``), and one that was idle (``idleTimeout``).
    """
    client = client_of(impatient, scheme)
    gate = new_name()
    with ExitStack() as stack:

        def open_stream(path: str, *options: str, http2: bool) -> Streaming:
            return stack.enter_context(client.streaming(path, *options, http2=http2))

        polls = [
            open_stream(f"/late/{gate}", *options, http2=http2)
            for options in ((), ("--data", "a body"))
            for http2 in (False, True)
        ]
        streams = [
            open_stream(f"/{kind}/{gate}?count=2", http2=http2)
            for kind in ("stream", "events")
            for http2 in (False, True)
        ]
        assert ["data: 0" in stream.event() for stream in streams] == [True] * 4
        websocket = stack.enter_context(client.websocket())
        websocket.send("before")
        assert websocket.recv(timeout=PATIENCE) == "before"

        halfway = stack.enter_context(client.connected())
        halfway.sendall(f"GET / HTTP/1.1\r\nHost: {client.host}\r\n".encode())
        idle = stack.enter_context(client.connected())
        idle.sendall(f"GET / HTTP/1.1\r\nHost: {client.host}\r\n\r\n".encode())
        wait_for("a client that stopped amid its headers is given up", lambda: is_closed(halfway))
        wait_for("an idle connection is closed", lambda: is_closed(idle))

        for _ in range(len(polls) + 2 * len(streams)):
            client.open_gate(gate)
        assert [poll.rest() for poll in polls] == ["at last"] * 4
        assert ["data: 1" in stream.rest() for stream in streams] == [True] * 4
        websocket.send("after")
        assert websocket.recv(timeout=PATIENCE) == "after"
