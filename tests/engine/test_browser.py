"""A browser sees it: each workspace's own page, at the URL that dual prints."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from tests.engine.conftest import LiveProject

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    for flag in _FLAGS:
        options.add_argument(flag)
    installed = next((path for name in _BROWSERS if (path := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if installed and driver:
        options.binary_location = installed
        chrome = webdriver.Chrome(options, webdriver.ChromeService(driver))
    else:
        chrome = webdriver.Chrome(options)  # Selenium Manager finds or gets one
    yield chrome
    chrome.quit()


def test_chromium_finds_each_workspaces_own_page(
    live: LiveProject, browser: webdriver.Chrome
) -> None:
    live.declare("main", extra="  feat-auth: {env: {GREETING: welcome}}\n")
    live.apply()
    pages = {}
    for name in ("main", "feat-auth"):
        browser.get(live.dual("url", name).stdout.strip())
        pages[name] = browser.find_element(By.TAG_NAME, "body").text.strip()
    assert pages == {"main": "main", "feat-auth": "feat-auth welcome"}
