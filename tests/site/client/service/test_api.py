"""Calls send what the API takes, and answers of anything else are refused in a sentence."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from orchestrator_site.client.errors import ClientError, ServiceRefused
from orchestrator_site.client.service.api import Service
from orchestrator_site.client.service.connection import Connection
from tests.site.client.peers import Peer, Reply, serving

pytestmark = pytest.mark.stateless

Call = Callable[[Service], object]


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    with serving(peer):
        yield peer


@pytest.mark.parametrize(
    "page",
    [
        {},
        {"lines": {}, "next": 0, "complete": True},
        {"lines": ["text"], "next": 0, "complete": True},
        {"lines": [{"seq": "x", "stream": "stdout", "text": ""}], "next": 0, "complete": True},
        {"lines": [], "next": None, "complete": True},
    ],
)
def test_a_page_that_is_not_a_log_is_refused(peer: Peer, page: dict[str, Any]) -> None:
    peer.replies.append(Reply(200, page))

    with pytest.raises(ClientError, match=r"check ORCHESTRATOR_URL"):
        Service(Connection(peer.url, None)).log_page("hello")


@pytest.mark.parametrize("job_id", ["", "..", "a/b", "a?b", ".a", "ä", "a" * 129, "\x1b"])
def test_what_is_not_an_id_is_not_sent(peer: Peer, job_id: str) -> None:
    with pytest.raises(ClientError, match=r"is not the id of a job$"):
        Service(Connection(peer.url, None)).get(job_id)

    assert not peer.requests


@pytest.mark.parametrize("call", [lambda service: service.cancel("hello"), lambda service: service.list_jobs({})])
def test_a_refusal_has_the_sentence_of_the_service(peer: Peer, call: Call) -> None:
    peer.replies.append(Reply(404, {"error": "there is no job with this id"}))

    with pytest.raises(ServiceRefused, match=r"^there is no job with this id$"):
        call(Service(Connection(peer.url, None)))
