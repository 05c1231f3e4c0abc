"""API keys of the tests, and requests with them."""

from typing import Any

from orchestrator_site.base.access import limits, made_keys
from orchestrator_site.base.access.models import Namespace


def make_key(namespace: str | None, **options: Any) -> str:
    """Make a key for a namespace, which is created if it does not exist, or for all."""
    if namespace is not None:
        Namespace.objects.get_or_create(name=namespace)
    return made_keys.make(**({"name": "test", "namespace": namespace} | options))[1]


def make_namespace(name: str, **values: int) -> str:
    """Make a namespace, or give the one that exists these limits. They count at once."""
    Namespace.objects.update_or_create(name=name, defaults=values)
    limits.kept.forget()
    return name


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
