"""What a dual.yaml declares: frozen pydantic models. Names, hosts and URLs are derived here.

:class:`Spec` is the file as written (and the source of its JSON Schema). :class:`Project` is
what it means: defaults merged, workspaces in the order of their names, each with its hosts.
"""

from __future__ import annotations

import difflib
import hashlib
import ipaddress
import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from functools import cached_property
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from dual_iac import interpolation, seal, words

WORKSPACE_PORT = 3000
"""The one port of every workspace, inside its own network namespace."""

PROXY_SERVICE = "traefik"
"""The proxy's service name, and so no workspace's."""

EDGE_NETWORK = "edge"
"""The network that the proxy publishes through. It sorts before every ``ws-…``: Docker moves a
published port to the network whose name sorts first, and drops its connections."""

SUBNET_PREFIX = 29
"""Each workspace's own network: a gateway, the workspace, the proxy, and room for three."""

HOLDER = "localhost"
"""The name that a workspace's companions know its network's holder by."""


def companion_service(workspace: str, companion: str) -> str:
    """The service of a workspace's companion in the rendered file."""
    return f"{workspace}--{companion}"


SETUP_VOLUME = "_setup"
"""The volume that tells what a setup has succeeded for: no volume of dual.yaml has such a name."""

SETUP_VARIABLE = "DUAL_SETUP"
"""The variable that a setup is handed over in."""

SECRETS_INSIDE = "/run/secrets"
"""Where a container finds its secrets, each a file."""

SETUP_INSIDE = "/dual"
"""Where a workspace with a setup has the script, the record and the report."""

NAME_LENGTH = 63
"""What a DNS label may hold, and so a host name's first part."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


def slug(text: str) -> str:
    """The workspace name that belongs to a branch (or any other text).

    Lower case; every other run of characters becomes one ``-``; cut at 63 characters with a
    hash of the whole, so that two branches that start alike never share a name.
    """
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if len(name) > NAME_LENGTH or not name:
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        name = f"{name[: NAME_LENGTH - 9].rstrip('-')}-{digest}".lstrip("-")
    return name


def invalid(
    what: str, why: str = "", mend: str = "", *, secret: bool = False
) -> PydanticCustomError:
    """A validation error that keeps what, why and mend apart.

    ``secret`` where what stands there is not to be shown, as it may be a password.
    """
    # The texts travel in the context: a brace in them must not be read as a placeholder.
    context = {"what": what, "why": why, "mend": mend, "secret": secret}
    return PydanticCustomError("dual", "{what}", context)


# ── the kinds of text that stand in a spec ──────────────────────────────────────────────────


def _text(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, str) and "\0" in value:
        raise invalid("a NUL character can't stand in a value")
    return value


def _interpolated(value: str) -> str:
    try:
        interpolation.check(value)
    except interpolation.InterpolationError as error:
        raise invalid(
            str(error),
            why="$ starts a variable, as in Compose",
            mend="write $$ for a dollar sign, or ${NAME} for a variable",
        ) from None
    return value


def _literal(value: str) -> str:
    if interpolation.has_references(value):
        raise invalid(
            "a variable can't stand here",
            why="names, hosts, ports and networks are worked out before Compose reads the file",
            mend="write the value itself",
        )
    return value


def _pattern(pattern: str, what: str, *, why: str = "", mend: str = "") -> Callable[[str], str]:
    """A check against a whole-text pattern; a value with a ``${VAR}`` in it passes unread."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not interpolation.has_references(value) and not compiled.fullmatch(value):
            raise invalid(f"{value!r} is not {what}", why=why, mend=mend)
        return value

    return check


def _workspace_name(value: str) -> str:
    if len(value) > NAME_LENGTH or not _NAME.fullmatch(value):
        raise invalid(
            f"{value!r} is not a workspace name",
            why="a name is part of a host name: a-z, 0-9 and - inside, at most 63 characters",
            mend=f"{slug(value)!r} would do",
        )
    if value == PROXY_SERVICE:
        raise invalid(f"{value!r} is the proxy's own name", mend="give the workspace another name")
    return value


def _part_name(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", value) or "--" in value or len(value) > 63:
        raise invalid(
            f"{value!r} is not a name for it",
            why="a-z, 0-9, and . _ - inside, no double --, at most 63 characters",
        )
    return value


def _project_name(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", value):
        raise invalid(
            f"{value!r} is not a project name",
            why="Compose wants a-z, 0-9, and - _ inside, starting with a letter or digit",
            mend=f"{slug(value)!r} would do",
        )
    return value


def _host_name(value: str) -> str:
    label = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
    if len(value) > 253 or not re.fullmatch(rf"{label}(\.{label})*", value):
        mend = ""
        if re.fullmatch(r"https?://.*", value):
            mend = "leave out the scheme, the port and the path"
        elif re.fullmatch(rf"{label}(\.{label})*", value.lower()):
            mend = f"write it in lower case: {value.lower()}"
        raise invalid(
            f"{value!r} is not a host name",
            why="labels of a-z, 0-9 and - inside, joined by dots",
            mend=mend,
        )
    return value


def _host_pattern(value: str) -> str:
    _host_name(value.removeprefix("*."))
    return value


_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s|m|h)")


def parse_duration(text: str) -> timedelta:
    """A duration in Compose's notation, such as ``1m30s``; raises ValueError otherwise."""
    if not re.fullmatch(rf"({_DURATION.pattern})+", text):
        raise ValueError(text)
    return timedelta(seconds=sum(float(n) * _UNITS[u] for n, u in _DURATION.findall(text)))


_SIZE = re.compile(r"(?ai)(\d+(?:\.\d+)?) ?([kmgt]?)i?b?")
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def size_in_bytes(text: str) -> int:
    """A size in Compose's notation (binary multiples, as Docker reads them), in bytes.

    Raises ValueError where it is none, or where it is more than Docker can count.
    """
    match = _SIZE.fullmatch(text.strip())
    size = float(match[1]) * 1024 ** _POWERS[match[2].lower()] if match else -1
    if not 0 <= size < 2**63:
        raise ValueError(f"not a size: {text!r}")
    return int(size)


def _size(value: str) -> str:
    if not interpolation.has_references(value):
        try:
            size_in_bytes(value)
        except ValueError:
            raise invalid(f"{value!r} is not a size", mend="write it like 512m or 1g") from None
    return value


def _duration(value: Any) -> timedelta:
    if isinstance(value, timedelta):
        return value
    try:
        duration = parse_duration(str(value))
    except (ValueError, OverflowError):
        raise invalid(
            f"{value!r} is not a duration", mend="write it like 500ms, 60s or 1m30s"
        ) from None
    if not timedelta(milliseconds=1) <= duration <= timedelta(days=1):
        raise invalid(f"{value!r} is not between 1ms and 24h")
    return duration


def format_duration(duration: timedelta) -> str:
    seconds = duration.total_seconds()
    if seconds >= 60 and seconds % 60 == 0:
        return f"{seconds / 60:.0f}m"
    whole = f"{seconds:.6f}".rstrip("0")  # Compose knows no 1e-06s
    return f"{whole.rstrip('.')}s"


def _cpus(value: Any) -> Any:
    text = str(value)
    if interpolation.has_references(text):
        return _interpolated(text)
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) or float(text) <= 0:
        raise invalid(f"{value!r} is not a number of CPUs", mend="write it like 1.5")
    return text


def _container_path(value: str) -> str:
    parts = value.split("/")
    if not value.startswith("/") or len(value) < 2 or {"", ".", ".."} & set(parts[1:]):
        raise invalid(
            f"{value!r} is not a path in the container",
            why="it starts with /, is not / itself, and has no empty, . or .. part",
        )
    return value


def _ip_address(value: str) -> str:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        address = None
    # An IPv6 zone may be any text for Python, and must not be there for Docker.
    if address is None or "%" in value:
        raise invalid(
            f"{value!r} is not an address",
            mend="127.0.0.1 is this machine alone, 0.0.0.0 everyone who can reach it",
        )
    return str(address)


# This host, loopback, link-local, multicast and what lies beyond it.
_NEVER_POOLED = ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")


def _pool(value: str) -> str:
    try:
        pool = ipaddress.IPv4Network(value)
    except ValueError as error:
        raise invalid(
            f"{value!r} is not an IPv4 network",
            why=str(error),
            mend="write it like 10.213.0.0/16",
        ) from None
    if pool.prefixlen > SUBNET_PREFIX - 1:
        raise invalid(
            f"{value!r} is too small",
            why=f"every workspace takes a /{SUBNET_PREFIX} of it, and so does the proxy",
            mend="write it like 10.213.0.0/16",
        )
    if any(pool.overlaps(ipaddress.IPv4Network(each)) for each in _NEVER_POOLED):
        raise invalid(f"{value!r} can't be given to containers", mend="take a part of 10.0.0.0/8")
    return value


def _branch(value: str) -> str:
    # As git check-ref-format has it.
    if re.search(
        r"[\x00-\x20~^:?*\[\\\x7f]|\.\.|@\{|//|/\.|\.lock(/|$)|[./]$|^[-./]|^@$|^$", value
    ):
        raise invalid(f"{value!r} is not the name of a branch", mend="write it like feat/auth")
    return value


def _env_file_path(value: str) -> str:
    if not value.strip():
        raise invalid("an empty path")
    return value


_HASH = re.compile(
    r"\$2[aby]\$(0[4-9]|1[0-7])\$[./A-Za-z0-9]{53}"  # above 17, one check takes a minute
    r"|\$apr1\$[./A-Za-z0-9]{1,8}\$[./A-Za-z0-9]{22}"
    r"|\{SHA\}[+/A-Za-z0-9]{27}="
)


def _password_hash(value: Any) -> str:
    """A hash as Traefik reads it: in a spec, each ``$`` of it may be written as ``$$``."""
    plain = str(value).replace("$$", "$")
    if not _HASH.fullmatch(plain):
        raise invalid(
            "not a password hash",
            why="passwords stand here as hashes only: bcrypt, apr1 or SHA1, each $ written as $$",
            mend="make one with: dual hash",
            secret=True,
        )
    return plain


def _user_name(value: str) -> str:
    if not value or ":" in value or not value.isprintable():
        raise invalid(
            f"{value!r} is not a user's name",
            why="browsers send it as one line, up to a colon",
        )
    return value


def _forward_url(value: str) -> str:
    try:
        url = urlsplit(value)
        has_host = bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        has_host = False
    if not has_host or url.scheme not in ("http", "https") or not _URL.fullmatch(value):
        raise invalid(
            f"{value!r} is not the URL of a service",
            mend="write it like https://sso.example.com/verify",
        )
    if url.username is not None:
        raise invalid(
            "a password can't stand in a URL here",
            why="the URL stands in the rendered files",
            secret=True,
        )
    return value


_URL = re.compile(r"[!#-&(-;=?-Z_a-z~\[\]]+")
"""Of what may stand in a URL, all but quotes, angle brackets, braces, bars and backslashes."""


def _grant(value: str) -> str:
    """One word of ``allow``. Capabilities go without ``CAP_``."""
    capability = value.upper().removeprefix("CAP_")
    if capability in seal.KNOWN_CAPABILITIES:
        return capability
    if value in seal.GRANTS or re.fullmatch(r"~|(~?/.*)", value):
        return value
    nearest = difflib.get_close_matches(value, [*seal.GRANTS, *seal.KNOWN_CAPABILITIES], 1, 0.6)
    raise invalid(
        f"{value!r} is nothing that can be allowed",
        why=f"there are {', '.join(seal.GRANTS)}; capabilities, such as SYS_PTRACE; "
        "and folders, such as /etc",
        mend=f"did you mean {nearest[0]}?" if nearest else "",
    )


_Text = Annotated[str, BeforeValidator(_text)]
PlainText = Annotated[_Text, AfterValidator(_literal)]
OwnText = Annotated[PlainText, AfterValidator(interpolation.unescape)]
"""Text that dual itself uses, and Compose, if at all, only escaped once more."""

Text = Annotated[_Text, AfterValidator(_interpolated)]
"""Text as written, with Compose's ``${VAR}`` checked but not substituted."""

WorkspaceName = Annotated[_Text, AfterValidator(_workspace_name)]
PartName = Annotated[_Text, AfterValidator(_part_name)]
ProjectName = Annotated[PlainText, AfterValidator(_project_name)]
HostName = Annotated[PlainText, AfterValidator(_host_name)]
HostPattern = Annotated[PlainText, AfterValidator(_host_pattern)]
Port = Annotated[
    int,
    Field(ge=1, le=65535),
    BeforeValidator(lambda value: _literal(value) if isinstance(value, str) else value),
]
Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(format_duration),
    WithJsonSchema({"type": "string", "examples": ["60s", "1m30s"]}),
]
Image = Annotated[
    Text,
    AfterValidator(
        _pattern(
            r"(?a)(sha256:[0-9a-f]{64}|([\w.-]+(:\d+)?/)?[a-z0-9][a-z0-9._/-]*"
            r"(:[\w][\w.-]{0,127})?(@sha256:[0-9a-f]{64})?)",
            "an image name",
            mend="write it like node:22-slim or registry.example.com/team/app:1.4",
        )
    ),
]
Size = Annotated[
    Text,
    AfterValidator(_size),
    WithJsonSchema({"type": ["string", "integer"]}),
]
User = Annotated[
    Text,
    AfterValidator(
        _pattern(r"[\w.-]+(:[\w.-]+)?", "a user", mend="write it like node or 1000:1000")
    ),
]
EnvName = Annotated[
    _Text,
    AfterValidator(
        _pattern(
            r"[A-Za-z_][A-Za-z0-9_.-]{0,254}",
            "a variable's name",
            why="A-Z, a-z, 0-9, and _ . - inside, at most 255 characters",
            mend="write it like NODE_ENV",
        )
    ),
    AfterValidator(_literal),
]
Branch = Annotated[OwnText, AfterValidator(_branch)]
CommandName = Annotated[
    PlainText,
    AfterValidator(
        _pattern(r"[\w+-][\w.+-]*", "the name of a command", mend="write it like cargo")
    ),
]
EnvFile = Annotated[Text, AfterValidator(_env_file_path)]
ContainerPath = Annotated[PlainText, AfterValidator(_container_path)]
Cpus = Annotated[
    str,
    BeforeValidator(_cpus),
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}]}),
]
IpAddress = Annotated[PlainText, AfterValidator(_ip_address)]
Pool = Annotated[PlainText, AfterValidator(_pool)]
PasswordHash = Annotated[_Text, AfterValidator(_password_hash)]
UserName = Annotated[OwnText, AfterValidator(_user_name)]
ForwardUrl = Annotated[OwnText, AfterValidator(_forward_url)]
HeaderName = Annotated[
    PlainText,
    AfterValidator(
        _pattern(r"[A-Za-z0-9-]+", "a header's name", mend="write it like X-Forwarded-User")
    ),
]
Grant = Annotated[PlainText, AfterValidator(_grant)]
Allow = Annotated[
    tuple[Grant, ...],
    WithJsonSchema(
        {
            "type": "array",
            "items": {
                "type": "string",
                "examples": [*sorted(seal.GRANTS), "SYS_PTRACE", "/etc"],
            },
        }
    ),
]


def _text_or_words(value: Any) -> str | tuple[str, ...]:
    if isinstance(value, list | tuple):
        if not value or any(not isinstance(word, str | int | float) for word in value):
            raise invalid("a command's list holds words, and at least one")
        return tuple(_interpolated(str(_text(word))) for word in value)
    if not isinstance(value, str | int | float):
        raise invalid("a command is a text or a list of words")
    text = _interpolated(str(_text(value)))
    if not text.strip():
        raise invalid("an empty command", mend="leave it out to run the image's own")
    return text


def _command(value: Any) -> str | tuple[str, ...]:
    command = _text_or_words(value)
    if isinstance(command, str):
        try:
            words.split(interpolation.check(command))
        except ValueError as error:
            raise invalid(
                f"the command can't be split into words: {error}",
                mend="quote it, or hand it to a shell: [sh, -c, 'npm ci && npm run dev']",
            ) from None
    return command


Command = Annotated[
    str | tuple[str, ...],
    PlainValidator(_command),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
            ]
        }
    ),
]
"""As in Compose: one text is split into words as a shell would, a list is taken as it is."""


def _health_test(value: Any) -> str | tuple[str, ...]:
    test = _text_or_words(value)
    if isinstance(test, tuple) and (test[0] not in ("CMD", "CMD-SHELL") or len(test) < 2):
        raise invalid(
            "a healthcheck's list starts with CMD or CMD-SHELL",
            why="as in Compose: [CMD, pg_isready], or [CMD-SHELL, pg_isready && test -f /ready]",
            mend="or write it as one text, for a shell",
        )
    return test


Secrets = Mapping[PartName, EnvFile]

Environment = Annotated[
    Mapping[EnvName, Text | None],
    WithJsonSchema(
        {
            "type": "object",
            "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
        }
    ),
]
"""Values as written. An empty value takes the variable from where dual runs, as in Compose."""


# ── the models ──────────────────────────────────────────────────────────────────────────────


def _check_targets(volumes: Mapping[str, str], taken: dict[str, str]) -> None:
    """No two things may go to one place; ``taken`` maps places to what is there."""
    for name, target in volumes.items():
        if target in taken:
            raise invalid(
                f"{taken[target]} and volumes.{name} both go to {target}",
                mend="give one of them another place",
            )
        taken[target] = f"volumes.{name}"


def _secret_places(secrets: Mapping[str, str]) -> dict[str, str]:
    return {f"{SECRETS_INSIDE}/{name}": f"secrets.{name}" for name in secrets}


class Model(BaseModel):
    """Unknown keys are errors; a key with nothing after it counts as left out."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_absent(cls, data: Any) -> Any:
        if data is None:
            return {}
        if isinstance(data, dict):
            known = cls.model_fields
            return {key: v for key, v in data.items() if v is not None or key not in known}
        return data


class Source(Model):
    """Where a workspace's files come from: a folder on this machine, or a clone of its own."""

    path: Text | None = None
    """A folder, bind-mounted at /workspace. Relative to dual.yaml."""
    git: Text | None = None
    """A repository: the workspace gets a full clone of its own. One on this machine that starts
    with ./ or ../, or is . itself, is relative to dual.yaml."""
    branch: Branch | None = None
    """The branch: the remote's, else a local one, else a new one. Default: the remote's own."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.path is None) == (self.git is None):
            raise invalid(
                "a source is either a path or a git repository",
                mend="keep one of the two; `path: ~` takes back a path given under defaults",
            )
        if self.branch is not None and self.git is None:
            raise invalid("a branch belongs to a git source", mend="add git:, or leave it out")
        if self.path is not None and not self.path.strip():
            raise invalid("an empty path", mend="write . for the folder of dual.yaml")
        return self


class Build(Model):
    """An image that dual builds: once for all workspaces with the same content."""

    context: Annotated[OwnText, AfterValidator(_env_file_path)] = "."
    """The folder that is built from. Relative to dual.yaml."""
    dockerfile: Annotated[OwnText, AfterValidator(_env_file_path)] = "Dockerfile"
    """Relative to the context."""
    target: OwnText | None = None
    """The stage to build, of several."""
    args: Mapping[EnvName, OwnText] = Field(default_factory=dict)
    """Build arguments. No secrets: they stand in the image's history."""


class Resources(Model):
    """Limits, as the kernel enforces them."""

    cpus: Cpus | None = None
    """CPU time, in CPUs: 1.5 is one and a half."""
    memory: Size | None = None
    """Memory, such as 512m or 1g."""
    pids: Annotated[int, Field(ge=1, le=2**22)] = 4096
    """The most processes and threads at once."""


class Ready(Model):
    """When a workspace counts as up: it answers through the proxy."""

    path: Annotated[OwnText, AfterValidator(_pattern(r"/[!-~]*", "a path of a URL"))] = "/"
    """What is asked for."""
    timeout: Duration = timedelta(seconds=60)
    """How long apply waits for the answer."""


class Healthcheck(Model):
    """How to see that a companion is ready to be used: the workspace's command waits for it."""

    test: Annotated[
        str | tuple[str, ...],
        PlainValidator(_health_test),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string"},
                    {"type": "array", "items": {"type": "string"}, "minItems": 2},
                ]
            }
        ),
    ]
    """A shell command that succeeds, or a list: CMD and words, or CMD-SHELL and a shell command."""
    interval: Duration = timedelta(seconds=5)
    """How long between two tests; the first comes after as long."""
    timeout: Duration = timedelta(seconds=5)
    """How long a test may take."""
    retries: Annotated[int, Field(ge=1, le=2**31 - 1)] = 12
    """How many tests in a row must fail for it to count as unhealthy."""
    start_period: Duration | None = None
    """For how long after the start failures don't count."""


class Companion(Model):
    """A service that shares the workspace's localhost: a database, say."""

    image: Image
    """The image to run."""
    command: Command | None = None
    """What to run, instead of the image's own command."""
    env: Environment = Field(default_factory=dict)
    """Environment variables."""
    user: User | None = None
    """Who to run as: a name or uid, with :group if need be."""
    volumes: Mapping[PartName, ContainerPath] = Field(default_factory=dict)
    """Named volumes and where they go. Each workspace has its own, and keeps it."""
    resources: Resources = Resources()
    """Limits on CPU, memory and processes."""
    healthcheck: Healthcheck | None = None
    """When it is ready to be used."""
    port: Port | None = None
    """The port that it listens on, where that is none of those that its image exposes."""
    secrets: Secrets = Field(default_factory=dict)
    """Files of this machine to read at /run/secrets/NAME. Relative to dual.yaml."""
    allow: Allow = ()
    """What it may do besides, as for a workspace."""

    @model_validator(mode="after")
    def _targets_differ(self) -> Self:
        _check_targets(self.volumes, _secret_places(self.secrets))
        return self


class Auth(Model):
    """Who may pass the proxy: users with passwords, or whom a service of yours lets in."""

    users: Mapping[UserName, PasswordHash] = Field(default_factory=dict)
    """User names, and hashes of their passwords, which `dual hash` makes (each $ as $$)."""
    forward: ForwardUrl | None = None
    """The URL of a service that is asked about each request, and lets it in with a status of
    200 to 299: single sign-on. The proxy must be able to reach it."""
    headers: tuple[HeaderName, ...] = ()
    """Headers of that service's answer for the application to see, such as X-Forwarded-User."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if bool(self.users) == bool(self.forward):
            raise invalid(
                "auth is either users or forward",
                mend="keep one of the two; `forward: ~` takes back what stands under defaults",
            )
        if self.headers and not self.forward:
            raise invalid("headers belong to forward", mend="leave them out")
        return self


class WorkspaceNetwork(Model):
    """What a workspace reaches, besides itself."""

    egress: bool = True
    """false: nothing at all. The proxy reaches it all the same."""


def _without_what_is_taken_back(value: Any) -> Any:
    """``name: ~`` takes back what the defaults say."""
    if isinstance(value, Mapping):
        return {name: each for name, each in value.items() if each is not None}
    return value


class WorkspaceSettings(Model):
    """What may stand under a workspace, and under ``defaults``."""

    image: Image | None = None
    """The image to run. Needed, here or under defaults, unless there is a ``build``."""
    build: Build | None = None
    """Build the image, instead of using one."""
    source: Source | None = None
    """The files at /workspace."""
    command: Command | None = None
    """What to run, instead of the image's own command. It should listen on port 3000."""
    hosts: tuple[HostName, ...] = ()
    """Host names besides <workspace>.<domain>."""
    env: Environment = Field(default_factory=dict)
    """Environment variables."""
    env_file: tuple[EnvFile, ...] = ()
    """Files of environment variables; ``env`` wins over them, later files over earlier."""
    volumes: Mapping[PartName, ContainerPath] = Field(default_factory=dict)
    """Named volumes and where they go. Each workspace has its own, and keeps it."""
    setup: Text | None = None
    """A shell command that prepares the workspace before its command runs: once for each image,
    text, and lock file in the source; again at the next apply until it succeeds."""
    user: User | None = None
    """Who to run as: a name or uid, with :group if need be."""
    resources: Resources = Resources()
    """Limits on CPU, memory and processes."""
    ready: Ready = Ready()
    """When the workspace counts as up."""
    commands: tuple[CommandName, ...] = ()
    """What runs in the workspace after `dual activate`, besides npm, node, python and the like."""
    services: Annotated[
        Mapping[PartName, Companion], BeforeValidator(_without_what_is_taken_back)
    ] = Field(default_factory=dict)
    """Companions that share this workspace's localhost."""
    auth: Auth | None = None
    """Who may pass the proxy. Default: everyone who reaches it."""
    secrets: Annotated[Secrets, BeforeValidator(_without_what_is_taken_back)] = Field(
        default_factory=dict
    )
    """Files of this machine to read at /run/secrets/NAME. Relative to dual.yaml."""
    network: WorkspaceNetwork = WorkspaceNetwork()
    """What it reaches besides itself."""
    allow: Allow = ()
    """What it may do besides: capabilities such as SYS_PTRACE, folders of the system to mount,
    new-privileges (sudo), docker-socket, privileged …: each a hole in the seal."""
    enabled: bool = True
    """false: declared, not running."""

    @model_validator(mode="after")
    def _targets_differ(self) -> Self:
        source = {"/workspace": "source"} if self.source else {}
        _check_targets(self.volumes, source | _secret_places(self.secrets))
        return self

    @model_validator(mode="after")
    def _setup_has_its_own(self) -> Self:
        if self.setup is None:
            return self
        for name, target in self.volumes.items():
            if f"{target}/".startswith(f"{SETUP_INSIDE}/"):
                raise invalid(
                    f"volumes.{name} goes to {target}, which is where the setup has its own files",
                    mend="give it another place",
                )
        if SETUP_VARIABLE in self.env:
            raise invalid(
                f"env.{SETUP_VARIABLE} is the variable that the setup is handed over in",
                mend="give the variable another name",
            )
        return self

    @property
    def own_volumes(self) -> dict[str, str]:
        """Where its volumes go, with the one that dual itself keeps for a setup."""
        record = {SETUP_VOLUME: f"{SETUP_INSIDE}/record"} if self.setup else {}
        return dict(sorted(self.volumes.items())) | record

    def volumes_of(self, companion: str) -> dict[str, str]:
        """Where the volumes of a companion go; three dashes, as no volume of its own has them."""
        volumes = self.services[companion].volumes
        return {f"{companion}---{name}": target for name, target in sorted(volumes.items())}


class OwnCertificate(Model):
    """A certificate of your own, and its key. Both are files, relative to dual.yaml."""

    hosts: Annotated[tuple[HostPattern, ...], Field(min_length=1)]
    """The hosts that it is for; `*.dev.example.com` stands for all right below that domain."""
    cert: Annotated[OwnText, AfterValidator(_env_file_path)]
    """The certificate, and what else its authority wants sent along: PEM."""
    key: Annotated[OwnText, AfterValidator(_env_file_path)]
    """Its key: PEM, without a passphrase."""


class Acme(Model):
    """How to ask a public authority for certificates."""

    email: Annotated[
        PlainText,
        AfterValidator(_pattern(r"[^@\s\"'`{}<>]+@[A-Za-z0-9.-]+", "an e-mail address")),
    ]
    """Whom the authority writes to."""
    server: ForwardUrl = "https://acme-v02.api.letsencrypt.org/directory"
    """The authority's directory. The default is Let's Encrypt."""
    roots: Annotated[OwnText, AfterValidator(_env_file_path)] | None = None
    """A file of certificates to know the authority's server by, where that is one of your own."""
    challenge: Literal["http", "tls", "dns"] = "tls"
    """What the authority checks: an answer on port 80, one on port 443, or a record in DNS."""
    provider: Annotated[PlainText, AfterValidator(_pattern(r"[a-z0-9]+", "a provider"))] | None = (
        None
    )
    """For dns: who runs it, as Traefik names them, such as cloudflare."""
    env: Environment = Field(default_factory=dict)
    """For dns: the variables that the provider needs; with ${VAR}, as they are secrets."""

    @model_validator(mode="after")
    def _dns_has_a_provider(self) -> Self:
        if (self.challenge == "dns") != (self.provider is not None):
            raise invalid(
                "a provider belongs to the challenge dns, and the other way round",
                mend="name one, such as cloudflare, or take another challenge",
            )
        return self


class Proxy(Model):
    """The one Traefik container in front of all workspaces."""

    image: Image = "traefik:v3.7.15"
    """Traefik's image, 3.7.12 or newer."""
    bind: IpAddress = "127.0.0.1"
    """The host address to publish on. 127.0.0.1 keeps it to this machine."""
    http: Port = 3000
    """The host port: http://<workspace>.<domain>:<http>."""
    https: Port | None = None
    """The host port for TLS as well: https://<workspace>.<domain>:<https>. See `dual trust`."""
    domain: HostName = "localhost"
    """The domain under which workspaces get their hosts."""
    certificates: tuple[OwnCertificate, ...] = ()
    """Certificates of your own. dual makes those of all other hosts."""
    acme: Acme | None = None
    """Have a public authority, such as Let's Encrypt, make the certificates of a real domain."""
    dashboard: bool = False
    """Traefik's dashboard, for this machine alone: http://localhost:<dashboard_port>/dashboard/."""
    dashboard_port: Port = 8080
    """The host port of the dashboard, on 127.0.0.1 whatever ``bind`` says."""
    access_log: bool = False
    """Log each request (dual logs traefik): no path, no query and no header of it."""


class Network(Model):
    """Where the workspaces' networks come from."""

    pool: Pool = "10.213.0.0/16"
    """Each workspace's own /29 is taken from here."""
    holder: Image = "busybox:1.35"
    """What holds the network of a workspace with services, so that these outlive a change of it: a
    small image that has tail."""


class Spec(Model):
    """A dual.yaml, version 1, as written."""

    version: Annotated[Literal[1], BeforeValidator(lambda v: int(v) if v in ("1", 1) else v)]
    """The version of this format: 1."""
    project: ProjectName
    """The name of the project, and of its compose project."""
    proxy: Proxy = Proxy()
    network: Network = Network()
    clones: OwnText = ".dual/clones"
    """The folder of the clones that git sources get. Relative to dual.yaml."""
    defaults: WorkspaceSettings = WorkspaceSettings()
    """Merged under every workspace: maps merge, texts and lists replace."""
    workspaces: Mapping[WorkspaceName, WorkspaceSettings]
    """The workspaces, by name."""


class Workspace(WorkspaceSettings):
    """One workspace as it is meant: defaults merged in, names worked out."""

    name: WorkspaceName
    host_names: tuple[HostName, ...]
    """Every host it answers on; the first is ``<name>.<domain>``."""
    image: Image


class Project(Model):
    """A whole dual.yaml as it is meant. Workspaces come in the order of their names."""

    name: ProjectName
    proxy: Proxy
    network: Network
    clones: str
    workspaces: Mapping[WorkspaceName, Workspace]

    def source_of(self, workspace: Workspace) -> str | None:
        """The folder at a workspace's /workspace, as dual.yaml says it."""
        source = workspace.source
        if source is None:
            return None
        return source.path or interpolation.escape(f"{self.clones}/{workspace.name}")

    def certified_hosts(self, workspace: Workspace) -> tuple[str, ...]:
        """The hosts of a workspace that dual is to make certificates for."""
        if self.proxy.https is None:
            return ()
        return tuple(
            host
            for host in workspace.host_names
            if not any(_covers(each, host) for own in self.proxy.certificates for each in own.hosts)
            and not (self.proxy.acme and is_public(host))
        )

    @cached_property
    def enabled(self) -> tuple[Workspace, ...]:
        """The workspaces that are meant to run."""
        return tuple(w for w in self.workspaces.values() if w.enabled)

    def url(self, workspace: Workspace, *, tls: bool = False) -> str:
        """Where people reach the workspace; with ``tls`` by HTTPS, which must be declared."""
        return self.host_url(workspace.host_names[0], tls=tls)

    def host_url(self, host: str, *, tls: bool = False) -> str:
        scheme, port, usual = (
            ("https", self.proxy.https, 443) if tls else ("http", self.proxy.http, 80)
        )
        return f"{scheme}://{host}" + ("" if port == usual else f":{port}")


def image_name(project: str, build: Build) -> str:
    """The image that a build goes by in the rendered file: one name for each way to build.

    What it is made of changes without dual.yaml changing, and so is no part of the name.
    """
    how = [build.context, build.dockerfile, build.target, sorted(build.args.items())]
    digest = hashlib.sha256(json.dumps(how).encode()).hexdigest()[:12]
    return f"{build_repository(project)}:{digest}"


def build_repository(project: str) -> str:
    """Where the images of a project's builds are, for Docker: one separator between words."""
    return f"dual-build/{re.sub('[-_]+', '-', project).strip('-')}"


def project_of(spec: Spec) -> Project:
    """What a spec means. Its workspaces must have their defaults merged in already.

    Raises no error of its own: an image that is missing everywhere is found by
    :func:`conflicts`, as are hosts that two workspaces claim.
    """
    workspaces = {}
    for name in sorted(spec.workspaces):
        settings = spec.workspaces[name]
        # Validated already: the settings are a workspace's but for the names derived here.
        values = dict(settings.__dict__)
        if settings.build:
            values["image"] = image_name(spec.project, settings.build)
        workspaces[name] = Workspace.model_construct(
            **values,
            name=name,
            host_names=(f"{name}.{spec.proxy.domain}", *settings.hosts),
        )
    return Project(
        name=spec.project,
        proxy=spec.proxy,
        network=spec.network,
        clones=spec.clones,
        workspaces=workspaces,
    )


Found = tuple[tuple[str | int, ...], str, str, str]
"""A problem found in a valid spec: its path, what, why, and the mend."""


def conflicts(spec: Spec) -> Iterator[Found]:
    """What no single field shows: things that are missing, or that two workspaces share."""
    room: int = 2 ** (SUBNET_PREFIX - ipaddress.IPv4Network(spec.network.pool).prefixlen)
    if room < (needed := len(spec.workspaces) + 1):
        yield (
            ("network", "pool"),
            f"network.pool {spec.network.pool} has room for {room} networks, "
            f"and {needed} are needed",
            "one for each workspace and one for the proxy",
            "widen network.pool, to a /16 say",
        )
    yield from _proxy_conflicts(spec.proxy)
    owners: dict[str, tuple[str, tuple[str | int, ...]]] = {
        f"{name}.{spec.proxy.domain}": (name, ("workspaces", name)) for name in spec.workspaces
    }
    for name, settings in spec.workspaces.items():
        path = ("workspaces", name)
        if settings.image is None and settings.build is None:
            yield (
                path,
                f"workspace {name} has no image",
                "",
                "add image: or build: here or under defaults",
            )
        if settings.setup and settings.command is None:
            yield (
                (*path, "setup"),
                f"workspace {name} has a setup, and no command to run after it",
                "what its image runs by itself is not known when dual.yaml is rendered",
                "add command: what the workspace is to run",
            )
        for index, host in enumerate(settings.hosts):
            here = (*path, "hosts", index)
            owner, _ = owners.setdefault(host, (name, here))
            if owners[host][1] == here:
                continue
            yield (
                here,
                f"the host {host} belongs to workspace {owner} already"
                if owner != name
                else f"workspace {name} has the host {host} twice",
                f"workspaces {owner} and {name} both claim it" if owner != name else "",
                "remove it from one of them",
            )
        yield from _companion_conflicts(spec, name, settings)


_LOCAL = frozenset({"localhost", "test", "invalid", "example", "local", "internal", "arpa"})
"""Top-level domains that no public authority gives certificates for."""


def is_public(host: str) -> bool:
    """Whether a public authority may give a certificate for a host."""
    last = host.rpartition(".")[2]
    return "." in host and last not in _LOCAL


def _covers(pattern: str, host: str) -> bool:
    """As certificates have it: a wildcard stands for exactly one label."""
    return host == pattern or (pattern[:2] == "*." and host.partition(".")[2] == pattern[2:])


def _proxy_conflicts(proxy: Proxy) -> Iterator[Found]:
    ports = {"http": proxy.http, "https": proxy.https}
    ports |= {"dashboard_port": proxy.dashboard_port} if proxy.dashboard else {}
    owners: dict[int, str] = {}
    for key, port in ports.items():
        if port in owners:
            what = f"proxy.{owners[port]} and proxy.{key} are both {port}"
            yield ("proxy", key), what, "", "give one of them another port"
        elif port is not None:
            owners[port] = key
    for key in ("certificates", "acme"):
        if getattr(proxy, key) and proxy.https is None:
            what = f"proxy.{key} is for TLS, and there is no proxy.https"
            yield ("proxy", key), what, "", "add https: 443, say"
    if proxy.acme and not is_public(proxy.domain):
        yield (
            ("proxy", "acme"),
            f"no public authority gives certificates for hosts of {proxy.domain}",
            "",
            "set proxy.domain to a domain of yours, or leave acme out: dual makes certificates",
        )


def _companion_conflicts(spec: Spec, name: str, settings: WorkspaceSettings) -> Iterator[Found]:
    path = ("workspaces", name, "services")
    holder = [HOLDER] if settings.services else []
    for companion in (*settings.services, *holder):
        service = companion_service(name, companion)
        here = (*path, companion) if companion in settings.services else path
        if service in spec.workspaces:
            what = "its holder" if companion == HOLDER else f"the service {companion}"
            yield (
                here,
                f"workspace {service} and {what} of {name} share a name",
                "",
                "rename the workspace",
            )
    if HOLDER in settings.services:
        yield (
            (*path, HOLDER),
            f"{HOLDER!r} is the name of what holds the network of the services",
            "",
            "give the service another name",
        )
    owners = {WORKSPACE_PORT: f"workspace {name} itself"}
    for companion, service_settings in settings.services.items():
        port = service_settings.port
        if port in owners:
            yield (
                (*path, companion, "port"),
                f"{owners[port]} and the service {companion} both listen on port {port}",
                "they share one localhost",
                "have one of them listen elsewhere",
            )
        elif port is not None:
            owners[port] = f"the service {companion}"
