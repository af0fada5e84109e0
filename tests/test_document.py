"""YAML text → a tree of plain text that knows where everything stands."""

from __future__ import annotations

from typing import Any

import pytest

from dual_iac import document
from dual_iac.document import MAX_DEPTH, Node, merged, parse


def plain(text: str) -> Any:
    root, problems = parse(text)
    assert problems == []
    assert root is not None
    return root.plain()


def problems_of(text: str) -> list[str]:
    """Every problem as ``line:column key: what``."""
    _, problems = parse(text)
    return [f"{p.line}:{p.column} {p.key}: {p.what}" for p in problems]


def tree(text: str) -> Node:
    root, problems = parse(text)
    assert problems == []
    assert root is not None
    return root


@pytest.mark.parametrize(
    "written",
    ["no", "yes", "on", "1.10", "22:22", "0755", "0x1f", "1e3", "2024-01-02", "true", "=", ".5"],
)
def test_plain_values_stay_text(written: str) -> None:
    assert plain(f"a: {written}") == {"a": written}


@pytest.mark.parametrize("written", ["", "~", "null", "Null", "NULL"])
def test_nulls(written: str) -> None:
    assert plain(f"a: {written}") == {"a": None}
    assert plain(f"a: '{written}'") == {"a": written}, "quoted, it is text"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: !!str 1", {"a": "1"}),
        ("a: ! 1", {"a": "1"}),
        ("a: !!map {b: c}", {"a": {"b": "c"}}),
        ("a: !!seq [b]", {"a": ["b"]}),
        ("a: |\n  x\n  y\n", {"a": "x\ny\n"}),
        ('a: "\\u2028\\0"', {"a": "\u2028\0"}),
        ("%YAML 1.2\n---\na: b\n...\n", {"a": "b"}),
        ("\ufeffa: b\n", {"a": "b"}),
        ("a: b\r\nc: d\r\n", {"a": "b", "c": "d"}),
        ("1: a\ntrue: b\n~: c\n", {"1": "a", "true": "b", "~": "c"}),
        ("😀: 🚀", {"😀": "🚀"}),
    ],
)
def test_plain(text: str, expected: Any) -> None:
    assert plain(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: &x 1\nb: *x\n", {"a": "1", "b": "1"}),
        ("a: &x {k: v}\nb: *x\n", {"a": {"k": "v"}, "b": {"k": "v"}}),
        ("a: &x 1\nb: &x 2\nc: *x\n", {"a": "1", "b": "2", "c": "2"}),
        ("a: &x {k: v, l: w}\nb: {<<: *x, l: z}\n", {"b": {"k": "v", "l": "z"}}),
        ("a: &x {k: v, l: w}\nb: {l: z, <<: *x}\n", {"b": {"k": "v", "l": "z"}}),
        ("a: [&x {k: 1}, &y {k: 2, l: 3}]\nb: {<<: [*x, *y]}\n", {"b": {"k": "1", "l": "3"}}),
        ("b: {'<<': text}\n", {"b": {"<<": "text"}}),
    ],
)
def test_anchors_aliases_and_merge_keys(text: str, expected: dict[str, Any]) -> None:
    assert plain(text).items() >= expected.items()


@pytest.mark.parametrize("text", ["", "# a comment\n\n# another\n", "\n\n"])
def test_nothing_there(text: str) -> None:
    assert parse(text) == (None, [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\n\tb: 2\n", ["2:1 : a tab in the indentation"]),
        ("a:\n  \tb: 2\n", ["2:3 : a tab in the indentation"]),
        ("a: 1\nb: 2\na: 3\n", ["3:1 a: the key 'a' stands here twice"]),
        ("x:\n  - {a: 1, a: 2}\n", ["2:12 x.0.a: the key 'a' stands here twice"]),
        ("a: b: c\n", ["1:5 : not valid YAML: mapping values are not allowed in this context"]),
        ("a: {b: c\n", ["2:1 : not valid YAML: did not find expected ',' or '}'"]),
        ("a: 'b' c\nd: e\n", ["1:8 : not valid YAML: did not find expected key"]),
        ("a: 'b\n", ["2:1 : not valid YAML: found unexpected end of stream"]),
        ("a: [b", ["1:6 : not valid YAML: did not find expected ',' or ']'"]),
        ("a: b\nc", ["2:2 : not valid YAML: could not find expected ':'"]),
        ("a: 1\n---\nb: 2\n", ["2:1 : a second document starts here"]),
        ("a: *b\n", ["1:4 a: the alias *b refers to nothing before it"]),
        ("a: &x [*x]\n", ["1:8 a.0: the alias *x refers to nothing before it"]),
        ("a: &x {b: *x}\n", ["1:11 a.b: the alias *x refers to nothing before it"]),
        ("? [a]\n: b\n", ["1:3 : a key must be plain text"]),
        ("x:\n  ? {a: b}\n  : b\n", ["2:5 x: a key must be plain text"]),
        ("a: &x k\n*x : v\n", ["2:1 : a key must be plain text"]),
        ("x: {<<: text}\n", ["1:5 x.<<: << takes an alias of a map, or a list of them"]),
        ("x: {<<: [text]}\n", ["1:5 x.<<: << takes an alias of a map, or a list of them"]),
        (
            "a: !!python/object/apply:os.system [id]\n",
            ["1:4 a: the tag tag:yaml.org,2002:python/object/apply:os.system has no meaning here"],
        ),
        ("a: !mine {b: !!binary x}\n", ["1:4", "1:14"]),
        ("a: !!set {b}\n", ["1:4 a: the tag tag:yaml.org,2002:set has no meaning here"]),
        ("a: b\0\n", ["1:5 : a character that YAML does not allow"]),
        ("é: ü\nö: ä\x07\n", ["2:5 : a character that YAML does not allow"]),
    ],
)
def test_problems(text: str, expected: list[str]) -> None:
    found = problems_of(text)
    assert len(found) == len(expected)
    for problem, beginning in zip(found, expected, strict=True):
        assert problem.startswith(beginning)


def test_a_problem_says_why_and_how_to_mend_it() -> None:
    [problem] = parse("a: 1\nb: 2\na: 3\n")[1]
    assert problem.why == "it was first given in line 1"
    assert problem.mend == "keep one of the two"


def test_a_character_that_yaml_does_not_allow_is_told_by_its_number() -> None:
    [problem] = parse("a: \x07")[1]
    assert problem.why == "0x07: control characters are not allowed"


@pytest.mark.parametrize("bracket", ["[", "{a: ", "- "])
@pytest.mark.parametrize("depth", [MAX_DEPTH + 2, 100_000])
def test_nesting_has_an_end(bracket: str, depth: int) -> None:
    found = problems_of(bracket * depth)
    assert len(found) == 1
    assert f"nested more than {MAX_DEPTH} levels deep" in found[0]


def test_nesting_up_to_the_limit_is_fine() -> None:
    assert plain("[" * MAX_DEPTH + "]" * MAX_DEPTH) is not None


@pytest.mark.parametrize("shape", ["[{0}, {0}]", "{{a: {0}, b: {0}}}"])
def test_an_alias_bomb_is_refused(shape: str) -> None:
    lines = [f"k0: &k0 {shape.format('x')}"]
    lines += [f"k{n}: &k{n} {shape.format(f'*k{n - 1}')}" for n in range(1, 30)]
    text = "\n".join(lines)
    found = problems_of(text)
    assert len(found) == 1
    assert f"aliases unfold to more than {document.may_unfold(text):,} values" in found[0]


def test_positions_of_keys_and_values() -> None:
    root = tree("a:\n  - x\n  - {b: c}\n")
    node, found = root.at(["a", 1, "b"])
    assert found == ["a", 1, "b"]
    assert (node.key_line, node.key_column, node.line, node.column) == (3, 6, 3, 9)


@pytest.mark.parametrize(
    ("path", "line", "column"),
    [
        ([], 1, 1),
        (["a"], 1, 1),
        (["a", 0], 2, 5),
        (["a", 7], 1, 1),
        (["a", "b"], 1, 1),
        (["c", "d"], 3, 5),
        (["c", "missing"], 3, 1),
        (["c", "d", "deeper"], 3, 5),
        (["missing"], 1, 1),
    ],
)
def test_a_problem_stands_at_the_nearest_place_there_is(
    path: list[str | int], line: int, column: int
) -> None:
    problem = tree("a:\n  - x\nc: {d: e}\n").problem(path, "wrong")
    assert (problem.line, problem.column) == (line, column)
    assert problem.key == ".".join(map(str, path))


def test_an_alias_stands_where_its_key_does() -> None:
    root = tree("a: &x [1]\nb: *x\n")
    assert root.problem(["b"], "wrong").line == 2
    assert root.problem(["b", 0], "wrong").line == 1


@pytest.mark.parametrize(
    ("under", "over", "expected"),
    [
        ("{a: 1, b: 2}", "{b: 3, c: 4}", {"a": "1", "b": "3", "c": "4"}),
        ("{m: {a: 1, b: 2}}", "{m: {b: 3}}", {"m": {"a": "1", "b": "3"}}),
        ("{m: {a: 1}}", "{m: }", {"m": {"a": "1"}}),
        ("{m: {a: 1}}", "{m: ~}", {"m": None}),
        ("{m: {a: 1}}", "{m: {a: ~}}", {"m": {"a": None}}),
        ("{m: {a: 1}}", "{m: x}", {"m": "x"}),
        ("{l: [1, 2]}", "{l: [3]}", {"l": ["3"]}),
        ("{l: [1, 2]}", "{l: ~}", {"l": None}),
        ("{s: 1}", "{s: 2}", {"s": "2"}),
        ("{s: 1}", "{s: {a: 1}}", {"s": {"a": "1"}}),
        ("{a: 1}", "~", None),
        ("[1]", "{a: 1}", {"a": "1"}),
        ("{a: 1}", "[1]", ["1"]),
    ],
)
def test_merged(under: str, over: str, expected: Any) -> None:
    assert merged(tree(under), tree(over)).plain() == expected


def test_merged_with_nothing_under_it() -> None:
    over = tree("{a: 1}")
    assert merged(None, over) is over


def test_merged_keeps_positions_and_counts() -> None:
    both = merged(tree("\n\n{a: 1}"), tree("{b: 2}"))
    assert both.problem(["a"], "").line == 3
    assert both.problem(["b"], "").line == 1
    assert both.size == 3
