"""Locks on files, which the kernel releases when their process dies, however it dies (flock(2))."""

import fcntl


def try_lock(descriptor: int) -> bool:
    """Lock an open file for this process alone. Return False at once if another process holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
