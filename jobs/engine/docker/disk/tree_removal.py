"""Removes directory trees that an engine cannot remove itself.

dockerd keeps a directory open for each level of a tree that it removes. If a job has made more levels than dockerd may have open
files, every removal of its container fails, and for a moment everything else that dockerd does.
"""

import shutil
import subprocess
from pathlib import Path

_PROGRAM = "rm"  # of GNU, which opens a few directories at a time


def remove_tree(path: Path, timeout: float) -> bool:
    """Remove a directory with all that is below it, on its own file system. Return whether it is gone.

    Links are removed and not followed.
    """
    program = shutil.which(_PROGRAM)
    if program is None:
        return False
    try:
        subprocess.run(  # noqa: S603 - the path is the engine's, and no job chooses a part of it
            [program, "--recursive", "--force", "--one-file-system", "--", path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"LC_ALL": "C"},
            timeout=timeout,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return not path.exists()
