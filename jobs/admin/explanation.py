"""Says in a sentence or two how a job ended or what it waits for, and what to do about it."""

import signal
from dataclasses import dataclass
from typing import Final

from jobs.api.waiting_reason import waiting_for
from jobs.models import Job
from jobs.states import NO_EXIT_CODE, Reason, State, TransferStatus
from orchestrator_site.base.values.durations import format_duration

_LOOK_AT_LOG: Final = "The end of its log should say why."
_EXIT_CODES: Final = {
    126: "The command was found but cannot be executed: check its permissions, and that it was built for the node's processor.",
    127: "The command was not found: check its spelling, and that the image contains it.",
}
_CRASHES: Final = ("SIGSEGV", "SIGBUS", "SIGILL", "SIGABRT", "SIGFPE")
_THINGS: Final = ("a ", "free ", "its ", "space ", "the ")  # how phrases begin that name what a job waits for


@dataclass(frozen=True, slots=True)
class Explanation:
    """What happened, and what to do. `anchor` is the part of the page that says more."""

    tone: str  # success, info, warning or danger
    sentence: str
    advice: str = ""
    anchor: str = ""


def explain(job: Job) -> Explanation:
    """Return the explanation of the job's present state."""
    match job.status:
        case State.ACCEPTED:
            return Explanation("info", f"It {waiting(job)}.", _needs(job))
        case State.RUNNING:
            limit = f"It is stopped if it has not ended after {job.timeout_seconds} s."
            return Explanation("info", "Its process is running.", limit, "log")
        case State.COMPLETED:
            return _completed(job)
        case State.CANCELLED:
            when = "before its process was started" if job.started_at is None else "while it ran"
            return Explanation("warning", f"It was cancelled {when}.")
    return _failed(job)


def waiting(job: Job) -> str:
    """Return what an accepted job waits for, as a part of a sentence: `waits for free capacity on a node`."""
    phrase = (waiting_for(job) or "its turn").rstrip(".")
    if phrase == job.doing.rstrip(".") and not phrase.startswith(_THINGS):
        return f"is being prepared: {phrase}"
    return f"waits for {phrase}" if phrase.startswith(_THINGS) else f"is waiting: {phrase}"


def _needs(job: Job) -> str:
    if job.node_id is not None:
        return ""
    return f"It needs {job.cpu_millis / 1000:g} CPU and {job.memory_mib} MiB of memory on one node."


def _completed(job: Job) -> Explanation:
    failed = [item for item in job.outputs.all() if item.status == TransferStatus.FAILED]
    if not failed:
        return Explanation("success", "Its process ended with exit code 0.")
    outputs = f"the output {failed[0].name}" if len(failed) == 1 else f"{len(failed)} outputs"
    return Explanation(
        "warning",
        f"Its process ended with exit code 0, but {outputs} could not be sent: {failed[0].error.rstrip('.')}.",
        "The job counts as completed all the same. If the file does not exist, its log may say why; if a URL is at fault, "
        "post the job again with another.",
        "outputs",
    )


def _failed(job: Job) -> Explanation:
    match job.reason:
        case Reason.EXIT_CODE:
            cause = job.error.partition(": ")[2]  # if the engine knows one
            sentence = f"Its process ended with {_exit_code(job.exit_code)}{_after(job)}{cause and f': {cause}'}."
            return Explanation("danger", sentence, _exit_advice(job), "log")
        case Reason.OOM:
            return Explanation(
                "danger",
                f"The kernel killed its process{_after(job)}, because it needed more than {job.memory_mib} MiB of memory.",
                "Post it with a higher memory, or let it use less.",
                "usage",
            )
        case Reason.TIMEOUT:
            return Explanation(
                "danger",
                f"Its process was still running after {job.timeout_seconds} s and was stopped.",
                "The end of its log shows how far it got. If it needs longer, post it with a higher timeoutSeconds.",
                "log",
            )
        case Reason.DISK:
            return Explanation(
                "danger",
                f"Its process was killed{_after(job)}, because it used too much of its node's disk: {_error(job)}.",
                "Let it write less, or remove what it no longer needs. DISK_LIMIT of the worker is what a job may write.",
                "log",
            )
        case Reason.IMAGE_PULL:
            return Explanation(
                "danger",
                f"Its image cannot be used: {_error(job)}.",
                "Check its name and tag, that the node reaches the registry, and the login in the worker's Docker configuration.",
            )
        case Reason.INPUT_FAILED:
            return _input_failed(job)
        case Reason.START_FAILED:
            return Explanation(
                "danger",
                f"Its container could not be started: {_error(job)}.",
                "If that is about the command, the user or the workspace, correct the job. Otherwise look at its node.",
            )
        case Reason.ENGINE_LOST:
            return Explanation(
                "danger",
                f"It was lost: {_error(job)}.",
                "The job is not to blame: run it again. If this recurs, look at its node.",
            )
    return Explanation("danger", f"It failed: {_error(job) or job.reason}.", _LOOK_AT_LOG, "log")


def _input_failed(job: Job) -> Explanation:
    failed = next((item for item in job.inputs.all() if item.status == TransferStatus.FAILED), None)
    name = f"Its input {failed.name}" if failed else "One of its inputs"
    return Explanation(
        "danger",
        f"{name} could not be put in place, so its process was never started: {_error(job)}.",
        "If it is a download, check that its URL is right, has not expired, and is reachable from the node.",
        "inputs",
    )


def _error(job: Job) -> str:
    return job.error.rstrip(".")


def _after(job: Job) -> str:
    if job.started_at is None or job.finished_at is None:
        return ""
    return f" after {format_duration(max(0.0, (job.finished_at - job.started_at).total_seconds()))}"


def _exit_code(code: int | None) -> str:
    if code is None or code == NO_EXIT_CODE:
        return "an exit code that is not known"
    name = _signal(code)
    return f"exit code {code} ({name})" if name else f"exit code {code}"


def _exit_advice(job: Job) -> str:
    code = job.exit_code or 0
    if code in _EXIT_CODES:
        return _EXIT_CODES[code]
    name = _signal(code)
    if name in _CRASHES:
        return f"The program crashed. {_LOOK_AT_LOG}"
    if name == "SIGKILL":
        return "Something in its container or on its node killed it, but not for its memory limit."
    return _LOOK_AT_LOG


def _signal(code: int) -> str | None:
    """Return the signal that an exit code over 128 stands for, as shells report it."""
    try:
        return signal.Signals(code - 128).name if code > 128 else None
    except ValueError:
        return None
