"""Project → Desired: the compose project as texts, and what each part of it amounts to.

Templates (Jinja2) make the texts; each rendered service is then read back, so that hashes and
fields speak of what Compose will see, whatever a template says. Pure: no engine, no writes.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined, TemplateError
from jinja2.sandbox import SandboxedEnvironment

from dual_iac import seal
from dual_iac.errors import DualError, InvalidError
from dual_iac.fields import desired_fields, recorded_hidden
from dual_iac.interpolation import InterpolationError, escape, starts_with_reference
from dual_iac.model import (
    EDGE_NETWORK,
    HOLDER,
    PROXY_SERVICE,
    SECRETS_INSIDE,
    SETUP_INSIDE,
    SUBNET_PREFIX,
    WORKSPACE_PORT,
    Build,
    Companion,
    Healthcheck,
    Project,
    Workspace,
    build_repository,
    companion_service,
    format_duration,
)
from dual_iac.output import (
    CERTIFICATES_FOLDER,
    CERTIFICATES_INSIDE,
    COMPOSE_FILE,
    DASHBOARD_PORT,
    OUTPUT_FOLDER,
    PROXY_PORT,
    ROUTES_FOLDER,
    ROUTES_HEADER,
    ROUTES_HOST,
    SEEN_FILE,
    SETUP_FILE,
    STATIC_FILE,
    TLS_PORT,
    load_yaml,
)
from dual_iac.setups import BEGINS, FAILED, SUCCEEDED, SetupFolder
from dual_iac.state import (
    PROXY,
    Desired,
    DesiredBuild,
    DesiredCertificate,
    DesiredClone,
    DesiredContainer,
    DesiredNetwork,
    certificate_address,
    companion_address,
    digest,
    network_address,
    route_address,
    source_address,
    workspace_address,
    workspace_of,
)

OVERRIDES_FOLDER = ".dual/templates"

WEB, WEBSECURE = "web", "websecure"
_HEADER_BYTES = 65536  # four times what Node takes: applications refuse before the proxy does
_ACCESS_FIELDS = (
    *("StartUTC", "ClientHost", "RequestHost", "RequestMethod", "RequestProtocol", "RequestScheme"),
    *("RouterName", "DownstreamStatus", "DownstreamContentSize", "Duration"),
)
_ACME_ROOTS = "acme-roots"
_HASH_LENGTH = 16
# A NUL, escaped: no value of a spec can have one, so to_yaml never writes this for another.
_HASH_PLACEHOLDER = '"\\u0000"'
_HIDDEN_PLACEHOLDER = '"\\u0000hidden"'


@dataclass(frozen=True)
class NetworkPlace:
    """A network of the project and the addresses in it.

    .2 is the workspace, .3 the proxy; .1 or the upper half is left for addresses that Docker
    gives out by itself, the gateway's among them, so that none of them takes a fixed one.
    """

    key: str
    subnet: str
    internal: bool = False
    """Whether nothing in it gets out."""

    @cached_property
    def _first(self) -> ipaddress.IPv4Address:
        return ipaddress.IPv4Network(self.subnet).network_address

    @property
    def workspace_address(self) -> str:
        return str(self._first + 2)

    @property
    def proxy_address(self) -> str:
        return str(self._first + 3)

    @property
    def dynamic_range(self) -> str:
        return f"{self._first + 4}/{SUBNET_PREFIX + 1}"


@dataclass(frozen=True)
class VolumePlace:
    """A named volume of a workspace: its key in the compose file, and where it goes."""

    key: str
    workspace: str
    target: str


@dataclass(frozen=True)
class SetupPlace:
    """What a setup needs: its place in the workspace, and the script and the folder of the host."""

    inside: str
    script: str
    folder: str

    def before(self, command: str | tuple[str, ...] | None) -> str | tuple[str, ...]:
        """A command that sets up, and becomes the given one; in the notation of that one."""
        words = ("sh", f"{self.inside}/setup.sh")
        return (*words, *command) if isinstance(command, tuple) else f"{' '.join(words)} {command}"


@dataclass(frozen=True)
class FilePlace:
    """A file of this machine, and where a container finds it."""

    source: str
    target: str
    read_only: bool = True


@dataclass(frozen=True)
class Entry:
    """Where the proxy listens: on ``port`` of its own, published on this machine."""

    name: str
    port: int
    published: int
    bind: str
    tls: bool = False


@dataclass(frozen=True)
class CertificatePlace:
    """A certificate and its key, where the proxy finds them."""

    cert: str
    key: str


_ACME_VOLUME = VolumePlace(f"{PROXY_SERVICE}--acme", PROXY_SERVICE, "/acme")
"""Where the proxy keeps its account with a public authority, and what it got from there."""


class Raw(str):
    """Text that is YAML already, and goes into a template's output as it is."""

    __slots__ = ()


# Plain only where YAML 1.1 and 1.2 agree that it is text. All else stands in double quotes.
_PLAIN = re.compile(r"(?:\.{0,2}/|[A-Za-z_])[A-Za-z0-9_/.-]*(?::[A-Za-z0-9_/.-]+)?")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
# Traefik takes its files for Go templates: no two braces in a row may be left in one.
_GO_TEMPLATE = re.compile(r"\{(?=\{)")
# What YAML doesn't count as printable, and JSON would leave as it is.
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def to_yaml(value: Any) -> str:
    """One value as YAML that Compose, Traefik and PyYAML read back the same, on one line."""
    if isinstance(value, Raw):
        return value
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
            return str(value)
        quoted = json.dumps(value, ensure_ascii=False)
        quoted = _GO_TEMPLATE.sub(r"\\u007b", quoted)
        return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{to_yaml(k)}: {to_yaml(v)}' for k, v in value.items())}}}"
    if isinstance(value, Iterable):
        return f"[{', '.join(map(to_yaml, value))}]"
    raise TypeError(f"no YAML for a {type(value).__name__}")


def shipped_templates() -> Path:
    """The templates that come with dual: inside a wheel, or at the top of the repository."""
    inside = Path(__file__).parent / "templates"
    return inside if inside.is_dir() else Path(__file__).parents[1] / "templates"


def template_environment(folder: Path) -> Environment:
    """The templates for the dual.yaml in ``folder``: its own before the shipped ones.

    Every value a template emits passes :func:`to_yaml`; none can forget to.
    """
    # Whoever may change a repository may not run code on this machine with a template. The sandbox
    # takes time, so that the shipped ones do without.
    has_own = (folder / OVERRIDES_FOLDER).is_dir()
    return (SandboxedEnvironment if has_own else Environment)(
        loader=ChoiceLoader(
            [FileSystemLoader(folder / OVERRIDES_FOLDER), FileSystemLoader(shipped_templates())]
        ),
        auto_reload=False,  # nobody edits them between two workspaces of one run
        undefined=StrictUndefined,
        finalize=to_yaml,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )


def render(
    project: Project,
    folder: Path,
    *,
    output: Path | None = None,
    given_subnets: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    contents: Mapping[str, str] | None = None,
) -> Desired:
    """The compose project of a dual.yaml in ``folder``, to stand in ``output``.

    ``given_subnets`` (network key → subnet) are those of the last render: they stay. The
    texts don't depend on ``environment``; the fields do, as they are what Compose would make
    of the references. ``contents`` are the hashes of what images are built from, by the images'
    names; without it, that is left open. Raises :class:`DualError` for a template that fails or
    a required variable that is missing.
    """
    folder = folder.absolute()
    output = (output or folder / OUTPUT_FOLDER).absolute()
    variables = os.environ if environment is None else environment
    keys = [EDGE_NETWORK, *(f"ws-{name}" for name in project.workspaces)]
    subnets = allocate_subnets(project.name, project.network.pool, keys, given_subnets or {})
    running = {f"ws-{each.name}": not each.network.egress for each in project.enabled}
    networks = [
        NetworkPlace(key, subnets[key], running.get(key, False))
        for key in keys
        if key == EDGE_NETWORK or key in running
    ]
    try:
        return _Renderer(project, folder, output, variables, networks, contents or {}).desired()
    except TemplateError as error:
        where = getattr(error, "name", None) or "a template"
        line = getattr(error, "lineno", None)
        raise DualError(
            f"Template {where} can't be rendered",
            why=f"line {line}: {error.message}" if line else str(error.message),
            mend=f"mend it, or remove it from {OVERRIDES_FOLDER} to use the shipped one",
        ) from error


class _Renderer:
    def __init__(
        self,
        project: Project,
        folder: Path,
        output: Path,
        variables: Mapping[str, str],
        networks: list[NetworkPlace],
        contents: Mapping[str, str],
    ) -> None:
        self.contents = contents
        self.project = project
        self.folder = folder
        self.output = output
        self.variables = variables
        self.places = {network.key: network for network in networks}
        templates = template_environment(folder)
        templates.globals["project"] = project
        self.templates = templates
        self.containers: dict[str, DesiredContainer] = {}
        self.networks: dict[str, DesiredNetwork] = {}
        self.clones: dict[str, DesiredClone] = {}
        self.builds: dict[str, DesiredBuild] = {}
        self.files: dict[str, str] = {}
        self.routes: dict[str, str] = {}
        self.volumes: list[VolumePlace] = []
        self.certificates: dict[str, DesiredCertificate] = {}

    def desired(self) -> Desired:
        static = self._static()
        services = [self._proxy(static)]
        for workspace in self.project.workspaces.values():
            if workspace.enabled:
                if workspace.services:
                    services += self._companions(workspace)
                services.append(self._workspace(workspace))
            else:
                self._volumes(workspace.name, workspace.own_volumes)
                for name in sorted(workspace.services):
                    self._volumes(workspace.name, workspace.volumes_of(name))
        self.files[SEEN_FILE] = self._seen()
        compose = self.templates.get_template("compose.yaml.j2").render(
            services=services,
            networks=[self._network(place) for place in self.places.values()],
            volumes=self.volumes,
        )
        return Desired(
            project=self.project.name,
            files={COMPOSE_FILE: compose, STATIC_FILE: static, **self.files},
            containers=self.containers,
            networks=self.networks,
            routes=self.routes,
            clones=self.clones,
            builds=self.builds,
            certificates=self.certificates,
        )

    def _static(self) -> str:
        return self.templates.get_template("traefik/traefik.yaml.j2").render(
            address=self.places[EDGE_NETWORK].proxy_address,
            entries=self._entries,
            header_bytes=_HEADER_BYTES,
            access_fields=_ACCESS_FIELDS,
            acme=_ACME_VOLUME,
            certificates_inside=CERTIFICATES_INSIDE,
            acme_roots=f"{CERTIFICATES_INSIDE}/{_ACME_ROOTS}.pem",
        )

    @cached_property
    def _entries(self) -> list[Entry]:
        proxy = self.project.proxy
        entries = [Entry(WEB, PROXY_PORT, proxy.http, proxy.bind)]
        if proxy.https is not None:
            entries.append(Entry(WEBSECURE, TLS_PORT, proxy.https, proxy.bind, tls=True))
        if proxy.dashboard:
            entries.append(Entry("dashboard", DASHBOARD_PORT, proxy.dashboard_port, "127.0.0.1"))
        return entries

    def _proxy(self, static: str) -> Raw:
        acme = [_ACME_VOLUME] if self.project.proxy.acme else []
        self.volumes += acme
        text = self.templates.get_template("proxy.yaml.j2").render(
            service=PROXY_SERVICE,
            entries=self._entries,
            certificates=self._host_path(CERTIFICATES_FOLDER),
            certificates_inside=CERTIFICATES_INSIDE,
            acme=_ACME_VOLUME,
            networks=self.places.values(),
            hash=Raw(_HASH_PLACEHOLDER),
            hidden=Raw(_HIDDEN_PLACEHOLDER),
        )
        # Traefik reads its static configuration once: another one needs another container.
        return self._service(PROXY, PROXY_SERVICE, text, also=static)

    def _workspace(self, workspace: Workspace) -> Raw:
        network = self.places[f"ws-{workspace.name}"]
        source = self.project.source_of(workspace)
        setup = self._setup(workspace) if workspace.setup else None
        if workspace.source and workspace.source.git:
            path = os.path.normpath(self.folder / self.project.clones / workspace.name)
            self.clones[source_address(workspace.name)] = DesiredClone(
                workspace.name, path, workspace.source.git, workspace.source.branch
            )
        text = self.templates.get_template("workspace.yaml.j2").render(
            workspace=workspace,
            command=setup.before(workspace.command) if setup else workspace.command,
            setup=setup,
            network=network,
            build=_escaped(workspace.build) if workspace.build else None,
            context=self._host_path(escape(workspace.build.context)) if workspace.build else None,
            source=self._host_path(source) if source else None,
            # An unknown user has none of its own.
            home=None if workspace.user or not source or "HOME" in workspace.env else "/tmp",
            env_files=[self._host_path(path) for path in workspace.env_file],
            files=[*self._secrets(workspace.secrets), *_sockets(workspace.allow)],
            allow=workspace.allow,
            capabilities=_capabilities(workspace.allow),
            volumes=self._volumes(workspace.name, workspace.own_volumes),
            port=WORKSPACE_PORT,
            holder=companion_service(workspace.name, HOLDER) if workspace.services else None,
            companions=[
                (companion_service(workspace.name, name), _condition(companion))
                for name, companion in sorted(workspace.services.items())
            ],
            hash=Raw(_HASH_PLACEHOLDER),
            hidden=Raw(_HIDDEN_PLACEHOLDER),
        )
        content = self.contents.get(workspace.image)
        if workspace.build and content:
            self._build(workspace.image, workspace.build, content)
        path = f"{ROUTES_FOLDER}/{workspace.name}.yaml"
        self.files[path] = self.templates.get_template("traefik/route.yaml.j2").render(
            workspace=workspace,
            rule=" || ".join(f"Host(`{host}`)" for host in workspace.host_names),
            entries=[WEB, WEBSECURE] if self.project.proxy.https else [WEB],
            auth=f"{workspace.name}_auth",  # no workspace has such a name
            users=_users(workspace),
            certificates=self._certificates_of(workspace),
            url=f"http://{network.workspace_address}:{WORKSPACE_PORT}",
        )
        self.routes[route_address(workspace.name)] = path
        return self._service(workspace_address(workspace.name), workspace.name, text)

    def _companions(self, workspace: Workspace) -> list[Raw]:
        """What shares the workspace's localhost, and before it what holds that."""
        holder = companion_service(workspace.name, HOLDER)
        texts = {
            HOLDER: self.templates.get_template("localhost.yaml.j2").render(
                workspace=workspace,
                service=holder,
                companion=HOLDER,
                network=self.places[f"ws-{workspace.name}"],
                port=WORKSPACE_PORT,
                hash=Raw(_HASH_PLACEHOLDER),
                hidden=Raw(_HIDDEN_PLACEHOLDER),
            )
        }
        for name, companion in sorted(workspace.services.items()):
            texts[name] = self.templates.get_template("companion.yaml.j2").render(
                workspace=workspace,
                name=name,
                companion=companion,
                service=companion_service(workspace.name, name),
                healthcheck=_healthcheck(companion.healthcheck) if companion.healthcheck else None,
                holder=holder,
                volumes=self._volumes(workspace.name, workspace.volumes_of(name)),
                files=[*self._secrets(companion.secrets), *_sockets(companion.allow)],
                allow=companion.allow,
                capabilities=_capabilities(companion.allow),
                hash=Raw(_HASH_PLACEHOLDER),
                hidden=Raw(_HIDDEN_PLACEHOLDER),
            )
        return [
            self._service(
                companion_address(workspace.name, name),
                companion_service(workspace.name, name),
                text,
            )
            for name, text in texts.items()
        ]

    def _build(self, image: str, build: Build, content: str) -> None:
        context = os.path.normpath(self.folder / build.context)
        self.builds[image] = DesiredBuild(
            context,
            os.path.normpath(Path(context) / build.dockerfile),
            build.target,
            build.args,
            build_repository(self.project.name),
            content,
        )

    def _network(self, place: NetworkPlace) -> Raw:
        text = self.templates.get_template("network.yaml.j2").render(
            network=place, hash=Raw(_HASH_PLACEHOLDER)
        )
        # Its text is its definition, spaces aside: to read thousands back takes too long.
        hash_ = _hash(text, {place.key: text.split()}, f"network {place.key}")
        self.networks[network_address(place.key)] = DesiredNetwork(
            place.key, place.subnet, hash_, place.internal
        )
        return _with_hash(text, hash_)

    def _seen(self) -> str:
        routes = "".join(self.files[path] for path in sorted(self.routes.values()))
        return self.templates.get_template("traefik/seen.yaml.j2").render(
            service=PROXY_SERVICE,
            host=ROUTES_HOST,
            rule=f"Host(`{ROUTES_HOST}`)",
            header=ROUTES_HEADER,
            digest=hashlib.sha256(routes.encode()).hexdigest()[:_HASH_LENGTH],
            dashboard="dashboard_",  # no workspace has such a name
            certificates=self._own_certificates(),
        )

    def _certificates_of(self, workspace: Workspace) -> list[CertificatePlace]:
        """Those that dual makes for the hosts of a workspace, and keeps."""
        hosts = self.project.certified_hosts(workspace)
        address = certificate_address(workspace.name)
        self.certificates |= {host: DesiredCertificate(address, host) for host in hosts}
        return [_certificate_place(host) for host in hosts]

    def _own_certificates(self) -> list[CertificatePlace]:
        """The user's own; and, though nothing is served with them, the roots of an authority."""
        proxy = self.project.proxy
        files = {f"own-{n}": (own.cert, own.key) for n, own in enumerate(proxy.certificates)}
        served = [_certificate_place(name) for name in files]
        if proxy.acme and proxy.acme.roots:
            files[_ACME_ROOTS] = proxy.acme.roots, ""
        address = certificate_address(PROXY_SERVICE)
        for name, paths in files.items():
            cert, key = (self._own_path(path) for path in paths)
            self.certificates[name] = DesiredCertificate(address, name, cert, key)
        return served

    def _own_path(self, path: str) -> str:
        return os.path.normpath(self.folder / Path(path).expanduser()) if path else ""

    def _secrets(self, secrets: Mapping[str, str]) -> list[FilePlace]:
        return [
            FilePlace(self._host_path(path), f"{SECRETS_INSIDE}/{name}")
            for name, path in sorted(secrets.items())
        ]

    def _volumes(self, workspace: str, targets: Mapping[str, str]) -> list[VolumePlace]:
        volumes = [
            VolumePlace(f"{workspace}--{name}", workspace, target)
            for name, target in targets.items()
        ]
        self.volumes += volumes
        return volumes

    def _setup(self, workspace: Workspace) -> SetupPlace:
        if SETUP_FILE not in self.files:
            self.files[SETUP_FILE] = self.templates.get_template("setup.sh.j2").render(
                inside=Raw(SETUP_INSIDE),
                begins=Raw(BEGINS),
                succeeded=Raw(SUCCEEDED),
                failed=Raw(FAILED),
            )
        folder = self._host_path(str(SetupFolder.of(Path(), workspace.name).path))
        return SetupPlace(SETUP_INSIDE, f"./{SETUP_FILE}", folder)

    def _allowed(self, address: str) -> Collection[str]:
        """What ``allow`` names for the container with this address."""
        workspace = self.project.workspaces.get(workspace_of(address))
        if workspace is None:
            return ()
        _, is_companion, name = address.partition("/")
        if not is_companion:
            return workspace.allow
        return workspace.services[name].allow if name in workspace.services else ()

    def _host_path(self, path: str) -> str:
        """A path of dual.yaml as Compose must read it: relative to the rendered file."""
        if path.startswith(("/", "~")) or starts_with_reference(path):
            return path
        here = escape(os.path.relpath(self.folder, self.output))
        relative = os.path.normpath(f"{here}/{path}")
        return relative if relative.startswith(".") else f"./{relative}"

    def _service(self, address: str, service: str, text: str, also: str = "") -> Raw:
        """Read a rendered service back: note what it amounts to, and put the records in."""
        definition = _parsed(text, service)
        # The proxy is attached to networks as it runs, which no label could follow. They are
        # compared one by one.
        kept = {k: v for k, v in definition.items() if address != PROXY or k != "networks"}
        hash_ = _hash(text, kept, f"service {service}", also)
        try:
            fields, hidden = desired_fields(
                service, definition, self.output, self.variables, self.project.name
            )
        except InterpolationError as error:
            raise DualError(
                f"{address} can't be rendered",
                why=str(error),
                mend="set it in the environment or in the .env file beside dual.yaml",
            ) from error
        except ValueError:
            # What Python says of it would quote the value, which may be a secret.
            raise DualError(
                f"{address} can't be rendered",
                why="with its variables filled in, a limit is no number, or its command no words",
                mend="check the variables that its resources and its command refer to",
            ) from None
        except OSError as error:
            raise DualError(
                f"{address} can't be rendered",
                why=f"a file of its env_file can't be read: {error.strerror}",
                mend="make it readable, or name another",
            ) from error
        except (KeyError, TypeError, AttributeError) as error:
            raise DualError(
                f"The template of service {service} renders to a form that dual can't compare",
                why=f"{type(error).__name__}: {error}",
                mend=f"write it as the shipped one does, or remove it from {OVERRIDES_FOLDER}",
            ) from error
        if content := self.contents.get(str(fields["image"])):
            fields = {**fields, "build": content}
        self.containers[address] = DesiredContainer(service, hash_, definition, fields, hidden)
        allowed = self._allowed(address)
        for breach in seal.breaches(definition, fields, allowed):
            if breach.grant or address != PROXY:  # which alone publishes
                raise _unsealed(address, breach)
        recorded = to_yaml(", ".join(recorded_hidden(definition, hidden)))
        return _with_hash(text.replace(_HIDDEN_PLACEHOLDER, recorded), hash_)


def _unsealed(address: str, breach: seal.Breach) -> DualError:
    mend = f"if it must be so, name it in dual.yaml: allow: [{breach.grant}]"
    if not breach.grant:
        mend = "leave it out: only the proxy publishes"
    return InvalidError(f"{address} is not sealed", why=breach.what, mend=mend)


def _escaped(build: Build) -> Build:
    """How to build, for Compose to read."""
    return build.model_copy(
        update={
            "dockerfile": escape(build.dockerfile),
            "target": escape(build.target) if build.target is not None else None,
            "args": {name: escape(value) for name, value in build.args.items()},
        }
    )


def _capabilities(allow: Collection[str]) -> list[str]:
    return [*seal.CAPABILITIES, *sorted(seal.KNOWN_CAPABILITIES.intersection(allow))]


def _sockets(allow: Collection[str]) -> list[FilePlace]:
    return [FilePlace(seal.SOCKET, seal.SOCKET, read_only=False)] * (seal.DOCKER_SOCKET in allow)


def _users(workspace: Workspace) -> list[str]:
    users = workspace.auth.users if workspace.auth else {}
    return [f"{name}:{hash_}" for name, hash_ in sorted(users.items())]


def _certificate_place(name: str) -> CertificatePlace:
    return CertificatePlace(
        f"{CERTIFICATES_INSIDE}/{name}.pem", f"{CERTIFICATES_INSIDE}/{name}.key"
    )


def _condition(companion: Companion) -> str:
    """What Compose waits for, of a companion, before it starts the workspace."""
    return "service_healthy" if companion.healthcheck else "service_started"


def _healthcheck(check: Healthcheck) -> Mapping[str, Any]:
    times = {"interval": check.interval, "timeout": check.timeout}
    if check.start_period is not None:
        times["start_period"] = check.start_period
    shown = {key: format_duration(value) for key, value in times.items()}
    return {"test": check.test, **shown, "retries": check.retries}


def _parsed(text: str, service: str) -> dict[str, Any]:
    """What a template rendered to: the definition of one service."""
    try:
        definition = load_yaml(text)[service]
    except (yaml.YAMLError, ValueError, KeyError, TypeError) as error:
        raise DualError(
            f"The template of service {service} does not render to a service",
            why=str(error),
            mend=f"compare your template in {OVERRIDES_FOLDER} with the shipped one",
        ) from error
    if not isinstance(definition, dict):
        raise DualError(f"The template of service {service} renders to no map of keys")
    return definition


def _hash(text: str, definition: Mapping[str, Any], what: str, also: str = "") -> str:
    """The hash of a definition, and of ``also``; the text must leave room for it."""
    if _HASH_PLACEHOLDER not in text:
        raise DualError(
            f"The template of {what} leaves out the label dev.dual.hash",
            why="the label records what was applied: without it, no plan would be empty",
            mend="add to its labels: dev.dual.hash: {{ hash }}",
        )
    return digest(definition, also)


def _with_hash(text: str, hash_: str) -> Raw:
    return Raw(text.replace(_HASH_PLACEHOLDER, f'"{hash_}"').rstrip("\n"))


def allocate_subnets(
    project: str, pool: str, keys: Iterable[str], given: Mapping[str, str]
) -> dict[str, str]:
    """A /29 of the pool for each network key.

    One given before stays, as long as it lies in the pool and nobody else has it. A new one
    goes where the hash of project and key points, or to the next free place: so it is the
    same on every machine, and two branches that each add a workspace seldom collide. Needs
    a pool with room for all.
    """
    first, size = _range(pool)
    wanted = sorted(set(keys))
    places: dict[str, int] = {}
    taken: set[int] = set()
    for key in wanted:
        place = _place(given.get(key), first, size)
        if place is not None and place not in taken:
            places[key] = place
            taken.add(place)
    for key in (key for key in wanted if key not in places):
        digest = hashlib.sha256(f"{project}/{key}".encode()).digest()
        place = int.from_bytes(digest[:8]) % size
        while place in taken:
            place = (place + 1) % size
        places[key] = place
        taken.add(place)
    step = 2 ** (32 - SUBNET_PREFIX)
    return {
        key: f"{ipaddress.IPv4Address(first + place * step)}/{SUBNET_PREFIX}"
        for key, place in places.items()
    }


def _range(pool: str) -> tuple[int, int]:
    network = ipaddress.IPv4Network(pool)
    return int(network.network_address), 2 ** (SUBNET_PREFIX - network.prefixlen)


def _place(subnet: str | None, first: int, size: int) -> int | None:
    try:
        network = ipaddress.IPv4Network(subnet or "")
    except ValueError:
        return None
    place, rest = divmod(int(network.network_address) - first, 2 ** (32 - SUBNET_PREFIX))
    good = network.prefixlen == SUBNET_PREFIX and rest == 0 and 0 <= place < size
    return place if good else None
