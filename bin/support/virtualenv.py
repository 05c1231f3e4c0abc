"""Make `.venv/` from the pinned requirements: `virtualenv.py ready|make run|test|maintenance`.

Runs on the system's Python before anything is installed, so it uses the standard library only. `ready` exits with 0 if
there is nothing to do. A stamp is written last, so an interrupted installation is never considered complete. A lock on
the repository's directory lets one of several commands install while the others wait.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
VENV = ROOT / ".venv"
UNDER_WAY = VENV / ".installing"
_RUN = [ROOT / "requirements.txt"]
_TEST = [*_RUN, ROOT / "tests" / "requirements.txt"]
_MAINTENANCE = [*_TEST, ROOT / "bin" / "support" / "dependencies" / "requirements.txt"]
REQUIREMENTS = {"run": _RUN, "test": _TEST, "maintenance": _MAINTENANCE}  # each has all of the one before
# Only files whose hashes are in the requirements. What builds a source distribution would be installed unchecked.
PIP_OPTIONS = ["--require-hashes", "--only-binary", ":all:"]
INSTALL_SECONDS = 1800


def wanted(kind: str) -> str:
    """Return a hash of everything that an installation depends on, including its path, which is in its scripts."""
    parts = [str(ROOT).encode(), *(path.read_bytes() for path in REQUIREMENTS[kind])]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def stamp(kind: str) -> Path:
    return VENV / f".installed-{kind}"


def is_ready(kind: str) -> bool:
    try:
        return stamp(kind).read_text() == wanted(kind) and not UNDER_WAY.exists()
    except FileNotFoundError:
        return False


def is_usable() -> bool:
    """Return whether the environment can be updated: no installation was interrupted, and its interpreter still works."""
    if UNDER_WAY.exists():
        return False
    try:
        pip = subprocess.run([VENV / "bin" / "python", "-m", "pip", "--version"], capture_output=True, timeout=60, check=False)
        return pip.returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def install(kind: str) -> None:
    """Install the requirements. Raise `CalledProcessError` or `TimeoutExpired`; pip has printed the reason."""
    # Settings for another directory would install the packages there.
    environment = {name: value for name, value in os.environ.items() if name not in ("PIP_USER", "PIP_TARGET", "PIP_PREFIX")}
    if not is_usable():
        VENV.mkdir(exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], env=environment, check=True, timeout=300)
    UNDER_WAY.touch()
    for outdated in REQUIREMENTS:
        stamp(outdated).unlink(missing_ok=True)
    files = [argument for path in REQUIREMENTS[kind] for argument in ("-r", path)]
    subprocess.run(
        [VENV / "bin" / "python", "-m", "pip", "install", "--quiet", *PIP_OPTIONS, *files],
        env=environment,
        check=True,
        timeout=INSTALL_SECONDS,
    )
    for done, files_of_done in REQUIREMENTS.items():
        if set(files_of_done) <= set(REQUIREMENTS[kind]):
            stamp(done).write_text(wanted(done))
    UNDER_WAY.unlink()


def make(kind: str) -> None:
    directory = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        if not is_ready(kind):
            print("Installing the pinned requirements into .venv (the first time only) ...", file=sys.stderr, flush=True)
            install(kind)
    finally:
        os.close(directory)


def main() -> int:
    action, kind = sys.argv[1:]
    if action == "ready":
        return 0 if is_ready(kind) else 1
    try:
        make(kind)
    except KeyboardInterrupt:
        return 130
    except PermissionError:
        print(f".venv must be set up by a user who may write to it: run {ROOT}/bin/setup as that user.", file=sys.stderr)
        return 1
    except (OSError, subprocess.SubprocessError) as error:
        print(f".venv cannot be created ({error}): see the output of pip above, and try again.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
