"""Names, hosts and URLs, and the kinds of text that a spec holds."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dual_iac.model import (
    NAME_LENGTH,
    Project,
    Spec,
    conflicts,
    format_duration,
    parse_duration,
    project_of,
    slug,
)

NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


def spec(**workspace: Any) -> Spec:
    """A spec with one workspace, ``a``."""
    data = {"version": 1, "project": "shop", "workspaces": {"a": {"image": "node", **workspace}}}
    return Spec.model_validate(data)


def proxied(**proxy: Any) -> Project:
    workspaces = {"main": {"image": "node"}}
    data = {"version": 1, "project": "shop", "proxy": proxy, "workspaces": workspaces}
    return project_of(Spec.model_validate(data))


def problem_of(**workspace: Any) -> tuple[str, str]:
    """Where and what the only problem of a workspace is."""
    with pytest.raises(ValidationError) as caught:
        spec(**workspace)
    [error] = caught.value.errors()
    place = [str(key) for key in error["loc"][2:] if key != "[key]"]
    return ".".join(place), error["msg"]


# ── names ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("branch", "name"),
    [
        ("main", "main"),
        ("feat/auth", "feat-auth"),
        ("Feat/Auth", "feat-auth"),
        ("feature/JIRA-123_add login", "feature-jira-123-add-login"),
        ("--a--b--", "a-b"),
        ("release/1.10", "release-1-10"),
        ("a" * 63, "a" * 63),
        ("grün", "gr-n"),
    ],
)
def test_slug(branch: str, name: str) -> None:
    assert slug(branch) == name


@pytest.mark.parametrize("branch", ["🚀", "🚀🚀", "", "/", "漢字", "-"])
def test_slug_of_a_branch_with_nothing_to_keep_is_a_hash(branch: str) -> None:
    assert re.fullmatch(r"[0-9a-f]{8}", slug(branch))


def test_branches_with_nothing_to_keep_differ() -> None:
    assert len({slug(branch) for branch in ("🚀", "🎉", "🚀🚀", "")}) == 4


def test_slug_of_a_long_branch_keeps_its_beginning_and_tells_it_apart() -> None:
    one, two = slug("feat/" + "x" * 70 + "1"), slug("feat/" + "x" * 70 + "2")
    assert one != two
    assert one[:54] == two[:54] == "feat-" + "x" * 49
    assert len(one) == len(two) == NAME_LENGTH


@settings(deadline=None)
@given(st.text(max_size=200))
@example("-" * 100)
@example("a" + "-" * 60 + "b" * 20)
@example("a/" * 60)
def test_slug_is_always_a_name(branch: str) -> None:
    name = slug(branch)
    assert NAME.fullmatch(name)
    assert len(name) <= NAME_LENGTH
    assert slug(name) == name


@settings(deadline=None)
@given(st.text("abc", min_size=64, max_size=80), st.text("abc", min_size=64, max_size=80))
def test_slugs_of_distinct_long_branches_differ(one: str, two: str) -> None:
    assume(one != two)
    assert slug(one) != slug(two)


@pytest.mark.parametrize("name", ["a", "1", "a-b", "a--b", "0x1f", "a" * 63, "no"])
def test_workspace_names(name: str) -> None:
    Spec.model_validate({"version": 1, "project": "p", "workspaces": {name: {"image": "x"}}})


@pytest.mark.parametrize(
    "name", ["A", "-a", "a-", "a_b", "a.b", "a/b", "", "a" * 64, "é", "a\n", "$a", "traefik"]
)
def test_no_workspace_names(name: str) -> None:
    with pytest.raises(ValidationError):
        Spec.model_validate({"version": 1, "project": "p", "workspaces": {name: {"image": "x"}}})


@pytest.mark.parametrize(
    ("project", "good"),
    [
        *((name, True) for name in ("shop", "a_b-c", "12", "a" * 63)),
        *((name, False) for name in ("Shop", "-a", "", "a" * 64, "$X", "a.b")),
    ],
)
def test_project_names(project: str, good: bool) -> None:
    data = {"version": 1, "project": project, "workspaces": {}}
    if good:
        assert Spec.model_validate(data).project == project
    else:
        with pytest.raises(ValidationError):
            Spec.model_validate(data)


# ── the kinds of text ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("60s", 60), ("1m30s", 90), ("500ms", 0.5), ("1h", 3600), ("1.5m", 90), ("1500us", 0.0015)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)
    assert spec(ready={"timeout": text}).workspaces["a"].ready.timeout.total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "60", "s", "1 m", "-1s", "1d", "1s ", "\u0661s", "1m-30s"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - it says no more than the text
        parse_duration(text)
    assert problem_of(ready={"timeout": text}) == (
        "ready.timeout",
        f"{text!r} is not a duration",
    )


@pytest.mark.parametrize("text", ["0s", "25h", f"{'9' * 12}h"])
def test_durations_out_of_range(text: str) -> None:
    field, _ = problem_of(ready={"timeout": text})
    assert field == "ready.timeout"


@pytest.mark.parametrize("text", ["9" * 400 + "h", "9" * 16 + "h"])
def test_durations_that_no_clock_holds(text: str) -> None:
    field, _ = problem_of(ready={"timeout": text})
    assert field == "ready.timeout"


def test_a_duration_can_be_given_as_one() -> None:
    minute = timedelta(minutes=1)
    assert spec(ready={"timeout": minute}).workspaces["a"].ready.timeout == minute


@pytest.mark.parametrize(
    ("seconds", "text"), [(1, "1s"), (0.5, "0.5s"), (60, "1m"), (90, "90s"), (3600, "60m")]
)
def test_format_duration(seconds: float, text: str) -> None:
    assert format_duration(timedelta(seconds=seconds)) == text
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image", "node:22-slim"),
        ("image", "library/node"),
        ("image", "registry.example.com:5000/team/app:1.4"),
        ("image", "ghcr.io/team/app@sha256:" + "0" * 64),
        ("image", "sha256:" + "0" * 64),
        ("image", "${IMAGE:-node:22}"),
        ("image", "node:$TAG"),
        ("user", "node"),
        ("user", "1000:1000"),
        ("user", "$USER"),
        ("command", "npm run dev"),
        ("command", "sh -c 'a; b'"),
        ("command", "''"),
        ("command", "${COMMAND}"),
        ("command", "a ${X:?b > c}"),
        ("command", "echo $$HOME ${X}"),
        ("setup", "npm ci"),
        ("env_file", (".env", "$DIR/.env")),
        ("hosts", ("a.localhost", "x-1.example.com", "localhost", "127.0.0.1")),
        ("volumes", {"node_modules": "/workspace/node_modules", "a.b-c": "/x"}),
        ("env", {"A": "1", "a.b-c": "", "_": None, "B": "${X:?m}", "C": "$$"}),
    ],
)
def test_good_values(field: str, value: Any) -> None:
    assert getattr(spec(**{field: value}).workspaces["a"], field) == value


NO_WORDS = "the command can't be split into words"


@pytest.mark.parametrize(
    ("field", "value", "place", "what"),
    [
        ("image", "Node:22", "image", "'Node:22' is not an image name"),
        ("image", "", "image", "'' is not an image name"),
        ("image", "a b", "image", "'a b' is not an image name"),
        ("image", "node:tág", "image", "'node:tág' is not an image name"),
        ("image", "node:22\n", "image", "'node:22\\n' is not an image name"),
        ("image", "$", "image", "a lone $"),
        ("image", "a\0", "image", "a NUL character can't stand in a value"),
        ("user", "a b", "user", "'a b' is not a user"),
        ("user", "a:b:c", "user", "'a:b:c' is not a user"),
        ("command", "", "command", "an empty command"),
        ("command", "  ", "command", "an empty command"),
        ("command", "'", "command", f"{NO_WORDS}: no closing quotation"),
        ("command", "a && b", "command", f"{NO_WORDS}: no shell runs that would know what & means"),
        (
            "command",
            "a ${X} > b",
            "command",
            f"{NO_WORDS}: no shell runs that would know what > means",
        ),
        ("command", [], "command", "a command's list holds words, and at least one"),
        ("command", ["a", ["b"]], "command", "a command's list holds words, and at least one"),
        ("command", {"a": "b"}, "command", "a command is a text or a list of words"),
        ("command", ["a", "$"], "command", "a lone $"),
        ("command", "a\0", "command", "a NUL character can't stand in a value"),
        ("env", {"1A": "x"}, "env.1A", "'1A' is not a variable's name"),
        ("env", {"A=": "x"}, "env.A=", "'A=' is not a variable's name"),
        ("env", {"A" * 256: "x"}, f"env.{'A' * 256}", f"'{'A' * 256}' is not a variable's name"),
        ("env", {"$A": "x"}, "env.$A", "a variable can't stand here"),
        ("env", {"A": "${"}, "env.A", "a ${ that is never closed"),
        ("env", {"A": "\0"}, "env.A", "a NUL character can't stand in a value"),
        ("env_file", [" "], "env_file.0", "an empty path"),
        ("hosts", ["A.localhost"], "hosts.0", "'A.localhost' is not a host name"),
        ("hosts", ["a..b"], "hosts.0", "'a..b' is not a host name"),
        ("hosts", ["a`) || Host(`b"], "hosts.0", "'a`) || Host(`b' is not a host name"),
        ("hosts", ["a" * 64], "hosts.0", f"'{'a' * 64}' is not a host name"),
        ("hosts", ["$H"], "hosts.0", "a variable can't stand here"),
        ("volumes", {"a": "b"}, "volumes.a", "'b' is not a path in the container"),
        ("volumes", {"a": "/"}, "volumes.a", "'/' is not a path in the container"),
        ("volumes", {"a": "/b/../c"}, "volumes.a", "'/b/../c' is not a path in the container"),
        ("volumes", {"a": "/b/"}, "volumes.a", "'/b/' is not a path in the container"),
        ("volumes", {"a--b": "/c"}, "volumes.a--b", "'a--b' is not a name for it"),
        ("volumes", {"A": "/c"}, "volumes.A", "'A' is not a name for it"),
        ("volumes", {"a": "/c", "b": "/c"}, "", "volumes.a and volumes.b both go to /c"),
        ("resources", {"cpus": "0"}, "resources.cpus", "'0' is not a number of CPUs"),
        ("resources", {"cpus": "1e3"}, "resources.cpus", "'1e3' is not a number of CPUs"),
        ("resources", {"cpus": "\uff11"}, "resources.cpus", "'\uff11' is not a number of CPUs"),
        ("resources", {"cpus": "${"}, "resources.cpus", "a ${ that is never closed"),
        ("resources", {"memory": "1 q"}, "resources.memory", "'1 q' is not a size"),
        ("resources", {"memory": "\uff15g"}, "resources.memory", "'\uff15g' is not a size"),
        ("ready", {"path": "health"}, "ready.path", "'health' is not a path of a URL"),
        ("ready", {"path": "/a b"}, "ready.path", "'/a b' is not a path of a URL"),
        ("source", {"path": " "}, "source", "an empty path"),
        ("source", {}, "source", "a source is either a path or a git repository"),
        (
            "source",
            {"path": ".", "git": "x"},
            "source",
            "a source is either a path or a git repository",
        ),
        ("source", {"path": ".", "branch": "b"}, "source", "a branch belongs to a git source"),
        ("auth", {"users": {"ada": "secret"}}, "auth.users.ada", "not a password hash"),
    ],
)
def test_bad_values(field: str, value: Any, place: str, what: str) -> None:
    assert problem_of(**{field: value}) == (place, what)


def test_source_and_volume_at_one_place() -> None:
    place, what = problem_of(source={"path": "."}, volumes={"v": "/workspace"})
    assert (place, what) == ("", "source and volumes.v both go to /workspace")


_BCRYPT = "05$abcdefghijklmnopqrstuuWhSPVx4PTqm3bqOIa5S2mX3YYVnJ2H6"


@pytest.mark.parametrize(
    "hashed",
    [
        *(f"$2{kind}${_BCRYPT}" for kind in "aby"),
        "$apr1$WdhB8dQL$sNvJ4wjFtDQYyWmR5j8Y7/",
        "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
    ],
)
def test_password_hashes(hashed: str) -> None:
    """Each $ may be written as $$, and reaches Traefik as one."""
    for written in (hashed, hashed.replace("$", "$$")):
        auth = spec(auth={"users": {"ada": written}}).workspaces["a"].auth
        assert auth is not None
        assert auth.users == {"ada": hashed}


@pytest.mark.parametrize(
    "password",
    [
        *("", "hunter2", "$2b$05$short", f"$2b${_BCRYPT}x", f"$2b${_BCRYPT}\n", "${PASSWORD}"),
        *("{SHA}x", "$1$salt$hash", "$2b$31" + _BCRYPT[2:], "{{ env `X` }}"),
    ],
)
def test_what_is_no_hash_is_refused_and_never_shown(password: str) -> None:
    with pytest.raises(ValidationError) as caught:
        spec(auth={"users": {"ada": password}})
    [error] = caught.value.errors()
    context = error["ctx"]
    assert context["secret"] is True
    assert context["mend"] == "make one with: dual hash"
    assert not password or password not in f"{context['what']}{context['why']}"


@pytest.mark.parametrize("name", ["", "a:b", "a\nb", "a\0b", "${USER}"])
def test_names_that_no_browser_could_send(name: str) -> None:
    with pytest.raises(ValidationError):
        spec(auth={"users": {name: f"$2b${_BCRYPT}"}})


@pytest.mark.parametrize(
    "auth",
    [{}, {"users": {"ada": f"$2b${_BCRYPT}"}, "forward": "http://sso"}, {"headers": ["X-User"]}],
)
def test_auth_is_users_or_forward(auth: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="auth is either users or forward"):
        spec(auth=auth)


@pytest.mark.parametrize("url", ["http://sso:4181/verify", "https://sso.example.com/a?b=c&d=~e"])
def test_urls_of_sign_on_services(url: str) -> None:
    auth = spec(auth={"forward": url, "headers": ["X-Forwarded-User"]}).workspaces["a"].auth
    assert auth is not None
    assert (auth.forward, auth.headers) == (url, ("X-Forwarded-User",))


@pytest.mark.parametrize(
    "url",
    [
        *("", "sso", "ftp://sso", "http://", "http://sso:99999", "http://sso/${X}", "http://[::1"),
        *("http://sso/{{.}}", "http://sso/`id`", "http://sso/a b", "http://ada:pw@sso/"),
    ],
)
def test_what_is_no_url_of_a_sign_on_service(url: str) -> None:
    with pytest.raises(ValidationError):
        spec(auth={"forward": url})


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        *[(each, each) for each in ("privileged", "docker-socket", "SYS_PTRACE", "/etc", "~/.ssh")],
        *[("net_admin", "NET_ADMIN"), ("CAP_NET_RAW", "NET_RAW")],
    ],
)
def test_what_can_be_allowed(written: str, meant: str) -> None:
    assert spec(allow=[written]).workspaces["a"].allow == (meant,)


@pytest.mark.parametrize(
    ("written", "mend"),
    [
        *[("priviledged", "did you mean privileged?"), ("SYS_TRACE", "did you mean SYS_PTRACE?")],
        *[("everything", ""), ("", ""), ("../etc", "")],
    ],
)
def test_what_can_not_be_allowed(written: str, mend: str) -> None:
    with pytest.raises(ValidationError) as caught:
        spec(allow=[written])
    assert caught.value.errors()[0]["ctx"]["mend"] == mend


def test_a_secret_and_a_volume_at_one_place() -> None:
    place, what = problem_of(secrets={"t": "t"}, volumes={"v": "/run/secrets/t"})
    assert (place, what) == ("", "secrets.t and volumes.v both go to /run/secrets/t")


TLS = {"https": 3443, "domain": "dev.example.com"}


@pytest.mark.parametrize(
    ("proxy", "problem"),
    [
        ({"https": 3000}, "proxy.http and proxy.https are both 3000"),
        ({"dashboard": True, "http": 8080}, "proxy.http and proxy.dashboard_port are both 8080"),
        ({"http": 8080}, None),
        ({"acme": {"email": "a@b.c"}}, "proxy.acme is for TLS, and there is no proxy.https"),
        (
            {"https": 3443, "acme": {"email": "a@b.c"}},
            "no public authority gives certificates for hosts of localhost",
        ),
        ({**TLS, "acme": {"email": "a@b.c"}}, None),
        (
            {"certificates": [{"hosts": ["a.b"], "cert": "c", "key": "k"}]},
            "proxy.certificates is for TLS, and there is no proxy.https",
        ),
    ],
)
def test_what_of_the_proxy_clashes(proxy: dict[str, Any], problem: str | None) -> None:
    data = {"version": 1, "project": "p", "proxy": proxy, "workspaces": {}}
    found = [what for _, what, _, _ in conflicts(Spec.model_validate(data))]
    assert problem in found if problem else not found


def test_which_hosts_dual_makes_certificates_for() -> None:
    own = {"hosts": ["*.dev.example.com", "x.localhost"], "cert": "c", "key": "k"}
    hosts = ["x.localhost", "y.localhost", "deep.a.dev.example.com", "shop.example.org"]

    def certified(**proxy: Any) -> list[str]:
        data = {
            **{"version": 1, "project": "p", "proxy": proxy},
            "workspaces": {"a": {"image": "x", "hosts": hosts}},
        }
        project = project_of(Spec.model_validate(data))
        return [*project.certified_hosts(project.workspaces["a"])]

    assert certified(domain="dev.example.com") == []
    assert certified(**TLS) == ["a.dev.example.com", *hosts]
    assert certified(**TLS, certificates=[own]) == [*hosts[1:]]
    assert certified(**TLS, certificates=[own], acme={"email": "a@b.c"}) == ["y.localhost"]


@pytest.mark.parametrize("memory", ["512m", "1g", "1.5G", "1 gib", "64mb", "1024", "2kb", "$MEM"])
def test_sizes(memory: str) -> None:
    assert spec(resources={"memory": memory}).workspaces["a"].resources.memory == memory


@pytest.mark.parametrize("cpus", ["1", "0.5", "1.50", "${CPUS:-2}"])
def test_cpus(cpus: str) -> None:
    assert spec(resources={"cpus": cpus}).workspaces["a"].resources.cpus == cpus


def test_numbers_and_booleans_become_text() -> None:
    env = {"A": 1, "B": 1.5, "C": True, "D": False}
    workspace = spec(env=env, command=["sleep", 60], resources={"cpus": 2}).workspaces["a"]
    assert workspace.env == {"A": "1", "B": "1.5", "C": "true", "D": "false"}
    assert workspace.command == ("sleep", "60")
    assert workspace.resources.cpus == "2"
    assert spec(command=1).workspaces["a"].command == "1"


@pytest.mark.parametrize(
    ("proxy", "good"),
    [
        ({"http": "3000"}, True),
        ({"http": 1}, True),
        ({"http": 65535}, True),
        ({"http": 0}, False),
        ({"http": 65536}, False),
        ({"http": "$PORT"}, False),
        ({"bind": "0.0.0.0"}, True),
        ({"bind": "::1"}, True),
        ({"bind": "localhost"}, False),
        ({"bind": "fe80::1%eth0"}, False),
        ({"bind": "::1%x\ny"}, False),
        ({"domain": "dev.example.com"}, True),
        ({"domain": "Dev"}, False),
        ({"domain": "http://dev"}, False),
    ],
)
def test_proxy(proxy: dict[str, Any], good: bool) -> None:
    if good:
        proxied(**proxy)
    else:
        with pytest.raises(ValidationError):
            proxied(**proxy)


@pytest.mark.parametrize(
    ("pool", "good"),
    [
        *((pool, True) for pool in ("10.213.0.0/16", "192.168.0.0/28", "10.0.0.0/8")),
        *((pool, False) for pool in ("10.0.0.0/29", "10.0.0.1/16", "x", "fd00::/8", "$POOL")),
        *((pool, False) for pool in ("127.0.0.0/8", "224.0.0.0/8", "169.254.0.0/16")),
        *((pool, False) for pool in ("0.0.0.0/0", "0.0.0.0/8", "64.0.0.0/2")),
    ],
)
def test_pool(pool: str, good: bool) -> None:
    data = {"version": 1, "project": "p", "network": {"pool": pool}, "workspaces": {}}
    if good:
        assert Spec.model_validate(data).network.pool == pool
    else:
        with pytest.raises(ValidationError):
            Spec.model_validate(data)


# ── what a spec means ───────────────────────────────────────────────────────────────────────


def test_defaults_of_every_field() -> None:
    workspace = project_of(spec()).workspaces["a"]
    assert workspace.model_dump() == {
        "name": "a",
        "host_names": ("a.localhost",),
        "image": "node",
        "source": None,
        "build": None,
        "command": None,
        "hosts": (),
        "env": {},
        "env_file": (),
        "commands": (),
        "volumes": {},
        "setup": None,
        "user": None,
        "resources": {"cpus": None, "memory": None, "pids": 4096},
        "ready": {"path": "/", "timeout": "1m"},
        "services": {},
        "auth": None,
        "secrets": {},
        "network": {"egress": True},
        "allow": (),
        "enabled": True,
    }


def test_keys_with_nothing_after_them_count_as_left_out() -> None:
    empty: dict[str, Any] = dict.fromkeys(("env", "hosts", "source", "ready", "command", "enabled"))
    assert spec(**empty) == spec()


def test_workspaces_come_in_the_order_of_their_names() -> None:
    names = ["b", "a", "c"]
    data = {"version": 1, "project": "p", "workspaces": {n: {"image": "x"} for n in names}}
    assert list(project_of(Spec.model_validate(data)).workspaces) == ["a", "b", "c"]


def test_enabled() -> None:
    workspaces = {"a": {"image": "x", "enabled": "false"}, "b": {"image": "x"}}
    data = {"version": 1, "project": "p", "workspaces": workspaces}
    project = project_of(Spec.model_validate(data))
    assert [workspace.name for workspace in project.enabled] == ["b"]
    assert list(project.workspaces) == ["a", "b"]


@pytest.mark.parametrize(
    ("proxy", "url"),
    [
        ({}, "http://main.localhost:3000"),
        ({"http": 80}, "http://main.localhost"),
        ({"http": 8080, "domain": "dev.example.com"}, "http://main.dev.example.com:8080"),
    ],
)
def test_url(proxy: dict[str, Any], url: str) -> None:
    project = proxied(**proxy)
    assert project.url(project.workspaces["main"]) == url


def test_host_names() -> None:
    project = project_of(spec(hosts=["review.localhost"]))
    assert project.workspaces["a"].host_names == ("a.localhost", "review.localhost")
    assert project.host_url("review.localhost") == "http://review.localhost:3000"


def test_models_are_frozen() -> None:
    project = project_of(spec())
    with pytest.raises(ValidationError):
        project.workspaces["a"].image = "other"  # type: ignore[misc]


def test_the_json_schema_knows_every_key_and_no_other() -> None:
    schema = Spec.model_json_schema()
    assert schema["additionalProperties"] is False
    assert sorted(schema["required"]) == ["project", "version", "workspaces"]
    assert set(schema["properties"]) == set(Spec.model_fields)
    assert schema["properties"]["defaults"]["description"].startswith("Merged under every")
