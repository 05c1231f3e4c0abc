"""How the operator has set up the engine."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """The part of the configuration that concerns the cluster. Times are in seconds."""

    pull_timeout: float
    transfer_timeout: float
    kubeconfig: str = ""
    context: str = ""
    namespace: str = ""
    pod_template: Path | None = None
    helper_image: str = ""
    runtime: str = ""
