"""The memory of this process, in bytes."""

from pathlib import Path


def reset_peak() -> int:
    """Reset `peak`; return the resident memory. (`ru_maxrss` cannot be reset, and starts at that of the parent.)"""
    Path("/proc/self/clear_refs").write_text("5")
    return resident()


def resident() -> int:
    return _status("VmRSS")


def peak() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
