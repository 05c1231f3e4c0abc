"""The networks of jobs. What they are is the cluster's affair; a ConfigMap records that an installation has made one.

So the worker notices a cluster that was set up again, and two installations in one namespace are told apart.
"""

import copy
import uuid
from collections.abc import Iterable
from typing import Final

from jobs.engine.kubernetes.api.cluster_client import ClusterClient
from jobs.engine.kubernetes.api.cluster_objects import JobAndPod
from jobs.engine.kubernetes.names import NETWORK_NAME_LABEL
from jobs.errors import ContainerConflict, EngineUnavailable, NetworkMissing

_ID_LABEL: Final = "orchestrator.network-id"


class Networks:
    """The networks of one namespace. Thread-safe."""

    def __init__(self, client: ClusterClient) -> None:
        self._client = client
        self._known: dict[str, str] = {}  # ids of networks that were found, by their names

    def using(self, client: ClusterClient) -> "Networks":
        """Return the same networks, asked for through another client."""
        networks = copy.copy(self)
        networks._client = client
        return networks

    def create(self, name: str, labels: dict[str, str]) -> str:
        """See `Engine.create_network`."""
        network_id = uuid.uuid4().hex
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "labels": {**labels, _ID_LABEL: network_id}},
            "immutable": True,
        }
        self._client.call("POST", self._client.core("configmaps"), body=body)
        self._known[name] = network_id
        return network_id

    def find(self, network_id: str) -> str | None:
        """See `Engine.find_network`."""
        return self.list({_ID_LABEL: network_id}).get(network_id)

    def list(self, labels: dict[str, str]) -> dict[str, str]:
        """See `Engine.list_networks`."""
        selector = ",".join((_ID_LABEL, *(f"{name}={value}" for name, value in labels.items())))
        found = self._client.call("GET", self._client.core("configmaps"), params={"labelSelector": selector})
        networks = {str(one["metadata"]["labels"][_ID_LABEL]): str(one["metadata"]["name"]) for one in found["items"]}
        self._known.update({name: network_id for network_id, name in networks.items()})
        return networks

    def remove(self, network_id: str, containers: Iterable[JobAndPod]) -> None:
        """See `Engine.remove_network`. `containers` are those that run, or may."""
        name = self.find(network_id)
        if name is None:
            return
        if any(found.job["metadata"]["labels"].get(NETWORK_NAME_LABEL) == name for found in containers):
            raise ContainerConflict(f"a container uses the network {name}")
        self._known.pop(name, None)
        answer = self._client.exchange("DELETE", self._client.core("configmaps", name))
        if answer.failed and answer.status != 404:
            raise answer.error()

    def require(self, name: str) -> None:
        """Raise `NetworkMissing` if there is no network of this name. One that was found once is not looked for again."""
        if name in self._known:
            return
        answer = self._client.exchange("GET", self._client.core("configmaps", name))
        if answer.status == 404:
            raise NetworkMissing(f"the network {name} was not found")
        if answer.failed:
            raise EngineUnavailable(answer.message)
        self._known[name] = answer.data["metadata"]["labels"].get(_ID_LABEL, "")
