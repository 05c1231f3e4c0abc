"""A `deliver` process ends between sending an event and storing the result."""

import threading
from typing import Any

import pytest

from tests.helpers.receiver import Answer, Received, Receiver
from tests.helpers.service_processes import Service
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.production, pytest.mark.timeout(180)]
KEY = "key"
EXIT, COMPLETE = "orchestrator.job.exit", "orchestrator.job.complete"


@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_an_event_is_sent_again_in_order_and_the_attempt_is_recorded(service: Service, end: str) -> None:
    taken, released = threading.Event(), threading.Event()

    def respond(received: Received) -> Answer:
        if received is receiver.requests[0]:
            taken.set()
            released.wait(120)
        return Answer()

    with Receiver() as receiver:
        # Given a job that was cancelled before it ran, and a receiver that got its exit event and has not answered
        receiver.respond = respond
        for kind in ("web", "relay", "deliver"):
            service.start(kind)
        job = service.post_job(callback={"url": receiver.url, "key": KEY})
        assert service.request("DELETE", f"/v1/jobs/{job}").status_code == 204
        assert taken.wait(30)

        # When the process that sent it ends, and another starts
        getattr(service, end)("deliver")
        service.start("deliver")

        # I expect the same event again, and then the next
        receiver.wait_for(3, timeout=90)
        released.set()
        first, again, following = receiver.requests
        assert [received.json["type"] for received in (first, again, following)] == [EXIT, EXIT, COMPLETE]
        assert first.body == again.body
        assert first.headers["webhook-id"] == again.headers["webhook-id"]
        for received in receiver.requests:
            received.verify(KEY)

        # And both attempts to be recorded, the one that was cut off without blaming the receiver
        def delivered() -> list[dict[str, Any]] | None:
            events: list[dict[str, Any]] = service.request("GET", f"/v1/jobs/{job}/events").json()["events"]
            return events if all(event["state"] == "delivered" for event in events) else None

        exit_, complete = wait_for(delivered, what="both events to be delivered")
        cut_off, good = exit_["attempts"]
        assert cut_off["error"].startswith("interrupted")
        assert "status" not in cut_off
        assert good["status"] == 200
        assert [attempt["status"] for attempt in complete["attempts"]] == [200]
