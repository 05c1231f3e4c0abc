"""Measures directory trees that jobs have made: they may be deep, have long names and change meanwhile."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from jobs.errors import Unmeasurable

# GNU du opens each directory relative to its parent, follows no link, and counts a file with several names once. A process of
# its own does not slow down this one, in which many threads share an interpreter.
_PROGRAM: Final = "du"
_OPTIONS: Final = ("--summarize", "--total", "--one-file-system")


def tree_size(paths: Sequence[Path], timeout: float) -> int | None:
    """Return the bytes on the disk of all files below these paths, or None if this machine has no GNU du.

    Raise `Unmeasurable` after `timeout` seconds.
    """
    return _total("--block-size=1", paths, timeout)


def tree_files(paths: Sequence[Path], timeout: float) -> int | None:
    """Return the number of files and directories below these paths, in the same way."""
    return _total("--inodes", paths, timeout)


def _total(unit: str, paths: Sequence[Path], timeout: float) -> int | None:
    program = shutil.which(_PROGRAM)
    if program is None:
        return None
    if not paths:  # it would look at the current directory
        return 0
    try:
        # It complains about what disappears while it looks: that does not matter.
        done = subprocess.run(  # noqa: S603 - the paths are the engine's, and no job chooses a part of them
            [program, *_OPTIONS, unit, "--", *paths],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"LC_ALL": "C"},
            timeout=timeout,
            check=False,
        )
        return int(done.stdout.splitlines()[-1].split()[0])
    except subprocess.TimeoutExpired as error:
        raise Unmeasurable("the files of the container are too many to be measured in time") from error
    except (OSError, ValueError, IndexError):
        return None
