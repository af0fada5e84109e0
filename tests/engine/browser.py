"""A headless Chrome or Chromium."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
def started_browser(home: Path | None = None) -> Iterator[webdriver.Chrome]:
    """One with a new profile, which its driver makes and removes; its console is logged.

    ``home`` is a home folder of its own, where :func:`trust` has it trust an authority.
    """
    options = webdriver.ChromeOptions()
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in _FLAGS:
        options.add_argument(flag)
    installed = next((path for name in _BROWSERS if (path := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if installed and driver:
        options.binary_location = installed
        environment = {**os.environ, **({"HOME": str(home)} if home else {})}
        chrome = webdriver.Chrome(options, webdriver.ChromeService(driver, env=environment))
    else:
        chrome = webdriver.Chrome(options)  # Selenium Manager finds or gets one
    try:
        yield chrome
    finally:
        chrome.quit()


def trust(home: Path, authority: Path) -> None:
    """Have a browser with this home folder trust the certificates of an authority."""
    for folder in (".pki/nssdb", ".local/share/pki/nssdb"):  # which one counts goes by its version
        (home / folder).mkdir(parents=True)
        for words in (
            ["-N", "--empty-password"],
            ["-A", "-t", "C,,", "-n", "test", "-i", authority],
        ):
            command = ["certutil", "-d", f"sql:{home / folder}", *words]
            subprocess.run(command, check=True, capture_output=True)
