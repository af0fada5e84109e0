"""The hash of what an image is built from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dual_iac.builds import content_hash
from dual_iac.model import Build


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (
        ("Dockerfile", "FROM x\n"),
        ("app.py", "1\n"),
        ("docs/guide.md", "a\n"),
        ("docs/more/notes.md", "b\n"),
        ("node_modules/x/index.js", "c\n"),
    ):
        (tmp_path / "app" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "app" / name).write_text(text)
    return tmp_path / "app"


def hash_of(folder: Path, **build: object) -> str:
    return content_hash(Build.model_validate(build), folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda f: (f / "app.py").write_text("2\n"),
        lambda f: (f / "new").touch(),
        lambda f: (f / "app.py").unlink(),
        lambda f: (f / "app.py").rename(f / "main.py"),
        lambda f: (f / "app.py").chmod(0o755),
        lambda f: (f / "Dockerfile").write_text("FROM y\n"),
        lambda f: (f / "link").symlink_to("app.py"),
    ],
)
def test_every_change_of_a_file_counts(folder: Path, change: object) -> None:
    before = hash_of(folder)
    assert callable(change)
    change(folder)
    assert hash_of(folder) != before


def test_how_it_is_built_counts_and_where_it_lies_does_not(folder: Path) -> None:
    plain = hash_of(folder)
    assert hash_of(folder, target="dev") != plain
    assert hash_of(folder, args={"A": "1"}) not in (plain, hash_of(folder, args={"A": "2"}))
    (folder / "other.Dockerfile").write_text("FROM x\n")
    with_other = hash_of(folder)
    assert hash_of(folder, dockerfile="other.Dockerfile") == with_other, "the same text"
    moved = folder.rename(folder.with_name("moved"))
    assert hash_of(moved) == with_other
    os.utime(moved / "app.py", (0, 0))
    assert hash_of(moved) == with_other


@pytest.mark.parametrize(
    ("ignore", "changed", "counts"),
    [
        ("node_modules", "node_modules/x/index.js", False),
        ("node_modules/", "node_modules/x/index.js", False),
        ("/node_modules", "node_modules/x/index.js", False),
        ("./node_modules", "node_modules/x/index.js", False),
        ("# node_modules", "node_modules/x/index.js", True),
        ("x", "node_modules/x/index.js", True),
        ("**/x", "node_modules/x/index.js", False),
        ("*.md", "docs/guide.md", True),
        ("**/*.md", "docs/guide.md", False),
        ("docs/*.md", "docs/guide.md", False),
        ("docs/*.md", "docs/more/notes.md", True),
        ("docs/*\n!docs/guide.md", "docs/guide.md", True),
        ("docs\n!docs/guide.md", "docs/guide.md", True),
        ("docs\n!docs/guide.md", "docs/more/notes.md", False),
        ("*\n!app.py", "app.py", True),
        ("*\n!app.py", "docs/guide.md", False),
        (".", "app.py", True),
    ],
)
def test_what_docker_ignores_does_not_count(
    folder: Path, ignore: str, changed: str, counts: bool
) -> None:
    """As Docker reads .dockerignore: patterns start at the top, the last one that fits decides."""
    (folder / ".dockerignore").write_text(f"{ignore}\n")
    before = hash_of(folder)
    (folder / changed).write_text("changed\n")
    assert (hash_of(folder) != before) == counts


def test_a_dockerfile_may_have_a_list_of_its_own(folder: Path) -> None:
    (folder / "Dockerfile.dockerignore").write_text("docs\n")
    (folder / ".dockerignore").write_text("app.py\n")
    before = hash_of(folder)
    (folder / "docs/guide.md").write_text("changed\n")
    assert hash_of(folder) == before
    (folder / "app.py").write_text("changed\n")
    assert hash_of(folder) != before


def test_a_context_that_is_not_there(tmp_path: Path) -> None:
    assert hash_of(tmp_path, context="nowhere") == hash_of(tmp_path, context="elsewhere")
