"""Looks into pipes without reading from them."""

from array import array
from fcntl import ioctl
from termios import FIONREAD
from typing import IO


def has_unread(pipe: IO[bytes], count: int) -> bool:
    """Return whether at least `count` bytes are in the pipe."""
    unread = array("i", [0])
    ioctl(pipe.fileno(), FIONREAD, unread)
    return unread[0] >= count
