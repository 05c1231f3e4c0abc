"""Requests that schemathesis generates from the OpenAPI document, some valid and some not: the service does what it says."""

from random import Random
from typing import Any, Final

import hypothesis
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import CHECKS

from tests.fuzzing.inputs.local_jobs import keep_here

# Without the check that all requests that fit the document are accepted: JSON Schema has no words for some rules (unique
# paths, sums of sizes).
CHOSEN_CHECKS: Final = [check for check in CHECKS.get_all() if check.__name__ != "positive_data_acceptance"]
_EXAMPLES: Final = 25


class DocumentedAttack:
    """Sends generated requests for one operation after the other."""

    def __init__(self, url: str) -> None:
        schema: Any = schemathesis.openapi.from_url(f"{url}/v1/openapi.json")
        found = [operation.ok() for operation in schema.get_all_operations()]
        self._operations = [operation for operation in found if operation.path.startswith("/v1/")]
        self._session = requests.Session()
        self._session.trust_env = False
        self.statuses: dict[int, int] = {}

    def __call__(self, random: Random) -> int:
        """Send some requests; return their number."""
        operation: Any = random.choice(self._operations)
        mode = random.choice(list(schemathesis.GenerationMode))
        count = 0

        @hypothesis.seed(random.getrandbits(64))
        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(max_examples=_EXAMPLES, database=None, deadline=None, suppress_health_check=list(HealthCheck))
        def send(case: schemathesis.Case) -> None:
            nonlocal count
            count += 1
            keep_here(case.body)
            response = case.call_and_validate(session=self._session, checks=CHOSEN_CHECKS, timeout=40)
            self.statuses[response.status_code] = self.statuses.get(response.status_code, 0) + 1

        send()
        return count
