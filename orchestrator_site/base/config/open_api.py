"""Whether other machines can call the API without a key, as the embedded mode permits."""

from ipaddress import ip_address

from orchestrator_site.base.config.configuration import Configuration


def open_api_warning(configuration: Configuration) -> str:
    """Return a sentence that says so, or an empty string if each call needs a key or comes from this machine."""
    if configuration.api_auth_required or _is_loopback(configuration.host):
        return ""
    return f"API_AUTH is off and HOST is {configuration.host}: other machines can run containers and read all jobs without a key"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"
