"""Rules in the table `mangle` of iptables and ip6tables, for machines without nft.

In the table `filter` others accept packets before our rules would see them: Docker puts its own first at each start. A drop in
`mangle` is final, but nothing can be answered there, so connections time out.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from jobs.engine.docker.firewall.network_rules import DNS_PORT, NEIGHBOR_ADVERTISEMENT, NEIGHBOR_SOLICITATION, NetworkRules
from jobs.engine.docker.firewall.programs import FirewallError, is_installed, run
from jobs.engine.docker.firewall.ruleset_changes import RulesetChanges

_LOCK_SECONDS: Final = "5"  # for other programs to release the lock of iptables
_NFTABLES: Final = "(nf_tables)"  # in the version of a program
_HOOKS: Final = ("INPUT", "FORWARD")
_ENDS: Final = ("-in", "-out")  # of the names of our chains, which the hooks jump to. A name has at most 28 characters


class Iptables:
    """The programs `iptables` and, where the kernel has IPv6, `ip6tables`."""

    name = "iptables"

    def __init__(self, timeout: float) -> None:
        """`timeout` is in seconds, for each call of a program."""
        self._timeout = timeout
        self._changes = RulesetChanges()
        self._noticed: list[str] = []  # the programs whose changes are noticed
        self._unnoticed = 0

    @property
    def is_installed(self) -> bool:
        return all(is_installed(f"{program}-restore") for program in _programs())

    def install(self, rules: NetworkRules) -> None:
        """Replace the rules of this name. Raise `FirewallError`."""
        self._noticed = [program for program in _programs() if self._uses_nftables(program)]
        for program in _programs():
            present = self._saved(program)
            jumps = [jump for jump in _jumps(rules) if f"-A {jump}" not in present]
            self._restore(program, [*definitions(rules, program), *(f"-I {jump}" for jump in jumps)])

    def installed(self, name: str) -> str:
        """Return the rules of this name as the kernel has them; empty if they are missing in one of the programs."""
        try:
            found = [_rules(self._saved(program), name) for program in _programs()]
        except FirewallError:
            return ""
        return "\n".join(rule for rules in found for rule in rules) if all(found) else ""

    def change_count(self) -> int:
        """Return a number that is larger than the last time if the rules may have changed meanwhile.

        It is larger each time if the kernel does not say when they change, or if it has got IPv6 since they were installed.
        """
        self._unnoticed += self._noticed != _programs()
        return self._unnoticed + self._changes.count()

    def _uses_nftables(self, program: str) -> bool:
        """Return whether the rules are a table of nftables in the kernel, as with most programs from 2018 on."""
        try:
            return _NFTABLES in run(f"{program}-restore", "--version", timeout=self._timeout)
        except FirewallError:
            return False

    def names(self) -> list[str]:
        """Return the names of all rules that may be ours. Raise `FirewallError`."""
        lines = [line for program in _programs() for line in self._saved(program) if line.startswith(":")]
        chains = [line.split()[0].removeprefix(":") for line in lines]
        return sorted({chain.removesuffix(end) for chain in chains for end in _ENDS if chain.endswith(end)})

    def remove(self, name: str) -> None:
        """Remove the rules of this name; do nothing if there are none. Raise `FirewallError`."""
        for program in _programs():
            saved = self._saved(program)
            chains = [chain for chain in _chain_names(name) if any(line.startswith(f":{chain} ") for line in saved)]
            jumps = [rule for rule in _rules(saved, name) if rule.split()[1] not in chains]
            if chains:
                removals = [f"-{action} {chain}" for action in ("F", "X") for chain in chains]
                self._restore(program, [*(f"-D {jump.removeprefix('-A ')}" for jump in jumps), *removals])

    def _saved(self, program: str) -> list[str]:
        return [line for line in run(f"{program}-save", "-t", "mangle", timeout=self._timeout).splitlines() if line]

    def _restore(self, program: str, lines: Sequence[str]) -> None:
        """Change the table in one step."""
        text = "\n".join(["*mangle", *lines, "COMMIT", ""])
        run(f"{program}-restore", "--wait", _LOCK_SECONDS, "--noflush", text=text, timeout=self._timeout)


def _programs() -> list[str]:
    return ["iptables", "ip6tables"] if Path("/proc/net/if_inet6").exists() else ["iptables"]


def _chain_names(name: str) -> list[str]:
    return [f"{name}{end}" for end in _ENDS]


def _rules(saved: Sequence[str], name: str) -> list[str]:
    """Return the rules that are in our chains of this name or jump there."""
    chains = set(_chain_names(name))
    return [line for line in saved if line.startswith("-A ") and chains & set(line.split())]


def _jumps(rules: NetworkRules) -> list[str]:
    chains = _chain_names(rules.name)
    return [f"{hook} -i {rules.bridge} -j {chain}" for hook, chain in zip(_HOOKS, chains, strict=True)]


def definitions(rules: NetworkRules, program: str) -> Iterator[str]:
    """Yield the lines that define our chains, and so replace what is in them."""
    to_the_machine, to_others = _chain_names(rules.name)
    yield from (f":{chain} - [0:0]" for chain in (to_the_machine, to_others))
    yield f"-A {to_others} -o {rules.bridge} -j DROP"
    for chain in (to_the_machine, to_others):
        yield from (f"-A {chain} {match} -j RETURN" for match in _allowed(rules, program))
    yield f"-A {to_the_machine} -j DROP"
    yield f"-A {to_others} -m conntrack --ctstate DNAT -j DROP"
    denied = rules.denied_v6() if program == "ip6tables" else rules.denied_v4()
    yield from (f"-A {to_others} -d {network} -j DROP" for network in denied)


def _allowed(rules: NetworkRules, program: str) -> Iterator[str]:
    if program == "ip6tables":
        yield from (f"-p ipv6-icmp --icmpv6-type {kind}" for kind in (NEIGHBOR_SOLICITATION, NEIGHBOR_ADVERTISEMENT))
    for server in rules.servers_v6() if program == "ip6tables" else rules.servers_v4():
        yield from (f"-p {protocol} --dport {DNS_PORT} -m conntrack --ctorigdst {server}" for protocol in ("udp", "tcp"))
