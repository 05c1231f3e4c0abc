"""The errors of outgoing requests. `str(error)` is one sentence without userinfo, query or header values."""


class EgressError(Exception):
    """Base of the errors of outgoing requests."""


class EgressDenied(EgressError):
    """The request itself is at fault: its host may not be reached, or it is invalid."""


class EgressFailed(EgressError):
    """The server could not be reached, violated HTTP or TLS, or was too slow."""

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


class ServiceFailed(EgressFailed):
    """Something that the service itself needs is at fault, which says nothing about the server."""


class ProxyFailed(ServiceFailed):
    """The proxy of EGRESS_PROXY is at fault."""
