"""What an installation of the service has on a container engine, found by the label that it carries."""

import os
from contextlib import closing, suppress
from http import HTTPStatus

import docker
from docker.models.containers import Container

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
                network.remove()


def _remove(container: Container) -> None:
    try:
        container.remove(force=True, v=True)
    except docker.errors.APIError as error:
        if error.status_code != HTTPStatus.CONFLICT:
            raise
        container.wait(condition="removed")  # the service was about to: its removal goes on without it
