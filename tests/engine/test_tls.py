"""Certificates, who may pass, and what the proxy tells: on a real engine, over real TLS."""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import socket
import ssl
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dual_iac import authority
from tests.engine.conftest import (
    DUAL,
    LAB_IMAGE,
    LiveProject,
    changes,
    docker,
    free_port,
    run,
    wait_for,
)

PASSWORD = "correct horse battery staple"


@dataclass
class Served:
    """What came back over TLS: the status, the body, and the certificate as bytes."""

    status: int
    body: str
    certificate: bytes


@dataclass
class Secure:
    """A project with HTTPS, and the authority of the user who runs these tests."""

    live: LiveProject
    https: int
    dashboard: int

    def declare(self, workspaces: str, **proxy: object) -> None:
        self.live.write(
            f"defaults: {{image: '{LAB_IMAGE}', source: {{path: .}}, command: python3 server.py}}\n"
            f"workspaces:\n{workspaces}",
            **{"https": self.https, **proxy},
        )

    def get(self, host: str, path: str = "/", **headers: str) -> Served:
        """Over TLS, as a client does who trusts the authority and nobody else."""
        ours = authority.load()
        assert ours is not None
        context = ssl.create_default_context(cadata=ours.certificate)
        context.set_alpn_protocols(["http/1.1"])
        connection = http.client.HTTPSConnection(host, self.https, timeout=10, context=context)
        vars(connection)["_create_connection"] = _to_loopback
        try:
            connection.request("GET", path, headers=headers)
            certificate = connection.sock.getpeercert(binary_form=True)
            response = connection.getresponse()
            return Served(response.status, response.read().decode(), certificate or b"")
        finally:
            connection.close()


def _to_loopback(address: tuple[str, int], *_: object) -> socket.socket:
    return socket.create_connection(("127.0.0.1", address[1]), 10)


@pytest.fixture
def secure(
    live: LiveProject, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Secure:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
    return Secure(live, free_port(), free_port())


# ── certificates ────────────────────────────────────────────────────────────────────────────


def test_each_host_has_its_certificate_and_keeps_it(secure: Secure) -> None:
    secure.declare("  one: {hosts: [extra.localhost]}\n  two: {}\n")
    secure.live.apply()
    hosts = ("one.localhost", "extra.localhost", "two.localhost")
    first = {host: secure.get(host) for host in hosts}
    assert [each.body.split() for each in first.values()] == [["one"], ["one"], ["two"]]
    assert len({each.certificate for each in first.values()}) == 3
    assert secure.live.plan()["changes"] == []
    proxy = secure.live.identity("traefik")

    secure.declare("  one: {}\n  two: {}\n  three: {}\n")
    secure.live.apply()
    assert secure.get("one.localhost").certificate == first["one.localhost"].certificate
    assert secure.get("three.localhost").status == 200
    assert secure.live.identity("traefik") == proxy
    with pytest.raises(ssl.SSLError):
        secure.get("extra.localhost")


def test_who_asks_for_an_unknown_host_gets_no_certificate(secure: Secure) -> None:
    secure.declare("  one: {}\n")
    secure.live.apply()
    for host in ("two.localhost", "localhost"):
        argv = ("openssl", "s_client", "-connect", f"127.0.0.1:{secure.https}", "-servername")
        done = run(*argv, host, stdin=b"")
        assert "no peer certificate available" in done.stdout, done


def test_certificates_are_renewed_before_they_end_and_nobody_restarts(secure: Secure) -> None:
    secure.declare("  one: {}\n  two: {}\n")
    secure.live.apply()
    ours = authority.load()
    assert ours is not None
    before = secure.live.identities("one", "two", "traefik")
    ending = ours.issue("one.localhost", datetime.now(UTC) - timedelta(days=306))
    folder = secure.live.folder / ".dual/tls/live"
    (folder / "one.localhost.pem").write_text(ending.chain)
    (folder / "one.localhost.key").write_text(ending.key)
    [change] = secure.live.plan()["changes"]
    assert (change["address"], change["action"]) == ("certificate.one", "update")
    [reason] = change["reasons"]
    assert reason["field"] == "one.localhost"
    assert reason["before"].startswith("ends on ")
    kept = secure.get("two.localhost").certificate

    secure.live.apply()
    served = secure.get("one.localhost").certificate
    assert served == ssl.PEM_cert_to_DER_cert((folder / "one.localhost.pem").read_text())
    assert served != ssl.PEM_cert_to_DER_cert(ending.chain)
    assert secure.get("two.localhost").certificate == kept
    assert secure.live.identities(*before) == before
    assert secure.live.plan()["changes"] == []


def test_a_proxy_whose_certificates_were_taken_away(secure: Secure) -> None:
    """It goes on with what it has read, and would never see what comes."""
    secure.declare("  one: {}\n")
    secure.live.apply()
    before = secure.live.identity("one")
    shutil.rmtree(secure.live.folder / ".dual/tls")
    blind = secure.live.dual("apply", "-y")  # there are certificates, and the proxy can't see them
    assert blind.code == 1, blind
    assert "run dual apply again: it replaces the proxy" in blind.stderr
    assert changes(secure.live.plan()) == [("proxy", "replace", ["certificates"])]
    secure.live.apply()
    assert secure.live.plan()["changes"] == []
    assert secure.get("one.localhost").status == 200
    assert secure.live.identity("one") == before


def test_without_dual_there_is_http_all_the_same(secure: Secure) -> None:
    """Compose alone has no certificates; whoever asks by TLS gets none."""
    secure.declare("  one: {}\n")
    assert secure.live.dual("render").code == 0
    up = ("docker", "compose", "-f", str(secure.live.folder / "compose/compose.yaml"), "up", "-d")
    done = run(*up)
    assert done.code == 0, done
    wait_for("it answers", lambda: secure.live.is_up("one"))
    secure.live.apply()
    assert secure.get("one.localhost").status == 200
    assert secure.live.plan()["changes"] == []


def test_certificates_of_ones_own(secure: Secure, tmp_path: Path) -> None:
    """Here from another authority; copied when they change, as whoever renews them has no dual."""
    theirs = authority.load_or_make(tmp_path / "theirs")
    for number in range(2):
        issued = theirs.issue("shop.example.com")
        (secure.live.folder / "own.pem").write_text(issued.chain)
        (secure.live.folder / "own.key").write_text(issued.key)
        (secure.live.folder / "own.key").chmod(0o600)
        own = {"hosts": ["shop.example.com"], "cert": "own.pem", "key": "own.key"}
        secure.declare("  one: {hosts: [shop.example.com]}\n", certificates=[own])
        if number:
            assert changes(secure.live.plan()) == [("certificate.traefik", "update", ["own-0"])]
        secure.live.apply()
        with pytest.raises(ssl.SSLError):
            secure.get("shop.example.com")
        url = f"https://shop.example.com:{secure.https}/"
        resolve = f"shop.example.com:{secure.https}:127.0.0.1"
        done = run("curl", "-sS", "--resolve", resolve, "--cacert", str(theirs.path), url)
        assert done.stdout.split() == ["one"], done
        assert secure.get("one.localhost").status == 200


# ── who may pass ────────────────────────────────────────────────────────────────────────────


def _basic(user: str, password: str) -> dict[str, str]:
    word = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {word}"}


ECHO = """
import http.server, json
class Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("0.0.0.0", 3000), Echo).serve_forever()
"""


def test_basic_auth(secure: Secure) -> None:
    made = run(*DUAL, "hash", stdin=f"{PASSWORD}\n".encode())
    assert made.code == 0, made
    secure.declare(
        f"  locked: {{command: [python3, -c, {json.dumps(ECHO)}], "
        f"auth: {{users: {{ada: '{made.stdout.strip()}'}}}}}}\n  open: {{}}\n"
    )
    secure.live.apply()  # which knows no password, and sees all the same that it is up
    assert secure.get("open.localhost").status == 200
    for headers in ({}, _basic("ada", "wrong"), _basic("eve", PASSWORD)):
        assert secure.get("locked.localhost", **headers).status == 401
    seen = secure.get("locked.localhost", **_basic("ada", PASSWORD))
    assert seen.status == 200
    assert "authorization" not in json.loads(seen.body)  # no workspace is told a password
    [row] = secure.live.dual("status", "locked", "--no-stats", "--format", "json").data[
        "workspaces"
    ]
    assert row["health"] == "ready"
    everything = "".join(
        path.read_text(errors="replace") for path in secure.live.folder.rglob("*") if path.is_file()
    )
    assert PASSWORD not in everything


def test_what_is_locked_and_does_not_listen(secure: Secure) -> None:
    """The proxy's own 401 tells nothing of what is behind it."""
    made = run(*DUAL, "hash", stdin=f"{PASSWORD}\n".encode())
    auth = f"auth: {{users: {{ada: '{made.stdout.strip()}'}}}}"
    secure.declare(f"  mute: {{command: sleep 1000, ready: {{timeout: 3s}}, {auth}}}\n")
    done = secure.live.dual("apply", "-y")
    assert done.code == 1, done
    assert "nothing listens on port 3000 in it" in done.stderr
    [row] = secure.live.dual("status", "--no-stats", "--format", "json").data["workspaces"]
    assert row["health"] == "not ready"


GATE = """
import http.server
class Gate(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        passes = self.headers.get("Cookie") == "session=ada"
        self.send_response(200 if passes else 401)
        self.send_header("X-Forwarded-User", "ada")
        self.send_header("X-Not-Named", "x")
        self.end_headers()
http.server.ThreadingHTTPServer(("0.0.0.0", 7002), Gate).serve_forever()
"""


def test_single_sign_on(secure: Secure) -> None:
    """A service beside the proxy decides; what it says of the user can't be forged."""
    secure.declare("  one: {}\n")
    secure.live.apply()
    edge = f"{secure.live.name}_edge"
    gate = docker(
        *("run", "--detach", "--network", edge, "--label"),
        f"com.docker.compose.project.of={secure.live.name}",
        *(LAB_IMAGE, "python3", "-c", GATE),
    )
    try:
        address = docker(
            "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", gate
        )
        auth = f"auth: {{forward: 'http://{address}:7002/', headers: [X-Forwarded-User]}}"
        secure.declare(f"  one: {{command: [python3, -c, {json.dumps(ECHO)}], {auth}}}\n")
        secure.live.apply()
        forged = {"X-Forwarded-User": "root"}
        assert secure.get("one.localhost", **forged).status == 401
        seen = secure.get("one.localhost", Cookie="session=ada", **forged)
        assert seen.status == 200
        headers = json.loads(seen.body)
        assert headers["x-forwarded-user"] == "ada"
        assert "x-not-named" not in headers
    finally:
        docker("rm", "-f", gate)


# ── what the proxy tells ────────────────────────────────────────────────────────────────────


def test_the_dashboard_and_the_log(secure: Secure) -> None:
    def dashboard(path: str, host: str = "localhost") -> str:
        url = f"http://127.0.0.1:{secure.dashboard}{path}"
        code = ("-o", "/dev/null", "-w", "%{http_code}")
        return run("curl", "-sS", *code, "-H", f"Host: {host}", url).stdout

    shown = {"dashboard": True, "dashboard_port": secure.dashboard, "access_log": True}
    secure.declare("  one: {}\n", **shown)
    secure.live.apply()
    assert dashboard("/dashboard/") == "200"
    assert dashboard("/api/rawdata") == "200"
    assert dashboard("/api/rawdata", "rebound.example.com") == "404"
    assert secure.live.ask("localhost", "/dashboard/").status == 404
    assert secure.live.ask("localhost", "/api/rawdata").status == 404
    ports = secure.live.inspect("traefik")["HostConfig"]["PortBindings"]
    assert ports["8080/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": str(secure.dashboard)}]

    secret = "s3cret-of-the-test"
    headers = {**_basic("ada", secret), "Cookie": secret, "X-Api-Key": secret}
    assert secure.get("one.localhost", f"/{secret}?token={secret}", **headers).status == 200

    def logged() -> list[str]:
        lines = run("docker", "logs", f"{secure.live.name}-traefik-1").stdout.splitlines()
        return [line for line in lines if '"RequestScheme":"https"' in line]

    wait_for("the request is in the log", lambda: len(logged()) > 0)
    log = run("docker", "logs", f"{secure.live.name}-traefik-1")
    assert secret not in log.stdout + log.stderr
    assert base64.b64encode(f"ada:{secret}".encode()).decode() not in log.stdout + log.stderr
    entry = json.loads(logged()[-1])
    assert (entry["RequestHost"], entry["DownstreamStatus"]) == ("one.localhost", 200)

    secure.declare("  one: {}\n")
    secure.live.apply()
    assert run("curl", "-sS", f"http://127.0.0.1:{secure.dashboard}/").code == 7
    assert secure.live.ask("one.localhost", "/quiet").status == 200
    assert run("docker", "logs", f"{secure.live.name}-traefik-1").stdout == ""


def test_urls(secure: Secure) -> None:
    secure.declare("  one: {}\n")
    assert secure.live.dual("url", "one").stdout == f"http://one.localhost:{secure.live.port}\n"
    by_tls = secure.live.dual("url", "one", "--https")
    assert by_tls.stdout == f"https://one.localhost:{secure.https}\n"
    secure.live.declare("one")
    refused = secure.live.dual("url", "one", "--https")
    assert refused.code == 64
    assert "proxy: {https: 3443}" in refused.stderr


def test_a_hash_is_made_of_what_is_piped_in() -> None:
    refused = subprocess.run(
        [*DUAL, "hash"], input=b"", capture_output=True, timeout=60, check=False
    )
    assert refused.returncode == 64
    assert b"There is no password" in refused.stderr


# ── a public authority ──────────────────────────────────────────────────────────────────────

# Pebble is the test server of Let's Encrypt's makers. It asks for names at the server beside it,
# which knows them all, and comes to Traefik's own ports.
_PEBBLE = """
pebble-challtestsrv -dns01 :8053 -http01 "" -https01 "" -tlsalpn01 "" -management "" \
    -defaultIPv4 "$1" -defaultIPv6 "" &
PEBBLE_VA_NOSLEEP=1 PEBBLE_WFE_NONCEREJECT=0 \
    exec pebble -config /pebble/config.json -dnsserver 127.0.0.1:8053
"""
_PEBBLE_CONFIG = {
    "listenAddress": "0.0.0.0:14000",
    "managementListenAddress": "127.0.0.1:15000",
    "certificate": "/pebble/pebble.pem",
    "privateKey": "/pebble/pebble.key",
    "httpPort": 8000,
    "tlsPort": 8443,
}


def test_a_public_authority(secure: Secure, tmp_path: Path) -> None:
    domain = {"domain": "dev.example.org"}
    secure.declare("  one: {hosts: [one.localhost]}\n", **domain)
    secure.live.apply()  # there must be a network for the authority to be on
    theirs = authority.load_or_make(tmp_path / "theirs")
    issued = theirs.issue("pebble")
    folder = tmp_path / "pebble"
    folder.mkdir()
    for name, text in {
        "config.json": json.dumps({"pebble": _PEBBLE_CONFIG}),
        "pebble.pem": issued.chain,
        "pebble.key": issued.key,
    }.items():
        (folder / name).write_text(text)
    edge = f"{secure.live.name}_edge"
    ends = secure.live.inspect("traefik")["NetworkSettings"]["Networks"]
    programs = [f"--volume={shutil.which(each)}:/usr/bin/{each}:ro" for each in _PROGRAMS]
    pebble = docker(
        *("run", "--detach", "--network", edge, "--network-alias", "pebble"),
        *(f"--volume={folder}:/pebble:ro", *programs),
        *(LAB_IMAGE, "sh", "-c", _PEBBLE, "sh", ends[edge]["IPAddress"]),
    )
    try:
        wait_for("pebble listens", lambda: "Listening on: 0.0.0.0:14000" in _said(pebble))
        acme = {
            "email": "ada@example.org",
            "server": "https://pebble:14000/dir",
            "roots": str(theirs.path),
            "challenge": "tls",
        }
        secure.declare("  one: {hosts: [one.localhost]}\n", acme=acme, **domain)
        secure.live.apply()

        def issuer(host: str) -> str:
            at = f"127.0.0.1:{secure.https}"
            shown = run("openssl", "s_client", "-connect", at, "-servername", host, stdin=b"")
            return run("openssl", "x509", "-noout", "-issuer", stdin=shown.stdout.encode()).stdout

        wait_for(
            "a certificate of the public authority",
            lambda: "Pebble Intermediate CA" in issuer("one.dev.example.org"),
            60,
        )
        assert "dual local authority" in issuer("one.localhost")
        assert secure.get("one.localhost").status == 200
        assert secure.live.plan()["changes"] == []
        kept = docker("volume", "ls", "-q", "--filter", f"name={secure.live.name}_traefik--acme")
        assert kept == f"{secure.live.name}_traefik--acme"
    except AssertionError as error:
        said = _said(pebble) + _said(f"{secure.live.name}-traefik-1")
        raise AssertionError(f"{error}\n{said[-4000:]}") from error
    finally:
        docker("rm", "-f", pebble)


_PROGRAMS = ("pebble", "pebble-challtestsrv")


def _said(container: str) -> str:
    done = run("docker", "logs", container)
    return done.stdout + done.stderr
