"""Having an image on the engine, pulled where that is asked for."""

import copy
import json
import logging
import re
from typing import Final

import requests
from docker.auth import encode_header, load_config
from docker.errors import DockerException

from jobs.engine.docker.daemon_restarts import Restarts
from jobs.engine.docker.transport.answer_stream import ByteStream
from jobs.engine.docker.transport.api_client import LONG, EngineAnswer, EngineConnection, is_trouble_in_pull, quoted
from jobs.engine.protocol import PullPolicy, RegistryCheck
from jobs.engine.pullable_reference import DOCKER_HUB, Reference, parse_reference
from jobs.engine.registry_errors import engines_own, explain
from jobs.engine.shared_pulls import SharedPulls
from jobs.errors import EngineUnavailable, ImageUnavailable, JobError
from jobs.interrupt import Interrupt

logger = logging.getLogger(__name__)

_LONGEST_LINE: Final = 256 * 1024
_LARGEST_CONFIGURATION: Final = 128 * 1024  # bytes as JSON: environment, labels, command, user
_ARCHITECTURE: Final = re.compile(r"[a-z0-9_]{1,20}")  # an image may claim anything


class _BrokenOff(ImageUnavailable):
    """The pull failed after its first progress."""


class Images:
    """The images of one engine."""

    def __init__(self, connection: EngineConnection, restarts: Restarts) -> None:
        self._connection = connection
        self._restarts = restarts
        self._pulls = SharedPulls()

    def on(self, connection: EngineConnection) -> "Images":
        """The same images, asked for over another connection."""
        images = copy.copy(self)
        images._connection = connection
        return images

    def ensure(self, image: str, policy: PullPolicy, timeout: float, interrupt: Interrupt, check_registry: RegistryCheck) -> None:
        """See `Engine.ensure_image`."""
        reference = parse_reference(image)
        interrupt.check()
        if policy != "always" and self._is_here(reference):
            return
        if policy == "never":
            raise ImageUnavailable(f"{reference.text} is not on the engine, and the pull policy is never")

        def pull(abort: Interrupt) -> None:
            check_registry(reference)
            self._pull(reference, abort)

        self._pulls.share(reference.text, pull, timeout, interrupt)
        self._is_here(reference)  # whatever came may be too large

    def own_command(self, image: str) -> tuple[str, tuple[str, ...]]:
        """Return the id of an image on the engine, and the command that it runs by default. Raises `ImageUnavailable`."""
        reference = parse_reference(image)
        answer = self._connection.exchange("GET", f"/images/{quoted(reference.text)}/json")
        if answer.status == 404:
            raise ImageUnavailable(f"the image {reference.text} is not on the engine")
        if answer.failed:
            raise answer.error()
        configuration = answer.data.get("Config") or {}
        entrypoint = configuration.get("Entrypoint") or []
        if entrypoint == [""]:  # how a Dockerfile takes back that of its base
            entrypoint = []
        return answer.data["Id"], (*entrypoint, *(configuration.get("Cmd") or []))

    def architecture(self, image_id: str) -> str:
        """Return Docker's name for the architecture of that image, empty if it is unknown."""
        answer = self._connection.exchange("GET", f"/images/{quoted(image_id)}/json")
        said = "" if answer.failed else str(answer.data.get("Architecture") or "")
        return said if _ARCHITECTURE.fullmatch(said) else ""

    def _is_here(self, reference: Reference) -> bool:
        """Raises `ImageUnavailable` where it is, but too large a configuration would come with each look at its containers."""
        answer = self._connection.exchange("GET", f"/images/{quoted(reference.text)}/json")
        if answer.failed and answer.status != 404:
            raise answer.error()
        if not answer.failed and len(json.dumps(answer.data.get("Config"))) > _LARGEST_CONFIGURATION:
            limit = _LARGEST_CONFIGURATION // 1024
            raise ImageUnavailable(f"the configuration of the image {reference.text} is larger than {limit} KiB")
        return not answer.failed

    def _pull(self, reference: Reference, abort: Interrupt) -> None:
        """Pull it. What an engine that is restarted says of that is not the registry's, whatever the words.

        Of a restart of its containerd alone the engine cannot be asked. It breaks off pulls that have begun: these get
        a second try, and what a registry says for good it says again.
        """
        restarts = self._restarts.bound(abort, None)
        incarnation = restarts.incarnation()
        for attempt in (1, 2):
            try:
                self._pull_once(reference, abort)
            except ImageUnavailable as error:
                if restarts.incarnation() != incarnation:
                    raise EngineUnavailable(f"the engine was restarted during a pull: {error}") from error
                if attempt == 2 or not isinstance(error, _BrokenOff):
                    raise
                logger.warning("the pull of %s broke off and is tried again: %s", reference.text, error)
            else:
                return

    def _pull_once(self, reference: Reference, abort: Interrupt) -> None:
        params = {"fromImage": reference.text}
        with self._connection.bound(abort).stream(
            "POST", "/images/create", params=params, headers=_credentials(reference), timeout=LONG
        ) as response:
            if isinstance(response, EngineAnswer):
                raise _failure(response.message, reference)
            self._follow(response, reference, abort)

    @staticmethod
    def _follow(response: requests.Response, reference: Reference, abort: Interrupt) -> None:
        """Read the progress to its end; raise the error that it reports."""
        begun = False
        for line in ByteStream(response, abort).lines(_LONGEST_LINE):
            if error := _reported_error(line):
                failure = _failure(error, reference)
                raise _BrokenOff(str(failure)) if begun and isinstance(failure, ImageUnavailable) else failure
            begun = True


def _failure(message: str, reference: Reference) -> JobError:
    """What the engine's words about a failed pull mean.

    Its status does not tell: it answers 500 for a registry that is away as for a disk of its own that is full.
    """
    if is_trouble_in_pull(engines_own(message, reference)):
        return EngineUnavailable(message)
    logger.warning("the engine could not pull %s: %s", reference.text, message)
    return ImageUnavailable(explain(message, reference.text))


def _reported_error(line: bytes) -> str:
    """The error of one line of progress, empty where it reports none."""
    try:
        progress = json.loads(line)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(progress, dict):
        return ""
    detail = progress.get("errorDetail")
    said = (detail.get("message") if isinstance(detail, dict) else None) or progress.get("error") or ""
    return str(said)[:1000]


def _credentials(reference: Reference) -> dict[str, str]:
    """The header with this registry's credentials; read anew for each pull, since tokens are renewed.

    Where they cannot be read the pull goes on without, as Docker's own client does: most images are public.
    """
    try:
        found = load_config().resolve_authconfig(reference.registry if reference.registry != DOCKER_HUB else None)
    except (DockerException, OSError, ValueError) as error:
        logger.warning("the Docker config's credentials for %s cannot be read: %s", reference.registry, type(error).__name__)
        return {}
    return {"X-Registry-Auth": encode_header(found).decode()} if found else {}
