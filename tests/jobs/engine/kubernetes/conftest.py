from collections.abc import Iterator

import pytest

from tests.jobs.engine.kubernetes.scripted_api import ScriptedApi, job


@pytest.fixture
def api() -> Iterator[ScriptedApi]:
    """An API server with one Job, `one`."""
    api = ScriptedApi()
    api.objects["jobs"] = [job("one", 5)]
    yield api
    api.close()
