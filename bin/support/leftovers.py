"""What an installation of the service has on a container engine, found by the label that it carries."""

import os
import sys
from contextlib import closing, suppress
from http import HTTPStatus

import docker
from docker.models.containers import Container
from docker.models.networks import Network

INSTANCE_LABEL = "orchestrator.instance"


def remove(host: str, instance: str) -> None:
    """Remove its networks, and its jobs' containers where some are left, from the engine at `host`."""
    ours: dict[str, str | list[str] | bool] = {"label": f"{INSTANCE_LABEL}={instance}"}
    with closing(docker.from_env(environment={**os.environ, "DOCKER_HOST": host}, timeout=60)) as client:
        for container in client.containers.list(all=True, filters=ours, ignore_removed=True):
            with suppress(docker.errors.NotFound):
                _remove(container)
        for network in client.networks.list(filters=ours):
            with suppress(docker.errors.NotFound):
                _remove_network(network)


def _remove_network(network: Network) -> None:
    """Take off it what the engine believes to be there still, and leave one that it will not part with.

    Docker 20.10 loses count of who is on a network where containers are renamed while others leave (as after a crash of
    the service): such a network has nobody on it, cannot be removed, and goes with the engine's next start.
    """
    for last in (False, True):
        try:
            network.remove()
        except docker.errors.APIError as error:
            if error.status_code != HTTPStatus.FORBIDDEN:
                raise
            network.reload()
            members = network.attrs.get("Containers") or {}
            if last and members:
                raise
            for member in members.values():
                with suppress(docker.errors.APIError):
                    network.disconnect(member["Name"], force=True)
        else:
            return
    print(f"{network.name} has nobody on it, and the engine does not remove it before its next start", file=sys.stderr)


def _remove(container: Container) -> None:
    try:
        container.remove(force=True, v=True)
    except docker.errors.APIError as error:
        if error.status_code != HTTPStatus.CONFLICT:
            raise
        container.wait(condition="removed")  # the service was about to: its removal goes on without it
