"""The scheduling priority of `web`.

A request takes two milliseconds of CPU, but waits for its turn at every hand-over between threads. While an engine starts
containers, some 20 groups of processes share the cores, and each wait takes several times as long as the request.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

NICE: Final = -5  # three times the weight of other processes
_AUTOGROUP: Final = Path("/proc/self/autogroup")  # "/autogroup-17 nice 0", if the kernel has such groups


def raise_priority(autogroup: Path = _AUTOGROUP) -> None:
    """Give this process and its future children priority over others, if it may and no priority was chosen for it.

    Linux schedules sessions against each other, unless control groups do: the priority of the session is raised as well, if it is
    this process's own.
    """
    with suppress(OSError):
        if os.getpriority(os.PRIO_PROCESS, 0) == 0:
            os.setpriority(os.PRIO_PROCESS, 0, NICE)
    with suppress(OSError):
        if os.getsid(0) == os.getpid() and autogroup.read_text().endswith(" nice 0\n"):
            autogroup.write_text(str(NICE))
