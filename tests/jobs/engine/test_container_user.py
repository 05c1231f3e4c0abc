"""The numeric user of an image."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.engine import container_user
from jobs.engine.protocol import User

pytestmark = pytest.mark.stateless


PASSWD = "root:x:0:0:root:/root:/bin/sh\nbroken\n\napp:x:1000:1001::/:/bin/sh\n2000:x:5:6::/:/bin/sh\nbad:x:one:two::/:\n"
GROUP = "root:x:0:\nstaff:x:50:app\n"


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", User(0, 0)),
        ("app", User(1000, 1001)),
        ("1000", User(1000, 1001)),
        ("2000", User(2000, 0)),  # a number is never looked up as a name
        ("app:staff", User(1000, 50)),
        ("app:7", User(1000, 7)),
        (":staff", User(0, 50)),
        ("42:43", User(42, 43)),
        ("nobody", container_user.ROOT),
        ("app:nogroup", container_user.ROOT),
        ("bad", container_user.ROOT),
        ("4294967296", container_user.ROOT),
    ],
)
def test_users_are_read_as_the_runtime_reads_them(user: str, expected: User) -> None:
    files = {"/etc/passwd": PASSWD, "/etc/group": GROUP}

    assert container_user.resolve(user, files.__getitem__) == expected


@given(st.text(max_size=30), st.text(max_size=200), st.text(max_size=200))
def test_every_image_has_a_user(user: str, passwd: str, group: str) -> None:
    files = {"/etc/passwd": passwd, "/etc/group": group}

    found = container_user.resolve(user, files.__getitem__)

    assert 0 <= found.uid < 2**31
    assert 0 <= found.gid < 2**31
