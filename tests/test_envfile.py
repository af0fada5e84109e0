"""Files of variables, as Compose reads them (tests/engine/ asks the real one)."""

from __future__ import annotations

from pathlib import Path

import pytest

from dual_iac.envfile import read_env_file

AROUND = {"HOME": "/home/ada", "PASSED": "through"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=1\nB=two words\n", {"A": "1", "B": "two words"}),
        ("# comment\n\nexport A=1\n", {"A": "1"}),
        ("A=$HOME/x\nB=${HOME}/y", {"A": "/home/ada/x", "B": "/home/ada/y"}),
        ("A='$HOME ${HOME}'", {"A": "$HOME ${HOME}"}),
        ('A="$HOME"', {"A": "/home/ada"}),
        ("A=1\nB=${A}2", {"A": "1", "B": "12"}),
        ("HOME=/elsewhere\nB=$HOME", {"HOME": "/elsewhere", "B": "/home/ada"}),
        ("A=${NOPE:-default}", {"A": "default"}),
        ("PASSED\nNOPE\n", {"PASSED": "through"}),
        ("A=\n", {"A": ""}),
        ("", {}),
    ],
)
def test_env_files(text: str, expected: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "vars").write_text(text)
    assert read_env_file(tmp_path / "vars", AROUND) == expected


def test_a_file_that_is_not_there_has_no_variables(tmp_path: Path) -> None:
    assert read_env_file(tmp_path / "nope", AROUND) == {}
    assert read_env_file(tmp_path, AROUND) == {}
