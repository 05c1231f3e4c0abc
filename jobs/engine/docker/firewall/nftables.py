"""Rules in a table of nftables, which nothing else uses. One transaction replaces all of it."""

from collections.abc import Iterable, Iterator
from typing import Final

from jobs.engine.docker.firewall.network_rules import (
    DNS_PORT,
    NEIGHBOR_ADVERTISEMENT,
    NEIGHBOR_SOLICITATION,
    Address,
    Network,
    NetworkRules,
)
from jobs.engine.docker.firewall.programs import FirewallError, is_installed, run
from jobs.engine.docker.firewall.ruleset_changes import RulesetChanges

# What is refused here is refused for good, whatever rules others have. "delete" fails without a table, hence the first line.
# TCP gets a reset, which ends a connection at once; the kernel ignores an ICMP error as long as the call of `connect` is busy.
_TABLE: Final = """\
table inet {name}
delete table inet {name}
table inet {name} {{
	chain refuse {{
		meta l4proto tcp reject with tcp reset
		reject with icmpx type admin-prohibited
	}}
	chain allow {{
{allowed}
	}}
	chain to_the_machine {{
		type filter hook input priority -10; policy accept;
		iifname != "{bridge}" accept
		jump allow
		goto refuse
	}}
	chain to_others {{
		type filter hook forward priority -10; policy accept;
		iifname != "{bridge}" accept
		oifname "{bridge}" drop
		jump allow
{denied}
	}}
}}
"""


class Nftables:
    """The program `nft`."""

    name = "nft"

    def __init__(self, timeout: float) -> None:
        """`timeout` is in seconds, for each call of the program."""
        self._timeout = timeout
        self._changes = RulesetChanges()

    @property
    def is_installed(self) -> bool:
        return is_installed("nft")

    def install(self, rules: NetworkRules) -> None:
        """Replace the rules of this name. Raise `FirewallError`, and change nothing then."""
        self._run("-f", "-", text=script(rules))

    def installed(self, name: str) -> str:
        """Return the rules of this name as the kernel has them; empty if they are missing."""
        try:
            return self._run("list", "table", "inet", name)
        except FirewallError:
            return ""

    def change_count(self) -> int:
        """Return a number that is larger than the last time if the rules may have changed meanwhile."""
        return self._changes.count()

    def names(self) -> list[str]:
        """Return the names of all tables. Raise `FirewallError`."""
        lines = self._run("list", "tables", "inet").splitlines()
        return [words[2] for words in map(str.split, lines) if len(words) == 3]

    def remove(self, name: str) -> None:
        """Remove the rules of this name; do nothing if there are none. Raise `FirewallError`."""
        self._run("-f", "-", text=f"table inet {name}\ndelete table inet {name}\n")

    def _run(self, *arguments: str, text: str = "") -> str:
        return run("nft", *arguments, text=text, timeout=self._timeout)


def script(rules: NetworkRules) -> str:
    """Return the input of `nft` that replaces the rules."""
    return _TABLE.format(name=rules.name, bridge=rules.bridge, allowed=_lines(_allowed(rules)), denied=_lines(_denied(rules)))


def _allowed(rules: NetworkRules) -> Iterator[str]:
    yield f"icmpv6 type {_set([NEIGHBOR_SOLICITATION, NEIGHBOR_ADVERTISEMENT])} accept"
    for family, servers in (("ip", rules.servers_v4()), ("ip6", rules.servers_v6())):
        for protocol in ("udp", "tcp"):
            if servers:
                yield f"ct original {family} daddr {_set(servers)} {protocol} dport {DNS_PORT} accept"


def _denied(rules: NetworkRules) -> Iterator[str]:
    yield "ct status dnat goto refuse"
    for family, networks in (("ip", rules.denied_v4()), ("ip6", rules.denied_v6())):
        if networks:
            yield f"{family} daddr {_set(networks)} goto refuse"


def _set(elements: Iterable[int | Address | Network]) -> str:
    return f"{{ {', '.join(map(str, elements))} }}"


def _lines(statements: Iterable[str]) -> str:
    return "\n".join(f"\t\t{statement}" for statement in statements)
