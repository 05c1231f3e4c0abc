"""A program that downloads a large file into a container, uploads it again, and prints by how many bytes its memory grew.

Run by `test_transfer_memory.py` in a process of its own: `python -m tests.jobs.transfers.transfer_memory <fake|docker> <MiB>`.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import django

from jobs.interrupt import Interrupt
from jobs.transfers import put_download, upload_file
from tests.helpers import fileserver
from tests.helpers.memory import peak, reset_peak
from tests.jobs.transfers import workspaces

_MIB = 1024**2


def main(engine: str, size: int) -> None:
    django.setup()
    new_workspace = {"fake": workspaces.fake_workspace, "docker": workspaces.docker_workspace}[engine]
    with fileserver.FileServer() as server, new_workspace() as workspace, tempfile.TemporaryDirectory() as directory:
        transfer(server, workspace, Path(directory), _MIB)  # loads and pools what is needed once
        before = reset_peak()
        transfer(server, workspace, Path(directory), size)
        print(peak() - before)


def transfer(server: fileserver.FileServer, workspace: workspaces.Workspace, spool: Path, size: int) -> None:
    def generate(exchange: fileserver.Exchange) -> None:
        exchange.wfile.write(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
        chunk = os.urandom(_MIB)
        for _ in range(size // _MIB):
            exchange.wfile.write(chunk)

    limits = workspaces.limits(spool, size=size, deadline=time.monotonic() + 500)
    url = server.fault("/large", generate)
    assert put_download(workspace, "large", url, {}, limits=limits, interrupt=Interrupt()) == size
    assert upload_file(workspace, "large", url, "PUT", {}, limits=limits, interrupt=Interrupt()) == size
    assert server.requests[-1].size == size


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) * _MIB)
