"""Applies the egress rules to the registries from which an engine is asked to pull."""

import logging

from jobs.engine import image_errors
from jobs.engine.pullable_reference import DOCKER_HUB, Reference
from jobs.errors import ImageUnavailable
from orchestrator_site.base.egress.errors import EgressDenied, EgressFailed
from orchestrator_site.base.egress.reachability import check_host

logger = logging.getLogger(__name__)


def check_registry(reference: Reference, timeout: float) -> None:
    """Raise `ImageUnavailable` unless the egress rules allow the registry of `reference`.

    `timeout` is for resolving its name, in seconds. Docker Hub is not checked: it is public, and an engine may have a mirror
    for it.
    """
    if reference.registry == DOCKER_HUB:
        return
    try:
        check_host(reference.registry.partition(":")[0], timeout)
    except EgressDenied as error:
        logger.warning("the registry is not allowed: %s", error)
        raise ImageUnavailable(image_errors.not_allowed(reference.text)) from error
    except EgressFailed as error:
        logger.warning("the registry cannot be checked: %s", error)
        raise ImageUnavailable(image_errors.unreachable(reference.text)) from error
