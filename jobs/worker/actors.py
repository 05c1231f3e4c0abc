"""Dramatiq's way into a worker process. Messages carry nothing: the rows say what is to be done."""

import dramatiq

from jobs.maintenance.leftovers import remove_leftovers
from jobs.node_hints import RUN_ACTOR, SWEEP_ACTOR
from jobs.worker.supervisor import Supervisor
from orchestrator_site.base.broker import broker
from orchestrator_site.base.db.transactions import release_connection

_supervisor: Supervisor | None = None


def attach(supervisor: Supervisor | None) -> None:
    """Name the supervisor that this process's actors work for."""
    global _supervisor
    _supervisor = supervisor


@dramatiq.actor(broker=broker, actor_name=RUN_ACTOR, queue_name="jobs")
def run_jobs() -> None:
    """Drive what this process's node has room for."""
    try:
        if _supervisor is not None:
            _supervisor.run_jobs()
    finally:
        release_connection()


@dramatiq.actor(broker=broker, actor_name=SWEEP_ACTOR, queue_name="jobs")
def sweep_containers() -> None:
    """Remove from this process's engine what no living row speaks of."""
    try:
        if _supervisor is not None:
            remove_leftovers(_supervisor.engine, _supervisor.node, _supervisor.instance)
    finally:
        release_connection()
