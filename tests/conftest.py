"""What all tests share."""

from __future__ import annotations

import os
import shutil
import tempfile

_HOMES = {
    name: tempfile.mkdtemp(prefix="dual-test-") for name in ("XDG_STATE_HOME", "XDG_DATA_HOME")
}


def pytest_configure() -> None:
    """What dual remembers of the tests' projects is nothing to whom they run for, nor are the
    authorities that they make."""
    os.environ.update(_HOMES)


def pytest_unconfigure() -> None:
    for folder in _HOMES.values():
        shutil.rmtree(folder, ignore_errors=True)
