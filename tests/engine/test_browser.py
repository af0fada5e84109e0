"""A browser sees it: each workspace's own page, at the URL that dual prints."""

from __future__ import annotations

from selenium.webdriver.common.by import By

from tests.engine.browser import started_browser
from tests.engine.conftest import LiveProject


def test_chromium_finds_each_workspaces_own_page(live: LiveProject) -> None:
    live.declare("main", extra="  feat-auth: {env: {GREETING: welcome}}\n")
    live.apply()
    pages = {}
    with started_browser() as browser:
        for name in ("main", "feat-auth"):
            browser.get(live.dual("url", name).stdout.strip())
            pages[name] = browser.find_element(By.TAG_NAME, "body").text.strip()
    assert pages == {"main": "main", "feat-auth": "feat-auth welcome"}
