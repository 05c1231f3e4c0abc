"""Try hostile inputs and print what was found: `bin/fuzz [--seconds N] [--seed TEXT] [--first N] [name ...]`.

Every input follows from the seed and its number, so `--seed S --first N --seconds 1` tries the one again that an error names.
"""

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from random import SystemRandom
from typing import Any, Final

import django
from engine import borrowed, state_directory
from processes import unwind_on_signals
from stages import claim_directory

from tests.fuzzing.campaign import Figures, run
from tests.fuzzing.served import Served, served

NAMES: Final = ("requests", "documented", "logs", "archives", "answers")
_WITH_SERVICE: Final = ("requests", "documented")


def attack_service(name: str, service: Served, start: Callable[..., Figures]) -> Figures:
    from tests.fuzzing.api import ApiAttack
    from tests.fuzzing.documented import DocumentedAttack

    addresses = [("127.0.0.1", port) for port in (service.port, service.metrics_port)]
    attack: Any = ApiAttack(*addresses) if name == "requests" else DocumentedAttack(service.url)
    figures = start(name, attack, process=service.process)
    print(f"  statuses: {dict(sorted(attack.statuses.items()))}", flush=True)
    figures.errors += service.faults()
    return figures


def attack_parts(name: str, directory: Path, start: Callable[..., Figures]) -> Figures:
    from tests.fuzzing import archives, logs
    from tests.fuzzing.answers import AnswerAttack, hostile_server

    if name == "answers":
        with hostile_server() as server:
            return start(name, AnswerAttack(server, directory), settle=server.settle)
    return start(name, {"logs": logs.attack, "archives": archives.attack}[name])


def main() -> int:
    parser = argparse.ArgumentParser(prog="bin/fuzz", description="Try hostile inputs and print what was found.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"by default all: {', '.join(NAMES)}")
    parser.add_argument("--seconds", type=float, default=300, help="for each of them (300)")
    parser.add_argument("--seed", default=str(SystemRandom().randrange(10**6)), help="by default another one each time")
    parser.add_argument("--first", type=int, default=0, help="the number of the first input")
    arguments = parser.parse_args()
    names = arguments.names or NAMES
    if unknown := set(names) - set(NAMES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    unwind_on_signals()
    start = partial(run, seed=arguments.seed, first=arguments.first, seconds=arguments.seconds, report=partial(print, flush=True))
    found: list[Figures] = []
    with ExitStack() as cleanup:
        state = state_directory()
        directory = state / "fuzz"
        claim_directory(cleanup, directory)
        service: Served | None = None
        if set(names) & set(_WITH_SERVICE):
            os.environ["DOCKER_HOST"] = cleanup.enter_context(borrowed(state))
            service = cleanup.enter_context(served(directory))
        os.environ["STATE_DIR"] = str(directory)
        django.setup()
        for name in names:
            print(f"\n=== {name}", flush=True)
            attack = (
                partial(attack_service, name, service)
                if service and name in _WITH_SERVICE
                else partial(attack_parts, name, directory)
            )
            found.append(attack(start))
            print(found[-1], flush=True)
    problems = [problem for figures in found for problem in figures.problems]
    print("\n=== summary", *found, *problems, sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
