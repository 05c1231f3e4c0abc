"""Periods and time-outs are in `intervals.py` only, and each of them is used."""

import ast
import dataclasses
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from orchestrator_site.base import intervals

pytestmark = pytest.mark.stateless

ROOT = Path(__file__).resolve().parents[3]
EXEMPT = {
    "orchestrator_site/base/intervals.py",
    "jobs/api/limits.py",  # what requests may contain
}
SOURCES = [
    path
    for package in ("orchestrator_site", "jobs", "callbacks")
    for path in sorted((ROOT / package).rglob("*.py"))
    if "migrations" not in path.parts and str(path.relative_to(ROOT)) not in EXEMPT
]
NAME_OF_A_PERIOD = re.compile(
    r"(?:^|_)(?:(?:milli)?seconds|minutes|hours|days|timeout|interval|period|pause|delay|lease|wait|lifetime|grace|age)s?(?:_|$)",
    re.IGNORECASE,
)
WAITING = {"wait", "sleep", "join", "select", "Timer"}  # functions whose first argument is a number of seconds
CHECKED_SPEC = (
    "RunSpec(name='orchestrator-check', image='image', command=('true',), environment={}, workspace='/workspace', cpu_millis=1, "
    "memory_mib=1, network='bridge', labels={}, stop_grace_seconds=1, log_limit_bytes=1, disk_limit_bytes=1, timeout_seconds=1)"
)
ALLOWED = {
    ("callbacks/admin/destination_pages.py", "timedelta(days=1)"): "the initial value of a form",
    ("jobs/admin/job_facts.py", "_SHORT_SECONDS: Final = 1.0"): "nothing waits for it: which jobs are shown without an average",
    (
        "jobs/engine/kubernetes/manifest/job_creation.py",
        CHECKED_SPEC,
    ): "no such Job is made",
    ("orchestrator_site/base/db/bounded_connections.py", "interval: float"): "the signature of psycopg",
}


@cache
def texts() -> list[str]:
    return [path.read_text() for path in SOURCES]


def is_name_of_a_period(name: str) -> bool:
    return bool(NAME_OF_A_PERIOD.search(name)) and not name.lower().endswith("_bytes")


def is_number(node: ast.expr | None) -> bool:
    """Return whether an expression consists of numbers other than 0 only."""
    match node:
        case ast.Constant(value=int() | float() as value):
            return not isinstance(value, bool) and value != 0
        case ast.UnaryOp(operand=operand):
            return is_number(operand)
        case ast.BinOp(left=left, right=right):
            return is_number(left) and is_number(right)
        case ast.Tuple(elts=items) | ast.List(elts=items):
            return any(is_number(item) for item in items)
    return False


def periods_in(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield constants, defaults of parameters and arguments that are periods."""
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) | ast.AnnAssign(target=ast.Name(id=name), value=value):
                if is_name_of_a_period(name) and is_number(value):
                    yield node
            case ast.arguments():
                positional = [*node.posonlyargs, *node.args]
                defaults = [None] * (len(positional) - len(node.defaults)) + [*node.defaults]
                for argument, default in zip([*positional, *node.kwonlyargs], [*defaults, *node.kw_defaults], strict=True):
                    if is_name_of_a_period(argument.arg) and is_number(default):
                        yield argument
            case ast.Call(func=function, args=arguments, keywords=keywords):
                name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
                by_position = arguments[:1] if name in WAITING else arguments if name == "timedelta" else []
                by_name = [
                    keyword.value
                    for keyword in keywords
                    if name == "timedelta" or (keyword.arg and is_name_of_a_period(keyword.arg))
                ]
                if any(is_number(argument) for argument in (*by_position, *by_name)):
                    yield node


def test_periods_are_in_one_module() -> None:
    found = {
        (str(path.relative_to(ROOT)), ast.unparse(node)) for path in SOURCES for node in periods_in(ast.parse(path.read_text()))
    }
    assert found - ALLOWED.keys() == set()
    assert ALLOWED.keys() - found == set()


@pytest.mark.parametrize(
    "line",
    [
        "RETRY_SECONDS = 5.0",
        "_TIMEOUT: Final = 2 * 60",
        "pauses = (1, 2)",
        "def call(url, timeout=5): ...",
        "def call(*, pause: float = 0.5): ...",
        "requests.get(url, timeout=(5, 10))",
        "event.wait(3)",
        "timedelta(seconds=30)",
        "timedelta(1)",
    ],
)
def test_a_period_is_recognised(line: str) -> None:
    assert list(periods_in(ast.parse(line)))


FIELDS = [
    (name, field.name)
    for name, kind in vars(intervals).items()
    if dataclasses.is_dataclass(kind)
    for field in dataclasses.fields(kind)
]


@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_each_period_is_used(kind: str, field: str) -> None:
    """A part reads an attribute of its intervals; if another class has the same field, it also names the class."""
    is_unique = [name for _, name in FIELDS].count(field) == 1
    names_class = re.compile("" if is_unique else rf"\b(?:{kind}|JobIntervals)\b")
    reads_field = re.compile(rf"intervals(?:\(\))?(?:\.\w+)?\.{field}\b", re.IGNORECASE)
    naming = [text for text in texts() if field in text]  # hardly any do, and this is much quicker than an expression
    assert any(names_class.search(text) and reads_field.search(text) for text in naming), f"nothing reads {kind}.{field}"
