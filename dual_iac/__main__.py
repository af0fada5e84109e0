"""``python -m dual_iac``, where the ``dual`` command is not on PATH."""

from dual_iac.cli import main

main()
