"""Workspaces on clones of their own, on a real engine."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.conftest import LAB_IMAGE, LiveProject, changes, docker

GIT = ("git", "-c", "user.name=Ada", "-c", "user.email=ada@example.com")


def git(at: Path, *arguments: str) -> str:
    done = subprocess.run([*GIT, *arguments], cwd=at, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"git {arguments}: {done.stderr}"
    return done.stdout.strip()


@pytest.fixture
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveProject]:
    """Three branches of one repository, which serve what stands in a file of theirs."""
    folder = tmp_path_factory.mktemp("sources")
    work, remote = folder / "work", folder / "remote.git"
    work.mkdir()
    git(work, "init", "--quiet", "-b", "main")
    for branch in ("main", "feat/auth", "feat/cart"):
        if branch != "main":
            git(work, "checkout", "--quiet", "-b", branch, "main")
        (work / "index.html").write_text(branch)
        git(work, "add", ".")
        git(work, "commit", "--quiet", "-m", branch)
    git(work, "checkout", "--quiet", "main")
    git(folder, "clone", "--quiet", "--bare", str(work), str(remote))
    home = folder / "home"
    home.mkdir()
    project = LiveProject(home)
    project.write(
        f"defaults: {{image: '{LAB_IMAGE}', command: python3 -m http.server 3000}}\n"
        "workspaces:\n"
        + "".join(
            f"  {name}: {{source: {{git: 'file://{remote}', branch: {branch}}}}}\n"
            for name, branch in (("auth", "feat/auth"), ("cart", "feat/cart"), ("idea", "new"))
        )
    )
    yield project
    project.remove()


def page(live: LiveProject, name: str) -> str:
    return live.body(f"{name}.localhost").strip()


def test_from_three_branches_to_three_workspaces(live: LiveProject) -> None:
    plan = live.plan()
    assert ("source.auth", "create", ["branch", "git"]) in changes(plan)
    done = live.apply()
    assert "idea: cloned from origin/main, as nobody has new yet" in done.stderr
    assert live.plan()["changes"] == []
    pages = [page(live, each) for each in ("auth", "cart", "idea")]
    assert pages == ["feat/auth", "feat/cart", "main"]
    clone = live.folder / ".dual/clones/auth"
    assert git(clone, "rev-parse", "--abbrev-ref", "HEAD") == "feat/auth"
    assert live.dual("exec", "auth", "--", "pwd").stdout == "/workspace\n"
    assert docker("exec", f"{live.name}-auth-1", "cat", "index.html") == "feat/auth"


def test_work_in_a_clone_is_never_touched(live: LiveProject) -> None:
    """Neither by an apply, nor by one after a change of dual.yaml, nor by taking it out."""
    live.apply()
    clone = live.folder / ".dual/clones/auth"
    (clone / "index.html").write_text("my work")
    git(clone, "commit", "--quiet", "-am", "mine")
    git(clone, "checkout", "--quiet", "-b", "elsewhere")
    (clone / "new").write_text("not committed")
    before = git(clone, "rev-parse", "HEAD")
    spec = (live.folder / "dual.yaml").read_text()
    for text in (spec, spec.replace("feat/auth", "other"), spec.replace("  auth:", "  #auth:")):
        (live.folder / "dual.yaml").write_text(text)
        live.apply()
        assert git(clone, "rev-parse", "HEAD") == before
        assert git(clone, "rev-parse", "--abbrev-ref", "HEAD") == "elsewhere"
        assert (clone / "new").read_text() == "not committed"
    (live.folder / "dual.yaml").write_text(spec)
    live.apply()
    assert page(live, "auth") == "my work"
    rows = {row["name"]: row for row in live.dual("status", "--format", "json").data["workspaces"]}
    found = {key: rows["auth"][key] for key in ("branch", "dirty", "ahead", "behind")}
    assert found == {"branch": "elsewhere", "dirty": True, "ahead": None, "behind": None}
    assert {rows["cart"][key] for key in ("ahead", "behind")} == {0}
    assert "elsewhere*" in live.dual("status", "--no-stats").stdout


def test_files_belong_to_whoever_runs_dual(live: LiveProject) -> None:
    """In the source, and in volumes, which Docker would give to root."""
    text = f"""\
    defaults: {{image: '{LAB_IMAGE}', source: {{path: .}}, command: python3 server.py}}
    workspaces:
      one: {{volumes: {{modules: /workspace/node_modules, data: /var/data/deep}}}}
      named: {{user: nobody, volumes: {{data: /data}}}}
      root: {{user: root}}
    """
    live.write(text)
    os.chown(live.folder, 4711, 4712)
    env = {"DUAL_USER": "4711:4712"}
    live.apply(env)
    assert live.plan(env)["changes"] == []
    write = "id -u; id -g; echo $HOME; touch ~/x file node_modules/x /var/data/deep/x"
    done = live.dual("exec", "one", "--", "sh", "-ec", write)
    assert (done.code, done.stdout) == (0, "4711\n4712\n/tmp\n"), done
    found = (live.folder / "file").stat()
    assert (found.st_uid, found.st_gid) == (4711, 4712)
    assert (live.folder / "node_modules").is_dir()
    assert not (live.folder / "node_modules/x").exists(), "the volume hides the host's"
    assert live.dual("exec", "named", "--", "touch", "/data/x").code == 0
    assert live.dual("exec", "root", "--", "id", "-u").stdout == "0\n"
    assert live.dual("exec", "one", "--", "chmod", "700", "/var/data/deep").code == 0
    live.write(text.replace("one: {", "one: {env: {A: b}, "))
    live.apply(env)
    now = live.dual("exec", "one", "--", "stat", "-c", "%u %a", "/var/data/deep")
    assert now.stdout == "4711 700\n", "what is there already is left as it is"


def test_destroying_clones(live: LiveProject) -> None:
    live.apply()
    root = live.folder / ".dual/clones"
    (root / "auth/index.html").write_text("my work")
    git(root / "cart", "commit", "--quiet", "--allow-empty", "-m", "mine")
    assert live.dual("destroy", "-y").code == 0
    assert {"auth", "cart", "idea"} <= {each.name for each in root.iterdir()}
    live.apply()
    refused = live.dual("destroy", "-y", "--clones")
    assert refused.code == 1, refused
    assert "auth: uncommitted changes" in refused.stderr
    assert "cart: 1 commit that no remote has" in refused.stderr
    assert "--force auth --force cart" in refused.stderr
    assert live.is_up("auth")
    assert live.dual("destroy", "-y", "idea", "--clones").code == 0
    assert not (root / "idea").exists()
    assert live.dual("destroy", "-y", "--clones", "--force", "auth").code == 1
    typo = live.dual("destroy", "-y", "--clones", "--force", "outh")
    assert typo.code == 64, typo
    both = live.dual("destroy", "-y", "--clones", "--force", "auth", "--force", "cart")
    assert both.code == 0, both
    assert not {"auth", "cart"} & {each.name for each in root.iterdir()}


def test_one_that_cannot_be_cloned_leaves_the_others_applied(live: LiveProject) -> None:
    spec = live.folder / "dual.yaml"
    text = spec.read_text()
    spec.write_text(text + "  bad: {source: {git: 'file:///nowhere/at/all.git'}}\n")
    done = live.dual("apply", "-y")
    assert done.code == 1, done
    assert "bad failed: git clone fails: '/nowhere/at/all.git' does not appear" in done.stderr
    assert "→ check the URL under source.git" in done.stderr
    assert "3 of 4 workspaces answer, not bad." in done.stderr
    assert page(live, "auth") == "feat/auth"
    spec.write_text(text)
    live.apply()
    assert live.plan()["changes"] == []


def test_a_clone_that_somebody_deleted_comes_back(live: LiveProject) -> None:
    live.apply()
    before = live.identities("cart", "traefik")
    shutil.rmtree(live.folder / ".dual/clones/auth")
    plan = live.plan()
    assert changes(plan) == [
        ("workspace.auth", "replace", ["source"]),
        ("source.auth", "create", ["branch", "git"]),
    ]
    live.apply()
    assert live.plan()["changes"] == []
    assert page(live, "auth") == "feat/auth"
    assert live.identities(*before) == before
