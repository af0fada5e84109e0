"""``${VAR}`` means what it means in Compose."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dual_iac.interpolation import (
    MAX_DEPTH,
    InterpolationError,
    check,
    escape,
    has_references,
    substitute,
)

VARIABLES = {"SET": "value", "EMPTY": "", "OTHER": "other", "_u1": "under"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("plain", "plain"),
        ("$$", "$"),
        ("$$$$", "$$"),
        ("$$SET", "$SET"),
        ("$$$SET", "$value"),
        ("$${SET}", "${SET}"),
        ("$SET", "value"),
        ("${SET}", "value"),
        ("$SET-$OTHER", "value-other"),
        ("a${SET}b", "avalueb"),
        ("$_u1", "under"),
        ("$SETTER", ""),
        ("$UNSET", ""),
        ("${UNSET}", ""),
        ("$EMPTY", ""),
        ("${SET:-d}", "value"),
        ("${EMPTY:-d}", "d"),
        ("${UNSET:-d}", "d"),
        ("${UNSET:-}", ""),
        ("${SET-d}", "value"),
        ("${EMPTY-d}", ""),
        ("${UNSET-d}", "d"),
        ("${SET:?m}", "value"),
        ("${SET?m}", "value"),
        ("${EMPTY?m}", ""),
        ("${SET:+r}", "r"),
        ("${EMPTY:+r}", ""),
        ("${UNSET:+r}", ""),
        ("${SET+r}", "r"),
        ("${EMPTY+r}", "r"),
        ("${UNSET+r}", ""),
        ("${UNSET:-${SET}}", "value"),
        ("${UNSET:-$SET}", "value"),
        ("${UNSET:-${ALSO_UNSET:-deep}}!", "deep!"),
        ("${UNSET:-a${SET}b$OTHER}", "avaluebother"),
        ("${UNSET:-$$}", "$"),
        ("${UNSET:-a:-b?c+d}", "a:-b?c+d"),
        ("${SET:+${OTHER}}", "other"),
        ("${SET:-${MISSING:?never asked}}", "value"),
        ("${UNSET:-{}}", "{}"),
        ("}{", "}{"),
    ],
)
def test_substitute(text: str, expected: str) -> None:
    assert substitute(text, VARIABLES) == expected
    check(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${UNSET:?tell me}", "variable UNSET: tell me"),
        ("${EMPTY:?tell me}", "variable EMPTY: tell me"),
        ("${UNSET?tell me}", "variable UNSET: tell me"),
        ("${UNSET:?}", "variable UNSET: required, but not set"),
        ("${UNSET:-${ALSO:?deep}}", "variable ALSO: deep"),
    ],
)
def test_required_variable_is_missing(text: str, message: str) -> None:
    check(text)  # the syntax is fine
    with pytest.raises(InterpolationError) as caught:
        substitute(text, VARIABLES)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("$", "a lone $"),
        ("costs 5$", "a lone $"),
        ("$$$", "a lone $"),
        ("$5", "a lone $ before '5'"),
        ("$ SET", "a lone $ before ' '"),
        ("$-", "a lone $ before '-'"),
        ("${", "a ${ that is never closed"),
        ("${SET", "a ${ that is never closed"),
        ("${SET:-${OTHER}", "a ${ that is never closed"),
        ("${}", "${} does not start with a variable's name"),
        ("${1}", "${1} does not start with a variable's name"),
        ("${:-d}", "${:-d} does not start with a variable's name"),
        ("${SET }", "${SET } has ' ' where :- :? or :+ may stand"),
        ("${SET:d}", "${SET:d} has ':' where :- :? or :+ may stand"),
        ("${SET.x}", "${SET.x} has '.' where :- :? or :+ may stand"),
        ("${SET:-$}", "a lone $"),
        ("${SET:+${}}", "${} does not start with a variable's name"),
    ],
)
def test_syntax_errors(text: str, message: str) -> None:
    with pytest.raises(InterpolationError) as caught:
        check(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", False), ("a", False), ("$$", False), ("$$A", False), ("$A", True), ("$$$A", True)],
)
def test_has_references(text: str, expected: bool) -> None:
    assert has_references(text) is expected


@settings(deadline=None)
@given(st.text())
def test_escaped_text_comes_back_as_it_was(text: str) -> None:
    assert not has_references(escape(text))
    assert substitute(escape(text), {}) == text


@settings(deadline=None)
@given(st.text(alphabet="${}:-?+Aa1 "))
def test_what_check_accepts_never_fails_but_for_a_required_variable(text: str) -> None:
    try:
        check(text)
    except InterpolationError:
        return
    if "?" not in text:
        substitute(text, {"A": "x"})


def test_nesting_has_an_end() -> None:
    def nested(depth: int) -> str:
        return "${A:-" * depth + "x" + "}" * depth

    assert substitute(nested(MAX_DEPTH), {}) == "x"
    for depth in (MAX_DEPTH + 1, 100_000):
        with pytest.raises(InterpolationError, match="references nested more than 32 levels deep"):
            check(nested(depth))
        with pytest.raises(InterpolationError, match="references nested more than 32 levels deep"):
            substitute(nested(depth), {})
