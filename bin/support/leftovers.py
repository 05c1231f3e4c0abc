"""Remove what an installation of the service left on a container engine and in the firewall. Its label identifies it."""

import os
import sys
from contextlib import closing, suppress
from http import HTTPStatus

import docker
from docker.models.containers import Container
from docker.models.networks import Network

from jobs.engine.docker.firewall import NetworkFirewall

INSTANCE_LABEL = "orchestrator.instance"
FIREWALL_SECONDS = 10


def remove(host: str, instance: str) -> None:
    """Remove the containers and networks of an installation from the engine at `host`, and their firewall rules here."""
    ours: dict[str, str | list[str] | bool] = {"label": f"{INSTANCE_LABEL}={instance}"}
    with closing(docker.from_env(environment={**os.environ, "DOCKER_HOST": host}, timeout=60)) as client:
        for container in client.containers.list(all=True, filters=ours, ignore_removed=True):
            with suppress(docker.errors.NotFound):
                _remove(container)
        for network in client.networks.list(filters=ours):
            with suppress(docker.errors.NotFound):
                _remove_network(network)
    NetworkFirewall(None, FIREWALL_SECONDS).remove_unused(instance, [])


def _remove_network(network: Network) -> None:
    """Remove a network, after disconnecting the members that the engine still lists, if it lets us.

    Docker 20.10 loses count of a network's members if containers are renamed while others leave, as after a crash of the
    service. Such a network is empty but cannot be removed until the engine restarts.
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
    print(f"{network.name} is empty, but the engine cannot remove it until it is restarted", file=sys.stderr)


def _remove(container: Container) -> None:
    try:
        container.remove(force=True, v=True)
    except docker.errors.APIError as error:
        if error.status_code != HTTPStatus.CONFLICT:
            raise
        container.wait(condition="removed")  # the service has just asked for it: wait for that removal
