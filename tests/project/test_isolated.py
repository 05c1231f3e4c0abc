"""Commands in a network of their own, with a Docker engine of their own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import isolated
import pytest
from processes import processes_with_argument

from tests.helpers import built_images
from tests.helpers.waiting import wait_for
from tests.project.commands import STOP_SECONDS

pytestmark = [
    pytest.mark.stateless,
    pytest.mark.skipif(not isolated.is_possible(), reason="needs dockerd, and a user who may make networks"),
]

# Prints the names of the interfaces, and what it sends to itself.
NETWORK = """
import socket
print(*(name for _, name in socket.if_nameindex()))
with socket.create_server(("127.0.0.1", 8080)) as server, socket.create_connection(server.getsockname()) as client:
    client.sendall(b"reached")
    print(server.accept()[0].recv(100).decode())
raise SystemExit(3)
"""
# Runs containers, writes the id of their image and what one has printed to a file, and runs on.
JOBS = """
import pathlib, sys, time, docker
client = docker.from_env()
client.containers.run("alpine:latest", "sleep 600", detach=True)
printed = client.containers.run("alpine:latest", "echo done")
pathlib.Path(sys.argv[1]).write_text(client.images.get("alpine:latest").id + " " + printed.decode())
time.sleep(600)
"""


def test_a_command_has_a_network_of_its_own() -> None:
    command = [*isolated.prefix(None), sys.executable, "-W", "ignore", "-c", NETWORK]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=STOP_SECONDS, check=False)

    assert (ended.stdout, ended.stderr) == ("lo\nreached\n", "")
    assert ended.returncode == 3


def test_packages_are_downloaded_by_the_network_outside(tmp_path: Path) -> None:
    # Given an apt-get that writes down in which network it runs
    program = tmp_path / "apt-get"
    program.write_text('#!/bin/sh\necho "$2 $3: $(readlink /proc/self/ns/net)" >> asked\n')
    program.chmod(0o755)

    # When a command downloads a package
    download = f"import pathlib, debian; debian.download(pathlib.Path({str(tmp_path)!r}), 'busybox-static')"
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(Path(isolated.__file__).parent)}
    command = [*isolated.prefix(None), sys.executable, "-c", download]
    subprocess.run(command, env=environment, timeout=STOP_SECONDS, check=True)

    # I expect it to run in the network of the test
    network = os.readlink("/proc/self/ns/net")
    assert (tmp_path / "asked").read_text() == f"download busybox-static: {network}\n"


@pytest.mark.engine
def test_an_interrupted_command_leaves_nothing_of_its_engine(docker_host: str, tmp_path: Path) -> None:
    # Given a command that uses an engine of its own, whose image comes from another engine
    done, image = tmp_path / "done", built_images.id_of(docker_host, "alpine:latest")
    command = [*isolated.prefix(tmp_path / "engine"), sys.executable, "-c", JOBS, str(done)]
    process = subprocess.Popen(command, env=os.environ | {"DOCKER_HOST": docker_host})
    try:
        wait_for(lambda: done.exists() and done.read_text() == f"{image} done\n", 60, "the container to end")

        # When it is interrupted
        process.send_signal(signal.SIGINT)
        process.wait(STOP_SECONDS)
    finally:
        process.kill()
        process.wait()

    # I expect the command and its engine to end
    assert process.returncode == 130
    assert processes_with_argument(str(tmp_path)) == []
