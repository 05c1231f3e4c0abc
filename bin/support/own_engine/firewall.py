"""The firewall rules of our engine and of its networks: remove them, and restore those of other dockerds.

A second dockerd on a machine flushes the chains of the first when it starts, and again when it stops.
"""

import shlex
import socket
import subprocess
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FIREWALLS = ("iptables", "ip6tables")
TABLES = ("filter", "nat", "raw")


def rules(firewall: str, table: str) -> list[str]:
    """Return the chains and rules of a table as arguments of `firewall`, none if the program does not exist."""
    try:
        listing = subprocess.run([firewall, "-w", "-t", table, "-S"], capture_output=True, text=True, check=False, timeout=30)
    except FileNotFoundError:
        return []
    return listing.stdout.splitlines()


def forward_policies() -> dict[str, str]:
    """Return the policy of FORWARD for each firewall that has no chain of Docker's."""
    found = {}
    for firewall in FIREWALLS:
        present = rules(firewall, "filter")
        if present and not any(rule.startswith("-N DOCKER") for rule in present):
            found[firewall] = next(rule.split()[2] for rule in present if rule.startswith("-P FORWARD"))
    return found


def remove_docker(policies: dict[str, str]) -> None:
    """Remove Docker's chains and all rules that jump to one from these firewalls, and set the policy of FORWARD."""
    for firewall, policy in policies.items():
        for table in TABLES:
            chains = {rule.split()[1] for rule in rules(firewall, table) if rule.startswith("-N DOCKER")}
            remove_chains(firewall, table, chains)
        change(firewall, "filter", "-P", "FORWARD", policy)


def remove_chains(firewall: str, table: str, chains: Collection[str]) -> None:
    """Remove chains of a table, and all rules that jump to one."""
    for rule in rules(firewall, table) if chains else ():
        words = shlex.split(rule)
        if words[0] == "-A" and words[1] not in chains and any(chain in words for chain in chains):
            change(firewall, table, "-D", *words[1:])
    for action in ("-F", "-X"):
        for chain in chains:
            change(firewall, table, action, chain)


def remove_interface(name: str) -> None:
    """Remove every rule for this interface, and what the service has installed for it (jobs/engine/docker/firewall/)."""
    for firewall in FIREWALLS:
        for table in (*TABLES, "mangle"):
            for rule in rules(firewall, table):
                words = shlex.split(rule)
                if words[0] == "-A" and name in words:
                    change(firewall, table, "-D", *words[1:])

    if name.startswith("br-"):  # the bridge of a network, whose id is in the names of the service's tables and chains
        network = name.removeprefix("br-")
        for firewall in FIREWALLS:
            chains = [rule.split()[1] for rule in rules(firewall, "mangle") if rule.startswith("-N ") and network in rule]
            for action in ("-F", "-X"):
                for chain in chains:
                    change(firewall, "mangle", action, chain)
        for table in nft_tables():
            if table.endswith(f"-{network}"):
                subprocess.run(["nft", "delete", "table", "inet", table], capture_output=True, check=False, timeout=30)


def nft_tables() -> list[str]:
    """Return the names of the tables of nftables for both versions of IP, none if `nft` does not exist."""
    try:
        listing = subprocess.run(["nft", "list", "tables", "inet"], capture_output=True, text=True, check=False, timeout=30)
    except FileNotFoundError:
        return []
    return [line.split()[2] for line in listing.stdout.splitlines() if line.startswith("table inet ")]


@contextmanager
def others_preserved(own_settings: str) -> Iterator[None]:
    """Restore the rules of other daemons that disappear inside the context."""
    before = {(firewall, table): rules(firewall, table) for firewall in FIREWALLS for table in TABLES}
    try:
        yield
    finally:
        if other_daemon_runs(own_settings):
            for (firewall, table), present in before.items():
                put_back(firewall, table, present)


def put_back(firewall: str, table: str, before: list[str]) -> None:
    """Insert the missing rules at the head of their chains, because Docker's chains end with a default rule."""
    left = set(rules(firewall, table))
    for rule in reversed(before):
        if rule.startswith("-A") and rule not in left and interfaces_exist(rule):
            change(firewall, table, "-I", *shlex.split(rule)[1:])


def change(firewall: str, table: str, *arguments: str) -> None:
    """Change a rule or a chain. Do nothing if it does not exist."""
    subprocess.run([firewall, "-w", "-t", table, *arguments], capture_output=True, check=False, timeout=30)


def interfaces_exist(rule: str) -> bool:
    words = shlex.split(rule)
    existing = {name for _, name in socket.if_nameindex()}
    return all(words[at + 1] in existing for at, word in enumerate(words) if word in ("-i", "-o"))


def other_daemon_runs(own_settings: str) -> bool:
    """Return whether a dockerd runs other than the one that was started with this configuration file."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            is_dockerd = (process / "comm").read_text() == "dockerd\n"
            if is_dockerd and own_settings.encode() not in (process / "cmdline").read_bytes().split(b"\0"):
                return True
    return False
