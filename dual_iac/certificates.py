"""The folder of certificates that the proxy serves: what is wrong with it, and making it right.

It stands beside dual.yaml, in :data:`dual_iac.output.CERTIFICATES_FOLDER`. The proxy, which runs as
nobody on this machine, must be able to read the keys in it, and nobody else: so the folder around
it is this user's alone, and what is mounted is the one inside.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from dual_iac import authority
from dual_iac.errors import DualError
from dual_iac.output import CERTIFICATES_FOLDER, write_ignore
from dual_iac.state import DesiredCertificate


def flaws(folder: Path, wanted: Mapping[str, DesiredCertificate]) -> dict[str, str]:
    """Why certificates must be made anew, or copied, by name; ``folder`` is that of dual.yaml.

    Raises :class:`DualError` where the user's authority can't be used.
    """
    made = any(not each.is_own for each in wanted.values())
    ours = authority.load() if made else None
    found = {name: _flaw(folder / CERTIFICATES_FOLDER, each, ours) for name, each in wanted.items()}
    return {name: flaw for name, flaw in found.items() if flaw}


def chains(folder: Path, wanted: Mapping[str, DesiredCertificate]) -> dict[str, str]:
    """The certificates that dual has made, as far as they are there: PEM texts by host."""
    live = folder / CERTIFICATES_FOLDER
    found = {name: _read(live / f"{name}.pem") for name, each in wanted.items() if not each.is_own}
    return {name: chain for name, chain in found.items() if chain}


def _flaw(live: Path, wanted: DesiredCertificate, ours: authority.Authority | None) -> str | None:
    chain, key = (_read(live / f"{wanted.name}.{kind}") for kind in ("pem", "key"))
    if wanted.is_own:
        same = (chain, key) == (_read(Path(wanted.cert)), _read(Path(wanted.key)))
        return None if same else "another one" if chain else "missing"
    if ours is None:
        return "missing" if not chain else "of another authority"
    return authority.flaw(chain, key, wanted.name, ours)


def make(folder: Path, wanted: Iterable[DesiredCertificate]) -> None:
    """Make these certificates, or copy them. Raises :class:`DualError` where that can't be."""
    live = folder / CERTIFICATES_FOLDER
    try:
        live.mkdir(parents=True, exist_ok=True)
        live.parent.chmod(0o700)
        live.chmod(0o755)
        write_ignore(live.parent)
        for each in wanted:
            if each.is_own:
                chain, key = Path(each.cert).read_text(), _read(Path(each.key))
            else:
                issued = authority.load_or_make().issue(each.name)
                chain, key = issued.chain, issued.key
            # The key first: the proxy is told to read them only once both are there.
            for kind, text in (("key", key), ("pem", chain)):
                if text:
                    _replace(live / f"{each.name}.{kind}", text)
    except (OSError, UnicodeDecodeError) as error:
        raise DualError(
            "The certificates can't be written",
            why=str(error),
            mend=f"make {live.parent} yours, or remove it: dual makes it anew",
        ) from None


def keep_only(folder: Path, names: Collection[str]) -> None:
    """Take away all certificates but these, as far as they are this user's to take."""
    live = folder / CERTIFICATES_FOLDER
    if not names:
        shutil.rmtree(live.parent, ignore_errors=True)
        return
    with suppress(OSError):
        for path in live.iterdir():
            if path.stem not in names:
                path.unlink()


def _read(path: Path) -> str:
    try:
        return path.read_text() if path.name else ""
    except (OSError, UnicodeDecodeError):
        return ""


def _replace(path: Path, text: str) -> None:
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.chmod(0o644)  # whatever the umask: the proxy reads it as a user of its own
    new.replace(path)
