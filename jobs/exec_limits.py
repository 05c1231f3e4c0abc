"""Linux's limits on the arguments and environment variables of a program (execve(2))."""

from collections.abc import Iterable
from typing import Final

LONGEST: Final = 128 * 1024 - 1  # bytes of one argument or one `NAME=value`; the NUL that ends it makes 128 KiB

# All of them together may use a quarter of the stack, which is 8 MiB almost everywhere. 4 KiB are left for what the engine and
# the init process add.
TOTAL: Final = 2 * 1024**2 - 4096
_POINTER = 8


def taken(strings: Iterable[str]) -> int:
    """Return how many bytes of the total these arguments and variables use."""
    return sum(len(string.encode()) + 1 + _POINTER for string in strings)
