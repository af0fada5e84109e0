"""Files of environment variables, as Compose reads them.

python-dotenv splits a file into names and values; what Compose does with ``$`` differs from
it: nothing within single quotes, and elsewhere what :mod:`dual_iac.interpolation` does, with
the surrounding environment before the file's own earlier lines.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Mapping
from pathlib import Path

from dual_iac.interpolation import substitute

MAX_SIZE = 4_000_000
"""Characters of a file of variables. A process can't be started with as many."""


def expand_home(path: str) -> Path:
    """A path of this machine as Compose reads it: ``~`` is the home folder, whatever follows it."""
    return Path(f"{Path.home()}/{path[1:]}" if path.startswith("~") else path)


def read_env_file(path: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Names and values of a file; none if it doesn't exist.

    A name alone, without ``=``, takes its value from ``environment``, or is left out. Raises
    :class:`~dual_iac.interpolation.InterpolationError` where Compose would refuse a value, OSError
    where the file can't be read.
    """
    from dotenv.parser import parse_stream

    values: dict[str, str] = {}
    try:
        # Bytes that aren't UTF-8 are kept apart, not refused: Compose passes them on.
        with path.open(encoding="utf-8", errors="surrogateescape") as file:
            text = file.read(MAX_SIZE + 1)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return values
    if len(text) > MAX_SIZE:  # or a device, that has no end
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    for binding in parse_stream(io.StringIO(text)):
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
