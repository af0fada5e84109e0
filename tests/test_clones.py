"""Clones of git sources, with real git and remotes in folders of this machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dual_iac.clones import Clone, GitState, clear_unfinished, make, remove, state, unsaved
from dual_iac.errors import DualError

IDENTITY = (
    "-c",
    "user.name=Ada",
    "-c",
    "user.email=ada@example.com",
    "-c",
    "init.defaultBranch=main",
)


def git(*arguments: str, at: Path) -> str:
    done = subprocess.run(
        ["git", *IDENTITY, *arguments], cwd=at, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"git {arguments}: {done.stderr}"
    return done.stdout.strip()


def commit(repository: Path, name: str, text: str = "x\n") -> None:
    (repository / name).write_text(text)
    git("add", name, at=repository)
    git("commit", "--quiet", "-m", name, at=repository)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where dual.yaml is: a working copy of the remote beside it, with a branch pushed to it."""
    remote, home = tmp_path / "remote.git", tmp_path / "home"
    remote.mkdir()
    git("init", "--quiet", "--bare", at=remote)
    git("clone", "--quiet", f"file://{remote}", str(home), at=tmp_path)
    git("checkout", "--quiet", "-B", "main", at=home)
    commit(home, "first")
    git("push", "--quiet", "-u", "origin", "main", at=home)
    git("checkout", "--quiet", "-b", "feat/auth", at=home)
    commit(home, "auth")
    git("push", "--quiet", "-u", "origin", "feat/auth", at=home)
    git("checkout", "--quiet", "main", at=home)
    return home


def wanted(home: Path, name: str, branch: str | None = None) -> Clone:
    url = f"file://{home.parent}/remote.git"
    return Clone(name, home / ".dual/clones" / name, url, url, branch)


def head(path: Path) -> str:
    return git("rev-parse", "--abbrev-ref", "HEAD", at=path)


def files(path: Path) -> set[str]:
    return {each.name for each in path.iterdir()} - {".git"}


def test_a_branch_of_the_remote(home: Path) -> None:
    clone = wanted(home, "feat-auth", "feat/auth")
    assert make(clone, home) == "origin/feat/auth"
    assert files(clone.path) == {"first", "auth"}
    assert head(clone.path) == "feat/auth"
    assert git("rev-parse", "--abbrev-ref", "@{upstream}", at=clone.path) == "origin/feat/auth"
    assert state(clone.path) == GitState("feat/auth", dirty=False, ahead=0, behind=0)


def test_it_is_a_clone_of_its_own(home: Path) -> None:
    """A .git of its own, which shares nothing with anybody, and the real remote."""
    clone = wanted(home, "feat-auth", "feat/auth")
    make(clone, home)
    assert (clone.path / ".git").is_dir()
    assert clone.path.stat().st_mode & 0o777 == 0o755, "a workspace may run as anybody"
    assert not (clone.path / ".git/objects/info/alternates").exists()
    assert git("remote", "get-url", "origin", at=clone.path) == clone.url
    assert git("worktree", "list", "--porcelain", at=clone.path).count("worktree ") == 1
    commit(clone.path, "more")
    git("push", "--quiet", at=clone.path)
    assert git("rev-parse", "feat/auth", at=home.parent / "remote.git") == git(
        "rev-parse", "HEAD", at=clone.path
    )


def test_a_second_one_shares_its_objects_on_the_disk(home: Path) -> None:
    git("gc", "--quiet", at=home.parent / "remote.git")
    for name in ("one", "two"):
        make(wanted(home, name), home)
    [pack] = (home / ".dual/clones/two/.git/objects/pack").glob("*.pack")
    assert pack.stat().st_nlink >= 3, "the mirror's and both clones' are one file"


def test_without_a_branch_it_is_the_remotes_own(home: Path) -> None:
    clone = wanted(home, "main")
    assert make(clone, home) == "origin/main, the remote's own branch"
    assert head(clone.path) == "main"
    assert files(clone.path) == {"first"}
    git("symbolic-ref", "HEAD", "refs/heads/feat/auth", at=home.parent / "remote.git")
    later = wanted(home, "later")
    assert make(later, home) == "origin/feat/auth, the remote's own branch"
    assert state(later.path) == GitState("feat/auth", dirty=False, ahead=0, behind=0)


def test_a_branch_that_only_the_repository_at_home_has(home: Path) -> None:
    git("checkout", "--quiet", "-b", "local", at=home)
    commit(home, "unpushed")
    git("checkout", "--quiet", "main", at=home)
    clone = wanted(home, "local", "local")
    assert make(clone, home) == "the local branch local"
    assert files(clone.path) == {"first", "unpushed"}
    assert head(clone.path) == "local"


def test_a_branch_of_another_repository_at_home_is_not_taken(home: Path) -> None:
    git("remote", "set-url", "origin", "https://example.com/other.git", at=home)
    git("branch", "local", at=home)
    clone = wanted(home, "local", "local")
    assert make(clone, home) == "origin/main, as nobody has local yet"


def test_a_branch_that_nobody_has_yet_follows_none(home: Path) -> None:
    clone = wanted(home, "idea", "idea/new")
    assert make(clone, home) == "origin/main, as nobody has idea/new yet"
    assert head(clone.path) == "idea/new"
    assert state(clone.path) == GitState("idea/new", dirty=False)


def test_a_branch_that_came_or_went_since_the_last_clone(home: Path) -> None:
    """Never a fork of one that there is, nor one that there isn't any more."""
    make(wanted(home, "first"), home)
    git("checkout", "--quiet", "-b", "later", at=home)
    commit(home, "later")
    git("push", "--quiet", "origin", "later", at=home)
    git("push", "--quiet", "origin", ":feat/auth", at=home)
    for branch in ("later", "feat/auth"):
        git("checkout", "--quiet", "main", at=home)
        git("branch", "--quiet", "-D", branch, at=home)
    assert make(wanted(home, "later", "later"), home) == "origin/later"
    assert make(wanted(home, "auth", "feat/auth"), home).startswith("origin/main")


def test_a_remote_that_does_not_answer_makes_nothing(home: Path) -> None:
    """Not even a new branch: the remote may have it."""
    make(wanted(home, "first"), home)
    (home.parent / "remote.git").rename(home.parent / "away")
    with pytest.raises(DualError, match="git fetch fails") as raised:
        make(wanted(home, "idea", "idea"), home)
    assert "does not" in raised.value.why
    assert raised.value.mend == "check the URL under source.git"
    assert sorted(each.name for each in (home / ".dual/clones").iterdir()) == [
        *(".gitignore", ".mirrors", "first")
    ]


def test_a_password_in_a_url_is_not_shown(home: Path) -> None:
    url = f"file://{home}/s3cret-nowhere.git"
    clone = Clone("a", home / "clones/a", url, "${URL}")
    with pytest.raises(DualError) as raised:
        make(clone, home)
    assert "s3cret" not in raised.value.why + raised.value.summary
    assert "${URL}" in raised.value.why


def test_an_empty_repository(home: Path) -> None:
    (home.parent / "remote.git").rename(home.parent / "away")
    (home.parent / "remote.git").mkdir()
    git("init", "--quiet", "--bare", at=home.parent / "remote.git")
    assert make(wanted(home, "a"), home) == "an empty repository"
    with pytest.raises(DualError, match="no branch to start idea from"):
        make(wanted(home, "b", "idea"), home)


def test_the_repository_around_it_does_not_see_it(home: Path) -> None:
    make(wanted(home, "a"), home)
    assert git("status", "--porcelain", at=home) == ""


def test_git_variables_of_a_hook_name_another_repository(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(home / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(home / ".git/index"))
    clone = wanted(home, "feat-auth", "feat/auth")
    make(clone, home)
    monkeypatch.delenv("GIT_DIR")
    monkeypatch.delenv("GIT_INDEX_FILE")
    assert head(home) == "main"
    assert head(clone.path) == "feat/auth"


def test_what_a_killed_one_left_is_cleared(home: Path) -> None:
    make(wanted(home, "a"), home)
    root = home / ".dual/clones"
    (root / ".new-b-1234").mkdir()
    (root / ".new-b-1234/file").touch()
    (root / ".mirrors/.new-5678").mkdir()
    clear_unfinished(root)
    assert sorted(each.name for each in root.iterdir()) == [".gitignore", ".mirrors", "a"]
    assert [*(root / ".mirrors").glob(".new-*")] == []
    clear_unfinished(home / "nowhere")


def test_a_folder_that_cannot_be_written(home: Path) -> None:
    (home / ".dual").write_text("a file where the folder should be")
    with pytest.raises(DualError, match="clone of a can't be made") as raised:
        make(wanted(home, "a"), home)
    assert raised.value.mend


# ── what is there ───────────────────────────────────────────────────────────────────────────


def test_what_a_working_copy_is_at(home: Path) -> None:
    clone = wanted(home, "feat-auth", "feat/auth")
    make(clone, home)
    commit(clone.path, "more")
    git("checkout", "--quiet", "feat/auth", at=home)
    commit(home, "other")
    commit(home, "another")
    git("push", "--quiet", at=home)
    git("fetch", "--quiet", at=clone.path)
    assert state(clone.path) == GitState("feat/auth", dirty=False, ahead=1, behind=2)
    (clone.path / "new").touch()
    assert state(clone.path) == GitState("feat/auth", dirty=True, ahead=1, behind=2)
    git("checkout", "--quiet", "--detach", at=clone.path)
    assert state(clone.path) == GitState(None, dirty=True)


def test_a_folder_that_is_no_working_copy_has_no_state(home: Path, tmp_path: Path) -> None:
    assert state(tmp_path / "nowhere") is None
    (home / "below").mkdir()
    assert state(home / "below") is None, "that is another one's, around it"


@pytest.mark.parametrize(
    ("work", "words"),
    [
        ("true", ""),
        ("echo x > new", "uncommitted changes"),
        ("echo x >> first", "uncommitted changes"),
        ("git commit --quiet --allow-empty -m a", "1 commit that no remote has"),
        (
            "git commit --quiet --allow-empty -m a; git checkout --quiet -b b;"
            "git commit --quiet --allow-empty -m b; git checkout --quiet main; touch c",
            "uncommitted changes and 2 commits that no remote has",
        ),
        (
            "git checkout --quiet --detach; git commit --quiet --allow-empty -m a",
            "1 commit that no remote has",
        ),
        ("echo x >> first; git stash --quiet", "1 commit that no remote has"),
        ("git commit --quiet --allow-empty -m a; git push --quiet", ""),
        ("git tag mine", ""),
        ("rm -rf .git", "it is no working copy of its own"),
    ],
)
def test_the_work_that_would_be_lost(home: Path, work: str, words: str) -> None:
    clone = wanted(home, "main")
    make(clone, home)
    for key, value in (("name", "Ada"), ("email", "ada@example.com")):
        git("config", f"user.{key}", value, at=clone.path)
    subprocess.run(["sh", "-ec", work], cwd=clone.path, check=True)
    assert unsaved(clone.path) == words


def test_removing_one(home: Path) -> None:
    clone = wanted(home, "a")
    make(clone, home)
    remove(clone.path)
    assert sorted(each.name for each in clone.path.parent.iterdir()) == [".gitignore", ".mirrors"]
    with pytest.raises(DualError, match="can't be removed"):
        remove(clone.path)


def test_without_git(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(DualError, match="git command is not installed"):
        make(wanted(home, "a"), home)
