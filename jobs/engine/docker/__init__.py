"""The Docker engine. Nothing of the Docker SDK leaves this package."""

from jobs.engine.docker.engine import DockerEngine

__all__ = ["DockerEngine"]
