"""An image with one static program of ours, loaded into the engine from memory: no registry and no compiler is needed."""

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from jobs.engine.docker.transport import EngineClient
from jobs.errors import EngineInTrouble

_ARCHITECTURES: Final = ("amd64", "arm64")  # Docker's names


@dataclass(frozen=True, slots=True)
class ProgramImage:
    """An image that contains the file `source`-<architecture> as the program `path`."""

    repository: str
    path: str
    source: Path

    def binary(self, architecture: str) -> bytes:
        """Return the program for that architecture, empty if there is none."""
        return self.source.with_name(f"{self.source.name}-{architecture}").read_bytes() if architecture in _ARCHITECTURES else b""

    def version(self, architecture: str) -> str:
        """Return a name for the content of the image, empty if there is no program for that architecture."""
        return hashlib.sha256(self._layer(architecture)).hexdigest()[:12] if self.binary(architecture) else ""

    def reference(self, architecture: str) -> str:
        """Return the image's name on the engine."""
        return f"{self.repository}:{self.version(architecture)}"

    def load(self, client: EngineClient, architecture: str) -> None:
        """Load the image into an engine. Raise `EngineInTrouble` if the engine refuses it."""
        archive = self.archive(architecture)
        answer = client.upload("/images/load", method="POST", params={"quiet": "1"}, chunks=[archive])
        # Once the engine has begun to read, it answers 200 and reports errors in the body.
        reported = answer.data.get("error") if isinstance(answer.data, dict) else None
        error = answer.message or reported
        if error:
            raise EngineInTrouble(f"the image {self.repository} cannot be loaded: {error}")

    def archive(self, architecture: str) -> bytes:
        """Return the image as `docker save` writes it: always the same bytes, so that loading it twice makes one image."""
        layer = self._layer(architecture)
        configuration = json.dumps(
            {
                "architecture": architecture,
                "os": "linux",
                "created": "1970-01-01T00:00:00Z",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
            }
        ).encode()
        name = f"{hashlib.sha256(configuration).hexdigest()}.json"
        manifest = [{"Config": name, "RepoTags": [self.reference(architecture)], "Layers": ["layer.tar"]}]
        return _tar({name: configuration, "layer.tar": layer, "manifest.json": json.dumps(manifest).encode()})

    def _layer(self, architecture: str) -> bytes:
        path = PurePosixPath(self.path.lstrip("/"))
        directories = [str(parent) for parent in reversed(path.parents[:-1])]
        return _tar({**dict.fromkeys(directories), str(path): self.binary(architecture)})


def _tar(entries: dict[str, bytes | None]) -> bytes:
    """Return a tar archive of files and directories (None) that all users may read and execute."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in entries.items():
            member = tarfile.TarInfo(name)
            member.mode = 0o755
            member.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            member.size = len(content or b"")
            tar.addfile(member, io.BytesIO(content or b""))
    return archive.getvalue()
