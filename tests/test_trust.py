"""Trust stores, on machines that are folders and tools that only say what they were asked."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import pytest

from dual_iac import cli
from dual_iac import trust as trust_module
from dual_iac.authority import Authority, load_or_make
from dual_iac.trust import (
    Command,
    Machine,
    Outcome,
    Ran,
    Step,
    hints,
    this_machine,
    trust,
    untrust,
)

DEBIAN = "system (Debian, Ubuntu, Alpine)"
FOREIGN = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return load_or_make(tmp_path / "data" / "authority")


@dataclass
class Tools:
    """The programs of a machine: what each does, and what was asked of them."""

    programs: Mapping[str, Callable[[Command], Ran]]
    asked: list[Command] = field(default_factory=list)

    def run(self, command: Command) -> Ran:
        self.asked.append(command)
        return self.programs[command[0]](command)

    def find(self, name: str) -> str | None:
        return f"/usr/bin/{name}" if name in self.programs else None


def machine_with(
    folder: Path, tools: Tools, *, platform: str = "linux", is_root: bool = True
) -> Machine:
    (folder / "home").mkdir(exist_ok=True)
    (folder / "root").mkdir(exist_ok=True)
    return Machine(folder / "home", folder / "root", platform, is_root, tools.run, tools.find)


def fine(_: Command) -> Ran:
    return Ran(0)


def outcomes(steps: list[Step]) -> dict[str, str]:
    return {step.store: step.outcome.value for step in steps}


def first(steps: Iterable[Step]) -> Step:
    """The step of the system's store, or keychain, which is always the first."""
    return list(steps)[0]  # noqa: RUF015 - the others are to be taken, too


# ── the system's store ──────────────────────────────────────────────────────────────────────


@dataclass
class System:
    """A Linux system whose update makes one bundle of all files in a folder, as they all do."""

    root: Path
    folder: str
    bundle: str
    suffix: str = ".crt"

    def __post_init__(self) -> None:
        for path in (self.root / self.folder, (self.root / self.bundle).parent):
            path.mkdir(parents=True, exist_ok=True)
        (self.root / self.bundle).write_text(FOREIGN)

    def update(self, _: Command) -> Ran:
        files = sorted((self.root / self.folder).glob(f"*{self.suffix}"))
        text = FOREIGN + "".join(each.read_text() for each in files)
        (self.root / self.bundle).write_text(text)
        return Ran(0, "1 added")

    def install(self, command: Command) -> Ran:
        assert command[1:3] == ("-m", "644")
        Path(command[4]).write_bytes(Path(command[3]).read_bytes())
        return Ran(0)

    def remove(self, command: Command) -> Ran:
        assert command[1] == "-f"
        for path in command[2:]:
            Path(path).unlink(missing_ok=True)
        return Ran(0)

    def tools(self, update: str, **more: Callable[[Command], Ran]) -> Tools:
        return Tools({update: self.update, "install": self.install, "rm": self.remove, **more})

    @property
    def files(self) -> list[str]:
        return sorted(each.name for each in (self.root / self.folder).iterdir())

    @property
    def bundled(self) -> str:
        return (self.root / self.bundle).read_text()


def debian(folder: Path) -> System:
    return System(
        folder / "root", "usr/local/share/ca-certificates", "etc/ssl/certs/ca-certificates.crt"
    )


SYSTEMS = {
    "Debian, Ubuntu, Alpine": (
        "usr/local/share/ca-certificates",
        "etc/ssl/certs/ca-certificates.crt",
        ("update-ca-certificates",),
        ("update-ca-certificates", "--fresh"),
    ),
    "Fedora, RHEL": (
        "etc/pki/ca-trust/source/anchors",
        "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        ("update-ca-trust", "extract"),
        ("update-ca-trust", "extract"),
    ),
    "Arch": (
        "etc/ca-certificates/trust-source/anchors",
        "etc/ca-certificates/extracted/tls-ca-bundle.pem",
        ("trust", "extract-compat"),
        ("trust", "extract-compat"),
    ),
    "openSUSE": (
        "etc/pki/trust/anchors",
        "var/lib/ca-certificates/ca-bundle.pem",
        ("update-ca-certificates",),
        ("update-ca-certificates",),
    ),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_system_trusts_it_once_and_forgets_it(
    name: str, tmp_path: Path, authority: Authority
) -> None:
    folder, bundle, update, forget = SYSTEMS[name]
    system = System(tmp_path / "root", folder, bundle)
    tools = system.tools(update[0])
    machine = machine_with(tmp_path, tools)
    store = f"system ({name})"
    file = f"dual-local-authority-{authority.fingerprint[:12]}.crt"

    assert outcomes([*trust(authority, machine)])[store] == "done"
    assert system.files == [file]
    assert authority.certificate in system.bundled
    assert tools.asked[-1] == update
    count = len(tools.asked)
    assert outcomes([*trust(authority, machine)])[store] == "already"
    assert len(tools.asked) == count, "what trusts it already is left alone"

    assert outcomes([*untrust(authority.name, machine)])[store] == "done"
    assert system.files == []
    assert system.bundled == FOREIGN
    assert tools.asked[-1] == forget
    assert outcomes([*untrust(authority.name, machine)])[store] == "already"


def test_who_is_not_root_is_told_the_commands(tmp_path: Path, authority: Authority) -> None:
    system = debian(tmp_path)
    tools = system.tools("update-ca-certificates")
    machine = machine_with(tmp_path, tools, is_root=False)
    step = first(trust(authority, machine))
    target = tmp_path / "root" / system.folder
    file = f"dual-local-authority-{authority.fingerprint[:12]}.crt"
    assert step == Step(
        DEBIAN,
        Outcome.TO_DO,
        "takes root",
        f"sudo install -m 644 {authority.path} {target}/{file} && sudo update-ca-certificates",
    )
    assert tools.asked == []
    assert first(trust(authority, replace(machine, is_root=True))).outcome is Outcome.DONE
    assert first(trust(authority, machine)).outcome is Outcome.ALREADY
    step = first(untrust(authority.name, machine))
    assert step.outcome is Outcome.TO_DO
    assert step.mend == (f"sudo rm -f {target}/{file} && sudo update-ca-certificates --fresh")


def test_a_path_with_spaces_is_quoted(tmp_path: Path) -> None:
    system = debian(tmp_path)
    authority = load_or_make(tmp_path / "my data" / "authority")
    machine = machine_with(tmp_path, system.tools("update-ca-certificates"), is_root=False)
    assert f"'{authority.path}'" in first(trust(authority, machine)).mend


def test_former_ones_go_and_those_of_others_stay(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = debian(tmp_path)
    machine = machine_with(tmp_path, system.tools("update-ca-certificates"))
    former = load_or_make(tmp_path / "former" / "authority")
    monkeypatch.setattr("dual_iac.authority.default_name", lambda: "dual local authority (bob@x)")
    bobs = load_or_make(tmp_path / "bob" / "authority")
    for each in (former, authority, bobs):
        assert first(trust(each, machine)).outcome is Outcome.DONE
    (tmp_path / "root" / system.folder / "company.crt").write_text(FOREIGN)
    list(untrust(authority.name, machine))
    assert system.files == ["company.crt", f"dual-local-authority-{bobs.fingerprint[:12]}.crt"]
    assert bobs.certificate in system.bundled


@pytest.mark.parametrize("lost", ["the file", "the update"])
def test_an_interrupted_one_is_completed(lost: str, tmp_path: Path, authority: Authority) -> None:
    system = debian(tmp_path)
    machine = machine_with(tmp_path, system.tools("update-ca-certificates"))
    list(trust(authority, machine))
    if lost == "the update":  # the file is there, and the bundle has not been made of it
        (tmp_path / "root" / system.bundle).write_text(FOREIGN)
        assert first(trust(authority, machine)).outcome is Outcome.DONE
        assert authority.certificate in system.bundled
        (tmp_path / "root" / system.bundle).write_text(FOREIGN)
    else:
        (tmp_path / "root" / system.folder / system.files[0]).unlink()
    assert first(untrust(authority.name, machine)).outcome is Outcome.DONE
    assert (system.files, system.bundled) == ([], FOREIGN)


def test_what_is_no_certificate_is_passed_over(tmp_path: Path, authority: Authority) -> None:
    system = debian(tmp_path)
    machine = machine_with(tmp_path, system.tools("update-ca-certificates"))
    broken = "-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n"
    (tmp_path / "root" / system.bundle).write_text(broken)
    assert first(trust(authority, machine)).outcome is Outcome.DONE
    (tmp_path / "root" / system.bundle).unlink()
    assert first(trust(authority, machine)).outcome is Outcome.DONE
    assert authority.certificate in system.bundled


def test_javas_keystore_forgets_it_too(tmp_path: Path, authority: Authority) -> None:
    system = debian(tmp_path)
    keystore = tmp_path / "root/etc/ssl/certs/java/cacerts"
    keystore.parent.mkdir()
    keystore.write_text("")
    alias = f"debian:dual-local-authority-{authority.fingerprint[:12]}.pem"

    def keytool(command: Command) -> Ran:
        assert command[command.index("-keystore") + 1] == str(keystore)
        return Ran(0, f"Entries: 2\n\ndebian:company.pem, 2026\n{alias}, 2026, trustedCertEntry,\n")

    tools = system.tools("update-ca-certificates", keytool=keytool)
    machine = machine_with(tmp_path, tools)
    list(trust(authority, machine))
    list(untrust(authority.name, machine))
    deleted = [command for command in tools.asked if command[:2] == ("keytool", "-delete")]
    assert [command[-1] for command in deleted] == [alias]
    assert [command[0] for command in tools.asked[-3:]] == [
        "keytool",
        "rm",
        "update-ca-certificates",
    ]


def test_a_system_without_a_store_is_passed_over(tmp_path: Path, authority: Authority) -> None:
    debian(tmp_path)  # the folder is there, but not the program
    machine = machine_with(tmp_path, Tools({}))
    step = first(trust(authority, machine))
    assert (step.store, step.outcome) == ("system", Outcome.SKIPPED)


def test_a_command_that_fails_is_told_and_the_rest_goes_on(
    tmp_path: Path, authority: Authority
) -> None:
    system = debian(tmp_path)
    tools = system.tools("update-ca-certificates", certutil=Certutil())
    tools.programs = {
        **tools.programs,
        "install": lambda _: Ran(1, "", "oh\nRead-only file system"),
    }
    machine = machine_with(tmp_path, tools)
    database(machine, ".mozilla/firefox/abc.default")
    steps = list(trust(authority, machine))
    assert steps[0].outcome is Outcome.FAILED
    assert steps[0].why == "install failed: Read-only file system"
    assert steps[0].mend.startswith(f"see install -m 644 {authority.path}")
    assert steps[1].outcome is Outcome.DONE


# ── browsers ────────────────────────────────────────────────────────────────────────────────


@dataclass
class Certutil:
    """What NSS's certutil does, and how it prints what a database holds."""

    held: dict[str, dict[str, str]] = field(default_factory=dict)

    def __call__(self, command: Command) -> Ran:
        options = dict(pairwise(command))
        certificates = self.held.setdefault(options["-d"].removeprefix("sql:"), {})
        match command[1]:
            case "-L":
                lines = [
                    "",
                    f"{'Certificate Nickname':<60} Trust Attributes",
                    f"{'':<60} SSL,S/MIME",
                ]
                lines += [f"{nick:<60} {trusted:<5}" for nick, trusted in certificates.items()]
                return Ran(0, "\n".join(lines) + "\n")
            case "-A":
                assert Path(options["-i"]).is_file()
                certificates[options["-n"]] = options["-t"]
            case "-D":
                del certificates[options["-n"]]
            case "-N":
                folder = Path(options["-d"].removeprefix("sql:"))
                (folder / "cert9.db").write_text("")
        return Ran(0)


def database(machine: Machine, path: str) -> Path:
    folder = machine.home / path
    folder.mkdir(parents=True)
    (folder / "cert9.db").write_text("")
    return folder


PROFILES = (
    ".pki/nssdb",
    ".local/share/pki/nssdb",
    "snap/chromium/current/.pki/nssdb",
    ".var/app/org.chromium.Chromium/data/pki/nssdb",
    ".mozilla/firefox/abc.default",
    ".config/mozilla/firefox/def.default",
    "snap/firefox/common/.mozilla/firefox/ghi.default",
    ".var/app/org.mozilla.firefox/.mozilla/firefox/jkl.default",
    "Library/Application Support/Firefox/Profiles/mno.default",
)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_browser_trusts_it_once_and_forgets_it(
    profile: str, tmp_path: Path, authority: Authority
) -> None:
    certutil = Certutil()
    machine = machine_with(tmp_path, Tools({"certutil": certutil}), is_root=False)
    folder = str(database(machine, profile))
    certutil.held[folder] = {"a company's": "CT,C,C", f"{authority.name} 0123456789ab": "C,,"}
    nickname = f"{authority.name} {authority.fingerprint[:12]}"
    step = list(trust(authority, machine))[-1]
    assert step.outcome is Outcome.DONE
    assert step.store.endswith(f" ~/{profile}")
    assert step.why == "start the browser anew if it runs"
    assert certutil.held[folder][nickname] == "C,,"
    assert list(trust(authority, machine))[-1].outcome is Outcome.ALREADY
    assert list(untrust(authority.name, machine))[-1].outcome is Outcome.DONE
    assert certutil.held[folder] == {"a company's": "CT,C,C"}, "former ones go, others stay"
    assert list(untrust(authority.name, machine))[-1].outcome is Outcome.ALREADY


def test_trust_taken_back_by_hand_is_given_anew(tmp_path: Path, authority: Authority) -> None:
    certutil = Certutil()
    machine = machine_with(tmp_path, Tools({"certutil": certutil}))
    folder = str(database(machine, ".pki/nssdb"))
    certutil.held[folder] = {f"{authority.name} {authority.fingerprint[:12]}": ",,"}
    assert list(trust(authority, machine))[-1].outcome is Outcome.DONE
    assert list(certutil.held[folder].values()) == ["C,,"]


def test_a_chromium_that_never_ran_finds_it(tmp_path: Path, authority: Authority) -> None:
    certutil = Certutil()

    def mkdir(command: Command) -> Ran:
        Path(command[-1]).mkdir(parents=True)
        return Ran(0)

    tools = Tools({"certutil": certutil, "google-chrome": fine, "mkdir": mkdir})
    machine = machine_with(tmp_path, tools)
    assert list(untrust(authority.name, machine))[-1].outcome is Outcome.ALREADY
    assert tools.asked == []
    assert list(trust(authority, machine))[-1].outcome is Outcome.DONE
    assert list(certutil.held) == [str(machine.home / ".pki/nssdb")]
    assert list(trust(authority, machine))[-1].outcome is Outcome.ALREADY


def test_folders_that_are_no_profiles_are_left_alone(tmp_path: Path, authority: Authority) -> None:
    machine = machine_with(tmp_path, Tools({"certutil": Certutil()}))
    (machine.home / ".mozilla/firefox/Crash Reports").mkdir(parents=True)
    step = list(trust(authority, machine))[-1]
    assert (step.store, step.outcome) == ("browsers", Outcome.SKIPPED)


def test_a_database_that_cant_be_read_is_told(tmp_path: Path, authority: Authority) -> None:
    tools = Tools({"certutil": lambda _: Ran(255, "", "certutil: SEC_ERROR_BAD_DATABASE\n")})
    machine = machine_with(tmp_path, tools)
    database(machine, ".pki/nssdb")
    for steps in (trust(authority, machine), untrust(authority.name, machine)):
        step = list(steps)[-1]
        assert step.outcome is Outcome.FAILED
        assert step.why == "certutil failed: certutil: SEC_ERROR_BAD_DATABASE"
        assert step.mend.startswith("close the browser, and try again in a terminal")


@pytest.mark.parametrize(
    ("manager", "how"),
    [
        ("apt-get", "sudo apt-get install libnss3-tools, and run this again"),
        ("dnf", "sudo dnf install nss-tools, and run this again"),
        ("brew", "brew install nss, and run this again"),
        ("cp", "install certutil, from the tools of NSS, and run this again"),
    ],
)
def test_without_certutil_it_says_what_to_install(
    manager: str, how: str, tmp_path: Path, authority: Authority
) -> None:
    machine = machine_with(tmp_path, Tools({manager: fine}))
    database(machine, ".mozilla/firefox/abc.default")
    database(machine, ".pki/nssdb")
    for steps in (trust(authority, machine), untrust(authority.name, machine)):
        assert list(steps)[-1] == Step(
            "browsers",
            Outcome.TO_DO,
            "certutil is missing, which changes what these trust: "
            "Chromium ~/.pki/nssdb, Firefox ~/.mozilla/firefox/abc.default",
            how,
        )


# ── macOS ───────────────────────────────────────────────────────────────────────────────────


@dataclass
class Security:
    """What macOS's security does with a login keychain: hashes and names, and who is trusted."""

    held: dict[str, str] = field(default_factory=dict)
    trusted: set[str] = field(default_factory=set)

    def __call__(self, command: Command) -> Ran:
        match command[1]:
            case "find-certificate":
                return Ran(0, "".join(self._entry(*each) for each in self.held.items()))
            case "verify-cert":
                return Ran(0 if self._hash(command[-1]) in self.trusted else 1)
            case "add-trusted-cert":
                assert command[2:4] == ("-r", "trustRoot")
                assert command[5].endswith("/home/Library/Keychains/login.keychain-db")
                hash_ = self._hash(command[-1])
                self.held[hash_] = load_or_make(Path(command[-1]).parent).name
                self.trusted.add(hash_)
            case "delete-certificate":
                assert command[2:4] == ("-t", "-Z")
                del self.held[command[4]]
                self.trusted.discard(command[4])
        return Ran(0)

    def _hash(self, path: str) -> str:
        return trust_module._sha1(trust_module._der(Path(path).read_text())).upper()

    def _entry(self, hash_: str, name: str) -> str:
        shown = f'"{name}"'
        if not name.isascii():
            escaped = re.sub(r"[^ -~]", "\\\\303\\\\266", name)
            shown = f'0x{name.encode().hex().upper()}  "{escaped}"'
        return (
            f'SHA-256 hash: {"0" * 64}\nSHA-1 hash: {hash_}\nkeychain: "login.keychain-db"\n'
            f'class: 0x80001000 \nattributes:\n    "alis"<blob>={shown}\n    "labl"<blob>={shown}\n'
            '    "skid"<blob>=0x00  "\\000"\n'
        )


@pytest.mark.parametrize("user", ["ada", "jörg"])
def test_a_mac_trusts_it_once_and_forgets_it(
    user: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: user)
    authority = load_or_make(tmp_path / "mac" / "authority")
    former, bobs = "A" * 40, "B" * 40
    security = Security({former: authority.name, bobs: "dual local authority (bob@mac)"})
    machine = machine_with(tmp_path, Tools({"security": security}), platform="darwin")
    store = "macOS login keychain"
    assert outcomes([*trust(authority, machine)]) == {store: "done", "browsers": "skipped"}
    assert len(security.held) == 3
    assert outcomes([*trust(authority, machine)])[store] == "already"
    security.trusted.clear()  # as somebody can do in Keychain Access
    assert outcomes([*trust(authority, machine)])[store] == "done"
    assert outcomes([*untrust(authority.name, machine)])[store] == "done"
    assert list(security.held) == [bobs]
    assert outcomes([*untrust(authority.name, machine)])[store] == "already"


def test_a_mac_that_asks_nobody(tmp_path: Path, authority: Authority) -> None:
    refused = "SecTrustSettingsSetTrustSettings: The authorization was denied since no user ..."

    def security(command: Command) -> Ran:
        return Ran(1, "", refused) if command[1] == "add-trusted-cert" else Ran(0)

    machine = machine_with(tmp_path, Tools({"security": security}), platform="darwin")
    step = first(trust(authority, machine))
    assert step.outcome is Outcome.FAILED
    assert step.why == f"security failed: {refused}"
    assert "on the Mac itself" in step.mend


# ── Windows around WSL ──────────────────────────────────────────────────────────────────────


@dataclass
class WindowsCertutil:
    """What Windows's certutil does with the user's roots; it speaks German here."""

    held: dict[str, str] = field(default_factory=dict)
    path: Path = Path()

    def __call__(self, command: Command) -> Ran:
        assert command[1] == "-user"
        match command[2:]:
            case ("-store", "Root"):
                entries = [
                    f"================ Zertifikat {number} ================\n"
                    f"Seriennummer: {'44e19222' * 5}\nAussteller: SERIALNUMBER=0, CN={name}\n"
                    f"Antragsteller: SERIALNUMBER=0, CN={name}\nStammzertifikat\n"
                    f"Zertifikathash(sha1): {hash_}\n  Keine Schlüsselanbieterinformationen\n"
                    for number, (hash_, name) in enumerate(self.held.items())
                ]
                return Ran(0, 'Root "Vertraute"\r\n' + "".join(entries).replace("\n", "\r\n"))
            case ("-addstore", "Root", path):
                assert path == r"\\wsl.localhost\Debian\authority.pem"
                text = self.path.read_text()
                name = load_or_make(self.path.parent).name
                self.held[trust_module._sha1(trust_module._der(text))] = name
            case ("-delstore", "Root", hash_):
                del self.held[hash_]
        return Ran(0)


def test_windows_trusts_it_once_and_forgets_it(tmp_path: Path, authority: Authority) -> None:
    former, bobs = "a1" * 20, "b2" * 20
    certutil = WindowsCertutil({former: authority.name, bobs: "Bob's"}, authority.path)
    tools = Tools(
        {
            "certutil.exe": certutil,
            "wslpath": lambda _: Ran(0, "\\\\wsl.localhost\\Debian\\authority.pem\n"),
        }
    )
    machine = machine_with(tmp_path, tools, platform="wsl", is_root=False)
    assert outcomes([*trust(authority, machine)])["Windows"] == "done"
    assert outcomes([*trust(authority, machine)])["Windows"] == "already"
    assert outcomes([*untrust(authority.name, machine)])["Windows"] == "done"
    assert list(certutil.held) == [bobs]
    assert outcomes([*untrust(authority.name, machine)])["Windows"] == "already"


def test_a_windows_out_of_reach(tmp_path: Path, authority: Authority) -> None:
    machine = machine_with(tmp_path, Tools({}), platform="wsl")
    step = list(trust(authority, machine))[1]
    assert (step.store, step.outcome) == ("Windows", Outcome.SKIPPED)
    assert "certutil -user -addstore Root authority.pem" in step.mend


# ── this machine, and the commands ──────────────────────────────────────────────────────────


def test_this_machine_runs_what_it_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    machine = this_machine()
    assert (machine.home, machine.root) == (tmp_path, Path("/"))
    done = machine.run((sys.executable, "-c", "print('out'); import sys; sys.exit('no')"))
    assert done == Ran(1, "out\n", "no\n")
    assert machine.run((str(tmp_path / "none"),)).code == 127
    monkeypatch.setattr(trust_module, "_PATIENCE", 0.01)
    assert machine.run(("sleep", "60")) == Ran(124, "", "no end after 0.01 s")


def test_programs_of_administrators_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Debian, a user's PATH has no /usr/sbin."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert this_machine().find("chroot") is not None


def test_wsl_is_known_by_its_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    uname = type("Uname", (), {"release": "5.15.153.1-microsoft-standard-WSL2"})
    monkeypatch.setattr("os.uname", lambda: uname)
    monkeypatch.setattr("sys.platform", "linux")
    assert this_machine().platform == "wsl"


def test_hints_are_commands_to_copy(tmp_path: Path) -> None:
    authority = load_or_make(tmp_path / "my data" / "authority")
    found = hints(authority)
    assert found["curl"] == f"curl --cacert '{authority.path}' https://…"
    assert found["Node.js"] == f"export NODE_EXTRA_CA_CERTS='{authority.path}'"
    assert all(f"'{authority.path}'" in how for how in found.values())


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    """dual on a Debian of its own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    system = debian(tmp_path)
    machine = machine_with(tmp_path, system.tools("update-ca-certificates"), is_root=False)
    monkeypatch.setattr(trust_module, "this_machine", lambda: machine)
    return system


def test_trust_and_untrust_as_text(
    commands: System, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "data/dual/authority/authority.pem"
    assert cli.run(["trust", "--path"]) == 0
    assert capsys.readouterr().out == f"{path}\n"
    assert cli.run(["trust"]) == 0, "what is left for root is no failure"
    shown = capsys.readouterr().out
    assert f"to do    {DEBIAN}  takes root\n" in shown
    assert f"\nTo do:\n  sudo install -m 644 {path} " in shown
    assert f"\n  Node.js: export NODE_EXTRA_CA_CERTS={path}\n" in shown
    assert cli.run(["untrust"]) == 0
    assert path.exists()
    assert cli.run(["untrust", "--delete"]) == 0
    assert f"Deleted {path.parent}\n" in capsys.readouterr().out
    assert not path.parent.exists()
    assert cli.run(["untrust", "--delete"]) == 0
    assert f"There was none in {path.parent}\n" in capsys.readouterr().out
    assert commands.files == []


def test_under_sudo_it_says_whose_it_is(
    commands: System, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setenv("SUDO_USER", "ada")
    assert cli.run(["trust"]) == 0
    assert "not for ada's" in capsys.readouterr().err
    monkeypatch.delenv("SUDO_USER")
    assert cli.run(["trust"]) == 0
    assert capsys.readouterr().err == ""
    assert commands.files == []


def test_trust_and_untrust_as_json(
    commands: System, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["trust", "--format", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["authority"]["path"] == str(tmp_path / "data/dual/authority/authority.pem")
    assert set(shown["authority"]) == {"path", "name", "fingerprint", "ends"}
    assert [(each["store"], each["outcome"]) for each in shown["steps"]] == [
        (DEBIAN, "to do"),
        ("browsers", "skipped"),
    ]
    assert set(shown["hints"]) == {"curl", "Node.js", "Python", "Java"}
    assert cli.run(["untrust", "--delete", "--format", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["deleted"] is True
    assert shown["name"].startswith("dual local authority (")
    assert commands.files == []


def test_a_broken_authority_can_be_taken_back_and_deleted(
    commands: System, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["trust"]) == 0
    key = tmp_path / "data/dual/authority/authority.key"
    key.write_text("broken")
    capsys.readouterr()
    assert cli.run(["trust"]) == 1
    assert "Error: The local certificate authority can't be used" in capsys.readouterr().err
    assert cli.run(["untrust", "--delete"]) == 0
    assert not key.parent.exists()
    assert cli.run(["trust"]) == 0
    assert commands.files == []


def test_a_failed_step_is_a_failure(
    commands: System,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tools = commands.tools("update-ca-certificates")
    tools.programs = {**tools.programs, "install": lambda _: Ran(1, "", "No space left on device")}
    machine = machine_with(tmp_path, tools)
    monkeypatch.setattr(trust_module, "this_machine", lambda: machine)
    assert cli.run(["trust"]) == 1
    shown = capsys.readouterr().out
    assert "install failed: No space left on device\n" in shown
    assert "→ see install -m 644" in shown
