"""A job as a client described it, validated and with all defaults filled in.

Plain values without database rows: what `jobs.api.new_job` reads out of a request and `jobs.services.create` stores.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from jobs.engine.protocol import PullPolicy
from jobs.states import InputType, OutputType

Network = Literal["bridge", "none"]
UploadMethod = Literal["PUT", "POST"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """A file to put into the container before it starts. `path` is relative to the workspace and normalized."""

    id: str = ""  # empty: named by its position
    type: InputType
    path: str
    mode: int = 0o644
    content: bytes = field(default=b"", repr=False)  # of a `file` input, decoded
    url: str = field(default="", repr=False)  # of a `download` input, like the fields below
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    sha256: str = ""  # lower-case hexadecimal; not checked if empty


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSpec:
    """A file to send after the process has ended. `path` is relative to the workspace and normalized."""

    id: str = ""  # empty: named by its position
    type: OutputType
    path: str
    url: str = field(default="", repr=False)  # of an `upload` output, like the fields below
    method: UploadMethod = "PUT"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackSpec:
    """Where the job's events are sent.

    `keys` sign each event: none, one, or two while the receiver changes from the second to the first. `headers` are sent
    with each event. `events` are event types; empty means all.
    """

    url: str = field(repr=False)
    keys: tuple[str, ...] = field(default=(), repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    events: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """A container to run to completion."""

    id: str | None = None  # None to have one generated
    image: str
    command: str | list[str] | None = None  # a string for a shell, an argument vector, or None for the image's own command
    cpu_millis: int
    memory_mib: int
    timeout_seconds: int
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    meta: Mapping[str, str] = field(default_factory=dict)
    workspace: str
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    pull_policy: PullPolicy
    network: Network
    callback: CallbackSpec | None = None
