"""The commands for jobs that exist: `logs`, `status`, `cancel` and `list`."""

import json
import shutil
import sys
import textwrap
from argparse import Namespace
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from orchestrator_site.client.errors import ExitCode, ServiceRefused
from orchestrator_site.client.interrupts import Interrupts
from orchestrator_site.client.log_output import standard_output
from orchestrator_site.client.log_reader import LogReader
from orchestrator_site.client.progress import Progress
from orchestrator_site.client.service.api import Service
from orchestrator_site.client.texts import ago, in_words, seconds_between, shown, size_in_words, time_of

_PAGE_JOBS: Final = 100
_WIDE: Final = 100  # columns from which a job takes one line
_RAN: Final = 15  # columns: the longest duration is `less than 0.1 s`
_LABEL: Final = 10  # columns


def logs(options: Namespace, service: Service, progress: Progress, interrupts: Interrupts) -> int:
    """Print the log of a job."""
    output = standard_output(as_json=options.json, before_write=progress.log_written, interrupts=interrupts)
    reader = LogReader(service, options.id, output, interrupts, tail=options.tail, stream=options.stream)
    if options.follow:
        reader.follow()
    else:
        reader.read_stored()
    return ExitCode.SUCCESS


def status(options: Namespace, service: Service, interrupts: Interrupts) -> int:
    """Print how a job is."""
    with interrupts.allowed():
        job = service.get(options.id)
    _print_job(job, as_json=options.json)
    return ExitCode.SUCCESS


def cancel(options: Namespace, service: Service, interrupts: Interrupts) -> int:
    """Cancel jobs; those that cannot be cancelled do not keep the others from it."""
    code = ExitCode.SUCCESS
    for job_id in options.id:
        try:
            with interrupts.allowed():
                service.cancel(job_id)
                job = service.get(job_id)
        except ServiceRefused as error:
            print(f"{shown(job_id)}: {error}", file=sys.stderr)
            code = ExitCode.FAILED
            continue
        if options.json:
            print(json.dumps(job))
        elif job.get("status") == "cancelled":
            print(f"{job_id}: cancelled")
        else:
            print(f"{job_id}: had already ended ({shown(job.get('status'))})")
    return code


def list_jobs(options: Namespace, service: Service, interrupts: Interrupts) -> int:
    """List jobs, the newest first."""
    query = {name: value for name in ("status", "image", "node") if (value := getattr(options, name))}
    query |= {f"meta.{name}": value for name, value in options.meta}
    is_wide = not sys.stdout.isatty() or shutil.get_terminal_size().columns >= _WIDE
    header = f"{'ID':<36}  {'STATUS':<9}  {'CREATED':<16}  {'RAN':<{_RAN}}  IMAGE\n" if is_wide and not options.json else ""
    for jobs in _pages(service, interrupts, query, options.limit):
        print(header, end="")
        header = ""
        for job in jobs:
            print(json.dumps(job) if options.json else _row(job, is_wide=is_wide))
    return ExitCode.SUCCESS


def _pages(service: Service, interrupts: Interrupts, query: Mapping[str, str], limit: int) -> Iterator[list[dict[str, Any]]]:
    """Yield at most `limit` jobs. A page may be short, even empty, and still have a next one."""
    cursor: dict[str, str] = {}
    while limit:
        with interrupts.allowed():
            page = service.list_jobs({**query, **cursor, "limit": str(min(limit, _PAGE_JOBS))})
        jobs = page["jobs"][:limit]
        yield jobs
        limit -= len(jobs)
        if not isinstance(page.get("nextCursor"), str):
            return
        cursor = {"cursor": page["nextCursor"]}


def _row(job: dict[str, Any], *, is_wide: bool) -> str:
    job_id, state, image = shown(job.get("id")), shown(job.get("status")), shown(job.get("image"))
    if namespace := _namespace_of(job):
        image += f" (in {namespace})"
    created, ran = _ago(job, "createdAt"), _ran(job)
    if is_wide:
        return f"{job_id:<36}  {state:<9}  {created:<16}  {ran:<{_RAN}}  {image}"
    return f"{job_id}\n  {state}, {image}\n  {created}" + (f", ran {ran}" if ran else "")


def _namespace_of(job: Mapping[str, Any]) -> str:
    """Return the namespace of a job, nothing if it is the one that needs no option."""
    namespace = shown(job.get("namespace") or "")
    return "" if namespace == "default" else namespace


def _ago(job: dict[str, Any], member: str) -> str:
    moment = time_of(job, member)
    return ago((datetime.now(UTC) - moment).total_seconds()) if moment else ""


def _ran(job: dict[str, Any]) -> str:
    seconds = seconds_between(job, "startedAt", "finishedAt")
    if seconds is None and (start := time_of(job, "startedAt")) and not job.get("finishedAt"):
        seconds = (datetime.now(UTC) - start).total_seconds()
    return "" if seconds is None else in_words(seconds)


def _print_job(job: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(job, indent=2))
        return
    width = shutil.get_terminal_size().columns - _LABEL if sys.stdout.isatty() else 0
    for label, value in _facts(job):
        for line in _wrapped(value, width):
            print(f"{label:<{_LABEL}}{line}")
            label = ""


def _wrapped(text: str, width: int) -> list[str]:
    """Return the text in lines of at most `width` columns, if that many are of use; a longer word has a line of its own."""
    if width < 2 * _LABEL:
        return [text] if text else []
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _facts(job: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what is known of a job, label by label."""
    yield "Job", shown(job.get("id"))
    yield "Namespace", _namespace_of(job)
    yield "Status", shown(job.get("status"))
    yield "Waiting", shown(job.get("waiting") or "")
    if job.get("reason") != job.get("status"):
        yield "Reason", shown(job.get("reason") or "")
    yield "Error", shown(job.get("error") or "")
    yield "Exit code", shown(job.get("exitCode", ""))
    yield "Image", shown(job.get("image"))
    yield "Node", shown(job.get("node") or "")
    yield "Created", _moment(job, "createdAt")
    yield "Started", _moment(job, "startedAt")
    yield "Finished", _moment(job, "finishedAt")
    yield "Ran", _ran(job)
    timeout = job.get("timeoutSeconds")
    limit = in_words(timeout) if isinstance(timeout, int | float) else shown(timeout)
    yield "Limits", f"{job.get('cpu', 0):g} cpu, {shown(job.get('memory'))} MiB of memory, {limit}"
    yield "Used", _usage(job.get("usage"))
    for name, value in (job.get("meta") or {}).items():
        yield "Meta", f"{shown(name)}={shown(value)}"
    for kind in ("input", "output"):
        for item in job.get(f"{kind}s") or ():
            yield kind.capitalize(), _transfer(item)


def _usage(usage: object) -> str:
    """Return what a job used, as far as it is known."""
    if not isinstance(usage, dict):
        return ""
    parts = [f"{usage['cpuSeconds']:.2f} s of cpu"] if isinstance(usage.get("cpuSeconds"), int | float) else []
    for member, name in (
        ("peakMemoryBytes", "memory"),
        ("inputBytes", "inputs"),
        ("outputBytes", "outputs"),
        ("logBytes", "log"),
    ):
        if isinstance(usage.get(member), int) and usage[member]:
            parts.append(f"{size_in_words(usage[member])} of {name}")
    return ", ".join(parts)


def _moment(job: dict[str, Any], member: str) -> str:
    moment = time_of(job, member)
    return f"{moment:%Y-%m-%d %H:%M:%S %Z} ({_ago(job, member)})" if moment else ""


def _transfer(item: Mapping[str, Any]) -> str:
    text = f"{shown(item.get('id'))} ({shown(item.get('type'))}): {shown(item.get('status'))}"
    if isinstance(item.get("bytes"), int):
        text += f", {size_in_words(item['bytes'])}"
    return text + (f", {shown(item['error'])}" if item.get("error") else "")
