"""docs/reference says what the code says, and no link in the documentation leads nowhere."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


def _script() -> ModuleType:
    found = importlib.util.spec_from_file_location("reference", ROOT / "scripts/reference.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    return _script()


def test_the_reference_is_current(reference: ModuleType) -> None:
    assert reference.stale() == [], "run .venv/bin/python scripts/reference.py"


def test_a_missing_or_edited_page_is_stale(
    reference: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "pages", lambda: {"a.md": "a", "b.md": "b", "c.md": "c"})
    (tmp_path / "a.md").write_text("a")
    (tmp_path / "b.md").write_text("edited")
    assert reference.stale(tmp_path) == ["b.md", "c.md"]


def test_fields_say_themselves_whether_they_take_variables(reference: ModuleType) -> None:
    from dual_iac.model import Proxy, Resources, WorkspaceSettings

    def of(kind: type[WorkspaceSettings | Proxy | Resources]) -> set[str]:
        return {n for n, field in kind.model_fields.items() if reference.takes_variables(field)}

    assert of(Resources) == {"cpus", "memory"}
    assert of(Proxy) == {"image"}
    assert {"image", "command", "env", "env_file", "user"} <= of(WorkspaceSettings)
    assert not {"hosts", "volumes", "ready", "enabled"} & of(WorkspaceSettings)


def _links(page: Path) -> Iterator[tuple[Path, str]]:
    """The files that a page links to, and the headings in them."""
    for target in _LINK.findall(_FENCED.sub("", page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, heading = unquote(target).partition("#")
        yield (page.parent / path).resolve() if path else page, heading


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(reference: ModuleType, page: Path) -> None:
    for target, heading in _links(page):
        assert target.exists(), f"{page.name} links to {target}"
        if heading:
            text = _FENCED.sub("", target.read_text("utf-8"))
            known = {reference.anchor(each) for each in _HEADING.findall(text)}
            assert heading in known, f"{page.name} links to {target.name}#{heading}"
