"""The local certificate authority: one a user, which every https workspace's certificate is from.

It stands outside of every project, in ``$XDG_DATA_HOME/dual/authority``: trusted once
(:mod:`dual_iac.trust`), it serves all of them. Its private key leaves that folder never, and no
container sees it. ``cryptography`` is imported where it is needed: most commands do without.
"""

from __future__ import annotations

import errno
import getpass
import os
import shlex
import shutil
import socket
import stat
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from dual_iac.errors import DualError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

CERTIFICATE_FILE = "authority.pem"
KEY_FILE = "authority.key"

RENEW_BEFORE = timedelta(days=60)
"""A certificate with less than this left is made anew."""

_AUTHORITY_LASTS = timedelta(days=3652)
# Apple's systems refuse longer than 825 days, also from authorities that a user has added; public
# ones are held to 398. A year is below both, whatever they come to mean for local ones.
_CERTIFICATE_LASTS = timedelta(days=365)
_CLOCK_SKEW = timedelta(hours=1)
"""A virtual machine or a phone whose clock is behind takes a new certificate all the same."""

_LONGEST_NAME = 64  # of a common name, by X.520
_ANEW = "put it back from a backup, or make a new one: dual untrust --delete, then dual trust"


@dataclass(frozen=True)
class Certificate:
    """A certificate for one host, and its private key: PEM texts."""

    chain: str
    key: str = field(repr=False)


@dataclass(frozen=True)
class Authority:
    """A local authority as it stands in ``path``.

    ``certificate`` is its PEM text, ``fingerprint`` the SHA-256 of that in lower-case hex, ``name``
    its common name.
    """

    certificate: str
    path: Path
    fingerprint: str
    name: str
    ends: datetime
    _key: str = field(repr=False)

    def issue(self, host: str, now: datetime | None = None) -> Certificate:
        """A certificate for exactly this DNS name, with a new key of its own."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

        begins = _seconds(now) - _CLOCK_SKEW
        issuer, issuer_key = _parse(self.certificate, self._key)
        key = ec.generate_private_key(ec.SECP256R1())
        # A host may be longer than a common name can be, and nobody reads that any more.
        subject = x509.Name(
            [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "dual development certificate")]
        )
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(min(begins + _CERTIFICATE_LASTS, self.ends))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
                critical=False,
            )
            .sign(issuer_key, hashes.SHA256())
        )
        return Certificate(_pem(certificate), _key_pem(key))


# ── where it stands ─────────────────────────────────────────────────────────────────────────


def default_folder() -> Path:
    """Where this user's authority is, or would be."""
    home = Path(os.environ.get("XDG_DATA_HOME", ""))
    if not home.is_absolute():  # neither is a relative one, by the standard
        home = Path(os.path.expanduser("~/.local/share"))  # noqa: PTH111 - home() may raise
    if not home.is_absolute():
        raise DualError(
            "There is no place for the local authority",
            why="this user has no home folder",
            mend="set HOME or XDG_DATA_HOME",
        )
    return home / "dual" / "authority"


def default_name() -> str:
    """What a new authority of this user on this machine is called."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in many a CI container
        user = str(os.getuid())
    host = socket.gethostname().partition(".")[0]
    before, after = "dual local authority (", ")"
    return f"{before}{user}@{host}"[: _LONGEST_NAME - len(after)] + after


def load(folder: Path | None = None, now: datetime | None = None) -> Authority | None:
    """The authority that is there; None if there is none.

    Raises :class:`DualError` for one that can't be used: incomplete, broken, ended, or with a key
    that others can read.
    """
    folder = folder or default_folder()
    path, key_path = folder / CERTIFICATE_FILE, folder / KEY_FILE
    certificate, key = _read(path), _read(key_path)
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        missing, other = (path, key_path) if certificate is None else (key_path, path)
        raise _unusable(f"{other} is there, but {missing.name} beside it is missing", _ANEW)
    if stat.S_IMODE(key_path.stat().st_mode) & 0o077:
        raise _unusable(
            f"others can read {key_path}, and with it pretend to be any site to you",
            f"if somebody may have, dual untrust --delete; if not, chmod 600 {_quoted(key_path)}",
        )
    try:
        parsed, private = _parse(certificate, key)
        name = _common_name(parsed)
        ends = parsed.not_valid_after_utc
        belongs = parsed.public_key() == private.public_key()
    except _unreadable() as error:
        why = f"what stands in {folder} is no certificate and key: {error}"
        raise _unusable(why, _ANEW) from None
    if not belongs:
        raise _unusable(f"{key_path.name} in {folder} is the key of another certificate", _ANEW)
    if ends <= (now or datetime.now(UTC)):
        raise _unusable(
            f"{path} ended on {ends:%Y-%m-%d}", "make a new one: dual untrust --delete; dual trust"
        )
    return Authority(certificate, path, _fingerprint(parsed), name, ends, key)


def load_or_make(folder: Path | None = None) -> Authority:
    """The authority that is there, or else a new one.

    Two that make one at once end with the same. Raises :class:`DualError` as :func:`load`, and
    where it can't be written.
    """
    folder = folder or default_folder()
    if there := load(folder):
        return there
    _make(folder)
    if made := load(folder):
        return made
    raise DualError(
        "The local authority can't be made",
        why=f"something else stands in {folder}",
        mend="move it away",
    )


def delete(folder: Path | None = None) -> bool:
    """Take the authority's files away, broken ones, too; returns whether there were any."""
    folder = folder or default_folder()
    try:
        there = [each for each in (folder / KEY_FILE, folder / CERTIFICATE_FILE) if _is(each)]
        for path in there:
            path.unlink()
        if there and not any(folder.iterdir()):
            folder.resolve().rmdir()
    except OSError as error:
        raise DualError(
            "The local authority can't be deleted",
            why=f"{error.filename}: {error.strerror}",
            mend=f"remove {folder} by hand",
        ) from error
    return bool(there)


def _is(path: Path) -> bool:
    return path.is_symlink() or path.exists()


def _read(path: Path) -> str | None:
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise _unusable(f"{path} is no PEM text", _ANEW) from None
    except OSError as error:
        raise _unusable(
            f"{error.filename}: {error.strerror}",
            f"make it yours and readable: sudo chown -R $(id -un) {_quoted(path.parent)}",
        ) from error


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _unusable(why: str, mend: str) -> DualError:
    return DualError("The local certificate authority can't be used", why=why, mend=mend)


def _make(folder: Path) -> None:
    """Both files come into their place at once, as the folder that holds them.

    A folder can be moved onto an empty one alone, so of two that make one, the first wins.
    """
    folder = folder.resolve()
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".authority-", dir=folder.parent))  # mode 0700
        try:
            certificate, key = _new_authority()
            _write(staging / KEY_FILE, key, 0o600)
            _write(staging / CERTIFICATE_FILE, certificate, 0o644)
            staging.rename(folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return
        raise DualError(
            "The local authority can't be made",
            why=f"{error.filename2 or error.filename or folder}: {error.strerror}",
            mend=f"make {folder.parent} a folder of yours that is writable, or set XDG_DATA_HOME",
        ) from error


def _write(path: Path, text: str, mode: int) -> None:
    """A new file with exactly this mode, whatever the umask, that survives a loss of power."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())


def _new_authority() -> tuple[str, str]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    # Firefox's and Chromium's databases know certificates by their subject: two authorities of
    # one user, one after the other, must not share it.
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, default_name()),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, f"{serial:040x}"[-12:]),
        ]
    )
    begins = _seconds(None) - _CLOCK_SKEW
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(begins)
        .not_valid_after(begins + _AUTHORITY_LASTS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _pem(certificate), _key_pem(key)


# ── what is wrong with a certificate ────────────────────────────────────────────────────────


def flaw(
    chain: str, key: str, host: str, authority: Authority | None, now: datetime | None = None
) -> str | None:
    """Why the certificate of a host must be made anew, in a few words; None if it is good.

    Without an authority it is the user's own: whoever issued it, it may be for several names, and
    wildcards count.
    """
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if not chain.strip() or not key.strip():
        return "missing"
    now = now or datetime.now(UTC)
    try:
        certificate = _first(chain)
        private = load_pem_private_key(key.encode(), None)
        names = _names(certificate)
        belongs = certificate.public_key() == private.public_key()
        begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except _unreadable():
        return "unreadable"
    if names != (host,) if authority else not any(_covers(name, host) for name in names):
        return "for another host"
    if not belongs:
        return "key of another certificate"
    if authority and not _issued(certificate, authority):
        return "of another authority"
    if begins > now:
        return f"begins on {begins:%Y-%m-%d}"
    if ends <= now:
        return f"ended on {ends:%Y-%m-%d}"
    # Another one of an authority that is about to end would not last longer, either.
    if ends - now < RENEW_BEFORE and not (authority and ends >= authority.ends):
        return f"ends on {ends:%Y-%m-%d}"
    return None


def names_of(chain: str) -> tuple[str, ...]:
    """The DNS names of the first certificate in a PEM text. Raises :class:`DualError`."""
    try:
        return _names(_first(chain))
    except _unreadable() as error:
        raise DualError(
            "The certificate can't be read",
            why=str(error),
            mend="give a PEM file that begins with the certificate of the host",
        ) from None


def _first(chain: str) -> x509.Certificate:
    from cryptography import x509

    return x509.load_pem_x509_certificates(chain.encode())[0]


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return tuple(names.value.get_values_for_type(x509.DNSName))


def _covers(name: str, host: str) -> bool:
    """A wildcard stands for one label, the first, and not right below a top-level domain.

    Browsers and OpenSSL take ``*.localhost`` for no name at all.
    """
    name, host = name.lower(), host.lower()
    rest = host.partition(".")[2]
    return name == host or (name == f"*.{rest}" and "." in rest)


def _issued(certificate: x509.Certificate, authority: Authority) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        certificate.verify_directly_issued_by(_first(authority.certificate))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


# ── PEM ─────────────────────────────────────────────────────────────────────────────────────


def _unreadable() -> tuple[type[Exception], ...]:
    """What ``cryptography`` raises for texts that are no certificate, or no key without a
    password, or of a kind that it doesn't know."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    return ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension


def _parse(certificate: str, key: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    private = load_pem_private_key(key.encode(), None)
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise ValueError("the key is not one for ECDSA")  # noqa: TRY004 - a text, not a type
    return _first(certificate), private


def _common_name(certificate: x509.Certificate) -> str:
    from cryptography.x509.oid import NameOID

    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if not names:
        raise ValueError("the certificate has no common name")
    return str(names[0].value)


def _fingerprint(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives import hashes

    return certificate.fingerprint(hashes.SHA256()).hex()


def _usage(**given: bool) -> x509.KeyUsage:
    from cryptography import x509

    kinds = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
        *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**dict.fromkeys(kinds, False) | given)


def _pem(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def _seconds(now: datetime | None) -> datetime:
    """A moment as certificates have it."""
    return (now or datetime.now(UTC)).replace(microsecond=0)
