"""The entry point of `bin/run` and `manage.py run`."""

import os
import sys
import traceback
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import TextIOWrapper
from signal import SIGPIPE
from typing import TextIO

from orchestrator_site.client import queries, run_job
from orchestrator_site.client.errors import ClientError, ExitCode, ServiceRefused
from orchestrator_site.client.interrupts import Interrupted, Interrupts
from orchestrator_site.client.options.arguments import parse
from orchestrator_site.client.progress import Mood, PlainProgress, Progress, QuietProgress
from orchestrator_site.client.service.address import address_of, key_of
from orchestrator_site.client.service.api import Service
from orchestrator_site.client.service.connection import Connection
from orchestrator_site.client.texts import shown


def main(prog: str, arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> int:
    """Carry out a command line and return its exit code. Errors are one sentence on stderr."""
    _open_closed_streams()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # of what this locale cannot express
    interrupts = Interrupts()
    with interrupts.installed():
        try:
            options = parse(prog, arguments)
            progress = _progress_for(options, environment, sys.stderr)
            try:
                code = _carry_out(options, environment, progress, interrupts)
            finally:
                progress.close()
            sys.stdout.flush()
        except ClientError as error:
            return _fail(_explained(error))
        except Interrupted as interrupted:
            _end_line_of_ctrl_c()
            return ExitCode.SIGNAL + interrupted.number
        except BrokenPipeError:
            return ExitCode.SIGNAL + SIGPIPE
        except OSError as error:
            return _fail(f"cannot write the output ({error.strerror or type(error).__name__})")
        except Exception:
            traceback.print_exc()  # a fault of the client; Python's own exit code is 1, which a job may have, too
            return ExitCode.FAILED
    return code


def _carry_out(options: Namespace, environment: Mapping[str, str], progress: Progress, interrupts: Interrupts) -> int:
    connection = Connection(
        address_of(environment),
        key_of(environment),
        on_wait=lambda reason: progress.say(f"waiting for the service: {reason}"),
        on_return=lambda: progress.say("the service is back", Mood.GOOD),
        sleep=interrupts.sleep,
    )
    service = Service(connection, options.namespace)
    match options.action:
        case "logs":
            return queries.logs(options, service, progress, interrupts)
        case "status":
            return queries.status(options, service, interrupts)
        case "cancel":
            return queries.cancel(options, service, interrupts)
        case "list":
            return queries.list_jobs(options, service, interrupts)
    return run_job.run(options, environment, service, progress, interrupts)


def _open_closed_streams() -> None:
    """Open what this process was started without, so that no connection gets the number of stdout or stderr."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r+"))  # noqa: SIM115 - for as long as the process runs


def _end_line_of_ctrl_c() -> None:
    """End the line on which a terminal has shown `^C`, where the shell's prompt would follow."""
    with suppress(OSError):
        if sys.stderr.isatty():
            print(file=sys.stderr)


def _fail(message: str) -> int:
    with suppress(OSError):  # then the exit code has to say it
        print(f"run: {shown(message)}", file=sys.stderr)
    return ExitCode.FAILED


def _explained(error: ClientError) -> str:
    """Return the message; the service's sentence with the member that it is about."""
    if isinstance(error, ServiceRefused) and error.field:
        return f"{error.field}: {error}"
    return str(error)


def _progress_for(options: Namespace, environment: Mapping[str, str], stderr: TextIO) -> Progress:
    """Return the display that suits the options and the stream."""
    if options.action == "run" and options.quiet:
        return QuietProgress(stderr)
    if options.action != "run" or not stderr.isatty() or environment.get("TERM", "dumb") == "dumb":
        return PlainProgress(stderr)
    from orchestrator_site.client.terminal_progress import TerminalProgress  # rich takes as long to import as all the rest

    return TerminalProgress(stderr)
