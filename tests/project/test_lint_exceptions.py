"""Every exception from ruff's security rules says why it is one."""

import re
import subprocess
from typing import Final

import pytest

from tests.project.commands import ROOT

pytestmark = pytest.mark.stateless

EXCEPTION: Final = re.compile(r"#\s*noqa(?!:)|#\s*noqa:(?=[^#-]*\bS\d{3})[A-Z0-9, ]+(?P<reason>- .+)?")


def test_every_exception_from_a_security_rule_has_a_reason() -> None:
    # Given all code, and in it the comments that turn off a security rule, or all rules
    listed = subprocess.run(["git", "ls-files", "-z", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    exceptions = [
        (f"{name}:{number}", found["reason"])
        for name in listed.split("\0")[:-1]
        if name != "tests/project/test_lint_exceptions.py"
        for number, line in enumerate((ROOT / name).read_text().splitlines(), start=1)
        if (found := EXCEPTION.search(line))
    ]

    # I expect a reason behind each, and all rules to stay on
    assert exceptions
    assert [place for place, reason in exceptions if not reason] == []
