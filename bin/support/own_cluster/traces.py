"""Keep a cluster from what it would share with other programs of the machine, and remove what it leaves there."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from own_engine import firewall

SCRIPTS = Path(__file__).parent
WITH_GROUPS = SCRIPTS.parent / "own_engine" / "with-cgroups"
CHAINS = ("KUBE-", "CNI-")  # how the names of chains of the kubelet and of the network plugins begin
TABLES = (*firewall.TABLES, "mangle")

# Where they keep files outside of the cluster's directory. Inner paths first, so that each is empty when it is removed.
DIRECTORIES = (
    "/opt/containerd",
    "/run/containerd",
    "/run/netns",
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/var/log/containers",
)


def isolated(name: str, *command: str | Path) -> list[str]:
    """Return a command that runs another one in control groups and directories of its own. `name` is that of the groups."""
    directories = [str(SCRIPTS / "with-own-directories"), *DIRECTORIES, "--"]
    return [*in_namespace(), *directories, str(SCRIPTS / "groups"), "run", name, *map(str, command)]


def in_namespace() -> list[str]:
    """Return the beginning of a command that runs in a mount namespace of its own, which has control groups."""
    return ["unshare", "--mount", "--propagation", "slave", str(WITH_GROUPS)]


@contextmanager
def removed(name: str) -> Iterator[None]:
    """Remove at the end the groups of this name with all that runs there, and what did not exist at the beginning."""
    absent = [path for path in DIRECTORIES if not Path(path).exists()]
    chains = {(program, table): shared_chains(program, table) for program in firewall.FIREWALLS for table in TABLES}
    try:
        yield
    finally:
        subprocess.run([*in_namespace(), str(SCRIPTS / "groups"), "remove", name], check=False, timeout=60)
        for (program, table), before in chains.items():
            firewall.remove_chains(program, table, shared_chains(program, table) - before)
        for path in absent:
            with suppress(OSError):  # another program uses it meanwhile
                Path(path).rmdir()


def shared_chains(program: str, table: str) -> set[str]:
    rules = firewall.rules(program, table)
    return {rule.split()[1] for rule in rules if rule.startswith("-N ") and rule.split()[1].startswith(CHAINS)}
