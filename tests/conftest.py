"""What all tests share."""

from __future__ import annotations

import os
import shutil
import tempfile

_STATE = tempfile.mkdtemp(prefix="dual-test-state-")


def pytest_configure() -> None:
    """What dual remembers of the tests' projects is nothing to whom they run for."""
    os.environ["XDG_STATE_HOME"] = _STATE


def pytest_unconfigure() -> None:
    shutil.rmtree(_STATE, ignore_errors=True)
