"""Builds the body of `POST /v1/jobs` from the options of `run`."""

import json
import os
import re
import stat
from argparse import Namespace
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any, Final

import uuid_utils

from orchestrator_site.client.errors import ClientError, UsageError
from orchestrator_site.client.options.option_values import FileOption, command_of, environment_of, unique
from orchestrator_site.client.texts import shown, size_in_words

MAX_BODY: Final = 1024 * 1024  # bytes
_MEMBERS: Final = {  # a member of the job: the option that sets it
    "image": "IMAGE",
    "command": "COMMAND",
    "cpu": "--cpu",
    "memory": "--memory",
    "timeoutSeconds": "--timeout",
    "environment": "--env",
    "meta": "--meta",
    "pullPolicy": "--pull",
    "network": "--network",
    "id": "--id",
    "namespace": "--namespace",
}
_TRANSFER: Final = re.compile(r"(input|output)s\[(\d+)\]")


def job_of(options: Namespace, environment: Mapping[str, str], upload_url: Callable[[FileOption], str]) -> dict[str, Any]:
    """Return the job that the options describe. `upload_url` gives the URL for an output that goes to a local file.

    Raise `ClientError` if a file cannot be read, `UsageError` if the options contradict one another.
    """
    members = {
        "id": options.id or str(uuid_utils.uuid7()),
        "image": options.image,
        "command": command_of(options.command),
        "cpu": options.cpu,
        "memory": options.memory,
        "timeoutSeconds": options.timeout,
        "environment": _named("--env", lambda: environment_of(options.env, environment)),
        "meta": _named("--meta", lambda: unique(options.meta)),
        "network": options.network,
        "pullPolicy": options.pull,
        "inputs": [_input(option) for option in options.input],
        "outputs": [_output(option, upload_url) for option in options.output],
    }
    return {name: value for name, value in members.items() if value not in (None, {}, [])}


def encoded(job: dict[str, Any]) -> bytes:
    """Return a job as the body of a request. Raise `ClientError` if it is too big, or has what JSON cannot express."""
    try:
        body = json.dumps(job, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise ClientError("an argument or a variable is not valid UTF-8, which a job must be") from error
    if len(body) > MAX_BODY:
        raise ClientError(
            f"the job is too big: {size_in_words(len(body))} with its files, and a request may have {size_in_words(MAX_BODY)};"
            " give large inputs as URLs"
        )
    return body


def option_for(field: str, options: Namespace) -> str:
    """Return the option that sets a member of the job, given by its path in an error of the service."""
    if match := _TRANSFER.match(field):
        given = options.input if match[1] == "input" else options.output
        if int(match[2]) < len(given):
            return f"--{match[1]} {shown(given[int(match[2])])}"
    member = re.split(r"[.\[]", field)[0]
    return _MEMBERS.get(member, field) + (field.removeprefix(member).replace(".", " ", 1) if member == "environment" else "")


def _named(option: str, read: Callable[[], dict[str, str]]) -> dict[str, str]:
    try:
        return read()
    except ValueError as error:
        raise UsageError(f"{option}: {shown(error)}") from error


def _input(option: FileOption) -> dict[str, str]:
    if option.is_url:
        return {"type": "download", "path": option.path, "url": option.other}
    content, is_executable = _read(option)
    member = {"type": "file", "path": option.path}
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # which JSON could express, but the API refuses
        member |= {"content": b64encode(content).decode(), "encoding": "base64"}
    else:
        member["content"] = text
    return member | ({"mode": "0755"} if is_executable else {})


def _read(option: FileOption) -> tuple[bytes, bool]:
    """Return the content of a file, and whether it may be executed. No more of it is read than a request can have."""
    try:
        with open(option.other, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(MAX_BODY + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not the name of a file"
        raise ClientError(f"--input {shown(option)}: cannot read the file ({reason})") from error
    if len(content) > MAX_BODY:
        raise ClientError(
            f"--input {shown(option)}: the file is too big: a request may have {size_in_words(MAX_BODY)} in all;"
            " put it on a server and give its URL"
        )
    return content, stat.S_ISREG(mode) and bool(mode & stat.S_IXUSR)


def _output(option: FileOption, upload_url: Callable[[FileOption], str]) -> dict[str, str]:
    return {"type": "upload", "path": option.path, "url": option.other if option.is_url else upload_url(option)}
