"""Translates between the engine's JSON descriptions of containers and `jobs.engine.protocol`."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from jobs.engine import container_init
from jobs.engine.protocol import Observation, Phase, RunSpec
from jobs.engine.pullable_reference import parse_reference

PIDS_LIMIT: Final = 1024

# All that ordinary images need as root (docs/adr/0002-container-privileges.md).
CAPABILITIES: Final = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID")

# If the whole host runs out of memory, the kernel prefers a process of a job to one of the engine or of this service.
_OOM_SCORE: Final = 500

_LOG_FILES = 2


def creation_body(spec: RunSpec, init_holder: str = "") -> dict[str, Any]:
    """Return the body of `POST /containers/create`.

    The process runs under the init in the volume of the container `init_holder`, which requires `spec.command`; without a
    holder it runs under Docker's init. Raise `ImageUnavailable` for a malformed reference.
    """
    memory = spec.memory_mib * 1024**2
    body: dict[str, Any] = {
        "Image": parse_reference(spec.image).text,
        "Env": [f"{name}={value}" for name, value in spec.environment.items()],
        "WorkingDir": spec.workspace,
        "Labels": spec.labels,
        "StopSignal": "SIGTERM",
        "StopTimeout": spec.stop_grace_seconds,
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            # PID 1 ignores SIGTERM: without an init every stop would take the whole grace period.
            "Init": not init_holder,
            "VolumesFrom": [f"{init_holder}:ro"] if init_holder else [],
            "NanoCpus": spec.cpu_millis * 1_000_000,
            "Memory": memory,
            "MemorySwap": memory,  # memory and swap together: no swap
            "OomScoreAdj": _OOM_SCORE,
            "PidsLimit": PIDS_LIMIT,
            "IpcMode": "private",  # an engine may be set up to share it
            "CapDrop": ["ALL"],
            "CapAdd": list(CAPABILITIES),
            "SecurityOpt": ["no-new-privileges"],
            "NetworkMode": f"container:{spec.sandbox}" if spec.sandbox else spec.network or "none",
            "LogConfig": {
                "Type": "local",  # json-file does not keep bytes (docs/adr/0010-logs-are-kept-by-the-local-driver.md)
                "Config": {
                    "max-size": str(max(spec.log_limit_bytes // _LOG_FILES, 1)),
                    "max-file": str(_LOG_FILES),
                    "compress": "false",
                },
            },
            "RestartPolicy": {"Name": "no"},
            "AutoRemove": False,
        },
    }
    if spec.command is not None:
        body |= {"Entrypoint": [*([container_init.COMMAND] if init_holder else []), *spec.command], "Cmd": []}
    return body


def observation(inspected: Mapping[str, Any]) -> Observation:
    """Return the state of a container, given the answer to `GET /containers/<name>/json`."""
    state = inspected["State"]
    started_at, finished_at = parse_time(state["StartedAt"]), parse_time(state["FinishedAt"])
    # If a daemon was killed while it started a container, and the next one found the process alive, only its end is recorded.
    phase: Phase = "running" if state["Running"] else "ended" if started_at or finished_at else "created"
    ended = phase == "ended"
    if started_at and finished_at:  # the start is recorded when the runtime returns, by which time a short process has ended
        finished_at = max(started_at, finished_at)
    return Observation(
        name=inspected["Name"].lstrip("/"),
        phase=phase,
        created_at=parse_time(inspected["Created"]) or datetime.fromtimestamp(0, UTC),
        started_at=started_at,
        finished_at=finished_at if ended else None,
        exit_code=state["ExitCode"] if ended else None,
        oom_killed=bool(state["OOMKilled"]),
        labels=inspected["Config"].get("Labels") or {},
    )


def listed_observation(summary: Mapping[str, Any]) -> Observation | None:
    """Return the state of a container, given an item of `GET /containers/json`, or None if it is just being removed."""
    names = summary.get("Names") or []
    if not names:
        return None
    state = summary["State"]
    phase: Phase = "created" if state == "created" else "running" if state in ("running", "paused", "restarting") else "ended"
    return Observation(
        name=names[0].lstrip("/"),
        phase=phase,
        created_at=datetime.fromtimestamp(summary["Created"], UTC),
        labels=summary.get("Labels") or {},
    )


def parse_time(text: str) -> datetime | None:
    """Return the time in an RFC 3339 text, or None for Go's zero time, which means never."""
    return None if text.startswith("0001-") else datetime.fromisoformat(text).astimezone(UTC)
