"""examples/vite-postgres: a real application on three branches, in a real browser."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from selenium import webdriver
from selenium.webdriver.common.by import By

from tests.engine.browser import started_browser
from tests.engine.conftest import DUAL, LiveProject, docker
from tests.engine.test_sources import git

EXAMPLE = Path(__file__).parents[2] / "examples/vite-postgres"
POSTGRES_IMAGE = "postgres:15"  # scripts/image.sh builds it where it can't be pulled
BRANCHES = {"main": "main", "feat-search": "feat/search", "fix-title": "fix/title"}

WATCH_HEADING = """
    const heading = document.querySelector('h1')
    const note = () => window.seen.push({ text: heading.textContent, at: Date.now() / 1000 })
    window.seen = []
    new MutationObserver(note).observe(heading, { childList: true })
"""


def message(text: str) -> str:
    return f"export const message = '{text}'\n"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveProject]:
    """The example as a repository with its three branches, applied."""
    folder = tmp_path_factory.mktemp("notes")
    mine = shutil.ignore_patterns("node_modules", "dist", "compose", ".dual")
    shutil.copytree(EXAMPLE, folder, dirs_exist_ok=True, ignore=mine)
    git(folder, "init", "--quiet", "-b", "main")
    for branch in BRANCHES.values():
        if branch != "main":
            git(folder, "checkout", "--quiet", "-b", branch, "main")
        (folder / "src/message.js").write_text(message(f"Hello from {branch}"))
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "--allow-empty", "-m", branch)
    git(folder, "checkout", "--quiet", "main")

    project = LiveProject(folder)
    declared = yaml.safe_load((EXAMPLE / "dual.yaml").read_text())
    project.write(yaml.safe_dump({key: declared[key] for key in ("defaults", "workspaces")}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POSTGRES_IMAGE", POSTGRES_IMAGE)
        try:
            project.apply()
            yield project
        finally:
            project.remove()


@dataclass
class Page:
    """A tab of the browser with a workspace's page."""

    browser: webdriver.Chrome
    tab: str
    console: str = ""

    def focus(self) -> webdriver.Chrome:
        self.browser.switch_to.window(self.tab)
        return self.browser

    def run(self, script: str) -> Any:
        return self.focus().execute_script(script)

    def heading(self) -> str:
        return self.focus().find_element(By.TAG_NAME, "h1").text

    def notes(self) -> list[str]:
        return [each.text for each in self.focus().find_elements(By.TAG_NAME, "li")]

    def is_hot(self) -> bool:
        """Whether Vite's client in the page has its WebSocket, through which it hears of edits."""
        entries = self.focus().get_log("browser")  # type: ignore[no-untyped-call]
        self.console += "\n".join(entry["message"] for entry in entries)
        return "[vite] connected" in self.console


@pytest.fixture(scope="module")
def pages(live: LiveProject) -> Iterator[dict[str, Page]]:
    """All three workspaces, opened at the URLs that dual prints and ready for hot reload."""
    opened = {}
    with started_browser() as browser:
        for name in BRANCHES:
            browser.switch_to.new_window("tab")
            browser.get(live.dual("url", name).stdout.strip())
            opened[name] = Page(browser, browser.current_window_handle)
            becomes(opened[name].is_hot, True)
        yield opened


def becomes(read: Callable[[], Any], expected: Any, seconds: float = 20) -> None:
    """Wait until something is as expected; if it never is, pytest shows what it was last."""
    end = time.monotonic() + seconds
    while (last := read()) != expected and time.monotonic() < end:
        time.sleep(0.05)  # between two looks
    assert last == expected, f"for {seconds:g} s"


def select(live: LiveProject, name: str, what: str) -> str:
    """What a workspace's database says."""
    psql = ("psql", "-U", "postgres", "-d", "notes", "-Atc", f"SELECT {what}")
    return docker("exec", f"{live.name}-{name}--db-1", *psql)


def test_each_page_shows_its_own_branch(live: LiveProject, pages: dict[str, Page]) -> None:
    assert {name: page.heading() for name, page in pages.items()} == {
        name: f"Hello from {branch}" for name, branch in BRANCHES.items()
    }
    assert live.plan()["changes"] == []


def test_an_edit_on_the_host_shows_in_its_own_page_within_a_second(
    live: LiveProject, pages: dict[str, Page]
) -> None:
    """By hot reload: a page that was loaded anew would have forgotten what it has seen."""
    for page in pages.values():
        page.run(WATCH_HEADING)
    edited_at = {}
    for name, page in pages.items():
        edited_at[name] = time.time()
        file = live.folder / ".dual/clones" / name / "src/message.js"
        file.write_text(message(f"Edited in {name}"))
        becomes(page.heading, f"Edited in {name}")
    # Only now: what an edit had done to another page would stand there, in this order.
    seen = {name: page.run("return window.seen") for name, page in pages.items()}
    # As sets: emptying the file and writing it may count as two edits.
    texts = {name: {each["text"] for each in seen[name] or ()} for name in pages}
    assert texts == {name: {f"Edited in {name}"} for name in pages}
    took = {name: seen[name][0]["at"] - edited_at[name] for name in pages}
    assert max(took.values()) < 1, f"seconds that hot reload took: {took}"


def test_a_row_is_in_one_database_alone(live: LiveProject, pages: dict[str, Page]) -> None:
    page = pages["feat-search"]
    page.focus().find_element(By.NAME, "text").send_keys("only here\n")
    becomes(page.notes, ["only here"])
    rows = {name: select(live, name, "text FROM notes") for name in pages}
    assert rows == {"main": "", "feat-search": "only here", "fix-title": ""}
    for each in pages.values():
        each.focus().refresh()
        becomes(each.notes, ["only here"] if each is page else [])


def test_killing_a_long_test_run_leaves_no_process(live: LiveProject) -> None:
    name = f"{live.name}-main-1"

    def processes() -> dict[str, str]:
        """Command lines by process id, of all that is in the container."""
        lines = docker("top", name, "-eo", "pid,args").splitlines()[1:]
        return dict(line.split(maxsplit=1) for line in lines)

    before = processes()

    def started() -> list[str]:
        return [line for pid, line in processes().items() if pid not in before]

    def temporary_tables() -> str:
        """Those of the tests: only while they are connected."""
        return select(
            live, "main", "count(*) FROM pg_class WHERE relname = 'notes' AND relpersistence = 't'"
        )

    process = subprocess.Popen(
        [*DUAL, "exec", "main", "--", "npm", "test"],
        cwd=live.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        becomes(temporary_tables, "1")
        assert len(started()) >= 4, f"npm, a shell, vitest and its worker: {started()}"
        assert process.poll() is None, "it ended by itself"
    finally:
        process.kill()
        process.wait()
    becomes(started, [])
    becomes(temporary_tables, "0")
