"""A headless Chrome or Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from selenium import webdriver

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


@contextmanager
def started_browser() -> Iterator[webdriver.Chrome]:
    """One with a new profile, which its driver makes and removes; its console is logged."""
    options = webdriver.ChromeOptions()
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in _FLAGS:
        options.add_argument(flag)
    installed = next((path for name in _BROWSERS if (path := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if installed and driver:
        options.binary_location = installed
        chrome = webdriver.Chrome(options, webdriver.ChromeService(driver))
    else:
        chrome = webdriver.Chrome(options)  # Selenium Manager finds or gets one
    try:
        yield chrome
    finally:
        chrome.quit()
