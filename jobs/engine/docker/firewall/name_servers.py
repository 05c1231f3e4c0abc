"""Which name servers the resolver of a local Docker engine asks for containers.

The engine does not say. It takes them from its configuration, else from the host's, at the start of a container. They may have a
denied address: link-local ones are usual in clouds, and the machine's own where it runs a name server itself.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from jobs.engine.docker.firewall.network_rules import Address

_ENGINE_SETTINGS: Final = "etc/docker/daemon.json"
# Docker reads the second one if the first only names the stub of systemd.
_RESOLVER_SETTINGS: Final = ("etc/resolv.conf", "run/systemd/resolve/resolv.conf")


def name_servers(root: Path = Path("/")) -> tuple[Address, ...]:
    """Return the name servers of containers in a fixed order, without loopback addresses: a container cannot ask those."""
    found = set()
    for text in _of_engine(root / _ENGINE_SETTINGS) or [text for path in _RESOLVER_SETTINGS for text in _of_host(root / path)]:
        with suppress(ValueError):
            address = ip_address(text)
            if not (address.is_loopback or address.is_unspecified or getattr(address, "scope_id", None)):
                found.add(address)
    return tuple(sorted(found, key=lambda address: (address.version, int(address))))


def _of_engine(path: Path) -> list[str]:
    with suppress(OSError, ValueError):
        settings = json.loads(path.read_text())
        if isinstance(settings, dict) and isinstance(settings.get("dns"), list):
            return [text for text in settings["dns"] if isinstance(text, str)]
    return []


def _of_host(path: Path) -> Iterator[str]:
    with suppress(OSError, ValueError):
        for words in map(str.split, path.read_text().splitlines()):
            if len(words) >= 2 and words[0] == "nameserver":
                yield words[1]
