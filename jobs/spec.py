"""A job as a client described it, checked and with every default filled in.

Plain values without Django: what `jobs.api.new_job` reads out of a request and `jobs.services.create` stores.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from jobs.engine.protocol import PullPolicy as PullPolicy  # part of a description, so it is imported from here, too
from jobs.states import InputType, OutputType

Network = Literal["bridge", "none"]
UploadMethod = Literal["PUT", "POST"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """A file to be in place before the container starts. `path` is relative to the workspace, normalised."""

    id: str
    type: InputType
    path: str
    mode: int = 0o644
    content: bytes = field(default=b"", repr=False)  # of a `file`, decoded
    url: str = field(default="", repr=False)  # of a `download`, as are the members below
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    sha256: str = ""  # lower-case hex; empty: not checked


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSpec:
    """A file to be taken out after the process has ended. `path` is relative to the workspace, normalised."""

    id: str
    type: OutputType
    path: str
    url: str = field(default="", repr=False)  # of an `upload`, as are the members below
    method: UploadMethod = "PUT"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackSpec:
    """Where the job's events go.

    `keys` sign each event: none, one, or two while the receiver changes from the second to the first. `headers` are sent
    with each event. `events` are event types; empty means all.
    """

    url: str = field(repr=False)
    keys: tuple[str, ...] = field(default=(), repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    events: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """One container to be run to completion."""

    id: str | None  # None: one is to be made
    image: str
    command: str | list[str] | None  # a string for a shell, an argument vector, or None for the image's own
    cpu_millis: int
    memory_mib: int
    timeout_seconds: int
    environment: Mapping[str, str] = field(repr=False)
    meta: Mapping[str, str]
    workspace: str
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    pull_policy: PullPolicy
    network: Network
    callback: CallbackSpec | None
