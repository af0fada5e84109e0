"""Files of environment variables, as Compose reads them.

python-dotenv splits a file into names and values; what Compose does with ``$`` differs from
it: nothing within single quotes, and elsewhere what :mod:`dual_iac.interpolation` does, with
the surrounding environment before the file's own earlier lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dual_iac.interpolation import substitute


def read_env_file(path: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Names and values of a file; none if it doesn't exist.

    A name alone, without ``=``, takes its value from ``environment``, or is left out. Raises
    :class:`~dual_iac.interpolation.InterpolationError` where Compose would refuse a value.
    """
    from dotenv.parser import parse_stream

    values: dict[str, str] = {}
    try:
        # Bytes that aren't UTF-8 are kept apart, not refused: Compose passes them on.
        with path.open(encoding="utf-8", errors="surrogateescape") as file:
            bindings = list(parse_stream(file))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return values
    for binding in bindings:
        if binding.key is None:
            continue
        if binding.value is None:
            if binding.key in environment:
                values[binding.key] = environment[binding.key]
            continue
        written = binding.original.string.partition("=")[2].strip()
        literal = written.startswith("'")
        around = {**values, **environment}
        values[binding.key] = binding.value if literal else substitute(binding.value, around)
    return values
