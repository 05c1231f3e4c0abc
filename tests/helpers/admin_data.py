"""Rows for the pages of the admin: jobs in all states with files and logs, nodes, a destination, events with an attempt each."""

from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from callbacks.models import Attempt, BreakerSample, Destination, Event, Subscription
from jobs.models import Input, Job, LogChunk, Node, NodeSample, Output
from jobs.states import InputType, OutputType, Reason, State, TransferStatus
from tests.helpers.factories import make_node, make_node_sample, make_worker, minute

LOG = [
    ("stdout", "\x1b[1mRendering\x1b[0m frame 1 of 1"),
    ("stdout", "\x1b[32m[##########----------]\x1b[0m  50 %"),
    ("stderr", "\x1b[33mwarning:\x1b[0m the texture wood.png is missing"),
    ("stdout", "\x1b[32m[####################]\x1b[0m 100 %"),
]
DETAILED = 50  # jobs, the newest, with files and a log
HOURS = timedelta(hours=5)  # in which the jobs came


def fill(number: int) -> None:
    """Make jobs, with their nodes, events and attempts. `number`: of jobs; without any, nothing is made."""
    if not number:
        return
    now = timezone.now()
    jobs = Job.objects.bulk_create(_jobs(number, _nodes(now), now))
    ran = [job for job in jobs if job.started_at][-DETAILED:]
    LogChunk.objects.bulk_create(_log(job) for job in ran)
    Input.objects.bulk_create(_input(job) for job in ran)
    Output.objects.bulk_create(_output(job) for job in ran)
    destination = Destination.objects.create(
        origin="https://hooks.example:8443",
        used_at=now,
        failures=5,
        openings=2,
        open_until=now + timedelta(minutes=2),
        waiting=True,
    )
    subscriptions = Subscription.objects.bulk_create(
        Subscription(
            stream=job.uuid, subject=job.id, url="https://hooks.example:8443/job", destination=destination, last_sequence=1
        )
        for job in jobs
    )
    events = Event.objects.bulk_create(
        _event(subscription, job, position) for position, (subscription, job) in enumerate(zip(subscriptions, jobs, strict=True))
    )
    Attempt.objects.bulk_create(_attempt(event) for event in events if event.state != Event.State.PENDING)
    _samples()


def _nodes(now: datetime) -> Node:
    """Make a node that runs jobs, one that was drained, and one whose worker has died. Return the first."""
    node, drained, lost = make_node("node-1", cpus=8, memory_mib=16384), make_node("node-2", cpus=4), make_node("node-3")
    make_worker(node)
    make_worker(drained)
    Node.objects.filter(pk=node.pk).update(cpu_millis_reserved=9500, memory_mib_reserved=7168)
    Node.objects.filter(pk=drained.pk).update(drained=True)
    Node.objects.filter(pk=lost.pk).update(seen_at=now - timedelta(minutes=7))
    return node


def _samples() -> None:
    """Make samples of the nodes, one for each bar of a chart. The third node went away an hour ago."""
    nodes = Node.objects.order_by("name")
    ages = range(0, 300, 10)
    BreakerSample.objects.bulk_create(
        BreakerSample(minute=minute(ago), open_breakers=(2, 1, 1, 0)[ago // 25 % 4]) for ago in ages
    )
    NodeSample.objects.bulk_create(
        make_node_sample(node, ago, cores=(ago // 10 + 7 * position) % 9, gib=(ago // 30 + position) % 4)
        for position, node in enumerate(nodes)
        for ago in ages
        if position < 2 or ago > 60
    )


def _jobs(number: int, node: Node, now: datetime) -> list[Job]:
    return [_job(position, now - HOURS * (1 - position / number), node) for position in range(number)]


def _job(position: int, created: datetime, node: Node) -> Job:
    claimed = created + timedelta(seconds=position % 5)
    started = claimed + timedelta(seconds=3)
    finished = started + timedelta(seconds=30 + 7 * (position % 11))
    began: dict[str, Any] = {
        "node": node,
        "claims": 1,
        "claimed_at": claimed,
        "pulled_at": claimed + timedelta(seconds=2),
        "prepared_at": claimed + timedelta(seconds=2.8),
        "started_at": started,
        "log_next": len(LOG) + 1,
        "log_bytes": 190,
    }
    ended = {
        **began,
        "finished_at": finished,
        "exited_at": finished,
        "completed_at": finished + timedelta(seconds=2),
        "cpu_seconds": 17.5,
        "peak_memory_bytes": 300 << 20,
    }
    match position % 10:
        case 3:
            values = {"status": State.FAILED, "reason": Reason.EXIT_CODE, "exit_code": 2, "error": "exit code 2", **ended}
        case 6:
            values = {"status": State.CANCELLED, "reason": Reason.CANCELLED, "exit_code": 143, **ended}
        case 7:
            values = {"status": State.FAILED, "reason": Reason.OOM, "exit_code": 137, "error": "out of memory", **ended}
        case 8:
            values = {"status": State.RUNNING, **began}
        case 9:
            values = {"status": State.ACCEPTED}
        case _:
            values = {"status": State.COMPLETED, "exit_code": 0, **ended}
    return Job(
        id=f"render-{position:04}",
        image="registry.example/team/render:4.2",
        cpu_millis=1000,
        memory_mib=512,
        timeout_seconds=1800,
        meta={"team": "video", "shot": str(position)},
        workspace="/workspace",
        pull_policy="missing",
        network="bridge",
        created_at=created,
        **values,
    )


def _log(job: Job) -> LogChunk:
    return LogChunk(
        job=job,
        first=1,
        count=len(LOG),
        lines=[(stream, f"{job.started_at:%Y-%m-%dT%H:%M:%S.%fZ}", text) for stream, text in LOG],
    )


def _input(job: Job) -> Input:
    return Input(
        job=job,
        position=0,
        name="scene",
        type=InputType.DOWNLOAD,
        path="scene.blend",
        url="https://files.example/scenes/scene.blend?signature=0000",
        status=TransferStatus.SUCCESS,
        bytes=48 << 20,
    )


def _output(job: Job) -> Output:
    """Return an upload, which is sent after the process has ended and fails for some of the jobs."""
    values: dict[str, Any] = {"status": TransferStatus.PENDING}
    if job.status == State.CANCELLED:
        values = {"status": TransferStatus.SKIPPED}
    elif job.completed_at and job.exit_code:
        values = {"status": TransferStatus.FAILED, "error": '"frames/out.exr" does not exist'}
    elif job.completed_at:
        values = {"status": TransferStatus.SUCCESS, "bytes": 3 << 20}
    return Output(
        job=job,
        position=0,
        name="frame",
        type=OutputType.UPLOAD,
        path="frames/out.exr",
        url="https://files.example/frames/out.exr",
        **values,
    )


def _event(subscription: Subscription, job: Job, position: int) -> Event:
    settled = (job.finished_at or job.created_at) + timedelta(seconds=1)
    state = {3: Event.State.DEAD, 6: Event.State.PENDING}.get(position % 7, Event.State.DELIVERED)
    return Event(
        subscription=subscription,
        sequence=1,
        type="orchestrator.job.exit",
        source="orchestrator/service",
        time=f"{settled:%Y-%m-%dT%H:%M:%SZ}",
        body=b"{}",
        state=state,
        tries=0 if state == Event.State.PENDING else 1,
        created_at=settled,
        expires_at=settled + timedelta(days=1),
        settled_at=None if state == Event.State.PENDING else settled,
    )


def _attempt(event: Event) -> Attempt:
    if event.state == Event.State.DELIVERED:
        return Attempt(event=event, time=event.settled_at, status=204, latency_ms=31)
    return Attempt(event=event, time=event.settled_at, status=410, latency_ms=24, error="answered 410", answer="gone")
