"""Keys of ENCRYPTION_KEYS, and jobs with secrets that one of them has encrypted."""

from dataclasses import replace
from typing import Any

from environment import random_key

from jobs.models import Job
from jobs.spec import CallbackSpec, InputSpec, OutputSpec
from jobs.states import InputType, OutputType
from tests.helpers.factories import make_job

OLD, NEW, LOST = (random_key() for _ in range(3))

# A job with a value in each encrypted column.
SECRETS: dict[str, Any] = {
    "environment": {"TOKEN": "secret"},
    "inputs": (
        InputSpec(id="in", type=InputType.FILE, path="in", content=b"secret"),
        InputSpec(id="down", type=InputType.DOWNLOAD, path="down", url="http://h.example/?secret", headers={"X": "secret"}),
    ),
    "outputs": (OutputSpec(id="up", type=OutputType.UPLOAD, path="up", url="http://h.example/?secret", headers={"X": "secret"}),),
    "callback": CallbackSpec(url="http://h.example/?secret", keys=("secret", "older secret"), headers={"X": "secret"}),
}


def use_keys(settings: Any, *keys: str) -> None:
    """Continue as a process with these ENCRYPTION_KEYS."""
    settings.CONFIGURATION = replace(settings.CONFIGURATION, encryption_keys=keys)


def make_secret_job(settings: Any, key: str) -> Job:
    """Make a job whose secrets are encrypted with `key`, whatever the keys are otherwise."""
    usual = settings.CONFIGURATION.encryption_keys
    use_keys(settings, key)
    try:
        return make_job(**SECRETS)
    finally:
        use_keys(settings, *usual)
