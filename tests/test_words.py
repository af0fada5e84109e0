"""A command's words, as Compose has them: each was compared with what Compose reads."""

from __future__ import annotations

import pytest

from dual_iac.words import split


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ()),
        (" \t\r\n", ()),
        ("npm run dev", ("npm", "run", "dev")),
        (" a  b\n", ("a", "b")),
        ("sh -c 'a; b'", ("sh", "-c", "a; b")),
        ('sh -c "a && \\"b\\""', ("sh", "-c", 'a && "b"')),
        ("'' \"\"", ("", "")),
        ("a'b'\"c\"d", ("abcd",)),
        ("a\\;b \\  \\'", ("a;b", " ", "'")),
        ("a\\nb \"\\t\" '\\n'", ("a\nb", "\t", "\\n")),
        ('"\\x" "$A" #b', ("x", "$A", "#b")),
        ("a\u00a0b é", ("a\u00a0b", "é")),
    ],
)
def test_split(text: str, words: tuple[str, ...]) -> None:
    assert split(text) == words


@pytest.mark.parametrize("character", [*";&|<>()`"])
def test_what_needs_a_shell_is_refused(character: str) -> None:
    """Compose would end the command there, or refuse it."""
    assert split(f"a '{character}' \"{character}\" \\{character}") == ("a", *[character] * 3)
    with pytest.raises(ValueError, match="no shell runs that would know what"):
        split(f"npm ci {character} b")


@pytest.mark.parametrize(
    ("text", "why"), [("'a", "quotation"), ('"a', "quotation"), ("a\\", "escaped")]
)
def test_what_never_ends_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        split(text)
