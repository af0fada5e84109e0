"""The local authority in real tools: NSS's certutil, OpenSSL, curl, Node and Chromium."""

from __future__ import annotations

import shutil
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dual_iac.authority import Authority, load_or_make
from dual_iac.trust import Machine, Outcome, this_machine, trust, untrust
from tests.engine.browser import started_browser
from tests.engine.conftest import run

HOST = "feat-auth.localhost"


class _Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that doesn't trust it hangs up; that is what is looked at on its own side."""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return load_or_make(tmp_path / "data" / "authority")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """This one, with a home of its own, and without the system's store."""
    assert shutil.which("certutil"), "scripts/setup.sh test installs certutil"
    monkeypatch.setenv("HOME", str(tmp_path))
    return replace(this_machine(), root=tmp_path / "root")


@contextmanager
def served(authority: Authority, folder: Path) -> Iterator[int]:
    """An https server for HOST, on a port of this machine's loopback."""
    issued = authority.issue(HOST)
    (folder / "chain.pem").write_text(issued.chain)
    (folder / "key.pem").write_text(issued.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "chain.pem", folder / "key.pem")
    with _Server(("127.0.0.1", 0), _Hello) as server:
        # The handshake is for the thread of each connection: one that hangs holds up no other.
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def nicknames(folder: Path) -> list[str]:
    done = run("certutil", "-L", "-d", f"sql:{folder}")
    assert done.code == 0, f"{done}"
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    return [" ".join(line.split()) for line in lines[2:]]


def test_certutils_databases(machine: Machine, authority: Authority) -> None:
    profile = machine.home / ".mozilla/firefox/abc.default"
    profile.mkdir(parents=True)
    run("certutil", "-N", "-d", f"sql:{profile}", "--empty-password")
    former = load_or_make(machine.home / "former" / "authority")
    for each in (former, authority):
        steps = {step.store: step.outcome for step in trust(each, machine)}
        assert steps["Firefox ~/.mozilla/firefox/abc.default"] is Outcome.DONE
    assert nicknames(profile) == [
        f"{each.name} {each.fingerprint[:12]} C,," for each in (former, authority)
    ]
    nickname = f"{authority.name} {authority.fingerprint[:12]}"
    valid = run("certutil", "-V", "-u", "L", "-d", f"sql:{profile}", "-n", nickname)
    assert valid.code == 0, f"{valid}"
    again = {step.store: step.outcome for step in trust(authority, machine)}
    assert again["Firefox ~/.mozilla/firefox/abc.default"] is Outcome.ALREADY
    taken = {step.store: step.outcome for step in untrust(authority.name, machine)}
    assert taken["Firefox ~/.mozilla/firefox/abc.default"] is Outcome.DONE
    assert nicknames(profile) == []


def test_a_database_with_a_password_is_told(machine: Machine, authority: Authority) -> None:
    """As Firefox has it for its primary password, which certutil asks a terminal for."""
    profile = machine.home / ".mozilla/firefox/abc.default"
    profile.mkdir(parents=True)
    (machine.home / "password").write_text("secret password\n")
    made = run("certutil", "-N", "-d", f"sql:{profile}", "-f", str(machine.home / "password"))
    assert made.code == 0, f"{made}"
    step = next(each for each in trust(authority, machine) if "abc.default" in each.store)
    assert step.outcome is Outcome.FAILED
    assert "SEC_ERROR_BAD_PASSWORD" in step.why
    assert "primary password" in step.mend
    # It is in there, and not trusted: certutil adds before it asks.
    list(untrust(authority.name, machine))
    assert nicknames(profile) == []


def test_openssl_accepts_a_certificate(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "leaf.pem").write_text(authority.issue(HOST).chain)
    verify = ("openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile")
    leaf = str(tmp_path / "leaf.pem")
    good = run(*verify, str(authority.path), "-verify_hostname", HOST, leaf)
    assert good.code == 0, f"{good}"
    other = run(*verify, str(authority.path), "-verify_hostname", "main.localhost", leaf)
    assert "hostname mismatch" in other.stderr.lower(), f"{other}"


def test_curl_and_python_and_node_take_it_as_the_hints_say(
    authority: Authority, tmp_path: Path
) -> None:
    with served(authority, tmp_path) as port:
        url = f"https://{HOST}:{port}/"
        curl = ("curl", "-sS", "--max-time", "20", url)
        assert run(*curl).code == 60, "nobody trusts it yet"
        assert run(*curl, "--cacert", str(authority.path)).stdout == "hello"

        # Not every system resolves names under .localhost for them.
        python = (
            "import socket, ssl, sys\n"
            f"with socket.create_connection(('127.0.0.1', {port}), 20) as plain:\n"
            "    context = ssl.create_default_context()\n"
            f"    print(context.wrap_socket(plain, server_hostname='{HOST}').version())"
        )
        trusting = {"SSL_CERT_FILE": str(authority.path)}
        assert "CERTIFICATE_VERIFY_FAILED" in run("python3", "-c", python).stderr
        assert run("python3", "-c", python, env=trusting).stdout.startswith("TLSv1")

        node = (
            f"const s = require('tls').connect({{host: '127.0.0.1', port: {port}, "
            f"servername: '{HOST}'}}, () => {{ console.log(s.authorized); s.end() }});"
            "s.on('error', error => console.log(error.code))"
        )
        trusting = {"NODE_EXTRA_CA_CERTS": str(authority.path)}
        assert run("node", "-e", node).stdout.strip() == "UNABLE_TO_VERIFY_LEAF_SIGNATURE"
        assert run("node", "-e", node, env=trusting).stdout.strip() == "true"


def test_chromium_trusts_it_for_its_host_alone(
    machine: Machine, authority: Authority, tmp_path: Path
) -> None:
    """Its first start in this home: the database is there before it is."""
    with served(authority, tmp_path) as port:

        def page(host: str = HOST) -> str:
            with started_browser() as browser:
                browser.get(f"https://{host}:{port}/")
                return browser.page_source

        assert "net::ERR_CERT_AUTHORITY_INVALID" in page()
        steps = {step.store: step.outcome for step in trust(authority, machine)}
        assert steps["Chromium ~/.pki/nssdb"] is Outcome.DONE
        assert "hello" in page()
        assert "net::ERR_CERT_COMMON_NAME_INVALID" in page("main.localhost")
        assert [*untrust(authority.name, machine)][-1].outcome is Outcome.DONE
        assert "net::ERR_CERT_AUTHORITY_INVALID" in page()
