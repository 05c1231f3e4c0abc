"""A run as Docker wants it described, and what Docker says of a container in our words."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from jobs.engine.docker import init
from jobs.engine.protocol import Observation, Phase, RunSpec
from jobs.engine.pullable_reference import parse_reference

PIDS_LIMIT: Final = 1024

# What ordinary images need as root and no more (docs/adr/0002-container-privileges.md).
CAPABILITIES: Final = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID")

_LOG_FILES = 2


def description(spec: RunSpec, init_holder: str = "") -> dict[str, Any]:
    """The body of `POST /containers/create`. Raises `ImageUnavailable` for a malformed reference.

    The process runs under the init of the container `init_holder`, which needs `spec.command`; without one, under Docker's.
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
            # PID 1 ignores SIGTERM: without an init every stop would wait the whole grace.
            "Init": not init_holder,
            "VolumesFrom": [f"{init_holder}:ro"] if init_holder else [],
            "NanoCpus": spec.cpu_millis * 1_000_000,
            "Memory": memory,
            "MemorySwap": memory,  # memory and swap together: no swap
            "PidsLimit": PIDS_LIMIT,
            "CapDrop": ["ALL"],
            "CapAdd": list(CAPABILITIES),
            "SecurityOpt": ["no-new-privileges"],
            "NetworkMode": spec.network or "none",
            "LogConfig": {
                "Type": "local",  # json-file keeps text, not bytes (docs/adr/0010-logs-are-kept-by-the-local-driver.md)
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
        body |= {"Entrypoint": [*([init.COMMAND] if init_holder else []), *spec.command], "Cmd": []}
    return body


def observation(inspected: Mapping[str, Any]) -> Observation:
    """From `GET /containers/<name>/json`."""
    state = inspected["State"]
    started_at, finished_at = moment(state["StartedAt"]), moment(state["FinishedAt"])
    # One whose daemon was killed while it started it, and that the next one found alive, has no start, but an end.
    phase: Phase = "running" if state["Running"] else "ended" if started_at or finished_at else "created"
    ended = phase == "ended"
    if started_at and finished_at:  # the start is noted once the runtime has returned: a short process has ended before
        finished_at = max(started_at, finished_at)
    return Observation(
        name=inspected["Name"].lstrip("/"),
        phase=phase,
        created_at=moment(inspected["Created"]) or datetime.fromtimestamp(0, UTC),
        started_at=started_at,
        finished_at=finished_at if ended else None,
        exit_code=state["ExitCode"] if ended else None,
        oom_killed=bool(state["OOMKilled"]),
        labels=inspected["Config"].get("Labels") or {},
    )


def listed(summary: Mapping[str, Any]) -> Observation | None:
    """From an element of `GET /containers/json`; None for one that is losing its name just now."""
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


def moment(text: str) -> datetime | None:
    """RFC 3339 as Go writes it; its zero time means never."""
    return None if text.startswith("0001-") else datetime.fromisoformat(text).astimezone(UTC)
