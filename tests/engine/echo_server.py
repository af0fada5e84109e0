"""What a workspace under load runs: plain answers and a WebSocket echo on port 3000.

It is copied into the workspace's folder and runs there, so it imports the standard library only.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import os
import socket

ACCEPT_KEY = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # the same for everybody, see RFC 6455
OPCODE, CLOSE = 0x0F, 0x08


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections open
    disable_nagle_algorithm = True  # or a body waits 40 ms for somebody to acknowledge its headers

    def do_GET(self) -> None:
        if key := self.headers.get("Sec-WebSocket-Key"):
            self.upgrade(key)
            self.echo()
        else:
            body = f"{socket.gethostname()} {os.environ.get('GREETING', '')}".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def upgrade(self, key: str) -> None:
        digest = hashlib.sha1(key.encode() + ACCEPT_KEY).digest()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(digest).decode())
        self.end_headers()

    def echo(self) -> None:
        """Send back each frame, a closing one last. Knows short ones only: less than 126 bytes."""
        self.close_connection = True
        while head := self.rfile.read(2):
            mask = self.rfile.read(4)
            payload = bytes(
                byte ^ mask[place % 4] for place, byte in enumerate(self.rfile.read(head[1] & 0x7F))
            )
            self.wfile.write(bytes([head[0], len(payload)]) + payload)
            if head[0] & OPCODE == CLOSE:
                return

    def log_message(self, *_: object) -> None:
        """Nothing: a line for every request would be most of the work."""


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128


if __name__ == "__main__":
    Server(("0.0.0.0", 3000), Answer).serve_forever()
