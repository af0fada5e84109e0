"""What a workspace runs to show what came through the proxy, and to answer in every way there is.

Nothing in it waits for a time to pass. What is streamed goes on only when another request opens
the next gate (``POST /gates/NAME``), so a client that has read a chunk knows that the next one
had not been sent yet: nobody on the way has kept it back.

It is copied into the workspace's folder and runs there, so it imports the standard library only.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.server
import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, urlsplit

ACCEPT_KEY = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # the same for everybody, see RFC 6455
CONTINUATION, CLOSE, PING, PONG = 0x0, 0x8, 0x9, 0xA
OPCODE, LAST = 0x0F, 0x80
PATIENCE = 900.0  # seconds at a gate, or for bytes: longer than any test
PIECE = 1 << 16

PAGE = """<!doctype html><title>through</title><script>
events = []; echoes = []
new EventSource('/events/NAME?count=3').onmessage = event => events.push(event.data)
socket = new WebSocket(location.origin.replace('http', 'ws') + '/websocket')
socket.onopen = () => socket.send('from the page')
socket.onmessage = event => echoes.push(event.data)
</script>"""

gates: defaultdict[str, threading.Semaphore] = defaultdict(lambda: threading.Semaphore(0))
arrived: defaultdict[str, bytes] = defaultdict(bytes)
more_has_arrived = threading.Condition()


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections open
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        _, action, *rest = url.path.split("/", 2)
        self.name = "".join(rest)
        answer = getattr(self, f"answer_{action}", self.answer_echo)
        if answer not in (self.answer_echo, self.answer_count, self.answer_collect):
            for _ in self.pieces():  # or it would be read as the next request of this connection
                pass
        answer()

    do_POST = do_PUT = do_HEAD = do_PATCH = do_DELETE = do_OPTIONS = do_GET  # noqa: N815

    # --- what came in

    def answer_echo(self) -> None:
        """The request as it came: a header's name in the case that it had, in the order it had."""
        length, digest = 0, hashlib.sha256()
        for piece in self.pieces():
            length += len(piece)
            digest.update(piece)
        seen = {
            "method": self.command,
            "path": self.requestline.split()[1],  # http.server makes // at its start one /
            "version": self.request_version,
            "headers": self.headers.items(),
            "length": length,
            "sha256": digest.hexdigest(),
            "client": self.client_address,
        }
        self.answer(json.dumps(seen).encode(), {"Content-Type": "application/json"})

    def answer_count(self) -> None:
        """How many bytes came: hashing a large upload would take longer than the upload."""
        self.answer(str(sum(len(piece) for piece in self.pieces())).encode())

    def answer_collect(self) -> None:
        """Keeps what arrives under a name, for :meth:`answer_arrived` to tell meanwhile."""
        for piece in self.pieces(whole=False):
            with more_has_arrived:
                arrived[self.name] += piece
                more_has_arrived.notify_all()
        self.answer(arrived[self.name])

    def answer_arrived(self) -> None:
        """What has arrived under that name, as soon as it is as long as ``atleast`` says."""
        least = int(self.query["atleast"])
        with more_has_arrived:
            more_has_arrived.wait_for(lambda: len(arrived[self.name]) >= least, PATIENCE)
            self.answer(arrived[self.name])

    # --- what goes out

    def answer_gates(self) -> None:
        gates[self.name].release()
        self.answer(b"open")

    def answer_late(self) -> None:
        """A long poll: an answer as soon as the gate opens."""
        gates[self.name].acquire(timeout=PATIENCE)
        self.answer(b"at last")

    def answer_stream(self) -> None:
        """Chunks of plain text, or of what ``type`` says; each but the first waits at the gate."""
        self.send_response(200)
        self.send_header("Content-Type", self.query.get("type", "text/plain"))
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Trailer", "X-Chunks")
        self.end_headers()
        count = int(self.query["count"])
        for number in range(count):
            if number:
                gates[self.name].acquire(timeout=PATIENCE)
            line = f"data: {number}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        gates[self.name].acquire(timeout=PATIENCE)
        self.wfile.write(b"0\r\nX-Chunks: %d\r\n\r\n" % count)

    def answer_events(self) -> None:
        """Server-sent events without a length; each but the first waits at the gate."""
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-cache")
        self.end_headers()
        for number in range(int(self.query["count"])):
            if number:
                gates[self.name].acquire(timeout=PATIENCE)
            self.wfile.write(f"id: {number}\ndata: {number}\n\n".encode())

    def answer_page(self) -> None:
        """A page that listens to events, and has a word come back over a WebSocket."""
        page = PAGE.replace("NAME", self.name).encode()
        self.answer(page, {"Content-Type": "text/html; charset=utf-8"})

    def answer_status(self) -> None:
        self.answer(b"" if self.name in ("204", "304") else b"body", status=int(self.name))

    def answer_hints(self) -> None:
        """Early hints before the answer."""
        self.wfile.write(b"HTTP/1.1 103 Early Hints\r\nLink: </app.css>; rel=preload\r\n\r\n")
        self.answer(b"hinted")

    def answer_redirect(self) -> None:
        self.answer(b"", {"Location": self.query["to"]}, status=302)

    def answer_cookies(self) -> None:
        self.send_response(200)
        for name in ("a", "b", "c"):
            self.send_header("Set-Cookie", f"{name}=1; Path=/; HttpOnly")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer_large(self) -> None:
        """A response header of ``size`` bytes, and a body of that size."""
        size = int(self.query["size"])
        self.answer(b"b" * size, {"X-Large": "h" * size})

    def answer_gzip(self) -> None:
        packed = gzip.compress(b"packed " * 100, mtime=0)
        self.answer(packed, {"Content-Encoding": "gzip", "ETag": '"packed"'})

    def answer_range(self) -> None:
        """Ten digits, or those that a Range header asks for."""
        digits = b"0123456789"
        asked = self.headers.get("Range", "")
        if not asked:
            return self.answer(digits, {"Accept-Ranges": "bytes"})
        first, last = map(int, asked.removeprefix("bytes=").split("-"))
        part = digits[first : last + 1]
        return self.answer(part, {"Content-Range": f"bytes {first}-{last}/10"}, status=206)

    def answer(self, body: bytes, headers: dict[str, str] | None = None, status: int = 200) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    # --- bodies and WebSockets

    def pieces(self, whole: bool = True) -> Iterator[bytes]:
        """The request's body, however it is framed; as it arrives unless ``whole`` pieces do."""
        read = self.rfile.read if whole else self.rfile.read1
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield from _exactly(read, size)
                self.rfile.readline()
            while self.rfile.readline().strip():  # trailers
                pass
        else:
            yield from _exactly(read, int(self.headers.get("Content-Length", "0")))

    def answer_websocket(self) -> None:
        """Sends each frame back as it came, fragments as fragments; a ping as a pong.

        The first of the subprotocols that are offered is taken. ``POST /gates/NAME`` sends no
        frame: a WebSocket is idle until its client says something.
        """
        self.close_connection = True
        key = self.headers["Sec-WebSocket-Key"].encode()
        accept = base64.b64encode(hashlib.sha1(key + ACCEPT_KEY).digest()).decode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept)
        self.send_header("X-Seen", json.dumps(self.headers.items()))
        if offered := self.headers.get("Sec-WebSocket-Protocol"):
            self.send_header("Sec-WebSocket-Protocol", offered.split(",")[0].strip())
        self.end_headers()
        while head := self.rfile.read(2):
            length = head[1] & 0x7F
            extended = self.rfile.read({126: 2, 127: 8}.get(length, 0))
            mask = self.rfile.read(4)
            size = int.from_bytes(extended) if extended else length
            payload = _unmasked(self.rfile.read(size), mask)
            opcode = head[0] & OPCODE
            first = head[0] & ~OPCODE | PONG if opcode == PING else head[0]
            if opcode != PONG:
                self.wfile.write(bytes([first, length]) + extended + payload)
            if opcode == CLOSE:
                return

    def log_message(self, *_: object) -> None:
        """Nothing: the tests read answers."""


def _exactly(read: Callable[[int], bytes], size: int) -> Iterator[bytes]:
    while size and (piece := read(min(size, PIECE))):
        size -= len(piece)
        yield piece


def _unmasked(payload: bytes, mask: bytes) -> bytes:
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(len(payload))


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128


if __name__ == "__main__":
    Server(("0.0.0.0", 3000), Answer).serve_forever()
