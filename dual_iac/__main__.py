"""Where the ``dual`` command, and ``python -m dual_iac``, begin."""

import sys


def main() -> None:
    """Run the command line.

    Until it is loaded and listens to signals itself, Ctrl-C just ends the process: Python would
    show where in the loading it was.
    """
    try:
        from dual_iac.inside import shortcut

        shortcut.attempt(sys.argv[1:])
        import signal

        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in a background job
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    except KeyboardInterrupt:
        sys.exit(130)
    from dual_iac import cli

    cli.main()


if __name__ == "__main__":
    main()
