"""Hashes of passwords, for auth.users in dual.yaml: hash."""

from __future__ import annotations

import sys

import typer

from dual_iac.cli.app import app
from dual_iac.errors import UsageError

_COST = 5
"""Rounds, as a power of two, and as htpasswd has it: a check takes some 2 ms. The proxy makes one
for each request, and a page of a dev server is hundreds of them: 10 would be felt."""

_LONGEST = 72  # bytes that bcrypt looks at


@app.command(name="hash")
def hash_() -> None:
    """Make the hash of a password, for auth.users in dual.yaml.

    Asks for the password, or reads one line of what is piped in: so it stands in no shell's
    history. Prints the hash as dual.yaml wants it, each $ written twice.
    """
    import bcrypt

    if sys.stdin.isatty():
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise UsageError("There is no password", mend="pipe one in, or type it when asked")
    data = password.encode()
    if len(data) > _LONGEST or b"\0" in data:
        raise UsageError(
            "A hash can't be made of this password",
            why=f"bcrypt takes {_LONGEST} bytes without a NUL among them",
            mend="take a shorter one",
        )
    print(bcrypt.hashpw(data, bcrypt.gensalt(_COST)).decode().replace("$", "$$"))
