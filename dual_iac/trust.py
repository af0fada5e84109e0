"""Where programs look up whom to trust, and how the local authority comes in there, and out again.

A store is data: what is in it, and the commands that add and remove. What this user may run is run;
what takes root is only said. Ours is what bears the authority's name, ``dual local authority
(user@host)``, and a fingerprint: so a former authority of the same user is found, too, and nobody
else's is touched.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Protocol

from dual_iac.authority import Authority
from dual_iac.errors import DualError

Command = tuple[str, ...]

_PATIENCE = 300  # seconds: macOS and Windows ask the user, who may have to look for a password
_SHORT = 12  # hex digits of a fingerprint, enough to tell one user's authorities apart


@dataclass(frozen=True)
class Ran:
    """A finished command; ``output`` is what it printed, ``said`` what it complained of."""

    code: int
    output: str = ""
    said: str = ""


@dataclass(frozen=True)
class Machine:
    """The machine that the stores are on, and who asks. All that touches it goes through here."""

    home: Path
    root: Path
    platform: str
    """As ``sys.platform`` has it; ``wsl`` for Linux under Windows."""
    is_root: bool
    run: Callable[[Command], Ran]
    find: Callable[[str], str | None]
    """Where a program is, by its name."""


def this_machine() -> Machine:
    platform = sys.platform
    if platform == "linux" and "microsoft" in os.uname().release.lower():
        platform = "wsl"
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - home() raises where there is none
    # Who isn't root has no /usr/sbin in PATH on Debian; nor has root after a plain `su`.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    run, find = partial(_run, path=path), partial(shutil.which, path=path)
    return Machine(home, Path("/"), platform, os.geteuid() == 0, run, find)


def _run(command: Command, path: str) -> Ran:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "LC_ALL": "C", "PATH": path},
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Ran(124, said=f"no end after {_PATIENCE} s")
    except OSError as error:
        return Ran(127, said=f"{command[0]}: {error.strerror}")
    return Ran(done.returncode, done.stdout, done.stderr)


class Outcome(StrEnum):
    DONE = "done"
    ALREADY = "already"
    TO_DO = "to do"
    """By somebody else: ``mend`` is the command."""
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True)
class Step:
    """How it went with one store."""

    store: str
    outcome: Outcome
    why: str = ""
    mend: str = ""


def trust(authority: Authority, machine: Machine) -> Iterator[Step]:
    """Have the stores of this user and machine trust an authority; those that do are left alone."""

    def step(store: Store) -> Step:
        if store.trusts(authority):
            return Step(store.name, Outcome.ALREADY)
        return _carry_out(store, store.adding(authority), machine)

    return _each_store(step, machine)


def untrust(name: str, machine: Machine) -> Iterator[Step]:
    """Take all authorities with this name out of all stores."""

    def step(store: Store) -> Step:
        if handles := store.ours(name):
            return _carry_out(store, store.removing(handles), machine)
        return Step(store.name, Outcome.ALREADY, "it isn't in there")

    return _each_store(step, machine)


def _each_store(step: Callable[[Store], Step], machine: Machine) -> Iterator[Step]:
    """One store that fails keeps the others from nothing."""
    for store in stores(machine):
        if isinstance(store, Step):
            yield store
            continue
        try:
            yield step(store)
        except DualError as error:
            yield Step(store.name, Outcome.FAILED, error.brief, store.mend or error.mend)


def _carry_out(store: Store, commands: Sequence[Command], machine: Machine) -> Step:
    if store.for_root and not machine.is_root:
        mend = " && ".join(f"sudo {shlex.join(command)}" for command in commands)
        return Step(store.name, Outcome.TO_DO, "takes root", mend)
    for command in commands:
        _output(machine, command)
    return Step(store.name, Outcome.DONE, store.afterwards)


def _output(machine: Machine, command: Command) -> str:
    """What a command prints. Raises :class:`DualError` if it fails."""
    ran = machine.run(command)
    if ran.code:
        said = (ran.said.strip() or ran.output.strip()).splitlines()
        why = said[-1] if said else f"exit code {ran.code}"
        raise DualError(f"{command[0]} failed", why=why, mend=f"see {shlex.join(command)}")
    return ran.output


# ── the kinds of stores ─────────────────────────────────────────────────────────────────────


class Store(Protocol):
    """One place where certificates are trusted.

    A handle is what the store knows a certificate by: a path, a nickname, a hash.
    """

    @property
    def name(self) -> str: ...
    @property
    def for_root(self) -> bool: ...
    @property
    def afterwards(self) -> str:
        """What is to be known when something has changed in it."""

    @property
    def mend(self) -> str:
        """What helps where a command fails; empty if only running it by hand shows more."""

    def ours(self, name: str) -> list[str]:
        """The handles of the authorities with that name in it."""

    def trusts(self, authority: Authority) -> bool: ...
    def adding(self, authority: Authority) -> list[Command]: ...
    def removing(self, handles: Sequence[str]) -> list[Command]: ...


@dataclass(frozen=True)
class System:
    """How a family of Linux systems keeps whom it trusts. Paths are below the root."""

    name: str
    folder: Path
    """For what an administrator adds."""
    bundle: Path
    """What the update makes of it, and others read."""
    update: Command
    forget: Command
    """The update after a file has gone."""
    java: Path | None = None
    """A keystore that the update adds to, and never removes from."""


@dataclass(frozen=True)
class SystemStore:
    """A folder of certificates, out of which a program makes the bundle that others read."""

    machine: Machine
    system: System
    for_root = True
    afterwards = ""
    mend = ""

    @property
    def name(self) -> str:
        return f"system ({self.system.name})"

    @property
    def _folder(self) -> Path:
        return self.machine.root / self.system.folder

    def _in_bundle(self) -> list[bytes]:
        return _certificates(self.machine.root / self.system.bundle)

    def _path(self, certificate: bytes) -> str:
        return str(self._folder / f"dual-local-authority-{_sha256(certificate)[:_SHORT]}.crt")

    def ours(self, name: str) -> list[str]:
        """Those in the folder, and those that are still in the bundle."""
        paths = {self._path(each) for each in self._in_bundle() if name.encode() in each}
        for path in self._folder.glob("dual-local-authority-*.crt"):
            if any(name.encode() in each for each in _certificates(path)):
                paths.add(str(path))
        return sorted(paths)

    def trusts(self, authority: Authority) -> bool:
        return _der(authority.certificate) in self._in_bundle()

    def adding(self, authority: Authority) -> list[Command]:
        path = self._path(_der(authority.certificate))
        return [("install", "-m", "644", str(authority.path), path), self.system.update]

    def removing(self, handles: Sequence[str]) -> list[Command]:
        java = self._removing_from_java(handles)
        # The bundle last: whoever is interrupted finds the rest by it.
        return [*java, ("rm", "-f", *handles), self.system.forget]

    def _removing_from_java(self, handles: Sequence[str]) -> list[Command]:
        java = self.system.java and self.machine.root / self.system.java
        if not (java and java.exists() and self.machine.find("keytool")):
            return []
        keystore = ("-keystore", str(java), "-storepass", "changeit")
        listed = _output(self.machine, ("keytool", "-list", *keystore))
        aliases = [f"debian:{Path(each).stem}.pem" for each in handles]
        there = [alias for alias in aliases if f"\n{alias}," in listed]
        return [("keytool", "-delete", "-noprompt", *keystore, "-alias", each) for each in there]


@dataclass(frozen=True)
class NssDatabase:
    """The database of a browser, which has it for this user alone."""

    machine: Machine
    name: str
    folder: Path
    for_root = False
    afterwards = "start the browser anew if it runs"
    mend = "close the browser, and try again in a terminal, which asks for its primary password"

    @property
    def _database(self) -> str:
        return f"sql:{self.folder}"

    def _listed(self) -> Iterator[tuple[str, str]]:
        """Nicknames, and for what they are trusted: TLS, mail, code."""
        if not (self.folder / _NSS_FILE).exists():
            return
        for line in _output(self.machine, ("certutil", "-L", "-d", self._database)).splitlines():
            nickname, _, trusted = line.rstrip().rpartition(" ")
            yield nickname.rstrip(), trusted

    def ours(self, name: str) -> list[str]:
        return [nick for nick, _ in self._listed() if nick.startswith(f"{name} ")]

    def trusts(self, authority: Authority) -> bool:
        wanted = _nickname(authority)
        return any(nick == wanted and "C" in to for nick, to in self._listed())

    def adding(self, authority: Authority) -> list[Command]:
        add = ("certutil", "-A", "-d", self._database, "-t", "C,,", "-n", _nickname(authority))
        commands: list[Command] = [(*add, "-i", str(authority.path))]
        if not (self.folder / _NSS_FILE).exists():
            make = ("certutil", "-N", "-d", self._database, "--empty-password")
            commands = [("mkdir", "-p", "-m", "700", str(self.folder)), make, *commands]
        return commands

    def removing(self, handles: Sequence[str]) -> list[Command]:
        return [("certutil", "-D", "-d", self._database, "-n", nick) for nick in handles]


@dataclass(frozen=True)
class Keychain:
    """The login keychain of macOS, which Safari, Chrome, Firefox and the system's curl ask."""

    machine: Machine
    path: Path
    name = "macOS login keychain"
    for_root = False
    afterwards = ""
    mend = "run it in a terminal on the Mac itself: it asks for your password in a window"

    def ours(self, name: str) -> list[str]:
        found, last = [], ""
        listing = ("security", "find-certificate", "-a", "-Z", str(self.path))
        for line in _output(self.machine, listing).splitlines():
            if hash_ := re.match(r"SHA-1 hash: ([0-9A-F]{40})", line):
                last = hash_[1]
            # What isn't ASCII stands there in hex first.
            label = re.match(r'\s*"labl"<blob>=(0x[0-9A-F]+)?\s*(?:"(.*)")?$', line)
            if label and name == (bytes.fromhex(label[1][2:]).decode() if label[1] else label[2]):
                found.append(last)
        return found

    def trusts(self, authority: Authority) -> bool:
        """It may be in there and not trusted, where somebody took that back."""
        if _sha1(_der(authority.certificate)).upper() not in self.ours(authority.name):
            return False
        verify = ("security", "verify-cert", "-L", "-l", "-c", str(authority.path))
        return self.machine.run(verify).code == 0

    def adding(self, authority: Authority) -> list[Command]:
        add = ("security", "add-trusted-cert", "-r", "trustRoot", "-k", str(self.path))
        return [(*add, str(authority.path))]

    def removing(self, handles: Sequence[str]) -> list[Command]:
        """Together with what this user's settings say of it (``-t``)."""
        path = str(self.path)
        return [("security", "delete-certificate", "-t", "-Z", each, path) for each in handles]


@dataclass(frozen=True)
class WindowsStore:
    """The user's roots in the Windows that WSL runs on: for the browsers there."""

    machine: Machine
    name = "Windows"
    for_root = False
    afterwards = ""
    mend = "it asks in a window of Windows: say yes there"

    def ours(self, name: str) -> list[str]:
        found = []
        listed = _output(self.machine, ("certutil.exe", "-user", "-store", "Root"))
        # Labels are in the language of Windows: only names, and what looks like a hash, count.
        for entry in re.split(r"^=====.*$", listed, flags=re.MULTILINE):
            hashes = re.findall(r"\b(?:[0-9a-f]{2} ?){19}[0-9a-f]{2}\s*$", entry, re.MULTILINE)
            if f"CN={name}" in entry:
                # The serial number, which may look like one, comes first.
                found += [each.replace(" ", "").strip() for each in hashes[-1:]]
        return found

    def trusts(self, authority: Authority) -> bool:
        return _sha1(_der(authority.certificate)) in self.ours(authority.name)

    def adding(self, authority: Authority) -> list[Command]:
        path = _output(self.machine, ("wslpath", "-w", str(authority.path))).strip()
        return [("certutil.exe", "-user", "-addstore", "Root", path)]

    def removing(self, handles: Sequence[str]) -> list[Command]:
        return [("certutil.exe", "-user", "-delstore", "Root", each) for each in handles]


# ── which of them there are ─────────────────────────────────────────────────────────────────

_SYSTEMS = (
    System(
        "Fedora, RHEL",
        folder=Path("etc/pki/ca-trust/source/anchors"),
        bundle=Path("etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"),
        update=("update-ca-trust", "extract"),
        forget=("update-ca-trust", "extract"),
    ),
    System(
        "openSUSE",
        folder=Path("etc/pki/trust/anchors"),
        bundle=Path("var/lib/ca-certificates/ca-bundle.pem"),
        update=("update-ca-certificates",),
        forget=("update-ca-certificates",),
    ),
    System(
        "Arch",
        folder=Path("etc/ca-certificates/trust-source/anchors"),
        bundle=Path("etc/ca-certificates/extracted/tls-ca-bundle.pem"),
        update=("trust", "extract-compat"),
        forget=("trust", "extract-compat"),
    ),
    System(
        "Debian, Ubuntu, Alpine",
        folder=Path("usr/local/share/ca-certificates"),
        bundle=Path("etc/ssl/certs/ca-certificates.crt"),
        update=("update-ca-certificates",),
        # Without it, a link in /etc/ssl/certs stays behind that leads nowhere.
        forget=("update-ca-certificates", "--fresh"),
        java=Path("etc/ssl/certs/java/cacerts"),
    ),
)

_NSS_FILE = "cert9.db"
_CHROMIUM_DATABASE = ".pki/nssdb"
_CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "brave-browser", "microsoft-edge")
_NSS_DATABASES = (
    ("Chromium", _CHROMIUM_DATABASE),
    ("Chromium", ".local/share/pki/nssdb"),
    ("snap", "snap/*/current/.pki/nssdb"),
    ("flatpak", ".var/app/*/.pki/nssdb"),
    ("flatpak", ".var/app/*/data/pki/nssdb"),
    ("Firefox", ".mozilla/firefox/*"),
    ("Firefox", ".config/mozilla/firefox/*"),
    ("Firefox", "snap/firefox/common/.mozilla/firefox/*"),
    ("Firefox", ".var/app/org.mozilla.firefox/.mozilla/firefox/*"),
    ("Firefox", ".var/app/org.mozilla.firefox/config/mozilla/firefox/*"),
    ("Firefox", "Library/Application Support/Firefox/Profiles/*"),
)
"""Browsers, and the folders below the home folder that may be databases of theirs."""

_CERTUTIL_PACKAGES = {
    "apt-get": "sudo apt-get install libnss3-tools",
    "dnf": "sudo dnf install nss-tools",
    "yum": "sudo yum install nss-tools",
    "zypper": "sudo zypper install mozilla-nss-tools",
    "pacman": "sudo pacman -S nss",
    "apk": "sudo apk add nss-tools",
    "brew": "brew install nss",
}


def stores(machine: Machine) -> Iterator[Store | Step]:
    """The stores of a machine; and steps that say why what one might expect isn't among them."""
    if machine.platform == "darwin":
        yield Keychain(machine, machine.home / "Library/Keychains/login.keychain-db")
    else:
        yield _system_store(machine)
    if machine.platform == "wsl":
        yield _windows(machine)
    yield from _nss_databases(machine)


def _system_store(machine: Machine) -> Store | Step:
    for system in _SYSTEMS:
        if (machine.root / system.folder).is_dir() and machine.find(system.update[0]):
            return SystemStore(machine, system)
    why = (
        "no store that dual knows: neither Debian's (ca-certificates), Fedora's, Arch's, openSUSE's"
    )
    return Step("system", Outcome.SKIPPED, why)


def _windows(machine: Machine) -> Store | Step:
    if machine.find("certutil.exe"):
        return WindowsStore(machine)
    mend = "in Windows, with a copy of the file: certutil -user -addstore Root authority.pem"
    return Step("Windows", Outcome.SKIPPED, "certutil.exe is not in PATH", mend)


def _nss_databases(machine: Machine) -> Iterator[Store | Step]:
    folders = [
        (browser, file.parent)
        for browser, pattern in _NSS_DATABASES
        for file in sorted(machine.home.glob(f"{pattern}/{_NSS_FILE}"))
    ]
    # A Chromium that has not run yet takes the one that it finds.
    chromium = any(browser == "Chromium" for browser, _ in folders)
    if machine.platform != "darwin" and not chromium and any(map(machine.find, _CHROMIUMS)):
        folders.insert(0, ("Chromium", machine.home / _CHROMIUM_DATABASE))
    databases = [
        NssDatabase(machine, f"{browser} ~/{folder.relative_to(machine.home)}", folder)
        for browser, folder in folders
    ]
    if not databases:
        yield Step(
            "browsers", Outcome.SKIPPED, f"none has certificates of its own in {machine.home}"
        )
    elif machine.find("certutil"):
        yield from databases
    else:
        yield _without_certutil(databases, machine)


def _without_certutil(databases: Sequence[NssDatabase], machine: Machine) -> Step:
    names = ", ".join(database.name for database in databases)
    known = (how for manager, how in _CERTUTIL_PACKAGES.items() if machine.find(manager))
    how = next(known, "install certutil, from the tools of NSS")
    why = f"certutil is missing, which changes what these trust: {names}"
    return Step("browsers", Outcome.TO_DO, why, f"{how}, and run this again")


# ── what a program with certificates of its own needs ───────────────────────────────────────


def hints(authority: Authority) -> dict[str, str]:
    """What programs that look into no store of the system take, by who they are."""
    path = shlex.quote(str(authority.path))
    return {
        "curl": f"curl --cacert {path} https://…",
        "Node.js": f"export NODE_EXTRA_CA_CERTS={path}",
        "Python": f"export SSL_CERT_FILE={path}"
        "  (requests: REQUESTS_CA_BUNDLE; in place of all other authorities)",
        "Java": "keytool -importcert -cacerts -storepass changeit -noprompt -alias dual "
        f"-file {path}",
    }


# ── certificates ────────────────────────────────────────────────────────────────────────────

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)


def _certificates(path: Path) -> list[bytes]:
    """The certificates in a file, as DER; what can't be read has none."""
    try:
        texts = _PEM.findall(path.read_text("utf-8", errors="replace"))
    except OSError:
        return []
    found = []
    for text in texts:
        try:
            found.append(base64.b64decode(text))
        except binascii.Error:
            continue
    return found


def _der(certificate: str) -> bytes:
    return base64.b64decode("".join(_PEM.findall(certificate)[:1]))


def _sha256(certificate: bytes) -> str:
    return hashlib.sha256(certificate).hexdigest()


def _sha1(certificate: bytes) -> str:
    """What macOS and Windows know certificates by."""
    return hashlib.sha1(certificate, usedforsecurity=False).hexdigest()


def _nickname(authority: Authority) -> str:
    return f"{authority.name} {authority.fingerprint[:_SHORT]}"
