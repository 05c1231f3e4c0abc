"""Takes over the container that an earlier owner of a job has left, such as a worker that crashed."""

from jobs.engine.protocol import Engine
from jobs.errors import ContainerConflict, ContainerNotFound, EngineUnavailable


def adopt(engine: Engine, labels: dict[str, str], name: str) -> None:
    """Rename the job's container, found by `labels`, to `name`, and remove it if it never started.

    The rename comes first, so that late requests of the earlier owner are answered with 404. Only then is the container
    inspected, and removed without force: a start that came before the rename makes the removal fail.

    Raise `EngineUnavailable` if the container changed during the call: try again.
    """
    others = [container for container in engine.list(labels) if container.name != name]
    for container in sorted(others, key=lambda container: container.phase == "created"):  # a started one first
        try:
            engine.rename(container.name, name)
            if container.phase == "created" and engine.inspect(name).phase == "created":
                engine.remove(name)
        except ContainerNotFound as error:
            # Renamed by a late owner, or removed, after it was listed.
            raise EngineUnavailable(f"the container changed while it was adopted: {error}") from error
        except ContainerConflict:
            # Either it has started after all, and is ours now; or a started one has the name already. Then this one was
            # created by an owner that has lost the job, and is removed as a leftover.
            continue
