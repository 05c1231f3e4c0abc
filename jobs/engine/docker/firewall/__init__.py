"""Firewall rules that keep the containers of a network from this machine and from denied networks.

See docs/adr/0029-firewall-rules-of-jobs.md.
"""

from jobs.engine.docker.firewall.network_firewall import NetworkFirewall

__all__ = ["NetworkFirewall"]
