"""What jobs may not reach (JOB_NETWORK_DENY in docs/configuration.md)."""

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from orchestrator_site.base.config.variables import ConfigurationError, Environment

Network = IPv4Network | IPv6Network

_NAME: Final = "JOB_NETWORK_DENY"
_NOTHING: Final = "none"
# Addresses on the node's own links: clouds answer there with the node's credentials.
_LINK_LOCAL: Final = (IPv4Network("169.254.0.0/16"), IPv6Network("fe80::/10"))
_MAPPED: Final = IPv6Network("::ffff:0:0/96")


def denied_networks(env: Environment) -> tuple[Network, ...] | None:
    """Return the networks that jobs may not reach besides the node itself, or None if they may reach everything."""
    words = env.words(_NAME)
    if words is None:
        return _LINK_LOCAL
    if words == [_NOTHING]:
        return None
    if not words:
        raise ConfigurationError(f"{_NAME} must contain at least one network, or be {_NOTHING}")
    return (*_LINK_LOCAL, *map(_network, words))


def _network(word: str) -> Network:
    if word == _NOTHING:
        raise ConfigurationError(f"{_NAME} must be either {_NOTHING} or a list of networks")
    if "%" in word:
        raise ConfigurationError(f"{_NAME} contains a network with a zone, which firewall rules cannot have: {word!r}")
    try:
        network = ip_network(word)
    except ValueError as error:
        raise ConfigurationError(f"{_NAME} contains an invalid network: {error}") from error
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        raise ConfigurationError(f"{_NAME} contains an IPv4 network in IPv6 notation, which no packet has: {word!r}")
    return network
