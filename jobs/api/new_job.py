"""The body of `POST /v1/jobs`: every member of a job with its rules, read into a `JobSpec`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, Final, TypeVar, get_args

from jobs import events, exec_limits
from jobs.api import limits
from jobs.api.fields import (
    CallbackHeaders,
    Command,
    Cpu,
    Environment,
    Headers,
    JobId,
    Meta,
    SigningKeys,
    Url,
    file_path,
    image,
    read_base64,
    workspace,
)
from jobs.spec import CallbackSpec, InputSpec, JobSpec, Network, OutputSpec, PullPolicy, UploadMethod
from jobs.states import InputType, OutputType
from orchestrator_site.base.http.fields import Array, ByType, Choice, Integer, Text, error_at
from orchestrator_site.base.http.serializers import RequestSerializer

EVENT_TYPES: Final = (events.INPUT, events.START, events.LOG, events.EXIT, events.OUTPUT, events.COMPLETE)
_Transfer = TypeVar("_Transfer", InputSpec, OutputSpec)


class _NewTransfer(RequestSerializer):
    id = Text(low=1, high=limits.ID_LENGTH, required=False, help_text="Unique over inputs and outputs; default: `input-1`, …")
    path = Text(
        parse=file_path,
        schema={"minLength": 1},
        help_text=f"Relative to the workspace, without `..`; at most {limits.PATH_BYTES} bytes.",
    )


class _NewInput(_NewTransfer):
    mode = Text(
        pattern=limits.MODE_PATTERN,
        parse=lambda text: int(text, 8),
        error_messages={"pattern": 'must be an octal string such as "0755"'},
        default=f"{limits.MODE_DEFAULT:04o}",
        help_text="Octal.",
    )

    def validate(self, attrs: dict[str, Any]) -> Any:
        return InputSpec(**attrs)


class FileInput(_NewInput):
    """A file whose content is in the request."""

    type = Choice([InputType.FILE])
    content = Text()
    encoding = Choice(["utf-8", "base64"], default="utf-8")

    def validate(self, attrs: dict[str, Any]) -> Any:
        text: str = attrs["content"]
        content = read_base64(text) if attrs.pop("encoding") == "base64" else text.encode()
        if content is None:
            raise error_at("content", ["must be valid base64"])
        return super().validate(attrs | {"content": content})


class DownloadInput(_NewInput):
    """A file that is downloaded before the container starts."""

    type = Choice([InputType.DOWNLOAD])
    url = Url()
    headers = Headers()
    sha256 = Text(
        pattern=limits.SHA256_PATTERN,
        parse=str.lower,
        error_messages={"pattern": "must be 64 hexadecimal digits"},
        required=False,
    )


class _NewOutput(_NewTransfer):
    def validate(self, attrs: dict[str, Any]) -> Any:
        return OutputSpec(**attrs)


class UploadOutput(_NewOutput):
    """A file that is uploaded after the process has ended."""

    type = Choice([OutputType.UPLOAD])
    url = Url()
    method = Choice(get_args(UploadMethod), default="PUT")
    headers = Headers()


class EventOutput(_NewOutput):
    """A file whose content is sent in an event."""

    type = Choice([OutputType.EVENT])


class Callback(RequestSerializer):
    """Where the events of a job are sent."""

    url = Url()
    key = SigningKeys(
        source="keys",
        required=False,
        help_text="Signs every event. While the receiver changes keys: the new key and the old one. Never shown again.",
    )
    headers = CallbackHeaders(
        "Sent with every event, in Latin-1. Headers that the service sets itself are refused. "
        f"Names and values have at most {limits.CALLBACK_HEADERS_BYTES} bytes in total. Never shown again.",
        high=limits.CALLBACK_HEADERS_MAX,
    )
    events = Array(Choice((*EVENT_TYPES, events.ALL)), required=False, help_text=f"Empty or absent: all, as with `{events.ALL}`.")

    def validate(self, attrs: dict[str, Any]) -> Any:
        wanted = attrs.pop("events", [])
        return CallbackSpec(**attrs, events=() if events.ALL in wanted else tuple(dict.fromkeys(wanted)))


class NewJob(RequestSerializer):
    """A container to be run to completion."""

    id = JobId(required=False, help_text="Default: a UUID, version 7.")
    image = Text(low=1, high=limits.IMAGE_LENGTH, parse=image, help_text="A Docker image reference.")
    command = Command(
        required=False,
        absent=("",),
        help_text="A string for `/bin/sh -c`, or an exact argument vector; if absent or empty, the image's own. "
        f"The string, or each argument, has at most {exec_limits.LONGEST} bytes.",
    )
    cpu = Cpu(
        limits.CPU_MIN,
        limits.CPU_MAX,
        source="cpu_millis",
        default=limits.CPU_DEFAULT,
        absent=(0,),
        help_text="Cores; more than three decimals are rounded up. 0 counts as absent.",
    )
    memory = Integer(
        limits.MEMORY_MIN,
        limits.MEMORY_MAX,
        source="memory_mib",
        default=limits.MEMORY_DEFAULT,
        absent=(0,),
        help_text="MiB. 0 counts as absent.",
    )
    timeoutSeconds = Integer(
        limits.TIMEOUT_MIN,
        limits.TIMEOUT_MAX,
        source="timeout_seconds",
        default=limits.TIMEOUT_DEFAULT,
        absent=(0,),
        help_text="From the start of the container. 0 counts as absent.",
    )
    environment = Environment(
        high=limits.ENVIRONMENT_ENTRIES,
        required=False,
        help_text=f"Never shown again. Each `NAME=value` has at most {exec_limits.LONGEST} bytes.",
    )
    meta = Meta(
        high=limits.META_ENTRIES,
        child=Text(high=limits.META_VALUE_LENGTH),
        required=False,
        help_text=f"In every event. Names of 1 to {limits.META_KEY_LENGTH} characters, {limits.META_BYTES} bytes in total.",
    )
    workspace = Text(
        parse=workspace,
        schema={"pattern": "^/"},
        default=limits.WORKSPACE_DEFAULT,
        absent=("",),
        help_text="An absolute path without `..`, not at or below `/dev`, `/proc` or `/sys`. An empty one counts as absent.",
    )
    inputs = Array(
        ByType("NewInput", {InputType.FILE: FileInput, InputType.DOWNLOAD: DownloadInput}), high=limits.TRANSFERS, required=False
    )
    outputs = Array(
        ByType("NewOutput", {OutputType.UPLOAD: UploadOutput, OutputType.EVENT: EventOutput}),
        high=limits.TRANSFERS,
        required=False,
    )
    pullPolicy = Choice(get_args(PullPolicy), source="pull_policy", default="missing")
    network = Choice(get_args(Network), default="bridge")
    callback = Callback(required=False)

    def validate(self, attrs: dict[str, Any]) -> Any:
        inputs, outputs = _named(attrs.pop("inputs", ()), "input"), _named(attrs.pop("outputs", ()), "output")
        _check_ids(inputs, outputs)
        _check_paths(inputs)
        return JobSpec(**attrs, inputs=inputs, outputs=outputs)


def read_job(body: object) -> JobSpec:
    """Return the checked description of a job. Raise `InvalidRequest`, which names the member at fault."""
    spec: JobSpec = NewJob.read(body)
    return spec


def _named(specs: Sequence[_Transfer], kind: str) -> tuple[_Transfer, ...]:
    """Return the transfers, named by kind and position (`input-1`, `output-3`) if they have no id."""
    return tuple(replace(spec, id=spec.id or f"{kind}-{number}") for number, spec in enumerate(specs, 1))


def _check_ids(inputs: Sequence[InputSpec], outputs: Sequence[OutputSpec]) -> None:
    seen: set[str] = set()
    transfers: tuple[tuple[str, Sequence[InputSpec | OutputSpec]], ...] = (("inputs", inputs), ("outputs", outputs))
    for kind, specs in transfers:
        for index, spec in enumerate(specs):
            if spec.id in seen:
                raise error_at(kind, {index: {"id": ["another input or output has this id"]}})
            seen.add(spec.id)


def _check_paths(inputs: Sequence[InputSpec]) -> None:
    """Raise a `ValidationError` if a path is given twice, or is a file for one input and a directory for another."""
    files: set[str] = set()
    directories: set[str] = set()
    for index, spec in enumerate(inputs):
        parents = {str(parent) for parent in PurePosixPath(spec.path).parents} - {"."}
        problem = ""
        if spec.path in files:
            problem = "another input has this path"
        elif spec.path in directories or parents & files:
            problem = "must not be a file for one input and a directory for another"
        if problem:
            raise error_at("inputs", {index: {"path": [problem]}})
        files.add(spec.path)
        directories |= parents
