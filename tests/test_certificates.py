"""The folder of certificates that the proxy serves."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from dual_iac import authority
from dual_iac.certificates import chains, flaws, keep_only, make
from dual_iac.errors import DualError
from dual_iac.output import CERTIFICATES_FOLDER
from dual_iac.state import DesiredCertificate

WANTED = {
    host: DesiredCertificate("certificate.a", host) for host in ("a.localhost", "b.localhost")
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop").mkdir()
    return tmp_path / "shop"


def test_what_is_missing_is_made_once(folder: Path) -> None:
    assert flaws(folder, WANTED) == dict.fromkeys(WANTED, "missing")
    make(folder, WANTED.values())
    assert flaws(folder, WANTED) == {}
    assert set(chains(folder, WANTED)) == set(WANTED)


def test_the_keys_are_for_the_proxy_and_nobody_else(folder: Path) -> None:
    """Who runs as somebody else on this machine doesn't get into the folder around them."""
    make(folder, WANTED.values())
    live = folder / CERTIFICATES_FOLDER
    assert stat.S_IMODE(live.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(live.stat().st_mode) == 0o755
    assert {stat.S_IMODE(each.stat().st_mode) for each in live.iterdir()} == {0o644}
    assert (live.parent / ".gitignore").read_text().endswith("*\n")


def test_the_authoritys_own_key_stays_where_it_is(folder: Path, home: Path) -> None:
    make(folder, WANTED.values())
    key = (home / "dual/authority/authority.key").read_text()
    assert not any(key in path.read_text() for path in folder.rglob("*") if path.is_file())


def test_another_authority_makes_others(folder: Path, home: Path) -> None:
    make(folder, WANTED.values())
    (home / "dual").rename(home / "former")
    assert flaws(folder, WANTED) == dict.fromkeys(WANTED, "of another authority")
    authority.load_or_make()
    assert flaws(folder, WANTED) == dict.fromkeys(WANTED, "of another authority")


def test_a_certificate_for_somebody_else(folder: Path) -> None:
    make(folder, WANTED.values())
    live = folder / CERTIFICATES_FOLDER
    for kind in ("pem", "key"):
        (live / f"b.localhost.{kind}").write_bytes((live / f"a.localhost.{kind}").read_bytes())
    assert flaws(folder, WANTED) == {"b.localhost": "for another host"}


def test_ones_own_are_copied_whenever_they_change(folder: Path) -> None:
    cert, key = folder / "c.pem", folder / "k.pem"
    wanted: Mapping[str, DesiredCertificate] = {
        "own-0": DesiredCertificate("certificate.traefik", "own-0", str(cert), str(key))
    }
    cert.write_text("one")
    key.write_text("two")
    assert flaws(folder, wanted) == {"own-0": "missing"}
    make(folder, wanted.values())
    assert flaws(folder, wanted) == {}
    key.write_text("three")
    assert flaws(folder, wanted) == {"own-0": "another one"}
    make(folder, wanted.values())
    assert (folder / CERTIFICATES_FOLDER / "own-0.key").read_text() == "three"


def test_what_is_not_wanted_any_more_goes(folder: Path) -> None:
    make(folder, WANTED.values())
    keep_only(folder, ["a.localhost"])
    live = folder / CERTIFICATES_FOLDER
    assert sorted(path.name for path in live.iterdir()) == ["a.localhost.key", "a.localhost.pem"]
    keep_only(folder, [])
    assert not live.parent.exists()
    keep_only(folder, [])


def test_a_file_in_the_way(folder: Path) -> None:
    (folder / ".dual").write_text("")
    with pytest.raises(DualError, match="can't be written"):
        make(folder, WANTED.values())
