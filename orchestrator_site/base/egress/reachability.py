"""Whether a host may be reached by somebody else's request: an engine that pulls from a registry.

The rules are those of `http_client` (EGRESS_ALLOW in docs/configuration.md). They are stricter in one way: every address of the
host must be allowed, since it is not ours to choose which one is connected to.
"""

import re
from ipaddress import IPv4Address
from typing import Final

from orchestrator_site.base.egress.guarded_connections import EgressDenied, check, resolve

_PORT: Final = 443  # of no importance: only addresses are looked at
_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")


def check_host(host: str, timeout: float) -> None:
    """Raise `EgressDenied` unless all addresses of `host` may be reached.

    Raises `EgressFailed` where it cannot be resolved within `timeout` seconds.
    """
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        _check_plain_address(host)
    for _, address in resolve(host, _PORT, timeout):
        check(host, address[0])


def _check_plain_address(host: str) -> None:
    """Refuse 127.1, 0x7f.0.0.1 and 010.0.0.1: resolvers disagree about which address these are."""
    try:
        IPv4Address(host)
    except ValueError as error:
        raise EgressDenied(f"{host} is neither a host name nor an IPv4 address of four decimal numbers") from error
