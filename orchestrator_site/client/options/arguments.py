"""The options of `bin/run` and its commands."""

from argparse import SUPPRESS, Action, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from orchestrator_site.client.errors import UsageError
from orchestrator_site.client.options import option_values
from orchestrator_site.client.texts import shown

COMMANDS: Final = ("logs", "status", "cancel", "list")
_STATUSES: Final = ("accepted", "running", "completed", "failed", "cancelled")
_DESCRIPTION: Final = "Run a job, show its log, and exit with its exit code."
_EPILOG: Final = """\
commands for jobs that exist (each has a --help of its own):
  {prog} logs ID      print the log, --follow to its end
  {prog} status ID    say how a job is
  {prog} cancel ID    cancel jobs
  {prog} list         list jobs, the newest first

the command:
  One argument runs in a shell: 'echo hello; exit 3'.
  Several are the exact arguments. Without any, the image's
  own command runs. Put -- before a command that has options
  of its own.

examples:
  {prog} alpine 'echo hello; exit 3'
  {prog} alpine -- ls -l /
  {prog} --memory 1GiB --input main.py=main.py \\
      python -- python main.py
  {prog} --input a=https://example.com/a.csv \\
      --output b=b.csv alpine 'sort a > b'
  {prog} --detach --id nightly --env TOKEN \\
      alpine 'sleep 600'

environment:
  ORCHESTRATOR_URL      the service; by default PUBLIC_URL,
                        or http://127.0.0.1:$PORT
  ORCHESTRATOR_API_KEY  an API key, if it requires one

exit codes:
  the job's own
  124  the job timed out, with no exit code other than 0
  125  the job failed without an exit code, or an output,
       this command or the service did
  130  after Ctrl-C
  143  after SIGTERM
"""


class _Parser(ArgumentParser):
    """A parser that raises `UsageError` instead of exiting with a code that a job may have, too."""

    def __init__(self, prog: str, description: str, epilog: str | None = None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{shown(message.removeprefix('argument '))}; {self.prog} --help shows what it takes")


def parse(prog: str, arguments: Sequence[str]) -> Namespace:
    """Return the options; `action` is `run` or one of the commands. Raise `UsageError`."""
    name, *rest = arguments or ["--help"]
    if name in COMMANDS:
        parser = _PARSERS[name](f"{prog} {name}")
        options = parser.parse_args(rest)
        options.action = name
        return options
    return _parse_run(run_parser(prog), arguments or ["--help"])


def run_parser(prog: str) -> ArgumentParser:
    """Return the parser of `run`."""
    parser = _Parser(prog, _DESCRIPTION, _EPILOG.format(prog=prog))
    parser.usage = f"{prog} [options] IMAGE [COMMAND ...]\n       {prog} [options] IMAGE -- COMMAND ..."
    parser.add_argument("words", nargs="*", help=SUPPRESS)
    _add_files(parser)
    _add_job(parser)
    _add_output(parser)
    return parser


def _add_files(parser: ArgumentParser) -> None:
    files = parser.add_argument_group("files")
    files.add_argument(
        "--input",
        type=option_values.file_option,
        metavar="PATH=FILE_OR_URL",
        help="put a file of at most 1 MiB, or what a URL has, at PATH in the job's workspace; may be repeated",
        action="append",
        default=[],
    )
    files.add_argument(
        "--output",
        type=option_values.file_option,
        metavar="PATH=URL_OR_FILE",
        help="send the file at PATH to a URL when the job has ended, or to a file on this machine; may be repeated",
        action="append",
        default=[],
    )
    files.add_argument(
        "--listen",
        metavar="ADDRESS",
        help="an address of this machine that the service's workers can reach, for --output to a file if the service is"
        " not on this machine",
    )


def _add_job(parser: ArgumentParser) -> None:
    job = parser.add_argument_group("the job")
    job.add_argument(
        "--env",
        type=option_values.variable,
        metavar="NAME=VALUE",
        help="set a variable; NAME alone takes its value from this environment; may be repeated",
        action="append",
        default=[],
    )
    job.add_argument("--cpu", type=option_values.cores, metavar="CORES", help="cores, such as 0.5; by default 1")
    job.add_argument("--memory", type=option_values.mebibytes, metavar="SIZE", help="such as 512MiB (the default) or 2GiB")
    job.add_argument("--timeout", type=option_values.seconds, metavar="TIME", help="such as 90s or 15m; by default 30m")
    job.add_argument("--network", choices=("bridge", "none"), help="by default bridge")
    job.add_argument("--pull", choices=("missing", "always", "never"), help="when to pull the image; by default missing")
    job.add_argument("--id", help="an id of your own; by default a new one")
    _add_namespace(job)
    job.add_argument(
        "--meta",
        type=option_values.pair,
        metavar="NAME=VALUE",
        help="a note that comes with every event, and by which list can select; may be repeated",
        action="append",
        default=[],
    )


def _add_output(parser: ArgumentParser) -> None:
    output = parser.add_argument_group("what to print")
    output.add_argument(
        "--follow",
        action="store_true",
        default=None,
        help="print the log as it comes: the default on a terminal; otherwise it is printed when the job has ended",
    )
    output.add_argument("--detach", action="store_true", help="print the job's id and leave it running")
    output.add_argument("--json", action="store_true", help="print the job as JSON at its end; with --follow also its log")
    output.add_argument("--quiet", action="store_true", help="print only the log and errors")


def _parse_run(parser: ArgumentParser, arguments: Sequence[str]) -> Namespace:
    """Parse the options before `--`, among which the image and a command may stand; what follows is the command's."""
    split = arguments.index("--") if "--" in arguments else len(arguments)
    before, after = arguments[:split], arguments[split + 1 :]
    options, unknown = parser.parse_known_intermixed_args(list(before))
    words = [*options.words, *after]
    if unknown:
        hint = f"; if it is the command's, put -- before the command: {parser.prog} IMAGE -- COMMAND" if options.words else ""
        option = unknown[0].partition("=")[0]  # what follows may be a secret
        raise UsageError(f"{shown(option)} is not an option of {parser.prog}{hint}")
    if not words:
        parser.error("an image is required")
    options.image, *options.command = words
    options.action = "run"
    if options.image in COMMANDS:
        raise UsageError(
            f"{options.image} must be the first word if it is the command, as in {parser.prog} {options.image}; an image of that"
            f" name needs a tag: {options.image}:latest"
        )
    if options.detach and (options.follow or any(not output.is_url for output in options.output)):
        raise UsageError("--detach cannot be used with --follow or with --output to a file: both need this command to go on")
    return options


def _logs_parser(prog: str) -> ArgumentParser:
    parser = _Parser(prog, "Print the log of a job: its stdout to stdout, its stderr to stderr.")
    _add_id(parser)
    _add_namespace(parser)
    parser.add_argument("--follow", action="store_true", help="go on to the end of the log")
    parser.add_argument("--tail", type=option_values.positive, metavar="LINES", help="only this many lines before the end")
    parser.add_argument("--stream", choices=("stdout", "stderr"), help="only this stream")
    parser.add_argument("--json", action="store_true", help="print each line as a JSON object with its number, time and stream")
    return parser


def _status_parser(prog: str) -> ArgumentParser:
    parser = _Parser(prog, "Say how a job is.")
    _add_id(parser)
    _add_namespace(parser)
    parser.add_argument("--json", action="store_true", help="print the job as the API has it")
    return parser


def _cancel_parser(prog: str) -> ArgumentParser:
    parser = _Parser(prog, "Cancel jobs. A job that has ended does not change.")
    parser.add_argument("id", nargs="+", metavar="ID", help="the id of a job")
    _add_namespace(parser)
    parser.add_argument("--json", action="store_true", help="print the jobs as the API has them")
    return parser


def _list_parser(prog: str) -> ArgumentParser:
    parser = _Parser(prog, "List jobs, the newest first.")
    _add_namespace(parser, "only jobs of this namespace; by default all that the API key sees")
    parser.add_argument("--status", choices=_STATUSES, help="only jobs with this status")
    parser.add_argument("--image", help="only jobs with exactly this image")
    parser.add_argument("--node", help="only jobs on the node with this name")
    parser.add_argument(
        "--meta",
        type=option_values.pair,
        metavar="NAME=VALUE",
        help="only jobs with this note; may be repeated",
        action="append",
        default=[],
    )
    parser.add_argument("--limit", type=option_values.positive, default=20, metavar="JOBS", help="by default 20")
    parser.add_argument("--json", action="store_true", help="print each job as a JSON object on a line of its own")
    return parser


def _add_id(parser: ArgumentParser) -> Action:
    return parser.add_argument("id", metavar="ID", help="the id of the job")


def _add_namespace(parser: Any, text: str = "the job's namespace, for an API key of all; by default `default`") -> None:
    parser.add_argument("--namespace", metavar="NAME", help=text)


_PARSERS: Final = {"logs": _logs_parser, "status": _status_parser, "cancel": _cancel_parser, "list": _list_parser}
