"""Checks whether a container engine may connect to a host, such as a registry.

The rules are those of `http_client`, but every address of the host must be allowed, since the engine chooses one.
"""

import re
from ipaddress import IPv4Address
from typing import Final

from orchestrator_site.base.egress.errors import EgressDenied
from orchestrator_site.base.egress.host_checks import check_new_address, resolve

_PORT: Final = 443  # any: only the addresses matter
_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")


def check_host(host: str, timeout: float) -> None:
    """Raise `EgressDenied` unless all addresses of `host` may be reached.

    Raise `EgressFailed` if it cannot be resolved within `timeout` seconds.
    """
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        _check_plain_address(host)
    for _, address in resolve(host, _PORT, timeout):
        check_new_address(host, address[0], timeout)


def _check_plain_address(host: str) -> None:
    """Refuse spellings such as 127.1, 0x7f.0.0.1 and 010.0.0.1: resolvers disagree on which addresses they mean."""
    try:
        IPv4Address(host)
    except ValueError as error:
        raise EgressDenied(f"{host} is neither a host name nor an IPv4 address of four decimal numbers") from error
