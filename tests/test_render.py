"""The compose project of a spec: its texts read back, its subnets, its templates."""

from __future__ import annotations

import ipaddress
import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dual_iac.errors import DualError, InvalidError
from dual_iac.output import read_rendered, subnets_of
from dual_iac.render import (
    NetworkPlace,
    Raw,
    allocate_subnets,
    render,
    shipped_templates,
    to_yaml,
)
from dual_iac.seal import CAPABILITIES
from dual_iac.spec import parse_project
from dual_iac.state import Desired, DesiredCertificate

FOLDER = Path("/home/ada/shop")
POOL = "10.213.0.0/16"

FULL = """\
version: 1
project: shop
proxy: {image: "traefik:v3.7.15", bind: 127.0.0.1, http: 3000, domain: localhost}
defaults:
  image: node:22-slim
  env: {NODE_ENV: development}
workspaces:
  main:
    source: {path: .}
    command: npm run dev
  feat-auth:
    source: {path: ../auth}
    hosts: [auth-review.localhost]
    command: [npm, run, "a b"]
    env: {FEATURE: auth, TOKEN: "${TOKEN:-none}", PASSED: }
    env_file: [.env.local, /etc/shop.env]
    volumes: {node_modules: /workspace/node_modules, cache: /cache}
    user: "1000:1000"
    resources: {cpus: 1.5, memory: 1g, pids: 512}
  bare: {}
  off: {enabled: false, volumes: {data: /data}}
"""


def rendered(text: str, folder: Path = FOLDER, **options: Any) -> Desired:
    return render(parse_project(text, "dual.yaml"), folder, environment={}, **options)


def one(fields: str, folder: Path = FOLDER, **options: Any) -> Desired:
    """The project of a single workspace ``a``."""
    head = "version: 1\nproject: shop\nworkspaces:\n"
    return rendered(f"{head}  a: {{image: node, {fields}}}\n", folder, **options)


def compose(desired: Desired) -> dict[str, Any]:
    data = yaml.safe_load(desired.files["compose.yaml"])
    assert isinstance(data, dict)
    return data


@cache
def compose_schema() -> Any:
    vendored = resources.files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"
    return json.loads(vendored.read_text("utf-8"))


# ── the whole of it ─────────────────────────────────────────────────────────────────────────


def test_the_files() -> None:
    assert sorted(rendered(FULL).files) == [
        "compose.yaml",
        "traefik/routes/bare.yaml",
        "traefik/routes/feat-auth.yaml",
        "traefik/routes/main.yaml",
        "traefik/routes/traefik.yaml",
        "traefik/traefik.yaml",
    ]


def test_the_same_spec_gives_the_same_bytes() -> None:
    assert rendered(FULL) == rendered(FULL)


def test_the_order_of_keys_does_not_matter() -> None:
    data = yaml.load(FULL, Loader=yaml.BaseLoader)
    in_order = yaml.safe_dump(data, sort_keys=False)
    data["workspaces"] = dict(reversed(data["workspaces"].items()))
    reordered = yaml.safe_dump(dict(reversed(data.items())), sort_keys=False)
    assert reordered != in_order
    assert rendered(reordered) == rendered(in_order)
    environment = "env: {B: '2', A: '1'}"
    assert one(environment).files == one("env: {A: '1', B: '2'}").files
    # Names that differ in their case alone are two names.
    assert one("env: {A: '1', a: '2'}").files == one("env: {a: '2', A: '1'}").files


def test_the_texts_do_not_depend_on_variables() -> None:
    project = parse_project(FULL, "dual.yaml")
    some = render(project, FOLDER, environment={"TOKEN": "s3cret", "PASSED": "s3cret"})
    none = render(project, FOLDER, environment={})
    assert some.files == none.files
    assert "s3cret" not in "".join(some.files.values())
    assert some.containers["workspace.feat-auth"].fields["env.TOKEN"] == "s3cret"
    assert (
        some.containers["workspace.feat-auth"].hash == none.containers["workspace.feat-auth"].hash
    )


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "from-process")
    desired = render(parse_project(FULL, "dual.yaml"), FOLDER)
    assert desired.containers["workspace.feat-auth"].fields["env.TOKEN"] == "from-process"


@pytest.mark.parametrize(
    "text",
    [FULL, "version: 1\nproject: shop\nworkspaces: {}\n", FULL.replace("localhost", "dev.test")],
)
def test_the_compose_file_follows_the_compose_specification(text: str) -> None:
    jsonschema.validate(compose(rendered(text)), compose_schema())


def test_a_workspace_with_everything() -> None:
    desired = rendered(FULL)
    place = NetworkPlace("ws-feat-auth", desired.networks["network.feat-auth"].subnet)
    container = desired.containers["workspace.feat-auth"]
    assert compose(desired)["services"]["feat-auth"] == {
        "image": "node:22-slim",
        "command": ["npm", "run", "a b"],
        "hostname": "feat-auth",
        "init": True,
        "restart": "unless-stopped",
        "user": "1000:1000",
        "cap_drop": ["ALL"],
        "cap_add": list(CAPABILITIES),
        "security_opt": ["no-new-privileges:true"],
        "cpus": "1.5",
        "mem_limit": "1g",
        "pids_limit": 512,
        "env_file": [{"path": "../.env.local"}, {"path": "/etc/shop.env"}],
        "environment": {
            "FEATURE": "auth",
            "NODE_ENV": "development",
            "PASSED": None,
            "TOKEN": "${TOKEN:-none}",
        },
        "expose": ["3000"],
        "networks": {"ws-feat-auth": {"ipv4_address": place.workspace_address}},
        "working_dir": "/workspace",
        "volumes": [
            {
                "type": "bind",
                "source": "../../auth",
                "target": "/workspace",
                "bind": {"create_host_path": False},
            },
            {"type": "volume", "source": "feat-auth--cache", "target": "/cache"},
            {
                "type": "volume",
                "source": "feat-auth--node_modules",
                "target": "/workspace/node_modules",
            },
        ],
        "labels": {
            "dev.dual.project": "shop",
            "dev.dual.workspace": "feat-auth",
            "dev.dual.hash": container.hash,
            "dev.dual.hidden": "env.PASSED, env.TOKEN, env_file",
        },
    }
    assert container.fields == {
        "name": "shop-feat-auth-1",
        "image": "node:22-slim",
        "command": ("npm", "run", "a b"),
        "hostname": "feat-auth",
        "init": True,
        "restart": "unless-stopped",
        "user": "1000:1000",
        "cap_drop": ("ALL",),
        "cap_add": CAPABILITIES,
        "security_opt": ("no-new-privileges:true",),
        "resources.cpus": 1.5,
        "resources.memory": 2**30,
        "resources.pids": 512,
        "env.FEATURE": "auth",
        "env.NODE_ENV": "development",
        "env.TOKEN": "none",
        "networks.ws-feat-auth": place.workspace_address,
        "working_dir": "/workspace",
        "mounts./workspace": "bind /home/ada/auth",
        "mounts./cache": "volume shop_feat-auth--cache",
        "mounts./workspace/node_modules": "volume shop_feat-auth--node_modules",
        "labels.dev.dual.project": "shop",
        "labels.dev.dual.workspace": "feat-auth",
    }
    assert container.hidden == {"env.TOKEN"}
    assert container.image == "node:22-slim"


def test_a_workspace_with_nothing() -> None:
    service = compose(rendered(FULL))["services"]["bare"]
    keys = "image hostname init restart cap_drop cap_add security_opt pids_limit environment"
    assert list(service) == [*keys.split(), "expose", "networks", "labels"]


def test_every_workspace_exposes_one_port_and_publishes_none() -> None:
    services = compose(rendered(FULL))["services"]
    workspaces = {name: service for name, service in services.items() if name != "traefik"}
    assert list(workspaces) == ["bare", "feat-auth", "main"]
    for name, service in workspaces.items():
        assert service["expose"] == ["3000"]
        assert "ports" not in service
        assert list(service["networks"]) == [f"ws-{name}"]
        assert "privileged" not in service
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_the_proxy_is_sealed() -> None:
    desired = rendered(FULL)
    proxy = compose(desired)["services"]["traefik"]
    assert proxy["image"] == "traefik:v3.7.15"
    assert proxy["user"] == "65532:65532"
    assert proxy["read_only"] is True
    assert proxy["cap_drop"] == ["ALL"]
    assert proxy["security_opt"] == ["no-new-privileges:true"]
    assert proxy["ports"] == [
        {"target": 8000, "published": "3000", "host_ip": "127.0.0.1", "protocol": "tcp"}
    ]
    assert proxy["volumes"] == [
        {
            "type": "bind",
            "source": "./traefik",
            "target": "/etc/traefik",
            "read_only": True,
            "bind": {"create_host_path": False},
        }
    ]
    assert list(proxy["networks"]) == ["edge", "ws-bare", "ws-feat-auth", "ws-main"]
    assert proxy["sysctls"] == {"net.ipv4.ip_forward": "0"}
    assert "docker.sock" not in "".join(desired.files.values())
    assert desired.containers["proxy"].service == "traefik"
    assert desired.containers["proxy"].fields["ports.8000/tcp"] == "127.0.0.1:3000"


def test_the_edge_network_sorts_before_every_workspaces() -> None:
    networks = list(compose(rendered(FULL))["networks"])
    assert networks == sorted(networks)
    assert networks[0] == "edge"


def test_networks_and_their_addresses() -> None:
    desired = rendered(FULL)
    found = compose(desired)
    assert list(desired.networks) == [
        f"network.{n}" for n in ("traefik", "bare", "feat-auth", "main")
    ]
    for network in desired.networks.values():
        subnet = ipaddress.IPv4Network(network.subnet)
        [config] = found["networks"][network.key]["ipam"]["config"]
        assert config["subnet"] == network.subnet
        dynamic = ipaddress.IPv4Network(config["ip_range"])
        assert dynamic.subnet_of(subnet)
        fixed = [
            service["networks"][network.key]["ipv4_address"]
            for service in found["services"].values()
            if network.key in service["networks"]
        ]
        assert len(fixed) == (1 if network.key == "edge" else 2)
        for address in map(ipaddress.IPv4Address, fixed):
            assert address in subnet
            assert address not in dynamic
            assert address != subnet.network_address + 1, "the gateway's"


def test_a_route() -> None:
    desired = rendered(FULL)
    address = NetworkPlace("", desired.networks["network.feat-auth"].subnet).workspace_address
    path = desired.routes["route.feat-auth"]
    assert path == "traefik/routes/feat-auth.yaml"
    assert yaml.safe_load(desired.files[path]) == {
        "http": {
            "routers": {
                "feat-auth": {
                    "rule": "Host(`feat-auth.localhost`) || Host(`auth-review.localhost`)",
                    "entryPoints": ["web"],
                    "middlewares": ["feat-auth"],
                    "service": "feat-auth",
                }
            },
            "middlewares": {
                "feat-auth": {
                    "headers": {
                        "customResponseHeaders": {
                            "X-Dual-Workspace": "feat-auth",
                            "X-Dual-Project": "shop",
                        }
                    }
                }
            },
            "services": {
                "feat-auth": {"loadBalancer": {"servers": [{"url": f"http://{address}:3000"}]}}
            },
        }
    }


def test_traefik_is_told_of_files_alone() -> None:
    static = yaml.safe_load(rendered(FULL).files["traefik/traefik.yaml"])
    assert list(static["entryPoints"]) == ["web"]
    address = NetworkPlace("edge", rendered(FULL).networks["network.traefik"].subnet).proxy_address
    assert static["entryPoints"]["web"]["address"] == f"{address}:8000"
    assert set(static) == {"global", "entryPoints", "providers", "log"}
    assert static["providers"] == {
        "providersThrottleDuration": "100ms",
        "file": {"directory": "/etc/traefik/routes", "watch": True},
    }


def test_the_entry_point_bounds_requests_and_trusts_no_client() -> None:
    files = rendered(FULL).files
    web = yaml.safe_load(files["traefik/traefik.yaml"])["entryPoints"]["web"]
    assert "forwardedHeaders" not in web, "it would say whose X-Forwarded-For to believe"
    middlewares = yaml.safe_load(files["traefik/routes/traefik.yaml"])["http"]["middlewares"]
    for scheme in ("http", "https"):
        removed = middlewares[f"from_{scheme}"]["headers"]["customRequestHeaders"]
        assert removed.pop("X-Forwarded-Proto") == scheme
        assert {"Forwarded", "X-Forwarded-Ssl"} < set(removed)
        assert set(removed.values()) == {""}
    assert web["http"] == {
        "middlewares": ["from_http@file"],
        "sanitizePath": False,
        "encodeQuerySemicolons": True,
        "aliasHeadersStrategy": "delete",
        "maxHeaderBytes": 65536,
    }
    limits = {"readTimeout": "1h", "idleTimeout": "3m"}  # and no writeTimeout: answers are free
    assert web["transport"] == {"respondingTimeouts": limits}


# ── sealed ──────────────────────────────────────────────────────────────────────────────────


def service(fields: str, name: str = "a", **options: Any) -> dict[str, Any]:
    found = compose(one(fields, **options))["services"][name]
    assert isinstance(found, dict)
    return found


def test_what_is_allowed_is_given() -> None:
    allowed = "allow: [SYS_PTRACE, NET_ADMIN, new-privileges, host-pid, host-ipc, docker-socket]"
    found = service(f"{allowed}, services: {{db: {{image: x, allow: [IPC_LOCK]}}}}")
    assert found["cap_add"] == [*CAPABILITIES, "NET_ADMIN", "SYS_PTRACE"]
    assert "security_opt" not in found
    assert (found["pid"], found["ipc"]) == ("host", "host")
    assert found["volumes"] == [
        {
            "type": "bind",
            "source": "/var/run/docker.sock",
            "target": "/var/run/docker.sock",
            "read_only": False,
            "bind": {"create_host_path": False},
        }
    ]
    found = service("services: {db: {image: x, allow: [IPC_LOCK, unconfined]}}", "a--db")
    assert found["cap_add"] == [*CAPABILITIES, "IPC_LOCK"]
    assert found["security_opt"] == [
        *("no-new-privileges:true", "seccomp:unconfined", "apparmor:unconfined")
    ]
    found = service("allow: [privileged]")
    assert found["privileged"] is True
    assert not {"cap_add", "cap_drop"} & set(found)


@pytest.mark.parametrize(
    ("lines", "grant"),
    [
        ("privileged: true", "privileged"),
        ("network_mode: host", "host-network"),
        ("pid: host", "host-pid"),
        ("ipc: host", "host-ipc"),
        ("uts: host", "privileged"),
        ("userns_mode: host", "privileged"),
        ("cap_add: [SYS_ADMIN]", "SYS_ADMIN"),
        ("cap_add: [all]", "privileged"),
        ("devices: [/dev/kvm]", "/dev/kvm"),
        ("security_opt: ['no-new-privileges:true', 'seccomp=unconfined']", "unconfined"),
        ("security_opt: []", "new-privileges"),
        (
            "volumes: [{type: bind, source: /var/run/docker.sock, target: /s}]",
            "docker-socket",
        ),
        ("volumes: [{type: bind, source: /usr/bin, target: /b}]", "/usr/bin"),
    ],
)
def test_a_template_that_breaks_the_seal(lines: str, grant: str, tmp_path: Path) -> None:
    """Whatever a user's own template does, dual.yaml must name it."""
    overrides = tmp_path / ".dual/templates"
    overrides.mkdir(parents=True)
    kept = {
        "cap_drop": "[ALL]",
        "security_opt": "['no-new-privileges:true']",
        lines.partition(":")[0]: lines.partition(": ")[2],
    }
    (overrides / "workspace.yaml.j2").write_text(
        "  {{ workspace.name }}:\n    image: node\n"
        + "".join(f"    {key}: {value}\n" for key, value in kept.items())
        + "    labels: {dev.dual.hash: {{ hash }}, dev.dual.hidden: {{ hidden }}}\n"
    )
    with pytest.raises(InvalidError) as caught:
        one("ready: {}", tmp_path)
    assert caught.value.summary == "workspace.a is not sealed"
    assert caught.value.exit_code == 65
    assert caught.value.mend == f"if it must be so, name it in dual.yaml: allow: [{grant}]"
    one(f"allow: [{grant}]", tmp_path)


def test_only_the_proxy_publishes(tmp_path: Path) -> None:
    overrides = tmp_path / ".dual/templates"
    overrides.mkdir(parents=True)
    shipped = (shipped_templates() / "workspace.yaml.j2").read_text()
    ports = '    ports: [{target: 22, published: "22", host_ip: 127.0.0.1}]\n'
    (overrides / "workspace.yaml.j2").write_text(shipped.replace("    init:", f"{ports}    init:"))
    with pytest.raises(InvalidError, match=r"workspace\.a is not sealed") as caught:
        one("allow: [SYS_PTRACE]", tmp_path)
    assert caught.value.why == "it publishes a port on this machine (127.0.0.1:22)"


def test_a_variable_that_leads_to_the_systems_own(tmp_path: Path) -> None:
    project = parse_project(
        "version: 1\nproject: p\nworkspaces: {a: {image: x, source: {path: '${DIR}'}}}\n", "f"
    )
    with pytest.raises(InvalidError) as caught:
        render(project, tmp_path, environment={"DIR": "/etc"})
    assert caught.value.why == "it mounts /etc, and /etc is the system's own"


def test_secrets_are_files_to_read() -> None:
    fields = "secrets: {token: ./t, k: '~/k'}, services: {db: {image: x, secrets: {pw: ./pw}}}"
    found = {
        name: [
            (each["source"], each["target"])
            for each in service(fields, name)["volumes"]
            if each["read_only"] and not each["bind"]["create_host_path"]
        ]
        for name in ("a", "a--db")
    }
    assert found == {
        "a": [("~/k", "/run/secrets/k"), ("../t", "/run/secrets/token")],
        "a--db": [("../pw", "/run/secrets/pw")],
    }


def test_without_egress() -> None:
    desired = one("network: {egress: false}")
    found = compose(desired)
    assert found["networks"]["ws-a"]["internal"] is True
    assert "internal" not in found["networks"]["edge"]
    assert found["services"]["a"]["dns"] == ["192.0.2.1"]
    assert desired.networks["network.a"].internal
    companions = "network: {egress: false}, services: {db: {image: x}}"
    assert service(companions, "a--localhost")["dns"] == ["192.0.2.1"]
    assert "dns" not in service(companions)
    assert "dns" not in service("ready: {}")


# ── the proxy's own ─────────────────────────────────────────────────────────────────────────


def proxied(proxy: str, fields: str = "image: x") -> Desired:
    return rendered(
        f"version: 1\nproject: shop\nproxy: {{{proxy}}}\nworkspaces: {{a: {{{fields}}}}}\n"
    )


def parsed(desired: Desired, path: str) -> Any:
    return yaml.safe_load(desired.files[f"traefik/{path}.yaml"])


def test_tls() -> None:
    plain, desired = proxied("http: 3000"), proxied("https: 3443", "image: x, hosts: [b.test]")
    assert "tls" not in parsed(plain, "routes/a")
    static, route = parsed(desired, "traefik"), parsed(desired, "routes/a")
    assert static["entryPoints"]["websecure"]["address"].endswith(":8443")
    assert static["entryPoints"]["websecure"]["http"]["tls"] == {}
    assert route["http"]["routers"]["a"]["entryPoints"] == ["web", "websecure"]
    assert route["tls"]["certificates"] == [
        {"certFile": f"/certificates/{host}.pem", "keyFile": f"/certificates/{host}.key"}
        for host in ("a.localhost", "b.test")
    ]
    assert parsed(desired, "routes/traefik")["tls"]["options"]["default"]["sniStrict"] is True
    assert desired.certificates == {
        host: DesiredCertificate("certificate.a", host) for host in ("a.localhost", "b.test")
    }
    proxy = compose(desired)["services"]["traefik"]
    assert [port["published"] for port in proxy["ports"]] == ["3000", "3443"]
    assert proxy["volumes"][1]["source"] == "../.dual/tls/live"
    assert proxy["volumes"][1]["read_only"] is True


def test_certificates_of_ones_own() -> None:
    own = "certificates: [{hosts: ['*.localhost'], cert: c.pem, key: /k.pem}]"
    desired = proxied(f"https: 3443, {own}")
    assert "tls" not in parsed(desired, "routes/a")
    assert parsed(desired, "routes/traefik")["tls"]["certificates"] == [
        {"certFile": "/certificates/own-0.pem", "keyFile": "/certificates/own-0.key"}
    ]
    assert desired.certificates == {
        "own-0": DesiredCertificate(
            "certificate.traefik", "own-0", "/home/ada/shop/c.pem", "/k.pem"
        )
    }


def test_a_public_authority() -> None:
    acme = "acme: {email: ada@example.com, challenge: dns, provider: x, env: {K: '${K}'}}"
    desired = proxied(f"https: 443, domain: dev.example.com, {acme}")
    static = parsed(desired, "traefik")
    assert static["certificatesResolvers"]["acme"]["acme"] == {
        "email": "ada@example.com",
        "storage": "/acme/acme.json",
        "caServer": "https://acme-v02.api.letsencrypt.org/directory",
        "dnsChallenge": {"provider": "x"},
    }
    assert static["entryPoints"]["websecure"]["http"]["tls"] == {"certResolver": "acme"}
    proxy = compose(desired)["services"]["traefik"]
    assert proxy["environment"] == {"K": "${K}"}
    assert proxy["volumes"][2] == {"type": "volume", "source": "traefik--acme", "target": "/acme"}
    assert "traefik--acme" in compose(desired)["volumes"]
    assert desired.certificates == {}


def test_the_dashboard_is_for_this_machine_alone() -> None:
    desired = proxied("dashboard: true, bind: 0.0.0.0, dashboard_port: 9000")
    ports = compose(desired)["services"]["traefik"]["ports"]
    assert [(p["target"], p["published"], p["host_ip"]) for p in ports] == [
        (8000, "3000", "0.0.0.0"),
        (8080, "9000", "127.0.0.1"),
    ]
    static = parsed(desired, "traefik")
    assert static["api"]["insecure"] is False
    routers = parsed(desired, "routes/traefik")["http"]["routers"]
    assert routers["dashboard_"] == {
        "rule": "Host(`localhost`) || Host(`127.0.0.1`)",
        "entryPoints": ["dashboard"],
        "service": "api@internal",
    }
    plain = proxied("http: 3000")
    assert "api" not in parsed(plain, "traefik")
    assert "dashboard_" not in parsed(plain, "routes/traefik")["http"]["routers"]


def test_the_access_log_has_neither_paths_nor_headers() -> None:
    fields = parsed(proxied("access_log: true"), "traefik")["accessLog"]["fields"]
    assert fields["defaultMode"] == "drop"
    assert fields["headers"] == {"defaultMode": "drop"}
    assert not {"RequestPath", "RequestLine", "ClientUsername"} & set(fields["names"])


def test_basic_auth() -> None:
    hashed = "$$2b$$05$$abcdefghijklmnopqrstuuWhSPVx4PTqm3bqOIa5S2mX3YYVnJ2H6"
    route = parsed(one(f"auth: {{users: {{ada: {hashed}}}}}"), "routes/a")["http"]
    assert route["routers"]["a"]["middlewares"] == ["a", "a_auth"]
    assert route["middlewares"]["a_auth"]["basicAuth"] == {
        "users": [f"ada:{hashed.replace('$$', '$')}"],
        "realm": "a",
        "removeHeader": True,
    }


def test_single_sign_on() -> None:
    auth = "auth: {forward: 'https://sso.example.com/verify', headers: [X-Forwarded-User]}"
    route = parsed(one(auth), "routes/a")["http"]
    assert route["middlewares"]["a_auth"]["forwardAuth"] == {
        "address": "https://sso.example.com/verify",
        "trustForwardHeader": False,
        "authResponseHeaders": ["X-Forwarded-User"],
    }


@pytest.mark.parametrize("name", ["{{ env `HOME` }}", "{{{", "{{{{", "a{{b}}", "'{{\""])
def test_no_go_template_reaches_traefik(name: str) -> None:
    """Traefik would carry it out as it reads the file."""
    assert "{{" not in to_yaml(name)
    assert yaml.safe_load(to_yaml(name)) == name
    hashed = "$$2b$$05$$abcdefghijklmnopqrstuuWhSPVx4PTqm3bqOIa5S2mX3YYVnJ2H6"
    route = one(f"auth: {{users: {{{json.dumps(name)}: {hashed}}}}}").files["traefik/routes/a.yaml"]
    assert "{{" not in route


# ── workspaces that don't run ───────────────────────────────────────────────────────────────


def test_a_workspace_that_is_not_enabled_keeps_its_volumes_alone() -> None:
    desired = rendered(FULL)
    found = compose(desired)
    assert "workspace.off" not in desired.containers
    assert "network.off" not in desired.networks
    assert "route.off" not in desired.routes
    assert "off" not in found["services"]
    assert found["volumes"]["off--data"]["labels"] == {
        "dev.dual.project": "shop",
        "dev.dual.workspace": "off",
    }


@pytest.mark.parametrize("name", ["no", "null", "y", "1", "1e3", "0x1f", "12-30", "true", "1-1"])
def test_names_that_yaml_takes_for_something_else(name: str) -> None:
    text = f"version: 1\nproject: '{name}'\nworkspaces: {{'{name}': {{image: x}}}}\n"
    desired = rendered(text)
    found = compose(desired)
    assert found["name"] == name
    assert sorted(found["services"]) == sorted([name, "traefik"])
    assert found["services"][name]["hostname"] == name
    assert list(
        yaml.safe_load(desired.files[f"traefik/routes/{name}.yaml"])["http"]["routers"]
    ) == [name]


def test_a_thousand_workspaces() -> None:
    lines = "".join(f"  w{n:04}:\n" for n in range(1000))
    text = f"version: 1\nproject: big\ndefaults: {{image: x}}\nworkspaces:\n{lines}"
    desired = rendered(text)
    assert len(desired.containers) == 1001
    assert len({network.subnet for network in desired.networks.values()}) == 1001
    assert len(desired.containers["proxy"].definition["networks"]) == 1001
    assert len(desired.files) == 1003


# ── paths ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "output", "expected"),
    [
        (".", None, ".."),
        ("./web/", None, "../web"),
        ("..", None, "../.."),
        ("a/../b", None, "../b"),
        ("/srv/web", None, "/srv/web"),
        ("~/web", None, "~/web"),
        ("${WEB:-/srv}", None, "${WEB:-/srv}"),
        (".", FOLDER, "."),
        ("web", FOLDER, "./web"),
        (".", Path("/tmp/out"), "../../home/ada/shop"),
    ],
)
def test_paths_start_from_the_rendered_file(path: str, output: Path | None, expected: str) -> None:
    desired = one(f"source: {{path: '{path}'}}, env_file: ['{path}']", output=output)
    service = compose(desired)["services"]["a"]
    assert service["volumes"][0]["source"] == expected
    assert service["env_file"] == [{"path": expected}]


# ── hashes ──────────────────────────────────────────────────────────────────────────────────


def hashes(desired: Desired) -> dict[str, str]:
    return {address: container.hash for address, container in desired.containers.items()}


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("FEATURE: auth", "FEATURE: other", {"workspace.feat-auth"}),
        ("hosts: [auth-review.localhost]", "hosts: []", set()),
        ("command: npm run dev", "command: npm start", {"workspace.main"}),
        ("http: 3000", "http: 3001", {"proxy"}),
        ("  bare: {}\n", "  bare: {}\n  more: {}\n", set()),
        ("  bare: {}\n", "", set()),
        ("enabled: false", "enabled: true", set()),
    ],
)
def test_a_change_changes_the_hash_of_its_own_service_alone(
    old: str, new: str, changed: set[str]
) -> None:
    before = rendered(FULL)
    given = {network.key: network.subnet for network in before.networks.values()}
    after = hashes(rendered(FULL.replace(old, new), given_subnets=given))
    both = set(hashes(before)) & set(after)
    assert {address for address in both if hashes(before)[address] != after[address]} == changed


def test_the_hash_stands_in_its_label_whatever_else_the_service_says() -> None:
    for hostile in ("0000000000000000", "\\u0000", '"\\u0000"', "\\0"):
        desired = one(f"env: {{A: '{hostile}'}}, command: ['{hostile}']")
        service = compose(desired)["services"]["a"]
        assert service["environment"] == {"A": hostile}
        assert service["command"] == [hostile]
        assert service["labels"]["dev.dual.hash"] == desired.containers["workspace.a"].hash


# ── values ──────────────────────────────────────────────────────────────────────────────────


@settings(deadline=None)
@given(st.text())
def test_any_text_survives_yaml(text: str) -> None:
    assert yaml.safe_load(f"a: {to_yaml(text)}\n") == {"a": text}
    assert yaml.load(f"- {to_yaml(text)}\n", Loader=yaml.CSafeLoader) == [text]


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=50), inner),
        max_leaves=10,
    )
)
def test_any_value_survives_yaml(value: Any) -> None:
    text = to_yaml(value)
    assert "\n" not in text
    assert "{{" not in text
    assert yaml.safe_load(text) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (3, "3"),
        (1.5, "1.5"),
        ("npm", "npm"),
        ("node:22-slim", "node:22-slim"),
        ("./web", "./web"),
        ("no", '"no"'),
        ("1", '"1"'),
        ("a b", '"a b"'),
        ("", '""'),
        (("a", 1), "[a, 1]"),
        ({"a": None, "1": [True]}, '{a: null, "1": [true]}'),
        ("{{ 7 }}", r'"\u007b{ 7 }}"'),
        ("{{{\\{{", r'"\u007b\u007b{\\\u007b{"'),
        ({"{{": [{"a": {"b": "c"}}]}, '{"\\u007b{": [{a: {b: c}}]}'),
        (Raw("as: it is"), "as: it is"),
    ],
)
def test_to_yaml(value: Any, text: str) -> None:
    assert to_yaml(value) == text


def test_no_yaml_for_an_object() -> None:
    with pytest.raises(TypeError, match="no YAML for a object"):
        to_yaml(object())


HOSTILE = [
    "{{ x }}",
    "{% raw %}",
    "{# c #}",
    "`id`",
    "'single'",
    '"double"',
    "a\nb\n",
    "a\r\nb",
    "tab\there",
    "\u2028\u2029\x85\ufeff",
    "\x01\x7f\x1b[31m",
    "😀",
    "yes",
    "NO",
    "1e3",
    "0x1",
    "0o7",
    "0755",
    "=",
    "<<",
    "~",
    ".5",
    ".inf",
    ".nan",
    "12:30",
    "2024-01-02",
    "# no comment",
    "a # b",
    "a: b",
    "- a",
    "&a",
    "*a",
    "!tag",
    "|",
    ">",
    "%",
    "@",
    "---",
    "...",
    " leading",
    "trailing ",
    "\\",
    "\\n",
    '{{ readFile "/etc/passwd" }}',
    "\\{{{",
    "null",
    "",
    "}",
    "]",
    ",",
    "?",
    "x" * 5000,
]


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_values_survive(value: str) -> None:
    written = yaml.safe_dump(value, default_style='"', width=10_000).strip()
    desired = one(f"env: {{A: {written}}}, command: [{written}]")
    service = compose(desired)["services"]["a"]
    assert service["environment"] == {"A": value}
    assert service["command"] == [value]
    assert desired.containers["workspace.a"].fields["env.A"] == value


# ── subnets ─────────────────────────────────────────────────────────────────────────────────


def test_subnets_are_the_same_everywhere() -> None:
    assert allocate_subnets("shop", POOL, ["edge", "ws-main"], {}) == {
        "edge": "10.213.18.160/29",
        "ws-main": "10.213.71.56/29",
    }


def overlaps(subnets: dict[str, str]) -> bool:
    return len(set(subnets.values())) < len(subnets)


def test_subnets_do_not_depend_on_the_order_of_keys() -> None:
    keys = [f"ws-{n}" for n in range(300)]
    assert allocate_subnets("shop", POOL, keys, {}) == allocate_subnets(
        "shop", POOL, reversed(keys), {}
    )


def test_subnets_never_overlap() -> None:
    keys = [f"ws-{n}" for n in range(2000)]
    subnets = allocate_subnets("shop", POOL, keys, {})
    assert not overlaps(subnets)
    pool = ipaddress.IPv4Network(POOL)
    assert all(ipaddress.IPv4Network(subnet).subnet_of(pool) for subnet in subnets.values())


def test_adding_a_workspace_moves_nobody() -> None:
    keys = [f"ws-{n}" for n in range(20)]
    before = allocate_subnets("shop", "10.0.0.0/24", keys, {})
    after = allocate_subnets("shop", "10.0.0.0/24", ["ws--first", *keys, "ws-x"], before)
    assert before.items() <= after.items()
    assert not overlaps(after)


def test_removing_a_workspace_moves_nobody() -> None:
    keys = [f"ws-{n}" for n in range(20)]
    before = allocate_subnets("shop", "10.0.0.0/24", keys, {})
    after = allocate_subnets("shop", "10.0.0.0/24", keys[5:], before)
    assert after.items() <= before.items()


def test_a_full_pool() -> None:
    keys = [f"ws-{n}" for n in range(32)]
    subnets = allocate_subnets("shop", "10.0.0.0/24", keys, {})
    assert sorted(subnets.values(), key=ipaddress.IPv4Network) == [
        f"10.0.0.{n * 8}/29" for n in range(32)
    ]
    assert allocate_subnets("shop", "10.0.0.0/24", keys, subnets) == subnets


@pytest.mark.parametrize(
    "given",
    [
        *("10.9.0.0/29", "10.0.1.0/29", "10.0.0.0/28", "10.0.0.4/30", "10.0.0.3/29", "fd00::/64"),
        *("", "nonsense", "None", "10.0.0.0"),
    ],
)
def test_a_record_that_is_not_of_the_pool_is_ignored(given: str) -> None:
    pool = "10.0.0.0/24"
    fresh = allocate_subnets("shop", pool, ["ws-a"], {})
    assert allocate_subnets("shop", pool, ["ws-a"], {"ws-a": given}) == fresh


def test_of_two_records_of_one_subnet_the_first_key_keeps_it() -> None:
    given = {"ws-b": "10.0.0.8/29", "ws-a": "10.0.0.8/29"}
    subnets = allocate_subnets("shop", "10.0.0.0/24", ["ws-b", "ws-a"], given)
    assert subnets["ws-a"] == "10.0.0.8/29"
    assert not overlaps(subnets)


def test_records_of_others_are_ignored() -> None:
    given = {"ws-gone": "10.0.0.8/29"}
    assert list(allocate_subnets("shop", "10.0.0.0/24", ["ws-a"], given)) == ["ws-a"]


@settings(deadline=None)
@given(
    st.sets(st.sampled_from([f"ws-{n}" for n in range(16)])),
    st.dictionaries(
        st.sampled_from([f"ws-{n}" for n in range(16)]),
        st.integers(0, 20).map(lambda n: f"10.0.0.{n * 8}/29"),
    ),
)
def test_subnets_given_and_new_never_overlap(keys: set[str], given: dict[str, str]) -> None:
    subnets = allocate_subnets("shop", "10.0.0.0/25", keys, given)
    assert set(subnets) == keys
    assert not overlaps(subnets)


def test_the_rendered_file_is_the_record() -> None:
    before = rendered(FULL)
    record = subnets_of(read_rendered(before.files["compose.yaml"]), "shop")
    assert record == {network.key: network.subnet for network in before.networks.values()}
    moved = {key: f"10.213.200.{n * 8}/29" for n, key in enumerate(record)}
    after = rendered(FULL, given_subnets=moved)
    assert {network.key: network.subnet for network in after.networks.values()} == moved


@pytest.mark.parametrize(
    "text",
    [
        *("", "- a", "a: [", "<<<<<<< HEAD\na: b\n", "\0", "a: 2024-99-99"),
        "name: shop\nnetworks:",
        "name: shop\nnetworks: text",
        "name: shop\nnetworks: {a: , b: {ipam: }}",
        "name: shop\nnetworks: {c: {ipam: {config: []}}, d: {ipam: {config: [{}]}}}",
    ],
)
def test_a_file_that_is_no_record(text: str) -> None:
    assert subnets_of(read_rendered(text), "shop") == {}


def test_the_record_of_another_project_is_not_this_ones() -> None:
    record = read_rendered(rendered(FULL).files["compose.yaml"])
    assert subnets_of(record, "shop")
    assert subnets_of(record, "other") == {}


# ── templates of the user's own ─────────────────────────────────────────────────────────────


def override(folder: Path, name: str, text: str) -> None:
    path = folder / ".dual/templates" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def shipped(name: str) -> str:
    return (shipped_templates() / name).read_text()


def test_a_template_of_the_users_own_wins(tmp_path: Path) -> None:
    text = shipped("workspace.yaml.j2").replace("    init: true\n", "    tmpfs: [/tmp]\n")
    override(tmp_path, "workspace.yaml.j2", text)
    before, after = one("", tmp_path / "elsewhere"), one("", tmp_path)
    service = compose(after)["services"]["a"]
    assert service["tmpfs"] == ["/tmp"]
    assert "init" not in service
    assert hashes(before)["workspace.a"] != hashes(after)["workspace.a"]
    assert hashes(before)["proxy"] == hashes(after)["proxy"]
    jsonschema.validate(compose(after), compose_schema())


def test_other_configuration_for_traefik_needs_another_proxy(tmp_path: Path) -> None:
    name = "traefik/traefik.yaml.j2"
    override(tmp_path, name, shipped(name).replace("level: ERROR", "level: DEBUG"))
    before, after = one("", tmp_path / "elsewhere"), one("", tmp_path)
    assert hashes(before)["proxy"] != hashes(after)["proxy"]
    assert hashes(before)["workspace.a"] == hashes(after)["workspace.a"]


@pytest.mark.parametrize(
    ("name", "text", "summary", "why"),
    [
        (
            "workspace.yaml.j2",
            "a:\n  {{ nonsense }}",
            "Template a template can't be rendered",
            "'nonsense' is undefined",
        ),
        (
            "workspace.yaml.j2",
            "a:\n{% if %}",
            "Template workspace.yaml.j2 can't be rendered",
            "line 2: Expected an expression, got 'end of statement block'",
        ),
        (
            "traefik/route.yaml.j2",
            "{% for %}",
            "Template traefik/route.yaml.j2 can't be rendered",
            "line 1: Expected an expression, got 'end of statement block'",
        ),
        (
            "workspace.yaml.j2",
            "a: [\n",
            "The template of service a does not render to a service",
            "while parsing a flow node",
        ),
        (
            "workspace.yaml.j2",
            "b: {}\n",
            "The template of service a does not render to a service",
            "'a'",
        ),
        (
            "workspace.yaml.j2",
            "",
            "The template of service a does not render to a service",
            "'NoneType' object is not subscriptable",
        ),
        (
            "workspace.yaml.j2",
            "a: {at: 2024-99-99}",
            "The template of service a does not render to a service",
            "month must be in 1..12",
        ),
        ("workspace.yaml.j2", "a: text", "The template of service a renders to no map of keys", ""),
        (
            "workspace.yaml.j2",
            "a: {image: x, networks: {}}",
            "The template of service a leaves out the label dev.dual.hash",
            "the label records what was applied",
        ),
        (
            "workspace.yaml.j2",
            "a: {image: x, volumes: [{type: bind}], labels: {dev.dual.hash: {{ hash }}}}",
            "The template of service a renders to a form that dual can't compare",
            "KeyError: 'target'",
        ),
        (
            "workspace.yaml.j2",
            "a: {image: x, networks: {}, volumes: ['./a:/b'], x: {{ hash }}}",
            "The template of service a renders to a form that dual can't compare",
            "TypeError: string indices must be integers",
        ),
        (
            "workspace.yaml.j2",
            "a: {image: x, networks: [ws-a], x: {{ hash }}}",
            "The template of service a renders to a form that dual can't compare",
            "AttributeError: 'list' object has no attribute 'items'",
        ),
    ],
)
def test_a_template_that_is_broken(
    tmp_path: Path, name: str, text: str, summary: str, why: str
) -> None:
    override(tmp_path, name, text)
    with pytest.raises(DualError) as caught:
        one("", tmp_path)
    assert caught.value.summary == summary
    assert caught.value.why.startswith(why)
    assert summary.endswith("no map of keys") or caught.value.mend


# ── variables ───────────────────────────────────────────────────────────────────────────────


def test_a_required_variable_that_is_missing() -> None:
    with pytest.raises(DualError) as caught:
        one("env: {A: '${TOKEN:?ask ada}'}")
    assert caught.value.summary == "workspace.a can't be rendered"
    assert caught.value.why == "variable TOKEN: ask ada"
    assert ".env" in caught.value.mend


@pytest.mark.parametrize(
    "fields",
    ["resources: {cpus: $SECRET}", "resources: {memory: $SECRET}", "command: run $SECRET"],
)
def test_a_variable_with_a_value_that_does_not_fit_is_not_shown(fields: str) -> None:
    text = f"version: 1\nproject: p\nworkspaces: {{a: {{image: x, {fields}}}}}\n"
    with pytest.raises(DualError) as caught:
        render(parse_project(text, "dual.yaml"), FOLDER, environment={"SECRET": "s3'cret"})
    error = caught.value
    assert error.summary == "workspace.a can't be rendered"
    assert "s3'cret" not in f"{error.summary} {error.why} {error.mend}"


def test_an_env_file_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(DualError, match=r"workspace\.a can't be rendered") as raised:
        one(f"env_file: ['{'x' * 300}']", tmp_path)
    assert raised.value.why == "a file of its env_file can't be read: File name too long"
    assert one("env_file: ['~nobody/x'], source: {path: '~nobody'}")


def test_an_image_that_comes_to_nothing() -> None:
    """Compose would refuse all of the project."""
    with pytest.raises(DualError, match=r"workspace\.a can't be rendered") as raised:
        rendered("version: 1\nproject: shop\nworkspaces: {a: {image: '${NOT_SET}'}}\n")
    assert raised.value.why == "its image comes to nothing, with variables filled in"


def test_dollars_in_what_dual_itself_uses() -> None:
    """Here ``$$`` is one, and Compose must read it as one again."""
    text = (
        "version: 1\nproject: shop\nclones: c$$x\nworkspaces:\n"
        "  a: {source: {git: x, branch: b$$r}, "
        "build: {context: d$$r, target: t$$, args: {A: $$1}}}\n"
    )
    desired = rendered(text)
    clone = desired.clones["source.a"]
    assert (clone.path, clone.branch) == ("/home/ada/shop/c$x/a", "b$r")
    service = compose(desired)["services"]["a"]
    assert service["volumes"][0]["source"] == "../c$$x/a"
    assert service["build"]["context"] == "../d$$r"
    assert (service["build"]["target"], service["build"]["args"]) == ("t$$", {"A": "$$1"})


def test_a_folder_with_a_dollar_in_its_name() -> None:
    desired = one("source: {path: ./app}", Path("/home/ada/$hop"), output=Path("/tmp/out"))
    mount = compose(desired)["services"]["a"]["volumes"][0]
    assert mount["source"] == "../../home/ada/$$hop/app"
    assert (
        desired.containers["workspace.a"]
        .fields["mounts./workspace"]
        .startswith("bind /home/ada/$hop/app")
    )


@pytest.mark.parametrize(
    "code",
    [
        "''.__class__.__mro__[1].__subclasses__()",
        "project.__init__.__globals__",
        "cycler.__init__.__globals__.os.popen('id').read()",
        "lipsum.__globals__['os'].system('id')",
    ],
)
def test_a_template_of_ones_own_runs_no_code(code: str, tmp_path: Path) -> None:
    overrides = tmp_path / ".dual/templates"
    overrides.mkdir(parents=True)
    shipped = (shipped_templates() / "workspace.yaml.j2").read_text()
    (overrides / "workspace.yaml.j2").write_text(f"# {{{{ {code} | string }}}}\n{shipped}")
    with pytest.raises(DualError, match="can't be rendered"):
        one("ready: {}", tmp_path)
