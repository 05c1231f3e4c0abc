"""A program that posts the bodies of up to 1 MiB that take most memory, two of each at once, and prints how much.

One line per body: its name, by how many bytes the process grew at most, and how many of them it kept. Run by
`test_body_memory.py` in a process of its own: `python -m tests.site.base.http.body_memory`.
"""

from concurrent.futures import ThreadPoolExecutor

import django
from django.test import Client

from orchestrator_site.base.http.body_limit import MAX_BODY_BYTES
from orchestrator_site.base.http.json_body import MAX_DEPTH
from tests.helpers.memory import peak, reset_peak, resident

AT_ONCE = 2


def repeated(opening: str, value: str, closing: str) -> bytes:
    """Return JSON that fills a body with repetitions of a value."""
    room = MAX_BODY_BYTES - len((opening + closing).encode()) - len(value.encode())
    body = (opening + ",".join([value] * (room // (len(value.encode()) + 1) + 1)) + closing).encode()
    assert 0.9 * MAX_BODY_BYTES < len(body) <= MAX_BODY_BYTES
    return body


# As deep as allowed, below names that make the longest possible path.
_NAMES = "".join(f'{{"{chr(0x1F600) * 128}":' for _ in range(MAX_DEPTH - 2))
_DEEP = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)

BODIES = {
    "members": repeated("[", '{"":0}', "]"),
    "nested": repeated("[", _DEEP, "]"),
    "below long names": repeated(_NAMES + "[", "0", "]" + "}" * (MAX_DEPTH - 2)),
    "names twice": repeated("[", '{"":0,"":0}', "]"),
    "a command": repeated('{"image": "-", "command": [', '""', "]}"),
    "headers": (
        '{"image": "a", "outputs": [{"type": "upload", "path": "a", "url": "http://a", "headers": {'
        + ",".join(f'"{number:05x}":""' for number in range(MAX_BODY_BYTES // 12))
        + ',"a b":""}}]}'
    ).encode(),
}


def main() -> None:
    django.setup()
    client = Client(SERVER_NAME="localhost")
    assert client.get("/v1/unknown").status_code == 404  # loads what is loaded once
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for name, body in BODIES.items():
            before = reset_peak()
            posts = [threads.submit(client.post, "/v1/jobs", body, content_type="application/json") for _ in range(AT_ONCE)]
            answers = [post.result() for post in posts]
            assert {answer.status_code for answer in answers} == {400}, answers[0].content
            del posts, answers
            print(name, peak() - before, resident() - before, sep="\t")


if __name__ == "__main__":
    main()
