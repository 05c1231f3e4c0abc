"""What the documents show works when it is copied."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from callbacks import signing
from jobs.api.new_job import read_job

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
USAGE = (ROOT / "docs" / "usage.md").read_text()
POSTED = re.compile(r"-d '(\{.*?\n\})'", re.DOTALL)
WHOLE = re.compile(r"Everything a job can have:\n\n```json\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("body", [*POSTED.findall(README), *POSTED.findall(USAGE), *WHOLE.findall(USAGE)])
def test_jobs_that_are_shown_are_accepted(body: str) -> None:
    assert read_job(json.loads(body)).image


def test_the_example_tells_our_signatures_from_others() -> None:
    # Given the example, and a request that is signed
    [example] = [code for code in re.findall(r"```python\n(.*?)```", USAGE, re.DOTALL) if "def is_ours" in code]
    names: dict[str, Any] = {}
    exec(example, names)
    headers = signing.headers(["whsec_c2VjcmV0"], "id", 1, b"{}")

    # I expect it to take that request, and no other
    assert names["is_ours"]("whsec_c2VjcmV0", b"{}", headers)
    assert not names["is_ours"]("whsec_c2VjcmV0", b"[]", headers)
