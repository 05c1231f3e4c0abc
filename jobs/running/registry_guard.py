"""Whether an engine may be asked to pull an image: its pull is a request of the service's like any other."""

import logging
from typing import Final

from jobs.engine import registry_errors
from jobs.engine.pullable_reference import DOCKER_HUB, Reference
from jobs.errors import ImageUnavailable
from orchestrator_site.base.egress.guarded_connections import EgressDenied, EgressFailed
from orchestrator_site.base.egress.reachability import check_host

logger = logging.getLogger(__name__)

_LOOK_UP_SECONDS: Final = 10.0


def check_registry(reference: Reference) -> None:
    """Raise `ImageUnavailable` unless the egress rules allow the registry of `reference`.

    Docker Hub is not looked up: it is public, and an engine may have a mirror for it.
    """
    if reference.registry == DOCKER_HUB:
        return
    try:
        check_host(reference.registry.partition(":")[0], _LOOK_UP_SECONDS)
    except EgressDenied as error:
        logger.warning("a registry is not allowed: %s", error)
        raise ImageUnavailable(registry_errors.not_allowed(reference.text)) from error
    except EgressFailed as error:
        logger.warning("a registry is not found: %s", error)
        raise ImageUnavailable(registry_errors.unreachable(reference.text)) from error
