"""Makes the engine that the configuration names. Only a worker imports this, and with it the SDK of that engine."""

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Protocol

from jobs.engine.protocol import Engine
from orchestrator_site.base.intervals import EngineIntervals

Network = IPv4Network | IPv6Network


class EngineSettings(Protocol):
    """The part of the configuration that concerns the engine."""

    @property
    def engine(self) -> str: ...

    @property
    def docker_host(self) -> str: ...

    @property
    def job_network_deny(self) -> tuple[Network, ...] | None: ...

    @property
    def job_runtime(self) -> str: ...

    @property
    def kubeconfig(self) -> str: ...

    @property
    def kube_context(self) -> str: ...

    @property
    def kube_namespace(self) -> str: ...

    @property
    def kube_pod_template(self) -> Path | None: ...

    @property
    def kube_helper_image(self) -> str: ...

    @property
    def pull_timeout(self) -> float: ...

    @property
    def transfer_timeout(self) -> float: ...


def make_engine(settings: EngineSettings, intervals: EngineIntervals = EngineIntervals()) -> Engine:
    """Return the engine that this worker drives, not yet connected. Raise `EngineRefused` if it cannot be set up so."""
    return _cluster(settings, intervals) if settings.engine == "kubernetes" else _docker(settings, intervals)


# Each imports its engine late: the SDK of a cluster costs a second and 35 MB, which a worker with Docker need not pay.


def _docker(settings: EngineSettings, intervals: EngineIntervals) -> Engine:
    from jobs.engine.docker import DockerEngine

    return DockerEngine(settings.docker_host, intervals, settings.job_network_deny, runtime=settings.job_runtime)


def _cluster(settings: EngineSettings, intervals: EngineIntervals) -> Engine:
    from jobs.engine.kubernetes import ClusterSettings, KubernetesEngine

    chosen = ClusterSettings(
        kubeconfig=settings.kubeconfig,
        context=settings.kube_context,
        namespace=settings.kube_namespace,
        pod_template=settings.kube_pod_template,
        helper_image=settings.kube_helper_image,
        runtime=settings.job_runtime,
        pull_timeout=settings.pull_timeout,
        transfer_timeout=settings.transfer_timeout,
    )
    return KubernetesEngine(chosen, intervals)
