"""The first dual.yaml of a repository: annotated, valid, and a fair guess at what it runs."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from dual_iac.model import PROXY_SERVICE, slug
from dual_iac.render import template_environment


@dataclass(frozen=True)
class Guess:
    """An image, and the command that serves the repository on port 3000 in it."""

    image: str
    command: str
    because: str
    setup: str = ""


def first_spec(folder: Path) -> str:
    """The text of a dual.yaml for the repository in ``folder``."""
    template = template_environment(folder).get_template("dual.yaml.j2")
    branch = current_branch(folder)
    name = slug(branch) if branch else "main"
    return template.render(
        project=slug(folder.resolve().name),
        branch=branch,
        workspace=f"{name}-1" if name == PROXY_SERVICE else name,
        guess=guess(folder),
    )


def current_branch(folder: Path) -> str | None:
    """The git branch checked out there; None outside a repository or on no branch."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "symbolic-ref", "--short", "--quiet", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return done.stdout.strip() or None


def guess(folder: Path) -> Guess:
    """What the repository runs, going by the files at its top."""
    package = folder / "package.json"
    if package.is_file():
        scripts = _scripts(package)
        script = next((name for name in ("dev", "start", "serve") if name in scripts), "dev")
        extra = " -- --host 0.0.0.0 --port 3000" if "vite" in scripts.get(script, "") else ""
        setup = "npm ci" if (folder / "package-lock.json").is_file() else "npm install"
        return Guess("node:22-slim", f"npm run {script}{extra}", "package.json", setup)
    if (folder / "manage.py").is_file():
        command = "python manage.py runserver 0.0.0.0:3000"
        return Guess("python:3.13-slim", command, "manage.py")
    if (folder / "pyproject.toml").is_file() or (folder / "requirements.txt").is_file():
        return Guess("python:3.13-slim", "python -m http.server 3000", "a Python project")
    if (folder / "Gemfile").is_file():
        return Guess("ruby:3.4-slim", "bundle exec rails server -b 0.0.0.0 -p 3000", "Gemfile")
    if (folder / "go.mod").is_file():
        return Guess("golang:1.24", "go run .", "go.mod")
    return Guess("busybox:1.35", "httpd -f -p 3000 -h /workspace", "")


def _scripts(package: Path) -> dict[str, str]:
    try:
        scripts = json.loads(package.read_text("utf-8")).get("scripts", {})
    except (OSError, ValueError, AttributeError):
        return {}
    return {str(k): str(v) for k, v in scripts.items()} if isinstance(scripts, dict) else {}
