"""Explains why an engine did not create or start a container: whose fault it is, and a sentence for the client.

An engine's message may contain paths of its host, names of volumes, and anything of any length that an image has in its
configuration. So only its beginning is read, by patterns that take linear time. The sentence repeats nothing of it but what
the container's own configuration contains too. The message itself belongs in the log.
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from jobs import exec_limits
from jobs.engine import container_init
from jobs.engine.docker.transport import is_engine_trouble
from jobs.errors import StartFailed

_MAX_LENGTH = 4096  # of a message; the rest is ignored
_MAX_QUOTED_LENGTH = 100

# Docker's and ours: their failures are not the job's.
_INITS = "|".join(map(re.escape, ("/sbin/docker-init", container_init.COMMAND)))
_QUOTED = r'"(?P<quoted>(?:[^"\\]|\\.){1,512}+)"'  # as Go quotes a string
# How runc reports that it cannot execute the job's program. `fork/exec` is about a program that the engine itself runs.
_EXEC = rf'(?<![/\w])(?:exec user process caused:? "?|exec (?!(?:{_INITS}):)[^\s:]{{1,512}}+: )'
_MOUNT = r"(?:mount(?:ing)? volume|error mounting|failed to mount)"

_NOT_FOUND: Final = "command not found"
_NOT_EXECUTABLE: Final = "permission denied: the program is not executable"
_WRONG_FORMAT: Final = "exec format error: the program is for another architecture, or is not an executable"
_TOO_LONG: Final = "the command and the environment, with what the image adds, are longer than Linux allows"
_NO_MOUNT: Final = "a volume of the image cannot be mounted"
_LOW_MEMORY: Final = "the job's memory limit is too low for a process to start"
NO_COMMAND: Final = "the image has no command, and the job does not specify one"
FEWER_CPUS: Final = "the engine has fewer cpus than the job needs"
UNKNOWN_USER: Final = "the image's user is not in its /etc/passwd"
WORKSPACE_IS_NOT_A_DIRECTORY: Final = "the workspace or one of its parents is not a directory in the image"

Fault = Literal["job", "engine", "unknown"]

# Pattern, whose fault, sentence. The first match counts. A quoted word must be in the container's configuration.
_TABLE: Final[tuple[tuple[str, Fault, str], ...]] = (
    (r"argument list too long", "job", _TOO_LONG),
    (rf"{_EXEC}exec format error", "job", _WRONG_FORMAT),
    (rf"exec: {_QUOTED}: (?:executable file not found|stat |no such file|not a directory)", "job", _NOT_FOUND),
    (rf"exec: {_QUOTED}: permission denied", "job", _NOT_EXECUTABLE),
    (rf"exec: {_QUOTED}: is a directory", "job", "the program is a directory"),
    (rf"{_EXEC}permission denied", "job", _NOT_EXECUTABLE),
    (rf"{_EXEC}no such file or directory", "job", "the program, or the interpreter in its first line, does not exist"),
    (r"unable to find user ", "job", UNKNOWN_USER),
    (r"unable to find group ", "job", "the group of the image's user is not in its /etc/group"),
    (r"uids and gids must be in range", "job", "the image's user is not a valid user id"),
    (rf"chdir to cwd \({_QUOTED}\)", "job", "the image's user cannot enter the workspace"),
    (rf"{_MOUNT}.*(?:not a directory|existing file|cannot be mounted because)", "job", _NO_MOUNT),
    (_MOUNT, "unknown", _NO_MOUNT),
    (r"no command specified", "job", NO_COMMAND),
    (r"range of cpus is from", "unknown", FEWER_CPUS),
    (r"minimum memory limit", "unknown", _LOW_MEMORY),
    (r"memory limit too low|oom-killed", "job", _LOW_MEMORY),
    (r"invalid environment variable", "unknown", "an environment variable has an invalid name"),
    (r"not a directory", "job", WORKSPACE_IS_NOT_A_DIRECTORY),
    (r"too many levels of symbolic links", "job", "the workspace's path contains a cycle of symbolic links"),
)
_ROWS: Final = tuple((re.compile(pattern, re.IGNORECASE), fault, sentence) for pattern, fault, sentence in _TABLE)
_UNKNOWN_CAUSE: Final = "the engine could not start the container; the service's log has the details"


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a container was not created or started."""

    fault: Fault  # unknown: the engine's message does not tell for sure
    sentence: str  # for the client


def cause_of(message: str, config: Mapping[str, Any]) -> Cause:
    """Return the cause that an engine's error message means.

    `config` is the container's `Config` as the engine reports it; empty if there is no container.
    """
    text = message[:_MAX_LENGTH]
    cause = _match(text, {_go_quoted(word) for word in _words(config)})
    # The job's fault takes precedence: an image's user may be called "containerd".
    if cause.fault != "job" and is_engine_trouble(_without_volumes(text, config)):
        return Cause("engine", cause.sentence)
    return cause


def check_arguments(config: Mapping[str, Any]) -> None:
    """Raise `StartFailed` if Linux would refuse the command or the environment, including those of the image.

    Without this check the kernel would refuse them to the init, which can only report an exit code as if it were the program's.
    """
    strings = [*_command(config), *(config.get("Env") or ())]
    if any(len(string.encode()) > exec_limits.MAX_STRING_BYTES for string in strings):
        raise StartFailed(
            f"an argument or an environment variable of the image has more than {exec_limits.MAX_STRING_BYTES} bytes"
        )
    if exec_limits.size_of(strings) > exec_limits.MAX_TOTAL_BYTES:
        raise StartFailed(_TOO_LONG)


def _match(text: str, known_words: Collection[str]) -> Cause:
    for pattern, fault, sentence in _ROWS:
        match = pattern.search(text)
        if match is None:
            continue
        if not pattern.groups:
            return Cause(fault, sentence)
        if (word := f'"{match["quoted"]}"') in known_words:
            return Cause(fault, f"{sentence}: {word[:_MAX_QUOTED_LENGTH]}")
    return Cause("unknown", _UNKNOWN_CAUSE)


def _without_volumes(text: str, config: Mapping[str, Any]) -> str:
    """Return the text without the paths of volumes, which an image may name like an error of the engine."""
    for path in config.get("Volumes") or ():
        text = text.replace(path, "")
    return text


def _command(config: Mapping[str, Any]) -> list[str]:
    return [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]


def _words(config: Mapping[str, Any]) -> Collection[str]:
    """Return the words of the job or its image that a sentence may repeat."""
    return [*(word for word in _command(config) if word != container_init.COMMAND), config.get("WorkingDir") or ""]


def _go_quoted(word: str) -> str:
    return json.dumps(word[: _MAX_LENGTH + 1], ensure_ascii=False)
