"""The log of an ended process whose node does not send it: for a moment after a restart, or for good."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.engine.kubernetes import KubernetesEngine
from jobs.engine.protocol import START_OF_LOG
from jobs.errors import EngineRefused, EngineUnavailable, Interrupted
from jobs.interrupt import Interrupt
from orchestrator_site.base.intervals import EngineIntervals
from tests.helpers.log_frames import flat
from tests.helpers.waiting import wait_for
from tests.jobs.engine.kubernetes.scripted_api import ENDED, RUNNING, ScriptedApi, engine_of, job, pod

pytestmark = pytest.mark.stateless

LOG = b"2026-01-01T00:00:02.000000000Z one\n"
NOT_SENT = [
    (200, b"unable to retrieve container logs for containerd://1a2b"),  # Kubernetes 1.30
    (400, {"message": "unable to retrieve container logs for containerd://1a2b"}),
    (404, {"message": "the server could not find the requested resource ( pods/log one-pod)"}),
]
NODE_IS_AWAY = (500, {"message": "dial tcp 10.0.0.1:10250: connect: connection refused"})

Answer = tuple[int, dict[str, Any] | bytes]


@pytest.fixture
def api() -> Iterator[ScriptedApi]:
    api = ScriptedApi()
    api.objects = {"jobs": [job("one", 5)], "pods": [pod("one", 6, ENDED)]}
    yield api
    api.close()


def engine_with(api: ScriptedApi, directory: Path, *, patience: float) -> Any:
    return engine_of(api, directory, EngineIntervals(cluster_log=patience, cluster_log_retry=0.01))


def answers(api: ScriptedApi, answer: Answer) -> None:
    api.answers[("GET", "/log")] = answer


def read(engine: KubernetesEngine, interrupt: Interrupt | None = None, *, follow: bool = False) -> list[bytes]:
    with engine.logs("one", skip=0, follow=follow, interrupt=interrupt or Interrupt(), after=START_OF_LOG) as frames:
        return [frame.data for frame in flat(list(frames))]


@pytest.mark.parametrize("answer", NOT_SENT)
def test_a_log_that_its_node_does_not_send_for_long_is_lost(api: ScriptedApi, tmp_path: Path, answer: Answer) -> None:
    answers(api, answer)

    # I expect the reader to be told that there will be no more, so that the job goes on without the rest of its log
    with engine_with(api, tmp_path, patience=0.2) as engine, pytest.raises(EngineRefused, match="counts as lost"):
        read(engine)

    assert api.count("GET", "log") > 2


@pytest.mark.parametrize("answer", NOT_SENT)
def test_a_log_that_its_node_sends_again_is_read(api: ScriptedApi, tmp_path: Path, answer: Answer) -> None:
    # Given a node whose kubelet and container runtime have just started
    answers(api, answer)
    seen: list[bytes] = []
    with engine_with(api, tmp_path, patience=60) as engine:
        reader = threading.Thread(target=lambda: seen.extend(read(engine)), daemon=True)
        reader.start()
        wait_for(lambda: api.count("GET", "log") > 2, what="the reader to try again")

        answers(api, (200, LOG))

        reader.join(10)
    assert seen == [b"one\n"]


def test_a_node_that_does_not_answer_is_waited_for_without_a_bound(api: ScriptedApi, tmp_path: Path) -> None:
    # Given one that answers nothing, which may have the log
    answers(api, NODE_IS_AWAY)

    with engine_with(api, tmp_path, patience=0) as engine, pytest.raises(EngineUnavailable):
        read(engine)


@pytest.mark.parametrize("state", [RUNNING, ENDED])
def test_a_follower_looks_after_its_process_meanwhile(api: ScriptedApi, tmp_path: Path, state: dict[str, Any]) -> None:
    api.objects["pods"] = [pod("one", 6, state)]
    answers(api, NOT_SENT[0])

    with engine_with(api, tmp_path, patience=60) as engine, pytest.raises(EngineUnavailable):
        read(engine, follow=True)

    assert api.count("GET", "log") == 1


def test_a_wait_for_a_log_can_be_interrupted(api: ScriptedApi, tmp_path: Path) -> None:
    answers(api, NOT_SENT[0])
    interrupt = Interrupt()
    ends: list[type[Exception]] = []

    def wait(engine: KubernetesEngine) -> None:
        try:
            read(engine, interrupt)
        except Exception as error:
            ends.append(type(error))

    with engine_with(api, tmp_path, patience=60) as engine:
        reader = threading.Thread(target=wait, args=(engine,), daemon=True)
        reader.start()
        wait_for(lambda: api.count("GET", "log") > 2, what="the reader to try again")

        interrupt.wake()

        reader.join(10)
    assert ends == [Interrupted]
