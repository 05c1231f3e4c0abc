"""Image references as they are sent to an engine."""

from dataclasses import dataclass

from jobs.errors import ImageUnavailable
from orchestrator_site.base.values.image_references import DEFAULT_TAG, DOCKER_HUB, MalformedReference, read_reference

__all__ = ["DOCKER_HUB", "Reference", "parse_reference"]


@dataclass(frozen=True, slots=True)
class Reference:
    """One image. `text` always has a tag or a digest, because without one it could mean all tags, or an image's id."""

    text: str
    registry: str  # host and port; `docker.io` if the reference names none
    repository: str  # the rest of the name


def parse_reference(text: str) -> Reference:
    """Return the reference in `text`. The default tag is `latest`; a tag is dropped if there is a digest.

    Raise `ImageUnavailable` if it is malformed, since no registry can have such an image.
    """
    try:
        read = read_reference(text)
    except MalformedReference as error:
        raise ImageUnavailable(f"{text[:100]!r} is not an image reference: {error}") from error
    suffix = f"@{read.digest}" if read.digest is not None else f":{read.tag or DEFAULT_TAG}"
    return Reference(text=read.name + suffix, registry=read.registry, repository=read.repository)
