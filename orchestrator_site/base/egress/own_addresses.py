"""Which public addresses are the service's own: those of this machine, and those of PUBLIC_URL.

A client must not reach through the service what listens on its machines, whatever address that has. Private addresses of this
machine are not public in the first place.
"""

import logging
import socket
import threading
import time
from functools import cache
from ipaddress import IPv6Address, ip_address
from typing import Final

from django.conf import settings

from orchestrator_site.base.egress.allowed_addresses import Address
from orchestrator_site.base.egress.errors import ServiceFailed
from orchestrator_site.base.intervals import EgressIntervals
from orchestrator_site.base.values.http_urls import InvalidUrl, parse

logger = logging.getLogger(__name__)

_PORT: Final = 9  # any: a datagram socket sends nothing when it is connected
_NO_ADDRESSES: Final = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


def is_own(address: Address, host: str, timeout: float) -> bool:
    """Return whether `address`, found for the `host` of a URL, is the service's own.

    Wait at most `timeout` seconds, and only at the first call, for the addresses of PUBLIC_URL. Raise `ServiceFailed` while they
    are unknown.
    """
    public = _public_url(settings.CONFIGURATION.public_url)
    return host.rstrip(".") == public.host or is_on_this_machine(address) or address in public.addresses(timeout)


def is_on_this_machine(address: Address) -> bool:
    """Return whether an interface of this machine has `address` now.

    The kernel reaches such an address from that address itself. To ask it takes a few microseconds and sends nothing.
    """
    family = socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), _PORT))
            return ip_address(probe.getsockname()[0]) == address
    except OSError:
        return False  # there is no way to this address, so it is not here


class PublicUrl:
    """The addresses of the host of PUBLIC_URL. They are resolved in another thread, and again when they are old."""

    def __init__(self, url: str, intervals: EgressIntervals = EgressIntervals()) -> None:
        try:
            self.host = parse(url).host.rstrip(".")
        except InvalidUrl:
            self.host = ""
        self._intervals = intervals
        self._lock = threading.Lock()
        self._due = 0.0  # when they are resolved again, on the monotonic clock
        self._awaited = threading.Event()  # whether they need not be waited for any more
        self._addresses: frozenset[Address] | None = None  # None: still unknown

    def addresses(self, timeout: float) -> frozenset[Address]:
        """Return the addresses that were found last. Only the first calls wait for them, and not for long.

        Raise `ServiceFailed` as long as none were found and the host may have some: any address could be the service's own.
        """
        if not self.host:
            return frozenset()
        with self._lock:
            is_due = time.monotonic() >= self._due
            if is_due:
                self._due = time.monotonic() + self._intervals.public_url
        if is_due:
            threading.Thread(target=self._resolve, name="resolve PUBLIC_URL", daemon=True).start()
        self._awaited.wait(min(timeout, self._intervals.public_url_wait))
        self._awaited.set()
        if self._addresses is None:
            raise ServiceFailed("the addresses of this service are not known: the host of PUBLIC_URL cannot be resolved now")
        return self._addresses

    def _resolve(self) -> None:
        """Replace the addresses. If the name cannot be resolved, keep the old ones, or try again soon if there are none."""
        try:
            found = socket.getaddrinfo(self.host, None, type=socket.SOCK_STREAM)
            self._addresses = frozenset(ip_address(address[0]) for _, _, _, _, address in found)
        except (OSError, UnicodeError) as error:
            logger.warning("the host of PUBLIC_URL cannot be resolved: %s", error)
            if self._addresses is None and _has_none(error):
                self._addresses = frozenset()
            elif self._addresses is None:
                with self._lock:
                    self._due = time.monotonic() + self._intervals.public_url_retry
        finally:
            self._awaited.set()


def _has_none(error: Exception) -> bool:
    """Return whether a name server has said that a name has no addresses, or none could. Then it leads nowhere, also to us."""
    return isinstance(error, UnicodeError) or (isinstance(error, OSError) and error.errno in _NO_ADDRESSES)


@cache
def _public_url(url: str) -> PublicUrl:
    return PublicUrl(url)
