"""dual.yaml → Project, and every way in which it may be wrong."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from dual_iac.document import may_unfold
from dual_iac.errors import SpecError, UsageError
from dual_iac.model import Project, Source
from dual_iac.spec import environment, find_spec, load_project, parse_project

HEAD = "version: 1\nproject: shop\n"


def project(text: str) -> Project:
    return parse_project(text, "dual.yaml")


def errors(text: str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        project(text)
    return caught.value


def problems(text: str) -> list[str]:
    """Every problem as ``line:column key: what > mend``."""
    return [
        f"{p.line}:{p.column} {p.key}: {p.what}" + (f" > {p.mend}" if p.mend else "")
        for p in errors(text).problems
    ]


def in_workspace(fields: str) -> list[str]:
    """The problems of ``a`` in line 4, whose fields start at column 17."""
    return problems(f"{HEAD}workspaces:\n  a: {{image: x, {fields}}}\n")


# ── the file as a whole ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "{}", "~", "---\n"])
def test_a_file_that_declares_nothing(text: str) -> None:
    assert problems(text) == ["1:1 : the file declares nothing > start one with: dual init"]


@pytest.mark.parametrize("text", ["- a\n- b\n", "just text\n", "[]"])
def test_a_file_that_is_no_map(text: str) -> None:
    assert problems(text) == [
        "1:1 : the file must be a map of keys: version, project, workspaces"
        " > start one with: dual init"
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "version: 1\n\tproject: shop\n",
            "2:1 : a tab in the indentation > replace the tab with spaces",
        ),
        ("version: [\n", "2:1 : not valid YAML: did not find expected node content"),
        (
            "project: a: b\n",
            "1:11 : not valid YAML: mapping values are not allowed in this context"
            " > quote a text that has ': ' in it, and indent keys of one map alike",
        ),
        (
            "version: 1\nproject: a\0b\n",
            "2:11 : a character that YAML does not allow"
            " > remove it, or write it as an escape in double quotes",
        ),
    ],
)
def test_syntax(text: str, expected: str) -> None:
    assert problems(text) == [expected]


def test_nothing_but_brackets() -> None:
    [problem] = errors("[" * 100_000).problems
    assert problem.line == 1
    assert problem.column in (34, 1001), "PyYAML 6.0.4 looks ahead, to a limit of its own"
    assert problem.what == "nested more than 32 levels deep"


def test_two_documents() -> None:
    text = f"{HEAD}workspaces: {{a: {{image: x}}}}\n---\n{HEAD}"
    assert problems(text) == [
        "4:1 : a second document starts here > keep one document a file: remove the --- line"
    ]


def test_duplicate_keys() -> None:
    text = f"{HEAD}project: shop\nworkspaces:\n  a: {{image: x}}\n  b: {{image: x, image: y}}\n"
    assert problems(text) == [
        "3:1 project: the key 'project' stands here twice > keep one of the two",
        "6:17 workspaces.b.image: the key 'image' stands here twice > keep one of the two",
    ]


def test_a_tag_runs_nothing() -> None:
    text = f"{HEAD}workspaces:\n  a: {{image: !!python/object/apply:os.getcwd []}}\n"
    assert (
        problems(text)
        == [
            "4:14 workspaces.a.image: the tag tag:yaml.org,2002:python/object/apply:os.getcwd"
            " has no meaning here > remove it: values are plain text, lists and maps",
            "4:7 workspaces.a.image: expected text, found a list",
        ][::-1]
    )


def test_a_recursive_alias() -> None:
    text = f"{HEAD}workspaces:\n  a: &a {{image: x, env: *a}}\n"
    assert problems(text) == [
        "4:25 workspaces.a.env: the alias *a refers to nothing before it"
        " > mark a value above with &a"
    ]


def test_an_alias_bomb() -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(
        f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)
    )
    [problem] = errors(bomb).problems
    assert problem.what.startswith("aliases unfold to more than 5")


def test_a_bomb_of_defaults() -> None:
    names = ", ".join(f"w{n}" for n in range(1000))
    env = ", ".join(f"A{n}: x" for n in range(2100))
    text = f"{HEAD}defaults: {{image: x, env: {{{env}}}}}\nworkspaces: {{{names}}}\n"
    most = may_unfold(text)
    assert problems(text) == [f"3:1 defaults: defaults unfold to more than {most:,} values"]


def test_what_unfolds_for_long_is_refused_soon() -> None:
    """Each of a thousand workspaces with a thousand unknown keys would be a million problems."""
    keys = ", ".join(f"k{n}: x" for n in range(1000))
    names = ", ".join(f"w{n}: *a" for n in range(1000))
    began = time.process_time()
    [problem] = errors(f"{HEAD}x: &a {{{keys}}}\nworkspaces: {{{names}}}\n").problems
    assert "aliases unfold to more than" in problem.what
    assert time.process_time() - began < 2


def test_many_workspaces_with_many_defaults_are_fine() -> None:
    names = "".join(f"  workspace-{n}: {{}}\n" for n in range(2000))
    env = ", ".join(f"A{n}: x" for n in range(50))
    text = f"{HEAD}defaults: {{image: x, env: {{{env}}}}}\nworkspaces:\n{names}"
    assert len(parse_project(text, "dual.yaml").workspaces) == 2000


def test_lines_are_counted_as_yaml_does(tmp_path: Path) -> None:
    for text in (b"a: b\rc: \xff", "a: b\u2028c: \x07".encode()):
        (tmp_path / "dual.yaml").write_bytes(text)
        with pytest.raises(SpecError) as raised:
            load_project(tmp_path / "dual.yaml")
        [problem] = raised.value.problems
        assert (problem.line, problem.column) == (2, 4)


def test_missing_keys() -> None:
    assert problems("proxy: {}\n") == [
        "1:1 project: project is missing > add project: a name such as shop",
        "1:1 version: version is missing > add version: 1",
        "1:1 workspaces: workspaces is missing > add workspaces: a map of names to workspaces",
    ]


def test_a_key_with_nothing_after_it_is_missing_where_it_stands() -> None:
    assert problems(f"{HEAD}workspaces:\n") == [
        "3:1 workspaces: workspaces is missing > add workspaces: a map of names to workspaces"
    ]


@pytest.mark.parametrize("version", ["2", "1.0", "one"])
def test_another_version(version: str) -> None:
    assert problems(f"version: {version}\nproject: shop\nworkspaces: {{}}\n") == [
        f"1:1 version: {version!r} is not known here > write 1"
    ]


def test_the_error_as_a_whole() -> None:
    error = errors("version: 2\nproject: Shop\nworkspaces: {}\n")
    assert error.summary == str(error) == "dual.yaml has 2 problems"
    assert error.file == "dual.yaml"
    assert error.exit_code == 65
    assert error.lines == ("version: 2", "project: Shop", "workspaces: {}")
    assert errors("").summary == "dual.yaml has 1 problem"


def test_all_problems_at_once_in_the_order_of_the_file() -> None:
    text = """\
version: 3
project: Shop
prxoy: {}
network: {pool: 10.0.0.0/30}
defaults:
  resources: {memory: lots}
workspaces:
  Feat/Auth: {image: x}
  a: {image: x, hosts: [same.localhost], env: {A: $}}
  b: {image: x, hosts: [same.localhost]}
  c: {image: x, hosts: [same.localhost]}
"""
    assert problems(text) == [
        "1:1 version: '3' is not known here > write 1",
        "2:1 project: 'Shop' is not a project name > 'shop' would do",
        "3:1 prxoy: unknown key 'prxoy' > did you mean proxy?",
        "4:11 network.pool: '10.0.0.0/30' is too small > write it like 10.213.0.0/16",
        "6:15 defaults.resources.memory: 'lots' is not a size > write it like 512m or 1g",
        "8:3 workspaces.Feat/Auth: 'Feat/Auth' is not a workspace name > 'feat-auth' would do",
        "9:48 workspaces.a.env.A: a lone $ > write $$ for a dollar sign, or ${NAME} for a variable",
    ]


def test_what_shows_between_workspaces_is_found_beside_what_shows_in_one() -> None:
    text = f"""\
{HEAD}workspaces:
  a: {{image: x, hosts: [same.localhost]}}
  b: {{image: x, hosts: [same.localhost]}}
  c: {{image: x, iamge: y}}
"""
    assert problems(text) == [
        "5:25 workspaces.b.hosts.0: the host same.localhost belongs to workspace a already"
        " > remove it from one of them",
        "6:17 workspaces.c.iamge: unknown key 'iamge' > did you mean image?",
    ]


# ── unknown keys ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "place", "key", "mend"),
    [
        ("proxi: {}", "3:1", "proxi", "did you mean proxy?"),
        ("Workspaces: {}", "3:1", "Workspaces", "did you mean workspaces?"),
        ("name: Feat/Auth", "3:1", "name", "did you mean project?"),
        ("branches: {}", "3:1", "branches", "did you mean workspaces?"),
        ("ports: []", "3:1", "ports", "did you mean proxy?"),
        ("xyzzy: 1", "3:1", "xyzzy", "remove it"),
        ("proxy: {htpp: 1}", "3:9", "proxy.htpp", "did you mean http?"),
        ("network: {pol: x}", "3:11", "network.pol", "did you mean pool?"),
        ("defaults: {iamge: x}", "3:12", "defaults.iamge", "did you mean image?"),
        (
            "defaults: {resources: {cpu: 1}}",
            "3:24",
            "defaults.resources.cpu",
            "did you mean cpus?",
        ),
    ],
)
def test_unknown_keys_at_the_top(text: str, place: str, key: str, mend: str) -> None:
    found = problems(f"{HEAD}{text}\nworkspaces: {{a: {{image: x}}}}\n")
    assert found == [f"{place} {key}: unknown key {key.rpartition('.')[2]!r} > {mend}"]


@pytest.mark.parametrize(
    ("fields", "column", "key", "mend"),
    [
        ("imaeg: x", 17, "imaeg", "did you mean image?"),
        ("env-file: []", 17, "env-file", "did you mean env_file?"),
        ("ENV: {}", 17, "ENV", "did you mean env?"),
        ("environment: {}", 17, "environment", "did you mean env?"),
        ("cmd: x", 17, "cmd", "did you mean command?"),
        ("mem_limit: 1g", 17, "mem_limit", "did you mean resources?"),
        ("ports: []", 17, "ports", "remove it"),
        ("name: Feat/Auth", 17, "name", "a workspace's name is its key under workspaces:"),
        ("source: {pth: .}", 26, "source.pth", "did you mean path?"),
        ("resources: {cpu: 1}", 29, "resources.cpu", "did you mean cpus?"),
        ("resources: {name: x}", 29, "resources.name", "remove it"),
        ("ready: {timout: 1s}", 25, "ready.timout", "did you mean timeout?"),
        ("auth: {user: {}}", 24, "auth.user", "did you mean users?"),
        (
            "services: {db: {image: x, comand: y}}",
            43,
            "services.db.comand",
            "did you mean command?",
        ),
    ],
)
def test_unknown_keys_in_a_workspace(fields: str, column: int, key: str, mend: str) -> None:
    name = key.rpartition(".")[2]
    expected = f"4:{column} workspaces.a.{key}: unknown key {name!r} > {mend}"
    assert expected in in_workspace(fields)


def test_an_unknown_key_says_which_are_known() -> None:
    [problem] = errors(f"{HEAD}proxy: {{htpp: 1}}\nworkspaces: {{}}\n").problems
    assert problem.why == (
        "the keys here are image, bind, http, https, domain, certificates, acme, "
        "dashboard, dashboard_port, access_log"
    )


# ── values of the wrong kind ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("env: [A=1]", "4:17 workspaces.a.env: expected a map of keys, found a list"),
        ("env: A=1", "4:17 workspaces.a.env: expected a map of keys, found 'A=1'"),
        ("env: {A: [x]}", "4:23 workspaces.a.env.A: expected text, found a list"),
        ("env: {A: {b: c}}", "4:23 workspaces.a.env.A: expected text, found a map of keys"),
        ("hosts: a.localhost", "4:17 workspaces.a.hosts: expected a list, found 'a.localhost'"),
        ("hosts: [~]", "4:25 workspaces.a.hosts.0: expected text, found nothing"),
        ("enabled: maybe", "4:17 workspaces.a.enabled: expected true or false, found 'maybe'"),
        ("enabled: [x]", "4:17 workspaces.a.enabled: expected true or false, found a list"),
        ("source: .", "4:17 workspaces.a.source: expected a map of keys, found '.'"),
        (
            "resources: {pids: many}",
            "4:29 workspaces.a.resources.pids: expected a whole number, found 'many'",
        ),
        (
            "resources: {pids: 0}",
            "4:29 workspaces.a.resources.pids: '0': input should be greater than or equal to 1",
        ),
        ("user: [x]", "4:17 workspaces.a.user: expected text, found a list"),
        (
            "auth: {}",
            "4:17 workspaces.a.auth: auth is either users or forward"
            " > keep one of the two; `forward: ~` takes back what stands under defaults",
        ),
        (
            "services: {db: {}}",
            "4:28 workspaces.a.services.db.image: image is missing"
            " > add image: an image such as node:22-slim",
        ),
    ],
)
def test_wrong_kinds(fields: str, expected: str) -> None:
    assert in_workspace(fields) == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("workspaces: []", "3:1 workspaces: expected a map of keys, found a list"),
        ("workspaces: {a: x}", "3:14 workspaces.a: expected a map of keys, found 'x'"),
        ("workspaces: {a: [x]}", "3:14 workspaces.a: expected a map of keys, found a list"),
    ],
)
def test_workspaces_of_the_wrong_kind(text: str, expected: str) -> None:
    assert problems(f"{HEAD}{text}\n") == [expected]


def test_sections_of_the_wrong_kind() -> None:
    text = f"{HEAD}proxy: x\nnetwork: [x]\ndefaults: x\nworkspaces: {{a: {{image: x}}}}\n"
    assert problems(text) == [
        "3:1 proxy: expected a map of keys, found 'x'",
        "4:1 network: expected a map of keys, found a list",
        "5:1 defaults: expected a map of keys, found 'x'",
    ]


# ── names and hosts ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("key", "mend"),
    [("Feat/Auth", "feat-auth"), ("a_b", "a-b"), ("-a", "a"), ("x" * 63 + "-", "x" * 63)],
)
def test_a_key_that_is_no_name(key: str, mend: str) -> None:
    assert problems(f"{HEAD}workspaces:\n  {key}: {{image: x}}\n") == [
        f"4:3 workspaces.{key}: {key!r} is not a workspace name > {mend!r} would do"
    ]


def test_the_proxys_own_name() -> None:
    assert problems(f"{HEAD}workspaces:\n  traefik: {{image: x}}\n") == [
        "4:3 workspaces.traefik: 'traefik' is the proxy's own name"
        " > give the workspace another name"
    ]


@pytest.mark.parametrize(
    ("workspaces", "expected", "why"),
    [
        (
            "  a: {image: x, hosts: [s.localhost]}\n  b: {image: x, hosts: [s.localhost]}\n",
            "5:25 workspaces.b.hosts.0: the host s.localhost belongs to workspace a already",
            "workspaces a and b both claim it",
        ),
        (
            "  a: {image: x, hosts: [b.localhost]}\n  b: {image: x}\n",
            "4:25 workspaces.a.hosts.0: the host b.localhost belongs to workspace b already",
            "workspaces b and a both claim it",
        ),
        (
            "  a: {image: x, hosts: [a.localhost]}\n",
            "4:25 workspaces.a.hosts.0: workspace a has the host a.localhost twice",
            "",
        ),
        (
            "  a: {image: x, hosts: [s.x, s.x]}\n",
            "4:30 workspaces.a.hosts.1: workspace a has the host s.x twice",
            "",
        ),
        (
            "  a: {image: x, hosts: [s.x]}\n  b: {image: x, enabled: false, hosts: [s.x]}\n",
            "5:41 workspaces.b.hosts.0: the host s.x belongs to workspace a already",
            "workspaces a and b both claim it",
        ),
    ],
)
def test_one_host_claimed_twice(workspaces: str, expected: str, why: str) -> None:
    text = f"{HEAD}workspaces:\n{workspaces}"
    assert problems(text) == [f"{expected} > remove it from one of them"]
    assert errors(text).problems[0].why == why


def test_a_host_under_defaults_belongs_to_nobody() -> None:
    text = f"{HEAD}defaults: {{image: x, hosts: [s.x]}}\nworkspaces: {{a: {{}}, b: {{}}}}\n"
    assert problems(text) == [
        "3:30 workspaces.b.hosts.0: the host s.x belongs to workspace a already"
        " > remove it from one of them"
    ]


def test_the_domain_makes_the_hosts() -> None:
    text = f"{HEAD}proxy: {{domain: dev.test}}\nworkspaces:\n  a: {{image: x, hosts: [b.dev.test]}}"
    assert project(text).workspaces["a"].host_names == ("a.dev.test", "b.dev.test")
    assert problems(f"{text}\n  b: {{image: x}}\n") == [
        "5:25 workspaces.a.hosts.0: the host b.dev.test belongs to workspace b already"
        " > remove it from one of them"
    ]


@pytest.mark.parametrize("body", ["{}", "", "{env: {A: b}}"])
def test_a_missing_image(body: str) -> None:
    assert problems(f"{HEAD}workspaces:\n  a: {body}\n") == [
        "4:3 workspaces.a: workspace a has no image > add image: or build: here or under defaults"
    ]


def test_a_pool_with_too_little_room() -> None:
    names = ", ".join(f"w{n}: {{image: x}}" for n in range(4))
    text = f"{HEAD}network: {{pool: 10.0.0.0/27}}\nworkspaces: {{{names}}}\n"
    assert problems(text) == [
        "3:11 network.pool: network.pool 10.0.0.0/27 has room for 4 networks, and 5 are needed"
        " > widen network.pool, to a /16 say"
    ]
    assert len(project(text.replace("/27", "/26")).workspaces) == 4


# ── what lays this machine open ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/", "/etc", "/var/run", "../../../../../../../etc/ssl", "~"])
def test_a_source_that_is_the_systems_own(path: str, tmp_path: Path) -> None:
    def declare(extra: str) -> None:
        (tmp_path / "dual.yaml").write_text(
            f"{HEAD}workspaces:\n  a: {{image: x, source: {{path: '{path}'}}{extra}}}\n"
        )

    declare("")
    with pytest.raises(SpecError) as caught:
        load_project(tmp_path / "dual.yaml")
    [problem] = caught.value.problems
    assert (problem.line, problem.column, problem.key) == (4, 26, "workspaces.a.source.path")
    assert problem.what == f"{path} is not for a workspace to have"
    allowed = problem.mend.rpartition("allow: ")[2]
    declare(f", allow: {allowed}")
    load_project(tmp_path / "dual.yaml")


def test_a_link_to_what_is_the_systems_own(tmp_path: Path) -> None:
    (tmp_path / "innocent").symlink_to("/etc")
    text = f"{HEAD}workspaces:\n  a: {{image: x, secrets: {{s: innocent/shadow}}}}\n"
    (tmp_path / "dual.yaml").write_text(text)
    with pytest.raises(SpecError) as caught:
        load_project(tmp_path / "dual.yaml")
    [problem] = caught.value.problems
    assert problem.key == "workspaces.a.secrets.s"
    assert "/etc is the system's own" in problem.why


# ── what two have in common ─────────────────────────────────────────────────────────────────


def test_a_companion_with_a_workspaces_name() -> None:
    text = f"{HEAD}workspaces:\n  a: {{image: x, services: {{b: {{image: x}}}}}}\n"
    assert (
        "4:28 workspaces.a.services.b: workspace a--b and the service b of a share a name"
        " > rename the workspace"
    ) in problems(f"{text}  a--b: {{image: x}}\n")
    assert (
        "4:17 workspaces.a.services: workspace a--localhost and its holder of a share a name"
        " > rename the workspace"
    ) in problems(f"{text}  a--localhost: {{image: x}}\n")


@pytest.mark.parametrize(
    ("services", "expected"),
    [
        ("localhost: {image: x}", "28 …localhost: 'localhost' is the name of what holds"),
        (
            "b: {image: x, port: 1}, c: {image: x, port: 1}",
            "66 …c.port: the service b and the service c both listen on port 1",
        ),
        (
            "b: {image: x, port: 3000}",
            "42 …b.port: workspace a itself and the service b both listen on port 3000",
        ),
        (
            "b: {image: x, healthcheck: {test: [pg_isready]}}",
            "56 …b.healthcheck.test: a healthcheck's list starts with CMD or CMD-SHELL",
        ),
        ("b: {image: x, healthcheck: {}}", "42 …b.healthcheck.test: test is missing"),
        (
            "b: {image: x, volumes: {p: /d, q: /d}}",
            "28 …b: volumes.p and volumes.q both go to /d",
        ),
    ],
)
def test_companions_that_cannot_be(services: str, expected: str) -> None:
    [found] = problems(f"{HEAD}workspaces:\n  a: {{image: x, services: {{{services}}}}}\n")
    assert found.replace("workspaces.a.services.", "…").startswith(f"4:{expected}")


# ── defaults ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("defaults", "expected"),
    [
        ("{iamge: y}", "3:12 defaults.iamge: unknown key 'iamge' > did you mean image?"),
        ("{env: {A: [x]}}", "3:18 defaults.env.A: expected text, found a list"),
        ("{env: x}", "3:12 defaults.env: expected a map of keys, found 'x'"),
        ("{hosts: [A]}", None),
    ],
)
def test_a_problem_in_defaults_is_told_once(defaults: str, expected: str | None) -> None:
    names = ", ".join(f"w{n}: {{image: x}}" for n in range(20))
    found = problems(f"{HEAD}defaults: {defaults}\nworkspaces: {{{names}}}\n")
    assert len(found) == 1
    assert found[0].partition(" ")[2].startswith("defaults.")
    if expected:
        assert found == [expected]


def test_defaults_merge_maps_and_replace_the_rest() -> None:
    text = f"""\
{HEAD}defaults:
  image: node
  command: npm run dev
  env: {{A: "1", B: "2"}}
  env_file: [.env]
  resources: {{cpus: 1, memory: 1g}}
  source: {{path: .}}
  user: node
workspaces:
  same: {{}}
  nothing:
  other:
    image: deno
    command: [deno, run]
    env: {{B: "3", C: "4"}}
    env_file: [.env.other]
    resources: {{memory: 2g}}
    source: {{path: other}}
  less:
    command: ~
    env: {{A: ~}}
    env_file: []
    user: ~
"""
    found = project(text).workspaces
    assert found["same"].env == {"A": "1", "B": "2"}
    assert found["nothing"].model_dump(exclude={"name", "host_names"}) == found["same"].model_dump(
        exclude={"name", "host_names"}
    )
    other = found["other"]
    assert (other.image, other.command) == ("deno", ("deno", "run"))
    assert other.env == {"A": "1", "B": "3", "C": "4"}
    assert other.env_file == (".env.other",)
    assert (other.resources.cpus, other.resources.memory) == ("1", "2g")
    assert other.source is not None
    assert other.source.path == "other"
    less = found["less"]
    assert (less.command, less.user, less.env_file) == (None, None, ())
    assert less.env == {"A": None, "B": "2"}


def test_a_path_under_defaults_can_be_taken_back() -> None:
    text = f"""\
{HEAD}defaults: {{image: x, source: {{path: .}}}}
workspaces:
  a: {{source: {{path: ~, git: "git@example.com:shop.git"}}}}
"""
    workspace = project(text).workspaces["a"]
    assert workspace.source == Source(git="git@example.com:shop.git")
    assert project(text).source_of(workspace) == ".dual/clones/a"


@pytest.mark.parametrize("empty", ["proxy:", "network:", "defaults:", "proxy: {}"])
def test_an_empty_section_is_as_if_left_out(empty: str) -> None:
    text = f"{HEAD}workspaces: {{a: {{image: x}}}}\n"
    assert project(f"{text}{empty}\n") == project(text)


# ── values as written ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("written", ["no", "1.10", "22:22", "0755", "1e3", "0x1", "true", "=", "."])
def test_environment_stays_as_written(written: str) -> None:
    text = f"{HEAD}workspaces: {{a: {{image: x, env: {{A: {written}}}}}}}\n"
    assert project(text).workspaces["a"].env == {"A": written}


def test_an_empty_value_passes_the_variable_through() -> None:
    text = f"{HEAD}workspaces:\n  a:\n    image: x\n    env:\n      A:\n      B: ~\n      C: ''\n"
    assert project(text).workspaces["a"].env == {"A": None, "B": None, "C": ""}


def test_an_empty_env() -> None:
    assert project(f"{HEAD}workspaces: {{a: {{image: x, env: }}}}").workspaces["a"].env == {}


def test_anchors_and_merge_keys() -> None:
    text = f"""\
{HEAD}workspaces:
  a: &a {{image: x, env: {{A: "1"}}, resources: &r {{cpus: 2}}}}
  b: {{<<: *a, env: {{B: "2"}}}}
  c: *a
  d: {{image: y, resources: *r}}
"""
    found = project(text).workspaces
    assert found["b"].image == "x"
    assert found["b"].env == {"B": "2"}
    assert found["c"].env == {"A": "1"}
    assert found["d"].resources.cpus == "2"


def test_a_problem_behind_an_alias_is_told_once() -> None:
    text = f"{HEAD}workspaces:\n  a: &a {{image: x, iamge: y}}\n  b: *a\n  c: *a\n"
    assert problems(text) == ["4:20 workspaces.a.iamge: unknown key 'iamge' > did you mean image?"]


def test_a_thousand_workspaces() -> None:
    lines = "".join(f"  w{n:04}: {{env: {{N: {n}}}}}\n" for n in range(1000))
    found = project(f"{HEAD}defaults: {{image: x}}\nworkspaces:\n{lines}").workspaces
    assert len(found) == 1000
    assert found["w0007"].host_names == ("w0007.localhost",)
    assert found["w0999"].env == {"N": "999"}


def test_a_thousand_workspaces_with_a_problem_each() -> None:
    lines = "".join(f"  w{n}: {{image: x, iamge: y}}\n" for n in range(1000))
    found = errors(f"{HEAD}workspaces:\n{lines}").problems
    assert [problem.line for problem in found] == list(range(4, 1004))


# ── files ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "dual.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_find_spec(folder: Path) -> None:
    path = write(folder, "")
    deep = folder / "a" / "b"
    deep.mkdir(parents=True)
    assert find_spec(folder) == path
    assert find_spec(deep) == path
    (deep / "dual.yaml").mkdir()  # a folder of that name is none
    assert find_spec(deep) == path


def test_find_spec_finds_nothing(folder: Path) -> None:
    with pytest.raises(UsageError) as caught:
        find_spec(folder)
    assert caught.value.summary == "No dual.yaml here"
    assert "dual init" in caught.value.mend
    assert caught.value.exit_code == 64


def test_load_project_with_a_byte_order_mark(folder: Path) -> None:
    path = write(folder, f"\ufeff{HEAD}workspaces: {{a: {{image: x}}}}\n")
    assert list(load_project(path).workspaces) == ["a"]


def test_load_project_names_the_file_as_it_is_reached(folder: Path) -> None:
    inside = folder / "inside"
    inside.mkdir()
    with pytest.raises(SpecError) as caught:
        load_project(write(inside, ""))
    assert caught.value.file == str(Path("inside/dual.yaml"))
    os.chdir(inside)
    with pytest.raises(SpecError) as caught:
        load_project(write(folder, ""))
    assert caught.value.file == str(folder / "dual.yaml")


@pytest.mark.parametrize(
    ("data", "line", "column", "why"),
    [
        (b"\xff\xfe", 1, 1, "byte 0xff: invalid start byte"),
        (b"version: 1\nproject: caf\xe9\n", 2, 13, "byte 0xe9: invalid continuation byte"),
        ("é: ".encode() + b"\x80", 1, 4, "byte 0x80: invalid start byte"),
    ],
)
def test_bad_utf_8(folder: Path, data: bytes, line: int, column: int, why: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_project(write(folder, data))
    [problem] = caught.value.problems
    assert problem.what == "not UTF-8 text"
    assert (problem.line, problem.column, problem.why) == (line, column, why)


def test_no_such_file(folder: Path) -> None:
    with pytest.raises(UsageError, match="No such file: nowhere"):
        load_project(Path("nowhere.yaml"))
    with pytest.raises(UsageError, match="can't be read") as caught:
        load_project(folder)
    assert caught.value.why


def test_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".env").write_text("DUAL_A=file\nDUAL_B=file\nDUAL_C\n")
    monkeypatch.setenv("DUAL_B", "process")
    found = environment(folder)
    assert (found["DUAL_A"], found["DUAL_B"]) == ("file", "process")
    assert "DUAL_C" not in found


def on_host(folder: Path, fields: str) -> list[str]:
    path = write(folder, f"{HEAD}workspaces:\n  a: {{image: x, {fields}}}\n")
    load_project(path)  # without the check, what is on this machine doesn't matter
    try:
        load_project(path, check_host=True)
    except SpecError as error:
        return [f"{p.line}:{p.column} {p.key}: {p.what}" for p in error.problems]
    return []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("source: {path: .}", []),
        ("source: {path: web}", []),
        ("source: {path: './${DUAL_SUB}'}", []),
        ("source: {path: '${DUAL_SUB}'}", ["4:26 workspaces.a.source.path: a path that starts"]),
        ("source: {path: gone}", ["4:26 workspaces.a.source.path: no such folder: gone"]),
        ("source: {path: .env.local}", ["4:26 workspaces.a.source.path: no such folder"]),
        ("source: {path: gone}, enabled: false", []),
        ("env_file: [.env.local]", []),
        ("env_file: [.env.local, web]", ["4:40 workspaces.a.env_file.1: no such file: web"]),
        ("env_file: ['${DUAL_NONE:?say where}']", ["4:28 workspaces.a.env_file.0: variable"]),
    ],
)
def test_what_is_missing_on_this_machine(
    folder: Path, monkeypatch: pytest.MonkeyPatch, fields: str, expected: list[str]
) -> None:
    monkeypatch.setenv("DUAL_SUB", "web")
    (folder / "web").mkdir()
    (folder / ".env.local").touch()
    found = on_host(folder, fields)
    assert len(found) == len(expected)
    for problem, beginning in zip(found, expected, strict=True):
        assert problem.startswith(beginning)


def test_a_tilde_takes_back_a_default() -> None:
    text = f"""\
{HEAD}defaults: {{image: x, source: {{path: .}}, command: serve}}
workspaces:
  a: {{source: ~, command: ~}}
  b: {{source: , command: }}
"""
    found = project(text).workspaces
    assert (found["a"].source, found["a"].command) == (None, None)
    assert found["b"].source is not None


# ── who a workspace runs as ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("uid", "host", "platform", "user"),
    [
        (1000, "unix:///var/run/docker.sock", "linux", "1000:1001"),
        (1000, "unix:///run/user/1000/docker.sock", "linux", None),
        (0, "", "linux", None),
        (501, "", "darwin", None),
    ],
)
def test_files_of_a_source_are_the_users_own(
    uid: int,
    host: str,
    platform: str,
    user: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.getuid", lambda: uid)
    monkeypatch.setattr("os.getgid", lambda: 1001)
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setenv("DOCKER_HOST", host)
    monkeypatch.delenv("DUAL_USER", raising=False)
    assert environment(tmp_path).get("DUAL_USER") == user
    (tmp_path / ".env").write_text("DUAL_USER=7\n")
    assert environment(tmp_path)["DUAL_USER"] == "7"
