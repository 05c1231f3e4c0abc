"""The engine over TCP with TLS."""

import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from jobs.engine.breakable_sockets import EngineCall
from jobs.engine.docker import DockerEngine
from jobs.engine.docker.transport.adapters import TcpAdapter
from jobs.errors import EngineUnavailable, Interrupted
from jobs.interrupt import Interrupt
from tests.helpers.certificates import write_certificates
from tests.helpers.engines import DockerBench, shell, tar_of, untar

pytestmark = pytest.mark.stateless


@pytest.fixture
def tls_host(docker_host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The engine under test behind TCP with TLS; clients must present a certificate."""
    write_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    context.load_verify_locations(tmp_path / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server(("127.0.0.1", 0))
    opened: list[socket.socket] = [listener]

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        with suppress(OSError):
            while True:
                client = context.wrap_socket(listener.accept()[0], server_side=True)
                engine = socket.socket(socket.AF_UNIX)
                opened.extend((client, engine))
                engine.connect(docker_host.removeprefix("unix://"))
                for pair in ((client, engine), (engine, client)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    thread.join()  # it may just have accepted a connection, which has to be closed
    for one in opened:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()


@pytest.mark.engine
def test_every_call_works_over_tls(docker_bench: DockerBench, tls_host: str) -> None:
    if not docker_bench.host.startswith("unix://"):
        pytest.skip("the engine under test has no socket here")
    engine, content = DockerEngine(tls_host), os.urandom(300_000)
    with suppress(EngineUnavailable):  # if it cannot set all resource limits, which cannot be seen over TLS
        first = docker_bench.spec()
        engine.create(first)
        engine.start(first.name)
    spec = docker_bench.spec(shell("seq 20000; cp in out; sleep 60"))
    name = spec.name
    engine.create(spec)
    engine.put(name, "/workspace", [tar_of("in", content)])
    engine.start(name)
    interrupt = Interrupt()
    lines: list[bytes] = []

    def follow() -> None:
        with engine.logs(name, skip=0, follow=True, interrupt=interrupt) as frames:
            for some in frames:
                if some is None:
                    threading.Timer(0.2, interrupt.wake).start()
                else:
                    lines.extend(some.data)

    with pytest.raises(Interrupted):
        follow()

    assert lines == [b"%d\n" % number for number in range(1, 20001)]
    with engine.get(name, "/workspace/out") as chunks:
        assert untar(chunks)["out"][1] == content
    interrupt.clear()
    engine.wait(name, interrupt, timeout=0.1)
    engine.stop(name, 5)
    engine.wait(name, interrupt)
    assert engine.inspect(name).phase == "ended"


class CallEndedAfterConnecting(EngineCall):
    """Ends when it is given the second socket, which is the handle of a TLS connection."""

    def __init__(self) -> None:
        super().__init__()
        self.sockets: list[socket.socket] = []

    def use(self, used: socket.socket) -> None:
        self.sockets.append(used)
        if len(self.sockets) == 2:
            self.end()
        super().use(used)


def test_a_tls_socket_is_closed_if_its_call_has_ended() -> None:
    call = CallEndedAfterConnecting()
    with socket.create_server(("127.0.0.1", 0)) as listener, requests.Session() as session:
        session.mount("https://", TcpAdapter())

        with call.current(), pytest.raises(requests.ConnectionError, match="the call was ended"):
            session.get(f"https://127.0.0.1:{listener.getsockname()[1]}/")

    assert [used.fileno() for used in call.sockets] == [-1, -1]
