"""The process's limit of open files."""

import logging
import resource

logger = logging.getLogger(__name__)


def raise_limit(needed: int) -> int | None:
    """Raise the soft limit to `needed`, or as far as the hard limit allows, and log a warning if that is less.

    Return the limit, None if there is none.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    if soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft < needed:
        logger.warning("the limit of open files (RLIMIT_NOFILE) is low", extra={"files": soft, "needed": needed})
    return soft
