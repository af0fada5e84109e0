"""YAML text → a tree that remembers where everything stands.

Scalars stay text, as written: the models give them types. So ``no`` in an environment stays
``no``, ``1.10`` stays ``1.10`` and ``22:22`` is no base-60 number. An empty value, ``~`` and
``null`` are None.

Anchors, aliases and merge keys (``<<``) work. Tags, duplicate keys, several documents and
documents that unfold without bounds are problems with a position.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from dual_iac.errors import Problem

try:
    from yaml import CSafeLoader as _Loader
except ImportError:  # pragma: no cover - a PyYAML without libyaml, some 10 times slower
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]

Key = str | int
MAX_DEPTH = 32
UNFOLDED_ANYWAY = 50_000
UNFOLDED_PER_CHARACTER = 5
_TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"
_LINE_END = re.compile("\r\n?|[\n\x85\u2028\u2029]")
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_PLAIN_TAGS = frozenset(
    {None, "!"} | {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null")}
)


@dataclass(slots=True, eq=False)
class Node:
    """A value and where it stands; ``line`` and ``column`` count from 1.

    ``value`` is text, None, a dict of Nodes or a list of Nodes. ``key_line`` and
    ``key_column`` tell where the key of the value stands, or the value itself without one.
    ``size`` counts the values it unfolds to, aliases followed. ``taken_back`` marks a null
    that was written out (``~``), unlike a key with nothing after it.
    """

    value: Any
    line: int
    column: int
    key_line: int = 0
    key_column: int = 0
    size: int = 1
    taken_back: bool = False

    def plain(self) -> Any:
        """The value as plain dicts, lists, texts and Nones."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def at(self, path: Sequence[Key]) -> tuple[Node, list[Key]]:
        """The node at ``path``, or its nearest ancestor that exists, and the part that does."""
        node: Node = self
        found: list[Key] = []
        for key in path:
            value = node.value
            known = range(len(value)) if isinstance(value, list) else value
            if not isinstance(value, dict | list) or key not in known:
                break
            node = value[key]  # type: ignore[index]
            found.append(key)
        return node, found

    def problem(self, path: Sequence[Key], what: str, why: str = "", mend: str = "") -> Problem:
        """A problem at ``path`` below this node, which need not exist."""
        node, _ = self.at(path)
        return Problem(
            line=node.key_line or node.line,
            column=node.key_column or node.column,
            key=".".join(map(str, path)),
            what=what,
            why=why,
            mend=mend,
        )


def may_unfold(text: str) -> int:
    """How many values the aliases and defaults of a text may come to.

    In proportion to it: a thousand workspaces with a few dozen defaults each are fine, and a few
    lines that keep the machine busy for minutes are not.
    """
    return UNFOLDED_ANYWAY + UNFOLDED_PER_CHARACTER * len(text)


def place_after(before: str) -> tuple[int, int]:
    """The line and the column of what comes after a text, counted as YAML counts lines."""
    lines = _LINE_END.split(before)
    return len(lines), len(lines[-1]) + 1


def merged(under: Node | None, over: Node) -> Node:
    """``over`` with what it leaves open taken from ``under``; every part keeps its position.

    Maps merge, texts and lists replace. A key with nothing after it says nothing; ``~`` takes
    back what ``under`` says.
    """
    if under is None or over.taken_back:
        return over
    if over.value is None:
        return replace(under, key_line=over.key_line, key_column=over.key_column)
    if isinstance(under.value, dict) and isinstance(over.value, dict):
        value = {**under.value}
        for key, node in over.value.items():
            value[key] = merged(under.value.get(key), node)
    else:
        return over
    size = 1 + sum(node.size for node in value.values())
    return Node(value, over.line, over.column, over.key_line, over.key_column, size)


def parse(text: str) -> tuple[Node | None, list[Problem]]:
    """Read one YAML document. Where problems are found, the tree may be partial or None."""
    return _Parser().parse(text)


@dataclass
class _Parser:
    problems: list[Problem] = field(default_factory=list)
    anchors: dict[str, Node] = field(default_factory=dict)
    events: Iterator[Any] = field(default_factory=lambda: iter(()))
    max_unfolded: int = 0

    def parse(self, text: str) -> tuple[Node | None, list[Problem]]:
        """As :func:`parse`."""
        self.events = iter(yaml.parse(text, Loader=_Loader))
        self.max_unfolded = may_unfold(text)
        root: Node | None = None
        try:
            for event in self.events:
                if isinstance(event, yaml.DocumentStartEvent):
                    if root is not None:
                        self._problem(
                            event,
                            "a second document starts here",
                            mend="keep one document a file: remove the --- line",
                        )
                        break
                    root = self._node(next(self.events), [])
        except yaml.reader.ReaderError as error:
            # libyaml counts bytes, and knows the character by its number.
            code: Any = error.character
            if isinstance(code, int):
                before = text.encode()[: error.position].decode(errors="ignore")
            else:  # pragma: no cover - a PyYAML without libyaml
                before, code = text[: error.position], ord(code)
            line, column = place_after(before)
            self.problems.append(
                Problem(
                    line=line,
                    column=column,
                    key="",
                    what="a character that YAML does not allow",
                    why=f"{code:#04x}: {error.reason}",
                    mend="remove it, or write it as an escape in double quotes",
                )
            )
        except yaml.MarkedYAMLError as error:
            self.problems.append(_syntax_problem(error, text))
        except _Stop:
            pass
        return root, self.problems

    def _node(self, event: Any, path: list[Key]) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path)
        anchor = event.anchor
        node = Node(None, event.start_mark.line + 1, event.start_mark.column + 1)
        if len(path) > MAX_DEPTH:
            self._problem(event, _TOO_DEEP, path=path)
            raise _Stop
        if isinstance(event, yaml.ScalarEvent):
            self._check_tag(event, _PLAIN_TAGS, path)
            null = event.value in _NULLS and event.implicit[0] and event.style in (None, "")
            node.value = None if null else event.value
            node.taken_back = null and event.value != ""
        elif isinstance(event, yaml.SequenceStartEvent):
            self._check_tag(event, {None, "tag:yaml.org,2002:seq"}, path)
            node.value = []
            while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
                item = self._node(event, [*path, len(node.value)])
                node.value.append(item)
                self._grow(node, item, event, path)
        else:
            self._check_tag(event, {None, "tag:yaml.org,2002:map"}, path)
            node.value = self._mapping(node, path)
        # Only now: an alias to a value inside that value has nothing to refer to.
        if anchor:
            self.anchors[anchor] = node
        return node

    def _mapping(self, node: Node, path: list[Key]) -> dict[str, Node]:
        mapping: dict[str, Node] = {}
        inherited: list[Node] = []
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                self._problem(event, "a key must be plain text", path=path)
                raise _Stop
            key = event.value
            here = [*path, key]
            value = self._node(next(self.events), here)
            # An alias shares its node: the key's position belongs to this use of it.
            value = replace(value)
            mark: Any = event.start_mark
            value.key_line, value.key_column = mark.line + 1, mark.column + 1
            if key == "<<" and event.style in (None, ""):
                sources = value.value if isinstance(value.value, list) else [value]
                inherited.extend(source for source in sources if isinstance(source.value, dict))
                if any(not isinstance(source.value, dict) for source in sources):
                    self._problem(event, "<< takes an alias of a map, or a list of them", path=here)
            elif key in mapping:
                first = mapping[key]
                self._problem(
                    event,
                    f"the key {key!r} stands here twice",
                    why=f"it was first given in line {first.key_line}",
                    mend="keep one of the two",
                    path=here,
                )
            else:
                mapping[key] = value
            self._grow(node, value, event, path)
        for source in inherited:
            for key, value in source.value.items():
                mapping.setdefault(key, value)
        return mapping

    def _alias(self, event: Any, path: list[Key]) -> Node:
        target = self.anchors.get(event.anchor)
        if target is None:
            self._problem(
                event,
                f"the alias *{event.anchor} refers to nothing before it",
                mend=f"mark a value above with &{event.anchor}",
                path=path,
            )
            return Node(None, event.start_mark.line + 1, event.start_mark.column + 1)
        return target

    def _grow(self, node: Node, part: Node, event: Any, path: list[Key]) -> None:
        node.size += part.size
        if node.size > self.max_unfolded:
            what = f"aliases unfold to more than {self.max_unfolded:,} values"
            self._problem(event, what, path=path)
            raise _Stop

    def _check_tag(self, event: Any, known: set[Any] | frozenset[Any], path: list[Key]) -> None:
        if event.tag not in known:
            self._problem(
                event,
                f"the tag {event.tag} has no meaning here",
                mend="remove it: values are plain text, lists and maps",
                path=path,
            )

    def _problem(
        self, event: Any, what: str, why: str = "", mend: str = "", path: Sequence[Key] = ()
    ) -> None:
        mark = event.start_mark
        key = ".".join(map(str, path))
        self.problems.append(Problem(mark.line + 1, mark.column + 1, key, what, why, mend))


class _Stop(Exception):  # noqa: N818 - not an error: the parse ends at a problem already noted
    pass


def _syntax_problem(error: yaml.MarkedYAMLError, text: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    lines = _LINE_END.split(text)
    if line >= len(lines):  # libyaml counts on after a last line that has no end
        line, column = len(lines) - 1, len(lines[-1])
    this = lines[line]
    indent = this[: len(this) - len(this.lstrip())]
    if "\t" in indent:
        what, why = "a tab in the indentation", "YAML indents with spaces only"
        mend = "replace the tab with spaces"
        column = indent.index("\t")
    else:
        what, why = f"not valid YAML: {error.problem or error}", error.context or ""
        mend = ""
        if error.problem and "maximum nesting depth" in error.problem:
            what = _TOO_DEEP  # PyYAML's own limit, which it may reach looking ahead
        elif error.problem and "mapping values are not allowed" in error.problem:
            mend = "quote a text that has ': ' in it, and indent keys of one map alike"
        elif error.problem and "did not find expected key" in error.problem:
            mend = "indent keys of one map alike, and quote a text that starts with a quote"
    return Problem(line + 1, column + 1, "", what, why, mend)
