"""Networks of one engine."""

import json

from jobs.engine.docker.transport import EngineClient, quoted
from jobs.errors import ContainerConflict, EngineUnavailable


class Networks:
    """The bridge networks of one engine."""

    def __init__(self, client: EngineClient) -> None:
        self._client = client

    def create(self, name: str, labels: dict[str, str]) -> str:
        """See `Engine.create_network`."""
        body = {
            "Name": name,
            "Driver": "bridge",
            "CheckDuplicate": True,
            "Options": {"com.docker.network.bridge.enable_icc": "false"},
            "Labels": labels,
        }
        timeout = self._client.intervals.long_call
        answer = self._client.exchange("POST", "/networks/create", body=body, timeout=timeout)
        if answer.status == 404:  # there are no addresses left for another network, say
            raise EngineUnavailable(answer.message)
        if answer.failed:
            raise answer.error()
        return str(answer.data["Id"])

    def find(self, network_id: str) -> str | None:
        """See `Engine.find_network`."""
        answer = self._client.exchange("GET", f"/networks/{quoted(network_id)}")
        if answer.status == 404:
            return None
        if answer.failed:
            raise answer.error()
        # The engine also accepts names and prefixes of ids here.
        return str(answer.data["Name"]) if answer.data["Id"] == network_id else None

    def list(self, labels: dict[str, str]) -> dict[str, str]:
        """See `Engine.list_networks`."""
        found = self._client.call("GET", "/networks", params=label_filter(labels))
        return {network["Id"]: network["Name"] for network in found or []}

    def remove(self, network_id: str) -> None:
        """See `Engine.remove_network`."""
        timeout = self._client.intervals.long_call
        answer = self._client.exchange("DELETE", f"/networks/{quoted(network_id)}", timeout=timeout)
        if answer.failed and answer.status != 404:
            raise ContainerConflict(answer.message) if answer.status == 403 else answer.error()

    def is_missing(self, name: str) -> bool:
        """Return whether no network has this name. Asked after a failure, whose message differs between engines."""
        return self._client.exchange("GET", f"/networks/{quoted(name)}").status == 404


def label_filter(labels: dict[str, str]) -> dict[str, str]:
    """Return the query parameters that select networks or containers by their labels."""
    return {"filters": json.dumps({"label": [f"{name}={value}" for name, value in labels.items()]})}
