"""Hypothesis strategies for dual.yaml documents that are sound but for their hostile leaves."""

from __future__ import annotations

from typing import Any

import yaml
from hypothesis import strategies as st

from tests.fuzz.mutate import HOSTILE

Document = dict[str, Any]

NAMES = ("a", "b-c", "a--b", "edge", "null", "007", "x" * 63)

texts = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=40)).map(
    lambda text: text.replace("\0", "")
)
"""Any text at all, hostile ones above all."""

literals = texts.map(lambda text: text.replace("$", "$$"))
"""Text that Compose reads back as something without variables."""

filled = literals.filter(lambda text: bool(text.strip()))
references = st.sampled_from(
    ["${TAG}", "${NOT_SET:-{{ x }}}", "$DOLLARS", "${A:-${B-x}}", "${EMPTY:+x}", "${BRACES}$$"]
)
values = st.one_of(literals, literals, texts, references)
variables = st.dictionaries(
    st.sampled_from(["A", "a", "HOME", "A.B-c", "_", "no", "LD_PRELOAD"]), st.none() | values
)
words = st.lists(values, max_size=3).map(lambda more: ["run", *more])
commands = st.one_of(words, st.sampled_from(["npm run dev", "sh -c 'echo \"$$X\"'", "a ${WORDS}"]))
images = st.sampled_from(["node:22", "x.test:5000/a/b:c", "node:${TAG}", "sha256:" + "0" * 64])
paths = st.one_of(filled, references)
names = st.sampled_from(["db", "a", "a.b", "a_b-", "q-"])
targets = st.sampled_from(
    ["/v", "/v/{{ x }}", "/a b", "/$$x", "/'\"", "/é", "/dual-x", "/workspace/x"]
)
grants = st.lists(
    st.sampled_from(["SYS_PTRACE", "NET_ADMIN", "docker-socket", "host-pid", "host-ipc", "/etc"])
    | st.sampled_from(["new-privileges", "unconfined", "privileged", "host-network"]),
    max_size=3,
)
users = texts.filter(lambda text: bool(text) and ":" not in text and text.isprintable()).map(
    lambda text: text.replace("$", "$$")
)
hashes = st.sampled_from(
    [
        "$$2y$$05$$abcdefghijklmnopqrstuuWhSPVx4PTqm3bqOIa5S2mX3YYVnJ2H6",
        "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
    ]
)
urls = st.sampled_from(["http://sso:4181/?a=b&c", "https://sso.example.com/verify", "http://[::1]"])
durations = st.sampled_from(["1s", "500ms", "1m30s", "90s", "24h", "1.5s", "0.3s"])
sizes = st.sampled_from(["64m", "1g", "1.5 gb", "1048576", "${LIMIT}", "8mib"])


def volumes() -> st.SearchStrategy[Document]:
    return st.lists(st.tuples(names, targets), unique_by=(lambda x: x[0], lambda x: x[1])).map(dict)


def some(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Document]:
    """A map with any of these keys."""
    return st.fixed_dictionaries({}, optional=keys)


resources = some(
    cpus=st.sampled_from([1, 0.5, "1.50", "${NOT_SET:-2}"]),
    memory=sizes,
    pids=st.integers(1, 2**22),
)


@st.composite
def healthchecks(draw: st.DrawFn) -> Document:
    test = st.one_of(filled, words.map(lambda given: ["CMD", *given]))
    rest = some(
        interval=durations, timeout=durations, retries=st.integers(1, 99), start_period=durations
    )
    return {"test": draw(test), **draw(rest)}


@st.composite
def companions(draw: st.DrawFn) -> Document:
    rest = some(
        command=commands,
        env=variables,
        user=st.sampled_from(["1000:1000", "postgres", "${NOT_SET:-1}"]),
        volumes=volumes(),
        resources=resources,
        healthcheck=healthchecks(),
        secrets=st.dictionaries(names, paths, max_size=2),
        allow=grants,
    )
    return {"image": draw(images), **draw(rest)}


@st.composite
def workspaces(draw: st.DrawFn, name: str) -> Document:
    source = st.one_of(
        st.fixed_dictionaries({"path": paths}),
        st.fixed_dictionaries(
            {"git": filled, "branch": st.sampled_from(["feat/x", "a{{b}}", "é"])}
        ),
    )
    build = some(
        context=filled,
        dockerfile=filled,
        target=literals,
        args=st.dictionaries(st.sampled_from(["A", "b"]), literals),
    )
    rest = some(
        source=source,
        build=build,
        command=commands,
        hosts=st.lists(st.sampled_from([f"{name}.test", f"x-{name}.a.b"]), unique=True),
        env=variables,
        env_file=st.lists(st.sampled_from([".env.local", "../outside.env"]) | paths, max_size=2),
        volumes=volumes(),
        user=st.sampled_from(["1000:1000", "node", "${NOT_SET:-1000}"]),
        resources=resources,
        ready=some(path=st.sampled_from(["/", "/{{x}}?a=`b`&c", "/$$"]), timeout=durations),
        services=st.dictionaries(names, companions(), max_size=2),
        auth=st.one_of(
            st.fixed_dictionaries({"users": st.dictionaries(users, hashes, min_size=1)}),
            st.fixed_dictionaries({"forward": urls}),
        ),
        secrets=st.dictionaries(names, paths, max_size=2),
        network=some(egress=st.booleans()),
        allow=grants,
        enabled=st.booleans(),
    )
    workspace: Document = {"image": draw(images), **draw(rest)}
    if "command" in workspace and draw(st.booleans()):
        workspace["setup"] = draw(values)
    return workspace


@st.composite
def documents(draw: st.DrawFn) -> Document:
    rest = some(
        proxy=some(
            image=images,
            http=st.integers(1, 65535),
            bind=st.sampled_from(["127.0.0.1", "0.0.0.0", "::1"]),
            domain=st.sampled_from(["localhost", "dev.test", "a-b.c"]),
            https=st.integers(1, 65535),
            dashboard=st.booleans(),
            access_log=st.booleans(),
        ),
        network=some(pool=st.sampled_from(["10.0.0.0/8", "172.20.0.0/24"]), holder=images),
        clones=filled,
        defaults=some(env=variables, user=st.just("node"), resources=resources),
    )
    chosen = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=3))
    spec: Document = {"version": 1, "project": draw(st.sampled_from(["shop", "a_b-c", "1"]))}
    return spec | draw(rest) | {"workspaces": {name: draw(workspaces(name)) for name in chosen}}


@st.composite
def inputs(draw: st.DrawFn) -> bytes:
    """Documents as files, in any of YAML's styles."""
    text = yaml.safe_dump(
        draw(documents()),
        sort_keys=draw(st.booleans()),
        allow_unicode=draw(st.booleans()),
        default_flow_style=draw(st.sampled_from([None, False, True])),
        default_style=draw(st.sampled_from([None, '"'])),
        width=draw(st.sampled_from([20, 10_000])),
    )
    return text.encode(errors="surrogatepass")
