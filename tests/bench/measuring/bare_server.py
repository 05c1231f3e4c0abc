"""A server that does as little as one that stores requests durably can: a bare program to compare `POST /v1/jobs` with.

    python -m tests.bench.measuring.bare_server DATABASE_URL

It inserts the body of each request into a table of one column and answers once that is committed. Each connection has a thread
and a database connection of its own, so that nothing is handed over and nothing waits for another request. It has the priority of
`web`. It prints its port.
"""

import socketserver
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import parse_headers
from typing import Any

import psycopg

from orchestrator_site.web.priority import raise_priority

MODULE = "tests.bench.measuring.bare_server"
ANSWER = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"


@contextmanager
def bare_server(database_url: str) -> Iterator[str]:
    """Run the program in a session of its own, as the processes of the service are. Provide its URL."""
    with subprocess.Popen(
        [sys.executable, "-m", MODULE, database_url], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        with psycopg.connect(sys.argv[1], autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
            while self.rfile.readline():
                body = self.rfile.read(int(parse_headers(self.rfile)["Content-Length"]))
                connection.execute("INSERT INTO bare_requests VALUES (%s)", [body.decode()])
                self.connection.sendall(ANSWER)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 64


def main() -> None:
    raise_priority()
    with psycopg.connect(sys.argv[1]) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS bare_requests (body jsonb)")
    handler: Any = _Handler
    with _Server(("127.0.0.1", 0), handler) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
