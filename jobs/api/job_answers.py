"""The responses of the API about jobs, their logs and their events. No field is a key, environment value, URL or header."""

from operator import attrgetter
from typing import Any

from callbacks.models import Event as StoredEvent
from jobs.api.fields import JobId
from jobs.api.new_job import EVENT_TYPES
from jobs.api.waiting_reason import waiting_for
from jobs.log_lines import Ending
from jobs.models import Job as StoredJob
from jobs.states import InputType, OutputType, Reason, State, Stream, TransferStatus
from jobs.usage import usage_of
from orchestrator_site.base.http.fields import Array, Boolean, Choice, Integer, Number, StringMap, Text, Time
from orchestrator_site.base.http.serializers import AnswerSerializer


class Accepted(AnswerSerializer):
    """A job that is stored."""

    id = JobId()
    status = Choice([State.ACCEPTED])


class JobSummary(AnswerSerializer):
    """A job in a list. What is not known yet is left out."""

    id = JobId(help_text="Unique in its namespace.")
    namespace = Text(required=False, help_text="Always there.")
    status = Choice(State.values)
    image = Text()
    meta = StringMap()
    createdAt = Time(source="created_at")
    cpu = Number(source="cpu_millis", show=lambda millis: millis / 1000)
    memory = Integer(source="memory_mib", help_text="In MiB.")
    timeoutSeconds = Integer(source="timeout_seconds")
    exitCode = Integer(source="exit_code", required=False, help_text="-1 if it is unknown or the process never ran.")
    reason = Choice(Reason.values, required=False)
    error = Text(required=False)
    startedAt = Time(source="started_at", required=False)
    finishedAt = Time(source="finished_at", required=False, help_text="When its status became final.")
    completedAt = Time(source="completed_at", required=False, help_text="When its last output was handled.")
    node = Text(required=False, show=attrgetter("name"))


class _Transfer(AnswerSerializer):
    id = Text(source="name")
    status = Choice(TransferStatus.values)
    bytes = Integer(0, required=False)
    error = Text(required=False)


class Input(_Transfer):
    """An input of a job."""

    type = Choice(InputType.values)


class Output(_Transfer):
    """An output of a job."""

    type = Choice(OutputType.values)


class Usage(AnswerSerializer):
    """What a job has used, as far as it is known."""

    cpuSeconds = Number(
        0,
        required=False,
        help_text="CPU time of all its processes, known after their end. It includes about 0.03 for the start of its container, "
        "so a job that ran for 0.005 seconds has more than that.",
    )
    peakMemoryBytes = Integer(
        0, required=False, help_text="The most memory of all its processes together, with cached files, known after their end."
    )
    inputBytes = Integer(0, required=False, help_text="The inputs that were put into its container.")
    outputBytes = Integer(0, required=False, help_text="The outputs that were sent, known when the job is complete.")
    logBytes = Integer(0, required=False, help_text="Its stored log, so far.")

    def to_representation(self, instance: StoredJob) -> dict[str, Any] | None:  # type: ignore[override]
        """Return None for a job that has not started."""
        return usage_of(instance)


class Job(JobSummary):
    """A job with its inputs and outputs."""

    waiting = Text(show=waiting_for, source="*", required=False, help_text="What an accepted job waits for.")
    inputs = Array(Input(), show=lambda rows: rows.defer("content", "url", "headers"))  # each costs a decryption
    outputs = Array(Output(), show=lambda rows: rows.defer("url", "headers"))
    usage = Usage(source="*", required=False)


class LogLine(AnswerSerializer):
    """A line of a log, or a piece of a long line."""

    seq = Integer(1, source="number")
    stream = Choice(Stream.values)
    time = Text(schema={"format": "date-time"})
    text = Text()
    partial = Boolean(  # type: ignore[assignment]  # DRF's attribute of that name is one of instances
        source="ending",
        required=False,
        show=lambda ending: True if ending == Ending.PARTIAL else None,
        schema={"enum": [True]},
        help_text="The line continues in the next line of its stream.",
    )


class LogPage(AnswerSerializer):
    """Some lines of a log."""

    lines = Array(LogLine())
    next = Integer(0, source="read_to", help_text="`after` of the next page.")
    complete = Boolean(help_text="Whether the log has ended and this page reaches its end.")


class Attempt(AnswerSerializer):
    """An attempt to deliver an event."""

    time = Time()
    status = Integer(100, 999, required=False, help_text="The HTTP status; absent if there was no response.")
    latencyMs = Integer(0, source="latency_ms")
    error = Text(required=False)
    answer = Text(required=False, help_text="The start of the response's body.")


class Event(AnswerSerializer):
    """An event of a job, with the attempts to deliver it."""

    id = Text(source="pk", schema={"format": "uuid"})
    type = Choice(EVENT_TYPES)
    time = Text(schema={"format": "date-time"})
    jobsequence = Integer(1, source="sequence")
    state = Choice(StoredEvent.State.values)
    nextAttemptAt = Time(source="next_attempt_at", required=False)
    attempts = Array(Attempt(), help_text="The attempts, oldest first.")


class Redelivery(AnswerSerializer):
    """The number of events that are sent again."""

    redelivered = Integer(0, source="*")
