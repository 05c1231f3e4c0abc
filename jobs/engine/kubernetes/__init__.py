"""The engine for a Kubernetes cluster: each container is the pod of one `batch/v1` Job.

See docs/adr/0034-one-job-object-per-job.md.
"""

from jobs.engine.kubernetes.cluster_settings import ClusterSettings
from jobs.engine.kubernetes.kubernetes_engine import KubernetesEngine

__all__ = ["ClusterSettings", "KubernetesEngine"]
