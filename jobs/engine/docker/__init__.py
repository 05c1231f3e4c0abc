"""The Docker engine. Nothing of the Docker SDK leaves this package."""

from jobs.engine.docker.docker_engine import DockerEngine

__all__ = ["DockerEngine"]
