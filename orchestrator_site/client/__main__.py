"""`python -m orchestrator_site.client`, which `bin/run` starts."""

import sys

from orchestrator_site.client.command_line import main

if __name__ == "__main__":
    sys.exit(main("bin/run", sys.argv[1:]))
