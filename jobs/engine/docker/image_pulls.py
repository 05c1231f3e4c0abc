"""Images on the engine, and pulling them."""

import copy
import json
import logging
import re
from collections.abc import Callable
from typing import Any, Final

import requests
from docker.auth import encode_header, load_config
from docker.errors import DockerException

from jobs.engine import image_errors
from jobs.engine.answer_stream import ByteStream
from jobs.engine.docker.daemon_restarts import DaemonRestarts
from jobs.engine.docker.transport import EngineAnswer, EngineClient, is_engine_trouble_in_pull, quoted
from jobs.engine.protocol import PullPolicy, RegistryCheck
from jobs.engine.pullable_reference import DOCKER_HUB, Reference, parse_reference
from jobs.engine.shared_pulls import SharedPulls
from jobs.errors import EngineUnavailable, ImageUnavailable, JobError
from jobs.interrupt import Interrupt

logger = logging.getLogger(__name__)

_NO_ROOM: Final = "the engine's disk is almost full, so no image is pulled"
_MAX_PROGRESS_LINE_BYTES: Final = 256 * 1024
_MAX_CONFIGURATION_BYTES: Final = 128 * 1024  # as JSON: environment, labels, command, user
_MAX_FOUND: Final = 1000  # references that are remembered
_ARCHITECTURE: Final = re.compile(r"[a-z0-9_]{1,20}")  # an image may contain anything here


class _PullBrokeOff(ImageUnavailable):
    """The pull failed after it had begun."""


class Images:
    """The images of one engine."""

    def __init__(self, client: EngineClient, restarts: DaemonRestarts, has_room: Callable[[], bool]) -> None:
        """`has_room` returns whether the engine's disk has room for images. It is asked often."""
        self._client = client
        self._has_room = has_room
        self._restarts = restarts
        self._pulls = SharedPulls()
        self._found: set[str] = set()  # references of images that were on the engine when they were last looked for

    def using(self, client: EngineClient) -> "Images":
        """Return the same images, requested through another client."""
        images = copy.copy(self)
        images._client = client
        return images

    def needs_pull(self, image: str, policy: PullPolicy) -> bool:
        """See `Engine.needs_pull`."""
        reference = parse_reference(image)
        return policy == "always" or not (reference.text in self._found or self._is_here(reference))

    def ensure(self, image: str, policy: PullPolicy, timeout: float, interrupt: Interrupt, check_registry: RegistryCheck) -> None:
        """See `Engine.ensure_image`."""
        reference = parse_reference(image)
        interrupt.check()
        if policy != "always" and self._is_here(reference):
            return
        if policy == "never":
            raise ImageUnavailable(image_errors.never_pulled(reference.text))

        def pull(abort: Interrupt) -> None:
            check_registry(reference)
            self._pull(reference, abort)

        self._pulls.share(reference.text, pull, timeout, interrupt)
        self._is_here(reference)  # raises if its configuration is too large

    def forget(self, image: str) -> None:
        """Look for an image again the next time, because it is not on the engine any more."""
        self._found.discard(parse_reference(image).text)

    def own_command(self, image: str) -> tuple[str, tuple[str, ...]]:
        """Return the id of an image on the engine, and its default command. Raise `ImageUnavailable`."""
        reference = parse_reference(image)
        inspected = self._inspect(reference)
        if inspected is None:
            raise ImageUnavailable(image_errors.not_on_engine(reference.text))
        configuration = inspected.get("Config") or {}
        entrypoint = configuration.get("Entrypoint") or []
        if entrypoint == [""]:  # how a Dockerfile removes that of its base image
            entrypoint = []
        return inspected["Id"], (*entrypoint, *(configuration.get("Cmd") or []))

    def size(self, image: str) -> int:
        """Return the size in bytes of an image on the engine; 0 if it has none of this name."""
        return int((self._inspect(parse_reference(image)) or {}).get("Size") or 0)

    def architecture(self, image_id: str) -> str:
        """Return Docker's name for the architecture of that image, empty if it is unknown."""
        answer = self._client.exchange("GET", f"/images/{quoted(image_id)}/json")
        name = "" if answer.failed else str(answer.data.get("Architecture") or "")
        return name if _ARCHITECTURE.fullmatch(name) else ""

    def _is_here(self, reference: Reference) -> bool:
        return self._inspect(reference) is not None

    def _inspect(self, reference: Reference) -> dict[str, Any] | None:
        """Return the engine's description of an image, None if it has no such image, and remember which of the two.

        Raise `ImageUnavailable` if its configuration is too large, since every `inspect` of its containers would contain it.
        """
        answer = self._client.exchange("GET", f"/images/{quoted(reference.text)}/json")
        if answer.status == 404:
            self._found.discard(reference.text)
            return None
        if answer.failed:
            raise answer.error()
        inspected: dict[str, Any] = answer.data
        if len(json.dumps(inspected.get("Config"))) > _MAX_CONFIGURATION_BYTES:
            limit = _MAX_CONFIGURATION_BYTES // 1024
            self._found.discard(reference.text)
            raise ImageUnavailable(f"the configuration of the image {reference.text} is larger than {limit} KiB")
        if len(self._found) >= _MAX_FOUND:
            self._found.clear()
        self._found.add(reference.text)
        return inspected

    def _pull(self, reference: Reference, abort: Interrupt) -> None:
        """Pull an image. See docs/adr/0013-image-pulls-are-guarded.md for what happens if the engine restarts meanwhile."""
        restarts = self._restarts.bound(abort)
        incarnation = restarts.incarnation()
        for attempt in (1, 2):
            try:
                self._pull_once(reference, abort)
            except ImageUnavailable as error:
                if restarts.incarnation() != incarnation:
                    raise EngineUnavailable(f"the engine was restarted during a pull: {error}") from error
                if attempt == 2 or not isinstance(error, _PullBrokeOff):
                    raise
                logger.warning("the pull of %s broke off, trying again: %s", reference.text, error)
            else:
                return

    def _pull_once(self, reference: Reference, abort: Interrupt) -> None:
        params = {"fromImage": reference.text}
        with self._client.bound(abort).stream(
            "POST", "/images/create", params=params, headers=_credentials(reference), timeout=self._client.intervals.long_call
        ) as response:
            if isinstance(response, EngineAnswer):
                raise _failure(response.message, reference)
            self._follow(response, reference, abort)

    def _follow(self, response: requests.Response, reference: Reference, abort: Interrupt) -> None:
        """Read the progress to its end, and raise the error that it reports."""
        begun = False
        for line in ByteStream(response.raw, abort, self._client.intervals).lines(_MAX_PROGRESS_LINE_BYTES):
            if error := _reported_error(line):
                failure = _failure(error, reference)
                raise _PullBrokeOff(str(failure)) if begun and isinstance(failure, ImageUnavailable) else failure
            if not self._has_room():  # an image may be of any size, which its registry does not tell
                raise EngineUnavailable(_NO_ROOM)
            begun = True


def _failure(message: str, reference: Reference) -> JobError:
    """Return what the engine's message about a failed pull means.

    Its status does not help: it is 500 both for a registry that is down and for an engine whose disk is full.
    """
    if is_engine_trouble_in_pull(image_errors.engine_text(message, reference)):
        return EngineUnavailable(message)
    logger.warning("the engine could not pull %s: %s", reference.text, message)
    return ImageUnavailable(image_errors.explain(message, reference.text))


def _reported_error(line: bytes) -> str:
    """Return the error in one line of progress, or an empty string."""
    try:
        progress = json.loads(line)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(progress, dict):
        return ""
    detail = progress.get("errorDetail")
    error = (detail.get("message") if isinstance(detail, dict) else None) or progress.get("error") or ""
    return str(error)[:1000]


def _credentials(reference: Reference) -> dict[str, str]:
    """Return a header with the registry's credentials, read again for each pull because tokens are renewed.

    If they cannot be read, pull without them as Docker's own client does: most images are public.
    """
    try:
        found = load_config().resolve_authconfig(reference.registry if reference.registry != DOCKER_HUB else None)
    except (DockerException, OSError, ValueError) as error:
        logger.warning(
            "the credentials for %s cannot be read from the Docker config: %s", reference.registry, type(error).__name__
        )
        return {}
    return {"X-Registry-Auth": encode_header(found).decode()} if found else {}
