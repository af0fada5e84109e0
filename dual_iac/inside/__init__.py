"""Commands inside a workspace: ``dual exec``, ``dual shell``, and the shims.

All of them end in :file:`run.sh`, which needs no Python: it hands stdin, stdout and stderr to
``docker exec`` as they are, and ends the command in the container when it is ended out here.

What ``dual exec`` imports before that is time its user waits, forty times a day. So
:mod:`shortcut`, :mod:`record` and :mod:`command` import nothing but what Python has loaded anyway.
"""
