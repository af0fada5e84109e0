#!/usr/bin/env python3
"""Writes docs/reference: dual-yaml.md, cli.md and the schemas, from the code itself.

python scripts/reference.py           writes what is not current
python scripts/reference.py --check   only names it, and exits 2
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from dual_iac import model
from dual_iac.saved import PlanDocument

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "reference"
NOT_CURRENT = 2

MADE = "<!-- Made by scripts/reference.py. Don't edit: run it again. -->"

SECTIONS: Mapping[str, type[BaseModel]] = {
    "dual.yaml itself": model.Spec,
    "proxy": model.Proxy,
    "certificates": model.OwnCertificate,
    "acme": model.Acme,
    "network": model.Network,
    "workspace": model.WorkspaceSettings,
    "source": model.Source,
    "build": model.Build,
    "resources": model.Resources,
    "ready": model.Ready,
    "services": model.Companion,
    "healthcheck": model.Healthcheck,
    "auth": model.Auth,
    "network of a workspace": model.WorkspaceNetwork,
}
"""Headings, and the models whose keys stand under them."""


def plan_schema() -> str:
    """The JSON Schema of what ``dual plan --format json`` prints."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **PlanDocument.model_json_schema(mode="serialization"),
    }
    return json.dumps({**schema, "title": "dual plan --format json"}, indent=2) + "\n"


def pages() -> dict[str, str]:
    """The texts that should stand in docs/reference, by file name."""
    return {
        "dual-yaml.md": spec_page(),
        "cli.md": cli_page(),
        "dual.schema.json": dual("schema"),
        "plan.schema.json": plan_schema(),
    }


def stale(folder: Path = FOLDER) -> list[str]:
    """The names of the pages that are missing or differ from what the code says."""
    return [name for name, text in pages().items() if _read(folder / name) != text]


def _read(path: Path) -> str | None:
    return path.read_text("utf-8") if path.is_file() else None


# ── dual.yaml ───────────────────────────────────────────────────────────────────────────────

_SPEC_INTRODUCTION = """\
# dual.yaml

Every key of the file, version 1. An annotated example is [dual.yaml](../../dual.yaml); the
same as a JSON Schema, for editors, is [dual.schema.json](dual.schema.json), which
`dual schema` prints, too.

- Texts are taken as written: `no`, `1.10` and `22:22` need no quotes.
- Unknown keys are errors.
- `key: ~` takes back what `defaults` says, where a workspace should do without. In `env`, it
  takes the variable from where dual runs instead.
- Relative paths start from the folder of dual.yaml.
- Sizes are written like `512m` or `1g`, durations like `500ms`, `60s` or `1m30s`.
- The column `${VAR}` says where `$VAR`, `${VAR}`, `${VAR:-default}`, `${VAR:?message}` and
  `${VAR:+replacement}` may stand. `$$` is a dollar sign there.
- A workspace's name, and a project's, is made of a-z, 0-9 and `-` (a project's may have `_`,
  too), has at most 63 characters and starts with a letter or a digit; a workspace's also ends
  with one, and isn't `traefik`.
"""


def spec_page() -> str:
    blocks = [MADE, _SPEC_INTRODUCTION.rstrip()]
    for heading, kind in SECTIONS.items():
        blocks += [f"## {heading}", _introduction(kind), _table(kind)]
    return "\n\n".join(blocks) + "\n"


def _introduction(kind: type[BaseModel]) -> str:
    return _escaped(" ".join((kind.__doc__ or "").split()))


def _table(kind: type[BaseModel]) -> str:
    schema = kind.model_json_schema()
    properties: Mapping[str, Any] = schema["properties"]
    rows = [["Key", "Type", "Default", "`${VAR}`", "Description"]]
    for name, field in kind.model_fields.items():
        text = _description(name, properties[name], schema.get("$defs", {}))
        rows.append(
            [
                f"`{name}`",
                _type(properties[name]),
                _default(field),
                "yes" if takes_variables(field) else "",
                text,
            ]
        )
    lines = [f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def _description(name: str, schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    text = schema.get("description", "")
    if not text and "$ref" in schema:
        text = definitions[_referred(schema)].get("description", "")
    if not text and name in model.WorkspaceSettings.model_fields:
        text = "As for a workspace."
    return _escaped(" ".join(text.split()))


def _escaped(text: str) -> str:
    """Without what Markdown would take for HTML."""
    return text.replace("<", "&lt;").replace(">", "&gt;").replace("``", "`")


_TYPES = {"string": "text", "number": "number", "boolean": "true or false"}


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return _link(_referred(schema))
    if "anyOf" in schema:
        # That a key may be left out says its default.
        kinds = [_type(each) for each in schema["anyOf"] if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "const" in schema:
        return f"`{schema['const']}`"
    match schema.get("type"):
        case list():
            return "text"  # any scalar: what stands there is taken as it is written
        case "integer":
            return "whole number"
        case "array":
            return f"list of {_type(schema['items'])}s"
        case "object":
            values = schema.get("additionalProperties") or next(
                iter(schema.get("patternProperties", {}).values())
            )
            return f"map of names to {_type(values)}{'s' if '$ref' not in values else ''}"
        case kind:
            return _TYPES[str(kind)]


def _referred(schema: Mapping[str, Any]) -> str:
    return str(schema["$ref"]).rpartition("/")[2]


def _link(name: str) -> str:
    heading = next(heading for heading, kind in SECTIONS.items() if kind.__name__ == name)
    return f"[{heading}](#{anchor(heading)})"


def anchor(heading: str) -> str:
    """The fragment that leads to a heading, as GitHub makes it."""
    kept = (letter for letter in heading.lower() if letter.isalnum() or letter in " -_")
    return "".join(kept).strip().replace(" ", "-")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or isinstance(value, BaseModel) or value in ((), {}):
        return ""
    annotation: Any = field.rebuild_annotation()
    shown = TypeAdapter(annotation).dump_python(value, mode="json")
    return f"`{json.dumps(shown) if not isinstance(shown, str) else shown}`"


def takes_variables(field: FieldInfo) -> bool:
    """Whether a ``${VAR}`` may stand in a value of this field: asked of the field itself."""
    annotation: Any = field.rebuild_annotation()
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    for value in ("${VAR}", ["${VAR}"], {"x": "${VAR}"}):
        try:
            adapter.validate_python(value)
        except ValidationError:
            continue
        return True
    return False


# ── the command line ────────────────────────────────────────────────────────────────────────

_CLI_INTRODUCTION = """\
# The command line

What `dual --help` and each command's own `--help` say. What the exit codes mean stands in
[the guide](../guide.md#exit-codes), the JSON of `--format json` in [json.md](json.md).
"""


def cli_page() -> str:
    names = commands()
    with ThreadPoolExecutor(8) as pool:
        helps = list(pool.map(lambda name: dual(name, "--help"), names))
    blocks = [MADE, _CLI_INTRODUCTION.rstrip(), _fenced(dual("--help"))]
    for name, text in zip(names, helps, strict=True):
        blocks += [f"## dual {name}", _fenced(text)]
    return "\n\n".join(blocks) + "\n"


def commands() -> list[str]:
    """The names of all commands, in the order that --help lists them."""
    import typer

    from dual_iac.cli.app import app

    group: Any = typer.main.get_command(app)
    return list(group.list_commands(group.make_context("dual", ["--help"], resilient_parsing=True)))


def _fenced(text: str) -> str:
    lines = (line.rstrip() for line in text.strip("\n").splitlines())
    return "\n".join(["```text", *lines, "```"])


def dual(*arguments: str) -> str:
    """What a command prints, on a plain terminal of a known width."""
    done = subprocess.run(
        [sys.executable, "-m", "dual_iac", *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    )
    return done.stdout


def main(arguments: Iterable[str]) -> int:
    match list(arguments):
        case []:
            current = pages()
            for name in stale():
                FOLDER.mkdir(parents=True, exist_ok=True)
                (FOLDER / name).write_text(current[name], encoding="utf-8")
                print(f"wrote docs/reference/{name}")
            return 0
        case ["--check"]:
            names = stale()
            for name in names:
                print(f"docs/reference/{name} is not current: run python scripts/reference.py")
            return NOT_CURRENT if names else 0
        case _:
            print(__doc__, file=sys.stderr)
            return 64


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
