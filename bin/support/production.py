"""Run the processes of the Procfile, except `release`, until SIGINT or SIGTERM or until one of them ends.

Honcho's own command would give each process a different PORT, and less time to stop than SHUTDOWN_GRACE.
"""

import os
import sys
from pathlib import Path

from honcho import manager
from honcho.environ import parse_procfile

from orchestrator_site.base.config.configuration import load

ROOT = Path(__file__).resolve().parent.parent.parent
STOP_SECONDS = 5  # that a process may take in addition to SHUTDOWN_GRACE


def main() -> int:
    manager.KILL_WAIT = load().shutdown_grace + STOP_SECONDS
    processes = manager.Manager()
    environment = dict(os.environ)
    if sys.stdout.isatty():  # honcho prints what the processes write to their pipes
        environment.setdefault("FORCE_COLOR", "1")
    for name, command in parse_procfile((ROOT / "Procfile").read_text()).processes.items():
        if name != "release":
            processes.add_process(name, f"exec {command}", env=environment, cwd=str(ROOT))
    processes.loop()
    return int(processes.returncode or 0)


if __name__ == "__main__":
    sys.exit(main())
