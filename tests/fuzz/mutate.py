"""A mutation fuzzer over ``corpus/``: the same seed and number, the same input, everywhere.

Some mutations change the text (bytes, characters, lines), others the structure, which is written
out as YAML again: those are the ones that stay valid, and so get as far as the rendered files.
"""

# ruff: noqa: RUF001 - characters that look like others are here on purpose

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import yaml

from dual_iac.errors import SpecError
from dual_iac.spec import parse_project

CORPUS = Path(__file__).parent / "corpus"
LONG = 100_000

QUOTES = ("'", '"', '"x', "it's", "`id`", "\\", '\\"', "''", '"""', "\\u0000", '"\\u0000"')
BRACES = ("{{ 7*7 }}", "{% include 'x' %}", "{%raw%}", "{# x #}", "{{ project }}", "{{{{", "}}")
GO = ('{{ env "HOME" }}', '{{ readFile "/etc/passwd" }}', "{{`{{`}}", "{{- /* x */ -}}", "{{")
COMPOSE = (
    *("${HOME}", "${NOT_SET:-${HOME}}", "$(id)", "$$(id)", "$", "$$", "$$$", "${", "${}", "$HOME"),
    *("${A:-${B:-${C}}}", "${NOT_SET:?x}", "${TAG:+{{ x }}}", "${BRACES}", "${DOLLARS}", "$1"),
    *("${WORDS}", "${EMPTY}", "${LIMIT}", "${A-}${A-}", "${TAG", "${A:-`id`}", "${A:-;}"),
)
LINES = (
    *("x\n", "\nx", "x\r\ny", "a\n    privileged: true", "x\n  evil:\n    image: evil\n"),
    *("\t", " ", "", "  x  ", "\u2028", "\u2029", "\x85", "\ufeff", "\x0b", "\x0c"),
)
CONTROL = ("\0", "\x01", "\x1b[31mred", "\x7f", "\x80", "\x9b", "\ud7ff", "\ufffe", "\uffff", "\b")
UNICODE = (
    *("ｓｈｏｐ", "mаin", "ⅷ", "１２", "٣", "ﬁ", "İ", "ß", "é", "e\u0301", "\u202eevil", "\u200b"),
    *("🙈", "𝔞", "．．／", "a\u2044b", "\U0010ffff", "\u2066x\u2069", "‘x’", "\u00ad"),
)
PATHS = (
    *("../", "../../etc/passwd", "/etc/passwd", "/", "//", ".", "..", "./.", "~", "~root", "~/x"),
    *("~nobody-of-this-name/x", "/dev/zero", "/proc/self/environ", "../outside.env", ".env.local"),
    *("a/../../b", "a//b", "C:\\x", "\\\\x\\y", "file:///etc/passwd", "-", "--help", "-v", "a:b:c"),
    *(".dual/templates", "compose/compose.yaml", "/workspace", "/dual/setup.sh", "a" * 5000),
)
YAML = (
    *(
        "- a",
        "a: b",
        "&a",
        "*a",
        "!!x",
        "!!python/object/apply:os.system [id]",
        "|",
        ">-",
        "%",
        "@",
    ),
    *("#", " # x", "---", "...", "? x", "<<", "null", "~", "yes", "no", "0x1F", "0o17", "1_000"),
    *("1e3", ".inf", "-.nan", "22:22", "2001-01-01", "1e400", "-1", "0", "00", "+1", "01"),
    *("{a: b}", "[a]", "{", "]", ",", "!!binary aGk=", "=", "true", "False", "TRUE"),
)
SHELL = (
    "; id",
    "a && b",
    "a | b",
    "> /x",
    "a & b",
    "(x)",
    "$(x)",
    "*",
    "!x",
    "#x",
    "a\\nb",
    "'a b'",
)
NAMES = (
    *("traefik", "localhost", "edge", "ws-main", "main", "_setup", "a--b", "a" * 63, "a" * 64, "A"),
    *("constructor", "__proto__", "noop@internal", "api@internal", "x@file", "a.b", "a_b", "-a"),
    *("a-", "xn--80ak6aa92e.com", "http://x", "x:3000", "*.localhost", "`) || Host(`x", "con"),
    *("DUAL_SETUP", "HOME", "PATH", "A.B-C", "LD_PRELOAD", "dev.dual.hash", "x" * 2000),
)
SIZES = (
    *("9" * 30, "9" * 5000, "1e308", "0.0000000001", "1us", "0.001ms", "90061.5s", "25h", "1.5s"),
    *("512\nm", "1 g", "1.5tb", "0m", "64M", "١g", "999999999999999999999g", "4294967296", "65535"),
    *("10.0.0.0/8", "0.0.0.0/0", "10.0.0.1/16", "::1", "fe80::1%eth0", "::1%x y", "0.0.0.0", "1"),
)
HOSTILE = (
    *QUOTES,
    *BRACES,
    *GO,
    *COMPOSE,
    *LINES,
    *CONTROL,
    *UNICODE,
    *PATHS,
    *YAML,
    *SHELL,
    *NAMES,
    *SIZES,
)

KEYS = (
    *(
        "version",
        "project",
        "proxy",
        "network",
        "clones",
        "defaults",
        "workspaces",
        "image",
        "bind",
    ),
    *("http", "https", "domain", "pool", "holder", "build", "source", "command", "hosts", "env"),
    *("env_file", "volumes", "setup", "user", "resources", "ready", "commands", "services", "auth"),
    *("enabled", "path", "git", "branch", "context", "dockerfile", "target", "args", "cpus"),
    *("memory", "pids", "timeout", "test", "interval", "retries", "start_period", "port", "users"),
    *("privileged", "network_mode", "ports", "<<", "name"),
)


@dataclass(frozen=True)
class Input:
    mutator: str
    data: bytes


@cache
def corpus() -> tuple[bytes, ...]:
    return tuple(path.read_bytes() for path in sorted(CORPUS.iterdir()))


@cache
def structures() -> tuple[str, ...]:
    """The corpus where it is YAML without surprises, as JSON, to be taken apart at will."""
    found = []
    for data in corpus():
        try:
            found.append(json.dumps(yaml.load(data.decode(), Loader=_Texts)))
        except (yaml.YAMLError, UnicodeDecodeError):
            continue
    return tuple(each for each in found if len(each) < LONG)


@cache
def sound() -> tuple[str, ...]:
    """Of the structures, those that are a dual.yaml."""
    found = []
    for each in structures():
        with suppress(SpecError):
            parse_project(each, "")
            found.append(each)
    return tuple(found)


class _Texts(yaml.SafeLoader):
    """Scalars as they are written, merge keys followed."""


def _text(_: _Texts, node: yaml.ScalarNode) -> str | None:
    return None if node.value in ("", "~", "null") and node.style is None else node.value


for _kind in ("int", "float", "bool", "null", "timestamp", "binary", "value"):
    _Texts.add_constructor(f"tag:yaml.org,2002:{_kind}", _text)


def hostile(random: Random) -> str:
    """A hostile text, or two, or one within another."""
    text = random.choice(HOSTILE)
    match random.randrange(8):
        case 0:
            return text + random.choice(HOSTILE)
        case 1:
            return f"x{text}y"
        case 2:
            return f"{text} {random.choice(HOSTILE)}"
        case _:
            return text


# ── mutations of text ───────────────────────────────────────────────────────────────────────


def _bytes(data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 5, 20))):
        at = random.randrange(len(changed) + 1)
        match random.randrange(4):
            case 0 if at < len(changed):
                changed[at] ^= 1 << random.randrange(8)
            case 1:
                changed.insert(at, random.randrange(256))
            case 2:
                del changed[at : at + random.randrange(1, 9)]
            case _:
                changed[at:at] = bytes(changed[at : at + random.randrange(1, 30)])
    return bytes(changed)


def _characters(text: str, random: Random) -> str:
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(len(text) + 1)
        new = random.choice((*"\"'{}[]:,#&*!|>%@`-?\\ \n\t~$", *CONTROL, *UNICODE))
        text = text[:at] + new + text[at + random.randrange(2) :]
    return text


def _tokens(text: str, random: Random) -> str:
    """A word of the text becomes something hostile, quoted in some way or not at all."""
    words = [*_words(text)]
    for start, end in random.sample(words, min(len(words), random.choice((1, 1, 2, 3)))):
        new = hostile(random)
        if random.randrange(3):
            new = random.choice((json.dumps(new), json.dumps(new, ensure_ascii=False)))
        elif random.randrange(2):
            new = "'" + new.replace("'", "''") + "'"
        if len(words) == 1 or random.randrange(2):
            return text[:start] + new + text[end:]
        text = text[:start] + new[: end - start].ljust(end - start) + text[end:]
    return text


def _words(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for at, character in enumerate(f"{text} "):
        if character in " \n{}[],:":
            if at > start:
                yield start, at
            start = at + 1


def _lines(text: str, random: Random) -> str:
    lines = text.split("\n")
    for _ in range(random.choice((1, 1, 2, 3))):
        at = random.randrange(len(lines))
        match random.randrange(7):
            case 0:
                lines.insert(at, lines[at])
            case 1 if len(lines) > 1:
                del lines[at]
            case 2:
                lines.insert(random.randrange(len(lines) + 1), lines.pop(at))
            case 3:
                lines[at] = " " * random.choice((1, 2, 3, 40)) + lines[at]
            case 4:
                lines[at] = lines[at].lstrip()
            case 5:
                lines[at] = "\t" + lines[at]
            case _:
                key = json.dumps(hostile(random)) if random.randrange(2) else random.choice(KEYS)
                lines.insert(at, f"{' ' * random.choice((0, 2, 4))}{key}: {hostile(random)}")
    return random.choice(("\n", "\n", "\n", "\r\n", "\r")).join(lines)


def _splice(text: str, random: Random) -> str:
    other = random.choice(corpus()).decode(errors="replace").split("\n")
    lines = text.split("\n")
    at, start = random.randrange(len(lines) + 1), random.randrange(len(other))
    return "\n".join(lines[:at] + other[start : start + random.randrange(1, 12)] + lines[at:])


def _indentation(text: str, random: Random) -> str:
    step = random.choice((1, 3, 4, 8))
    return "\n".join(
        " " * ((len(line) - len(line.lstrip(" "))) * step // 2) + line.lstrip(" ")
        if random.randrange(20)
        else line
        for line in text.split("\n")
    )


# ── whole texts ─────────────────────────────────────────────────────────────────────────────


def _deep(_: str, random: Random) -> str:
    opens, closes = random.choice((("[", "]"), ("{a: ", "}"), ("- ", ""), ("? ", ""), ("{", "")))
    depth = random.choice((30, 33, 40, 500, 1100, LONG))
    deep = opens * depth + "x" + closes * random.choice((0, depth))
    return random.choice(("{}", "version: 1\nx: {}", "workspaces:\n  a: {}", "project: {}")).format(
        deep
    )


def _stairs(_: str, random: Random) -> str:
    depth = random.choice((20, 31, 33, 200))
    return "\n".join(f"{' ' * level}{random.choice(KEYS)}:" for level in range(depth))


def _long(_: str, random: Random) -> str:
    """One text, key, number, comment or list that is very long."""
    long = random.choice(("x", "9", "$$", "${A}", "{{", "a ", "'", '\\"', "é", "a.", "a-", "../"))
    long *= random.choice((70, 1100, LONG)) // len(long)
    quoted = json.dumps(long, ensure_ascii=False)
    place = random.choice(
        (
            "env: {{A: {0}}}",
            "env: {{? {0} : x}}",
            "{0}: x",
            "command: {0}",
            "command: [{0}]",
            "setup: {0}, command: x",
            "hosts: [{0}]",
            "source: {{path: {0}}}",
            "env_file: [{0}]",
            "env_file: {0}",
            "resources: {{memory: {0}}}",
            "resources: {{cpus: {0}}}",
            "resources: {{pids: {0}}}",
            "ready: {{timeout: {0}}}",
            "ready: {{path: {0}}}",
            "user: {0}",
            "volumes: {{a: {0}}}",
            "volumes: {{? {0} : /a}}",
            "services: {{? {0} : {{image: x}}}}",
            "services: {{a: {{image: x, healthcheck: {{test: {0}}}}}}}",
            "build: {{args: {{A: {0}}}}}",
            "source: {{git: ., branch: {0}}}",
            "image: {0}",
            "command: x # {0}",
        )
    ).format(quoted)
    return (
        f"version: 1\nproject: shop\ndefaults: {{image: y}}\nworkspaces:\n  a: {{ {place}\n    }}\n"
    )


def _nested_references(_: str, random: Random) -> str:
    depth = random.choice((3, 50, 300, 1000, 20_000))
    opens = random.choice(("${A:-", "${A:+", "${A:?", "${A-"))
    text = opens * depth + "x" + "}" * (depth - random.choice((0, 0, 1)))
    key = random.choice(("image", "setup", "user", "command", "env_file"))
    place = {"env_file": f"[{json.dumps(text)}]", "setup": f"{json.dumps(text)}, command: x"}
    value = place.get(key, json.dumps(text))
    rest = "" if key == "image" else "image: x, "
    return f"version: 1\nproject: shop\nworkspaces: {{a: {{{rest}{key}: {value}}}}}\n"


def _many(_: str, random: Random) -> str:
    """Many workspaces, wrong keys, variables, hosts or problems."""
    many = random.choice((50, 400, 3000))
    head = "version: 1\nproject: shop\ndefaults: {image: x}\nworkspaces:\n"
    match random.randrange(8):
        case 0:
            return head + "".join(f"  w{n}: {{}}\n" for n in range(min(many, 400)))
        case 1:
            return head + "  a:\n" + "".join(f"    imge{n}: x\n" for n in range(many))
        case 2:
            return head + "  a:\n    env:\n" + "".join(f"      A{n}: ${{B}}\n" for n in range(many))
        case 3:
            return head + f"  a: {{hosts: [{', '.join(f'h{n}.test' for n in range(many))}]}}\n"
        case 4:
            return head + f"  a: {{hosts: [{', '.join(['BAD'] * many)}]}}\n"
        case 5:
            return head + "".join(f"  W_{n}: {{x: y}}\n" for n in range(many))
        case 6:
            bad = head.replace("image: x", "image: x, imge: y, env: {'1': x}")
            return bad + "".join(f"  w{n}: {{}}\n" for n in range(many))
        case _:
            return (
                head
                + "  a:\n    volumes:\n"
                + "".join(f"      v{n}: /v{n % 40}\n" for n in range(many))
            )


def _bomb(_: str, random: Random) -> str:
    """Aliases of aliases, as lists, maps, merge keys or texts."""
    width, levels = random.choice(((10, 3), (10, 5), (10, 6), (10, 9), (2, 30), (100, 3), (40, 4)))
    leaf = random.choice(("x", '"{{ x }}"', "${A}", "BAD", "9" * 50))
    places = ("hosts: *{0}", "env: *{0}", "command: *{0}", "*{0}", "services: *{0}", "<<: *{0}")
    place = random.choice(places).format(f"a{levels}")
    lines = ["version: 1", "project: shop"]
    shape = random.randrange(3)
    for level in range(1, levels + 1):
        part = f"*a{level - 1}" if level > 1 else leaf
        if shape == 0:
            value = f"[{', '.join([part] * width)}]"
        elif shape == 1:
            value = f"{{{', '.join(f'k{n}: {part}' for n in range(width))}}}"
        else:
            own = f"k{level}: x"
            value = f"{{<<: [{', '.join([part] * width)}], {own}}}" if level > 1 else f"{{{own}}}"
        lines.append(f"x{level}: &a{level} {value}")
    return "\n".join(lines) + f"\nworkspaces: {{a: {{image: x, {place}}}}}\n"


def _repeated(_: str, random: Random) -> str:
    """One big value, in many workspaces, through defaults or an alias."""
    big = random.choice(
        (
            f"command: {json.dumps('a ' * random.choice((10, 2_000, 20_000)))}",
            f"env: {{{', '.join(f'A{n}: x' for n in range(random.choice((10, 300))))}}}",
            f"setup: {json.dumps('$$x ' * random.choice((10, 5_000)))}, command: x",
            f"hosts: [{', '.join(['BAD'] * random.choice((2, 200)))}]",
            f"nosuchkey: [{', '.join('x' * random.choice((2, 500)))}]",
        )
    )
    names = range(random.choice((3, 50, 300)))
    if random.randrange(2):
        workspaces = "".join(f"  w{n}: {{}}\n" for n in names)
        return f"version: 1\nproject: s\ndefaults: {{image: x, {big}}}\nworkspaces:\n{workspaces}"
    workspaces = "".join(f"  w{n}: *a\n" for n in names)
    return f"version: 1\nproject: s\nworkspaces:\n  a: &a {{image: x, {big}}}\n{workspaces}"


TAGS = (
    *("!!python/object/apply:os.system", "!!python/name:os.system", "!!binary", "!!set", "!!map"),
    *("!", "!x", "!<%00>", "!<tag:x,2:y>", "!!merge", "!!null", "!!str", "!!omap", "&a"),
)


def _tags(text: str, random: Random) -> str:
    at = random.choice([place for place, each in enumerate(text) if each == ":"] or [0]) + 1
    return f"{text[:at]} {random.choice(TAGS)}{text[at:]}"


# ── mutations of the structure ──────────────────────────────────────────────────────────────


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to everything in a structure."""
    items: Sequence[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        items = [*value.items()]
    elif isinstance(value, list):
        items = [*enumerate(value)]
    for key, part in items:
        yield (*path, key)
        yield from _places(part, (*path, key))


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def _values(data: Any, random: Random) -> None:
    """Texts become hostile ones."""
    for _ in range(random.choice((1, 1, 2, 4))):
        leaves = [path for path in _places(data) if not isinstance(_at(data, path), dict | list)]
        path = random.choice(leaves)
        new = hostile(random)
        old = _at(data, path)
        if random.randrange(4) == 0 and isinstance(old, str):
            new = random.choice((f"{old}{new}", f"{new}{old}"))
        _at(data, path[:-1])[path[-1]] = new


def _free_texts(data: Any, random: Random) -> None:
    """Hostile texts where any text may stand: these inputs stay valid."""
    workspaces = data.get("workspaces")
    if not isinstance(workspaces, dict) or not workspaces:
        return
    name = random.choice([*workspaces])
    if not isinstance(workspaces[name], dict):
        workspaces[name] = {"image": "x"}
    workspace = workspaces[name]
    texts = [hostile(random).replace("\0", "").replace("$", "$$") for _ in range(6)]
    texts = [text or "x" for text in texts]
    for key in random.sample(range(9), random.choice((1, 3, 9))):
        match key:
            case 0:
                workspace["env"] = {"A": texts[0], "B": texts[1], "a": texts[2]}
            case 1:
                workspace["command"] = ["sh", "-c", texts[1], *texts[2:4]]
            case 2:
                workspace |= {"setup": texts[2], "command": ["x"], "volumes": {"a": "/a"}}
            case 3:
                workspace["source"] = {"path": f"./{texts[3]}"}
            case 4:
                workspace["env_file"] = [f"./{texts[4]}", ".env.local"]
            case 5:
                args = {"A": texts[5], "B": texts[0]}
                workspace["build"] = {"context": f"./{texts[0]}", "target": texts[1], "args": args}
            case 6:
                health = {"test": texts[0].strip() or "x"}
                db = {"image": "x", "env": {"A": texts[1]}, "command": ["x", texts[2]]}
                workspace["services"] = {"db": db | {"healthcheck": health}}
            case 7:
                listed = {"test": ["CMD", "x", texts[3]], "interval": "1m30s", "retries": "3"}
                workspace["services"] = {"q.x_y-z": {"image": "x", "healthcheck": listed}}
            case _:
                workspace["source"] = {"git": texts[4], "branch": "feat/x"}
                data["clones"] = f"./{texts[5]}"


def _keys(data: Any, random: Random) -> None:
    """Keys become others: hostile ones, or those that belong elsewhere."""
    for _ in range(random.choice((1, 1, 2))):
        paths = [path for path in _places(data) if isinstance(path[-1], str)]
        path = random.choice(paths)
        holder = _at(data, path[:-1])
        new = hostile(random) if random.randrange(3) else random.choice(KEYS)
        value = holder[path[-1]] if random.randrange(2) else holder.pop(path[-1])
        holder[new] = value


def _items(data: Any, random: Random) -> None:
    """Hostile texts as more items of a list, or in the place of a map."""
    lists = [path for path in _places(data) if isinstance(_at(data, path), list)]
    if not lists or random.randrange(4) == 0:
        path = random.choice([*_places(data)])
        _at(data, path[:-1])[path[-1]] = random.choice(([hostile(random)], {hostile(random): "x"}))
    else:
        _at(data, random.choice(lists)).append(hostile(random))


def _moved(data: Any, random: Random) -> None:
    """Parts in the place of others."""
    paths = [*_places(data)]
    there, here = random.choice(paths), random.choice(paths)
    part = json.dumps(_at(data, here))
    _at(data, there[:-1])[there[-1]] = json.loads(part)


def _written(data: Any, random: Random) -> str:
    style = random.choice(('"', None, None, None))
    return yaml.safe_dump(
        data,
        sort_keys=bool(random.randrange(2)),
        allow_unicode=bool(random.randrange(2)),
        default_flow_style=random.choice((True, False, None)),
        default_style=style,
        width=random.choice((20, 80, 10_000)),
    )


TEXT_MUTATORS: tuple[Callable[[str, Random], str], ...] = (
    *(_characters, _tokens, _lines, _splice, _indentation, _tags),
    *(_deep, _stairs, _long, _nested_references, _many, _bomb, _repeated),
)
STRUCTURE_MUTATORS: tuple[Callable[[Any, Random], None], ...] = (
    *(_values, _free_texts, _keys, _items, _moved),
)
_WEIGHTED: tuple[str, ...] = (
    *("bytes", "characters", "tokens", "tokens", "lines", "lines", "splice", "indentation"),
    *("tags", "deep", "stairs", "long", "nested_references", "many", "bomb", "repeated"),
    *(("values",) * 5),
    *(("free_texts",) * 8),
    *("keys", "keys", "items", "items", "moved"),
)
_BY_NAME: dict[str, Callable[..., Any]] = {
    each.__name__.removeprefix("_"): each for each in (*TEXT_MUTATORS, *STRUCTURE_MUTATORS)
}
_SLOW = frozenset({"deep", "stairs", "long", "nested_references", "many", "bomb", "repeated"})


def make_input(seed: int, number: int) -> Input:
    """The input of this number: always the same one for a seed."""
    random = Random(f"{seed}/{number}")
    if number < len(corpus()):
        return Input("corpus", corpus()[number])
    name = random.choice(_WEIGHTED)
    if name in _SLOW and random.randrange(3):  # a few hundred of these say it all
        name = "free_texts"
    if name == "bytes":
        return Input(name, _bytes(random.choice(corpus()), random))
    mutate = _BY_NAME[name]
    if mutate in STRUCTURE_MUTATORS:
        start = structures() if random.randrange(4) == 0 else sound()
        data = json.loads(random.choice(start))
        mutate(data, random)
        if random.randrange(5) == 0:
            random.choice(STRUCTURE_MUTATORS[:1])(data, random)
        return Input(name, _written(data, random).encode(errors="surrogatepass"))
    text = random.choice(corpus()).decode(errors="replace")
    return Input(name, mutate(text, random).encode(errors="surrogatepass"))
