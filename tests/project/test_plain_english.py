"""Texts that people read use the field's usual words."""

import ast
import re
import subprocess
import tokenize
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.stateless

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ("jobs", "callbacks", "orchestrator_site", "bin")
PHRASES = {  # what to avoid: what to write
    r"(?<!there )\b(?:is|are) no (?!longer\b|more\b|other\b)": "is not a",
    r"\b(?:some|every)body\b|\bnobody\b(?! *:|$)": "name who or what it is",
    r"(?<!, )\bwhoever\b": "name who or what it is",
    r"\bso (?:many|few)\b": "the number",
    r"\bsay since\b": "`since` is required",
    r"(?:^|[.:;,] )(?-i:write an? )": "must be a",
    r"\b(?:is|are|be|for) well\b": "healthy",
    r"\b(?:tell|tells|told) of\b": "report, publish, notify",
    r"\bbur(?:y|ies|ied)\b": "delete, end",
    r"\b(?:take|takes|taken|took) up\b": "claim, adopt",
    r"\b(?:come|comes|came) to nothing\b": "fail",
    r"\bspeaks? of\b": "name, refer to",
    r"\bamid\b": "in the middle of",
    r"\bas ever\b": "as usual, as before",
    r"\bshall\b": "must, should",
    r"\bbehind (?:our|its|their) backs?\b": "by hand, from outside",
    r"\ball the while\b": "during that time",
    r"\bhand(?:s|ed)? on\b": "pass to",
    r"\bservice's own to\b": "set by the service",
    r"\bnothing at this address\b": "not found",
    r"\bwhere (?:it|there|one) is (?:no|none|one|not)\b": "if",
}
ANY_PHRASE = re.compile("|".join(PHRASES), re.IGNORECASE)


def tracked(*endings: str) -> list[Path]:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return [ROOT / file for file in files if file.endswith(endings)]


def modules() -> list[Path]:
    return [path for path in tracked(".py") if "migrations" not in path.parts and path != Path(__file__)]


@cache
def constants(path: Path) -> list[tuple[bool, str]]:
    """Return the string constants of a module, and whether each is a docstring."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    statements = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    return [
        (id(node) in statements, node.value) for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def strings(paths: list[Path], *, docstrings: bool) -> Iterator[tuple[Path, str]]:
    """Yield the string constants of the modules, either their docstrings or the others."""
    for path in paths:
        for is_docstring, text in constants(path):
            if is_docstring == docstrings:
                yield path, text


def comments() -> Iterator[tuple[Path, str]]:
    """Yield the comments of the modules that may have one with a phrase: to find comments exactly takes long."""
    for path in modules():
        if not any(ANY_PHRASE.search(line, line.index("#")) for line in path.read_text().splitlines() if "#" in line):
            continue
        with path.open("rb") as file:
            for token in tokenize.tokenize(file.readline):
                if token.type == tokenize.COMMENT:
                    yield path, token.string


def documents() -> Iterator[tuple[Path, str]]:
    """Yield each document without the programs that it shows."""
    for path in tracked(".md"):
        yield path, re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)


def quaint(texts: Iterable[tuple[Path, str]]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}: {' '.join(text[max(0, found.start() - 40) : found.end() + 40].split())!r} ({better})"
        for path, text in texts
        if ANY_PHRASE.search(text)  # most have none: one search is quicker than twenty
        for phrase, better in PHRASES.items()
        for found in re.finditer(phrase, text, re.IGNORECASE)
    ]


def test_documents_use_plain_words() -> None:
    assert quaint(documents()) == []


def test_texts_of_the_product_use_plain_words() -> None:
    product = [path for path in modules() if path.relative_to(ROOT).parts[0] in PRODUCT]

    assert quaint(strings(product, docstrings=False)) == []


def test_docstrings_use_plain_words() -> None:
    assert quaint(strings(modules(), docstrings=True)) == []


def test_comments_use_plain_words() -> None:
    assert quaint(comments()) == []
