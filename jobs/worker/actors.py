"""The Dramatiq actors of a worker process. Their messages carry nothing: the rows say what there is to do."""

import dramatiq

from jobs.maintenance import leftovers
from jobs.node_hints import LEFTOVERS_ACTOR, RUN_ACTOR, queue_of
from jobs.worker.supervisor import Supervisor
from orchestrator_site.base.broker import broker
from orchestrator_site.base.db.transactions import release_connection
from orchestrator_site.base.log_context import log_context


def declare(supervisor: Supervisor) -> None:
    """Declare the actors of this process, which work for `supervisor` and on its engine."""
    queue = queue_of(supervisor.node.pk)

    @dramatiq.actor(broker=broker, actor_name=RUN_ACTOR, queue_name=queue)
    def run_jobs() -> None:
        try:
            supervisor.run_jobs()
        finally:
            release_connection()

    @dramatiq.actor(broker=broker, actor_name=LEFTOVERS_ACTOR, queue_name=queue)
    def remove_leftovers() -> None:
        try:
            with log_context(node=supervisor.node.name):
                leftovers.remove_leftovers(supervisor.engine, supervisor.node, supervisor.instance, supervisor.sandboxes.sort)
        finally:
            release_connection()
