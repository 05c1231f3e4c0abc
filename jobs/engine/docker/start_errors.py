"""Why an engine did not make or start a container: whose fault it is, and a sentence of our own.

What an engine says holds paths of its host and names of its volumes, and whatever an image wrote into its configuration, at any
length. So only its beginning is looked at, by patterns that take linear time, and only what the container's own configuration
says as well is repeated. The engine's words belong into the log.
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from jobs import exec_limits
from jobs.engine.docker import init
from jobs.engine.docker.transport.api_client import is_trouble
from jobs.errors import StartFailed

_LONGEST = 4096  # characters that are looked at
_LONGEST_SHOWN = 100

# The init, Docker's or ours, is not the job's program, and neither is what the engine forks.
_NOT_OF_JOB = "|".join(map(re.escape, ("/sbin/docker-init", init.COMMAND)))
_QUOTED = r'"(?P<own>(?:[^"\\]|\\.){1,512}+)"'  # as Go quotes a string
# Of the job's program, by runc.
_EXEC = rf'(?<![/\w])(?:exec user process caused:? "?|exec (?!(?:{_NOT_OF_JOB}):)[^\s:]{{1,512}}+: )'
_MOUNT = r"(?:mount(?:ing)? volume|error mounting|failed to mount)"

_NO_PROGRAM: Final = "command not found"
_NOT_EXECUTABLE: Final = "permission denied: the program may not be executed"
_WRONG_FORMAT: Final = "exec format error: the program is for another architecture, or is not an executable"
_TOO_LONG: Final = "the command and the environment, with what the image adds, are longer than Linux allows"
_NO_MOUNT: Final = "a volume of the image cannot be mounted"
NO_COMMAND: Final = "the image has no command, and the job has none either"

Fault = Literal["job", "engine", "unknown"]

# Pattern, whose fault, sentence. The first row counts that is found in the text; what it finds in quotes must be in the
# container's configuration.
_TABLE: Final[tuple[tuple[str, Fault, str], ...]] = (
    (r"argument list too long", "job", _TOO_LONG),
    (rf"{_EXEC}exec format error", "job", _WRONG_FORMAT),
    (rf"exec: {_QUOTED}: (?:executable file not found|stat |no such file|not a directory)", "job", _NO_PROGRAM),
    (rf"exec: {_QUOTED}: permission denied", "job", _NOT_EXECUTABLE),
    (rf"exec: {_QUOTED}: is a directory", "job", "the program is a directory"),
    (rf"{_EXEC}permission denied", "job", _NOT_EXECUTABLE),
    (rf"{_EXEC}no such file or directory", "job", "the program, or the interpreter in its first line, does not exist"),
    (r"unable to find user ", "job", "the image's user is not in its /etc/passwd"),
    (r"unable to find group ", "job", "the group of the image's user is not in its /etc/group"),
    (r"uids and gids must be in range", "job", "the image's user is not a valid user id"),
    (rf"chdir to cwd \({_QUOTED}\)", "job", "the image's user cannot enter the workspace"),
    (rf"{_MOUNT}.*(?:not a directory|existing file|cannot be mounted because)", "job", _NO_MOUNT),
    (_MOUNT, "unknown", _NO_MOUNT),
    (r"no command specified", "job", NO_COMMAND),
    (r"range of cpus is from", "unknown", "the engine has fewer cpus"),
    (r"minimum memory limit", "unknown", "the job's memory is too small for a process to start"),
    (r"memory limit too low|oom-killed", "job", "the job's memory is too small for a process to start"),
    (r"invalid environment variable", "unknown", "a variable of the environment has an invalid name"),
    (r"not a directory", "job", "the workspace or one of its parents is not a directory in the image"),
    (r"too many levels of symbolic links", "job", "the workspace leads through a circle of symbolic links"),
)
_ROWS: Final = tuple((re.compile(pattern, re.IGNORECASE), fault, sentence) for pattern, fault, sentence in _TABLE)
_OTHERWISE: Final = "the engine could not start the container; the service's log has the details"


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a container was not made or started."""

    fault: Fault  # `unknown` where the engine's words do not tell for sure
    sentence: str  # for the client


def cause_of(message: str, config: Mapping[str, Any]) -> Cause:
    """Read what an engine said when it did not make or start a container.

    `config` is the container's, as the engine tells it; empty where there is none.
    """
    text = message[:_LONGEST]
    found = _found(text, {_quoted(word) for word in _words(config)})
    # The job's fault first: an image's user may be called "containerd".
    if found.fault != "job" and is_trouble(_without_volumes(text, config)):
        return Cause("engine", found.sentence)
    return found


def _found(text: str, known: Collection[str]) -> Cause:
    for pattern, fault, sentence in _ROWS:
        match = pattern.search(text)
        if match is None:
            continue
        if not pattern.groups:
            return Cause(fault, sentence)
        if (own := f'"{match["own"]}"') in known:
            return Cause(fault, f"{sentence}: {own[:_LONGEST_SHOWN]}")
    return Cause("unknown", _OTHERWISE)


def _without_volumes(text: str, config: Mapping[str, Any]) -> str:
    """Return the text without the paths of volumes, which an image can give any name."""
    for path in config.get("Volumes") or ():
        text = text.replace(path, "")
    return text


def check_arguments(config: Mapping[str, Any]) -> None:
    """Raise `StartFailed` where Linux would refuse a container's command or environment, those of its image included.

    An init that is told so by the kernel can only end with an exit code, as if it had been the program's.
    """
    strings = [*_command(config), *(config.get("Env") or ())]
    if any(len(string.encode()) > exec_limits.LONGEST for string in strings):
        raise StartFailed(f"an argument or a variable of the image has more than {exec_limits.LONGEST} bytes")
    if exec_limits.taken(strings) > exec_limits.TOTAL:
        raise StartFailed(_TOO_LONG)


def _command(config: Mapping[str, Any]) -> list[str]:
    return [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]


def _words(config: Mapping[str, Any]) -> Collection[str]:
    """Return what an error may repeat, as it comes from the job or its image."""
    return [*(word for word in _command(config) if word != init.COMMAND), config.get("WorkingDir") or ""]


def _quoted(word: str) -> str:
    return json.dumps(word[: _LONGEST + 1], ensure_ascii=False)
