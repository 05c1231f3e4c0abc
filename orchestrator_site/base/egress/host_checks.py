"""Resolves the hosts of outgoing requests, and checks the addresses that are found."""

import logging
import socket
import threading
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

from django.conf import settings

from orchestrator_site.base.config.configuration import Network
from orchestrator_site.base.egress.allowed_addresses import is_allowed, is_listed, targets
from orchestrator_site.base.egress.errors import EgressDenied, EgressFailed
from orchestrator_site.base.egress.own_addresses import is_own
from orchestrator_site.base.values.http_urls import parse

logger = logging.getLogger(__name__)


def check_address(host: str, address: str) -> None:
    """Raise `EgressDenied` if a URL with this `host` may not reach this `address`, which is only named in the log.

    A client must not learn the addresses of internal hosts.
    """
    configuration = settings.CONFIGURATION
    if not is_allowed(ip_address(address), host, configuration.egress_networks, configuration.egress_hosts):
        logger.info("%s is not reached: it resolves to %s", host, address)
        raise EgressDenied(f"{host} resolves to a non-public address that is not in EGRESS_ALLOW")


@lru_cache(maxsize=1024)
def is_listed_host(origin: str, networks: tuple[Network, ...], hosts: frozenset[str]) -> bool:
    """Return whether EGRESS_ALLOW lists the host of a URL: its name, or the address that the URL has instead of one."""
    host = parse(origin).host.rstrip(".")
    try:
        addresses = targets(ip_address(host))
    except ValueError:
        return host in hosts
    return all(is_listed(address, host, networks, hosts) for address in addresses)


def check_new_address(host: str, address: str, timeout: float) -> None:
    """Raise `EgressDenied` like `check_address`, and also if the address is the service's own and not in EGRESS_ALLOW."""
    check_address(host, address)
    networks, hosts = settings.CONFIGURATION.egress_networks, settings.CONFIGURATION.egress_hosts
    for target in targets(ip_address(address)):
        if not is_listed(target, host, networks, hosts) and is_own(target, host, timeout):
            logger.info("%s is not reached: it resolves to %s, which is the service's own", host, address)
            raise EgressDenied(f"{host} resolves to an address of this service that is not in EGRESS_ALLOW")


def resolve(host: str, port: int, timeout: float) -> list[tuple[int, Any]]:
    """Return family and socket address of every address of `host`, the system's preferred first. Raise `EgressFailed`.

    The system's resolver runs in a thread, because it has no time-out and cannot be interrupted.
    """
    results: list[Any] = []

    def look_up() -> None:
        try:
            results.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            results.append(error)

    thread = threading.Thread(target=look_up, name="resolve", daemon=True)
    thread.start()
    thread.join(timeout)
    if not results:
        raise EgressFailed(f"{host} cannot be resolved within {timeout:g} s", timed_out=True)
    found = results[0]
    if isinstance(found, Exception):
        reason = found.strerror if isinstance(found, OSError) else "invalid host name"
        raise EgressFailed(f"{host} cannot be resolved: {reason}") from found
    return [(family, address) for family, _, _, _, address in found]
