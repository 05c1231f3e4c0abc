"""Hosts of a test: network namespaces, in which it opens sockets and runs programs. Only for root."""

import ctypes
import os
import secrets
import selectors
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

import pytest

_CLONE_NEWNET: Final = 0x40000000
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_PATIENCE: Final = 0.2  # seconds for all servers to answer

needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("ip"), reason="only root can make network namespaces, with iproute2"
)


class Host:
    """A network namespace."""

    def __init__(self) -> None:
        self.name = f"orch-{secrets.token_hex(4)}"
        subprocess.run(["ip", "netns", "add", self.name], check=True, timeout=30)
        self.run("ip link set lo up")

    def remove(self) -> None:
        subprocess.run(["ip", "netns", "del", self.name], check=True, timeout=30)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Let this thread, its new sockets and its subprocesses be on this host."""
        with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{self.name}") as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())

    def run(self, script: str) -> str:
        """Run a shell script on this host, and return what it printed."""
        with self.entered():
            done = subprocess.run(["/bin/sh", "-ec", script], check=False, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def set(self, parameter: str, value: str) -> None:
        """Set a parameter of the kernel."""
        with self.entered():
            Path("/proc/sys", parameter.replace(".", "/")).write_text(value)

    def socket(self, address: str, kind: socket.SocketKind) -> socket.socket:
        """Return a socket on this host for connections to or from an address."""
        with self.entered():
            return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)


def _enter(namespace: int) -> None:
    if _LIBC.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Target(NamedTuple):
    """What a client connects to."""

    address: str  # may have a zone
    port: int
    kind: socket.SocketKind


def targets(addresses: Iterable[str], port: int) -> set[Target]:
    """Return a port of these addresses, by TCP and by UDP."""
    return {Target(address, port, kind) for address in addresses for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)}


def reachable(host: Host, asked: Iterable[Target]) -> set[Target]:
    """Return those of the targets where a server answers to `host`. All are asked at once."""
    with ExitStack() as cleanup:
        clients = {cleanup.enter_context(host.socket(target.address, target.kind)): target for target in asked}
        with host.entered():  # an interface in an address is one of the host's
            addresses = [socket.getaddrinfo(target.address, target.port)[0][4] for target in clients.values()]
        for client, address in zip(clients, addresses, strict=True):
            client.setblocking(False)
            with suppress(OSError):  # it is under way, or was refused at once
                client.connect(address)
        return {clients[client] for client in _that_answer(list(clients))}


def _that_answer(clients: list[socket.socket]) -> set[socket.socket]:
    answered: set[socket.socket] = set()
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client, selectors.EVENT_WRITE)
        deadline = time.monotonic() + _PATIENCE
        while selector.get_map() and (seconds := deadline - time.monotonic()) > 0:
            for key, events in selector.select(seconds):
                client = key.fileobj
                assert isinstance(client, socket.socket)
                with suppress(OSError):  # refused
                    if events & selectors.EVENT_WRITE:
                        client.send(b"hello")
                        selector.modify(client, selectors.EVENT_READ)
                        continue
                    if client.recv(100) == b"hello":
                        answered.add(client)
                selector.unregister(client)
    return answered


def answers_ping(host: Host, address: str) -> bool:
    """Return whether an address answers when it is pinged from `host`."""
    is_v6 = ":" in address
    host.set("net.ipv4.ping_group_range", "0 0")
    with host.entered():
        family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if is_v6 else (socket.AF_INET, socket.IPPROTO_ICMP)
        client = socket.socket(family, socket.SOCK_DGRAM, protocol)
    with client, suppress(OSError):
        client.settimeout(_PATIENCE)
        client.connect((address, 0))
        client.send(bytes([128 if is_v6 else 8, 0, 0, 0, 0, 0, 0, 1]))
        return bool(client.recv(100))
    return False


class Servers:
    """Servers on hosts, which send back what they receive. One thread has all of them."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._stop, self._stopped = socket.socketpair()
        self._selector.register(self._stopped, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, name="servers", daemon=True)
        self._thread.start()

    def listen(self, host: Host, port: int, addresses: Iterable[str]) -> None:
        """Listen on addresses of a host, by TCP and UDP."""
        for address in addresses:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                server = host.socket(address, kind)
                with host.entered():
                    server.bind(socket.getaddrinfo(address, port)[0][4])
                if kind is socket.SOCK_STREAM:
                    server.listen()
                self._selector.register(server, selectors.EVENT_READ)

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._stopped:
                    return
                assert isinstance(key.fileobj, socket.socket)
                with suppress(OSError):
                    _answer(key.fileobj)

    def close(self) -> None:
        self._stop.close()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()


def _answer(server: socket.socket) -> None:
    if server.type == socket.SOCK_DGRAM:
        data, sender = server.recvfrom(100)
        server.sendto(data, sender)
        return
    connection, _ = server.accept()
    with connection:
        connection.settimeout(1)
        connection.sendall(connection.recv(100))
