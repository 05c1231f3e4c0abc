"""Archives of engines in place of a file."""

import tarfile

import pytest

from jobs.errors import EngineRefused
from jobs.transfers import tar_files

pytestmark = pytest.mark.stateless


@pytest.mark.parametrize("kind", [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, b"?"])
def test_what_is_not_a_regular_file_is_no_empty_file(kind: bytes) -> None:
    entry = tarfile.TarInfo("a")
    entry.type, entry.linkname = kind, "/etc/passwd"
    with pytest.raises(EngineRefused, match="without a regular file"):
        tar_files.unpack(iter([entry.tobuf(), bytes(1024)]))
