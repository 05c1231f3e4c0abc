"""A directory as the file system of a container: paths and symbolic links do not lead out of it."""

import os
import posixpath
import shutil
import stat
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from jobs.engine.docker.start_errors import WORKSPACE_IS_NOT_A_DIRECTORY
from jobs.engine.protocol import Stat
from jobs.engine.tar_chunks import ChunkReader
from jobs.errors import EngineRefused, EngineUnavailable, PathNotFound

_CHUNK_BYTES: Final = 64 * 1024
_MAX_LINK_HOPS: Final = 40


class FileTree:
    """The files of one container. Owners are remembered instead of set, so that tests do not need root."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._owners: dict[str, tuple[int, int]] = {}

    def real_path(self, path: str, *, follow_last: bool = True) -> str:
        """Return a path with its symbolic links resolved inside the tree. Raises `PathNotFound` if they form a cycle."""
        real, rest = "/", path
        for _ in range(_MAX_LINK_HOPS):
            while rest:
                component, _, rest = rest.lstrip("/").partition("/")
                step = posixpath.normpath(posixpath.join(real, component))
                if (rest.strip("/") or follow_last) and self.host(step).is_symlink():
                    rest = posixpath.join(real, os.readlink(self.host(step))) + "/" + rest
                    real = "/"
                    break
                real = step
            else:
                return real
        raise PathNotFound(f"too many links in {path}")

    def host(self, real: str) -> Path:
        """Return where a real path is on this machine. Raise `ValueError` if it leads out of the tree, so is not real."""
        path = self._root / real.lstrip("/")
        if ".." in path.parts or not (path == self._root or path.parent.resolve().is_relative_to(self._root)):
            raise ValueError(f"{real} leads out of the container")
        return path

    def stat(self, path: str) -> Stat | None:
        """See `Engine.stat`."""
        try:
            found = self.host(self.real_path(path, follow_last=False)).lstat()
        except (FileNotFoundError, NotADirectoryError, PathNotFound):
            return None
        kinds = ((stat.S_ISREG, "file"), (stat.S_ISDIR, "directory"), (stat.S_ISLNK, "symlink"))
        kind = next((kind for is_kind, kind in kinds if is_kind(found.st_mode)), "other")
        return Stat(size=found.st_size, kind=kind)  # type: ignore[arg-type]

    def make_directory(self, path: str) -> str:
        """Create a directory and its parents if they are missing, and return its real path. Raises `EngineRefused`."""
        real = self.real_path(path)
        try:
            self.host(real).mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise EngineRefused(WORKSPACE_IS_NOT_A_DIRECTORY) from error
        return real

    def add_file(self, path: str, text: str) -> None:
        """Create a file, and its directory if it is missing. Raise `FileExistsError`, also for a symbolic link."""
        with self.host(self._place(path)).open("x") as file:
            file.write(text)

    def add_link(self, path: str, target: str) -> None:
        """Create a symbolic link, and its directory if it is missing. Raise `FileExistsError`."""
        self.host(self._place(path)).symlink_to(target)

    def _place(self, path: str) -> str:
        """Return the real path of something to be created; its directory is created if it is missing."""
        return posixpath.join(self.make_directory(posixpath.dirname(path)), posixpath.basename(path))

    def read_text(self, path: str) -> str:
        """Return the text of a file, empty if it does not exist."""
        try:
            return self.host(self.real_path(path)).read_text(errors="replace")
        except (OSError, PathNotFound):
            return ""

    def directories(self) -> set[str]:
        """Return the real paths of all directories."""
        return {self._name(Path(directory)) for directory, _, _ in os.walk(self._root)}

    def unpack(self, directory: str, chunks: Iterable[bytes]) -> None:
        """See `Engine.put`."""
        real = self.real_path(directory)
        if not self.host(real).is_dir():
            raise PathNotFound(f"there is no directory {directory}")
        try:
            with tarfile.open(fileobj=ChunkReader(chunks), mode="r|") as archive:
                for member in archive:
                    self._unpack_member(archive, member, real)
        except tarfile.TarError as error:
            raise EngineRefused(f"the tar stream cannot be read: {error}") from error

    def _unpack_member(self, archive: tarfile.TarFile, member: tarfile.TarInfo, directory: str) -> None:
        path = posixpath.normpath(posixpath.join(directory, member.name.lstrip("/")))
        real = self._place(path)
        target = self.host(real)
        if target.is_dir() and not target.is_symlink() and not member.isdir():
            raise EngineRefused(f"cannot overwrite the directory {path} with a file")
        if member.isdir() and (target.is_symlink() or target.is_file()):
            raise EngineRefused(f"cannot overwrite non-directory {path} with directory")
        if target.is_symlink() or target.is_file():
            target.unlink()
        if member.isdir():
            target.mkdir(exist_ok=True)
        elif member.issym():
            target.symlink_to(member.linkname)
        else:
            with target.open("wb") as file:
                shutil.copyfileobj(archive.extractfile(member) or open(os.devnull, "rb"), file, _CHUNK_BYTES)  # noqa: SIM115
        if not member.issym():
            target.chmod(member.mode)
        self._owners[real] = (member.uid, member.gid)

    def pack(self, path: str) -> Iterator[bytes]:
        """Return the chunks of a tar archive; see `Engine.get`. Raises `PathNotFound` at once, not at the first chunk."""
        real = self.real_path(path, follow_last=False)
        target = self.host(real)
        if not target.is_symlink() and not target.exists():
            raise PathNotFound(f"there is no {path}")
        return self._packed(target, posixpath.basename(real) or "/")

    def _packed(self, target: Path, name: str) -> Iterator[bytes]:
        yield from self._members(target, name)
        yield bytes(2 * tarfile.BLOCKSIZE)

    def _members(self, target: Path, name: str) -> Iterator[bytes]:
        found = target.lstat()
        member = tarfile.TarInfo(name)
        member.mode, member.mtime = stat.S_IMODE(found.st_mode), found.st_mtime
        member.uid, member.gid = self._owners.get(self._name(target), (0, 0))
        if target.is_symlink():
            member.type, member.linkname = tarfile.SYMTYPE, os.readlink(target)
            yield member.tobuf(tarfile.PAX_FORMAT)
        elif target.is_dir():
            member.type = tarfile.DIRTYPE
            yield member.tobuf(tarfile.PAX_FORMAT)
            for child in sorted(target.iterdir()):
                yield from self._members(child, f"{name}/{child.name}")
        elif stat.S_ISREG(found.st_mode):
            member.size = found.st_size
            yield member.tobuf(tarfile.PAX_FORMAT)
            yield from _content(target, member.size)

    def _name(self, target: Path) -> str:
        return "/" if target == self._root else f"/{target.relative_to(self._root).as_posix()}"


def _content(target: Path, size: int) -> Iterator[bytes]:
    left = size
    with target.open("rb") as file:
        while left:
            chunk = file.read(min(left, _CHUNK_BYTES))
            if not chunk:
                raise EngineUnavailable(f"{target.name} became shorter while it was read")
            left -= len(chunk)
            yield chunk
    yield bytes(-size % tarfile.BLOCKSIZE)
