"""Connections through the HTTP proxy of EGRESS_PROXY: a tunnel (CONNECT) to an address that was checked.

The proxy gets the address and not the name, because it would resolve the name again, to another address. The name is sent inside
the tunnel, in the request and in TLS. ADR 27 has the reasons.
"""

import logging
import re
import socket
import time
from typing import Any, Final

from orchestrator_site.base.egress.errors import EgressFailed, ProxyFailed
from orchestrator_site.base.egress.host_checks import resolve
from orchestrator_site.base.values.http_urls import HttpUrl, basic_credentials

logger = logging.getLogger(__name__)

_MAX_HEAD_BYTES: Final = 16 * 1024
_STATUS: Final = re.compile(rb"HTTP/1\.[0-9] ([0-9]{3})(?: |\r?\n)")
_ALMOST_NO_TIME: Final = 0.001  # a socket with a time-out of 0 does not block
_DESTINATION_FAILED: Final = frozenset({502, 503, 504})  # what proxies answer if they cannot connect


def open_connection(family: int, address: Any, timeout: float) -> socket.socket:
    """Connect to a socket address within `timeout` seconds. Raise `OSError`."""
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_to_proxy(proxy: HttpUrl, timeout: float) -> socket.socket:
    """Connect to the proxy within `timeout` seconds. Raise `ProxyFailed`.

    Its address is the operator's choice and not checked.
    """
    deadline = time.monotonic() + timeout
    reason: Exception | None = None
    try:
        for family, address in resolve(proxy.host, proxy.port, timeout):
            try:
                return open_connection(family, address, max(deadline - time.monotonic(), _ALMOST_NO_TIME))
            except OSError as error:
                reason = reason or error
    except EgressFailed as error:
        reason = error
    logger.warning("the proxy %s:%s cannot be reached: %s", proxy.host, proxy.port, reason)
    raise ProxyFailed("the proxy of EGRESS_PROXY cannot be reached")


def open_tunnel(connection: socket.socket, proxy: HttpUrl, host: str, address: Any) -> None:
    """Let the proxy connect to a socket address of `host`.

    Raise `EgressFailed` if it cannot, `ProxyFailed` if it refuses or fails itself. Raise `TimeoutError` if it does not answer: it
    waits for the host.
    """
    target = f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
    lines = [f"CONNECT {target} HTTP/1.1".encode(), f"Host: {target}".encode()]
    if proxy.userinfo is not None:
        lines.append(b"Proxy-Authorization: " + basic_credentials(proxy.userinfo))
    try:
        connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n")
        status = _read_status(connection)
    except TimeoutError:
        raise
    except OSError as error:
        raise ProxyFailed("the proxy of EGRESS_PROXY ended the connection") from error
    if 200 <= status < 300:
        return
    failure = f"cannot connect to {host} port {address[1]}: the proxy of EGRESS_PROXY answered {status}"
    if status in _DESTINATION_FAILED:
        raise EgressFailed(failure)
    logger.warning("the proxy %s:%s answered %s for %s (%s)", proxy.host, proxy.port, status, target, host)
    raise ProxyFailed(failure)


def _read_status(connection: socket.socket) -> int:
    """Read the head of the proxy's answer, byte by byte: what follows it belongs to the tunnel. Return its status."""
    head = bytearray()
    while not head.endswith((b"\r\n\r\n", b"\n\n")):
        byte = connection.recv(1)
        head += byte
        if not byte or len(head) > _MAX_HEAD_BYTES:
            raise ProxyFailed("the proxy of EGRESS_PROXY did not answer like an HTTP proxy")
    status = _STATUS.match(head)
    if status is None:
        raise ProxyFailed("the proxy of EGRESS_PROXY did not answer like an HTTP proxy")
    return int(status[1])
