"""The command `run`: post a job, show what happens to it, and return its exit code."""

import json
import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from http import HTTPStatus
from typing import Any

from orchestrator_site.base.intervals import ClientIntervals
from orchestrator_site.client.errors import ClientError, ExitCode, ServiceAway, ServiceRefused
from orchestrator_site.client.interrupts import Interrupted, Interrupts
from orchestrator_site.client.log_output import standard_output
from orchestrator_site.client.log_reader import LogReader
from orchestrator_site.client.options.job_request import encoded, job_of, option_for
from orchestrator_site.client.options.option_values import FileOption
from orchestrator_site.client.progress import Mood, Progress
from orchestrator_site.client.service.api import Service
from orchestrator_site.client.service.connection import RefusedAfterRetry
from orchestrator_site.client.texts import in_words, seconds_between, shown
from orchestrator_site.client.upload_server import UploadServer, listen_address


def run(options: Namespace, environment: Mapping[str, str], service: Service, progress: Progress, interrupts: Interrupts) -> int:
    """Run the job and return the exit code."""
    with ExitStack() as stack:
        server = None
        if any(not option.is_url for option in options.output):
            server = UploadServer(*listen_address(service.url, options.listen))
            stack.enter_context(server.serving())

        def upload_url(option: FileOption) -> str:
            assert server is not None  # noqa: S101 - for the type checker
            return server.expect(option)

        with interrupts.allowed():  # a file may be a pipe, and reading it may wait
            job = job_of(options, environment, upload_url)
        body = encoded(job)
        job_id: str = job["id"]
        try:
            _create(service, body, job_id, options)
        except Interrupted as interrupted:
            progress.say(f"interrupted: the service may have accepted the job as {job_id}", Mood.ERROR)
            return ExitCode.SIGNAL + interrupted.number
        if options.detach:
            return _print_id(job_id, progress, as_json=options.json)
        try:
            return _Run(job_id, options, service, progress, interrupts, host=server.host if server else None).to_its_end()
        except ClientError as error:
            if isinstance(error, ServiceRefused) and error.status == HTTPStatus.NOT_FOUND:
                raise
            raise ClientError(f"{error}; job {job_id} may still be running") from error


def _print_id(job_id: str, progress: Progress, *, as_json: bool) -> int:
    try:
        print(json.dumps({"id": job_id, "status": "accepted"}) if as_json else job_id, flush=True)
    except OSError:
        progress.say(f"job {job_id} is accepted", Mood.ERROR)  # the only place where its id is to be seen
        raise
    return ExitCode.SUCCESS


def _create(service: Service, body: bytes, job_id: str, options: Namespace) -> None:
    """Post the job. An answer that was lost makes no second job, because the id is sent along."""
    try:
        service.create(body)
    except ServiceAway as error:
        if error.may_be_done:
            raise ClientError(f"{error}; it may have accepted the job as {job_id}") from error
        raise
    except ServiceRefused as error:
        if error.status != HTTPStatus.CONFLICT:
            named = f"{option_for(error.field, options)}: " if error.field else ""
            raise ClientError(f"the service refuses the job: {named}{error}") from error
        if not isinstance(error, RefusedAfterRetry):
            raise ClientError(f"there is already a job with the id {job_id}") from error
        if options.id is not None:
            raise ClientError(
                f"the answer of the service was lost, and now there is a job {job_id}, which may be this one or another"
            ) from error
        # otherwise the id is one that only this command knows: the job is ours


class _Run:
    """A job that the service has accepted."""

    def __init__(
        self,
        job_id: str,
        options: Namespace,
        service: Service,
        progress: Progress,
        interrupts: Interrupts,
        *,
        host: str | None,
        intervals: ClientIntervals = ClientIntervals(),
    ) -> None:
        """Take also the address of this machine at which outputs are received."""
        self._id = job_id
        self._host = host
        self._options = options
        self._service = service
        self._progress = progress
        self._interrupts = interrupts
        self._intervals = intervals
        self._follow = bool(options.follow) if options.json or options.follow is not None else sys.stdout.isatty()
        output = standard_output(as_json=options.json, before_write=progress.log_written, interrupts=interrupts)
        self._is_done = False
        self._log = LogReader(service, job_id, output, interrupts, intervals=intervals)

    def to_its_end(self) -> int:
        """Wait for the end of the job, cancel it at a signal, report how it ended, and return the exit code."""
        cancelled_by, is_announced = None, False
        while True:
            try:
                if not is_announced:
                    is_announced = True
                    self._progress.say(f"job {self._id}")
                if cancelled_by is not None:
                    self._cancel()
                job = self._watch()
                break
            except Interrupted as interrupted:
                if self._is_done:
                    return ExitCode.SIGNAL + interrupted.number
                if cancelled_by is not None:
                    self._progress.say(f"no longer waiting: job {self._id} may still be running", Mood.ERROR)
                    return ExitCode.SIGNAL + interrupted.number
                cancelled_by = interrupted.number
            except OSError:
                # The log cannot be written, or its reader has gone: a program that runs here would end, too.
                if not self._is_done:
                    self._service.cancel(self._id)
                    with suppress(OSError):
                        self._progress.say(f"cancelled job {self._id}: its log cannot be written", Mood.BAD)
                raise
        self._report(job, by_us=cancelled_by is not None)
        if self._options.json:
            print(json.dumps(job))
        return exit_code_of(job, cancelled_by)

    def _cancel(self) -> None:
        self._progress.say(f"cancelling job {self._id}; Ctrl-C again leaves without waiting")
        with self._interrupts.allowed():
            self._service.cancel(self._id)

    def _watch(self) -> dict[str, Any]:
        """Return the job when all of it is done. May be interrupted and called again."""
        if self._follow:
            self._log.follow(self._look)
            self._progress.log_ended()
        job = self._wait_until_done()
        if not self._follow and not self._options.json:
            self._log.follow()
            self._progress.log_ended()
        return job

    def _look(self) -> bool:
        """Show the state of the job; return whether it may change soon."""
        return self._is_waiting(self._get())

    def _wait_until_done(self) -> dict[str, Any]:
        """Return the job when its last output is handled."""
        pause, seconds = self._intervals.outputs_look, 0.0
        while True:
            asked_at = time.monotonic()
            job = self._get(wait=seconds)
            if job.get("completedAt"):
                self._is_done = True
                return job
            if job.get("finishedAt"):
                self._interrupts.sleep(pause)
                pause = min(2 * pause, self._intervals.outputs_look_max)
            elif time.monotonic() - asked_at < seconds / 2:
                self._interrupts.sleep(self._intervals.early_answer)
            seconds = self._intervals.waiting_look if self._is_waiting(job) else self._intervals.long_poll

    def _get(self, wait: float = 0.0) -> dict[str, Any]:
        with self._interrupts.allowed():
            job = self._service.get(self._id, wait=wait)
        if text := _state_of(job):
            self._progress.state(text)
        return job

    @staticmethod
    def _is_waiting(job: Mapping[str, Any]) -> bool:
        return job.get("status") == "accepted"

    def _report(self, job: dict[str, Any], *, by_us: bool) -> None:
        self._progress.close()
        text, mood = _outcome_of(job, by_us=by_us)
        self._progress.say(text, mood)
        for number, output in enumerate(job.get("outputs") or ()):
            given = ", ".join(map(shown, self._options.output[number : number + 1]))
            if output.get("status") == "skipped" and job.get("status") == "completed":
                self._progress.say(f"output {given} was not sent", Mood.ERROR)
            if output.get("status") == "failed":
                error = str(output.get("error"))
                self._progress.say(f"output {given} failed: {shown(error)}", Mood.ERROR)
                if self._host and self._host in error:
                    self._progress.say(
                        f"the service's workers send it to {self._host}: it must lead to this machine (--listen), and their"
                        " EGRESS_ALLOW must include it",
                        Mood.ERROR,
                    )


def exit_code_of(job: Mapping[str, Any], cancelled_by: int | None = None) -> int:
    """Return the exit code for a job that has ended; `cancelled_by` is the signal that made this command cancel it."""
    is_completed = job.get("status") == "completed"
    if is_completed and all(output.get("status") == "success" for output in job.get("outputs") or ()):
        return ExitCode.SUCCESS
    if cancelled_by is not None and (is_completed or job.get("status") == "cancelled"):
        return ExitCode.SIGNAL + cancelled_by
    if is_completed:
        return ExitCode.FAILED
    code = job.get("exitCode")
    if isinstance(code, int) and 0 < code < 256:
        return code
    return ExitCode.TIMED_OUT if job.get("reason") == "timeout" else ExitCode.FAILED


def _state_of(job: Mapping[str, Any]) -> str:
    """Return what a job is doing, in a few words; nothing if it is about to end."""
    if job.get("finishedAt"):
        if job.get("completedAt"):
            return ""
        if job.get("status") == "cancelled":
            return "stopping"
        return "sending outputs" if job.get("outputs") else ""
    if job.get("status") == "running":
        return f"running on {shown(job['node'])}" if job.get("node") else "running"
    waiting = shown(job.get("waiting") or "")
    is_activity = waiting.split(" ")[0].endswith("ing")  # such as `pulling alpine`, in contrast to `17 jobs ahead`
    if not waiting or is_activity:
        return waiting or "waiting"
    return f"waiting for {waiting}" if waiting.startswith(("a ", "its ", "free ")) else f"waiting: {waiting}"


def _outcome_of(job: dict[str, Any], *, by_us: bool) -> tuple[str, Mood]:
    """Return how a job ended, in a sentence. `by_us`: this command cancelled it."""
    seconds = seconds_between(job, "startedAt", "finishedAt")
    after = f" after {in_words(seconds)}" if seconds is not None else ""
    match job.get("status"):
        case "completed":
            return f"completed{after}", Mood.GOOD
        case "cancelled":
            return f"cancelled{after}", Mood.BAD if by_us else Mood.ERROR
    mood = Mood.BAD if job.get("reason") == "exit_code" else Mood.ERROR  # the exit code alone would not tell why
    return f"failed{after}: {shown(job.get('error') or job.get('reason') or 'for an unknown reason')}", mood
