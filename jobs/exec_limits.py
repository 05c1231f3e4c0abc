"""How long the arguments and variables of a program may be: Linux's limits on execve(2)."""

from collections.abc import Iterable
from typing import Final

LONGEST: Final = 128 * 1024 - 1  # bytes of one argument or one `NAME=value`; the NUL that ends it makes 128 KiB

# All of them together may take a quarter of the stack, which is 8 MiB almost everywhere. Engine and init add a few of their own.
TOTAL: Final = 2 * 1024**2 - 4096
_POINTER = 8


def taken(strings: Iterable[str]) -> int:
    """How much of `TOTAL` these arguments and variables take."""
    return sum(len(string.encode()) + 1 + _POINTER for string in strings)
