"""Files of variables, as Compose reads them (tests/engine/ asks the real one)."""

from __future__ import annotations

from pathlib import Path

import pytest

from dual_iac.envfile import expand_home, read_env_file

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


def test_a_file_without_end_is_refused() -> None:
    with pytest.raises(OSError, match="File too large"):
        read_env_file(Path("/dev/zero"), {})


def test_home_is_home_whatever_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Compose has it: ``~name`` is nobody else's home."""
    monkeypatch.setenv("HOME", "/home/ada")
    paths = ("~", "~/x", "~root/x", "/~", "./~")
    expanded = ["/home/ada", "/home/ada/x", "/home/ada/root/x", "/~", "~"]
    assert [str(expand_home(path)) for path in paths] == expanded


def test_a_file_that_is_not_there_has_no_variables(tmp_path: Path) -> None:
    assert read_env_file(tmp_path / "nope", AROUND) == {}
    assert read_env_file(tmp_path, AROUND) == {}
