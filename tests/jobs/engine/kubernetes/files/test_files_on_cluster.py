"""Files of jobs on a real cluster: what the contract of all engines does not say."""

import base64
from pathlib import Path

import pytest

from jobs.engine.kubernetes.files.mover_client import PORT
from jobs.engine.kubernetes.states.pod_status import container_state
from jobs.engine.protocol import Stat, User
from jobs.errors import EngineRefused, EngineUnavailable
from jobs.interrupt import Interrupt
from tests.helpers.clusters import KubernetesBench
from tests.helpers.engines import shell, tar_of, untar
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.kubernetes, pytest.mark.stateless]

TOKENS = "/run/orchestrator-tokens"
HELPERS = "$(grep -al '^/dev/orchestrator/mover' /proc/[0-9]*/cmdline | cut -d/ -f3)"


def content(bench: KubernetesBench, name: str, path: str) -> bytes:
    with bench.engine.get(name, path) as chunks:
        ((_, found),) = untar(chunks).values()
    return found


def containers(bench: KubernetesBench, name: str) -> list[str]:
    spec = bench.namespace.pod_of(name)["spec"]
    return [one["name"] for one in (*spec.get("initContainers", ()), *spec["containers"])]


def tokens_of(bench: KubernetesBench, name: str) -> list[bytes]:
    """Return the tokens of a pod, as an operator of the cluster may read them."""
    secrets = bench.namespace.admin("GET", bench.namespace.path("secrets"))["items"]
    (found,) = [secret for secret in secrets if secret["metadata"]["name"].startswith(name)]
    return [base64.b64decode(token) for token in found["data"].values()]


@pytest.mark.parametrize(
    ("has_inputs", "has_outputs", "expected"),
    [(False, False, ["job"]), (True, False, ["inputs", "job"]), (False, True, ["outputs", "job"])],
)
def test_a_pod_has_only_the_helpers_that_it_needs(
    kubernetes_bench: KubernetesBench, has_inputs: bool, has_outputs: bool, expected: list[str]
) -> None:
    name = kubernetes_bench.ended(has_inputs=has_inputs, has_outputs=has_outputs)

    assert containers(kubernetes_bench, name) == expected


def test_outputs_fail_if_the_helpers_image_cannot_be_pulled(kubernetes_bench: KubernetesBench) -> None:
    # Given a job that has run on a node which does not reach the registry of KUBE_HELPER_IMAGE
    bench = kubernetes_bench
    bench.engine.close()
    bench.engine = bench.another_engine(helper_image="127.0.0.1:9/helper:1", pull_timeout=4.0)
    name = bench.ended(shell("echo x > output"), has_inputs=False)

    # I expect its outputs to be waited for, but not without end
    def refusal() -> str:
        try:
            bench.engine.stat(name, "/workspace/output")
        except EngineUnavailable:
            return ""
        except EngineRefused as error:
            return str(error)
        pytest.fail("the helper runs")

    assert "127.0.0.1:9/helper:1 cannot be reached" in wait_for(refusal, timeout=60, what="the bound")
    assert "KUBE_HELPER_IMAGE" in refusal()


def test_the_user_of_an_image_owns_its_inputs(kubernetes_bench: KubernetesBench) -> None:
    # Given an image with a user of its own
    image = kubernetes_bench.image_with(user="nobody")
    name = kubernetes_bench.created(shell("cat input > output; rm input; ls -n output"), image=image)

    # When it gets an input
    user = kubernetes_bench.engine.resolve_user(name)
    kubernetes_bench.engine.put(name, "/workspace", [tar_of("input", b"x", mode=0o600, uid=user.uid, gid=user.gid)])
    kubernetes_bench.start(name)
    kubernetes_bench.engine.wait(name, Interrupt(), timeout=60)

    # I expect that it may read and remove it, and that its output can be read
    assert user == User(65534, 65534)
    assert content(kubernetes_bench, name, "/workspace/output") == b"x"
    assert kubernetes_bench.engine.stat(name, "/workspace/input") is None


def test_a_pod_template_chooses_the_user_of_all(kubernetes_bench: KubernetesBench, tmp_path: Path) -> None:
    template = tmp_path / "template.yaml"
    template.write_text("spec: {securityContext: {runAsUser: 1000, runAsGroup: 1001, runAsNonRoot: true}}")
    kubernetes_bench.engine = kubernetes_bench.another_engine(pod_template=template)
    name = kubernetes_bench.created(shell("cat input > output; id -u >> output"))

    kubernetes_bench.engine.put(name, "/workspace", [tar_of("input", b"x", mode=0o600)])
    kubernetes_bench.start(name)
    kubernetes_bench.engine.wait(name, Interrupt(), timeout=60)

    assert content(kubernetes_bench, name, "/workspace/output") == b"x1000\n"


def test_another_worker_reads_the_outputs(kubernetes_bench: KubernetesBench) -> None:
    name = kubernetes_bench.ended(shell("printf x > output"))

    kubernetes_bench.engine.close()
    kubernetes_bench.engine = kubernetes_bench.another_engine()

    assert content(kubernetes_bench, name, "/workspace/output") == b"x"


def test_a_job_cannot_read_the_tokens(kubernetes_bench: KubernetesBench) -> None:
    # Given a job that runs as root and looks for them wherever they are in the pod
    script = f"""
        sleep 2
        echo helpers: {HELPERS} > output
        for helper in {HELPERS}; do
            cat /proc/$helper/environ /proc/$helper/root{TOKENS}/asked /proc/$helper/cwd{TOKENS}/asked
            grep -a . /proc/$helper/mem
        done >> output 2>> output
        cat {TOKENS}/asked >> output 2>> output
        ln -s {TOKENS}/asked link
    """
    name = kubernetes_bench.ended(shell(script))

    # I expect that it has found the helper, and nothing else
    tokens = tokens_of(kubernetes_bench, name)
    found = content(kubernetes_bench, name, "/workspace/output")
    assert found.split(b"\n")[0].removeprefix(b"helpers: ").strip().isdigit()
    assert len(tokens) == 2
    assert not [token for token in tokens if token in found]
    assert content(kubernetes_bench, name, "/workspace/link") == b""
    assert kubernetes_bench.engine.stat(name, "/workspace/link") == Stat(len(TOKENS) + 6, "symlink")


def test_a_job_cannot_take_the_port_of_its_helper(kubernetes_bench: KubernetesBench) -> None:
    name = kubernetes_bench.ended(shell(f"nc -l -p {PORT} 2> output || true"))

    assert b"in use" in content(kubernetes_bench, name, "/workspace/output")


def test_a_job_that_kills_its_helper_loses_its_outputs(kubernetes_bench: KubernetesBench) -> None:
    name = kubernetes_bench.started(shell(f"sleep 1; kill -9 {HELPERS}; printf x > output; sleep 2; exit 3"))
    kubernetes_bench.engine.wait(name, Interrupt(), timeout=60)

    for _ in range(2):
        with pytest.raises(EngineRefused, match="the helper of the pod"):
            kubernetes_bench.engine.stat(name, "/workspace/output")
    assert kubernetes_bench.engine.inspect(name).exit_code == 3


def test_a_job_that_has_killed_its_helper_is_stopped(kubernetes_bench: KubernetesBench) -> None:
    name = kubernetes_bench.started(shell(f"sleep 1; kill -9 {HELPERS}; sleep 1000"), stop_grace_seconds=2)
    wait_for(lambda: "terminated" in container_state(kubernetes_bench.namespace.pod_of(name), "outputs"))

    kubernetes_bench.engine.stop(name, 2)

    assert kubernetes_bench.engine.inspect(name).phase == "ended"


def test_outputs_are_read_after_a_stop(kubernetes_bench: KubernetesBench) -> None:
    name = kubernetes_bench.started(shell("trap 'echo stopped >> output; exit 5' TERM; echo begun > output; sleep 1000 & wait"))
    wait_for(lambda: kubernetes_bench.engine.stat(name, "/workspace/output"))

    kubernetes_bench.engine.stop(name, 20)

    assert kubernetes_bench.engine.inspect(name).exit_code == 5
    assert content(kubernetes_bench, name, "/workspace/output") == b"begun\nstopped\n"


def test_a_removed_pod_takes_its_outputs_with_it(kubernetes_bench: KubernetesBench) -> None:
    # Given a pod that the cluster has removed after the end of its process, as an eviction does
    namespace = kubernetes_bench.namespace
    name = kubernetes_bench.ended(shell("printf x > output"))
    pod = namespace.pod_of(name)["metadata"]["name"]
    namespace.admin("DELETE", namespace.path("pods", pod))
    wait_for(lambda: all(one["metadata"]["name"] != pod for one in namespace.pods()), what="its deletion")

    # I expect a reason that will not pass
    with pytest.raises(EngineRefused, match="the pod has ended or was removed"):
        kubernetes_bench.engine.stat(name, "/workspace/output")


def test_outputs_wait_for_a_helper_whose_image_cannot_be_pulled(kubernetes_bench: KubernetesBench) -> None:
    kubernetes_bench.engine.close()
    kubernetes_bench.engine = kubernetes_bench.another_engine(helper_image="127.0.0.1:1/none:1")
    name = kubernetes_bench.ended(shell("sleep 2; exit 3"), has_inputs=False)

    assert kubernetes_bench.engine.inspect(name).exit_code == 3
    with pytest.raises(EngineUnavailable, match=r"the container outputs of the pod.*(ErrImagePull|ImagePullBackOff)"):
        kubernetes_bench.engine.stat(name, "/workspace")
