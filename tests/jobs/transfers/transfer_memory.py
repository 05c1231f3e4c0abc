"""A program: brings a large file into a container and out again, and prints by how many bytes its memory grew.

Run by `test_transfer_memory.py` in a process of its own: `python -m tests.jobs.transfers.transfer_memory <fake|docker> <MiB>`.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import django

from jobs.interrupt import Interrupt
from jobs.transfers import put_download, send_upload
from tests.helpers import fileserver
from tests.helpers.memory import forget_peak, peak
from tests.jobs.transfers import workspaces

_MIB = 1024**2


def main(engine: str, size: int) -> None:
    django.setup()
    new_place = {"fake": workspaces.fake_place, "docker": workspaces.docker_place}[engine]
    with fileserver.FileServer() as server, new_place() as place, tempfile.TemporaryDirectory() as directory:
        transfer(server, place, Path(directory), _MIB)  # what is loaded and pooled once
        before = forget_peak()
        transfer(server, place, Path(directory), size)
        print(peak() - before)


def transfer(server: fileserver.FileServer, place: workspaces.Place, spool: Path, size: int) -> None:
    def generate(exchange: fileserver.Exchange) -> None:
        exchange.wfile.write(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
        chunk = os.urandom(_MIB)
        for _ in range(size // _MIB):
            exchange.wfile.write(chunk)

    limits = workspaces.limits(spool, size=size, deadline=time.monotonic() + 500)
    url = server.fault("/large", generate)
    assert put_download(place, "large", url, {}, limits=limits, interrupt=Interrupt()) == size
    assert send_upload(place, "large", url, "PUT", {}, limits=limits, interrupt=Interrupt()) == size
    assert server.requests[-1].size == size


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) * _MIB)
