"""The command line, outermost: options, prompts, exit codes. One module a group of commands.

:func:`main` is the one place where errors end.
"""

from __future__ import annotations

import os
import signal
import sys
from itertools import pairwise
from typing import Any

import typer

from dual_iac.cli import (  # noqa: F401 - they add commands
    daily,
    doctor,
    inside,
    lifecycle,
    passwords,
    project,
    trust,
)
from dual_iac.cli.app import Format, app, current
from dual_iac.errors import DualError, UsageError


class _Stopped(BaseException):
    """A signal that asks this process to end.

    No KeyboardInterrupt: typer would take that for itself, and say nothing.
    """

    def __init__(self, number: int) -> None:
        self.exit_code = 128 + number


_stops = 0
"""How many such signals have come."""


def _stop(number: int, _: Any) -> None:
    """What has begun is let end, and no more is begun. Who asks twice means at once."""
    global _stops
    _stops += 1
    if _stops > 1:
        if sys.stderr is not None and sys.stderr.isatty():
            os.write(2, b"\x1b[?25h")  # the cursor, which a display of progress hides
        os._exit(128 + number)
    current.on_stop()
    raise _Stopped(number)


# typer's own UsageError, wherever this version of it keeps that class.
_TyperUsageError: type[Exception] = typer.BadParameter.__mro__[1]


def main() -> None:
    """Run the command line; exits with the code that DESIGN gives to each outcome."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _stop)
    sys.exit(run())


def run(arguments: list[str] | None = None) -> int:
    """As :func:`main`, but returns the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    given = given[: given.index("--")] if "--" in given else given
    # Before the options are parsed: an error in them is JSON, too, where JSON was asked for.
    wants_json = "--format=json" in given or ("--format", "json") in pairwise(given)
    current.format = Format.JSON if wants_json else Format.TEXT
    try:
        code = app(args=arguments, prog_name="dual", standalone_mode=False)
        if sys.stdout is not None:  # it is None where somebody closed it
            sys.stdout.flush()
    except DualError as error:
        return _fail(error)
    except _TyperUsageError as error:
        return _usage(error)
    except _Stopped as stop:
        print("Interrupted.", file=sys.stderr)
        return stop.exit_code
    except (typer.Abort, KeyboardInterrupt):
        print("Interrupted.", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Whoever read our output has gone: nothing is wrong, and nothing more is to be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(DualError(f"{error.filename or 'Output'}: {error.strerror}"))
    return code if isinstance(code, int) else 0


def _fail(error: DualError) -> int:
    from dual_iac.view.errors import show_error

    show_error(error, as_json=current.json)
    return error.exit_code


def _usage(error: Exception) -> int:
    from dual_iac.view.errors import show_error

    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(context.get_help() if context else "", file=sys.stderr)
        return UsageError.exit_code
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    path = context.command_path if context else "dual"
    usage = context.get_usage().removeprefix("Usage: ") if context else ""
    show_error(
        UsageError(message.rstrip("."), why=f"usage: {usage}", mend=f"see {path} --help"),
        as_json=current.json,
    )
    return UsageError.exit_code
