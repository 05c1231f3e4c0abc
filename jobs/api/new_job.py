"""The body of `POST /v1/jobs`: every member of a job with its rules, read into a `JobSpec`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, ClassVar, Final, get_args

from jobs import events, exec_limits
from jobs.api import fields, limits
from jobs.api.fields import Headers, JobId, Url
from jobs.engine.protocol import PullPolicy
from jobs.spec import CallbackSpec, InputSpec, JobSpec, Network, OutputSpec, UploadMethod
from jobs.states import InputType, OutputType
from orchestrator_site.base.http.fields import Array, ByType, Choice, Integer, Number, StringMap, StringOrArray, Text, error_at
from orchestrator_site.base.http.serializers import RequestSerializer

EVENT_TYPES: Final = (events.INPUT, events.START, events.LOG, events.EXIT, events.OUTPUT, events.COMPLETE)

_PATH_HELP = f"Relative to the workspace, without `..`; at most {limits.PATH_BYTES} bytes."
_NOT_OCTAL = 'must be an octal string such as "0755"'
_KEY_HELP = "Any string; after `whsec_` 24 to 64 bytes in padded base64."
_KEY = Text(low=1, high=limits.KEY_LENGTH, parse=fields.signing_key, help_text=_KEY_HELP)


class _NewTransfer(RequestSerializer):
    id = Text(
        low=1,
        high=limits.ID_LENGTH,
        required=False,
        help_text="Unique among inputs and outputs. Default: kind and position, such as `input-1`.",
    )
    path = Text(parse=fields.file_path, schema={"minLength": 1}, help_text=_PATH_HELP)
    spec: ClassVar[type[InputSpec] | type[OutputSpec]]

    def validate(self, attrs: dict[str, Any]) -> Any:
        return self.spec(**attrs)


class _NewInput(_NewTransfer):
    mode = Text(
        pattern=limits.MODE_PATTERN, message=_NOT_OCTAL, parse=fields.octal, default=limits.MODE_DEFAULT, help_text="In octal."
    )
    spec = InputSpec


class FileInput(_NewInput):
    """A file whose content is in the request."""

    type = Choice([InputType.FILE])
    content = Text()
    encoding = Choice(["utf-8", "base64"], default="utf-8")

    def validate(self, attrs: dict[str, Any]) -> Any:
        text: str = attrs["content"]
        content = fields.read_base64(text) if attrs.pop("encoding") == "base64" else text.encode()
        if content is None:
            raise error_at("content", ["must be valid base64"])
        return super().validate(attrs | {"content": content})


class DownloadInput(_NewInput):
    """A file that is downloaded before the container starts."""

    type = Choice([InputType.DOWNLOAD])
    url = Url()
    headers = Headers()
    sha256 = Text(pattern=limits.SHA256_PATTERN, message="must be 64 hexadecimal digits", parse=str.lower, required=False)


class UploadOutput(_NewTransfer):
    """A file that is uploaded after the process has ended."""

    spec = OutputSpec
    type = Choice([OutputType.UPLOAD])
    url = Url()
    method = Choice(get_args(UploadMethod), default="PUT")
    headers = Headers()


class EventOutput(_NewTransfer):
    """A file whose content is sent in an event."""

    spec = OutputSpec
    type = Choice([OutputType.EVENT])


class Callback(RequestSerializer):
    """Where the events of a job are sent."""

    url = Url()
    key = StringOrArray(
        _KEY,
        Array(_KEY, low=1, high=limits.KEYS_MAX),
        parse=fields.signing_keys,
        source="keys",
        required=False,
        help_text="Signs every event. While keys change, an array of the new one and the old one. Never shown again.",
    )
    headers = Headers(
        high=limits.CALLBACK_HEADERS_MAX,
        check_name=fields.callback_header_name,
        parse=fields.callback_headers,
        help_text="Sent with every event, in Latin-1. Headers that the service sets itself are refused. "
        f"Names and values have at most {limits.CALLBACK_HEADERS_BYTES} bytes in total. Never shown again.",
    )
    events = Array(
        Choice((*EVENT_TYPES, events.ALL)), required=False, help_text=f"If empty or absent: all, as with `{events.ALL}`."
    )

    def validate(self, attrs: dict[str, Any]) -> Any:
        wanted = attrs.pop("events", [])
        return CallbackSpec(**attrs, events=() if events.ALL in wanted else tuple(dict.fromkeys(wanted)))


class NewJob(RequestSerializer):
    """A container to be run to completion."""

    id = JobId(required=False, help_text="Default: a UUID, version 7.")
    image = Text(low=1, high=limits.IMAGE_LENGTH, parse=fields.image, help_text="A Docker image reference.")
    command = StringOrArray(
        Text(low=1, parse=fields.argument),
        Array(Text(parse=fields.argument), low=1, parse=fields.arguments),
        required=False,
        absent=("",),
        help_text="A string for `/bin/sh -c`, or an array of arguments; if absent or empty, the command of the image. "
        f"The string, or each argument, has at most {exec_limits.MAX_STRING_BYTES} bytes.",
    )
    cpu = Number(
        *limits.CPU,
        parse=fields.cpu_millis,
        source="cpu_millis",
        default=limits.CPU_DEFAULT,
        absent=(0,),
        help_text="The number of cores; more than three decimals are rounded up. 0 counts as absent.",
    )
    memory = Integer(
        *limits.MEMORY, source="memory_mib", default=limits.MEMORY_DEFAULT, absent=(0,), help_text="In MiB. 0 counts as absent."
    )
    timeoutSeconds = Integer(
        *limits.TIMEOUT,
        source="timeout_seconds",
        default=limits.TIMEOUT_DEFAULT,
        absent=(0,),
        help_text="Counted from the start of the container. 0 counts as absent.",
    )
    environment = StringMap(
        check_name=fields.variable_name,
        parse=fields.environment,
        high=limits.ENVIRONMENT_ENTRIES,
        required=False,
        help_text=f"Never shown again. Each `NAME=value` has at most {exec_limits.MAX_STRING_BYTES} bytes.",
    )
    meta = StringMap(
        check_name=fields.meta_name,
        parse=fields.meta,
        high=limits.META_ENTRIES,
        child=Text(high=limits.META_VALUE_LENGTH),
        required=False,
        help_text=f"Sent in every event. Names of 1 to {limits.META_KEY_LENGTH} characters, {limits.META_BYTES} bytes in total.",
    )
    workspace = Text(
        parse=fields.workspace,
        schema={"pattern": "^/"},
        default=limits.WORKSPACE_DEFAULT,
        absent=("",),
        help_text="An absolute path without `..`, not at or below `/dev`, `/proc` or `/sys`. An empty string counts as absent.",
    )
    inputs = Array(ByType("NewInput", FileInput(), DownloadInput()), high=limits.TRANSFERS, required=False)
    outputs = Array(ByType("NewOutput", UploadOutput(), EventOutput()), high=limits.TRANSFERS, required=False)
    pullPolicy = Choice(get_args(PullPolicy), source="pull_policy", default="missing")
    network = Choice(get_args(Network), default="bridge")
    callback = Callback(required=False)

    def validate(self, attrs: dict[str, Any]) -> Any:
        ids: set[str] = set()
        inputs = _named(attrs.pop("inputs", ()), "input", ids)
        outputs = _named(attrs.pop("outputs", ()), "output", ids)
        _check_paths(inputs)
        return JobSpec(**attrs, inputs=inputs, outputs=outputs)


def _named(specs: Sequence[Any], kind: str, ids: set[str]) -> tuple[Any, ...]:
    """Return the transfers, named by kind and position (`input-1`, `output-3`) if they have no id; add their ids to `ids`."""
    named = tuple(replace(spec, id=spec.id or f"{kind}-{number}") for number, spec in enumerate(specs, 1))
    for index, spec in enumerate(named):
        if spec.id in ids:
            raise error_at(f"{kind}s", {index: {"id": ["another input or output has this id"]}})
        ids.add(spec.id)
    return named


def _check_paths(inputs: Sequence[InputSpec]) -> None:
    """Raise a `ValidationError` if a path is given twice, or is a file for one input and a directory for another."""
    files: set[str] = set()
    directories: set[str] = set()
    for index, spec in enumerate(inputs):
        parents = {str(parent) for parent in PurePosixPath(spec.path).parents} - {"."}
        if spec.path in files:
            raise error_at("inputs", {index: {"path": ["another input has this path"]}})
        if spec.path in directories or parents & files:
            raise error_at("inputs", {index: {"path": ["must not be a file for one input and a directory for another"]}})
        files.add(spec.path)
        directories |= parents
