"""A worker is killed while its jobs transfer files with very slow servers."""

import pytest

from tests.helpers.fileserver import FileServer, drip, drip_body
from tests.helpers.service_processes import Service

pytestmark = [pytest.mark.engine, pytest.mark.production, pytest.mark.long, pytest.mark.timeout(180)]

THREADS = 4
JOBS = 4  # of each kind
MAX_REQUESTS = 1000
SMALL = {"cpu": 0.01, "memory": 8}


def test_a_worker_is_killed_amid_slow_transfers(service: Service) -> None:
    with FileServer() as server:
        # Given a worker whose transfer threads all wait for servers that send a byte now and then
        received = server.serve("/in", b"hello")
        server.fault("/in", *[drip_body] * MAX_REQUESTS)
        sent = server.fault("/out", *[drip] * MAX_REQUESTS)
        for kind in ("web", "relay"):
            service.start(kind)
        service.start("worker", WORKER_THREADS=str(THREADS))
        outputs = [{"type": "upload", "path": "out", "url": sent}] * 3
        uploading = [service.post_job(command="echo x > out; exit 3", outputs=outputs, **SMALL) for _ in range(JOBS)]
        inputs = [{"type": "download", "path": "in", "url": received}]
        downloading = [service.post_job(command="cat in", inputs=inputs, **SMALL) for _ in range(JOBS)]
        for _ in range(THREADS):
            assert server.hanging.acquire(timeout=60)

        # I expect another job to run
        assert service.wait_complete(service.post_job(command="echo good", **SMALL))["status"] == "completed"

        # When a job whose process has ended is cancelled, and the worker is killed
        assert service.request("DELETE", f"/v1/jobs/{uploading[0]}").status_code == 204
        service.kill("worker")
        server.heal("/in")
        server.heal("/out")
        service.restart("worker")

        # I expect the others to end as if nothing had happened
        for job in downloading:
            ended = service.wait_complete(job)
            assert (ended["status"], [one["status"] for one in ended["inputs"]]) == ("completed", ["success"])
        for job in uploading[1:]:
            ended = service.wait_complete(job)
            assert (ended["exitCode"], [one["status"] for one in ended["outputs"]]) == (3, ["success"] * 3)

        # And the cancelled one to have sent nothing more
        ended = service.wait_complete(uploading[0])
        assert (ended["status"], ended["exitCode"]) == ("failed", 3)
        assert {one["status"] for one in ended["outputs"]} <= {"failed", "skipped"}
