"""The command line without an engine: exit codes, messages, JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from dual_iac.cli import run

ROOT = Path(__file__).parents[1]

GOOD = """\
version: 1
project: shop
workspaces:
  main: {image: busybox}
"""

# One hostile file a row: its text, and what the message must have: place, what, mend.
HOSTILE = {
    "empty": ("", ["dual.yaml:1:1: the file declares nothing", "dual init"]),
    "only a comment": ("# nothing\n", ["dual.yaml:1:1: the file declares nothing"]),
    "a tab": (
        "version: 1\nproject: shop\nworkspaces:\n\tmain: {image: busybox}\n",
        ["dual.yaml:4:1: a tab in the indentation", "replace the tab with spaces"],
    ),
    "duplicate keys": (
        GOOD + "  main: {image: busybox}\n",
        [
            "dual.yaml:5:3: workspaces.main: the key 'main' stands here twice",
            "first given in line 4",
            "keep one of the two",
        ],
    ),
    "an unknown key": (
        GOOD.replace("image", "imagee"),
        ["dual.yaml:4:10: workspaces.main.imagee: unknown key", "did you mean image?"],
    ),
    "two workspaces with one host": (
        GOOD.replace("busybox}", "busybox, hosts: [x.localhost]}")
        + "  other: {image: busybox, hosts: [x.localhost]}\n",
        [
            "dual.yaml:5:35: workspaces.other.hosts.0: "
            "the host x.localhost belongs to workspace main already",
            "workspaces main and other both claim it",
            "remove it from one of them",
        ],
    ),
    "a branch as a name": (
        GOOD.replace("main:", "Feat/Auth:"),
        [
            "dual.yaml:4:3: workspaces.Feat/Auth: 'Feat/Auth' is not a workspace name",
            "'feat-auth' would do",
        ],
    ),
    "a name inside a workspace": (
        GOOD.replace("{image", "{name: Feat/Auth, image"),
        [
            "dual.yaml:4:10: workspaces.main.name: unknown key",
            "a workspace's name is its key under workspaces:",
        ],
    ),
    "a name at the top": (
        GOOD + "name: Feat/Auth\n",
        ["dual.yaml:5:1: name: unknown key 'name'", "did you mean project?"],
    ),
    "a setup and no command": (
        GOOD.replace("busybox}", "busybox, setup: npm ci}"),
        [
            "dual.yaml:4:26: workspaces.main.setup: workspace main has a setup, and no command",
            "add command",
        ],
    ),
    "a password": (
        GOOD.replace("busybox}", "busybox, auth: {users: {ada: hunter2}}}"),
        [
            "dual.yaml:4:41: workspaces.main.auth.users.ada: not a password hash",
            "make one with: dual hash",
        ],
    ),
    "a folder of the system": (
        GOOD.replace("busybox}", "busybox, source: {path: /etc}}"),
        [
            "dual.yaml:4:35: workspaces.main.source.path: /etc is not for a workspace to have",
            "allow: [/etc]",
        ],
    ),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_spec_is_refused_with_place_reason_and_mend(
    case: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, expected = HOSTILE[case]
    (folder / "dual.yaml").write_text(text)
    for command in (["validate"], ["render"], ["apply", "-y"]):
        assert run(command) == 65
        shown = capsys.readouterr().err
        for part in expected:
            assert part in shown, shown
        assert "Traceback" not in shown
    assert not (folder / "compose").exists()


def test_all_problems_come_at_once_and_as_json(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "dual.yaml").write_text(GOOD.replace("shop", "Shop").replace("image", "imagee"))
    assert run(["validate", "--format", "json"]) == 65
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["exit_code"] == 65
    assert [(p["line"], p["key"]) for p in error["problems"]] == [
        (2, "project"),
        (4, "workspaces.main.imagee"),
    ]


def test_no_spec_anywhere(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate"]) == 64
    assert "dual init" in capsys.readouterr().err
    assert run(["-f", "nope.yaml", "validate"]) == 64
    assert folder.exists()


def test_the_spec_of_a_parent_folder_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "dual.yaml").write_text(GOOD)
    (folder / "deep/er").mkdir(parents=True)
    monkeypatch.chdir(folder / "deep/er")
    assert run(["url", "main"]) == 0
    assert capsys.readouterr().out == "http://main.localhost:3000\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuch"], "No such command"),
        (["status", "--nosuch"], "No such option"),
        (["exec"], "Missing argument"),
        (["url", "mian"], "did you mean main?"),
        (["exec", "main", "-e", "novalue", "--", "x"], ""),
        (["apply", "-y", "--timeout", "soon"], "30s"),
    ],
)
def test_wrong_usage_exits_64(
    arguments: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "dual.yaml").write_text(GOOD)
    if "novalue" in arguments:
        arguments = ["exec", "-e", "novalue", "main", "--", "x"]
    assert run(arguments) == 64
    assert said in capsys.readouterr().err


def test_render_writes_checks_and_is_current(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "dual.yaml").write_text(GOOD)
    assert run(["render", "--check"]) == 2
    assert not (folder / "compose").exists()
    assert run(["render"]) == 0
    assert run(["render", "--check"]) == 0
    capsys.readouterr()
    route = folder / "compose/traefik/routes/main.yaml"
    route.write_text(route.read_text() + "# by hand\n")
    (folder / "compose/traefik/routes/gone.yaml").write_text("")
    assert run(["render", "--check"]) == 2
    shown = capsys.readouterr().out
    assert shown.splitlines() == [
        "differs compose/traefik/routes/main.yaml",
        "differs compose/traefik/routes/gone.yaml",
    ]
    assert run(["render", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["changed"] == [
        "traefik/routes/main.yaml",
        "traefik/routes/gone.yaml",
    ]
    assert run(["render", "--check"]) == 0


def test_render_elsewhere_keeps_paths_right(folder: Path) -> None:
    (folder / "src").mkdir()
    (folder / "dual.yaml").write_text(GOOD.replace("busybox}", "busybox, source: {path: src}}"))
    assert run(["render", "--out", "a/b"]) == 0
    assert "source: ../../src" in (folder / "a/b/compose.yaml").read_text()


def test_an_output_folder_that_cannot_be_written(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "dual.yaml").write_text(GOOD)
    (folder / "compose").write_text("a file where the folder should be")
    assert run(["render"]) == 1
    assert "can't be written" in capsys.readouterr().err
    assert (folder / "compose").read_text() == "a file where the folder should be"


def test_a_thousand_workspaces(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = "".join(f"  w{number}: {{}}\n" for number in range(1000))
    text = f"version: 1\nproject: big\ndefaults: {{image: busybox}}\nworkspaces:\n{names}"
    (folder / "dual.yaml").write_text(text)
    assert run(["validate"]) == 0
    assert "1000 workspaces" in capsys.readouterr().out
    assert run(["render"]) == 0
    assert len(list((folder / "compose/traefik/routes").glob("w*.yaml"))) == 1000
    assert run(["render", "--check"]) == 0


@pytest.mark.parametrize(
    ("files", "image", "command"),
    [
        ({}, "busybox:1.35", "httpd"),
        ({"package.json": '{"scripts": {"dev": "vite"}}'}, "node:22-slim", "--host 0.0.0.0"),
        ({"package.json": '{"scripts": {"start": "node ."}}'}, "node:22-slim", "npm run start"),
        ({"package.json": "not json"}, "node:22-slim", "npm run dev"),
        ({"manage.py": ""}, "python:3.13-slim", "runserver 0.0.0.0:3000"),
        ({"pyproject.toml": ""}, "python:3.13-slim", "http.server 3000"),
        ({"Gemfile": ""}, "ruby:3.4-slim", "rails server"),
        ({"go.mod": ""}, "golang:1.24", "go run ."),
    ],
)
def test_init_writes_a_valid_spec(
    files: dict[str, str],
    image: str,
    command: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)
    assert run(["init"]) == 0
    assert run(["validate"]) == 0
    text = (folder / "dual.yaml").read_text()
    assert f"image: {image}" in text
    assert command in text
    assert "main:" in text
    assert run(["init"]) == 64
    assert "dual init --force" in capsys.readouterr().err
    assert (folder / "dual.yaml").read_text() == text
    assert run(["init", "--force"]) == 0


def test_init_names_the_workspace_after_the_branch(folder: Path) -> None:
    subprocess.run(["git", "init", "-q", "-b", "Feat/Auth"], check=True, cwd=folder)
    assert run(["init"]) == 0
    assert "\n  feat-auth:\n" in (folder / "dual.yaml").read_text()
    assert run(["validate"]) == 0


def test_schema_accepts_the_example_and_refuses_nonsense(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    example = yaml.safe_load((ROOT / "dual.yaml").read_text())
    assert list(validator.iter_errors(example)) == []
    for broken in ({**example, "nope": 1}, {**example, "version": 2}, {"version": 1}):
        assert list(validator.iter_errors(broken)), broken


def test_the_checked_in_compose_is_what_the_example_renders_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert run(["render", "--check"]) == 0, capsys.readouterr().out


def test_the_workflow_file_is_one() -> None:
    workflow = str(ROOT / ".github/workflows/ci.yml")
    check = ["check_jsonschema", "--builtin-schema", "vendor.github-workflows", workflow]
    subprocess.run([sys.executable, "-m", *check], check=True, capture_output=True)


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    for command in ("init", "apply", "status", "exec", "doctor"):
        assert f"\n  {command} " in shown
    assert run(["--version"]) == 0
    assert run([]) == 64


def test_open_prints_the_url_and_opens_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "dual.yaml").write_text(GOOD)
    opened: list[str] = []

    def browser(url: str) -> bool:
        opened.append(url)
        return len(opened) == 1

    monkeypatch.setattr("webbrowser.open", browser)
    assert run(["open", "main"]) == 0
    assert run(["open", "main"]) == 1  # the browser says that it can't
    captured = capsys.readouterr()
    assert opened == captured.out.split() == ["http://main.localhost:3000"] * 2
    assert "open http://main.localhost:3000 yourself" in captured.err


def test_json_output_of_url(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "dual.yaml").write_text(GOOD)
    assert run(["--format", "json", "url"]) == 0
    assert json.loads(capsys.readouterr().out) == {"main": "http://main.localhost:3000"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "--format", "json", "--bogus"],
        ["--format", "json", "bogus"],
        ["--format=json", "status", "--bogus"],
    ],
)
def test_wrong_usage_is_json_where_json_was_asked_for(
    arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "dual.yaml").write_text(GOOD)
    assert run(arguments) == 64
    assert json.loads(capsys.readouterr().out)["error"]["exit_code"] == 64


def test_what_stands_after_two_dashes_is_the_commands_own(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "dual.yaml").write_text(GOOD)
    assert run(["exec", "mian", "--", "tool", "--format", "json"]) == 64
    assert capsys.readouterr().out == ""


def completed(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    """What a shell is told when somebody presses the tab key at the end of a line."""
    last = str(len(line.split(" ")) - 1)
    env = {"_DUAL_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": last}
    return subprocess.run(
        [sys.executable, "-m", "dual_iac"],
        env={**os.environ, **env},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("dual exec m", ["main"]),
        ("dual plan ", ["main"]),
        ("dual -f dual.yaml restart m", ["main"]),
        ("dual exec nothing", []),
        ("dual des", ["destroy"]),
    ],
)
def test_shells_complete_commands_and_names(folder: Path, line: str, words: list[str]) -> None:
    (folder / "dual.yaml").write_text(GOOD)
    assert completed(folder, line).stdout.split() == words


@pytest.mark.parametrize("text", [None, "version: 1\n"])
def test_completion_says_nothing_where_there_is_nothing_to_say(
    folder: Path, text: str | None
) -> None:
    if text:
        (folder / "dual.yaml").write_text(text)
    done = completed(folder, "dual exec m")
    assert (done.stdout.strip(), done.stderr) == ("", "")
