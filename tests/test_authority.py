"""The local authority: one a user, kept from others, and what makes a certificate good."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from dual_iac import authority as authority_module
from dual_iac.authority import (
    RENEW_BEFORE,
    Authority,
    Certificate,
    default_folder,
    default_name,
    delete,
    flaw,
    load,
    load_or_make,
    names_of,
)
from dual_iac.errors import DualError

HOST = "feat-auth.localhost"
DAY = timedelta(days=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "dual" / "authority"


@pytest.fixture
def authority(folder: Path) -> Authority:
    return load_or_make(folder)


def parsed(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def inside(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def own(
    *names: str, ends: datetime | None = None, key: ec.EllipticCurvePrivateKey | None = None
) -> Certificate:
    """A certificate that somebody else issued: itself."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody else")])
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(ends or datetime.now(UTC) + 365 * DAY)
    )
    if names:
        alternatives = x509.SubjectAlternativeName([x509.DNSName(each) for each in names])
        builder = builder.add_extension(alternatives, critical=False)
    return Certificate(
        builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode(),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode(),
    )


# ── the authority ───────────────────────────────────────────────────────────────────────────


def test_there_is_none_until_it_is_made_and_then_it_is_the_same(folder: Path) -> None:
    assert load(folder) is None
    made = load_or_make(folder)
    assert load(folder) == load_or_make(folder) == made
    assert made.path == folder / "authority.pem"
    assert made.certificate == made.path.read_text()
    assert inside(folder.parent) == ["authority"], "nothing else is left behind"


def test_it_is_kept_from_others_whatever_the_umask(folder: Path) -> None:
    before = os.umask(0)
    try:
        load_or_make(folder)
    finally:
        os.umask(before)
    assert (mode(folder), mode(folder / "authority.key")) == (0o700, 0o600)
    before = os.umask(0o077)
    try:
        load_or_make(folder.with_name("other"))
    finally:
        os.umask(before)
    assert mode(folder.with_name("other") / "authority.pem") == 0o644


def test_it_may_issue_certificates_for_hosts_and_nothing_else(authority: Authority) -> None:
    certificate = parsed(authority.certificate)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    allowed = {
        name
        for name in ("digital_signature", "key_encipherment", "key_cert_sign", "crl_sign")
        if getattr(usage.value, name)
    }
    assert allowed == {"key_cert_sign", "crl_sign"}
    assert certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_KEY_IDENTIFIER)
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    assert authority.fingerprint == certificate.fingerprint(hashes.SHA256()).hex()
    assert authority.ends == certificate.not_valid_after_utc
    assert 3650 * DAY < authority.ends - datetime.now(UTC) < 3654 * DAY


def test_its_key_is_in_no_text_made_of_it(authority: Authority) -> None:
    secret = (authority.path.parent / "authority.key").read_text().splitlines()[1]
    issued = authority.issue(HOST)
    assert secret not in f"{authority!r}"
    assert issued.key.splitlines()[1] not in f"{issued!r}"


def test_two_of_one_user_have_different_subjects(folder: Path) -> None:
    one, other = load_or_make(folder), load_or_make(folder.with_name("other"))
    assert one.name == other.name == default_name()
    assert parsed(one.certificate).subject != parsed(other.certificate).subject


def test_a_name_says_whose_it_is_and_is_never_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "ada")
    monkeypatch.setattr("socket.gethostname", lambda: "engine.example.com")
    assert default_name() == "dual local authority (ada@engine)"
    monkeypatch.setattr("socket.gethostname", lambda: "h" * 63)
    assert len(default_name()) == 64
    assert default_name().endswith("h)")


def test_a_user_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert default_name().startswith(f"dual local authority ({os.getuid()}@")


@pytest.mark.parametrize("data", ["", "relative/data"])
def test_where_it_is(data: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("XDG_DATA_HOME", data)
    assert default_folder() == Path("/home/ada/.local/share/dual/authority")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "dual/authority"
    assert load_or_make().path.parent == default_folder()


def test_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    monkeypatch.delenv("XDG_DATA_HOME")
    with pytest.raises(DualError) as raised:
        load()
    assert raised.value.mend == "set HOME or XDG_DATA_HOME"


def test_many_threads_that_make_it_at_once_have_one(folder: Path) -> None:
    start = threading.Barrier(8)

    def make(_: int) -> Authority:
        start.wait()
        return load_or_make(folder)

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(make, range(8)))
    assert len({each.fingerprint for each in made}) == 1
    assert inside(folder.parent) == ["authority"]


def test_processes_that_make_it_at_once_have_one(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from dual_iac.authority import load_or_make\n"
        "sys.stdin.readline(); print(load_or_make(Path(sys.argv[1])).fingerprint)"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in running:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    prints = {process.communicate(timeout=60)[0] for process in running}
    there = load(folder)
    assert there
    assert prints == {f"{there.fingerprint}\n"}


def test_who_comes_second_takes_what_is_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one made it between the look and the making."""
    new = authority_module._new_authority
    first: list[Authority] = []

    def meanwhile() -> tuple[str, str]:
        monkeypatch.setattr(authority_module, "_new_authority", new)
        first.append(load_or_make(folder))
        return new()

    monkeypatch.setattr(authority_module, "_new_authority", meanwhile)
    assert [load_or_make(folder)] == first
    assert inside(folder.parent) == ["authority"]


def test_a_folder_that_leads_elsewhere_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "authority").symlink_to("real")
    load_or_make(tmp_path / "authority")
    assert (tmp_path / "authority").is_symlink()
    assert (tmp_path / "real/authority.key").is_file()


# What somebody did to the folder, and what the error must say: why, and the mend.
def _others_can_read(folder: Path) -> None:
    (folder / "authority.key").chmod(0o640)


def _another_key(folder: Path) -> None:
    (folder / "authority.key").write_text(own("x").key)


def _folder_instead(folder: Path) -> None:
    (folder / "authority.pem").unlink()
    (folder / "authority.pem").mkdir()


def _rsa_key(folder: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    (folder / "authority.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def _locked_key(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    (folder / "authority.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )


def _nameless(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder(x509.Name([]), x509.Name([]), key.public_key(), 1)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2099, 1, 1, tzinfo=UTC))
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    (folder / "authority.pem").write_bytes(certificate.public_bytes(encoding))
    (folder / "authority.key").write_bytes(
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


BROKEN: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a key that others can read": (_others_can_read, "others can read", "chmod 600"),
    "no key": (lambda f: (f / "authority.key").unlink(), "authority.key beside it is missing", ""),
    "no certificate": (lambda f: (f / "authority.pem").unlink(), "authority.pem beside it is", ""),
    "half a certificate": (
        lambda f: os.truncate(f / "authority.pem", 100),
        "is no certificate and key",
        "",
    ),
    "an empty key": (lambda f: os.truncate(f / "authority.key", 0), "no certificate and key", ""),
    "bytes": (lambda f: (f / "authority.pem").write_bytes(b"\xff\x00"), "is no PEM text", ""),
    "another key": (_another_key, "is the key of another certificate", ""),
    "a key of another kind": (_rsa_key, "not one for ECDSA", ""),
    "a key with a password": (_locked_key, "Password was not given", ""),
    "a certificate without a name": (_nameless, "no common name", ""),
    "a folder as a file": (
        _folder_instead,
        "Is a directory",
        "sudo chown",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_one_is_told_and_left_as_it_is(case: str, folder: Path) -> None:
    spoil, why, mend = BROKEN[case]
    load_or_make(folder)
    spoil(folder)
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    for attempt in (load, load_or_make):
        with pytest.raises(DualError) as raised:
            attempt(folder)
        assert raised.value.summary == "The local certificate authority can't be used"
        assert why in raised.value.why
        assert (mend or "dual untrust --delete, then dual trust") in raised.value.mend
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before


def test_one_that_has_ended_is_told(authority: Authority) -> None:
    with pytest.raises(DualError) as raised:
        load(authority.path.parent, now=authority.ends)
    assert f"ended on {authority.ends:%Y-%m-%d}" in raised.value.why
    assert load(authority.path.parent, now=authority.ends - DAY)


def test_something_else_in_its_place(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(DualError) as raised:
        load_or_make(folder)
    assert raised.value.why == f"something else stands in {folder}"
    assert inside(folder.parent) == ["authority"]


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(DualError) as raised:
        load_or_make(tmp_path / "data" / "authority")
    assert "Not a directory" in raised.value.why
    (tmp_path / "data").unlink()
    (tmp_path / "data").symlink_to("/proc/nowhere")
    with pytest.raises(DualError) as raised:
        load_or_make(tmp_path / "data" / "authority")
    assert raised.value.summary == "The local authority can't be made"


def test_deleting_it_takes_its_files_and_no_others(folder: Path) -> None:
    assert not delete(folder)
    load_or_make(folder)
    assert delete(folder)
    assert not folder.exists()
    load_or_make(folder)
    (folder / "authority.pem").write_text("broken")
    (folder / "notes.txt").write_text("mine")
    assert delete(folder)
    assert inside(folder) == ["notes.txt"]


def test_what_cant_be_deleted_is_told(folder: Path) -> None:
    load_or_make(folder)
    _folder_instead(folder)
    with pytest.raises(DualError) as raised:
        delete(folder)
    assert raised.value.mend == f"remove {folder} by hand"


# ── its certificates ────────────────────────────────────────────────────────────────────────


def test_a_certificate_is_for_exactly_one_host(authority: Authority) -> None:
    issued = authority.issue(HOST)
    certificate = parsed(issued.chain)
    extensions = certificate.extensions
    assert names_of(issued.chain) == (HOST,)
    purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    identifier = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    own_identifier = parsed(authority.certificate).extensions.get_extension_for_class(
        x509.SubjectKeyIdentifier
    )
    assert identifier.key_identifier == own_identifier.value.digest
    lasts = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert lasts == 365 * DAY
    begun = datetime.now(UTC) - certificate.not_valid_before_utc
    assert timedelta(hours=1) <= begun < timedelta(hours=1, minutes=5)
    again = authority.issue(HOST)
    assert parsed(again.chain).serial_number != certificate.serial_number
    assert again.key != issued.key


def test_a_host_may_be_longer_than_a_common_name(authority: Authority) -> None:
    host = f"{'w' * 63}.localhost"
    issued = authority.issue(host)
    assert flaw(issued.chain, issued.key, host, authority) is None


def test_a_certificate_ends_with_its_authority(authority: Authority) -> None:
    now = authority.ends - 10 * DAY
    issued = authority.issue(HOST, now)
    assert parsed(issued.chain).not_valid_after_utc == authority.ends
    # Made anew, it would last no longer: that must not be asked for again and again.
    assert flaw(issued.chain, issued.key, HOST, authority, now) is None


def test_the_python_of_a_client_accepts_it(authority: Authority, tmp_path: Path) -> None:
    """Both ends in memory: a real handshake, with the checks of OpenSSL."""
    issued = authority.issue(HOST)
    (tmp_path / "chain").write_text(issued.chain)
    (tmp_path / "key").write_text(issued.key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "chain", tmp_path / "key")

    def shake(host: str) -> None:
        client = ssl.create_default_context(cadata=authority.certificate)
        client.verify_flags |= ssl.VERIFY_X509_STRICT
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        ours = client.wrap_bio(back, there, server_hostname=host)
        theirs = server.wrap_bio(there, back, server_side=True)
        for _ in range(2):
            for end in (ours, theirs):
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    continue
        assert ours.version()

    shake(HOST)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake("main.localhost")


# ── flaws ───────────────────────────────────────────────────────────────────────────────────


def test_what_has_been_issued_is_good(authority: Authority) -> None:
    issued = authority.issue(HOST)
    assert flaw(issued.chain, issued.key, HOST, authority) is None
    assert flaw(issued.chain, issued.key, HOST, None) is None


def test_every_flaw(authority: Authority, folder: Path) -> None:
    issued, second = authority.issue(HOST), authority.issue(HOST)
    other = load_or_make(folder.with_name("other"))
    foreign = other.issue(HOST)

    def of(chain: str, key: str, host: str = HOST) -> str | None:
        return flaw(chain, key, host, authority)

    assert of("", issued.key) == of(issued.chain, "\n") == "missing"
    assert of("nonsense", issued.key) == of(issued.chain, "nonsense") == "unreadable"
    assert of(issued.chain[:200], issued.key) == "unreadable"
    assert of(issued.chain, issued.key, "main.localhost") == "for another host"
    assert of(issued.chain, second.key) == "key of another certificate"
    assert of(foreign.chain, foreign.key) == "of another authority"
    itself = own(HOST)
    assert of(itself.chain, itself.key) == "of another authority"
    two = own(HOST, "main.localhost")
    assert of(two.chain, two.key) == "for another host"


def test_it_is_renewed_while_it_is_still_good(authority: Authority) -> None:
    issued = authority.issue(HOST)
    certificate = parsed(issued.chain)
    ends, begins = certificate.not_valid_after_utc, certificate.not_valid_before_utc

    def at(now: datetime) -> str | None:
        return flaw(issued.chain, issued.key, HOST, authority, now)

    assert at(ends - RENEW_BEFORE) is None
    assert at(ends - RENEW_BEFORE + timedelta(seconds=1)) == f"ends on {ends:%Y-%m-%d}"
    assert at(ends) == f"ended on {ends:%Y-%m-%d}"
    assert at(begins - DAY) == f"begins on {begins:%Y-%m-%d}"


@pytest.mark.parametrize(
    ("names", "host", "good"),
    [
        (["feat.localhost"], "feat.localhost", True),
        (["a.example", "feat.localhost"], "feat.localhost", True),
        (["*.dev.example"], "feat.dev.example", True),
        (["*.Dev.Example"], "Feat.dev.example", True),
        (["*.dev.example"], "a.feat.dev.example", False),
        (["*.dev.example"], "dev.example", False),
        (["*.example"], "example", False),
        (["*.localhost"], "feat.localhost", False),
        ([], "somebody", False),
    ],
)
def test_ones_own_may_be_for_several_names(names: list[str], host: str, good: bool) -> None:
    certificate = own(*names)
    found = flaw(certificate.chain, certificate.key, host, None)
    assert found == (None if good else "for another host")
    assert names_of(certificate.chain) == tuple(names)


def test_ones_own_ends_as_well() -> None:
    ends = datetime(2027, 11, 24, tzinfo=UTC)
    certificate = own(HOST, ends=ends)
    assert flaw(certificate.chain, certificate.key, HOST, None, ends - DAY) == "ends on 2027-11-24"


def test_names_of_the_first_alone() -> None:
    assert names_of(own("a.example").chain + own("b.example").chain) == ("a.example",)
    with pytest.raises(DualError) as raised:
        names_of("nonsense")
    assert raised.value.summary == "The certificate can't be read"


def test_most_commands_do_without_cryptography() -> None:
    code = "import dual_iac.cli, dual_iac.trust, sys; sys.exit('cryptography' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
