"""A node with jobs, and what they may and may not reach, in network namespaces."""

from collections.abc import Callable
from contextlib import ExitStack
from ipaddress import ip_address, ip_network

from jobs.engine.docker.firewall.iptables import Iptables
from jobs.engine.docker.firewall.network_rules import Address, Network, rules_name
from jobs.engine.docker.firewall.nftables import Nftables
from tests.helpers.network_namespaces import Host, Servers, Target, reachable, targets
from tests.helpers.waiting import wait_for

NETWORK_ID = "0123456789abcdef"
BRIDGE = "br-0123456789ab"
OWNER = "orc1a2b3c4d"
NAME = rules_name(OWNER, NETWORK_ID)

PORT = 8000
PUBLISHED = 8077  # a port of the node that is passed on to PORT of another container
DNS = 53

GATEWAY, GATEWAY_V6 = "10.201.0.1", "fd00:201::1"
PUBLIC = "198.51.100.1"  # the node's address for machines outside
# Of the bridge, a second bridge and the interface to the outside.
ADDRESSES_OF_THE_NODE = (GATEWAY, GATEWAY_V6, f"fe80::1%{BRIDGE}", "10.202.0.1", PUBLIC, "2001:db8:1::1")
NEIGHBOR = ("10.201.0.3", "fd00:201::3")  # another job
OTHER = ("10.202.0.2",)  # a container on the second bridge
METADATA = "169.254.169.254"
OUTSIDE = ("198.51.100.2", "2001:db8:1::2")
DENIED_SERVER = ("203.0.113.7", "2001:db8:bad::7")

DENIED: tuple[Network, ...] = tuple(map(ip_network, ("169.254.0.0/16", "fe80::/10", "203.0.113.0/24", "2001:db8:bad::/48")))
# PUBLIC passes its port for DNS on to OTHER.
NAME_SERVERS: tuple[Address, ...] = tuple(map(ip_address, (*DENIED_SERVER, GATEWAY, PUBLIC)))

# As a job writes them.
REFUSED_ADDRESSES = [
    *(address.replace(BRIDGE, "eth0") for address in ADDRESSES_OF_THE_NODE),
    *NEIGHBOR,
    METADATA,
    *DENIED_SERVER,
]

ALLOWED = targets(OUTSIDE, PORT) | targets(OUTSIDE, DNS) | targets(map(str, NAME_SERVERS), DNS)
EVERYTHING = ALLOWED | targets(REFUSED_ADDRESSES, PORT) | targets([PUBLIC], PUBLISHED) | targets([METADATA, GATEWAY_V6], DNS)

Program = Nftables | Iptables
Protect = Callable[[], list[str]]


class Site:
    """A node with two jobs on one bridge and a container on another one, and a machine outside, all with servers."""

    def __init__(self, cleanup: ExitStack) -> None:
        self.node, self.job, self.neighbor, self.other, self.outside = (self._host(cleanup) for _ in range(5))
        self.node.run(f"""
            for bridge in {BRIDGE} br-other; do
                ip link add $bridge type bridge
                ip link set $bridge up
            done
            ip addr add {GATEWAY}/24 dev {BRIDGE}
            ip addr add {GATEWAY_V6}/64 dev {BRIDGE} nodad
            ip addr add fe80::1/64 dev {BRIDGE} nodad
            ip addr add 10.202.0.1/24 dev br-other
            ip link add out type veth peer name eth0 netns {self.outside.name}
            ip addr add {PUBLIC}/24 dev out
            ip addr add 2001:db8:1::1/64 dev out nodad
            ip link set out up
            for address in {METADATA} {DENIED_SERVER[0]}; do
                ip route add $address/32 via {OUTSIDE[0]}
            done
            ip -6 route add {DENIED_SERVER[1]}/128 via {OUTSIDE[1]}
        """)
        self._plug(self.job, "job", BRIDGE, "10.201.0", 2)
        self._plug(self.neighbor, "neighbor", BRIDGE, "10.201.0", 3)
        self._plug(self.other, "other", "br-other", "10.202.0", 2)
        self.outside.run(f"""
            for address in {OUTSIDE[0]}/24 {METADATA}/32 {DENIED_SERVER[0]}/32; do
                ip addr add $address dev eth0
            done
            for address in {OUTSIDE[1]}/64 {DENIED_SERVER[1]}/128; do
                ip addr add $address dev eth0 nodad
            done
            ip link set eth0 up
            ip route add default via {PUBLIC}
            ip -6 route add default via 2001:db8:1::1
        """)
        for name in ("ipv4.ip_forward", "ipv6.conf.all.forwarding", "bridge.bridge-nf-call-iptables"):
            self.node.set(f"net.{name}", "1")
        self.node.set("net.bridge.bridge-nf-call-ip6tables", "1")
        self.publish()
        servers = Servers()
        cleanup.callback(servers.close)
        for port in (PORT, DNS):
            servers.listen(self.node, port, ADDRESSES_OF_THE_NODE)
            servers.listen(self.outside, port, (*OUTSIDE, METADATA, *DENIED_SERVER))
            servers.listen(self.other, port, OTHER)
        servers.listen(self.neighbor, PORT, NEIGHBOR)

    def publish(self) -> None:
        """Let the node pass ports on, as Docker does for published ones."""
        rules = [
            f"iptables -t nat -A PREROUTING -d {PUBLIC} -p {protocol} --dport {port} -j DNAT --to {OTHER[0]}:{target}"
            for protocol in ("tcp", "udp")
            for port, target in ((PUBLISHED, PORT), (DNS, DNS))
        ]
        self.node.run("\n".join(rules))

    def _host(self, cleanup: ExitStack) -> Host:
        host = Host()
        cleanup.callback(host.remove)
        return host

    def _plug(self, host: Host, port: str, bridge: str, network: str, number: int) -> None:
        self.node.run(f"""
            ip link add {port} type veth peer name eth0 netns {host.name}
            ip link set {port} master {bridge} up
        """)
        host.run(f"""
            ip addr add {network}.{number}/24 dev eth0
            ip addr add fd00:201::{number}/64 dev eth0 nodad
            ip link set eth0 up
            ip route add default via {network}.1
            ip -6 route add default via {GATEWAY_V6}
        """)


def wait_for_reachable(site: Site, wanted: set[Target]) -> None:
    """Wait until these are all that a job reaches."""
    wait_for(lambda: reachable(site.job, EVERYTHING) == wanted, 20, f"{wanted} to be all that is reachable")
