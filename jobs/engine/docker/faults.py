"""Whose fault a failed start is, as far as Docker's and its runtime's words tell."""

import re
from typing import Final

from jobs.engine.docker import init

# What an engine that is well says of a job that it cannot start. The runtime's own words for the process all name an
# `exec`; the init, Docker's or ours, is not the job's program, and neither is what the engine forks.
_INIT: Final = "|".join(map(re.escape, ("/sbin/docker-init", init.COMMAND)))
_JOBS_OWN: Final = re.compile(
    rf"""
    \bexec:\ "(?!(?:{_INIT})")            # no such program, not executable, a directory
    | (?<!fork/)\bexec\ (?!{_INIT})/
    | exec\ user\ process
    | executable\ file\ not\ found\ in\ \$path
    | exec\ format\ error
    | argument\ list\ too\ long
    | no\ command\ specified
    | chdir\ to\ cwd                     # the working directory
    | cannot\ mkdir
    | not\ a\ directory
    | unable\ to\ find\ (?:user|group)
    | no\ matching\ entries\ in
    | uids\ and\ gids\ must\ be
    | memory\ limit\ too\ low
    | oom-killed
    """,
    re.VERBOSE | re.IGNORECASE,
)
_LONGEST: Final = 1000  # no message is matched beyond it


def is_jobs_own(message: str) -> bool:
    """Whether this is certainly about what the job asked for: its command, user, working directory or memory."""
    return _JOBS_OWN.search(message[:_LONGEST]) is not None
