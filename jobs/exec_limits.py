"""Linux's limits on the arguments and environment variables of a program (execve(2))."""

from collections.abc import Iterable
from typing import Final

MAX_STRING_BYTES: Final = 128 * 1024 - 1  # of an argument or `NAME=value`; with the final NUL it has 128 KiB

# All of them together may use a quarter of the stack, which is 8 MiB almost everywhere. 4 KiB are left for what the engine and
# the init process add.
MAX_TOTAL_BYTES: Final = 2 * 1024**2 - 4096
_POINTER_BYTES = 8


def size_of(strings: Iterable[str]) -> int:
    """Return how many bytes of `MAX_TOTAL_BYTES` these arguments and variables use."""
    return sum(len(string.encode()) + 1 + _POINTER_BYTES for string in strings)
