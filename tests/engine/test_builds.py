"""Images that dual builds, on a real engine."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.conftest import LAB_IMAGE, LiveProject, changes, docker, run

DOCKERFILE = f"""\
FROM {LAB_IMAGE} AS base
COPY greeting /greeting
FROM base AS dev
ARG WHO=nobody
RUN echo "$(cat /greeting) $WHO" >/srv/index.html
WORKDIR /srv
CMD ["python3", "-m", "http.server", "3000"]
FROM base
CMD ["false"]
"""
BUILD = "build: {context: image, target: dev"


BUILDX = Path(sys.prefix) / "docker-buildx"  # by scripts/setup.sh, where Docker has none


def own_builders() -> list[str]:
    """What this machine's Docker builds with, and what it can be made to build with besides."""
    if run("docker", "buildx", "version").code == 0:
        return ["buildx"]
    return ["classic", "buildx"]


@pytest.fixture(params=own_builders())
def builder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each builder in turn: Docker takes the plugins that lie in its folder of settings."""
    name = str(request.param)
    if name == "buildx" and name not in own_builders()[:1]:
        plugins = tmp_path / "cli-plugins"
        plugins.mkdir()
        there = json.loads(docker("info", "--format", "{{json .ClientInfo.Plugins}}"))
        for plugin in [Path(each["Path"]) for each in there] + [BUILDX]:
            (plugins / plugin.name).symlink_to(plugin)
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return name


@pytest.fixture
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveProject]:
    project = LiveProject(tmp_path_factory.mktemp("builds"))
    image = project.folder / "image"
    image.mkdir()
    (image / "Dockerfile").write_text(DOCKERFILE)
    (image / "greeting").write_text("hello")
    (image / ".dockerignore").write_text("notes\n")
    project.write(
        f"defaults: {{{BUILD}}}}}\n"
        "workspaces:\n"
        "  one: {}\n"
        "  two: {}\n"
        f"  ada: {{{BUILD}, args: {{WHO: ada}}}}}}\n"
        f"  plain: {{build: ~, image: '{LAB_IMAGE}', command: python3 -m http.server 3000}}\n"
    )
    try:
        yield project
    finally:
        project.remove()
        label = f"label=dev.dual.project={project.name}"
        if images := docker("images", "-q", "--filter", label).split():
            run("docker", "rmi", "-f", *images)


def page(live: LiveProject, name: str) -> str:
    return live.body(f"{name}.localhost").strip()


def images(live: LiveProject) -> set[str]:
    label = f"label=dev.dual.project={live.name}"
    return set(docker("images", "-q", "--no-trunc", "--filter", label).split())


def is_of_a_build(container: str) -> bool:
    """Whether a container is one of these tests' own builds, which have no names of their own."""
    return "sorry, no" in run("docker", "inspect", "--format", "{{.Config.Cmd}}", container).stdout


def test_once_for_all_that_share_it_and_again_when_it_changes(
    live: LiveProject, builder: str
) -> None:
    done = live.apply()
    says = {"classic": ": Step 1/", "buildx": ": #"}
    assert says[builder] in done.stderr, "it tells how far it is"
    assert done.stderr.count(": building (") == 3, "each is told of"
    assert len(images(live)) == 2, "one for one and two, another for ada"
    assert [page(live, each) for each in ("one", "two", "ada")] == [
        *("hello nobody", "hello nobody", "hello ada")
    ]
    assert live.plan()["changes"] == []
    before, there = live.identities("one", "two", "ada", "plain", "traefik"), images(live)

    # What is ignored is nothing, and unchanged content builds nothing.
    (live.folder / "image/notes").write_text("nothing to do with it")
    assert live.plan()["changes"] == []
    again = live.apply()
    assert "building" not in again.stderr
    assert (live.identities(*before), images(live)) == (before, there)

    (live.folder / "image/greeting").write_text("hi")
    plan = live.plan()
    assert changes(plan) == [
        (f"workspace.{name}", "replace", ["build"]) for name in ("ada", "one", "two")
    ]
    assert plan["drift"] == []
    live.apply()
    assert [page(live, each) for each in ("one", "two", "ada")] == ["hi nobody"] * 2 + ["hi ada"]
    assert live.plan()["changes"] == []
    kept = live.identities("plain", "traefik")
    assert kept == {name: before[name] for name in kept}

    # Back again: it is there already.
    (live.folder / "image/greeting").write_text("hello")
    back = live.apply()
    assert says[builder] not in back.stderr
    assert page(live, "one") == "hello nobody"
    assert live.plan()["changes"] == []


def test_one_that_cannot_be_built_leaves_the_others_applied(
    live: LiveProject, builder: str
) -> None:
    live.apply()
    before = live.identities("one", "two", "ada")
    dockerfile = live.folder / "image/Dockerfile"
    dockerfile.write_text(DOCKERFILE.replace("ARG WHO", "RUN echo sorry, no; exit 7\nARG WHO"))
    spec = live.folder / "dual.yaml"
    spec.write_text(spec.read_text().replace("plain: {", "plain: {env: {A: b}, "))
    before_it = set(docker("ps", "-aq").split())
    done = live.dual("apply", "-y")
    assert done.code == 1, done
    assert "sorry, no" in done.stderr
    left = [each for each in set(docker("ps", "-aq").split()) - before_it if is_of_a_build(each)]
    assert left == [], "the container of the step that failed"
    said = {"classic": "returned a non-zero code: 7", "buildx": "exit code: 7"}
    assert said[builder] in done.stderr, done
    assert "→ mend" in done.stderr
    assert "1 of 4 workspaces answer, not ada, one, two." in done.stderr
    assert live.identities(*before) == before, "they run on as they were"
    assert live.dual("exec", "plain", "--", "printenv", "A").stdout == "b\n"
    dockerfile.write_text(DOCKERFILE)
    live.apply()
    assert live.plan()["changes"] == []


def test_what_is_missing_is_said_before(live: LiveProject) -> None:
    spec = live.folder / "dual.yaml"
    text = spec.read_text()
    spec.write_text(text.replace("context: image", "context: nowhere"))
    done = live.dual("apply", "-y")
    assert done.code == 65, done
    assert "no such folder: nowhere" in done.stderr
    assert live.leftovers()["containers"] == ""
    spec.write_text(text.replace("target: dev", "dockerfile: Nofile"))
    done = live.dual("apply", "-y")
    assert done.code == 65, done
    assert "no such file: image/Nofile" in done.stderr
    assert live.leftovers()["containers"] == ""
    assert live.dual("apply", "-y", "plain").code == 0, "the others can be applied by name"
