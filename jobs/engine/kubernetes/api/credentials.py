"""Which cluster the engine talks to, which namespace, and as whom."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from kubernetes import client, config

from jobs.errors import EngineRefused

_POD_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_NO_CREDENTIALS: Final = "KUBECONFIG is not set, and the worker does not run in a pod with a service account: set it"


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach one cluster."""

    configuration: client.Configuration
    namespace: str
    name: str  # of the cluster, for people
    own_namespace: str = ""  # of the worker's pod, if it runs in the cluster


def load(kubeconfig: str, context: str, namespace: str) -> Connection:
    """Read the credentials, given KUBECONFIG, KUBE_CONTEXT and KUBE_NAMESPACE. Do not connect.

    Raise `EngineRefused` if there are none, or if they cannot be used.
    """
    configuration = client.Configuration()
    try:
        if kubeconfig:
            return _from_files(configuration, kubeconfig, context, namespace)
        config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException as error:
        if not kubeconfig and "KUBERNETES_SERVICE_HOST" not in os.environ:
            raise EngineRefused(_NO_CREDENTIALS) from error
        raise EngineRefused(
            f"{'KUBECONFIG' if kubeconfig else 'the service account of the pod'} cannot be used: {error}"
        ) from error
    own = _POD_NAMESPACE.read_text().strip()
    chosen = namespace or own
    return Connection(configuration, chosen, f"kubernetes/{chosen}", own)


def _from_files(configuration: client.Configuration, kubeconfig: str, context: str, namespace: str) -> Connection:
    try:
        contexts, current = config.list_kube_config_contexts(kubeconfig)
        chosen = next((one for one in contexts if one["name"] == context), None) if context else current
        if chosen is None:
            raise EngineRefused(f"KUBE_CONTEXT is not the name of a context in KUBECONFIG: {context}")
        config.load_kube_config(kubeconfig, context=context or None, client_configuration=configuration)
    except OSError as error:
        raise EngineRefused(f"KUBECONFIG cannot be read: {error}") from error
    except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:  # whose text may have a part of the file
        raise EngineRefused("KUBECONFIG is not a configuration as for kubectl, in YAML") from error
    described: dict[str, Any] = chosen["context"]
    own = namespace or described.get("namespace") or "default"
    return Connection(configuration, own, f"{described['cluster']}/{own}")
