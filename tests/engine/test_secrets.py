"""Secrets are planted wherever dual.yaml takes them, and then looked for everywhere else."""

from __future__ import annotations

import json
import os
import secrets
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.engine.conftest import LAB_IMAGE, Done, LiveProject, docker, run

PLACES = (
    *("variable", "dot_env", "env_file", "secret", "companions", "password", "setup"),
    "changed",
)


@dataclass
class Watch(threading.Thread):
    """Reads the command lines of all processes of this machine, again and again, for a secret."""

    planted: tuple[str, ...]
    found: set[str] = field(default_factory=set)
    looks: int = 0

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self._over = threading.Event()

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        while not self._over.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
                except OSError:
                    continue
                self.found |= {line for secret in self.planted if secret in line}
            self.looks += 1

    def end(self) -> None:
        self._over.set()
        self.join()


@dataclass
class Planted:
    """A project full of secrets: what they are, and all that dual has said."""

    live: LiveProject
    secrets: dict[str, str]
    said: list[Done] = field(default_factory=list)

    def dual(self, *arguments: str, code: int | None = 0, **changed: str) -> Done:
        variables = {"VARIABLE": self.secrets["variable"], "SETUP": self.secrets["setup"]}
        variables |= changed
        done = self.live.dual(*arguments, env=variables)
        assert code is None or done.code == code, f"dual {arguments}: {done}"
        self.said.append(done)
        return done

    def leaks(self, text: str) -> list[str]:
        return [place for place, secret in self.secrets.items() if secret in text]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planted]:
    live = LiveProject(tmp_path_factory.mktemp("project"))
    plants = Planted(live, {each: f"s3cret-{each}-{secrets.token_hex(6)}" for each in PLACES})
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_STATE_HOME", "XDG_DATA_HOME"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name)))
        yield plants
    live.remove()


def declare(planted: Planted, image: str = LAB_IMAGE) -> None:
    folder, of = planted.live.folder, planted.secrets
    for name, text in {
        ".env": f"DOT_ENV={of['dot_env']}\n",
        "one.env": f"FROM_FILE={of['env_file']}\n",
        "token": of["secret"],
        "db-token": of["companions"],
    }.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    planted.live.write(
        f"""\
        workspaces:
          one:
            image: "{image}"
            source: {{path: .}}
            command: python3 server.py
            env: {{A: "${{VARIABLE}}", B: "${{DOT_ENV}}", PASSED: , PLAIN: "x"}}
            env_file: [one.env]
            secrets: {{token: ./token}}
            setup: test -n "${{SETUP}}"
            services:
              db:
                image: "{LAB_IMAGE}"
                command: sleep 1000
                env: {{A: "${{VARIABLE}}"}}
                secrets: {{token: ./db-token}}
        """,
        https=planted.live.port + 1,
    )


def test_a_secret_reaches_who_it_is_for(planted: Planted) -> None:
    """Through everything that dual does on the way, with someone watching."""
    declare(planted)
    watch = Watch(tuple(planted.secrets.values()))
    watch.start()
    try:
        for command in (["validate"], ["render"], ["render", "--check"], ["plan"]):
            planted.dual(*command)
        planted.dual("plan", "--format", "json", "--out", "saved.plan")
        planted.dual("apply", "-y")
        planted.dual("plan", VARIABLE=planted.secrets["changed"])
        planted.dual("plan", "--format", "json", VARIABLE=planted.secrets["changed"])
        planted.dual("apply", "-y", VARIABLE=planted.secrets["changed"])
        planted.dual("apply", "-y", "--format", "json")
        for command in (["status"], ["status", "--format", "json"], ["doctor"], ["url"], ["logs"]):
            planted.dual(*command)
        inside = planted.dual("exec", "one", "--", "cat", "/run/secrets/token")
        planted.said.remove(inside)  # whose output it is to be
        planted.dual("exec", "one", "--", "false", code=1)
        planted.dual("restart", "one")
        planted.dual("run", "one", "--", "true")
    finally:
        watch.end()
    assert inside.stdout == planted.secrets["secret"]
    assert watch.looks > 50, "too few looks at the processes to tell anything"
    assert watch.found == set()
    values = json.loads(
        docker("exec", planted.live.container("one"), "python3", "-c",
               "import json, os; print(json.dumps(dict(os.environ)))")
    )  # fmt: skip
    assert (values["A"], values["B"], values["FROM_FILE"]) == tuple(
        planted.secrets[each] for each in ("variable", "dot_env", "env_file")
    )


def test_a_secret_is_for_nobody_else(planted: Planted) -> None:
    one, db = (planted.live.container(each) for each in ("one", "one--db"))
    assert docker("exec", db, "cat", "/run/secrets/token") == planted.secrets["companions"]
    refused = run("docker", "exec", one, "sh", "-c", "echo x > /run/secrets/token")
    assert refused.code != 0, "a secret could be written over"
    proxy = planted.live.inspect("traefik")
    assert planted.leaks(json.dumps(proxy)) == []


def test_what_fails_tells_no_secret(planted: Planted) -> None:
    """Errors repeat what the engine says, and that repeats what it was given."""
    declare(planted, image="${VARIABLE}/no-such:1")
    planted.dual("apply", "-y", code=1)
    planted.dual("plan", code=None)
    planted.dual("render", code=None, VARIABLE="'")
    declare(planted, image="x:${VARIABLE:?}")
    planted.dual("render", code=None, VARIABLE="")
    declare(planted)
    spec = planted.live.folder / "dual.yaml"
    good = spec.read_text()
    spec.write_text(
        good.replace("setup:", f"auth: {{users: {{a: {planted.secrets['password']}}}}}\n    setup:")
    )
    planted.dual("validate", code=65)
    planted.dual("apply", "-y", "--format", "json", code=65)
    spec.write_text(good)
    planted.dual("apply", "-y")


def test_nothing_that_dual_said_has_a_secret_in_it(planted: Planted) -> None:
    assert len(planted.said) > 20
    for done in planted.said:
        assert planted.leaks(done.stdout + done.stderr) == [], done


def test_no_file_has_a_secret_in_it_that_it_was_not_planted_in(planted: Planted) -> None:
    folders = [
        planted.live.folder,
        *(Path(os.environ[f"XDG_{each}_HOME"]) for each in ("STATE", "DATA")),
    ]
    own = {".env", "one.env", "token", "db-token"}
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert any(path.name == "compose.yaml" for path in files)
    assert any(path.name == "saved.plan" for path in files)
    for path in files:
        if path.parent != planted.live.folder or path.name not in own:
            assert planted.leaks(path.read_text(errors="replace")) == [], path


def test_no_label_has_a_secret_in_it(planted: Planted) -> None:
    for service in ("one", "one--db", "one--localhost", "traefik"):
        labels = planted.live.inspect(service)["Config"]["Labels"]
        assert planted.leaks(json.dumps(labels)) == [], service


def test_keys_are_for_the_user_alone(planted: Planted) -> None:
    """Of the authority, and, by the folder around them, of the certificates."""
    key = Path(os.environ["XDG_DATA_HOME"]) / "dual/authority/authority.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE((planted.live.folder / ".dual/tls").stat().st_mode) == 0o700
    text = key.read_text()
    for path in planted.live.folder.rglob("*"):
        assert not path.is_file() or text not in path.read_text(errors="replace"), path
