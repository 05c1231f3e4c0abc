"""Notices changes of nftables by the messages that the kernel sends about them, so that nothing has to be looked at regularly."""

import socket
from typing import Final

# linux/netlink.h and linux/netfilter/nfnetlink.h
_NETLINK_NETFILTER: Final = 12
_SOL_NETLINK: Final = 270
_NETLINK_ADD_MEMBERSHIP: Final = 1
_NFNLGRP_NFTABLES: Final = 7

_MAX_MESSAGE: Final = 65536  # bytes


class RulesetChanges:
    """Counts the changes of rules in this network namespace, whoever makes them. To be used by one thread at a time."""

    def __init__(self) -> None:
        self._listener: socket.socket | None = None
        self._count = 0

    def __del__(self) -> None:
        if self._listener is not None:
            self._listener.close()

    def count(self) -> int:
        """Return a number that is larger than the last time if any rule may have changed meanwhile."""
        if self._listener is None:
            self._listener = _listen()
            self._count += 1
            return self._count
        while True:
            try:
                self._listener.recv(_MAX_MESSAGE)
            except BlockingIOError:
                return self._count
            except OSError:  # there were more messages than it could hold
                self._listener.close()
                self._listener = None
                return self.count()
            self._count += 1


def _listen() -> socket.socket | None:
    """Return a socket that gets a message for each change, or None if this process may not have one."""
    try:
        listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_NETFILTER)
    except (AttributeError, OSError):  # not Linux, or forbidden
        return None
    try:
        listener.bind((0, 0))
        listener.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _NFNLGRP_NFTABLES)
    except OSError:
        listener.close()
        return None
    return listener
