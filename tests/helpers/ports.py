"""Ports that nothing listens on."""

import socket


def hold(port: int) -> socket.socket:
    """Return a socket that keeps a port of 127.0.0.1, or any if it is 0, until it is closed. Connections to the port are refused.

    Without it, the kernel may give the port to an outgoing connection, or to the next server that asks for any.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        held.bind(("127.0.0.1", port))
    except OSError:
        held.close()  # otherwise a later test would get a warning
        raise
    return held
