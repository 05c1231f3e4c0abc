"""What a request may do, and with the jobs of which namespaces."""

from dataclasses import dataclass

from django.utils.crypto import salted_hmac

from orchestrator_site.base.access.made_keys import BEGINNING
from orchestrator_site.base.access.models import DEFAULT, Namespace


class OtherNamespace(Exception):
    """The key belongs to another namespace."""


@dataclass(frozen=True, slots=True)
class Access:
    """What an API key allows. `key` identifies it without telling it."""

    namespace: str | None  # None: all
    read_only: bool = False
    key: str = ""

    @property
    def client(self) -> str:
        """A public name of the key, which may be stored and shown; empty if none is required.

        The name of a key in API_KEY_FILE depends on SECRET_KEY: such a key may be one that people can guess, by its digest, too.
        """
        if not self.key or self.key.startswith(BEGINNING):
            return self.key
        return f"file_{salted_hmac('orchestrator.client', self.key, algorithm='sha256').hexdigest()[:16]}"

    def scope(self, asked: str | None) -> str | None:
        """Return the namespace of a request that asks for one, or for none; None stands for all.

        Raise `OtherNamespace` if the key does not belong to it, whether it exists or not.
        """
        if self.namespace is None:
            return asked
        if asked not in (None, self.namespace):
            raise OtherNamespace
        return self.namespace

    @property
    def sharer(self) -> str | None:
        """The namespace, if it has to share with others; None if there is no other, or the key is for all."""
        return None if self.sees_what_is_shared else self.namespace

    @property
    def sees_what_is_shared(self) -> bool:
        """Whether it may see and change what all namespaces share: no other namespace exists, or the key is for all."""
        return self.namespace is None or not Namespace.objects.exclude(name=self.namespace).exists()


EVERYTHING = Access(namespace=None)  # if no key is required


def names() -> list[str]:
    """Return the names of all namespaces."""
    return sorted({DEFAULT, *Namespace.objects.values_list("name", flat=True)})


def exists(namespace: str) -> bool:
    """Return whether there is such a namespace; there is always the one of what belongs to no other."""
    return namespace == DEFAULT or Namespace.objects.filter(name=namespace).exists()
