"""From the body of `POST /v1/jobs` to a `JobSpec`: every rule on a job's description, with exact member paths."""

import json
from collections.abc import Sequence
from dataclasses import replace
from decimal import ROUND_CEILING, Decimal
from typing import Final, TypeVar, get_args

from django.conf import settings

from jobs import events, exec_limits
from jobs.api import limits, string_rules
from jobs.api.json_readers import Members, any_number, any_object, any_text, array, choice, integer, mapping, text
from jobs.spec import CallbackSpec, InputSpec, JobSpec, Network, OutputSpec, PullPolicy, UploadMethod
from jobs.states import InputType, OutputType
from orchestrator_site.base.http.api_errors import InvalidRequest
from orchestrator_site.base.http.json_body import item, member
from orchestrator_site.base.values.image_patterns import is_allowed

EVENT_TYPES: Final = (events.INPUT, events.START, events.LOG, events.EXIT, events.OUTPUT, events.COMPLETE)

_JOB = (
    "id",
    "image",
    "command",
    "cpu",
    "memory",
    "timeoutSeconds",
    "environment",
    "meta",
    "workspace",
    "inputs",
    "outputs",
    "pullPolicy",
    "network",
    "callback",
)
_INPUT: Final = {
    InputType.FILE: ("id", "type", "path", "mode", "content", "encoding"),
    InputType.DOWNLOAD: ("id", "type", "path", "mode", "url", "headers", "sha256"),
}
_OUTPUT: Final = {
    OutputType.UPLOAD: ("id", "type", "path", "url", "method", "headers"),
    OutputType.EVENT: ("id", "type", "path"),
}
_transfer_id = text(1, limits.ID_LENGTH)
_Transfer = TypeVar("_Transfer", InputSpec, OutputSpec)


def read_job(body: object) -> JobSpec:
    """The checked description of a job. Raises `InvalidRequest`, which names the member at fault."""
    job = Members(body, "", _JOB)
    spec = JobSpec(
        id=job.get("id", string_rules.job_id, None),
        image=job.need("image", _image),
        command=job.get("command", _command, None),
        cpu_millis=job.get("cpu", _cpu_millis, limits.CPU_DEFAULT * 1000),
        memory_mib=job.get("memory", integer(limits.MEMORY_MIN, limits.MEMORY_MAX), limits.MEMORY_DEFAULT),
        timeout_seconds=job.get("timeoutSeconds", integer(limits.TIMEOUT_MIN, limits.TIMEOUT_MAX), limits.TIMEOUT_DEFAULT),
        environment=job.get("environment", _environment, {}),
        meta=job.get("meta", _meta, {}),
        workspace=job.get("workspace", string_rules.workspace, limits.WORKSPACE_DEFAULT),
        inputs=_named(job.get("inputs", array(_input, 0, limits.TRANSFERS), []), "input"),
        outputs=_named(job.get("outputs", array(_output, 0, limits.TRANSFERS), []), "output"),
        pull_policy=job.get("pullPolicy", choice(get_args(PullPolicy)), "missing"),
        network=job.get("network", choice(get_args(Network)), "bridge"),
        callback=job.get("callback", _callback, None),
    )
    _check_ids(spec.inputs, spec.outputs)
    string_rules.check_distinct_files({member(item("inputs", i), "path"): entry.path for i, entry in enumerate(spec.inputs)})
    return spec


def _image(value: object, path: str) -> str:
    image = string_rules.image(value, path)
    if not is_allowed(image, settings.CONFIGURATION.images_allow):
        raise InvalidRequest("no pattern in IMAGES_ALLOW matches this image", field=path)
    return image


def _command(value: object, path: str) -> str | list[str]:
    if isinstance(value, str) and value:
        return _argument(value, path)
    if isinstance(value, list) and value:
        command = array(_argument, 1)(value, path)
        if exec_limits.taken(command) > exec_limits.TOTAL:
            raise InvalidRequest("its arguments together are longer than the 2 MiB that Linux allows", field=path)
        return command
    raise InvalidRequest("it must be a string or an array of strings, and not empty", field=path)


def _argument(value: object, path: str) -> str:
    return _of_passable_length(any_text(value, path), path)


def _of_passable_length(string: str, path: str) -> str:
    """What Linux passes to a program in one piece."""
    if len(string.encode()) > exec_limits.LONGEST:
        raise InvalidRequest(
            f"it may have at most {exec_limits.LONGEST} bytes (for a variable: with its name and '=')", field=path
        )
    return string


def _environment(value: object, path: str) -> dict[str, str]:
    environment = mapping(_check_variable, any_text, limits.ENVIRONMENT_ENTRIES)(value, path)
    for name, content in environment.items():
        _of_passable_length(f"{name}={content}", member(path, name))
    return environment


def _cpu_millis(value: object, path: str) -> int:
    """Thousandths of a core; a part of one is rounded up, so that a job never has less than it asked for."""
    number = any_number(value, path)
    if not limits.CPU_MIN <= number <= limits.CPU_MAX:
        raise InvalidRequest(f"it must be from {limits.CPU_MIN} to {limits.CPU_MAX}", field=path)
    return int((Decimal(str(number)) * 1000).to_integral_value(ROUND_CEILING))


def _check_variable(name: str, path: str) -> None:
    if not name or "=" in name:
        raise InvalidRequest("a variable's name is not empty and holds no '='", field=path)


def _meta(value: object, path: str) -> dict[str, str]:
    meta = mapping(_check_meta_key, text(0, limits.META_VALUE_LENGTH), limits.META_ENTRIES)(value, path)
    if len(json.dumps(meta, ensure_ascii=False, separators=(",", ":")).encode()) > limits.META_BYTES:
        raise InvalidRequest(f"it may take at most {limits.META_BYTES} bytes as JSON", field=path)
    return meta


def _check_meta_key(name: str, path: str) -> None:
    if not 1 <= len(name) <= limits.META_KEY_LENGTH:
        raise InvalidRequest(f"a key has 1 to {limits.META_KEY_LENGTH} characters", field=path)


def _input(value: object, path: str) -> InputSpec:
    type_ = _type_of(value, path, InputType)
    members = Members(value, path, _INPUT[type_])
    id_ = members.get("id", _transfer_id, "")
    file = members.need("path", string_rules.relative_path)
    mode = members.get("mode", string_rules.mode, limits.MODE_DEFAULT)
    if type_ == InputType.FILE:
        return InputSpec(id=id_, type=type_, path=file, mode=mode, content=_content(members, path))
    return InputSpec(
        id=id_,
        type=type_,
        path=file,
        mode=mode,
        url=members.need("url", string_rules.url),
        headers=members.get("headers", string_rules.headers, {}),
        sha256=members.get("sha256", string_rules.sha256, ""),
    )


def _content(members: Members, path: str) -> bytes:
    content = members.need("content", any_text)
    if members.get("encoding", choice(("utf-8", "base64")), "utf-8") == "base64":
        return string_rules.base64_bytes(content, member(path, "content"))
    return content.encode()


def _output(value: object, path: str) -> OutputSpec:
    type_ = _type_of(value, path, OutputType)
    members = Members(value, path, _OUTPUT[type_])
    id_ = members.get("id", _transfer_id, "")
    file = members.need("path", string_rules.relative_path)
    if type_ == OutputType.EVENT:
        return OutputSpec(id=id_, type=type_, path=file)
    return OutputSpec(
        id=id_,
        type=type_,
        path=file,
        url=members.need("url", string_rules.url),
        method=members.get("method", choice(get_args(UploadMethod)), "PUT"),
        headers=members.get("headers", string_rules.headers, {}),
    )


_Type = TypeVar("_Type", InputType, OutputType)


def _type_of(value: object, path: str, types: type[_Type]) -> _Type:
    """Read before the other members: it says which of these there may be."""
    members = any_object(value, path)
    if "type" not in members:
        raise InvalidRequest("it is required", field=member(path, "type"))
    return choice(tuple(types))(members["type"], member(path, "type"))


def _named(specs: Sequence[_Transfer], kind: str) -> tuple[_Transfer, ...]:
    """Those without an id are called by their kind and place: `input-1`, `output-3`."""
    return tuple(replace(spec, id=spec.id or f"{kind}-{number}") for number, spec in enumerate(specs, 1))


def _check_ids(inputs: Sequence[InputSpec], outputs: Sequence[OutputSpec]) -> None:
    seen: set[str] = set()
    ids = [("inputs", index, spec.id) for index, spec in enumerate(inputs)]
    ids += [("outputs", index, spec.id) for index, spec in enumerate(outputs)]
    for kind, index, id_ in ids:
        if id_ in seen:
            raise InvalidRequest("another input or output has this id", field=member(item(kind, index), "id"))
        seen.add(id_)


def _callback(value: object, path: str) -> CallbackSpec:
    members = Members(value, path, ("url", "key", "headers", "events"))
    wanted = members.get("events", array(choice((*EVENT_TYPES, events.ALL)), 0), [])
    return CallbackSpec(
        url=members.need("url", string_rules.url),
        keys=members.get("key", string_rules.signing_keys, ()),
        headers=members.get("headers", string_rules.callback_headers, {}),
        events=() if events.ALL in wanted else tuple(dict.fromkeys(wanted)),
    )
