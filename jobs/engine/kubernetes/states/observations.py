"""Translates what the cluster says about a Job and its pod to `jobs.engine.protocol`. No I/O."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from jobs.engine.kubernetes.api.cluster_objects import JobAndPod, Object
from jobs.engine.kubernetes.names import NAME_LABEL, REQUESTED, START_LABEL
from jobs.engine.kubernetes.states.pod_status import (
    ProcessEnd,
    condition,
    container_state,
    disruption,
    has_run,
    is_over,
    never_runs,
    parse_time,
    process_end,
)
from jobs.engine.kubernetes.states.start_progress import NO_POD, progress
from jobs.engine.protocol import Observation, Phase

_POD_UNSEEN: Final = "its pod was removed from the cluster, and nothing is known of how it ended"


def observation(found: JobAndPod) -> Observation:
    """Return the state of a container.

    One whose pod was removed before its process ran, or whose process could not be started, is `created` again: it has not run,
    and never will. If that is not certain, it counts as lost.
    """
    labels = found.job["metadata"].get("labels", {})
    phase: Phase = "created" if not was_requested(found.job) or is_dead(found) else "starting"
    seen = Observation(
        name=labels.get(NAME_LABEL, ""),
        phase=phase,
        created_at=parse_time(found.job["metadata"]["creationTimestamp"]) or datetime.fromtimestamp(0, UTC),
        labels=labels,
    )
    if found.pod is not None and has_run(found.pod):
        return _of_process(seen, found.pod, process_end(found.pod, is_gone=found.pod_is_gone, by_itself=found.ended_by_itself))
    if phase != "starting":
        return seen
    if found.pod is None:
        return _without_pod(seen, found.job)
    if found.pod_is_gone or is_over(found.pod):
        return replace(seen, phase="ended", lost=True, end_cause=disruption(found.pod) or _POD_UNSEEN)
    return replace(seen, waiting=progress(found).waiting_for)


def was_requested(job: Object) -> bool:
    """Return whether the start of a Job was requested."""
    return bool(job["metadata"].get("labels", {}).get(START_LABEL) == REQUESTED)


def is_dead(found: JobAndPod) -> bool:
    """Return whether the Job's pod has not run the job's process, and never will."""
    pod = found.pod
    if pod is None or has_run(pod):
        return False
    # As long as no start was requested, a pod waits for the rest of its inputs, wherever it is.
    return never_runs(pod) or (not was_requested(found.job) and (found.pod_is_gone or is_over(pod)))


def _of_process(seen: Observation, pod: Object, end: ProcessEnd | None) -> Observation:
    if end is None:
        started_at = parse_time(container_state(pod)["running"].get("startedAt"))
        return replace(seen, phase="running", started_at=started_at)
    return replace(
        seen,
        phase="ended",
        started_at=end.started_at,
        finished_at=end.finished_at,
        exit_code=end.exit_code,
        oom_killed=end.oom_killed,
        lost=end.lost,
        over_disk_limit=end.over_disk_limit,
        end_cause=end.cause,
    )


def _without_pod(seen: Observation, job: Object) -> Observation:
    """Return the state of a Job without a pod that the watch has seen: it has none yet, or it was removed meanwhile."""
    if condition(job, "Complete"):
        finished_at = parse_time(job["status"].get("completionTime"))
        return replace(seen, phase="ended", finished_at=finished_at, exit_code=0)
    if condition(job, "Failed") or condition(job, "FailureTarget") or job.get("status", {}).get("failed"):
        return replace(seen, phase="ended", lost=True, end_cause=_POD_UNSEEN)
    return replace(seen, waiting=NO_POD)
