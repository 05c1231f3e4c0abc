"""`python -m orchestrator_site.client`, which `bin/run` starts."""

import signal
import sys
from collections.abc import Sequence
from typing import NoReturn


def start(prog: str, arguments: Sequence[str]) -> NoReturn:
    """Carry out a command line and exit. Ctrl-C ends the process without a traceback, even while it imports the client."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from orchestrator_site.client.command_line import main

    sys.exit(main(prog, arguments))


if __name__ == "__main__":
    start("bin/run", sys.argv[1:])
