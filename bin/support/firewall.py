"""The rules that dockerd makes with iptables, so that ours leaves none and harms nobody else's.

A second dockerd on a machine flushes the first one's chains when it starts, and again when it stops.
"""

import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FIREWALLS = ("iptables", "ip6tables")
TABLES = ("filter", "nat", "raw")


def rules(firewall: str, table: str) -> list[str]:
    """The table's chains and rules as arguments of `firewall`; none where there is no such firewall."""
    try:
        listing = subprocess.run([firewall, "-w", "-t", table, "-S"], capture_output=True, text=True, check=False, timeout=30)
    except FileNotFoundError:
        return []
    return listing.stdout.splitlines()


def forward_policies() -> dict[str, str]:
    """The policy of FORWARD in each firewall that has none of Docker's chains."""
    found = {}
    for firewall in FIREWALLS:
        present = rules(firewall, "filter")
        if present and not any(rule.startswith("-N DOCKER") for rule in present):
            found[firewall] = next(rule.split()[2] for rule in present if rule.startswith("-P FORWARD"))
    return found


def remove_docker(policies: dict[str, str]) -> None:
    """Take Docker's chains and every rule that leads into one out of these firewalls, and set FORWARD's policy."""
    for firewall, policy in policies.items():
        for table in TABLES:
            present = rules(firewall, table)
            chains = [rule.split()[1] for rule in present if rule.startswith("-N DOCKER")]
            for rule in present:
                words = shlex.split(rule)
                if words[0] == "-A" and words[1] not in chains and any(chain in words for chain in chains):
                    change(firewall, table, "-D", *words[1:])
            for action in ("-F", "-X"):
                for chain in chains:
                    change(firewall, table, action, chain)
        change(firewall, "filter", "-P", "FORWARD", policy)


def remove_interface(name: str) -> None:
    """Take out every rule that was made for this interface."""
    for firewall in FIREWALLS:
        for table in TABLES:
            for rule in rules(firewall, table):
                words = shlex.split(rule)
                if words[0] == "-A" and name in words:
                    change(firewall, table, "-D", *words[1:])


@contextmanager
def others_preserved(own_settings: str) -> Iterator[None]:
    """Put back, at the end, the rules for other daemons' networks that went missing inside."""
    before = {(firewall, table): rules(firewall, table) for firewall in FIREWALLS for table in TABLES}
    try:
        yield
    finally:
        if other_daemon_runs(own_settings):
            for (firewall, table), present in before.items():
                put_back(firewall, table, present)


def put_back(firewall: str, table: str, before: list[str]) -> None:
    """Each at the head of its chain: Docker's own chains end with the rule for what none has matched."""
    left = set(rules(firewall, table))
    for rule in reversed(before):
        if rule.startswith("-A") and rule not in left and interfaces_exist(rule):
            change(firewall, table, "-I", *shlex.split(rule)[1:])


def change(firewall: str, table: str, *arguments: str) -> None:
    """Nothing where the rule or the chain is gone already."""
    subprocess.run([firewall, "-w", "-t", table, *arguments], capture_output=True, check=False, timeout=30)


def interfaces_exist(rule: str) -> bool:
    words = shlex.split(rule)
    return all(Path("/sys/class/net", words[at + 1]).exists() for at, word in enumerate(words) if word in ("-i", "-o"))


def other_daemon_runs(own_settings: str) -> bool:
    """Whether a dockerd runs besides the one that was started with this configuration file."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            is_dockerd = (process / "comm").read_text() == "dockerd\n"
            if is_dockerd and own_settings.encode() not in (process / "cmdline").read_bytes().split(b"\0"):
                return True
    return False
