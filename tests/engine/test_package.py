"""The wheel alone, in an empty folder, is all that somebody needs."""

from __future__ import annotations

import sys
import venv
from pathlib import Path

import pytest

from tests.engine.conftest import LAB_IMAGE, LiveProject, run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dual command of a venv that has the built wheel, and not the repository."""
    folder = tmp_path_factory.mktemp("wheel")
    built = run(sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT))
    assert built.code == 0, built
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=True)
    pip = run(str(folder / "venv/bin/pip"), "install", "-q", str(wheel))
    assert pip.code == 0, pip
    return folder / "venv/bin/dual"


def test_init_apply_and_destroy_from_a_wheel(installed: Path, live: LiveProject) -> None:
    init = run(str(installed), "init", cwd=live.folder)
    assert init.code == 0, init
    assert run(str(installed), "validate", cwd=live.folder).code == 0
    again = run(str(installed), "init", cwd=live.folder)
    assert again.code == 64, again
    assert "--force" in again.stderr

    live.declare("one")
    applied = run(str(installed), "apply", "-y", cwd=live.folder)
    assert applied.code == 0, applied
    assert live.is_up("one"), LAB_IMAGE
    destroyed = run(str(installed), "destroy", "-y", cwd=live.folder)
    assert destroyed.code == 0, destroyed
    assert live.leftovers()["containers"] == ""
