"""What Docker says when something fails → an error that says what to do."""

from __future__ import annotations

import json
import re

from dual_iac.errors import ENGINE_REFUSED, DualError, EngineUnreachableError

_UNREACHABLE = re.compile(
    r"cannot connect to the docker daemon|error during connect|failed to connect to the docker"
    r"|is the docker daemon running|connection refused.*docker|docker daemon is not running"
    r"|connect: no such file",
    re.IGNORECASE,
)
_PORT_TAKEN = re.compile(
    r"(?:for|bind:?|listen tcp\d? )\s*\[?([\w.:]*?)\]?:(\d+)\S*.*"
    r"(?:address already in use|port is already allocated)",
    re.IGNORECASE | re.DOTALL,
)

_CONFLICT = re.compile(r"conflicts with network ([0-9a-f]{64})")
_TELLS_NOTHING = re.compile(r"failed to start containers: .*|exit status \d+")
_NO_USER = re.compile(r"unable to find (?:user|group) (\S+): no matching entries", re.IGNORECASE)


def said(output: str) -> str:
    """What Docker or Compose said, without its JSON wrapping and standing phrases."""
    lines = []
    for line in output.splitlines():
        text = line.strip()
        if text.startswith("{"):
            try:
                event = json.loads(text)
            except ValueError:
                continue
            text = event.get("message", "") if event.get("error") else ""
        for phrase in ("Error response from daemon: ", "Error: ", "error: "):
            text = text.removeprefix(phrase)
        if text and text not in lines:
            lines.append(text)
    telling = [line for line in lines if not _TELLS_NOTHING.fullmatch(line)]
    return "\n".join(telling or lines)


def addresses_taken(why: str) -> DualError:
    return DualError(
        "The networks' addresses are taken by another network",
        why=why,
        mend="give another range as network.pool, such as 10.214.0.0/16",
    )


def in_the_way(error: DualError) -> str | None:
    """The id of the network that has the addresses of one that can't be made."""
    found = _CONFLICT.search(error.why)
    return found[1] if found else None


def half_a_network(network: str) -> DualError:
    """The error where addresses are taken by a network that is on no list, by its id.

    A dockerd that is killed as it makes a network may know it ever after in one place, and not in
    another: nobody can remove it then.
    """
    return DualError(
        "The networks' addresses are taken by half a network",
        why=f"Docker lists no network {network[:12]}: an engine that was killed has left it",
        mend="stop Docker, delete network/files/local-kv.db in its data folder (docker info names "
        "that as Docker Root Dir), start it, and run dual apply: it makes its networks anew",
    )


def engine_error(output: str) -> DualError:
    """The error that belongs to a failed call; ``output`` is its standard error."""
    why = said(output)
    lower = why.lower()
    if "no such file or directory: 'docker'" in lower:
        return EngineUnreachableError(
            "The docker command is not installed",
            mend="install Docker: https://docs.docker.com/get-started/get-docker/",
        )
    if "permission denied" in lower and "docker" in lower and "sock" in lower:
        return EngineUnreachableError(
            "You may not talk to the Docker engine",
            why=why,
            mend="add yourself to the docker group, or use rootless Docker; dual doctor says more",
        )
    if re.search(r"context .*(not found|does not exist)", lower):
        return EngineUnreachableError(
            "There is no such Docker context",
            why=why,
            mend="docker context ls shows those there are",
        )
    if _UNREACHABLE.search(why):
        return EngineUnreachableError(
            "The Docker engine does not answer",
            why=why,
            mend="start Docker, or name another engine with --context; dual doctor says more",
        )
    if "is not a docker command" in lower or "unknown shorthand flag: 'f' in -f" in lower:
        return EngineUnreachableError(
            "Docker Compose is not installed",
            why=why,
            mend="install it: https://docs.docker.com/compose/install/",
        )
    if taken := _PORT_TAKEN.search(why):
        return DualError(
            f"Port {taken[2]} is taken by something else on this machine",
            why=why,
            mend=f"end what listens on {taken[2]}, or give another port as proxy.http",
        )
    if "overlap" in lower or "invalid pool request" in lower:
        return addresses_taken(why)
    mend = ""
    if user := _NO_USER.search(why):
        mend = f"the image has no {user[1]}: give a number as user, or one that it has"
    elif "is already in use by container" in lower:
        mend = "a container of something else has that name: rename it, or the workspace or project"
    elif "has active endpoints" in lower:
        mend = (
            "something that isn't dual's is on that network: docker network disconnect takes it off"
        )
    return DualError(ENGINE_REFUSED, why=why or "it gave no reason", mend=mend)
