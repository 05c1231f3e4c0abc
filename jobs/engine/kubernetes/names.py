"""Names that the engine gives to things in the cluster, or that the cluster gives them."""

from collections.abc import Mapping
from typing import Final

from jobs.engine.protocol import PullPolicy

# Labels of a Job, and of its pod.
NAME_LABEL: Final = "orchestrator.name"  # by which we address a Job, which cannot be renamed; its pod keeps the first one
NETWORK_LABEL: Final = "orchestrator.network"  # of a pod, for policies of the cluster: `bridge` or `none`
NETWORK_NAME_LABEL: Final = "orchestrator.network-name"  # of a Job whose pod has `bridge`
START_LABEL: Final = "orchestrator.start"  # of a Job: whether its start was requested
REQUESTED: Final = "requested"
NOT_REQUESTED: Final = "not-requested"

JOB_NAME_LABEL: Final = "batch.kubernetes.io/job-name"  # of a pod
QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"  # of a Job that Kueue starts

CONTAINER: Final = "job"  # the container of a pod that runs the job's process
PULL_POLICIES: Final[Mapping[PullPolicy, str]] = {"missing": "IfNotPresent", "always": "Always", "never": "Never"}
