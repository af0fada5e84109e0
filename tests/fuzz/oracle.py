"""What must hold of one dual.yaml, whatever stands in it.

It is refused with exit code 65 and positions, or it renders to files whose parsed structure is
the one that the models say: worked out here once more from the models, and from no template.

When a template gains a key, it is added here in the function of its kind of service
(:func:`_workspace`, :func:`_companion`, :func:`_holder`, :func:`_proxy`) or file (:func:`_route`),
or in one of the tables above them.
"""

from __future__ import annotations

import io
import ipaddress
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from importlib import resources
from pathlib import Path
from types import CodeType
from typing import Any, Literal
from unittest.mock import patch

import jinja2
import jsonschema
import yaml

from dual_iac import cli
from dual_iac.errors import DualError, InvalidError, SpecError
from dual_iac.interpolation import InterpolationError, substitute
from dual_iac.model import Companion, Project, Resources, Workspace
from dual_iac.render import render, shipped_templates, template_environment
from dual_iac.seal import CAPABILITIES, GRANTS
from dual_iac.spec import load_project, parse_project
from dual_iac.state import Desired

SECONDS = 2.0
"""The processor time that one input may take."""

MARKER = "s3cret-that-stands-outside"
"""What the file beside the input's folder holds."""

VARIABLES = {
    "HOME": str(Path.home()),
    "PATH": os.environ.get("PATH", ""),
    "TAG": "1.2",
    "EMPTY": "",
    "LIMIT": "64m",
    "WORDS": "one two 'three four'",
    "BRACES": "{{ 7*7 }}",
    "DOLLARS": "$X ${HOME} $(id) `id`",
}
"""What ``${VAR}`` sees."""


class Broken(AssertionError):  # noqa: N818 - what it says, not what it is
    """Something that must hold does not."""


@dataclass(frozen=True)
class Outcome:
    """What came of an input.

    ``refused``: not a valid dual.yaml. ``unset``: valid, but a variable that it refers to is
    missing, or doesn't fit. ``rendered``: the project and what it renders to.
    """

    kind: Literal["refused", "unset", "rendered"]
    seconds: float
    project: Project | None = None
    desired: Desired | None = None


@dataclass(frozen=True)
class Folder:
    """Where inputs stand: a folder with a dual.yaml, and a file beside it that is not theirs."""

    path: Path

    @classmethod
    def made_in(cls, place: Path) -> Folder:
        path = place.resolve() / "project"
        path.mkdir()
        (path.parent / "outside.env").write_text(f"OUTSIDE={MARKER}\n")
        (path / ".env.local").write_text("FROM_FILE=yes\n")
        return cls(path)

    @property
    def spec(self) -> Path:
        return self.path / "dual.yaml"

    @property
    def output(self) -> Path:
        return self.path / "compose"


def check(data: bytes, folder: Folder) -> Outcome:
    """Try one input in its folder; raises :class:`Broken` with what is wrong."""
    folder.spec.write_bytes(data)
    with _watch.over(folder.path):
        began = time.process_time()
        outcome = _outcome(data, folder)
        seconds = time.process_time() - began
    _hold(seconds <= SECONDS, f"it took {seconds:.1f} s of processor time")
    if outcome.project is not None and outcome.desired is not None:
        check_rendered(outcome.project, outcome.desired, folder)
    return Outcome(outcome.kind, seconds, outcome.project, outcome.desired)


def _outcome(data: bytes, folder: Folder) -> Outcome:
    try:
        project = load_project(folder.spec)
    except SpecError as error:
        _check_positions(error, data)
        return Outcome("refused", 0)
    except Exception as error:
        raise Broken(f"load_project raised {_told(error)}") from error
    _watch.allow(_env_files(project, folder))
    try:
        desired = render(project, folder.path, environment=VARIABLES)
    except InvalidError as error:
        # Only variables can keep from sight where a path leads until it is rendered.
        _hold(error.exit_code == 65 and "$" in data.decode(), f"render raised {error.summary}")
        return Outcome("refused", 0)
    except DualError as error:
        # Nothing but variables keeps a valid dual.yaml from rendering.
        _hold(
            re.fullmatch(r"(proxy|(workspace|companion)\.\S+) can't be rendered", error.summary)
            is not None,
            f"render raised {error.summary}: {error.why}",
        )
        # Files of variables are looked for before, where a dual.yaml is loaded for this machine.
        of_a_file = error.why.startswith("a file of its env_file can't be read")
        needed = of_a_file or "$" in data.decode()
        _hold(needed, f"without any variable: {error.summary}: {error.why}")
        return Outcome("unset", 0)
    except Exception as error:
        raise Broken(f"render raised {_told(error)}") from error
    return Outcome("rendered", 0, project, desired)


def _told(error: BaseException) -> str:
    frame, line = [*traceback.walk_tb(error.__traceback__)][-1]
    place = f"{Path(frame.f_code.co_filename).name}:{line}"
    return f"{type(error).__name__} at {place}: {str(error)[:200]}"


def _hold(condition: bool, what: str) -> None:
    if not condition:
        raise Broken(what)


def _same(found: Any, expected: Any, where: str) -> None:
    """Equality that tells where two structures part."""
    if isinstance(found, dict) and isinstance(expected, dict):
        _hold(
            found.keys() == expected.keys(),
            f"{where}: keys {sorted(map(str, found.keys() ^ expected.keys()))[:5]} differ",
        )
        for key, value in expected.items():
            _same(found[key], value, f"{where}.{key}")
    else:
        _hold(
            type(found) is type(expected) and found == expected,
            f"{where}: {str(found)[:200]!r} is not {str(expected)[:200]!r}",
        )


def _check_positions(error: SpecError, data: bytes) -> None:
    _hold(error.exit_code == 65 and bool(error.problems), "refused without a problem")
    text = data.decode("utf-8-sig", errors="replace")
    lines = re.split(r"\r\n|[\n\r\x85\u2028\u2029]", text)
    for problem in error.problems:
        inside = 1 <= problem.line <= len(lines)
        inside = inside and 1 <= problem.column <= len(lines[problem.line - 1]) + 1
        place = f"{problem.line}:{problem.column}"
        _hold(inside, f"{problem.what[:100]!r} is said to stand at {place}, which is nowhere")
        _hold(bool(problem.what), f"nothing is said of {place}")
    _hold(MARKER not in str(error.problems), "a message tells what stands outside")


# ── what runs and what is read ──────────────────────────────────────────────────────────────

_RUNS = ("subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system", "pty.")
_CONNECTS = ("socket.connect", "socket.bind", "socket.getaddrinfo", "urllib.")
_WRITES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.symlink", "os.link", "shutil.")


class _Watch:
    """Python's audit events, while an input is looked at: what is opened, run or connected to."""

    def __init__(self) -> None:
        self._folders: tuple[str, ...] | None = None
        self._files: frozenset[str] = frozenset()
        self._hooked = False

    @contextmanager
    def over(self, folder: Path) -> Iterator[None]:
        """Nothing may be read but in ``folder``, the templates, and Python itself."""
        _warm_up()
        if not self._hooked:
            sys.addaudithook(self._audit)
            self._hooked = True
        own = Path(cli.__file__).parents[1]
        python = (sys.prefix, sys.base_prefix, str(own), str(shipped_templates()))
        self._folders = (str(folder), *python)
        try:
            with patch.object(jinja2.Environment, "compile", _compiled):
                yield
        finally:
            self._folders, self._files = None, frozenset()

    def allow(self, files: Collection[Path]) -> None:
        """These as well: the files of variables that dual.yaml names."""
        self._files = frozenset(map(str, files))

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._folders is None:
            return
        if event.startswith((*_RUNS, *_CONNECTS, *_WRITES)):
            raise Broken(f"it ran {event} {arguments!r}"[:300])
        if event == "open" and not isinstance(arguments[0], int):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if path not in self._files and not path.startswith(
                tuple(f"{each}/" for each in self._folders)
            ):
                raise Broken(f"it opened {path}"[:300])


_compile = jinja2.Environment.compile


@cache
def _compiled_once(source: str, name: str, filename: str) -> CodeType:
    return _compile(template_environment(Path("/x")), source, name, filename)


def _compiled(_: Any, source: str, name: str, filename: str) -> CodeType:
    """Templates compiled once for all inputs: half of the time of each."""
    return _compiled_once(source, name, filename)


_watch = _Watch()  # an audit hook stays for as long as the process


@cache
def _warm_up() -> None:
    """Import all that is imported when first needed, and keep what an input must not change."""
    _harmless()


@cache
def _harmless() -> Mapping[str, str]:
    """The files of a project with a setup and nothing else to say."""
    text = "version: 1\nproject: x\nworkspaces: {x: {image: x, command: x, setup: x}}\n"
    return render(parse_project(text, ""), Path("/x"), environment={}).files


def _env_files(project: Project, folder: Folder) -> list[Path]:
    paths = []
    for workspace in project.enabled:
        for text in workspace.env_file:
            try:
                path = substitute(text, VARIABLES)
            except InterpolationError:
                continue
            paths.append(Path(os.path.realpath(_on_host(path, folder.path))))
    return paths


def _on_host(path: str, folder: Path) -> str:
    """A path as Compose takes it, that starts from ``folder``."""
    expanded = f"{VARIABLES['HOME']}/{path[1:]}" if path.startswith("~") else path
    return os.path.normpath(folder / expanded)


# ── what is rendered ────────────────────────────────────────────────────────────────────────


class _Strict(yaml.CSafeLoader):
    """Two keys that are one are an error, as they are for Compose and Traefik."""


def _mapping(loader: _Strict, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    _hold(len(keys) == len(set(map(str, keys))), f"a key stands twice among {keys!r}"[:300])
    return loader.construct_mapping(node, deep=True)


_Strict.add_constructor("tag:yaml.org,2002:map", _mapping)


def read(text: str, name: str) -> Any:
    """A rendered file's structure."""
    try:
        return yaml.load(text, Loader=_Strict)
    except yaml.YAMLError as error:
        raise Broken(f"{name} is no YAML: {str(error)[:200]}") from error


def check_rendered(project: Project, desired: Desired, folder: Folder) -> None:
    """Everything that is rendered is what the project says, and nothing else is."""
    files = desired.files
    routes = {f"traefik/routes/{workspace.name}.yaml" for workspace in project.enabled}
    fixed = {"compose.yaml", "traefik/traefik.yaml", "traefik/routes/traefik.yaml"}
    setup = {"setup.sh"} if any(workspace.setup for workspace in project.enabled) else set()
    _hold(files.keys() == fixed | routes | setup, f"other files: {sorted(files)}"[:300])
    for name, text in files.items():
        _hold(MARKER not in text, f"{name} has what stands outside")
        _hold("\0" not in text, f"{name} has a NUL")
        if name.startswith("traefik/"):
            _hold("{{" not in text, f"{name} is a Go template that does something")
    for name in setup:
        _hold(files[name] == _harmless()[name], f"{name} depends on dual.yaml")

    compose = read(files["compose.yaml"], "compose.yaml")
    error = next(compose_schema().iter_errors(compose), None)
    _hold(error is None, f"not as Compose has it: {error and error.message[:200]}")
    _same(_without_records(compose), _without_records(_compose(project, compose, folder)), "")
    for workspace in project.enabled:
        route = read(files[f"traefik/routes/{workspace.name}.yaml"], workspace.name)
        address = _address(compose, f"ws-{workspace.name}", 2)
        _same(route, _route(project, workspace, address), f"route of {workspace.name}")
    seen = read(files["traefik/routes/traefik.yaml"], "the route of the proxy")
    _same(seen, _seen(project, seen), "the route of the proxy")
    static = read(files["traefik/traefik.yaml"], "the proxy's configuration")
    _same(static, _static(project, _address(compose, "edge", 3)), "the proxy's configuration")
    _check_networks(project, compose)


@cache
def compose_schema() -> Any:
    vendored = resources.files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"
    schema = json.loads(vendored.read_text("utf-8"))
    return jsonschema.validators.validator_for(schema)(schema)


RECORDS = {
    "dev.dual.hash": re.compile(r"[0-9a-f]{16}"),
    # Names of fields, which have the names of variables and of places in them.
    "dev.dual.hidden": re.compile(r"[^\0$\n]*"),
}
"""Labels with what dual itself notes, and what they may look like."""


def _without_records(structure: Any) -> Any:
    """Without the labels that are records, whose form is checked."""
    if isinstance(structure, list):
        return [_without_records(each) for each in structure]
    if not isinstance(structure, dict):
        return structure
    kept = {}
    for key, value in structure.items():
        if key in RECORDS:
            looks = isinstance(value, str) and RECORDS[key].fullmatch(value)
            _hold(bool(looks), f"{key} is {value!r}"[:200])
        else:
            kept[key] = _without_records(value)
    return kept


def _compose(project: Project, found: Any, folder: Folder) -> dict[str, Any]:
    """The compose.yaml that a project amounts to. Of ``found``, only addresses are taken."""
    networks = ["edge", *(f"ws-{workspace.name}" for workspace in project.enabled)]
    services = {"traefik": _proxy(project, networks, found)}
    for workspace in project.enabled:
        services[workspace.name] = _workspace(project, workspace, found, folder)
        for name, companion in workspace.services.items():
            service = _companion(project, workspace, name, companion, folder)
            services[f"{workspace.name}--{name}"] = service
        if workspace.services:
            services[f"{workspace.name}--localhost"] = _holder(project, workspace, found)
    expected: dict[str, Any] = {
        "name": project.name,
        "services": services,
        "networks": {key: _network(project, key, found) for key in networks},
    }
    if volumes := _volumes(project):
        expected["volumes"] = volumes
    return expected


EVERY = {"restart": "unless-stopped"}
"""What every service has."""

SEALED = {"read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"]}
"""What dual's own services have besides."""


def _rights(allow: Collection[str]) -> dict[str, Any]:
    """What a workspace or a companion may do, by what its ``allow`` names."""
    more = [each for each in allow if each not in GRANTS and each[0] not in "/~"]
    options = ["seccomp:unconfined", "apparmor:unconfined"] if "unconfined" in allow else []
    if "new-privileges" not in allow:
        options.insert(0, "no-new-privileges:true")
    caps = {"cap_drop": ["ALL"], "cap_add": [*CAPABILITIES, *sorted(set(more))]}
    rights: dict[str, Any] = {"privileged": True} if "privileged" in allow else caps
    rights |= {"security_opt": options} if options else {}
    return rights | {kind: "host" for kind in ("pid", "ipc") if f"host-{kind}" in allow}


def _files(
    secrets: Mapping[str, str], allow: Collection[str], folder: Folder
) -> list[dict[str, Any]]:
    """What is mounted of the host's single files."""
    found = [
        (_path(path, folder), f"/run/secrets/{k}", True) for k, path in sorted(secrets.items())
    ]
    if "docker-socket" in allow:
        found.append(("/var/run/docker.sock", "/var/run/docker.sock", False))
    return [_bind(source, target) | {"read_only": only} for source, target, only in found]


RECORD = {"dev.dual.hash": "0" * 16, "dev.dual.hidden": ""}


def _labels(project: Project, workspace: Workspace | None = None, **more: str) -> dict[str, str]:
    labels = {"dev.dual.project": project.name, **RECORD}
    if workspace is not None:
        labels["dev.dual.workspace"] = workspace.name
    return labels | {f"dev.dual.{key}": value for key, value in more.items()}


def _proxy(project: Project, networks: list[str], found: Any) -> dict[str, Any]:
    proxy = project.proxy
    mounts: list[Any] = [_bind("./traefik", "/etc/traefik", read_only=True)]
    if proxy.https:
        live = "../.dual/tls/live"
        mounts.append(_bind(live, "/certificates", create=True, read_only=True))
    if proxy.acme:
        mounts.append(_volume("traefik--acme", "/acme"))
    variables = dict(proxy.acme.env) if proxy.acme else {}
    return {
        **EVERY,
        **SEALED,
        "image": proxy.image,
        "user": "65532:65532",
        "pids_limit": 4096,
        "sysctls": {"net.ipv4.ip_forward": "0"},
        "ports": [
            {"target": target, "published": str(port), "host_ip": bind, "protocol": "tcp"}
            for _, target, port, bind in _entries(project)
        ],
        "networks": {key: {"ipv4_address": _address(found, key, 3)} for key in networks},
        "volumes": mounts,
        "labels": _labels(project),
        **({"environment": variables} if variables else {}),
    }


def _entries(project: Project) -> list[tuple[str, int, int, str]]:
    """Where the proxy listens: names, its own ports, those of the host, and addresses there."""
    proxy = project.proxy
    entries = [("web", 8000, proxy.http, proxy.bind)]
    if proxy.https:
        entries.append(("websecure", 8443, proxy.https, proxy.bind))
    if proxy.dashboard:
        entries.append(("dashboard", 8080, proxy.dashboard_port, "127.0.0.1"))
    return entries


def _static(project: Project, address: str) -> dict[str, Any]:
    """Traefik's static configuration: of a plain one, what the project's proxy changes."""
    expected: Any = read(_harmless()["traefik/traefik.yaml"], "")
    proxy, plain = project.proxy, expected["entryPoints"]["web"]
    expected["entryPoints"] = {}
    for name, target, _, _ in _entries(project):
        scheme = "https" if name == "websecure" else "http"
        http = {**plain["http"], "middlewares": [f"from_{scheme}@file"]}
        if scheme == "https":
            http["tls"] = {"certResolver": "acme"} if proxy.acme else {}
        entry = {**plain, "address": f"{address}:{target}", "http": http}
        expected["entryPoints"][name] = entry
    if proxy.dashboard:
        expected["api"] = {"dashboard": True, "insecure": False, "disableDashboardAd": True}
    if proxy.access_log:
        names = (
            "StartUTC ClientHost RequestHost RequestMethod RequestProtocol RequestScheme "
            "RouterName DownstreamStatus DownstreamContentSize Duration"
        )
        fields = {
            "defaultMode": "drop",
            "names": dict.fromkeys(names.split(), "keep"),
            "headers": {"defaultMode": "drop"},
        }
        expected["accessLog"] = {"format": "json", "fields": fields}
    if acme := proxy.acme:
        challenges: dict[str, dict[str, Any]] = {
            "http": {"httpChallenge": {"entryPoint": "web"}},
            "tls": {"tlsChallenge": {}},
            "dns": {"dnsChallenge": {"provider": acme.provider}},
        }
        resolver: dict[str, Any] = {
            "email": acme.email,
            "storage": "/acme/acme.json",
            "caServer": acme.server,
            **challenges[acme.challenge],
        }
        if acme.roots:
            resolver["caCertificates"] = ["/certificates/acme-roots.pem"]
        expected["certificatesResolvers"] = {"acme": {"acme": resolver}}
    return dict(expected)


def _workspace(
    project: Project, workspace: Workspace, found: Any, folder: Folder
) -> dict[str, Any]:
    service: dict[str, Any] = {
        **EVERY,
        "image": workspace.image,
        "init": True,
        **_rights(workspace.allow),
        **_limits(workspace.resources),
        "labels": _labels(project, workspace),
    }
    own = {"hostname": workspace.name, **_attached(workspace, found)}
    service |= _joined(workspace) if workspace.services else own
    source = project.source_of(workspace)
    environment = dict(workspace.env)
    if workspace.build:
        build = workspace.build
        built: dict[str, Any] = {
            "context": _path(_escaped(build.context), folder),
            "dockerfile": _escaped(build.dockerfile),
        }
        if build.target is not None:
            built["target"] = _escaped(build.target)
        if build.args:
            built["args"] = {name: _escaped(value) for name, value in build.args.items()}
        service["build"] = built
    if workspace.command is not None:
        setup = ["sh", "/dual/setup.sh"] if workspace.setup else []
        text = isinstance(workspace.command, str)
        service["command"] = (
            " ".join([*setup, str(workspace.command)]) if text else [*setup, *workspace.command]
        )
    if workspace.user is not None:
        service["user"] = workspace.user
    elif source is not None:
        service["user"] = "${DUAL_USER:-}"
        environment.setdefault("HOME", "/tmp")
    if workspace.env_file:
        service["env_file"] = [{"path": _path(path, folder)} for path in workspace.env_file]
    if workspace.setup:
        environment["DUAL_SETUP"] = workspace.setup
    if environment:
        service["environment"] = environment
    mounts = []
    if source is not None:
        service["working_dir"] = "/workspace"
        mounts.append(_bind(_path(source, folder), "/workspace"))
    mounts += [_volume(f"{workspace.name}--{k}", v) for k, v in sorted(workspace.volumes.items())]
    if workspace.setup:
        mounts.append(_volume(f"{workspace.name}--_setup", "/dual/record"))
    mounts += _files(workspace.secrets, workspace.allow, folder)
    if workspace.setup:
        place = f"../.dual/setup/{workspace.name}"
        mounts += [
            _bind("./setup.sh", "/dual/setup.sh", read_only=True),
            _bind(f"{place}/asked", "/dual/asked", create=True, read_only=True),
            _bind(f"{place}/report", "/dual/report", create=True),
        ]
    if mounts:
        service["volumes"] = mounts
    return service


def _escaped(text: str) -> str:
    return text.replace("$", "$$")


def _attached(workspace: Workspace, found: Any) -> dict[str, Any]:
    """What holds a workspace's place on its network: itself, or the holder."""
    network = {f"ws-{workspace.name}": {"ipv4_address": _address(found, workspace, 2)}}
    closed = {"dns": ["192.0.2.1"], "dns_opt": ["timeout:1", "attempts:1"]}
    attached = {"expose": ["3000"], "networks": network}
    return attached if workspace.network.egress else attached | closed


def _joined(workspace: Workspace) -> dict[str, Any]:
    """What a workspace with companions has in the place of a network of its own."""
    waits = {f"{workspace.name}--localhost": {"condition": "service_started"}}
    for name, companion in workspace.services.items():
        condition = "service_healthy" if companion.healthcheck else "service_started"
        waits[f"{workspace.name}--{name}"] = {"condition": condition}
    return {"network_mode": f"service:{workspace.name}--localhost", "depends_on": waits}


def _companion(
    project: Project, workspace: Workspace, name: str, companion: Companion, folder: Folder
) -> dict[str, Any]:
    port = {} if companion.port is None else {"port": str(companion.port)}
    holder = f"{workspace.name}--localhost"
    service: dict[str, Any] = {
        **EVERY,
        "image": companion.image,
        "init": True,
        **_rights(companion.allow),
        **_limits(companion.resources),
        "network_mode": f"service:{holder}",
        "depends_on": {holder: {"condition": "service_started"}},
        "labels": _labels(project, workspace, companion=name, **port),
    }
    if companion.command is not None:
        text = isinstance(companion.command, str)
        service["command"] = companion.command if text else list(companion.command)
    if companion.user is not None:
        service["user"] = companion.user
    if companion.env:
        service["environment"] = dict(companion.env)
    mounts: list[Any] = [
        _volume(f"{workspace.name}--{name}---{key}", target)
        for key, target in sorted(companion.volumes.items())
    ]
    mounts += _files(companion.secrets, companion.allow, folder)
    if mounts:
        service["volumes"] = mounts
    if health := companion.healthcheck:
        test = health.test if isinstance(health.test, str) else list(health.test)
        service["healthcheck"] = {"test": test, "retries": health.retries}
        times = {"interval": health.interval, "timeout": health.timeout}
        if health.start_period is not None:
            times["start_period"] = health.start_period
        service["healthcheck"] |= {key: _duration(value) for key, value in times.items()}
    return service


def _holder(project: Project, workspace: Workspace, found: Any) -> dict[str, Any]:
    return {
        **EVERY,
        **SEALED,
        "image": project.network.holder,
        "command": ["tail", "-f", "/dev/null"],
        "hostname": workspace.name,
        "init": True,
        "user": "65534:65534",
        "pids_limit": 16,
        **_attached(workspace, found),
        "labels": _labels(project, workspace, companion="localhost"),
    }


def _network(project: Project, key: str, found: Any) -> dict[str, Any]:
    subnet = _subnet(found, key)
    closed = {f"ws-{each.name}" for each in project.enabled if not each.network.egress}
    inhibited = {"com.docker.network.bridge.inhibit_ipv4": "true"}
    return {
        **({"internal": True, "driver_opts": inhibited} if key in closed else {}),
        "ipam": {"config": [{"subnet": str(subnet), "ip_range": f"{subnet[4]}/30"}]},
        "labels": {"dev.dual.project": project.name, "dev.dual.hash": "0" * 16},
    }


def _volumes(project: Project) -> dict[str, Any]:
    """Of all workspaces, also those that don't run: their data stays."""
    volumes: dict[str, Any] = {}
    if project.proxy.acme:
        labels = {"dev.dual.project": project.name, "dev.dual.workspace": "traefik"}
        volumes["traefik--acme"] = {"labels": labels}
    for workspace in project.workspaces.values():
        keys = [*workspace.volumes, *(["_setup"] if workspace.setup else [])]
        for name, companion in workspace.services.items():
            keys += [f"{name}---{key}" for key in companion.volumes]
        labels = {"dev.dual.project": project.name, "dev.dual.workspace": workspace.name}
        volumes |= {f"{workspace.name}--{key}": {"labels": labels} for key in keys}
    return volumes


def _route(project: Project, workspace: Workspace, address: str) -> dict[str, Any]:
    name = workspace.name
    headers = {"X-Dual-Workspace": name, "X-Dual-Project": project.name}
    auth = _auth(workspace)
    router = {
        "rule": rule_of(workspace),
        "entryPoints": ["web", "websecure"] if project.proxy.https else ["web"],
        "middlewares": [name, *auth],
        "service": name,
    }
    certified = project.certified_hosts(workspace)
    certificates = [
        {"certFile": f"/certificates/{host}.pem", "keyFile": f"/certificates/{host}.key"}
        for host in certified
    ]
    return {
        "http": {
            "routers": {name: router},
            "middlewares": {name: {"headers": {"customResponseHeaders": headers}}, **auth},
            "services": {name: {"loadBalancer": {"servers": [{"url": f"http://{address}:3000"}]}}},
        },
        **({"tls": {"certificates": certificates}} if certificates else {}),
    }


def _auth(workspace: Workspace) -> dict[str, Any]:
    """The middleware that lets users pass, or none."""
    auth = workspace.auth
    if auth is None:
        return {}
    users = [f"{name}:{hashed}" for name, hashed in sorted(auth.users.items())]
    basic = {"users": users, "realm": workspace.name, "removeHeader": True}
    headers = list(auth.headers)
    asked = {
        "address": auth.forward,
        "trustForwardHeader": False,
        "authResponseHeaders": headers,
    }
    kind = {"basicAuth": basic} if auth.users else {"forwardAuth": asked}
    return {f"{workspace.name}_auth": kind}


def rule_of(workspace: Workspace) -> str:
    """Traefik's rule for the hosts of a workspace, and nothing else."""
    for host in workspace.host_names:
        _hold(re.fullmatch(r"[a-z0-9.-]+", host) is not None, f"the host {host!r}"[:200])
    return " || ".join(f"Host(`{host}`)" for host in workspace.host_names)


def _seen(project: Project, found: Any) -> dict[str, Any]:
    """The proxy's own: what tells what Traefik has read, and what is for all."""
    expected: Any = read(_harmless()["traefik/routes/traefik.yaml"], "")
    headers = expected["http"]["middlewares"]["traefik"]["headers"]["customResponseHeaders"]
    digest = "".join(re.findall(r"X-Dual-Routes': '([0-9a-f]{16})'", str(found)))
    headers["X-Dual-Routes"] = digest
    if project.proxy.dashboard:
        expected["http"]["routers"]["dashboard_"] = {
            "rule": "Host(`localhost`) || Host(`127.0.0.1`)",
            "entryPoints": ["dashboard"],
            "service": "api@internal",
        }
    if project.proxy.https:
        options = {"default": {"minVersion": "VersionTLS12", "sniStrict": True}}
        expected["tls"] = {"options": options}
        names = [f"own-{number}" for number, _ in enumerate(project.proxy.certificates)]
        own = [
            {"certFile": f"/certificates/{n}.pem", "keyFile": f"/certificates/{n}.key"}
            for n in names
        ]
        expected["tls"] |= {"certificates": own} if own else {}
    return dict(expected)


def _limits(resources: Resources) -> dict[str, Any]:
    limits = {
        "cpus": resources.cpus,
        "mem_limit": resources.memory,
        "pids_limit": resources.pids,
    }
    return {key: value for key, value in limits.items() if value is not None}


def _bind(source: str, target: str, *, create: bool = False, read_only: bool = False) -> Any:
    mount = {"type": "bind", "source": source, "target": target}
    return (
        mount | ({"read_only": True} if read_only else {}) | {"bind": {"create_host_path": create}}
    )


def _volume(key: str, target: str) -> dict[str, str]:
    return {"type": "volume", "source": key, "target": target}


def _path(path: str, folder: Folder) -> str:
    """A path of dual.yaml as it stands in compose/: absolute, a variable's, or relative."""
    if path.startswith(("/", "~")) or (path.startswith("$") and not path.startswith("$$")):
        return path
    relative = os.path.normpath(f"{os.path.relpath(folder.path, folder.output)}/{path}")
    return relative if relative.startswith(".") else f"./{relative}"


def _duration(value: Any) -> str:
    """In Compose's notation: seconds and their fractions, or whole minutes."""
    micros = value // timedelta(microseconds=1)
    if micros % 60_000_000 == 0:
        return f"{micros // 60_000_000}m"
    whole, part = divmod(micros, 1_000_000)
    return f"{whole}.{part:06}".rstrip("0").rstrip(".") + "s"


# ── addresses ───────────────────────────────────────────────────────────────────────────────


def _subnet(compose: Any, key: str) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(compose["networks"][key]["ipam"]["config"][0]["subnet"])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise Broken(f"network {key} has no subnet: {_told(error)}") from error


def _address(compose: Any, network: str | Workspace, number: int) -> str:
    key = network if isinstance(network, str) else f"ws-{network.name}"
    return str(_subnet(compose, key)[number])


def _check_networks(project: Project, compose: Any) -> None:
    pool = ipaddress.IPv4Network(project.network.pool)
    subnets = [_subnet(compose, key) for key in compose["networks"]]
    for subnet in subnets:
        inside = subnet.prefixlen == 29 and subnet.subnet_of(pool)
        _hold(inside, f"{subnet} is no /29 of {pool}")
    _hold(len(set(subnets)) == len(subnets), "two networks have one subnet")


# ── the command line ────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Said:
    code: int
    stdout: str
    stderr: str


def command(*arguments: str) -> Said:
    """``dual`` in this process."""
    stdout, stderr = io.StringIO(), io.StringIO()
    around = patch.dict(os.environ, VARIABLES)
    with redirect_stdout(stdout), redirect_stderr(stderr), around:
        try:
            code = cli.run(list(arguments))
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        except Exception as error:
            raise Broken(f"dual {' '.join(arguments)} raised {_told(error)}") from error
    said = Said(code, stdout.getvalue(), stderr.getvalue())
    control = re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", said.stderr)
    _hold(control is None, f"{control and control[0]!r} goes to the terminal: {_of(said)}")
    return said


def check_command_line(outcome: Outcome, folder: Folder) -> None:
    """What ``dual`` says of the input that :func:`check` looked at last."""
    file = ("-f", str(folder.spec))
    valid = command(*file, "validate", "--format", "json")
    # Folders that a valid dual.yaml names may be missing on this machine.
    _hold(valid.code == 65 or (valid.code == 0 and outcome.kind != "refused"), _of(valid))
    _hold("Traceback" not in valid.stderr, _of(valid))
    told = json.loads(valid.stdout)
    if valid.code == 65:
        first = told["error"]["problems"][0]
        _hold(first["line"] >= 1 and first["column"] >= 1, _of(valid))
        shown = command(*file, "validate")
        _hold(shown.code == 65 and re.search(r":\d+:\d+", shown.stderr) is not None, _of(shown))
        return
    out = ("--out", str(folder.path / "out"))
    rendered = command(*file, "render", *out)
    _hold(rendered.code == 0 or outcome.kind == "unset", _of(rendered))
    if rendered.code == 0:
        current = command(*file, "render", *out, "--check")
        _hold(current.code == 0, _of(current))
    strays = {each.name for each in folder.path.parent.iterdir()} - {"project", "outside.env"}
    _hold(not strays, f"written outside: {sorted(strays)}")


def _of(said: Said) -> str:
    return f"exit {said.code}: {said.stdout[:200]} {said.stderr[-500:]}"
