"""Why an engine did not make or start a container, in sentences of our own.

What an engine says holds paths of its host and names of its volumes, and whatever an image wrote into its configuration, at any
length. So only its beginning is looked at, by patterns that take linear time, and only what the container's own configuration
says as well is repeated. The engine's words belong into the log.
"""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any, Final

from jobs import arguments
from jobs.engine.docker import init
from jobs.errors import StartFailed

_LONGEST = 4096  # characters that are looked at
_LONGEST_SHOWN = 100

_QUOTED = r'"(?P<own>(?:[^"\\]|\\.){1,512}+)"'  # as Go quotes a string
_EXEC = r'(?<![/\w])(?:exec user process caused:? "?|exec [^\s:]{1,512}+: )'  # of the image's program, by runc

_NO_COMMAND: Final = "command not found"
_NOT_EXECUTABLE: Final = "permission denied: the program may not be executed"
_TOO_LONG: Final = "the command and the environment, with what the image adds, are longer than Linux allows"

# The first one counts that is found in the text. Of what is found in quotes the container's configuration must know.
_MEANINGS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), meaning)
    for pattern, meaning in (
        (r"argument list too long", _TOO_LONG),
        (r"exec format error", "exec format error: the program is for another architecture, or is not an executable"),
        (rf"exec: {_QUOTED}: (?:executable file not found|stat |no such file|not a directory)", _NO_COMMAND),
        (rf"exec: {_QUOTED}: permission denied", _NOT_EXECUTABLE),
        (rf"exec: {_QUOTED}: is a directory", "the program is a directory"),
        (rf"{_EXEC}permission denied", _NOT_EXECUTABLE),
        (rf"{_EXEC}no such file or directory", "the program, or the interpreter in its first line, does not exist"),
        (r"unable to find user ", "the image's user is not in its /etc/passwd"),
        (r"unable to find group ", "the group of the image's user is not in its /etc/group"),
        (r"uids and gids must be in range", "the image's user is not a valid user id"),
        (rf"chdir to cwd \({_QUOTED}\)", "the image's user cannot enter the workspace"),
        (r"mount(?:ing)? volume|error mounting|failed to mount", "a volume of the image cannot be mounted"),
        (r"no command specified", "the image has no command, and the job has none either"),
        (r"range of cpus is from", "the engine has fewer cpus"),
        (r"minimum memory limit|memory limit too low|oom-killed", "the job's memory is too small for a process to start"),
        (r"invalid environment variable", "a variable of the environment has an invalid name"),
        (r"not a directory", "the workspace or one of its parents is not a directory in the image"),
        (r"too many levels of symbolic links", "the workspace leads through a circle of symbolic links"),
    )
)
_OTHERWISE: Final = "the engine could not start the container; the service's log has the details"


def explain(message: str, config: Mapping[str, Any]) -> str:
    """One sentence for what an engine said when it did not make or start a container.

    `config` is the container's, as the engine tells it; empty where there is none.
    """
    text, known = message[:_LONGEST], {_quoted(word) for word in _words(config)}
    for pattern, meaning in _MEANINGS:
        match = pattern.search(text)
        if match is None:
            continue
        if not pattern.groups:
            return meaning
        if (own := f'"{match["own"]}"') in known:
            return f"{meaning}: {own[:_LONGEST_SHOWN]}"
    return _OTHERWISE


def check_arguments(config: Mapping[str, Any]) -> None:
    """Raise `StartFailed` where Linux would refuse a container's command or environment, those of its image included.

    An init that is told so by the kernel can only end with an exit code, as if it had been the program's.
    """
    strings = [*_command(config), *(config.get("Env") or ())]
    if any(len(string.encode()) > arguments.LONGEST for string in strings):
        raise StartFailed(f"an argument or a variable of the image has more than {arguments.LONGEST} bytes")
    if arguments.taken(strings) > arguments.TOTAL:
        raise StartFailed(_TOO_LONG)


def _command(config: Mapping[str, Any]) -> list[str]:
    return [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]


def _words(config: Mapping[str, Any]) -> Collection[str]:
    """Return what an error may repeat, as it comes from the job or its image."""
    return [*(word for word in _command(config) if word != init.COMMAND), config.get("WorkingDir") or ""]


def _quoted(word: str) -> str:
    return json.dumps(word[: _LONGEST + 1], ensure_ascii=False)
