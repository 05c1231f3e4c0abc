"""Keeps the firewall's rules of an engine's networks in place, if this process may and can change the firewall."""

import logging
import socket
import threading
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, Protocol

from jobs.engine.docker.firewall.iptables import Iptables
from jobs.engine.docker.firewall.name_servers import name_servers
from jobs.engine.docker.firewall.network_rules import Network, NetworkRules, bridge_name, rules_name, unused_names
from jobs.engine.docker.firewall.nftables import Nftables
from jobs.engine.docker.firewall.programs import FirewallError, may_change_firewall

logger = logging.getLogger(__name__)

_OPEN: Final = "jobs can reach the node itself and what JOB_NETWORK_DENY lists: "
NOT_HERE: Final = f"{_OPEN}the worker is not on the engine's machine, or is in a container"
NOT_ALLOWED: Final = f"{_OPEN}the worker may not change the firewall"
NO_PROGRAM: Final = f"{_OPEN}neither nft nor iptables is installed"
REFUSED: Final = f"{_OPEN}the firewall refuses the rules; the worker's log says why"


class _Program(Protocol):
    """A way to change the firewall; see `Nftables`."""

    name: str

    @property
    def is_installed(self) -> bool: ...

    def install(self, rules: NetworkRules) -> None: ...

    def installed(self, name: str) -> str: ...

    def change_count(self) -> int: ...

    def names(self) -> list[str]: ...

    def remove(self, name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class _Installed:
    """Rules that were installed, and what the kernel then had."""

    rules: NetworkRules
    program: _Program
    text: str
    change_count: int  # before the kernel was asked for the text


class NetworkFirewall:
    """The firewall's rules of the networks of one engine. Thread-safe."""

    def __init__(self, denied: Sequence[Network] | None, timeout: float) -> None:
        """`denied` are the networks that containers may not reach. None: there are no rules at all."""
        self._denied = None if denied is None else tuple(denied)
        self._programs: list[_Program] = [Nftables(timeout), Iptables(timeout)]  # in the order of preference
        self._lock = threading.Lock()
        self._installed: dict[str, _Installed] = {}  # by name
        self._left: set[str] | None = None  # unused rules whose bridge exists, by name; None: the programs are to be asked
        self._lifted: set[str] = set()
        self._logged = ""
        self._warning = ""

    def warnings(self) -> list[str]:
        """Return what the last `protect` could not do."""
        return [self._warning] if self._warning else []

    def protect(self, network_id: str, owner: str) -> None:
        """See `Engine.protect_network`."""
        name, bridge = rules_name(owner, network_id), bridge_name(network_id)
        with self._lock:
            if self._denied is None:
                self._lift(name)
            else:
                self._warning = self._keep(name, bridge, self._denied)

    def remove_unused(self, owner: str, network_ids: Collection[str]) -> None:
        """See `Engine.remove_unused_rules`."""
        if not may_change_firewall():
            return
        with self._lock:
            known = unused_names([*self._installed, *(self._left or ())], owner, network_ids)
            if self._left is None or not all(_exists(bridge) for _, bridge in known):
                self._left = self._remove_unused(owner, network_ids)

    def _remove_unused(self, owner: str, network_ids: Collection[str]) -> set[str] | None:
        """Remove rules whose bridge does not exist. Return the names of the other unused ones, None if a program failed."""
        left, failed = set(), False
        for program in self._usable():
            try:
                for name, bridge in unused_names(program.names(), owner, network_ids):
                    if _exists(bridge):
                        left.add(name)
                    else:
                        program.remove(name)
                        self._installed.pop(name, None)
            except FirewallError:
                failed = True
        return None if failed else left

    def _keep(self, name: str, bridge: str, denied: tuple[Network, ...]) -> str:
        """Install the rules if they are missing, and return a warning if that fails."""
        last = self._installed.get(name)
        if not last and not _exists(bridge):
            return NOT_HERE
        if not may_change_firewall():
            return NOT_ALLOWED
        rules = NetworkRules(name, bridge, denied, name_servers())
        if last and last.rules == rules:
            if self._is_in_place(last):
                return ""
            logger.warning("the firewall rules of the jobs' network are missing or changed, and are installed again")
        return self._install(rules)

    def _is_in_place(self, last: _Installed) -> bool:
        count = last.program.change_count()
        if count == last.change_count:
            return True
        if last.program.installed(last.rules.name) != last.text:
            return False
        self._installed[last.rules.name] = replace(last, change_count=count)
        return True

    def _install(self, rules: NetworkRules) -> str:
        """Install rules by the first program that can, and return a warning if none can."""
        self._installed.pop(rules.name, None)
        usable, errors = self._usable(), []
        for program in usable:
            try:
                self._installed[rules.name] = _install_by(program, rules)
            except FirewallError as error:
                errors.append(str(error))
                continue
            self._log_once(f"the jobs' network has firewall rules, by {program.name}", logging.INFO)
            for other in usable:
                if other is not program:  # it may have been the first that worked before
                    with suppress(FirewallError):
                        other.remove(rules.name)
            return ""
        if not errors:
            return NO_PROGRAM
        self._log_once(f"cannot install the firewall rules of the jobs' network: {'; '.join(errors)}", logging.WARNING)
        return REFUSED

    def _lift(self, name: str) -> None:
        """Remove the rules of an earlier configuration, once."""
        if name not in self._lifted and may_change_firewall():
            for program in self._usable():
                with suppress(FirewallError):
                    program.remove(name)
            self._lifted.add(name)

    def _usable(self) -> list[_Program]:
        return [program for program in self._programs if program.is_installed]

    def _log_once(self, message: str, level: int) -> None:
        if message != self._logged:
            logger.log(level, message)
        self._logged = message


def _install_by(program: _Program, rules: NetworkRules) -> _Installed:
    """Install rules, and return them with what the kernel has made of them. Raise `FirewallError`."""
    program.install(rules)
    count = program.change_count()
    text = program.installed(rules.name)
    if not text:
        raise FirewallError(f"{program.name} has installed rules that the kernel does not have")
    return _Installed(rules, program, text, count)


def _exists(interface: str) -> bool:
    try:
        socket.if_nametoindex(interface)
    except OSError:
        return False
    return True
